"""From probability maps on the square to masks at the size of the source.

Structures are small beside the frame, so only the box around each is brought back to full size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..letterbox import Letterbox

# Above this share of the frame, resizing the whole map with OpenCV is faster than the box.
_LARGE = 0.25


@dataclass(frozen=True)
class TaskMask:
    """One task's mask in one frame, as the box that holds all of it; source pixels.

    `pixels` is bool (h, w) with its first pixel at (`top`, `left`); 0×0 when the task is absent.
    `x_px`, `y_px`: centroid, centre of the first pixel at 0. `confidence`: mean probability inside
    the mask. The last three are None when absent.
    """

    task: str
    top: int
    left: int
    pixels: NDArray[np.bool_]
    area_px: int = 0
    x_px: float | None = None
    y_px: float | None = None
    confidence: float | None = None

    def full(self, height: int, width: int) -> NDArray[np.uint8]:
        """The mask as it is saved: uint8 (height, width), 0 or 255."""
        out = np.zeros((height, width), np.uint8)
        rows, columns = self.pixels.shape
        out[self.top : self.top + rows, self.left : self.left + columns][self.pixels] = 255
        return out


class MaskMaker:
    """Thresholded masks of frames that all lie alike in the square.

    Same result as thresholding `Letterbox.undo` (p ≥ threshold), up to float rounding: linear
    interpolation never exceeds its neighbours, so no mask pixel lies outside the box.
    """

    def __init__(
        self, letterbox: Letterbox, tasks: Sequence[str], thresholds: Sequence[float]
    ) -> None:
        self.letterbox = letterbox
        self.tasks = tuple(tasks)
        self.thresholds = np.asarray(thresholds, np.float32)
        self._x, self._y, width, height = letterbox.shown
        self._shown = width, height
        self._rows = _Axis(letterbox.scaled_height, height)
        self._columns = _Axis(letterbox.scaled_width, width)

    def __call__(self, maps: NDArray[np.float32]) -> tuple[TaskMask, ...]:
        """`maps`: probabilities (T, S, S). One mask per task, in the order of the tasks."""
        box = self.letterbox
        inner = maps[
            :,
            box.top : box.top + box.scaled_height,
            box.left : box.left + box.scaled_width,
        ]
        hot: NDArray[np.bool_] = inner >= self.thresholds[:, None, None]
        return tuple(
            self._mask(number, inner[number], hot[number]) for number in range(len(self.tasks))
        )

    def _mask(self, number: int, inner: NDArray[np.float32], hot: NDArray[np.bool_]) -> TaskMask:
        task, threshold = self.tasks[number], self.thresholds[number]
        in_rows = np.flatnonzero(hot.any(axis=1))
        if not len(in_rows):
            return _absent(task)
        in_columns = np.flatnonzero(hot.any(axis=0))
        rows = self._rows.around(in_rows[0], in_rows[-1])
        columns = self._columns.around(in_columns[0], in_columns[-1])
        if rows.share * columns.share > _LARGE:
            # Letterbox.undo on the map alone; the padding around it plays no part.
            top, left, probability = 0, 0, self._undo(inner)
        else:
            top, left = rows.start, columns.start
            crop = inner[rows.low : rows.high, columns.low : columns.high]
            probability = np.asarray(rows.weights @ crop @ columns.weights.T, np.float32)
        found = probability >= threshold
        return _measured(task, self._y + top, self._x + left, probability, found)

    def _undo(self, inner: NDArray[np.float32]) -> NDArray[np.float32]:
        import cv2

        whole: NDArray[np.float32] = cv2.resize(
            np.ascontiguousarray(inner), self._shown, interpolation=cv2.INTER_LINEAR
        )
        return whole


@dataclass(frozen=True)
class _Span:
    """Part of an axis: outputs from `start`, made of inputs [low, high), `share` of the axis."""

    start: int
    low: int
    high: int
    weights: NDArray[np.float32]
    share: float


class _Axis:
    """Linear interpolation along one axis, as OpenCV's INTER_LINEAR has it (pixel centres, ends
    held), as a matrix (outputs × inputs) with two weights per row."""

    def __init__(self, inputs: int, outputs: int) -> None:
        centres = (np.arange(outputs) + 0.5) * (inputs / outputs) - 0.5
        position = centres.clip(0, inputs - 1)
        self.low = np.floor(position).astype(int)
        self.high = np.minimum(self.low + 1, inputs - 1)
        share = (position - self.low).astype(np.float32)
        self.weights = np.zeros((outputs, inputs), np.float32)
        np.add.at(self.weights, (np.arange(outputs), self.low), 1 - share)
        np.add.at(self.weights, (np.arange(outputs), self.high), share)

    def around(self, first: int, last: int) -> _Span:
        """All outputs that the inputs `first` to `last` have a part in."""
        touched = np.flatnonzero((self.high >= first) & (self.low <= last))
        if not len(touched):  # a shrinking axis may step over these inputs
            touched = np.array([np.abs(self.low - first).argmin()])
        start, stop = int(touched[0]), int(touched[-1]) + 1
        low, high = int(self.low[start]), int(self.high[stop - 1]) + 1
        weights = self.weights[start:stop, low:high]
        return _Span(start, low, high, weights, (stop - start) / len(self.low))


def _absent(task: str) -> TaskMask:
    return TaskMask(task, 0, 0, np.zeros((0, 0), np.bool_))


def _measured(
    task: str,
    top: int,
    left: int,
    probability: NDArray[np.float32],
    pixels: NDArray[np.bool_],
) -> TaskMask:
    in_rows = np.count_nonzero(pixels, axis=1)
    area = int(in_rows.sum())
    if not area:
        return _absent(task)
    in_columns = np.count_nonzero(pixels, axis=0)
    return TaskMask(
        task,
        top,
        left,
        pixels,
        area_px=area,
        x_px=left + float(in_columns @ np.arange(len(in_columns))) / area,
        y_px=top + float(in_rows @ np.arange(len(in_rows))) / area,
        confidence=float(probability[pixels].mean(dtype=np.float64)),
    )
