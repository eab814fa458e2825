"""What lies over the picture: collimator, burned-in text, and the traces of an earlier codec."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from .curves import Points, turned
from .placement import View
from .population import Ranges
from .raster import rasterise

_WORDS = (
    "LATERAL", "SIMULATED", "VFSS", "30 f/s", "15 p/s", "72 kV", "3.2 mA", "FLUORO", "SW 01",
    "R", "L", "Img 1", "00:00:00", "Mag 1", "LIH", "5 ml", "Thin",
)  # fmt: skip


@dataclass(frozen=True)
class Text:
    words: str
    x: int
    y: int
    scale: float
    grey: int
    counting: bool  # a frame counter follows


@dataclass(frozen=True)
class Furniture:
    """Drawn over every frame of a study. `corner` 0 sharp … 1 round; inset: share of the side."""

    height: int
    width: int
    shape: Literal["round", "square"]
    inset: float
    corner: float
    tilt_deg: float
    texts: tuple[Text, ...]
    jpeg_quality: int | None

    @cached_property
    def field(self) -> NDArray[np.float32]:
        """What the collimator leaves open: (H, W), 1 inside, 0 outside."""
        h, w = self.height, self.width
        outline = _round(self) if self.shape == "round" else _square(self)
        cover = rasterise([outline], (h, w)).full((h, w))
        soft: NDArray[np.float32] = cv2.GaussianBlur(cover, (0, 0), max(w / 512, 0.5))
        return soft

    @cached_property
    def inside(self) -> NDArray[np.bool_]:
        return self.field > 0.5

    def over(self, grey: NDArray[np.uint8], frame: int) -> NDArray[np.uint8]:
        """Black outside the field, then text, then what an earlier codec did to it."""
        framed = (grey * self.field).astype(np.uint8)
        for text in self.texts:
            words = f"{text.words} {frame:04d}" if text.counting else text.words
            place, font = (text.x, text.y), cv2.FONT_HERSHEY_SIMPLEX
            cv2.putText(framed, words, place, font, text.scale, text.grey, 1, cv2.LINE_AA)
        if self.jpeg_quality is not None:
            _, packed = cv2.imencode(".jpg", framed, [cv2.IMWRITE_JPEG_QUALITY, self.jpeg_quality])
            unpacked: Any = cv2.imdecode(packed, cv2.IMREAD_GRAYSCALE)
            framed = unpacked
        return framed


def draw_furniture(rng: np.random.Generator, ranges: Ranges, view: View) -> Furniture:
    texts: list[Text] = []
    if rng.random() < ranges.text_share:
        for _ in range(int(rng.integers(1, 6))):
            scale = float(rng.uniform(0.3, 0.6)) * view.width / 512
            left = rng.random() < 0.5
            x = rng.uniform(0.01, 0.06) if left else rng.uniform(0.68, 0.86)
            y = rng.uniform(0.03, 0.16) if rng.random() < 0.6 else rng.uniform(0.86, 0.98)
            word = str(rng.choice(_WORDS))
            at = int(x * view.width), int(y * view.height)
            texts.append(
                Text(word, *at, scale, int(rng.integers(150, 256)), bool(rng.random() < 0.2))
            )
    poor = rng.random() < ranges.compression_share
    return Furniture(
        height=view.height,
        width=view.width,
        shape="round" if rng.random() < ranges.round_collimator_share else "square",
        inset=float(rng.uniform(*ranges.collimator_inset)),
        corner=float(rng.uniform(0, 0.5)),
        tilt_deg=float(rng.normal(0, 1.0)),
        texts=tuple(texts),
        jpeg_quality=int(rng.integers(38, 85)) if poor else None,
    )


def _round(f: Furniture) -> Points:
    radius = min(f.height, f.width) * (0.515 - f.inset * 0.45)
    angle = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    circle = np.column_stack([np.cos(angle), np.sin(angle)]) * radius
    # Image intensifiers often show a circle cut off at the sides of the screen.
    return np.clip(circle, -0.495 * f.width, 0.495 * f.width) + _centre(f)


def _centre(f: Furniture) -> Points:
    return np.array([f.width / 2, f.height / 2])


def _square(f: Furniture) -> Points:
    angle = np.linspace(0, 2 * np.pi, 240, endpoint=False)
    power = 2 / (2 + 40 * (1 - f.corner) ** 2)
    cos, sin = np.cos(angle), np.sin(angle)
    shape = np.column_stack(
        [np.sign(cos) * np.abs(cos) ** power, np.sign(sin) * np.abs(sin) ** power]
    )
    half = np.array([f.width, f.height]) * (0.505 - f.inset)
    return turned(shape * half, f.tilt_deg) + _centre(f)
