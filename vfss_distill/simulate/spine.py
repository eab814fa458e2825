"""C1 … C7, T1 and T2: bodies with discs between them, and what stands behind the bodies."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .bones import Bone, Skeleton
from .curves import Points, ellipse, smooth, turned
from .placement import Placement
from .population import Patient

_HEIGHTS = {2: 17.0, 3: 13.6, 4: 13.4, 5: 13.2, 6: 13.6, 7: 15.0, 8: 16.5, 9: 17.5}
_DEPTHS = {2: 16.0, 3: 16.6, 4: 17.0, 5: 17.2, 6: 17.6, 7: 17.8, 8: 18.2, 9: 18.8}
_SPINOUS = {3: 29.0, 4: 29.5, 5: 31.0, 6: 38.0, 7: 45.0, 8: 46.0, 9: 46.0}


Put = Callable[[Points], Points]  # a vertebra's own millimetres to pixels


def add_spine(skeleton: Skeleton, place: Placement, rng: np.random.Generator) -> None:
    patient = place.patient
    for number, centre_y, height in _levels(patient, rng):
        depth = _DEPTHS[number] * rng.normal(1, 0.035)
        lip = patient.degeneration * rng.uniform(0, 3.2) if number > 2 else rng.uniform(0, 1.2)
        tilt = place.slope_deg(centre_y) + rng.normal(0, 1.3 + 1.5 * patient.degeneration)
        at = place.bend(np.array([[0.0, centre_y / patient.neck_length]]))[0]
        at = at + np.array([rng.normal(0, 0.4 + 0.6 * patient.degeneration), 0.0])

        def put(points: Points, tilt: float = tilt, at: Points = at) -> Points:
            return place.from_bent(turned(points, -tilt) + at)

        if number == 2:
            body, back = _axis(depth, height, lip, rng)
            _atlas(skeleton, patient, put, rng)
        else:
            body = smooth(_body(depth, height, lip, patient.degeneration, rng), per_segment=4)
            back = _arch(depth, height, _SPINOUS[number] * rng.normal(1, 0.07), number, rng)
        name = f"c{number}" if number < 8 else f"t{number - 7}"
        _add_vertebra(skeleton, patient, name, put(body), tuple(put(part) for part in back))
    for upper in range(2, 7):
        if upper not in patient.fused:
            above, below = f"c{upper}", f"c{upper + 1}"
            bodies = skeleton.bodies[above], skeleton.bodies[below]
            skeleton.discs[f"disc_{above}_{below}"] = _disc(*bodies, upper)


def _levels(patient: Patient, rng: np.random.Generator) -> list[tuple[int, float, float]]:
    """(number, height of the body's middle, body height) for C2 … C7, T1, T2, in millimetres."""
    heights = {n: h * patient.neck_length * rng.normal(1, 0.03) for n, h in _HEIGHTS.items()}
    discs = {}
    for n in range(2, 9):
        worn = patient.degeneration * rng.uniform(0, 0.75) * (1.3 if 4 <= n <= 6 else 0.6)
        discs[n] = max(5.4 * patient.neck_length * (1 - min(worn, 0.85)), 0.9)
        if n in patient.fused:
            discs[n] = 0.2
    y = {4: 0.0}
    for n in range(5, 10):
        y[n] = y[n - 1] + (heights[n - 1] + heights[n]) / 2 + discs[n - 1]
    for n in (3, 2):
        y[n] = y[n + 1] - (heights[n + 1] + heights[n]) / 2 - discs[n]
    return [(n, y[n], heights[n]) for n in range(2, 10)]


def _body(depth: float, height: float, lip: float, worn: float, rng: np.random.Generator) -> Points:
    d, h = depth / 2, height / 2
    waist = rng.uniform(0.5, 1.4)
    points = np.array(
        [
            (-d + 0.9, -h + 0.3),
            (-d - 0.1 - 0.5 * lip, -h + 1.3),
            (-d + waist, 0.0),
            (-d - 0.5 - lip, h - 1.4),
            (-d + 0.2 - 0.8 * lip, h + 0.2),
            (-d + 2.2, h - 0.2),
            (0.0, h - 1.1 + 0.6 * worn),
            (d - 1.2, h - 0.4),
            (d + 0.1, h - 1.4),
            (d - 0.6 * waist, 0.0),
            (d, -h + 1.2),
            (d - 1.2, -h + 0.2),
            (0.0, -h + 1.0 - 0.5 * worn),
        ]
    )
    return points + rng.normal(0, 0.18 + 0.25 * worn, points.shape)


def _disc(above: Points, below: Points, upper: int) -> Points:
    """From end plate to end plate of two bodies' outlines, four points per knot of `_body`."""
    floor = above[3 * 4 : 7 * 4 + 1] if upper == 2 else above[4 * 4 : 8 * 4 + 1]  # front to back
    roof = np.concatenate([below[10 * 4 :], below[: 1 * 4 + 1]])  # back to front
    return np.concatenate([floor, roof])


def _arch(
    depth: float, height: float, reach: float, number: int, rng: np.random.Generator
) -> tuple[Points, Points, Points]:
    """Pedicle with articular pillar, lamina with spinous process, transverse process."""
    d, h = depth / 2, height / 2
    drop = rng.uniform(5, 12) if number < 6 else rng.uniform(8, 15)
    pillar = [
        (d - 1.5, -h + 1.5),
        (d + 3.5, -h - 3.6),
        (d + 8.0, -h + 1.0),
        (d + 12.4, -h + 5.8),
        (d + 13.4, h + 2.6),
        (d + 9.6, h + 4.8),
        (d + 4.6, h - 0.6),
        (d - 0.5, h - 4.6),
    ]
    blunt = rng.uniform(2.4, 3.6) + (1.2 if number >= 6 else 0.0)
    spinous = [
        (d + 5.0, -2.8),
        (d + 15.0, -1.4 + 0.2 * drop),
        (d + reach - 4, drop - blunt),
        (d + reach, drop + 0.5),
        (d + reach - 2.5, drop + blunt + 1.0),
        (d + 16.0, 6.4 + 0.35 * drop),
        (d + 5.0, 6.0),
    ]
    transverse = [(-d + 3, -2.5), (d - 4, -4.2), (d + 1, 0.5), (d - 2, 4.6), (-d + 4.5, 3.6)]
    shapes = [np.array(shape) for shape in (pillar, spinous, transverse)]
    one, two, three = (smooth(s + rng.normal(0, 0.45, s.shape), per_segment=4) for s in shapes)
    return one, two, three


def _axis(
    depth: float, height: float, lip: float, rng: np.random.Generator
) -> tuple[Points, tuple[Points, ...]]:
    """C2: body with its dens as one outline, and what stands behind it."""
    d, h = depth / 2, height / 2
    dens = rng.normal(1, 0.06)
    body = [
        (-d + 1.2, -h + 1),
        (-d + 0.6, 0.0),
        (-d - 0.6 - lip, h - 1.2),
        (-d + 0.2 - lip, h + 0.5),
        (-d + 2.4, h - 0.2),
        (0.0, h - 1.3),
        (d - 0.8, h - 0.6),
        (d, h - 1.8),
        (d - 0.6, 0.0),
        (d + 1.5, -h - 2.0),
        (4.6, -h - 6.5),
        (3.9, -h - 14 * dens),
        (1.6, -h - 20.5 * dens),
        (-2.6, -h - 21.5 * dens),
        (-5.4, -h - 17 * dens),
        (-5.0, -h - 7.0),
    ]
    pillar = [(5, -10), (13, -9), (19.5, -1), (21, 8), (17.5, 12), (11, 7), (6, 1)]
    spinous = [(9, -6), (24, -6), (33, 1), (38, 9), (37, 15), (31, 17), (22, 12), (10, 5)]
    mass = [(-6, -9), (0, -13), (9, -13), (13, -8), (9, -3), (0, -3)]
    shapes = [np.array(shape, float) for shape in (pillar, spinous, mass)]
    back = tuple(smooth(s + rng.normal(0, 0.5, s.shape), per_segment=4) for s in shapes)
    return smooth(np.array(body) + rng.normal(0, 0.2, (len(body), 2)), per_segment=4), back


def _atlas(skeleton: Skeleton, patient: Patient, put: Put, rng: np.random.Generator) -> None:
    """C1 stands on C2: anterior arch before the dens, lateral masses over it, posterior arch."""
    tilt = rng.normal(0, 4)
    reach = rng.normal(38, 1.6)
    front = ellipse(-9.8, -24.0, 3.1, 5.8, rng.normal(8, 5))
    masses = np.array([(-8.5, -27), (-3, -30), (7, -30.5), (11.5, -25), (8, -18), (-4, -17.5)])
    bar = np.array(
        [
            (7, -30),
            (19, -30.5),
            (reach - 6, -31),
            (reach, -26),
            (reach - 2, -21),
            (reach - 9, -20.5),
            (19, -22.5),
            (7, -21),
        ]
    )
    pivot = (0.0, -24.0)
    masses = smooth(masses + rng.normal(0, 0.5, masses.shape), per_segment=4)
    bar = smooth(bar + rng.normal(0, 0.5, bar.shape), per_segment=4)
    parts = tuple(put(turned(part, tilt, pivot)) for part in (front, masses, bar))
    m = patient.mineral
    skeleton.vertebrae["c1"] = parts
    skeleton.bones += [
        Bone("c1_front", "neck", parts[:1], 0.26 * m, 0.22 * m, 0.9, 1.5),
        Bone("c1_masses", "neck", parts[1:2], 0.26 * m, 0.10 * m, 1.0, 4),
        Bone("c1_back", "neck", parts[2:], 0.24 * m, 0.16 * m, 1.0, 2.5),
    ]


def _add_vertebra(
    skeleton: Skeleton, patient: Patient, name: str, body: Points, back: tuple[Points, ...]
) -> None:
    m = patient.mineral
    pillar, spinous, third = back
    skeleton.bones += [
        Bone(f"{name}_third", "neck", (third,), 0.10 * m, 0.03 * m, 1.0, 3),
        Bone(f"{name}_spinous", "neck", (spinous,), 0.20 * m, 0.09 * m, 0.9, 3),
        Bone(f"{name}_pillar", "neck", (pillar,), 0.24 * m, 0.10 * m, 1.0, 4),
        Bone(f"{name}_body", "neck", (body,), 0.32 * m, 0.24 * m, 0.9, 1.8, 0.16),
    ]
    if name.startswith("c"):
        skeleton.vertebrae[name] = (body, pillar, spinous)
        skeleton.bodies[name] = body
