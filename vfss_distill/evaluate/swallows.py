"""Which swallow of a film is measured, and which of its frames are that swallow's.

Told by the bolus, which passes the pharynx, and the hyoid, which moves meanwhile: barium that
spills into the pharynx before a swallow, or comes and goes after it, is none of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from .definitions import REST_FRAMES, STILL_PERCENT
from .tracks import APART_S, Trace, Tracks, without_spikes

Span = tuple[int, int]  # first and last frame


@dataclass(frozen=True)
class _Swallow:
    """`span`: from the first to the last barium; `moved`: the first frame of the passage in which
    the hyoid moves, spilt barium before it left out; `followed`: the hyoid can be, there."""

    span: Span
    moved: int
    followed: bool


def one_swallow(
    tracks: Tracks, scale: Trace | None, runs: Sequence[Span]
) -> tuple[Tracks, Sequence[Span], tuple[str, ...]]:
    """The frames of the swallow that is measured, the passages of its bolus, and what is to be said
    of it. All frames where it is alone, or no bolus tells.

    `scale`: L per frame, NaN where it may not scale; None: no frame may, and the hyoid tells
    nothing. `runs`: passages of the bolus through the pharynx.

    A swallow that barium is in from the film's first frame on had begun before it: then the next
    one is the first whole one.
    """
    if not runs:
        return tracks, runs, ("no bolus passage: swallows are not told apart, all frames taken",)
    found = _swallows(tracks, scale, runs)
    if len(found) < 2:
        return tracks, runs, _perhaps_more(tracks, scale)
    begun = found[0].moved == 0
    own = _frames_of([one.span for one in found], tracks.times_s)[int(begun)]
    first, last = np.flatnonzero(own)[[0, -1]]
    which = "second" if begun else "first"
    why = ", for the first had begun before the film" if begun else ""
    followed = all(one.followed for one in found)
    how = "bolus and hyoid" if followed else "the bolus alone where the hyoid cannot be followed"
    said = (
        f"{len(found)} swallows, told by {how}: the {which} is measured, frames {first}-{last}{why}"
    )
    mine = tracks.within(own)
    return mine, [run for run in runs if own[run[0]]], (said, *_perhaps_more(mine, scale))


def _perhaps_more(tracks: Tracks, scale: Trace | None) -> tuple[str, ...]:
    """What is to be said where the hyoid rises more than once in one swallow's frames: so much
    barium may have stayed between two that nothing else tells them apart."""
    rises = 0 if scale is None else _rises(_distance(tracks, scale))
    if rises < 2:
        return ()
    return (f"the hyoid rises {rises} times in these frames: perhaps several swallows in one",)


def _swallows(tracks: Tracks, scale: Trace | None, runs: Sequence[Span]) -> list[_Swallow]:
    """Those in which the hyoid moves, or cannot be followed: nothing then speaks against one.
    Passages without motion are of the next swallow, or of the last where none follows."""
    apart = _apart(runs, tracks.times_s)
    found: list[_Swallow] = []
    waiting: Span | None = None
    for span, frames in zip(apart, _frames_of(apart, tracks.times_s), strict=True):
        whole = ((waiting or span)[0], span[1])
        moves = None
        if scale is not None:
            moves = _hyoid_moves(tracks.within(frames), scale, begun=span[0] == 0)
        waiting = whole if moves is False else None
        if waiting is None:
            found.append(_Swallow(whole, moved=span[0], followed=moves is not None))
    if waiting and found:
        found[-1] = replace(found[-1], span=(found[-1].span[0], waiting[1]))
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


def _hyoid_moves(tracks: Tracks, scale: Trace, *, begun: bool) -> bool | None:
    """Whether the hyoid rises, away from A4, by more than noise; None where it cannot be followed.

    A fall is the end of the swallow before, except in one that had `begun` before the film.
    """
    distance = _distance(tracks, scale)
    if len(distance) < REST_FRAMES:
        return None
    return _rise(distance) >= STILL_PERCENT or (begun and _rise(distance[::-1]) >= STILL_PERCENT)


def _distance(tracks: Tracks, scale: Trace) -> Trace:
    """The hyoid's distance from A4 in the frames in which it can be followed."""
    places = np.where(np.isnan(scale)[:, None], np.nan, tracks.hyoid)
    distance, _ = without_spikes(np.hypot(*places.T))
    return distance[~np.isnan(distance)]


def _rises(values: Trace) -> int:
    """How often they rise and, in between, fall again, by more than noise."""
    count, up = 0, False
    turn = values[0] if len(values) else 0.0  # the lowest, or highest, since the last rise or fall
    for value in values:
        turn = max(turn, value) if up else min(turn, value)
        if abs(value - turn) >= STILL_PERCENT:
            up, turn = not up, value
            count += up
    return count


def _rise(values: Trace) -> float:
    """How far they rise above what they were at their lowest before, by medians: a lowest frame is
    but noise."""
    rest = np.median(sliding_window_view(values, REST_FRAMES), axis=1)
    return float(np.max(values[REST_FRAMES - 1 :] - np.minimum.accumulate(rest)))
