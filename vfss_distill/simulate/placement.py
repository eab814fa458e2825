"""From the patient's millimetres to the picture's pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .curves import Points
from .population import Patient, Ranges

# The top of C1: above it the spine's curve no longer displaces anything.
_CURVE_TOP_MM, _CURVE_BOTTOM_MM = -60.0, 90.0
_C2_TO_C7_MM = 95.0


@dataclass(frozen=True)
class View:
    """How a study is framed. `c4_x`, `c4_y`: where C4 lies, as shares of width and height."""

    width: int
    height: int
    field_mm: float  # what the picture's longer side shows
    c4_x: float
    c4_y: float
    roll_deg: float
    mirrored: bool

    @property
    def px_per_mm(self) -> float:
        return max(self.width, self.height) / self.field_mm


def draw_view(rng: np.random.Generator, ranges: Ranges, width: int, height: int) -> View:
    field = float(rng.uniform(*ranges.field_mm))
    return View(
        width=width,
        height=height,
        field_mm=field,
        c4_x=float(rng.uniform(*ranges.c4_x)),
        c4_y=float(rng.uniform(*ranges.c4_y)),
        roll_deg=float(rng.uniform(*ranges.roll_deg)),
        mirrored=bool(rng.random() < ranges.mirrored_share),
    )


class Placement:
    """Maps the patient's frame to pixels: curve of the spine, size, individual warp, pose, view.

    `bend` is the first half (neck length and curve of the spine); vertebrae are built directly in
    bent coordinates, everything else goes through `px`.
    """

    def __init__(self, patient: Patient, view: View) -> None:
        self.patient, self.view = patient, view
        self.lordosis = float(np.deg2rad(patient.lordosis_deg))
        rng = np.random.default_rng(patient.warp_seed)
        # Long waves only, so that no outline folds over itself.
        self._waves = rng.normal(0, 1, (5, 2)) * (2 * np.pi / rng.uniform(80, 190, (5, 1)))
        self._phases = rng.uniform(0, 2 * np.pi, 5)
        self._swings = rng.normal(0, 1, (5, 2)) * patient.warp_mm / np.sqrt(5)
        angle = np.deg2rad(-patient.lean_deg + view.roll_deg)
        cos, sin = np.cos(angle), np.sin(angle)
        self._pose = np.array([[cos, -sin], [sin, cos]]) * view.px_per_mm
        self._centre = np.array([view.c4_x * view.width, view.c4_y * view.height])

    @property
    def px_per_mm(self) -> float:
        return self.view.px_per_mm * self.patient.size

    @property
    def down(self) -> NDArray[np.float64]:
        """Gravity in the patient's frame, for a patient who sits upright in the room."""
        angle = np.deg2rad(self.patient.lean_deg)
        return np.array([-np.sin(angle), np.cos(angle)])

    def slope_deg(self, y: float) -> float:
        """Tilt of the spine's tangent at height y; positive where it runs backwards."""
        return float(np.rad2deg(self.lordosis * y / _C2_TO_C7_MM))

    def bend(self, points: Points) -> Points:
        bent = points.copy()
        x, y = bent.T
        y *= self.patient.neck_length
        inside = np.minimum(np.maximum(y, _CURVE_TOP_MM), _CURVE_BOTTOM_MM)
        # Past the ends the curve goes on straight; above the top nothing is displaced any more.
        offset = self.lordosis * (inside**2 / 2 + inside * (y - inside)) / _C2_TO_C7_MM
        offset[y < _CURVE_TOP_MM] = self.lordosis * _CURVE_TOP_MM**2 / 190
        x += offset
        return bent

    def from_bent(self, points: Points) -> Points:
        phase = points @ self._waves.T + self._phases
        warped = points + np.sin(phase) @ self._swings
        result: Points = (warped * self.patient.size) @ self._pose.T + self._centre
        if self.view.mirrored:
            result = result * (-1, 1) + (self.view.width - 1, 0)
        return result

    def px(self, points: Points) -> Points:
        return self.from_bent(self.bend(points))
