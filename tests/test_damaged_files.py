"""Files that a hand or a disk has spoilt: one line that names the file, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import Cli, Outcome
from label_world import first_study, make_world, ok, put
from square_models import make_film, make_model
from vfss_distill.errors import DataError
from vfss_distill.intake.study import Study
from vfss_distill.workspace import Workspace

DEEP = "[" * 100_000


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
