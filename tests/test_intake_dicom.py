"""Cine DICOM: every transfer syntax exact, grey and times as the header says."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom.data
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_voi_lut, get_decoder
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from dicom_cine import (
    J2K,
    J2K_LOSSLESS,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LOSSLESS,
    SHIPPED,
    deflate,
    films,
    read,
    stored,
)
from dicom_files import (
    CODED,
    JPEG_12_SHA256,
    deep_tags,
    group,
    ramp,
    transcode,
    write_coded,
    write_fragments,
)
from intake_films import barcode, read_barcode, write_dicom, write_film
from vfss_distill.errors import InputError
from vfss_distill.intake.dicom import DicomSource
from vfss_distill.intake.source import made_up_times, open_source
from vfss_distill.intake.video import VideoSource

# In a process of our own they are silenced, where pydicom is imported.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


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
            deflate(plain, path)
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

        # Where the header gives no time, the film's own, whatever somebody says.
        del tags["FrameTime"]
        untimed = write_fragments(tmp_path / "b.dcm", syntax, encapsulated, 20, **tags)
        for fps in (None, 10.0):
            source = DicomSource(untimed, fps=fps)
            assert source.info.nominal_fps == 25
            times = [frame.time_s for frame in source.frames()]
            assert times == pytest.approx([frame.time_s for frame in outside])
            assert source.info.acquisition["times_from"] == "film"
            said = made_up_times(source.info.warnings)
            # Both hold a rate and no stamps, and that is a weaker word.
            assert [("filled in" in line) for line in said] == [True] * name.endswith(
                ("h264", "hevc")
            )


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

    @pytest.mark.parametrize("form", ["US", "OW", "packed"])
    def test_voi_lut_of_8_bits(self, form: str, tmp_path: Path) -> None:
        """From 12-bit pixels to an 8-bit display, an ordinary use."""
        pixels = films(bits=12)
        entries = np.arange(4096) >> 4
        table = Dataset()
        table.LUTDescriptor = [4096, 0, 8]
        if form == "US":
            table.LUTData = entries.tolist()
        else:
            table.LUTData = entries.astype("u1" if form == "packed" else "<u2").tobytes()
        table["LUTData"].VR = "US" if form == "US" else "OW"
        tags = deep_tags(VOILUTSequence=Items([table]))
        grey = read(write_dicom(tmp_path / "a.dcm", pixels=pixels, **tags).path)[1].grey
        assert np.array_equal(grey, pixels[1] >> 4)

    @pytest.mark.parametrize("function", ["LINEAR_EXACT", "SIGMOID"])
    def test_windows_narrower_than_one_of_small_units(self, function: str, tmp_path: Path) -> None:
        pixels = films(bits=12)
        window = {"WindowCenter": "0.2", "WindowWidth": "0.2", "VOILUTFunction": function}
        small = deep_tags(RescaleSlope="0.0001", RescaleIntercept="0", **window)
        window |= {"WindowCenter": "2000", "WindowWidth": "2000"}
        greys = [
            read(write_dicom(tmp_path / f"{n}.dcm", pixels=pixels, **tags).path)[1].grey.astype(int)
            for n, tags in enumerate((small, deep_tags(**window)))
        ]
        assert np.abs(greys[0] - greys[1]).max() <= 1

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
