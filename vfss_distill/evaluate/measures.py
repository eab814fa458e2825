"""Swallow measures from the masks of one result, with the frames each was read from.

Definitions follow ASPEKT (Steele and others; see docs) where masks can carry them, and say so
where they differ. Of several swallows the first whole one is measured. A measure that the masks
cannot support is not printed, and its reason is kept. Frames are 0-based; those that repeat the one
before them are left out, for they are no observations of their own. Times come from the film's own
time stamps.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ..counting import counted
from ..intake.view import UNTOLD
from .definitions import (
    BOLUS_LEAST_PERCENT,
    BOLUS_LEAST_PX,
    DEFINITIONS,
    HARDLY_NARROWS,
    REST_FRAMES,
    SPREAD_LIMIT_PERCENT,
    STILL_PERCENT,
)
from .film import Film
from .results import Result
from .swallows import one_swallow
from .tracks import (
    LEAST_FRAMES,
    Trace,
    Tracks,
    passages,
    track,
    without_spikes,
)

_UNSTEADY = "no steady C2-4 length to scale by"
Flags = tuple[str, ...]
COLUMNS = ("measure", "value", "unit", "frames", "flags")


@dataclass(frozen=True)
class Measure:
    """One clinical number. `frames`: the 0-based frames it was read from; `flags`: caveats."""

    name: str
    value: float
    unit: str
    frames: tuple[int, ...]
    flags: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        return {
            "measure": self.name,
            "value": round(self.value, 4),
            "unit": self.unit,
            "frames": spans(self.frames),
            "flags": list(self.flags),
        }


@dataclass
class Measures:
    """What one result supports, and why it does not support the rest (`missing`: name → why)."""

    measured: list[Measure] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def lacks(self, names: Iterable[str], why: str) -> None:
        self.missing.update(dict.fromkeys(names, why))

    def to_csv(self) -> str:
        """UTF-8 text with a header; flags are separated by "; "."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for measure in self.measured:
            line = measure.to_dict()
            writer.writerow([*list(line.values())[:-1], "; ".join(measure.flags)])
        return stream.getvalue()


def measure_result(result: Result, film: Film) -> Measures:
    """All measures of one result. Raises DataError when a mask cannot be read."""
    found = Measures()
    if film.view != "lateral":
        found.lacks(DEFINITIONS, f"the view is {film.view}, not lateral")
        return found
    tracks = track(result, film)
    scale = _measure_spine(tracks, found)
    runs = passages(_bolus_there(tracks, scale), tracks.times_s, tracks.new)
    own, own_runs, said = one_swallow(tracks, None if isinstance(scale, str) else scale, runs)
    _measure_hyoid(own, scale, said, found)
    _measure_pharynx(own, scale, said, found)
    _measure_bolus(tracks, scale, own_runs, said, found)
    if film.view_assumed:
        found.measured = [replace(one, flags=(*one.flags, UNTOLD)) for one in found.measured]
    return found


def _measure_spine(tracks: Tracks, found: Measures) -> Trace | str:
    """L and its spread. Returns L per frame (NaN: not usable), or why nothing is scaled by it."""
    names = ("c2_c4_length", "c2_c4_length_spread")
    if why := _lacking(tracks, "c2", "c4") or _wrong_way(tracks):
        found.lacks(names, why)
        return why
    frames = np.flatnonzero(~np.isnan(tracks.length_px))
    cut = _cut_flags(tracks)
    if len(frames) < LEAST_FRAMES:
        why = "; ".join((f"C2 and C4 are both seen in {len(frames)} frames only", *cut))
        found.lacks(names, why)
        return why
    lengths = tracks.length_px[frames]
    low, median, high = np.percentile(lengths, [5, 50, 95])
    spread = float((high - low) / median * 100)
    absent = int(tracks.new.sum() - tracks.spine_cut.sum()) - len(frames)
    flags = (f"not found in {absent} frames",) if absent else ()
    steady = spread <= SPREAD_LIMIT_PERCENT
    refusal = () if steady else (f"above {SPREAD_LIMIT_PERCENT:g} %: scaled output refused",)
    found.measured += [
        Measure(names[0], float(median), "px", tracks.with_repeats(frames), (*flags, *cut)),
        Measure(names[1], spread, "%", tracks.with_repeats(frames), (*refusal, *cut)),
    ]
    if not steady:
        return _UNSTEADY
    scale = tracks.length_px.copy()
    scale[np.abs(scale / median - 1) * 100 > SPREAD_LIMIT_PERCENT] = np.nan
    return scale


def _wrong_way(tracks: Tracks) -> str:
    """Why the spine's corners are not those in front; "" where nothing speaks against them."""
    forward = tracks.hyoid[~np.isnan(tracks.hyoid[:, 0]), 0]
    if len(forward) < LEAST_FRAMES or np.median(forward) > 0:
        return ""
    return "the hyoid lies behind the spine: is the film mirrored?"


@dataclass(frozen=True)
class _Peak:
    """Where a point of the hyoid is farthest from A4, and at rest; %C2-4."""

    frame: int
    place: tuple[float, float]
    rest: Trace
    rest_frames: tuple[int, ...]
    flags: tuple[str, ...]

    @property
    def excursion(self) -> float:
        return float(np.hypot(*(np.array(self.place) - self.rest)))


