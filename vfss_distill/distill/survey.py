"""Studies by part, labels per task, and whether that can be trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..config import DistillConfig
from ..counting import counted
from ..errors import ConfigError, WorkspaceError
from ..intake.splits import load_splits
from ..intake.study import Study, list_studies
from ..provenance import digest_json
from ..tasks import TaskSet
from ..workspace import Workspace
from .data import Key, alignment_keys, labelled_keys, labels_digest


@dataclass(frozen=True)
class Survey:
    """Studies a run uses, by part, and the labels found in them."""

    tasks: TaskSet
    train: list[Study]
    val: list[Study]

    @property
    def train_labelled(self) -> list[Key]:
        return labelled_keys(self.train, self.tasks.ids)

    @property
    def val_labelled(self) -> list[Key]:
        return labelled_keys(self.val, self.tasks.ids)

    def labels(self, studies: list[Study]) -> dict[str, int]:
        """Labelled frames per task."""
        return {
            task: sum(len(study.labelled_frames(task)) for study in studies)
            for task in self.tasks.ids
        }

    def untrained(self, config: DistillConfig) -> list[str]:
        """Tasks whose masks a run with these settings does not learn: no labels, no weight, or no
        step with masks at all."""
        labels = self.labels(self.train)
        return [
            task
            for task in self.tasks.ids
            if not (config.task_steps and labels[task] and config.task_weights.get(task, 1))
        ]

    @property
    def simulated(self) -> str:
        """`all`, `some` or `none` of the training studies are simulated."""
        flags = {study.record.simulated for study in self.train}
        return "some" if len(flags) > 1 else "all" if True in flags else "none"

    def align_keys(self, config: DistillConfig) -> list[Key]:
        return alignment_keys(self.train, self.train_labelled, config.unlabelled_every)

    def digest(self) -> str:
        """Changes with studies, what of their frames is shown, their labels, masks themselves and
        the split; a resumed run must find the same."""

        def facts(study: Study) -> list[Any]:
            record = study.record
            labelled = {task: list(study.labelled_frames(task)) for task in self.tasks.ids}
            frames = sorted({frame for some in labelled.values() for frame in some})
            return [
                *(study.id, study.patient, record.source_sha256, record.frames, labelled),
                *record.shown,
                labels_digest(study, frames, self.tasks.ids),
            ]

        parts = {"train": [facts(s) for s in self.train], "val": [facts(s) for s in self.val]}
        return digest_json({**parts, "tasks": self.tasks.to_dict()})


def survey(
    workspace: Workspace, tasks: TaskSet, config: DistillConfig, say: Callable[[str], None]
) -> Survey:
    """Look through the study store. Raises WorkspaceError when there is nothing to train on,
    ConfigError when a task is weighted that the task set has not.
    """
    if unknown := sorted(set(config.task_weights) - set(tasks.ids)):
        raise ConfigError(
            f"task_weights names {', '.join(unknown)}, which the task set has not",
            remedy=f"Its tasks are {' '.join(tasks.ids)}.",
        )
    studies = list_studies(workspace)
    if not studies:
        raise WorkspaceError(
            "no studies here", file="studies", remedy="Run `vfss ingest VIDEOS` first."
        )
    lateral = [study for study in studies if study.record.view == "lateral"]
    if len(lateral) < len(studies):
        others = len(studies) - len(lateral)
        say(f"{counted(others, 'study is', 'studies are')} not lateral and left out")
    splits = load_splits(workspace)
    found = Survey(
        tasks,
        train=[study for study in lateral if splits.of(study.patient) == "train"],
        val=[study for study in lateral if splits.of(study.patient) == "val"],
    )
    if not found.train:
        raise WorkspaceError(
            "no lateral study of a training patient",
            file=workspace.splits_file.name,
            remedy="Ingest more patients, or move one to `train` in splits.yaml.",
        )
    if config.task_steps:
        _check_labels(found, config, say)
    return found


def _check_labels(found: Survey, config: DistillConfig, say: Callable[[str], None]) -> None:
    trained, validated = found.labels(found.train), found.labels(found.val)
    if not any(trained.values()):
        raise WorkspaceError(
            f"no training patient has labels for the tasks {' '.join(found.tasks.ids[:12])}",
            file="studies",
            remedy="Ingest masks (--labels, or <video>_masks/<task>/<frame>.png), check that "
            "splits.yaml has labelled patients in `train`, or set task_steps: 0.",
        )
    unlabelled = [task for task, count in trained.items() if not count]
    off = [task for task in found.untrained(config) if task not in unlabelled]
    for tasks, why in ((unlabelled, "no training labels for"), (off, "task_weights is 0 for")):
        if tasks:
            say(
                f"warning: {why} {', '.join(tasks)}: trained on the other tasks; the student's "
                "maps of these will mean nothing"
            )
    if only := [task for task in unlabelled if validated[task]]:
        say(f"warning: {', '.join(only)}: labelled in validation patients only")
    if not any(validated.values()):
        say("warning: no validation labels: the last weights will be used, unmeasured")
