"""Sources: anything with frames in it, told apart by content, and read front to back.

A source is one recording: a film, a cine DICOM, a GIF, a folder of numbered images, or a study of
the store. Every reader yields the same thing, `Frame`: 8-bit grey, square pixels, full range, with
the time the recording itself gives. Nothing is ever addressed by seeking: sequential decoding is
the only kind that is exact in every format.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..provenance import sha256_file, sha256_files
from .boxes import Box

Interlaced = Literal["deinterlace", "fields", "keep"]

ASSUMED_FPS = 30.0  # for recordings that carry no time; always said in a warning
ASSUMED = "frames/s assumed"
UNTIMED = "frames without a usable time"
MAX_PIXELS = 64_000_000  # per frame; a fluoroscope gives at most 4 million
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".vob", ".m2v"}
    | {".ts", ".m2ts", ".mts", ".wmv", ".asf", ".flv", ".gif"}
)
DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})
_GENERIC_FOLDERS = frozenset({"images", "frames"})  # say nothing of the recording: use the parent

_MAX_STRETCH = 4  # a pixel aspect beyond 1:4 is a damaged header, not an anamorphic recorder


@dataclass(frozen=True)
class Frame:
    """One frame: `grey` uint8 (H, W), 0-255, square pixels, bone bright; `time_s` from the first.

    `index` counts decoded frames from 0, and is what label files name.
    """

    index: int
    time_s: float
    grey: NDArray[np.uint8]


@dataclass(frozen=True)
class SourceInfo:
    """What a recording says of itself.

    `kind`: video, dicom, images, gif or study. `declared_frames`: the header's word, None where it
    has none. `stored_size`: (height, width) as stored, before pixels are made square: the size of
    its masks. `pixel_aspect`: width:height of a stored pixel. `pixel_spacing_mm`: (row, column) of
    the square pixels we yield, at the detector. `patient_hint` is never written to any file but
    identities.csv. Once all frames have been read, `warnings` may have grown, and `interlaced`
    tells what was done with interlaced pictures ("deinterlaced", "fields", "kept"; "": none were).
    `view_hint`: the header's word on view and side, see view.py; "" where it has none.
    `exam_hint`: what recordings of one examination share; like `patient_hint`, never written.
    `picture`: where it lies within margins that stay black, as far as that is known by now.
    `acquisition`: technical facts of a DICOM header that name nobody, see dicom_acquisition.py.
    """

    kind: str
    codec: str
    declared_frames: int | None
    nominal_fps: float | None
    pixel_aspect: tuple[int, int] = (1, 1)
    pixel_spacing_mm: tuple[float, float] | None = None
    patient_hint: str | None = None
    warnings: tuple[str, ...] = ()
    stored_size: tuple[int, int] = (0, 0)
    interlaced: str = ""
    view_hint: str = ""
    exam_hint: str | None = None
    picture: Box | None = None
    acquisition: Mapping[str, Any] = field(default_factory=dict)


def made_up_times(warnings: Iterable[str]) -> tuple[str, ...]:
    """Those of a recording's warnings which say that some or all of its times are not its own."""
    return tuple(line for line in warnings if ASSUMED in line or UNTIMED in line)


class FrameSource(Protocol):
    """A recording opened for reading. `frames()` may be called again and starts over."""

    @property
    def path(self) -> Path: ...

    @property
    def info(self) -> SourceInfo: ...

    def frames(self) -> Iterator[Frame]:
        """All frames in order, decoded once, in constant memory. Raises InputError on damage."""
        ...


@dataclass(frozen=True)
class Found:
    """A recording and the input it was found under (its own folder for a file given by name)."""

    path: Path
    root: Path


@dataclass(frozen=True)
class LeftOut:
    """What lies in a folder of recordings and is none, and why."""

    found: Found
    why: str


def open_source(
    path: Path, *, images_fps: float | None = None, interlaced: Interlaced = "deinterlace"
) -> FrameSource:
    """Open a film, DICOM file, GIF, folder of image frames, or study. Raises InputError.

    `images_fps` is the rate of recordings that carry no time of their own. `interlaced` says what
    becomes of interlaced films (see interlace.py).
    """
    if path.is_dir():
        if (path / "study.json").is_file():
            from .study import Study, StudySource

            return StudySource(Study.open(path))
        from .images import ImageSource

        return ImageSource(path, fps=images_fps)
    kind = sniff(path)
    if kind == "dicom":
        from .dicom import DicomSource

        return DicomSource(path, fps=images_fps, files=_frame_files(path), interlaced=interlaced)
    if kind == "image":
        raise InputError(
            "is a single image", file=path, remedy="Give the folder that holds its frames."
        )
    from .video import VideoSource

    return VideoSource(path, kind="gif" if kind == "gif" else "video", interlaced=interlaced)


