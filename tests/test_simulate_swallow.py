"""What happens in simulated throats: timing against published ranges, findings, visible barium."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vfss_distill.simulate import SimulateOptions, StudySimulator, simulate_study
from vfss_distill.simulate.exposure import Pose
from vfss_distill.simulate.plan import draw_plan
from vfss_distill.simulate.population import TRAIN, draw_patient
from vfss_distill.simulate.radiography import Detector, _grain_area, _grain_bank
from vfss_distill.simulate.swallow import KINDS, Jerk, Kind, Plan
from vfss_distill.simulate.timeline import Timeline, play
from vfss_distill.simulate.truth import (
    EDGE_GREY,
    EVENTS,
    VISIBLE_GREY,
    VISIBLE_MM,
    VISIBLE_MM2,
    truth_of,
    visible,
)

FPS = 30.0
TIMES = np.arange(150) / FPS


@dataclass(frozen=True)
class Drawn:
    """One study's plan, played, and what truth says of it; nothing rendered."""

    plan: Plan
    line: Timeline
    events: dict[str, int | None]
    measures: dict[str, Any]
    findings: dict[str, Any]


def barium_seen(simulator: StudySimulator, pose: Pose) -> NDArray[np.bool_]:
    shape = simulator.screen.picture
    drawn = pose.patches["bolus"].mask(shape) | pose.patches["thin_bolus"].mask(shape)
    contrast = 255 * (1 - np.exp(-simulator.scene.barium(pose)))  # a linear display, no scatter
    return visible(drawn, contrast, np.zeros_like(contrast), simulator.view.px_per_mm)


def played(seed: int, kind: Kind | None = None, *, impaired: bool | None = None) -> Drawn:
    """Poses as in a film, without pictures: masks by outline, at 96 pixels."""
    share = TRAIN.impaired_share if impaired is None else float(impaired)
    ranges = replace(TRAIN, impaired_share=share)
    options = SimulateOptions(
        size=96, seconds=5, fps=FPS, pulses=FPS, kind=kind, ranges=ranges, extras=False
    )
    simulator = StudySimulator(seed, 0, options)
    for i in range(len(TIMES)):
        pose = simulator.scene.pose(i)
        wet = barium_seen(simulator, pose)
        pharynx = pose.patches["pharynx"].mask(simulator.screen.picture)
        simulator._seen.see(pose, pharynx, wet)
    truth = simulator.truth()
    return Drawn(simulator.plan, simulator.timeline, truth.events, truth.measures, truth.findings)


@cache
def healthy() -> tuple[Drawn, ...]:
    return tuple(played(seed, "swallow", impaired=False) for seed in range(24))


def plans(count: int, *, impaired: bool | None = None, **words: Any) -> Iterator[Plan]:
    """Plans alone: thousands in a second."""
    share = TRAIN.impaired_share if impaired is None else float(impaired)
    ranges = replace(TRAIN, impaired_share=share)
    for seed in range(count):
        rng = np.random.default_rng(seed)
        yield draw_plan(rng, draw_patient(rng, ranges), ranges, **{"duration_s": 5.0, **words})


# ── published ranges, healthy adults (sources in `swallow`) ──────────────────────────


@pytest.mark.parametrize(
    ("measure", "low", "high"),
    [  # the middle patient must lie here
        ("srt_ms", 0, 250),
        ("hyb_ueso_ms", 80, 230),
        ("ueso_dur_ms", 400, 600),
        ("ttlvc_ms", 80, 230),
        ("lvc_dur_ms", 310, 600),
        ("ptt_ms", 500, 1000),
        ("hyoid_x_peak_pct", 115, 160),
        ("hyoid_y_peak_pct", 40, 90),
        ("hyoid_xy_speed_pct_per_s", 90, 200),
        ("pharynx_area_rest_pct", 45, 80),  # mean 62, range 25 … 135
        ("pharynx_constriction_ratio", 0.0, 0.14),
        ("ues_max_pct", 12, 28),
        ("total_residue_pct", 0, 0.7),
    ],
)
def test_healthy_adults_are_as_published(measure: str, low: float, high: float) -> None:
    values = [d.measures[measure] for d in healthy() if d.measures[measure] is not None]
    assert len(values) > 16
    assert low <= np.median(values) <= high


