"""Label maps of DICOM SEG: which frame of the film each of theirs is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from vfss_distill.intake.formats.annotations import Annotations
from vfss_distill.intake.formats.dicom_seg import read_dicom_seg

HEIGHT, WIDTH = 12, 16
STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"
C3, BOLUS = 1, 7  # numbers of segments need not be in a row
Shown = dict[str, tuple[int, ...]]


def write_label_map(
    path: Path,
    shown: Sequence[Sequence[int]],
    per_frame: Callable[[int], Dataset],
    *,
    background: int = 0,
) -> Dataset:
    """A label map whose n-th frame shows these segments; `per_frame` gives its groups."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = STORAGE
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.Rows, data.Columns, data.NumberOfFrames = HEIGHT, WIDTH, len(shown)
    data.SamplesPerPixel, data.PixelRepresentation = 1, 0
    data.PhotometricInterpretation = "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit = 7
    data.SegmentationType = "LABELMAP"
    data.SegmentSequence = []
    for number, label in ((C3, "c3"), (BOLUS, "bolus"), (background, "background")):
        segment = Dataset()
        segment.SegmentNumber, segment.SegmentLabel = number, label
        data.SegmentSequence.append(segment)
    pixels = np.full((len(shown), HEIGHT, WIDTH), background, np.uint8)
    for frame, segments in zip(pixels, shown, strict=True):
        for segment in segments:
            frame[segment : segment + 3, 2:9] = segment
    data.PixelPaddingValue = background
    data.PixelData = pixels.tobytes()
    data.PerFrameFunctionalGroupsSequence = [per_frame(index) for index in range(len(shown))]
    data.save_as(path, enforce_file_format=True)
    return data


def frames_of(found: Annotations) -> Shown:
    """Label → the frames it was found on."""
    frames: dict[str, list[int]] = {label: [] for label in found.labels}
    for place, labels in found.entries.items():
        for label in labels:
            assert place.number is not None
            frames[label].append(place.number)
    return {label: tuple(sorted(numbers)) for label, numbers in frames.items()}


def derived(**image: object) -> Dataset:
    """The groups of a frame derived from one image."""
    groups, derivation, source = Dataset(), Dataset(), Dataset()
    for name, value in image.items():
        setattr(source, name, value)
    derivation.SourceImageSequence = [source]
    groups.DerivationImageSequence = [derivation]
    return groups


SHOWN = [(C3,), (C3, BOLUS), (BOLUS,)]


@pytest.mark.parametrize("background", [0, 255])
def test_some_frames_of_the_film_in_another_order(background: int, tmp_path: Path) -> None:
    path = tmp_path / "seg.dcm"
    film = (9, 2, 5)
    write_label_map(
        path, SHOWN, lambda i: derived(ReferencedFrameNumber=film[i]), background=background
    )
    found = read_dicom_seg(path)
    assert frames_of(found) == {"c3": (1, 8), "bolus": (1, 4)}
    assert found.notes == []


def test_by_the_images_of_a_series(tmp_path: Path) -> None:
    path = tmp_path / "seg.dcm"
    uids = [generate_uid() for _ in range(10)]
    data = write_label_map(
        path, SHOWN, lambda i: derived(ReferencedSOPInstanceUID=uids[(8, 1, 4)[i]])
    )
    series = Dataset()
    series.ReferencedInstanceSequence = []
    for uid in uids:
        image = Dataset()
        image.ReferencedSOPInstanceUID = uid
        series.ReferencedInstanceSequence.append(image)
    data.ReferencedSeriesSequence = [series]
    data.save_as(path, enforce_file_format=True)
    assert frames_of(read_dicom_seg(path)) == {"c3": (1, 8), "bolus": (1, 4)}


def test_without_a_word_on_frames_in_order(tmp_path: Path) -> None:
    """A frame of the map is one of the film, also for a segment that comes late or goes between."""
    path = tmp_path / "seg.dcm"
    write_label_map(path, [(C3,), (), (C3, BOLUS), (BOLUS,)], lambda _: Dataset())
    found = read_dicom_seg(path)
    assert frames_of(found) == {"c3": (0, 2), "bolus": (2, 3)}
    assert "names no frame numbers" in found.notes[0]


@pytest.mark.parametrize("with_segment", [False, True])
def test_by_the_index_of_the_frame(with_segment: bool, tmp_path: Path) -> None:
    path = tmp_path / "seg.dcm"

    def indexed(place: int) -> Dataset:
        groups, content = Dataset(), Dataset()
        index = (9, 2, 5)[place]
        content.DimensionIndexValues = [1, index] if with_segment else index
        groups.FrameContentSequence = [content]
        return groups

    data = write_label_map(path, SHOWN, indexed)
    data.DimensionIndexSequence = []
    for tag in (*([0x0062000B] if with_segment else []), 0x00081160):
        dimension = Dataset()
        dimension.DimensionIndexPointer = tag
        data.DimensionIndexSequence.append(dimension)
    data.save_as(path, enforce_file_format=True)
    found = read_dicom_seg(path)
    assert frames_of(found) == {"c3": (1, 8), "bolus": (1, 4)}
    assert "names no frame numbers" in found.notes[0]
