"""Ingest by several workers: the same files, and one that dies takes nobody with it."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import ROOT, Cli
from intake_films import write_dicom, write_film, write_image, write_images
from vfss_distill.claims import fcntl
from vfss_distill.engines import Done, OneProcess, Processes, WorkerDied
from vfss_distill.errors import InputError, UsageError
from vfss_distill.intake import fill
from vfss_distill.intake.study import list_studies
from vfss_distill.workspace import Workspace
from watched import until, workers_of

_OTHER = """
import sys
from pathlib import Path
from vfss_distill.claims import Claims
with Claims(Path(sys.argv[1])) as claims:
    print(claims.take("ingest"), flush=True)
    sys.stdin.read()
"""
KEY = "0123456789abcdef" * 4 + "\n"


def act(job: Any) -> Any:
    """What a worker of these tests does; it must be importable by name."""
    if job == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if job == "exit":
        os._exit(7)
    if job == "fail":
        return InputError("is bad", file="a.mp4", remedy="Mend it.")
    if isinstance(job, Path):  # half done for ever, unless told to stop
        job.touch()
        try:
            time.sleep(600)
        finally:
            job.unlink()
    return job * 2


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Seven good recordings of four patients, a copy, one that is bad, and labels."""
    folder = tmp_path / "videos"
    for number in range(4):
        write_film(folder / f"p{number % 3}" / f"{number}.mp4", frames=20 + number)
    write_dicom(folder / "x" / "a.dcm", 9, PatientID="4711", PatientName="Geheim^Anna")
    write_dicom(folder / "x" / "b.dcm", 9, PatientID="4711", PatientName="Geheim^Anna")
    write_images(folder / "p2" / "run", 7)
    (folder / "p0" / "1 copy.mp4").write_bytes((folder / "p0" / "0.mp4").read_bytes())
    (folder / "p1" / "broken.avi").write_bytes(b"RIFF no film at all")
    mask = write_film(folder / "p1" / "labelled.mkv", frames=12).path
    for frame in (0, 3):
        white = 255 * (frame > 0)
        label = mask.parent / "labelled_masks" / "c3" / f"{frame}.png"
        write_image(label, _picture(white))
    return folder


def _picture(value: int) -> NDArray[np.uint8]:
    picture = np.zeros((96, 128), np.uint8)
    picture[20:40, 30:60] = value
    return picture


def lab(root: Path, name: str) -> Path:
    """A workspace with a known key: pseudonyms are then the same in all of them."""
    folder = root / name
    folder.mkdir()
    (folder / "identities.key").write_text(KEY)
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def temporaries(root: Path) -> list[Path]:
    return list(root.rglob(".partial-*"))


class TestTheSameFiles:
    def test_of_any_number_of_workers(self, cli: Cli, videos: Path) -> None:
        root, said = videos.parent, []
        for name, workers in (("one", 1), ("three", 3)):
            lab(root, name)
            outcome = cli("ingest", "videos", "-w", name, "--workers", workers, "--json", cwd=root)
            assert outcome.exit_code == 3
            said.append((outcome.stdout, outcome.stderr))
        assert said[0] == said[1]
        result = json.loads(said[0][0])
        assert len(result["studies"]) == 7 and len(result["skipped"]) == 2
        assert [item["input"] for item in result["failed"]] == ["videos/p1/broken.avi"]
        one, three = tree(root / "one"), tree(root / "three")
        assert one.keys() == three.keys() and len(one) > 120
        assert [name for name in one if one[name] != three[name]] == []
        assert not temporaries(root)

    def test_a_second_time_nothing_is_done(self, cli: Cli, videos: Path) -> None:
        cli("ingest", "videos", "--workers", "2")
        before = tree(videos.parent)
        stamps = {path: path.stat().st_mtime_ns for path in videos.parent.rglob("*.json")}
        (videos / "p1" / "broken.avi").unlink()
        again = cli("ingest", "videos", "--workers", "2")
        assert again.exit_code == 0
        assert "Nothing new: nothing was written" in again.stdout
        assert "already ingested" in again.stdout
        del before["videos/p1/broken.avi"]
        assert tree(videos.parent) == before
        assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())

    @pytest.mark.skipif(fcntl is None, reason="no locks on this system")
    def test_one_ingest_at_a_time(self, cli: Cli, tmp_path: Path) -> None:
        write_images(tmp_path / "v" / "p" / "run", 3)
        lock = Workspace(tmp_path).ingest_lock
        words = [sys.executable, "-c", _OTHER, str(lock)]
        with subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        ) as other:
            assert other.stdout is not None and other.stdout.readline() == "True\n"
            refused = cli("ingest", "v")
            assert refused.exit_code == 4 and refused.stderr.count("\n") == 1
            assert "another `vfss ingest` or `vfss labels import` is at work" in refused.stderr
            assert sorted(path.name for path in tmp_path.iterdir()) == [lock.name, "v"]
            other.kill()
        assert cli("ingest", "v").exit_code == 0
        assert lock.name in (tmp_path / ".gitignore").read_text().splitlines()

    @pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
    def test_of_a_cluster(self, cli: Cli, videos: Path) -> None:
        root = videos.parent
        for name, engine in (("one", "processes"), ("ray", "ray")):
            lab(root, name)
            outcome = cli("ingest", "videos", "-w", name, "--engine", engine, cwd=root)
            assert outcome.exit_code == 3
        assert tree(root / "one") == tree(root / "ray")

    def test_ray_that_is_not_there(
        self, cli: Cli, videos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "ray", None)
        outcome = cli("ingest", "videos", "--engine", "ray")
        assert outcome.exit_code == UsageError.exit_code
        assert "--engine ray needs Ray" in outcome.stderr
        assert "vfss-distill[ray]" in outcome.stderr
        assert cli("ingest", "videos", "--engine", "dask").exit_code == 2


