"""Names that are formulas to a spreadsheet or markup to a terminal: shown as they are."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from conftest import Cli
from fake_results import FakeWorkspace
from label_world import forget_labels, make_world, ok
from vfss_distill.intake.study import list_studies
from vfss_distill.tasks import VFSS12, TaskSet
from vfss_distill.workspace import Workspace

FORMULA = "=1+1"
MARKUP = "[/bold]x"


def test_no_cell_of_a_report_is_a_formula(cli: Cli, tmp_path: Path) -> None:
    fake = FakeWorkspace(tmp_path, TaskSet("one", (VFSS12["c3"],)))
    fake.study(FORMULA, f"{FORMULA}+2", split="test", labels=(0, 10))
    for model in ("a", "b"):
        fake.result(FORMULA, model=model, n=16)
    ok(cli("report", "--name", "r"))
    ok(cli("compare", "a", "b", "--name", "c"))
    for table in ("r/dice.csv", "c/compare.csv"):
        with (tmp_path / "reports" / table).open(encoding="utf-8") as stream:
            lines = list(csv.DictReader(stream))
        assert {line["patient"] for line in lines} == {f"'{FORMULA}+2"}
        assert {line.get("study") for line in lines} <= {f"'{FORMULA}", None}


class TestTables:
    @pytest.fixture
    def world(self, cli: Cli, tmp_path: Path) -> Workspace:
        """Two studies, of which one is called like the end of bold type; an export beside it."""
        world = make_world(tmp_path)
        ok(cli("labels", "export", tmp_path / "given", "--format", "masks", cwd=world.root))
        forget_labels(world)
        record = list_studies(world)[0].folder / "study.json"
        body = json.loads(record.read_text())
        record.write_text(json.dumps({**body, "study": MARKUP, "labelled": {"c3": [3]}}))
        return world

    def test_of_an_import(self, cli: Cli, world: Workspace, tmp_path: Path) -> None:
        masks = next((tmp_path / "given").glob("pa-*"))
        words = ("labels", "import", masks, "--study", MARKUP, "--force")
        shown = ok(cli(*words, cwd=world.root)).stdout
        assert MARKUP in shown

    def test_of_a_check(self, cli: Cli, world: Workspace) -> None:
        outcome = cli("labels", "check", cwd=world.root)
        assert outcome.exit_code == 4, outcome.stderr
        assert MARKUP in outcome.stdout and "our bug" not in outcome.stderr
