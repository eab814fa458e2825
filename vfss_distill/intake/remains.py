"""What a person did to a study whose record is damaged, found in its files and kept.

Its frames tell whether they were mirrored and which places were made black; its masks stay where
the recording gives the same frames again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..counting import counted
from ..errors import DataError, InputError
from .boxes import GIVEN, Box
from .labels import Labels
from .record import TASK_NAME, StudyRecord
from .study import frame_name, read_frame_file, read_mask_file, write_mask

LOST = "lost with its damaged record: "

_SAME = 1.0  # mean grey levels: another decoder rounds otherwise, other frames differ by more
_ROUNDED = 8  # grey levels that rounding may light where it was black
_NEAR = np.ones((9, 9), np.uint8)  # pixels of one box that is dark in places

Bits = NDArray[np.bool_]


@dataclass
class Kept:
    """Masks that were kept: frames by task. `others`: those that were given otherwise now."""

    frames: dict[str, list[int]] = field(default_factory=dict)
    others: int = 0
    unreadable: list[str] = field(default_factory=list)

    @property
    def said(self) -> list[str]:
        """Lines for the study's warnings."""
        lines = []
        if self.others:
            lines.append(
                f"{counted(self.others, 'mask')} of this study differ from those given with its "
                "recording, and were kept when its record was mended: ingest it again with --force "
                "to take those given"
            )
        if self.unreadable:
            lines.append(
                f"{LOST}{counted(len(self.unreadable), 'mask')} that cannot be read "
                f"({', '.join(self.unreadable[:5])}): import them again"
            )
        return lines

    @property
    def imports(self) -> list[dict[str, Any]] | None:
        """For the record: like imported ones, these are nowhere but in the study."""
        masks = sum(map(len, self.frames.values()))
        return [{"format": "masks of the damaged study", "masks": masks}] if masks else None

    def with_those_of(self, labelled: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """`labelled` of the new record, and the frames kept."""
        tasks = [*labelled, *(task for task in self.frames if task not in labelled)]
        return {
            task: tuple(sorted({*labelled.get(task, ()), *self.frames.get(task, ())}))
            for task in tasks
        }


class Remains:
    """The files of a damaged study. `add` every frame of its recording first, in order."""

    def __init__(self, study: Path) -> None:
        self._study = study
        self._stored = {path.name for path in _inside(study / "frames") if path.suffix == ".png"}
        self._frames = 0
        self._lit = 0  # pixels compared
        self._off = np.zeros(2)  # by how much they differ in all: as filmed, mirrored
        self._most = np.zeros(2)
        self._film: NDArray[np.uint8] | None = None  # the brightest of all frames
        self._before: NDArray[np.uint8] | None = None

    def add(self, grey: NDArray[np.uint8]) -> None:
        """A frame as decoded, uint8 (H, W)."""
        index, self._frames = self._frames, self._frames + 1
        if frame_name(index) not in self._stored:
            return
        try:
            before = read_frame_file(self._study, index)
        except DataError:
            return
        if before.shape != grey.shape:
            self._off += np.inf
            return
        lit = before > 0
        self._lit += int(lit.sum())
        for way, film in enumerate((grey, grey[:, ::-1])):
            off = cv2.absdiff(before, np.ascontiguousarray(film))[lit]
            self._off[way] += float(off.sum(dtype=np.int64))
            self._most[way] = max(self._most[way], off.max(initial=0))
        self._film = grey.copy() if self._film is None else np.maximum(self._film, grey)
        self._before = before if self._before is None else np.maximum(self._before, before)

    def fits(self) -> bool:
        """Has the study the frames that its recording gives now, mirrored or not?

        False where it has none. Raises InputError where it has others, or masks and no frames:
        nobody could say where these lie.
        """
        if not self._stored and not any(True for _ in self._masks()):
            return False
        names = {frame_name(index) for index in range(self._frames)}
        if self._lit and self._stored == names and self._off.min() <= _SAME * self._lit:
            return True
        study = self._study.name
        raise InputError(
            f"is ingested as {study}, whose record is damaged, and whose frames are damaged too, "
            "or others than would be made now",
            remedy="Give the options it was ingested with (--interlaced), or move "
            f"studies/{study} elsewhere, ingest again, and import the masks that it holds.",
        )

    @property
    def mirrored(self) -> bool | None:
        """Are its frames mirrored? None: they are missing, or the same either way."""
        if not self._lit or self._off[0] == self._off[1]:
            return None
        return bool(self._off[1] < self._off[0])

    def hidden(self, known: Sequence[Box]) -> tuple[Box, ...]:
        """Boxes beyond those `known` that are black on all its frames, and not in the recording:
        a person had named them. As filmed, not mirrored."""
        assert self._film is not None and self._before is not None
        before = self._before[:, ::-1] if self.mirrored else self._before
        black = before == 0
        exact = self._most[int(bool(self.mirrored))] == 0
        gone = black & (self._film > (0 if exact else _ROUNDED))
        for box in known:
            gone[box.window] = False
        near = cv2.morphologyEx(gone.astype(np.uint8), cv2.MORPH_CLOSE, _NEAR)
        number, places = cv2.connectedComponents(near)
        return tuple(
            Box(x, y, width, height, GIVEN)
            for place in range(1, number)
            for x, y, width, height in _rectangles(gone & (places == place), black)
        )

    def keep_masks(self, folder: Path, labels: Labels, *, mirrored: bool) -> Kept:
        """Write its masks into the study being made in `folder`, which has those of `labels`.

        Of two for one frame its own is taken: it may be a correction. Raises InputError for one of
        another size, or of a frame that is not there.
        """
        kept = Kept()
        turned = self.mirrored not in (None, mirrored)
        for task, index, path in self._masks():
            data = np.fromfile(path, np.uint8)
            grey = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if len(data) else None
            given = index in labels.files.get(task, {})
            if grey is None:
                if not given:
                    kept.unreadable.append(f"{task}/{path.name}")
                continue
            if self._film is None or index >= self._frames or grey.shape != self._film.shape:
                raise InputError(
                    f"a mask of the study does not fit: masks/{task}/{path.name}",
                    remedy=f"Move it out of studies/{self._study.name}.",
                )
            mask = grey > 127
            mask = mask[:, ::-1] if turned else mask
            if given:
                if np.array_equal(read_mask_file(folder, task, index), mask):
                    continue
                kept.others += 1
            write_mask(folder, task, index, mask)
            kept.frames.setdefault(task, []).append(index)
        return kept

    def _masks(self) -> Iterator[tuple[str, int, Path]]:
        for task in _inside(self._study / "masks"):
            if not TASK_NAME.fullmatch(task.name):
                continue
            for path in _inside(task):
                if path.suffix == ".png" and path.stem.isdecimal():
                    yield task.name, int(path.stem), path


def _inside(folder: Path) -> list[Path]:
    """Not by glob: what may not be read must not pass for what is not there."""
    return sorted(folder.iterdir()) if folder.is_dir() else []


def nowhere_told(study: Path, known: StudyRecord, *, view_given: bool, boxes_given: bool) -> str:
    """What a person may have said of a damaged study and nothing tells any more; "" for nothing.

    `known`: what its record still tells. Its frames show which places were made black.
    """
    lost = []
    if not view_given and not known.view_by:
        lost.append("what --views said of lateral or frontal")
    if not boxes_given and not known.blanked and not _inside(study / "frames"):
        lost.append("boxes of --blank-boxes")
    what = " and ".join(lost)
    return f"{LOST}{what}. If there was any, give it again with --force" if lost else ""


def _rectangles(gone: Bits, black: Bits) -> Iterator[tuple[int, int, int, int]]:
    """x, y, width, height of rectangles that cover all of `gone` and lie in `black`."""
    x, y, width, height = cv2.boundingRect(gone.astype(np.uint8))
    if not width:
        return
    if black[y : y + height, x : x + width].all():
        yield x, y, width, height
        return
    if width > height:
        halves = (slice(None), slice(x + width // 2)), (slice(None), slice(x + width // 2, None))
    else:
        halves = (slice(y + height // 2), slice(None)), (slice(y + height // 2, None), slice(None))
    for half in halves:
        part = np.zeros_like(gone)
        part[half] = gone[half]
        yield from _rectangles(part, black)
