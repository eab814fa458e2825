"""One exposure: the throat's shadows over what stands still, blurred or combed where it moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .anatomy import SoftTissue
from .curves import Points
from .layers import Image
from .population import Patient
from .raster import Patch, rasterise
from .swallow import Plan
from .throat import Motion, Throat
from .timeline import Timeline

_DRAWN = (
    "throat_air", "airway", "hyoid", "bolus", "thin_bolus", "film", "bubbles",
    "epiglottis", "tongue", "soft_palate", "mouth_air", "thyroid", "cricoid",
)  # fmt: skip
_ONLY_MEASURED = ("pharynx", "vallecula", "pyriform")
_ONLY_LABELLED = ("nasopharynx", "ues", "posterior_wall", "trachea")
_AIR = {"throat_air": 0.42, "airway": 0.36, "mouth_air": 0.25}
_BUBBLE = 0.6  # share of the barium along the beam that a bubble displaces

# Slower than this within one exposure: the blur would be lost in that of the focal spot.
_BLURRED_FROM_MM = 0.35
_MM_PER_STATE = 6.0  # knots and shares of closure move walls by about as much
_SAME_WITHIN_PX = 0.3

Outlines = dict[str, list[Points]]
Shadows = dict[str, tuple[Patch, float]]


@dataclass(frozen=True)
class Shutter:
    """When there are X-rays: `exposure_s` around each frame's time.

    `field_s`: time between the two fields of an interlaced frame; None: all lines at once.
    """

    exposure_s: float
    field_s: float | None = None


@dataclass(frozen=True)
class Pose:
    """All that moves, at the middle of frame `index`'s exposure: what truth is taken from."""

    index: int
    motion: Motion
    throat: Throat
    outlines: Outlines
    patches: dict[str, Patch]
    shadows: Shadows


class Scene:
    """Poses of one study, and what the machine sees of them.

    `played(later_s)`: the timeline at each frame's time, later by so much. `bone`: how much the
    hyoid stands out. `extras`: poses also hold what is only labelled.
    """

    def __init__(
        self,
        soft: SoftTissue,
        plan: Plan,
        played: Callable[[float], Timeline],
        shutter: Shutter,
        *,
        bone: float,
        extras: bool,
    ) -> None:
        self.timeline = played(0.0)
        self._soft, self._extras = soft, extras
        self._absorbs = _absorbs(plan, soft.place.patient, bone)
        self._shape = soft.place.view.height, soft.place.view.width
        self._fields = shutter.field_s is not None
        # Bones move slowly. What moves fast is drawn at the thirds of the exposure or per field.
        spread = shutter.exposure_s / 3 if shutter.field_s is None else shutter.field_s / 2
        self._sides = played(-spread), played(spread)
        self._moving = _apart(*self._sides) > _BLURRED_FROM_MM

    def pose(self, i: int) -> Pose:
        motion = self._soft.motion(self.timeline, i)
        throat = self._soft.throat(self.timeline, i, motion)
        outlines = _outlines(
            throat, (*_DRAWN, *_ONLY_MEASURED, *(_ONLY_LABELLED if self._extras else ()))
        )
        patches = {name: rasterise(lines, self._shape) for name, lines in outlines.items()}
        return Pose(i, motion, throat, outlines, patches, self._shadows(patches))

    def exposed(self, pose: Pose, still: Image) -> list[Image]:
        """Attenuation over `still`, which is changed: one image, or one for each field."""
        if not self._moving[pose.index]:
            _add(still, pose.shadows, 1.0)
            return [still]
        before, after = (self._beside(line, pose) for line in self._sides)
        if self._fields:
            second = still.copy()
            _add(still, before, 1.0)
            _add(second, after, 1.0)
            return [still, second]
        for shadows in (before, pose.shadows, after):
            _add(still, shadows, 1 / 3)
        return [still]

    def barium(self, pose: Pose) -> Image:
        """Attenuation by barium alone, but for films."""
        image = np.zeros(self._shape, np.float32)
        _add(image, {name: pose.shadows[name] for name in ("bolus", "thin_bolus")}, 1.0)
        return image

    def _beside(self, line: Timeline, pose: Pose) -> Shadows:
        """Shadows at another moment; those of `pose` for whatever moved less than is seen."""
        motion = self._soft.motion(line, pose.index)
        throat = self._soft.throat(line, pose.index, motion)
        patches = dict(pose.patches)
        fresh: set[str] = set()
        for name, lines in _outlines(throat, _DRAWN).items():
            if not _same(lines, pose.outlines[name]):
                patches[name] = rasterise(lines, self._shape)
                fresh.add(name)
        if fresh & {"bolus", "bubbles"}:  # the one displaces air, the others displace the one
            fresh |= {"bolus", *_AIR}
        return {**pose.shadows, **self._shadows(patches, only=fresh)}

    def _shadows(self, patches: dict[str, Patch], only: set[str] | None = None) -> Shadows:
        """Thickness profile and attenuation of each structure, or of `only` some."""
        px, wet = self._soft.place.px_per_mm, patches["bolus"]
        shadows: Shadows = {}
        for name, (amount, round_mm) in self._absorbs.items():
            if only is None or name in only:
                profile = patches[name].rounded(round_mm * px)
                if name in _AIR:
                    profile = _without(profile, wet, 1.0)
                elif name == "bolus":
                    profile = _without(profile, patches["bubbles"], _BUBBLE)
                shadows[name] = profile, amount
        return shadows


