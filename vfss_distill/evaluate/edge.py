"""Where the picture ends. What it cuts has a border there that is not its own.

Seen are the edges of the frame and of black margins that run along it. A collimator that is round
or slanted is not seen as one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..letterbox import Part

Point = NDArray[np.float64]  # (x, y) in pixels, or n of them (n×2)

_NEAR = 3.0  # pixels of the network: its masks end up to so many short of an edge that cuts them


@dataclass(frozen=True)
class Edge:
    """The outermost columns and rows of a picture; what comes nearer than `near` px is cut."""

    left: float
    top: float
    right: float
    bottom: float
    near: float = _NEAR

    @classmethod
    def of(cls, part: Part, side: int | None = None) -> Edge:
        """`part`: x, y, width, height; `side`: of the square that the network saw it in."""
        x, y, width, height = part
        pixel = max(1.0, max(width, height) / side) if side else 1.0
        return cls(x, y, x + width - 1, y + height - 1, _NEAR * pixel)

    def cuts(self, points: Point) -> bool:
        """Does it cut a structure of which the pixels `points` (n×2) are seen?"""
        return any(bool(at_side.any()) for _, at_side in self._sides(points))

    def cuts_corner(self, points: Point, anterior: Point, up: Point) -> bool:
        """May a vertebra's antero-inferior corner lie beyond it? Unit vectors `anterior` and `up`.

        Only a side to the front or below can hide it, and only where it cuts the vertebra's front
        half: behind lies the posterior process, which often runs out of the picture.
        """
        forward = points @ anterior
        front = forward >= (forward.min() + forward.max()) / 2
        return any(
            bool((at_side & front).any()) and outward @ (anterior - up) > 0
            for outward, at_side in self._sides(points)
        )

    def _sides(self, points: Point) -> list[tuple[Point, NDArray[np.bool_]]]:
        """Each side's outward direction, and which points lie at it."""
        x, y = points.T
        return [
            (np.array([-1.0, 0.0]), x < self.left + self.near),
            (np.array([1.0, 0.0]), x > self.right - self.near),
            (np.array([0.0, -1.0]), y < self.top + self.near),
            (np.array([0.0, 1.0]), y > self.bottom - self.near),
        ]
