"""Which results a report speaks about, and which of them may count as evidence.

By default Dice is computed on test patients the model has never seen. Where there are none, on
other studies the model has not seen; failing that, on studies it was trained on, loudly marked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from ..counting import counted, first_of
from ..errors import DataError, WorkspaceError
from ..intake.identities import recordings_of_patients
from ..intake.splits import Part, Splits, load_splits, missing_from_lock
from ..intake.study import Study, list_studies_readable
from ..provenance import one_is_named
from ..tasks import TaskSet
from ..workspace import Workspace
from .measures_file import is_of, read_measures
from .results import Result, list_results, model_names, unreadable_of

Split = Literal["test", "val", "train", "all"]
Basis = Literal["test", "unseen", "seen", "val", "train", "all", "none"]

BASES: dict[Basis, str] = {
    "test": "test patients, none of them seen in training",
    "unseen": "patients outside the test split that the model has not seen in training",
    "seen": "patients seen in training",
    "val": "validation patients",
    "train": "training patients",
    "all": "all labelled patients, whatever their split",
    "none": "no truth was given",
}


@dataclass(frozen=True)
class Case:
    """One result with what the workspace knows about its study; `study` None: never ingested.

    `seen`: the model was trained or chosen on this study, or on another one of its patient.
    """

    result: Result
    study: Study | None
    part: Part | None
    seen: bool

    @property
    def perhaps_seen(self) -> bool:
        """Is it not known whether `seen` holds? As of a model that does not name all it saw."""
        return self.result.seen is None and not self.seen

    @property
    def id(self) -> str:
        return self.study.id if self.study else self.result.study

    @property
    def patient(self) -> str:
        """Pseudonym; a study that was never ingested stands for a patient of its own."""
        return self.study.patient if self.study else (self.result.patient or self.result.study)

    @property
    def simulated(self) -> bool:
        recorded = self.study.record.simulated if self.study else False
        return recorded or bool(self.result.run.get("simulated", False))

    @property
    def outdated(self) -> str:
        """Why the result is not of the study's frames; "" where it is, or no study is known."""
        try:
            if self.study is not None:
                self.result.check_frames_of(self.study.record)
        except DataError as error:
            return str(error)
        return ""

    @property
    def times_s(self) -> tuple[float, ...]:
        """Of the result's frames: the study's own, which may have been given others since."""
        if self.study is None or self.outdated:
            return self.result.frame_times_s
        return self.study.record.frame_times_s

    @property
    def measures(self) -> list[dict[str, str]]:
        """Lines of measures.csv; none where it is not of the study as it is now."""
        lines = self._measures_file or []
        return [] if self.outdated or self.measured_otherwise else lines

    @property
    def measures_unreadable(self) -> bool:
        """Is there a measures.csv that is no table of measures?"""
        return self._measures_file is None

    @property
    def measured_otherwise(self) -> bool:
        """Has the study been given other frame times, another view or other repeats since it was
        measured?"""
        lines = self._measures_file
        if self.study is None or self.outdated or not lines:
            return False
        record = self.study.record
        return record.view != "lateral" or not is_of(
            self.result, lines, self.times_s, record.repeats
        )

    @cached_property
    def _measures_file(self) -> list[dict[str, str]] | None:
        return read_measures(self.result.folder)

    @property
    def labelled(self) -> bool:
        """Is there truth for at least one frame of one task that the model was trained on?"""
        study = self.study
        return (
            study is not None
            and study.record.view == "lateral"
            and any(study.labelled_frames(task) for task in self.result.trained_tasks)
        )

    @property
    def no_truth(self) -> str:
        """Why there is no truth for it; "" where there is."""
        if self.labelled:
            return ""
        if self.study is not None and self.study.record.view == "lateral":
            others = [task for task, frames in self.study.record.labelled.items() if frames]
            if others:
                return f"labelled, but for no task of this model ({', '.join(others)})"
        return BASES["none"]


@dataclass(frozen=True)
class Group:
    """One model: all its cases, and those its Dice is computed on (`scored`, on what `basis`).

    `unsegmented`: labelled test studies it has no result of; `frontal`: those whose labels are not
    counted because of their view. Both are ids. `not_as_locked`: patients of a locked test set
    whose studies are not those it had.
    """

    name: str
    sha256: str
    tasks: TaskSet
    cases: tuple[Case, ...]
    scored: tuple[Case, ...]
    basis: Basis
    unsegmented: tuple[str, ...] = ()
    frontal: tuple[str, ...] = ()
    not_as_locked: tuple[str, ...] = ()

    @property
    def seen_in_training(self) -> bool:
        return any(case.seen for case in self.scored)

    @property
    def whose(self) -> str:
        """Whose Dice it is, in words."""
        return whose(self.basis, self.scored)

    @property
    def notes(self) -> tuple[str, ...]:
        """Hints at labelled studies that its Dice is not of."""
        return (
            *_lock_broken(self.not_as_locked),
            *_not_segmented(self.unsegmented, "this model"),
            *_left_out_as_frontal(self.frontal),
        )

    @property
    def untrained(self) -> tuple[str, ...]:
        """Tasks that the model was not trained on, as its results say."""
        told = {task for case in self.cases for task in case.result.untrained}
        return tuple(task for task in self.tasks.ids if task in told)


