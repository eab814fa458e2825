"""The clock of a film: a time for each picture, from the stamps that the film itself carries, or
from the header of the DICOM file around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import av
import numpy as np

from .source import ASSUMED_FPS, UNTIMED

_DISCONTINUITY_S = 1.0
_REORDERED = ("h264", "hevc")


@dataclass
class FilmClock:
    """Times from the first picture, strictly increasing. `times` is used once.

    A picture without a usable stamp gets a time between its neighbours, and `made_up` counts it. A
    stamp is believed by the one behind it: a jump that stays is a pause of the recording, or its
    clock was set back; a lone one is wild, and moves no other picture.
    """

    rate: float
    rate_assumed: bool = False
    decoding: bool = False  # the film stamps packets in order of decoding, not of presentation
    made_up: int = 0
    _first: float | None = None
    _last: float | None = None
    _shift: float = 0.0

    @classmethod
    def of(cls, container: Any, stream: Any) -> FilmClock:
        """The clock of a film that is open."""
        rate = stream.average_rate or stream.guessed_rate
        # AVI has no times of presentation, and FFmpeg's guess for these codecs is wrong.
        decoding = container.format.name == "avi" and stream.codec_context.name in _REORDERED
        return cls(float(rate or ASSUMED_FPS), not rate, decoding)

    def times(self, pictures: Iterable[Any]) -> Iterator[tuple[Any, float]]:
        """Decoded pictures in order, each with its time; one picture is read ahead."""
        for picture, following in pairwise(chain(pictures, [None])):
            yield picture, self._time(self._stamp(picture), self._stamp(following))

    @property
    def warning(self) -> str | None:
        """One line when times were made up, else None."""
        if not self.made_up:
            return None
        rate = f"{self.rate:.4g} frames/s" + (" (assumed)" if self.rate_assumed else "")
        return f"decoded {self.made_up} {UNTIMED}; filled in at {rate}"

    def _stamp(self, picture: Any) -> float | None:
        """Seconds on the film's own clock."""
        ticks = None if picture is None else picture.dts if self.decoding else picture.pts
        return float(ticks * picture.time_base) if ticks is not None and picture.time_base else None

    def _time(self, stamp: float | None, following: float | None) -> float:
        step = 1.0 / self.rate
        if self._last is None:
            self._first = stamp
            self._last = 0.0
            self.made_up += stamp is None
            return 0.0
        if self.decoding and stamp is None:
            self._last += step  # the last few frames, which no packet pushes out
            return self._last
        if stamp is not None and self._first is None:
            self._first = stamp - self._last - step
        time, after = self._from_first(stamp), self._from_first(following)
        if after is not None and self._last < after and not _between(self._last, time, after):
            # No stamp or a lone wild one. Before a pause it stays with the picture before it.
            time = min(self._last + step, (self._last + after) / 2)
            self.made_up += 1
        elif time is None or time <= self._last:
            if time is not None and time < self._last - _DISCONTINUITY_S:
                # The recorder's clock was set back (joined films): go on where the film is.
                self._shift += self._last + step - time
            time = self._last + step
            self.made_up += 1
        self._last = time
        return time

    def _from_first(self, stamp: float | None) -> float | None:
        return None if stamp is None or self._first is None else stamp - self._first + self._shift


@dataclass(frozen=True)
class HeaderClock:
    """Times that a DICOM header gives the pictures of the film inside, by their `numbers`.

    A picture is found by its stamp, so that one left out for damage leaves the others their times.
    One whose stamp does not say its number is the next after the one before it.
    """

    time_of: Callable[[int], float]
    numbers: Mapping[int, int]
    warning: str | None = None

    def times(self, pictures: Iterable[Any]) -> Iterator[tuple[Any, float]]:
        """Decoded pictures in order, each with its time from the first; one is read ahead."""
        number, first_s = -1, None
        for picture, following in pairwise(chain(pictures, [None])):
            here, after = self._number(picture), self._number(following)
            if here is None or here <= number or (after is not None and after <= here):
                here = number + 1  # no stamp, or a wild one
            number = here
            time_s = self.time_of(number)
            first_s = time_s if first_s is None else first_s
            yield picture, time_s - first_s

    def _number(self, picture: Any) -> int | None:
        ticks = None if picture is None else picture.pts
        return None if ticks is None else self.numbers.get(ticks)


def picture_numbers(container: Any, stream: Any, declared: int) -> dict[int, int]:
    """Stamp → number from 0 of each picture of a film of `declared` ones, damaged ones too, by its
    packets, undecoded. Empty for a film without stamps, or with one twice.
    """
    stamps: list[int | None] = []
    try:
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                stamps.append(packet.pts)
    except (av.error.FFmpegError, OSError):  # what is there has its numbers all the same
        pass
    ordered = sorted(stamp for stamp in set(stamps) if stamp is not None)
    if len(ordered) < max(2, len(stamps)):
        return {}
    numbers = np.arange(len(ordered))
    # Where whole packets are missing, an even film shows it by its gaps. Gaps that do not add up to
    # the number declared are pauses of an uneven one.
    gaps = np.diff(ordered)
    steps = np.rint(gaps / np.median(gaps)).astype(np.int64)
    if steps.min() >= 1 and steps.sum() < declared:
        numbers[1:] = np.cumsum(steps)
    return dict(zip(ordered, numbers.tolist(), strict=True))


def _between(before: float, time: float | None, after: float) -> bool:
    return time is not None and before < time <= after
