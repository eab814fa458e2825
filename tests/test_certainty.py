"""How sure a student must be before it shows a task in a frame."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vfss_distill.distill import certainty
from vfss_distill.models.students import ABSENT, StudentConfig, build_student


def test_frames_that_are_told_apart_stay_so() -> None:
    there, absent = np.linspace(2, 6, 100), np.linspace(-8, 1.5, 100)
    cut = certainty.cut_for(there, np.full(100, 50.0), absent)
    assert (absent < cut).all()
    assert (there >= cut).all()


def test_traces_may_be_hidden_and_boluses_not() -> None:
    absent = np.linspace(-3, 3, 100)
    traces, boluses = np.linspace(-1, 2.5, 50), np.linspace(2, 8, 50)
    there = np.concatenate([traces, boluses])
    small = certainty.cut_for(there, np.repeat([2.0, 500.0], 50), absent)
    large = certainty.cut_for(there, np.repeat([500.0, 500.0], 50), absent)
    assert large == 0
    assert small > 1.9  # just below the first bolus that has to be shown
    assert (boluses < small).mean() < 0.02


@given(
    st.lists(st.tuples(st.floats(-20, 20), st.integers(1, 5000)), min_size=20, max_size=200),
    st.lists(st.floats(-20, 20), min_size=20, max_size=200),
)
def test_either_the_alarms_or_the_hidden_pixels_decide(
    there: list[tuple[float, int]], absent: list[float]
) -> None:
    logits = np.array([x for x, _ in there], np.float32).astype(np.float64)
    areas, none = np.array([float(n) for _, n in there]), np.array(absent, np.float32)
    cut = certainty.cut_for(logits, areas, none)
    occurring = np.concatenate([logits, none])
    assert cut == 0 or np.abs(occurring - cut).min() > 0, "one bit would decide"
    hidden = areas[logits < cut].sum() / areas.sum()
    assert cut >= 0
    assert cut == 0 or hidden <= certainty.HIDDEN + 1e-9
    alarms = (none.astype(np.float32) >= np.float32(cut)).mean()
    following = logits[logits > cut].min(initial=np.inf)
    above = areas[logits <= following].sum() / areas.sum()  # were it raised past the next frame
    assert alarms <= certainty.FALSE_ALARMS or above > certainty.HIDDEN or cut == 0


def test_a_task_below_its_cut_vanishes_and_others_stay() -> None:
    torch.manual_seed(0)
    student = build_student(StudentConfig("nano", 64, 0, ("a", "b"), grid=8)).eval()
    frames = torch.randint(0, 256, (3, 1, 64, 64), dtype=torch.uint8)
    assert certainty.cuts_of(student, student.config.tasks) == {}
    with torch.no_grad():
        before = student(frames)
        student.certain[0] = before[:, 0].max() + 1
        after = student(frames)
    assert (after[:, 0] == ABSENT).all()
    assert torch.equal(after[:, 1], before[:, 1])
    student.certain[0] = np.log(0.97 / 0.03)
    assert certainty.cuts_of(student, student.config.tasks) == {"a": pytest.approx(0.97)}
