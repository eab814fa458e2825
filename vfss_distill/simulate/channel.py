"""The channel a bolus takes: two walls from the lips to the chest, and how far they stand apart.

What happens in it is a wish for the gap between the walls at each sample along it: loose where air
stands, as wide as the bolus where that is, nothing where the wall squeezes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .bones import posed
from .curves import Points, smooth, smoothstep
from .population import Patient
from .throat import CHANNEL, FAUCES, RAISED_PALATE
from .timeline import Bolus, Floats, Timeline

PER_KNOT = 8


@dataclass(frozen=True)
class Walls:
    """Both walls in one frame, (samples, 2) millimetres in the patient's frame.

    `gap` between them and the part of it that barium fills, `filled`, in millimetres at each
    sample; `leads`: the foremost sample of each bolus.
    """

    lower: Points
    upper: Points
    gap: Floats
    filled: Floats
    leads: list[int | None]


def draw_knots(patient: Patient, rng: np.random.Generator) -> Points:
    """The patient's own `CHANNEL`: the same columns."""
    drop = patient.larynx_drop_mm
    knots = CHANNEL.copy()
    low = smoothstep((np.arange(len(knots)) - 7.0) / 3.5)
    low[14:] = 1 - np.linspace(0.1, 1, len(knots) - 14)
    knots[:, 1] += drop * low
    knots[:, 3] += drop * low
    wide = rng.normal(0, 1.2, len(knots)) * ((low > 0) & (np.arange(len(knots)) < 13))
    knots[:, 0] -= np.clip(rng.normal(-1.0, 2.2) * (low > 0) * (low < 1.01), -4, 5) + 0.5 * wide
    swollen = np.clip(rng.normal(0, 0.9), -1, 2.5) + 1.5 * patient.degeneration * rng.random()
    knots[8:14, 2] -= swollen * 0.6
    knots[:8, 1] += rng.normal(0, 1.2)
    knots[8:13, 0] = np.minimum(knots[8:13, 0], knots[8:13, 2] - 3.4)
    return knots


