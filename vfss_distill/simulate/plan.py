"""Draws one study's plan: what the patient is given and what the throat makes of it.

Ranges of times: the healthy and impaired adults of PMC6808317, PMC10713020, PMC7242916 and
PMC3584199.

A film shows a piece of an examination: it may begin before the patient has been given anything, or
when the swallow is already over.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from .population import Patient, Ranges
from .swallow import (
    CONSISTENCIES,
    KINDS,
    KNOT_PYRIFORM,
    KNOT_RAMUS,
    KNOT_VALLECULA,
    Bubble,
    Jerk,
    Kind,
    Plan,
    Shift,
    Swallow,
)

_KIND_SHARES = (0.68, 0.05, 0.07, 0.12, 0.08)
_STAGES = ("whole", "before", "after")  # of a swallow, in the film
_STAGE_SHARES = (0.44, 0.22, 0.34)


@dataclass(frozen=True)
class _Dose:
    volume_ml: float
    consistency: int
    bad: float  # 0 healthy … 1 hardly swallows


def draw_plan(
    rng: np.random.Generator,
    patient: Patient,
    ranges: Ranges,
    *,
    duration_s: float,
    kind: Kind | None = None,
) -> Plan:
    """A plan for a film of `duration_s`.

    With `kind` given the swallow is in view as a whole where it fits; otherwise the film may also
    begin long before it or after it.
    """
    chosen = kind or KINDS[int(rng.choice(len(KINDS), p=_KIND_SHARES))]
    stage = "whole" if kind else str(rng.choice(_STAGES, p=_STAGE_SHARES))
    consistency = int(rng.choice(len(CONSISTENCIES), p=(0.5, 0.1, 0.15, 0.1, 0.15)))
    volume = float(rng.choice((1, 3, 5, 10, 15, 20), p=(0.1, 0.15, 0.3, 0.25, 0.1, 0.1)))
    volume = float(np.clip(volume * rng.uniform(0.8, 1.2), *ranges.volume_ml))
    impaired = bool(rng.random() < ranges.impaired_share)
    bad = float(rng.uniform(0.25, 1.0)) if impaired else float(rng.uniform(0, 0.15))
    dose = _Dose(volume, consistency, bad)
    dirty = 0.35 if impaired else 0.06
    left = tuple(float(rng.beta(1.2, 6)) if rng.random() < dirty else 0.0 for _ in range(2))
    before = (round(left[0], 3), round(left[1], 3))
    swallows = _draw_swallows(rng, patient, dose, chosen, _begin(rng, chosen, stage, duration_s))
    if chosen == "dry":
        swallows = tuple(
            replace(s, residue=(0.7 * before[0], 0.7 * before[1]), penetration=0.0, oral_residue=0)
            for s in swallows
        )
    wet = rng.random() < 0.5
    return Plan(
        kind=chosen,
        duration_s=duration_s,
        volume_ml=volume,
        consistency=consistency,
        barium_per_mm=float(rng.uniform(*ranges.barium_per_mm)) * (1 + 0.06 * consistency),
        impaired=impaired,
        swallows=swallows,
        residue_before=before,
        leak=float(rng.uniform(0.2, 0.9)) if rng.random() < 0.05 + 0.35 * bad else 0.0,
        coating_before=float(rng.beta(1.2, 2.5)) if rng.random() < 0.3 else 0.0,
        coating=float(rng.beta(1.6, 2.0)) if wet else 0.0,
        bubbles=_draw_bubbles(rng, dose),
        jerks=_draw_jerks(rng, swallows, duration_s),
        shift=_draw_shift(rng, duration_s) if rng.random() < 0.14 else None,
        breathing=float(rng.uniform(0.2, 1.2)),
        motion_mm=float(rng.gamma(1.5, 0.7)),
        nod_deg=float(rng.gamma(1.5, 0.7)),
    )


def _begin(rng: np.random.Generator, kind: Kind, stage: str, duration_s: float) -> float:
    """When the tongue first pushes, seconds from the film's beginning."""
    if stage == "before":
        return float(rng.uniform(0.7, 1.5) * duration_s)
    if stage == "after":
        return float(-rng.uniform(0.4, 3.8))
    if duration_s < 4:
        begin = float(rng.uniform(0.15, 0.45) * duration_s)
    else:
        begin = float(rng.uniform(0.6, 0.6 + 0.25 * duration_s))
    return max(begin, 0.55 * duration_s) if kind == "chew" else begin


