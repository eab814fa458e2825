"""What really happened in a simulated study: events, landmarks, measures.

Definitions: the ASPEKT method (10.1044/2023_JSLHR-23-00246, Table 1). Events are read off what was
drawn, so they agree with the masks to the frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .swallow import Plan, Swallow
from .timeline import Timeline

EVENTS = ("BPM", "HYB", "UESO", "UESC", "LVC", "LVCoff", "MPC", "rest")

# What nobody would outline is no truth: barium that changes the picture by fewer grey levels (of
# 255) at its darkest and at its edge, is narrower, or covers less in one piece for how dark it is;
# or that drowns in noise: over VISIBLE_MM2 an eye needs a contrast of some five deviations (Rose).
# A piece of SPOT_MM at most is a spot, a pool or a drop, and may be narrower than a line may.
VISIBLE_GREY, EDGE_GREY = 10.0, 6.0
VISIBLE_MM, SPOT_MM = 1.5, 5.0
VISIBLE_MM2 = 8.0
ROSE = 5.0

Floats = NDArray[np.float64]
Measures = dict[str, Any]


@dataclass(frozen=True)
class Truth:
    """`events`: frame index or None, of the measured swallow; `swallows`: the same of each one.

    `landmarks`: (n, 2) pixels; the rest JSON-ready.
    """

    events: dict[str, int | None]
    swallows: list[dict[str, Any]]
    landmarks: dict[str, Floats]
    measures: dict[str, Any]
    findings: dict[str, Any]


def truth_of(
    plan: Plan,
    line: Timeline,
    *,
    landmarks: dict[str, Floats],
    sizes: dict[str, Floats],
    past_ramus: NDArray[np.bool_],
    frame_times_s: Floats,
    facing: str,
) -> Truth:
    """`sizes`: areas and widths in pixels by name, (n,) each; `past_ramus`: where the bolus is."""
    events = _events(plan, line, sizes["pharynx"], past_ramus)
    length = np.linalg.norm(landmarks["A2"] - landmarks["A4"], axis=1)
    measures: Measures = {"c2_4_px": round(float(length.mean()), 3)}
    measures |= _intervals(events, frame_times_s)
    measures |= _hyoid(events, hyoid_in_c2_4(landmarks, facing), frame_times_s)
    measures |= _areas(events, sizes, length)
    each = [_of_swallow(swallow, line.times_s) for swallow in plan.filmed]
    return Truth(events, each, landmarks, measures, plan.findings)


def visible(
    drawn: NDArray[np.bool_],
    contrast: NDArray[np.float32],
    noise: NDArray[np.float32],
    px_per_mm: float,
) -> NDArray[np.bool_]:
    """Where `drawn` barium can be seen: the truth of the task "bolus".

    `contrast`: by how many grey levels of 255 it changes the picture; `noise`: deviation of a
    pixel's noise, in levels, were it another in each. A piece needs a contrast of VISIBLE_GREY, and
    of ROSE times the noise of the mean over VISIBLE_MM2, on that much area; what is twice as dark
    may be half as large (Ricco's law, of spots too small to have a shape). It reaches as far as
    EDGE_GREY. What is thinner than VISIBLE_MM is left out, but in a piece of SPOT_MM at most: the
    pool at the bottom of a space is two pixels high, and whether these make a disc is chance. Less
    is a trace that nobody could outline. A film on the mucosa never counts.
    """
    wet = drawn & (contrast >= EDGE_GREY)
    if not wet.any():
        return wet
    column, row, width, height = cv2.boundingRect(wet.view(np.uint8))
    window = slice(row, row + height), slice(column, column + width)
    here = wet[window]
    inside = _wide(here, VISIBLE_MM * px_per_mm) | _short_pieces(here, SPOT_MM * px_per_mm)
    least_px = VISIBLE_MM2 * px_per_mm**2
    averaged = noise[window] / np.sqrt(max(least_px, 1.0))
    clear = contrast[window] / np.maximum(VISIBLE_GREY, ROSE * averaged)
    wet[window] = _large_pieces(inside, np.where(clear >= 1, clear, 0), least_px)
    return wet


def _large_pieces(
    mask: NDArray[np.bool_], weight: NDArray[np.floating[Any]], least: float
) -> NDArray[np.bool_]:
    """The connected pieces of `mask` (h, w) over which `weight` (h, w) sums to `least` or more."""
    count, labels = cv2.connectedComponents(mask.view(np.uint8))
    large = np.bincount(labels.ravel(), weight.ravel(), minlength=count) >= least
    large[0] = False
    pieces: NDArray[np.bool_] = large[labels]
    return pieces


def _short_pieces(mask: NDArray[np.bool_], length_px: float) -> NDArray[np.bool_]:
    """The connected pieces of `mask` (h, w) that a square of `length_px` can hold."""
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8))
    sides = boxes[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]]
    short = (sides <= length_px).all(axis=1)
    short[0] = False
    pieces: NDArray[np.bool_] = short[labels]
    return pieces


def _wide(mask: NDArray[np.bool_], width_px: float) -> NDArray[np.bool_]:
    """What of `mask` (h, w) a disc so wide, to the nearest pixel, can cover (an opening)."""
    side = round(width_px)
    if side <= 1:
        return mask
    across = np.arange(side) - (side - 1) / 2
    # Half a pixel less: three pixels across are a cross, four lose their corners.
    disc = (across[:, None] ** 2 + across**2 <= side**2 / 4 - 0.5).astype(np.uint8)
    # The anchor of the one is mirrored in the other: with an even side its middle is no pixel.
    shrunk = cv2.erode(mask.view(np.uint8), disc, anchor=(0, 0), borderValue=0)
    opened = cv2.dilate(shrunk, disc, anchor=(side - 1, side - 1), borderValue=0)
    return np.ascontiguousarray(opened).view(np.bool_)


def _events(
    plan: Plan, line: Timeline, pharynx_px: Floats, past_ramus: NDArray[np.bool_]
) -> dict[str, int | None]:
    """Of the first swallow not over at the start; None for what was before, after, or never."""
    events: dict[str, int | None] = dict.fromkeys(EVENTS)
    if plan.measured is None:
        return events
    s, t = plan.swallows[plan.measured], line.times_s
    events |= _moments(s, t)
    if s.share > 0:
        events["BPM"] = _first(past_ramus & (t >= s.prop))
    if s.burst > 0 and t[-1] >= s.closing:
        window = np.flatnonzero((t >= s.burst - 0.1) & (t <= s.back))
        events["MPC"] = int(window[np.argmin(pharynx_px[window])])
    return events


def _moments(s: Swallow, t: Floats) -> dict[str, int | None]:
    """Frames of what is planned to the second; a sphincter that fails has none."""
    return {
        "HYB": _first(t >= s.burst),
        "UESO": _first(t >= s.opening) if s.passes else None,
        "UESC": _first(t >= s.closing) if s.passes else None,
        "LVC": _first(t >= s.closed),
        "LVCoff": _first(t > s.reopened),
        "rest": _first(t >= s.back),
    }


def _of_swallow(s: Swallow, t: Floats) -> dict[str, Any]:
    """One filmed swallow: the share of the bolus it takes, its PAS, its events."""
    return {"share": s.share, "pas": s.pas, "events": _moments(s, t)}


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


def _intervals(events: dict[str, int | None], times: Floats) -> Measures:
    """ASPEKT's intervals, and PTT: head at the ramus to UES shut behind the tail."""
    measures: Measures = {}
    for name, start, stop in (
        ("srt", "BPM", "HYB"),
        ("hyb_ueso", "HYB", "UESO"),
        ("ueso_dur", "UESO", "UESC"),
        ("ttlvc", "HYB", "LVC"),
        ("lvc_dur", "LVC", "LVCoff"),
        ("ptt", "BPM", "UESC"),
    ):
        first, last = events[start], events[stop]
        if first is None or last is None:
            measures |= {f"{name}_frames": None, f"{name}_ms": None}
            continue
        seconds = float(times[last] - times[first])
        measures |= {f"{name}_frames": last - first, f"{name}_ms": round(1000 * seconds, 1)}
    return measures


def _areas(events: dict[str, int | None], sizes: dict[str, Floats], length: Floats) -> Measures:
    """Pharynx, sphincter and residue in %(C2-4)² and %C2-4."""
    rest, tightest = events["rest"], events["MPC"]
    measures: Measures = {
        "pharynx_area_mpc_pct": _squared(sizes["pharynx"], length, tightest),
        "pharynx_area_rest_pct": _squared(sizes["pharynx"], length, rest),
        "pharynx_constriction_ratio": None,
        "ues_max_pct": None,
        "ues_max_frame": None,
    }
    at_rest, constricted = measures["pharynx_area_rest_pct"], measures["pharynx_area_mpc_pct"]
    if at_rest and constricted is not None:
        measures["pharynx_constriction_ratio"] = round(constricted / at_rest, 4)
    opened, shut = events["UESO"], events["UESC"]
    if opened is not None and shut is not None:
        widest = opened + int(np.argmax(sizes["ues"][opened : shut + 1]))
        diameter = 100 * float(sizes["ues"][widest] / length[widest])
        measures |= {"ues_max_pct": round(diameter, 3), "ues_max_frame": widest}
    for name in ("vallecula", "pyriform"):
        residue = _squared(sizes[f"{name}_residue"], length, rest)
        full = None
        if rest is not None and sizes[name][rest] > 0:
            full = round(100 * float(sizes[f"{name}_residue"][rest] / sizes[name][rest]), 2)
        measures |= {f"{name}_residue_pct": residue, f"{name}_full_pct": full}
        # Normalised residue ratio scale (PMC3584199): share of the space times scaled area.
        both = residue is not None and full is not None
        measures[f"{name}_nrrs"] = round(full / 100 * residue / 10, 4) if both else None  # type: ignore[operator]
    measures["total_residue_pct"] = _squared(sizes["total_residue"], length, rest)
    return measures


def _squared(area_px: Floats, length: Floats, frame: int | None) -> float | None:
    """%(C2-4)²."""
    return None if frame is None else round(100 * float(area_px[frame] / length[frame] ** 2), 3)


def _hyoid(events: dict[str, int | None], track: Floats, times: Floats) -> Measures:
    """Peak position and mean speed from burst to peak, of the antero-inferior corner."""
    names = ("hyoid_x_peak_pct", "hyoid_y_peak_pct", "hyoid_xy_peak_pct", "hyoid_peak_frame",
             "hyoid_xy_speed_pct_per_s")  # fmt: skip
    burst = events["HYB"]
    if burst is None:
        return dict.fromkeys(names)
    stop = events["rest"] or len(track)
    distance = np.linalg.norm(track, axis=1)
    peak = burst + int(np.argmax(distance[burst : max(stop, burst + 1)]))
    rounded = [round(float(value), 3) for value in (*track[peak], distance[peak])]
    speed = None
    if peak > burst:
        gone = float(distance[peak] - distance[burst])
        speed = round(gone / float(times[peak] - times[burst]), 2)
    return dict(zip(names, [*rounded, peak, speed], strict=True))
