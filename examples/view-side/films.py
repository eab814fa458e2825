"""Simulated films to learn views from, and what real recorders do to them.

Kinds are numbered as in `CLASSES`: 0 lateral facing left, 1 facing right, 2 frontal, 3 other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from frontal import frontal_study
from numpy.typing import NDArray
from other import other_picture

from vfss_distill.simulate.population import SHIFTED, TRAIN, Ranges
from vfss_distill.simulate.study import SimulateOptions, StudySimulator

Grey = NDArray[np.uint8]
Rng = np.random.Generator

SIZE = 128
LEFT, RIGHT, FRONTAL, OTHER = range(4)
POPULATIONS = {"train": TRAIN, "shifted": SHIFTED}
NOTHING_AROUND = {name: 0.0 for name in ("text_share", "logo_share", "boxed_share", "viewer_share")}
_WORDS = ("LATERAL", "VFSS", "30 f/s", "72 kV", "FLUORO", "R", "L", "Img 1", "AP", "5 ml", "12:04")


@dataclass(frozen=True)
class Film:
    """A few frames of one patient, and which kind it is. `plain`: may be mirrored, for nothing is
    written on it and no viewer surrounds it."""

    frames: list[Grey]
    kind: int
    plain: bool = False


def film_of(seed: int, kind: int, ranges: Ranges, frames: int, size: int = SIZE) -> Film:
    """Frames one second apart, lateral or frontal; of lateral ones the side is as simulated.

    Every third film is wider than high, as recorders make them.
    """
    options = SimulateOptions(
        width=size,
        height=size * 3 // 4 if seed % 3 == 0 else size,
        fps=1,
        pulses=1,
        frames=frames,
        ranges=ranges,
        extras=False,
    )
    if kind == FRONTAL:
        return Film(frontal_study(seed, options), FRONTAL)
    simulator = StudySimulator(seed, 0, options)
    kind = RIGHT if simulator.facing == "right" else LEFT
    return Film([frame.grey for frame in simulator.frames()], kind)


def training_films(
    patients: int, first_seed: int, populations: tuple[str, ...], frames: int = 3
) -> Iterator[Film]:
    """As many lateral patients as `patients`, and half as many frontal ones.

    Half of the lateral ones are plain and face left, to be mirrored at will. The others are as
    they come, half of them facing right: text and viewers are never seen mirrored.
    """
    for number in range(patients):
        seed = first_seed + number
        ranges = POPULATIONS[populations[number % len(populations)]]
        if number % 4 < 2:
            bare = replace(ranges, mirrored_share=0.0, **NOTHING_AROUND)
            yield replace(film_of(seed, LEFT, bare, frames), plain=True)
        else:
            yield film_of(seed, LEFT, replace(ranges, mirrored_share=0.5), frames)
            yield film_of(seed, FRONTAL, ranges, frames)


# ── what recorders and rooms do to a film ────────────────────────────────────────────────────


def varied(rng: Rng, grey: Grey) -> Grey:
    """`grey` as another machine might have shown it; never mirrored. Half as large at most."""
    grey = _warped(rng, grey)
    steps: tuple[tuple[float, Callable[[Rng, Grey], Grey]], ...] = (
        (0.8, _toned),
        (0.3, _blurred),
        (0.4, _grained),
        (0.3, _collimated),
        (0.2, _hidden),
        (0.35, _written),
    )
    for share, step in steps:
        if rng.random() < share:
            grey = step(rng, grey)
    if rng.random() < 0.3:
        return np.uint8(255) - grey
    return grey


def _warped(rng: Rng, grey: Grey) -> Grey:
    """Turned, scaled, stretched and shifted; the frame may change its shape."""
    height, width = grey.shape
    target_h = int(width * rng.choice([1.0, 0.75, 0.8, 0.6])) if rng.random() < 0.4 else height
    zoom = float(np.exp(rng.uniform(np.log(0.75), np.log(1.45))))
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), float(rng.normal(0, 7)), zoom)
    matrix[0] *= rng.uniform(0.9, 1.1)
    shift = rng.uniform(-0.16, 0.16, 2) * (width, target_h)
    matrix[:, 2] += shift
    matrix[1, 2] += (target_h - height) / 2
    border = 0 if rng.random() < 0.6 else int(grey[:: height - 1, :: width - 1].mean())
    out: Grey = cv2.warpAffine(
        grey, matrix, (width, target_h), flags=cv2.INTER_LINEAR, borderValue=border
    )
    return out


def _toned(rng: Rng, grey: Grey) -> Grey:
    x = (grey.astype(np.float32) + 1) / 256
    x = x ** float(np.exp(rng.uniform(-0.9, 0.9)))
    if rng.random() < 0.3:  # an automatic window that stretches what is local
        soft = cv2.GaussianBlur(x, (0, 0), rng.uniform(6, 20))
        x = 0.5 + (x - soft) * rng.uniform(1, 3)
    rows, columns = np.mgrid[-1 : 1 : x.shape[0] * 1j, -1 : 1 : x.shape[1] * 1j]
    x = x + rng.normal(0, 0.12) * rows + rng.normal(0, 0.12) * columns
    x = (x - 0.5) * rng.uniform(0.5, 1.6) + 0.5 + rng.uniform(-0.15, 0.15)
    return np.clip(x * 255, 0, 255).astype(np.uint8)


def _blurred(rng: Rng, grey: Grey) -> Grey:
    out: Grey = cv2.GaussianBlur(grey, (0, 0), rng.uniform(0.5, 2.2))
    return out


def _grained(rng: Rng, grey: Grey) -> Grey:
    noise = rng.standard_normal(grey.shape, dtype=np.float32) * rng.uniform(3, 30)
    if rng.random() < 0.5:
        noise = cv2.GaussianBlur(noise, (0, 0), 1.0) * 2.5
    return np.clip(grey + noise, 0, 255).astype(np.uint8)


def _collimated(rng: Rng, grey: Grey) -> Grey:
    height, width = grey.shape
    field = np.zeros(grey.shape, np.uint8)
    if rng.random() < 0.5:
        at = (int(width * rng.uniform(0.4, 0.6)), int(height * rng.uniform(0.4, 0.6)))
        cv2.circle(field, at, int(max(height, width) * rng.uniform(0.36, 0.6)), 1, -1)
    else:
        left, right, top, bottom = rng.uniform(0, 0.16, 4)
        field[int(top * height) : int((1 - bottom) * height),
              int(left * width) : int((1 - right) * width)] = 1  # fmt: skip
    return np.where(field > 0, grey, np.uint8(rng.choice([0, 0, 12, 255])))


def _hidden(rng: Rng, grey: Grey) -> Grey:
    """A hand, a cup, an inset: some patch says nothing."""
    out = grey.copy()
    height, width = grey.shape
    for _ in range(int(rng.integers(1, 3))):
        h, w = (rng.uniform(0.08, 0.3, 2) * grey.shape).astype(int)
        y, x = int(rng.integers(height - h)), int(rng.integers(width - w))
        out[y : y + h, x : x + w] = rng.integers(256)
    return out


def _written(rng: Rng, grey: Grey) -> Grey:
    out = grey.copy()
    for _ in range(int(rng.integers(1, 6))):
        y = rng.uniform(0.04, 0.2) if rng.random() < 0.6 else rng.uniform(0.85, 0.98)
        at = int(rng.uniform(0, 0.8) * grey.shape[1]), int(y * grey.shape[0])
        ink = int(rng.choice([255, 200, 0]))
        word, scale = str(rng.choice(_WORDS)), float(rng.uniform(0.2, 0.4))
        cv2.putText(out, word, at, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, 1, cv2.LINE_AA)
    return out


def stranger(rng: Rng, lateral: Grey) -> Grey:
    """A picture of kind `OTHER`."""
    side = min(lateral.shape)
    return other_picture(rng, side, np.ascontiguousarray(lateral[:side, :side]))
