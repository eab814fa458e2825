"""A second moving picture laid over the field: named for a person to judge, never blanked.

Its border is straight, upright, a pixel or two wide and stays: two such lines that meet at an end
are a corner. Grain blurs no line of a mean over time, while bones and collimators are blurred.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from .boxes import INSET, Box, merge_boxes
from .film_sample import Grey

Mask = NDArray[np.bool_]

_STEP = 8  # grey levels across a border
_LEAST, _LONGER, _MOST = 0.12, 0.15, 0.5  # of the frame's sides: its shorter, longer, any side
_MOVING = 0.5  # of its pixels twinkle
_MOST_LINES = 40
_AT_EDGE = 0.04  # of the frame's smaller side
_BORDERED = 0.8  # of a side


class _Line(NamedTuple):
    """Ends of an upright or level line: x, y of its upper left pixel, then of its lower right."""

    left: int
    upper: int
    right: int
    lower: int


def find_corners(mean: NDArray[np.float32], live: Mask) -> tuple[Box, ...]:
    """Boxes of pictures that lie over the field: `mean` (H, W) of some frames; `live`: where the
    film twinkles. Each side of a box is such a line, or lies at the frame's edge.
    """
    grey = cv2.convertScaleAbs(mean)
    edges = _edges(grey), np.ascontiguousarray(_edges(np.ascontiguousarray(grey.T)).T)
    upright = _lines(edges[0])
    level = [_Line(y, x, low, right) for x, y, right, low in _lines(edges[1].T)]
    height, width = mean.shape
    boxes = []
    for one in upright:
        for other in level:
            if not _meet(one, other):
                continue
            x, y = min(one.left, other.left), min(one.upper, other.upper)
            right, lower = max(one.right, other.right), max(one.lower, other.lower)
            box = Box(x, y, right - x + 1, lower - y + 1, INSET)
            shares = box.width / width, box.height / height
            fits = min(shares) >= _LEAST and _LONGER <= max(shares) <= _MOST
            if fits and live[box.window].mean() >= _MOVING and _bordered(box, edges):
                boxes.append(box)
    return tuple(merge_boxes(boxes))


def _edges(grey: Grey) -> Grey:
    """Where grey changes at one stroke from left to right, twice as much as three pixels beside:
    (H, W), 0 or 1."""
    step = np.zeros_like(grey)
    step[:, 1:] = cv2.absdiff(grey[:, 1:], grey[:, :-1])
    beside = np.zeros_like(grey)
    beside[:, 3:] = step[:, :-3]
    beside[:, :-3] = cv2.max(beside[:, :-3], step[:, 3:])
    sharp = ((step >= _STEP) & (step >= cv2.add(beside, beside))).view(np.uint8)
    closed: Grey = cv2.morphologyEx(sharp, cv2.MORPH_CLOSE, np.ones((9, 1), np.uint8))
    return closed


def _lines(edges: Grey) -> list[_Line]:
    """Long upright lines among them."""
    long = np.ones((max(12, round(_LEAST * len(edges))), 1), np.uint8)
    lines = cv2.morphologyEx(edges, cv2.MORPH_OPEN, long)
    outlines, _ = cv2.findContours(lines, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if len(outlines) > _MOST_LINES:
        return []
    places = (cv2.boundingRect(outline) for outline in outlines)
    return [_Line(x, y, x + w - 1, y + h - 1) for x, y, w, h in places if w <= 3]


def _bordered(box: Box, edges: tuple[Grey, Grey]) -> bool:
    """Is there a line along each side, if it is not the frame's edge?"""
    height, width = edges[0].shape
    rows, columns = box.window
    sides = (
        (box.x, width - box.x, edges[0][rows], box.x),
        (box.x + box.width, width - box.x - box.width, edges[0][rows], box.x + box.width - 1),
        (box.y, height - box.y, edges[1][:, columns].T, box.y),
        (
            box.y + box.height,
            height - box.y - box.height,
            edges[1][:, columns].T,
            box.y + box.height - 1,
        ),
    )
    for before, behind, across, at in sides:
        if min(before, behind) <= _AT_EDGE * min(height, width):
            continue
        if across[:, max(0, at - 3) : at + 4].any(axis=1).mean() < _BORDERED:
            return False
    return True


def _meet(upright: _Line, level: _Line) -> bool:
    """At an end of both."""
    across = min(abs(upright.left - level.left), abs(upright.left - level.right))
    down = min(abs(level.upper - upright.upper), abs(level.upper - upright.lower))
    return max(across, down) <= 6
