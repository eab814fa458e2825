"""`--blank-boxes CSV`: places of films that a person wants black, whatever the program finds there.

For what is never found by itself: a second camera's picture, a face, tool bars, handwriting.
"""

from __future__ import annotations

from pathlib import Path

from ..counting import listed
from ..errors import ConfigError, InputError
from .boxes import GIVEN, Box
from .record import StudyRecord
from .recording_table import RecordingTable, keys_of, read_table
from .source import Found, SourceInfo, square_size

_NUMBERS = ("x", "y", "width", "height")
_REMEDY = "Give a CSV with the columns file,x,y,width,height: film.mp4,0,0,200,40."

Place = tuple[int, int, int, int]


class BoxTable(RecordingTable[list[Place]]):
    """Boxes by file, as many lines a file as you like; files are matched as patients are."""

    def names(self, found: Found) -> bool:
        """Does the table name this recording?"""
        return bool(self._places(found))

    def boxes(self, found: Found, info: SourceInfo) -> tuple[Box, ...]:
        """The boxes of a recording, in pixels of its square-pixel frames, not mirrored.

        Raises InputError for one that lies outside the picture: what it is meant for would stay.
        """
        height, width = info.stored_size
        tall, wide = square_size(height, width, info.pixel_aspect)
        boxes = []
        for x, y, across, down in self._places(found):
            if x >= width or y >= height:
                raise InputError(
                    f"--blank-boxes names a box at {x},{y}, but its frames are {width}x{height}",
                    remedy="Give pixels of the recording, from its upper left corner.",
                )
            right, lower = min(x + across, width), min(y + down, height)
            left, upper = x * wide // width, y * tall // height
            right, lower = -(-right * wide // width), -(-lower * tall // height)
            boxes.append(Box(left, upper, right - left, lower - upper, GIVEN))
        return tuple(boxes)

    def draft(self, found: Found, info: SourceInfo, known: StudyRecord | None) -> tuple[Box, ...]:
        """The boxes a new study begins with: the table's, else those an earlier table gave to the
        study that is made anew. Raises InputError."""
        if self.names(found) or known is None:
            return self.boxes(found, info)
        return given_boxes(known)

    def _places(self, found: Found) -> list[Place]:
        """Of every name the table may call a recording: one box too many does no harm."""
        places = [place for key in keys_of(found) for place in self._by_file.get(key, ())]
        return list(dict.fromkeys(places))

    def _read(self, path: Path) -> None:
        faults = []
        for line, key, row in read_table(path, ("file", *_NUMBERS), _REMEDY):
            try:
                x, y, width, height = (int(row[name]) for name in _NUMBERS)
            except ValueError:
                faults.append(f"line {line}: not four whole numbers")
                continue
            if not key:
                faults.append(f"line {line}: file is empty")
            elif min(x, y) < 0 or min(width, height) < 1:
                faults.append(f"line {line}: no box inside a picture")
            else:
                self._by_file.setdefault(key, []).append((x, y, width, height))
        if faults:
            raise ConfigError(listed(faults), file=path, remedy=_REMEDY)


def given_boxes(record: StudyRecord) -> tuple[Box, ...]:
    """The boxes of a study that a person gave, as they lie in the recording, not mirrored."""
    given = (box for box in record.blanked if box.reason == GIVEN)
    return tuple(box.mirrored(record.width) if record.mirrored else box for box in given)
