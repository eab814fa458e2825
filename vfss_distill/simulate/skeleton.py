"""Bones, teeth and metal: rigid outlines in three groups that move as one (neck, head, jaw)."""

from __future__ import annotations

import numpy as np

from .bones import METAL, Bone, Skeleton, posed
from .curves import Points, ellipse, ribbon, smooth
from .jaw import add_mandible, add_teeth
from .placement import Placement
from .spine import add_spine


def build_skeleton(place: Placement, rng: np.random.Generator) -> Skeleton:
    """Draws what the patient's record leaves open (bone shapes) from `rng`."""
    skeleton = Skeleton()
    add_spine(skeleton, place, rng)
    _skull(skeleton, place, rng)
    add_mandible(skeleton, place, rng)
    add_teeth(skeleton, place, rng)
    _devices(skeleton, place, rng)
    return skeleton


def _skull(skeleton: Skeleton, place: Placement, rng: np.random.Generator) -> None:
    m = 0.75 + 0.25 * place.patient.mineral

    def put(points: object, noise: float = 0.8) -> tuple[Points, ...]:
        array = np.array(points, float)
        array = array + rng.normal(0, noise, array.shape)
        return (place.px(posed(place.patient, smooth(array, per_segment=5))),)

    base = [
        (-106, -122), (-96, -108), (-64, -104), (-52, -93), (-36, -90), (-22, -84), (-9, -77),
        (2, -74), (14, -73), (26, -72), (44, -76), (66, -88), (88, -112), (96, -160),
        (60, -205), (-40, -225), (-98, -190),
    ]  # fmt: skip
    petrous = [
        (-30, -100), (-14, -110), (8, -108), (24, -96), (22, -84), (8, -79), (-6, -84), (-24, -88),
    ]  # fmt: skip
    mastoid = [(-4, -92), (10, -98), (24, -92), (23, -78), (14, -66), (7, -64), (1, -74)]
    occiput = [(24, -74), (46, -79), (68, -92), (86, -116), (78, -119), (60, -98), (42, -86)]
    clivus = [(-7, -76), (-20, -86), (-36, -104), (-46, -108), (-50, -98), (-36, -90), (-20, -82)]
    condyle = [(-10, -78), (-2, -80), (10, -77), (13, -71), (4, -66), (-6, -69)]
    pterygoid = [(-52, -98), (-43, -97), (-40, -80), (-43, -64), (-49, -62), (-53, -74)]
    maxilla = [
        (-54, -66), (-62, -57), (-80, -55), (-98, -57), (-104, -61), (-101, -70), (-98, -84),
        (-92, -100), (-72, -106), (-56, -98),
    ]  # fmt: skip
    alveolus = [
        (-56, -62), (-64, -54), (-82, -52), (-100, -53), (-105, -58), (-102, -67), (-80, -65),
    ]  # fmt: skip
    palate = [(-46, -63), (-58, -65.5), (-80, -68), (-100, -71), (-101, -67.5), (-80, -64.5),
              (-58, -62.4)]  # fmt: skip
    zygoma = [(-86, -96), (-74, -100), (-62, -92), (-64, -82), (-74, -78), (-84, -86)]
    skeleton.bones += [
        Bone("skull", "head", put(base), 0.62 * m, 0.3 * m, 2.2, 14, 0.1, 0.8),
        Bone("clivus", "head", put(clivus), 0.3 * m, 0.16 * m, 1.2, 4, 0.1, 0.5),
        Bone("condyle", "head", put(condyle), 0.3 * m, 0.14 * m, 1.2, 3, 0.1, 0.5),
        Bone("petrous", "head", put(petrous), 0.36 * m, 0.1 * m, 2, 12, 0.15, 1.6),
        Bone("mastoid", "head", put(mastoid), 0.30 * m, 0.12 * m, 1.4, 5, 0.35),
        Bone("occiput", "head", put(occiput), 0.4 * m, 0.25 * m, 1.4, 3, 0.2),
        Bone("pterygoid", "head", put(pterygoid), 0.18 * m, 0.16 * m, 1.0, 2, 0.2),
        Bone("maxilla", "head", put(maxilla), 0.22 * m, 0.08 * m, 1.2, 6, 0.15),
        Bone("zygoma", "head", put(zygoma), 0.08 * m, 0.0, 1.4, 7, 0.1),
        Bone("alveolus", "head", put(alveolus, 0.5), 0.22 * m, 0.05 * m, 1.0, 3, 0.15),
        Bone("palate", "head", put(palate, 0.2), 0.3 * m, 0.25 * m, 0.8, 1.2, 0.1),
    ]


# A feeding tube: nose, back wall of the pharynx, oesophagus.
_TUBE = np.array(
    [
        (-112.0, -78), (-84, -73), (-56, -70), (-32, -68), (-19.5, -58), (-16, -40), (-15, -18),
        (-14.6, 6), (-14.6, 34), (-13.5, 58), (-10, 80), (-5, 104), (0, 130),
    ]
)  # fmt: skip


def _devices(skeleton: Skeleton, place: Placement, rng: np.random.Generator) -> None:
    patient = place.patient
    if patient.earring:
        ring = ellipse(rng.uniform(0, 14), rng.uniform(-58, -44), 1.8, rng.uniform(1.8, 7), 10)
        outline = place.px(posed(patient, ring))
        skeleton.bones.append(Bone("earring", "head", (outline,), METAL * 0.8, 0, 1, 0.5, 0, 0.2))
    if patient.tube:
        path = smooth(_TUBE + rng.normal(0, 0.7, _TUBE.shape), per_segment=6, closed=False)
        tube = place.px(ribbon(path, np.full(len(path), rng.uniform(2.0, 3.4))))
        skeleton.bones.append(Bone("tube", "neck", (tube,), 0.22, 0.16, 0.5, 0.8, 0.0, 0.2))
    if patient.plate is not None:
        _plate(skeleton, patient.plate, place.px_per_mm)


def _plate(skeleton: Skeleton, levels: tuple[int, int], px_per_mm: float) -> None:
    """Anterior plate with screws into each body it spans."""
    bodies = [skeleton.bodies[f"c{n}"] for n in range(levels[0], min(levels[1], 7) + 1)]
    middles = [body.mean(axis=0) for body in bodies]
    axis = middles[-1] - middles[0]
    axis = axis / np.linalg.norm(axis)
    front = np.array([-axis[1], axis[0]])
    if front @ (bodies[0][0] - middles[0]) < 0:
        front = -front
    depth = 9.4 * px_per_mm
    thick, over = 1.3 * px_per_mm, 4.5 * px_per_mm
    top, bottom = (
        middles[0] + front * depth - axis * over,
        middles[-1] + front * depth + axis * over,
    )
    bar = np.array([top, bottom, bottom + front * thick, top + front * thick])
    metal = [bar]
    for middle in middles:
        head = middle + front * depth
        tip = middle - front * 2 * px_per_mm
        side = axis * 0.9 * px_per_mm
        metal.append(np.array([head + side, head - side, tip - side * 0.4, tip + side * 0.4]))
    for outline in metal:
        skeleton.bones.append(Bone("plate", "neck", (outline,), METAL * 0.5, 0, 1, 0.5, 0, 0.25))
