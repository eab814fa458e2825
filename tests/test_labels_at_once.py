"""Two imports of labels in one workspace: neither undoes what the other wrote."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT, Cli, Outcome
from label_world import all_masks, first_study, forget_labels, make_world, ok
from vfss_distill.claims import fcntl
from vfss_distill.intake.formats.importing import ImportOptions, import_labels
from vfss_distill.workspace import Workspace


@pytest.fixture
def labels(cli: Cli, tmp_path: Path) -> Workspace:
    """A world without labels; beside it, those of the bolus and of the hyoid as two exports."""
    world = make_world(tmp_path)
    for task in ("bolus", "hyoid"):
        target = tmp_path / task
        ok(cli("labels", "export", target, "--format", "masks", "--tasks", task, cwd=world.root))
    forget_labels(world)
    return world


def in_another_process(world: Workspace, *words: str) -> Outcome:
    command = [sys.executable, "-m", "vfss_distill", "labels", "import", *words]
    place = ["-w", str(world.root)]
    done = subprocess.run([*command, *place], capture_output=True, text=True, cwd=ROOT, check=False)
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.mark.skipif(fcntl is None, reason="no locks on this system")
def test_a_second_import_waits_for_the_first(labels: Workspace, tmp_path: Path) -> None:
    hyoid = str(tmp_path / "hyoid")
    seen: list[Outcome] = []

    def meanwhile(done: int, total: int, words: str) -> None:
        if not seen:
            seen.append(in_another_process(labels, hyoid))
            seen.append(in_another_process(labels, hyoid, "--dry-run"))

    report = import_labels(labels, tmp_path / "bolus", ImportOptions(), tick=meanwhile)
    refused, looked = seen
    assert refused.exit_code == 4 and refused.stderr.count("\n") == 1
    assert "is at work in this workspace. Run this one when it has ended." in refused.stderr
    assert looked.exit_code == 0, "looking writes nothing, and so disturbs nobody"
    assert not report.failed
    assert ok(in_another_process(labels, hyoid))
    assert set(first_study(labels).record.labelled) == {"bolus", "hyoid"}
    assert {task for _, task, _ in all_masks(labels)} == {"bolus", "hyoid"}


def test_a_folder_that_is_no_workspace_is_left_as_it_is(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    outcome = cli("labels", "import", "x.json", "-w", "elsewhere")
    assert outcome.exit_code == 4 and "no studies yet" in outcome.stderr
    assert not list((tmp_path / "elsewhere").iterdir())
