"""Dice, HD95 and what is made of them: properties, empty masks, and a second opinion (MONAI)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt

from vfss_distill.errors import LabelError
from vfss_distill.evaluate.metrics import Score, dice, hd95, score
from vfss_distill.evaluate.statistics import Row, few_have, interval_note, summarise

Mask = NDArray[np.bool_]

masks = arrays(np.bool_, (9, 12), elements=st.booleans())
small = settings(max_examples=60, deadline=None)


def disc(x: float, y: float, radius: float, size: int = 64) -> Mask:
    rows, columns = np.mgrid[:size, :size]
    inside: Mask = (columns - x) ** 2 + (rows - y) ** 2 <= radius**2
    return inside


EMPTY = np.zeros((64, 64), bool)
BALL = disc(30, 30, 8)


@pytest.mark.parametrize(
    ("truth", "predicted", "expected", "reason"),
    [
        (EMPTY, EMPTY, None, "both_empty"),
        (EMPTY, BALL, 0.0, "false_positive"),
        (BALL, EMPTY, 0.0, "prediction_empty"),
        (BALL, BALL, 1.0, "both_present"),
    ],
)
def test_every_empty_case_is_decided(
    truth: Mask, predicted: Mask, expected: float | None, reason: str
) -> None:
    found = score(truth, predicted)
    assert found.dice == expected
    assert found.reason == reason
    assert found.counted is (expected is not None)
    assert (found.hd95_px is None) is (reason != "both_present")


def test_masks_of_two_sizes_are_refused() -> None:
    with pytest.raises(LabelError, match="64×64"):
        dice(np.zeros((32, 64), bool), BALL)


def test_hd95_of_a_shift_is_the_shift() -> None:
    square = np.zeros((64, 64), bool)
    square[10:30, 10:30] = True
    # A square moved by 3 px: most boundary pixels of the moved sides are 3 px away.
    assert hd95(square, np.roll(square, 3, axis=1)) == pytest.approx(3)


@small
@given(masks, masks)
def test_dice_is_symmetric_bounded_and_agrees_with_sets(a: Mask, b: Mask) -> None:
    found = dice(a, b)
    assert found == dice(b, a)
    if found is None:
        assert not a.any() and not b.any()
        return
    assert 0 <= found <= 1
    one, other = (set(map(tuple, np.argwhere(mask))) for mask in (a, b))
    assert found == pytest.approx(2 * len(one & other) / (len(one) + len(other)))


@small
@given(masks, masks)
def test_hd95_agrees_with_whole_image_distance_transforms(a: Mask, b: Mask) -> None:
    """Cropping and OpenCV must not change what scipy gives on the whole picture."""
    found = hd95(a, b)
    assert found == hd95(b, a)
    if not a.any() or not b.any():
        assert found is None
        return
    edge_a, edge_b = (mask & ~binary_erosion(mask) for mask in (a, b))
    there = np.percentile(distance_transform_edt(~edge_b)[edge_a], 95)
    back = np.percentile(distance_transform_edt(~edge_a)[edge_b], 95)
    assert found == pytest.approx(max(there, back), abs=1e-4)
    if (a == b).all():
        assert found == 0


@small
@given(masks, masks, st.integers(0, 20), st.integers(0, 20))
def test_where_in_the_picture_does_not_matter(a: Mask, b: Mask, down: int, right: int) -> None:
    room = ((down, 20 - down), (right, 20 - right))
    inner = score(a, b)
    moved = score(np.pad(a, room), np.pad(b, room))
    assert moved.dice == inner.dice
    assert moved.hd95_px == (
        None if inner.hd95_px is None else pytest.approx(inner.hd95_px, abs=1e-4)
    )


def test_monai_gives_the_same_dice_and_hd95() -> None:
    torch = pytest.importorskip("torch", reason="MONAI and torch are extras")
    metrics = pytest.importorskip("monai.metrics", reason="MONAI is an extra")
    random = np.random.default_rng(3)
    for _ in range(12):
        a, b = (disc(*random.uniform(15, 50, 2), random.uniform(4, 14)) for _ in range(2))
        b[tuple(random.integers(5, 60, 2))] = True
        one, other = (torch.from_numpy(mask)[None, None].float() for mask in (a, b))
        theirs = metrics.compute_hausdorff_distance(
            other, one, include_background=True, percentile=95, directed=False
        )
        assert hd95(a, b) == pytest.approx(float(theirs), abs=1e-3)
        assert dice(a, b) == pytest.approx(
            float(metrics.compute_dice(other, one, ignore_empty=False)), abs=1e-6
        )


def row(patient: str, frame: int, task: str, value: float | None, **px: int) -> Row:
    pixels = {"truth_px": 10, "predicted_px": 10, **px}
    hd95_px = None if value is None else 10 * (1 - value)
    return Row(f"{patient}-s", patient, frame, task, Score(value, hd95_px, **pixels))


def test_frames_are_averaged_within_a_patient_before_patients() -> None:
    """A patient with a hundred frames weighs no more than one with two."""
    rows = [row("a", n, "hyoid", 1.0) for n in range(100)]
    rows += [row("b", n, "hyoid", 0.5) for n in range(2)]
    (task,) = summarise(rows, ["hyoid"]).tasks
    assert task.dice_mean == pytest.approx(0.75)
    assert (task.n_frames, task.n_patients) == (102, 2)
    assert task.hd95_median_px == pytest.approx(2.5)
    assert task.dice_ci95 == (0.5, 1.0)


def test_false_positives_count_against_dice_and_have_their_own_rate() -> None:
    rows = [
        row("a", 0, "bolus", 0.8),
        row("a", 1, "bolus", 0.0, truth_px=0),
        row("a", 2, "bolus", None, truth_px=0, predicted_px=0),
        row("a", 3, "bolus", 0.0, predicted_px=0),
    ]
    (task,) = summarise(rows, ["bolus"]).tasks
    assert task.false_positive_rate == 0.5
    assert (task.n_frames, task.n_labelled, task.n_truth_empty) == (3, 4, 2)
    assert task.dice_mean == pytest.approx(0.8 / 3)
    assert task.hd95_missing == 2


def test_one_patient_has_no_interval_and_few_have_a_warning() -> None:
    figures = summarise([row("a", n, "c2", 0.9) for n in range(5)], ["c2"])
    assert figures.mean_dice == pytest.approx(0.9)
    assert figures.mean_dice_ci95 is None
    assert figures.tasks[0].dice_ci95 is None
    assert "no interval" in (interval_note(1) or "")
    assert "Only 4 patients" in (interval_note(4) or "")
    assert interval_note(30) is None
    assert few_have({"bolus": 30, "c3": 9, "c7": 0}, 30) == (
        "Few patients have c3 (9): such intervals are rough, and more likely too narrow than too "
        "wide."
    )
    assert few_have({"bolus": 4, "c3": 4}, 4) is None, "which interval_note says"


def test_a_task_without_truth_stays_in_the_table_and_out_of_the_mean() -> None:
    figures = summarise([row("a", 0, "c2", 0.9), row("b", 0, "c2", 0.7)], ["c2", "c3"])
    assert figures.mean_dice == pytest.approx(0.8)
    assert figures.tasks[1].dice_mean is None
    assert figures.tasks[1].n_labelled == 0


def test_nothing_at_all_is_none_not_nan() -> None:
    figures = summarise([], ["c2"])
    assert figures.mean_dice is None
    assert figures.mean_dice_ci95 is None


values = st.one_of(st.none(), st.floats(0, 1))


@small
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["x", "y"]), values)))
def test_figures_are_none_or_numbers_within_bounds(some: list[tuple[str, str, float]]) -> None:
    rows = [row(patient, n, task, value) for n, (patient, task, value) in enumerate(some)]
    figures = summarise(rows, ["x", "y"], resamples=50)
    assert figures == summarise(rows, ["x", "y"], resamples=50), "same seed, same figures"
    for mean, interval in [
        (figures.mean_dice, figures.mean_dice_ci95),
        *((task.dice_mean, task.dice_ci95) for task in figures.tasks),
    ]:
        assert mean is None or 0 <= mean <= 1 + 1e-9
        if interval is not None:
            assert 0 <= interval[0] <= interval[1] <= 1 + 1e-9


def test_the_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    """40 patients around a true mean: of 400 studies about 95 % of the intervals hold it."""
    random = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        rows = [row(str(p), 0, "x", float(random.normal(0.8, 0.05))) for p in range(40)]
        interval = summarise(rows, ["x"], resamples=400).mean_dice_ci95
        assert interval is not None
        held += interval[0] <= 0.8 <= interval[1]
    assert 0.92 * 400 <= held <= 0.97 * 400
