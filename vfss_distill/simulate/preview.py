"""A contact sheet: frames beside their masks, several phases of several patients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..tasks import VFSS12
from ..workspace import write_bytes
from .dataset import DatasetOptions, Job
from .study import SimulatedFrame, StudySimulator

_SIDE = 224
_PHASES = 5
_MOST_PATIENTS = 6


def contact_sheet(root: Path, options: DatasetOptions) -> Path:
    """Write `root`/contact-sheet.png: a row of frames and a row of masks per patient."""
    rows = []
    for number in range(min(options.patients, _MOST_PATIENTS)):
        simulator = StudySimulator(Job(number, 0, options).patient_seed, 0, options.study)
        wanted = set(_phases(simulator))
        frames = [frame for frame in simulator.frames() if frame.index in wanted]
        while len(frames) < _PHASES:
            frames.append(frames[-1])
        rows.append(np.hstack([_small(_colour(frame.grey)) for frame in frames[:_PHASES]]))
        rows.append(np.hstack([_small(with_masks(frame)) for frame in frames[:_PHASES]]))
    sheet = np.vstack(rows)
    words = "SIMULATED, no real patient"
    cv2.putText(
        sheet, words, (6, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (80, 220, 255), 1, cv2.LINE_AA
    )
    target = root / "contact-sheet.png"
    write_bytes(target, cv2.imencode(".png", sheet)[1].tobytes())
    return target


def with_masks(frame: SimulatedFrame) -> NDArray[np.uint8]:
    """BGR (H, W, 3): the frame with every task's mask in its colour."""
    shown: NDArray[Any] = _colour(frame.grey).astype(np.float32)
    for task in reversed(VFSS12.tasks):  # the bolus last, on top of what it passes
        mask = frame.masks[task.id]
        colour = np.array(task.colour[::-1], np.float32)
        shown[mask] = 0.62 * shown[mask] + 0.38 * colour
        inner = cv2.erode(mask.view(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
        shown[mask & ~inner] = colour
    return shown.astype(np.uint8)


def _phases(simulator: StudySimulator) -> list[int]:
    """Frames at telling moments of the first swallow, or evenly spread."""
    count, fps = len(simulator.frame_times_s), simulator.options.fps
    if not simulator.plan.swallows:
        return [int(i) for i in np.linspace(0, count - 1, _PHASES)]
    s = simulator.plan.swallows[0]
    times = (
        s.prop - 0.05,
        s.ramus + 0.08,
        s.opening + 0.03,
        0.4 * s.opening + 0.6 * s.closing,
        s.back,
    )
    return [int(np.clip(round(time * fps), 0, count - 1)) for time in times]


def _colour(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(grey[..., None], 3, axis=2)


def _small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    h, w = image.shape[:2]
    size = (round(_SIDE * w / max(h, w)), round(_SIDE * h / max(h, w)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    canvas = np.zeros((_SIDE, _SIDE, 3), np.uint8)
    canvas[: small.shape[0], : small.shape[1]] = small
    return canvas
