"""The film's own clock: one wild stamp moves no other frame, and what stays is believed. A film
inside a DICOM file: a frame left out for damage moves no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intake_films import read_barcode, write_dicom_film, write_film
from vfss_distill.intake.film_clock import FilmClock, HeaderClock
from vfss_distill.intake.source import made_up_times, open_source

STEP_S = 0.04
STEADY = [round(index * STEP_S, 6) for index in range(40)]


def times_of(stamps: Sequence[float | None], rate: float = 25.0) -> tuple[list[float], int]:
    """What the clock makes of stamps in seconds, and how many times it made up."""
    pictures = [
        SimpleNamespace(
            pts=None if stamp is None else round(stamp * 90000), time_base=Fraction(1, 90000)
        )
        for stamp in stamps
    ]
    clock = FilmClock(rate)
    return [time_s for _, time_s in clock.times(pictures)], clock.made_up


@pytest.mark.parametrize("off_s", [1000.0, -1000.0, 0.5, -0.5, 0.06, -0.04])
@pytest.mark.parametrize("place", [1, 17, 38])
def test_one_wild_stamp_moves_nothing(place: int, off_s: float) -> None:
    stamps = list(STEADY)
    stamps[place] += off_s
    times, made_up = times_of(stamps)
    assert times == pytest.approx(STEADY, abs=1e-4)
    assert made_up == 1


def test_a_first_stamp_far_ahead_moves_nothing() -> None:
    times, made_up = times_of([1000.0, *STEADY[1:]])
    assert times == pytest.approx(STEADY, abs=1e-4)
    assert made_up == 1


def test_a_wild_stamp_among_uneven_ones_lies_between_its_neighbours() -> None:
    stamps = [0.0, 0.02, 0.05, 1000.0, 0.09, 0.14]
    times, _ = times_of(stamps)
    assert times == pytest.approx([0.0, 0.02, 0.05, 0.07, 0.09, 0.14], abs=1e-4)


def test_a_pause_stays_a_pause() -> None:
    stamps = [*STEADY[:20], *(time_s + 7.0 for time_s in STEADY[20:])]
    times, made_up = times_of(stamps)
    assert times == pytest.approx(stamps, abs=1e-4)
    assert made_up == 0


def test_a_wild_stamp_before_a_pause_stays_with_the_frame_before() -> None:
    stamps = [*STEADY[:20], *(time_s + 7.0 for time_s in STEADY[20:])]
    times, made_up = times_of([*stamps[:19], 1000.0, *stamps[20:]])
    assert times == pytest.approx(stamps, abs=1e-4)
    assert made_up == 1


@pytest.mark.parametrize("first_of_second", [0.0, -500.0])
def test_a_clock_that_is_set_back_and_stays_goes_on(first_of_second: float) -> None:
    """Two films joined: the second has a clock of its own."""
    stamps = [*STEADY[:20], *(first_of_second - 30.0 + time_s for time_s in STEADY[:20])]
    times, made_up = times_of(stamps)
    assert times == pytest.approx(STEADY, abs=1e-4)
    assert made_up == 1


@given(st.lists(st.none() | st.floats(-2000, 2000), min_size=1, max_size=60), st.floats(1.0, 120.0))
def test_times_increase_whatever_the_stamps(stamps: list[float | None], rate: float) -> None:
    times, _ = times_of(stamps, rate)
    assert times[0] == 0.0
    assert all(before < after for before, after in pairwise(times))


def test_a_film_with_one_wild_stamp(tmp_path: Path) -> None:
    film = write_film(tmp_path / "a.mkv", "mpeg4")
    wild = tmp_path / "b.mkv"
    with av.open(str(film.path)) as source, av.open(str(wild), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for index, packet in enumerate(source.demux(video=0)):
            if packet.size:
                packet.pts += 1000 / packet.time_base if index == 20 else 0
                packet.stream = stream
                target.mux(packet)
    opened = open_source(wild)
    times = [frame.time_s for frame in opened.frames()]
    assert times == pytest.approx(film.times_s, abs=1e-3)
    said = [line for line in made_up_times(opened.info.warnings) if "decoded 1 " in line]
    assert len(said) == 1


def damage_packet(film: Path, which: int) -> None:
    """Overwrite one packet of a film, all of it."""
    with av.open(str(film)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        place, size = packets[which].pos, packets[which].size
    if film.suffix == ".ts":
        size = -(-size // 188) * 188  # packets of the transport stream around it, wholly
    data = bytearray(film.read_bytes())
    data[place : place + size] = bytes(size)
    film.write_bytes(data)


class TestInsideDicom:
    @pytest.mark.parametrize(
        ("suffix", "codec", "options"),
        [
            ("mp4", "libx264", {"bf": "3", "b_strategy": "0"}),
            ("mp4", "libx264", {"bf": "0"}),
            ("mp4", "mpeg4", {}),
            ("ts", "libx264", {"bf": "3", "b_strategy": "0"}),
            ("ts", "mpeg2video", {"bf": "2"}),
            ("mpg", "mpeg2video", {"bf": "2", "qmin": "1", "qmax": "3"}),
        ],
    )
    def test_a_damaged_packet_moves_no_time(
        self, suffix: str, codec: str, options: dict[str, Any], tmp_path: Path
    ) -> None:
        film = write_film(tmp_path / f"a.{suffix}", codec, noise=40, g="10", **options)
        damage_packet(film.path, 15)
        write_dicom_film(tmp_path / "a.dcm", film.path, 40, FrameTime="50")
        source = open_source(tmp_path / "a.dcm")
        frames = list(source.frames())
        assert len(frames) == 39 and "decoded 39 of 40 declared frames" in source.info.warnings
        # From the next key frame on each frame shows its own number again.
        after = [frame for frame in frames if frame.time_s > 0.05 * 20.5]
        assert len(after) == 19
        assert [frame.time_s / 0.05 for frame in after] == pytest.approx(range(21, 40))
        assert [read_barcode(frame.grey) for frame in after] == list(range(21, 40))

    @pytest.mark.parametrize("damaged", [False, True])
    def test_uneven_times_of_the_header_stay_with_their_pictures(
        self, damaged: bool, tmp_path: Path
    ) -> None:
        film = write_film(tmp_path / "a.mp4", noise=40, variable=True, g="10", bf="0")
        if damaged:
            damage_packet(film.path, 15)
        steps = [0, *(30 + index * 7 % 40 for index in range(39))]
        write_dicom_film(tmp_path / "a.dcm", film.path, 40, FrameTimeVector=steps)
        shown = {
            read_barcode(frame.grey): frame.time_s
            for frame in open_source(tmp_path / "a.dcm").frames()
            if frame.time_s == 0 or not damaged or frame.index > 20
        }
        assert len(shown) >= 19
        for number, time_s in shown.items():
            assert time_s == pytest.approx(sum(steps[: number + 1]) / 1000)

    def test_pictures_without_usable_stamps_are_counted(self) -> None:
        numbers = {stamp: stamp for stamp in range(6)}
        for stamps in ([None] * 6, [0, 1, 5, 3, 4, 5], [0, 1, -9, 3, None, 5], [0, 1, 1, 3, 4, 5]):
            pictures = [SimpleNamespace(pts=stamp) for stamp in stamps]
            clock = HeaderClock(lambda number: float(number), numbers)
            assert [time_s for _, time_s in clock.times(pictures)] == [0, 1, 2, 3, 4, 5]

    def test_times_are_from_the_first_picture_that_is_left(self) -> None:
        pictures = [SimpleNamespace(pts=stamp) for stamp in (20, 30, 50)]
        numbers = {stamp: stamp // 10 for stamp in range(0, 60, 10)}
        clock = HeaderClock(lambda number: number / 10, numbers)
        assert [time_s for _, time_s in clock.times(pictures)] == pytest.approx([0, 0.1, 0.3])
