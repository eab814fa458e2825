"""How large a film is shown to the network: with a spine about as long as those it learned from.

A network knows anatomy at the sizes it was shown. A wide field shows a small neck, a child's or a
narrow field a large one; each is shown in a square of another side, so that the middles of C2 and
C4 lie as many pixels apart as they did in training.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

SPINE = ("c2", "c4")  # tasks that tell how large a patient is shown
STEP = 32  # sides are multiples of it, as networks with maps up to stride 32 want
LEAST_SIDE, LARGEST_SIDE = 64, 2048  # of what is exported for any side
Usual = tuple[float, float]

# Beyond these, of the side it was trained with, a network fails or its time is wasted.
_SMALLEST, _LARGEST = 5 / 8, 3 / 2
_LEAST = 3e-4  # of the square: smaller masks have no middle worth measuring
_STEADY = 0.1  # of the length: what a middle half of the frames may differ by


def spine_px(c2: NDArray[np.bool_], c4: NDArray[np.bool_]) -> float:
    """Distance between the middles of two masks (S, S) in pixels; NaN where either is missing."""
    least = max(1.0, _LEAST * c2.size)
    if min(np.count_nonzero(c2), np.count_nonzero(c4)) < least:
        return float("nan")
    one, other = (np.mean(np.nonzero(mask), axis=1) for mask in (c2, c4))
    return float(np.hypot(*(one - other)))


def film_spine_px(lengths: Iterable[float]) -> float | None:
    """Of one film, from some of its frames; None where less than half show it or they disagree."""
    every = np.array(list(lengths), float)
    found = every[~np.isnan(every)]
    if not len(found) or len(found) < len(every) / 2:
        return None
    low, middle, high = np.percentile(found, [25, 50, 75])
    return float(middle) if high - low <= _STEADY * middle else None


def usual_of(films: Iterable[float]) -> Usual | None:
    """What a network is used to, from the spines of the films it learned from: no less than what a
    third of them exceed, for small is found less well; no more than what few exceed."""
    lengths = np.array(list(films), float)
    if not len(lengths):
        return None
    low, high = np.percentile(lengths, [66, 98])
    return round(float(low), 2), round(float(high), 2)


def side_for(spine: float | None, usual: Usual | None, size: int) -> int:
    """Side in pixels of the square for a film whose spine is `spine` pixels long in one of `size`;
    `size` itself where either length is not known."""
    if not spine or usual is None:
        return size
    wanted = size * float(np.clip(spine, *usual)) / spine
    wanted = float(np.clip(wanted, _SMALLEST * size, _LARGEST * size))
    return int(np.clip(STEP * round(wanted / STEP), LEAST_SIDE, LARGEST_SIDE))


def is_usual(said: object) -> bool:
    """Is it what `usual_of` gives, as JSON has it?"""
    return (
        isinstance(said, list)
        and len(said) == 2
        and all(isinstance(one, int | float) and 0 < one < LARGEST_SIDE for one in said)
        and said[0] <= said[1]
    )
