"""Every container and codec a clinic's recorder writes: 0 wrong frames, 0 wrong times."""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from conftest import Cli
from ingest_jobs import stored, write_mask
from intake_films import (
    barcode,
    moving,
    read_barcode,
    woven,
    write_dicom_film,
    write_film,
    write_image,
    write_talking_film,
)
from vfss_distill.intake.interlace import HANDLING, Picture, Untangler
from vfss_distill.intake.source import FrameSource, content_sha256, open_source
from vfss_distill.intake.study import list_studies
from vfss_distill.workspace import Workspace

FRAMES = 40


@dataclass(frozen=True)
class Kind:
    """How a film is made: the suffix names the container."""

    suffix: str
    codec: str
    pixels: str = "yuv420p"
    options: dict[str, Any] = field(default_factory=dict)


_X265 = {"x265-params": "log-level=none:pools=1:bframes=0"}
_X265_B = {"x265-params": "log-level=none:pools=1:bframes=3:b-pyramid=1"}
_X264_B = {"bf": "3", "b_strategy": "0", "x264-params": "b-pyramid=normal"}
_FINE = {"noise": 40, "qmin": "1", "qmax": "3"}  # a packet a frame: see write_film

KINDS = {
    "mp4-h264": Kind("mp4", "libx264"),
    "mp4-h264-b": Kind("mp4", "libx264", options=_X264_B),
    "mp4-h264-10bit": Kind("mp4", "libx264", "yuv420p10le"),
    "mp4-h264-444": Kind("mp4", "libx264", "yuv444p"),
    "mp4-hevc": Kind("mp4", "libx265", options=_X265),
    "mp4-hevc-b": Kind("mp4", "libx265", options=_X265_B),
    "mov-h264-b": Kind("mov", "libx264", options=_X264_B),
    "mov-hevc-b": Kind("mov", "libx265", options=_X265_B),
    "mov-mjpeg": Kind("mov", "mjpeg", "yuvj420p"),
    "mov-prores": Kind("mov", "prores_ks", "yuv422p10le"),
    "avi-mjpeg": Kind("avi", "mjpeg", "yuvj420p"),
    "avi-mpeg4": Kind("avi", "mpeg4"),
    "avi-mpeg4-b": Kind("avi", "mpeg4", options={"bf": "2"}),
    "avi-mpeg4-qpel": Kind("avi", "mpeg4", options={"flags": "+qpel", "bf": "1"}),
    "avi-divx3": Kind("avi", "msmpeg4"),
    "avi-raw-yuyv": Kind("avi", "rawvideo", "yuyv422"),
    "avi-raw-bgr": Kind("avi", "rawvideo", "bgr24"),
    "avi-raw-i420": Kind("avi", "rawvideo", "yuv420p"),
    "avi-ffv1-grey": Kind("avi", "ffv1", "gray"),
    "avi-ffv1-420": Kind("avi", "ffv1", "yuv420p"),
    "avi-huffyuv": Kind("avi", "huffyuv", "yuv422p"),
    "avi-h264": Kind("avi", "libx264", options={"bf": "0"}),
    "avi-h264-b": Kind("avi", "libx264", options=_X264_B),
    "mpg-mpeg2": Kind("mpg", "mpeg2video", options=_FINE),
    "mpg-mpeg2-b": Kind("mpg", "mpeg2video", options=_FINE | {"bf": "2"}),
    "mpg-mpeg1": Kind("mpg", "mpeg1video", options=_FINE),
    "vob-mpeg2": Kind("vob", "mpeg2video", options=_FINE),
    "vob-mpeg2-b": Kind("vob", "mpeg2video", options=_FINE | {"bf": "2"}),
    "mkv-h264-b": Kind("mkv", "libx264", options=_X264_B),
    "mkv-hevc-b": Kind("mkv", "libx265", options=_X265_B),
    "mkv-mpeg4-b": Kind("mkv", "mpeg4", options={"bf": "2"}),
    "mkv-mpeg2-b": Kind("mkv", "mpeg2video", options={"bf": "2"}),
    "mkv-mjpeg": Kind("mkv", "mjpeg", "yuvj420p"),
    "mkv-ffv1-grey": Kind("mkv", "ffv1", "gray"),
    "mkv-ffv1-16bit": Kind("mkv", "ffv1", "gray16le"),
    "mkv-vp8": Kind("mkv", "libvpx", options={"deadline": "realtime", "cpu-used": "8"}),
    "webm-vp9": Kind("webm", "libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"}),
    "wmv-wmv1": Kind("wmv", "wmv1"),
    "wmv-wmv2": Kind("wmv", "wmv2"),
    "asf-msmpeg4": Kind("asf", "msmpeg4"),
    "ts-h264-b": Kind("ts", "libx264", options=_X264_B),
    "gif": Kind("gif", "gif", "rgb8"),
}
# Containers that keep a time stamp for each frame, finely. MPEG-2 knows a few fixed rates only.
STAMPED = [
    name
    for name, kind in KINDS.items()
    if kind.suffix in ("mp4", "mov", "mkv", "webm", "wmv", "asf", "ts")
    and "mpeg2" not in kind.codec
]
LATE = [*STAMPED, "mpg-mpeg2", "mpg-mpeg2-b", "vob-mpeg2-b"]


