"""How fast `vfss ingest` is beside `ffmpeg`, and whether its memory grows with the recording.

    python examples/benchmarks/ingest_speed.py [--seconds 60] [--rounds 3] [--only speed|memory]

Speed: one H.264 film of 640 x 480 with the noise of fluoroscopy is ingested, and written as PNG
files by `ffmpeg`, in turns; each as a whole process, so start-up counts. Ingest also expands the
range, looks for combs, repeats and burned-in text, and takes digests. Memory: the largest resident
set of the process that ingests a recording of one minute, and of one of sixty. Needs `ffmpeg`
(Debian package of that name) for the speed only.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

RATE = 30


@dataclass(frozen=True)
class Run:
    """One process: wall seconds, processor seconds and its largest resident set."""

    seconds: float
    processor_s: float
    peak_mib: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the film for speed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("speed", "memory"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vfss-speed-") as folder:
        if given.only != "memory":
            if shutil.which("ffmpeg"):
                speed(Path(folder), given.seconds, given.rounds)
            else:
                print("speed: skipped, there is no ffmpeg here (Debian: apt-get install ffmpeg)")
        if given.only != "speed":
            memory(Path(folder))


def speed(folder: Path, seconds: float, rounds: int) -> None:
    """Print how both do on a film without text, and on one with text, which ingest blanks."""
    print(f"{os.cpu_count()} cores, {rounds} rounds, films of 640 x 480 in H.264")
    for text, words in (("", "without text"), ("DOE^JANE 1951", "text found and blanked")):
        film = folder / "speed.mp4"
        frames = write_film(film, 640, 480, seconds, text)
        ours, theirs = [], []
        for _ in range(rounds):
            theirs.append(with_ffmpeg(film, folder / "png"))
            ours.append(with_vfss(film, folder / "lab"))
        wall = [other.seconds / mine.seconds for mine, other in zip(ours, theirs, strict=True)]
        busy = [
            other.processor_s / mine.processor_s for mine, other in zip(ours, theirs, strict=True)
        ]
        print(f"{frames} frames, {words}:")
        print(f"  ffmpeg to PNG  {frames / statistics.median(r.seconds for r in theirs):6.1f} fps")
        print(f"  vfss ingest    {frames / statistics.median(r.seconds for r in ours):6.1f} fps")
        print(f"  ratio by the clock      {_spread(wall)}   (at least 0.9 is asked)")
        print(f"  ratio by processor time {_spread(busy)}")


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f}  [{min(ratios):.2f}, {max(ratios):.2f}]"


def memory(folder: Path) -> None:
    """Print the peak of a recording of one minute, of sixty, and their ratio."""
    peaks = []
    for minutes in (1, 60):
        film = folder / f"{minutes}.avi"
        frames = write_film(film, 128, 96, 60.0 * minutes)
        run = with_vfss(film, folder / "lab")
        film.unlink()
        peaks.append(run.peak_mib)
        print(f"{minutes:2} min  {frames:6} frames  peak {run.peak_mib:6.1f} MiB")
    print(f"ratio {peaks[1] / peaks[0]:.2f}   (at most 1.2 is asked)")


def with_vfss(film: Path, workspace: Path) -> Run:
    """Ingest into a new workspace, which is deleted again."""
    words = [sys.executable, "-m", "vfss_distill", "ingest", str(film), "--quiet"]
    return run([*words, "--workspace", str(workspace)], workspace)


def with_ffmpeg(film: Path, target: Path) -> Run:
    """Every frame as a grey PNG, as `ffmpeg` does it when nothing else is asked."""
    target.mkdir()
    words = ["ffmpeg", "-v", "error", "-i", str(film), "-pix_fmt", "gray", "-fps_mode"]
    return run([*words, "passthrough", str(target / "%06d.png")], target)


def run(words: list[str], target: Path) -> Run:
    """Run to the end; then `target` is deleted. Raises CalledProcessError."""
    started = time.perf_counter()
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)
    shutil.rmtree(target)
    unit = 1024 if sys.platform != "darwin" else 1024**2
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / unit)


def write_film(path: Path, width: int, height: int, seconds: float, text: str = "") -> int:
    """A round field with a moving bolus under quantum noise; returns the number of frames."""
    random = np.random.default_rng(0)
    noise = random.normal(0, 5, (16, height, width)).astype(np.int16)
    field = np.zeros((height, width), np.uint8)
    cv2.circle(field, (width // 2, height // 2), height * 9 // 20, 120, -1)
    cv2.putText(field, text, (20, 40), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 255, 2)
    count = round(seconds * RATE)
    codec = "libx264" if path.suffix == ".mp4" else "mjpeg"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=RATE)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv420p" if codec == "libx264" else "yuvj420p"
        stream.options = {"preset": "veryfast", "crf": "20"} if codec == "libx264" else {}
        for index in range(count):
            grey = _frame(field, noise, index)
            picture = av.VideoFrame.from_ndarray(grey, format="gray")
            picture = picture.reformat(format=stream.pix_fmt)
            picture.pts, picture.time_base = index, Fraction(1, RATE)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return count


def _frame(field: NDArray[np.uint8], noise: NDArray[np.int16], index: int) -> NDArray[np.uint8]:
    height, width = field.shape
    grey = field.copy()
    down = int((0.2 + 0.6 * (index % 60) / 60) * height)
    cv2.ellipse(grey, (width // 2, down), (width // 20, height // 10), 0, 0, 360, 40, -1)
    # The same sixteen pictures of noise, each time laid elsewhere: new in every frame, and cheap.
    shift = (index * 37 % height, index * 61 % width)
    shown = grey + np.roll(noise[index % len(noise)], shift, (0, 1)) * (field > 0)
    return np.clip(shown, 0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