def test_pharynx_at_rest_stays_within_the_published_range() -> None:
    areas = [d.measures["pharynx_area_rest_pct"] for d in healthy()]
    assert all(25 < area < 135 for area in areas if area is not None)


def test_most_healthy_swallows_leave_nothing() -> None:
    clean = [d.measures["total_residue_pct"] == 0 for d in healthy()]
    assert 0.6 < np.mean(clean) < 0.98


def test_impaired_swallows_are_later_weaker_and_dirtier() -> None:
    ill = [plan.swallows[0] for plan in plans(300, kind="swallow", impaired=True)]
    well = [plan.swallows[0] for plan in plans(300, kind="swallow", impaired=False)]

    def middle(swallows: list[Any], what: str) -> float:
        values = {
            "reaction": [s.burst - s.ramus for s in swallows],
            "larynx": [s.larynx_mm for s in swallows],
            "squeeze": [s.squeeze for s in swallows],
            "residue": [sum(s.residue) for s in swallows],
            "pas": [s.pas for s in swallows],
        }
        return float(np.mean(values[what]))

    assert middle(ill, "reaction") > middle(well, "reaction") + 0.1
    assert middle(ill, "larynx") < middle(well, "larynx")
    assert middle(ill, "squeeze") < middle(well, "squeeze") - 0.1
    assert middle(ill, "residue") > 2 * middle(well, "residue")
    assert middle(ill, "pas") > middle(well, "pas") + 0.5


# ── events ───────────────────────────────────────────────────────────────────────────────────────


def test_events_of_whole_swallows_come_in_order() -> None:
    for drawn in healthy():
        e = {name: frame for name, frame in drawn.events.items() if frame is not None}
        for first, then in (
            ("HYB", "UESO"), ("BPM", "UESO"), ("UESO", "UESC"), ("HYB", "LVC"), ("LVC", "LVCoff"),
            ("UESO", "MPC"), ("MPC", "rest"), ("UESC", "rest"), ("LVCoff", "rest"),
        ):  # fmt: skip
            if first in e and then in e:
                assert e[first] < e[then], (first, then, e)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10_000), kind=st.sampled_from([None, *KINDS]))
def test_events_lie_in_the_film_or_are_null(seed: int, kind: Kind | None) -> None:
    drawn = played(seed, kind)
    assert tuple(drawn.events) == EVENTS
    assert all(frame is None or 0 < frame < len(TIMES) for frame in drawn.events.values())
    if drawn.plan.measured is None:
        assert set(drawn.events.values()) == {None}
    for name in ("srt", "ueso_dur", "lvc_dur"):
        assert (drawn.measures[f"{name}_ms"] is None) == (drawn.measures[f"{name}_frames"] is None)


def test_film_that_begins_after_the_swallow_has_no_burst() -> None:
    after = next(seed for seed, plan in enumerate(plans(200)) if plan.measured is None
                 and plan.swallows)  # fmt: skip
    plan = list(plans(after + 1))[after]
    assert plan.filmed == () and plan.findings["swallows"] == 0
    line = play(plan, TIMES, np.random.default_rng(0))
    still = {"A2": np.ones((150, 2)), "A4": np.full((150, 2), 9.0), "hyoid": np.zeros((150, 2))}
    names = ("pharynx", "ues", "vallecula", "pyriform", "vallecula_residue", "pyriform_residue",
             "total_residue")  # fmt: skip
    truth = truth_of(
        plan,
        line,
        landmarks=still,
        sizes={name: np.ones(150) for name in names},
        past_ramus=np.zeros(150, bool),
        frame_times_s=TIMES,
        facing="left",
    )
    assert set(truth.events.values()) == {None}


