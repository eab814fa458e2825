"""Two models on the same frames of the same patients: differences with intervals.

The patient is the unit, as in `statistics`. A difference is model − baseline, patient by patient;
the bootstrap draws patients, and with each both models' values, so what makes one patient harder
than another falls out. Nothing here returns NaN: a figure that does not exist is None.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata, wilcoxon

from .metrics import Score
from .statistics import RESAMPLES, SEED, Interval, Row

# With five patients a two-sided signed-rank test cannot fall below 2/2**5 = 0.0625.
FEWEST_FOR_A_TEST = 6
MEAN = "mean"
_MOST_EXACT = 50

Table = NDArray[np.float64]
Pair = tuple[Row, Row]


@dataclass(frozen=True)
class Difference:
    """One quantity of both models over the patients that have it under both.

    `difference` is `model` − `baseline`; `ci95` None: fewer than two patients.
    """

    baseline: float
    model: float
    difference: float
    ci95: Interval | None
    n_patients: int

    @property
    def includes_zero(self) -> bool:
        """True too when there is no interval: then nothing can be told."""
        return self.ci95 is None or self.ci95[0] <= 0 <= self.ci95[1]

    @property
    def told_apart(self) -> bool:
        """Of few patients no interval is evidence: two who agree by chance exclude 0."""
        return self.n_patients >= FEWEST_FOR_A_TEST and not self.includes_zero


@dataclass(frozen=True)
class Counts:
    """Frames of one task (of the mean: masks of all tasks); pairs are (baseline, model).

    `dice`: they count under either model. `hd95_px`: both models have one; `hd95_px_missing`: just
    one of truth and prediction is empty. `false_positives`: of those with an empty truth,
    `truth_empty`, the model predicted something.
    """

    dice: int
    hd95_px: int
    hd95_px_missing: tuple[int, int]
    truth_empty: int
    false_positives: tuple[int, int]

    @property
    def false_positive_rates(self) -> tuple[float, float] | None:
        """None without a frame whose truth is empty."""
        if not self.truth_empty:
            return None
        first, second = self.false_positives
        return first / self.truth_empty, second / self.truth_empty


@dataclass(frozen=True)
class TaskDifference:
    """One task, or the mean over tasks (`task` = "mean").

    `wilcoxon_p` is two-sided; `holm_p` the same corrected over the tasks of one comparison, None
    for the mean. `n_frames` of the mean are frames, not masks. `dice_by_patient` and
    `hd95_px_by_patient`: (baseline, model) of each patient. `hd95_px_of_all`: HD95 is of all
    patients that Dice is of, task by task.
    """

    task: str
    dice: Difference | None
    wilcoxon_p: float | None
    holm_p: float | None
    hd95_px: Difference | None
    n_frames: int
    counts: Counts
    dice_by_patient: Mapping[str, tuple[float, float]]
    hd95_px_by_patient: Mapping[str, tuple[float, float]]
    counts_by_patient: Mapping[str, Counts]
    hd95_px_of_all: bool

    @property
    def hd95_px_told_apart(self) -> bool:
        """A model that draws nothing where it is hard has an HD95 of the other patients alone."""
        return self.hd95_px is not None and self.hd95_px.told_apart and self.hd95_px_of_all


@dataclass(frozen=True)
class Comparison:
    """All tasks of one model against the baseline."""

    mean: TaskDifference
    tasks: tuple[TaskDifference, ...]

    @property
    def n_tasks(self) -> int:
        """Tasks that the mean Dice is over."""
        return sum(task.dice is not None for task in self.tasks)


def compare_rows(
    baseline: Sequence[Row],
    model: Sequence[Row],
    tasks: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Comparison:
    """Compare the scores of two models on the masks that both have.

    A patient's Dice is the mean over his frames that count under either model (see `metrics`); one
    that is rightly silent where the other invents something has 1 there. His HD95 is the median
    over the frames in which both models have one.
    """
    pairs = _pairs(baseline, model)
    counted = {task: _counted(pairs[task]) for task in tasks}
    dice = {task: _dice_by_patient(counted[task]) for task in tasks}
    hd95 = {task: _hd95_by_patient(pairs[task]) for task in tasks}
    made = []
    for task in tasks:
        made.append(
            TaskDifference(
                task=task,
                dice=_difference({task: dice[task]}, resamples, seed),
                wilcoxon_p=wilcoxon_p([after - before for before, after in dice[task].values()]),
                holm_p=None,
                hd95_px=_difference({task: hd95[task]}, resamples, seed),
                n_frames=len(counted[task]),
                counts=_counts(pairs[task]),
                dice_by_patient=dice[task],
                hd95_px_by_patient=hd95[task],
                counts_by_patient=_counts_by_patient(pairs[task]),
                hd95_px_of_all=hd95[task].keys() == dice[task].keys(),
            )
        )
    corrected = holm([one.wilcoxon_p for one in made])
    overall = _mean_of_tasks_by_patient(dice)
    frames = {(row.study, row.frame) for some in counted.values() for row, _ in some}
    every = [pair for task in tasks for pair in pairs[task]]
    mean = TaskDifference(
        task=MEAN,
        dice=_difference(dice, resamples, seed),
        wilcoxon_p=wilcoxon_p([after - before for before, after in overall.values()]),
        holm_p=None,
        hd95_px=_difference(hd95, resamples, seed),
        n_frames=len(frames),
        counts=_counts(every),
        dice_by_patient=overall,
        hd95_px_by_patient=_mean_of_tasks_by_patient(hd95),
        counts_by_patient=_counts_by_patient(every),
        hd95_px_of_all=all(one.hd95_px_of_all for one in made),
    )
    with_holm = (replace(one, holm_p=p) for one, p in zip(made, corrected, strict=True))
    return Comparison(mean, tuple(with_holm))


def bootstrap(differences: Table, *, resamples: int = RESAMPLES, seed: int = SEED) -> Interval:
    """95 % percentile interval of the mean over tasks of the mean over patients.

    `differences` is patients × tasks, at least two patients, each with at least one value; NaN
    where a patient lacks a task. A task that no drawn patient has is left out of that draw.
    """
    patients = len(differences)
    known = ~np.isnan(differences)
    # How often each patient is drawn: the same as drawing with replacement, in far less memory.
    times = np.random.default_rng(seed).multinomial(
        patients, np.full(patients, 1 / patients), size=resamples
    )
    sums = times @ np.where(known, differences, 0.0)
    counts = times @ known.astype(np.int64)
    of_tasks = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    means = of_tasks.sum(axis=1) / (counts > 0).sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def wilcoxon_p(differences: Sequence[float]) -> float | None:
    """Two-sided signed-rank p; 1 when nothing differs, None without a patient.

    Zero differences are left out (Wilcoxon's own rule). Up to 50 patients it is exact, ties or not:
    the number of sign patterns that give each rank sum (Streitberg & Röhmel 1986). Beyond, the
    normal approximation of scipy.
    """
    # Equal differences must tie, whatever the last bits of two means say.
    values = np.round(np.array(differences, np.float64), 9)
    if not len(values):
        return None
    if not values.any():
        return 1.0
    values = values[values != 0]
    if len(values) > _MOST_EXACT:
        return float(wilcoxon(values, method="approx").pvalue)
    ranks = np.rint(2 * rankdata(np.abs(values))).astype(int)  # doubled: ties share half ranks
    patterns = np.zeros(ranks.sum() + 1)  # below 2**53: exact
    patterns[0] = 1
    for rank in ranks:
        patterns[rank:] += patterns[:-rank].copy()
    found = ranks[values > 0].sum()
    tail = min(patterns[: found + 1].sum(), patterns[found:].sum())
    return min(1.0, float(2 * tail / 2 ** len(values)))


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction; None stays None and does not count as a test."""
    order = sorted((p, place) for place, p in enumerate(values) if p is not None)
    corrected: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (p, place) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(order) - rank)))
        corrected[place] = highest
    return corrected


