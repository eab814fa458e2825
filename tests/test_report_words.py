"""`vfss report`: what it says of figures that are not there, and of whose figures these are."""

from __future__ import annotations

import json
import shutil
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


def test_test_patients_the_model_has_seen_are_not_called_unseen(
    fake: FakeWorkspace, cli: Cli, tmp_path: Path
) -> None:
    fake.study("pa-aaaaaa", "pa", split="test", labels=range(10, 14))
    fake.result("pa-aaaaaa", seen=True)
    outcome = cli("report", "--split", "test")
    words = "test patients, but the model has seen some of them in training"
    assert words in outcome.stdout and words in page_of(tmp_path)
    assert "none of them seen" not in outcome.stdout + page_of(tmp_path)


def test_labels_without_a_result_that_can_be_scored(
    fake: FakeWorkspace, cli: Cli, tmp_path: Path
) -> None:
    fake.study("pa-aaaaaa", "pa", split="test", labels=range(10, 14))
    folder = fake.result("pa-aaaaaa", outputs={"masks": None})
    shutil.rmtree(folder / "masks")
    outcome = cli("report")
    assert outcome.exit_code == 3
    assert "this result has no masks. Segment the study again with --force" in outcome.stderr
    assert "there are labels, but no result could be scored" in outcome.stderr
    page = page_of(tmp_path)
    assert "There are labels, but no result could be scored" in page
    assert "No truth was given" not in page and "no truth" not in outcome.stderr
    assert json.loads(cli("report", "--json").stdout)["truth"] is True


def test_blank_labels_rightly_predicted_have_a_table_and_no_dice(
    fake: FakeWorkspace, cli: Cli, tmp_path: Path
) -> None:
    fake.tasks = TaskSet("one", (VFSS12["bolus"],))
    fake.study("pa-aaaaaa", "pa", split="test", labels=range(4))  # before the bolus comes
    fake.result("pa-aaaaaa")
    outcome = cli("report")
    assert outcome.exit_code == 0, outcome.stderr
    assert "FP rate" in outcome.stdout and "0.0 %" in outcome.stdout
    said = "every labelled mask is blank, and nothing was predicted there"
    page = page_of(tmp_path)
    assert said in outcome.stderr and said[1:] in page
    assert "false positives" in page and "No truth was given" not in page
    assert "Worst frames" not in page


def test_a_split_in_which_one_of_two_models_has_no_labelled_result(
    fake: FakeWorkspace, cli: Cli
) -> None:
    for patient, split in (("pa", "test"), ("pb", "val")):
        fake.study(f"{patient}-aaaaaa", patient, split=split, labels=range(10, 14))
    fake.result("pa-aaaaaa")
    fake.result("pb-aaaaaa", model="run-002")
    outcome = cli("report", "--split", "test")
    assert "run-002: no labelled study of this split has a result" in outcome.stderr
