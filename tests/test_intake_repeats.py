"""Pulses stored more than once are found, and nothing else is taken for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import Cli
from intake_films import write_film, write_frames
from vfss_distill.intake.repeats import DIGEST_LETTERS, RepeatCounter, frame_digest
from vfss_distill.intake.source import open_source
from vfss_distill.intake.study import list_studies
from vfss_distill.workspace import Workspace

FRAMES = 40


def counted(frames: int, is_new: Callable[[int], bool], *, noise: float = 1.5) -> RepeatCounter:
    """A film whose frames show something else where `is_new`, with fresh `noise` on each."""
    random = np.random.default_rng(0)
    counter = RepeatCounter()
    for index in range(frames):
        if is_new(index):
            shown = 100 + random.normal(0, 6, (96, 128))
        fresh = random.normal(0, noise, shown.shape) if noise else 0
        counter.add(np.clip(shown + fresh, 0, 255).astype(np.uint8))
    return counter


def test_digests_and_repeats_of_each_frame(cli: Cli, tmp_path: Path) -> None:
    film = write_film(tmp_path / "v" / "a.mkv", "ffv1", "gray", repeat=2, rate=30)
    assert cli("ingest", "v").exit_code == 0
    record = list_studies(Workspace(tmp_path))[0].record
    assert record.repeats == tuple(range(1, FRAMES, 2))
    assert record.repeated_frames == FRAMES // 2
    assert record.unique_fps == pytest.approx(15, abs=0.05)
    letters = record.frame_digests
    digests = [letters[i : i + DIGEST_LETTERS] for i in range(0, len(letters), DIGEST_LETTERS)]
    assert digests == [frame_digest(frame.grey) for frame in open_source(film.path).frames()]
    assert [digests[i] == digests[i - 1] for i in range(1, FRAMES)] == [True, False] * 19 + [True]


@pytest.mark.parametrize(("stored", "pulses"), [(30, 15), (30, 7.5), (25, 12.5), (25, 15)])
@pytest.mark.parametrize("analogue", [False, True])
def test_effective_rate(stored: int, pulses: float, analogue: bool) -> None:
    """Also where an analogue capture put fresh noise on each repeated pulse."""

    def pulse(index: int) -> int:
        return int(index * pulses / stored)

    counter = counted(
        4 * stored,
        lambda index: index == 0 or pulse(index) != pulse(index - 1),
        noise=1.5 if analogue else 0,
    )
    times_s = [index / stored for index in range(4 * stored)]
    assert counter.unique_fps(times_s) == pytest.approx(pulses, abs=0.3)
    said = f"about {pulses:.1f} pulses/s stored as {stored:.1f} frames/s"
    assert said in (counter.warning(times_s) or "")


@pytest.mark.parametrize("each", [2, 4])
def test_a_coder_that_settles_at_the_beginning_hides_no_rhythm(each: int) -> None:
    """It changes the picture once more, a little less, between two pulses."""
    random = np.random.default_rng(0)
    counter = RepeatCounter()
    for index in range(130):
        if index % each == 0:
            shown = 100 + random.normal(0, 6, (96, 128))
        settled = random.normal(0, 5, shown.shape) if index in (3, 7, 9) else 0
        shown = shown + settled
        counter.add(np.clip(shown + random.normal(0, 1.5, shown.shape), 0, 255).astype(np.uint8))
    assert set(counter.repeats) == {index for index in range(130) if index % each}
    assert counter.unique_fps([index / 30 for index in range(130)]) == pytest.approx(
        30 / each, 0.02
    )


@pytest.mark.parametrize("stored", [30, 25])
def test_irregular_pulses_are_not_forced_into_a_rhythm(stored: int) -> None:
    """24 pulses a second stored as 30 or 25 frames: every fifth, or 25th, is a repeat."""
    film = 5 * stored
    repeats = {n for n in range(1, film) if int(n * 24 / stored) == int((n - 1) * 24 / stored)}
    counter = counted(film, lambda index: index not in repeats)
    assert set(counter.repeats) <= repeats


def test_neither_a_pause_nor_a_held_image_makes_pulses_rarer() -> None:
    """They tell nothing of how fine a time is elsewhere in the film."""
    paused = [index / 30 + (20 if index >= 50 else 0) for index in range(60)]
    every = counted(60, lambda index: True)
    assert every.unique_fps(paused) == pytest.approx(30)
    assert every.warning(paused) is None
    held = counted(150, lambda index: index < 30, noise=0)
    times_s = [index / 30 for index in range(150)]
    assert held.repeats == tuple(range(30, 150))
    assert held.unique_fps(times_s) == pytest.approx(30)
    said = "120 of 150 frames repeat the one before: the picture stands still there"
    assert held.warning(times_s) == said
    halved = counted(150, lambda index: index < 90 and index % 2 == 0, noise=0)
    assert "about 15.0 pulses/s stored as 30.0" in (halved.warning(times_s) or "")


@given(moving=st.booleans(), noise=st.floats(0.5, 8), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_no_repeats_where_every_frame_is_new(moving: bool, noise: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    counter = RepeatCounter()
    for index in range(60):
        shown = 100 + random.normal(0, noise, (48, 64))
        left = int(30 / (1 + np.exp((30 - index) / 3))) if moving else 10
        shown[10:30, left : left + 20] -= 60
        counter.add(np.clip(shown, 0, 255).astype(np.uint8))
    assert counter.repeats == ()


@pytest.mark.parametrize(("before", "behind"), [(40, 0), (0, 40), (25, 25)])
def test_a_held_image_is_no_rhythm(before: int, behind: int) -> None:
    """Every frame between is new, and the noise on those that are held is fresh."""
    counter = counted(
        before + 60 + behind, lambda index: index == 0 or before < index < before + 60
    )
    assert counter.repeats == ()


def test_pulses_behind_a_held_image() -> None:
    """Their frames repeat exactly, and so count all the same."""
    counter = counted(
        40 + 120, lambda index: index == 0 or (index > 40 and index % 2 == 0), noise=0
    )
    assert counter.repeats == (*range(1, 41), *range(41, 160, 2))


def test_a_pulse_may_be_missing() -> None:
    assert counted(120, lambda index: index % 4 == 0 and index != 60).repeated == 91


def clocked(folder: Path, frames: int) -> Path:
    """A recording of 15 pulses/s stored as 30 frames/s, with a running clock of milliseconds
    burned in."""
    random = np.random.default_rng(0)
    tissue = cv2.GaussianBlur(random.normal(0, 60, (192, 400)).astype(np.float32), (0, 0), 3)
    film = []
    for index in range(frames):
        left = index // 2 * 7 % 50
        grey = np.clip(120 + 4 * tissue[:, left : left + 256], 60, 200).astype(np.uint8)
        grey[:24] = 0
        words = f"00:00:{index // 30:02d}:{index * 1000 // 30 % 1000:03d}"
        cv2.putText(grey, words, (8, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 255, 1, cv2.LINE_AA)
        film.append(grey)
    return write_frames(folder, np.stack(film))


@pytest.mark.parametrize("frames", [20, 90])
def test_a_running_clock_that_is_blanked_hides_no_repeats(
    frames: int, cli: Cli, tmp_path: Path
) -> None:
    """By ingest, and by segment of a film that was never ingested."""
    clocked(tmp_path / "v" / "a", frames)
    assert cli("segment", "v/a").exit_code == 0
    run = json.loads(next(tmp_path.glob("results/*/*/run.json")).read_text())
    assert run["unique_fps"] == pytest.approx(15)
    assert cli("ingest", "v").exit_code == 0
    record = list_studies(Workspace(tmp_path))[0].record
    assert record.blanked
    assert record.repeats == tuple(range(1, frames, 2))
    assert record.unique_fps == pytest.approx(15)
    assert any("15.0 pulses/s" in line for line in record.warnings)


def test_effective_rate_of_a_film_never_ingested(cli: Cli, tmp_path: Path) -> None:
    """It stands beside every measured time all the same."""
    write_film(tmp_path / "a.mp4", repeat=2, rate=30)
    outcome = cli("segment", "a.mp4")
    assert outcome.exit_code == 0 and "15.0 pulses/s" in outcome.stderr
    run = json.loads(next(tmp_path.glob("results/*/*/run.json")).read_text())
    assert run["unique_fps"] == pytest.approx(15, abs=0.1)
    assert len(run["repeats"]) == pytest.approx(run["frames"] / 2, abs=1)
