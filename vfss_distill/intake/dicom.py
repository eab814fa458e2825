"""Cine DICOM: XA, RF, Enhanced, multi-frame Secondary Capture, and films inside DICOM.

Frames are streamed from the file. How stored values become 8 bits is decided once per recording,
never per frame, so that a frame's grey means the same throughout. Times come from FrameTimeVector
(0018,1065), FrameTime (0018,1063), the frame contents of enhanced objects, CineRate (0018,0040) or
RecommendedDisplayFrameRate (0008,2144), in this order.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.encaps import generate_frames
from pydicom.pixels import iter_pixels
from pydicom.uid import MPEGTransferSyntaxes

from ..errors import InputError, VfssError
from .dicom_times import FrameTimes, frame_times
from .dicom_tone import Tone, functional
from .source import ASSUMED_FPS, Frame, SourceInfo, check_size, make_square, usable_aspect
from .video import VideoSource

_SAMPLED = 9  # frames looked at to scale pixels of more than 8 bits
_MPEG = frozenset(map(str, MPEGTransferSyntaxes))

# What pydicom has to say about bent headers goes to our own warnings or is of no use to a reader.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
warnings.filterwarnings("ignore", category=UserWarning, module=r"pydicom")


@dataclass
class DicomSource:
    """One DICOM file; `fps` is used only when its header gives no time.

    Raises InputError at once: no DICOM, no pixel data, too large; on reading: not one frame can be
    decoded, or the plug-in for its transfer syntax is missing. `info.patient_hint` is PatientID.
    """

    path: Path
    fps: float | None = None
    _header: Any = field(init=False, repr=False)
    _times: FrameTimes = field(init=False)
    _film: VideoSource | None = field(init=False, default=None)
    _info: SourceInfo = field(init=False)

    def __post_init__(self) -> None:
        with _damage_as_input_error(self.path):
            self._open()

    def _open(self) -> None:
        self._header = _read_header(self.path)
        rows, columns = int(self._header.Rows), int(self._header.Columns)
        check_size(rows, columns, self.path)
        count = int(self._header.get("NumberOfFrames") or 1)
        self._times = frame_times(self._header, count, self.fps or ASSUMED_FPS, self.fps is None)
        self._info = SourceInfo(
            kind="dicom",
            codec=_syntax(self._header),
            declared_frames=count,
            nominal_fps=self._times.fps,
            pixel_aspect=_pixel_aspect(self._header),
            pixel_spacing_mm=_square_spacing(self._header),
            patient_hint=str(self._header.get("PatientID") or "").strip() or None,
            warnings=self._times.warnings,
            stored_size=(rows, columns),
        )
        if self._header.file_meta.TransferSyntaxUID in _MPEG:
            self._film = VideoSource(self.path, kind="dicom", data=self._film_bytes())

    @property
    def info(self) -> SourceInfo:
        return self._info

    def frames(self) -> Iterator[Frame]:
        return self._film_frames(self._film) if self._film else self._picture_frames()

    def _picture_frames(self) -> Iterator[Frame]:
        with _damage_as_input_error(self.path):
            tone = Tone.decide(self._header, self._sample)
        index = 0
        for stored in self._decoded():
            with _damage_as_input_error(self.path):
                grey = make_square(tone.apply(stored), self._info.pixel_aspect)
            yield Frame(index, self._times.of(index), grey)
            index += 1
        self._conclude(index)

    def _film_frames(self, film: VideoSource) -> Iterator[Frame]:
        index = 0
        for frame in film.frames():
            time_s = frame.time_s if self._times.assumed else self._times.of(index)
            yield replace(frame, time_s=time_s)
            index += 1
        self._conclude(index)

    def _decoded(self) -> Iterator[NDArray[Any]]:
        """Stored pixels frame by frame; ends early, with a warning, where the file breaks off."""
        declared = self._info.declared_frames or 1
        done = 0
        with _damage_as_input_error(self.path):
            counts = _counts_to_try(declared, self._complete_frames())
        for count in counts:
            try:
                for pixels in iter_pixels(
                    self.path, **({"number_of_frames": count} if count else {})
                ):
                    yield pixels
                    done += 1
            # Decoder plug-ins raise whatever they like on damaged data.
            except Exception as error:
                failure = error
            else:
                return
            if done:
                return
        raise _cannot_decode(self.path, self._header, failure) from failure

    def _complete_frames(self) -> int | None:
        """Frames that can lie in an uncompressed file as long as this one; None if compressed."""
        if self._header.file_meta.TransferSyntaxUID.is_compressed:
            return None
        header = self._header
        samples = int(header.get("SamplesPerPixel") or 1)
        frame = int(header.Rows) * int(header.Columns) * samples * int(header.BitsAllocated) // 8
        return int(self.path.stat().st_size // max(frame, 1))

    def _sample(self) -> NDArray[Any]:
        """Stored values of a few frames over the recording."""
        count = self._info.declared_frames or 1
        chosen = np.unique(np.linspace(0, count - 1, min(_SAMPLED, count)).astype(int))
        values = []
        try:
            for pixels in iter_pixels(self.path, indices=chosen.tolist()):
                values.append(pixels[::3, ::3].ravel())
        except Exception:  # a file cut off: the first frames must do
            for pixels in self._decoded():
                values.append(pixels[::3, ::3].ravel())
                break
        return np.concatenate(values)

    def _film_bytes(self) -> bytes:
        try:
            data = pydicom.dcmread(self.path).PixelData
            return b"".join(generate_frames(data, number_of_frames=1))
        except Exception as error:  # pydicom's parsers raise many kinds on damaged data
            raise InputError(
                "the film inside is damaged", file=self.path, remedy="Export it again."
            ) from error

    def _conclude(self, decoded: int) -> None:
        said = list(self._times.warnings)
        if self._info.declared_frames != decoded:
            said.append(f"decoded {decoded} of {self._info.declared_frames} declared frames")
        self._info = replace(self._info, warnings=tuple(said))


@contextmanager
def _damage_as_input_error(path: Path) -> Iterator[None]:
    """pydicom reads values when they are asked for, and raises many kinds on damaged ones."""
    try:
        yield
    except (VfssError, MemoryError):
        raise
    except Exception as error:
        raise InputError(
            "its DICOM header is damaged", file=path, remedy="Export it again."
        ) from error


def _read_header(path: Path) -> Any:
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
    except pydicom.errors.InvalidDicomError as error:
        raise InputError("is no DICOM file", file=path, remedy="Export it again.") from error
    except OSError as error:
        raise InputError("cannot be read", file=path, remedy="Check permissions.") from error
    needed = ("Rows", "Columns", "BitsAllocated")
    if any(not header.get(name) for name in needed) or "TransferSyntaxUID" not in header.file_meta:
        raise InputError(
            "is DICOM without pictures",
            file=path,
            remedy="Choose the cine runs of the export (XA, RF, secondary capture).",
        )
    return header


def _counts_to_try(declared: int, complete: int | None) -> Iterable[int | None]:
    """Frame counts to decode with: the header's, then what a file cut off can hold."""
    yield None
    if complete is not None and complete <= declared:
        # The header's bytes may have passed for one frame more.
        yield from (count for count in (complete, complete - 1) if count > 0)