def whose(basis: Basis, cases: Sequence[Case]) -> str:
    """Whose Dice it is, in words: test patients asked for by name may be seen ones."""
    if basis == "test" and any(case.seen for case in cases):
        return "test patients, but the model has seen some of them in training"
    if any(case.perhaps_seen for case in cases):
        not_known = "it is not known whether the model has seen them in training"
        if basis == "test":
            return f"test patients; {not_known}"
        if basis == "unseen":
            return f"patients outside the test split; {not_known}"
    return BASES[basis]


def gather(
    workspace: Workspace, *, split: Split | None = None, model: str | None = None
) -> tuple[list[Group], list[dict[str, str]]]:
    """Results by model, and those that cannot be read: `[{"input", "error"}]`.

    Raises WorkspaceError without results, or when `split` is given and has no truth; UsageError
    for an unknown model.
    """
    results, failed = list_results(workspace, model=model)
    if model is not None:
        failed = unreadable_of(model, results, failed)
    studies, damaged = list_studies_readable(workspace)
    splits = load_splits(workspace)
    recordings = recordings_of_patients(workspace, (study.record for study in studies))
    changed = tuple(missing_from_lock(splits, (study.record for study in studies)))
    names = model_names(results)
    groups = []
    for digest, name in sorted(names.items(), key=lambda item: item[1]):
        own = [result for result in results if result.model_sha256 == digest]
        cases = _cases(own, studies, splits, recordings)
        scored, basis = _choose([case for case in cases if case.labelled], split)
        left = (_unsegmented(cases, studies, splits), _frontal(cases), changed)
        tasks = own[0].tasks
        groups.append(Group(name, digest, tasks, tuple(cases), tuple(scored), basis, *left))
    if split is not None and groups and not any(group.scored for group in groups):
        what = "study" if split == "all" else f"{split} study"
        raise WorkspaceError(
            f"no labelled {what} has a result",
            remedy="Run `vfss segment` on one, or `vfss report` without --split.",
        )
    return groups, failed + damaged


def _cases(
    results: Sequence[Result],
    studies: Sequence[Study],
    splits: Splits,
    recordings: Mapping[str, Sequence[str]],
) -> list[Case]:
    """One case per study: a film segmented before and after its ingest counts once.

    `recordings`: digests by patient, as they are now. What the model said of a patient when it
    segmented him may have been of fewer, or of somebody else's.
    """
    by_source = {study.record.source_sha256: study for study in studies}
    cases: dict[str, Case] = {}
    for result in results:
        study = by_source.get(result.source_sha256)
        part = splits.of(study.patient) if study else None
        of_patient = recordings.get(study.patient, ()) if study else ()
        seen = bool(result.seen) or one_is_named(of_patient, result.trained_sources)
        if result.seen is None or (study is not None and result.patient != study.patient):
            # Of a film that was segmented before anyone knew whose it is, or when it was taken for
            # somebody else's, the model could not tell whether it has seen another film of that
            # patient: better left out once too often.
            seen = seen or part in ("train", "val")
        case = Case(result, study, part, seen)
        if case.id not in cases or result.study == case.id:
            cases[case.id] = case
    seen_patients = {case.patient for case in cases.values() if case.seen}
    return [replace(case, seen=case.patient in seen_patients) for _, case in sorted(cases.items())]


def _choose(labelled: Sequence[Case], split: Split | None) -> tuple[list[Case], Basis]:
    if not labelled:
        return [], "none"
    if split == "all":
        return list(labelled), "all"
    if split is not None:
        chosen = [case for case in labelled if case.part == split]
        return chosen, split if chosen else "none"
    unseen = [case for case in labelled if not case.seen]
    test = [case for case in unseen if case.part == "test"]
    if test:
        return test, "test"
    return (unseen, "unseen") if unseen else (list(labelled), "seen")


def without_result(groups: Sequence[Group]) -> tuple[str, ...]:
    """What to mind about labelled studies that none of several models can be judged on."""
    common = set.intersection(*(set(group.unsegmented) for group in groups))
    frontal = {study for group in groups for study in group.frontal}
    return (
        *_lock_broken(groups[0].not_as_locked),
        *_not_segmented(sorted(common), "any of these models"),
        *_left_out_as_frontal(sorted(frontal)),
    )


def _lock_broken(patients: Sequence[str]) -> tuple[str, ...]:
    if not patients:
        return ()
    some = first_of(list(patients))
    return (f"the test set is locked, but the studies of {some} are not those it had",)


def _left_out_as_frontal(studies: Sequence[str]) -> tuple[str, ...]:
    some = counted(len(studies), "labelled study", "labelled studies")
    return (f"{some} left out: frontal",) if studies else ()


def _not_segmented(studies: Sequence[str], models: str) -> tuple[str, ...]:
    if not studies:
        return ()
    some = first_of([f"studies/{name}" for name in studies])
    number = counted(len(studies), "labelled test study", "labelled test studies")
    return (f"{number} without a result of {models}: {some}",)


def _frontal(cases: Sequence[Case]) -> tuple[str, ...]:
    studies = [case.study for case in cases if case.study]
    return tuple(s.id for s in studies if _has_labels(s) and s.record.view != "lateral")


def _unsegmented(
    cases: Sequence[Case], studies: Sequence[Study], splits: Splits
) -> tuple[str, ...]:
    done = {case.id for case in cases}
    return tuple(
        study.id
        for study in studies
        if splits.of(study.patient) == "test"
        and _has_labels(study)
        and study.record.view == "lateral"
        and study.id not in done
    )


def _has_labels(study: Study) -> bool:
    return any(study.record.labelled.values())
