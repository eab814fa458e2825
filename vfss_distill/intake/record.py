"""`study.json`: what is known of one recording."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..errors import DataError
from ..fields import Check, count, flag, mapping, maybe, number, several, taken, text, times, whole
from .boxes import Box
from .repeats import duration_s
from .source import made_up_times

RECORD_FILE = "study.json"
TASK_NAME = re.compile("[A-Za-z0-9_][A-Za-z0-9_-]*")
_AGAIN = "Ingest the recording again."


@dataclass(frozen=True)
class StudyRecord:
    """`study.json`. Sizes in pixels of the stored (square-pixel) frames, times in seconds.

    `frame_times_s` start at 0 and increase strictly; the recording's own clock is not kept, for it
    can tell the date. `labelled` maps a task id to the frames that have a mask, blank ones
    included. `pixel_aspect` is the recording's, before squaring. `declared_frames` is the header's
    word, None where it has none. `interlaced`: what was done with interlaced pictures:
    "deinterlaced", "fields" (two frames of each), "kept", or "" where there were none.
    `repeats` are the frames that repeat the one before them, `repeated_frames` is their number,
    `unique_fps` the rate of those that do not, pauses and still stretches left out: no time is
    finer. `frame_digests`: 16 letters a frame, one after another (see `frame_digest`), of frames
    as decoded, before text is blanked. `labels_sha256` tells whether the masks beside the
    recording have changed since. `site`: pseudonym of the clinic, where `--patients` names one.
    `exam`: pseudonym shared by the recordings of one DICOM study. `acquisition`: technical facts of
    a DICOM header that name nobody, see dicom_acquisition.py.
    `burned_in`: what was done with text and furniture found in the pictures: "blanked", "kept", or
    "" in records of a version that did not look.
    `blanked` boxes are black on all frames; `suspect` ones are untouched and may hold text.
    `picture`: all that networks are shown of the frames; around it they are black. None: all.
    `view`: lateral or frontal. `facing`: where the patient looks in the recording, left or right;
    `mirrored`: frames, masks and boxes here are mirrored, so that the patient faces left. `view_by`
    and `view_confidence`: see `Decision` in view.py; "" in records of a version that did not look.
    """

    study: str
    patient: str
    source_sha256: str
    frames: int
    frame_times_s: tuple[float, ...]
    width: int
    height: int
    pixel_aspect: tuple[int, int] = (1, 1)
    pixel_spacing_mm: tuple[float, float] | None = None
    view: str = "lateral"
    facing: str = "left"
    mirrored: bool = False
    view_by: str = ""
    view_confidence: float | None = None
    simulated: bool = False
    site: str = ""
    exam: str = ""
    acquisition: dict[str, Any] = field(default_factory=dict)
    labelled: dict[str, tuple[int, ...]] = field(default_factory=dict)
    task_set: dict[str, Any] = field(default_factory=dict)
    kind: str = "video"
    codec: str = ""
    declared_frames: int | None = None
    interlaced: str = ""
    repeats: tuple[int, ...] = ()
    repeated_frames: int = 0
    frame_digests: str = ""
    unique_fps: float | None = None
    labels_sha256: str = ""
    burned_in: str = ""
    blanked: tuple[Box, ...] = ()
    suspect: tuple[Box, ...] = ()
    picture: Box | None = None
    warnings: tuple[str, ...] = ()

    @property
    def shown(self) -> list[Any]:
        """For digests: what of the recording's frames the study shows. `interlaced` came later:
        only where it says something, so that digests of other films stay what they were."""
        interlaced = [self.interlaced] if self.interlaced else []
        return [self.mirrored, repr(self.blanked), repr(self.picture), *interlaced]

    @property
    def duration_s(self) -> float:
        """From the first frame to the end of the last, which lasts as long as the median one."""
        return duration_s(self.frame_times_s)

    @property
    def fps(self) -> float | None:
        """Frames per second, by the median interval; None of a single frame."""
        if len(self.frame_times_s) < 2:
            return None
        return 1 / float(np.median(np.diff(self.frame_times_s)))

    @property
    def rate_given(self) -> float | None:
        """Frames per second that the recording was given, should it carry no times itself; None
        where they were assumed."""
        times = self.frame_times_s
        if len(times) < 2 or made_up_times(self.warnings):
            return None
        return float(f"{(len(times) - 1) / (times[-1] - times[0]):.8g}")  # times are rounded

    @property
    def labelled_frames(self) -> tuple[int, ...]:
        """Frames with a mask of at least one task."""
        return tuple(sorted({frame for some in self.labelled.values() for frame in some}))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StudyRecord:
        """Raises DataError when fields are missing or of another kind, or do not agree."""
        try:
            record = cls(**taken(data, _KINDS))
            if len(record.frame_times_s) != record.frames:
                raise ValueError("frames and frame_times_s do not agree")
            named = (*record.labelled_frames, *record.repeats)
            if named and max(named) >= record.frames:
                raise ValueError("labelled or repeats names a frame that is not there")
            frame, picture = Box(0, 0, record.width, record.height, ""), record.picture
            if picture and not (min(picture.width, picture.height) > 0 and frame.holds(picture)):
                raise ValueError("picture lies outside the frame")
        except TypeError as error:  # a field that has no default
            raise DataError("is no study record", file=RECORD_FILE, remedy=_AGAIN) from error
        except ValueError as error:
            raise DataError(f"damaged: {error}", file=RECORD_FILE, remedy=_AGAIN) from error
        return record


def _labelled(value: Any) -> dict[str, tuple[int, ...]]:
    """Frames by task; a task's masks lie in a folder of its name."""
    frames = {task: several(whole)(some) for task, some in mapping(value).items()}
    if not all(TASK_NAME.fullmatch(task) for task in frames):
        raise ValueError("names what cannot be a task")
    return frames


# What each field must be, where it is there: earlier versions knew fewer.
_KINDS: Mapping[str, Check] = {
    **dict.fromkeys(("study", "patient", "source_sha256"), text),
    **dict.fromkeys(("view", "facing", "view_by", "site", "exam", "kind", "codec"), text),
    **dict.fromkeys(("interlaced", "frame_digests", "labels_sha256", "burned_in"), text),
    **dict.fromkeys(("frames", "width", "height"), count),
    **dict.fromkeys(("mirrored", "simulated"), flag),
    **dict.fromkeys(("acquisition", "task_set"), mapping),
    **dict.fromkeys(("blanked", "suspect"), several(Box.from_dict)),
    **dict.fromkeys(("view_confidence", "unique_fps"), maybe(number)),
    "frame_times_s": times,
    "pixel_aspect": several(count, 2),
    "pixel_spacing_mm": maybe(several(number, 2)),
    "labelled": _labelled,
    "declared_frames": maybe(whole),
    "repeats": several(whole),
    "repeated_frames": whole,
    "picture": maybe(Box.from_dict),
    "warnings": several(text),
}


def readable_fields(data: Mapping[str, Any]) -> dict[str, Any]:
    """Those fields of a damaged record that are of the kind they were written in."""
    fields: dict[str, Any] = {}
    for name in data:
        with suppress(ValueError):
            fields |= taken({name: data[name]}, _KINDS)
    return fields
