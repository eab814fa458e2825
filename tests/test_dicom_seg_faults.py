"""DICOM SEG that is damaged, or says what cannot be: refused, never masks where there were none."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, JPEGLSLossless, RLELossless

from conftest import Cli
from label_world import first_study, make_world
from test_dicom_seg import C3, HEIGHT, SHOWN, WIDTH, derived, frames_of, write_label_map
from vfss_distill.errors import LabelError, VfssError
from vfss_distill.intake.formats.dicom_seg import read_dicom_seg
from vfss_distill.intake.formats.registry import read_labels

Change = Callable[[Dataset], object]


@pytest.fixture
def segmentation(tmp_path: Path) -> Dataset:
    return write_label_map(
        tmp_path / "seg.dcm", SHOWN, lambda i: derived(ReferencedFrameNumber=i + 1)
    )


def save(data: Dataset, tmp_path: Path) -> Path:
    path = tmp_path / "seg.dcm"
    data.save_as(path, enforce_file_format=True)
    return path


def test_fractions_of_nothing(segmentation: Dataset, tmp_path: Path) -> None:
    """With a maximum of 0 every pixel would be one of the mask."""
    segmentation.SegmentationType, segmentation.MaximumFractionalValue = "FRACTIONAL", 0
    for groups in segmentation.PerFrameFunctionalGroupsSequence:
        groups.SegmentIdentificationSequence = [Dataset()]
        groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber = C3
    path = save(segmentation, tmp_path)
    with pytest.raises(ValueError, match="damaged"):
        read_dicom_seg(path)
    segmentation.MaximumFractionalValue = 1
    assert frames_of(read_dicom_seg(save(segmentation, tmp_path)))["c3"] == (0, 1, 2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: setattr(d, "SegmentationType", "X"), "is not what DICOM Segmentation"),
        (lambda d: setattr(d, "NumberOfFrames", 4), "describes 3 frames and holds 4"),
        (lambda d: d.PerFrameFunctionalGroupsSequence.pop(), "describes 2 frames and holds 3"),
        (lambda d: setattr(d, "PixelData", d.PixelData * 2), "describes 3 frames and holds 6"),
        (lambda d: setattr(d, "PixelData", d.PixelData[:-9]), "breaks off within its pixels"),
        (lambda d: setattr(d, "BitsAllocated", 1), "describes 3 frames and holds 24"),
        (lambda d: setattr(d.SegmentSequence[0], "SegmentNumber", 7), "two segments of number 7"),
        (
            lambda d: d.PerFrameFunctionalGroupsSequence.__setitem__(
                1, derived(ReferencedFrameNumber=1)
            ),
            "two frames of segment 1 for one of the film",
        ),
        (
            lambda d: d.PerFrameFunctionalGroupsSequence[1].clear(),
            "says of some frames only which of the film they are",
        ),
    ],
)
def test_what_would_be_other_masks(
    change: Change, said: str, segmentation: Dataset, tmp_path: Path
) -> None:
    change(segmentation)
    with pytest.raises(LabelError, match=said):
        read_labels(save(segmentation, tmp_path))


def test_big_endian(segmentation: Dataset, tmp_path: Path) -> None:
    """Its pixels lie in the file in swapped pairs."""
    segmentation.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    save(segmentation, tmp_path)
    with pytest.raises(LabelError, match="is big endian DICOM"):
        read_dicom_seg(tmp_path / "seg.dcm")


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_compressed(
    syntax: str,
    segmentation: Dataset,
    tmp_path: Path,
    cli: Cli,
    capfd: pytest.CaptureFixture[str],
) -> None:
    plain = frames_of(read_dicom_seg(tmp_path / "seg.dcm"))
    segmentation.compress(syntax)
    path = save(segmentation, tmp_path)
    assert frames_of(read_dicom_seg(path)) == plain
    damaged = bytearray(path.read_bytes())
    damaged[-120:] = bytes(120)
    path.write_bytes(damaged)
    world = make_world(tmp_path)
    outcome = cli("labels", "import", path, "--study", first_study(world).id, cwd=world.root)
    assert outcome.exit_code == 4
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("error:") and "seg.dcm" in line
    assert capfd.readouterr().err == ""  # decoders print, too


def test_a_coded_frame_of_another_size(segmentation: Dataset, tmp_path: Path) -> None:
    """A decoder makes room for what the frame says of itself, before anybody can look."""
    segmentation.compress(JPEGLSLossless)
    path = save(segmentation, tmp_path)
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xf7")  # start of frame: length, depth, height, width
    assert struct.unpack_from(">2H", data, at + 5) == (HEIGHT, WIDTH)
    struct.pack_into(">2H", data, at + 5, 65535, 65535)
    path.write_bytes(data)
    with pytest.raises(VfssError, match="frames of 65535x65535 pixels are too large"):
        read_dicom_seg(path)


def test_any_byte_of_the_header(segmentation: Dataset, tmp_path: Path) -> None:
    """Bytes changed at random are refused in the package's words, or were not of the masks."""
    path = tmp_path / "seg.dcm"
    whole = path.read_bytes()
    assert dcmread(path).SegmentationType == "LABELMAP"
    chance = np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(whole)
        for at in chance.integers(132, whole.rindex(b"\xe0\x7f\x10\x00"), 3):
            data[at] = chance.integers(256)
        path.write_bytes(data)
        try:
            read_labels(path, "dicom-seg")
        except VfssError as error:
            assert "seg.dcm" in str(error)
