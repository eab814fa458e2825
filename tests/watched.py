"""Processes of a running command, as tests watch them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

_HOLDER = """
import sys
from pathlib import Path
from vfss_distill.claims import Claims
with Claims(Path(sys.argv[1])) as claims:
    print(claims.take(sys.argv[2]), flush=True)
    sys.stdin.read()
"""


def holder(file: Path, work: str) -> subprocess.Popen[str]:
    """Another process that has claimed a piece of work until its input ends."""
    words = [sys.executable, "-c", _HOLDER, str(file), work]
    other = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "True\n"
    return other


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
