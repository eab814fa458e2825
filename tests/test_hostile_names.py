"""Names that are formulas to a spreadsheet or markup to a terminal: shown as they are."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

from conftest import Cli
from fake_results import FakeWorkspace
from label_world import make_world, ok
from vfss_distill.config import DistillConfig
from vfss_distill.distill.model_card import CardFacts, model_card
from vfss_distill.tasks import VFSS12, TaskSet

FORMULA = "=1+1"
MARKUP = "[bold]x"


def test_no_cell_of_a_report_is_a_formula(cli: Cli, tmp_path: Path) -> None:
    fake = FakeWorkspace(tmp_path, TaskSet("one", (VFSS12["c3"],)))
    fake.study("pa-aaaaaa", FORMULA, split="test", labels=(0, 10))
    for model in ("a", "b"):
        fake.result("pa-aaaaaa", model=model, n=16)
    ok(cli("report", "--name", "r"))
    ok(cli("compare", "a", "b", "--name", "c"))
    for table in ("r/dice.csv", "c/compare.csv"):
        with (tmp_path / "reports" / table).open(encoding="utf-8") as stream:
            lines = list(csv.DictReader(stream))
        assert {line["patient"] for line in lines} == {f"'{FORMULA}"}


def test_a_check_shows_a_folder_s_name_as_it_is(cli: Cli, tmp_path: Path) -> None:
    world = make_world(tmp_path)
    (world.studies / MARKUP / "frames").mkdir(parents=True)
    outcome = cli("labels", "check", cwd=world.root)
    assert outcome.exit_code == 4, outcome.stderr
    assert MARKUP in outcome.stdout and "our bug" not in outcome.stderr


def test_a_report_of_names_that_are_formulas_and_html(cli: Cli, tmp_path: Path) -> None:
    tasks = TaskSet("one", (replace(VFSS12["c3"], name=r"$\frac{"),))
    fake = FakeWorkspace(tmp_path, tasks)
    fake.study("sa", "pa", split="test", labels=(0, 10))
    model = {"name": "a<script>", "sha256": "0" * 64, "tasks": tasks.to_dict()}
    fake.result("sa", n=16, model_facts=model)
    ok(cli("report", "--name", "r"))
    page = (tmp_path / "reports" / "r" / "index.html").read_text(encoding="utf-8")
    assert "a&lt;script&gt;" in page and r"$\frac{" in page
    told = json.loads((tmp_path / "reports" / "r" / "report.json").read_text(encoding="utf-8"))
    assert told["models"][0]["name"] == model["name"]


def test_a_card_of_a_teacher_with_words_of_its_own() -> None:
    title = "one | two\n<script>"
    teacher = {"name": "mine", "title": title, "licence": "MIT", "source": "here", "sha256": "0"}
    card = model_card(
        CardFacts(
            name="run-001",
            config=DistillConfig(),
            encoder_parameters=1,
            parameters=2,
            times_smaller=3.0,
            teachers=[teacher],
            patients={"train": 1},
            frames={"train": 1},
            labels={},
            untrained=(),
            val_dice={},
            cuts={},
            simulated="none",
            steps=1,
            start={"damaged": True},
        )
    )
    assert r"| mine | one \| two &lt;script> | MIT | here | `0` |" in card.splitlines()
    assert "`start.json` is damaged" in card
