"""The state of the throat at any time of a planned study."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .curves import ease
from .swallow import KNOT_END, KNOT_RAMUS, KNOT_UES, Bubble, Jerk, Plan, Swallow

Floats = NDArray[np.float64]


@dataclass
class Bolus:
    """Where one portion is in each frame: knots of head and tail, share of full size."""

    head: Floats
    tail: Floats
    gain: Floats
    share: float
    bubbles: tuple[Bubble, ...] = ()


@dataclass
class Timeline:
    """The throat's state in each frame: arrays (n,); millimetres, degrees, shares 0..1.

    `boluses` has one entry for each swallow, in order; or one that is only held.
    """

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
    drift: Floats  # (n, 2) millimetres of the whole patient: backwards, down
    vallecula: Floats
    pyriform: Floats
    mouth: Floats  # residue in the hollow of the tongue
    film: Floats  # of barium on the mucosa
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
    line.film[:] = plan.coating_before
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
    for jerk in plan.jerks:
        _play_jerk(jerk, line)
    if plan.shift is not None:
        moved = ease(times_s, [plan.shift.start, plan.shift.stop], [0, 1])
        line.drift -= moved[:, None] * (plan.shift.forwards_mm, plan.shift.upwards_mm)
        line.nod_deg += moved * plan.shift.nod_deg
    return line


def _wander(rng: np.random.Generator, times_s: Floats, size: float, width: int) -> Floats:
    """Slow random motion about 0 with standard deviation `size`."""
    total = np.zeros((len(times_s), width))
    for _ in range(5):
        speed = rng.uniform(0.3, 3.5, width)
        total += np.sin(times_s[:, None] * speed + rng.uniform(0, 6.3, width)) / np.sqrt(2.5)
    return total * size


def _hold(plan: Plan, line: Timeline, rng: np.random.Generator) -> None:
    """A bolus kept in the mouth, or chewed with jaw and tongue going round; some of it leaks."""
    t = line.times_s
    until = plan.swallows[0].prop if plan.swallows else t[-1] + 1
    active = ease(t, [until - 0.3, until], [1, 0])
    if plan.kind == "chew":
        pace = 2 * np.pi * rng.uniform(1.1, 1.7)
        chew = 0.5 - 0.5 * np.cos(pace * t + rng.uniform(0, 6.3))
        line.jaw_deg += active * chew * rng.uniform(3, 8)
        line.tongue += active * np.sin(pace * t + 1) * 2.2
        line.hyoid_up += active * 1.5 * np.sin(pace * t + 0.5)
    start = rng.uniform(-0.5, 0.5) * plan.duration_s
    spilt = ease(t, [start, start + 1.6], [0, plan.leak])
    line.vallecula[:] = np.maximum(line.vallecula, spilt)
    line.pyriform[:] = np.maximum(line.pyriform, 1.6 * np.maximum(spilt - 0.5, 0))
    if not plan.swallows:
        head = 4.3 + 0.3 * line.tongue
        gone = np.ones(len(t))
        line.boluses.append(Bolus(head, np.full(len(t), 1.2), gone, 1.0, plan.bubbles[:1]))


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
    tail = _play_bolus(s, plan, line)
    # Walls close behind the tail and come back when everything descends.
    shut = ease(
        t, [s.opening - 0.1, s.opening + 0.1, s.closing + 0.06, s.closing + 0.34], [0, 1, 1, 0]
    )
    line.wave = np.where(shut > 0, np.minimum(tail, 13.6), line.wave)
    line.squeeze += s.squeeze * shut
    _leave_behind(s, plan, line)


def _play_bolus(s: Swallow, plan: Plan, line: Timeline) -> Floats:
    """Adds the swallow's portion; returns its tail, which the wave of the walls follows."""
    t = line.times_s
    held = 4.6 if plan.volume_ml > 4 else 4.0
    wait = max(s.burst - 0.02, s.ramus + 0.06)
    gate = s.spill_knot if wait - s.ramus > 0.1 else KNOT_RAMUS + 0.9
    reach = min(s.ramus + 0.22, wait)
    head_keys = [(s.prop, held), (s.ramus, KNOT_RAMUS), (reach, gate), (wait + 0.02, gate + 0.25)]
    tail_keys = [(s.prop, 1.2), (s.ramus, 3.6), (max(s.opening, s.ramus + 0.1), 7.2)]
    if s.share == 0:  # only what lay in the valleculae is carried away
        head_keys, tail_keys = [(s.burst, 10.6)], [(s.burst, 9.0), (s.opening, 9.4)]
    head_keys += [(s.opening, KNOT_UES), (s.opening + 0.18, 16.0), (s.opening + 0.55, 18.2)]
    head_keys += [(s.opening + 0.9, KNOT_END)]
    tail_keys += [(0.5 * (s.opening + s.closing), 10.2), (s.closing - 0.02, 13.7)]
    slow = 1 + 0.12 * plan.consistency
    tail_keys += [(s.closing + 0.35 * slow, 16.2), (s.closing + 1.1 * slow, KNOT_END)]
    head = _monotone(head_keys, t)
    tail = np.minimum(_monotone(tail_keys, t), head)
    if not s.passes:
        head, tail = np.minimum(head, 13.9), np.minimum(tail, 13.0)
    gain = ease(t, [s.enter, s.enter + 0.3], [0, 1])
    if s.share == 0:
        some = max(line.vallecula[_at(t, s.burst)], line.pyriform[_at(t, s.burst)]) > 0.1
        gain = 0.4 * some * ease(t, [s.burst, s.burst + 0.1], [0, 1])
    if not s.passes:  # what was stopped is residue now
        gain = gain * ease(t, [s.closing, s.closing + 0.15], [1, 0])
    line.boluses.append(Bolus(head, tail, gain, s.share, plan.bubbles))
    return tail


