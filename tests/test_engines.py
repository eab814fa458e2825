"""What workers have begun they may take away in peace."""

from __future__ import annotations

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
