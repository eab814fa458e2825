"""How far are measures from the packaged student's masks from the truth?

    python measures.py WORKSPACE [--patients 40]     # about ten minutes on two cores

Simulated patients that it never saw, from the ranges it was trained on and from others, ingested,
segmented and measured as a user would; then each measure beside what the simulator knows of the
swallow. Films in which a swallow had begun before are left out: the truth is of that one.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from evaluate import vfss

from vfss_distill.intake.study import list_studies
from vfss_distill.provenance import sha256_file
from vfss_distill.workspace import Workspace, read_json

POPULATIONS = (("training ranges", "train", 960_000), ("shifted ranges", "shifted", 970_000))
FPS = 30
# Our measure, what the simulator calls it, and the unit of the error.
COMPARED = (
    ("c2_c4_length", "c2_4_px", "%"),
    ("hyoid_corner_x_peak", "hyoid_x_peak_pct", "%C2-4"),
    ("hyoid_corner_y_peak", "hyoid_y_peak_pct", "%C2-4"),
    ("hyoid_corner_xy_peak", "hyoid_xy_peak_pct", "%C2-4"),
    ("hyoid_corner_xy_peak: its time", "hyoid_peak_frame", "ms"),
    ("pharynx_area_min", "pharynx_area_mpc_pct", "%(C2-4)²"),
)
Errors = dict[str, list[float | None]]  # None: not measured, though there is a truth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--patients", type=int, default=40)
    options = parser.parse_args()
    found = []
    for words, ranges, seed in POPULATIONS:
        folder = options.workspace / ranges
        swallows, errors = measured(folder, ranges, seed, options.patients)
        print(f"{words}: {options.patients} patients, {swallows} with a whole swallow to compare")
        found.append(errors)
    for (words, *_), errors in zip(POPULATIONS, found, strict=True):
        print(f"\n{words}\n")
        print("| measure | measured | error, median (95 %) | size of the error: median, 9 of 10 |")
        print("|---|---|---|---|")
        for name, _, unit in COMPARED:
            print(f"| {name} | {row(errors[name], unit)} |")


def measured(folder: Path, ranges: str, seed: int, patients: int) -> tuple[int, Errors]:
    """How many films have a swallow to compare, and the errors of each measure."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = f"--size 384 --fps {FPS} --frames 150 --label-every 150 --workers 2 --quiet"
    words = f"simulate films --patients {patients} --seed {seed} --ranges {ranges} {shape}"
    vfss(folder, *words.split())
    vfss(folder, "ingest", "films", "--quiet")
    vfss(folder, "segment", "--split", "all", "--no-overlay", "--quiet")
    told = json.loads(vfss(folder, "measure", "--json"))
    truths = {}
    for path in (folder / "films").rglob("*_truth.json"):
        truth = read_json(path)
        truths[sha256_file(path.with_name(truth["film"]))] = truth["measures"]
    sources = {study.id: study.record.source_sha256 for study in list_studies(Workspace(folder))}
    errors: Errors = defaultdict(list)
    swallows = 0
    for result in told["results"]:
        truth = truths[sources[result["study"]]]
        ours = {measure["measure"]: measure for measure in result["measures"]}
        if truth["hyoid_peak_frame"] is None or "the second is measured" in json.dumps(ours):
            continue
        swallows += 1
        for name, theirs, _ in COMPARED:
            if truth[theirs] is not None:
                errors[name].append(error(ours, name, truth[theirs]))
    return swallows, errors


def error(ours: dict[str, dict[str, Any]], name: str, truth: float) -> float | None:
    """What we say less what is true, in the unit of `COMPARED`."""
    measure = ours.get(name.partition(":")[0])
    if measure is None:
        return None
    if name.endswith("time"):
        return float(int(measure["frames"].split("-")[0]) - truth) * 1000 / FPS
    off = float(measure["value"]) - truth
    return 100 * off / truth if name == "c2_c4_length" else off


def row(errors: list[float | None], unit: str) -> str:
    """Counts, bias with a bootstrap interval over patients, and how large errors are."""
    known = np.array([one for one in errors if one is not None])
    if not len(known):
        return f"0 of {len(errors)} | – | –"
    draws = np.random.default_rng(0).choice(known, (10_000, len(known)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    size = np.abs(known)
    return (
        f"{len(known)} of {len(errors)} | {np.median(known):+.1f} ({low:+.1f} to {high:+.1f}) "
        f"{unit} | {np.median(size):.1f}, {np.percentile(size, 90):.1f} {unit}"
    )


if __name__ == "__main__":
    main()
