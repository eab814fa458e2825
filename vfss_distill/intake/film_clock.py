"""The clock of a film: a time for each picture, from the stamps that the film itself carries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

from .source import ASSUMED_FPS

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


def _between(before: float, time: float | None, after: float) -> bool:
    return time is not None and before < time <= after
