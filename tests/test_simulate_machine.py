"""The simulated X-ray machine, collimator, screen and leads; truth stays where the picture is."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from vfss_distill.simulate import (
    DatasetOptions,
    SimulatedStudy,
    SimulateOptions,
    StudySimulator,
    simulate_dataset,
    simulate_study,
)
from vfss_distill.simulate.collimator import Collimator
from vfss_distill.simulate.furniture import Text, draw_furniture
from vfss_distill.simulate.layers import _shifted
from vfss_distill.simulate.population import SHIFTED, TRAIN, Ranges
from vfss_distill.simulate.radiography import Detector, Machine
from vfss_distill.simulate.screen import Screen, draw_screen
from vfss_distill.tasks import VFSS12

# Nothing of what this file switches on one by one.
PLAIN = replace(
    TRAIN,
    moving_collimator_share=0.0,
    lead_share=0.0,
    text_share=0.0,
    logo_share=0.0,
    boxed_share=0.0,
    viewer_share=0.0,
    compression_share=0.0,
    interlaced_share=0.0,
)
EVERYTHING = replace(
    SHIFTED,
    moving_collimator_share=1.0,
    lead_share=1.0,
    text_share=1.0,
    logo_share=1.0,
    viewer_share=1.0,
    compression_share=1.0,
    interlaced_share=1.0,
)


def filmed(ranges: Ranges, seed: int = 3, **more: object) -> SimulatedStudy:
    options = {"size": 128, "seconds": 3, "kind": "swallow", "pulses": 30, "extras": False, **more}
    return simulate_study(seed, 0, SimulateOptions(ranges=ranges, **options))  # type: ignore[arg-type]


def same_masks(one: SimulatedStudy, other: SimulatedStudy) -> bool:
    """Of the bolus only what can be seen is truth: another picture may show a rim more."""
    wet, also = one.masks["bolus"], other.masks["bolus"]
    anatomy = [task for task in VFSS12.ids if task != "bolus"]
    return (wet & also).sum() >= 0.93 * (wet | also).sum() and all(
        np.array_equal(one.masks[task], other.masks[task]) for task in anatomy
    )


# ── motion within an exposure ────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def sharp() -> SimulatedStudy:
    return filmed(replace(PLAIN, exposure=(0.0, 0.0)))


def changed(one: SimulatedStudy, other: SimulatedStudy) -> NDArray[np.float64]:
    """Mean difference of each frame."""
    gone = np.abs(one.frames.astype(float) - other.frames)
    return gone.mean(axis=(1, 2))


def test_what_moves_is_blurred_and_its_truth_is_not(sharp: SimulatedStudy) -> None:
    blurred = filmed(replace(PLAIN, exposure=(1.0, 1.0)))
    assert same_masks(sharp, blurred) and sharp.events == blurred.events
    difference = changed(sharp, blurred)
    fastest = slice(sharp.events["BPM"], sharp.events["UESC"])
    assert difference[fastest].max() > 0.1
    assert difference.min() == 0  # at rest nothing is blurred, to the last grey value


def test_interlaced_lines_are_half_a_frame_apart(sharp: SimulatedStudy) -> None:
    combed = filmed(replace(PLAIN, exposure=(0.0, 0.0), interlaced_share=1.0))
    assert same_masks(sharp, combed)

    def teeth(study: SimulatedStudy, frame: int) -> float:
        """Energy at the finest vertical scale, where the barium is."""
        grey = study.frames[frame].astype(float)
        comb = np.abs(grey[1:-1] - (grey[:-2] + grey[2:]) / 2)
        near = cv2.dilate(study.masks["bolus"][frame].view(np.uint8), np.ones((9, 9)))[1:-1]
        return float(comb[near > 0].mean())

    frames = range(sharp.events["BPM"] + 1, sharp.events["UESC"])
    assert np.mean([teeth(combed, i) - teeth(sharp, i) for i in frames]) > 0.1


def test_stored_again_is_one_exposure() -> None:
    for ranges in (PLAIN, replace(PLAIN, interlaced_share=1.0, exposure=(1.0, 1.0))):
        study = filmed(ranges, pulses=7.5, seconds=1)
        for i in range(30):
            assert np.array_equal(study.frames[i], study.frames[i - i % 4])


def test_pulse_rates_are_drawn() -> None:
    options = SimulateOptions(size=64, frames=1, extras=False, ranges="shifted")
    drawn = {StudySimulator(seed, 0, options).pulses for seed in range(25)}
    assert drawn == {30.0, 15.0, 7.5}


# ── automatic brightness ─────────────────────────────────────────────────────────────────────


def detector(brightness: float, start: float = 0.0) -> tuple[Detector, NDArray[np.float32]]:
    machine = replace(
        _machine(), brightness=brightness, brightness_start=start, photons=1e6, flicker=0.0
    )
    return Detector(machine, (64, 64), np.random.default_rng(0)), np.ones((64, 64), np.float32)


def _machine() -> Machine:
    return StudySimulator(0, 0, SimulateOptions(size=64, frames=1, ranges=PLAIN)).machine


def body() -> NDArray[np.float32]:
    ramp = np.linspace(1.2, 2.8, 64, dtype=np.float32)
    return np.repeat(ramp[None], 64, axis=0)


def test_brightness_comes_back_within_some_frames() -> None:
    machine, field = detector(0.3)
    sign = 1 if machine.machine.polarity == "dark-barium" else -1
    means = [sign * float(machine.grey(body() + (0.35 if i > 2 else 0), field).mean())
             for i in range(40)]  # fmt: skip
    assert means[4] < means[2] - 5  # something dense comes into view
    assert means[39] > means[2] - 3  # and the dose follows
    late = np.diff(means[6:])
    assert (late > -1.0).all()  # without swinging


def test_fixed_exposure_stays_dark() -> None:
    machine, field = detector(0.0)
    sign = 1 if machine.machine.polarity == "dark-barium" else -1
    means = [sign * float(machine.grey(body() + (0.35 if i > 2 else 0), field).mean())
             for i in range(40)]  # fmt: skip
    assert means[39] < means[2] - 5


def test_a_film_may_begin_badly_exposed() -> None:
    for start in (-0.4, 0.4):
        machine, field = detector(0.25, start)
        sign = np.sign(start) * (1 if machine.machine.polarity == "dark-barium" else -1)
        means = [sign * float(machine.grey(body(), field).mean()) for _ in range(30)]
        assert means[0] > means[-1] + 5


# ── collimator ───────────────────────────────────────────────────────────────────────────────


def test_nothing_is_seen_or_labelled_behind_moving_blades() -> None:
    ranges = replace(PLAIN, moving_collimator_share=1.0, blades=(0.15, 0.3))
    widths = []
    for seed in range(4):
        options = SimulateOptions(size=96, frames=30, pulses=30, ranges=ranges, extras=False)
        simulator = StudySimulator(seed, 0, options)
        shade = simulator.collimator.shade
        areas = set()
        for frame in simulator.frames():
            opening = simulator.collimator.open_at(frame.time_s)
            shut = opening <= 0.5
            areas.add(int(shut.sum()))
            assert not any((mask & shut).any() for mask in frame.masks.values())
            assert (np.abs(frame.grey[opening == 0].astype(int) - shade) <= 1).all()
        widths.append(len(areas))
    assert min(widths) > 1


def blades(takes_s: float) -> Collimator:
    return Collimator(
        64, 64, "square", 0.0, 0.1, 0.0, 0, after=(0.3, 0, 0, 0), moves_at_s=1.0, takes_s=takes_s
    )


def test_blades_move_slowly_or_at_one_stroke() -> None:
    times = np.arange(0, 4, 1 / 30)
    for takes_s, fewest, most in ((1.0, 10, 200), (0.04, 1, 2)):
        areas = np.array([blades(takes_s).open_at(t).sum() for t in times])
        assert areas[0] > areas[-1] + 600
        assert (np.diff(areas) <= 1e-3).all()
        assert fewest <= (np.diff(areas) < -1).sum() <= most


def test_blades_that_stand_still_are_drawn_once() -> None:
    still = replace(blades(1.0), after=(0.0, 0.0, 0.0, 0.0), _drawn={})
    assert still.open_at(0.0) is still.open_at(3.0)


# ── where the picture lies on the stored frame ───────────────────────────────────────────────


@pytest.mark.parametrize("what", ["boxed_share", "viewer_share"])
def test_truth_lies_where_the_picture_lies(what: str) -> None:
    ranges = replace(PLAIN, box=(0.7, 0.8), **{what: 1.0})
    for seed in range(4):
        simulator = StudySimulator(
            seed, 0, SimulateOptions(size=160, frames=2, ranges=ranges, kind="quiet")
        )
        screen = simulator.screen
        assert not screen.full
        outside = np.ones((160, 160), bool)
        outside[screen.window] = False
        for frame in simulator.frames():
            assert frame.grey.shape == (160, 160)
            assert not any((mask & outside).any() for mask in frame.masks.values())
            empty = screen.around(np.zeros(screen.picture, np.uint8))
            assert np.array_equal(frame.grey[outside], empty[outside])
            vertebra = frame.masks["c4"]
            edge = cv2.dilate(vertebra.view(np.uint8), np.ones((9, 9))).astype(bool) & ~vertebra
            assert abs(frame.grey[vertebra].mean() - frame.grey[edge].mean()) > 1
        x, y = np.round(simulator.truth().landmarks["A4"][0]).astype(int)
        assert frame.masks["c4"][y - 2 : y + 3, x - 2 : x + 3].any()


def test_a_box_only_moves_the_picture() -> None:
    """The same study with and without black bars: the same pixels, elsewhere."""
    options = SimulateOptions(size=96, frames=2, ranges=PLAIN, kind="hold")
    plain = StudySimulator(5, 0, options)
    wide = StudySimulator(5, 0, replace(options, width=128, height=96))
    boxed = StudySimulator(5, 0, replace(options, width=128, height=96))
    boxed.screen = Screen(96, 160, 0, 32, (96, 128))
    for one, other in zip(wide.frames(), boxed.frames(), strict=True):
        assert np.array_equal(one.grey, other.grey[:, 32:])
        assert not other.grey[:, :32].any()
        for task in VFSS12.ids:
            assert np.array_equal(one.masks[task], other.masks[task][:, 32:])
    moved = boxed.truth().landmarks["hyoid"] - wide.truth().landmarks["hyoid"]
    assert np.allclose(moved, (32, 0))
    assert plain.screen.full


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    height=st.integers(64, 700),
    width=st.integers(64, 700),
)
def test_any_screen_and_its_text_fit(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    screen = draw_screen(rng, EVERYTHING if seed % 2 else SHIFTED, height, width)
    tall, wide = screen.picture
    assert 0 <= screen.top <= height - tall and 0 <= screen.left <= width - wide
    assert tall >= 0.4 * height and wide >= 0.4 * width
    framed = screen.around(np.full((tall, wide), 77, np.uint8))
    assert framed.shape == (height, width)
    furniture = draw_furniture(rng, EVERYTHING, screen, 30.0, 15.0)
    assert furniture.texts
    for text in furniture.texts:
        assert 0 <= text.x < width and 0 < text.y < height
    assert furniture.over(framed, 3).shape == (height, width)


def test_lines_of_text_do_not_lie_on_one_another() -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        screen = Screen(512, 512, 0, 0, (512, 512))
        texts = draw_furniture(rng, EVERYTHING, screen, 30.0, 15.0).texts
        covered = np.zeros((512, 512), int)
        for text in texts:
            one = np.zeros((512, 512), np.uint8)
            cv2.putText(
                one, text.said(0), (text.x, text.y), cv2.FONT_HERSHEY_SIMPLEX, text.scale, 255, 1
            )
            covered += one > 0
        assert covered.max() == 1


def test_clocks_and_counters_run() -> None:
    clock = Text("", 0, 0, 1.0, 255, True, clock_s=86399.5, frame_s=0.25)
    assert [clock.said(i) for i in (0, 1, 2)] == ["23:59:59.50", "23:59:59.75", "00:00:00.00"]
    assert Text("R", 0, 0, 1.0, 255, True).said(7) == "R 0007"
    assert Text("R", 0, 0, 1.0, 255, False).said(7) == "R"


# ── leads ────────────────────────────────────────────────────────────────────────────────────


def test_leads_are_seen_and_not_labelled() -> None:
    seen = 0
    for seed in range(6):
        bare, wired = (
            filmed(replace(PLAIN, lead_share=share), seed=seed, seconds=None, frames=1)
            for share in (0.0, 1.0)
        )
        assert same_masks(bare, wired)
        seen += (np.abs(bare.frames[0].astype(float) - wired.frames[0]) > 8).sum() > 15
    assert seen >= 3  # the others pass outside the picture


def test_a_layer_is_moved_whole() -> None:
    """Only the part of the picture that a layer can reach is moved: nothing is cut off."""
    simulator = StudySimulator(
        4, 0, SimulateOptions(size=128, frames=40, kind="chew", ranges=PLAIN)
    )
    layers = simulator._layers
    for i in (0, 13, 27):
        motion = simulator.scene.pose(i).motion
        whole = sum(
            _shifted(layers.groups[name], matrix, (slice(0, 128), slice(0, 128)))
            for name, matrix in (("neck", motion.body), ("head", motion.head), ("jaw", motion.jaw))
        )
        assert np.allclose(layers.at(motion), whole, atol=2e-3)


def test_a_layer_slides_as_it_turns() -> None:
    """Sliding has a shorter way of its own: the same to a sixty-fourth of a pixel."""
    canvas = cv2.GaussianBlur(np.eye(120, 140, dtype=np.float32), (0, 0), 4)
    window = slice(5, 40), slice(0, 60)
    for shift in ((0.0, 0.0), (3.3, -7.8), (-45.5, 50.25)):
        slid = np.array([[1, 0, shift[0]], [0, 1, shift[1]]])
        turned = slid + np.array([[0, 1e-6, 0], [0, 0, 0]])
        assert_allclose(_shifted(canvas, slid, window), _shifted(canvas, turned, window), atol=1e-3)


# ── populations and reproducibility ──────────────────────────────────────────────────────────


def test_the_other_clinic_is_another_clinic() -> None:
    for name in (
        "exposure", "brightness", "brightness_start", "blades", "blur_mm", "lag", "gamma",
    ):  # fmt: skip
        assert getattr(SHIFTED, name)[1] > getattr(TRAIN, name)[1]
    for name in (
        "interlaced_share", "moving_collimator_share", "lead_share", "logo_share", "boxed_share",
        "viewer_share", "text_share", "compression_share",
    ):  # fmt: skip
        assert getattr(SHIFTED, name) > 2 * getattr(TRAIN, name)
    for ranges in (TRAIN, SHIFTED):
        assert sum(ranges.pulse_shares) == pytest.approx(1)


def test_sides() -> None:
    def facing(ranges: str) -> list[str]:
        options = SimulateOptions(size=64, frames=1, ranges=ranges)
        return [StudySimulator(seed, 0, options).facing for seed in range(40)]

    assert set(facing("train")) == {"left"}
    assert 10 <= facing("shifted").count("right") <= 30


def test_both_polarities_are_drawn() -> None:
    for ranges in ("train", "shifted"):
        options = SimulateOptions(size=64, frames=1, ranges=ranges)
        drawn = {StudySimulator(seed, 0, options).machine.polarity for seed in range(30)}
        assert drawn == {"dark-barium", "light-barium"}


def test_with_everything_on_the_same_pictures_twice() -> None:
    options = SimulateOptions(size=96, frames=12, ranges=EVERYTHING, kind="swallow")
    one, two = (simulate_study(11, 0, options) for _ in range(2))
    assert np.array_equal(one.frames, two.frames) and same_masks(one, two)
    simulator = StudySimulator(11, 0, options)
    for _ in range(2):
        again = np.stack([frame.grey for frame in simulator.frames()])
        assert np.array_equal(one.frames, again)


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_workers_and_interruptions_leave_no_trace(tmp_path: Path) -> None:
    options = DatasetOptions(
        patients=3,
        studies=2,
        study=SimulateOptions(size=64, frames=6, ranges=EVERYTHING, extras=False),
    )
    simulate_dataset(tmp_path / "one", options, workers=1)
    whole = _digests(tmp_path / "one")
    assert len(whole) == 1 + 6 * (2 + 12 * 6)
    simulate_dataset(tmp_path / "two", options, workers=2)
    assert _digests(tmp_path / "two") == whole
    # Killed in the middle: a study without its truth, half a film, masks of some frames.
    patient = tmp_path / "two" / "sim0001"
    (patient / "sim0001-01_truth.json").unlink()
    (patient / "sim0001-01.mp4").write_bytes(b"half")
    (patient / "sim0001-01_masks" / "c3" / "000004.png").unlink()
    simulate_dataset(tmp_path / "two", options, workers=2)
    assert _digests(tmp_path / "two") == whole
