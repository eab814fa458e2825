"""Polygons from masks and masks from polygons.

Coordinates are those of the drawing tools: (0, 0) is the outer corner of the first pixel, whose
centre lies at (0.5, 0.5). A pixel is inside when its centre is, by the nonzero winding rule; an
outline traced along pixel edges therefore gives its mask back exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ...errors import LabelError
from .annotations import Mask, Size

Ring = NDArray[np.float64]  # (n, 2): x, y

LEAST_DICE = 0.995  # of an outline with few corners; where none reaches it, all corners stay
_TOLERANCES_PX = (1.0, 0.7, 0.5)
_FARTHEST_PX = 1e7
# Corners lie on pixel corners, so edges pass through pixel centres: written with few digits and
# read again they must fall on the same side.
_ROUNDED_PX = 1e-3
_EDGES = 1024  # at a time: each may cross every row, at some 50 bytes a crossing


@dataclass(frozen=True)
class Polygon:
    """A closed outline; a hole is reached over a cut and runs the other way round."""

    points: Ring

    @classmethod
    def of(cls, points: Sequence[Sequence[float]] | Ring) -> Polygon:
        """Raises ValueError for points that are none."""
        ring = np.asarray(points, np.float64)
        if ring.ndim != 2 or ring.shape[1] != 2 or not np.isfinite(ring).all():
            raise ValueError("points are no numbers in pairs")
        return cls(ring)

    def draw(self, size: Size) -> Mask:
        if len(self.points) < 3:
            raise LabelError("a polygon has fewer than three points", remedy="Delete it.")
        return fill([self.points], size)


def fill(rings: Sequence[Ring], size: Size) -> Mask:
    """Bool (H, W): pixels whose centre the rings wind around."""
    height, width = size
    winding = np.zeros((height, width + 1), np.int32)
    for ring in rings:
        starts = np.clip(ring, -_FARTHEST_PX, _FARTHEST_PX)
        ends = np.roll(starts, -1, axis=0)
        for at in range(0, len(ring), _EDGES):
            _wind(winding, starts[at : at + _EDGES], ends[at : at + _EDGES])
    inside: Mask = np.cumsum(winding, axis=1)[:, :width] != 0
    return inside


def _wind(winding: NDArray[np.int32], starts: Ring, ends: Ring) -> None:
    """Count each edge where it crosses the centre line of a row."""
    height, width = winding.shape[0], winding.shape[1] - 1
    (x0, y0), (x1, y1) = starts.T, ends.T
    first = np.clip(np.ceil(np.minimum(y0, y1) - 0.5), 0, height).astype(np.int64)
    last = np.clip(np.ceil(np.maximum(y0, y1) - 0.5), 0, height).astype(np.int64)
    count = last - first  # rows whose centre line the edge crosses
    edge = np.repeat(np.arange(len(starts)), count)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    slope = (x1 - x0)[edge] / (y1 - y0)[edge]
    x = x0[edge] + (row + 0.5 - y0[edge]) * slope
    column = np.clip(np.ceil(x - 0.5 - _ROUNDED_PX), 0, width).astype(np.int64)
    np.add.at(winding, (row, column), np.where(y1 > y0, 1, -1)[edge])


def outline(mask: Mask) -> list[Ring]:
    """The mask as polygons, one per connected piece, with as few corners as keep Dice ≥ .995."""
    count, pieces, boxes, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), None, None, 4)
    rings = []
    for number in range(1, count):
        left, top, width, height = boxes[number, :4]
        part = pieces[top : top + height, left : left + width] == number
        rings.append(_outline_of_piece(part) + np.array([left, top], np.float64))
    return rings


def _outline_of_piece(part: Mask) -> Ring:
    exact = trace(part)
    for tolerance in _TOLERANCES_PX:
        fewer = _joined([_simpler(ring, tolerance) for ring in exact])
        if len(fewer) >= 3:
            drawn = fill([fewer], part.shape)
            if 2 * np.sum(drawn & part) >= LEAST_DICE * (np.sum(drawn) + np.sum(part)):
                return fewer
    return _joined(exact)


def trace(mask: Mask) -> list[Ring]:
    """Closed rings along pixel edges: mask on the right hand going on, holes the other way."""
    padded = np.pad(mask, 1)
    after: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for shift, start, end in (
        ((-1, 0), (0, 0), (1, 0)),  # nothing above: along the upper edge, to the right
        ((0, 1), (1, 0), (1, 1)),
        ((1, 0), (1, 1), (0, 1)),
        ((0, -1), (0, 1), (0, 0)),
    ):
        edge = padded & ~np.roll(padded, (-shift[0], -shift[1]), (0, 1))
        for y, x in np.argwhere(edge[1:-1, 1:-1]).tolist():
            after.setdefault((x + start[0], y + start[1]), []).append((x + end[0], y + end[1]))
    rings = []
    while after:
        # A start where rings touch would be met twice.
        here = first = next(point for point, onward in after.items() if len(onward) == 1)
        points, came = [], (0, 0)
        while True:
            onward = after[here]
            # Where two pixels touch by a corner, turn right: each keeps a ring of its own.
            turn = 0
            if len(onward) > 1:
                turned = (here[0] - came[1], here[1] + came[0])
                turn = onward.index(turned) if turned in onward else 0
            there = onward.pop(turn)
            if not onward:
                del after[here]
            step = (there[0] - here[0], there[1] - here[1])
            if step != came:
                points.append(here)
            here, came = there, step
            if here == first:
                break
        rings.append(np.array(points, np.float64))
    return rings


def _simpler(ring: Ring, tolerance: float) -> Ring:
    short = cv2.approxPolyDP(ring.astype(np.float32).reshape(-1, 1, 2), tolerance, True)
    return np.asarray(short, np.float64).reshape(-1, 2)


def _joined(rings: Sequence[Ring]) -> Ring:
    """One piece's holes tied to its outer ring by cuts: most tools know no polygon with a hole."""
    first, *holes = sorted(rings, key=_area, reverse=True)
    for hole in holes:
        if len(hole) < 3:
            continue
        gaps = np.abs(first[:, None] - hole[None]).sum(2)
        at, start = np.unravel_index(int(gaps.argmin()), gaps.shape)
        around = np.roll(hole, -int(start), axis=0)
        first = np.concatenate([first[: at + 1], around, around[:1], first[at:]])
    return first


def _area(ring: Ring) -> float:
    """Positive for outer rings."""
    x, y = ring.T
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2
