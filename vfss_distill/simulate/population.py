"""Who is filmed and on which machine: ranges, and one draw from them.

`TRAIN` is what students learn from. `SHIFTED` is another clinic: other dose, blur, gamma, scale,
pose, side, text and collimator, so that what is learnt on the one can be tried on the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

Span = tuple[float, float]


@dataclass(frozen=True)
class Ranges:
    """Lowest and highest value of everything that differs between patients and machines.

    Names end in their unit; `*_share` is the share of patients or studies that have the thing.
    """

    name: str
    # The patient.
    age_years: Span = (21, 92)
    lordosis_deg: Span = (-14, 34)
    lean_deg: Span = (2, 31)
    head_pitch_deg: Span = (-10, 12)
    warp_mm: Span = (0.6, 2.6)
    edentulous_share: float = 0.16
    filling_share: float = 0.55
    plate_share: float = 0.04
    earring_share: float = 0.08
    tube_share: float = 0.06
    # Where the patient is in the picture.
    field_mm: Span = (168, 240)
    c4_x: Span = (0.52, 0.70)
    c4_y: Span = (0.46, 0.63)
    roll_deg: Span = (-6, 6)
    mirrored_share: float = 0.0
    # The machine.
    photons: Span = (1600, 24000)
    bone: Span = (1.0, 1.75)
    blur_mm: Span = (0.18, 0.62)
    scatter: Span = (0.15, 1.0)
    gamma: Span = (0.65, 1.55)
    sharpening: Span = (0.0, 1.1)
    lag: Span = (0.0, 0.4)
    glare: Span = (0.0, 0.06)
    vignetting: Span = (0.0, 0.35)
    light_bone_share: float = 0.25
    exposure: Span = (0.1, 0.6)
    pulse_shares: tuple[float, float, float] = (0.75, 0.2, 0.05)  # 30, 15 and 7.5 of 30
    interlaced_share: float = 0.06
    brightness: Span = (0.02, 0.2)
    brightness_start: Span = (-0.15, 0.15)
    # The picture.
    round_collimator_share: float = 0.4
    collimator_inset: Span = (-0.02, 0.09)
    moving_collimator_share: float = 0.12
    blades: Span = (0.03, 0.12)
    lead_share: float = 0.08
    text_share: float = 0.25
    logo_share: float = 0.06
    boxed_share: float = 0.12
    viewer_share: float = 0.06
    box: Span = (0.76, 0.96)
    compression_share: float = 0.3
    # The swallow.
    volume_ml: Span = (1, 20)
    # Barium sulphate of 12 to 38 % w/v; .59 of it is barium, 13.8 cm²/g at 50 keV (NIST XCOM).
    barium_per_mm: Span = (0.10, 0.30)
    impaired_share: float = 0.35


TRAIN = Ranges("train")

SHIFTED = Ranges(
    "shifted",
    lean_deg=(-2, 34),
    head_pitch_deg=(-14, 16),
    warp_mm=(1.2, 3.1),
    edentulous_share=0.35,
    plate_share=0.12,
    earring_share=0.2,
    tube_share=0.15,
    field_mm=(150, 285),
    c4_x=(0.46, 0.74),
    c4_y=(0.42, 0.66),
    roll_deg=(-10, 10),
    mirrored_share=0.5,
    photons=(1100, 5000),
    bone=(0.85, 1.4),
    blur_mm=(0.4, 0.85),
    scatter=(0.6, 1.4),
    gamma=(0.55, 1.85),
    sharpening=(0.3, 1.4),
    lag=(0.2, 0.6),
    glare=(0.02, 0.1),
    vignetting=(0.2, 0.6),
    light_bone_share=0.5,
    exposure=(0.4, 1.0),
    pulse_shares=(0.5, 0.35, 0.15),
    interlaced_share=0.25,
    brightness=(0.1, 0.4),
    brightness_start=(-0.3, 0.3),
    round_collimator_share=0.7,
    collimator_inset=(0.0, 0.13),
    moving_collimator_share=0.35,
    blades=(0.06, 0.17),
    lead_share=0.3,
    text_share=0.8,
    logo_share=0.3,
    boxed_share=0.35,
    viewer_share=0.25,
    box=(0.66, 0.88),
    compression_share=0.8,
    barium_per_mm=(0.07, 0.36),
    impaired_share=0.6,
)

POPULATIONS: Mapping[str, Ranges] = {"train": TRAIN, "shifted": SHIFTED}


@dataclass(frozen=True)
class Patient:
    """One patient that never lived; the same in all of their studies."""

    age_years: float
    sex: Literal["female", "male"]
    size: float  # of everything; 1 is an adult of middle height
    girth: float  # of soft tissue along the beam and at the skin
    neck_length: float
    lordosis_deg: float
    lean_deg: float
    head_pitch_deg: float
    degeneration: float  # 0 none … 1 severe: narrow discs, lips, dense end plates
    mineral: float  # how dense bone is; falls with age, more so in women
    calcification: float  # of the laryngeal cartilages
    larynx_drop_mm: float
    larynx_size: float
    jaw_length: float
    jaw_angle_deg: float
    teeth: Literal["own", "none", "denture"]
    fillings: int
    fused: tuple[int, ...]  # upper vertebra of each fused pair, 2 … 6
    plate: tuple[int, int] | None  # first and last vertebra of an anterior plate
    earring: bool
    tube: bool  # a nasogastric feeding tube
    warp_seed: int
    warp_mm: float


def _in(rng: np.random.Generator, span: Span) -> float:
    return float(rng.uniform(*span))


def draw_patient(rng: np.random.Generator, ranges: Ranges) -> Patient:
    """One patient; what goes with age and sex does so."""
    age = _in(rng, ranges.age_years)
    male = bool(rng.random() < 0.5)
    old = float(np.clip((age - 45) / 45, 0, 1))
    degeneration = float(np.clip(old * rng.uniform(0.2, 1.2) + rng.normal(0, 0.08), 0, 1))
    fused = tuple(n for n in range(2, 7) if rng.random() < 0.05 * degeneration)
    first = int(rng.integers(3, 6))
    plate = (first, first + int(rng.integers(1, 3))) if rng.random() < ranges.plate_share else None
    toothless = rng.random() < ranges.edentulous_share * (0.3 + 1.4 * old)
    teeth: Literal["own", "none", "denture"] = "own"
    if toothless:
        teeth = "denture" if rng.random() < 0.5 else "none"
    filled = teeth == "own" and rng.random() < ranges.filling_share
    return Patient(
        age_years=round(age, 1),
        sex="male" if male else "female",
        size=float(np.clip(rng.normal(1.04 if male else 0.95, 0.045), 0.84, 1.18)),
        girth=float(np.clip(rng.normal(1.05 if male else 0.96, 0.13), 0.7, 1.4)),
        neck_length=float(np.clip(rng.normal(1.0, 0.05), 0.88, 1.13)),
        lordosis_deg=_in(rng, ranges.lordosis_deg) - 8 * old,
        lean_deg=_in(rng, ranges.lean_deg),
        head_pitch_deg=_in(rng, ranges.head_pitch_deg),
        degeneration=degeneration,
        mineral=float(np.clip(rng.normal(1.0, 0.12) - (0.12 if male else 0.25) * old, 0.5, 1.3)),
        calcification=float(np.clip(old * 0.7 + rng.normal(0.25, 0.2), 0, 1)),
        larynx_drop_mm=float(rng.normal(0, 2.0) + 7 * old + (2 if male else -1.5)),
        larynx_size=float(rng.normal(1.08 if male else 0.9, 0.05)),
        jaw_length=float(np.clip(rng.normal(1.0, 0.05), 0.86, 1.14)),
        jaw_angle_deg=float(rng.normal(0, 3.5)),
        teeth=teeth,
        fillings=int(rng.integers(1, 7)) if filled else 0,
        fused=fused,
        plate=plate,
        earring=bool(rng.random() < ranges.earring_share),
        tube=bool(rng.random() < ranges.tube_share),
        warp_seed=int(rng.integers(2**31)),
        warp_mm=_in(rng, ranges.warp_mm),
    )
