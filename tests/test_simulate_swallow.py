"""What happens in simulated throats: timing against published ranges, findings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vfss_distill.simulate import SimulateOptions, StudySimulator, simulate_study
from vfss_distill.simulate.exposure import Pose
from vfss_distill.simulate.plan import draw_plan
from vfss_distill.simulate.population import TRAIN, draw_patient
from vfss_distill.simulate.swallow import KINDS, Jerk, Kind, Plan
from vfss_distill.simulate.timeline import Timeline, play
from vfss_distill.simulate.truth import EVENTS, truth_of, visible

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