class Channel:
    """One patient's channel. At each of `samples` (in knots): `head`, `jaw`, the shares of their
    motion that the lower wall has (the upper one has the head's), and `film_mm`, what coats it.
    """

    def __init__(
        self, patient: Patient, knots: Points, rng: np.random.Generator, volume_ml: float
    ) -> None:
        self._volume_ml = volume_ml
        self._front = posed(patient, knots[:, 0:2], knots[:, 4])
        self._back = posed(patient, knots[:, 2:4], np.minimum(knots[:, 4] + 0.0, 1))
        # The wall stays before the spine, whatever the head does.
        self._back[8:, 0] = knots[8:, 2]
        self._share_hyoid, self._share_larynx = knots[:, 6:7], knots[:, 7:8]
        self.samples = np.arange((len(knots) - 1) * PER_KNOT + 1) / PER_KNOT
        at = np.arange(len(knots))
        self.head, self.jaw = (np.interp(self.samples, at, knots[:, k]) for k in (4, 5))
        wall_ratio = rng.uniform(0.68, 0.85)
        patchy = 0.65 + 0.35 * np.sin(self.samples * rng.uniform(2, 5) + rng.uniform(0, 6.3))
        ends = smoothstep((self.samples - 2.5) / 1.5) * smoothstep((13.4 - self.samples) / 0.8)
        self.film_mm = 0.85 * patchy * ends
        # What stays: how much of each part of the throat a sample is, by where it lies.
        s = self.samples
        self._oral, self._gut = smoothstep((FAUCES - s) / 1.2), smoothstep((s - 13.3) / 0.7)
        self._mouth = np.exp(-(((s - 3.4) / 2.2) ** 2))
        self._hypopharynx = smoothstep((s - 10.6) / 1.6)
        self._past_mouth = smoothstep((s - 5.5) / 2)
        self._past_throat = smoothstep((s - 13.1) / 0.9)
        self._past_ues = smoothstep((s - 14.6) / 1.2)
        self._front_ratio = 1 + smoothstep((s[:, None] - 6.5) / 1.5) * (wall_ratio - 1)
        self._raised_palate = posed(patient, RAISED_PALATE, (1, 1, 0.6, 0))

    def walls(self, line: Timeline, i: int, hyoid: Points, larynx: Points) -> Walls:
        """In frame `i`; `hyoid`, `larynx`: how far (mm) they are from where they rest."""
        front, back, rest = self._loose(line, i, hyoid, larynx)
        gap, filled, leads = self._gaps(line, i, rest)
        lower, upper = self._apply(front, back, rest, gap)
        return Walls(lower, upper, gap, filled, leads)

    def _loose(
        self, line: Timeline, i: int, hyoid: Points, larynx: Points
    ) -> tuple[Points, Points, Floats]:
        """Both walls sampled along the channel, and the gap between them, before any wish."""
        front = self._front + self._share_hyoid * hyoid * 0.9 * (1, 0.5)
        front = front + self._share_larynx * larynx * (0.35, 1)
        front[:8, 1] += line.tongue[i] * np.exp(-((np.arange(8) - 4) ** 2) / 6)
        back = self._back + self._share_larynx * larynx * (0, 0.75)
        lift = line.velum[i]
        back[5:9] += lift * (self._raised_palate - back[5:9])
        a = smooth(front, per_segment=PER_KNOT, closed=False)
        b = smooth(back, per_segment=PER_KNOT, closed=False)
        return a, b, np.linalg.norm(b - a, axis=1)

    def _gaps(
        self, line: Timeline, i: int, rest: Floats
    ) -> tuple[Floats, Floats, list[int | None]]:
        """Wished gap and the part of it that barium fills, in millimetres, at each sample.

        Third: the foremost sample of each bolus.
        """
        s, oral = self.samples, self._oral
        loose = 0.9 + 0.5 * abs(line.tongue[i])
        base = oral * np.minimum(rest, loose) + (1 - oral) * rest * (1 - self._gut)
        wave = line.wave[i]
        shut = smoothstep((wave - s) / 1.7 + 0.85) * (1 - oral) * min(line.squeeze[i], 1.0)
        base = base * (1 - shut)
        filled = np.zeros_like(base)
        leads: list[int | None] = []
        for bolus in line.boluses:
            part = self._filling(line, i, rest, bolus)
            there = np.flatnonzero(part > 0.5)
            leads.append(int(there[-1]) if len(there) else None)
            filled = np.maximum(filled, part)
        return np.maximum(base, filled), filled, leads

    def _filling(self, line: Timeline, i: int, rest: Floats, bolus: Bolus) -> Floats:
        """Width of one bolus at each sample."""
        s = self.samples
        head, tail, gain = bolus.head[i], bolus.tail[i], bolus.gain[i]
        if gain < 0.05 or head - tail < 0.15 or tail > 18.5:
            return np.zeros_like(s)
        room = self._room(line, i, rest, bolus.share) * gain
        blunt = 1.5 if head < 6 else 1.1
        # Round at the head; the tail is drawn out, but round while it lies in the mouth.
        thin = smoothstep((s - tail) / 1.7)
        thin = thin if tail > 4 else np.sqrt(thin)
        width: Floats = room * thin * np.sqrt(smoothstep((head - s) / blunt))
        return width

    def _room(self, line: Timeline, i: int, rest: Floats, share: float) -> Floats:
        """How far the walls part for a bolus that fills them."""
        volume = self._volume_ml * share
        mouth = (2.2 + 2.6 * volume**0.5) * self._mouth + 1.5
        throat = rest * (0.55 + 0.45 * min(volume / 8, 1.0))
        sphincter = line.ues_mm[i]
        # The hypopharynx is drawn open with the sphincter: one column, no waist above it.
        throat = np.maximum(throat, 0.85 * sphincter * self._hypopharynx)
        gut = np.minimum(5.0 + 0.45 * volume, 12.0) * min(1.0, line.ues_mm.max() / 4)
        room = mouth + self._past_mouth * (throat - mouth)
        below_ues = sphincter + self._past_ues * (gut - sphincter)
        result: Floats = room + self._past_throat * (below_ues - room)
        return result

    def _apply(self, a: Points, b: Points, rest: Floats, gap: Floats) -> tuple[Points, Points]:
        """The walls as far apart as wished: across the channel where they touch at rest."""
        tangent = np.gradient((a + b) / 2, axis=0)
        tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
        across = np.column_stack([-tangent[:, 1], tangent[:, 0]]) * -1
        chord = b - a
        wide = smoothstep((rest[:, None] - 1.0) / 3.0)
        across = across + wide * (chord / np.maximum(rest, 0.1)[:, None] - across)
        delta = (rest - gap)[:, None]
        ratio = self._front_ratio
        return a + across * delta * ratio, b - across * delta * (1 - ratio)
