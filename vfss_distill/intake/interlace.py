"""Interlaced films: two half pictures, half a frame apart in time, woven into one.

Both the finding (idet) and the undoing (bwdif) are FFmpeg's own filters, run on the grey picture.
A film is interlaced when it says so, or, as captures of analogue video often do not, when its
moving parts are combed without a doubt. Pulses stored twice and fast motion are not mistaken for
combs: idet compares each line with both neighbours in time.
"""

from __future__ import annotations

import itertools
import statistics
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from .source import Interlaced

Grey = NDArray[np.uint8]

HANDLING: dict[Interlaced, str] = {
    "deinterlace": "deinterlaced",
    "fields": "fields",
    "keep": "kept",
}

_WINDOW = 24  # frames looked at together, about a second: as long as a swallow lasts
_WINDOW_BYTES = 64_000_000  # fewer of large frames: they wait in memory
_PAUSE = 1.5  # usual intervals: what is longer is a gap, of the recording or of lost frames
_SMALLEST = 4  # pixels a side: bwdif takes no smaller picture
_SURE = 8  # combed frames of one field order in the window, and next to none that contradict
_VERDICT = "lavfi.idet.single.current_frame"
_ORDERS = {2: "tff", 3: "bff", 4: "bff", 5: "tff"}  # AVFieldOrder; 4 and 5: the order displayed
_WORDS = {"tff": "top field first", "bff": "bottom field first"}


class Picture(NamedTuple):
    """`grey` uint8 (H, W) as stored; `marked`: the film says that it is interlaced."""

    time_s: float
    grey: Grey
    marked: bool


@dataclass
class Untangler:
    """Undoes interlacing in the pictures of one film, all of one size. `run` is used once.

    `mode`: "deinterlace" gives one whole frame for each frame, at its time; "fields" gives two,
    the second half a frame later, before a gap half a usual one; "keep" changes nothing.
    `stream_order` is the codec's word on the order of fields (AVFieldOrder). After `run`:
    `handling` is "" for a progressive film, else "deinterlaced", "fields" or "kept", and `warning`
    says how much was changed.
    """

    mode: Interlaced
    stream_order: int = 0
    handling: str = ""
    _marked: int = 0
    _combed: bool = False
    _order: str = ""
    _seen: int = 0
    _changed: int = 0
    _first: int = 0
    _looker: _Filter | None = None
    _verdicts: deque[str] = field(default_factory=lambda: deque(maxlen=_WINDOW))
    _intervals: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))

    def run(self, pictures: Iterable[Picture]) -> Iterator[Picture]:
        """All pictures in order, in constant memory."""
        pictures = self._measured(pictures)
        waiting: deque[Picture] = deque()
        for picture in pictures:
            waiting.append(picture)
            self._look(picture)
            room = min(_WINDOW, max(2, _WINDOW_BYTES // picture.grey.size))
            if self._combed or (self._marked and len(waiting) >= room):
                break
            if len(waiting) > room:
                yield waiting.popleft()
        if not (self._marked or self._combed):
            yield from waiting
            return
        self._first = self._seen - len(waiting)
        rest = itertools.chain(_drained(waiting), pictures)
        self.handling = HANDLING[self.mode]
        yield from rest if self.mode == "keep" else self._undone(rest)

    @property
    def warning(self) -> str | None:
        """One line when the film is interlaced, else None."""
        if not self.handling:
            return None
        said = "interlaced" if self._marked else "interlaced, though the film does not say so"
        if self.handling == "kept":
            return f"{said}: kept as it is, moving parts are combed"
        done = f"{said} ({_WORDS[self._order]}): {self._changed} frames "
        if self.handling == "fields":
            done += "became two each, one for each field"
        else:
            done += "deinterlaced"
        return done + (f", from frame {self._first} on" if self._first else "")

    def _look(self, picture: Picture) -> None:
        """Look at one more picture. What is seen of the order of fields goes before what is said:
        encoders get it wrong.
        """
        self._seen += 1
        if min(picture.grey.shape) < _SMALLEST:
            return
        if self._looker is None:
            self._looker = _Filter("idet", "", picture.grey.shape)
        self._marked += picture.marked
        for looked in self._looker.push(picture.grey):
            self._verdicts.append(looked.metadata.get(_VERDICT, ""))
        votes = Counter(self._verdicts)
        order = "bff" if votes["bff"] > votes["tff"] else "tff"
        against = votes["progressive"] + votes["tff"] + votes["bff"] - votes[order]
        self._combed = votes[order] >= _SURE and against <= votes[order] // _SURE
        self._order = order if self._combed else _ORDERS.get(self.stream_order, order)

    def _undone(self, pictures: Iterable[Picture]) -> Iterator[Picture]:
        """Pictures whole again. One that a film of marked frames does not mark is left alone."""
        per = 2 if self.mode == "fields" else 1
        kind = "send_field" if per == 2 else "send_frame"
        settings = f"mode={kind}:parity={self._order}:deint=all"
        bwdif: _Filter | None = None
        before: deque[Picture] = deque()
        made: list[Grey] = []
        step = 0.0
        for picture in itertools.chain(pictures, [None]):
            if picture is not None:
                bwdif = bwdif or _Filter("bwdif", settings, picture.grey.shape)
                before.append(picture)
            outputs = bwdif.push(None if picture is None else picture.grey) if bwdif else ()
            for output in outputs:
                made.append(output.to_ndarray())
                if len(made) < per:
                    continue
                original = before.popleft()
                step = self._interval(original, before[0]) if before else step
                if original.marked or not self._marked:
                    self._changed += 1
                    for part, grey in enumerate(made):
                        yield Picture(original.time_s + part * step / per, grey, True)
                else:
                    yield original
                made = []

    def _measured(self, pictures: Iterable[Picture]) -> Iterator[Picture]:
        """Hand on `pictures`, and keep the last intervals between them."""
        before_s: float | None = None
        for picture in pictures:
            if before_s is not None:
                self._intervals.append(picture.time_s - before_s)
            before_s = picture.time_s
            yield picture

    def _interval(self, picture: Picture, following: Picture) -> float:
        """Seconds that a picture lasts: to the next, or as long as usual before a gap."""
        interval = following.time_s - picture.time_s
        usual = statistics.median_low(self._intervals)
        return usual if interval > _PAUSE * usual else interval


class _Filter:
    """One FFmpeg video filter on grey pictures of one size."""

    def __init__(self, name: str, settings: str, shape: tuple[int, ...]) -> None:
        self._graph = av.filter.Graph()
        self._base = Fraction(1, 1000)
        source = self._graph.add_buffer(
            width=shape[1], height=shape[0], format=av.VideoFormat("gray"), time_base=self._base
        )
        middle = self._graph.add(name, settings or None)
        source.link_to(middle)
        middle.link_to(self._graph.add("buffersink"))
        self._graph.configure()
        self._pushed = 0

    def push(self, grey: Grey | None) -> Iterator[Any]:
        """Give one picture, or None at the end; what the filter has ready by then comes back."""
        frame = None
        if grey is not None:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(grey), format="gray")
            frame.pts, frame.time_base = self._pushed, self._base
            self._pushed += 1
        self._graph.vpush(frame)
        while True:
            try:
                yield self._graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return


def _drained(waiting: deque[Picture]) -> Iterator[Picture]:
    """The pictures of `waiting`, each let go as it is handed on."""
    while waiting:
        yield waiting.popleft()