def make(name: str, folder: Path, **how: Any) -> tuple[FrameSource, tuple[float, ...]]:
    """A film of kind `name`, opened, and the times it was written with."""
    kind = KINDS[name]
    try:
        av.Codec(kind.codec, "w")
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"this build of PyAV cannot encode {kind.codec}")
    film = write_film(
        folder / f"a.{kind.suffix}",
        kind.codec,
        kind.pixels,
        **kind.options | {"frames": FRAMES} | how,
    )
    return open_source(film.path), film.times_s


def check(source: FrameSource, times_s: tuple[float, ...], *, within_s: float = 1e-6) -> None:
    """Each frame shows its own number, at its own time, and nothing is complained of."""
    frames = list(source.frames())
    assert [read_barcode(frame.grey) for frame in frames] == list(range(len(times_s)))
    assert [frame.index for frame in frames] == list(range(len(times_s)))
    assert [frame.time_s for frame in frames] == pytest.approx(times_s, abs=within_s)
    assert source.info.warnings == ()


@pytest.mark.parametrize("name", KINDS)
def test_steady(name: str, tmp_path: Path) -> None:
    check(*make(name, tmp_path))


@pytest.mark.parametrize("name", [name for name in KINDS if name != "gif"])
def test_ntsc(name: str, tmp_path: Path) -> None:
    """29.97 frames a second, within the container's own clock: at worst half a millisecond."""
    check(*make(name, tmp_path, rate=Fraction(30000, 1001)), within_s=6e-4)


@pytest.mark.parametrize("name", STAMPED)
def test_uneven_times(name: str, tmp_path: Path) -> None:
    check(*make(name, tmp_path, variable=True), within_s=2e-5)


@pytest.mark.parametrize("name", LATE)
def test_first_time_stamp_is_not_zero(name: str, tmp_path: Path) -> None:
    check(*make(name, tmp_path, start=50), within_s=2e-5)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp"])
def test_numbered_images(suffix: str, tmp_path: Path) -> None:
    for index in range(FRAMES):
        write_image(tmp_path / f"run_{index + 1}.{suffix}", barcode(index))
    times_s = tuple(index / 25 for index in range(FRAMES))
    check(open_source(tmp_path, images_fps=25), times_s)


INTERLACED = {
    "mp4": ("libx264", {"x264-params": "{order}=1", "crf": "10"}),
    "mpg": ("mpeg2video", {"flags": "+ildct+ilme", "noise": 40, "qmin": "1", "qmax": "3"}),
    "avi": ("mpeg4", {"flags": "+ildct+ilme", "qmin": "1", "qmax": "3"}),
}
CAPTURED = {"mp4": ("libx264", {"crf": "10"}), "avi": ("ffv1", {}), "mkv": ("mjpeg", {})}


def woven_film(folder: Path, suffix: str, *, marked: bool, top_first: bool) -> Path:
    codec, options = (INTERLACED if marked else CAPTURED)[suffix]
    order = "tff" if top_first else "bff"
    options = {
        key: value.format(order=order) if isinstance(value, str) else value
        for key, value in options.items()
    }
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    drawn = functools.partial(woven, top_first=top_first)
    return write_film(folder / f"a.{suffix}", codec, pixels, drawn=drawn, **options).path