def test_failed_opening_passes_nothing() -> None:
    seed = next(
        k
        for k, plan in enumerate(plans(2000, kind="swallow", impaired=True))
        if not plan.swallows[0].passes
    )
    plan = list(plans(seed + 1, kind="swallow", impaired=True))[seed]
    line = play(plan, TIMES, np.random.default_rng(0))
    assert plan.findings["ues_opening_failed"]
    assert line.boluses[0].head.max() < 14
    assert line.pyriform[np.searchsorted(TIMES, plan.swallows[0].back)] > 0.5


# ── what a film may show ─────────────────────────────────────────────────────────────────────────


def test_films_differ_as_examinations_do() -> None:
    drawn = list(plans(1500))
    kinds = {kind: np.mean([plan.kind == kind for plan in drawn]) for kind in KINDS}
    assert all(share > 0.02 for share in kinds.values())
    whole = [plan for plan in drawn if plan.kind == "swallow"]
    for has in (
        lambda p: len(p.swallows) > 1,  # piecemeal, or clearing
        lambda p: any(s.share == 0 for s in p.swallows),
        lambda p: p.findings["penetration"],
        lambda p: p.findings["aspiration"],
        lambda p: p.findings["cough"],
        lambda p: p.shift is not None,
        lambda p: bool(p.bubbles),
        lambda p: p.coating > 0.3,
        lambda p: any(s.spill_knot > 12 for s in p.swallows),
        lambda p: any(s.oral_residue > 0.3 for s in p.swallows),
        lambda p: p.swallows[0].prop > p.duration_s,  # not yet
        lambda p: p.swallows[-1].back < 0,  # over
    ):
        assert 0.01 < np.mean([has(plan) for plan in whole]) < 0.7
    scores = {s.pas for plan in drawn for s in plan.swallows}
    assert scores == set(range(1, 9))


@pytest.mark.parametrize(("seconds", "fps"), [(2.5, 12.0), (4.5, 6.0)])
def test_a_third_of_all_frames_show_no_barium(seconds: float, fps: float) -> None:
    options = SimulateOptions(size=96, seconds=seconds, fps=fps, pulses=fps, extras=False)
    dry, partly, count = 0, 0, 100
    for seed in range(count):
        simulator = StudySimulator(seed, 0, options)
        frames = len(simulator.frame_times_s)
        shown = 0
        for i in range(0, frames, 5):
            shown += barium_seen(simulator, simulator.scene.pose(i)).any()
        dry += 1 - shown / len(range(0, frames, 5))
        partly += 0 < shown < len(range(0, frames, 5))
    assert 0.28 < dry / count < 0.55
    assert partly > 0.2 * count


# ── motion ───────────────────────────────────────────────────────────────────────────────────────


def test_second_portion_waits_in_the_mouth() -> None:
    plan = next(
        plan
        for plan in plans(500, kind="swallow")
        if len(plan.swallows) > 1
        and plan.swallows[1].share > 0
        and plan.swallows[1].enter == plan.swallows[0].enter
    )
    line = play(plan, TIMES, np.random.default_rng(0))
    assert len(line.boluses) == len(plan.swallows)
    passed = int(np.searchsorted(TIMES, plan.swallows[0].closing))
    assert line.boluses[1].head[passed] < 6 and line.boluses[1].gain[passed] == 1


def test_clearing_swallow_carries_residue_away() -> None:
    plan = next(p for p in plans(3000, kind="swallow", impaired=True)
                if p.swallows[-1].share == 0 and p.swallows[-1].passes
                and sum(p.swallows[-2].residue) > 0.5
                and p.swallows[-1].back < 12)  # fmt: skip
    times = np.arange(0, 14, 1 / FPS)
    line = play(replace(plan, duration_s=14.0), times, np.random.default_rng(0))
    before, after = (np.searchsorted(times, s.back) for s in plan.swallows[-2:])
    assert (line.vallecula + line.pyriform)[after] < 0.9 * (line.vallecula + line.pyriform)[before]


