"""The study store: one folder per recording, written once, read by everything after ingest.

    studies/<study>/study.json
    studies/<study>/frames/000000.png            lossless grey, square pixels
    studies/<study>/masks/<task>/000000.png      0 or 255; no file: unlabelled; blank: absent

A study folder appears only when it is complete.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..counting import listed
from ..errors import DataError, StorageError
from ..letterbox import Letterbox
from ..provenance import document
from ..workspace import Workspace, is_temporary, read_json
from .record import RECORD_FILE, StudyRecord
from .source import Frame, SourceInfo

_STUDY_ID = re.compile("[A-Za-z0-9][A-Za-z0-9._-]*")  # one name below studies/ and results/
_MEND_RECORD = (
    f"Put {RECORD_FILE} back from a backup, or ingest its recording again with --force: its masks "
    "are kept."
)
_WITHOUT_IT = "To go on without it, move its folder out of studies/."

# Radiographs are noise to a matching compressor: Huffman coding of averaged differences is faster
# (2.2 ms for 640x480) and no larger than any other setting. Masks are runs: the default suits them.
_PNG_FRAME = (
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_AVG),
)


@dataclass(frozen=True)
class Study:
    """A stored study. `Study.open(folder)`; `read_mask` tells unlabelled (None) from absent."""

    folder: Path
    record: StudyRecord

    @classmethod
    def open(cls, folder: Path) -> Study:
        """Raises DataError, naming the study, when the record is missing, damaged or of another
        study than its folder: results and exports are written under that name."""
        path = folder / RECORD_FILE
        try:
            record = StudyRecord.from_dict(read_json(path))
            # The folder may be given as "." or by a link.
            names = {Path(full(folder)).name for full in (os.path.abspath, os.path.realpath)}
            if record.study not in names or not _STUDY_ID.fullmatch(record.study):
                raise DataError("names another study than its folder does (was that renamed?)")
            return cls(folder, record)
        except DataError as error:
            raise DataError(error.what, file=_shown(path), remedy=_MEND_RECORD) from error

    @property
    def id(self) -> str:
        return self.record.study

    @property
    def patient(self) -> str:
        return self.record.patient

    def letterbox(self, size: int | None = None) -> Letterbox:
        """How its picture lies in a square of `size`; None: as large as the picture is stored."""
        record = self.record
        part = None if record.picture is None else record.picture.part
        longer = max(part[2:] if part else (record.width, record.height))
        return Letterbox.fit(record.height, record.width, size or longer, part)

    def read_frame(self, index: int) -> NDArray[np.uint8]:
        """Frame `index` (from 0), uint8 (H, W). Raises DataError, also for one of another size."""
        grey = read_frame_file(self.folder, index)
        if grey.shape != (self.record.height, self.record.width):
            raise _damaged(self.folder / "frames" / frame_name(index), "is of another size")
        return grey

    def frames(self) -> Iterator[Frame]:
        """All frames in order."""
        for index, time_s in enumerate(self.record.frame_times_s):
            yield Frame(index, time_s, self.read_frame(index))

    def labelled_frames(self, task: str) -> tuple[int, ...]:
        """Frames with a mask of `task`, blank ones included; in order."""
        return self.record.labelled.get(task, ())

    def read_mask(self, task: str, index: int) -> NDArray[np.bool_] | None:
        """The mask of `task` on frame `index`, bool (H, W).

        None: unlabelled. All False: labelled as absent. Raises DataError when it is damaged.
        """
        if index not in self.labelled_frames(task):
            return None
        return read_mask_file(self.folder, task, index)


@dataclass(frozen=True)
class StudySource:
    """A stored study read like any other recording."""

    study: Study

    @property
    def path(self) -> Path:
        return self.study.folder

    @property
    def info(self) -> SourceInfo:
        record = self.study.record
        rate = (record.frames / record.duration_s) if record.duration_s else None
        return SourceInfo(
            kind="study",
            codec=record.codec,
            declared_frames=record.frames,
            nominal_fps=rate,
            pixel_spacing_mm=record.pixel_spacing_mm,
            warnings=record.warnings,
            stored_size=(record.height, record.width),
            picture=record.picture,
        )

    def frames(self) -> Iterator[Frame]:
        return self.study.frames()


# Studies that can be read, and of those whose record is damaged `{"input", "error"}`.
Stored = tuple[list[Study], list[dict[str, str]]]


def list_studies(workspace: Workspace) -> list[Study]:
    """All complete studies, by id. Raises DataError, naming the damaged records at once."""
    studies, failed = _opened(workspace)
    if failed:
        first, *others = failed
        what = listed([first.what, *(f"{error.file}: {error.what}" for error in others)])
        raise DataError(what, file=first.file, remedy=f"{_MEND_RECORD} {_WITHOUT_IT}")
    return studies


def list_studies_readable(workspace: Workspace) -> Stored:
    """All studies by id: a damaged one must not stop a command that has others."""
    studies, failed = _opened(workspace)
    return studies, [
        {"input": str(error.file).removesuffix(f"/{RECORD_FILE}"), "error": error.without_file}
        for error in failed
    ]


def _opened(workspace: Workspace) -> tuple[list[Study], list[DataError]]:
    studies, failed = [], []
    for folder in _folders(workspace):
        try:
            studies.append(Study.open(folder))
        except DataError as error:
            failed.append(error)
    return studies, failed


def folder_of(failure: Mapping[str, str]) -> str:
    """The name of the folder that one of `list_studies_readable`'s failures speaks of."""
    return failure["input"].removeprefix("studies/")


