"""What is written over the stored frame: burned-in text, a clock, and an earlier codec's traces."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .population import Ranges
from .screen import Screen

_WORDS = (
    "LATERAL", "SIMULATED", "VFSS", "{fps:g} f/s", "{pulses:g} p/s", "72 kV", "3.2 mA", "FLUORO",
    "SW 01", "R", "L", "Img 1", "00:00:00", "Mag 1", "LIH", "5 ml", "Thin",
)  # fmt: skip
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class Text:
    """One line; its lower left corner at x, y (pixels of the stored frame)."""

    words: str
    x: int
    y: int
    scale: float
    grey: int
    counting: bool  # a frame counter follows, or it is a clock
    clock_s: float | None = None  # time of day at the first frame
    frame_s: float = 0.0

    def said(self, frame: int) -> str:
        """What stands there in one frame."""
        if self.clock_s is not None:
            whole = int(self.clock_s + frame * self.frame_s)
            part = int(100 * (self.clock_s + frame * self.frame_s - whole))
            hours, minutes, seconds = whole // 3600 % 24, whole // 60 % 60, whole % 60
            return f"{hours:02d}:{minutes:02d}:{seconds:02d}.{part:02d}"
        return f"{self.words} {frame:04d}" if self.counting else self.words


@dataclass(frozen=True)
class Furniture:
    """Drawn over every stored frame of a study."""

    texts: tuple[Text, ...]
    jpeg_quality: int | None

    def over(self, framed: NDArray[np.uint8], frame: int) -> NDArray[np.uint8]:
        """Text onto `framed` (changed in place), then what an earlier codec did to it."""
        for text in self.texts:
            place = text.x, text.y
            cv2.putText(
                framed, text.said(frame), place, _FONT, text.scale, text.grey, 1, cv2.LINE_AA
            )
        if self.jpeg_quality is None:
            return framed
        _, packed = cv2.imencode(".jpg", framed, [cv2.IMWRITE_JPEG_QUALITY, self.jpeg_quality])
        unpacked: Any = cv2.imdecode(packed, cv2.IMREAD_GRAYSCALE)
        return np.asarray(unpacked, np.uint8)


def draw_furniture(
    rng: np.random.Generator, ranges: Ranges, screen: Screen, fps: float, pulses: float
) -> Furniture:
    """Lines that do not lie on one another, most of them where the picture is.

    `fps`: frames stored a second, `pulses`: of them new.
    """
    texts: list[Text] = []
    taken: list[tuple[int, int, int, int]] = []
    wanted = int(rng.integers(1, 6)) if rng.random() < ranges.text_share else 0
    within = screen.bars != () or bool(rng.random() < 0.6)
    for _ in range(wanted):
        text, box = _text(rng, screen, fps, pulses, within=within)
        if not any(_overlap(box, other) for other in taken):
            texts.append(text)
            taken.append(box)
    poor = rng.random() < ranges.compression_share
    return Furniture(tuple(texts), int(rng.integers(38, 85)) if poor else None)


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _text(
    rng: np.random.Generator, screen: Screen, fps: float, pulses: float, *, within: bool
) -> tuple[Text, tuple[int, int, int, int]]:
    """A line in a corner or along the upper or lower border, and its box (left, top, right, bottom)

    `within`: of the picture; otherwise of the stored frame.
    """
    top, left, height, width = 0, 0, screen.height, screen.width
    if within:
        top, left, (height, width) = screen.top, screen.left, screen.picture
    words = str(rng.choice(_WORDS)).format(fps=fps, pulses=pulses)
    counting = bool(rng.random() < 0.2)
    clock = float(rng.uniform(0, 86400)) if rng.random() < 0.15 else None
    scale = float(rng.uniform(0.3, 0.6)) * screen.width / 512
    grey = int(rng.integers(150, 256))
    text = Text(words, 0, 0, scale, grey, counting or clock is not None, clock, 1 / fps)
    (long, tall), _ = cv2.getTextSize(text.said(0), _FONT, scale, 1)
    margin = rng.uniform(0.01, 0.06) * width
    right = rng.random() < 0.5
    x = left + int(max(width - margin - long, 0) if right else margin)
    share = rng.uniform(0.01, 0.13) if rng.random() < 0.6 else rng.uniform(0.86, 0.97)
    y = top + int(min(share * height + tall, height - 2))
    return replace(text, x=x, y=y), (x - 2, y - tall - 2, x + long + 2, y + 4)