def _measure_hyoid(tracks: Tracks, scale: Trace | str, said: Flags, found: Measures) -> None:
    names = [name for name in DEFINITIONS if name.startswith("hyoid")]
    why = _lacking(tracks, "hyoid", "c2", "c4")
    if why or isinstance(scale, str):
        found.lacks(names, why or str(scale))
        return
    said = (*_cut_flags(tracks, hyoid=True), *said)
    middle, tip = (_peak(tracks, scale, places) for places in (tracks.hyoid, tracks.hyoid_corner))
    if isinstance(middle, str) or isinstance(tip, str):
        found.lacks(names, "; ".join((str(middle if isinstance(middle, str) else tip), *said)))
        return
    flags = ("hyoid: mask centroid", *middle.flags, *said)
    _add_place("hyoid", middle, flags, found)
    rest = f"rest: median of the first {len(middle.rest_frames)} frames, not checked by a person"
    when = (middle.frame,)
    found.measured += [
        Measure(
            names[3], _ms(tracks, middle.frame), "ms", when, (*flags, *tracks.resolution(*when))
        ),
        Measure(names[4], middle.excursion, "%C2-4", (*middle.rest_frames, *when), (*flags, rest)),
    ]
    flags = ("hyoid: antero-inferior corner", *tip.flags, *said)
    _add_place("hyoid_corner", tip, flags, found)


def _add_place(name: str, peak: _Peak, flags: tuple[str, ...], found: Measures) -> None:
    x, y = peak.place
    for part, value in (("x", x), ("y", y), ("xy", float(np.hypot(x, y)))):
        found.measured.append(Measure(f"{name}_{part}_peak", value, "%C2-4", (peak.frame,), flags))


def _peak(tracks: Tracks, scale: Trace, places: Trace) -> _Peak | str:
    """The peak of a track (n×2), or why there is none."""
    places = np.where(np.isnan(scale)[:, None], np.nan, places)
    lost = tracks.new & np.isnan(places[:, 0])
    distance, spikes = without_spikes(np.hypot(*places.T))
    frames = np.flatnonzero(~np.isnan(distance))
    if len(frames) < LEAST_FRAMES:
        return f"the hyoid can be placed in {len(frames)} frames only"
    frame = int(frames[np.argmax(distance[frames])])
    resting = frames[:REST_FRAMES]
    rest = np.median(places[resting], axis=0)
    x, y = (float(part) for part in places[frame])
    gone = int(np.count_nonzero(lost & ~np.isnan(scale) & ~tracks.hyoid_cut))
    flags = [
        *_spike_flag(spikes),
        *_edge_flag(frame, frames),
        *_unscaled_flag(tracks, scale),
        *((f"hyoid not found in {counted(gone, 'frame')}",) if gone else ()),
        *_beside_flag(lost, tracks.new, frame),
    ]
    peak = _Peak(frame, (x, y), rest, _ints(resting), tuple(flags))
    if peak.excursion < STILL_PERCENT:
        flags.append(_no_swallow(f"moves less than {STILL_PERCENT:g} %C2-4", lost, tracks.new))
    return replace(peak, flags=tuple(flags))


def _measure_pharynx(tracks: Tracks, scale: Trace | str, said: Flags, found: Measures) -> None:
    names = [name for name in DEFINITIONS if name.startswith("pharynx")]
    why = _lacking(tracks, "pharynx", "c2", "c4")
    if why or isinstance(scale, str):
        found.lacks(names, why or str(scale))
        return
    said = (*_cut_flags(tracks), *said)
    area, spikes = without_spikes(tracks.pharynx_px / np.square(scale) * 100)
    frames = np.flatnonzero(~np.isnan(area))
    if len(frames) < LEAST_FRAMES:
        few = f"the pharynx can be measured in {len(frames)} frames only"
        found.lacks(names, "; ".join((few, *said)))
        return
    flags = (*_spike_flag(spikes), *said, *_unscaled_flag(tracks, scale))
    if gone := int(np.isnan(tracks.pharynx_px[tracks.new]).sum()):
        flags = (*flags, f"no pharynx mask in {gone} frames: obliterated or missed, not counted")
    largest = int(frames[np.argmax(area[frames])])
    smallest = int(frames[np.argmin(area[frames])])
    lost = tracks.new & np.isnan(tracks.pharynx_px / scale)
    flags = (*flags, *_beside_flag(lost, tracks.new, smallest, largest))
    top, bottom = float(area[largest]), float(area[smallest])
    if bottom / top > HARDLY_NARROWS:
        flags = (*flags, _no_swallow("hardly narrows", lost, tracks.new))
    found.measured += [
        Measure(names[0], top, "%(C2-4)²", (largest,), flags),
        Measure(names[1], bottom, "%(C2-4)²", (smallest,), flags),
        Measure(names[2], bottom / top, "ratio", (smallest, largest), flags),
    ]


