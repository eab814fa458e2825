"""What happens when: one study's plan. `timeline` plays it.

Positions along the bolus path are in knots of `throat.CHANNEL`: 0 lips, 3 middle of the tongue,
6 soft palate, 10 mouth of the valleculae, 13 pyriform sinuses, 14 upper oesophageal sphincter
(UES), 19 below the picture. Ranges of times: the healthy and impaired adults of PMC6808317,
PMC10713020, PMC7242916 and PMC3584199.

A film shows a piece of an examination: it may begin before the patient has been given anything, or
when the swallow is already over.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from .population import Patient, Ranges

# "dry": saliva is swallowed, and what an earlier bolus left behind.
Kind = Literal["swallow", "hold", "chew", "quiet", "dry"]
KINDS: tuple[Kind, ...] = ("swallow", "hold", "chew", "quiet", "dry")
_KIND_SHARES = (0.68, 0.05, 0.07, 0.12, 0.08)
_STAGES = ("whole", "before", "after")  # of a swallow, in the film
_STAGE_SHARES = (0.44, 0.22, 0.34)

# Thin liquids absorb least and spread most; paste holds together (IDDSI 0 … 4, and a biscuit).
CONSISTENCIES = ("thin", "slightly thick", "mildly thick", "moderately thick", "extremely thick")

KNOT_RAMUS, KNOT_VALLECULA, KNOT_PYRIFORM, KNOT_UES, KNOT_END = 6.6, 10.3, 12.9, 14.0, 19.0
# A sphincter that opens less lets nothing pass: failed opening, no UESO and no UESC.
UES_LEAST_MM = 2.5


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
    share: float  # of the volume; 0: nothing but what was left in the throat
    hyoid_mm: tuple[float, float]  # forwards, upwards
    larynx_mm: float
    ues_mm: float
    squeeze: float  # pharyngeal constriction: 1 obliterates the lumen
    tilt: float  # epiglottic inversion
    spill_knot: float  # how far the head runs ahead of the burst
    residue: tuple[float, float]  # valleculae, pyriform sinuses: share filled afterwards
    oral_residue: float  # share of the tongue's hollow
    penetration: float  # 0 none, 1 to the vocal folds, up to 4 far down the trachea
    cleared: bool  # what entered the airway leaves it again
    cough: bool  # the patient feels it

    @property
    def passes(self) -> bool:
        return self.ues_mm >= UES_LEAST_MM

    @property
    def pas(self) -> int:
        """Penetration-Aspiration Scale 1..8 (Rosenbek 1996), from what is simulated."""
        if self.penetration <= 0:
            return 1
        if self.penetration <= 1:
            at_folds = self.penetration > 0.85
            return (4 if self.cleared else 5) if at_folds else (2 if self.cleared else 3)
        return 6 if self.cleared else 7 if self.cough else 8

    def later(self, seconds: float) -> Swallow:
        names = ("enter", "prop", "ramus", "burst", "opening", "closing", "closed", "reopened",
                 "peak", "back")  # fmt: skip
        return replace(self, **{name: getattr(self, name) + seconds for name in names})


@dataclass(frozen=True)
class Jerk:
    """A cough or a gag: a few quick throws of head and larynx, `at` seconds."""

    at: float
    kind: Literal["cough", "gag"]
    size_mm: float
    pace_hz: float


@dataclass(frozen=True)
class Shift:
    """The patient sits up, sags or tucks the chin: a new pose between two times."""

    start: float
    stop: float
    forwards_mm: float
    upwards_mm: float
    nod_deg: float


@dataclass(frozen=True)
class Bubble:
    """Air in the bolus: place along (0 tail, 1 head) and across it, radius in millimetres."""

    along: float
    across: float
    radius_mm: float


@dataclass(frozen=True)
class Plan:
    """One study: what the patient was given and what the throat makes of it."""

    kind: Kind
    duration_s: float
    volume_ml: float
    consistency: int
    barium_per_mm: float
    impaired: bool
    swallows: tuple[Swallow, ...]
    residue_before: tuple[float, float]
    leak: float  # from a mouth that holds the bolus badly, into the valleculae
    coating_before: float
    coating: float  # film of barium that a passing bolus leaves on the mucosa
    bubbles: tuple[Bubble, ...]
    jerks: tuple[Jerk, ...]
    shift: Shift | None
    breathing: float
    motion_mm: float
    nod_deg: float

    @property
    def filmed(self) -> tuple[Swallow, ...]:
        """Swallows whose hyoid burst is in the film."""
        return tuple(s for s in self.swallows if 0 < s.burst < self.duration_s)

    @property
    def measured(self) -> int | None:
        """The swallow that events and measures are read from: the first not over at the start."""
        return next((k for k, s in enumerate(self.swallows) if s.back > 0), None)

    @property
    def findings(self) -> dict[str, Any]:
        """For truth and captions: JSON-ready; of what is in the film."""
        pas = max((s.pas for s in self.swallows if s.burst < self.duration_s), default=1)
        over = [s for s in self.swallows if s.closing < self.duration_s]
        residue = over[-1].residue if over else self.residue_before
        return {
            "kind": self.kind,
            "volume_ml": round(self.volume_ml, 1),
            "consistency": CONSISTENCIES[self.consistency],
            "impaired": self.impaired,
            "swallows": len(self.filmed),
            "penetration": 2 <= pas <= 5,
            "aspiration": pas >= 6,
            "pas": pas,
            "cough": any(jerk.kind == "cough" for jerk in self.jerks),
            "vallecular_residue": round(residue[0], 3),
            "pyriform_residue": round(residue[1], 3),
            "ues_opening_failed": any(not s.passes for s in self.filmed),
        }


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
    consistency = int(rng.choice(5, p=(0.5, 0.1, 0.15, 0.1, 0.15)))
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
