"""What really happened in a simulated study: events, landmarks, measures.

Definitions: the ASPEKT method (10.1044/2023_JSLHR-23-00246, Table 1). Events are read off what was
drawn, so they agree with the masks to the frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .swallow import Plan
from .timeline import Timeline

EVENTS = ("BPM", "HYB", "UESO", "UESC", "LVC", "LVCoff", "MPC", "rest")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Truth:
    """`events`: frame index or None; `landmarks`: (n, 2) pixels; the rest JSON-ready."""

    events: dict[str, int | None]
    landmarks: dict[str, Floats]
    measures: dict[str, Any]
    findings: dict[str, Any]


def truth_of(
    plan: Plan,
    line: Timeline,
    *,
    landmarks: dict[str, Floats],
    pharynx_px: NDArray[np.int64],
    past_ramus: NDArray[np.bool_],
    frame_times_s: Floats,
    facing: str,
) -> Truth:
    events = _events(plan, line, pharynx_px, past_ramus)
    measures = _measures(events, landmarks, pharynx_px, frame_times_s, facing)
    return Truth(events, landmarks, measures, plan.findings)


def _events(
    plan: Plan, line: Timeline, pharynx_px: NDArray[np.int64], past_ramus: NDArray[np.bool_]
) -> dict[str, int | None]:
    """Of the first swallow, the one that measures are taken from."""
    events: dict[str, int | None] = dict.fromkeys(EVENTS)
    if not plan.swallows:
        return events
    s, t = plan.swallows[0], line.times_s
    events["HYB"] = _first(t >= s.burst)
    events["BPM"] = _first(past_ramus & (t >= s.prop))
    during = (t >= s.burst - 0.1) & (t <= s.back)
    if s.ues_mm >= 2.5:
        events["UESO"] = _first(t >= s.opening)
        events["UESC"] = _first(t >= s.closing)
    events["LVC"] = _first(t >= s.closed)
    events["LVCoff"] = _first(t > s.reopened)
    events["rest"] = _first(t >= s.back)
    if during.any() and t[-1] >= s.closing:
        window = np.flatnonzero(during)
        events["MPC"] = int(window[np.argmin(pharynx_px[window])])
    return events


def _first(condition: NDArray[np.bool_]) -> int | None:
    """First frame where it holds; None when it never does or did from the start."""
    if not condition.any() or condition[0]:
        return None
    return int(np.argmax(condition))


def hyoid_in_c2_4(landmarks: dict[str, Floats], facing: str) -> Floats:
    """Hyoid corner in %C2-4, (n, 2): forwards, upwards; origin A4, y along A4→A2."""
    axis = landmarks["A2"] - landmarks["A4"]
    length = np.linalg.norm(axis, axis=1, keepdims=True)
    up = axis / length
    # Forwards is to the left of "up" on the screen when the patient faces left.
    forward = np.column_stack([up[:, 1], -up[:, 0]]) * (1 if facing == "left" else -1)
    offset = (landmarks["hyoid"] - landmarks["A4"]) * 100 / length
    result: Floats = np.column_stack([(offset * forward).sum(1), (offset * up).sum(1)])
    return result


def _measures(
    events: dict[str, int | None],
    landmarks: dict[str, Floats],
    pharynx_px: NDArray[np.int64],
    times: Floats,
    facing: str,
) -> dict[str, Any]:
    length = np.linalg.norm(landmarks["A2"] - landmarks["A4"], axis=1)
    measures: dict[str, Any] = {"c2_4_px": round(float(length.mean()), 3)}
    for name, start, stop in (
        ("srt", "BPM", "HYB"),
        ("hyb_ueso", "HYB", "UESO"),
        ("ueso_dur", "UESO", "UESC"),
        ("ttlvc", "HYB", "LVC"),
        ("lvc_dur", "LVC", "LVCoff"),
    ):
        first, last = events[start], events[stop]
        both = first is not None and last is not None
        measures[f"{name}_frames"] = last - first if both else None  # type: ignore[operator]
        measures[f"{name}_ms"] = (
            round(1000 * float(times[last] - times[first]), 1) if both else None
        )
    for name in ("MPC", "rest"):
        frame = events[name]
        area = None if frame is None else 100 * pharynx_px[frame] / length[frame] ** 2
        measures[f"pharynx_area_{name.lower()}_pct"] = (
            None if area is None else round(float(area), 3)
        )
    measures |= _hyoid(events, hyoid_in_c2_4(landmarks, facing))
    return measures


def _hyoid(events: dict[str, int | None], track: Floats) -> dict[str, Any]:
    names = ("hyoid_x_peak_pct", "hyoid_y_peak_pct", "hyoid_xy_peak_pct", "hyoid_peak_frame")
    burst = events["HYB"]
    if burst is None:
        return dict.fromkeys(names)
    stop = events["rest"] or len(track)
    distance = np.linalg.norm(track, axis=1)
    peak = burst + int(np.argmax(distance[burst : max(stop, burst + 1)]))
    values = (*track[peak], distance[peak])
    return dict(zip(names, [*(round(float(v), 3) for v in values), peak], strict=True))