def content_sha256(path: Path) -> str:
    """Digest of a recording: the file's bytes, or of an image folder its images in natural order.

    Single-frame DICOM files of one run are digested together, in the order of their frames. A study
    answers with the digest of the recording it came from.
    """
    if not path.is_dir():
        files = _frame_files(path)
        return sha256_files(files) if len(files) > 1 else sha256_file(path)
    if (path / "study.json").is_file():
        from .study import Study

        return Study.open(path).record.source_sha256
    return sha256_files(image_files(path))


def _frame_files(path: Path) -> tuple[Path, ...]:
    """The DICOM files that hold the frames of the recording `path`: itself, or all of its run."""
    if sniff(path) != "dicom":
        return (path,)
    from .dicom_series import run_of

    return run_of(path)


def recording_name(path: Path) -> str:
    """What a recording is called: a file's stem; a folder's name, or its parent's if generic."""
    if not path.is_dir():
        return path.stem
    return path.resolve().parent.name if is_generic(path) else path.name


def is_generic(path: Path) -> bool:
    """Does this folder's name say nothing of the recording?"""
    return path.is_dir() and path.name.lower() in _GENERIC_FOLDERS


def natural_key(path: Path) -> list[Any]:
    """Sort key by which frame2 comes before frame10."""
    parts = re.split(r"(\d+)", path.name.casefold())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


def image_files(folder: Path) -> list[Path]:
    """The images directly in `folder`, in natural order."""
    files = (path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    visible = (path for path in files if path.is_file() and not path.name.startswith("."))
    return sorted(visible, key=natural_key)


def sniff(path: Path) -> str:
    """`dicom`, `gif`, `image` or `video`, by content. Raises InputError: empty or unreadable."""
    try:
        with path.open("rb") as stream:
            head = stream.read(132)
    except OSError as error:
        raise InputError(
            f"cannot be read ({error.strerror})", file=path, remedy="Check path and permissions."
        ) from error
    if not head:
        raise InputError("is empty", file=path, remedy="Export or copy it again.")
    if head[128:132] == b"DICM" or path.suffix.lower() in DICOM_SUFFIXES:
        return "dicom"
    if head[:4] == b"GIF8":
        return "gif"
    if head[:8] == b"\x89PNG\r\n\x1a\n" or head[:3] == b"\xff\xd8\xff":
        return "image"
    if head[:2] == b"BM" or head[:4] in (b"II*\0", b"MM\0*"):
        return "image"
    return "video"


def is_dicom(path: Path) -> bool:
    """Whether a file bears the mark of DICOM; False for folders and what cannot be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def square_size(height: int, width: int, aspect: tuple[int, int]) -> tuple[int, int]:
    """(height, width) with square pixels; the side sampled too thinly grows, so nothing is lost."""
    across, down = aspect
    if across == down:
        return height, width
    if across > down:
        return height, max(1, round(width * across / down))
    return max(1, round(height * down / across)), width


def usable_aspect(across: int, down: int) -> tuple[int, int]:
    """A pixel aspect as width:height; (1, 1) for 0:1 and for what no recorder makes."""
    if across <= 0 or down <= 0 or max(across, down) > _MAX_STRETCH * min(across, down):
        return 1, 1
    return across, down


def make_square(grey: NDArray[np.uint8], aspect: tuple[int, int]) -> NDArray[np.uint8]:
    """A stored frame (H, W) with square pixels."""
    height, width = square_size(grey.shape[0], grey.shape[1], aspect)
    if (height, width) == grey.shape:
        return grey
    resized: NDArray[np.uint8] = cv2.resize(grey, (width, height), interpolation=cv2.INTER_LINEAR)
    return resized


def check_size(height: int, width: int, path: Path) -> None:
    """Raises InputError for a frame that could only be an accident or an attack."""
    if height * width > MAX_PIXELS:
        raise InputError(
            f"frames of {width}x{height} pixels are too large",
            file=path,
            remedy=f"At most {MAX_PIXELS // 1_000_000} million pixels a frame.",
        )
