"""The picture of one overlay frame: the film, outlines on it, words beside it.

┌───────────────────┬──────────┐
│                   │ frame 12 │   Nothing is written over the film except the outlines:
│   film, outlines  │ 0.363 s  │   legend, frame number, time and notice lie outside it.
│                   │ ■ bolus  │
├───────────────────┴──────────┤
│ Research use only. …         │
└──────────────────────────────┘
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..provenance import RESEARCH_USE_ONLY
from ..tasks import TaskSet
from .masks import TaskMask

_PANEL_PX = 176
_MARGIN_PX = 12
_ROW_PX = 21
_FIRST_ROW_PX = 84
_SMALLEST_PX = 360  # a smaller film is enlarged by a whole factor, so that outlines can be seen
_LARGEST_PX = 2048  # a larger one is made smaller: browsers decode H.264 up to 4096 with luck
_FILL = 0.22
_PAPER = (28, 26, 24)  # BGR, as everything on the canvas
_BRIGHT = (238, 236, 234)
_MIDDLING = (168, 164, 160)
_DIM = (124, 120, 116)


@dataclass(frozen=True)
class Caption:
    """Words that stay the same in every frame; pseudonyms only."""

    study: str
    model: str
    warning: str = ""


class Canvas:
    """Draws frames of one film of `height` × `width` pixels."""

    def __init__(self, height: int, width: int, tasks: TaskSet, caption: Caption) -> None:
        self._film = _film_size(height, width)
        self._scale = (self._film[0] / height, self._film[1] / width)
        self._enlarged = self._film[0] >= height
        self._colours = {task.id: _bgr(task.colour) for task in tasks}
        self._font = cv2.FontFace("sans")
        self._lit, self._unlit = self._legend(tasks, True), self._legend(tasks, False)
        self._blank = self._paper(tasks, caption)
        self._ids = tasks.ids

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels, both even, as H.264 with 4:2:0 colour requires."""
        return self._blank.shape[0], self._blank.shape[1]

    def draw(
        self, grey: NDArray[np.uint8], number: int, time_s: float, masks: Sequence[TaskMask]
    ) -> NDArray[np.uint8]:
        """BGR (height, width, 3). `number`: the frame's, from 0 as everywhere."""
        canvas = self._blank.copy()
        film = canvas[: self._film[0], : self._film[1]]
        film[:] = cv2.cvtColor(self._resized(grey), cv2.COLOR_GRAY2BGR)
        # The first task (the bolus) is drawn last, on top of what it passes.
        shapes = [(mask, self._resized_mask(mask)) for mask in reversed(masks) if mask.area_px]
        for mask, (top, left, pixels) in shapes:
            self._fill(film, top, left, pixels, self._colours[mask.task])
        for mask, (top, left, pixels) in shapes:
            self._outline(film, top, left, pixels, self._colours[mask.task])
        self._panel(canvas, number, time_s, {mask.task for mask, _ in shapes})
        return canvas

    def _panel(
        self, canvas: NDArray[np.uint8], number: int, time_s: float, present: set[str]
    ) -> None:
        x = self._film[1] + _MARGIN_PX
        self._write(canvas, f"frame {number}", (x, 30), 17, _BRIGHT, 600)
        self._write(canvas, f"{time_s:.3f} s", (x, 54), 15, _MIDDLING)
        for row, task in enumerate(self._ids):
            if task in present:
                top = _FIRST_ROW_PX - _ROW_PX + 6 + row * _ROW_PX
                canvas[top : top + _ROW_PX, x : x + self._lit[row].shape[1]] = self._lit[row]

    def _paper(self, tasks: TaskSet, caption: Caption) -> NDArray[np.uint8]:
        height, width = self._film
        foot = [line for line in (caption.warning, caption.study, caption.model) if line]
        panel = _FIRST_ROW_PX + _ROW_PX * len(tasks) + 18 * len(foot) + _MARGIN_PX
        upper = max(height, panel)
        total = _even(width + _PANEL_PX)
        notice = _wrapped(RESEARCH_USE_ONLY, total - 2 * _MARGIN_PX)
        paper = np.zeros((_even(upper + 17 * len(notice) + _MARGIN_PX), total, 3), np.uint8)
        paper[:, width:] = _PAPER
        paper[height:] = _PAPER
        x = width + _MARGIN_PX
        for row, strip in enumerate(self._unlit):
            top = _FIRST_ROW_PX - _ROW_PX + 6 + row * _ROW_PX
            paper[top : top + _ROW_PX, x : x + strip.shape[1]] = strip
        for line, words in enumerate(reversed(foot)):
            self._write(
                paper, _cut(words, _PANEL_PX - 16, 12), (x, upper - 10 - 18 * line), 12, _DIM
            )
        for line, words in enumerate(notice):
            self._write(paper, words, (_MARGIN_PX, upper + 17 * (line + 1)), 12, _MIDDLING)
        return paper

    def _legend(self, tasks: TaskSet, lit: bool) -> list[NDArray[np.uint8]]:
        """One strip per task; dim where the task is absent in the frame."""
        strips = []
        for task in tasks:
            strip = np.empty((_ROW_PX, _PANEL_PX - 2 * _MARGIN_PX, 3), np.uint8)
            strip[:] = _PAPER
            corners = (1, 4), (12, 15)
            thickness = cv2.FILLED if lit else 1
            cv2.rectangle(strip, *corners, self._colours[task.id], thickness)
            name = _cut(task.name, strip.shape[1] - 24, 14)
            self._write(strip, name, (22, 15), 14, _BRIGHT if lit else _DIM)
            strips.append(strip)
        return strips

    def _write(
        self,
        image: NDArray[np.uint8],
        words: str,
        origin: tuple[int, int],
        size: int,
        colour: tuple[int, int, int],
        weight: int = 400,
    ) -> None:
        cv2.putText(image, words, origin, colour, self._font, size, weight)

    def _resized(self, grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if grey.shape == self._film:
            return grey
        how = cv2.INTER_NEAREST if self._enlarged else cv2.INTER_AREA
        resized: NDArray[np.uint8] = cv2.resize(grey, self._film[::-1], interpolation=how)
        return resized

    def _resized_mask(self, mask: TaskMask) -> tuple[int, int, NDArray[np.uint8]]:
        pixels = mask.pixels.view(np.uint8)
        if self._scale == (1.0, 1.0):
            return mask.top, mask.left, pixels
        down, across = self._scale
        height, width = self._film  # at its rim, of a film made smaller, a row is left all the same
        top = min(height - 1, round(mask.top * down))
        left = min(width - 1, round(mask.left * across))
        bottom = min(height, max(top + 1, round((mask.top + pixels.shape[0]) * down)))
        right = min(width, max(left + 1, round((mask.left + pixels.shape[1]) * across)))
        size = (right - left, bottom - top)
        return top, left, cv2.resize(pixels, size, interpolation=cv2.INTER_NEAREST)

    @staticmethod
    def _fill(
        film: NDArray[np.uint8],
        top: int,
        left: int,
        pixels: NDArray[np.uint8],
        colour: tuple[int, int, int],
    ) -> None:
        part = film[top : top + pixels.shape[0], left : left + pixels.shape[1]]
        flat = np.full_like(part, colour)
        cv2.copyTo(cv2.addWeighted(part, 1 - _FILL, flat, _FILL, 0), pixels, part)

    @staticmethod
    def _outline(
        film: NDArray[np.uint8],
        top: int,
        left: int,
        pixels: NDArray[np.uint8],
        colour: tuple[int, int, int],
    ) -> None:
        # A border of zeros, or shapes that touch the box are not closed along it.
        ringed = cv2.copyMakeBorder(pixels, 1, 1, 1, 1, cv2.BORDER_CONSTANT)
        lines, _ = cv2.findContours(ringed, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        # `film` is a view into the canvas: OpenCV draws into it and clips at its edge.
        cv2.drawContours(film, lines, -1, colour, 1, cv2.LINE_8, offset=(left - 1, top - 1))


def _film_size(height: int, width: int) -> tuple[int, int]:
    if max(height, width) > _LARGEST_PX:
        scale = _LARGEST_PX / max(height, width)
        return max(1, round(height * scale)), max(1, round(width * scale))
    factor = max(1, -(-_SMALLEST_PX // max(height, width)))
    return height * factor, width * factor


def _bgr(rgb: tuple[int, int, int]) -> tuple[int, int, int]:
    return rgb[2], rgb[1], rgb[0]


def _even(pixels: int) -> int:
    return pixels + pixels % 2


def _width(words: str, size: int) -> int:
    rectangle: Any = cv2.getTextSize((0, 0), words, (0, 0), cv2.FontFace("sans"), size, 400)
    return int(rectangle[2])


def _cut(words: str, width: int, size: int) -> str:
    if _width(words, size) <= width:
        return words
    while words and _width(words + "…", size) > width:
        words = words[:-1]
    return words + "…"


def _wrapped(words: str, width: int) -> list[str]:
    lines = [""]
    for word in words.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _width(longer, 12) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
