"""Workspaces of the experiment, and the films in them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vfss_distill.config import lab_tasks
from vfss_distill.intake.study import Study, list_studies
from vfss_distill.workspace import Workspace

TONGUE = Path(__file__).parent.parent / "swallow-cine-mri" / "tongue.yaml"


@dataclass(frozen=True)
class Turn(Workspace):
    """The workspace `train` for one seed: other seeds' labelled patients stay out of training."""

    seed: int = 0

    @property
    def splits_file(self) -> Path:
        return self.root / f"splits-{self.seed}.yaml"


@dataclass(frozen=True)
class Lab:
    """Two workspaces, so that no test patient can be trained on: `train` and `test`.

    Runs take `times` the steps, on frames of `size` pixels; their scores lie beside one another.
    """

    root: Path
    times: int = 1
    size: int = 128
    turns: bool = False

    @property
    def train(self) -> Workspace:
        return Workspace(self.root / "train")

    def train_of(self, seed: int) -> Workspace:
        return Turn(self.train.root, seed) if self.turns else self.train

    @property
    def test(self) -> Workspace:
        return Workspace(self.root / "test")

    def run_name(self, arm: str, seed: int) -> str:
        slug = arm.replace(" ", "-").replace("'", "")
        steps = "" if self.times == 1 else f"-x{self.times}"
        return f"{slug}-{seed}{steps}" + ("" if self.size == 128 else f"-{self.size}px")

    def scores(self, arm: str, seed: int) -> Path:
        return self.root / "scores" / f"{self.run_name(arm, seed)}.csv"


def make_films(lab: Lab, labelled: int, seeds: int, *, keep_labels: bool) -> None:
    """Simulated films of the three groups of patients, ingested; quick when it is all there.

    `seeds`: with `--turns`, so many times the labelled patients.
    """
    most = 20 * labelled if seeds else labelled  # two in five show every task: enough for 5 seeds
    some = f"--patients {most} --seed 310000 --frames 40 --label-every 2"
    every = 1 if keep_labels else 100
    others = f"--patients 100 --seed 320000 --frames 12 --label-every {every}"
    groups = (
        (lab.train, "labelled", some),
        (lab.train, "unlabelled", others),
        (lab.test, "tested", "--patients 40 --seed 330000 --frames 30 --label-every 3"),
    )
    for workspace, group, words in groups:
        begin(workspace, "vfss12")
        vfss(workspace, f"simulate {group} {words} --size 256 --fps 12 --workers 2 --quiet")
        if group == "unlabelled" and not keep_labels:  # frame 0 is always labelled: not here
            for masks in (workspace.root / group).rglob("*_masks"):
                shutil.rmtree(masks)
        films = [film.name for film in sorted((workspace.root / group).rglob("*.mp4"))]
        people = workspace.root / f"{group}.csv"  # each group's sim0000 is somebody else
        rows = "".join(f"{film},{group} {film}\n" for film in films)
        people.write_text(f"file,patient\n{rows}")
        vfss(workspace, f"ingest {group} --patients {people.name} --quiet")
    if seeds:
        take_turns(lab, labelled, seeds)


def take_turns(lab: Lab, labelled: int, seeds: int) -> None:
    """For each seed its own splits.yaml: the next labelled patients and all unlabelled ones."""
    studies = sorted(list_studies(lab.train), key=lambda study: study.record.source_sha256)
    tasks = lab_tasks(lab.train).ids
    everyone = {study.patient for study in studies}
    with_labels = {study.patient for study in studies if study.labelled_frames(tasks[0])}
    all_shown = [study.patient for study in studies if shows_all(study, tasks)]
    if len(all_shown) < labelled * seeds:
        sys.exit(f"labels of {len(all_shown)} patients show every task: too few for {seeds} seeds")
    for seed in range(seeds):
        others = with_labels.difference(all_shown[seed * labelled : (seed + 1) * labelled])
        parts = {"train": everyone - others, "val": set(), "test": others}
        file = lab.train_of(seed).splits_file
        file.write_text(yaml.safe_dump({part: sorted(some) for part, some in parts.items()}))


def shows_all(study: Study, tasks: Sequence[str]) -> bool:
    def masks(task: str) -> Iterator[Any]:
        return (study.read_mask(task, number) for number in study.labelled_frames(task))

    return all(any(mask is not None and mask.any() for mask in masks(task)) for task in tasks)


def take_films(lab: Lab, data: Path) -> None:
    """The real patients, by number: 4 with their labels, 6 without, 8 for the test."""
    patients = sorted(folder for folder in data.iterdir() if (folder / "images").is_dir())
    groups = (
        (lab.train, "labelled", patients[:4]),
        (lab.train, "unlabelled", patients[4:10]),
        (lab.test, "tested", patients[10:]),
    )
    for workspace, group, some in groups:
        begin(workspace, "tongue.yaml")
        shutil.copy(TONGUE, workspace.root)
        for patient in some:
            for part in ("images",) if group == "unlabelled" else ("images", "masks"):
                target = workspace.root / group / patient.name / part
                if not target.exists():
                    shutil.copytree(patient / part, target)
        vfss(workspace, f"ingest {group} --fps 10 --quiet")


def begin(workspace: Workspace, task_set: str) -> None:
    workspace.root.mkdir(parents=True, exist_ok=True)
    if not workspace.config_file.exists():
        workspace.config_file.write_text(f"task_set: {task_set}\nsplits: {{val: 0, test: 0}}\n")


def vfss(workspace: Workspace, words: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "vfss_distill", *words.split()], cwd=workspace.root, check=True
    )
