"""Every format, frame by frame: 0 wrong frames, 0 wrong times, the right grey."""

from __future__ import annotations

import errno
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from intake_films import (
    HEIGHT,
    WIDTH,
    barcode,
    dicom_header,
    read_barcode,
    write_dicom,
    write_dicom_film,
    write_film,
    write_image,
    write_images,
    write_sound,
)
from vfss_distill.errors import InputError
from vfss_distill.intake.names import display
from vfss_distill.intake.source import (
    Frame,
    LeftOut,
    content_sha256,
    open_source,
)
from vfss_distill.intake.walk import find_sources, walk

FORMATS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "h264.mp4": ("libx264", "yuv420p", {}),
    "uneven.mp4": ("libx264", "yuv420p", {"variable": True}),
    "hevc.mp4": ("libx265", "yuv420p", {"x265-params": "log-level=none:pools=1"}),
    "motion-jpeg.avi": ("mjpeg", "yuvj420p", {}),
    "mpeg4-b.avi": ("mpeg4", "yuv420p", {"bf": "2"}),
    "raw.avi": ("rawvideo", "yuyv422", {}),
    "h264.mkv": ("libx264", "yuv420p", {"variable": True}),
    "ffv1.mkv": ("ffv1", "gray", {}),
    "ten-bit.mkv": ("ffv1", "yuv420p10le", {}),
    "rgb.mkv": ("ffv1", "bgr0", {}),
    "mpeg2.mpg": ("mpeg2video", "yuv420p", {"noise": 40, "qmin": "1", "qmax": "3"}),
    "mpeg2-b.vob": ("mpeg2video", "yuv420p", {"noise": 40, "bf": "2"}),
    "wmv2.wmv": ("wmv2", "yuv420p", {}),
    "web.gif": ("gif", "rgb8", {}),
}


def read(path: Path, **options: Any) -> list[Frame]:
    return list(open_source(path, **options).frames())


@pytest.mark.parametrize("name", FORMATS)
def test_every_frame_and_time_of_a_film(name: str, tmp_path: Path) -> None:
    codec, pixels, options = FORMATS[name]
    film = write_film(tmp_path / name, codec, pixels, **options)
    source = open_source(film.path)
    frames = list(source.frames())
    assert [read_barcode(frame.grey) for frame in frames] == list(range(40))
    assert [frame.index for frame in frames] == list(range(40))
    assert [frame.time_s for frame in frames] == pytest.approx(film.times_s, abs=1e-6)
    assert source.info.warnings == ()
    assert [frame.time_s for frame in source.frames()] == [frame.time_s for frame in frames]


@pytest.mark.parametrize("name", ["h264.mp4", "motion-jpeg.avi", "ten-bit.mkv", "rgb.mkv"])
def test_grey_is_full_range_whatever_the_film_stores(name: str, tmp_path: Path) -> None:
    codec, pixels, options = FORMATS[name]
    film = write_film(tmp_path / name, codec, pixels, **options)
    grey = read(film.path)[0].grey
    assert grey.dtype == np.uint8 and grey.shape == (HEIGHT, WIDTH)
    assert np.abs(grey.astype(int) - barcode(0)).mean() < 2


@pytest.mark.parametrize(
    ("aspect", "size"), [((8, 9), (108, 128)), ((4, 3), (96, 171)), ((1, 99), (96, 128))]
)
def test_pixels_are_made_square(
    aspect: tuple[int, int], size: tuple[int, int], tmp_path: Path
) -> None:
    film = write_film(tmp_path / "a.mkv", frames=3, aspect=Fraction(*aspect))
    source = open_source(film.path)
    assert next(iter(source.frames())).grey.shape == size
    assert source.info.stored_size == (HEIGHT, WIDTH)
    assert [read_barcode(frame.grey) for frame in source.frames()] == [0, 1, 2]
    assert bool(source.info.warnings) is (aspect == (1, 99))


