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
from pydicom.uid import DeflatedExplicitVRLittleEndian

from ...errors import LabelError
from ..source import MAX_PIXELS
from .annotations import MAX_VOLUME_BYTES, Annotations, Place, check_bytes
from .runs import boxed_runs

_STORAGES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_DIMENSIONS = "DimensionIndexSequence"
_BY_SEGMENT = 0x0062000B  # ReferencedSegmentNumber


def read_dicom_seg(path: Path) -> Annotations:
    """Every segment on every frame where it is. Raises LabelError."""
    check_bytes(path, MAX_VOLUME_BYTES)
    found = Annotations(path, "dicom-seg")
    try:
        if read_file_meta_info(path).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            raise LabelError(  # it unpacks to any size before anything can be checked
                "is deflated DICOM", file=path, remedy="Save it with another transfer syntax."
            )
        data = dcmread(path)
    except (InvalidDicomError, EOFError) as error:
        raise LabelError("is no DICOM file", file=path) from error
    if data.get("SOPClassUID") not in _STORAGES:
        raise LabelError(
            "is DICOM, but no segmentation object", file=path, remedy="Give the SEG file."
        )
    pixels = _Pixels(data)
    names = {
        int(segment.SegmentNumber): found.know(str(segment.SegmentLabel))
        for segment in data.SegmentSequence
        if int(segment.SegmentNumber) != pixels.background
    }
    size = int(data.Rows), int(data.Columns)
    if size[0] * size[1] > MAX_PIXELS:
        raise LabelError("frames are too large", file=path)
    frames = _Frames(data)
    for number, groups in enumerate(data.PerFrameFunctionalGroupsSequence):
        values = pixels.frame(number)
        segments = pixels.segments(groups, data, values)
        # A frame of a label map holds all segments, and perhaps none.
        frame = frames.of(groups, 0 if pixels.label_map else segments[0][0])
        for segment, mask in segments:
            if segment not in names:
                raise LabelError(f"has a frame of segment {segment}, which it does not list")
            place = Place(path.stem, frame, size)
            if mask.any():
                found.add(place, names[segment], boxed_runs(mask))
    if frames.guessed:
        found.notes.append("the file names no frame numbers; frames were taken in their order")
    return found


class _Pixels:
    """Frames one by one; bits are unpacked for one frame at a time."""

    def __init__(self, data: Dataset) -> None:
        self._data = data
        self._size = int(data.Rows), int(data.Columns)
        self._kind = str(data.get("SegmentationType", "BINARY"))
        self.label_map = self._kind == "LABELMAP"
        self.background = int(data.get("PixelPaddingValue") or 0) if self.label_map else 0
        syntax = data.file_meta.TransferSyntaxUID
        self._bits = int(data.BitsAllocated)
        self._raw = None if syntax.is_compressed else np.frombuffer(data.PixelData, np.uint8)
        if self._bits not in (1, 8, 16):
            raise ValueError("pixels of an unknown depth")

    def frame(self, number: int) -> NDArray[np.int64]:
        count = self._size[0] * self._size[1]
        if self._raw is None:
            from pydicom.pixels import pixel_array

            values = pixel_array(self._data, index=number)
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
            raise LabelError("breaks off within its pixels", remedy="Export or copy it again.")
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
            return [(segment, 2 * values >= int(data.MaximumFractionalValue))]
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
        self.guessed = False

    def of(self, groups: Dataset, row: int) -> int:
        """Ask once for each frame of the file. Of one `row` each is a frame of its own."""
        order = self._seen[row] = self._seen.get(row, -1) + 1
        for derived in groups.get("DerivationImageSequence", ()):
            for image in derived.get("SourceImageSequence", ()):
                number = image.get("ReferencedFrameNumber")
                if number is not None:
                    first = number[0] if hasattr(number, "__len__") else number
                    return int(first) - 1
                uid = str(image.get("ReferencedSOPInstanceUID", ""))
                if len(self._images) > 1 and uid in self._images:
                    return self._images[uid]
        self.guessed = True
        index = self._index(groups)
        return order if index is None else index

    def _index(self, groups: Dataset) -> int | None:
        """The place of a frame along the one dimension that is not the segment."""
        content = groups.get("FrameContentSequence")
        values = content[0].get("DimensionIndexValues") if content else None
        if values is None or self._dimension is None:
            return None
        values = list(values) if hasattr(values, "__len__") else [values]
        return int(values[self._dimension]) - 1 if self._dimension < len(values) else None
