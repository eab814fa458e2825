"""The X-ray machine: thickness times attenuation, Beer-Lambert, scatter, blur, noise, display.

All images of attenuation hold -log of transmission (natural, no unit), float32. What stands still
within a group of bones is drawn once per study and only shifted from frame to frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from .bones import Bone, Skeleton, posed
from .curves import smooth
from .placement import Placement, View
from .population import Ranges
from .raster import Patch, rasterise
from .throat import Motion

Image = NDArray[np.float32]
Polarity = Literal["dark-barium", "light-barium"]

_PAD = 40
_SOFT_PER_MM = 0.0185
_THICKEST_MM = 112.0


@dataclass(frozen=True)
class Machine:
    """One machine with its settings in one study."""

    photons: float  # per pixel behind no patient: the dose
    electronic: float
    blur_px: float
    grain_px: float
    scatter: float
    scatter_px: float
    gamma: float
    black: float  # percentile shares of the tissue's range that become black and white
    white: float
    sharpening: float
    sharpening_px: float
    lag: float
    glare: float
    vignetting: float
    polarity: Polarity
    flicker: float
    bone: float  # how much bone stands out: low at high voltage


def draw_machine(
    rng: np.random.Generator, ranges: Ranges, view: View, polarity: Polarity | None
) -> Machine:
    light = rng.random() < ranges.light_bone_share
    detail = max(view.width, view.height) / 512
    photons = float(np.exp(rng.uniform(*np.log(ranges.photons))))
    return Machine(
        photons=photons,
        electronic=float(rng.uniform(0.001, 0.006)),
        blur_px=float(rng.uniform(*ranges.blur_mm)) * view.px_per_mm,
        grain_px=float(rng.uniform(0.35, 0.9)) * detail,
        scatter=float(rng.uniform(*ranges.scatter)),
        scatter_px=float(rng.uniform(14, 26)) * view.px_per_mm,
        gamma=float(np.exp(rng.uniform(*np.log(ranges.gamma)))),
        black=float(rng.uniform(-0.15, 0.08)),
        white=float(rng.uniform(-0.16, 0.10)),
        sharpening=float(rng.uniform(*ranges.sharpening)),
        sharpening_px=float(rng.uniform(1.5, 6.0)) * detail,
        lag=float(rng.uniform(*ranges.lag)) if rng.random() < 0.7 else 0.0,
        glare=float(rng.uniform(*ranges.glare)),
        vignetting=float(rng.uniform(*ranges.vignetting)),
        polarity=polarity or ("light-barium" if light else "dark-barium"),
        flicker=float(rng.gamma(1.2, 0.004)),
        bone=float(rng.uniform(*ranges.bone)),
    )


# ── what stands still ────────────────────────────────────────────────────────────────────────


class Layers:
    """Attenuation of soft tissue and of the three groups of bones, on a padded canvas."""

    def __init__(
        self, place: Placement, skeleton: Skeleton, bone: float, rng: np.random.Generator
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
        self.groups["neck"] += _soft_tissue(place, padded, rng)
        _sinuses(self.groups["head"], place, rng)

    def at(self, motion: Motion) -> Image:
        """Their sum in one frame, (H, W)."""
        total = _shifted(self.groups["neck"], motion.body, self.shape)
        total += _shifted(self.groups["head"], motion.head, self.shape)
        total += _shifted(self.groups["jaw"], motion.jaw, self.shape)
        return total


def _shifted(canvas: Image, matrix: NDArray[np.float64], shape: tuple[int, int]) -> Image:
    on_canvas = matrix.copy()
    on_canvas[:, 2] -= matrix[:, :2] @ (_PAD, _PAD)  # canvas → picture
    moved: Image = cv2.warpAffine(
        canvas,
        on_canvas,
        (shape[1], shape[0]),
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
    inside = (patch.cover >= 0.5).astype(np.uint8)
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


def _soft_tissue(place: Placement, shape: tuple[int, int], rng: np.random.Generator) -> Image:
    """Head and neck as rounded bodies, shoulders below, slow unevenness of fat and muscle."""
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
    outline = place.px(posed(patient, smooth(skin, per_segment=5), np.repeat(weight, 5)))
    # Drawn at half size: it has no fine detail but the skin line, which is blurred anyway.
    half = (shape[0] // 2, shape[1] // 2)
    patch = rasterise([(outline + _PAD) / 2], half)
    px = place.px_per_mm / 2
    profile = cv2.GaussianBlur(patch.rounded(36 * px).full(half), (0, 0), 3.0 * px)
    edge = patch.full(half)
    unevenness = _fractal(rng, half, (9 * px, 22 * px, 60 * px))
    thickness = _THICKEST_MM * patient.girth * profile * (1 + 0.025 * unevenness)
    rows, columns = np.mgrid[0 : half[0], 0 : half[1]].astype(np.float32)
    at = place.px(np.array([[40.0, 92.0], [-10.0, 108.0], [-60.0, -120.0]])) / 2 + _PAD / 2
    # Shoulders: a soft dark hill behind and below; the head is wider than the neck.
    for (x, y), size, more in ((at[0], 46, 1.35), (at[1], 40, 0.8), (at[2], 52, 0.3)):
        hill = np.exp(
            -(((columns - x) / (size * px)) ** 2 + ((rows - y) / (size * px * 0.85)) ** 2)
        )
        thickness += (more * rng.uniform(0.7, 1.25) * _THICKEST_MM) * hill * edge
    full = cv2.resize(
        (_SOFT_PER_MM * thickness).astype(np.float32),
        (shape[1], shape[0]),
        interpolation=cv2.INTER_LINEAR,
    )
    result: Image = cv2.GaussianBlur(full, (0, 0), 1.2 * place.px_per_mm)
    return result


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


# ── from attenuation to what is stored ───────────────────────────────────────────────────────


class Detector:
    """Turns attenuation (H, W) into grey values; one per study, frames in order (it has lag)."""

    def __init__(self, machine: Machine, shape: tuple[int, int], rng: np.random.Generator) -> None:
        self.machine, self.shape = machine, shape
        self._rng = rng
        self._grain = _grain_bank(rng, shape, machine.grain_px)
        self._last: Image | None = None
        self._range: tuple[float, float] | None = None
        rows = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None]
        columns = np.linspace(-1, 1, shape[1], dtype=np.float32)[None]
        radius2 = rows**2 + columns**2
        self._vignette = (1 - np.float32(machine.vignetting) * 0.45 * radius2).clip(0.2, 1)

    def grey(self, attenuation: Image, inside: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """One frame; `inside` is the collimated field, whose range sets the window."""
        m = self.machine
        if self._range is None:  # automatic brightness looks at the patient, not at bare beam
            body = inside & (attenuation > 0.6)
            inside = body if body.sum() > 400 else inside
        light = cv2.exp(-attenuation)
        light += np.float32(m.scatter) * self._spread(light, m.scatter_px)
        if m.glare > 0:
            light += np.float32(m.glare) * float(light.mean())
        light = cv2.GaussianBlur(light, (0, 0), max(m.blur_px, 0.25))
        light *= self._vignette
        grain, more = self._draw_grain(), self._draw_grain()
        light += cv2.sqrt(np.maximum(light, 0)) * grain * np.float32(1 / np.sqrt(m.photons))
        light += more * np.float32(m.electronic * 0.1)
        if m.flicker > 0:
            light *= np.float32(1 + self._rng.normal(0, m.flicker))
        if self._last is not None and m.lag > 0:
            light = cv2.addWeighted(light, 1 - m.lag, self._last, m.lag, 0)
        self._last = light
        return self._display(cv2.log(np.maximum(light, np.float32(1e-4))), inside)

    def _spread(self, light: Image, sigma_px: float) -> Image:
        small = cv2.resize(
            light, (self.shape[1] // 8, self.shape[0] // 8), interpolation=cv2.INTER_AREA
        )
        small = cv2.GaussianBlur(small, (0, 0), max(sigma_px / 8, 0.5))
        wide: Image = cv2.resize(
            small, (self.shape[1], self.shape[0]), interpolation=cv2.INTER_LINEAR
        )
        return wide

    def _draw_grain(self) -> Image:
        """A window at random from a bank of noise: as good as fresh, forty times as fast."""
        field = self._grain[int(self._rng.integers(len(self._grain)))]
        room = field.shape[0] - self.shape[0], field.shape[1] - self.shape[1]
        row, column = int(self._rng.integers(room[0] + 1)), int(self._rng.integers(room[1] + 1))
        window: Image = field[row : row + self.shape[0], column : column + self.shape[1]]
        turn = int(self._rng.integers(4))
        return window[:: -1 if turn & 1 else 1, :: -1 if turn & 2 else 1]

    def _display(self, density: Image, inside: NDArray[np.bool_]) -> NDArray[np.uint8]:
        m = self.machine
        if self._range is None:
            low, high = np.percentile(density[inside][::7], (1.0, 98.5))
            span = max(float(high - low), 0.2)
            self._range = float(low + m.black * span), float(high - m.white * span)
        low_end, high_end = self._range
        if m.sharpening > 0:
            soft = cv2.GaussianBlur(density, (0, 0), m.sharpening_px)
            density = cv2.addWeighted(density, 1 + m.sharpening, soft, -m.sharpening, 0)
        shown = (density - np.float32(low_end)) * np.float32(1 / (high_end - low_end))
        shown = cv2.pow(np.clip(shown, 0, 1), m.gamma)
        if m.polarity == "light-barium":
            shown = 1 - shown
        return (shown * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def _grain_bank(rng: np.random.Generator, shape: tuple[int, int], sigma_px: float) -> list[Image]:
    bank = []
    for _ in range(5):
        field = rng.standard_normal((shape[0] + 96, shape[1] + 96), dtype=np.float32)
        field = cv2.GaussianBlur(field, (0, 0), max(sigma_px, 0.2))
        bank.append(field / np.float32(field.std()))
    return bank