def is_study_folder(folder: Path) -> bool:
    """Is it a study, perhaps a damaged one? It holds frames or masks, if no record any more.

    Passed over, it would be ingested again, and what labels were imported into it lost.
    """
    if is_temporary(folder):
        return False
    if folder.is_symlink() and not folder.exists():
        return True
    return folder.is_dir() and any(
        os.path.lexists(folder / name) for name in (RECORD_FILE, "frames", "masks")
    )


def _folders(workspace: Workspace) -> list[Path]:
    """Of all studies, damaged ones too, by id."""
    folders = workspace.studies.iterdir() if workspace.studies.is_dir() else ()
    return sorted(filter(is_study_folder, folders), key=lambda folder: folder.name)


def has_imported_labels(folder: Path) -> bool:
    """Has `vfss labels import` put masks into this study? They are nowhere but there."""
    origin = read_json(folder / RECORD_FILE).get("provenance")
    return isinstance(origin, dict) and bool(origin.get("labels_imported"))


def frame_name(index: int) -> str:
    """`000000.png` for frame 0: the name of its picture and of its masks."""
    return f"{index:06d}.png"


def write_frame(folder: Path, index: int, grey: NDArray[np.uint8]) -> None:
    """Write one frame, uint8 (H, W), into the study folder being made."""
    write_png(folder / "frames" / frame_name(index), grey, _PNG_FRAME)


def read_frame_file(folder: Path, index: int) -> NDArray[np.uint8]:
    """A frame of a study folder, complete or being made. Raises DataError."""
    return _read_png(folder / "frames" / frame_name(index))


def write_mask(folder: Path, task: str, index: int, mask: NDArray[np.bool_]) -> None:
    """Write one mask, bool (H, W), into the study folder being made."""
    target = folder / "masks" / task
    target.mkdir(parents=True, exist_ok=True)
    write_png(target / frame_name(index), mask.astype(np.uint8) * 255)


def read_mask_file(folder: Path, task: str, index: int) -> NDArray[np.bool_]:
    """A mask of a study folder, complete or being made, bool (H, W). Raises DataError."""
    result: NDArray[np.bool_] = _read_png(folder / "masks" / task / frame_name(index)) > 127
    return result


def write_record(folder: Path, record: StudyRecord, **facts: Any) -> None:
    """Write `study.json` into the study folder being made."""
    body = document(record.to_dict(), **facts)
    # One line a field: thousands of frame times would otherwise take thousands of lines.
    lines = [f" {json.dumps(key)}: {json.dumps(body[key], allow_nan=False)}" for key in body]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    (folder / RECORD_FILE).write_bytes(text.encode())  # the same bytes on Windows too


def write_png(target: Path, grey: NDArray[np.uint8], settings: Sequence[int] = ()) -> None:
    """Write uint8 (H, W) losslessly. Encoded in memory: OpenCV's own writer garbles accents."""
    done, data = cv2.imencode(".png", grey, list(settings))
    if not done:
        raise StorageError("a frame could not be encoded", file=target.name)
    target.write_bytes(data.tobytes())


def _read_png(path: Path) -> NDArray[np.uint8]:
    try:
        data = np.fromfile(path, np.uint8)
        grey = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if len(data) else None
    except (OSError, cv2.error) as error:  # OpenCV raises where a header claims far too much
        raise _damaged(path) from error
    if grey is None:
        raise _damaged(path)
    result: NDArray[np.uint8] = np.asarray(grey, np.uint8)
    return result


def _damaged(path: Path, what: str = "is missing or damaged") -> DataError:
    return DataError(
        what,
        file=_shown(path),
        remedy="Ingest the recording again with --force.",
    )


def _shown(path: Path) -> str:
    """`studies/<study>/study.json`: never absolute, for it is printed."""
    return "/".join(path.parts[-3:])
