"""The frames of a study being made: each compressed once, though what to blank is known only late.

Text is looked for in the whole film, and compressing takes longer than all else. So the first
frames are held back: when they already show text, or a side that will be mirrored, all frames wait
as they are in one file until the film has ended. When they show nothing, they are compressed as
they come, and rewritten should the rest of the film prove otherwise.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..cores import usable_cores
from ..workspace import free_bytes
from .boxes import Box, blank_boxes
from .source import Frame
from .study import read_frame_file, write_frame

Grey = NDArray[np.uint8]
Foresee = Callable[[Sequence[Grey]], bool]

WAITING_FILE = "frames.raw"
HELD = 24  # frames: as few as the search for text looks at without dividing the film
HELD_BYTES = 32_000_000  # fewer of large frames
WAITING_BYTES = 4 << 30  # seven minutes of 640x480; what comes after is compressed as it comes

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")
_WRITERS = min(4, usable_cores())


class FrameStore:
    """Writes `folder`/frames: exhaust `take`, then call `finish`.

    `foresee` is asked at most once, with the first frames: will `finish` change frames? A wrong
    answer costs time and nothing else: the files are the same, whatever it says.
    """

    def __init__(self, folder: Path, foresee: Foresee) -> None:
        self._folder = folder
        self._foresee = foresee
        self._held: list[Frame] = []
        self._shape: tuple[int, ...] = (0, 0)
        self._waiting = 0  # frames in the file
        self._frames = 0  # all

    def take(self, frames: Iterable[Frame]) -> Generator[Frame]:
        """Hand `frames` on, all of one size. Close it before the folder is taken away."""
        (self._folder / "frames").mkdir(parents=True)
        coming = iter(frames)
        for frame in coming:
            self._held.append(frame)
            self._frames += 1
            yield frame
            if self._frames == HELD or self._frames * frame.grey.size >= HELD_BYTES:
                break
        else:
            return  # a film so short is compressed by `finish`
        self._shape = self._held[0].grey.shape
        if self._foresee([frame.grey for frame in self._held]):
            yield from self._keep_waiting(coming)
        for _ in _meanwhile(self._write, self._released()):
            pass
        for frame in _meanwhile(self._write, coming):
            self._frames += 1
            yield frame

    def finish(
        self,
        boxes: Sequence[Box],
        *,
        mirror: bool = False,
        see: Callable[[Grey], None] | None = None,
    ) -> None:
        """Make `boxes` black on all frames, then mirror them; compress what still waits.

        `see` gets every frame in order, blanked and not yet mirrored. Frames that need no change
        are read again for it.
        """

        def change(frame: Frame) -> Grey:
            grey = frame.grey
            if boxes:
                grey = grey.copy()  # the decoder's own memory may be read-only
                blank_boxes(grey, boxes)
            final = np.ascontiguousarray(grey[:, ::-1]) if mirror else grey
            write_frame(self._folder, frame.index, final)
            return grey

        def rewrite(index: int) -> Grey:
            return change(Frame(index, 0.0, read_frame_file(self._folder, index)))

        written = range(max(len(self._held), self._waiting), self._frames)
        again = written if boxes or mirror or see else ()
        # Whatever happens, the file is shut before the folder is taken away.
        with closing(self._read_waiting()) as waiting:
            kept = self._held or waiting
            for grey in chain(_meanwhile(change, kept), _meanwhile(rewrite, again)):
                if see:
                    see(grey)
        self._held = []
        (self._folder / WAITING_FILE).unlink(missing_ok=True)

    def _keep_waiting(self, coming: Iterator[Frame]) -> Iterator[Frame]:
        """Put the held frames into the file of waiting ones, and those that come while there is
        room. A small part of the free disk: the compressed ones and other workers need theirs."""
        size = self._held[0].grey.size
        room = min(WAITING_BYTES, free_bytes(self._folder) // 16) // size
        if room < len(self._held):
            return
        with (self._folder / WAITING_FILE).open("wb") as file:
            for frame in self._released():
                file.write(np.ascontiguousarray(frame.grey).data)
                self._waiting += 1
            for frame in islice(coming, room - self._waiting):
                file.write(np.ascontiguousarray(frame.grey).data)
                self._waiting += 1
                self._frames += 1
                yield frame

    def _released(self) -> Iterator[Frame]:
        held, self._held = self._held, []
        yield from held

    def _read_waiting(self) -> Generator[Frame]:
        if not self._waiting:
            return
        height, width = self._shape
        with (self._folder / WAITING_FILE).open("rb") as file:
            for index in range(self._waiting):
                pixels = np.frombuffer(file.read(height * width), np.uint8)
                yield Frame(index, 0.0, pixels.reshape(height, width))

    def _write(self, frame: Frame) -> Frame:
        write_frame(self._folder, frame.index, frame.grey)
        return frame


def _meanwhile(work: Callable[[_Item], _Made], items: Iterable[_Item]) -> Generator[_Made]:
    """Hand on what `work` makes of each item, in order, while threads are at the next few. Raises
    what `work` raises.

    Compressing a frame takes longer than decoding it, and both let other threads run.
    """
    with ThreadPoolExecutor(_WRITERS) as pool:
        ahead: deque[Future[_Made]] = deque()
        for item in items:
            ahead.append(pool.submit(work, item))
            if len(ahead) > 2 * _WRITERS:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
