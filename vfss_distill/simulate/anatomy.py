"""Soft parts that move, as outlines: around the channel, tongue, palate, larynx, hyoid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .bones import JAW_PIVOT, NOD_PIVOT, posed
from .channel import PER_KNOT, Channel, Walls, draw_knots
from .curves import (
    Points,
    below,
    ellipse,
    moved,
    ribbon,
    rotation_about,
    smooth,
    smoothstep,
    turned,
)
from .placement import Placement
from .throat import (
    AIRWAY,
    ARYTENOID,
    CHANNEL,
    CRICOID,
    CRICOID_EDGE,
    CRICOID_FRONT,
    FAUCES,
    HYOID_BODY,
    HYOID_HORN,
    MOUTH_FLOOR,
    NASAL_BACK,
    NASAL_ROOF,
    PYRIFORM,
    RAISED_VELUM,
    THYROID,
    VALLECULA,
    VELUM,
    Motion,
    Throat,
)
from .timeline import Bolus, Floats, Timeline

# Outlines that others are made of.
_HELP = "low", "up", "under", "behind"
_FLOOR_SHARES = np.array([0.0, 0.4, 0.8, 1.0, 1.0])  # of the head's and of the jaw's motion
_HYOID_CENTRE = np.array([-38.0, 3.0])


@dataclass(frozen=True)
class _Part:
    """A part of structure `name` in the patient's millimetres, without the body's motion.

    `head`, `jaw`: shares of their motion that it has, or that each of its points has.
    """

    name: str
    points: Points
    head: Floats | float = 0.0
    jaw: Floats | float = 0.0


class SoftTissue:
    """The moving parts of one patient in one study."""

    def __init__(self, place: Placement, rng: np.random.Generator, volume_ml: float) -> None:
        patient = place.patient
        self.place, self.patient = place, patient
        drop = patient.larynx_drop_mm
        knots = draw_knots(patient, rng)
        self._base_shift = float((knots[9:11, 0] - CHANNEL[9:11, 0]).mean())
        size = patient.larynx_size
        pivot = np.array([-14.0, 20.0])

        def scaled(points: Points) -> Points:
            """The patient's own larynx."""
            result: Points = (points - pivot) * (size, 0.5 + 0.5 * size) + pivot + (0, drop)
            return result

        airway = AIRWAY.copy()
        for columns in (slice(0, 2), slice(2, 4)):
            airway[:, columns] = scaled(airway[:, columns])
        self.airway = airway
        self._petiole = scaled(np.array([[-28.0, 14.0]]))[0]
        self._thyroid, *self._cricoid = (
            smooth(scaled(part), per_segment=4)
            for part in (THYROID, CRICOID, CRICOID_FRONT, ARYTENOID)
        )
        self.hyoid_shift = np.array([rng.normal(-4.0, 2.0), 0.8 * drop + rng.normal(-8.0, 1.6)])
        self.hyoid_tilt = rng.normal(0, 9)
        hyoid_size = rng.normal(1.14, 0.08)
        self._hyoid = [
            (part - _HYOID_CENTRE) * hyoid_size + _HYOID_CENTRE
            for part in (smooth(HYOID_BODY, per_segment=5), smooth(HYOID_HORN, per_segment=4))
        ]
        self.leaf = rng.normal(1.0, 0.1), rng.normal(0, 6)
        self.velum_size = rng.normal(1.0, 0.08)
        self._velum = VELUM.copy()
        self._velum[-1, 1] += rng.normal(0, 2.0)
        self.channel = Channel(patient, knots, rng, volume_ml)
        self._pocket_shapes = {"vallecula": _centred(VALLECULA), "pyriform": _centred(PYRIFORM)}
        floor = MOUTH_FLOOR.copy()
        floor[0] += self.hyoid_shift
        self._mouth_floor = posed(patient, floor, _FLOOR_SHARES)
        self._nasal_walls = np.concatenate(
            [posed(patient, NASAL_ROOF), posed(patient, NASAL_BACK[:2]), NASAL_BACK[2:]]
        )
        self._nod = place.px(NOD_PIVOT)[0]
        self._joint = place.px(posed(patient, JAW_PIVOT))[0]
        self.px_per_mm = place.px_per_mm
        self.hand = -1.0 if place.view.mirrored else 1.0

    # ── rigid motion ─────────────────────────────────────────────────────────────────────────

    def motion(self, line: Timeline, i: int) -> Motion:
        shift = line.drift[i] * (self.hand, 1.0) * self.px_per_mm
        body = rotation_about(self._nod, 0.0, shift)
        head = rotation_about(self._nod, self.hand * line.nod_deg[i], shift)
        joint = head[:, :2] @ self._joint + head[:, 2]
        opened = rotation_about(joint, -self.hand * line.jaw_deg[i])
        jaw = np.column_stack(
            [opened[:, :2] @ head[:, :2], opened[:, :2] @ head[:, 2] + opened[:, 2]]
        )
        return Motion(body, head, jaw)

    # ── one frame ────────────────────────────────────────────────────────────────────────────

    def throat(self, line: Timeline, i: int, motion: Motion) -> Throat:
        hyoid = np.array([-line.hyoid_forward[i], -line.hyoid_up[i]])
        larynx = np.array([-line.larynx_forward[i], -line.larynx_up[i]])
        walls = self.channel.walls(line, i, hyoid, larynx)
        bones = self._bones(hyoid, larynx)
        outlines = self._px(
            motion,
            [
                *self._walls(walls),
                *bones,
                *self._pockets(line, i),
                *self._palate(line, i),
                *self._larynx(line, i, hyoid, larynx),
            ],
        )
        (low,), (up,), (under,), (behind,) = (outlines.pop(name) for name in _HELP)
        throat = Throat()
        for name, parts in outlines.items():
            getattr(throat, name).extend(parts)
        throat.hyoid_corner = throat.hyoid[0][np.argmax(bones[0].points @ (-0.75, 0.66))]
        self._around(throat, line, i, walls, low, up)
        s = self.channel.samples
        throat.tongue.append(np.concatenate([low[(s >= 1.0) & (s <= 10.2)], under]))
        throat.posterior_wall.append(np.concatenate([up[_before_spine(s)], behind[::-1]]))
        throat.pharynx += throat.vallecula + throat.pyriform
        throat.throat_air = throat.pharynx + throat.nasopharynx
        return throat

    def _px(self, motion: Motion, parts: Sequence[_Part]) -> dict[str, list[Points]]:
        """Each structure's parts in this frame's pixels.

        All at once: a call costs as much as hundreds of points do.
        """
        counts = [len(part.points) for part in parts]
        base = self.place.px(np.concatenate([part.points for part in parts]))
        head, jaw = (
            np.concatenate([np.broadcast_to(share, n) for share, n in zip(s, counts, strict=True)])
            for s in ([part.head for part in parts], [part.jaw for part in parts])
        )
        nodded = moved(base, motion.head)
        result = moved(base, motion.body)
        result += head[:, None] * (nodded - result)
        result += jaw[:, None] * (moved(base, motion.jaw) - nodded)
        outlines: dict[str, list[Points]] = {}
        for part, outline in zip(parts, np.split(result, np.cumsum(counts)[:-1]), strict=True):
            outlines.setdefault(part.name, []).append(outline)
        return outlines

    def _walls(self, walls: Walls) -> list[_Part]:
        """The channel's walls, and what lies beyond them: the floor of the mouth, the spine."""
        channel = self.channel
        heights = walls.upper[_before_spine(channel.samples), 1]
        spine = np.column_stack([np.full(len(heights), -8.6), heights])
        return [
            _Part("low", walls.lower, channel.head, channel.jaw),
            _Part("up", walls.upper, channel.head),
            _Part("under", self._mouth_floor, _FLOOR_SHARES, _FLOOR_SHARES),
            _Part("behind", spine),
        ]

    def _bones(self, hyoid: Points, larynx: Points) -> list[_Part]:
        move = self.hyoid_shift + hyoid
        # It tips a little as it is pulled forwards.
        tilt = self.hyoid_tilt - 0.6 * hyoid[0]
        return [
            *(_Part("hyoid", turned(p, tilt, _HYOID_CENTRE) + move) for p in self._hyoid),
            _Part("thyroid", self._thyroid + larynx),
            *(_Part("cricoid", part + larynx) for part in self._cricoid),
        ]

    # ── outlines from the walls ──────────────────────────────────────────────────────────────

    def _around(
        self, throat: Throat, line: Timeline, i: int, walls: Walls, low: Points, up: Points
    ) -> None:
        s = self.channel.samples
        throat.bolus_heads = [None if k is None else (low[k] + up[k]) / 2 for k in walls.leads]
        lumen = (s >= FAUCES) & (s <= 14.0)
        # What is squeezed shut is no lumen; slivers of a pixel are nobody's label.
        for part in _runs(lumen & (walls.gap > 0.7)):
            throat.pharynx.append(np.concatenate([low[part], up[part][::-1]]))
        oral = s <= FAUCES
        throat.mouth_air.append(np.concatenate([low[oral], up[oral][::-1]]))
        near = (s >= 13.4) & (s <= 14.8)
        neck = (s >= 13.6) & (s <= 14.6)
        throat.ues_px = float(np.linalg.norm(up[neck] - low[neck], axis=1).min())
        pad = np.array([1.5 * self.px_per_mm * self.hand, 0.0])
        throat.ues.append(np.concatenate([low[near] - pad, up[near][::-1] + pad]))
        self._barium(throat, line, i, walls, low, up)

    def _barium(
        self, throat: Throat, line: Timeline, i: int, walls: Walls, low: Points, up: Points
    ) -> None:
        gap, filled = walls.gap, walls.filled
        share = np.clip(filled / np.maximum(gap, 1e-3), 0, 1)
        surface = low + share[:, None] * (up - low)
        there = filled > 0.5
        for part in _runs(there):
            throat.bolus.append(np.concatenate([low[part], surface[part][::-1]]))
        for bolus in line.boluses:
            self._bubbles(throat, bolus, i, low, surface, filled)
        if line.mouth[i] > 0.02:
            # The tongue lies against the palate: what is left there has sunk into its hollow.
            deep = line.mouth[i] * 4 * np.exp(-(((self.channel.samples - 4.6) / 1.3) ** 2))
            wet = deep > 1.0  # less is a film
            into = low - (deep / np.maximum(gap, 1e-3))[:, None] * (up - low)
            if wet.sum() > 2:
                throat.thin_bolus.append(np.concatenate([low[wet], into[wet][::-1]]))
        if line.film[i] > 0.03:
            self._film(throat, low, up, gap, float(line.film[i]))

    def _film(self, throat: Throat, low: Points, up: Points, gap: Floats, dense: float) -> None:
        """A coat on both walls, no thicker than leaves air between them."""
        thick = self.channel.film_mm * (0.35 + 0.65 * dense)
        share = np.minimum(thick / np.maximum(gap, 1e-3), 0.4)[:, None]
        coated = self.channel.film_mm > 0.1
        for wall, other in ((low, up), (up, low)):
            inner = wall + share * (other - wall)
            throat.film.append(np.concatenate([wall[coated], inner[coated][::-1]]))

    def _bubbles(
        self, throat: Throat, bolus: Bolus, i: int, low: Points, top: Points, filled: Floats
    ) -> None:
        head, tail = bolus.head[i], bolus.tail[i]
        if bolus.gain[i] < 0.9 or tail > 16:
            return
        for bubble in bolus.bubbles:
            at = round(float(tail + bubble.along * (head - tail)) * PER_KNOT)
            if filled[at] > 2.6 * bubble.radius_mm:
                x, y = low[at] + bubble.across * (top[at] - low[at])
                radius = bubble.radius_mm * self.px_per_mm
                throat.bubbles.append(ellipse(float(x), float(y), radius, radius))

    # ── pockets, palate and larynx ───────────────────────────────────────────────────────────

    def _pockets(self, line: Timeline, i: int) -> Iterator[_Part]:
        hyoid = np.array([-0.75 * line.hyoid_forward[i], -0.9 * line.hyoid_up[i]])
        larynx = np.array([-0.2 * line.larynx_forward[i], -0.87 * line.larynx_up[i]])
        drop = np.array([0.0, self.patient.larynx_drop_mm])
        squeezed = 1 - 0.8 * min(line.squeeze[i], 1) * smoothstep(line.wave[i] - 9.5)
        base = hyoid + drop + (self._base_shift, -1.5)
        for name, move, fill in (
            ("vallecula", base, line.vallecula[i]),
            ("pyriform", larynx + drop, line.pyriform[i]),
        ):
            outline, centre = self._pocket_shapes[name]
            outline = outline * (max(squeezed, 0.1), 1) + centre + move
            yield _Part(name, outline)
            liquid = below(outline, self.place.down, float(fill))
            if len(liquid) and fill > 0.03:
                yield _Part("bolus", liquid)

    def _palate(self, line: Timeline, i: int) -> list[_Part]:
        lift = line.velum[i]
        centre = self._velum + lift * (RAISED_VELUM - self._velum)
        centre = smooth(centre, per_segment=6, closed=False)
        along, shares = np.linspace(0, 1, len(centre)), np.linspace(1, 0.6, len(centre))
        centre = posed(self.patient, centre, shares)
        width = self.velum_size * (7.5 + 3 * np.sin(np.pi * along) - 4.5 * along**3) + lift * 2
        body = ribbon(centre, width)
        # Behind it the nasopharynx stands open until the palate closes it.
        rear = body[: len(centre)] if body[0, 1] < body[-1, 1] else body[len(centre) :][::-1]
        # Not part of the pharyngeal space that is measured, which begins below the soft palate.
        return [
            _Part("soft_palate", body, np.concatenate([shares, shares[::-1]])),
            _Part("nasopharynx", np.concatenate([self._nasal_walls, rear[::-1]])),
        ]

    def _larynx(self, line: Timeline, i: int, hyoid: Points, larynx: Points) -> Iterator[_Part]:
        weight = self.airway[:, 4:5]
        front = self.airway[:, 0:2] + weight * larynx * (0.6, 1)
        back = self.airway[:, 2:4] + weight * larynx * (0.6, 1)
        closed = (
            min(line.vestibule[i], 1.0) * np.array([1, 1, 0.9, 0.6, 0.1, 0, 0, 0, 0, 0])[:, None]
        )
        back = back + 0.97 * closed * (front - back)
        if line.aspirate[i] > 0:
            yield _Part("thin_bolus", _trickle(line.aspirate[i], front, back))
        a = smooth(front, per_segment=5, closed=False)
        b = smooth(back, per_segment=5, closed=False)
        yield _Part("airway", np.concatenate([a, b[::-1]]))
        below = slice(round(CRICOID_EDGE * 5), None)
        yield _Part("trachea", np.concatenate([a[below], b[below][::-1]]))
        yield _Part("epiglottis", self._epiglottis(line, i, hyoid, larynx))

    def _epiglottis(self, line: Timeline, i: int, hyoid: Points, larynx: Points) -> Points:
        scale, lean = self.leaf
        root = self._petiole + 0.8 * larynx * (0.6, 1) + 0.2 * hyoid
        along = np.linspace(0, 1, 9)
        # At rest it stands up and leans back; inverted, its tip points down over the inlet.
        angle = np.deg2rad(
            lean + 14 + 8 * along + line.tilt[i] * (30 + 85 * smoothstep(along * 1.3))
        )
        step = 27.0 * scale / 8
        path = np.column_stack([np.sin(angle), -np.cos(angle)]) * step
        centre = root + np.cumsum(path, axis=0) - path[0]
        width = 1.8 + 2.0 * np.sin(np.pi * np.clip(along * 0.9 + 0.08, 0, 1))
        return ribbon(centre, width)


