"""Rectangles of a film that hold text or furniture: made black, merged, written into records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

GIVEN = "given"
FURNITURE = "furniture"
INSET = "inset"
PICTURE = "picture"
_TEXT = ("inside", "border", "empty")
_REASONS = (*_TEXT, FURNITURE, INSET, GIVEN)


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels of the stored frames. `reason`: empty, border, inside (text, see
    `burned_in`), furniture, inset (see `field`), given: a person named it; or picture: all that is
    not black on every frame (see `picture`)."""

    x: int
    y: int
    width: int
    height: int
    reason: str

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)

    @property
    def part(self) -> tuple[int, int, int, int]:
        """x, y, width, height."""
        return self.x, self.y, self.width, self.height

    @property
    def area(self) -> int:
        return self.width * self.height

    def holds(self, other: Box) -> bool:
        """Does all of `other` lie within it?"""
        return (
            self.x <= other.x
            and self.y <= other.y
            and other.x + other.width <= self.x + self.width
            and other.y + other.height <= self.y + self.height
        )

    def mirrored(self, width: int) -> Box:
        """Where the box lies when the frame, `width` pixels wide, is mirrored."""
        return replace(self, x=width - self.x - self.width)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Box:
        """Raises KeyError, TypeError or ValueError for anything else."""
        x, y, width, height = (int(data[name]) for name in ("x", "y", "width", "height"))
        return cls(x, y, width, height, str(data["reason"]))


def is_text(box: Box) -> bool:
    """Was it found as text?"""
    return box.reason in _TEXT


def blank_boxes(grey: NDArray[np.uint8], boxes: Sequence[Box]) -> None:
    """Make `boxes` of a frame black, in place."""
    for box in boxes:
        grey[box.window] = 0


def merge_boxes(boxes: Sequence[Box]) -> list[Box]:
    """Boxes that overlap become one where that covers little more than they do."""
    result: list[Box] = []
    for box in sorted(boxes, key=lambda box: (box.y, box.x)):
        one = box
        for other in list(result):
            both = _hull(one, other)
            if both.width * both.height <= 1.15 * (one.area + other.area - _shared(one, other)):
                result.remove(other)
                one = both
        result.append(one)
    return result


def boxes_outside(boxes: Sequence[Box], covered: Sequence[Box]) -> list[Box]:
    """Those of `boxes` that are not mostly within `covered`."""
    return [box for box in boxes if sum(_shared(box, c) for c in covered) < 0.5 * box.area]


def _hull(one: Box, other: Box) -> Box:
    x, y = min(one.x, other.x), min(one.y, other.y)
    right = max(one.x + one.width, other.x + other.width)
    lower = max(one.y + one.height, other.y + other.height)
    return Box(x, y, right - x, lower - y, min(one.reason, other.reason, key=_REASONS.index))


def _shared(one: Box, other: Box) -> int:
    across = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
    down = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
    return max(across, 0) * max(down, 0)
