"""Files that a hand or a disk has spoilt: one line that names the file, and what to do."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from conftest import Cli, Outcome
from label_world import first_study, make_world, ok, put
from square_models import make_film, make_model
from vfss_distill.config import lab_tasks, load_lab
from vfss_distill.errors import ConfigError, DataError
from vfss_distill.intake.splits import load_splits
from vfss_distill.intake.study import Study, list_studies
from vfss_distill.tasks import TaskSet
from vfss_distill.workspace import Workspace

DEEP = "[" * 100_000
# Ten lines, a thousand million entries: each list holds the one before it nine times.
LAUGHS = "k0: &l0 [x]\n" + "".join(
    f"k{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 10)
)


@pytest.fixture
def world(tmp_path: Path) -> Workspace:
    return make_world(tmp_path)


def told(outcome: Outcome, code: int, *words: str) -> str:
    """The one line of a failure."""
    assert outcome.exit_code == code, outcome.stderr
    assert "Traceback" not in outcome.stderr and "our bug" not in outcome.stderr
    (line,) = [line for line in outcome.stderr.splitlines() if line.startswith("error:")]
    assert all(word in line for word in words), line
    return line


class TestNestedWithoutEnd:
    def test_a_study_record(self, world: Workspace) -> None:
        study = first_study(world)
        put(study.folder / "study.json", f'{{"study": {DEEP}')
        with pytest.raises(DataError, match=f"{study.id}.*not readable as JSON.*backup"):
            Study.open(study.folder)

    def test_a_manifest_of_labels(self, cli: Cli, world: Workspace) -> None:
        put(world.root / "given" / "vfss-labels.json", DEEP)
        told(cli("labels", "import", "given", cwd=world.root), 4, "vfss-labels.json", "backup")

    def test_the_header_of_a_volume(self, cli: Cli, world: Workspace) -> None:
        ok(cli("labels", "export", "given", "--format", "slicer", cwd=world.root))
        volume = next((world.root / "given").glob("*.seg.nrrd"))
        head, said, tail = volume.read_bytes().partition(b"vfss_labelled:=")
        assert said
        volume.write_bytes(head + said + DEEP.encode() + b"\n" + tail.partition(b"\n")[2])
        told(cli("labels", "import", volume, cwd=world.root), 4, volume.name, "export it again")

    @pytest.mark.parametrize("key", ["vfss__tasks", "vfss__provenance"])
    def test_the_description_of_a_model(self, key: str, cli: Cli, tmp_path: Path) -> None:
        make_model(tmp_path / "m.onnx", **{key: DEEP})
        make_film(tmp_path / "a.mp4", [0.0, 0.1, 0.2])
        outcome = cli("segment", "a.mp4", "--model", "m.onnx")
        told(outcome, 5, "m.onnx", key.replace("__", "."), "vfss export")


class TestYaml:
    @pytest.mark.parametrize(
        "value",
        [
            "2020-13-45",
            "9" * 5000,
            DEEP[:9999],
            "!!int ''",
            "!!bool perhaps",
            "!!timestamp x",
            "{",
            "\xff",
        ],
        ids=["no day", "digits", "deep", "empty", "no truth", "no time", "open", "no UTF-8"],
    )
    def test_what_is_no_value(self, value: str, cli: Cli, world: Workspace) -> None:
        def put(name: str) -> None:
            path = world.root / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(f"task_set: {value}\n".encode("latin-1"))

        for name, command in (
            ("vfss.yaml", ("labels", "check")),
            ("tasks.yaml", ("ingest", "films", "--tasks", "tasks.yaml")),
            ("weights/mine.yaml", ("teachers", "check", "weights/mine.yaml")),
        ):
            put(name)
            outcome = cli(*command, cwd=world.root)
            told(outcome, 4, Path(name).name, "not readable as YAML", "backup")
            (world.root / name).unlink()
        put("splits.yaml")
        with pytest.raises(ConfigError, match=r"splits\.yaml: not readable as YAML.* from a copy"):
            load_splits(world)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (LAUGHS, "(line 2): write out what *names stand for"),
            ("&a [*a]\n", "(line 1): write out what *names stand for"),
            ("task_set: vfss12\ntask_set: mine\n", "(line 2): two values under one key"),
            ("#" * (5 * 2**20), "larger than 4 MB"),
        ],
        ids=["lists of lists", "itself", "twice", "large"],
    )
    @pytest.mark.parametrize("name", ["vfss.yaml", "weights/mine.yaml"])
    def test_what_is_not_read(
        self, name: str, text: str, said: str, cli: Cli, world: Workspace
    ) -> None:
        put(world.root / name, text)
        command = ("teachers", "check", name) if "/" in name else ("labels", "check")
        told(cli(*command, cwd=world.root), 4, Path(name).name, said)

    def test_no_key_moves_the_terminal(self, cli: Cli, world: Workspace) -> None:
        put(world.root / "vfss.yaml", '"\\e[2J": 1\n')
        told(cli("labels", "check", cwd=world.root), 4, r"\x1b[2J: there is no such setting")

    @pytest.mark.parametrize("name", ["vfss.yaml", "splits.yaml"])
    def test_a_folder_in_its_place(self, name: str, world: Workspace) -> None:
        (world.root / name).unlink()
        (world.root / name).mkdir()
        with pytest.raises(
            ConfigError, match=rf"{name}: cannot be read \(.*\)\. (Check that it|Put the file back)"
        ):
            (load_lab if name == "vfss.yaml" else load_splits)(world)


class TestTaskSets:
    @pytest.mark.parametrize(
        ("field", "rule"),
        [
            ("may_overlap: 5", "may_overlap must be a list of task ids"),
            ("may_overlap: hyoid", "may_overlap must be a list of task ids"),
            ("may_overlap: [[hyoid]]", "may_overlap must be a list of task ids"),
            ("may_be_absent: 'no'", "may_be_absent must be true or false"),
            ("name: [tongue]", "name must be a text"),
            ('name: "\\ud800"', "name must be a text"),
        ],
    )
    def test_fields_of_other_kinds(self, field: str, rule: str, tmp_path: Path) -> None:
        put(tmp_path / "set.yaml", f"tasks:\n- {{id: tongue, {field}}}\n")
        with pytest.raises(ConfigError, match=f"task tongue: {rule}"):
            TaskSet.load(tmp_path / "set.yaml")

    def test_ids_that_folders_and_columns_cannot_have(self, tmp_path: Path) -> None:
        """The list of all faults says what an id may be."""
        put(tmp_path / "set.yaml", "tasks: [Hyoid, tongue base, mean]\n")
        with pytest.raises(ConfigError, match=r"'Hyoid' cannot be a task id: use .*'mean'"):
            TaskSet.load(tmp_path / "set.yaml")

    def test_a_neighbour_that_is_misspelt(self, tmp_path: Path) -> None:
        put(tmp_path / "set.yaml", "tasks:\n- {id: tongue, may_overlap: [hyiod]}\n- hyoid\n")
        with pytest.raises(ConfigError, match="task tongue: may_overlap names 'hyiod'"):
            TaskSet.load(tmp_path / "set.yaml")

    def test_in_a_model(self, cli: Cli, tmp_path: Path) -> None:
        told_tasks = '{"tasks": [{"id": "bright", "may_overlap": 5}, {"id": "never"}]}'
        make_model(tmp_path / "m.onnx", vfss__tasks=told_tasks)
        make_film(tmp_path / "a.mp4", [0.0, 0.1, 0.2])
        outcome = cli("segment", "a.mp4", "--model", "m.onnx")
        told(outcome, 5, "m.onnx", "vfss.tasks", "vfss export")

    @pytest.mark.parametrize("name", [r"a\0b", r"\ud800", r"a\nb"])
    def test_names_no_file_can_have(self, name: str, world: Workspace) -> None:
        put(world.root / "vfss.yaml", f'task_set: "{name}"\n')
        with pytest.raises(ConfigError, match=r"vfss\.yaml: task_set: .*no file can have") as said:
            lab_tasks(world)
        assert str(said.value).isprintable()
        with pytest.raises(ConfigError, match="no file can have"):
            TaskSet.load("a\0b")


def png_of(width: int, height: int) -> bytes:
    """A PNG that claims this size and breaks off."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))


