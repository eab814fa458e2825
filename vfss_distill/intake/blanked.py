"""A recording read with text and furniture in its pictures made black, without being ingested."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from .boxes import Box, blank_boxes, is_text
from .film_sample import FrameSample
from .picture import find_picture
from .source import Frame, FrameSource, SourceInfo
from .surroundings import find_to_blank, told


@dataclass
class BlankedSource:
    """`source` with `boxes` black on every frame.

    `boxes` None: they are looked for the first time frames are asked for, in a pass of its own over
    the recording, since text that shows late has to be gone from the start. `given`: boxes that a
    person gave, whatever is found. `picture`: see SourceInfo; looked for in the same pass.
    """

    source: FrameSource
    boxes: tuple[Box, ...] | None = None
    given: tuple[Box, ...] = ()
    picture: Box | None = None

    @property
    def path(self) -> Path:
        return self.source.path

    @property
    def info(self) -> SourceInfo:
        info = replace(self.source.info, picture=self.picture)
        if not self.boxes:
            return info
        count = len(self.boxes)
        found = any(is_text(box) for box in self.boxes)
        line = (
            f"{'text found in ' if found else ''}the picture was made black in {count} "
            f"{'place' if count == 1 else 'places'}: reduced, never surely removed"
        )
        around = told(self.boxes)
        return replace(info, warnings=(*info.warnings, line, *([around] if around else [])))

    def frames(self) -> Iterator[Frame]:
        if self.boxes is None:
            sample = FrameSample()
            for frame in self.source.frames():
                sample.add(frame.grey)
            self.boxes = find_to_blank(sample.frames).with_given(self.given).blank
            self.picture = self.picture or find_picture(sample.frames, self.boxes)
        for frame in self.source.frames():
            if not self.boxes:
                yield frame
                continue
            grey = frame.grey.copy()  # the decoder's own memory may be read-only
            blank_boxes(grey, self.boxes)
            yield replace(frame, grey=grey)