def _bolus_there(tracks: Tracks, scale: Trace | str) -> NDArray[np.bool_]:
    """The frames with enough bolus in the pharynx."""
    least = float(BOLUS_LEAST_PX)
    if not isinstance(scale, str):
        least = BOLUS_LEAST_PERCENT / 100 * float(np.nanmedian(scale)) ** 2
    there: NDArray[np.bool_] = np.nan_to_num(tracks.overlap_px) >= least
    return there


def _measure_bolus(
    tracks: Tracks,
    scale: Trace | str,
    runs: Sequence[tuple[int, int]],
    said: Flags,
    found: Measures,
) -> None:
    names = [name for name in DEFINITIONS if name.startswith("bolus")]
    if why := _lacking(tracks, "bolus", "pharynx"):
        found.lacks(names, why)
        return
    if not runs:
        single = int(np.count_nonzero(_bolus_there(tracks, scale)))
        why = f"bolus is seen in the pharynx in {counted(single, 'single frame')} only"
        found.lacks(names, why if single else "no bolus is seen in the pharynx")
        return
    first, last = runs[0]
    flags = ["overlap threshold in pixels: no scale"] if isinstance(scale, str) else []
    flags += said
    if len(runs) > 1:
        flags.append(f"{len(runs)} passages, as of one swallow: the first is measured")
    starts_late, ends_early = first == 0, last == np.flatnonzero(tracks.new)[-1]
    if starts_late:
        flags.append("already there in the first frame: true onset is earlier")
    if ends_early:
        flags.append("still there in the last frame: residue, or the film ends too early")
    start, end = _ms(tracks, first), _ms(tracks, last)
    for name, value, frames in (
        (names[0], start, (first,)),
        (names[1], end, (last,)),
        (names[2], end - start, (first, last)),
    ):
        caveats = (*tracks.resolution(*frames), *flags)
        found.measured.append(Measure(name, value, "ms", frames, caveats))


def shown(value: float) -> str:
    """A measure with no more digits than it deserves, the same in the terminal and on a page."""
    value = round(value, 4) + 0.0  # as it is stored; no -0.0
    return f"{value:.1f}" if abs(value) >= 1 or value == 0 else f"{value:.2f}"


def spans(frames: Sequence[int]) -> str:
    """`(0, 1, 2, 7)` as "0-2 7"."""
    parts: list[list[int]] = []
    for frame in frames:
        if parts and frame == parts[-1][1] + 1:
            parts[-1][1] = frame
        else:
            parts.append([frame, frame])
    return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def _lacking(tracks: Tracks, *tasks: str) -> str:
    if missing := [task for task in tasks if task not in tracks.has]:
        return f"the model has no task {', '.join(missing)}"
    untrained = [name for task, name in tracks.untrained.items() if task in tasks]
    return f"the model was not trained on the {', '.join(untrained)}" if untrained else ""


def _ms(tracks: Tracks, frame: int) -> float:
    return float(tracks.times_s[frame]) * 1000


def _spike_flag(spikes: int) -> tuple[str, ...]:
    return (f"{counted(spikes, 'lone outlier frame')} left out",) if spikes else ()


def _cut_flags(tracks: Tracks, *, hyoid: bool = False) -> tuple[str, ...]:
    """What is left out of measures of the spine, and of the hyoid, for the picture's edge."""
    cut = {"C2 or C4": tracks.spine_cut, "the hyoid": tracks.hyoid_cut if hyoid else np.zeros(0)}
    counts = {what: int(np.count_nonzero(frames)) for what, frames in cut.items()}
    return tuple(
        f"the picture's edge cuts {what} in {count} frames: left out"
        for what, count in counts.items()
        if count
    )


def _unscaled_flag(tracks: Tracks, scale: Trace) -> Flags:
    """C2-4 was not found, or is far off its median."""
    number = int(np.count_nonzero(tracks.new & ~tracks.spine_cut & np.isnan(scale)))
    return (f"no usable C2-4 in {counted(number, 'frame')}",) if number else ()


def _beside_flag(lost: NDArray[np.bool_], new: NDArray[np.bool_], *extremes: int) -> Flags:
    """A caveat where the frame of an extreme has a neighbour that gives no value."""
    neighbours = np.convolve(lost[new], [1, 1, 1], mode="same") > 0
    if not neighbours[np.isin(np.flatnonzero(new), extremes)].any():
        return ()
    return ("beside frames that give no value: the true extreme may lie there",)


def _no_swallow(what: str, lost: NDArray[np.bool_], new: NDArray[np.bool_]) -> str:
    """What little moves tells nothing where a swallow may lie in frames in a row without value."""
    row = np.convolve(lost[new], np.ones(LEAST_FRAMES), mode="same")
    hidden = bool((row >= LEAST_FRAMES).any())
    return f"{what} where it is measured" if hidden else f"{what}: perhaps no swallow in this film"


def _edge_flag(peak: int, frames: NDArray[np.intp]) -> tuple[str, ...]:
    at_edge = peak in (frames[0], frames[-1])
    return ("peak in the first or last frame measured: it may lie outside",) if at_edge else ()


def _ints(frames: NDArray[np.intp]) -> tuple[int, ...]:
    return tuple(int(frame) for frame in frames)
