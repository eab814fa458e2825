"""`vfss report`: what it says of figures that are not there, and of whose figures these are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import Cli
from fake_results import FakeWorkspace, digest
from vfss_distill.tasks import VFSS12, TaskSet


@pytest.fixture
def fake(tmp_path: Path) -> FakeWorkspace:
    few = TaskSet("few", tuple(VFSS12[task] for task in ("bolus", "pharynx", "c3")))
    return FakeWorkspace(tmp_path, few)


def page_of(place: Path) -> str:
    (page,) = place.glob("reports/*/index.html")
    return page.read_text(encoding="utf-8")


def test_tasks_the_model_was_not_trained_on_are_not_scored(
    fake: FakeWorkspace, cli: Cli, tmp_path: Path
) -> None:
    fake.study("pa-aaaaaa", "pa", split="test", labels=range(10, 14))
    facts = {"name": "run-001", "sha256": digest("run-001"), "tasks": fake.tasks.to_dict()}
    fake.result("pa-aaaaaa", model_facts={**facts, "untrained_tasks": ["c3"]})
    outcome = cli("report", "--json")
    assert outcome.exit_code == 0, outcome.stderr
    (model,) = json.loads(outcome.stdout)["models"]
    assert [task["n_labelled"] for task in model["tasks"]] == [4, 4, 0]
    said = "This model was not trained on: c3. Its masks of these are blank and not scored."
    assert said in model["warnings"] and said in page_of(tmp_path)
    assert not any("No truth" in warning for warning in model["warnings"])
