"""Frames that only repeat the one before: 15 pulses a second stored as 30 frames.

A time measured on such a film is no finer than the pulses are, whatever the file's rate says.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_STRIDE = 4  # every fourth pixel each way: enough to see noise change, 1/16 of the work
_SAME = 0.1  # mean grey levels; coders repeat a frame all but exactly
_SAME_PEAK = 1.0  # and no small block of it changes by more: else something moves there
_SHARE_OF_TYPICAL = 0.1  # and by far less than frames of this film otherwise differ
_WORTH_SAYING = 0.1
_LONG = 2.5  # of the usual interval: a pause, or a picture that stands still
_AS_STORED = 0.95

# A capture of analogue video, or a lossy coder, puts fresh noise on a repeated pulse. Then new
# frames are told by their rhythm: they change twice as much as the others, on average and where
# they change most, and come at even intervals. (Key frames and B-frames have a rhythm too, but what
# moves, moves in all of them.)
_FEWEST = 12
_TWICE = 2.0
_LONGEST = 8  # frames a pulse: 7.5 pulses stored as 60 fields
_BLOCK = 4  # of sampled pixels: means of 16 hide the noise, not what moves
_EVEN = 0.95  # share of intervals that are the mean one, rounded either way
_OFF = 0.3  # share of frames off the beat that may change none the less

DIGEST_LETTERS = 16


@dataclass
class RepeatCounter:
    """Feed frames in order with `add`; ask `repeats`, `unique_fps` and `warning` at the end."""

    _before: NDArray[np.int16] | None = None
    # Arrays, not lists: an hour has 108000 frames.
    _changes: array[float] = field(default_factory=lambda: array("d"))
    _peaks: array[float] = field(default_factory=lambda: array("d"))

    def add(self, grey: NDArray[np.uint8]) -> None:
        """`grey` uint8 (H, W), the same size each time."""
        now = grey[::_STRIDE, ::_STRIDE].astype(np.int16)
        if self._before is not None:
            change = now - self._before
            self._peaks.append(_peak(change))
            self._changes.append(float(np.abs(change).mean()))
        self._before = now

    @property
    def repeats(self) -> tuple[int, ...]:
        """Indices of frames that repeat their predecessor; none in a film where nothing moves."""
        changes = np.asarray(self._changes)
        if not len(changes):
            return ()
        peaks = np.asarray(self._peaks)
        same = _off_beat(changes, peaks)
        if not same.any():
            typical = float(np.percentile(changes, 90))
            same = (changes <= _SAME) & (changes < _SHARE_OF_TYPICAL * typical)
            same &= peaks <= _SAME_PEAK
        return tuple((np.flatnonzero(same) + 1).tolist())

    @property
    def repeated(self) -> int:
        """How many frames repeat their predecessor."""
        return len(self.repeats)

    def unique_fps(self, frame_times_s: Sequence[float]) -> float | None:
        """Frames per second that show something new, pauses and still stretches left out; None
        where fewer than two do."""
        return _usual_rate(frame_times_s, self.repeats)

    def warning(self, frame_times_s: Sequence[float]) -> str | None:
        """One line when repeats matter, else None."""
        count = len(self._changes) + 1
        if self.repeated < _WORTH_SAYING * count:
            return None
        said = f"{self.repeated} of {count} frames repeat the one before: "
        rate, stored = (_usual_rate(frame_times_s, some) for some in (self.repeats, ()))
        if rate is None or stored is None or rate > _AS_STORED * stored:
            return f"{said}the picture stands still there"
        return (
            f"{said}about {rate:.1f} pulses/s stored as {stored:.1f} frames/s; "
            "times are no finer than that"
        )


def _usual_rate(frame_times_s: Sequence[float], repeats: Sequence[int]) -> float | None:
    """Frames per second without `repeats`, at the usual intervals; None of a single frame."""
    new = np.delete(np.asarray(frame_times_s), list(repeats))
    if len(new) < 2:
        return None
    gaps = np.diff(np.append(new, frame_times_s[0] + duration_s(frame_times_s)))
    # Their mean: 15 pulses a second stored as 25 frames come one or two frames apart.
    return 1 / float(np.mean(gaps[gaps <= _LONG * np.median(gaps)]))


def duration_s(frame_times_s: Sequence[float]) -> float:
    """From the first frame to the end of the last, which lasts as long as the median one."""
    if len(frame_times_s) < 2:
        return 0.0
    return float(frame_times_s[-1] - frame_times_s[0] + np.median(np.diff(frame_times_s)))


def frame_digest(grey: NDArray[np.uint8]) -> str:
    """64 bits of BLAKE2b over the pixels of one frame, as 16 hexadecimal letters."""
    pixels = np.ascontiguousarray(grey).data
    return hashlib.blake2b(pixels, digest_size=DIGEST_LETTERS // 2).hexdigest()


def _peak(change: NDArray[np.int16]) -> float:
    """The largest change of a small block, in mean grey levels."""
    height, width = (size // _BLOCK * _BLOCK for size in change.shape)
    if not height or not width:
        return float(np.abs(change).max())
    rows = change[:height].reshape(height // _BLOCK, _BLOCK, -1).sum(axis=1, dtype=np.int16)
    blocks = rows[:, :width].reshape(len(rows), -1, _BLOCK).sum(axis=2, dtype=np.int16)
    return float(np.abs(blocks).max()) / _BLOCK**2


def _off_beat(changes: NDArray[np.float64], peaks: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which changes lie between the beats of a film whose new frames come in an even rhythm."""
    nothing = np.zeros(len(changes), bool)
    if len(changes) < _FEWEST or not changes.any():
        return nothing
    least = max(float(np.percentile(changes, 5)), float(changes[changes > 0].min()))
    changes = np.maximum(changes, least)  # one odd frame is no group
    new = changes > _divide(changes)
    new = _on_beat(new)
    beats = np.flatnonzero(new)
    if new.all() or len(beats) < _FEWEST // 3:
        return nothing
    if np.median(changes[new]) < _TWICE * np.median(changes[~new]):
        return nothing
    if np.percentile(peaks[new], 95) < _TWICE * np.percentile(peaks[~new], 95):
        return nothing
    gaps = np.diff(beats)
    mean = float(gaps.mean())
    if mean > _LONGEST:
        return nothing
    # One pulse may be missing; more is a still stretch, such as the last image held at the end.
    if np.diff(np.r_[-1, beats, len(changes)]).max() > 2 * np.ceil(mean):
        return nothing
    even = np.mean((gaps == np.floor(mean)) | (gaps == np.ceil(mean)))
    return ~new if even >= _EVEN else nothing


def _on_beat(new: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Without what changes off the beat, where hardly anything does: a coder that settles when the
    film begins changes the picture once more between two pulses."""
    gaps = np.diff(np.flatnonzero(new))
    period = int(np.median(gaps)) if len(gaps) else 1
    if not 2 <= period <= _LONGEST:
        return new
    places = np.arange(len(new)) % period
    on = places == np.bincount(places[new], minlength=period).argmax()
    return new & on if new[on].mean() >= _EVEN and new[~on].mean() <= _OFF else new


def _divide(values: NDArray[np.float64]) -> float:
    """The value that best divides `values` in two groups on a scale of ratios (Otsu 1979)."""
    ordered = np.sort(np.log(values))
    count = len(ordered)
    left = np.arange(1, count)
    total = np.cumsum(ordered)
    apart = total[:-1] / left - (total[-1] - total[:-1]) / (count - left)
    best = int(np.argmax(left * (count - left) * apart**2))
    return float(np.exp((ordered[best] + ordered[best + 1]) / 2))
