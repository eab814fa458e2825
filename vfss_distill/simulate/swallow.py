"""What happens when: one study's plan. `timeline` plays it.

Positions along the bolus path are in knots of `throat.CHANNEL`: 0 lips, 3 middle of the tongue,
6 soft palate, 10 mouth of the valleculae, 13 pyriform sinuses, 14 upper oesophageal sphincter
(UES), 19 below the picture. Ranges of times: the healthy and impaired adults of PMC10713020,
PMC7242916 and PMC3584199.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .population import Patient, Ranges

Kind = Literal["swallow", "hold", "chew", "quiet"]

# Thin liquids absorb least and spread most; paste holds together (IDDSI 0 … 4, and a biscuit).
CONSISTENCIES = ("thin", "slightly thick", "mildly thick", "moderately thick", "extremely thick")

KNOT_RAMUS, KNOT_VALLECULA, KNOT_PYRIFORM, KNOT_UES, KNOT_END = 6.6, 10.3, 12.9, 14.0, 19.0


@dataclass(frozen=True)
class Swallow:
    """One swallow: times in seconds from the first frame, sizes in millimetres, shares 0..1."""

    enter: float  # bolus in the mouth
    prop: float  # tongue begins to push
    ramus: float  # head passes the mandible's ramus
    burst: float  # hyoid burst
    opening: float  # UES opens
    closing: float  # UES shut behind the tail
    closed: float  # laryngeal vestibule closed
    reopened: float  # … and open again
    peak: float  # hyoid furthest
    back: float  # all at rest again
    share: float  # of the volume
    hyoid_mm: tuple[float, float]  # forwards, upwards
    larynx_mm: float
    ues_mm: float
    squeeze: float  # pharyngeal constriction: 1 obliterates the lumen
    tilt: float  # epiglottic inversion
    spill_knot: float  # how far the head runs ahead of the burst
    residue: tuple[float, float]  # valleculae, pyriform sinuses: share filled afterwards
    penetration: float  # 0 none, 1 to the vocal folds, up to 4 far down the trachea


@dataclass(frozen=True)
class Plan:
    """One study: what the patient was given and what the throat makes of it."""

    kind: Kind
    duration_s: float
    volume_ml: float
    consistency: int
    barium_per_mm: float
    swallows: tuple[Swallow, ...]
    residue_before: tuple[float, float]
    coating: float
    breathing: float
    motion_mm: float
    nod_deg: float

    @property
    def findings(self) -> dict[str, Any]:
        """For truth and captions: JSON-ready."""
        depth = max((s.penetration for s in self.swallows), default=0.0)
        last = self.swallows[-1] if self.swallows else None
        return {
            "kind": self.kind,
            "volume_ml": round(self.volume_ml, 1),
            "consistency": CONSISTENCIES[self.consistency],
            "swallows": len(self.swallows),
            "penetration": bool(0 < depth <= 1),
            "aspiration": bool(depth > 1),
            "vallecular_residue": round(last.residue[0], 3) if last else self.residue_before[0],
            "pyriform_residue": round(last.residue[1], 3) if last else self.residue_before[1],
            "ues_opening_failed": bool(last and last.ues_mm < 2.5),
        }


def draw_plan(
    rng: np.random.Generator,
    patient: Patient,
    ranges: Ranges,
    *,
    duration_s: float,
    kind: Kind | None = None,
) -> Plan:
    """A plan that fits `duration_s`; a clip too short for a whole swallow shows part of one."""
    kinds: tuple[Kind, ...] = ("swallow", "hold", "chew", "quiet")
    chosen = kind or kinds[int(rng.choice(4, p=(0.79, 0.06, 0.07, 0.08)))]
    consistency = int(rng.choice(5, p=(0.5, 0.1, 0.15, 0.1, 0.15)))
    volume = float(rng.choice((1, 3, 5, 10, 15, 20), p=(0.1, 0.15, 0.3, 0.25, 0.1, 0.1)))
    volume = float(np.clip(volume * rng.uniform(0.8, 1.2), *ranges.volume_ml))
    impaired = bool(rng.random() < ranges.impaired_share)
    swallows: list[Swallow] = []
    if chosen in ("swallow", "chew"):
        begin = rng.uniform(0.15, 0.45) * duration_s if duration_s < 4 else rng.uniform(0.5, 1.6)
        if chosen == "chew":
            begin = max(begin, 0.55 * duration_s)
        portions = 1 if rng.random() < 0.8 or duration_s < 4 else 2
        for number in range(portions):
            share = 1.0 if portions == 1 else (0.6, 0.4)[number]
            drawn = _draw_swallow(rng, patient, begin, share, volume, consistency, impaired)
            swallows.append(drawn)
            begin = drawn.back + rng.uniform(0.2, 0.9)
    dirty = 0.35 if impaired else 0.08
    before = tuple(float(rng.beta(1.2, 6)) if rng.random() < dirty else 0.0 for _ in range(2))
    return Plan(
        kind=chosen,
        duration_s=duration_s,
        volume_ml=volume,
        consistency=consistency,
        barium_per_mm=float(rng.uniform(*ranges.barium_per_mm)) * (1 + 0.06 * consistency),
        swallows=tuple(swallows),
        residue_before=(round(before[0], 3), round(before[1], 3)),
        coating=float(rng.beta(1.2, 4)) if rng.random() < 0.45 else 0.0,
        breathing=float(rng.uniform(0.2, 1.2)),
        motion_mm=float(rng.gamma(1.5, 0.7)),
        nod_deg=float(rng.gamma(1.5, 0.7)),
    )


def _draw_swallow(
    rng: np.random.Generator,
    patient: Patient,
    begin: float,
    share: float,
    volume: float,
    consistency: int,
    impaired: bool,
) -> Swallow:
    old = float(np.clip((patient.age_years - 45) / 45, 0, 1))
    bad = float(rng.uniform(0.25, 1.0)) if impaired else float(rng.uniform(0, 0.15))
    male = patient.sex == "male"
    prop = begin
    ramus = prop + rng.uniform(0.22, 0.55) + 0.05 * consistency + 0.3 * bad * rng.random()
    reaction = rng.normal(0.10, 0.09) + 0.06 * old + bad * rng.gamma(1.2, 0.3)
    burst = ramus + float(np.clip(reaction, -0.15, 2.0))
    opening = burst + rng.uniform(0.08, 0.22) + 0.06 * bad
    if opening < ramus + 0.1:
        opening = ramus + 0.1
    lasting = rng.uniform(0.38, 0.6) + 0.008 * volume * share - 0.16 * bad
    closing = opening + max(lasting, 0.12)
    closed = burst + rng.uniform(0.10, 0.22) + 0.2 * bad * rng.random()
    reopened = max(closing - rng.uniform(-0.08, 0.12), closed + 0.1 + 0.2 * rng.random())
    ahead = _spill(rng, bad, consistency, burst - ramus)
    weak = float(np.clip(1 - 0.75 * bad * rng.random(), 0.2, 1))
    residue = (
        _residue(rng, bad, 0.4),
        _residue(rng, bad, 0.3),
    )
    failed = impaired and rng.random() < 0.06
    depth = 0.0
    if rng.random() < 0.05 + 0.4 * bad:
        depth = float(rng.uniform(0.3, 1.0) if rng.random() < 0.6 else rng.uniform(1.4, 4.0))
    return Swallow(
        enter=begin - (rng.uniform(0.35, 1.3) if rng.random() < 0.5 else 20.0),
        prop=prop,
        ramus=ramus,
        burst=burst,
        opening=opening,
        closing=closing,
        closed=closed,
        reopened=reopened,
        peak=min(burst + rng.uniform(0.22, 0.36), closing - 0.02),
        back=max(closing, reopened) + rng.uniform(0.35, 0.8),
        share=share,
        hyoid_mm=(
            float(rng.uniform(8, 15)) * (1 - 0.5 * bad * rng.random()),
            float(rng.uniform(7, 17)) * (1 - 0.4 * bad * rng.random()),
        ),
        larynx_mm=float(rng.uniform(15, 25)) * (1.06 if male else 0.94) * (1 - 0.4 * bad),
        ues_mm=0.6
        if failed
        else float(rng.uniform(5.5, 9) + 0.25 * volume * share) * (1 - 0.4 * bad),
        squeeze=weak,
        tilt=float(np.clip(rng.normal(1, 0.08) - 0.8 * bad * rng.random(), 0.1, 1.1)),
        spill_knot=ahead,
        residue=residue if not failed else (max(residue[0], 0.4), 0.9),
        penetration=depth,
    )


def _residue(rng: np.random.Generator, bad: float, least: float) -> float:
    """Share of a pocket left full: nothing after most healthy swallows (Garand 2023)."""
    if rng.random() < 0.72 - 0.45 * bad:
        return 0.0
    return float(np.clip(rng.beta(1.1, 9 - 6 * bad) * (least + 1.2 * bad), 0, 0.95))


def _spill(rng: np.random.Generator, bad: float, consistency: int, wait: float) -> float:
    """How far the head runs while the swallow has not begun."""
    if wait < 0.12:
        return KNOT_RAMUS + 1.2
    runs = rng.random() + 0.4 * bad - 0.12 * consistency
    return KNOT_PYRIFORM - 0.3 if runs > 0.75 else KNOT_VALLECULA + 0.3
