"""What Windows does not allow, tried where it can be watched: no folder can be opened, nothing that
is open or mapped can be moved or removed, and nothing is renamed onto what is there."""

from __future__ import annotations

import gc
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load

from conftest import Cli
from distill_lab import run, tiny_lab
from ingest_jobs import temporaries
from intake_films import write_film
from tiny_studies import write_study
from vfss_distill import claims, doctor, engines, simulate
from vfss_distill import workspace as workspace_module
from vfss_distill.distill.cache import Job, Recipe, fill_cache
from vfss_distill.engines import Done, OneProcess, Processes
from vfss_distill.errors import StorageError, WorkspaceError
from vfss_distill.intake import fill, names
from vfss_distill.intake import ingest as ingest_module
from vfss_distill.intake.discovery import way
from vfss_distill.intake.identities import Identities, Identity
from vfss_distill.intake.names import display
from vfss_distill.intake.patients import PatientTable
from vfss_distill.intake.source import Found, LeftOut
from vfss_distill.intake.walk import walk
from vfss_distill.simulate import dataset
from vfss_distill.workspace import Workspace, atomic_folder, free_bytes, read_json, write_json

PROC = Path("/proc/self")


def held(path: str) -> list[str]:
    """Files of this process that are `path`, or in it, and open or mapped."""
    whole = os.path.realpath(path)
    names = []
    for descriptor in (PROC / "fd").iterdir():
        try:
            names.append(str(descriptor.readlink()))
        except OSError:  # that of the listing itself
            continue
    maps = (PROC / "maps").read_text().splitlines()
    names += [line[line.index("/") :] for line in maps if "/" in line]
    return [name for name in names if name == whole or name.startswith(f"{whole}/")]


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    if not (PROC / "maps").exists():
        pytest.skip("needs /proc/self/maps, as Linux has it, to see what is open")
    plain_open = os.open

    def open_(path: Any, *rest: Any, **named: Any) -> int:
        if not isinstance(path, int) and Path(path).is_dir():
            raise PermissionError(13, "a folder", str(path))
        return plain_open(path, *rest, **named)

    def watched(change: Callable[..., None], *, onto: bool) -> Callable[..., None]:
        def watch(*paths: Any, **named: Any) -> None:
            for path in map(os.fspath, paths):
                if held(path):
                    raise PermissionError(13, "in use", path)
            if not onto and len(paths) == 2 and os.path.lexists(paths[1]):
                raise FileExistsError(17, "there already", str(paths[1]))
            change(*paths, **named)

        return watch

    monkeypatch.setattr(workspace_module, "_IS_WINDOWS", True)
    monkeypatch.setattr(workspace_module, "_C", None)
    monkeypatch.setattr(shutil, "_use_fd_functions", False)
    monkeypatch.delattr(os, "sync", raising=False)
    monkeypatch.setattr(os, "open", open_)
    for name, onto in (("replace", True), ("rename", False), ("unlink", True), ("rmdir", True)):
        monkeypatch.setattr(os, name, watched(getattr(os, name), onto=onto))


def test_way_to_another_drive() -> None:
    """Films on a stick, the workspace on the laptop: nothing leads from one to the other."""
    lab, stick = PureWindowsPath("C:/lab/2026"), PureWindowsPath("E:/films/one.mp4")
    assert way(lab, stick) == "E:/films/one.mp4"
    assert way(lab, PureWindowsPath("C:/films/one.mp4")) == "../../films/one.mp4"
    assert way(PurePosixPath("/lab"), PurePosixPath("/lab/films/one.mp4")) == "films/one.mp4"


def test_a_table_names_films_with_forward_slashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = write_film(tmp_path / "films" / "a" / "one.mp4", frames=1).path
    (tmp_path / "patients.csv").write_text("file,patient\nfilms/a/one.mp4,anna\n")
    found = Found(film, tmp_path / "films")
    monkeypatch.setattr(names, "_relative", lambda _: PureWindowsPath("films/a/one.mp4"))
    assert display(found) == "films/a/one.mp4"
    assert PatientTable(tmp_path / "patients.csv").row(found) == ("anna", "")


