"""What happens when: one study's plan. `plan` draws it, `timeline` plays it.

Positions along the bolus path are in knots of `throat.CHANNEL`: 0 lips, 3 middle of the tongue,
6 soft palate, 10 mouth of the valleculae, 13 pyriform sinuses, 14 upper oesophageal sphincter
(UES), 19 below the picture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

# "dry": saliva is swallowed, and what an earlier bolus left behind.
Kind = Literal["swallow", "hold", "chew", "quiet", "dry"]
KINDS: tuple[Kind, ...] = ("swallow", "hold", "chew", "quiet", "dry")

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
