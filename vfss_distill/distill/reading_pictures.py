"""readings.png of a run: what was read in frames nobody has labelled, and what of it is learned.

draw_readings(folder / FILE, frames, {"the reader": (masks, taught)}, tasks)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ..provenance import RESEARCH_USE_ONLY
from ..tasks import TaskSet
from .pictures import draw_table

Bytes = NDArray[np.uint8]
Flags = NDArray[np.bool_]

FILE = "readings.png"
_SIDE = 384
_FILL = 0.3
_WORDS = (
    "Filled: learned from. Outline alone: not; so far nothing is, or it is less sure than in half "
    "of the frames, or lies where something else is.\n"
    "Rows: from a frame in which the reader is sure to one in which it is not.\n"
    f"{RESEARCH_USE_ONLY}"
)


def draw_readings(
    target: Path, frames: Bytes, columns: Mapping[str, tuple[Bytes, Flags]], tasks: TaskSet
) -> None:
    """Frames (n, S, S); by title masks (n, T, m, m), 255 for sure, and which are learned (n, T).

    Raises StorageError.
    """
    large = np.stack([cv2.resize(frame, (_SIDE, _SIDE)) for frame in frames])
    pictures = {"frame": large}
    for title, (masks, taught) in columns.items():
        pictures[title] = np.stack(
            [_outlined(*one, tasks) for one in zip(large, masks, taught, strict=True)]
        )
    draw_table(pictures, target, {task.name: task.colour for task in tasks}, _WORDS)


def _outlined(frame: Bytes, maps: Bytes, taught: Flags, tasks: TaskSet) -> Bytes:
    """RGB (S, S, 3). The first task (the bolus) lies on top, as in overlays."""
    picture = cv2.cvtColor(frame, cv2.COLOR_GRAY2RGB)
    shown = []
    for task, map_, learned in reversed(list(zip(tasks, maps, taught, strict=True))):
        mask = (cv2.resize(map_, frame.shape[::-1]) > 127).astype(np.uint8)
        lines, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        shown.append((lines, task.colour))
        if learned:
            flat = np.full_like(picture, task.colour)
            cv2.copyTo(cv2.addWeighted(picture, 1 - _FILL, flat, _FILL, 0), mask, picture)
    for lines, colour in shown:
        cv2.drawContours(picture, lines, -1, colour, 2)
    return picture.astype(np.uint8)
