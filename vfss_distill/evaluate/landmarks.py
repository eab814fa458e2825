"""The spine's frame of reference (ASPEKT): corners A2 and A4, and lengths and areas in it.

A2, A4 are the antero-inferior corners of C2 and C4. y runs along A4→A2, x perpendicular to it,
anterior positive, origin A4; L = |A2−A4|. Lengths are in % of L (%C2-4), areas in % of L²
(%(C2-4)²). Pixels are square, image x to the right, image y down.

How a corner is found. A vertebra's mask holds its posterior process as well, so neither its
bounding box nor a rectangle fitted to it will do. The corner is where the mask reaches farthest
half-way between anterior and inferior **in the spine's own axes**: the process lies behind, so it
loses there even when it reaches lower than the body. The axes start from the centroids of C4 and
C2 and are then taken from the corners found, until they stand still. The mean of the pixels within
1 % of the mask's size of the extreme is taken, so that one stray pixel moves little; specks other
than the largest part of the mask are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .edge import Edge, Point
from .metrics import Mask

_ROUNDS = 4
_NEAR = 0.01
_LEAST_PX = 12


@dataclass(frozen=True)
class Spine:
    """Frame of reference of one frame; points are (x, y) in pixels, `anterior` a unit vector.

    `cut`: the picture's edge cuts C2 or C4, so that a corner may not be the bone's.
    """

    a2: Point
    a4: Point
    anterior: Point
    cut: bool = False

    @property
    def length_px(self) -> float:
        return float(np.hypot(*(self.a2 - self.a4)))

    def place(self, point: Point) -> tuple[float, float]:
        """(x, y) of an image point in %C2-4: x anterior, y towards A2, from A4."""
        offset = (point - self.a4) * 100 / self.length_px
        up = (self.a2 - self.a4) / self.length_px
        return float(offset @ self.anterior), float(offset @ up)


def find_spine(
    c2: Mask, c4: Mask, *, facing: str = "left", edge: Edge | None = None
) -> Spine | None:
    """The frame of reference from the H×W masks of C2 and C4; None when one is absent.

    `facing` is where the patient looks in the picture: "left" or "right"; `edge`: where it ends,
    None where that is not asked. None also when the corners fall together, or C2 is not above C4
    along the axis between their centroids.
    """
    upper, lower = largest_part(c2), largest_part(c4)
    if upper is None or lower is None:
        return None
    up = _unit(upper.mean(axis=0) - lower.mean(axis=0))
    if up is None:
        return None
    for _ in range(_ROUNDS):
        anterior = _anterior(up, facing)
        a2, a4 = (_extreme(points, anterior - up) for points in (upper, lower))
        new = _unit(a2 - a4)
        if new is None or new @ up <= 0:
            return None
        settled = new @ up > 1 - 1e-9
        up = new
        if settled:
            break
    anterior = _anterior(up, facing)
    cut = edge is not None and any(edge.cuts_corner(x, anterior, up) for x in (upper, lower))
    return Spine(a2, a4, anterior, cut)


def corner(points: Point, spine: Spine) -> Point:
    """(x, y) of the antero-inferior corner of a structure's pixels (n×2), in the spine's axes."""
    up = (spine.a2 - spine.a4) / spine.length_px
    return _extreme(points, spine.anterior - up)


def largest_part(mask: Mask) -> Point | None:
    """(x, y) of the pixels of the largest connected part, n×2; None when it is but a speck."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count < 2:
        return None
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    left, top, width, height, area = stats[largest]
    if area < _LEAST_PX:
        return None
    rows, columns = np.nonzero(labels[top : top + height, left : left + width] == largest)
    return np.column_stack([columns + left, rows + top]).astype(np.float64)


def centroid(points: Point) -> Point:
    """(x, y) of the middle of a structure's pixels (n×2)."""
    return np.asarray(points.mean(axis=0))


def _anterior(up: Point, facing: str) -> Point:
    """Perpendicular to `up`, towards the side the patient looks to."""
    left = np.array([up[1], -up[0]])  # up (0, -1) → left (-1, 0)
    return left if facing == "left" else -left


def _extreme(points: Point, direction: Point) -> Point:
    reach = points @ (direction / np.hypot(*direction))
    near = max(1.0, _NEAR * float(np.sqrt(len(points))))
    middle: Point = points[reach >= reach.max() - near].mean(axis=0)
    return middle


def _unit(vector: Point) -> Point | None:
    length = float(np.hypot(*vector))
    return vector / length if length > 1e-6 else None
