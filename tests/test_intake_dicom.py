"""Cine DICOM: every transfer syntax exact, grey and times as the header says, whole exports sorted
out, no word of a header in the workspace, and one line for whatever is broken."""

from __future__ import annotations

import hashlib
import json
import struct
import tracemalloc
import zlib
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom.data
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import write_file_meta_info
from pydicom.pixels import apply_voi_lut, get_decoder
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    generate_uid,
)

from conftest import Cli
from dicom_files import (
    CODED,
    JPEG_12_SHA256,
    deep_tags,
    group,
    plant_deeper,
    planted,
    ramp,
    transcode,
    write_coded,
    write_fragments,
)
from intake_films import (
    HEIGHT,
    WIDTH,
    barcode,
    dicom_header,
    read_barcode,
    write_dicom,
    write_film,
)
from vfss_distill.errors import InputError
from vfss_distill.inference.inputs import find_inputs
from vfss_distill.intake.dicom import DicomSource
from vfss_distill.intake.dicom_acquisition import ALLOWED, acquisition_of
from vfss_distill.intake.gdcm_process import GDCM
from vfss_distill.intake.source import Frame, content_sha256, open_source, walk
from vfss_distill.intake.study import list_studies
from vfss_distill.intake.video import VideoSource
from vfss_distill.workspace import Workspace

# In a process of our own they are silenced, where pydicom is imported.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

SHIPPED = Path(pydicom.data.__file__).parent / "test_files"
JPEG_BASELINE, JPEG_EXTENDED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
J2K_LOSSLESS, J2K = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"


def films(count: int = 3, bits: int = 8) -> NDArray[Any]:
    """Barcodes, with noise in the bits below the eighth."""
    pixels = np.stack([barcode(index) for index in range(count)])
    if bits == 8:
        return pixels
    noise = np.random.default_rng(0).integers(0, 1 << (bits - 8), pixels.shape)
    return ((pixels.astype(np.uint16) << (bits - 8)) + noise).astype(np.uint16)


def stored(path: Path) -> list[NDArray[Any]]:
    """Stored pixels of all frames, as decoded."""
    return [pixels for _, pixels in DicomSource(path)._decoded()]


def read(path: Path) -> list[Frame]:
    return list(open_source(path).frames())