def _cannot_decode(path: Path, header: Any, error: Exception) -> InputError:
    text = str(error)
    if isinstance(error, AttributeError) and ("7FE0" in text or "Pixel Data" in text):
        return InputError(
            "is DICOM without pixel data", file=path, remedy="Export it with its pictures."
        )
    if isinstance(error, NotImplementedError) or "missing dependencies" in text:
        return InputError(
            f"no decoder for {_syntax(header)}",
            file=path,
            remedy="Run `vfss doctor`; it names the plug-in.",
        )
    return InputError(
        f"not one frame can be decoded ({_syntax(header)})",
        file=path,
        remedy="The file is damaged or cut off: export it again.",
    )


def _syntax(header: Any) -> str:
    return str(header.file_meta.TransferSyntaxUID.name)


def _spacing(header: Any) -> tuple[float, float] | None:
    """(row, column) in mm of stored pixels; at the detector where the object gives that."""
    measures = functional(header, "PixelMeasuresSequence")
    for item, name in (
        (header, "ImagerPixelSpacing"),
        (measures, "PixelSpacing"),
        (header, "NominalScannedPixelSpacing"),
    ):
        value = item.get(name)
        if value is not None and not isinstance(value, str | float) and len(value) == 2:
            row, column = float(value[0]), float(value[1])
            if row > 0 and column > 0:
                return row, column
    return None


def _pixel_aspect(header: Any) -> tuple[int, int]:
    """Width:height of a stored pixel, from PixelAspectRatio (vertical\\horizontal) or spacing."""
    ratio = header.get("PixelAspectRatio")
    if ratio is not None and len(ratio) == 2:
        return usable_aspect(int(ratio[1]), int(ratio[0]))
    spacing = _spacing(header)
    if spacing is None or abs(spacing[0] - spacing[1]) <= 1e-3 * spacing[0]:
        return 1, 1
    return usable_aspect(round(spacing[1] * 1e4), round(spacing[0] * 1e4))


def _square_spacing(header: Any) -> tuple[float, float] | None:
    """(row, column) in mm once pixels are square: the finer side is kept."""
    spacing = _spacing(header)
    if spacing is None or _pixel_aspect(header) == (1, 1):
        return spacing
    return min(spacing), min(spacing)