def test_the_bin_of_a_stick_and_what_nobody_may_read_are_no_recordings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = write_film(tmp_path / "one.mp4", frames=1).path
    for name in ("$RECYCLE.BIN/S-1-5-21/$R1.mp4", "System Volume Information/two.mp4"):
        write_film(tmp_path / name, frames=1)
    closed = tmp_path / "closed"
    closed.mkdir()
    may_look = Path.is_file

    def is_file(path: Path) -> bool:
        if path.parent == closed:  # as Python up to 3.13 does
            raise PermissionError(13, "Access is denied", str(path))
        return may_look(path)

    monkeypatch.setattr(Path, "is_file", is_file)
    left_out: list[LeftOut] = []
    found = walk([tmp_path], left_out=left_out)
    assert [item.path for item in found] == [film, closed]  # opened, it says what is wrong
    assert not left_out


def test_one_ingest_and_one_training_of_a_run_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: dict[int, int] = {}  # place → descriptor

    def locking(descriptor: int, how: int, count: int) -> None:
        place = os.lseek(descriptor, 0, os.SEEK_CUR)
        assert 0 <= place < 2**31 and count == 1
        if how == 0:
            if held.pop(place, None) != descriptor:
                raise PermissionError(13, "not locked")
        elif held.setdefault(place, descriptor) != descriptor:
            raise PermissionError(13, "locked")

    windows = SimpleNamespace(LK_UNLCK=0, LK_NBLCK=2, locking=locking)
    monkeypatch.setattr(claims, "fcntl", None)
    monkeypatch.setattr(claims, "msvcrt", windows)
    place = Workspace(tmp_path)
    with claims.alone_in(place):
        with pytest.raises(WorkspaceError, match="is at work"), claims.alone_in(place):
            pass
        with claims.Claims(place.ingest_lock) as others:
            assert others.take("something else")
            others.give_back("something else")
    assert not held
    with claims.alone_in(place):
        pass
    with claims.alone_on_run(place, "run-001"):
        assert claims.is_trained(place, "run-001")
        assert not claims.is_trained(place, "run-002")
    assert not claims.is_trained(place, "run-001")
    assert not held


class _NoDisk(PurePosixPath):
    """A path on a disk that is not there, as Q: may be: not even its root exists."""

    def exists(self) -> bool:
        return False

    def is_symlink(self) -> bool:
        return False


def test_a_disk_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder: Any = _NoDisk("/lab/cache")
    with pytest.raises(StorageError, match="cache: its disk is not there"):
        free_bytes(folder)

    def none(_: Path) -> int:
        raise StorageError("its disk is not there")

    monkeypatch.setattr(doctor, "free_bytes", none)
    (check,) = doctor._disk(Workspace(tmp_path))
    assert check.status == "failed" and "is not there" in check.found


def test_no_more_workers_than_windows_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A laptop may have 32 cores, and `--workers 0` is one for each."""
    monkeypatch.setattr(engines, "_MOST_WORKERS", 2)
    assert Processes(str, 32).slots == 2
    most = 0

    class Few(OneProcess):
        slots = 2

        def submit(self, number: int, job: Any) -> None:
            super().submit(number, job)
            nonlocal most
            most = max(most, len(self._done))

    monkeypatch.setattr(dataset, "Processes", lambda work, slots: Few(work))
    monkeypatch.setattr(dataset, "make_study", lambda *_: {"frames": 0})
    options = simulate.DatasetOptions(patients=5)
    assert len(simulate.simulate_dataset(tmp_path / "films", options, workers=4)) == 5
    assert most == 2


def test_a_worker_that_is_ended_leaves_no_half_study(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows knows no polite end of a process: its frames lie there, perhaps not blanked yet."""

    class Ended:
        slots = 2

        def __enter__(self) -> Ended:
            return self

        def __exit__(self, *_: object) -> None:
            """As TerminateProcess: nobody clears up."""

        def submit(self, number: int, job: fill.Job) -> None:
            half = job.target.with_name(f".partial-00000000-{job.target.name}")
            (half / "frames").mkdir(parents=True)

        def wait(self) -> Done:
            raise KeyboardInterrupt

    monkeypatch.setattr(ingest_module, "engine_for", lambda *_: Ended())
    write_film(tmp_path / "film.mp4", frames=2)
    assert cli("ingest", "film.mp4", "--workers", 2).exit_code == 130
    assert not temporaries(tmp_path)