@pytest.mark.parametrize("kind", ["cough", "gag"])
def test_jerks_throw_the_head_and_settle(kind: Any) -> None:
    plan = replace(next(iter(plans(1, kind="quiet"))), jerks=(), shift=None)
    calm = play(plan, TIMES, np.random.default_rng(0))
    jolted = play(
        replace(plan, jerks=(Jerk(1.0, kind, 6.0, 3.0),)), TIMES, np.random.default_rng(0)
    )
    gone = np.abs(jolted.drift - calm.drift).max(axis=1)
    assert gone[30] > 5 and gone[:20].max() < 0.01 and gone[-60:].max() < 0.01
    assert (jolted.jaw_deg - calm.jaw_deg).max() > 2


def test_chewing_opens_and_shuts_the_jaw() -> None:
    plan = next(iter(plans(1, kind="chew")))
    line = play(plan, TIMES, np.random.default_rng(0))
    jaw = line.jaw_deg[: np.searchsorted(TIMES, plan.swallows[0].prop - 0.3)]
    strokes = np.sum((jaw[1:-1] > jaw[:-2]) & (jaw[1:-1] > jaw[2:]) & (jaw[1:-1] > 2))
    assert strokes >= 2


def test_epiglottis_inverts_and_posterior_wall_comes_forward() -> None:
    options = SimulateOptions(size=192, seconds=4, kind="swallow", pulses=30)
    simulator = StudySimulator(2, 0, options)
    assert simulator.plan.swallows[0].tilt > 0.8
    shape = simulator.screen.picture
    simulator.timeline.drift[:] = 0
    simulator.timeline.nod_deg[:] = 0
    s = simulator.plan.swallows[0]
    rest, tight = 0, round(30 * (0.6 * s.closing + 0.4 * s.opening))

    def leaf(i: int) -> NDArray[np.float64]:
        outline = simulator.scene.pose(i).throat.epiglottis[0]
        along = outline[len(outline) // 2] - outline[0]
        return along / np.linalg.norm(along)

    assert leaf(tight)[0] > leaf(rest)[0] + 0.2  # tips backwards, towards the spine
    assert leaf(tight)[1] > leaf(rest)[1] + 0.2  # … and down
    wall = [simulator.scene.pose(i).patches["posterior_wall"].mask(shape).sum()
            for i in (rest, tight)]  # fmt: skip
    assert wall[1] > 1.1 * wall[0]


def test_pharynx_ends_below_the_soft_palate() -> None:
    """The nasopharynx is seen, but is no part of the pharyngeal space of ASPEKT."""
    study = simulate_study(2, 0, SimulateOptions(size=256, frames=1, kind="quiet"))
    pharynx, nose = study.masks["pharynx"][0], study.masks["nasopharynx"][0]
    palate = study.masks["soft_palate"][0]
    assert nose.sum() > 50 and (pharynx & nose).sum() < 0.1 * nose.sum()
    assert np.nonzero(pharynx)[0].min() > np.nonzero(palate)[0].min()


# ── what counts as barium ────────────────────────────────────────────────────────────────────────


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


def test_film_on_the_mucosa_is_seen_but_no_bolus() -> None:
    options = SimulateOptions(size=256, frames=1, kind="quiet", pulses=30, extras=False)
    simulator = StudySimulator(4, 0, options)
    simulator.timeline.vallecula[:] = simulator.timeline.pyriform[:] = 0
    pose = simulator.scene.pose(0)
    simulator.timeline.film[:] = 1
    coated = simulator.scene.pose(0)
    assert not simulator.scene.barium(coated).any()
    clean, dark = (
        simulator.scene.exposed(p, np.zeros((256, 256), np.float32))[0] for p in (pose, coated)
    )
    assert (dark - clean).max() > 0.05


def test_same_seed_same_plan() -> None:
    assert list(plans(30)) == list(plans(30))