def _pairs(baseline: Sequence[Row], model: Sequence[Row]) -> dict[str, list[Pair]]:
    """By task, the scores of both models on one mask, where both have it."""
    scored = {(row.study, row.frame, row.task): row for row in model}
    pairs: dict[str, list[Pair]] = defaultdict(list)
    for row in baseline:
        other = scored.get((row.study, row.frame, row.task))
        if other is not None:
            pairs[row.task].append((row, other))
    return pairs


def _counted(pairs: Sequence[Pair]) -> list[Pair]:
    return [pair for pair in pairs if any(row.score.counted for row in pair)]


def _dice_by_patient(counted: Sequence[Pair]) -> dict[str, tuple[float, float]]:
    return _by_patient(
        [(one.patient, _dice(one.score), _dice(other.score)) for one, other in counted], np.mean
    )


def _dice(score: Score) -> float:
    """Of a counted pair: what does not count by itself is rightly empty. Were it left out, a
    patient without the structure would be lost, and who invents it there pay nothing.
    """
    return 1.0 if score.dice is None else score.dice


def _hd95_by_patient(pairs: Sequence[Pair]) -> dict[str, tuple[float, float]]:
    both = [(one.patient, one.score.hd95_px, other.score.hd95_px) for one, other in pairs]
    return _by_patient(
        [(who, x, y) for who, x, y in both if x is not None and y is not None], np.median
    )


