"""Cine DICOM: XA, RF, Enhanced, multi-frame Secondary Capture, films inside DICOM, and series of
single-frame files.

Frames are read and decoded one at a time. What their values mean is decided by `dicom_tone`, when
they were taken by `dicom_times`, which files make up a series by `dicom_series`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import MPEGTransferSyntaxes

from ..errors import InputError
from .dicom_acquisition import ALLOWED, acquisition_of
from .dicom_file import (
    GROUPS,
    NEEDED,
    damage_as_input_error,
    open_dicom,
    read_header,
    syntax_name,
)
from .dicom_pixels import PixelData, declared_frames
from .dicom_times import FrameTimes, frame_times, series_times
from .dicom_tone import Rule, Tone, functional, rules_of, rules_of_series
from .source import (
    ASSUMED_FPS,
    Frame,
    Interlaced,
    SourceInfo,
    check_size,
    make_square,
    usable_aspect,
)
from .video import VideoSource
from .view import header_view

_SAMPLED = 9  # frames looked at to judge windows, and to scale pixels of more than 8 bits
_MPEG = frozenset(map(str, MPEGTransferSyntaxes))
_READ = tuple(dict.fromkeys((*NEEDED, *GROUPS, *ALLOWED)))


@dataclass
class DicomSource:
    """One DICOM file, or (`files`) a series of single-frame ones in the order of their frames.

    `fps` is used only when neither header nor a film inside gives times, `interlaced` only for a
    film inside. Raises InputError at once: no DICOM, no pixel data, too large, no decoder for its
    transfer syntax; on reading: not one frame can be decoded. `info.patient_hint` is PatientID.
    """

    path: Path
    fps: float | None = None
    files: tuple[Path, ...] = ()
    interlaced: Interlaced = "deinterlace"
    _parts: list[PixelData] = field(init=False, repr=False)
    _times: FrameTimes = field(init=False)
    _rules: tuple[Rule, ...] = field(init=False)
    _declared: int = field(init=False)
    _film: VideoSource | None = field(init=False, default=None)
    _info: SourceInfo = field(init=False)

    def __post_init__(self) -> None:
        self._parts = []
        for part in self.files or (self.path,):
            with damage_as_input_error(part):
                self._parts.append(_open_part(part))
        with damage_as_input_error(self.path):
            self._describe()

    @property
    def info(self) -> SourceInfo:
        return self._info

    def frames(self) -> Iterator[Frame]:
        return self._film_frames(self._film) if self._film else self._picture_frames()

    def _describe(self) -> None:
        headers = [part.header for part in self._parts]
        header = headers[0]
        assumed, say = self.fps or ASSUMED_FPS, self.fps is None
        if len(headers) > 1:
            self._declared = len(headers)
            self._times = series_times(headers, assumed, say)
            self._rules = rules_of_series(headers)
        else:
            self._declared = declared_frames(header)
            found = self._declared if _is_film(header) else len(self._parts[0].frames)
            self._times = frame_times(header, max(self._declared, found), assumed, say)
            self._rules = rules_of(header, found)
        if _is_film(header):
            self._film = VideoSource(
                self.path,
                kind="dicom",
                data=self._parts[0].stream,
                interlaced=self.interlaced,
                times=None if self._times.assumed else self._times.of,
                declared=self._declared,
            )
            self._times = self._times.or_of_film(self._film.info.nominal_fps)
        self._info = SourceInfo(
            kind="dicom",
            codec=syntax_name(header),
            declared_frames=self._declared,
            nominal_fps=self._times.fps,
            pixel_aspect=_pixel_aspect(header),
            pixel_spacing_mm=_square_spacing(header),
            patient_hint=str(header.get("PatientID") or "").strip() or None,
            exam_hint=str(header.get("StudyInstanceUID") or "").strip() or None,
            acquisition=acquisition_of(header) | self._times_from(),
            warnings=self._times.warnings,
            stored_size=(int(header.Rows), int(header.Columns)),
            view_hint=header_view(header),
        )

    def _times_from(self) -> dict[str, str]:
        return {"times_from": self._times.origin} if self._declared > 1 else {}

    def _picture_frames(self) -> Iterator[Frame]:
        with damage_as_input_error(self.path):
            tone = Tone(self._parts[0].header, self._rules, self._sample)
        count, first_s = 0, 0.0
        for stored_index, stored in self._decoded():
            with damage_as_input_error(self.path):
                grey = make_square(tone.apply(stored, stored_index), self._info.pixel_aspect)
            time_s = self._times.of(stored_index)
            first_s = time_s if count == 0 else first_s
            yield Frame(count, time_s - first_s, grey)
            count += 1
        self._conclude(count)

    def _film_frames(self, film: VideoSource) -> Iterator[Frame]:
        yield from film.frames()
        self._conclude(film.decoded)
        said = dict.fromkeys((*self._info.warnings, *film.info.warnings))
        self._info = replace(self._info, interlaced=film.info.interlaced, warnings=tuple(said))

    def _places(self) -> list[tuple[int, PixelData, int]]:
        """(place in the recording, file, frame in it) of all frames that are there."""
        if len(self._parts) > 1:
            return [(place, part, 0) for place, part in enumerate(self._parts) if part.frames]
        part = self._parts[0]
        return [(index, part, index) for index in range(len(part.frames))]

    def _decoded(self, only: Collection[int] | None = None) -> Iterator[tuple[int, NDArray[Any]]]:
        """(place in the recording, stored pixels) of every frame that can be decoded, or of the
        places `only`. Raises InputError when there is not one."""
        good, failure = 0, None
        for path, places in groupby(self._places(), key=lambda item: item[1].path):
            with open_dicom(path) as stream:
                for place, part, index in places:
                    if only is not None and place not in only:
                        continue
                    try:
                        pixels = part.decode(stream, index)
                    except (InputError, MemoryError):
                        raise
                    except Exception as error:  # decoders raise whatever they like on damage
                        failure = error
                        continue
                    yield place, pixels
                    good += 1
        if not good:
            raise InputError(
                f"not one frame can be decoded ({self._info.codec})",
                file=self.path,
                remedy="The file is damaged or cut off: export it again.",
            ) from failure

    def _sample(self) -> list[tuple[int, NDArray[Any]]]:
        """(place, stored values) of a few frames over the recording, thinned out."""
        places = [place for place, _, _ in self._places()]
        chosen = np.linspace(0, len(places) - 1, min(_SAMPLED, len(places))).astype(int)
        only = {places[index] for index in chosen}
        try:
            return [(place, pixels[::3, ::3].ravel()) for place, pixels in self._decoded(only)]
        except InputError:  # those chosen are damaged: the first that is not must do
            place, pixels = next(self._decoded())
            return [(place, pixels[::3, ::3].ravel())]

    def _conclude(self, decoded: int) -> None:
        said = list(self._times.warnings)
        if self._declared != decoded:
            said.append(f"decoded {decoded} of {self._declared} declared frames")
        self._info = replace(self._info, warnings=tuple(said))


def _open_part(path: Path) -> PixelData:
    with open_dicom(path) as stream:
        header = read_header(stream, _READ)
        needed = ("Rows", "Columns", "BitsAllocated")
        if any(not header.get(name) for name in needed) or "TransferSyntaxUID" not in (
            header.file_meta
        ):
            raise InputError(
                "is DICOM without pictures",
                file=path,
                remedy="Choose the cine runs of the export (XA, RF, secondary capture).",
            )
        check_size(int(header.Rows), int(header.Columns), path)
        pixels = PixelData.find(path, header, stream)
    if not _is_film(header):
        pixels.check_decoder()
    return pixels


def _is_film(header: Any) -> bool:
    return str(header.file_meta.TransferSyntaxUID) in _MPEG


def _spacing(header: Any) -> tuple[float, float] | None:
    """(row, column) in mm of stored pixels; at the detector where the object gives that."""
    detector = functional(header, "FramePixelDataPropertiesSequence")
    measures = functional(header, "PixelMeasuresSequence")
    for item, name in (
        (header, "ImagerPixelSpacing"),
        (detector, "ImagerPixelSpacing"),
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
