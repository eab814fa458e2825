"""`vfss compare`: models against a baseline, on the same labelled frames of the same patients.

reports/<name>/  index.html  compare.json  compare.csv
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..counting import counted, first_of, over_tasks
from ..errors import DataError, VfssError, WorkspaceError
from ..provenance import SCHEMA_VERSION, document
from ..tasks import TaskSet
from ..workspace import (
    Workspace,
    atomic_folder,
    spreadsheet_cell,
    write_json,
    write_text,
)
from .cases import Basis, Case, Split, gather, whose
from .entrants import Entrant, choose_models, shared_tasks
from .paired import (
    FEWEST_FOR_A_TEST,
    MEAN,
    Comparison,
    Difference,
    TaskDifference,
    compare_rows,
)
from .report import report_name
from .results import may_be_model
from .scoring import NOT_AN_ESTIMATE, PERHAPS_SEEN, ReportOptions, Tick, score_case
from .statistics import Row, few_have, interval_note

CSV_COLUMNS = (
    *("baseline", "model", "task", "patient", "dice_baseline", "dice_model", "dice_difference"),
    *("hd95_px_baseline", "hd95_px_model", "hd95_px_difference"),
    *("dice_frames", "hd95_px_frames", "hd95_px_missing_baseline", "hd95_px_missing_model"),
    *("truth_empty_frames", "false_positives_baseline", "false_positives_model"),
)
GAIN_RULE = "a gain inside its interval is not a gain"


@dataclass(frozen=True)
class Ground:
    """What all models are compared on: studies (ids) that each of them has a result of.

    `seen`: pseudonyms of patients that some model was trained or chosen on, left out unless
    `seen_kept`. `lacking`: per model, labelled studies of this ground that only others segmented.
    """

    studies: tuple[str, ...]
    basis: Basis
    seen: tuple[str, ...]
    seen_kept: bool
    lacking: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Compared:
    """A computed comparison; `comparisons` in the order of `entrants` after the first."""

    name: str
    folder: Path
    entrants: tuple[Entrant, ...]
    tasks: TaskSet
    ground: Ground
    n_frames: int
    comparisons: tuple[Comparison, ...]
    warnings: tuple[str, ...]
    failed: tuple[dict[str, str], ...]
    options: ReportOptions

    @property
    def baseline(self) -> Entrant:
        return self.entrants[0]

    @property
    def pairs(self) -> list[tuple[Entrant, Comparison]]:
        return list(zip(self.entrants[1:], self.comparisons, strict=True))

    @property
    def simulated(self) -> bool:
        return any(self.baseline.cases[study].simulated for study in self.ground.studies)

    @property
    def whose(self) -> str:
        """Whose Dice it is, in words."""
        return whose(self.ground.basis, cases_of(self.ground, self.entrants))

    @property
    def patients(self) -> list[str]:
        return sorted({self.baseline.cases[study].patient for study in self.ground.studies})

    def over(self, found: Comparison) -> str:
        """Over how many of the tasks the mean is; "" when over all."""
        return over_tasks(found.n_tasks, len(self.tasks))

    def to_dict(self, workspace: Workspace) -> dict[str, Any]:
        """The one object of `vfss compare --json`; compare.json adds provenance."""
        place = workspace.relative(self.folder)
        return {
            "schema_version": SCHEMA_VERSION,
            "report": place,
            "page": f"{place}/index.html",
            "split": self.ground.basis,
            "simulated": self.simulated,
            "models": [{"name": one.name, "sha256": one.sha256} for one in self.entrants],
            "baseline": self.baseline.name,
            "tasks": list(self.tasks.ids),
            "n_patients": len(self.patients),
            "n_studies": len(self.ground.studies),
            "n_frames": self.n_frames,
            "studies": list(self.ground.studies),
            "seen_in_training": list(self.ground.seen),
            "seen_in_training_kept": self.ground.seen_kept,
            "not_segmented_by": {name: list(some) for name, some in self.ground.lacking.items()},
            "comparisons": [
                {
                    "model": entrant.name,
                    "n_tasks": found.n_tasks,
                    "mean": _record(found.mean),
                    "tasks": [_record(task) for task in found.tasks],
                    "verdict": verdict(self.baseline, entrant, found),
                }
                for entrant, found in self.pairs
            ],
            "warnings": list(self.warnings),
            "failed": list(self.failed),
        }


def write_comparison(
    workspace: Workspace,
    models: Sequence[str],
    options: ReportOptions | None = None,
    *,
    tick: Tick = lambda done, total, words: None,
) -> Compared:
    """Compare the results of `models` (two or more; the first is the baseline) and write a folder.

    Raises UsageError for unknown, ambiguous or repeated models and a name that is taken,
    WorkspaceError when there is no task or labelled frame that all models may be compared on,
    StorageError.
    """
    options = options or ReportOptions()
    name = _name(workspace, options)
    groups, unreadable = gather(workspace)
    entrants, notes = choose_models(workspace, groups, models)
    tasks, task_notes = shared_tasks(entrants)
    entrants = [one.on(tasks) for one in entrants]
    failed = [one for one in unreadable if _concerns(one["input"], entrants)]
    ground = find_ground(entrants, options.split)
    workspace.check_output(workspace.reports / name)
    rows, ground = _score(entrants, ground, failed, tick)
    draws = {"resamples": options.resamples, "seed": options.seed}
    comparisons = tuple(compare_rows(rows[0], other, tasks.ids, **draws) for other in rows[1:])
    if any(found.mean.dice is None for found in comparisons):
        raise WorkspaceError(
            "the models have no labelled frame in common on which a Dice can be counted",
            remedy="Label frames in which some anatomy is present, or segment further patients.",
        )
    name = _name(workspace, options)  # another report may have taken the first one meanwhile
    compared = Compared(
        name=name,
        folder=workspace.reports / name,
        entrants=tuple(entrants),
        tasks=tasks,
        ground=ground,
        n_frames=len({(row.study, row.frame) for row in rows[0]}),
        comparisons=comparisons,
        warnings=(*notes, *task_notes, *_warnings(ground, entrants, comparisons)),
        failed=tuple(failed),
        options=options,
    )
    _write(workspace, compared)
    return compared


def find_ground(entrants: Sequence[Entrant], split: Split | None) -> Ground:
    """Labelled studies that every model has a result of, and may be judged on.

    Patients seen by any model are left out unless `split` asks for train, val or all.
    Raises WorkspaceError, saying why, when nothing is left.
    """
    labelled = [{key for key, case in one.cases.items() if case.labelled} for one in entrants]
    common = set.intersection(*labelled)
    known = {key: case for one in entrants for key, case in one.cases.items()}
    if not common:
        raise WorkspaceError(
            f"no labelled study has results of all of: {_names(entrants)}",
            remedy="Run `vfss segment` with each --model on the same labelled studies.",
        )
    seen_patients = {case.patient for one in entrants for case in one.cases.values() if case.seen}
    keep_seen = split in ("train", "val", "all")
    wanted = {key for key, case in known.items() if split in (None, "all", case.part)}
    if not common & wanted:
        raise WorkspaceError(
            f"no labelled {split} study has results of all of: {_names(entrants)}",
            remedy="Segment such studies with each --model, or leave out --split.",
        )
    seen = sorted({known[key].patient for key in common & wanted} & seen_patients)
    if not keep_seen:
        wanted = {key for key in wanted if known[key].patient not in seen_patients}
    if not common & wanted:
        raise WorkspaceError(
            f"all {len(seen)} labelled patients were seen in training by one of: "
            f"{_names(entrants)}",
            remedy="Segment test patients with each model; --split all compares on patients seen "
            "in training too, which is no estimate of performance.",
        )
    test = {key for key in wanted if known[key].part == "test"}
    basis: Basis = split or ("test" if common & test else "unseen")
    if basis == "test":
        wanted = test
    lacking = {
        one.name: tuple(sorted((set.union(*labelled) & wanted) - own))
        for one, own in zip(entrants, labelled, strict=True)
    }
    lacking = {name: some for name, some in lacking.items() if some}
    return Ground(tuple(sorted(common & wanted)), basis, tuple(seen), keep_seen, lacking)


def cases_of(ground: Ground, entrants: Sequence[Entrant]) -> list[Case]:
    return [one.cases[study] for one in entrants for study in ground.studies]


def verdict(baseline: Entrant, model: Entrant, found: Comparison) -> str:
    """One plain sentence on the mean over tasks."""
    mean = found.mean.dice
    if mean is None:
        return "No Dice could be counted."
    if mean.ci95 == (0.0, 0.0):
        return f"{model.name} and {baseline.name} score the same on every patient."
    if mean.ci95 is None:
        return "One patient only: no interval, so nothing can be said."
    if mean.includes_zero:
        return (
            f"{model.name} and {baseline.name} are not told apart: the interval includes 0, and "
            f"{GAIN_RULE}."
        )
    word = "higher" if mean.difference > 0 else "lower"
    if mean.n_patients < FEWEST_FOR_A_TEST:
        # Two patients who agree by chance, one time in two, have an interval that excludes 0.
        return (
            f"{model.name} scores {word} than {baseline.name} on these {mean.n_patients} patients; "
            "so few are no evidence of a difference, though the interval excludes 0."
        )
    return f"{model.name} scores {word} than {baseline.name}; the interval excludes 0."


def compare_csv(compared: Compared) -> str:
    """One line per model, task and patient: what every interval and p here is computed from.

    A patient of whom no frame counts has no Dice there.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for entrant, found in compared.pairs:
        names = (spreadsheet_cell(compared.baseline.name), spreadsheet_cell(entrant.name))
        for task in (found.mean, *found.tasks):
            for patient, counts in task.counts_by_patient.items():
                dice = task.dice_by_patient.get(patient)
                distances = task.hd95_px_by_patient.get(patient)
                figures = (*_three(dice, 6), *_three(distances, 3))
                numbers = (counts.dice, counts.hd95_px, *counts.hd95_px_missing)
                empty = (counts.truth_empty, *counts.false_positives)
                who = spreadsheet_cell(patient)
                writer.writerow([*names, task.task, who, *figures, *numbers, *empty])
    return stream.getvalue()


