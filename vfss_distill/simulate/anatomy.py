"""Soft parts that move, as outlines: around the channel, tongue, palate, larynx, hyoid."""

from __future__ import annotations

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
    PYRIFORM,
    THYROID,
    VALLECULA,
    Motion,
    Throat,
)
from .timeline import Bolus, Floats, Timeline


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
        self._larynx_scale = lambda p: (p - pivot) * (size, 0.5 + 0.5 * size) + pivot + (0, drop)
        airway = AIRWAY.copy()
        for columns in (slice(0, 2), slice(2, 4)):
            airway[:, columns] = self._larynx_scale(airway[:, columns])
        self.airway = airway
        self.hyoid_shift = np.array([rng.normal(-4.0, 2.0), 0.8 * drop + rng.normal(-8.0, 1.6)])
        self.hyoid_tilt = rng.normal(0, 9)
        self.hyoid_size = rng.normal(1.14, 0.08)
        self.leaf = rng.normal(1.0, 0.1), rng.normal(0, 6)
        self.velum_size = rng.normal(1.0, 0.08)
        self.velum_drop = rng.normal(0, 2.0)
        self.channel = Channel(patient, knots, rng, volume_ml)
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

    def _px(
        self, points: Points, motion: Motion, head: Floats | None = None, jaw: Floats | None = None
    ) -> Points:
        """Patient's millimetres to this frame's pixels; `head`, `jaw`: shares of their motion."""
        base = self.place.px(points)
        result = moved(base, motion.body)
        if head is not None:
            nodded = moved(base, motion.head)
            result = result + head[:, None] * (nodded - result)
            if jaw is not None:
                result = result + jaw[:, None] * (moved(base, motion.jaw) - nodded)
        return result

    # ── one frame ────────────────────────────────────────────────────────────────────────────

    def throat(self, line: Timeline, i: int, motion: Motion) -> Throat:
        throat = Throat()
        hyoid = np.array([-line.hyoid_forward[i], -line.hyoid_up[i]])
        larynx = np.array([-line.larynx_forward[i], -line.larynx_up[i]])
        self._bones(throat, hyoid, larynx, motion)
        self._around(throat, line, i, self.channel.walls(line, i, hyoid, larynx), motion)
        self._palate(throat, line, i, motion)
        self._larynx(throat, line, i, hyoid, larynx, motion)
        return throat

    def _bones(self, throat: Throat, hyoid: Points, larynx: Points, motion: Motion) -> None:
        centre = np.array([-38.0, 3.0])
        body = smooth(HYOID_BODY, per_segment=5)
        horn = smooth(HYOID_HORN, per_segment=4)
        move = self.hyoid_shift + hyoid
        # It tips a little as it is pulled forwards.
        tilt = self.hyoid_tilt - 0.6 * hyoid[0]
        parts = [
            turned((p - centre) * self.hyoid_size + centre, tilt, centre) + move
            for p in (body, horn)
        ]
        corner = int(np.argmax(parts[0] @ (-0.75, 0.66)))
        throat.hyoid = [self._px(part, motion) for part in parts]
        throat.hyoid_corner = throat.hyoid[0][corner]
        scale = self._larynx_scale
        throat.thyroid = [self._px(smooth(scale(THYROID), per_segment=4) + larynx, motion)]
        throat.cricoid = [
            self._px(smooth(scale(part), per_segment=4) + larynx, motion)
            for part in (CRICOID, CRICOID_FRONT, ARYTENOID)
        ]

    # ── outlines from the walls ──────────────────────────────────────────────────────────────

    def _around(self, throat: Throat, line: Timeline, i: int, walls: Walls, motion: Motion) -> None:
        s = self.channel.samples
        low = self._px(walls.lower, motion, self.channel.head, self.channel.jaw)
        up = self._px(walls.upper, motion, self.channel.head)
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
        wall = (s >= 8.0) & (s <= 13.6)
        spine = np.column_stack([np.full(wall.sum(), -8.6), walls.upper[wall, 1]])
        behind = self._px(spine, motion)
        throat.posterior_wall.append(np.concatenate([up[wall], behind[::-1]]))
        self._tongue(throat, low, motion)
        self._barium(throat, line, i, walls, low, up)
        self._pockets(throat, line, i, motion)

    def _tongue(self, throat: Throat, low: Points, motion: Motion) -> None:
        s = self.channel.samples
        top = (s >= 1.0) & (s <= 10.2)
        floor = np.array([(-36.0, 1.0), (-52, -7), (-72, -10), (-94, -14), (-101, -26)])
        weight = np.array([0.0, 0.4, 0.8, 1.0, 1.0])
        floor[0] += self.hyoid_shift
        under = self._px(posed(self.patient, floor, weight), motion, weight, weight)
        throat.tongue.append(np.concatenate([low[top], under]))

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

    def _pockets(self, throat: Throat, line: Timeline, i: int, motion: Motion) -> None:
        hyoid = np.array([-0.75 * line.hyoid_forward[i], -0.9 * line.hyoid_up[i]])
        larynx = np.array([-0.2 * line.larynx_forward[i], -0.87 * line.larynx_up[i]])
        drop = np.array([0.0, self.patient.larynx_drop_mm])
        squeezed = 1 - 0.8 * min(line.squeeze[i], 1) * smoothstep(line.wave[i] - 9.5)
        for shape, move, fill, place in (
            (
                VALLECULA,
                hyoid + drop + (self._base_shift, -1.5),
                line.vallecula[i],
                throat.vallecula,
            ),
            (PYRIFORM, larynx + drop, line.pyriform[i], throat.pyriform),
        ):
            outline = smooth(shape, per_segment=4)
            centre = outline.mean(axis=0)
            outline = (outline - centre) * (max(squeezed, 0.1), 1) + centre + move
            place.append(self._px(outline, motion))
            liquid = below(outline, self.place.down, float(fill))
            if len(liquid) and fill > 0.03:
                throat.bolus.append(self._px(liquid, motion))
        throat.pharynx += throat.vallecula + throat.pyriform

    # ── palate and larynx ────────────────────────────────────────────────────────────────────

    def _palate(self, throat: Throat, line: Timeline, i: int, motion: Motion) -> None:
        lift = line.velum[i]
        hang = np.array([(-48.0, -61), (-40, -55), (-34.5, -46), (-32, -36 + self.velum_drop)])
        raise_ = np.array([(-48.0, -61), (-36, -61), (-25, -58.5), (-18.5, -48)])
        centre = smooth(hang + lift * (raise_ - hang), per_segment=6, closed=False)
        centre = posed(self.patient, centre, np.linspace(1, 0.6, len(centre)))
        along = np.linspace(0, 1, len(centre))
        width = self.velum_size * (7.5 + 3 * np.sin(np.pi * along) - 4.5 * along**3) + lift * 2
        head = np.linspace(1, 0.6, len(centre))
        body = ribbon(centre, width)
        throat.soft_palate.append(self._px(body, motion, np.concatenate([head, head[::-1]])))
        # Behind it the nasopharynx stands open until the palate closes it.
        back = np.array([(-20.0, -64), (-18.0, -58), (-16, -50), (-14.5, -40), (-14.2, -30)])
        rear = body[: len(centre)] if body[0, 1] < body[-1, 1] else body[len(centre) :][::-1]
        roof = np.array([(-42.0, -63.0), (-31, -66)])
        nose = np.concatenate(
            [posed(self.patient, roof), posed(self.patient, back[:2]), back[2:], rear[::-1]]
        )
        # Not part of the pharyngeal space that is measured, which begins below the soft palate.
        throat.nasopharynx.append(self._px(nose, motion))
        throat.throat_air = throat.pharynx + throat.nasopharynx

    def _larynx(
        self, throat: Throat, line: Timeline, i: int, hyoid: Points, larynx: Points, motion: Motion
    ) -> None:
        weight = self.airway[:, 4:5]
        front = self.airway[:, 0:2] + weight * larynx * (0.6, 1)
        back = self.airway[:, 2:4] + weight * larynx * (0.6, 1)
        closed = (
            min(line.vestibule[i], 1.0) * np.array([1, 1, 0.9, 0.6, 0.1, 0, 0, 0, 0, 0])[:, None]
        )
        back = back + 0.97 * closed * (front - back)
        if line.aspirate[i] > 0:
            self._aspirate(throat, line.aspirate[i], front, back, motion)
        a = smooth(front, per_segment=5, closed=False)
        b = smooth(back, per_segment=5, closed=False)
        throat.airway.append(self._px(np.concatenate([a, b[::-1]]), motion))
        below = slice(round(CRICOID_EDGE * 5), None)
        throat.trachea.append(self._px(np.concatenate([a[below], b[below][::-1]]), motion))
        self._epiglottis(throat, line, i, hyoid, larynx, motion)

    def _epiglottis(
        self, throat: Throat, line: Timeline, i: int, hyoid: Points, larynx: Points, motion: Motion
    ) -> None:
        scale, lean = self.leaf
        root = (
            self._larynx_scale(np.array([[-28.0, 14.0]]))[0] + 0.8 * larynx * (0.6, 1) + 0.2 * hyoid
        )
        along = np.linspace(0, 1, 9)
        # At rest it stands up and leans back; inverted, its tip points down over the inlet.
        angle = np.deg2rad(
            lean + 14 + 8 * along + line.tilt[i] * (30 + 85 * smoothstep(along * 1.3))
        )
        step = 27.0 * scale / 8
        path = np.column_stack([np.sin(angle), -np.cos(angle)]) * step
        centre = root + np.cumsum(path, axis=0) - path[0]
        width = 1.8 + 2.0 * np.sin(np.pi * np.clip(along * 0.9 + 0.08, 0, 1))
        throat.epiglottis.append(self._px(ribbon(centre, width), motion))

    def _aspirate(
        self, throat: Throat, depth: float, front: Points, back: Points, motion: Motion
    ) -> None:
        """Barium that has entered the airway: a trickle on the front wall, widest at its end."""
        last = 0.4 + min(depth, 1.0) * 2.2 + max(depth - 1, 0.0) * 1.4
        along = np.linspace(0.2, last, 14)
        knots = np.arange(len(front))
        a = np.column_stack([np.interp(along, knots, front[:, k]) for k in range(2)])
        b = np.column_stack([np.interp(along, knots, back[:, k]) for k in range(2)])
        share = 0.13 + 0.24 * np.linspace(0, 1, 14) ** 2
        share[-1] = 0.04
        inner = a + share[:, None] * (b - a)
        throat.thin_bolus.append(self._px(np.concatenate([a, inner[::-1]]), motion))


def _runs(where: NDArray[np.bool_]) -> list[slice]:
    """Stretches of at least three samples along the channel where `where` holds."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], where.astype(np.int8), [0]])))
    return [slice(start, stop) for start, stop in edges.reshape(-1, 2) if stop - start > 2]
