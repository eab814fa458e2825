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

_SIDE = 240
_GAP = 2
_LINE = 22  # height of a line of writing
_PHASES = 6
_MOST_PATIENTS = 6
_FONT, _SMALL = cv2.FONT_HERSHEY_SIMPLEX, 0.42
_WHITE, _YELLOW = (235, 235, 235), (80, 220, 255)
_WIDE = _PHASES * (_SIDE + _GAP) - _GAP

Colour = NDArray[np.uint8]  # BGR (H, W, 3)


def contact_sheet(root: Path, options: DatasetOptions) -> Path:
    """Write `root`/contact-sheet.png: of each patient a row of frames and a row of masks."""
    bands = [_legend()]
    for number in range(min(options.patients, _MOST_PATIENTS)):
        bands += _band(Job(number, 0, options))
    target = root / "contact-sheet.png"
    write_bytes(target, cv2.imencode(".png", np.vstack(bands))[1].tobytes())
    return target


def _band(job: Job) -> list[Colour]:
    """One patient: what was filmed, the moments, frames, masks."""
    simulator = StudySimulator(job.patient_seed, job.study_number, job.options.study)
    moments = _moments(simulator)
    last = max(moments.values())
    wanted, frames = set(moments.values()), {}
    for frame in simulator.frames():
        if frame.index in wanted:
            frames[frame.index] = frame
        if frame.index == last:
            break
    plan = simulator.plan.findings
    drink = "saliva" if plan["kind"] == "dry" else f"{plan['volume_ml']} ml {plan['consistency']}"
    title = (
        f"{job.study}: {plan['kind']}, {drink}, {simulator.machine.polarity}, "
        f"{simulator.pulses:g} pulses/s, faces {simulator.facing}"
    )
    names = _line()
    for column, (moment, index) in enumerate(moments.items()):
        words = f"{simulator.frame_times_s[index]:.2f} s  {moment}"
        _write(names, words, column * (_SIDE + _GAP) + 4, _WHITE)
    shown = [frames[index] for index in moments.values()]
    return [
        _line(title),
        _row([_small(_colour(frame.grey)) for frame in shown]),
        _row([_small(with_masks(frame)) for frame in shown]),
        names,
    ]


def with_masks(frame: SimulatedFrame) -> Colour:
    """BGR (H, W, 3): the frame with every task's mask in its colour."""
    shown: NDArray[Any] = _colour(frame.grey).astype(np.float32)
    for task in reversed(VFSS12.tasks):  # the bolus last, on top of what it passes
        mask = frame.masks[task.id]
        colour = np.array(task.colour[::-1], np.float32)
        shown[mask] = 0.62 * shown[mask] + 0.38 * colour
        inner = cv2.erode(mask.view(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
        shown[mask & ~inner] = colour
    return shown.astype(np.uint8)


def _moments(simulator: StudySimulator) -> dict[str, int]:
    """Frames at telling moments of the first swallow in the film, or evenly spread."""
    count, fps = len(simulator.frame_times_s), simulator.options.fps
    if not simulator.plan.filmed:
        evenly = np.linspace(0, count - 1, _PHASES).round().astype(int)
        return {f"frame {i}": int(i) for i in evenly}
    s = simulator.plan.filmed[0]
    middle = 0.5 * (s.opening + s.closing)
    times = {
        "before": min(s.prop, s.burst) - 0.1,
        "past the ramus": s.ramus + 0.06,
        "UES opens": max(s.opening, s.burst) + 0.04,
        "UES open": middle,
        "UES shuts": s.closing,
        "rest": s.back,
    }
    if not s.passes:
        times = {name.replace("UES", "no passage,"): time for name, time in times.items()}
    return dict(_in_film(name, round(time * fps), count) for name, time in times.items())


def _in_film(moment: str, frame: int, count: int) -> tuple[str, int]:
    """What is shown of a moment and what it is called: films begin too late and end too early."""
    if frame < 0:
        return f"begins after: {moment}", 0
    return (moment, frame) if frame < count else (f"ends before: {moment}", count - 1)


def _legend() -> Colour:
    """That nobody was filmed, and the colour of each task."""
    line = _line()
    x = _write(line, "SIMULATED, no real patient", 4, _YELLOW) + 16
    for task in VFSS12.tasks:
        red, green, blue = task.colour
        cv2.rectangle(line, (x, 6), (x + 10, 16), (blue, green, red), -1)
        x = _write(line, task.id, x + 15, _WHITE) + 14
    return line


def _line(words: str = "") -> Colour:
    line = np.zeros((_LINE, _WIDE, 3), np.uint8)
    if words:
        _write(line, words, 4, _WHITE)
    return line


def _write(line: Colour, words: str, x: int, colour: tuple[int, int, int]) -> int:
    """Write at `x`; returns where the writing ends."""
    cv2.putText(line, words, (x, 15), _FONT, _SMALL, colour, 1, cv2.LINE_AA)
    return x + int(cv2.getTextSize(words, _FONT, _SMALL, 1)[0][0])


def _row(pictures: list[Colour]) -> Colour:
    row = np.zeros((_SIDE + _GAP, _WIDE, 3), np.uint8)
    for column, picture in enumerate(pictures):
        left = column * (_SIDE + _GAP)
        row[:_SIDE, left : left + _SIDE] = picture
    return row


def _colour(grey: NDArray[np.uint8]) -> Colour:
    return np.repeat(grey[..., None], 3, axis=2)


def _small(image: Colour) -> Colour:
    h, w = image.shape[:2]
    size = (round(_SIDE * w / max(h, w)), round(_SIDE * h / max(h, w)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    canvas = np.zeros((_SIDE, _SIDE, 3), np.uint8)
    top, left = (_SIDE - small.shape[0]) // 2, (_SIDE - small.shape[1]) // 2
    canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
    return canvas