class TestPictures:
    @pytest.mark.parametrize(
        ("name", "data"),
        [
            ("0.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n"),
            ("0.tif", b"II*\0\x08\0\0\0" + bytes(6)),
            ("0.png", b"DDS " + struct.pack("<7I", 124, 0x1007, 64, 64, 0, 0, 0) + bytes(96)),
            ("0.png", png_of(60_000, 60_000)),
        ],
        ids=["PostScript", "no size", "a texture", "large"],
    )
    def test_one_that_is_none_costs_its_recording_alone(
        self,
        name: str,
        data: bytes,
        cli: Cli,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        """Pillow would start Ghostscript, were there one, for what is PostScript."""
        called = tmp_path / "called"
        put(tmp_path / "bin" / "gs", f"#!/bin/sh\ntouch {called}\n")
        (tmp_path / "bin" / "gs").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
        make_film(tmp_path / "v" / "p" / "good.mp4", [0.0, 0.1, 0.2])
        (tmp_path / "v" / "q" / "stills").mkdir(parents=True)
        (tmp_path / "v" / "q" / "stills" / name).write_bytes(data)
        told(cli("ingest", "v"), 3, "stills", name)
        assert len(list_studies(Workspace(tmp_path))) == 1 and not called.exists()
        assert "Warning" not in capfd.readouterr().err

    @pytest.mark.parametrize("command", ["check", "export out --format index"])
    def test_a_mask_that_claims_too_much(self, command: str, cli: Cli, world: Workspace) -> None:
        study = first_study(world)
        (study.folder / "masks" / "hyoid" / "000002.png").write_bytes(png_of(60_000, 60_000))
        outcome = cli("labels", *command.split(), cwd=world.root)
        assert outcome.exit_code in (3, 4), outcome.stderr
        assert "our bug" not in outcome.stderr
        with pytest.raises(DataError, match=r"000002\.png: is missing or damaged"):
            study.read_mask("hyoid", 2)

    def test_a_frame_of_another_size(self, cli: Cli, world: Workspace) -> None:
        study = first_study(world)
        done, data = cv2.imencode(".png", np.zeros((24, 32), np.uint8))
        assert done
        (study.folder / "frames" / "000003.png").write_bytes(data.tobytes())
        with pytest.raises(DataError, match=r"000003\.png: is of another size\. Ingest"):
            study.read_frame(3)
        outcome = cli("ingest", "--review", cwd=world.root)
        assert "our bug" not in outcome.stderr and "Traceback" not in outcome.stderr
        page = (world.root / "reports" / "review-001" / "index.html").read_text()
        assert "is of another size" in page

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (
                {"picture": {"x": 0, "y": 0, "width": 0, "height": 0, "reason": "picture"}},
                "picture",
            ),
            ({"picture": {"x": 9, "y": 0, "width": 64, "height": 9, "reason": "p"}}, "picture"),
            ({"frame_times_s": [0, 1, 2, 3, 4, 1e308]}, "frame_times_s"),
        ],
        ids=["empty", "outside", "for ever"],
    )
    def test_a_record_that_claims_what_cannot_be(
        self, change: dict[str, object], said: str, world: Workspace
    ) -> None:
        file = first_study(world).folder / "study.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
        with pytest.raises(DataError, match=f"study.json: damaged: {said}"):
            Study.open(file.parent)


class TestTheSystemsOwnWords:
    def test_a_folder_in_place_of_a_file(self, cli: Cli, tmp_path: Path) -> None:
        make_film(tmp_path / "a.mp4", [0.0, 0.1, 0.2])
        (tmp_path / ".ingest.lock").mkdir()
        told(cli("ingest", "a.mp4"), 4, ".ingest.lock", "Move the folder of that name away.")

    def test_a_file_in_place_of_a_folder(self, cli: Cli, tmp_path: Path) -> None:
        make_film(tmp_path / "a.mp4", [0.0, 0.1, 0.2])
        put(tmp_path / "file", "")
        told(cli("ingest", "a.mp4", "-w", "file/w"), 4, "Move the file away")


@pytest.mark.parametrize("option", ["--patients", "--views", "--blank-boxes"])
def test_a_table_that_is_not_there(option: str, cli: Cli, tmp_path: Path) -> None:
    make_film(tmp_path / "a.mp4", [0.0, 0.1, 0.2])
    told(cli("ingest", "a.mp4", option, "no.csv"), 4, "no.csv: cannot be read (No such file")
