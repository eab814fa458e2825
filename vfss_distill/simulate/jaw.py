"""Mandible and teeth; upper teeth move with the head, lower ones with the jaw."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .bones import METAL, Bone, Skeleton, posed
from .curves import Points, ellipse, smooth, turned
from .placement import Placement
from .population import Patient

_MANDIBLE = np.array(
    [
        (-27.5, -79.5), (-24.5, -75), (-27.5, -66), (-30.5, -52), (-33, -36), (-36, -22),
        (-41, -14.5), (-55, -12.5), (-75, -8), (-94, -3.8), (-106, -2.5), (-113, -8),
        (-111, -20), (-107.5, -33), (-104, -36.5), (-90, -36.5), (-76, -36),
        (-66, -38), (-61.5, -45), (-60.5, -54), (-60, -66),
        (-56.5, -75.5), (-53, -74), (-46, -65.5), (-38.5, -66.5), (-35, -74), (-32.5, -79),
    ]
)  # fmt: skip
_GONION = np.array([-40.0, -16.0])


def _jaw_shape(patient: Patient, points: Points) -> Points:
    """Individual length of the body and angle of the jaw, about the gonion."""
    ahead = np.clip((-40 - points[:, :1]) / 70, 0, 1)
    longer = points + ahead * (-(patient.jaw_length - 1) * 70, 0)
    bent = turned(longer, patient.jaw_angle_deg, _GONION)
    share = np.clip((-34 - points[:, :1]) / 30, 0, 1)
    return longer + share * (bent - longer)


def add_mandible(skeleton: Skeleton, place: Placement, rng: np.random.Generator) -> None:
    patient = place.patient
    shape = _MANDIBLE + rng.normal(0, 0.45, _MANDIBLE.shape)
    toothless = patient.teeth != "own"
    if toothless:  # the crest melts away
        crest = (shape[:, 0] < -64) & (shape[:, 0] > -108) & (shape[:, 1] < -28)
        shape[crest, 1] += rng.uniform(4, 11)
    near = posed(patient, smooth(_jaw_shape(patient, shape), per_segment=5))
    chin = np.array([-108.0, -15.0])
    apart = rng.normal(0, 1, 2) * (3.4, 1.8) + rng.choice([-1, 1]) * np.array([2.2, 0.6])
    zoom = rng.uniform(0.99, 1.045)
    # The far side is displaced at the back and meets the near one at the chin.
    behind = np.clip((near[:, :1] + 100) / 40, 0, 1)
    far = near + behind * (apart + (zoom - 1) * (near - chin))
    sides = (place.px(near), place.px(far))
    m = patient.mineral
    symphysis = [(-113, -9), (-110.5, -21), (-107, -34), (-102, -34), (-99, -20), (-98, -6),
                 (-106, -3)]  # fmt: skip
    symphysis_px = place.px(posed(patient, smooth(_jaw_shape(patient, np.array(symphysis, float)))))
    canal = [(-46, -44), (-50, -34), (-60, -24), (-78, -18), (-92, -17), (-92, -20), (-78, -21),
             (-61, -27), (-52, -36), (-48, -45)]  # fmt: skip
    canal_px = place.px(posed(patient, smooth(_jaw_shape(patient, np.array(canal, float)))))
    for name, side in zip(("near", "far"), sides, strict=True):
        skeleton.bones.append(
            Bone(f"mandible_{name}", "jaw", (side,), 0.21 * m, 0.22 * m, 1.6, 4, 0.12)
        )
    skeleton.bones += [
        Bone("symphysis", "jaw", (symphysis_px,), 0.26 * m, 0.14 * m, 1.4, 4, 0.1),
        Bone("canal", "jaw", (canal_px,), -0.06 * m, 0.0, 1, 1, 0.0),
    ]
    skeleton.mandible = sides
    # Back edge of both rami, condyle to gonion: the bolus passes it (event BPM).
    behind_edge = slice(1 * 5, 6 * 5)
    skeleton.ramus_back = (sides[0][behind_edge] + sides[1][behind_edge]) / 2


# Widths along the arch as seen from the side, from the incisors (foreshortened) to the molars.
_TOOTH_WIDTHS = (3.6, 4.4, 5.6, 6.6, 6.8, 9.6, 9.4, 8.6)


def _tooth(
    x: float, crest: float, width: float, up: bool, rng: np.random.Generator
) -> list[Points]:
    sign = 1 if up else -1
    w, tall, root = width / 2, rng.uniform(6.2, 7.6), rng.uniform(10.5, 14)
    crown = [(-w, 0), (-w * 0.98, tall * 0.7), (-w * 0.5, tall), (w * 0.5, tall),
             (w * 0.98, tall * 0.7), (w, 0)]  # fmt: skip
    roots = [
        (-w, 0.6),
        (w, 0.6),
        (w * 0.62, -root * 0.6),
        (w * 0.1, -root),
        (-w * 0.5, -root * 0.7),
    ]
    lean = rng.normal(0, 3)
    shapes = (smooth(np.array(shape, float) * (1, sign), per_segment=4) for shape in (crown, roots))
    return [turned(shape, lean) + np.array([x, crest]) for shape in shapes]


def add_teeth(skeleton: Skeleton, place: Placement, rng: np.random.Generator) -> None:
    patient = place.patient
    if patient.teeth == "none":
        return
    denture = patient.teeth == "denture"
    for jaw, group in ((True, "head"), (False, "jaw")):
        for side in range(2):
            x, shift = -106.0, rng.normal(0, 1.6, 2) * (side, 0.4 * side)
            for number, width in enumerate(_TOOTH_WIDTHS):
                place_x = x + width / 2
                x += width + 0.25
                if not denture and rng.random() < (0.06 + 0.2 * (patient.age_years > 60)):
                    continue  # lost
                crest = (-52.6 if jaw else -37.0) + 0.03 * (place_x + 106) + rng.normal(0, 0.3)
                crown, root = _tooth(place_x + shift[0], crest + shift[1], width, jaw, rng)
                shapes = (crown,) if denture else (crown, root)
                _add_tooth(skeleton, place, group, shapes, number, rng)
    _fillings(skeleton, place, rng)


def _add_tooth(
    skeleton: Skeleton,
    place: Placement,
    group: str,
    shapes: Sequence[Points],
    number: int,
    rng: np.random.Generator,
) -> None:
    dense = rng.uniform(0.32, 0.46) * (0.7 if place.patient.teeth == "denture" else 1.0)
    for shape, body in zip(shapes, (dense, 0.5 * dense), strict=False):
        shape = _jaw_shape(place.patient, shape) if group == "jaw" else shape
        outline = place.px(posed(place.patient, shape))
        bone = Bone(f"tooth{number}", group, (outline,), body, 0.1, 0.6, 2.0, 0.05, 0.25)
        skeleton.bones.append(bone)


def _fillings(skeleton: Skeleton, place: Placement, rng: np.random.Generator) -> None:
    for _ in range(place.patient.fillings):
        upper = bool(rng.random() < 0.5)
        x = rng.uniform(-86, -62)
        y = rng.uniform(-49.5, -46) if upper else rng.uniform(-43.5, -40)
        size = rng.uniform(1.2, 3.6, 2)
        blob = ellipse(x, y, size[0], size[1] * 0.8, rng.uniform(-30, 30))
        blob = blob + rng.normal(0, 0.25, blob.shape)
        blob = blob if upper else _jaw_shape(place.patient, blob)
        outline = place.px(posed(place.patient, blob))
        group = "head" if upper else "jaw"
        strength = METAL * rng.uniform(0.4, 1.0)
        skeleton.bones.append(Bone("filling", group, (outline,), strength, 0, 1, 0.6, 0, 0.2))
