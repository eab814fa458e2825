"""Wires that lie on the patient: electrodes of a monitor and their leads."""

from __future__ import annotations

import numpy as np

from .bones import METAL, Bone
from .curves import ellipse, ribbon, smooth
from .placement import Placement
from .population import Ranges


def draw_leads(rng: np.random.Generator, ranges: Ranges, place: Placement) -> tuple[Bone, ...]:
    """Shadows of one to three leads in a share of the studies, none in the others.

    They belong to the study, not to the patient: electrodes are stuck on anew each time.
    """
    if rng.random() >= ranges.lead_share:
        return ()
    shadows: list[Bone] = []
    for _ in range(int(rng.integers(1, 4))):
        shadows += _lead(rng, place)
    return tuple(shadows)


def _lead(rng: np.random.Generator, place: Placement) -> list[Bone]:
    """A wire that hangs from an electrode on shoulder or chest, or passes behind the neck."""
    electrode = np.array([rng.uniform(-40, 75), rng.uniform(45, 95)])
    if rng.random() < 0.3:
        electrode = np.array([rng.uniform(30, 70), rng.uniform(-10, 60)])
    leaves = np.array([rng.uniform(-90, 120), 175.0])
    if rng.random() < 0.4:
        leaves = np.array([150.0, rng.uniform(-20, 120)])
    along = np.linspace(0, 1, 5)[:, None]
    path = electrode + along * (leaves - electrode)
    path[1:-1] += rng.normal(0, 11, (3, 2))
    curve = place.px(smooth(path, per_segment=14, closed=False))
    width = np.full(len(curve), rng.uniform(0.7, 1.4) * place.px_per_mm)
    darkness = float(rng.uniform(0.25, 0.8))
    wire = Bone("lead", "neck", (ribbon(curve, width),), darkness, 0, 1, 0.5, 0, 0.2)
    if rng.random() < 0.25:  # the electrode lies outside the picture or lets X-rays through
        return [wire]
    radius = float(rng.uniform(2.2, 4.6))
    x, y = (float(v) for v in electrode)
    flat = float(rng.uniform(0.55, 1.0))  # seen at an angle
    snap = place.px(ellipse(x, y, radius, radius * flat))
    stud = place.px(ellipse(x, y, 0.4 * radius, 0.4 * radius * flat))
    return [
        wire,
        Bone("electrode", "neck", (snap,), 0.3 * darkness, 0.3 * darkness, 0.7, 0.5, 0, 0.2),
        Bone("stud", "neck", (stud,), 0.35 * METAL, 0, 1, 0.5, 0, 0.2),
    ]
