"""`vfss segment`: films in; overlay, masks and table out."""

from __future__ import annotations

import csv
import errno
import json
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from conftest import Cli, Outcome
from vfss_distill.errors import InputError, ModelError, StorageError, WeightsMissing
from vfss_distill.inference.canvas import Canvas, Caption
from vfss_distill.inference.masks import MaskMaker, TaskMask
from vfss_distill.inference.overlay import OverlayWriter, read_times
from vfss_distill.inference.pipeline import SegmentOptions, segment_source
from vfss_distill.inference.record import Subject
from vfss_distill.inference.session import Segmenter, _cuda_works, find_model
from vfss_distill.inference.stream import work_ahead
from vfss_distill.intake.source import Frame, SourceInfo
from vfss_distill.intake.study import StudyRecord, write_frame, write_record
from vfss_distill.letterbox import RULE, Letterbox
from vfss_distill.provenance import sha256_file
from vfss_distill.tasks import VFSS12, Task, TaskSet
from vfss_distill.workspace import Workspace

TASKS = TaskSet(
    "pair", (Task("bright", "bright part", (213, 94, 0)), Task("never", "never", (0, 114, 178)))
)
SIZE = 64
WHO = Subject("s-0123456789", None, "0" * 64)


def make_model(
    path: Path, *, context: int = 0, sources: Sequence[str] = (), **changed: str | None
) -> Path:
    """A model that finds what is brighter than 150, and a task that it never finds.

    With context its channels are (previous frame, next frame), each brighter than 150.
    """
    channels = 1 + 2 * context
    picked = [0, 2] if context else [0, 0]
    levels = np.array([150, 150 if context else 999], np.float32).reshape(1, 2, 1, 1)
    nodes = [
        helper.make_node("Gather", ["frames", "picked"], ["two"], axis=1),
        helper.make_node("Cast", ["two"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["real", "levels"], ["above"]),
        helper.make_node("Mul", ["above", "steep"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        nodes,
        "bright",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["n", channels, SIZE, SIZE])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 2, SIZE, SIZE])],
        [
            numpy_helper.from_array(np.array(picked), "picked"),
            numpy_helper.from_array(levels, "levels"),
            numpy_helper.from_array(np.float32(0.2), "steep"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    metadata: dict[str, str | None] = {
        "vfss.schema_version": "1",
        "vfss.name": "bright",
        "vfss.tasks": json.dumps(TASKS.to_dict()),
        "vfss.image_size": str(SIZE),
        "vfss.context": str(context),
        "vfss.thresholds": json.dumps(dict.fromkeys(TASKS.ids, 0.5)),
        "vfss.letterbox": RULE,
        "vfss.trained_patients": json.dumps(list(sources)),
        "vfss.provenance": json.dumps({"simulated": "all"}),
        "vfss.notice": "",
        **{key.replace("__", "."): value for key, value in changed.items()},
    }
    kept = {key: value for key, value in metadata.items() if value is not None}
    helper.set_model_props(model, kept)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return path


def picture(index: int, height: int = 96, width: int = 128) -> NDArray[np.uint8]:
    """Dark grey with a bright square that moves one pixel per frame."""
    grey = np.full((height, width), 60, np.uint8)
    left = 20 + index % 40
    grey[30:62, left : left + 32] = 220
    return grey


def make_film(path: Path, times_s: Sequence[float], height: int = 96, width: int = 128) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    base = Fraction(1, 90_000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "4", "threads": "1"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.time_base = stream.codec_context.time_base = base
        for index, time_s in enumerate(times_s):
            grey = av.VideoFrame.from_ndarray(picture(index, height, width), format="gray")
            frame = grey.reformat(format="yuv420p")
            frame.pts, frame.time_base = round(time_s / base), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


class MovingSquare:
    """A source that counts how many of its frames are alive at once."""

    info = SourceInfo("video", "none", None, 30.0)
    path = Path("moving-square")

    def __init__(self, frames: int, height: int = 96, width: int = 128) -> None:
        self.number, self.size = frames, (height, width)
        self.alive = self.most = 0

    def frames(self) -> Iterator[Frame]:
        for index in range(self.number):
            grey = picture(index, *self.size)
            self.alive += 1
            self.most = max(self.most, self.alive)
            weakref.finalize(grey, self._gone)
            frame = Frame(index, index / 30, grey)
            del grey
            yield frame
            del frame

    def _gone(self) -> None:
        self.alive -= 1


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "runs" / "run-001" / "student.onnx")


def only_result(place: Path) -> Path:
    (folder,) = (place / "results").glob("*/*")
    return folder


def read_mask(path: Path) -> NDArray[np.uint8]:
    mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert mask is not None
    return mask


CONSTANT = [index / 30 for index in range(24)]
VARYING = [0.0, 0.033, 0.1, 0.1334, 0.2, 0.5, 0.517, 0.75, 1.9, 2.0]


# -- what a user does


@pytest.mark.parametrize("times_s", [CONSTANT, VARYING], ids=["constant", "varying"])
def test_overlay_has_the_frames_and_times_of_the_film(
    cli: Cli, tmp_path: Path, model: Path, times_s: list[float]
) -> None:
    make_film(tmp_path / "study.mp4", times_s)
    result = cli("segment", "study.mp4")
    assert result.exit_code == 0, result.stderr
    assert "study.mp4 → results/s-" in result.stdout
    overlay = only_result(tmp_path) / "overlay.mp4"
    assert read_times(overlay) == pytest.approx(times_s, abs=2e-5)
    with av.open(str(overlay)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert stream.width % 2 == stream.height % 2 == 0
        assert len([frame for frame in container.decode(video=0)]) == len(times_s)
    head = overlay.read_bytes()[:4096]
    assert b"moov" in head, "not made for streaming"


def test_files_and_json(cli: Cli, tmp_path: Path, model: Path) -> None:
    make_film(tmp_path / "in" / "Doe^Jane 1950.mp4", CONSTANT)
    result = cli("segment", "in", "--json", "--quiet")
    assert result.exit_code == 0, result.stderr
    printed = json.loads(result.stdout)
    assert printed["schema_version"] == 1 and printed["failed"] == []
    (study,) = printed["studies"]
    assert study["frames"] == 24 and study["fps"] > 0
    assert study["provider"].endswith("ExecutionProvider")
    assert study["model"] == {"name": "bright", "sha256": sha256_file(model)}
    folder = only_result(tmp_path)
    assert folder.name == f"bright-{sha256_file(model)[:8]}"
    assert study["outputs"]["masks"] == folder.relative_to(tmp_path).as_posix() + "/masks"
    for output in study["outputs"].values():
        assert (tmp_path / output).exists()

    run = json.loads((folder / "run.json").read_text())
    assert run["study"] == "s-" + run["source_sha256"][:10] and run["patient"] is None
    assert run["frame_times_s"] == pytest.approx(CONSTANT, abs=1e-5)
    assert (run["width"], run["height"]) == (128, 96)
    assert TaskSet.from_dict(run["model"]["tasks"]) == TASKS
    assert "provenance" in run and run["seen_in_training"] is False

    with (folder / "frames.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["frame"] for row in rows] == [str(index) for index in range(24)]
    for index, row in enumerate(rows):
        mask = read_mask(folder / "masks" / "bright" / f"{index:06d}.png")
        assert mask.shape == (96, 128) and set(np.unique(mask)) == {0, 255}
        assert int(row["bright_area_px"]) == np.count_nonzero(mask)
        assert float(row["bright_x_px"]) == pytest.approx(20 + index + 15.5, abs=1)
        assert float(row["bright_y_px"]) == pytest.approx(45.5, abs=1)
        assert 0.5 <= float(row["bright_confidence"]) <= 1
        # Absent is a blank mask, not a missing one.
        assert not read_mask(folder / "masks" / "never" / f"{index:06d}.png").any()
        assert (row["never_area_px"], row["never_x_px"], row["never_confidence"]) == ("0", "", "")
    for path in (tmp_path / "results").rglob("*"):
        assert "Doe" not in path.name
        assert not path.is_file() or b"Doe" not in path.read_bytes()


def test_existing_result_is_left_alone(cli: Cli, tmp_path: Path, model: Path) -> None:
    make_film(tmp_path / "study.mp4", CONSTANT)
    first = json.loads(cli("segment", "study.mp4", "--json").stdout)
    run = only_result(tmp_path) / "run.json"
    before = run.stat().st_mtime_ns
    again = cli("segment", "study.mp4")
    assert again.exit_code == 0 and "exists already" in again.stdout
    listed = json.loads(cli("segment", "study.mp4", "--json").stdout)
    assert run.stat().st_mtime_ns == before
    assert listed["studies"][0]["existed"] and not first["studies"][0]["existed"]
    same = ("study", "frames", "seconds", "fps", "provider", "model", "outputs")
    assert all(listed["studies"][0][key] == first["studies"][0][key] for key in same)
    assert cli("segment", "study.mp4", "--force").exit_code == 0
    assert run.stat().st_mtime_ns > before


def test_only_what_was_asked_for(cli: Cli, tmp_path: Path, model: Path) -> None:
    make_film(tmp_path / "study.mp4", CONSTANT)
    result = cli("segment", "study.mp4", "--no-overlay", "--no-masks", "--json")
    outputs = json.loads(result.stdout)["studies"][0]["outputs"]
    assert outputs["overlay"] is None and outputs["masks"] is None
    names = sorted(path.name for path in only_result(tmp_path).iterdir())
    assert names == ["frames.csv", "run.json"]


def make_study(place: Path, study: str, patient: str, sha256: str, frames: int = 5) -> None:
    folder = place / "studies" / study
    folder.mkdir(parents=True)
    times = tuple(index / 25 for index in range(frames))
    (folder / "frames").mkdir()
    for index in range(frames):
        write_frame(folder, index, picture(index))
    write_record(folder, StudyRecord(study, patient, sha256, frames, times, 128, 96))


def test_a_film_that_was_ingested_keeps_its_study(cli: Cli, tmp_path: Path) -> None:
    digest = sha256_file(make_film(tmp_path / "renamed.mp4", CONSTANT))
    make_study(tmp_path, "paaaaaaaa-123456", "paaaaaaaa", digest)
    make_model(tmp_path / "runs" / "run-001" / "student.onnx", sources=[digest[:16]])
    result = cli("segment", "renamed.mp4")
    assert result.exit_code == 0 and "trained on" in result.stderr
    run = json.loads((only_result(tmp_path) / "run.json").read_text())
    assert (run["study"], run["patient"]) == ("paaaaaaaa-123456", "paaaaaaaa")
    assert run["frames"] == 24, "read from the film itself"
    assert run["seen_in_training"] is True


def test_studies_by_id_and_by_split(cli: Cli, tmp_path: Path, model: Path) -> None:
    make_study(tmp_path, "paaaaaaaa-111111", "paaaaaaaa", "1" * 64)
    make_study(tmp_path, "pbbbbbbbb-222222", "pbbbbbbbb", "2" * 64)
    (tmp_path / "splits.yaml").write_text("train: [paaaaaaaa]\nval: []\ntest: [pbbbbbbbb]\n")

    def studies(*words: str) -> list[str]:
        result = cli("segment", *words, "--json", "--no-overlay")
        assert result.exit_code == 0, result.stderr
        return [entry["study"] for entry in json.loads(result.stdout)["studies"]]

    assert studies("paaaaaaaa-111111") == ["paaaaaaaa-111111"]
    assert studies("--split", "test") == ["pbbbbbbbb-222222"]
    assert studies("--split", "all") == ["paaaaaaaa-111111", "pbbbbbbbb-222222"]
    assert studies("studies") == ["paaaaaaaa-111111", "pbbbbbbbb-222222"]
    assert cli("segment", "--split", "val").exit_code == 4
    assert cli("segment", "--split", "val", "studies").exit_code == 2
    nothing = cli("segment")
    assert nothing.exit_code == 2 and "--split" in nothing.stderr


def test_image_folder(cli: Cli, tmp_path: Path, model: Path) -> None:
    (tmp_path / "frames-of-one").mkdir()
    for index in range(3):
        cv2.imwrite(str(tmp_path / "frames-of-one" / f"{index}.png"), picture(index, 97, 61))
    result = cli("segment", "frames-of-one", "--json")
    assert result.exit_code == 0, result.stderr
    folder = only_result(tmp_path)
    assert read_mask(folder / "masks" / "bright" / "000002.png").shape == (97, 61)
    assert len(read_times(folder / "overlay.mp4")) == 3


def test_real_cine(cli: Cli, tmp_path: Path, model: Path, shared_data: Path) -> None:
    cine = shared_data / "xa-coronary-cine" / "xa_96frames.dcm"
    result = cli("segment", cine, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["studies"][0]["frames"] == 96
    times = read_times(only_result(tmp_path) / "overlay.mp4")
    assert times == pytest.approx([index * 0.033 for index in range(96)], abs=1e-5)


# -- what may go wrong


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


def test_cuda_asked_for_and_not_got(cli: Cli, tmp_path: Path, model: Path) -> None:
    if _cuda_works():
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
    assert list((tmp_path / "results" / "s").iterdir()) == []


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


# -- properties


@settings(max_examples=60, deadline=None)
@given(
    st.integers(3, 150),
    st.integers(3, 150),
    st.sampled_from([32, 64, 96]),
    st.integers(0, 2**32 - 1),
    st.floats(0.0, 0.3),
)
def test_masks_are_the_undone_letterbox(
    height: int, width: int, size: int, seed: int, share: float
) -> None:
    """Bringing back only a box gives what bringing back the whole map gives."""
    rng = np.random.default_rng(seed)
    part = None
    if seed % 2:  # only a part of the frame is in the square
        wide, high = rng.integers(1, width + 1), rng.integers(1, height + 1)
        x, y = rng.integers(0, width - wide + 1), rng.integers(0, height - high + 1)
        part = int(x), int(y), int(wide), int(high)
    box = Letterbox.fit(height, width, size, part)
    maps = np.zeros((3, size, size), np.float32)
    extent = max(2, int(size * share))
    for layer in maps:
        top, left = rng.integers(0, size - extent + 1, 2)
        spot = rng.random((extent, extent), np.float32)
        layer[top : top + extent, left : left + extent] = spot
    masks = MaskMaker(box, ("a", "b", "c"), (0.3, 0.5, 0.7))(maps)
    whole = box.undo(maps)
    for mask, probability, threshold in zip(masks, whole, (0.3, 0.5, 0.7), strict=True):
        got = mask.full(height, width) > 0
        clear = np.abs(probability - threshold) > 1e-5  # not decided by rounding
        assert np.array_equal(got[clear], (probability >= threshold)[clear])
        assert mask.area_px == np.count_nonzero(got)
        if mask.area_px:
            rows, columns = np.nonzero(got)
            assert mask.y_px == pytest.approx(rows.mean(), abs=1e-6)
            assert mask.x_px == pytest.approx(columns.mean(), abs=1e-6)
            assert mask.confidence == pytest.approx(probability[got].mean(), abs=1e-5)
        else:
            assert mask.x_px is mask.y_px is mask.confidence is None


@settings(max_examples=40, deadline=None)
@given(st.integers(40, 700), st.integers(40, 700), st.data())
def test_letterbox_round_trip(height: int, width: int, data: Any) -> None:
    """A rectangle comes back where it was, to within the pixels that one square pixel covers."""
    box = Letterbox.fit(height, width, 256)
    slack = max(1.0, max(height, width) / 256)
    tall, wide = data.draw(st.integers(12, height)), data.draw(st.integers(12, width))
    top, left = data.draw(st.integers(0, height - tall)), data.draw(st.integers(0, width - wide))
    truth = np.zeros((height, width), np.float32)
    truth[top : top + tall, left : left + wide] = 1
    (mask,) = MaskMaker(box, ("a",), (0.5,))(box.frame(truth)[None])
    rows, columns = np.nonzero(mask.full(height, width))
    found = (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1)
    assert found == pytest.approx((top, top + tall, left, left + wide), abs=slack)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 14))
def test_canvas_leaves_the_film_alone(height: int, width: int, tasks: int) -> None:
    """Words lie outside the film; the canvas is even; an absent task draws nothing."""
    grey = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
    some = TaskSet("some", tuple(Task(f"t{n}", "x" * 40, (255, 0, 0)) for n in range(tasks)))
    canvas = Canvas(height, width, some, Caption("study", "model" * 20, "warning"))
    empty = [TaskMask(task.id, 0, 0, np.zeros((0, 0), np.bool_)) for task in some]
    drawn = canvas.draw(grey, 12345, 411.5, empty)
    assert drawn.shape[:2] == canvas.size and drawn.shape[0] % 2 == drawn.shape[1] % 2 == 0
    factor = max(1, -(-360 // max(height, width)))
    film = drawn[: height * factor : factor, : width * factor : factor]
    assert np.array_equal(film, np.repeat(grey[..., None], 3, axis=2))


# -- subtle insides


def test_memory_does_not_grow_with_length(tmp_path: Path, model: Path) -> None:
    segmenter = Segmenter(model, "cpu", 1)
    most = []
    for frames in (60, 300):
        source = MovingSquare(frames)
        segment_source(source, segmenter, tmp_path / str(frames), SegmentOptions(WHO))
        most.append(source.most)
    assert max(most) <= 16, "frames alive at once"


def test_neighbours_are_what_the_model_sees(tmp_path: Path) -> None:
    """The context model finds the previous frame's square and the next frame's; ends repeat."""
    segmenter = Segmenter(make_model(tmp_path / "context.onnx", context=1), "cpu", 1)
    for frames in (1, 2, 7):
        folder = tmp_path / str(frames)
        options = SegmentOptions(WHO, overlay=False, masks=False)
        segment_source(MovingSquare(frames), segmenter, folder, options)
        with (folder / "frames.csv").open() as stream:
            rows = list(csv.DictReader(stream))
        before = [round(float(row["bright_x_px"]) - 35.5) for row in rows]
        after = [round(float(row["never_x_px"]) - 35.5) for row in rows]
        assert before == [max(0, index - 1) for index in range(frames)]
        assert after == [min(frames - 1, index + 1) for index in range(frames)]


def test_size_that_changes_is_refused(tmp_path: Path, model: Path) -> None:
    class Changing(MovingSquare):
        def frames(self) -> Iterator[Frame]:
            yield Frame(0, 0.0, picture(0))
            yield Frame(1, 0.1, picture(1, 100, 100))

    with pytest.raises(InputError, match="another size"):
        segment_source(
            Changing(2), Segmenter(model, "cpu", 1), tmp_path / "out", SegmentOptions(WHO)
        )
    assert not (tmp_path / "out").exists()


def test_work_ahead_keeps_order_bound_and_errors() -> None:
    made: list[int] = []
    closed: list[bool] = []

    def numbers() -> Iterator[int]:
        try:
            for number in range(100):
                made.append(number)
                if number == 50:
                    raise StorageError("fifty")
                yield number
        finally:
            closed.append(True)

    seen = []
    with pytest.raises(StorageError, match="fifty"):
        for number in work_ahead(numbers(), 3):
            seen.append(number)
            assert made[-1] - number <= 5
    assert seen == list(range(50)) and closed == [True]

    early = work_ahead(work_ahead(numbers(), 2), 2)
    assert next(early) == 0
    early.close()
    assert closed == [True, True]


def test_which_model_is_meant(tmp_path: Path) -> None:
    place = Workspace(tmp_path)
    old = make_model(tmp_path / "runs" / "run-001" / "student.onnx")
    new = make_model(tmp_path / "runs" / "run-002" / "student.onnx")
    os.utime(old, (1, 1))
    assert find_model(place) == new
    assert find_model(place, "run-001") == old
    assert find_model(place, str(old)) == old
    assert find_model(place, str(old.parent)) == old
    with pytest.raises(WeightsMissing):
        find_model(place, "run-003")


def test_names_of_result_folders_are_safe(tmp_path: Path) -> None:
    path = make_model(tmp_path / "odd.onnx", vfss__name="../../etc/ü 1")
    assert Segmenter(path, "cpu").result_name == f"etc-1-{sha256_file(path)[:8]}"


def test_model_of_other_inputs(tmp_path: Path, model: Path) -> None:
    with pytest.raises(ModelError, match="cannot run"):
        Segmenter(model, "cpu").probabilities(np.zeros((1, 1, 8, 8), np.uint8))
