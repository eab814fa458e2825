"""The state of the throat at any time of a planned study."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .curves import ease
from .swallow import KNOT_END, KNOT_RAMUS, KNOT_UES, Plan, Swallow

Floats = NDArray[np.float64]


@dataclass
class Bolus:
    """Where one portion is in each frame: knots of head and tail, share of full size."""

    head: Floats
    tail: Floats
    gain: Floats
    share: float


@dataclass
class Timeline:
    """The throat's state in each frame: arrays (n,); millimetres, degrees, shares 0..1."""

    times_s: Floats
    hyoid_forward: Floats
    hyoid_up: Floats
    larynx_up: Floats
    larynx_forward: Floats
    tilt: Floats
    vestibule: Floats  # closure
    velum: Floats
    ues_mm: Floats
    wave: Floats  # knot down to which the lumen has been squeezed shut
    squeeze: Floats
    jaw_deg: Floats
    nod_deg: Floats
    drift: Floats  # (n, 2) millimetres of the whole patient
    vallecula: Floats
    pyriform: Floats
    mouth: Floats
    aspirate: Floats  # how far down the airway barium stands, in airway knots
    tongue: Floats  # restlessness of the tongue
    boluses: list[Bolus] = field(default_factory=list)

    @classmethod
    def still(cls, times_s: Floats) -> Timeline:
        """Nothing moves and nothing is in the mouth."""
        names = [name for name in cls.__dataclass_fields__ if name not in ("times_s", "boluses")]
        zeros = {name: np.zeros(len(times_s)) for name in names}
        zeros["drift"] = np.zeros((len(times_s), 2))
        return cls(times_s, **zeros)  # type: ignore[arg-type]


def play(plan: Plan, times_s: Floats, rng: np.random.Generator) -> Timeline:
    """The state at each time; `rng` only for idle motion."""
    line = Timeline.still(times_s)
    line.drift[:] = _wander(rng, times_s, plan.motion_mm, 2)
    line.vallecula[:], line.pyriform[:] = plan.residue_before
    line.tongue[:] = _wander(rng, times_s, 0.5, 1)[:, 0]
    line.wave[:] = -1.0
    line.nod_deg += _wander(rng, times_s, plan.nod_deg, 1)[:, 0]
    breath = np.sin(2 * np.pi * times_s / rng.uniform(2.8, 4.5) + rng.uniform(0, 6.3))
    line.larynx_up += plan.breathing * 0.6 * breath
    line.hyoid_up += plan.breathing * 0.25 * breath + 0.4 * _wander(rng, times_s, 1.0, 1)[:, 0]
    line.hyoid_forward += 0.4 * _wander(rng, times_s, 1.0, 1)[:, 0]
    line.jaw_deg += np.abs(_wander(rng, times_s, 0.6, 1)[:, 0])
    if plan.kind in ("hold", "chew"):
        _hold(plan, line, rng)
    for swallow in plan.swallows:
        _play_swallow(swallow, plan, line)
    return line


def _wander(rng: np.random.Generator, times_s: Floats, size: float, width: int) -> Floats:
    """Slow random motion about 0 with standard deviation `size`."""
    total = np.zeros((len(times_s), width))
    for _ in range(5):
        speed = rng.uniform(0.3, 3.5, width)
        total += np.sin(times_s[:, None] * speed + rng.uniform(0, 6.3, width)) / np.sqrt(2.5)
    return total * size


def _hold(plan: Plan, line: Timeline, rng: np.random.Generator) -> None:
    """A bolus kept in the mouth, or chewed with jaw and tongue going round."""
    t = line.times_s
    until = plan.swallows[0].prop if plan.swallows else t[-1] + 1
    active = ease(t, [until - 0.3, until], [1, 0])
    if plan.kind == "chew":
        pace = 2 * np.pi * rng.uniform(1.1, 1.7)
        chew = 0.5 - 0.5 * np.cos(pace * t + rng.uniform(0, 6.3))
        line.jaw_deg += active * chew * rng.uniform(3, 8)
        line.tongue += active * np.sin(pace * t + 1) * 2.2
        line.hyoid_up += active * 1.5 * np.sin(pace * t + 0.5)
    if not plan.swallows:
        head = 4.3 + 0.3 * line.tongue
        line.boluses.append(Bolus(head, np.full(len(t), 1.2), np.ones(len(t)), 1.0))


