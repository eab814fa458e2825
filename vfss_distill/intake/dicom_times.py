"""When each frame of a cine DICOM was taken, in seconds from the first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np


@dataclass(frozen=True)
class FrameTimes:
    """Times by frame. `assumed`: the header gave none. `fps`: frames per second, nominal."""

    times_s: tuple[float, ...] | None
    step_s: float
    assumed: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def fps(self) -> float:
        if self.times_s is not None and len(self.times_s) > 1:
            return float(1.0 / np.median(np.diff(self.times_s)))
        return 1.0 / self.step_s

    def of(self, index: int) -> float:
        """Seconds from the first frame; frames beyond the list follow at the nominal step."""
        if self.times_s is None:
            return index * self.step_s
        if index < len(self.times_s):
            return self.times_s[index]
        return self.times_s[-1] + (index - len(self.times_s) + 1) * self.step_s


def frame_times(header: Any, count: int, assumed_fps: float, say_assumed: bool) -> FrameTimes:
    """Times of `count` frames from `header`, or at `assumed_fps` with a warning (`say_assumed`)."""
    said: tuple[str, ...] = ()
    step = _step(header)
    vector = header.get("FrameTimeVector")
    if vector is not None and count > 1:
        times = _from_vector(vector, count)
        if times is not None:
            return FrameTimes(times, step or float(np.median(np.diff(times))))
        said = (f"FrameTimeVector does not fit {count} frames and was left out",)
    times = _from_contents(header, count)
    if times is not None and step is None:
        return FrameTimes(times, float(np.median(np.diff(times))), warnings=said)
    if step is not None:
        return FrameTimes(None, step, warnings=said)
    if count > 1 and say_assumed:
        said += (
            f"the header gives no frame time; {assumed_fps:g} frames/s assumed, set it with --fps",
        )
    return FrameTimes(None, 1.0 / assumed_fps, assumed=True, warnings=said)


def _step(header: Any) -> float | None:
    """Seconds between frames, by the header's own preference."""
    milliseconds = _number(header.get("FrameTime")) or _number(header.get("ActualFrameDuration"))
    if milliseconds:
        return milliseconds / 1000.0
    for name in ("CineRate", "RecommendedDisplayFrameRate"):
        if rate := _number(header.get(name)):
            return 1.0 / rate
    return None


def _from_vector(vector: Any, count: int) -> tuple[float, ...] | None:
    """FrameTimeVector: increments in ms, the first belonging to frame 0 and therefore 0."""
    try:
        steps = np.asarray([float(value) for value in vector])
    except TypeError:
        return None
    if len(steps) == count - 1:
        steps = np.concatenate([[0.0], steps])
    if len(steps) != count or not np.isfinite(steps).all() or np.any(steps[1:] <= 0):
        return None
    times = np.cumsum(np.concatenate([[0.0], steps[1:]])) / 1000.0
    return tuple(times.tolist())


def _from_contents(header: Any, count: int) -> tuple[float, ...] | None:
    """Frame times of an enhanced object, when every frame has one and they increase."""
    groups = header.get("PerFrameFunctionalGroupsSequence")
    if count < 2 or groups is None or len(groups) != count:
        return None
    stamps = []
    for group in groups:
        content = group.get("FrameContentSequence")
        text = str(content[0].get("FrameReferenceDateTime") or "") if content else ""
        text = text or (str(content[0].get("FrameAcquisitionDateTime") or "") if content else "")
        stamp = _parse(text)
        if stamp is None:
            return None
        stamps.append(stamp)
    times = np.asarray([(stamp - stamps[0]).total_seconds() for stamp in stamps])
    return tuple(times.tolist()) if np.all(np.diff(times) > 0) else None


def _parse(text: str) -> datetime | None:
    text = text.split("+")[0].split("-")[0].strip()
    for form in ("%Y%m%d%H%M%S.%f", "%Y%m%d%H%M%S"):
        try:
            return datetime.strptime(text, form)
        except ValueError:
            continue
    return None


def _number(value: Any) -> float | None:
    """A positive finite number, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) and number > 0 else None