def _draw_swallows(
    rng: np.random.Generator, patient: Patient, dose: _Dose, kind: Kind, begin: float
) -> tuple[Swallow, ...]:
    """Piecemeal portions of one bolus, and a clearing swallow where something stays behind."""
    if kind in ("hold", "quiet"):
        return ()
    if kind == "dry":
        return (_draw_swallow(rng, patient, begin, 0.0, dose),)
    piecemeal = 0.10 + 0.2 * (dose.volume_ml > 12) + 0.2 * dose.bad
    portions: tuple[float, ...] = (1.0,)
    if rng.random() < piecemeal:
        portions = (0.6, 0.4) if rng.random() < 0.7 else (0.45, 0.3, 0.25)
    swallows: list[Swallow] = []
    for share in portions:
        swallows.append(_draw_swallow(rng, patient, begin, share, dose))
        begin = swallows[-1].back + rng.uniform(0.15, 0.9)
    # Portions of one mouthful are in the mouth together; a later sip arrives when it is taken.
    if rng.random() < 0.6:
        swallows = [replace(s, enter=swallows[0].enter) for s in swallows]
    last = swallows[-1]
    if rng.random() < (0.55 if sum(last.residue) > 0.2 else 0.06):
        again = last.later(last.back + rng.uniform(0.3, 1.2) - last.prop)
        kept = rng.uniform(0.1, 0.8) if last.passes else 1.0
        left = (last.residue[0] * kept, last.residue[1] * kept)
        size = float(rng.uniform(0.75, 1.0))
        hyoid = (size * last.hyoid_mm[0], size * last.hyoid_mm[1])
        swallows.append(replace(again, share=0.0, hyoid_mm=hyoid, residue=left, penetration=0.0))
    return tuple(swallows)


def _draw_swallow(
    rng: np.random.Generator, patient: Patient, begin: float, share: float, dose: _Dose
) -> Swallow:
    old = float(np.clip((patient.age_years - 45) / 45, 0, 1))
    bad, thick = dose.bad, dose.consistency
    male = patient.sex == "male"
    ramus = begin + rng.uniform(0.22, 0.55) + 0.05 * thick + 0.3 * bad * rng.random()
    # Thick boluses are led further before the burst (PMC6808317).
    reaction = rng.normal(0.06, 0.09) + 0.03 * thick + 0.06 * old + bad * rng.gamma(1.2, 0.3)
    burst = ramus + float(np.clip(reaction, -0.15, 2.0))
    # Never sooner than a head could travel from the ramus to the sphincter.
    travel = rng.uniform(0.16, 0.26)
    opening = max(burst + rng.uniform(0.08, 0.22) + 0.06 * bad, ramus + travel)
    lasting = rng.uniform(0.36, 0.56) + 0.008 * dose.volume_ml * share - 0.16 * bad
    closing = opening + max(lasting, 0.12)
    closed = burst + rng.uniform(0.10, 0.22) + 0.2 * bad * rng.random()
    reopened = max(closing - rng.uniform(-0.08, 0.12), closed + 0.1 + 0.2 * rng.random())
    failed = bad > 0.2 and rng.random() < 0.06
    residue = (_residue(rng, bad, 0.4), _residue(rng, bad, 0.3))
    depth = _penetration(rng, bad)
    weak = 1 - 0.5 * bad * rng.random()
    return Swallow(
        enter=begin - (rng.uniform(0.35, 1.3) if rng.random() < 0.7 else 20.0),
        prop=begin,
        ramus=ramus,
        burst=burst,
        opening=opening,
        closing=closing,
        closed=closed,
        reopened=reopened,
        peak=min(burst + rng.uniform(0.22, 0.36), closing - 0.02),
        back=max(closing, reopened) + rng.uniform(0.35, 0.8),
        share=share,
        hyoid_mm=(float(rng.uniform(9, 17)) * weak, float(rng.uniform(10, 19)) * weak),
        larynx_mm=float(rng.uniform(15, 25)) * (1.06 if male else 0.94) * (1 - 0.4 * bad),
        ues_mm=0.6
        if failed
        else float(rng.uniform(5.5, 9) + 0.25 * dose.volume_ml * share) * (1 - 0.4 * bad),
        squeeze=float(np.clip(1 - 0.75 * bad * rng.random(), 0.2, 1)),
        tilt=float(np.clip(rng.normal(1, 0.08) - 0.8 * bad * rng.random(), 0.1, 1.1)),
        spill_knot=_spill(rng, bad, thick, burst - ramus),
        residue=residue if not failed else (max(residue[0], 0.4), 0.9),
        oral_residue=float(rng.beta(1.2, 3)) if rng.random() < 0.06 + 0.35 * bad else 0.0,
        penetration=depth,
        cleared=bool(rng.random() < (0.8 if depth <= 0.85 else 0.25)),
        cough=bool(depth > 0.85 and rng.random() < 0.55),
    )


