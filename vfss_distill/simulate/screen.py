"""Where the picture lies on the stored frame: boxes around it, a viewer's bars and icons, a logo.

Films reach a laboratory through capture cards and screen recorders, which store more than the
picture: black bars beside or above it, and the tool bars of the program that showed it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from .curves import Points
from .population import Ranges

Grey = NDArray[np.uint8]
Side = Literal["left", "right", "top", "bottom"]


@dataclass(frozen=True)
class Bar:
    """A tool bar along one side of the frame; `thickness` in pixels. `seed` sets its icons."""

    side: Side
    thickness: int
    grey: int
    ink: int
    seed: int


@dataclass(frozen=True)
class Logo:
    """A maker's or a hospital's sign in a corner, centred at x, y (pixels)."""

    x: int
    y: int
    radius: int
    grey: int
    kind: Literal["ring", "cross", "waves"]
    letters: str


@dataclass(frozen=True)
class Screen:
    """A stored frame of `height` × `width` with the picture at `top`, `left`."""

    height: int
    width: int
    top: int
    left: int
    picture: tuple[int, int]
    bars: tuple[Bar, ...] = ()
    logo: Logo | None = None
    ground: int = 0  # grey around the picture

    @property
    def full(self) -> bool:
        """The picture fills the frame."""
        return self.picture == (self.height, self.width)

    @property
    def window(self) -> tuple[slice, slice]:
        h, w = self.picture
        return slice(self.top, self.top + h), slice(self.left, self.left + w)

    def around(self, picture: Grey) -> Grey:
        """The stored frame with `picture` in its place; a new array."""
        framed = self._ground.copy()
        framed[self.window] = picture
        if self.logo is not None:
            _draw_logo(framed, self.logo)
        return framed

    def mask(self, inner: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """A mask of the picture as a mask of the stored frame."""
        if self.full:
            return inner
        framed = np.zeros((self.height, self.width), np.bool_)
        framed[self.window] = inner
        return framed

    def points(self, inner: Points) -> Points:
        """Points of the picture (x, y) as points of the stored frame."""
        return inner + np.array([float(self.left), float(self.top)])

    @cached_property
    def _ground(self) -> Grey:
        canvas = np.full((self.height, self.width), self.ground, np.uint8)
        for bar in self.bars:
            _draw_bar(canvas, bar)
        return canvas


def draw_screen(rng: np.random.Generator, ranges: Ranges, height: int, width: int) -> Screen:
    """Most pictures fill the frame; some have black bars, some a viewer around them."""
    size = height, width
    logo = _some_logo(rng, size) if rng.random() < ranges.logo_share else None
    if rng.random() < ranges.viewer_share:
        return _viewer(rng, ranges, size, logo)
    if rng.random() >= ranges.boxed_share:
        return Screen(height, width, 0, 0, size, logo=logo)
    share = float(rng.uniform(*ranges.box))
    kind = rng.choice(("pillar", "letter", "window"), p=(0.5, 0.3, 0.2))
    h = height if kind == "pillar" else round(share * height)
    w = width if kind == "letter" else round(share * width)
    off = float(rng.choice((0.5, 0.5, 0.5, 0.0, 1.0)))  # mostly in the middle
    ground = int(rng.integers(10, 60)) if rng.random() < 0.15 else 0
    top, left = round(off * (height - h)), round(off * (width - w))
    return Screen(height, width, top, left, (h, w), logo=logo, ground=ground)


def _viewer(
    rng: np.random.Generator, ranges: Ranges, size: tuple[int, int], logo: Logo | None
) -> Screen:
    """A picture in the window of a program: bars along one to three sides."""
    height, width = size
    grey = int(rng.integers(25, 235))
    ink = min(grey + 110, 255) if grey < 120 else max(grey - 110, 0)
    lost = 1 - float(rng.uniform(*ranges.box))
    room = {"left": 0, "right": 0, "top": 0, "bottom": 0}
    bars: list[Bar] = []
    upright: Side = "left" if rng.random() < 0.5 else "right"
    level: Side = "top" if rng.random() < 0.7 else "bottom"
    with_side = rng.random() < 0.7
    wanted: list[tuple[Side, float]] = [(upright, lost)] if with_side else []
    if not with_side or rng.random() < 0.5:
        wanted.append((level, max(0.05, 0.4 * lost)))
    for side, share in wanted:
        along = width if side in ("left", "right") else height
        room[side] = max(6, round(share * along))
        bars.append(Bar(side, room[side], grey, ink, int(rng.integers(2**31))))
    h = height - room["top"] - room["bottom"]
    w = width - room["left"] - room["right"]
    return Screen(height, width, room["top"], room["left"], (h, w), tuple(bars), logo)


def _draw_bar(canvas: Grey, bar: Bar) -> None:
    h, w = canvas.shape
    t = bar.thickness
    upright = bar.side in ("left", "right")
    rows = {"top": slice(0, t), "bottom": slice(h - t, h)}.get(bar.side, slice(0, h))
    columns = {"left": slice(0, t), "right": slice(w - t, w)}.get(bar.side, slice(0, w))
    area = canvas[rows, columns]
    area[:] = bar.grey
    rng = np.random.default_rng(bar.seed)
    length, unit = (h if upright else w), max(4, min(t, round(0.045 * max(h, w))))
    at = unit // 2
    while at + unit < length * 0.97:
        x, y = (max(2, (t - unit) // 3), at) if upright else (at, max(0, (t - unit) // 2))
        at += _item(area, rng, (x, y), unit, bar.ink)
    ends = {"left": ((t - 1, 0), (t - 1, h)), "right": ((0, 0), (0, h)),
            "top": ((0, t - 1), (w, t - 1)), "bottom": ((0, 0), (w, 0))}[bar.side]  # fmt: skip
    cv2.line(area, *ends, (bar.grey + bar.ink) // 2, 1)


_LABELS = ("File", "View", "Zoom", "W/L", "Cine", "Pan", "Save", "Series 2", "Frame", "Play", "1:1")


def _item(area: Grey, rng: np.random.Generator, at: tuple[int, int], unit: int, ink: int) -> int:
    """One icon, label or gap of a bar; returns how much room it takes along the bar."""
    (x, y), d = at, round(0.7 * unit)
    kind = int(rng.integers(6))
    middle, thin = (x + d // 2, y + d // 2), cv2.LINE_AA
    if kind == 0:
        cv2.rectangle(area, (x, y), (x + d, y + d), ink, 1)
        cv2.line(area, (x, y + d), (x + d, y), ink, 1, thin)
    elif kind == 1:
        cv2.circle(area, middle, max(d // 2, 1), ink, 1, thin)
        cv2.line(area, middle, (x + d, y + d), ink, 1, thin)
    elif kind == 2:
        triangle = np.array([(x, y), (x + d, y + d // 2), (x, y + d)], np.int32)
        cv2.fillPoly(area, [triangle], ink, thin)
    elif kind == 3:
        label = str(rng.choice(_LABELS))
        cv2.putText(
            area, label, (x, y + d), cv2.FONT_HERSHEY_SIMPLEX, max(unit / 42, 0.2), ink, 1, thin
        )
        return 2 * unit if area.shape[0] < area.shape[1] else unit
    elif kind == 4:
        cv2.rectangle(area, (x, y), (x + 2 * d, y + d), (ink + int(area[0, 0])) // 2, -1)
        return 3 * unit if area.shape[0] < area.shape[1] else unit
    return round(unit * 1.25)


def _some_logo(rng: np.random.Generator, size: tuple[int, int]) -> Logo:
    height, width = size
    radius = max(3, round(rng.uniform(0.02, 0.05) * min(size)))
    edge = round(1.8 * radius)
    kinds: tuple[Literal["ring", "cross", "waves"], ...] = ("ring", "cross", "waves")
    return Logo(
        x=edge if rng.random() < 0.5 else width - edge,
        y=edge if rng.random() < 0.5 else height - edge,
        radius=radius,
        grey=int(rng.integers(120, 256)),
        kind=kinds[int(rng.integers(3))],
        letters=str(rng.choice(("", "", "SIM", "XR", "FLUORO"))),
    )


def _draw_logo(canvas: Grey, logo: Logo) -> None:
    at, r, thin = (logo.x, logo.y), logo.radius, cv2.LINE_AA
    if logo.kind == "ring":
        cv2.circle(canvas, at, r, logo.grey, max(r // 5, 1), thin)
        cv2.ellipse(canvas, at, (r, max(r // 3, 1)), 25, 0, 360, logo.grey, 1, thin)
    elif logo.kind == "cross":
        third = max(r // 3, 1)
        cv2.rectangle(canvas, (at[0] - r, at[1] - third), (at[0] + r, at[1] + third), logo.grey, -1)
        cv2.rectangle(canvas, (at[0] - third, at[1] - r), (at[0] + third, at[1] + r), logo.grey, -1)
    else:
        for part in (0.4, 0.7, 1.0):
            arc = (round(part * r), round(part * r))
            cv2.ellipse(canvas, at, arc, 0, 200, 340, logo.grey, max(r // 8, 1), thin)
    if logo.letters:
        cv2.putText(
            canvas, logo.letters, (at[0] - r, at[1] + round(1.6 * r)), cv2.FONT_HERSHEY_SIMPLEX,
            max(r / 30, 0.2), logo.grey, 1, thin,
        )  # fmt: skip
