"""DICOM Segmentation objects, read only (PS3.3 A.51): binary, fractional and label-map segments.

Which frame of the film a frame belongs to is taken from ReferencedFrameNumber; without it from the
order of the referenced images. What names neither is a guess, and said: by DimensionIndexValues,
else in order, each segment's frames by themselves, or those of a label map.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from ...errors import LabelError, VfssError
from ..dicom_file import PIXELS, open_dicom, read_header
from ..dicom_pixels import PixelData
from ..source import MAX_PIXELS
from .annotations import MAX_VOLUME_BYTES, Annotations, Place, check_bytes
from .runs import boxed_runs

_STORAGES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_KINDS = ("BINARY", "FRACTIONAL", "LABELMAP")
_BAD = "Export or copy it again."
_DIMENSIONS = "DimensionIndexSequence"
_BY_SEGMENT = 0x0062000B  # ReferencedSegmentNumber


def read_dicom_seg(path: Path) -> Annotations:
    """Every segment on every frame where it is. Raises LabelError, and ValueError for damage."""
    check_bytes(path, MAX_VOLUME_BYTES)
    try:
        return _read(path)
    except (VfssError, MemoryError):
        raise
    except (InvalidDicomError, EOFError) as error:
        raise LabelError("is no DICOM file", file=path) from error
    except Exception as error:  # pydicom and decoders raise whatever they like on damage
        raise ValueError("damaged") from error


def _read(path: Path) -> Annotations:
    found = Annotations(path, "dicom-seg")
    syntax = read_file_meta_info(path).get("TransferSyntaxUID")
    if syntax in (DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian):
        # The one unpacks to any size before anything can be checked, the other swaps pixels.
        raise LabelError(
            f"is {'deflated' if syntax.is_deflated else 'big endian'} DICOM",
            file=path,
            remedy="Save it with another transfer syntax.",
        )
    data = dcmread(path)
    if data.get("SOPClassUID") not in _STORAGES:
        raise LabelError(
            "is DICOM, but no segmentation object", file=path, remedy="Give the SEG file."
        )
    size = int(data.Rows), int(data.Columns)
    if size[0] * size[1] > MAX_PIXELS:
        raise LabelError("frames are too large", file=path)
    pixels = _Pixels(path, data)
    names = _names(data, found, pixels.background)
    frames = _Frames(data)
    seen: set[tuple[int, int]] = set()
    for number, groups in enumerate(data.PerFrameFunctionalGroupsSequence):
        values = pixels.frame(number)
        segments = pixels.segments(groups, data, values)
        # A frame of a label map holds all segments, and perhaps none.
        frame = frames.of(groups, 0 if pixels.label_map else segments[0][0])
        for segment, mask in segments:
            if segment not in names:
                raise LabelError(f"has a frame of segment {segment}, which it does not list")
            if (frame, segment) in seen:
                raise LabelError(f"has two frames of segment {segment} for one of the film")
            seen.add((frame, segment))
            place = Place(path.stem, frame, size)
            if mask.any():
                found.add(place, names[segment], boxed_runs(mask))
    if frames.guessed and frames.named:
        raise LabelError("says of some frames only which of the film they are", remedy=_BAD)
    if frames.guessed:
        found.notes.append("the file names no frame numbers; frames were taken in their order")
    return found


def _names(data: Dataset, found: Annotations, background: int) -> dict[int, str]:
    """Number → label of the segments."""
    names: dict[int, str] = {}
    for segment in data.SegmentSequence:
        number = int(segment.SegmentNumber)
        if number in names:
            raise LabelError(f"has two segments of number {number}", remedy=_BAD)
        if number != background:
            names[number] = found.know(str(segment.SegmentLabel))
    return names


class _Pixels:
    """Frames one by one; bits are unpacked for one frame at a time."""

    def __init__(self, path: Path, data: Dataset) -> None:
        self._path = path
        self._size = int(data.Rows), int(data.Columns)
        self._kind = str(data.SegmentationType)
        self.label_map = self._kind == "LABELMAP"
        self.background = int(data.get("PixelPaddingValue") or 0) if self.label_map else 0
        self._bits = int(data.BitsAllocated)
        if self._bits not in (1, 8, 16) or self._kind not in _KINDS:
            raise ValueError("pixels of an unknown depth or kind")
        self._raw = np.zeros(0, np.uint8)
        self._coded: PixelData | None = None
        if data.file_meta.TransferSyntaxUID.is_compressed:
            with open_dicom(path) as stream:
                self._coded = PixelData.find(path, read_header(stream, PIXELS), stream)
            self._coded.check_decoder()
        else:
            self._raw = np.frombuffer(data.PixelData, np.uint8)
        self._check_number(data)

    def _check_number(self, data: Dataset) -> None:
        """Frames more than are described, or fewer: which is which is then a guess."""
        told = len(data.PerFrameFunctionalGroupsSequence)
        if self._coded is None:  # what breaks off is told of its frame; padding is less than one
            bits = self._size[0] * self._size[1] * self._bits
            there = max(told, 8 * len(self._raw) // max(bits, 1))
        else:
            there = len(self._coded.frames)
        for number in (int(data.get("NumberOfFrames") or told), there):
            if number != told:
                raise LabelError(f"describes {told} frames and holds {number}", remedy=_BAD)

    def frame(self, number: int) -> NDArray[np.int64]:
        count = self._size[0] * self._size[1]
        if self._coded is not None:
            with open_dicom(self._path) as stream:
                values = self._coded.decode(stream, number)
        elif self._bits == 1:
            first = number * count
            piece = self._raw[first // 8 : (first + count + 7) // 8]
            bits = np.unpackbits(piece, bitorder="little")
            values = bits[first % 8 : first % 8 + count]
        else:
            width = self._bits // 8
            piece = self._raw[number * count * width : (number + 1) * count * width]
            values = np.frombuffer(piece.tobytes(), "<u1" if width == 1 else "<u2")
        if values.size != count:
            raise LabelError("breaks off within its pixels", remedy=_BAD)
        return np.asarray(values, np.int64).reshape(self._size)

    def segments(
        self, groups: Dataset, data: Dataset, values: NDArray[np.int64]
    ) -> list[tuple[int, NDArray[np.bool_]]]:
        """Segment number and mask of each segment on one frame."""
        if self.label_map:
            return [(int(n), values == n) for n in np.unique(values) if n != self.background]
        shared = data.get("SharedFunctionalGroupsSequence") or [Dataset()]
        holder = groups if "SegmentIdentificationSequence" in groups else shared[0]
        segment = int(holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        if self._kind == "FRACTIONAL":
            whole = int(data.MaximumFractionalValue)
            if whole < 1:
                raise ValueError("nothing is the whole of a pixel")
            return [(segment, 2 * values >= whole)]
        return [(segment, values > 0)]


class _Frames:
    """Frame numbers from 0 of a film's frames."""

    def __init__(self, data: Dataset) -> None:
        images = [
            str(image.ReferencedSOPInstanceUID)
            for series in data.get("ReferencedSeriesSequence", ())
            for image in series.get("ReferencedInstanceSequence", ())
        ]
        self._images = {uid: number for number, uid in enumerate(images)}
        pointers = [item.get("DimensionIndexPointer") for item in data.get(_DIMENSIONS) or ()]
        places = [place for place, tag in enumerate(pointers) if tag != _BY_SEGMENT]
        self._dimension = places[0] if len(places) == 1 else None
        self._seen: dict[int, int] = {}
        self.guessed = self.named = False

    def of(self, groups: Dataset, row: int) -> int:
        """Ask once for each frame of the file. Of one `row` each is a frame of its own."""
        order = self._seen[row] = self._seen.get(row, -1) + 1
        known = self._referenced(groups)
        if known is not None:
            self.named = True
            return known
        self.guessed = True
        index = self._index(groups)
        return order if index is None else index

    def _referenced(self, groups: Dataset) -> int | None:
        for derived in groups.get("DerivationImageSequence", ()):
            for image in derived.get("SourceImageSequence", ()):
                number = image.get("ReferencedFrameNumber")
                if number is not None:
                    first = number[0] if hasattr(number, "__len__") else number
                    return int(first) - 1
                uid = str(image.get("ReferencedSOPInstanceUID", ""))
                if len(self._images) > 1 and uid in self._images:
                    return self._images[uid]
        return None

    def _index(self, groups: Dataset) -> int | None:
        """The place of a frame along the one dimension that is not the segment."""
        content = groups.get("FrameContentSequence")
        values = content[0].get("DimensionIndexValues") if content else None
        if values is None or self._dimension is None:
            return None
        values = list(values) if hasattr(values, "__len__") else [values]
        return int(values[self._dimension]) - 1 if self._dimension < len(values) else None