class TestEngines:
    def test_one_that_dies_takes_nobody_with_it(self) -> None:
        jobs: list[Any] = ["a", "die", "b", "fail", "exit", "c", "d"]
        ended: dict[int, Any] = {}
        with Processes(act, 2) as engine:
            waiting = 0
            for number, job in enumerate(jobs):
                if waiting == engine.slots:
                    done = engine.wait()
                    ended[done.number], waiting = done.value, waiting - 1
                engine.submit(number, job)
                waiting += 1
            for _ in range(waiting):
                done = engine.wait()
                ended[done.number] = done.value
        assert [ended[i] for i in (0, 2, 5, 6)] == ["aa", "bb", "cc", "dd"]
        assert isinstance(ended[1], WorkerDied) and "(signal 9)" in str(ended[1])
        assert isinstance(ended[4], WorkerDied) and "(exit 7)" in str(ended[4])
        assert str(ended[3]) == "a.mp4: is bad. Mend it."

    def test_leaving_takes_away_what_is_half_done(self, tmp_path: Path) -> None:
        half = tmp_path / "half"
        with pytest.raises(KeyboardInterrupt), Processes(act, 1) as engine:
            engine.submit(0, half)
            until(half.exists)
            raise KeyboardInterrupt
        assert not half.exists()

    def test_an_idle_worker_that_died_is_replaced(self) -> None:
        with Processes(act, 1) as engine:
            engine.submit(0, "a")
            assert engine.wait() == Done(0, "aa")
            (worker,) = engine._idle
            worker.process.kill()
            worker.process.join()
            engine.submit(1, "b")
            assert engine.wait() == Done(1, "bb")

    def test_one_process_is_the_same_thing(self) -> None:
        with OneProcess(act) as engine:
            engine.submit(3, "a")
            assert engine.wait() == Done(3, "aa")


class TestAccidents:
    def test_a_surprise_stops_only_its_recording(
        self, cli: Cli, videos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make = fill.make_study

        def surprising(job: fill.Job, words: fill.Words) -> Any:
            if job.path.name == "2.mp4":
                raise KeyError("Mueller")
            if job.path.name == "3.mp4":
                raise MemoryError
            return make(job, words)

        monkeypatch.setattr(fill, "make_study", surprising)
        outcome = cli("ingest", "videos", "--json")
        assert outcome.exit_code == 3
        failed = {f["input"]: f["error"] for f in json.loads(outcome.stdout)["failed"]}
        assert "unexpected KeyError. This is our bug" in failed["videos/p2/2.mp4"]
        assert "too large for this machine's memory" in failed["videos/p0/3.mp4"]
        assert "Mueller" not in outcome.stderr
        assert len(list_studies(Workspace(videos.parent))) == 5

    def test_what_a_killed_ingest_left_is_taken_away(self, cli: Cli, videos: Path) -> None:
        studies = videos.parent / "studies"
        old, young = studies / ".partial-aa-p1-1", studies / ".partial-bb-p2-2"
        for folder in (old, young):
            (folder / "frames").mkdir(parents=True)
        long_ago = time.time() - 2 * fill.STALE_S
        for place in (old, old / "frames"):
            os.utime(place, (long_ago, long_ago))
        cli("ingest", "videos")
        assert not old.exists()
        assert young.exists(), "another ingest may be writing it"

    @pytest.mark.parametrize("how", ["kill a worker", "ctrl-c"])
    def test_in_the_middle_of_it(self, how: str, tmp_path: Path) -> None:
        """Two workers; an accident once a long recording is begun, and long before it ends."""
        write_film(tmp_path / "v" / "a" / "long.mp4", "mpeg4", frames=2000)
        write_film(tmp_path / "v" / "b" / "short.mp4", frames=5)
        write_images(tmp_path / "v" / "a" / "slow", 200, suffix=".bmp")
        command = [sys.executable, "-m", "vfss_distill", "ingest", "v", "--workers", "2"]
        with subprocess.Popen(
            command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True,
            preexec_fn=_hears_ctrl_c,
        ) as process:  # fmt: skip
            until(lambda: bool(_half_done(tmp_path)) or process.poll() is not None)
            if how == "ctrl-c":
                os.killpg(process.pid, signal.SIGINT)
            else:
                victims = workers_of(process.pid)
                for victim in victims:
                    os.kill(victim, signal.SIGKILL)
            stderr = process.communicate(timeout=60)[1]
        assert not temporaries(tmp_path)
        stored = list_studies(Workspace(tmp_path))
        for study in stored:
            assert len(list(study.frames())) == study.record.frames
        if how == "ctrl-c":
            assert process.returncode == 130 and "interrupted" in stderr
            assert "Traceback" not in stderr
        else:
            assert process.returncode in (3, 4)
            assert "was killed or crashed (signal 9)" in stderr
        again = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
        assert again.returncode == 0
        assert len(list_studies(Workspace(tmp_path))) == 3


def _hears_ctrl_c() -> None:
    """A job in the background of a script is started deaf to it, and so are its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _half_done(root: Path) -> list[Path]:
    begun = ("frames/000010.png", "frames.raw")  # compressed as they come, or waiting
    return [path for name in begun for path in root.glob(f"studies/.partial-*/{name}")]
