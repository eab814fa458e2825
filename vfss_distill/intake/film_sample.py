"""A bounded sample of a film of any length, and what its pixels do over time."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]

FEW_FRAMES = 6  # below, standing still means nothing
_PARTS = 4
_MOST_FRAMES = 48
_MOST_PIXELS = 48_000_000  # kept in memory at once, whatever the film's length


@dataclass
class FrameSample:
    """An even sample of a film of unknown length, at most 48 frames: feed all with `add`."""

    _kept: list[Grey] = field(default_factory=list)
    _stride: int = 1
    _seen: int = 0

    def add(self, grey: Grey) -> None:
        """`grey` uint8 (H, W), the same size each time."""
        if self._seen % self._stride == 0:
            self._kept.append(grey.copy())
            if len(self._kept) > max(4, min(_MOST_FRAMES, _MOST_PIXELS // grey.size)):
                self._kept = self._kept[::2]
                self._stride *= 2
        self._seen += 1

    @property
    def frames(self) -> list[Grey]:
        return self._kept


class Film(NamedTuple):
    """The sample, pixel by pixel: `mean` and `spread` (standard deviation) float32, `top` uint8
    the brightest; in the second round all inverted, so that text is always bright.
    """

    mean: NDArray[np.float32]
    top: Grey
    spread: NDArray[np.float32]
    frames: int


class Sums(NamedTuple):
    """What is added up over frames, pixel by pixel."""

    total: NDArray[np.float32]
    squares: NDArray[np.float32]
    top: Grey
    bottom: Grey
    frames: int


def _added(frames: Sequence[Grey]) -> Sums:
    shape = frames[0].shape
    sums = Sums(
        np.zeros(shape, np.float32),
        np.zeros(shape, np.float32),
        frames[0].copy(),
        frames[0].copy(),
        len(frames),
    )
    for grey in frames:
        cv2.accumulate(grey, sums.total)
        cv2.accumulateSquare(grey, sums.squares)
        cv2.max(sums.top, grey, sums.top)
        cv2.min(sums.bottom, grey, sums.bottom)
    return sums


def _together(one: Sums, other: Sums) -> Sums:
    return Sums(
        one.total + other.total,
        one.squares + other.squares,
        np.maximum(one.top, other.top),
        np.minimum(one.bottom, other.bottom),
        one.frames + other.frames,
    )


def parts_of(frames: Sequence[Grey]) -> Iterator[Sums]:
    """All frames, then each quarter: text may come with one swallow and go with the next."""
    count = _PARTS if len(frames) >= _PARTS * FEW_FRAMES else 1
    edges = [len(frames) * part // count for part in range(count + 1)]
    parts = [_added(frames[edges[i] : edges[i + 1]]) for i in range(count)]
    yield functools.reduce(_together, parts)
    if count > 1:
        yield from parts


def both_polarities(sums: Sums) -> Iterator[Film]:
    share = np.float32(1 / sums.frames)
    mean = sums.total * share
    spread = np.sqrt(np.maximum(sums.squares * share - mean * mean, 0))
    yield Film(mean, sums.top, spread, sums.frames)
    yield Film(np.float32(255) - mean, 255 - sums.bottom, spread, sums.frames)
