"""The X-ray machine: Beer-Lambert, scatter, blur, noise by dose, automatic brightness, display.

Attenuation comes in as -log of transmission (natural, no unit), float32; grey values go out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from .layers import Image
from .placement import View
from .population import Ranges

Polarity = Literal["dark-barium", "light-barium"]


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
    exposure: float  # share of the time between two pulses during which there are X-rays
    interlaced: bool  # even and odd lines half a frame apart
    brightness: float  # share of its error that automatic brightness corrects from pulse to pulse
    brightness_start: float  # its error when the film begins, as log of the dose


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
        exposure=float(rng.uniform(*ranges.exposure)),
        interlaced=bool(rng.random() < ranges.interlaced_share),
        brightness=float(rng.uniform(*ranges.brightness)),
        brightness_start=float(rng.uniform(*ranges.brightness_start)),
    )


def draw_pulses(rng: np.random.Generator, ranges: Ranges, fps: float) -> float:
    """Exposures per second: every stored frame, every second or every fourth."""
    return fps / int(rng.choice((1, 2, 4), p=ranges.pulse_shares))


# ── from attenuation to what is stored ───────────────────────────────────────────────────────


_COARSE = 8  # scatter and brightness are measured on a picture this much smaller
_MEASURED_RADIUS = 0.55
_DARKEST = 1e-4  # light below which nothing is told apart
_FAINTEST = 0.01  # attenuation below which nothing is looked for
_FLIPS = (None, 0, 1, -1)  # as OpenCV numbers them: none, rows, columns, both


class Detector:
    """Turns attenuation (H, W) into grey values; one per study, frames in order (it has lag)."""

    def __init__(self, machine: Machine, shape: tuple[int, int], rng: np.random.Generator) -> None:
        self.machine, self.shape = machine, shape
        self._rng = rng
        self._grain = _grain_bank(rng, shape, machine.grain_px)
        self._grain_px2 = _grain_area(machine.grain_px)
        self._last: Image | None = None
        # Without its noise, the light of all frames so far as they linger in the last one, and how
        # much more there would be without barium; and where that one has some.
        self._clean: Image | None = None
        self._lost: Image | None = None
        self._wet: tuple[slice, slice] | None = None
        self._factor = np.float32(1)  # from its light to what is shown of it
        self._range: tuple[float, float] | None = None
        self._level: float | None = None  # brightness that is kept
        self._gain = machine.brightness_start
        rows = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None]
        columns = np.linspace(-1, 1, shape[1], dtype=np.float32)[None]
        radius2 = rows**2 + columns**2
        self._vignette = (1 - np.float32(machine.vignetting) * 0.45 * radius2).clip(0.2, 1)
        self._small = (max(shape[1] // _COARSE, 4), max(shape[0] // _COARSE, 4))
        # The middle of the picture sets the brightness, as the middle chamber does.
        self._middle = (
            cv2.resize(radius2, self._small, interpolation=cv2.INTER_AREA) < _MEASURED_RADIUS**2
        )

    def grey(
        self, attenuation: Image, field: Image, barium: Image | None = None
    ) -> NDArray[np.uint8]:
        """One frame; `field` (H, W) is 1 where the collimator is open: it sets the window.

        `barium`: what of the attenuation `contrast` is to tell about.
        """
        m = self.machine
        light = cv2.exp(-attenuation)
        small = cv2.resize(light, self._small, interpolation=cv2.INTER_AREA)
        gain = self._brightness(small, field)
        scattered = self._spread(small, m.scatter_px)
        scattered *= np.float32(m.scatter)
        light += scattered
        if m.glare > 0:
            light += np.float32(m.glare) * float(light.mean())
        light = cv2.GaussianBlur(light, (0, 0), max(m.blur_px, 0.25))
        light *= self._vignette
        noiseless = light.copy()
        dose = np.float32(m.photons * np.exp(gain))
        noise: Image = cv2.sqrt(cv2.max(light, 0.0))
        noise *= self._draw_grain()
        noise *= 1 / np.sqrt(dose)
        light += noise
        light += np.multiply(self._draw_grain(), np.float32(m.electronic * 0.1), out=noise)
        if m.flicker > 0:
            gain += float(np.log(max(1 + self._rng.normal(0, m.flicker), 0.5)))
        shown = np.float32(np.exp(gain))
        light *= shown
        light = self._lagging(light, self._last)
        self._last = light
        self._look(attenuation, barium, noiseless, shown)
        density = cv2.log(cv2.max(light, _DARKEST, dst=noise), dst=noise)
        if self._range is None:  # the window looks at the patient, not at bare beam
            inside = field > 0.5
            body = inside & (attenuation > 0.6)
            self._range = self._window(density[body if body.sum() > 400 else inside] - gain)
        return self._display(density, self._range)

    def contrast(self) -> tuple[Image, Image]:
        """By how many grey levels (H, W) the last frame would differ had there never been barium,
        and the deviation of its noise there, in grey levels too: of noise that differs from pixel
        to pixel and over a larger area is as strong as this one, which has grain.

        Scatter, glare, blur, lag and the display's curve are in both, also where it ends in black
        or white; sharpening, which raises contrast and noise alike, is in neither. Both are 0 where
        the last frame's own barium is not, however much of it lingers from those before.
        """
        contrast, noise = np.zeros((2, *self.shape), np.float32)
        if self._clean is None or self._lost is None or self._wet is None or self._range is None:
            return contrast, noise
        here, window = self._clean[self._wet], self._wet
        around = here + self._lost[window]
        grain = self._grain_at(here)
        with_part, without, above, below, above_without = (
            self._tone(cv2.log(cv2.max(light, _DARKEST)), self._range)
            for light in (here, around, here + grain, here - grain, around + self._grain_at(around))
        )
        contrast[window] = 255 * cv2.absdiff(with_part, without)
        # The largest half: black and white cut others off, and what is all black has no noise but
        # among what has.
        noise[window] = cv2.max(above - with_part, with_part - below)
        noise[window] = cv2.max(noise[window], above_without - without)
        noise[window] *= 255 * np.sqrt(self._grain_px2)
        return contrast, noise

    def _look(
        self, attenuation: Image, barium: Image | None, noiseless: Image, shown: np.float32
    ) -> None:
        """Keep what `contrast` needs of a frame; `shown`: the factor of its light when shown."""
        fresh = 1.0 if self._clean is None else 1 - self.machine.lag  # share of this frame's light
        self._clean = self._lagging(noiseless * shown, self._clean)
        self._factor, self._wet = shown, None
        if self._lost is not None:  # to zero in the end: numbers next to it are slow
            self._lost *= np.float32(self.machine.lag)
            cv2.threshold(self._lost, 1e-6, 0, cv2.THRESH_TOZERO, dst=self._lost)
        if barium is None:
            return
        column, row, width, height = cv2.boundingRect((barium > _FAINTEST).view(np.uint8))
        if width == 0:
            return
        room = int(3 * self.machine.blur_px) + 1
        rows = slice(max(row - room, 0), row + height + room)
        window = rows, slice(max(column - room, 0), column + width + room)
        lost = cv2.exp(-attenuation[window]) * (cv2.exp(barium[window]) - 1)
        lost = cv2.GaussianBlur(lost, (0, 0), max(self.machine.blur_px, 0.25))
        lost *= self._vignette[window] * shown
        if self._lost is None:
            self._lost = np.zeros(self.shape, np.float32)
        self._lost[window] += np.float32(fresh) * lost
        self._wet = window

    def _lagging(self, light: Image, before: Image | None) -> Image:
        """`light` as it is shown: the last frame's lingers in it."""
        if before is None or self.machine.lag == 0:
            return light
        mixed: Image = cv2.addWeighted(light, 1 - self.machine.lag, before, self.machine.lag, 0)
        return mixed

    def _grain_at(self, light: Image) -> Image:
        """Deviation of the noise of `light` as it is shown: quantum and electronic, less what lag
        averages out."""
        m, shown = self.machine, self._factor
        exposed = np.maximum(light, 0) / shown
        deviation = np.sqrt(exposed / (m.photons * shown) + (0.1 * m.electronic) ** 2) * shown
        deviation *= np.sqrt((1 - m.lag) / (1 + m.lag))
        return deviation.astype(np.float32)

    def _brightness(self, small: Image, field: Image) -> float:
        """Log of the dose's factor for this pulse, set from what earlier pulses measured.

        A control loop of first order: each pulse takes away the same share of what is missing.
        """
        gain = self._gain
        seen = cv2.resize(field, self._small, interpolation=cv2.INTER_AREA) > 0.5
        seen = seen & self._middle if (seen & self._middle).any() else seen
        # Bare beam saturates the sensor; it must not black out the patient.
        measured = float(np.log(np.clip(small, 0.01, 0.4)[seen]).mean()) if seen.any() else 0.0
        if self._level is None:
            self._level = measured
        self._gain += self.machine.brightness * (self._level - measured - gain)
        return gain

    def _spread(self, small: Image, sigma_px: float) -> Image:
        soft = cv2.GaussianBlur(small, (0, 0), max(sigma_px / _COARSE, 0.5))
        wide: Image = cv2.resize(
            soft, (self.shape[1], self.shape[0]), interpolation=cv2.INTER_LINEAR
        )
        return wide

    def _draw_grain(self) -> Image:
        """A window at random from a bank of noise: as good as fresh, forty times as fast."""
        field = self._grain[int(self._rng.integers(len(self._grain)))]
        room = field.shape[0] - self.shape[0], field.shape[1] - self.shape[1]
        row, column = int(self._rng.integers(room[0] + 1)), int(self._rng.integers(room[1] + 1))
        window: Image = field[row : row + self.shape[0], column : column + self.shape[1]]
        flip = _FLIPS[int(self._rng.integers(4))]
        return window if flip is None else np.asarray(cv2.flip(window, flip), np.float32)

    def _window(self, density: Image) -> tuple[float, float]:
        """The densities that are shown as black and as white."""
        low, high = np.percentile(density[::7], (1.0, 98.5))
        span = max(float(high - low), 0.2)
        return float(low + self.machine.black * span), float(high - self.machine.white * span)

    def _display(self, density: Image, window: tuple[float, float]) -> NDArray[np.uint8]:
        m = self.machine
        if m.sharpening > 0:
            soft = _softened(density, m.sharpening_px)
            density = cv2.addWeighted(density, 1 + m.sharpening, soft, -m.sharpening, 0)
        shown = self._tone(density, window)
        if m.polarity == "light-barium":
            np.subtract(1, shown, out=shown)
        return np.asarray(cv2.convertScaleAbs(shown, alpha=255), np.uint8)

    def _tone(self, density: Image, window: tuple[float, float]) -> Image:
        """Window and gamma: 0 for the darkest, 1 for the brightest that is told apart."""
        low_end, high_end = window
        shown: Image = density - np.float32(low_end)
        shown *= np.float32(1 / (high_end - low_end))
        np.clip(shown, 0, 1, out=shown)
        return cv2.pow(shown, self.machine.gamma, dst=shown)


