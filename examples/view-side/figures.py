"""How often view and side are told, on simulated patients that training never saw.

    python figures.py --patients 400            # prints the table of docs/view.md; minutes

A study is eight frames, decided as `vfss ingest` decides. Half of the lateral patients face right,
and the text in their films is not mirrored.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from films import FRONTAL, LEFT, OTHER, POPULATIONS, Film, film_of, stranger

from vfss_distill.intake.view import decide, mean_probabilities
from vfss_distill.intake.view_model import CLASSES

KINDS = ("lateral", "frontal", "other")
FIRST_SEED = 30_000_000
FRAMES = 8
SIZE = 256


def films(kind: str, population: str, count: int) -> Iterator[Film]:
    ranges = replace(POPULATIONS[population], mirrored_share=0.5)
    rng = np.random.default_rng(FIRST_SEED)
    for seed in range(FIRST_SEED, FIRST_SEED + count):
        film = film_of(seed, FRONTAL if kind == "frontal" else LEFT, ranges, FRAMES, SIZE)
        if kind == "other":
            # The same kind of stranger throughout a film.
            drawn = int(rng.integers(2**31))
            frames = [stranger(np.random.default_rng(drawn), grey) for grey in film.frames]
            film = Film(frames, OTHER)
        yield film


def line(kind: str, population: str, count: int) -> str:
    side = told = unsure = wrong = 0
    for film in films(kind, population, count):
        decision = decide(film.frames)
        said = "frontal" if decision.view == "frontal" else decision.facing
        if decision.by == "assumed":
            unsure += 1
        elif said == CLASSES[film.kind]:
            told += 1
        else:
            wrong += 1
        means = mean_probabilities(film.frames)
        side += means[film.kind] > means[1 - film.kind] if film.kind < 2 else 0
    by_side = interval(side, count) if kind == "lateral" else "–"
    shares = " | ".join(interval(n, count) for n in (told, unsure, wrong))
    return f"| {kind} | {population} | {count} | {by_side} | {shares} |"


def interval(hits: int, count: int) -> str:
    """Share with Wilson's 95 % interval."""
    z, p = 1.959964, hits / count
    middle = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(p * (1 - p) / count + z * z / (4 * count**2))
    return f"{p:.3f} ({max(middle - half, 0):.3f}–{min(middle + half, 1):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=400)
    parser.add_argument("--films", nargs="+", default=list(KINDS), choices=KINDS)
    options = parser.parse_args()
    print("| films | population | n | side right | told, rightly | left open | told, wrongly |")
    print("|---|---|---|---|---|---|---|")
    for kind in options.films:
        count = options.patients if kind == "lateral" else options.patients // 2
        for population in POPULATIONS:
            print(line(kind, population, count), flush=True)


if __name__ == "__main__":
    main()
