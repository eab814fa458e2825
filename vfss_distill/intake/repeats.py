"""Frames that only repeat the one before: 15 pulses a second stored as 30 frames.

A time measured on such a film is no finer than the pulses are, whatever the file's rate says.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_STRIDE = 4  # every fourth pixel each way: enough to see noise change, 1/16 of the work
_SAME = 0.1  # mean grey levels; coders repeat a frame all but exactly
_SHARE_OF_TYPICAL = 0.1  # and by far less than frames of this film otherwise differ
_WORTH_SAYING = 0.1


@dataclass
class RepeatCounter:
    """Feed frames in order with `add`; ask `repeated`, `unique_fps` and `warning` at the end."""

    _before: NDArray[np.int16] | None = None
    _changes: list[float] = field(default_factory=list)

    def add(self, grey: NDArray[np.uint8]) -> None:
        """`grey` uint8 (H, W), the same size each time."""
        now = grey[::_STRIDE, ::_STRIDE].astype(np.int16)
        if self._before is not None:
            self._changes.append(float(np.abs(now - self._before).mean()))
        self._before = now

    @property
    def repeated(self) -> int:
        """Frames that repeat their predecessor; 0 for a film in which nothing ever moves."""
        changes = np.asarray(self._changes)
        if not len(changes):
            return 0
        typical = float(np.percentile(changes, 90))
        return int(np.sum((changes <= _SAME) & (changes < _SHARE_OF_TYPICAL * typical)))

    def unique_fps(self, duration_s: float) -> float | None:
        """Frames per second that show something new; None without a duration."""
        if duration_s <= 0 or not self._changes:
            return None
        return (len(self._changes) + 1 - self.repeated) / duration_s

    def warning(self, duration_s: float) -> str | None:
        """One line when repeats matter for timing, else None."""
        count = len(self._changes) + 1
        rate = self.unique_fps(duration_s)
        if rate is None or self.repeated < _WORTH_SAYING * count:
            return None
        return (
            f"{self.repeated} of {count} frames repeat the one before: about {rate:.1f} pulses/s "
            f"stored as {count / duration_s:.1f} frames/s; times are no finer than that"
        )