def _softened(image: Image, sigma_px: float) -> Image:
    """Blurred; wide blurs at half size, where nothing of them is lost and four times as fast."""
    if sigma_px < 3:
        narrow: Image = cv2.GaussianBlur(image, (0, 0), sigma_px)
        return narrow
    h, w = image.shape
    half = cv2.resize(image, (w // 2, h // 2), interpolation=cv2.INTER_AREA)
    half = cv2.GaussianBlur(half, (0, 0), sigma_px / 2)
    wide: Image = cv2.resize(half, (w, h), interpolation=cv2.INTER_LINEAR)
    return wide


def _grain_area(sigma_px: float) -> float:
    """Pixels that one grain of the noise takes: over a large area it is as strong as noise that
    differs from pixel to pixel and has so many times its variance. 4πσ² where σ is large."""
    row = cv2.GaussianBlur(np.eye(1, 65, 32), (0, 0), max(sigma_px, 0.2))
    return float((row.sum() ** 2 / (row**2).sum()) ** 2)


def _grain_bank(rng: np.random.Generator, shape: tuple[int, int], sigma_px: float) -> list[Image]:
    bank = []
    for _ in range(5):
        field = rng.standard_normal((shape[0] + 96, shape[1] + 96), dtype=np.float32)
        field = cv2.GaussianBlur(field, (0, 0), max(sigma_px, 0.2))
        bank.append(field / np.float32(field.std()))
    return bank
