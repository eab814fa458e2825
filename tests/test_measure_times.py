"""`vfss measure`: times, how fine they are, and pulses that are stored more than once."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom.dataset import Dataset

from conftest import Cli
from fake_results import FRAMES, SIZE, STEP_S, FakeWorkspace, Swallow
from test_measure import measured
from vfss_distill.intake.dicom_times import frame_times
from vfss_distill.intake.source import open_source


@pytest.fixture
def fake(tmp_path: Path) -> FakeWorkspace:
    return FakeWorkspace(tmp_path)


def test_times_come_from_the_time_stamps_not_from_a_rate(fake: FakeWorkspace, cli: Cli) -> None:
    times = [0.04 * frame + (0.5 if frame > 10 else 0) for frame in range(FRAMES)]
    fake.study("p1-aaaaaa", "p1", frame_times_s=times)
    fake.result("p1-aaaaaa", shift=0, frame_times_s=times)
    found = measured(cli)
    frame = int(str(found["hyoid_xy_peak"]["frames"]))
    assert found["hyoid_peak_time"]["value"] == pytest.approx(times[frame] * 1000)
    assert "one frame is 40 ms" in found["hyoid_peak_time"]["flags"]  # type: ignore[operator]


def test_times_are_the_study_s_where_it_was_given_others_since(
    fake: FakeWorkspace, cli: Cli
) -> None:
    """Images first taken at 30 frames/s, then ingested again with their true rate."""
    fake.result("p1-aaaaaa", shift=0, warnings=["30 frames/s assumed"])
    before = measured(cli)
    fake.study("p1-aaaaaa", "p1", frame_times_s=[2 * STEP_S * n for n in range(FRAMES)])
    found = measured(cli)
    for name in ("hyoid_peak_time", "bolus_pharynx_duration"):
        assert found[name]["value"] == pytest.approx(2 * float(before[name]["value"]), rel=0.01)  # type: ignore[arg-type]
        assert found[name]["frames"] == before[name]["frames"]
        assert "assumed" in str(before[name]["flags"]) and "assumed" not in str(
            found[name]["flags"]
        )


def test_a_gap_beside_the_frame_measured_is_how_fine_its_time_is(
    fake: FakeWorkspace, cli: Cli
) -> None:
    times = [frame / 30 + (0.5 if frame >= 8 else 0) for frame in range(FRAMES)]
    fake.result("p1-aaaaaa", shift=0, frame_times_s=times)
    found = measured(cli)
    gap = "one frame is 33 ms, with a gap of 533 ms beside the one measured"
    assert found["bolus_pharynx_first"]["frames"] == "8"
    assert found["bolus_pharynx_first"]["flags"] == [gap]
    assert found["bolus_pharynx_duration"]["flags"] == [gap]
    assert found["bolus_pharynx_last"]["flags"] == ["one frame is 33 ms"]


def test_times_that_are_assumed_are_said_to_be(
    fake: FakeWorkspace, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    for frame in range(3):
        cv2.imwrite(str(tmp_path / "images" / f"{frame}.png"), np.zeros((64, 64), np.uint8))
    images = open_source(tmp_path / "images").info.warnings
    header = frame_times(Dataset(), 5, 30.0, True).warnings
    film = ("decoded 3 frames without a usable time; filled in at 25 frames/s (assumed)",)
    for said in (images, header, film):
        fake.result("p1-aaaaaa", warnings=["a logo was made black", *said])
        found = measured(cli)
        times = [found[name] for name in found if found[name]["unit"] == "ms"]
        assert len(times) == 4
        for one in times:
            assert one["flags"][-1] == said[0].replace(";", ",")  # type: ignore[index]
        assert "frames/s" not in str(found["hyoid_xy_peak"]["flags"])


def test_repeated_frames_make_times_coarser(fake: FakeWorkspace, cli: Cli) -> None:
    fake.study("p1-aaaaaa", "p1", unique_fps=7.5, repeated_frames=15)
    fake.result("p1-aaaaaa")
    (flag,) = measured(cli)["bolus_pharynx_first"]["flags"]  # type: ignore[misc]
    assert flag == "one frame is 67 ms, but new ones come every 133 ms"


@pytest.mark.parametrize("ingested", [True, False])
def test_how_fine_times_are_is_read_from_the_new_frames_around(
    fake: FakeWorkspace, cli: Cli, ingested: bool
) -> None:
    """Not from the whole film: a held image, or a pause elsewhere, tells nothing of a time."""
    times = [n / 30 + (20 if n >= 58 else 0) for n in range(60)]
    repeats = [n for n in range(40) if n % 2] + [*range(41, 50)]
    facts = {"frames": 60, "frame_times_s": times, "repeats": repeats, "unique_fps": 2.9}
    masks = {n: Swallow().masks(n // 2) for n in range(60)}
    fake.result("p1-aaaaaa", masks=masks, shift=0, n=60, **facts)
    if ingested:
        fake.study("p1-aaaaaa", "p1", repeated_frames=len(repeats), **facts)
    found = measured(cli)
    said = "one frame is 33 ms, but new ones come every 67 ms"
    assert found["bolus_pharynx_first"]["flags"] == [said]
    assert found["bolus_pharynx_last"]["frames"] == "40"
    held = f"{said}, with a gap of 333 ms beside the one measured"
    assert found["bolus_pharynx_last"]["flags"] == [held]


def test_a_pause_in_a_passage_is_not_bridged(fake: FakeWorkspace, cli: Cli) -> None:
    """Nobody knows what the bolus did meanwhile."""
    times = [n / 30 + (10 if n >= 14 else 0) for n in range(FRAMES)]
    fake.result("p1-aaaaaa", shift=0, frame_times_s=times)
    found = measured(cli)
    assert found["bolus_pharynx_last"]["frames"] == "13"
    assert found["bolus_pharynx_duration"]["value"] == pytest.approx(5 / 30 * 1000, abs=0.1)
    said = str(found["bolus_pharynx_last"]["flags"])
    assert "a gap of 10033 ms" in said and "2 passages, as of one swallow" in said


@pytest.mark.parametrize("ingested", [True, False])
def test_a_pulse_that_fails_is_left_out_however_often_it_is_stored(
    fake: FakeWorkspace, cli: Cli, ingested: bool
) -> None:
    repeats = [frame for frame in range(60) if frame % 2]
    times = [frame / 30 for frame in range(60)]
    facts = {"frames": 60, "frame_times_s": times}
    masks = {frame: Swallow().masks(frame // 2) for frame in range(60)}
    wide = Swallow().masks(14)["bolus"]
    for frame in (50, 51):  # one pulse: the pharynx all but lost, and barium where there is none
        lumen = np.zeros((SIZE, SIZE), bool)
        lumen[80:88, 80:88] = True
        masks[frame] = {**masks[frame], "pharynx": lumen, "bolus": np.zeros((SIZE, SIZE), bool)}
    for frame in (8, 9):
        masks[frame] = {**masks[frame], "bolus": wide}
    fake.result("p1-aaaaaa", masks=masks, shift=0, n=60, repeats=repeats, **facts)
    if ingested:
        fake.study("p1-aaaaaa", "p1", repeats=repeats, **facts)
    found = measured(cli)
    assert abs(int(str(found["pharynx_area_min"]["frames"])) - 36) <= 2
    assert "1 lone outlier frame left out" in found["pharynx_area_min"]["flags"]  # type: ignore[operator]
    assert found["bolus_pharynx_first"]["frames"] == "16"
    assert found["bolus_pharynx_last"]["frames"] == "40", "the pulse's own frame, not its repeat"
    assert found["c2_c4_length"]["frames"] == "0-59"
