"""What a bone is to the X-ray machine, and all bones of a patient."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .curves import Points, turned
from .population import Patient

# Occipital condyles: the head nods about them. Jaw joint: the mouth opens about it.
NOD_PIVOT = np.array([[-4.0, -72.0]])
JAW_PIVOT = np.array([[-28.0, -76.0]])

# Attenuation of metal at fluoroscopic voltage, as -log of transmission.
METAL = 3.0


@dataclass(frozen=True)
class Bone:
    """Outlines (pixels) of one shadow and how it absorbs, as -log of transmission.

    `body` in the middle; `rim` more along the cortex; `rim_mm` its width; `round_mm` how far
    from the edge the thickness still grows; `texture` share of mottling. `outlines` are united.
    """

    name: str
    group: str  # "neck" | "head" | "jaw"
    outlines: tuple[Points, ...]
    body: float
    rim: float = 0.0
    rim_mm: float = 1.0
    round_mm: float = 3.0
    texture: float = 0.12
    soft_mm: float = 0.35


@dataclass
class Skeleton:
    """Every bone of a patient, plus the outlines that masks and landmarks are made from."""

    bones: list[Bone] = field(default_factory=list)
    vertebrae: dict[str, tuple[Points, ...]] = field(default_factory=dict)
    bodies: dict[str, Points] = field(default_factory=dict)
    discs: dict[str, Points] = field(default_factory=dict)  # may reach into the bodies
    mandible: tuple[Points, ...] = ()
    ramus_back: Points = field(default_factory=lambda: np.zeros((0, 2)))


def posed(patient: Patient, points: Points, weight: object = 1.0) -> Points:
    """Head points nodded by the patient's head pitch; `weight` 0..1 per point for what bends."""
    nodded = turned(points, patient.head_pitch_deg, NOD_PIVOT[0])
    share = np.asarray(weight, float).reshape(-1, 1)
    result: Points = points + share * (nodded - points)
    return result
