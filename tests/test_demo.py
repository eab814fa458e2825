"""`vfss demo`: the commands it shows are commands; the whole of it is slow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Cli
from tiny_studies import write_study
from vfss_distill import demo
from vfss_distill.demo import steps
from vfss_distill.intake.identities import Identities, Identity
from vfss_distill.workspace import Workspace


def test_every_step_is_a_command_with_options_that_exist(cli: Cli) -> None:
    for step in steps(seed=7):
        shown = cli(step.words[0], "--help").stdout
        assert [word for word in step.words if word.startswith("--") and word not in shown] == []


def test_a_folder_with_something_else_in_it_is_left_alone(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.doc").write_text("years of work")
    for force in ((), ("--force",)):
        done = cli("demo", "taken", *force)
        assert done.exit_code == 2
        assert "taken" in done.stderr
    assert (tmp_path / "taken" / "thesis.doc").exists()


@pytest.mark.parametrize(
    "own",
    ["films/mine.mp4", "weights/medsam.pth", "runs/run-002/config.yaml", "studies/a real one"],
)
def test_a_demo_that_a_lab_has_worked_in_is_left_alone(cli: Cli, tmp_path: Path, own: str) -> None:
    workspace = Workspace(tmp_path / "tried")
    write_study(workspace, "pa", simulated=True)
    (workspace.root / "vfss.yaml").write_text(demo._LAB)
    for made in ("films/SIMULATED.txt", "films/sim0000/a.mp4", "runs/run-001/config.yaml"):
        (workspace.root / made).parent.mkdir(parents=True, exist_ok=True)
        (workspace.root / made).write_text("x")
    if own.startswith("studies"):
        write_study(workspace, "pb", simulated=False)
    else:
        (workspace.root / own).parent.mkdir(parents=True, exist_ok=True)
        (workspace.root / own).write_text("mine")
    before = sorted(workspace.root.rglob("*"))
    done = cli("demo", "tried", "--force")
    assert done.exit_code == 2, done.stderr
    assert "no demo made" in done.stderr
    assert sorted(workspace.root.rglob("*")) == before


def test_what_a_demo_made_is_cleared(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    write_study(workspace, "pa", simulated=True)
    (tmp_path / "vfss.yaml").write_text(demo._LAB)
    demo._clear(tmp_path)
    assert not tmp_path.exists()


@pytest.mark.parametrize("known", ["simulated", "of a lab", "nothing", "no table"])
def test_a_damaged_record_of_its_own_does_not_stop_a_demo(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: str
) -> None:
    workspace = Workspace(tmp_path / "tried")
    whole, broken = (write_study(workspace, patient, simulated=True) for patient in ("pa", "pb"))
    (workspace.root / "vfss.yaml").write_text(demo._LAB)
    film = workspace.root / "films" / "sim0000" / "a.mp4"
    film.parent.mkdir(parents=True)
    truth = '{"simulated": true}' if known == "simulated" else '{"simulated": false}'
    film.with_name("a_truth.json").write_text(truth)
    if known != "nothing":
        row = Identity(broken.id, "pb", "sim0000", "films/sim0000/a.mp4")
        Identities(workspace).record(row)
    if known == "no table":
        workspace.identities_file.write_text("x")
    (broken.folder / "study.json").write_text("")

    def run(words: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(words, 4)

    monkeypatch.setattr(demo.subprocess, "run", run)
    done = cli("demo", "tried", "--force")
    if known == "simulated":
        assert done.exit_code == 4 and "`vfss simulate` ended" in " ".join(done.stderr.split())
        assert not whole.folder.exists()
    else:
        assert done.exit_code == 2 and whole.folder.exists()
        line = f"studies/{broken.id} (its record is damaged; delete it if a demo made it)"
        assert line in " ".join(done.stderr.split())


@pytest.mark.parametrize(("ended", "exit_code"), [(4, 4), (5, 5), (6, 6), (1, 4)])
def test_a_step_that_fails_gives_the_demo_its_exit_code(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, ended: int, exit_code: int
) -> None:
    def run(words: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(words, ended)

    monkeypatch.setattr(demo.subprocess, "run", run)
    done = cli("demo", "new")
    assert done.exit_code == exit_code
    assert f"`vfss simulate` ended with {ended}" in " ".join(done.stderr.split())


@pytest.mark.slow
def test_the_demo_runs_to_its_report(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vfss_distill", "demo", "demo", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout)
    assert told["simulated"] is True
    assert told["mean_dice"] > 0.7
    page = (tmp_path / "demo" / told["report"]).read_text()
    assert "SIMULATED" in page
    assert (tmp_path / "demo" / told["overlay"]).exists()