def _score(
    entrants: Sequence[Entrant], ground: Ground, failed: list[dict[str, str]], tick: Tick
) -> tuple[list[list[Row]], Ground]:
    """Rows of each model. A study that one result cannot be scored on is left out for all."""
    rows: list[list[Row]] = [[] for _ in entrants]
    scored = []
    total = len(ground.studies) * len(entrants)
    for number, study in enumerate(ground.studies):
        found = []
        for place, entrant in enumerate(entrants):
            tick(number * len(entrants) + place, total, f"{entrant.name} · {study}")
            case = entrant.cases[study]
            try:
                found.append(list(score_case(case)))
            except VfssError as error:
                failed.append({"input": case.result.key, "error": str(error)})
        if len(found) == len(entrants):
            scored.append(study)
            for own, some in zip(rows, found, strict=True):
                own.extend(some)
    tick(total, total, "")
    if not scored:
        last = failed[-1]  # whose error ends with what to do
        raise DataError(f"no study can be scored: {last['input']}: {last['error']}")
    if ground.seen_kept:  # else they are those left out
        patients = {entrants[0].cases[study].patient for study in scored}
        ground = replace(ground, seen=tuple(who for who in ground.seen if who in patients))
    return rows, replace(ground, studies=tuple(scored))


def _write(workspace: Workspace, compared: Compared) -> None:
    from .compare_page import render

    page = render(compared)
    facts = {
        "models": [{"name": one.name, "sha256": one.sha256} for one in compared.entrants],
        "bootstrap_resamples": compared.options.resamples,
        "seed": compared.options.seed,
    }
    with atomic_folder(compared.folder, replace=compared.options.replaces) as folder:
        write_text(folder / "index.html", page)
        write_json(folder / "compare.json", document(compared.to_dict(workspace), **facts))
        write_text(folder / "compare.csv", compare_csv(compared))


