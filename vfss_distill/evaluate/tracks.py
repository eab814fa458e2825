"""Tracks: what the masks of one result say frame by frame, before any measure is taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .edge import Edge
from .film import Film
from .landmarks import centroid, corner, find_spine, largest_part
from .results import Result

LEAST_FRAMES = 5
BRIDGED_S = 0.2
BOLUS_LEAST_FRAMES = 2
APART_S = 0.5  # a swallow is not over before; what barium comes back until then is residue

Trace = NDArray[np.float64]  # one value per frame, NaN where it cannot be measured


@dataclass(frozen=True)
class Tracks:
    """One value per frame and quantity.

    `length_px`, `hyoid` and `hyoid_corner` (n×2, %C2-4), `pharynx_px` and `overlap_px` hold NaN
    where a frame does not show what they need, or repeats the one before it: `new` is False
    there. `spine_cut`, `hyoid_cut`: left out for the picture's edge, which cuts C2 or C4, or the
    hyoid. `has` names the tasks of the model, `untrained` (id → name) those that it was not trained
    on.
    """

    film: Film
    new: NDArray[np.bool_]
    length_px: Trace
    hyoid: Trace
    hyoid_corner: Trace
    pharynx_px: Trace
    overlap_px: Trace
    spine_cut: NDArray[np.bool_]
    hyoid_cut: NDArray[np.bool_]
    has: frozenset[str]
    untrained: Mapping[str, str]

    @property
    def times_s(self) -> Trace:
        """Of the frames."""
        return np.array(self.film.times_s)

    def resolution(self, *frames: int) -> tuple[str, ...]:
        """Caveats of times read from `frames`: how fine they are, and whether they are real.

        A time is no finer than one frame, than one that differs from the last, and than the gaps
        beside it, which a film of uneven times can have anywhere. No frame that repeats the last
        one shortens a gap.
        """
        times_ms = self.times_s * 1000
        new = np.delete(np.arange(len(times_ms)), self.film.repeats)
        gaps_ms = np.diff(times_ms[new])
        if not len(gaps_ms):
            return ("one frame only",)
        typical, finest = float(np.median(np.diff(times_ms))), float(np.median(gaps_ms))
        if self.film.unique_fps:
            finest = 1000 / self.film.unique_fps
        said = f"one frame is {typical:.0f} ms"
        if finest > 1.2 * typical:
            said += f", but new ones come every {finest:.0f} ms"
        places = np.searchsorted(new, frames)
        beside = max(float(gaps_ms[max(place - 1, 0) : place + 1].max()) for place in places)
        if beside > 1.2 * max(typical, finest):
            said += f", with a gap of {beside:.0f} ms beside the one measured"
        return (said, self.film.clock) if self.film.clock else (said,)

    def within(self, frames: NDArray[np.bool_]) -> Tracks:
        """What some of the frames say."""

        def cut(trace: Trace) -> Trace:
            kept = trace.copy()
            kept[~frames] = np.nan
            return kept

        return replace(
            self,
            new=self.new & frames,
            length_px=cut(self.length_px),
            hyoid=cut(self.hyoid),
            hyoid_corner=cut(self.hyoid_corner),
            pharynx_px=cut(self.pharynx_px),
            overlap_px=cut(self.overlap_px),
            spine_cut=self.spine_cut & frames,
            hyoid_cut=self.hyoid_cut & frames,
        )

    def with_repeats(self, frames: NDArray[np.intp]) -> tuple[int, ...]:
        """`frames`, all new, and those that repeat them: a list that reads as spans."""
        known = np.zeros(len(self.new), bool)
        known[frames] = True
        first = np.maximum.accumulate(np.where(self.new, np.arange(len(known)), 0))
        return tuple(np.flatnonzero(known[first]).tolist())


def track(result: Result, film: Film) -> Tracks:
    """Read the masks once, frame by frame. Raises DataError when one cannot be read."""
    has = frozenset(result.tasks.ids)
    n = result.frames
    length, pharynx, overlap = (np.full(n, np.nan) for _ in range(3))
    hyoid, tip = np.full((n, 2), np.nan), np.full((n, 2), np.nan)
    new = np.ones(n, bool)
    spine_cut, hyoid_cut = np.zeros(n, bool), np.zeros(n, bool)
    new[list(film.repeats)] = False
    edge = _edge(result, film)
    # A pulse that is stored four times is one observation: its failure would have good neighbours.
    for frame in map(int, np.flatnonzero(new)):
        spine = None
        if {"c2", "c4"} <= has:
            c2, c4 = result.mask("c2", frame), result.mask("c4", frame)
            spine = find_spine(c2, c4, facing=film.facing, edge=edge)
        if spine is not None and spine.cut:
            spine_cut[frame] = True
        elif spine is not None:
            length[frame] = spine.length_px
            bone = largest_part(result.mask("hyoid", frame)) if "hyoid" in has else None
            if bone is not None and edge.cuts(bone):
                hyoid_cut[frame] = True
            elif bone is not None:
                hyoid[frame] = spine.place(centroid(bone))
                tip[frame] = spine.place(corner(bone, spine))
        if "pharynx" in has:
            lumen = result.mask("pharynx", frame)
            pharynx[frame] = np.count_nonzero(lumen) or np.nan
            if "bolus" in has:
                overlap[frame] = np.count_nonzero(lumen & result.mask("bolus", frame))
    untrained = {task.id: task.name for task in result.tasks if task.id in result.untrained}
    return Tracks(
        film,
        new,
        length,
        hyoid,
        tip,
        pharynx,
        overlap,
        spine_cut,
        hyoid_cut,
        has,
        untrained,
    )


def _edge(result: Result, film: Film) -> Edge:
    # Earlier versions showed every film in a square of the model's own side.
    side = result.run.get("side_px") or result.run.get("model", {}).get("image_size")
    return Edge.of(film.lit or (0, 0, result.width, result.height), side)


def passages(
    there: NDArray[np.bool_], times_s: Trace, new: NDArray[np.bool_]
) -> list[tuple[int, int]]:
    """(first, last) frames of each passage; short gaps are bridged, single frames dropped.

    Frames that are not `new` do not count, neither for a passage nor for a gap. Adjacent ones
    belong together where they come as slowly as ever, but not across a pause: nothing shows what
    the bolus did meanwhile.
    """
    place = np.cumsum(new)  # adjacent: one apart
    usual_s = float(np.median(np.diff(times_s[new]))) if np.count_nonzero(new) > 1 else 0.0
    runs: list[list[int]] = []
    for frame in np.flatnonzero(there & new):
        before = runs[-1][-1] if runs else None
        adjacent = before is not None and place[frame] - place[before] == 1
        bridged_s = max(BRIDGED_S, 1.5 * usual_s) if adjacent else BRIDGED_S
        if before is not None and times_s[frame] - times_s[before] <= bridged_s:
            runs[-1].append(int(frame))
        else:
            runs.append([int(frame)])
    return [(run[0], run[-1]) for run in runs if len(run) >= BOLUS_LEAST_FRAMES]


def without_spikes(trace: Trace) -> tuple[Trace, int]:
    """`trace` with lone outliers as NaN, and how many there were.

    A value is one when it lies more than 20 % of the trace's median off its two neighbours, and
    that step is over three times the step from them to the next two (plus noise): a mask that fails
    in one frame jumps out of quiet surroundings, a true extreme is approached and left. Neighbours
    are the nearest values there are.
    """
    known = np.flatnonzero(~np.isnan(trace))
    if len(known) < LEAST_FRAMES:
        return trace, 0
    values = trace[known]
    padded = np.pad(values, 2, constant_values=np.nan)
    near = _mean_of_two(padded[1:-3], padded[3:-1])
    far = _mean_of_two(padded[:-4], padded[4:])
    step, approach = np.abs(values - near), np.abs(near - far)
    noise = 1.4826 * float(np.median(step))
    limit = np.maximum(3 * (approach + noise), 0.2 * abs(float(np.median(values))))
    spikes = known[step > limit]
    clean = trace.copy()
    clean[spikes] = np.nan
    return clean, len(spikes)


def _mean_of_two(a: Trace, b: Trace) -> Trace:
    """Their mean; where one is NaN, the other."""
    a, b = np.where(np.isnan(a), b, a), np.where(np.isnan(b), a, b)
    return (a + b) / 2
