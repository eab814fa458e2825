"""The whole job on patients that never lived: the commands a user would type, one after another.

Each step is a `vfss` process of its own in the demo's folder, so what the demo shows is what the
commands do.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from .counting import listed
from .errors import (
    EXIT_DEVICE,
    EXIT_INTERRUPTED,
    EXIT_MODEL,
    DataError,
    DeviceError,
    ModelError,
    UsageError,
    WorkspaceError,
)
from .intake.discovery import is_simulated
from .intake.identities import Identities
from .intake.study import folder_of, list_studies_readable
from .workspace import Workspace, is_temporary, write_text

PATIENTS = 40
TEACHERS = "small-sam,small-dino,small-clip"

# Small enough for two cores and a few minutes; everything else as in a real run.
_LAB = """\
# The demo's settings: a short training at a small size.
task_set: vfss12
splits: {val: 0.1, test: 0.25}
distill:
  image_size: 192
  grid: 24
  batch_size: 4
  align_steps: 120
  task_steps: 1400
  warmup_steps: 30
  learning_rate: 0.012
  validate_every: 700
  checkpoint_every: 700
  unlabelled_every: 10
  mirrored: 0
  blank: 0
"""


# What lies in a demo's folder, and one folder deeper. Reports are of the demo's own results.
_MADE = (
    *("vfss.yaml", "splits.yaml", "identities.csv", "identities.key", ".gitignore"),
    *(".ingest.lock", ".distill.lock"),
    *("films", "films/SIMULATED.txt", "films/sim*", "studies", "studies/p*", "cache", "cache/*"),
    *("runs", "runs/run-001", "results", "results/p*", "reports", "reports/*"),
)


@dataclass(frozen=True)
class Step:
    """One command, and why a user would type it."""

    why: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class DemoOutcome:
    """`report` and `overlay` are relative to the demo's folder; Dice as `vfss report` gives it."""

    report: str
    overlay: str
    mean_dice: float | None
    seconds: float


def steps(seed: int) -> tuple[Step, ...]:
    """The demo as commands."""
    films = f"simulate films --patients {PATIENTS} --seed {seed} --size 256 --fps 12 --frames 30"
    films += " --label-every 3 --workers 2"
    return (
        Step("make films of patients that never lived", tuple(films.split())),
        Step("films and masks → studies, split by patient", ("ingest", "films")),
        Step("three small teachers → one student", ("distill", "--teachers", TEACHERS)),
        Step("the student on patients it never saw", ("segment", "--split", "test")),
        Step("how good is it?", ("report", "--name", "demo")),
    )


def run_demo(
    folder: Path,
    *,
    seed: int,
    force: bool,
    announce: Callable[[Step], None],
    stdout: int | None = None,
) -> DemoOutcome:
    """Run all steps in `folder`. Raises UsageError when it holds anything, unless `force`.

    `stdout`: descriptor that takes what the steps print, the demo's own by default. A step that
    fails ends the demo with the error of its exit code, DataError for any that is of no one cause;
    the step itself has said why on stderr.
    """
    started = time.perf_counter()
    if folder.exists() and any(folder.iterdir()):
        if not force:
            raise UsageError("is not empty", file=folder, remedy="Give a new folder, or --force.")
        _clear(folder)
    folder.mkdir(parents=True, exist_ok=True)
    workspace = Workspace(folder)
    write_text(workspace.config_file, _LAB)
    for step in steps(seed):
        announce(step)
        done = subprocess.run(
            [sys.executable, "-m", "vfss_distill", *step.words],
            cwd=folder,
            stdout=stdout,
            check=False,
        )
        if done.returncode in (EXIT_INTERRUPTED, -signal.SIGINT, -signal.SIGTERM):
            raise KeyboardInterrupt
        if done.returncode:
            kind = {EXIT_MODEL: ModelError, EXIT_DEVICE: DeviceError}
            raise kind.get(done.returncode, DataError)(
                f"the demo stopped: `vfss {step.words[0]}` ended with {done.returncode}",
                remedy="`vfss doctor` looks for the cause.",
            )
    return _outcome(workspace, time.perf_counter() - started)


def _outcome(workspace: Workspace, seconds: float) -> DemoOutcome:
    report = workspace.reports / "demo"
    told: dict[str, Any] = json.loads((report / "report.json").read_text(encoding="utf-8"))
    overlays = sorted(workspace.results.rglob("overlay.mp4"))
    return DemoOutcome(
        report=workspace.relative(report / "index.html"),
        overlay=workspace.relative(overlays[0]) if overlays else "",
        mean_dice=told["models"][0]["mean_dice"] if told["models"] else None,
        seconds=seconds,
    )


def _clear(folder: Path) -> None:
    """Remove an earlier demo. Raises UsageError, with all left as it is, when a lab has worked in
    its folder since: films, runs or results of its own."""
    if not (folder / "vfss.yaml").is_file() or "demo's settings" not in (
        folder / "vfss.yaml"
    ).read_text(encoding="utf-8"):
        raise UsageError("holds something else than an earlier demo", file=folder)
    inside = [path for path in (*folder.iterdir(), *folder.glob("*/*")) if not is_temporary(path)]
    names = sorted(path.relative_to(folder).as_posix() for path in inside)
    others = [name for name in names if not any(fnmatchcase(name, made) for made in _MADE)]
    others += _others_studies(Workspace(folder))
    if others:
        raise UsageError(
            f"holds what no demo made: {listed(others, 1, ' ')}",
            file=folder,
            remedy="Name another folder for the demo.",
        )
    shutil.rmtree(folder)


def _others_studies(workspace: Workspace) -> list[str]:
    """Studies of films that no demo made. Where a record is damaged, its film still tells."""
    studies, damaged = list_studies_readable(workspace)
    others = [f"studies/{study.id}" for study in studies if not study.record.simulated]
    for failure in damaged:
        if not _is_of_simulated_film(workspace, folder_of(failure)):
            why = "its record is damaged; delete it if a demo made it"
            others.append(f"{failure['input']} ({why})")
    return others


def _is_of_simulated_film(workspace: Workspace, study: str) -> bool:
    with suppress(WorkspaceError):
        row = Identities(workspace).find(study)
        return row is not None and is_simulated(workspace.root / row.source_path)
    return False