def _warnings(
    ground: Ground, entrants: Sequence[Entrant], comparisons: Sequence[Comparison]
) -> Iterator[str]:
    # A patient of whom no frame counts adds nothing to an interval.
    patients = min(found.mean.dice.n_patients for found in comparisons if found.mean.dice)
    if ground.seen and ground.seen_kept:
        yield f"{counted(len(ground.seen), 'patient')} {NOT_AN_ESTIMATE}."
    elif ground.seen:
        yield (
            f"{counted(len(ground.seen), 'patient')} seen in training by one of the models: left "
            "out (--split all keeps them)."
        )
    if ground.basis == "unseen":
        some = whose(ground.basis, cases_of(ground, entrants))
        yield f"No test patient has labels and all results; Dice is of {some}."
    for one in entrants:
        if any(case.perhaps_seen for case in cases_of(ground, [one])):
            yield f"{one.name}: {PERHAPS_SEEN}"
    for name, studies in ground.lacking.items():
        some = first_of([f"studies/{study}" for study in studies])
        number = counted(len(studies), "labelled study", "labelled studies")
        yield f"{name} has no result of {number}: {some}; left out."
    if note := interval_note(patients):
        yield note
    have: dict[str, int] = {}
    for task in (task for found in comparisons for task in found.tasks):
        n_patients = task.dice.n_patients if task.dice else 0
        have[task.task] = min(n_patients, have.get(task.task, n_patients))
    if note := few_have(have, patients):
        yield note
    if 1 < patients < FEWEST_FOR_A_TEST:
        yield (
            f"With fewer than {FEWEST_FOR_A_TEST} patients no signed-rank test can fall below "
            "0.05, whatever the difference."
        )