class TestInterlaced:
    @pytest.mark.parametrize("top_first", [True, False])
    @pytest.mark.parametrize(
        ("suffix", "marked"),
        [*((suffix, True) for suffix in INTERLACED), *((suffix, False) for suffix in CAPTURED)],
    )
    def test_whole_frames_and_fields(
        self, suffix: str, marked: bool, top_first: bool, tmp_path: Path
    ) -> None:
        film = woven_film(tmp_path, suffix, marked=marked, top_first=top_first)
        source = open_source(film)
        frames = list(source.frames())
        assert [read_barcode(frame.grey) for frame in frames] == list(range(0, 80, 2))
        assert [frame.time_s for frame in frames] == pytest.approx([i / 25 for i in range(40)])
        assert source.info.interlaced == "deinterlaced"
        assert (
            "top" in source.info.warnings[0] if top_first else "bottom" in source.info.warnings[0]
        )
        fields = open_source(film, interlaced="fields")
        frames = list(fields.frames())
        assert [read_barcode(frame.grey) for frame in frames] == list(range(80))
        assert [frame.time_s for frame in frames] == pytest.approx([i / 50 for i in range(80)])
        assert [frame.index for frame in frames] == list(range(80))
        assert fields.info.interlaced == "fields"

    def test_labels_of_fields_are_numbered_by_field(self, cli: Cli, tmp_path: Path) -> None:
        """Labels drawn on whole frames would silently lie on other moments."""
        woven_film(tmp_path, "mp4", marked=True, top_first=True)
        write_mask(tmp_path / "a_masks" / "hyoid" / "000007.png")
        words = "labels are taken as numbered by field"
        assert words not in cli("ingest", "a.mp4").stderr
        fields = cli("ingest", "a.mp4", "--interlaced", "fields", "--force")
        assert fields.exit_code == 0 and words in " ".join(fields.stderr.split())
        (study,) = stored(tmp_path)
        assert any(words in line for line in study.record.warnings)

    def test_films_inside_dicom(self, tmp_path: Path) -> None:
        film = woven_film(tmp_path, "mp4", marked=True, top_first=True)
        path = tmp_path / "a.dcm"
        write_dicom_film(path, film, 40, FrameTime="50")
        for mode, count, step in (("deinterlace", 40, 0.05), ("fields", 80, 0.025)):
            source = open_source(path, interlaced=mode)
            frames = list(source.frames())
            shown = [read_barcode(frame.grey) for frame in frames]
            assert shown == list(range(0, 80, 80 // count))
            times = [frame.time_s for frame in frames]
            assert times == pytest.approx([step * index for index in range(count)])
            assert source.info.interlaced == HANDLING[mode]
            assert [line for line in source.info.warnings if "declared" in line] == []
        kept = open_source(path, interlaced="keep")
        assert len(list(kept.frames())) == 40 and kept.info.interlaced == "kept"

    def test_progressive_films_are_left_alone(self, tmp_path: Path) -> None:
        """Fast motion, and pulses stored twice, are not combed."""
        for repeat in (1, 2, 3):
            drawn = functools.partial(moving, pixels=6)
            film = write_film(tmp_path / "a.mkv", "ffv1", "gray", drawn=drawn, repeat=repeat)
            source = open_source(film.path)
            for frame in source.frames():
                assert np.array_equal(frame.grey, drawn(frame.index // repeat))
            assert source.info.interlaced == "" and source.info.warnings == ()
            fields = open_source(film.path, interlaced="fields")
            assert len(list(fields.frames())) == FRAMES

    def test_combs_that_come_late(self, tmp_path: Path) -> None:
        """A patient sits still, then swallows: nothing before was combed, all after is undone."""
        film = write_film(
            tmp_path / "a.mkv", "ffv1", "gray", drawn=lambda i: woven(max(0, i - 50)), frames=90
        )
        source = open_source(film.path)
        frames = list(source.frames())
        assert [read_barcode(frame.grey) for frame in frames[51:]] == list(range(2, 80, 2))
        assert [frame.time_s for frame in frames] == pytest.approx(film.times_s)
        assert "from frame" in source.info.warnings[0]

    @pytest.mark.parametrize("side", [1, 3, 4, 5])
    def test_pictures_of_a_few_pixels(self, side: int) -> None:
        grey = np.zeros((side, side), np.uint8)
        untangler = Untangler("deinterlace")
        shown = list(untangler.run(Picture(index / 25, grey, True) for index in range(40)))
        assert [picture.time_s for picture in shown] == [index / 25 for index in range(40)]

    def test_kept_as_it_is(self, tmp_path: Path) -> None:
        film = write_film(tmp_path / "a.mkv", "ffv1", "gray", drawn=woven)
        source = open_source(film.path, interlaced="keep")
        for frame in source.frames():
            assert np.array_equal(frame.grey, woven(frame.index))
        assert source.info.interlaced == "kept" and "combed" in source.info.warnings[0]

    def test_the_study_says_what_was_done(self, cli: Cli, tmp_path: Path) -> None:
        woven_film(tmp_path / "v", "mp4", marked=True, top_first=True)
        assert cli("ingest", "v", "--interlaced", "fields").exit_code == 0
        study = list_studies(Workspace(tmp_path))[0]
        assert study.record.interlaced == "fields" and study.record.frames == 80
        assert study.record.declared_frames == 40
        assert any("two each" in line for line in study.record.warnings)
        other = ("ingest", "v", "--interlaced", "deinterlace")
        again = cli(*other)
        assert "--force" in again.stdout and "interlaced" in again.stdout
        assert cli(*other, "--force", "--json").exit_code == 0
        assert list_studies(Workspace(tmp_path))[0].record.interlaced == "deinterlaced"

    def test_it_stays_when_a_study_is_made_anew_for_its_labels(
        self, cli: Cli, tmp_path: Path
    ) -> None:
        """Labels numbered by field would lie on other frames."""
        woven_film(tmp_path / "v", "mp4", marked=True, top_first=True)
        write_mask(tmp_path / "v" / "a_masks" / "hyoid" / "000007.png")
        assert cli("ingest", "v", "--interlaced", "fields").exit_code == 0
        write_mask(tmp_path / "v" / "a_masks" / "hyoid" / "000008.png")
        assert "use --force to take them" in cli("ingest", "v").stderr
        assert cli("ingest", "v", "--force").exit_code == 0
        (study,) = stored(tmp_path)
        assert (study.record.interlaced, study.record.frames) == ("fields", 80)
        assert study.labelled_frames("hyoid") == (7, 8)


class TestRecord:
    def test_sound_goes_nowhere(self, cli: Cli, tmp_path: Path) -> None:
        film = write_talking_film(tmp_path / "v" / "a.mp4")
        with av.open(str(film)) as container:
            assert len(container.streams.audio) == 1
        assert cli("ingest", "v").exit_code == 0
        assert cli("segment", "v/a.mp4").exit_code == 0
        study = list_studies(Workspace(tmp_path))[0]
        assert {path.suffix for path in study.folder.rglob("*.*")} == {".png", ".json"}
        films = [path for path in (tmp_path / "results").rglob("*.*") if path.suffix == ".mp4"]
        assert len(films) == 1
        with av.open(str(films[0])) as container:
            assert [stream.type for stream in container.streams] == ["video"]

    def test_training_and_inference_see_the_same_grey(self, cli: Cli, tmp_path: Path) -> None:
        """Limited range is expanded once, in the one reader both use."""
        for name, pixels in (("a.mkv", "yuv420p"), ("b.mkv", "gray"), ("c.mkv", "yuv420p10le")):
            film = write_film(tmp_path / "v" / name, "ffv1", pixels, frames=8).path
            for frame in open_source(film).frames():
                assert np.abs(frame.grey.astype(int) - barcode(frame.index)).max() <= 1
        assert cli("ingest", "v").exit_code == 0
        for study in list_studies(Workspace(tmp_path)):
            subject = next(
                path
                for path in (tmp_path / "v").iterdir()
                if content_sha256(path) == study.record.source_sha256
            )
            for raw, kept in zip(open_source(subject).frames(), study.frames(), strict=True):
                assert np.array_equal(raw.grey, kept.grey)


class TestDamage:
    """What breaks off or lies keeps the frames it has, and says what is missing."""

    @pytest.mark.parametrize("name", ["mkv-h264-b", "avi-mpeg4-b", "mpg-mpeg2-b", "ts-h264-b"])
    def test_cut_off_within_a_group_of_pictures(self, name: str, tmp_path: Path) -> None:
        source, times_s = make(name, tmp_path, noise=40)
        data = source.path.read_bytes()
        source.path.write_bytes(data[: len(data) * 8 // 10])
        frames = list(open_source(source.path).frames())
        # The decoder may patch up the frame that the cut goes through, and its neighbours.
        assert 8 < len(frames) < 38
        whole = frames[:-4]
        assert [read_barcode(frame.grey) for frame in whole] == list(range(len(whole)))
        assert [frame.time_s for frame in whole] == pytest.approx(times_s[: len(whole)], abs=2e-5)

    @pytest.mark.parametrize("name", ["mp4-h264-b", "mov-mjpeg"])
    def test_cut_off_behind_its_index(self, name: str, tmp_path: Path) -> None:
        source, _ = make(name, tmp_path, noise=40, container_options={"movflags": "faststart"})
        data = source.path.read_bytes()
        assert data.index(b"moov") < data.index(b"mdat")
        source.path.write_bytes(data[: len(data) * 6 // 10])
        cut = open_source(source.path)
        count = len(list(cut.frames()))
        assert 12 < count < 32
        assert f"decoded {count} of 40 declared frames" in cut.info.warnings

    @pytest.mark.parametrize("name", ["avi-mjpeg", "avi-mpeg4-b", "avi-raw-yuyv"])
    def test_avi_without_its_index(self, name: str, tmp_path: Path) -> None:
        """A recorder that lost power: no index, and sizes in the header that were never filled."""
        source, times_s = make(name, tmp_path)
        data = bytearray(source.path.read_bytes())
        del data[data.rindex(b"idx1") :]
        source.path.write_bytes(data)
        check(open_source(source.path), times_s)
        data[4:8] = bytes(4)
        movi = data.index(b"movi")
        data[movi - 4 : movi] = bytes(4)
        source.path.write_bytes(data)
        check(open_source(source.path), times_s)

    @pytest.mark.parametrize("said", [3, 9999, 2**31 - 1])
    def test_header_that_lies_about_the_number_of_frames(self, said: int, tmp_path: Path) -> None:
        source, times_s = make("avi-mjpeg", tmp_path)
        data = bytearray(source.path.read_bytes())
        for place in (data.index(b"avih") + 24, data.index(b"strh") + 40):
            data[place : place + 4] = said.to_bytes(4, "little")
        source.path.write_bytes(data)
        lying = open_source(source.path)
        frames = list(lying.frames())
        assert [read_barcode(frame.grey) for frame in frames] == list(range(FRAMES))
        assert [frame.time_s for frame in frames] == pytest.approx(times_s)
        assert lying.info.warnings == (f"decoded 40 of {said} declared frames",)

    def test_header_that_lies_about_the_size(self, tmp_path: Path) -> None:
        source, times_s = make("avi-mjpeg", tmp_path)
        data = bytearray(source.path.read_bytes())
        place = data.index(b"strf") + 12
        data[place : place + 8] = struct.pack("<ii", 64, 48)
        source.path.write_bytes(data)
        check(open_source(source.path), times_s)

    @pytest.mark.parametrize(
        ("name", "wrong"),
        [("mp4-h264-b", "avi"), ("avi-mjpeg", "mp4"), ("mkv-h264-b", "wmv"), ("gif", "mov")],
    )
    def test_wrong_extension(self, name: str, wrong: str, tmp_path: Path) -> None:
        source, times_s = make(name, tmp_path)
        check(open_source(source.path.rename(tmp_path / f"b.{wrong}")), times_s)

    def test_film_named_as_something_else(self, cli: Cli, tmp_path: Path) -> None:
        source, _ = make("mp4-h264", tmp_path)
        for name, words in (("a.dcm", "no DICOM file"), ("a.png", "")):
            (tmp_path / name).write_bytes(source.path.read_bytes())
            outcome = cli("ingest", name)
            assert bool(outcome.exit_code) is bool(words) and words in outcome.stderr
            assert "Traceback" not in outcome.stderr


class TestNames:
    def test_names_of_every_kind(self, cli: Cli, tmp_path: Path) -> None:
        plain = write_film(tmp_path / "plain.mkv", "ffv1", "gray", frames=6).path
        data = plain.read_bytes()
        odd = ("Müller Käthe", "e\u0301tude 2", "咽 🦴", "a'b\"c;$(d)&", "-f", "x" * 246)
        for number, name in enumerate(odd):
            folder = tmp_path / "v" / f"p{number}"
            folder.mkdir(parents=True)
            # Bytes behind the last cluster: six recordings, not six copies of one.
            (folder / f"{name}.mkv").write_bytes(data + b"\xec\x81" + bytes([number]))
        outcome = cli("ingest", "v", "--json")
        assert outcome.exit_code == 0, outcome.stderr
        studies = list_studies(Workspace(tmp_path))
        assert len(studies) == 6
        for study in studies:
            assert [read_barcode(frame.grey) for frame in study.frames()] == list(range(6))
            text = (study.folder / "study.json").read_text()
            assert not any(word in text for word in ("Müller", "tude", "咽", "xxx", "$(d)"))

    def test_one_name_in_two_folders(self, cli: Cli, tmp_path: Path) -> None:
        write_film(tmp_path / "v" / "a" / "run.mkv", "ffv1", "gray", frames=6)
        write_film(tmp_path / "v" / "b" / "run.mkv", "ffv1", "gray", frames=7)
        assert cli("ingest", "v").exit_code == 0
        studies = list_studies(Workspace(tmp_path))
        assert sorted(study.record.frames for study in studies) == [6, 7]
        assert len({study.patient for study in studies}) == 2
