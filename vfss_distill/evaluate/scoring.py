"""A report's contents: every labelled mask scored, summed up by model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..cores import usable_cores
from ..counting import first_of, over_tasks
from ..errors import VfssError
from ..provenance import SCHEMA_VERSION
from ..workspace import Workspace
from .cases import BASES, Case, Group, Split
from .metrics import score
from .statistics import (
    RESAMPLES,
    SEED,
    Figures,
    Row,
    TaskFigures,
    few_have,
    interval_note,
    summarise,
)

Tick = Callable[[int, int, str], None]

NOT_AN_ESTIMATE = "seen in training – not an estimate of performance"
PERHAPS_SEEN = (
    "It is not known whether these patients were seen in training: this model, or a student it "
    "began with, does not say what it learned from."
)


@dataclass(frozen=True)
class ReportOptions:
    """`name` None: the next free report-NNN. `split` None: see `cases`. `model` None: all."""

    name: str | None = None
    split: Split | None = None
    model: str | None = None
    force: bool = False
    resamples: int = RESAMPLES
    seed: int = SEED

    @property
    def replaces(self) -> bool:
        """Whether it may take the place of a report: of the one named, never of one that another
        process has made meanwhile under a name that was free."""
        return self.force and self.name is not None


@dataclass(frozen=True)
class ModelReport:
    """One model with its scored frames and figures."""

    group: Group
    rows: tuple[Row, ...]
    figures: Figures
    warnings: tuple[str, ...]

    @property
    def no_dice(self) -> str:
        """Why there is no mean Dice, in words; "" when there is one."""
        if self.figures.mean_dice is not None:
            return ""
        if self.rows:
            return "every labelled mask is blank, and nothing was predicted there"
        if self.group.basis != "none":
            return "there are labels, but no result could be scored"
        if any(case.labelled for case in self.group.cases):
            return "no labelled study of this split has a result"
        reasons = [case.no_truth for case in self.group.cases]
        return next((why for why in reasons if why != BASES["none"]), BASES["none"])

    def to_dict(self) -> dict[str, Any]:
        group, figures = self.group, self.figures
        return {
            "name": group.name,
            "sha256": group.sha256,
            "mean_dice": _rounded(figures.mean_dice),
            "mean_dice_ci95": _interval(figures.mean_dice_ci95),
            "n_tasks": figures.n_tasks,
            "split": group.basis,
            "seen_in_training": _seen(group),
            "n_patients": figures.n_patients,
            "n_studies": figures.n_studies,
            "n_frames": figures.n_frames,
            "tasks": [_task(task) for task in figures.tasks],
            "studies": [
                {
                    "study": case.id,
                    "patient": case.patient,
                    "split": case.part,
                    "seen_in_training": None if case.perhaps_seen else case.seen,
                    "labelled": case.labelled,
                    "simulated": case.simulated,
                    "scored": case in group.scored,
                }
                for case in group.cases
            ],
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class Report:
    """A computed report; `folder` is where it lies or will lie."""

    name: str
    folder: Path
    models: tuple[ModelReport, ...]
    failed: tuple[dict[str, str], ...]
    options: ReportOptions

    @property
    def simulated(self) -> bool:
        return any(case.simulated for model in self.models for case in model.group.cases)

    @property
    def has_truth(self) -> bool:
        return any(case.labelled for model in self.models for case in model.group.cases)

    def over(self, model: ModelReport) -> str:
        """Over how many of all its models' tasks a mean Dice is; "" when over all, or none."""
        if model.figures.mean_dice is None:
            return ""
        tasks = {task for one in self.models for task in one.group.tasks.ids}
        return over_tasks(model.figures.n_tasks, len(tasks))

    def to_dict(self, workspace: Workspace) -> dict[str, Any]:
        """The one object of `vfss report --json`; report.json adds provenance."""
        place = workspace.relative(self.folder)
        return {
            "schema_version": SCHEMA_VERSION,
            "report": place,
            "page": f"{place}/index.html",
            "split": self.options.split or "default",
            "truth": self.has_truth,
            "simulated": self.simulated,
            "models": [model.to_dict() for model in self.models],
            "failed": list(self.failed),
        }


