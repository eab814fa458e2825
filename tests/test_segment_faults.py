"""`vfss segment`: what may go wrong."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import onnx
import pytest

from conftest import Cli, Outcome
from square_models import TASKS, WHO, MovingSquare, make_film, make_model, picture
from test_segment import make_study
from vfss_distill.errors import ModelError
from vfss_distill.inference.canvas import Caption
from vfss_distill.inference.overlay import OverlayWriter
from vfss_distill.inference.pipeline import SegmentOptions, segment_source
from vfss_distill.inference.session import Segmenter, _gpu_is_there
from vfss_distill.tasks import VFSS12

CONSTANT = [index / 30 for index in range(24)]
VARYING = [0.0, 0.033, 0.1, 0.1334, 0.2, 0.5, 0.517, 0.75, 1.9, 2.0]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "runs" / "run-001" / "student.onnx")


def one_line(result: Outcome) -> str:
    assert "Traceback" not in result.stderr
    (line,) = result.stderr.strip().splitlines()
    return line


def make_bad_films(folder: Path) -> list[str]:
    folder.mkdir()
    good = make_film(folder / "good.mp4", CONSTANT).read_bytes()
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "truncated.mp4").write_bytes(good[: len(good) // 3])
    (folder / "text.mp4").write_text("no film at all\n" * 50)
    (folder / "noise.dcm").write_bytes(bytes(128) + b"DICM" + b"\x07" * 500)
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16_000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        sound.sample_rate = 16_000
        container.mux([*stream.encode(sound), *stream.encode(None)])
    return ["empty.mp4", "truncated.mp4", "text.mp4", "noise.dcm", "sound.mp4"]


def test_one_bad_film_never_stops_the_others(cli: Cli, tmp_path: Path, model: Path) -> None:
    bad = make_bad_films(tmp_path / "in")
    words = [f"in/{name}" for name in (*bad[:2], "good.mp4", *bad[2:], "missing.mp4")]
    result = cli("segment", *words, "--json", "--quiet")
    assert result.exit_code == 3
    assert "Traceback" not in result.stderr
    printed = json.loads(result.stdout)
    assert len(printed["studies"]) == 1
    failed = {entry["input"]: entry["error"] for entry in printed["failed"]}
    assert set(failed) == {f"in/{name}" for name in (*bad, "missing.mp4")}
    for name, error in failed.items():
        assert name in result.stderr and error
        assert str(tmp_path) not in error
    assert [path.name for path in (tmp_path / "results").rglob(".partial-*")] == []


def test_a_file_name_that_is_no_text_stops_nothing(cli: Cli, tmp_path: Path, model: Path) -> None:
    good = make_film(tmp_path / "in" / "z.mp4", CONSTANT)
    bad, odd = (
        os.fsdecode(os.fsencode(tmp_path / "in") + name) for name in (b"/a\xff.mp4", b"/b\xff.mp4")
    )
    try:
        Path(bad).write_bytes(b"")
        shutil.copy(good, odd)
    except OSError:
        pytest.skip("this file system wants names in UTF-8")
    result = cli("segment", "in", "--force")
    assert result.exit_code == 3, result.stderr
    assert "in/a\\udcff.mp4" in result.stderr
    assert "in/b\\udcff.mp4 → results/s-" in result.stdout and "in/z.mp4 → " in result.stdout
    printed = json.loads(cli("segment", "in", "--json").stdout)
    assert [os.fsencode(entry["input"]) for entry in printed["failed"]] == [b"in/a\xff.mp4"]


def test_one_damaged_study_stops_neither_films_nor_studies(
    cli: Cli, tmp_path: Path, model: Path
) -> None:
    make_film(tmp_path / "study.mp4", CONSTANT)
    for number in "12":
        make_study(tmp_path, f"p{number}aaaaaaa-111111", f"p{number}aaaaaaa", number * 64)
    record = tmp_path / "studies" / "p1aaaaaaa-111111" / "study.json"
    record.write_text(record.read_text()[:200])
    film = cli("segment", "study.mp4")
    assert film.exit_code == 0, film.stderr
    assert "warning: studies/p1aaaaaaa-111111: not readable as JSON. Put study.json" in film.stderr
    for words in (("--split", "all"), ("studies",)):
        some = cli("segment", *words, "--json", "--force")
        assert some.exit_code == 3
        printed = json.loads(some.stdout)
        assert [entry["study"] for entry in printed["studies"]] == ["p2aaaaaaa-111111"]
        assert [entry["input"] for entry in printed["failed"]] == ["studies/p1aaaaaaa-111111"]
    named = cli("segment", "p1aaaaaaa-111111")
    assert named.exit_code == 4 and "p1aaaaaaa-111111: not readable" in named.stderr


def test_what_a_killed_run_left_is_taken_away(cli: Cli, tmp_path: Path, model: Path) -> None:
    make_film(tmp_path / "study.mp4", CONSTANT)
    for name, age_s in (("old", 7200), ("young", 0)):
        folder = tmp_path / "results" / "s-0" / f".partial-{name}-bright"
        (folder / "masks" / "bright").mkdir(parents=True)
        (folder / "frames.csv").write_text("frame\n")
        for path in (folder, *folder.rglob("*")):
            os.utime(path, (time.time() - age_s,) * 2)
    assert cli("segment", "study.mp4", "--no-overlay").exit_code == 0
    left = [path.name for path in (tmp_path / "results" / "s-0").iterdir()]
    assert left == [".partial-young-bright"]


@pytest.mark.parametrize("pattern", ["results", "results/*", "results/*/*"])
def test_a_folder_of_results_is_no_recording(
    cli: Cli, tmp_path: Path, model: Path, pattern: str
) -> None:
    make_film(tmp_path / "study.mp4", CONSTANT)
    assert cli("segment", "study.mp4").exit_code == 0
    (study,) = (tmp_path / "results").iterdir()
    (folder,) = tmp_path.glob(pattern)
    result = cli("segment", folder.relative_to(tmp_path))
    assert result.exit_code == 4
    assert "holds results, no recording. Name the film itself" in result.stderr
    assert list((tmp_path / "results").iterdir()) == [study]
    assert "study.mp4" in cli("segment", ".", "--force").stdout


def test_a_file_called_results_is_no_fault_of_the_films(
    cli: Cli, tmp_path: Path, model: Path
) -> None:
    make_film(tmp_path / "study.mp4", CONSTANT)
    (tmp_path / "results").write_text("")
    result = cli("segment", "study.mp4")
    assert result.exit_code == 4
    assert one_line(result).startswith("error: results: is no folder")


def test_nothing_but_bad_films(cli: Cli, tmp_path: Path, model: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    result = cli("segment", "empty.mp4")
    assert result.exit_code == 4
    assert "empty.mp4" in one_line(Outcome(4, "", result.stderr.split("\n", 1)[1]))
    assert not (tmp_path / "results").exists() or not any((tmp_path / "results").iterdir())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"vfss__schema_version": None}, "not a model of vfss"),
        ({"vfss__schema_version": "9"}, "schema version 9"),
        ({"vfss__tasks": "{"}, "vfss.tasks"),
        ({"vfss__tasks": json.dumps(VFSS12.to_dict())}, "vfss.thresholds"),
        ({"vfss__image_size": "-1"}, "vfss.image_size"),
        ({"vfss__image_size": "128"}, "do not fit"),
        ({"vfss__thresholds": '{"bright": 2, "never": 0.5}'}, "vfss.thresholds"),
        ({"vfss__letterbox": "stretched"}, "another rule"),
        ({"vfss__name": ""}, "vfss.name"),
        ({"vfss__provenance": '{"untrained_tasks": "bright"}'}, "vfss.provenance"),
    ],
)
def test_model_that_does_not_describe_itself(
    cli: Cli, tmp_path: Path, changed: dict[str, str | None], said: str
) -> None:
    make_film(tmp_path / "study.mp4", CONSTANT)
    make_model(tmp_path / "bad.onnx", **changed)
    result = cli("segment", "study.mp4", "--model", "bad.onnx")
    assert result.exit_code == 5
    line = one_line(result)
    assert "bad.onnx" in line and said in line


def test_file_that_is_no_model(cli: Cli, tmp_path: Path) -> None:
    make_film(tmp_path / "study.mp4", CONSTANT)
    (tmp_path / "text.onnx").write_text("no model")
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name in ("text.onnx", "empty.onnx", "missing.onnx"):
        result = cli("segment", "study.mp4", "--model", name)
        assert result.exit_code == 5
        assert name in one_line(result)


@pytest.mark.parametrize(
    ("file", "remedy"),
    [
        ("student.safetensors", "vfss export noexp"),
        ("config.yaml", "distill --resume --name noexp"),
    ],
)
def test_a_run_without_a_model_says_what_it_lacks(
    cli: Cli, tmp_path: Path, file: str, remedy: str
) -> None:
    make_film(tmp_path / "study.mp4", CONSTANT)
    (tmp_path / "runs" / "noexp").mkdir(parents=True)
    (tmp_path / "runs" / "noexp" / file).write_bytes(b"")
    result = cli("segment", "study.mp4", "--model", "noexp")
    assert result.exit_code == 5 and remedy in one_line(result)


def test_cuda_asked_for_and_not_got(cli: Cli, tmp_path: Path, model: Path) -> None:
    if _gpu_is_there():
        pytest.skip("this machine has a CUDA device")
    make_film(tmp_path / "study.mp4", CONSTANT)
    result = cli("segment", "study.mp4", "--device", "cuda")
    assert result.exit_code == 6
    assert "CUDA" in one_line(result)
    assert Segmenter(model, "auto").provider == "CPUExecutionProvider"


def test_full_disk_leaves_nothing_half(
    cli: Cli, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_film(tmp_path / "study.mp4", CONSTANT)
    make_film(tmp_path / "other.mp4", VARYING)
    assert cli("segment", "other.mp4").exit_code == 0
    kept = sorted(path.name for path in (tmp_path / "results").rglob("*"))
    real = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if self.name == "000007.png":
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return real(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    result = cli("segment", "study.mp4", "--quiet")
    assert result.exit_code == 6
    assert "disk is full" in one_line(result)
    left = [path.name for path in (tmp_path / "results").rglob("*") if path.is_file()]
    assert sorted(left) == [name for name in kept if "." in name and "-" not in name]


def test_full_disk_under_the_overlay(tmp_path: Path, model: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(OSError) as caught:  # noqa: SIM117
        with OverlayWriter(Path("/dev/full"), 96, 128, TASKS, Caption("s", "m")) as film:
            for index in range(300):
                film.add(picture(index), index, index / 30, ())
    assert caught.value.errno == errno.ENOSPC


def test_interrupted_in_the_middle(tmp_path: Path, model: Path) -> None:
    def interrupt(done: int, total: int, words: str) -> None:
        if done == 5:
            raise KeyboardInterrupt

    target = tmp_path / "results" / "s" / "m"
    with pytest.raises(KeyboardInterrupt):
        segment_source(
            MovingSquare(50),
            Segmenter(model, "cpu", 1),
            target,
            SegmentOptions(WHO, tick=interrupt),
        )
    assert not (tmp_path / "results").exists()


def test_segment_imports_no_torch(tmp_path: Path, model: Path) -> None:
    make_film(tmp_path / "study.mp4", CONSTANT)
    code = (
        "import sys, typer\n"
        "from vfss_distill.commands import segment\n"
        "app = typer.Typer()\n"
        "app.callback()(lambda: None)\n"
        "segment.register(app)\n"
        "app(['segment', 'study.mp4'], standalone_mode=False)\n"
        "assert 'onnxruntime' in sys.modules\n"
        "heavy = {'torch', 'torchvision', 'transformers', 'timm', 'onnx'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "onnxruntime" not in done.stderr, "its noise reaches the user"


def test_a_model_that_puts_out_no_numbers(cli: Cli, tmp_path: Path) -> None:
    model = onnx.load(make_model(tmp_path / "m.onnx"))
    steep = next(one for one in model.graph.initializer if one.name == "steep")
    steep.CopyFrom(onnx.numpy_helper.from_array(np.float32(np.nan), "steep"))
    onnx.save(model, tmp_path / "m.onnx")
    for name in ("a.mp4", "b.mp4"):
        make_film(tmp_path / name, [0.0, 0.1, 0.2])
    outcome = cli("segment", "a.mp4", "b.mp4", "--model", "m.onnx", "--quiet")
    assert outcome.exit_code == 5, outcome.stderr
    (line,) = outcome.stderr.splitlines()
    assert "m.onnx" in line and "no maps" in line and "vfss export" in line
    assert not list(tmp_path.glob("results/**/run.json"))


@pytest.mark.parametrize("damage", ["words", "no shape"])
def test_a_model_whose_description_is_damaged(damage: str, cli: Cli, tmp_path: Path) -> None:
    path = make_model(tmp_path / "m.onnx")
    if damage == "words":
        data = path.read_bytes()
        path.write_bytes(data.replace(b"vfss.letterbox", b"vfss.letterbo\xff"))
    else:  # a single number
        model = onnx.load(path)
        steep = next(one for one in model.graph.initializer if one.name == "steep")
        del model.graph.node[:]
        node = onnx.helper.make_node("Identity", [steep.name], ["probabilities"])
        model.graph.node.append(node)
        del model.graph.output[0].type.tensor_type.shape.dim[:]
        onnx.save(model, path)
    make_film(tmp_path / "a.mp4", [0.0, 0.1, 0.2])
    outcome = cli("segment", "a.mp4", "--model", "m.onnx", "--quiet")
    assert outcome.exit_code == 5, outcome.stderr
    (line,) = outcome.stderr.splitlines()
    assert "m.onnx" in line and "vfss export" in line


def test_a_model_whose_weights_lie_beside_it_is_refused(tmp_path: Path, model: Path) -> None:
    # Two such models of other weights would have one digest, and share their results.
    beside = tmp_path / "beside.onnx"
    onnx.save(
        onnx.load(model), beside, save_as_external_data=True, location="b.data", size_threshold=0
    )
    assert (tmp_path / "b.data").is_file()
    with pytest.raises(ModelError, match="lie in another file"):
        Segmenter(beside)


def test_one_frame_is_counted_as_one(cli: Cli, tmp_path: Path, model: Path) -> None:
    make_film(tmp_path / "one.mp4", [0.0])
    done = cli("segment", "one.mp4", cwd=tmp_path)
    assert done.exit_code == 0, done.stderr
    assert "  1 frame, " in done.stdout
