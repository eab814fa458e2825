"""Times of the fields of an interlaced film."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest

from intake_films import read_barcode, woven
from vfss_distill.intake.interlace import Picture, Untangler


def times_of_fields(times_s: Sequence[float]) -> list[float]:
    """What becomes of the times of an interlaced film; each field is its own."""
    untangler = Untangler("fields")
    pictures = (Picture(time_s, woven(index), True) for index, time_s in enumerate(times_s))
    fields = list(untangler.run(pictures))
    assert [read_barcode(field.grey) for field in fields] == list(range(2 * len(times_s)))
    return [field.time_s for field in fields]


@pytest.mark.parametrize("gap_s", [0.08, 0.4, 7.0])
@pytest.mark.parametrize("last_before", [0, 1, 20, 38])
@pytest.mark.parametrize("frames", [3, 40])
def test_second_field_before_a_gap(frames: int, last_before: int, gap_s: float) -> None:
    """It is half a usual frame later, not somewhere in the gap."""
    last_before = min(last_before, frames - 2)
    times = [0.04 * index + (gap_s if index > last_before else 0) for index in range(frames)]
    expected = [time_s + half for time_s in times for half in (0, 0.02)]
    assert times_of_fields(times)[:-1] == pytest.approx(expected[:-1])


def test_uneven_frames_are_halved() -> None:
    times = [0.0]
    for index in range(39):
        times.append(times[-1] + (0.033 if index % 3 else 0.034))
    halves = [(now + after) / 2 for now, after in pairwise(times)]
    assert times_of_fields(times)[1:-1:2] == pytest.approx(halves)


def test_a_rate_that_changes_and_stays() -> None:
    """After a second it is the usual one."""
    times = [0.04 * index for index in range(40)]
    times += [times[-1] + 0.1 * index for index in range(1, 41)]
    assert times_of_fields(times)[-20:] == pytest.approx(
        [time_s + half for time_s in times[-10:] for half in (0, 0.05)]
    )
