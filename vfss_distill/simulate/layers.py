"""What stands still, drawn once per study: bones, soft tissue, air in the skull, leads on the skin.

All images hold -log of transmission (natural, no unit), float32. Each group moves as one, and is
only shifted from frame to frame.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from .bones import Bone, Skeleton, posed
from .curves import smooth
from .placement import Placement
from .raster import Patch, rasterise
from .throat import Motion

Image = NDArray[np.float32]

_PAD = 40
_SOFT_PER_MM = 0.0185
_THICKEST_MM = 112.0
_UNTURNED = np.eye(2)


class Layers:
    """Attenuation of soft tissue and of the three groups of bones, on a padded canvas.

    `bone`: how much bones stand out. `leads`: what lies on the patient; it does not depend on that.
    """

    def __init__(
        self,
        place: Placement,
        skeleton: Skeleton,
        bone: float,
        leads: tuple[Bone, ...],
        rng: np.random.Generator,
    ) -> None:
        view = place.view
        self.shape = (view.height, view.width)
        self._px_per_mm = place.px_per_mm
        padded = (view.height + 2 * _PAD, view.width + 2 * _PAD)
        fine = max(0.55 * view.px_per_mm, 1.2)
        mottle = _fractal(rng, padded, (fine, 2 * fine, 9 * fine))
        self.groups = {name: np.zeros(padded, np.float32) for name in ("neck", "head", "jaw")}
        for part in skeleton.bones:
            _draw_bone(self.groups[part.group], part, place.px_per_mm, mottle)
        for layer in self.groups.values():
            layer *= np.float32(bone)
        for part in leads:
            _draw_bone(self.groups[part.group], part, place.px_per_mm, mottle)
        soft, self._shoulders = _soft_tissue(place, padded, rng)
        self.groups["neck"] += soft
        _sinuses(self.groups["head"], place, rng)
        self._windows = {name: _occupied(layer, self.shape) for name, layer in self.groups.items()}
        self._shoulders_window = _occupied(self._shoulders, self.shape)

    def at(self, motion: Motion) -> Image:
        """Their sum in one frame, (H, W)."""
        total = np.zeros(self.shape, np.float32)
        for name, matrix in (("neck", motion.body), ("head", motion.head), ("jaw", motion.jaw)):
            window = self._windows[name]
            if total[window].size:
                total[window] += _shifted(self.groups[name], matrix, window)
        return total

    def shoulders_at(self, motion: Motion) -> NDArray[np.bool_]:
        """Where the shoulders take at least half of the beam in one frame, (H, W)."""
        mask = np.zeros(self.shape, np.bool_)
        window = self._shoulders_window
        if mask[window].size:
            mask[window] = _shifted(self._shoulders, motion.body, window) >= 0.5
        return mask


_Window = tuple[slice, slice]


def _occupied(canvas: Image, shape: tuple[int, int]) -> _Window:
    """The part of the picture that a layer can reach when it moves by a fifth of it."""
    rows, columns = (np.flatnonzero(np.abs(canvas).max(axis=axis) > 1e-4) for axis in (1, 0))
    if len(rows) == 0:
        return slice(0, 0), slice(0, 0)
    reach = max(shape) // 5
    spans = (rows[0], rows[-1], shape[0]), (columns[0], columns[-1], shape[1])
    first, second = (
        slice(max(int(low) - _PAD - reach, 0), max(min(int(high) - _PAD + reach, side), 0))
        for low, high, side in spans
    )
    return first, second


def _shifted(canvas: Image, matrix: NDArray[np.float64], window: _Window) -> Image:
    """`window` of the picture, after the canvas was moved by `matrix`."""
    rows, columns = window
    width, height = columns.stop - columns.start, rows.stop - rows.start
    if np.array_equal(matrix[:, :2], _UNTURNED):  # ten times as fast
        corner = np.array([columns.start, rows.start]) + _PAD - matrix[:, 2]
        middle = corner + np.array([width - 1, height - 1]) / 2
        slid: Image = cv2.getRectSubPix(canvas, (width, height), middle)
        return slid
    on_canvas = matrix.copy()
    on_canvas[:, 2] -= matrix[:, :2] @ (_PAD, _PAD)  # canvas → picture
    on_canvas[:, 2] -= columns.start, rows.start
    moved: Image = cv2.warpAffine(
        canvas,
        on_canvas,
        (width, height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return moved


def _on_canvas(outlines: tuple[NDArray[np.float64], ...], shape: tuple[int, int]) -> Patch:
    return rasterise([outline + _PAD for outline in outlines], shape, margin=4)


def _draw_bone(canvas: Image, bone: Bone, px_per_mm: float, mottle: Image) -> None:
    patch = _on_canvas(bone.outlines, canvas.shape)
    if patch.empty:
        return
    window = patch.window
    inside = patch.inside.astype(np.uint8)
    inside = cv2.copyMakeBorder(inside, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, 5)[1:-1, 1:-1] / np.float32(px_per_mm)
    layer = bone.body * patch.rounded(bone.round_mm * px_per_mm).cover
    layer *= 1 + bone.texture * mottle[window]
    # The cortex is thickest along the beam just inside the edge.
    layer += (
        bone.rim
        * patch.cover
        * np.exp(-(((depth - 0.55 * bone.rim_mm) / (0.7 * bone.rim_mm)) ** 2))
    )
    canvas[window] += cv2.GaussianBlur(layer, (0, 0), max(bone.soft_mm * px_per_mm, 0.3))


def _fractal(
    rng: np.random.Generator, shape: tuple[int, int], scales_px: tuple[float, ...]
) -> Image:
    """Smooth random field with mean 0 and standard deviation about 1."""
    total = np.zeros(shape, np.float32)
    for scale in scales_px:
        small = (max(4, int(shape[0] / scale)), max(4, int(shape[1] / scale)))
        field = rng.standard_normal(small, dtype=np.float32)
        total += cv2.resize(field, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
    result: Image = (total / max(float(total.std()), 1e-6)).astype(np.float32)
    return result


_SKIN = (
    (-108, -190), (-112, -140), (-111, -112), (-117, -96), (-128, -78), (-119, -69), (-121, -60),
    (-118, -51), (-121, -42), (-116, -30), (-121, -15), (-118, 2), (-106, 10), (-84, 9), (-62, 14),
    (-51, 24), (-49, 36), (-46, 52), (-44, 74), (-50, 100), (-72, 132), (-90, 200), (170, 220),
    (190, 150), (130, 112), (88, 84), (66, 56), (58, 24), (58, -12), (66, -48), (88, -84),
    (112, -130), (116, -200),
)  # fmt: skip


def _skin_line(place: Placement, rng: np.random.Generator) -> NDArray[np.float64]:
    """Outline of head and neck in pixels: stout patients are so in the neck and under the chin."""
    patient = place.patient
    skin = np.array(_SKIN, float)
    front = skin[:, 0] < -30
    neck = (skin[:, 1] > 0) & (skin[:, 1] < 90)
    stout = (patient.girth - 1) * 26
    skin[front & neck, 0] -= stout * 0.7
    skin[~front & neck, 0] += stout
    skin[front & (skin[:, 1] > -10) & (skin[:, 1] < 30), 1] += max(stout, 0) * 0.8
    skin += rng.normal(0, 1.2, skin.shape)
    weight = np.clip((-skin[:, 1] - 10) / 40, 0, 1) * (skin[:, 0] < 30)
    weight = np.maximum(weight, (skin[:, 0] < -80) * (skin[:, 1] < 20))
    return place.px(posed(patient, smooth(skin, per_segment=5), np.repeat(weight, 5)))


def _soft_tissue(
    place: Placement, shape: tuple[int, int], rng: np.random.Generator
) -> tuple[Image, Image]:
    """Head and neck as rounded bodies, shoulders below, slow unevenness of fat and muscle.

    Second: 1 where the shoulders take at least half of the beam, else 0.
    """
    outline = _skin_line(place, rng)
    # Drawn at half size: it has no fine detail but the skin line, which is blurred anyway.
    half = (shape[0] // 2, shape[1] // 2)
    patch = rasterise([(outline + _PAD) / 2], half)
    px = place.px_per_mm / 2
    profile = cv2.GaussianBlur(patch.rounded(36 * px).full(half), (0, 0), 1.0 * px)
    edge = patch.full(half)
    unevenness = _fractal(rng, half, (9 * px, 22 * px, 60 * px))
    thickness = _THICKEST_MM * place.patient.girth * profile * (1 + 0.025 * unevenness)
    shoulders = np.zeros(half, np.float32)
    for hill, name in _hills(place, half, rng):
        thickness += hill * edge
        if name == "shoulder":
            shoulders += (_SOFT_PER_MM * hill * edge).astype(np.float32)
    size = shape[1], shape[0]
    full = cv2.resize(
        (_SOFT_PER_MM * thickness).astype(np.float32), size, interpolation=cv2.INTER_LINEAR
    )
    soft: Image = cv2.GaussianBlur(full, (0, 0), 1.2 * place.px_per_mm)
    wide = cv2.resize(shoulders, size, interpolation=cv2.INTER_LINEAR)
    return soft, (wide >= np.log(2)).astype(np.float32)


def _hills(
    place: Placement, shape: tuple[int, int], rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.float64], str]]:
    """Millimetres that come on top, at half size: shoulders, behind and below; the wide head."""
    px = place.px_per_mm / 2
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    at = place.px(np.array([[40.0, 92.0], [-10.0, 108.0], [-60.0, -120.0]])) / 2 + _PAD / 2
    sizes = (46, 1.35, "shoulder"), (40, 0.8, "shoulder"), (52, 0.3, "head")
    for (x, y), (size, more, name) in zip(at, sizes, strict=True):
        hill = np.exp(
            -(((columns - x) / (size * px)) ** 2 + ((rows - y) / (size * px * 0.85)) ** 2)
        )
        yield (more * rng.uniform(0.7, 1.25) * _THICKEST_MM) * hill, name


def _sinuses(head: Image, place: Placement, rng: np.random.Generator) -> None:
    """Air in nose, maxillary and sphenoid sinuses and mastoid: bright."""
    shapes = (
        ([(-48, -70), (-60, -72), (-80, -74), (-100, -77), (-108, -84), (-100, -92), (-76, -92),
          (-54, -86), (-44, -76)], -0.30, 12.0),
        ([(-60, -72), (-74, -72), (-88, -76), (-90, -90), (-78, -97), (-62, -94), (-57, -82)],
         -0.16, 9.0),
        ([(-44, -100), (-34, -98), (-30, -106), (-36, -114), (-46, -112)], -0.35, 5.0),
        ([(2, -88), (8, -91), (9, -85), (4, -83)], -0.3, 2.0),
    )  # fmt: skip
    for points, amount, round_mm in shapes:
        jittered = np.array(points, float) + rng.normal(0, 1.0, (len(points), 2))
        outline = place.px(posed(place.patient, smooth(jittered)))
        patch = _on_canvas((outline,), head.shape)
        air = np.zeros_like(head)
        patch.rounded(round_mm * place.px_per_mm).add_to(air, amount * rng.uniform(0.5, 1.1))
        head += cv2.GaussianBlur(air, (0, 0), 1.3 * place.px_per_mm)
