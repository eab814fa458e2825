"""What workers have begun they may take away in peace."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vfss_distill.engines import Processes
from watched import until


def _slow_to_leave(job: tuple[Path, float]) -> None:
    begun, seconds = job
    begun.touch()
    try:
        time.sleep(60)
    finally:
        time.sleep(seconds)  # as taking away ten thousand frames does
        begun.unlink()


def test_workers_that_are_stopped_take_their_half_studies_away(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    jobs = [(tmp_path / "a", 0.3), (tmp_path / "b", 1.5)]
    with Processes(_slow_to_leave, len(jobs)) as engine:
        for number, job in enumerate(jobs):
            engine.submit(number, job)
        until(lambda: all(begun.exists() for begun, _ in jobs))
    assert not any(begun.exists() for begun, _ in jobs)
    assert "Traceback" not in capfd.readouterr().err


_FIRST_WORKER = """
from pathlib import Path
from vfss_distill.engines import Processes

if __name__ == "__main__":
    with Processes(str, 1) as engine:
        engine.submit(0, 1)
        (worker,) = engine._busy.values()
        print(Path(f"/proc/{worker.process.pid}/status").read_text())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="signals are read from /proc")
def test_the_first_worker_too_is_started_deaf_to_ctrl_c(tmp_path: Path) -> None:
    """Else one that is still importing is torn down with a traceback. It is the first that starts
    multiprocessing's own helper."""
    (tmp_path / "first.py").write_text(_FIRST_WORKER)
    done = subprocess.run(
        [sys.executable, "first.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    (blocked,) = (line.split()[1] for line in done.stdout.splitlines() if "SigBlk" in line)
    assert int(blocked, 16) & 1 << (signal.SIGINT - 1)
