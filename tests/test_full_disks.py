"""A disk that is full: exit 6 and one line, and nothing left behind."""

from __future__ import annotations

import errno
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import Cli, Outcome
from fake_results import FakeWorkspace
from label_world import all_masks, forget_labels, make_world, ok
from square_models import make_film, make_model
from vfss_distill.errors import StorageError
from vfss_distill.tasks import VFSS12, TaskSet
from vfss_distill.workspace import atomic_folder, atomic_path

Full = Callable[[str], None]


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Full:
    """`full(part)`: from now on there is no space for files with this in their name."""

    def fill(part: str) -> None:
        real = Path.write_bytes

        def write_bytes(self: Path, data: bytes) -> int:
            if part in self.name:
                raise OSError(errno.ENOSPC, "No space left on device", str(self))
            return real(self, data)

        monkeypatch.setattr(Path, "write_bytes", write_bytes)

    return fill


def refused(outcome: Outcome) -> None:
    assert outcome.exit_code == 6, outcome.stderr
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("error:") and "the disk is full. Free some space" in line


def test_measure(cli: Cli, tmp_path: Path, full: Full) -> None:
    fake = FakeWorkspace(tmp_path, TaskSet("one", (VFSS12["c3"],)))
    for study in ("sa", "sb"):
        fake.result(study, n=16)
    full("measures.csv")
    refused(cli("measure", "--force", "--quiet"))


@pytest.mark.parametrize("words", [("report",), ("compare", "one", "two")])
def test_a_folder_that_is_read_only_is_told_before_the_work(
    words: tuple[str, ...], cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeWorkspace(tmp_path, TaskSet("one", (VFSS12["c3"],)))
    fake.study("pa-123456", "pa", split="test", labels=(0, 10))
    for model in ("one", "two"):
        fake.result("pa-123456", model=model, n=16)
    before = sorted(tmp_path.rglob("*"))
    real = Path.mkdir

    def mkdir(self: Path, *args: Any, **options: Any) -> None:  # root may write anywhere
        if self.parent == Path() or self.is_relative_to(tmp_path):
            raise OSError(errno.EROFS, "Read-only file system", str(self))
        real(self, *args, **options)

    def score(*_: object) -> None:
        raise AssertionError("half a minute of work")

    monkeypatch.setattr(Path, "mkdir", mkdir)
    monkeypatch.setattr("vfss_distill.evaluate.report.score_group", score)
    monkeypatch.setattr("vfss_distill.evaluate.compare._score", score)
    outcome = cli(*words, "--quiet")
    assert outcome.exit_code == 6
    assert f"{words[0]}-001: cannot be written. Choose a folder" in outcome.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_import(cli: Cli, tmp_path: Path, full: Full) -> None:
    world = make_world(tmp_path)
    ok(cli("labels", "export", tmp_path / "given", "--format", "masks", cwd=world.root))
    forget_labels(world)
    full("000003.png")
    refused(cli("labels", "import", tmp_path / "given", "--quiet", cwd=world.root))
    assert not all_masks(world)


class TestNothingIsLeft:
    def test_of_a_film_that_is_no_study(self, cli: Cli, tmp_path: Path, full: Full) -> None:
        make_model(tmp_path / "m.onnx")
        make_film(tmp_path / "a.mp4", [0.0, 0.1, 0.2])
        full("000001.png")
        refused(cli("segment", "a.mp4", "--model", "m.onnx", "--quiet"))
        assert not (tmp_path / "results").exists()

    def test_of_a_check(self, cli: Cli, tmp_path: Path, full: Full) -> None:
        world = make_world(tmp_path)
        full("index.html")
        refused(cli("labels", "check", "--quiet", cwd=world.root))
        assert not world.reports.exists()

    def test_of_a_file_too_large_for_the_disk(self, tmp_path: Path) -> None:
        """FAT32 holds none of 4 GB; `ulimit -f` sets the limit here."""
        code = """
            import resource, signal, sys
            from pathlib import Path
            from vfss_distill.workspace import write_bytes
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
            try:
                write_bytes(Path("student.onnx"), bytes(9999))
            except Exception as error:
                print(type(error).__name__, error)
        """
        (tmp_path / "student.onnx").write_text("the one before")
        command = [sys.executable, "-c", textwrap.dedent(code)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout.startswith("StorageError student.onnx: the disk takes no file of")
        assert [path.name for path in tmp_path.iterdir()] == ["student.onnx"]
        assert (tmp_path / "student.onnx").read_text() == "the one before"

    @pytest.mark.parametrize("writer", [atomic_path, atomic_folder])
    def test_but_what_was_there(self, writer: Callable[[Path], object], tmp_path: Path) -> None:
        (tmp_path / "there").mkdir()
        for target in (tmp_path / "there" / "x", tmp_path / "a" / "b" / "x"):
            with pytest.raises(StorageError), writer(target):  # type: ignore[attr-defined]
                if target.parent.name == "b":
                    (tmp_path / "a" / "others").write_text("of somebody else")
                raise OSError(errno.ENOSPC, "no space")
        left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
        assert left == {"there", "a", "a/others"}
