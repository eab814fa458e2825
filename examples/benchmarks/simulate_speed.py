"""How fast `vfss simulate` makes films at 512x512, whole command: drawing, masks, film, truth.

    python examples/benchmarks/simulate_speed.py                # two studies, two workers

Prints frames per second of wall clock and of processor time. Other work on the machine slows the
first; the second times the number of free cores is what an idle machine reaches.

Thirteen files a frame are made and, in the end, removed. On ext4 that slows the next run by a fifth
for minutes: the kernel passes over places of files just removed, one by one. With
TMPDIR=/dev/shm the films lie in memory, and runs may follow one another.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=2)
    parser.add_argument("--frames", type=int, default=150, help="of each study")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "films"
        command = [sys.executable, "-m", "vfss_distill", "simulate", str(target), "--json"]
        command += ["-n", str(options.studies), "--frames", str(options.frames)]
        command += ["--size", str(options.size), "--workers", str(options.workers)]
        command += ["--pulses", "30"]  # no frame is stored twice: the slowest case
        before, start = _processor_s(), time.perf_counter()
        done = subprocess.run(
            command,
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        wall, processor = time.perf_counter() - start, _processor_s() - before
    frames = json.loads(done.stdout)["frames"]
    print(f"{frames} frames of {options.size}x{options.size}, {options.workers} workers")
    print(f"{frames / wall:.1f} frames/s of wall clock ({wall:.1f} s, starting included)")
    print(f"{frames / processor:.1f} frames per processor second ({processor:.1f} s)")


def _processor_s() -> float:
    """Processor time of all finished children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