def score_case(case: Case) -> Iterator[Row]:
    """Score every labelled mask of one case.

    Raises DataError when a mask cannot be read, or is of other frames than the study's.
    """
    study, result = case.study, case.result
    if study is None:
        return
    result.check_frames_of(study.record)

    def score_one(job: tuple[str, int]) -> Row | None:
        truth = study.read_mask(*job)
        if truth is None:
            return None
        return Row(case.id, case.patient, job[1], job[0], score(truth, result.mask(*job)))

    jobs = [(task, n) for task in result.trained_tasks for n in study.labelled_frames(task)]
    # Decoding and distance transforms leave the interpreter's lock; map keeps the order.
    with ThreadPoolExecutor(min(4, usable_cores())) as pool:
        yield from (row for row in pool.map(score_one, jobs) if row is not None)


def score_group(
    group: Group, options: ReportOptions, failed: list[dict[str, str]], tick: Tick
) -> ModelReport:
    """A case that cannot be scored is put on `failed`, and the others go on."""
    rows: list[Row] = []
    scored: list[Case] = []
    for number, case in enumerate(group.scored):
        tick(number, len(group.scored), f"{group.name} · {case.id}")
        try:
            rows += list(score_case(case))
            scored.append(case)
        except VfssError as error:
            failed.append({"input": case.result.key, "error": str(error)})
    tick(len(group.scored), len(group.scored), group.name)
    group = replace(group, scored=tuple(scored))
    figures = summarise(rows, group.tasks.ids, resamples=options.resamples, seed=options.seed)
    return ModelReport(group, tuple(rows), figures, tuple(_warnings(group, figures)))


def _warnings(group: Group, figures: Figures) -> Iterator[str]:
    if group.seen_in_training:
        share = sum(case.seen for case in group.scored)
        yield f"{share} of {len(group.scored)} studies are of patients {NOT_AN_ESTIMATE}."
    if group.basis == "unseen":
        yield f"No test patient has labels and a result; Dice is of {group.whose}."
    if any(case.perhaps_seen for case in group.scored):
        yield PERHAPS_SEEN
    if note := interval_note(figures.n_patients):
        yield note
    if note := few_have({t.task: t.n_patients for t in figures.tasks}, figures.n_patients):
        yield note
    if group.untrained:
        yield (
            f"This model was not trained on: {', '.join(group.untrained)}. "
            "Its masks of these are blank and not scored."
        )
    silent = [task.task for task in figures.tasks if not task.n_labelled]
    unlabelled = [task for task in silent if task not in group.untrained]
    if unlabelled and figures.n_frames:
        yield f"No truth was given for: {', '.join(unlabelled)}. They are not in the mean."
    if otherwise := [case.id for case in group.cases if case.measured_otherwise]:
        yield (
            "Ingested anew with other times, view or repeated frames since measured: "
            f"{first_of(otherwise)}. Old measures are not shown; "
            "`vfss measure --force` puts new ones in their place, also of corrected ones."
        )
    if unreadable := [case.id for case in group.cases if case.measures_unreadable]:
        yield (
            f"measures.csv is no table of measures, and not shown: {first_of(unreadable)}. "
            "Save it as CSV with its five columns, or let `vfss measure --force` write it anew."
        )
    if _trained_on_simulated_only(group):
        yield "This model was trained on simulated patients only. It is not clinically validated."
    yield from group.notes


def _seen(group: Group) -> bool | None:
    """None where it is not known."""
    perhaps = any(case.perhaps_seen for case in group.scored)
    return True if group.seen_in_training else None if perhaps else False


def _trained_on_simulated_only(group: Group) -> bool:
    models = [case.result.run.get("model") for case in group.cases]
    return any(isinstance(m, dict) and m.get("trained_on_simulated_only") is True for m in models)


def _task(task: TaskFigures) -> dict[str, Any]:
    return {
        "task": task.task,
        "dice_mean": _rounded(task.dice_mean),
        "dice_ci95": _interval(task.dice_ci95),
        "n_frames": task.n_frames,
        "n_patients": task.n_patients,
        "false_positive_rate": _rounded(task.false_positive_rate),
        "hd95_median_px": _rounded(task.hd95_median_px, 2),
        "hd95_missing": task.hd95_missing,
        "n_labelled": task.n_labelled,
        "n_truth_empty": task.n_truth_empty,
        "dice_by_patient": {who: _rounded(value) for who, value in task.by_patient.items()},
    }


def _interval(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else [round(end, 4) for end in interval]


def _rounded(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else round(value, digits)
