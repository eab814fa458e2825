"""Simulated anatomy and swallows: masks, landmarks, events and measures of what was drawn."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vfss_distill.errors import UsageError
from vfss_distill.simulate import (
    EXTRA_STRUCTURES,
    SimulatedStudy,
    SimulateOptions,
    StudySimulator,
    simulate_study,
)
from vfss_distill.simulate.population import TRAIN
from vfss_distill.simulate.truth import hyoid_in_c2_4
from vfss_distill.tasks import VFSS12

DISCS = [f"disc_c{n}_c{n + 1}" for n in range(2, 7)]
# No devices on the skin, nothing around the picture.
PLAIN = replace(
    TRAIN, lead_share=0.0, text_share=0.0, logo_share=0.0, boxed_share=0.0, viewer_share=0.0
)


@pytest.fixture(scope="module")
def swallow() -> SimulatedStudy:
    return simulate_study(
        3, 0, SimulateOptions(size=192, seconds=4, kind="swallow", pulses=30, extras=True)
    )


# ── anatomy and physiology ───────────────────────────────────────────────────────────────────


def centre(mask: NDArray[np.bool_]) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    return float(columns.mean()), float(rows.mean())


def dilated(mask: NDArray[np.bool_], by: int = 3) -> NDArray[np.bool_]:
    kernel = np.ones((2 * by + 1, 2 * by + 1), np.uint8)
    return cv2.dilate(mask.view(np.uint8), kernel).view(np.bool_)


def test_everything_lies_where_it_belongs(swallow: SimulatedStudy) -> None:
    at = {task: centre(swallow.masks[task][0]) for task in VFSS12.ids if task != "bolus"}
    heights = [at[f"c{n}"][1] for n in range(1, 8)]
    assert heights == sorted(heights)
    assert swallow.facing == "left"
    assert at["mandible"][0] < at["hyoid"][0] + 10 < at["c3"][0] + 10
    assert at["pharynx"][0] < at["c3"][0] and at["pharynx"][1] < at["airway"][1]
    assert at["airway"][0] < at["c7"][0]


def test_every_structure_is_delivered(swallow: SimulatedStudy) -> None:
    assert tuple(swallow.masks)[:12] == VFSS12.ids
    assert set(EXTRA_STRUCTURES) <= set(swallow.masks)
    n, h, w = swallow.frames.shape
    for mask in swallow.masks.values():
        assert mask.dtype == np.bool_ and mask.shape == (n, h, w)
    for n_body in range(2, 8):
        body, whole = swallow.masks[f"c{n_body}_body"], swallow.masks[f"c{n_body}"]
        assert not (body & ~whole).any()


def test_areas_are_those_of_people(swallow: SimulatedStudy) -> None:
    share = {task: float(swallow.masks[task].mean()) for task in VFSS12.ids}
    assert 0.03 < share["mandible"] < 0.16
    assert 0.002 < share["hyoid"] < 0.011
    assert 0.008 < share["pharynx"] < 0.08
    assert all(0.004 < share[f"c{n}"] < 0.05 for n in range(1, 8))


def test_hyoid_rises_and_goes_forward(swallow: SimulatedStudy) -> None:
    track = hyoid_in_c2_4(swallow.landmarks, swallow.facing)
    burst, peak = swallow.events["HYB"], swallow.measures["hyoid_peak_frame"]
    assert burst is not None and burst < peak
    before, at_peak = track[burst - 1], track[peak]
    assert at_peak[0] > before[0] + 5 and at_peak[1] > before[1] + 5
    # The mask goes with the landmark, seen from the spine: the whole patient sways.
    first, high = (
        centre(swallow.masks["hyoid"][i])[1] - centre(swallow.masks["c3"][i])[1] for i in (0, peak)
    )
    assert high < first


def test_events_come_in_order(swallow: SimulatedStudy) -> None:
    e = swallow.events
    order = [e["BPM"], e["UESO"], e["MPC"], e["UESC"], e["rest"]]
    assert None not in order
    assert e["BPM"] < e["UESO"] < e["UESC"] <= e["rest"]
    assert e["HYB"] < e["UESO"] and e["HYB"] < e["LVC"] < e["LVCoff"]
    assert e["UESO"] < e["MPC"] < e["rest"]


def test_measures_follow_from_events_and_masks(swallow: SimulatedStudy) -> None:
    e, m = swallow.events, swallow.measures
    assert m["srt_frames"] == e["HYB"] - e["BPM"]
    assert m["ueso_dur_ms"] == pytest.approx(1000 * (e["UESC"] - e["UESO"]) / 30, abs=0.2)
    a2, a4 = swallow.landmarks["A2"], swallow.landmarks["A4"]
    length = np.linalg.norm(a2 - a4, axis=1)
    area = 100 * swallow.masks["pharynx"][e["MPC"]].sum() / length[e["MPC"]] ** 2
    assert m["pharynx_area_mpc_pct"] == pytest.approx(area, abs=0.01)
    assert m["pharynx_area_mpc_pct"] < 0.6 * m["pharynx_area_rest_pct"]


def test_landmarks_lie_on_their_bones(swallow: SimulatedStudy) -> None:
    for name, task in (("A2", "c2"), ("A4", "c4"), ("hyoid", "hyoid")):
        x, y = np.round(swallow.landmarks[name][0]).astype(int)
        near = swallow.masks[task][0, y - 2 : y + 3, x - 2 : x + 3]
        assert near.any()


def test_further_landmarks_lie_where_they_should(swallow: SimulatedStudy) -> None:
    at = {name: points[0] for name, points in swallow.landmarks.items()}
    assert at["A2"][0] < at["P2"][0] and at["A4"][0] < at["P4"][0]  # faces left
    assert at["epiglottis"][1] < at["vocal_folds"][1] < at["ues"][1]
    for name, structure in (("P4", "c4_body"), ("epiglottis", "epiglottis"), ("ues", "ues")):
        x, y = np.round(at[name]).astype(int)
        assert swallow.masks[structure][0, y - 3 : y + 4, x - 3 : x + 4].any()
    tip = swallow.landmarks["epiglottis"] - swallow.landmarks["vocal_folds"]
    inverted = swallow.events["MPC"]
    assert tip[inverted][1] > tip[0][1]  # it folds down over the inlet


def test_teeth_and_skull_are_labelled(swallow: SimulatedStudy) -> None:
    at = {name: centre(swallow.masks[name][0]) for name in ("teeth", "maxilla", "mandible", "c1")}
    skull = swallow.masks["skull_base"][0]
    assert at["teeth"][0] < at["c1"][0] and at["maxilla"][1] < at["mandible"][1]
    assert skull.any() and centre(skull)[1] < at["c1"][1]


def test_bolus_goes_one_way(swallow: SimulatedStudy) -> None:
    simulator = StudySimulator(3, 0, SimulateOptions(size=192, seconds=4, kind="swallow"))
    bolus = simulator.timeline.boluses[0]
    assert (np.diff(bolus.head) >= -1e-9).all() and (np.diff(bolus.tail) >= -1e-9).all()
    assert (bolus.head >= bolus.tail).all()
    passing = range(swallow.events["BPM"], swallow.events["UESC"])
    lowest = [np.nonzero(swallow.masks["bolus"][i])[0].max() for i in passing]
    assert lowest[-1] > lowest[0] + 20


def test_vestibule_closes_and_opens(swallow: SimulatedStudy) -> None:
    options = SimulateOptions(size=192, seconds=4, kind="swallow", pulses=30)
    simulator = StudySimulator(3, 0, options)
    closure = simulator.timeline.vestibule
    closed, reopened = swallow.events["LVC"], swallow.events["LVCoff"]
    assert closure[closed : reopened - 1].min() > 0.99
    assert closure[closed - 2] < 0.99 and closure[reopened + 1] < 0.99
    pose = simulator.scene.pose(closed)
    shut = pose.patches["airway"].mask((192, 192)).sum()
    simulator.timeline.vestibule[:] = 0
    assert shut < 0.93 * simulator.scene.pose(closed).patches["airway"].mask((192, 192)).sum()


def test_barium_is_darker_than_air_and_brighter_when_inverted() -> None:
    for polarity, sign in (("dark-barium", 1), ("light-barium", -1)):
        options = SimulateOptions(
            size=128, frames=40, kind="hold", polarity=polarity, extras=False, pulses=30
        )
        study = simulate_study(8, 0, options)
        bolus = study.masks["bolus"][-1]
        around = study.masks["pharynx"][-1] & ~bolus
        grey = study.frames[-1].astype(float)
        assert sign * (grey[around].mean() - grey[bolus].mean()) > 20


def test_no_swallow_has_no_events() -> None:
    study = simulate_study(1, 0, SimulateOptions(size=64, frames=10, kind="quiet", extras=False))
    assert set(study.events.values()) == {None}
    assert not study.findings["penetration"]


def test_pulses_are_repeated_frames() -> None:
    options = SimulateOptions(size=64, frames=12, pulses=7.5, extras=False, ranges="train")
    simulator = StudySimulator(0, 0, options)
    masks = [frame.masks["bolus"] for frame in simulator.frames()]
    for i in range(12):
        assert (masks[i] == masks[i - i % 4]).all()


def test_patient_is_the_same_in_each_study_but_not_the_film() -> None:
    options = SimulateOptions(size=64, frames=3, extras=False)
    one, two = (simulate_study(4, number, options) for number in range(2))
    assert one.patient == two.patient
    assert not np.array_equal(one.frames, two.frames)


def test_pictures_need_not_be_square() -> None:
    options = SimulateOptions(width=160, height=120, frames=3)
    study = simulate_study(6, 0, options)
    assert study.frames.shape == (3, 120, 160)
    assert study.masks["c4"][0].any()


def test_frames_may_be_drawn_again() -> None:
    simulator = StudySimulator(7, 1, SimulateOptions(size=64, frames=4, extras=False))
    first, again = ([frame.grey for frame in simulator.frames()] for _ in range(2))
    assert np.array_equal(first, again)


def test_truth_waits_for_the_frames() -> None:
    simulator = StudySimulator(0, 0, SimulateOptions(size=64, frames=3))
    with pytest.raises(UsageError):
        simulator.truth()


def test_mirrored_patients_face_right() -> None:
    study = simulate_study(
        2, 0, SimulateOptions(size=96, frames=3, ranges=replace(TRAIN, mirrored_share=1.0))
    )
    assert study.facing == "right"
    assert centre(study.masks["mandible"][0])[0] > centre(study.masks["c3"][0])[0]
    assert (hyoid_in_c2_4(study.landmarks, "right")[:, 0] > 0).all()


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    ranges=st.sampled_from(["train", "shifted"]),
    kind=st.sampled_from(["swallow", "hold", "chew", "quiet"]),
)
def test_any_patient_is_drawn_whole(seed: int, ranges: str, kind: str) -> None:
    options = SimulateOptions(size=96, frames=4, ranges=ranges, kind=kind)
    study = simulate_study(seed, 0, options)
    assert study.frames.dtype == np.uint8 and study.frames.shape == (4, 96, 96)
    assert study.frames.std() > 5
    for task in ("c3", "c4", "pharynx"):
        assert study.masks[task][0].any()
    assert all(np.isfinite(points).all() for points in study.landmarks.values())
    json.dumps({"e": study.events, "m": study.measures, "f": study.findings}, allow_nan=False)


# ── structures beyond the tasks ──────────────────────────────────────────────────────────────


def test_discs_lie_between_their_bodies(swallow: SimulatedStudy) -> None:
    masks = {name: mask[0] for name, mask in swallow.masks.items()}
    for number, name in enumerate(DISCS, start=2):
        disc, above, below = masks[name], masks[f"c{number}_body"], masks[f"c{number + 1}_body"]
        assert disc.any() and not (disc & (above | below)).any()
        assert centre(above)[1] < centre(disc)[1] < centre(below)[1]
        assert disc.sum() < above.sum()
        touched = dilated(disc)
        assert (touched & above).any() and (touched & below).any()


def test_there_is_no_disc_between_fused_bodies() -> None:
    options = SimulateOptions(size=192, frames=1, ranges=replace(TRAIN, age_years=(85, 92)))
    fused = 0
    for seed in range(60):
        simulator = StudySimulator(seed, 0, options)
        if simulator.patient.fused and fused < 2:
            fused += 1
            (frame,) = simulator.frames()
            for number in simulator.patient.fused:
                assert frame.masks[f"c{number}_body"].any()
                assert not frame.masks[f"disc_c{number}_c{number + 1}"].any()
    assert fused == 2


def test_larynx_and_trachea_make_the_airway(swallow: SimulatedStudy) -> None:
    larynx, trachea = swallow.masks["larynx"], swallow.masks["trachea"]
    assert not (larynx & trachea).any()
    assert np.array_equal(larynx | trachea, swallow.masks["airway"])
    for i in (0, swallow.events["MPC"]):
        assert centre(larynx[i])[1] < centre(trachea[i])[1]
        # The cricoid ends where the trachea begins.
        lowest = np.nonzero(swallow.masks["cricoid"][i])[0].max()
        assert abs(np.nonzero(trachea[i])[0].min() - lowest) < 8


def test_posterior_elements_stand_behind_the_bodies(swallow: SimulatedStudy) -> None:
    behind = swallow.masks["posterior_elements"][0]
    vertebrae = np.any([swallow.masks[f"c{n}"][0] for n in range(1, 8)], axis=0)
    assert behind.sum() > 0.3 * vertebrae.sum()
    assert (behind & vertebrae).sum() > 0.98 * behind.sum()
    bodies = np.any([swallow.masks[f"c{n}_body"][0] for n in range(2, 8)], axis=0)
    assert centre(behind)[0] > centre(bodies)[0]
    assert (behind & bodies).sum() < 0.1 * behind.sum()


@pytest.mark.parametrize("seed", [3, 4, 6])
def test_shoulders_are_a_dark_shadow_below(seed: int) -> None:
    options = SimulateOptions(size=192, frames=1, polarity="dark-barium", ranges=PLAIN)
    study = simulate_study(seed, 0, options)
    shoulders, grey = study.masks["shoulders"][0], study.frames[0].astype(float)
    assert shoulders.any() and not (shoulders & study.masks["c4"][0]).any()
    assert centre(shoulders)[1] > centre(study.masks["c6"][0])[1]
    neck = np.any([study.masks[f"c{n}"][0] for n in range(3, 6)], axis=0) & ~shoulders
    assert np.median(grey[shoulders]) < np.median(grey[neck])  # more than bone alone


def test_devices_are_labelled_where_their_shadows_are() -> None:
    """The same patients with and without: what differs most in the pictures is the mask."""
    none = dict.fromkeys(("plate_share", "earring_share", "tube_share", "lead_share"), 0.0)
    for seed, name, kinds in (
        (3, "tube", ("tube_share",)),
        (4, "metal", ("plate_share",)),
        (5, "metal", ("earring_share",)),
        (6, "metal", ("lead_share",)),
    ):
        bare = replace(PLAIN, **none, filling_share=0.0)  # type: ignore[arg-type]
        worn = replace(bare, **dict.fromkeys(kinds, 1.0))  # type: ignore[arg-type]
        options = {"size": 256, "frames": 1, "polarity": "dark-barium"}
        one, other = (
            simulate_study(seed, 0, SimulateOptions(ranges=ranges, **options))  # type: ignore[arg-type]
            for ranges in (bare, worn)
        )
        assert not one.masks["metal"].any() and not one.masks["tube"].any()
        mask = other.masks[name][0]
        darker = one.frames[0].astype(float) - other.frames[0]
        assert darker[mask].mean() > 8 + abs(darker[~dilated(mask, 4)].mean()), (seed, name)


def test_fillings_are_metal_and_dentures_are_teeth() -> None:
    filled = replace(PLAIN, edentulous_share=0.0, filling_share=1.0, age_years=(25, 30))
    study = simulate_study(2, 0, SimulateOptions(size=256, frames=1, ranges=filled))
    teeth, metal = study.masks["teeth"][0], study.masks["metal"][0]
    assert metal.any() and (metal & dilated(teeth, 4)).sum() == metal.sum()
    toothless = replace(PLAIN, edentulous_share=1.0, age_years=(88, 92))
    for seed in range(20):
        options = SimulateOptions(size=128, frames=1, ranges=toothless)
        if StudySimulator(seed, 0, options).patient.teeth == "denture":
            study = simulate_study(seed, 0, options)
            assert study.masks["teeth"].any() and not study.masks["metal"].any()
            return
    pytest.fail("nobody wears dentures")


def test_extras_change_neither_film_nor_truth() -> None:
    with_extras, without = (
        simulate_study(
            9, 0, SimulateOptions(size=128, seconds=2, kind="swallow", extras=extras, pulses=15)
        )
        for extras in (True, False)
    )
    assert set(without.masks) == set(VFSS12.ids)
    assert np.array_equal(with_extras.frames, without.frames)
    for task in VFSS12.ids:
        assert np.array_equal(with_extras.masks[task], without.masks[task])
    assert with_extras.measures == without.measures