def _at(times_s: Floats, time: float) -> int:
    return int(np.clip(np.searchsorted(times_s, time), 0, len(times_s) - 1))


def _leave_behind(s: Swallow, plan: Plan, line: Timeline) -> None:
    """Pockets fill when the bolus reaches them and keep their residue; film; airway entry."""
    t, head = line.times_s, line.boluses[-1].head
    passed = ease(t, [s.closing - 0.25, s.closing + 0.1], [0, 1])
    reached = ease(head, [9.4, 10.6], [0, 1]), ease(head, [11.8, 13.0], [0, 1])
    for pocket, filled, left in zip(
        (line.vallecula, line.pyriform), reached, s.residue, strict=True
    ):
        before = np.maximum(pocket, filled) if s.share > 0 else pocket.copy()
        pocket[:] = before + (left - before) * passed
    line.mouth[:] = np.maximum(line.mouth, ease(t, [s.ramus, s.opening], [0, s.oral_residue]))
    if s.share > 0:
        coat = plan.coating * ease(t, [s.opening, s.closing + 0.2], [0, 1])
        line.film[:] = np.maximum(line.film, coat)
    if s.penetration > 0:
        start = s.burst if plan.consistency < 2 else s.closing - 0.1
        deep = ease(t, [start, start + 0.25 + 0.3 * s.penetration], [0, s.penetration])
        leaves = s.closing + 0.15 + 0.3 * s.penetration
        keep = ease(t, [leaves, leaves + 0.3], [1, 0]) if s.cleared else 1
        line.aspirate = np.maximum(line.aspirate, deep * keep)


def _play_jerk(jerk: Jerk, line: Timeline) -> None:
    """Three or four throws, each weaker; a gag lifts everything at once and opens the mouth."""
    t = line.times_s
    throws = np.zeros(len(t))
    for k in range(4):
        at = jerk.at + k / jerk.pace_hz
        throws += 0.75**k * np.exp(-(((t - at) / 0.08) ** 2))
    line.drift += throws[:, None] * (-jerk.size_mm, 0.4 * jerk.size_mm)
    line.nod_deg -= 0.6 * jerk.size_mm * throws
    line.larynx_up += 4 * throws
    line.hyoid_up += 3 * throws
    line.hyoid_forward += 1.5 * throws
    line.jaw_deg += 3 * throws
    if jerk.kind == "cough":  # the glottis is shut before each throw
        line.vestibule = np.maximum(line.vestibule, 0.8 * np.minimum(throws, 1))
        return
    heave = ease(t, [jerk.at - 0.1, jerk.at + 0.15, jerk.at + 0.5, jerk.at + 1.0], [0, 1, 1, 0])
    line.jaw_deg += 9 * heave
    line.hyoid_up += 6 * heave
    line.larynx_up += 8 * heave
    line.velum = np.maximum(line.velum, heave)
    line.wave = np.where(heave > line.squeeze, 11.5, line.wave)
    line.squeeze = np.maximum(line.squeeze, 0.7 * heave)


def _monotone(keys: list[tuple[float, float]], t: Floats) -> Floats:
    """Monotone curve through keys whose times are made to ascend; constant outside them."""
    from scipy.interpolate import PchipInterpolator

    times, values = [keys[0][0]], [keys[0][1]]
    for time, value in keys[1:]:
        times.append(max(time, times[-1] + 0.02))
        values.append(max(value, values[-1]))
    curve: Any = PchipInterpolator(times, values)
    result: Floats = curve(np.clip(t, times[0], times[-1]))
    return result