def _play_swallow(s: Swallow, plan: Plan, line: Timeline) -> None:
    t = line.times_s
    mid = s.peak + 0.6 * (s.closing - s.peak)
    line.hyoid_forward += s.hyoid_mm[0] * ease(
        t, [s.burst - 0.012, s.peak, mid, s.back], [0, 1, 0.92, 0]
    )
    # The hyoid rises before it goes forward, and a little already while the tongue loads.
    line.hyoid_up += s.hyoid_mm[1] * ease(
        t, [s.prop, s.burst - 0.02, s.peak - 0.05, mid, s.back], [0, 0.08, 1, 0.75, 0]
    )
    line.larynx_up += s.larynx_mm * ease(
        t, [s.burst - 0.02, s.peak + 0.06, s.closing - 0.05, s.back], [0, 1, 0.85, 0]
    )
    line.larynx_forward += (
        0.55 * s.hyoid_mm[0] * ease(t, [s.burst, s.peak + 0.03, s.closing, s.back], [0, 1, 0.8, 0])
    )
    line.tilt += s.tilt * ease(
        t, [s.burst + 0.02, s.opening + 0.12, s.closing - 0.08, s.back - 0.1], [0, 1, 1, 0]
    )
    line.vestibule += ease(t, [s.burst, s.closed, s.reopened, s.reopened + 0.22], [0, 1, 1, 0])
    line.velum += ease(
        t, [s.ramus - 0.22, s.ramus + 0.04, s.closing - 0.1, s.closing + 0.25], [0, 1, 1, 0]
    )
    rise = min(0.16, 0.4 * (s.closing - s.opening))
    line.ues_mm += s.ues_mm * ease(
        t, [s.opening - 0.02, s.opening + rise, s.closing - 0.12, s.closing], [0, 1, 0.8, 0]
    )
    _play_bolus(s, plan, line)


def _play_bolus(s: Swallow, plan: Plan, line: Timeline) -> None:
    from scipy.interpolate import PchipInterpolator

    t = line.times_s
    held = 4.6 if plan.volume_ml > 4 else 4.0
    wait = max(s.burst - 0.02, s.ramus + 0.06)
    gate = s.spill_knot if wait - s.ramus > 0.1 else KNOT_RAMUS + 0.9
    reach = min(s.ramus + 0.22, wait)
    head_keys = [(s.prop, held), (s.ramus, KNOT_RAMUS), (reach, gate), (wait + 0.02, gate + 0.25)]
    head_keys += [(s.opening, KNOT_UES), (s.opening + 0.18, 16.0), (s.opening + 0.55, 18.2)]
    head_keys += [(s.opening + 1.1, KNOT_END)]
    tail_keys = [(s.prop, 1.2), (s.ramus, 3.6), (max(s.opening, s.ramus + 0.1), 7.2)]
    tail_keys += [(0.5 * (s.opening + s.closing), 10.2), (s.closing - 0.02, 13.7)]
    tail_keys += [(s.closing + 0.35, 16.2), (s.closing + 1.4, KNOT_END)]
    head = _monotone(PchipInterpolator, head_keys, t)
    tail = np.minimum(_monotone(PchipInterpolator, tail_keys, t), head)
    if s.ues_mm < 2.5:  # failed opening: nothing passes
        head, tail = np.minimum(head, 13.9), np.minimum(tail, 13.0)
    gain = ease(t, [s.enter, s.enter + 0.3], [0, 1])
    line.boluses.append(Bolus(head, tail, gain, s.share))
    # Walls close behind the tail and come back when everything descends.
    shut = ease(
        t, [s.opening - 0.1, s.opening + 0.1, s.closing + 0.06, s.closing + 0.34], [0, 1, 1, 0]
    )
    line.wave = np.where(shut > 0, np.minimum(tail, 13.6), line.wave)
    line.squeeze += s.squeeze * shut
    passed = ease(t, [s.closing - 0.25, s.closing + 0.1], [0, 1])
    reached = ease(head, [9.4, 10.6], [0, 1]), ease(head, [11.8, 13.0], [0, 1])
    for pocket, filled, left in zip(
        (line.vallecula, line.pyriform), reached, s.residue, strict=True
    ):
        before = np.maximum(pocket, filled)
        pocket[:] = np.where(passed > 0, before + (left - before) * passed, before)
    line.mouth += ease(t, [s.ramus, s.opening], [0, 0.2 * plan.coating])
    if s.penetration > 0:
        start = s.burst if plan.consistency < 2 else s.closing - 0.1
        deep = ease(t, [start, start + 0.25 + 0.3 * s.penetration], [0, s.penetration])
        keep = 1 if s.penetration > 0.7 else ease(t, [s.closing, s.closing + 0.2], [1, 0])
        line.aspirate = np.maximum(line.aspirate, deep * keep)


def _monotone(interpolator: Any, keys: list[tuple[float, float]], t: Floats) -> Floats:
    """Monotone curve through keys whose times are made to ascend; constant outside them."""
    times, values = [keys[0][0]], [keys[0][1]]
    for time, value in keys[1:]:
        times.append(max(time, times[-1] + 0.02))
        values.append(max(value, values[-1]))
    curve = interpolator(times, values)
    result: Floats = curve(np.clip(t, times[0], times[-1]))
    return result
