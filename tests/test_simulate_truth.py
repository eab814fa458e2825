"""What of the barium in a simulated film counts as visible, and so has a mask."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from vfss_distill.simulate import SimulateOptions, StudySimulator
from vfss_distill.simulate.radiography import Detector, _grain_area, _grain_bank
from vfss_distill.simulate.truth import EDGE_GREY, VISIBLE_GREY, VISIBLE_MM, VISIBLE_MM2, visible


def test_traces_too_faint_small_or_thin_are_no_truth() -> None:
    drawn = np.zeros((80, 80), bool)
    contrast = np.zeros((80, 80), np.float32)
    # Two pixels a millimetre: clear, too faint, too small, too thin.
    for window, levels in (
        (np.s_[5:25, 5:25], VISIBLE_GREY + 1),
        (np.s_[30:50, 30:50], VISIBLE_GREY - 1),
        (np.s_[60:65, 5:10], VISIBLE_GREY + 2),
        (np.s_[60:62, 20:70], 100.0),
    ):
        drawn[window], contrast[window] = True, levels
    contrast[5:25, 20:22], contrast[5:25, 22:25] = EDGE_GREY + 1, EDGE_GREY - 1
    seen = visible(drawn, contrast, np.zeros_like(contrast), 2.0)
    assert seen[6:24, 5:22].all() and not seen[:, 22:].any() and not seen[30:].any()


@pytest.mark.parametrize(
    ("levels", "side", "seen"), [(12, 5, False), (18, 4, False), (21, 4, True)]
)
def test_what_is_darker_may_be_smaller(levels: float, side: int, seen: bool) -> None:
    """8 mm² of 10 levels are 32 such pixels at two a millimetre: 25 pixels of 12 levels are as much
    as 30, 16 of 18 as 28.8, 16 of 21 as 33.6."""
    drawn = np.zeros((40, 40), bool)
    drawn[10 : 10 + side, 10 : 10 + side] = True
    contrast = np.where(drawn, levels, 0).astype(np.float32)
    assert visible(drawn, contrast, np.zeros_like(contrast), 2.0).any() == seen


@pytest.mark.parametrize(
    ("px_per_mm", "least"), [(0.6, 1), (1.0, 2), (1.28, 2), (1.9, 3), (2.6, 4), (4.0, 6)]
)
def test_a_line_has_a_mask_from_the_width_that_is_asked_for(px_per_mm: float, least: int) -> None:
    """1.5 mm to the nearest pixel, also where that is an even number, and where it was drawn."""
    for width in (least - 1, least):
        drawn = np.zeros((80, 80), bool)
        drawn[10 : 10 + width, 10:70] = True
        contrast = np.where(drawn, 100, 0).astype(np.float32)
        seen = visible(drawn, contrast, np.zeros_like(contrast), px_per_mm)
        assert seen.any() == (width == least)
        assert not (seen & ~drawn).any()


def test_a_pool_may_be_narrower_than_a_line() -> None:
    """Whether two rows of pixels hold a disc is a matter of where they lie; a pool is seen."""
    for length, seen in ((5, True), (11, False)):
        drawn = np.zeros((40, 40), bool)
        drawn[10, 10 : 10 + length], drawn[11, 11 : 9 + length] = True, True
        contrast = np.where(drawn, 60, 0).astype(np.float32)
        found = visible(drawn, contrast, np.zeros_like(contrast), 2.0)
        assert np.array_equal(found, drawn) if seen else not found.any()


def test_what_drowns_in_noise_is_no_truth() -> None:
    """A contrast of 20 levels over 8 mm² at two pixels a millimetre: 32 pixels, so that noise of 20
    levels a pixel leaves a signal of 5.7 deviations, and noise of 30 one of 3.8 (Rose: 5)."""
    drawn = np.zeros((40, 40), bool)
    drawn[10:22, 10:22] = True
    contrast = np.where(drawn, 20, 0).astype(np.float32)
    for deviation, seen in ((0, True), (20, True), (30, False)):
        noise = np.full_like(contrast, deviation)
        assert visible(drawn, contrast, noise, 2.0).any() == seen


def test_noise_told_is_that_of_the_picture() -> None:
    simulator = StudySimulator(3, 0, SimulateOptions(size=192, frames=1, pulses=30, extras=False))
    machine = replace(
        simulator.machine, photons=3000, flicker=0, sharpening=0, lag=0, vignetting=0, glare=0,
        scatter=0.3, gamma=1, brightness_start=0, brightness=0
    )  # fmt: skip
    shape = simulator.screen.picture
    columns = np.linspace(0.5, 3, shape[1], dtype=np.float32)
    body = np.broadcast_to(columns, shape).copy()
    detector = Detector(machine, shape, np.random.default_rng(0))
    frames = np.stack([detector.grey(body, np.ones(shape, np.float32)) for _ in range(40)])
    detector.grey(body, np.ones(shape, np.float32), np.full(shape, 0.1, np.float32))
    _, told = detector.contrast()
    inside = (frames > 5).all(0) & (frames < 250).all(0)
    assert inside.mean() > 0.3
    measured = frames.astype(float).std(0)[inside] * np.sqrt(detector._grain_px2)
    np.testing.assert_allclose(told[inside].mean(), measured.mean(), rtol=0.1)
    # Where the part is black, its noise is that of what it would be told from.
    black = (frames == 0).all(0)
    assert black.any()
    detector.grey(body, np.ones(shape, np.float32), np.full(shape, 2.0, np.float32))
    _, told = detector.contrast()
    assert told[black].max() > 0.3 * measured.max()


@pytest.mark.parametrize("sigma", [0.2, 0.45, 0.9])
def test_grain_is_stronger_over_an_area_than_noise_of_single_pixels(sigma: float) -> None:
    """The mean over 16 × 16 pixels, in deviations of a pixel."""
    bank = _grain_bank(np.random.default_rng(1), (416, 416), sigma)
    means = np.stack(bank)[:, :512, :512].reshape(5, 32, 16, 32, 16).mean((2, 4))
    assert means.std() * 16 == pytest.approx(np.sqrt(_grain_area(sigma)), rel=0.08)


def test_a_collimator_leaves_no_slivers_of_the_bolus() -> None:
    """What it leaves of a piece is wide enough, and dark enough for its area, or has no mask."""
    pieces = 0
    for seed in range(12):
        options = SimulateOptions(size=192, fps=4, frames=6, ranges="shifted", extras=False)
        simulator = StudySimulator(seed, 0, options)
        px_per_mm = simulator._place.px_per_mm
        darkest = 255 / VISIBLE_GREY
        least = max(VISIBLE_MM2 * px_per_mm**2 / darkest, (VISIBLE_MM * px_per_mm - 1) ** 2)
        for frame in simulator.frames():
            count, labels = cv2.connectedComponents(frame.masks["bolus"].view(np.uint8))
            areas = np.bincount(labels.ravel(), minlength=count)[1:]
            assert (areas >= least).all()
            pieces += count - 1
    assert pieces > 20


@pytest.mark.parametrize("lag", [0.0, 0.6])
def test_contrast_is_what_the_picture_loses_without_the_bolus(lag: float) -> None:
    """Also where it has moved, and what lingers of the frame before is still without it."""
    options = SimulateOptions(size=192, frames=1, pulses=30, extras=False)
    for seed in range(6):
        simulator = StudySimulator(seed, 0, options)
        field = np.ones(simulator.screen.picture, np.float32)
        field[:40] = 0
        rows, columns = np.mgrid[: field.shape[0], : field.shape[1]].astype(np.float32)
        body = 1.2 + 0.8 * np.cos(columns / 30) * np.cos(rows / 50)
        still = replace(
            simulator.machine, photons=1e12, electronic=0, flicker=0, sharpening=0, scatter=0.3,
            lag=lag,
        )  # fmt: skip
        with_part, without = (
            Detector(still, field.shape, np.random.default_rng(0)) for _ in range(2)
        )
        # The window of the display is set on the same frame first.
        for detector in (with_part, without):
            detector.grey(body, field)
        for row in (100, 112):
            part = np.where((rows - row) ** 2 + (columns - 90) ** 2 < 200, 0.5, 0)
            part = part.astype(np.float32)
            shown = with_part.grey(body + part, field, part).astype(float)
            difference = np.abs(without.grey(body, field) - shown)
            told, _ = with_part.contrast()
            fresh, inside = (part > 0) & (rows > 116), part > 0
            assert told[~inside].mean() < 0.5
            # But for scatter, which the bolus also takes from all around it.
            for place in (inside, fresh):
                if place.any():
                    goal = difference[place].mean()
                    np.testing.assert_allclose(told[place].mean(), goal, rtol=0.2, atol=1)