def _centred(shape: Points) -> tuple[Points, Points]:
    """Its outline about its centre, and that centre."""
    outline = smooth(shape, per_segment=4)
    centre = outline.mean(axis=0)
    return outline - centre, centre


def _before_spine(samples: Floats) -> NDArray[np.bool_]:
    """Where along the channel its back wall lies before the spine."""
    return (samples >= 8.0) & (samples <= 13.6)


def _trickle(depth: float, front: Points, back: Points) -> Points:
    """Barium that has entered the airway: runs down its front wall, widest at its end."""
    last = 0.4 + min(depth, 1.0) * 2.2 + max(depth - 1, 0.0) * 1.4
    along = np.linspace(0.2, last, 14)
    knots = np.arange(len(front))
    a = np.column_stack([np.interp(along, knots, front[:, k]) for k in range(2)])
    b = np.column_stack([np.interp(along, knots, back[:, k]) for k in range(2)])
    share = 0.13 + 0.24 * np.linspace(0, 1, 14) ** 2
    share[-1] = 0.04
    inner = a + share[:, None] * (b - a)
    return np.concatenate([a, inner[::-1]])


def _runs(where: NDArray[np.bool_]) -> list[slice]:
    """Stretches of at least three samples along the channel where `where` holds."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], where.astype(np.int8), [0]])))
    return [slice(start, stop) for start, stop in edges.reshape(-1, 2) if stop - start > 2]
