"""Which swallow of a film is measured, and which of its frames are that swallow's.

Told by the bolus, which passes the pharynx, and the hyoid, which moves meanwhile: barium that
spills into the pharynx before a swallow, or comes and goes after it, is none of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .definitions import REST_FRAMES, STILL_PERCENT
from .tracks import APART_S, LEAST_FRAMES, Trace, Tracks, without_spikes

Span = tuple[int, int]  # first and last frame


def one_swallow(
    tracks: Tracks, scale: Trace | None, runs: Sequence[Span]
) -> tuple[Tracks, Sequence[Span], tuple[str, ...]]:
    """The frames of the swallow that is measured, the passages of its bolus, and what is to be said
    of it. All frames where it is alone.

    `scale`: L per frame, NaN where it may not scale; None: no frame may, and the hyoid tells
    nothing. `runs`: passages of the bolus through the pharynx.

    A swallow that barium is in from the film's first frame on had begun before it: then the next
    one is the first whole one.
    """
    found = _swallows(tracks, scale, runs)
    if len(found) < 2:
        return tracks, runs, ()
    begun = found[0][0] == 0
    own = _frames_of(found, tracks.times_s)[int(begun)]
    first, last = np.flatnonzero(own)[[0, -1]]
    which = "second" if begun else "first"
    why = ", for the first had begun before the film" if begun else ""
    said = (
        f"{len(found)} swallows, told by bolus and hyoid: the {which} is measured, "
        f"frames {first}-{last}{why}"
    )
    return tracks.within(own), [run for run in runs if own[run[0]]], (said,)


def _swallows(tracks: Tracks, scale: Trace | None, runs: Sequence[Span]) -> list[Span]:
    """From the first to the last barium of each. One without motion is of the next swallow, or of
    the last where none follows."""
    apart = _apart(runs, tracks.times_s)
    if len(apart) < 2:
        return apart
    found: list[Span] = []
    waiting: Span | None = None
    for span, frames in zip(apart, _frames_of(apart, tracks.times_s), strict=True):
        whole = (waiting[0] if waiting else span[0], span[1])
        waiting = None
        if scale is None or _hyoid_moves(tracks.within(frames), scale):
            found.append(whole)
        else:
            waiting = whole
    if waiting:
        found = [*found[:-1], (found[-1][0] if found else waiting[0], waiting[1])]
    return found


def _apart(runs: Sequence[Span], times_s: Trace) -> list[Span]:
    """Passages closer than 0.5 s are one swallow's."""
    found: list[Span] = []
    for first, last in runs:
        if found and times_s[first] - times_s[found[-1][1]] < APART_S:
            found[-1] = (found[-1][0], last)
        else:
            found.append((first, last))
    return found


def _frames_of(spans: Sequence[Span], times_s: Trace) -> list[NDArray[np.bool_]]:
    """Of each its frames: it begins and ends half-way between the bolus that left the pharynx and
    the next one to come. Where the one's rest ends and the other's rise begins, nothing tells."""
    half_ways = [(times_s[one[1]] + times_s[two[0]]) / 2 for one, two in pairwise(spans)]
    borders = [-np.inf, *half_ways, np.inf]
    return [(times_s > after) & (times_s <= until) for after, until in pairwise(borders)]


def _hyoid_moves(tracks: Tracks, scale: Trace) -> bool:
    """Whether the hyoid leaves the place where it is in the first frames by more than noise. Also
    where it cannot be followed: nothing then speaks against a swallow."""
    places = np.where(np.isnan(scale)[:, None], np.nan, tracks.hyoid)
    frames = np.flatnonzero(~np.isnan(places[:, 0]))
    if len(frames) < LEAST_FRAMES:
        return True
    rest = np.median(places[frames[:REST_FRAMES]], axis=0)
    away, _ = without_spikes(np.hypot(*(places - rest).T))
    return bool(np.nanmax(away) >= STILL_PERCENT)
