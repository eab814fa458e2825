"""Cine DICOM: one line for whatever is broken."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLSLossless, RLELossless

from conftest import Cli
from dicom_cine import (
    J2K,
    J2K_LOSSLESS,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LOSSLESS,
    SHIPPED,
    deflate,
    read,
)
from dicom_files import CODED, deep_tags, transcode, write_coded, write_fragments
from intake_films import HEIGHT, WIDTH, barcode, dicom_header, read_barcode, write_dicom
from vfss_distill.errors import InputError
from vfss_distill.intake.gdcm_process import GDCM
from vfss_distill.intake.source import open_source

# In a process of our own they are silenced, where pydicom is imported.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


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
        deflate(write_dicom(tmp_path / "plain.dcm", 200).path, path)
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
