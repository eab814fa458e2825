"""A recording and a model become a result: streamed, so memory does not grow with length.

decode, letterbox  →  network  →  masks, PNG, overlay
    a thread          a thread       the caller's thread
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..letterbox import Letterbox
from ..workspace import atomic_folder
from .record import (
    FRAMES_CSV,
    MASKS,
    MEASURES,
    OVERLAY,
    ResultWriter,
    SegmentOutcome,
    Subject,
    write_run,
)
from .session import Segmenter
from .stream import work_ahead

if TYPE_CHECKING:
    from ..intake.source import Frame, FrameSource

# On a CPU one frame at a time is fastest (its maps stay in the cache); a GPU wants more.
_CPU_BATCH, _GPU_BATCH = 1, 16
_AHEAD = 4  # batches that may wait between two stages
# Frames in which the spine is looked for, before the film is segmented: every fourth of its first.
_LOOKED_AT, _EVERY = 12, 4

Item = TypeVar("Item")
Tick = Callable[[int, int, str], None]


def _no_tick(done: int, total: int, words: str) -> None:
    pass


@dataclass(frozen=True)
class SegmentOptions:
    """`tick(done, total, words)` is called once per frame; total 0 means unknown."""

    subject: Subject
    overlay: bool = True
    masks: bool = True
    tick: Tick = _no_tick


Square = NDArray[np.uint8]  # (S, S)
Channels = NDArray[np.uint8]  # (C, S, S): one frame's input to the network


def segment_source(
    source: FrameSource, segmenter: Segmenter, target: Path, options: SegmentOptions
) -> SegmentOutcome:
    """Segment a recording into the folder `target`, which appears whole or not at all.

    An existing `target` is replaced, but for a table of measures in it. Raises InputError when the
    recording is damaged, DeviceError when the device fails, StorageError when the disk is full.
    """
    started = time.perf_counter()
    with atomic_folder(target) as folder:
        writer = _stream(source, segmenter, folder, options)
        seconds = time.perf_counter() - started
        frames = len(writer.frame_times_s)
        who = options.subject  # a patient is seen with any of his recordings
        seen = segmenter.seen_in_training(who.source_sha256, *who.also_of_patient)
        # A study's own warnings name its repeats already.
        repeats = None if source.info.kind == "study" else writer.repeats_warning
        notice = options.subject.notice
        said = [*source.info.warnings, notice, repeats, *segmenter.warnings]
        outcome = SegmentOutcome(
            study=options.subject.study,
            frames=frames,
            seconds=seconds,
            fps=frames / seconds,
            provider=segmenter.provider,
            model=segmenter.name,
            model_sha256=segmenter.sha256,
            folder=target,
            overlay=target / OVERLAY if options.overlay else None,
            masks=target / MASKS if options.masks else None,
            frames_csv=target / FRAMES_CSV,
            seen_in_training=seen,
            warnings=tuple(line for line in said if line),
            frames_of=options.subject.frames_of,
            frame_times_s=tuple(writer.frame_times_s),
        )
        write_run(folder, outcome, writer, segmenter, options.subject)
        if kept := _keep_measures(target, folder):
            line = f"{MEASURES} of the masks before is kept as {kept}"
            outcome = replace(outcome, warnings=(*outcome.warnings, line))
    return outcome


def _keep_measures(old: Path, new: Path) -> str:
    """Take along measures of masks that are replaced, which a person may have corrected: the name
    they have now, "" where there are none."""
    stem = Path(MEASURES).stem
    highest = 0
    for table in old.glob(f"{stem}-before-*.csv"):
        shutil.copy(table, new)
        number = table.stem.rpartition("-")[2]
        if number.isdecimal():  # a person may have given one another name
            highest = max(highest, int(number))
    if not (old / MEASURES).is_file():
        return ""
    name = f"{stem}-before-{highest + 1}.csv"
    shutil.copy(old / MEASURES, new / name)
    return name


def _stream(
    source: FrameSource, segmenter: Segmenter, folder: Path, options: SegmentOptions
) -> ResultWriter:
    batch = _CPU_BATCH if segmenter.provider.startswith("CPU") else _GPU_BATCH
    mirror = options.subject.facing == "right"
    side = _side(source, segmenter, mirror)
    ahead = work_ahead(_inputs(source, segmenter, side, mirror), _AHEAD * batch)
    total = source.info.declared_frames or 0
    with closing(work_ahead(_predictions(ahead, segmenter, batch), _AHEAD * batch)) as results:
        first = next(results, None)
        if first is None:
            raise InputError("holds no frames", file=source.path.name)
        height, width = first[0].grey.shape
        box = _letterbox(source, height, width, side)
        writer = ResultWriter(
            folder,
            box,
            segmenter,
            options.subject,
            overlay=options.overlay,
            masks=options.masks,
        )
        with writer:
            frame, maps = first
            del first
            writer.add(frame, _turned(maps, box) if mirror else maps)
            for frame, maps in results:
                writer.add(frame, _turned(maps, box) if mirror else maps)
                options.tick(len(writer.frame_times_s), total, "")
    return writer


def _side(source: FrameSource, segmenter: Segmenter, mirror: bool) -> int:
    """Side of the square that the film is shown in."""
    with closing(_squares(source, segmenter.image_size, mirror)) as squares:
        some = islice(squares, 0, _LOOKED_AT * _EVERY, _EVERY)
        return segmenter.side(square for _, square in some)


def _inputs(
    source: FrameSource, segmenter: Segmenter, side: int, mirror: bool
) -> Iterator[tuple[Frame, Channels]]:
    """Frames in order, each with its input to the network: itself, between its neighbours if the
    model has context."""
    squares = _squares(source, side, mirror)
    if not segmenter.context:
        for frame, square in squares:
            yield frame, square[None]
        return
    for before, (frame, square), after in _with_neighbours(squares):
        yield frame, np.stack([before[1], square, after[1]])


def _squares(source: FrameSource, size: int, mirror: bool) -> Generator[tuple[Frame, Square]]:
    box: Letterbox | None = None
    for frame in source.frames():
        height, width = frame.grey.shape
        if box is None:
            box = _letterbox(source, height, width, size)
            box = box.mirrored() if mirror else box
        if (height, width) != (box.height, box.width):
            raise InputError(
                f"frame {frame.index} has another size than the first",
                file=source.path.name,
                remedy="Split the recording where its size changes.",
            )
        # Mirrored before it is scaled: then a film and its mirror image give the same square.
        grey = np.ascontiguousarray(frame.grey[:, ::-1]) if mirror else frame.grey
        yield frame, box.frame(grey)


def _letterbox(source: FrameSource, height: int, width: int, size: int) -> Letterbox:
    """Once frames have come, and with them what is known of where the picture is."""
    picture = source.info.picture
    return Letterbox.fit(height, width, size, None if picture is None else picture.part)


def _turned(maps: NDArray[np.float32], box: Letterbox) -> NDArray[np.float32]:
    """Maps (T, S, S) of a mirrored frame as those of the frame itself; its border stays put."""
    turned = maps.copy()
    inner = slice(box.left, box.left + box.scaled_width)
    turned[:, :, inner] = maps[:, :, inner][:, :, ::-1]
    return turned


def _with_neighbours(items: Iterable[Item]) -> Iterator[tuple[Item, Item, Item]]:
    """(previous, this, next); at either end the item stands in for the neighbour it lacks."""
    before: Item | None = None
    this: Item | None = None
    for after in items:
        if this is not None:
            yield (this if before is None else before), this, after
        before, this = this, after
    if this is not None:
        yield (this if before is None else before), this, this


def _predictions(
    inputs: Generator[tuple[Frame, Channels]], segmenter: Segmenter, batch: int
) -> Iterator[tuple[Frame, NDArray[np.float32]]]:
    """Each frame with its probabilities (T, S, S)."""
    with closing(inputs):
        while group := list(islice(inputs, batch)):
            maps = segmenter.probabilities(np.stack([channels for _, channels in group]))
            yield from zip([frame for frame, _ in group], maps, strict=True)
