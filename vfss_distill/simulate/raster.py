"""Outlines to pixels: coverage at 1/4 pixel, from which both the shadow and its mask are made.

Pixel (i, j) has its centre at x = j, y = i. The mask of a structure is where at least half of the
pixel is covered, so masks are exact for what was drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .curves import Points

SUPERSAMPLING = 4
_FRACTION_BITS = 4
_MARGIN = 2


@dataclass(frozen=True)
class Patch:
    """Coverage 0..1 of one structure: `cover` (h, w) float32 with its corner at row, column."""

    row: int
    column: int
    cover: NDArray[np.float32]

    @property
    def empty(self) -> bool:
        return self.cover.size == 0

    @property
    def window(self) -> tuple[slice, slice]:
        return _window(self.row, self.column, self.cover)

    @property
    def inside(self) -> NDArray[np.bool_]:
        """(h, w): at least half of the pixel is covered."""
        return self.cover >= 0.5

    def mask(
        self, shape: tuple[int, int], within: NDArray[np.bool_] | None = None
    ) -> NDArray[np.bool_]:
        """Where it is, or where it is of what is `within`."""
        full = np.zeros(shape, np.bool_)
        if not self.empty:
            full[self.window] = self.inside if within is None else self.inside & within[self.window]
        return full

    def full(self, shape: tuple[int, int]) -> NDArray[np.float32]:
        image = np.zeros(shape, np.float32)
        if not self.empty:
            image[self.window] = self.cover
        return image

    def add_to(self, image: NDArray[np.float32], amount: float) -> None:
        if not self.empty:
            image[self.window] += np.float32(amount) * self.cover

    def rounded(self, radius_px: float) -> Patch:
        """Thickness profile of a body that is round along the beam: 0 at the rim, 1 inside."""
        if self.empty:
            return self
        h, w = self.cover.shape
        inside = np.zeros((h + 2, w + 2), np.bool_)
        inside[1:-1, 1:-1] = self.inside
        depth = cv2.distanceTransform(inside.view(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
        share = depth + np.float32(0.3)
        share /= np.float32(max(radius_px, 0.5))
        np.subtract(1, np.minimum(share, 1, out=share), out=share)
        profile = np.subtract(1, np.square(share, out=share), out=share)
        np.sqrt(profile, out=profile)
        profile *= self.cover
        return Patch(self.row, self.column, profile)


def rasterise(
    outlines: Sequence[Points], shape: tuple[int, int], *, margin: int = _MARGIN
) -> Patch:
    """Coverage of the union of closed `outlines` (pixel coordinates) on an image of `shape`."""
    row, column, levels = _covered(outlines, shape, margin)
    return Patch(row, column, np.multiply(levels, np.float32(1 / 255), dtype=np.float32))


def outlined(
    outlines: Sequence[Points], shape: tuple[int, int], within: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """`rasterise(outlines, shape).mask(shape, within)`, without coverage for shadows."""
    full = np.zeros(shape, np.bool_)
    row, column, levels = _covered(outlines, shape, _MARGIN)
    window = _window(row, column, levels)
    np.logical_and(levels >= 128, within[window], out=full[window])  # at least half of 255
    return full


def _window(row: int, column: int, block: NDArray[Any]) -> tuple[slice, slice]:
    h, w = block.shape
    return slice(row, row + h), slice(column, column + w)


_NOTHING = 0, 0, np.zeros((0, 0), np.uint8)


def _covered(
    outlines: Sequence[Points], shape: tuple[int, int], margin: int
) -> tuple[int, int, NDArray[np.uint8]]:
    """Corner and coverage 0..255."""
    outlines = [outline for outline in outlines if len(outline) > 2]
    if not outlines:
        return _NOTHING
    every = outlines[0] if len(outlines) == 1 else np.concatenate(outlines)
    low, high = every.min(axis=0), every.max(axis=0)
    column, row = (max(floor(v) - margin, 0) for v in low)
    right, bottom = (min(ceil(v) + margin + 1, n) for v, n in zip(high, shape[::-1], strict=True))
    if right <= column or bottom <= row:
        return _NOTHING
    fine = np.zeros(((bottom - row) * SUPERSAMPLING, (right - column) * SUPERSAMPLING), np.uint8)
    scale = SUPERSAMPLING * (1 << _FRACTION_BITS)
    points = (every - (column - 0.5, row - 0.5)) * scale - (1 << _FRACTION_BITS) / 2
    rounded, start = np.rint(points).astype(np.int32), 0
    for outline in outlines:  # one by one, since together they would cut holes into one another
        stop = start + len(outline)
        cv2.fillPoly(fine, [rounded[start:stop]], 255, cv2.LINE_8, _FRACTION_BITS)
        start = stop
    # Halved twice: six times as fast as a quarter at once, and the same to one level of grey.
    half = cv2.resize(fine, (fine.shape[1] // 2, fine.shape[0] // 2), interpolation=cv2.INTER_AREA)
    size = right - column, bottom - row
    coarse = cv2.resize(half, size, interpolation=cv2.INTER_AREA)
    return row, column, np.asarray(coarse, np.uint8)