def test_a_film_that_breaks_off_keeps_its_frames_and_says_so(tmp_path: Path) -> None:
    film = write_film(tmp_path / "a.avi", "mjpeg", "yuvj420p")
    data = film.path.read_bytes()
    film.path.write_bytes(data[: len(data) // 2])
    source = open_source(film.path)
    frames = list(source.frames())
    assert 5 < len(frames) < 40
    assert [read_barcode(frame.grey) for frame in frames[:-1]] == list(range(len(frames) - 1))
    assert any(f"decoded {len(frames)} of 40" in line for line in source.info.warnings)


def test_damage_in_the_middle_moves_no_later_frame(tmp_path: Path) -> None:
    film = write_film(tmp_path / "a.mkv", "mjpeg", "yuvj420p")
    data = bytearray(film.path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    film.path.write_bytes(data)
    frames = read(film.path)
    assert 20 < len(frames) <= 40
    for frame in frames[-5:]:
        assert frame.time_s == pytest.approx(read_barcode(frame.grey) / 25, abs=1e-6)


def _bad_files(folder: Path) -> dict[str, str]:
    """File name → what its error must say."""
    write_sound(folder / "sound.mp4")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "letter.mp4").write_text("Dear colleague,\n" * 200)
    (folder / "noise.avi").write_bytes(np.random.default_rng(0).bytes(20000))
    (folder / "playlist.mp4").write_text("#EXTM3U\n#EXTINF:1,\n/etc/hostname\n")
    (folder / "empty.dcm").write_bytes(b"")
    (folder / "letter.dcm").write_text("no dicom " * 100)
    (folder / "one.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    whole = write_film(folder / "cut.mp4").path
    whole.write_bytes(whole.read_bytes()[:900])
    header_only = write_film(folder / "nothing.avi", "mjpeg", "yuvj420p").path
    header_only.write_bytes(header_only.read_bytes()[:5800])
    (folder / "no pictures").mkdir()
    dicom_header(NumberOfFrames=3).save_as(folder / "no-pixels.dcm", enforce_file_format=True)
    report = Dataset()
    report.file_meta = dicom_header().file_meta
    report.SOPClassUID, report.PatientName = "1.2.840.10008.5.1.4.1.1.88.11", "X"
    report.save_as(folder / "report.dcm", enforce_file_format=True)
    return {
        "sound.mp4": "sound but no pictures",
        "empty.mp4": "empty",
        "letter.mp4": "not a film",
        "noise.avi": "not a film",
        "playlist.mp4": "not a film",
        "empty.dcm": "empty",
        "letter.dcm": "no DICOM file",
        "one.png": "single image",
        "cut.mp4": "cut off",
        "nothing.avi": "not one frame|no pictures",
        "no pictures": "no images",
        "no-pixels.dcm": "without pixel data",
        "report.dcm": "without pictures",
    }


def test_what_is_no_recording_gets_one_line_and_nothing_else(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, words in _bad_files(tmp_path).items():
        with pytest.raises(InputError, match=words) as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value) and name in str(caught.value)
        assert caught.value.remedy
    assert capfd.readouterr() == ("", "")


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film = write_film(tmp_path / "a.mp4", frames=2)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything: chmod would not do
    with pytest.raises(InputError, match=r"a.mp4: cannot be read \(Permission denied\)"):
        read(film.path)


def test_names_that_ffmpeg_or_opencv_would_misread(tmp_path: Path) -> None:
    for name in ("12:30 Müller.mp4", "100%03d.mp4", "é è 咽 🦴.mkv", "concat:a|b.avi", "-i.mp4"):
        film = write_film(tmp_path / "plain" / f"a{Path(name).suffix}", frames=3)
        assert len(read(film.path.rename(tmp_path / name))) == 3


class TestImages:
    def test_natural_order_and_assumed_rate(self, tmp_path: Path) -> None:
        folder = tmp_path / "run"
        for index in range(12):
            write_image(folder / f"frame{index}.png", barcode(index))
        source = open_source(folder)
        assert [read_barcode(frame.grey) for frame in source.frames()] == list(range(12))
        assert "no time" in source.info.warnings[0]
        frames = read(folder, images_fps=15.0)
        assert frames[3].time_s == pytest.approx(0.2)
        assert open_source(folder, images_fps=15.0).info.warnings == ()

    def test_sixteen_bit_images_are_scaled_once(self, tmp_path: Path) -> None:
        for index in range(4):
            deep = (barcode(index).astype(np.uint16) << 4) + index * 100
            write_image(tmp_path / "run" / f"{index}.png", deep)
        frames = read(tmp_path / "run")
        assert [read_barcode(frame.grey) for frame in frames] == [0, 1, 2, 3]
        assert frames[3].grey[0, 0] > frames[0].grey[0, 0]  # brighter stays brighter

    def test_sizes_that_differ_and_images_cut_off(self, tmp_path: Path) -> None:
        film = write_images(tmp_path / "run", 3)
        whole = (film.path / "0003.png").read_bytes()
        (film.path / "0003.png").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InputError, match="no readable image"):
            read(film.path)
        write_image(film.path / "0003.png", barcode(2, 50, 60))
        with pytest.raises(InputError, match="60x50"):
            read(film.path)

    def test_pages_of_a_tiff_are_not_lost(self, tmp_path: Path) -> None:
        write_images(tmp_path / "run", 2, suffix=".tiff")
        assert len(read(tmp_path / "run")) == 2
        pages = [Image.fromarray(barcode(index)) for index in range(3)]
        pages[0].save(tmp_path / "run" / "0002.tiff", save_all=True, append_images=pages[1:])
        with pytest.raises(InputError, match=r"0002\.tiff: holds 3 pages\. Export one image"):
            read(tmp_path / "run")

    def test_digest_is_of_content(self, tmp_path: Path) -> None:
        one = write_images(tmp_path / "a", 3).path
        two = write_images(tmp_path / "b", 3, first=7).path
        assert content_sha256(one) == content_sha256(two)
        write_image(two / "0009.png", barcode(9))
        assert content_sha256(one) != content_sha256(two)


class TestDicom:
    @pytest.mark.parametrize("rle", [False, True])
    def test_frames_are_exact(self, rle: bool, tmp_path: Path) -> None:
        film = write_dicom(tmp_path / "a.dcm", rle=rle)
        frames = read(film.path)
        assert all(np.array_equal(frame.grey, barcode(frame.index)) for frame in frames)
        assert [frame.time_s for frame in frames] == pytest.approx(film.times_s)

    def test_where_times_come_from(self, tmp_path: Path) -> None:
        steps = [0, 30, 35, 70]
        cases: list[tuple[dict[str, Any], list[float]]] = [
            ({"FrameTimeVector": steps, "FrameTime": "40"}, [0, 0.03, 0.065, 0.135]),
            ({"FrameTimeVector": [0, 30], "FrameTime": "40"}, [0, 0.04, 0.08, 0.12]),
            ({"FrameTime": None, "CineRate": "20"}, [0, 0.05, 0.1, 0.15]),
            ({"FrameTime": None, "RecommendedDisplayFrameRate": "10"}, [0, 0.1, 0.2, 0.3]),
            ({"FrameTime": "0"}, [0, 1 / 30, 2 / 30, 0.1]),
        ]
        for tags, times in cases:
            film = write_dicom(tmp_path / "a.dcm", 4, **tags)
            source = open_source(film.path)
            assert [frame.time_s for frame in source.frames()] == pytest.approx(times), tags
            expected = len(tags.get("FrameTimeVector", steps)) != 4 or tags.get("FrameTime") == "0"
            assert bool(source.info.warnings) is expected, tags

    def test_enhanced_frame_times(self, tmp_path: Path) -> None:
        groups = []
        for stamp in ("20260101120000.000", "20260101120000.050", "20260101120000.120"):
            content, group = Dataset(), Dataset()
            content.FrameAcquisitionDateTime = stamp
            group.FrameContentSequence = Sequence([content])
            groups.append(group)
        tags = {"FrameTime": None, "PerFrameFunctionalGroupsSequence": Sequence(groups)}
        film = write_dicom(tmp_path / "a.dcm", 3, **tags)
        assert [frame.time_s for frame in read(film.path)] == pytest.approx([0, 0.05, 0.12])

    def test_twelve_bits_inverted_and_windowed(self, tmp_path: Path) -> None:
        deep = np.stack([255 - barcode(index) for index in range(5)]).astype(np.uint16) * 16
        tags = {
            "BitsAllocated": 16,
            "BitsStored": 12,
            "HighBit": 11,
            "PhotometricInterpretation": "MONOCHROME1",
            "WindowCenter": "2040.5",
            "WindowWidth": "4081",
        }
        film = write_dicom(tmp_path / "a.dcm", pixels=deep, **tags)
        frames = read(film.path)
        for frame in frames:
            assert np.abs(frame.grey.astype(int) - barcode(frame.index)).max() <= 1
        # A leftover window that shows nothing is not believed.
        film = write_dicom(tmp_path / "b.dcm", pixels=deep, **tags | {"WindowCenter": "50000"})
        assert [read_barcode(frame.grey) for frame in read(film.path)] == list(range(5))

    def test_scale_is_one_for_the_whole_recording(self, tmp_path: Path) -> None:
        deep = np.stack([barcode(index).astype(np.int16) * 4 - 300 for index in range(6)])
        deep[3:] += 90
        tags = {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11, "PixelRepresentation": 1}
        frames = read(write_dicom(tmp_path / "a.dcm", pixels=deep, **tags).path)
        assert [read_barcode(frame.grey) for frame in frames[:3]] == [0, 1, 2]
        assert frames[3].grey[0, 0] > frames[0].grey[0, 0] + 10

    def test_colour_and_pixel_aspect(self, tmp_path: Path) -> None:
        colour = np.stack([cv2.cvtColor(barcode(i), cv2.COLOR_GRAY2RGB) for i in range(3)])
        tags = {
            "SamplesPerPixel": 3,
            "PhotometricInterpretation": "RGB",
            "PlanarConfiguration": 0,
            "PixelAspectRatio": [4, 3],
            "ImagerPixelSpacing": [0.4, 0.3],
        }
        source = open_source(write_dicom(tmp_path / "a.dcm", pixels=colour, **tags).path)
        frames = list(source.frames())
        assert frames[0].grey.shape == (128, 128)
        assert [read_barcode(frame.grey) for frame in frames] == [0, 1, 2]
        assert source.info.pixel_spacing_mm == (0.3, 0.3)
        assert source.info.pixel_aspect == (3, 4)

    def test_a_film_inside(self, tmp_path: Path) -> None:
        film = write_film(tmp_path / "a.mp4", frames=9)
        write_dicom_film(tmp_path / "a.dcm", film.path, 9, FrameTime="50", PatientID="4711")
        source = open_source(tmp_path / "a.dcm")
        frames = list(source.frames())
        assert [read_barcode(frame.grey) for frame in frames] == list(range(9))
        assert frames[-1].time_s == pytest.approx(0.4)
        assert source.info.kind == "dicom" and source.info.patient_hint == "4711"

    @pytest.mark.parametrize("rle", [False, True])
    def test_cut_off(self, rle: bool, tmp_path: Path) -> None:
        film = write_dicom(tmp_path / "a.dcm", rle=rle)
        data = film.path.read_bytes()
        film.path.write_bytes(data[: len(data) // 2])
        source = open_source(film.path)
        frames = list(source.frames())
        assert 5 < len(frames) < 12
        assert [read_barcode(frame.grey) for frame in frames[:5]] == list(range(5))
        assert "of 20 declared" in source.info.warnings[0]


class TestReal:
    def test_xa_cine(self, shared_data: Path) -> None:
        source = open_source(shared_data / "xa-coronary-cine" / "xa_96frames.dcm")
        frames = list(source.frames())
        assert [frame.time_s for frame in frames] == pytest.approx([0.033 * i for i in range(96)])
        assert frames[0].grey.shape == (512, 512) and source.info.warnings == ()
        assert np.std([frame.grey.mean() for frame in frames]) > 0  # it moves

    def test_enhanced_twelve_bit_and_inverted_j2k(self, shared_data: Path) -> None:
        frames = read(shared_data / "dicom-variety" / "mr_enhanced_10frames_12bit.dcm")
        assert len(frames) == 10 and frames[0].grey.max() > 200
        chest = read(shared_data / "dicom-variety" / "cr_chest_monochrome1_15bit_j2k.dcm")[0].grey
        assert chest.shape == (1955, 1841)
        # Bone and mediastinum bright, lungs dark: inverted as it must be.
        assert np.ptp(chest) > 150


class TestFinding:
    def test_what_is_found_and_what_is_not(self, tmp_path: Path) -> None:
        write_film(tmp_path / "p2" / "b.mp4", frames=1)
        write_film(tmp_path / "p10" / "a.AVI", "mjpeg", "yuvj420p", frames=1)
        write_images(tmp_path / "p1" / "images", 2)
        write_images(tmp_path / "p1" / "masks", 2)
        write_images(tmp_path / "p2" / "b_masks" / "bolus", 1)
        write_dicom(tmp_path / "p3" / "IM0001", 2)
        write_dicom(tmp_path / "p3" / "DICOMDIR", 1)
        write_film(tmp_path / ".trash" / "c.mp4", frames=1)
        (tmp_path / "readme.txt").write_text("x")
        found = [path.relative_to(tmp_path).as_posix() for path in find_sources([tmp_path])]
        assert found == ["p1/images", "p2/b.mp4", "p3/IM0001", "p10/a.AVI"]

    def test_a_single_image_above_recordings_is_none(self, tmp_path: Path) -> None:
        film = write_film(tmp_path / "in" / "p1" / "a.mp4", frames=1).path
        write_image(tmp_path / "in" / "contact-sheet.png", barcode(0))
        write_image(tmp_path / "in" / "p2" / "still.png", barcode(1))
        frames = write_images(tmp_path / "in" / "p2" / "images", 2).path
        alone = write_images(tmp_path / "in" / "p3", 1).path
        left_out: list[LeftOut] = []
        found = walk([tmp_path / "in"], left_out=left_out)
        assert [item.path for item in found] == [film, frames, alone]
        names = [item.found.path.name for item in left_out]
        assert names == ["still.png", "contact-sheet.png"]
        assert left_out[0].why == "a single image, not a recording"

    def test_links_and_cycles(self, tmp_path: Path) -> None:
        write_film(tmp_path / "elsewhere" / "secret.mp4", frames=1)
        film = write_film(tmp_path / "in" / "p" / "a.mp4", frames=1).path
        (tmp_path / "in" / "p" / "again").symlink_to(tmp_path / "in")
        (tmp_path / "in" / "out").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "in" / "p" / "z.mp4").symlink_to(tmp_path / "elsewhere" / "secret.mp4")
        (tmp_path / "in" / "p" / "broken.mp4").symlink_to(tmp_path / "nowhere")
        left_out: list[LeftOut] = []
        assert [item.path for item in walk([tmp_path / "in"], left_out=left_out)] == [film]
        assert {display(item.found): item.why for item in left_out} == {
            **dict.fromkeys(("out", "z.mp4"), "a link that leads out of the folder given"),
            "broken.mp4": "a link that leads nowhere",
        }
        assert find_sources([tmp_path / "in", film]) == [film]

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no such file"):
            find_sources([tmp_path / "x"])
