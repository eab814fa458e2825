"""How good is the packaged student on patients it never saw, and what does it see in nothing?

    python evaluate.py WORKSPACE [--model student.onnx] [--small]     # ten minutes on two cores

40 simulated patients from the ranges it was trained on, 40 from others (other dose, blur,
gamma, scale, pose, side, text, collimator), filmed as `vfss simulate` does by default, ingested,
segmented and reported as a user would. Then films that are no films: black, white, noise.
With --small the films are like those it was trained on, 256×256 at 12 frames/s: a third of the
time, and less to see.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

from vfss_distill.inference.session import find_model
from vfss_distill.provenance import sha256_file
from vfss_distill.workspace import Workspace

POPULATIONS = (
    ("training ranges", "train", 910_000),
    ("shifted ranges", "shifted", 920_000),
)
PATIENTS, FRAMES, SIZE = 40, 36, 256
DEFAULT = "--label-every 5"  # 512×512, 30 frames/s, 3 to 6 s
SMALL = f"--size {SIZE} --fps 12 --frames {FRAMES} --label-every 3"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--model", type=Path, help="instead of the packaged one")
    parser.add_argument("--small", action="store_true", help="films of 256×256, 12 frames/s")
    options = parser.parse_args()
    shape = SMALL if options.small else DEFAULT
    model = ["--model", str(options.model.resolve())] if options.model else []
    print(f"| films | {PATIENTS} patients: mean Dice (95 %) | bolus found where there is none |")
    print("|---|---|---|")
    tables = []
    for words, ranges, seed in POPULATIONS:
        told = evaluated(options.workspace / ranges, ranges, seed, shape, model)
        low, high = told["mean_dice_ci95"]
        bolus = next(task for task in told["tasks"] if task["task"] == "bolus")
        rate, empty = bolus["false_positive_rate"], bolus["n_truth_empty"]
        print(
            f"| {words} | {told['mean_dice']:.3f} ({low:.3f}-{high:.3f}) "
            f"| {100 * rate:.1f} % of {empty} frames |",
            flush=True,
        )
        tables.append((words, told["tasks"]))
    print("\n| task | " + " | ".join(words for words, _ in tables) + " |")
    print("|" + "---|" * (len(tables) + 1))
    for row in zip(*(tasks for _, tasks in tables), strict=True):
        cells = (
            f"{task['dice_mean']:.3f} ({task['dice_ci95'][0]:.3f}-{task['dice_ci95'][1]:.3f})"
            for task in row
        )
        print(f"| {row[0]['task']} | " + " | ".join(cells) + " |")
    print()
    for name, pixels in no_films(options.workspace / "no-films", model):
        print(f"{name}: {pixels} mask pixels in all tasks and frames")


def evaluated(folder: Path, ranges: str, seed: int, shape: str, model: list[str]) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    words = f"simulate films --patients {PATIENTS} --seed {seed} --ranges {ranges} {shape}"
    vfss(folder, *words.split(), "--workers", "2", "--quiet")
    vfss(folder, "ingest", "films", "--quiet")
    vfss(folder, "segment", "films", "--no-overlay", "--quiet", *model)
    told = json.loads(vfss(folder, "report", "--split", "all", "--json"))
    # The workspace may hold results of other models, of an earlier evaluation.
    digest = sha256_file(find_model(Workspace(folder), model[1] if model else None))
    return next(one for one in told["models"] if one["sha256"] == digest)


def no_films(folder: Path, model: list[str]) -> Iterator[tuple[str, int]]:
    """Name and number of mask pixels of films with nothing on them."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    fine = rng.integers(0, 256, (30, SIZE, SIZE), dtype=np.uint8)
    kinds = {
        "black": np.zeros_like(fine),
        "white": np.full_like(fine, 255),
        "noise": fine,
        "grey noise": (110 + fine // 16).astype(np.uint8),
        "coarse noise": fine[:, ::8, ::8].repeat(8, axis=1).repeat(8, axis=2),
    }
    for name, frames in kinds.items():
        film = folder / f"{name.replace(' ', '-')}.mkv"
        if not film.exists():
            write(film, frames)
        told = json.loads(vfss(folder, "segment", film.name, "--no-overlay", "--json", *model))
        table = folder / told["studies"][0]["outputs"]["frames_csv"]
        lines = [line.split(",") for line in table.read_text().splitlines()]
        areas = [number for number, title in enumerate(lines[0]) if title.endswith("_area_px")]
        yield name, sum(int(line[number]) for line in lines[1:] for number in areas)


def write(film: Path, frames: np.ndarray) -> None:
    """Lossless, so that noise stays noise."""
    with av.open(str(film), "w") as container:
        stream = container.add_stream("ffv1", rate=12)
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "gray"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
        container.mux(stream.encode())


def vfss(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "vfss_distill", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


if __name__ == "__main__":
    main()
