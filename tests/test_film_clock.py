"""The film's own clock: one wild stamp moves no other frame, and what stays is believed."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intake_films import write_film
from vfss_distill.intake.film_clock import FilmClock
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
