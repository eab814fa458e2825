"""How long filling a cache will take, told from its first frames and corrected once."""

from __future__ import annotations

import time
from collections.abc import Callable

_CORRECTION = 1.25  # a second forecast is worth a line when it differs by this factor
_SHORT_S = 5.0


class Forecast:
    """Tell `say` the time for `frames` frames after the first batch of them, not after hours.

    The first batch also pays for warming up, so the first whole study may correct it.
    """

    def __init__(
        self,
        teacher: str,
        frames: int,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._teacher, self._frames, self._say, self._clock = teacher, frames, say, clock
        self._started = clock()
        self._told: float | None = None
        self._corrected = False

    def seen(self, frames: int, *, whole_study: bool = False) -> None:
        """`frames` are done now; `whole_study` at the end of one."""
        if frames >= self._frames:
            return
        each = (self._clock() - self._started) / frames
        if self._told is None:
            self._told = each
            self._tell(f"{_rate(each)}, about {duration(each * self._frames)} in all")
        elif whole_study and not self._corrected:
            self._corrected = True
            ratio = max(each, self._told) / max(min(each, self._told), 1e-9)
            if ratio > _CORRECTION and each * self._frames > _SHORT_S:
                left = duration(each * (self._frames - frames))
                self._tell(f"{_rate(each)} over the first study, about {left} to go")

    def _tell(self, words: str) -> None:
        self._say(f"{self._teacher}: {words}")


def _rate(each: float) -> str:
    return f"{each:.1f} s a frame" if each >= 1 else f"{1 / max(each, 1e-6):.0f} frames a second"


def duration(seconds: float) -> str:
    """In words, as coarse as a forecast may be."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
