"""What is read off each frame while it is drawn; `truth` is computed from it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bones import Skeleton
from .curves import Points, moved
from .exposure import Pose
from .placement import Placement
from .raster import Patch
from .screen import Screen
from .throat import Motion, Throat

_GLOTTIS = 15  # point of the airway's front wall at the vocal folds: knot 3, five points each


class Observer:
    """Series with one entry per frame: landmarks and sizes in pixels of the stored frame.

    `measured`: the bolus whose way past the ramus is followed, None when there is none.
    """

    def __init__(
        self, skeleton: Skeleton, place: Placement, screen: Screen, measured: int | None
    ) -> None:
        self.landmarks: dict[str, list[Points]] = {}
        self.past_ramus: list[bool] = []
        self.sizes: dict[str, list[float]] = {}
        self._skeleton, self._place, self._screen = skeleton, place, screen
        self._measured = measured
        self._hand = -1.0 if place.view.mirrored else 1.0

    def see(self, pose: Pose, pharynx: NDArray[np.bool_], wet: NDArray[np.bool_]) -> None:
        """The frame's pose, the mask "pharynx" as delivered, and visible barium in the picture."""
        self._see_landmarks(pose.throat, pose.motion)
        self._note("pharynx", float(np.count_nonzero(pharynx)))
        self._note("ues", pose.throat.ues_px)
        self._see_residue(pose.patches, wet)
        edge = moved(self._skeleton.ramus_back, pose.motion.jaw)
        head = None if self._measured is None else pose.throat.bolus_heads[self._measured]
        self.past_ramus.append(_past(head, edge, self._hand))

    def again(self) -> None:
        """The frame before is shown once more."""
        every: list[list[Any]] = [*self.landmarks.values(), *self.sizes.values(), self.past_ramus]
        for series in every:
            series.append(series[-1])

    def _see_landmarks(self, throat: Throat, motion: Motion) -> None:
        leaf = throat.epiglottis[0]
        points = {
            "hyoid": throat.hyoid_corner,
            "epiglottis": leaf[len(leaf) // 2 - 1 : len(leaf) // 2 + 1].mean(axis=0),
            "vocal_folds": throat.airway[0][_GLOTTIS],
            "ues": throat.ues[0].mean(axis=0),
        }
        for number in (2, 4):
            outline = moved(self._skeleton.bodies[f"c{number}"], motion.body)
            points[f"A{number}"] = self._lower_corner(outline, ahead=True)
            points[f"P{number}"] = self._lower_corner(outline, ahead=False)
        for name, point in points.items():
            self.landmarks.setdefault(name, []).append(self._screen.points(point))

    def _see_residue(self, patches: dict[str, Patch], wet: NDArray[np.bool_]) -> None:
        """Spaces and the barium in them; "total": all barium between tongue base and sphincter."""
        for name in ("vallecula", "pyriform"):
            self._note(name, float(np.count_nonzero(patches[name].inside)))
            self._note(f"{name}_residue", _shared(patches[name], wet))
        self._note("total_residue", _shared(patches["pharynx"], wet))

    def _note(self, name: str, size: float) -> None:
        """Area or width in pixels."""
        self.sizes.setdefault(name, []).append(size)

    def _lower_corner(self, outline: Points, *, ahead: bool) -> Points:
        """The antero- or postero-inferior corner of a vertebral body's outline (pixels)."""
        angle = np.deg2rad(-self._place.patient.lean_deg + self._place.view.roll_deg)
        cos, sin = np.cos(angle), np.sin(angle)
        forwards = np.array([-cos * self._hand, -sin]) * (1 if ahead else -1)
        down = np.array([-sin * self._hand, cos])
        corner: Points = outline[int(np.argmax(outline @ (0.72 * forwards + 0.69 * down)))]
        return corner


def _shared(patch: Patch, wet: NDArray[np.bool_]) -> float:
    """Pixels of a space that hold visible barium."""
    return float(np.count_nonzero(patch.inside & wet[patch.window]))


def _past(head: Points | None, edge: Points, hand: float) -> bool:
    """True when the bolus's leading point lies behind the ramus's back edge (or below it)."""
    if head is None:
        return False
    order = np.argsort(edge[:, 1])
    x = np.interp(head[1], edge[order, 1], edge[order, 0])
    return bool((head[0] - x) * hand > 0 or head[1] > edge[:, 1].max())