def _by_patient(
    values: Sequence[tuple[str, float, float]], summary: Callable[[list[float]], Any]
) -> dict[str, tuple[float, float]]:
    """`summary` takes a patient's (baseline, model) to one number each."""
    sides: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for patient, *both in values:
        for side, value in zip(sides[patient], both, strict=True):
            side.append(value)
    return {
        patient: (float(summary(before)), float(summary(after)))
        for patient, (before, after) in sorted(sides.items())
    }


def _difference(
    by_task: Mapping[str, Mapping[str, tuple[float, float]]], resamples: int, seed: int
) -> Difference | None:
    patients = sorted({patient for some in by_task.values() for patient in some})
    if not patients:
        return None
    missing = (np.nan, np.nan)
    table = np.array(
        [[some.get(patient, missing) for some in by_task.values()] for patient in patients]
    )  # patients × tasks × (baseline, model)
    table = table[:, ~np.isnan(table).all(axis=(0, 2))]
    before, after = np.nanmean(table, axis=0).mean(axis=0)
    differences = table[..., 1] - table[..., 0]
    interval = None
    if len(patients) > 1:
        interval = bootstrap(differences, resamples=resamples, seed=seed)
    return Difference(float(before), float(after), float(after - before), interval, len(patients))


def _mean_of_tasks_by_patient(
    by_task: Mapping[str, Mapping[str, tuple[float, float]]],
) -> dict[str, tuple[float, float]]:
    values = [(patient, *both) for some in by_task.values() for patient, both in some.items()]
    return _by_patient(values, np.mean)


def _counts(pairs: Sequence[Pair]) -> Counts:
    scores = [(one.score, other.score) for one, other in pairs]
    absent = [pair for pair in scores if pair[0].truth_px == 0]

    def of_both(found: Callable[[Score], bool], some: Sequence[tuple[Score, Score]]) -> Any:
        return tuple(sum(found(pair[side]) for pair in some) for side in (0, 1))

    return Counts(
        dice=len(_counted(pairs)),
        hd95_px=sum(one.hd95_px is not None and two.hd95_px is not None for one, two in scores),
        hd95_px_missing=of_both(lambda s: (s.truth_px > 0) != (s.predicted_px > 0), scores),
        truth_empty=len(absent),
        false_positives=of_both(lambda s: s.predicted_px > 0, absent),
    )


def _counts_by_patient(pairs: Sequence[Pair]) -> dict[str, Counts]:
    of: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        of[pair[0].patient].append(pair)
    return {patient: _counts(some) for patient, some in sorted(of.items())}
