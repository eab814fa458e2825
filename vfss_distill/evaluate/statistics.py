"""From scores of single masks to figures with intervals: frames → patients → tasks.

The patient is the unit: frames of one patient are alike, so a frame adds less than a patient.
Nothing here returns NaN: a figure that does not exist is None.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .metrics import Score

RESAMPLES = 2000
SEED = 0
FEW_PATIENTS = 10
FEW_HAVE_A_TASK = (
    "A resample without a patient who has some task takes the mean over the other tasks: the "
    "interval of a mean over tasks that few patients have can be lopsided."
)

Interval = tuple[float, float]


@dataclass(frozen=True)
class Row:
    """One labelled mask of one frame (0-based), and how the prediction scored on it."""

    study: str
    patient: str
    frame: int
    task: str
    score: Score


@dataclass(frozen=True)
class TaskFigures:
    """One task over all patients.

    `n_frames` are the counted frames (truth and prediction not both empty), `n_patients` those
    with at least one. `false_positive_rate` is None without a frame whose truth is empty.
    `hd95_missing` counts the frames in which just one side was empty. `by_patient` holds the
    mean Dice of each patient.
    """

    task: str
    dice_mean: float | None
    dice_ci95: Interval | None
    n_frames: int
    n_patients: int
    n_labelled: int
    n_truth_empty: int
    false_positive_rate: float | None
    hd95_median_px: float | None
    hd95_missing: int
    by_patient: Mapping[str, float]


@dataclass(frozen=True)
class Figures:
    """All tasks of one model; `mean_dice` is the mean over tasks of each task's mean."""

    mean_dice: float | None
    mean_dice_ci95: Interval | None
    n_patients: int
    n_studies: int
    n_frames: int
    tasks: tuple[TaskFigures, ...]

    @property
    def n_tasks(self) -> int:
        """Tasks that `mean_dice` is over: those with a counted frame."""
        return sum(task.dice_mean is not None for task in self.tasks)


def summarise(
    rows: Iterable[Row], tasks: Sequence[str], *, resamples: int = RESAMPLES, seed: int = SEED
) -> Figures:
    """Figures of one model. Tasks without a row stay in the table, without a figure.

    Intervals: 95 % percentile bootstrap over the patients who have the task; None with fewer than
    two.
    """
    by_task: dict[str, list[Row]] = {task: [] for task in tasks}
    studies, frames = set(), set()
    for row in rows:
        by_task[row.task].append(row)
        studies.add(row.study)
        frames.add((row.study, row.frame))
    means = {task: _patient_means(some) for task, some in by_task.items()}
    patients = sorted({patient for task in means.values() for patient in task})
    table = np.array(
        [[means[task].get(patient, np.nan) for task in tasks] for patient in patients], np.float64
    ).reshape(len(patients), len(tasks))
    figures = tuple(
        _task_figures(
            task, by_task[task], means[task], _interval(table[:, [index]], resamples, seed)
        )
        for index, task in enumerate(tasks)
    )
    return Figures(
        mean_dice=_mean_of_tasks(table[None])[0] if len(patients) else None,
        mean_dice_ci95=_interval(table, resamples, seed),
        n_patients=len(patients),
        n_studies=len(studies),
        n_frames=len(frames),
        tasks=figures,
    )


def _patient_means(rows: Iterable[Row]) -> dict[str, float]:
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.score.dice is not None:
            values[row.patient].append(row.score.dice)
    return {patient: float(np.mean(some)) for patient, some in sorted(values.items())}


def _task_figures(
    task: str, rows: Sequence[Row], means: Mapping[str, float], interval: Interval | None
) -> TaskFigures:
    scores = [row.score for row in rows]
    empty = [score for score in scores if score.truth_px == 0]
    wrongly = sum(score.predicted_px > 0 for score in empty)
    return TaskFigures(
        task=task,
        dice_mean=float(np.mean(list(means.values()))) if means else None,
        dice_ci95=interval,
        n_frames=sum(score.counted for score in scores),
        n_patients=len(means),
        n_labelled=len(scores),
        n_truth_empty=len(empty),
        false_positive_rate=wrongly / len(empty) if empty else None,
        hd95_median_px=_hd95_median(rows),
        hd95_missing=sum((score.truth_px > 0) != (score.predicted_px > 0) for score in scores),
        by_patient=means,
    )


def _hd95_median(rows: Iterable[Row]) -> float | None:
    """Median over patients of each patient's median over frames."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.score.hd95_px is not None:
            values[row.patient].append(row.score.hd95_px)
    medians = [float(np.median(some)) for some in values.values()]
    return float(np.median(medians)) if medians else None


def _interval(table: NDArray[np.float64], resamples: int, seed: int) -> Interval | None:
    """Percentile bootstrap of the mean over tasks; `table` is patients × tasks, NaN where none.

    Patients without any value of these tasks are not drawn. A task that no drawn patient has is
    left out of that draw's mean.
    """
    table = table[~np.isnan(table).all(axis=1)]
    if len(table) < 2:
        return None
    draws = np.random.default_rng(seed).integers(0, len(table), (resamples, len(table)))
    means = _mean_of_tasks(table[draws])
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _mean_of_tasks(table: NDArray[np.float64]) -> list[float]:
    """`table` is draws × patients × tasks, NaN where a patient lacks a task."""
    known = ~np.isnan(table)
    counts = known.sum(axis=1)
    sums = np.where(known, table, 0.0).sum(axis=1)
    of_tasks = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    return [float(x) for x in (of_tasks.sum(axis=1) / (counts > 0).sum(axis=1))]


def few_have(patients: Mapping[str, int], n_patients: int) -> str | None:
    """Tasks with fewer patients than intervals need and than the model has, in one line."""
    least = min(FEW_PATIENTS, n_patients)
    few = [f"{task} ({number})" for task, number in patients.items() if 0 < number < least]
    if not few:
        return None
    return (
        f"Few patients have {', '.join(few)}: such intervals are rough, and more likely too narrow "
        "than too wide."
    )


def interval_note(n_patients: int) -> str | None:
    """What a reader must know about an interval from so few patients; None when nothing."""
    if n_patients == 0:
        return None
    if n_patients == 1:
        return "One patient only: no interval can be given."
    if n_patients < FEW_PATIENTS:
        return (
            f"Only {n_patients} patients: the intervals are rough, and more likely too narrow "
            "than too wide."
        )
    return None