def _penetration(rng: np.random.Generator, bad: float) -> float:
    if rng.random() >= 0.05 + 0.4 * bad:
        return 0.0
    return float(rng.uniform(0.3, 1.0) if rng.random() < 0.6 else rng.uniform(1.4, 4.0))


def _residue(rng: np.random.Generator, bad: float, least: float) -> float:
    """Share of a pocket left full: nothing after most healthy swallows (Garand 2023)."""
    if rng.random() < 0.80 - 0.45 * bad:
        return 0.0
    return float(np.clip(rng.beta(1.1, 9 - 6 * bad) * (least + 1.2 * bad), 0, 0.95))


def _spill(rng: np.random.Generator, bad: float, consistency: int, wait: float) -> float:
    """How far the head runs while the swallow has not begun."""
    if wait < 0.12:
        return KNOT_RAMUS + 1.2
    runs = rng.random() + 0.4 * bad - 0.12 * consistency
    return KNOT_PYRIFORM - 0.3 if runs > 0.75 else KNOT_VALLECULA + 0.3


def _draw_bubbles(rng: np.random.Generator, dose: _Dose) -> tuple[Bubble, ...]:
    """Air swallowed with a liquid; paste holds none."""
    if rng.random() > 0.3 or dose.volume_ml < 3 or dose.consistency > 3:
        return ()
    return tuple(
        Bubble(
            along=float(rng.uniform(0.15, 0.9)),
            across=float(rng.uniform(0.3, 0.8)),
            radius_mm=float(rng.uniform(0.7, 2.2)),
        )
        for _ in range(int(rng.integers(1, 5)))
    )


def _draw_jerks(
    rng: np.random.Generator, swallows: tuple[Swallow, ...], duration_s: float
) -> tuple[Jerk, ...]:
    """Coughs after barium in the airway, and now and then one, or a gag, of its own accord."""
    starts = [s.closing + rng.uniform(0.15, 0.9) for s in swallows if s.cough]
    kinds: list[Literal["cough", "gag"]] = ["cough"] * len(starts)
    if rng.random() < 0.05:
        starts.append(rng.uniform(0, duration_s))
        kinds.append("gag" if rng.random() < 0.3 else "cough")
    return tuple(
        Jerk(float(at), kind, float(rng.uniform(2, 8)), float(rng.uniform(2.2, 4.5)))
        for at, kind in zip(starts, kinds, strict=True)
    )


def _draw_shift(rng: np.random.Generator, duration_s: float) -> Shift:
    start = float(rng.uniform(-0.3, 0.8) * duration_s)
    return Shift(
        start=start,
        stop=start + float(rng.uniform(0.4, 1.6)),
        forwards_mm=float(rng.normal(0, 5)),
        upwards_mm=float(rng.normal(0, 3)),
        nod_deg=float(rng.normal(0, 6)),
    )
