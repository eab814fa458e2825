"""Masks of one frame: the tasks and, on request, every other structure that is drawn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..tasks import VFSS12
from .bones import Bone, Skeleton
from .curves import Points, moved
from .exposure import Pose
from .layers import Layers
from .raster import outlined
from .screen import Screen
from .throat import Motion
from .truth import VISIBLE_MM2

Mask = NDArray[np.bool_]

# Made of rigid shadows, by name without their number: "tooth" stands for all teeth of both jaws.
COMPOSED = {
    "skull_base": ("clivus", "condyle", "petrous", "mastoid", "occiput"),
    "maxilla": ("maxilla", "alveolus", "palate"),
    "teeth": ("tooth",),
    "posterior_elements": (
        "c1_back",
        *(f"c{n}_{part}" for n in range(2, 8) for part in ("pillar", "spinous")),
    ),
    # What stays in the body, and what lies on the skin; dentures are teeth.
    "metal": ("filling", "earring", "plate", "lead", "electrode", "stud"),
    "tube": ("tube",),
}
_FROM_THROAT = (
    "epiglottis",
    "tongue",
    "soft_palate",
    "nasopharynx",
    "vallecula",
    "pyriform",
    "ues",
    "posterior_wall",
    "thyroid",
    "cricoid",
)
_DISCS = {f"disc_c{n}_c{n + 1}": (f"c{n}", f"c{n + 1}") for n in range(2, 7)}
_BODIES = {f"c{n}_body": f"c{n}" for n in range(2, 8)}
EXTRA_STRUCTURES = (
    *_FROM_THROAT,
    *_BODIES,
    "skull_base",
    "maxilla",
    "teeth",
    "larynx",
    "trachea",
    *_DISCS,
    "posterior_elements",
    "shoulders",
    "metal",
    "tube",
)


class Labels:
    """Masks of a study's frames, bool (H, W) of the stored frame, by task and extra structure.

    `leads`: shadows on the skin, which belong to the study and not to the skeleton.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        leads: tuple[Bone, ...],
        layers: Layers,
        screen: Screen,
        px_per_mm: float,
        *,
        extras: bool,
    ) -> None:
        self._skeleton, self._layers, self._screen = skeleton, layers, screen
        self._sliver_px = VISIBLE_MM2 * px_per_mm**2
        self._extras = extras
        shadows = (*skeleton.bones, *leads)
        self._composed = {
            name: [
                (bone.group, outline)
                for bone in shadows
                if bone.name.rstrip("0123456789") in parts
                for outline in bone.outlines
            ]
            for name, parts in COMPOSED.items()
        }

    def masks(self, pose: Pose, wet: Mask, inside: Mask) -> dict[str, Mask]:
        """`wet`: barium that is visible there; `inside`: where the collimator is open; both of the
        picture."""
        # Behind the collimator nothing is seen and nothing is labelled, nor the sliver of a bone
        # that it leaves.
        seen = self._tasks(pose, wet, inside)
        if self._extras:
            seen |= self._more(pose, seen, inside)
        for name in ("hyoid", "mandible", *self._skeleton.vertebrae, *_DISCS):
            if name in seen and np.count_nonzero(seen[name]) < self._sliver_px:
                seen[name][:] = False
        names = (*VFSS12.ids, *(EXTRA_STRUCTURES if self._extras else ()))
        return {name: self._screen.mask(seen[name]) for name in names}

    def _tasks(self, pose: Pose, wet: Mask, inside: Mask) -> dict[str, Mask]:
        motion = pose.motion
        masks = self._soft(pose, ("pharynx", "airway", "hyoid"), inside)
        masks["bolus"] = wet & inside
        masks["mandible"] = self._rigid(self._skeleton.mandible, motion.jaw, inside)
        for name, outlines in self._skeleton.vertebrae.items():
            masks[name] = self._rigid(outlines, motion.body, inside)
        return masks

    def _more(self, pose: Pose, tasks: dict[str, Mask], inside: Mask) -> dict[str, Mask]:
        motion = pose.motion
        masks = self._soft(pose, (*_FROM_THROAT, "trachea"), inside)
        masks["nasopharynx"] &= ~tasks["pharynx"]
        masks["larynx"] = tasks["airway"] & ~masks["trachea"]
        for name, bone in _BODIES.items():
            masks[name] = self._rigid((self._skeleton.bodies[bone],), motion.body, inside)
        for name, (above, below) in _DISCS.items():
            masks[name] = self._disc(name, motion, inside)
            masks[name] &= ~(masks[f"{above}_body"] | masks[f"{below}_body"])
        for name in COMPOSED:
            masks[name] = self._united(name, motion, inside)
        masks["shoulders"] = self._layers.shoulders_at(motion) & inside
        return masks

    def _soft(self, pose: Pose, names: tuple[str, ...], inside: Mask) -> dict[str, Mask]:
        return {name: pose.patches[name].mask(self._screen.picture, inside) for name in names}

    def _disc(self, name: str, motion: Motion, inside: Mask) -> Mask:
        """A disc's outline, of which the bodies leave a part; nothing between fused ones."""
        outlines = [self._skeleton.discs[name]] if name in self._skeleton.discs else []
        return self._rigid(tuple(outlines), motion.body, inside)

    def _united(self, name: str, motion: Motion, inside: Mask) -> Mask:
        matrices = {"neck": motion.body, "head": motion.head, "jaw": motion.jaw}
        outlines = [moved(outline, matrices[group]) for group, outline in self._composed[name]]
        return outlined(outlines, self._screen.picture, inside)

    def _rigid(self, outlines: tuple[Points, ...], matrix: Points, inside: Mask) -> Mask:
        at = [moved(outline, matrix) for outline in outlines]
        return outlined(at, self._screen.picture, inside)