def _absorbs(plan: Plan, patient: Patient, bone: float) -> dict[str, tuple[float, float]]:
    """-log of transmission through the middle of each structure, and how far (mm) to get there."""
    wide_mm = 10.0 + 0.6 * min(plan.volume_ml, 16.0)
    return {
        **{name: (-amount, 5.0) for name, amount in _AIR.items()},
        "tongue": (0.10, 9.0),
        "soft_palate": (0.16, 4.0),
        "epiglottis": (0.17, 1.4),
        "thyroid": (0.03 + 0.16 * patient.calcification, 2.0),
        "cricoid": (0.06 + 0.22 * patient.calcification, 1.6),
        "hyoid": (0.27 * patient.mineral * bone, 1.7),
        "bolus": (plan.barium_per_mm * wide_mm, 5.5),
        "thin_bolus": (plan.barium_per_mm * 8.0, 0.9),
        "film": (plan.barium_per_mm * 3.0, 0.6),
    }


def _add(image: Image, shadows: Shadows, share: float) -> None:
    for patch, amount in shadows.values():
        patch.add_to(image, share * amount)


def _outlines(throat: Throat, names: tuple[str, ...]) -> Outlines:
    return {name: getattr(throat, name) for name in names}


def _same(one: list[Points], other: list[Points]) -> bool:
    """No point has moved by as much as can be seen."""
    return len(one) == len(other) and all(
        a.shape == b.shape and (a.size == 0 or np.abs(a - b).max() < _SAME_WITHIN_PX)
        for a, b in zip(one, other, strict=True)
    )


def _apart(one: Timeline, other: Timeline) -> NDArray[np.float64]:
    """About how far (mm) anything moves between two timelines, in each frame."""
    moves = [np.zeros(len(one.times_s))]
    for name, state in vars(one).items():
        if isinstance(state, np.ndarray) and name != "times_s":
            gone = np.abs(getattr(other, name) - state)
            moves.append(gone.reshape(len(gone), -1).max(axis=1))
    for mine, theirs in zip(one.boluses, other.boluses, strict=True):
        moves += [np.abs(mine.head - theirs.head), np.abs(mine.tail - theirs.tail)]
    result: NDArray[np.float64] = np.max(moves, axis=0) * _MM_PER_STATE
    return result


def _without(patch: Patch, other: Patch, share: float) -> Patch:
    """`patch` less a share of itself where `other` covers it: barium displaces air."""
    if patch.empty or other.empty:
        return patch
    cover = patch.cover.copy()
    top, left = max(patch.row, other.row), max(patch.column, other.column)
    bottom = min(patch.row + cover.shape[0], other.row + other.cover.shape[0])
    right = min(patch.column + cover.shape[1], other.column + other.cover.shape[1])
    if bottom > top and right > left:
        mine = (
            slice(top - patch.row, bottom - patch.row),
            slice(left - patch.column, right - patch.column),
        )
        theirs = (
            slice(top - other.row, bottom - other.row),
            slice(left - other.column, right - other.column),
        )
        cover[mine] *= 1 - np.float32(share) * other.cover[theirs]
    return Patch(patch.row, patch.column, cover)