def test_line_breaks_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_text(path: Path, text: str, encoding: str, errors: str | None = None) -> int:
        return path.write_bytes(text.replace("\n", "\r\n").encode(encoding, errors or "strict"))

    monkeypatch.setattr(Path, "write_text", write_text)
    first, second = Identity("pa-1", "pa", "An\na", "x.mp4"), Identity("pb-1", "pb", "B", "y.mp4")
    for identity in (first, second):
        Identities(Workspace(tmp_path)).record(identity)
    assert Identities(Workspace(tmp_path)).find("pa-1") == first
    assert b"\r" not in (tmp_path / "identities.csv").read_bytes()


def test_identities_that_excel_saved_again(tmp_path: Path) -> None:
    table = tmp_path / "identities.csv"
    known = Identity("pa-1", "pa", "Änna", "x.mp4")
    Identities(Workspace(tmp_path)).record(known)
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes().replace(b"\n", b"\r\n"))
    assert Identities(Workspace(tmp_path)).find("pa-1") == known


@pytest.mark.usefixtures("windows")
class TestOnWindows:
    def test_files_and_folders_are_replaced(self, tmp_path: Path) -> None:
        for turn in (1, 2):
            write_json(tmp_path / "file.json", {"turn": turn})
            with atomic_folder(tmp_path / "folder") as new:
                (new / f"{turn}.txt").write_text("")
        assert read_json(tmp_path / "file.json") == {"turn": 2}
        assert [path.name for path in (tmp_path / "folder").iterdir()] == ["2.txt"]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["file.json", "folder"]

    def test_what_a_scanner_holds_for_a_moment_is_replaced(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scanner = (tmp_path / "file.json").open("w")
        monkeypatch.setattr(workspace_module.time, "sleep", lambda _: scanner.close())
        write_json(tmp_path / "file.json", {"turn": 2})
        assert read_json(tmp_path / "file.json") == {"turn": 2}

    def test_what_stays_open_is_an_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(workspace_module.time, "sleep", lambda _: None)
        write_json(tmp_path / "file.json", {"turn": 1})
        with (tmp_path / "file.json").open(), pytest.raises(StorageError, match="has it open"):
            write_json(tmp_path / "file.json", {"turn": 2})
        assert read_json(tmp_path / "file.json") == {"turn": 1}
        assert [path.name for path in tmp_path.iterdir()] == ["file.json"]

    def test_a_folder_whose_successor_stays_open_is_put_back(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(workspace_module.time, "sleep", lambda _: None)
        with atomic_folder(tmp_path / "masks") as new:
            (new / "old.png").touch()
        with pytest.raises(StorageError), atomic_folder(tmp_path / "masks") as new:
            scanned = (new / "new.png").open("w")
        scanned.close()
        assert [path.name for path in (tmp_path / "masks").iterdir()] == ["old.png"]

    def test_a_film_is_ingested_twice_and_segmented_twice(self, cli: Cli, tmp_path: Path) -> None:
        write_film(tmp_path / "film.mp4")
        for words in ("ingest film.mp4", "ingest film.mp4 --force", *2 * ["segment film.mp4"]):
            done = cli(*words.split(), cwd=tmp_path)
            assert done.exit_code == 0, done.stderr
        assert not [path for path in tmp_path.rglob(".partial-*")]

    def test_a_training_goes_on_and_writes_its_checkpoint_anew(self, tmp_path: Path) -> None:
        lab = tiny_lab(tmp_path)

        def stop(done: int, total: int, words: str) -> None:
            if "loss" in words and done == 3:
                os.kill(os.getpid(), signal.SIGINT)

        first = run(lab, tick=stop)
        assert first.interrupted
        gc.collect()  # another process would hold nothing of the first
        assert not run(lab, resume=first.folder).interrupted

    def test_a_shard_of_features_gets_more_frames(self, tmp_path: Path) -> None:
        class Blank:
            def features(self, frames: torch.Tensor) -> torch.Tensor:
                return torch.zeros(len(frames), 5, 2, 2)

        study = write_study(Workspace(tmp_path), "pa")
        recipe = Recipe("t", "0" * 64, "f", 5, 2)
        for frames in ((0, 2), (0, 3)):
            folder = fill_cache(
                Blank(), recipe, [Job(study, frames)], tmp_path / "cache",
                batch_size=2, say=lambda _: None, tick=lambda *_: None,
            )  # fmt: skip
        stored = load((folder / f"{study.id}.safetensors").read_bytes())
        assert stored["frames"].tolist() == [0, 2, 3]