def _name(workspace: Workspace, options: ReportOptions) -> str:
    if options.name is not None:
        return report_name(workspace, options)
    return workspace.next_report("compare")


def _concerns(what: str, entrants: Sequence[Entrant]) -> bool:
    """Is what cannot be read a study, or a result of one of these models?"""
    return what.startswith("studies/") or any(may_be_model(what, one.sha256) for one in entrants)


def _record(task: TaskDifference) -> dict[str, Any]:
    counts = task.counts
    # Of several tasks together the rate says nothing: some are never absent.
    rates = None if task.task == MEAN else counts.false_positive_rates
    return {
        "task": task.task,
        "n_patients": task.dice.n_patients if task.dice else 0,
        "n_frames": task.n_frames,
        **_difference("dice", task.dice, 4),
        "includes_zero": task.dice.includes_zero if task.dice else None,
        "told_apart": task.dice.told_apart if task.dice else None,
        "wilcoxon_p": _rounded(task.wilcoxon_p, 6),
        "holm_p": _rounded(task.holm_p, 6),
        "false_positive_rates": None if rates is None else [round(rate, 4) for rate in rates],
        "n_truth_empty": counts.truth_empty,
        **_difference("hd95_px", task.hd95_px, 3),
        "hd95_px_n_patients": task.hd95_px.n_patients if task.hd95_px else 0,
        "hd95_px_n_frames": counts.hd95_px,
        "hd95_px_missing": list(counts.hd95_px_missing),
        "hd95_px_told_apart": task.hd95_px_told_apart if task.hd95_px else None,
    }


def _difference(what: str, found: Difference | None, digits: int) -> dict[str, Any]:
    interval = found.ci95 if found else None
    return {
        f"{what}_baseline": _rounded(found.baseline if found else None, digits),
        f"{what}_model": _rounded(found.model if found else None, digits),
        f"{what}_difference": _rounded(found.difference if found else None, digits),
        f"{what}_difference_ci95": None
        if interval is None
        else [_rounded(end, digits) for end in interval],
    }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits) + 0.0  # no -0.0


def _three(both: tuple[float, float] | None, digits: int) -> list[str]:
    if both is None:
        return ["", "", ""]
    return [f"{value:.{digits}f}" for value in (*both, both[1] - both[0])]


def _names(entrants: Sequence[Entrant]) -> str:
    return ", ".join(one.name for one in entrants)