class TestTransferSyntaxes:
    @pytest.mark.parametrize("bits", [8, 12, 16])
    @pytest.mark.parametrize(
        "syntax",
        [
            *("1.2.840.10008.1.2.1", ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless),
            *("1.2.840.10008.1.2.4.57", JPEG_LOSSLESS),
            *(JPEGLSLossless, J2K_LOSSLESS, DeflatedExplicitVRLittleEndian),
        ],
    )
    def test_lossless_ones_are_exact(self, syntax: str, bits: int, tmp_path: Path) -> None:
        pixels = films(bits=bits)
        tags = {} if bits == 8 else deep_tags(bits)
        plain = write_dicom(tmp_path / "plain.dcm", pixels=pixels, **tags).path
        path = tmp_path / "a.dcm"
        if syntax == DeflatedExplicitVRLittleEndian:
            _deflate(plain, path)
        else:
            transcode(plain, path, str(syntax))
        assert pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID == syntax
        assert np.array_equal(np.stack(stored(path)), pixels)
        assert [read_barcode(frame.grey) for frame in read(path)] == [0, 1, 2]

    @pytest.mark.parametrize("name", ["HTJ2K 8", "HTJ2K 12"])
    @pytest.mark.parametrize("last", ["201", "202", "203"])
    def test_high_throughput_jpeg_2000(self, name: str, last: str, tmp_path: Path) -> None:
        tags = {"Rows": 16, "Columns": 16} | (deep_tags() if "12" in name else {})
        path = write_coded(
            tmp_path / "a.dcm", f"1.2.840.10008.1.2.4.{last}", [CODED[name]] * 2, **tags
        )
        truth = ramp() if "12" in name else ramp() >> 4
        assert all(np.array_equal(pixels, truth) for pixels in stored(path))

    def test_jpeg_of_12_bits(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        tags = deep_tags(Rows=16, Columns=16)
        path = write_coded(tmp_path / "a.dcm", JPEG_EXTENDED, [CODED["JPEG 12"]] * 2, **tags)
        for pixels in stored(path):
            assert hashlib.sha256(pixels.astype("<u2").tobytes()).hexdigest() == JPEG_12_SHA256
            assert np.abs(pixels.astype(int) - ramp()).max() <= 3
        assert capfd.readouterr() == ("", "")  # GDCM talks to itself

    def test_jpeg_baseline_as_pillow_decodes_it(self, tmp_path: Path) -> None:
        pictures = [barcode(index) for index in range(3)]
        coded = [cv2.imencode(".jpg", grey)[1].tobytes() for grey in pictures]
        for syntax in (JPEG_BASELINE, JPEG_EXTENDED):
            path = write_coded(tmp_path / "a.dcm", syntax, coded)
            for index, pixels in enumerate(stored(path)):
                (tmp_path / "a.jpg").write_bytes(coded[index])
                assert np.array_equal(pixels, np.asarray(Image.open(tmp_path / "a.jpg")))

    def test_near_lossless_jpeg_ls_keeps_its_word(self, tmp_path: Path) -> None:
        header = pydicom.dcmread(write_dicom(tmp_path / "plain.dcm", 3).path)
        header.compress(JPEGLSNearLossless, jls_error=2)
        header.save_as(tmp_path / "a.dcm")
        for pixels, truth in zip(stored(tmp_path / "a.dcm"), films(), strict=True):
            assert np.abs(pixels.astype(int) - truth).max() <= 2

    @pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.dcm")), ids=lambda path: path.stem)
    def test_files_shipped_with_pydicom_by_every_decoder(self, path: Path) -> None:
        """Whatever holds pictures of 8 to 16 bits; each plug-in that can must agree with us."""
        header = pydicom.dcmread(path, force=True)
        whole = "PixelData" in header and path.name not in _BROKEN
        if not whole or not 8 <= header.get("BitsAllocated", 0) <= 16:
            with pytest.raises(InputError):
                read(path)
            return
        ours = stored(path)
        syntax = header.file_meta.TransferSyntaxUID
        # The same codec's rounding differs between libraries; colour is also resampled.
        lossy = syntax in (JPEG_BASELINE, J2K)
        allowed = (3 if header.SamplesPerPixel == 3 else 1) if lossy else 0
        plugins = get_decoder(syntax).available_plugins or ("",)
        agreed = 0
        for plugin in plugins:
            header.pixel_array_options(decoding_plugin=plugin)
            try:
                theirs = header.pixel_array
            except (RuntimeError, ValueError, NotImplementedError):
                continue
            theirs = theirs if len(ours) > 1 else theirs[None]
            difference = np.abs(np.stack(ours).astype(int) - theirs)
            assert np.percentile(difference, 99) <= allowed, plugin
            agreed += 1
        assert agreed or path.stem in ("JPEG-lossy", "JPGExtended")

    def test_twelve_bit_jpegs_of_pydicom_are_what_libjpeg_turbo_decodes(self) -> None:
        for name in ("JPGExtended", "JPEG-lossy"):
            (pixels,) = stored(SHIPPED / f"{name}.dcm")
            digest = hashlib.sha256(pixels.astype("<u2").tobytes()).hexdigest()
            assert digest == _JPEG_EXTENDED_SHA256

    @pytest.mark.parametrize(
        ("codec", "name", "syntax"),
        [
            ("mpeg2video", "film.mpg", "1.2.840.10008.1.2.4.100"),
            ("mpeg2video", "film.m2v", "1.2.840.10008.1.2.4.101"),
            ("libx264", "film.mp4", "1.2.840.10008.1.2.4.102"),
            ("libx264", "film.h264", "1.2.840.10008.1.2.4.102.1"),
            ("libx264", "film.ts", "1.2.840.10008.1.2.4.104"),
            ("libx265", "film.hevc", "1.2.840.10008.1.2.4.107"),
        ],
    )
    def test_films_inside(self, codec: str, name: str, syntax: str, tmp_path: Path) -> None:
        options: dict[str, Any] = {"noise": 40} if codec == "mpeg2video" else {}
        if codec == "libx265":
            options["x265-params"] = "log-level=none:pools=1"
        film = write_film(tmp_path / name, codec, frames=20, **options)
        data = film.path.read_bytes()
        # Fragments of odd sizes, as a fragmentable syntax may have them.
        pieces = [data[at : at + 3002] for at in range(0, len(data), 3002)]
        pieces = [piece + b"\0" * (len(piece) % 2) for piece in pieces]
        tags = {"FrameTime": "50", "PhotometricInterpretation": "YBR_PARTIAL_420"}
        encapsulated = encapsulate(pieces, has_bot=False)
        path = write_fragments(tmp_path / "a.dcm", syntax, encapsulated, 20, **tags)
        source = open_source(path)
        frames = list(source.frames())
        outside = list(VideoSource(film.path).frames())
        assert [read_barcode(frame.grey) for frame in frames] == list(range(20))
        assert all(np.array_equal(a.grey, b.grey) for a, b in zip(frames, outside, strict=True))
        assert [frame.time_s for frame in frames] == pytest.approx([0.05 * i for i in range(20)])
        assert source.info.warnings == () and source.info.kind == "dicom"
        assert len(list(source.frames())) == 20  # again from the start


_BROKEN = (
    *("JPEG2000-embedded-sequence-delimiter.dcm", "MR_truncated.dcm", "no_meta.dcm"),
    *("rtdose_expb.dcm", "ExplVR_BigEndNoMeta.dcm", "ExplVR_LitEndNoMeta.dcm"),
)
# By imagecodecs 2026.3.6 (libjpeg-turbo 3.1.3); both files hold the same codestream.
_JPEG_EXTENDED_SHA256 = "d30242775a414c01d616447854ebe3f2b20259822894bcd6891f879bcdcbf313"


class TestGrey:
    def test_voi_lut(self, tmp_path: Path) -> None:
        pixels = films(bits=12)
        table = Dataset()
        table.LUTDescriptor = [4096, 0, 16]
        curve = (65535 * (np.arange(4096) / 4095) ** 2).astype("<u2")
        table.LUTData = curve.tobytes()
        table["LUTData"].VR = "OW"
        tags = deep_tags(VOILUTSequence=Items([table]))
        path = write_dicom(tmp_path / "a.dcm", pixels=pixels, **tags).path
        truth = apply_voi_lut(pixels[1], pydicom.dcmread(path)) / 257.0
        assert np.abs(read(path)[1].grey - truth).max() <= 0.5

    def test_modality_lut_then_window(self, tmp_path: Path) -> None:
        pixels = films(bits=12)
        table = Dataset()
        table.LUTDescriptor = [4096, 0, 16]
        table.ModalityLUTType = "US"
        table.LUTData = (10000 - 2 * np.arange(4096)).astype("<u2").tobytes()
        table["LUTData"].VR = "OW"
        tags = deep_tags(
            ModalityLUTSequence=Items([table]), WindowCenter="6000", WindowWidth="8001"
        )
        grey = read(write_dicom(tmp_path / "a.dcm", pixels=pixels, **tags).path)[1].grey
        values = 10000 - 2 * pixels[1].astype(float)
        truth = np.clip((values - 5999.5) / 8000 + 0.5, 0, 1) * 255
        assert np.abs(grey - truth).max() <= 0.5 + 1e-6

    def test_windows_of_single_frames(self, tmp_path: Path) -> None:
        """Frames stored ever darker, each with the window that shows it as it was."""
        truth = films(4).astype(np.uint16)
        pixels = np.stack([frame * (16 >> i) for i, frame in enumerate(truth)])
        groups = [
            group(
                FrameVOILUTSequence={
                    "WindowCenter": 128 * (16 >> i),
                    "WindowWidth": 256 * (16 >> i),
                }
            )
            for i in range(4)
        ]
        tags = deep_tags(PerFrameFunctionalGroupsSequence=Items(groups))
        for frame in read(write_dicom(tmp_path / "a.dcm", pixels=pixels, **tags).path):
            assert np.abs(frame.grey.astype(int) - truth[frame.index]).max() <= 2

    def test_rescale_of_single_frames_and_shared_window(self, tmp_path: Path) -> None:
        truth = films(3).astype(np.uint16)
        pixels = np.stack([truth[0] * 4, truth[1] * 8, truth[2] * 2])
        rescales = [{"RescaleSlope": s, "RescaleIntercept": 0} for s in (0.25, 0.125, 0.5)]
        groups = [group(PixelValueTransformationSequence=rescale) for rescale in rescales]
        shared = group(FrameVOILUTSequence={"WindowCenter": 128, "WindowWidth": 256})
        tags = deep_tags(
            PerFrameFunctionalGroupsSequence=Items(groups),
            SharedFunctionalGroupsSequence=Items([shared]),
        )
        for frame in read(write_dicom(tmp_path / "a.dcm", pixels=pixels, **tags).path):
            assert np.abs(frame.grey.astype(int) - truth[frame.index]).max() <= 1

    @pytest.mark.parametrize("high", [11, 13, 15])
    def test_overlays_in_unused_bits_are_not_seen(self, high: int, tmp_path: Path) -> None:
        pixels = films(bits=12) << (high - 11)
        noise = np.random.default_rng(1).integers(0, 1 << 16, pixels.shape, np.uint16)
        used = np.uint16(0xFFF << (high - 11))
        tags = deep_tags(WindowCenter="2048", WindowWidth="4096")
        plain = read(write_dicom(tmp_path / "a.dcm", pixels=films(bits=12), **tags).path)
        tags["HighBit"] = high
        full = read(write_dicom(tmp_path / "b.dcm", pixels=pixels | (noise & ~used), **tags).path)
        assert all(np.array_equal(a.grey, b.grey) for a, b in zip(plain, full, strict=True))

    def test_leftover_windows_of_8_bits_are_not_believed(self, tmp_path: Path) -> None:
        film = write_dicom(tmp_path / "a.dcm", 3, WindowCenter="3000", WindowWidth="200")
        assert [read_barcode(frame.grey) for frame in read(film.path)] == [0, 1, 2]

    def test_signed_pixels(self, tmp_path: Path) -> None:
        pixels = films(bits=12).astype(np.int16) - 2048
        tags = deep_tags(PixelRepresentation=1, WindowCenter="0", WindowWidth="4096")
        for frame in read(write_dicom(tmp_path / "a.dcm", pixels=pixels, **tags).path):
            assert np.abs(frame.grey.astype(int) - barcode(frame.index)).max() <= 1

    def test_palette_and_colour(self, tmp_path: Path) -> None:
        palette = read(SHIPPED / "examples_palette.dcm")[0].grey
        header = pydicom.dcmread(SHIPPED / "examples_palette.dcm")
        rgb = pydicom.pixels.apply_color_lut(header.pixel_array, header) >> 8
        assert np.array_equal(palette, cv2.cvtColor(rgb.astype(np.uint8), cv2.COLOR_RGB2GRAY))
        for name in ("examples_rgb_color", "SC_ybr_full_422_uncompressed", "examples_ybr_color"):
            header = pydicom.dcmread(SHIPPED / f"{name}.dcm")
            rgb = header.pixel_array if header.pixel_array.ndim == 4 else header.pixel_array[None]
            for frame in read(SHIPPED / f"{name}.dcm"):
                truth = cv2.cvtColor(np.ascontiguousarray(rgb[frame.index]), cv2.COLOR_RGB2GRAY)
                assert np.array_equal(frame.grey, truth)

    def test_spacing_of_enhanced_objects(self, tmp_path: Path) -> None:
        shared = group(FramePixelDataPropertiesSequence={"ImagerPixelSpacing": [0.2, 0.2]})
        tags = {"SharedFunctionalGroupsSequence": Items([shared])}
        source = open_source(write_dicom(tmp_path / "a.dcm", 2, **tags).path)
        assert source.info.pixel_spacing_mm == (0.2, 0.2)


class TestTimes:
    def test_the_pointer_decides_between_vector_and_step(self, tmp_path: Path) -> None:
        tags = {"FrameTimeVector": [0, 30, 35, 70], "FrameTime": "40"}
        for pointer, last in ((0x00181063, 0.12), (0x00181065, 0.135)):
            film = write_dicom(tmp_path / "a.dcm", 4, FrameIncrementPointer=pointer, **tags)
            assert read(film.path)[-1].time_s == pytest.approx(last)

    def test_times_of_single_frames_win_over_the_nominal_step(self, tmp_path: Path) -> None:
        stamps = ("20260101235959.900", "20260101235959.960", "20260102000000.030")
        groups = [group(FrameContentSequence={"FrameAcquisitionDateTime": at}) for at in stamps]
        tags = {"PerFrameFunctionalGroupsSequence": Items(groups), "FrameTime": "40"}
        source = open_source(write_dicom(tmp_path / "a.dcm", 3, **tags).path)
        assert [frame.time_s for frame in source.frames()] == pytest.approx([0, 0.06, 0.13])
        assert source.info.acquisition["times_from"] == "FrameAcquisitionDateTime"

    def test_values_that_are_none(self, tmp_path: Path) -> None:
        film = write_dicom(tmp_path / "a.dcm", 3, CineRate="10")
        data = film.path.read_bytes()
        film.path.write_bytes(data.replace(b"DS\x02\x0040", b"DS\x02\x00?!"))
        assert read(film.path)[-1].time_s == pytest.approx(0.2)


class TestExports:
    def test_a_series_of_single_files_is_one_study(self, cli: Cli, tmp_path: Path) -> None:
        """Numbers decide the order, not names; times are each file's own."""
        folder = tmp_path / "export" / "SE1"
        _series(folder, "1.2.3", range(12), name=lambda i: f"IM{(i * 7) % 12:04d}")
        (study,) = _ingest(cli, tmp_path / "export")["studies"]
        stored = list_studies(Workspace(tmp_path))[0]
        assert study["frames"] == 12
        assert [read_barcode(frame.grey) for frame in stored.frames()] == list(range(12))
        assert stored.record.frame_times_s == pytest.approx([0.1 * i for i in range(12)])
        assert stored.record.acquisition["times_from"] == "AcquisitionTime"
        again = _ingest(cli, *sorted(folder.iterdir()))
        assert again["studies"] == [] and len(again["skipped"]) == 1
        assert content_sha256(folder / "IM0005") == stored.record.source_sha256
        words = [str(path) for path in sorted(folder.iterdir())]
        assert len(find_inputs(words, Workspace(tmp_path))[0]) == 1

    def test_two_series_in_one_folder_and_a_copy(self, tmp_path: Path) -> None:
        _series(tmp_path, "1.2.3", range(10), name=lambda i: f"a{i}")
        _series(tmp_path, "1.2.4", range(20, 29), name=lambda i: f"b{i}", clock=False)
        (tmp_path / "copy").write_bytes((tmp_path / "a3").read_bytes())
        left_out: list[Any] = []
        found = walk([tmp_path], left_out=left_out)
        numbers = [[read_barcode(f.grey) for f in read(item.path)] for item in found]
        assert numbers == [list(range(10)), list(range(20, 29))]
        assert [item.found.path.name for item in left_out] == ["copy"]

    def test_order_by_time_without_numbers(self, tmp_path: Path) -> None:
        _series(tmp_path, "1.2.3", range(5), name=lambda i: f"f{9 - i}", InstanceNumber=None)
        (found,) = walk([tmp_path])
        assert [read_barcode(frame.grey) for frame in read(found.path)] == list(range(5))

    def test_a_whole_export(self, cli: Cli, tmp_path: Path) -> None:
        """Runs of two patients among all that such a folder holds; what is no run is listed."""
        root = tmp_path / "export"
        exams = {"A": generate_uid(), "B": generate_uid()}
        for number, (who, exam) in enumerate([("A", "A"), ("A", "A"), ("", "B"), ("", "B")]):
            tags = {"PatientID": who, "StudyInstanceUID": exams[exam]}
            pixels = films(4) + np.uint8(number)
            write_dicom(root / f"ST{number}" / f"SE{number}" / "IM1", pixels=pixels, **tags)
        write_dicom(root / "scout" / "IM1", 1, SeriesInstanceUID="1.9", Modality="CR")
        _series(root / "ct", "1.8", range(6), ImagePositionPatient=True, Modality="CT")
        _series(root / "dx", "1.7", range(3), step_s=60.0, Modality="DX")
        places = [
            group(PlanePositionSequence={"ImagePositionPatient": [0, 0, i]}) for i in range(4)
        ]
        tags = {"PerFrameFunctionalGroupsSequence": Items(places), "Modality": "MR"}
        write_dicom(root / "mr" / "IM1", 4, **tags)
        for name, kind in (("report", "88.11"), ("state", "11.1")):
            document = Dataset()
            document.file_meta = dicom_header().file_meta
            document.SOPClassUID = f"1.2.840.10008.5.1.4.1.1.{kind}"
            document.PatientName = "X"
            (root / name).mkdir()
            document.save_as(root / name / "IM1", enforce_file_format=True)
        result = _ingest(cli, root)
        assert [study["frames"] for study in result["studies"]] == [4] * 4
        assert len({study["patient"] for study in result["studies"]}) == 2
        records = [study.record for study in list_studies(Workspace(tmp_path))]
        pairs = {(record.patient, record.exam) for record in records}
        assert len(pairs) == 2 and all(exam.startswith("e") for _, exam in pairs)
        assert all(item["study"] is None for item in result["skipped"])
        assert {item["input"]: item["why"] for item in result["skipped"]} == {
            "export/scout/IM1": "a single image (CR), not a cine run",
            "export/ct/f0": "6 slices of a volume (CT), not a cine run",
            "export/dx/f0": "3 single images (DX), not a cine run",
            "export/mr/IM1": "slices of a volume (MR), not a cine run",
            "export/report/IM1": "no pictures inside (Basic Text SR Storage)",
            "export/state/IM1": (
                "no pictures inside (Grayscale Softcopy Presentation State Storage)"
            ),
        }
        assert "export/scout/IM1: a single image (CR)" in cli("ingest", root).stdout

    def test_dicomdir_names_what_is_taken(self, cli: Cli, tmp_path: Path) -> None:
        root = tmp_path / "medium"
        write_dicom(root / "dicom" / "im1", 3, PatientID="1")
        write_dicom(root / "dicom" / "im2", pixels=films(5) + np.uint8(1), PatientID="1")
        write_dicom(root / "dicom" / "unlisted", 6, PatientID="2")
        write_dicom(tmp_path / "outside", 6, PatientID="3")
        named = [["DICOM", "IM1"], ["DICOM", "IM2"], ["DICOM", "GONE"], ["..", "outside"]]
        _dicomdir(root / "DICOMDIR", named)
        result = _ingest(cli, root / "DICOMDIR")
        assert [study["frames"] for study in result["studies"]] == [3, 5]
        assert len(_ingest(cli, root)["studies"]) == 1  # the folder holds one more
        _dicomdir(root / "DICOMDIR", [["DICOM", "GONE"]])
        outcome = cli("ingest", root / "DICOMDIR")
        assert outcome.exit_code == 4 and "names no file that is here" in outcome.stderr

    def test_the_export_shipped_with_pydicom(self, cli: Cli) -> None:
        """Seven series of slices and stills of three patients, and not one run."""
        result = _ingest(cli, SHIPPED / "dicomdirtests" / "DICOMDIR")
        assert result["studies"] == [] and result["failed"] == []
        whys = [item["why"] for item in result["skipped"]]
        assert len(whys) == 13 and all("not a cine run" in why for why in whys)

    def test_links_and_cycles(self, tmp_path: Path) -> None:
        secret = write_dicom(tmp_path / "elsewhere" / "secret", 4).path
        _series(tmp_path / "elsewhere", "1.2.3", range(4, 8))
        _series(tmp_path / "in" / "a", "1.2.3", range(4))
        (tmp_path / "in" / "a" / "loop").symlink_to(tmp_path / "in")
        (tmp_path / "in" / "a" / "film").symlink_to(secret)
        (tmp_path / "in" / "a" / "f5").symlink_to(tmp_path / "elsewhere" / "f5")
        (found,) = walk([tmp_path / "in"])
        assert [read_barcode(frame.grey) for frame in read(found.path)] == [0, 1, 2, 3]


class TestPrivacy:
    def test_nothing_of_a_header_is_in_the_workspace(self, cli: Cli, tmp_path: Path) -> None:
        tags = planted()
        assert len(tags) >= 40
        header = dicom_header(NumberOfFrames=3, KVP="71", CineRate="15", **tags)
        plant_deeper(header)
        header.PixelData = films(3).tobytes()
        folder = tmp_path / "recordings" / "Planted Folder"
        folder.mkdir(parents=True)
        header.save_as(folder / "Planted.dcm", enforce_file_format=True)
        _series(folder, "1.2.826.0.1.19470611.9", range(4), **{
            **tags, "SOPInstanceUID": None, "SeriesInstanceUID": "1.2.826.0.1.19470611.9",
        })  # fmt: skip
        room = tmp_path / "room"
        outcome = cli("ingest", folder.parent, "--workspace", room, "--review", "--json")
        assert {item["frames"] for item in json.loads(outcome.stdout)["studies"]} == {3, 4}
        looked = 0
        for path in room.rglob("*"):
            if not path.is_file() or path.name in ("identities.csv", "identities.key"):
                continue
            content = path.read_bytes() + str(path.relative_to(room)).encode()
            for word in (b"lanted", b"LANTED", b"19470611", b"194706", b"4711"):
                assert word not in content, path
            looked += 1
        assert looked > 10
        records = [study.record for study in list_studies(Workspace(room))]
        record = next(record for record in records if record.frames == 3)
        assert record.acquisition["tube_voltage_kv"] == 71
        assert "manufacturer" not in record.acquisition  # no maker we know

    def test_what_is_kept(self) -> None:
        header = dicom_header(
            Manufacturer="SIEMENS Healthineers AG", KVP="70.5", RadiationMode="PULSED",
            FieldOfViewDimensions=[300, 300], PatientOrientation=["A", "F"], ExposureTime="1e12",
            LossyImageCompression="01", ImagerPixelSpacing=[0.15, 0.15],
        )  # fmt: skip
        shared = group(FieldOfViewSequence={"FieldOfViewShape": "ROUND"})
        header.SharedFunctionalGroupsSequence = Items([shared])
        assert acquisition_of(header) == {
            "modality": "XA", "manufacturer": "Siemens", "tube_voltage_kv": 70.5,
            "radiation_mode": "PULSED", "field_of_view_mm": [300, 300], "orientation": ["A", "F"],
            "lossy": True, "imager_pixel_spacing_mm": [0.15, 0.15], "bits_stored": 8,
            "field_of_view_shape": "ROUND",
        }  # fmt: skip

    def test_the_profile_is_a_lock_of_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(ALLOWED, "PatientWeight", ("weight_kg", ALLOWED["KVP"][1]))
        assert acquisition_of(dicom_header(PatientWeight="70")).keys() == {
            "modality",
            "bits_stored",
        }


class TestBadInput:
    def _line(self, path: Path, words: str) -> None:
        with pytest.raises(InputError, match=words) as caught:
            read(path)
        assert "\n" not in str(caught.value) and caught.value.remedy

    def test_unknown_transfer_syntax(self, cli: Cli, tmp_path: Path) -> None:
        coded = [CODED["JPEG 12"]] * 2
        path = write_coded(tmp_path / "a.dcm", "1.2.826.0.1.19470611", coded)
        self._line(path, "no decoder for unknown transfer syntax")
        self._line(write_coded(path, "1.2.840.10008.1.2.4.92", coded), "no decoder for JPEG 2000")
        outcome = cli("ingest", path)
        assert outcome.exit_code == 4 and len(outcome.stderr.splitlines()) == 1
        assert not (tmp_path / "studies").exists() or not list((tmp_path / "studies").iterdir())

    @pytest.mark.parametrize("table", [True, False])
    @pytest.mark.parametrize("declared", [1, 2, 6, 7, 90000, -3])
    def test_a_number_of_frames_that_lies(self, declared: int, table: bool, tmp_path: Path) -> None:
        coded = [cv2.imencode(".jpg", barcode(index))[1].tobytes() for index in range(6)]
        data = encapsulate([frame + b"\0" * (len(frame) % 2) for frame in coded], has_bot=table)
        lying = {"NumberOfFrames": declared}
        jpeg = write_fragments(tmp_path / "a.dcm", JPEG_BASELINE, data, 6, **lying)
        plain = write_dicom(tmp_path / "b.dcm", 6, **lying).path
        for path in (jpeg, plain):
            source = open_source(path)
            frames = list(source.frames())
            assert [read_barcode(frame.grey) for frame in frames] == list(range(6))
            assert any("decoded 6 of" in line for line in source.info.warnings) is (declared != 6)

    def test_frames_of_several_fragments(self, tmp_path: Path) -> None:
        """With and without an offset table; a number that could pass for one fragment a frame."""
        coded = [cv2.imencode(".jpg", barcode(index))[1].tobytes() for index in range(4)]
        coded = [frame + b"\0" * (len(frame) % 2) for frame in coded]
        for table in (True, False):
            for declared in (4, 8, 1):
                data = encapsulate(coded, fragments_per_frame=2, has_bot=table)
                path = write_fragments(tmp_path / "a.dcm", JPEG_BASELINE, data, declared)
                assert [read_barcode(frame.grey) for frame in read(path)] == [0, 1, 2, 3]

    @pytest.mark.parametrize("syntax", [JPEG_BASELINE, RLELossless, J2K_LOSSLESS])
    def test_fragments_cut_off(self, syntax: str, tmp_path: Path) -> None:
        plain = write_dicom(tmp_path / "plain.dcm", 10).path
        path = transcode(plain, tmp_path / "a.dcm", str(syntax))
        data = path.read_bytes()
        for share in (0.3, 0.6, 0.95):
            path.write_bytes(data[: int(len(data) * share)])
            source = open_source(path)
            frames = list(source.frames())
            assert [read_barcode(frame.grey) for frame in frames] == list(range(len(frames)))
            assert 0 < len(frames) < 10
            assert f"decoded {len(frames)} of 10 declared frames" in source.info.warnings

    def test_damage_in_the_middle_moves_no_time(self, tmp_path: Path) -> None:
        coded = [cv2.imencode(".jpg", barcode(index))[1].tobytes() for index in range(6)]
        coded[2] = coded[2][:4] + bytes(len(coded[2]) - 4)
        path = write_coded(tmp_path / "a.dcm", JPEG_BASELINE, coded, FrameTime="40")
        source = open_source(path)
        frames = list(source.frames())
        assert [read_barcode(frame.grey) for frame in frames] == [0, 1, 3, 4, 5]
        assert [frame.time_s for frame in frames] == pytest.approx([0, 0.04, 0.12, 0.16, 0.2])
        assert "decoded 5 of 6 declared frames" in source.info.warnings

    def test_gigantic_frames(self, tmp_path: Path) -> None:
        path = write_dicom(tmp_path / "a.dcm", 2).path
        data = bytearray(path.read_bytes())
        for name in (b"\x28\x00\x10\x00US\x02\x00", b"\x28\x00\x11\x00US\x02\x00"):
            at = data.index(name) + len(name)
            data[at : at + 2] = struct.pack("<H", 60000)
        path.write_bytes(data)
        self._line(path, "60000x60000 pixels are too large")

    def test_a_coded_frame_that_is_a_bomb(self, tmp_path: Path) -> None:
        """The header says 96 x 128; the codestream has a decoder make room for 60000 x 60000."""
        plain = write_dicom(tmp_path / "plain.dcm", 1).path
        path = transcode(plain, tmp_path / "a.dcm", J2K_LOSSLESS)
        data = bytearray(path.read_bytes())
        at = data.index(b"\xff\x4f\xff\x51") + 8
        data[at : at + 8] = struct.pack(">2I", 60000, 60000)
        path.write_bytes(data)
        self._line(path, "60000x60000 pixels are too large")

    def test_a_deflated_bomb(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("vfss_distill.intake.dicom_file.MAX_INFLATED", 1 << 20)
        path = tmp_path / "a.dcm"
        _deflate(write_dicom(tmp_path / "plain.dcm", 200).path, path)
        self._line(path, "grows beyond measure")

    def test_no_pixels_no_preamble_no_bits(self, tmp_path: Path) -> None:
        header = dicom_header(NumberOfFrames=3)
        header.save_as(tmp_path / "a.dcm", enforce_file_format=True)
        self._line(tmp_path / "a.dcm", "without pixel data")
        self._line(SHIPPED / "no_meta.dcm", "no DICOM file")
        self._line(SHIPPED / "liver_1frame.dcm", "pixels of 1 bits")
        self._line(SHIPPED / "SC_rgb_rle_32bit.dcm", "pixels of 32 bits")
        self._line(SHIPPED / "MR_truncated.dcm", "not one frame")

    @pytest.mark.parametrize(
        "syntax", [J2K, JPEG_LOSSLESS, str(JPEGLSLossless), str(RLELossless), JPEG_BASELINE]
    )
    def test_random_damage_ends_in_frames_or_one_line(self, syntax: str, tmp_path: Path) -> None:
        random = np.random.default_rng(0)
        whole = transcode(write_dicom(tmp_path / "plain.dcm", 4).path, tmp_path / "a.dcm", syntax)
        data = np.frombuffer(whole.read_bytes(), np.uint8).copy()
        for _ in range(25):
            bent = data.copy()
            at = random.integers(132, len(bent), 4)
            bent[at] = random.integers(0, 256, 4)
            whole.write_bytes(bent.tobytes())
            try:
                assert all(frame.grey.dtype == np.uint8 for frame in read(whole))
            except InputError as error:
                assert "\n" not in str(error)

    def test_a_frame_that_crashes_its_decoder_costs_a_frame(self, tmp_path: Path) -> None:
        tags = deep_tags(Rows=16, Columns=16, FrameTime="40")
        coded = [CODED["JPEG 12"]] * 3
        source = open_source(write_coded(tmp_path / "a.dcm", JPEG_EXTENDED, coded, **tags))
        frames = source.frames()
        next(frames)
        assert GDCM._process is not None
        GDCM._process.kill()
        assert [frame.time_s for frame in frames] == pytest.approx([0.08])
        assert "decoded 2 of 3 declared frames" in source.info.warnings

    def test_memory_does_not_grow_with_the_film(self, tmp_path: Path) -> None:
        peaks = []
        for count in (15, 120):
            path = write_dicom(tmp_path / f"{count}.dcm", count).path
            rle = transcode(path, tmp_path / f"{count}-rle.dcm", str(RLELossless))
            for film in (path, rle):
                tracemalloc.start()
                for frame in open_source(film).frames():
                    assert frame.grey.shape == (HEIGHT, WIDTH)
                peaks.append(tracemalloc.get_traced_memory()[1])
                tracemalloc.stop()
        assert max(peaks[2:]) < 1.3 * max(peaks[:2]) + 100_000


class TestReal:
    def test_xa_cine_as_pillow_decodes_it(self, shared_data: Path, tmp_path: Path) -> None:
        """With an ECG beside the pictures, which is not looked at."""
        path = shared_data / "xa-coronary-cine" / "xa_96frames.dcm"
        header = pydicom.dcmread(path)
        header.pixel_array_options(decoding_plugin="pillow")
        theirs = header.pixel_array
        source = open_source(path)
        ours = [frame.grey for frame in source.frames()]
        assert np.array_equal(np.stack(ours), theirs)
        assert source.info.acquisition == {
            "modality": "XA", "frame_time_ms": 33, "radiation_setting": "GR", "bits_stored": 8,
            "positioner_primary_angle_deg": -32, "positioner_secondary_angle_deg": 2,
            "pixel_intensity": "LIN", "times_from": "FrameTime",
        }  # fmt: skip

    def test_stored_pixels_of_15_and_12_bits(self, shared_data: Path) -> None:
        folder = shared_data / "dicom-variety"
        chest = folder / "cr_chest_monochrome1_15bit_j2k.dcm"
        (ours,) = stored(chest)
        header = pydicom.dcmread(chest)
        header.pixel_array_options(decoding_plugin="pylibjpeg")
        assert np.array_equal(ours, header.pixel_array)
        enhanced = folder / "mr_enhanced_10frames_12bit.dcm"
        assert np.array_equal(np.stack(stored(enhanced)), pydicom.dcmread(enhanced).pixel_array)


def _ingest(cli: Cli, *words: object, code: int = 0) -> dict[str, Any]:
    outcome = cli("ingest", *words, "--json")
    assert outcome.exit_code == code, outcome.stderr
    result: dict[str, Any] = json.loads(outcome.stdout)
    return result


def _series(
    folder: Path,
    uid: str,
    numbers: range,
    *,
    name: Any = lambda index: f"f{index}",
    clock: bool = True,
    step_s: float = 0.1,
    **tags: Any,
) -> None:
    """Single-frame files of one series; each frame's barcode is its number."""
    for index, number in enumerate(numbers):
        own: dict[str, Any] = {"InstanceNumber": number, "SeriesInstanceUID": uid} | tags
        own |= {"NumberOfFrames": None, "FrameTime": None, "StudyInstanceUID": uid + ".1"}
        own["SOPInstanceUID"] = f"{uid}.{number + 1}"
        if clock:
            at = datetime(2026, 1, 1, 10) + timedelta(seconds=index * step_s)
            own["AcquisitionTime"] = at.strftime("%H%M%S.%f")
        if own.get("ImagePositionPatient"):
            own["ImagePositionPatient"] = [0, 0, 5 * index]
        write_dicom(folder / name(index), pixels=barcode(number)[None], **own)


def _dicomdir(path: Path, names: list[list[str]]) -> None:
    header = Dataset()
    header.file_meta = dicom_header().file_meta
    header.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    header.FileSetID = "X"
    records = []
    for name in names:
        record = Dataset()
        record.DirectoryRecordType = "IMAGE"
        record.ReferencedFileID = name
        records.append(record)
    header.DirectoryRecordSequence = Items(records)
    header.save_as(path, enforce_file_format=True)


def _deflate(source: Path, target: Path) -> None:
    """`source`, explicit little endian, with its dataset deflated (PS3.5 A.5)."""
    header = pydicom.dcmread(source)
    length = header.file_meta.FileMetaInformationGroupLength
    dataset = source.read_bytes()[132 + 12 + length :]
    header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    with target.open("wb") as stream:
        stream.write(b"\0" * 128 + b"DICM")
        write_file_meta_info(stream, header.file_meta)
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        stream.write(packer.compress(dataset) + packer.flush())
