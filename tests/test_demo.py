"""`vfss demo`: the commands it shows are commands; the whole of it is slow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Cli
from vfss_distill.demo import steps


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


@pytest.mark.slow
def test_the_demo_runs_to_its_report(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vfss_distill", "demo", "demo", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout[done.stdout.rindex('{\n  "schema_version"') :])
    assert told["simulated"] is True
    assert told["mean_dice"] > 0.7
    page = (tmp_path / "demo" / told["report"]).read_text()
    assert "SIMULATED" in page
    assert (tmp_path / "demo" / told["overlay"]).exists()
