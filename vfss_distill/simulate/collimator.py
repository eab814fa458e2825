"""The collimator: what it leaves open of the picture, and how it moves during the study."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from .curves import Points, turned
from .population import Ranges
from .raster import rasterise

Blades = tuple[float, float, float, float]  # left, top, right, bottom; shares of the side

_OPEN: Blades = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Collimator:
    """Opening over a picture of `height` × `width`. `corner` 0 sharp … 1 round.

    The blades stand at `before`, and go to `after` from `moves_at_s` on, within `takes_s`.
    """

    height: int
    width: int
    shape: Literal["round", "square"]
    inset: float
    corner: float
    tilt_deg: float
    shade: int  # grey of what is covered: screens seldom show it as pure black
    before: Blades = _OPEN
    after: Blades = _OPEN
    moves_at_s: float = 0.0
    takes_s: float = 1.0
    _drawn: dict[int, NDArray[np.float32]] = field(default_factory=dict, repr=False, compare=False)

    def open_at(self, time_s: float) -> NDArray[np.float32]:
        """(H, W): 1 where the picture is seen, 0 behind the blades. Not to be written to."""
        step = self._step(time_s)
        if step not in self._drawn:
            self._drawn.clear()  # blades go one way, so no earlier opening comes back
            self._drawn[step] = self._draw(step / _STEPS)
        return self._drawn[step]

    def over(self, grey: NDArray[np.uint8], opening: NDArray[np.float32]) -> NDArray[np.uint8]:
        """`grey` where it is open, the shade elsewhere; a new array."""
        shaded = grey * opening
        if self.shade:
            shaded += np.float32(self.shade) * (1 - opening)
        return shaded.astype(np.uint8)

    def _step(self, time_s: float) -> int:
        if self.before == self.after:
            return 0
        share = float(np.clip((time_s - self.moves_at_s) / self.takes_s, 0, 1))
        return round(_STEPS * share * share * (3 - 2 * share))

    def _draw(self, share: float) -> NDArray[np.float32]:
        h, w = self.height, self.width
        outline = self._round() if self.shape == "round" else self._square()
        blades = np.array(self.before) + share * (np.array(self.after) - np.array(self.before))
        # Image intensifiers also show a circle cut off at the sides of the screen.
        edge = 0.005 if self.shape == "round" else -1.0
        left, top, right, bottom = np.where(blades > 0, blades, edge)
        centre = np.array([w / 2, h / 2])
        low, high = np.array([left * w, top * h]), np.array([(1 - right) * w, (1 - bottom) * h])
        turning = self.tilt_deg if self.shape == "square" else 0.0
        outline = turned(np.clip(outline + centre, low, high), turning, centre)
        cover = rasterise([outline], (h, w)).full((h, w))
        soft: NDArray[np.float32] = cv2.GaussianBlur(cover, (0, 0), max(w / 512, 0.5))
        soft.setflags(write=False)
        return soft

    def _round(self) -> Points:
        radius = min(self.height, self.width) * (0.515 - self.inset * 0.45)
        angle = np.linspace(0, 2 * np.pi, 180, endpoint=False)
        return np.column_stack([np.cos(angle), np.sin(angle)]) * radius

    def _square(self) -> Points:
        angle = np.linspace(0, 2 * np.pi, 240, endpoint=False)
        power = 2 / (2 + 40 * (1 - self.corner) ** 2)
        cos, sin = np.cos(angle), np.sin(angle)
        shape = np.column_stack(
            [np.sign(cos) * np.abs(cos) ** power, np.sign(sin) * np.abs(sin) ** power]
        )
        result: Points = shape * np.array([self.width, self.height]) * (0.505 - self.inset)
        return result


# Positions of moving blades that are told apart: at 512 pixels each is less than one pixel.
_STEPS = 128


def draw_collimator(
    rng: np.random.Generator, ranges: Ranges, shape: tuple[int, int], duration_s: float
) -> Collimator:
    """Most stand still; the others are opened, closed or shifted once, slowly or at one stroke."""
    moves = rng.random() < ranges.moving_collimator_share
    depth = ranges.blades
    standing = _blades(rng, depth) if rng.random() < 0.4 else _OPEN
    before, after = standing, standing
    if moves:
        way = rng.choice(("close", "open", "shift"))
        there = _blades(rng, depth, some=True)
        before = _OPEN if way == "close" else there
        after = _OPEN if way == "open" else _blades(rng, depth, some=True)
    return Collimator(
        height=shape[0],
        width=shape[1],
        shape="round" if rng.random() < ranges.round_collimator_share else "square",
        inset=float(rng.uniform(*ranges.collimator_inset)),
        corner=float(rng.uniform(0, 0.5)),
        tilt_deg=float(rng.normal(0, 1.0)),
        shade=int(rng.integers(4, 30)) if rng.random() < 0.25 else 0,
        before=before,
        after=after,
        moves_at_s=float(rng.uniform(0.1, 0.75)) * duration_s,
        takes_s=float(rng.uniform(0.3, 1.5)) if rng.random() < 0.6 else 0.04,
    )


def _blades(rng: np.random.Generator, depth: tuple[float, float], *, some: bool = False) -> Blades:
    """Each blade in or out; with `some`, at least one is in."""
    inwards = rng.random(4) < 0.45
    if some and not inwards.any():
        inwards[int(rng.integers(4))] = True
    left, top, right, bottom = (float(v) for v in rng.uniform(*depth, 4) * inwards)
    return left, top, right, bottom
