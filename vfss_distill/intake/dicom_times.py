"""When each frame of a cine DICOM was taken, in seconds from the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

import numpy as np

from .source import ASSUMED

_FRAME_TIME = 0x00181063


@dataclass(frozen=True)
class FrameTimes:
    """Times by frame. `origin`: the attribute they come from. `assumed`: the header gave none."""

    times_s: tuple[float, ...] | None
    step_s: float
    origin: str = ""
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

    def or_of_film(self, fps: float | None) -> FrameTimes:
        """What the film inside says, where the header says nothing. It warns of gaps itself."""
        if not self.assumed:
            return self
        said = tuple(line for line in self.warnings if ASSUMED not in line)
        return FrameTimes(None, 1.0 / fps if fps else self.step_s, "film", warnings=said)


def frame_times(header: Any, count: int, assumed_fps: float, say_assumed: bool) -> FrameTimes:
    """Times of `count` frames from `header`, or at `assumed_fps` with a warning (`say_assumed`).

    FrameTimeVector, unless FrameIncrementPointer names FrameTime; times of the single frames of an
    enhanced object; FrameTime, ActualFrameDuration, CineRate, RecommendedDisplayFrameRate.
    """
    said: tuple[str, ...] = ()
    step, origin = _step(header)
    vector = header.get("FrameTimeVector")
    if vector is not None and count > 1 and not _points_at_frame_time(header, origin):
        times = _from_vector(vector, count)
        if times is not None:
            return _by_list(times, "FrameTimeVector", step)
        said = (f"FrameTimeVector does not fit {count} frames and was left out",)
    listed = _from_contents(header, count)
    if listed is not None:
        return _by_list(listed[0], listed[1], None, said)
    return _by_step(step, origin, count, assumed_fps, say_assumed, said)


def series_times(headers: Sequence[Any], assumed_fps: float, say_assumed: bool) -> FrameTimes:
    """Times of single-frame files in the order of their frames, as `frame_times` gives them.

    AcquisitionDateTime, AcquisitionDate and AcquisitionTime, ContentDate and ContentTime, or
    TriggerTime, when every file has one and they increase; else what the first header says.
    """
    said: tuple[str, ...] = ()
    for origin in _STAMPS:
        stamps = [acquired(header, origin) for header in headers]
        first = stamps[0]
        if len(stamps) < 2 or first is None or None in stamps:
            continue
        times = [stamp - first for stamp in stamps if stamp is not None]
        if all(before < after for before, after in pairwise(times)):
            return _by_list(tuple(times), origin, None, said)
        if any(times):
            said = (f"{origin} does not increase from file to file and was left out",)
    step, origin = _step(headers[0])
    return _by_step(step, origin, len(headers), assumed_fps, say_assumed, said)


_STAMPS = ("AcquisitionDateTime", "AcquisitionTime", "ContentTime", "TriggerTime")


def acquired(header: Any, origin: str) -> float | None:
    """Seconds at which a single-frame file was taken by one of `_STAMPS`, from any origin."""
    if origin == "TriggerTime":
        try:
            return float(header.get(origin)) / 1000.0
        except (TypeError, ValueError):
            return None
    text = str(header.get(origin) or "")
    if origin in ("AcquisitionTime", "ContentTime"):
        day = str(header.get(origin.replace("Time", "Date")) or "")
        text = (day or "20000101") + text if text else ""
    stamp = _parse(text)
    return None if stamp is None else (stamp - datetime(1900, 1, 1)).total_seconds()


def _by_list(
    times: tuple[float, ...], origin: str, step: float | None, said: tuple[str, ...] = ()
) -> FrameTimes:
    return FrameTimes(times, step or float(np.median(np.diff(times))), origin, warnings=said)


def _by_step(
    step: float | None,
    origin: str,
    count: int,
    assumed_fps: float,
    say_assumed: bool,
    said: tuple[str, ...],
) -> FrameTimes:
    if step is not None:
        return FrameTimes(None, step, origin, warnings=said)
    if count > 1 and say_assumed:
        said += (
            f"the header gives no frame time; {assumed_fps:g} {ASSUMED}, "
            "set it with `vfss ingest --fps`",
        )
    return FrameTimes(None, 1.0 / assumed_fps, "assumed", assumed=True, warnings=said)


def _points_at_frame_time(header: Any, origin: str) -> bool:
    return origin == "FrameTime" and header.get("FrameIncrementPointer") == _FRAME_TIME


def _step(header: Any) -> tuple[float | None, str]:
    """Seconds between frames, by the header's own preference, and the attribute that says so."""
    for name in ("FrameTime", "ActualFrameDuration"):
        if milliseconds := _number(header.get(name)):
            return milliseconds / 1000.0, name
    for name in ("CineRate", "RecommendedDisplayFrameRate"):
        if rate := _number(header.get(name)):
            return 1.0 / rate, name
    return None, ""


def _from_vector(vector: Any, count: int) -> tuple[float, ...] | None:
    """FrameTimeVector: increments in ms, the first belonging to frame 0 and therefore 0."""
    try:
        steps = np.asarray([float(value) for value in vector])
    except (TypeError, ValueError):
        return None
    if len(steps) == count - 1:
        steps = np.concatenate([[0.0], steps])
    if len(steps) != count or not np.isfinite(steps).all() or np.any(steps[1:] <= 0):
        return None
    times = np.cumsum(np.concatenate([[0.0], steps[1:]])) / 1000.0
    return tuple(times.tolist())


def _from_contents(header: Any, count: int) -> tuple[tuple[float, ...], str] | None:
    """Frame times of an enhanced object, when every frame has one and they increase."""
    groups = header.get("PerFrameFunctionalGroupsSequence")
    if count < 2 or groups is None or len(groups) != count:
        return None
    contents = [group.get("FrameContentSequence") for group in groups]
    for origin in ("FrameAcquisitionDateTime", "FrameReferenceDateTime"):
        stamps = [_parse(str(item[0].get(origin) or "")) if item else None for item in contents]
        first = stamps[0]
        if first is None or None in stamps:
            continue
        times = [(stamp - first).total_seconds() for stamp in stamps if stamp is not None]
        if all(before < after for before, after in pairwise(times)):
            return tuple(times), origin
    return None


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
