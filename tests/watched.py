"""Processes of a running command, as tests watch them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def until(true: Callable[[], bool], *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def workers_of(process: int) -> list[int]:
    """Process numbers of a command's workers; its resource tracker is no worker. Linux."""
    found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    lines = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in found}
    return [pid for pid, line in lines.items() if b"spawn_main" in line]
