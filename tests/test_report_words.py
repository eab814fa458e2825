"""`vfss report`: what it says of figures that are not there, and of whose figures these are."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from conftest import Cli
from fake_results import FRAMES, FakeWorkspace, digest
from vfss_distill.evaluate.cases import gather
from vfss_distill.evaluate.measures import COLUMNS
from vfss_distill.evaluate.measures_file import read_measures
from vfss_distill.tasks import VFSS12, TaskSet
from vfss_distill.workspace import Workspace


@pytest.fixture
def fake(tmp_path: Path) -> FakeWorkspace:
    few = TaskSet("few", tuple(VFSS12[task] for task in ("bolus", "pharynx", "c3")))
    return FakeWorkspace(tmp_path, few)


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal in which no cell of a table is broken into lines."""
    monkeypatch.setenv("COLUMNS", "120")


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


def test_a_mean_over_fewer_tasks_than_another_s_says_so(
    fake: FakeWorkspace, cli: Cli, tmp_path: Path, wide: None
) -> None:
    fake.study("pa-aaaaaa", "pa", split="test", labels=range(10, 14))
    fake.result("pa-aaaaaa", model="whole")
    facts = {"name": "part", "sha256": digest("part"), "tasks": fake.tasks.to_dict()}
    fake.result("pa-aaaaaa", model="part", model_facts={**facts, "untrained_tasks": ["c3"]})
    smaller = FakeWorkspace(tmp_path, TaskSet("one", (VFSS12["bolus"],)))
    smaller.result("pa-aaaaaa", model="small")
    models = {one["name"]: one for one in json.loads(cli("report", "--json").stdout)["models"]}
    numbers = {name: one["n_tasks"] for name, one in models.items()}
    assert numbers == {"whole": 3, "part": 2, "small": 1}
    for name in models:  # the number is of the tasks that have a Dice, and these make the mean
        dice = [task["dice_mean"] for task in models[name]["tasks"] if task["n_frames"]]
        assert len(dice) == numbers[name]
        assert models[name]["mean_dice"] == pytest.approx(sum(dice) / len(dice), abs=2e-4)
    page = page_of(tmp_path)
    for said in ("over 2 of 3 tasks", "over 1 of 3 tasks"):
        assert f"<div>mean Dice {said}, " in page and f"<td>mean {said}</td>" in page
    assert "over 3 of 3" not in page and page.count("<td>mean over tasks</td>") == 1
    printed = cli("report").stdout
    assert "mean over 2 of 3 tasks" in printed and "mean over 1 of 3 tasks" in printed
    # By itself the small model lacks nothing.
    assert "of 3 tasks" not in cli("report", "--model", "small").stdout


def test_a_task_without_a_counted_frame_is_not_in_the_mean(
    fake: FakeWorkspace, cli: Cli, tmp_path: Path, wide: None
) -> None:
    fake.study("pa-aaaaaa", "pa", split="test", labels=range(4))  # before the bolus comes
    fake.result("pa-aaaaaa")
    fake.result("pa-aaaaaa", model="run-002", shift=2)
    outcome = cli("report")
    assert "mean over 2 of 3 tasks" in outcome.stdout
    assert "mean Dice over 2 of 3 tasks" in page_of(tmp_path)
    outcome = cli("compare", "run-001", "run-002")
    assert "mean over 2 of 3 tasks" in outcome.stdout
    page = (tmp_path / "reports/compare-001/index.html").read_text(encoding="utf-8")
    assert "<div>difference in mean Dice over 2 of 3 tasks, " in page
    assert "<td>mean over 2 of 3 tasks</td>" in page
    (found,) = json.loads(cli("compare", "run-001", "run-002", "--json").stdout)["comparisons"]
    assert found["n_tasks"] == 2


def test_test_patients_the_model_has_seen_are_not_called_unseen(
    fake: FakeWorkspace, cli: Cli, tmp_path: Path
) -> None:
    fake.study("pa-aaaaaa", "pa", split="test", labels=range(10, 14))
    fake.result("pa-aaaaaa", seen=True)
    outcome = cli("report", "--split", "test")
    words = "test patients, but the model has seen some of them in training"
    assert words in outcome.stdout and words in page_of(tmp_path)
    assert "none of them seen" not in outcome.stdout + page_of(tmp_path)


def test_a_model_that_does_not_name_all_it_saw_is_promised_nothing(
    fake: FakeWorkspace, cli: Cli, tmp_path: Path
) -> None:
    """It began with a student of which nobody noted what it had learned from."""
    fake.study("pa-aaaaaa", "pa", split="test", labels=range(10, 14))
    fake.result("pa-aaaaaa", seen=None, patient="pa")
    fake.result("pa-aaaaaa", seen=False, patient="pa", model="run-002")
    outcome = cli("report", "--model", "run-001")
    words = "test patients; it is not known whether the model has seen them in training"
    page = page_of(tmp_path)
    assert words in outcome.stdout and words in page
    assert "none of them seen" not in outcome.stdout + page
    warning = "It is not known whether these patients were seen in training: this model, or"
    assert " ".join(outcome.stderr.split()).count(warning) == 1 and warning in page
    first, second = json.loads(cli("report", "--json").stdout)["models"]
    assert first["seen_in_training"] is None and first["studies"][0]["seen_in_training"] is None
    assert second["seen_in_training"] is False and second["split"] == first["split"] == "test"
    with (tmp_path / "reports/report-001/dice.csv").open(encoding="utf-8") as stream:
        assert all(line["seen_in_training"] == "" for line in csv.DictReader(stream))
    outcome = cli("compare", "run-002", "run-001")
    assert words in outcome.stdout and "none of them seen" not in outcome.stdout
    assert " ".join(outcome.stderr.split()).count(f"run-001: {warning}") == 1
    assert "run-002: It is not known" not in outcome.stderr
    assert words in (tmp_path / "reports/compare-001/index.html").read_text(encoding="utf-8")


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


def test_labels_of_other_tasks_than_the_model_s_are_no_missing_truth(
    fake: FakeWorkspace, cli: Cli, tmp_path: Path
) -> None:
    fake.study("pa-aaaaaa", "pa", split="test", labelled={"tongue": [1, 2]})
    fake.result("pa-aaaaaa")
    outcome = cli("report")
    said = "labelled, but for no task of this model (tongue)"
    assert outcome.exit_code == 0 and said in " ".join(outcome.stderr.split())
    page = page_of(tmp_path)
    assert said in page and "no truth was given" not in page.lower()


def test_a_study_ingested_anew_since_its_result_was_measured(
    fake: FakeWorkspace, cli: Cli, tmp_path: Path
) -> None:
    """Of other frames, old measures are not shown; of the same frames, times are the new ones."""
    as_then = {"mirrored": False, "interlaced": "", "blanked": True, "places": ""}
    fake.study("pa-aaaaaa", "pa", split="test")
    folder = fake.result("pa-aaaaaa", frames_of=as_then)
    table = "measure,value,unit,frames,flags\nhyoid_peak_time,867,ms,13,said by hand\n"
    (folder / "measures.csv").write_text(table)
    outcome = cli("report")
    assert outcome.exit_code == 0 and "Ingested anew" not in outcome.stderr
    assert "said by hand" in page_of(tmp_path)
    slower = [0.5 * frame for frame in range(FRAMES)]
    fake.study("pa-aaaaaa", "pa", frame_times_s=slower)
    (group,), _ = gather(Workspace(tmp_path))
    assert group.cases[0].times_s == tuple(slower)
    shutil.rmtree(tmp_path / "reports")
    _says_that_it_was_measured_before(cli, tmp_path)
    shutil.rmtree(tmp_path / "reports")
    assert cli("measure", "--force").exit_code == 0
    outcome = cli("report")
    assert "Ingested anew" not in outcome.stderr and "hyoid_peak_time" in page_of(tmp_path)
    (folder / "measures.csv").write_text(table)
    fake.study("pa-aaaaaa", "pa", view="frontal")
    shutil.rmtree(tmp_path / "reports")
    _says_that_it_was_measured_before(cli, tmp_path)
    fake.study("pa-aaaaaa", "pa", mirrored=True)
    shutil.rmtree(tmp_path / "reports")
    assert cli("report").exit_code == 0
    page = page_of(tmp_path)
    assert "said by hand" not in page and "was ingested anew since it was segmented" in page


def test_a_time_corrected_by_hand_is_no_sign_of_other_times(
    fake: FakeWorkspace, cli: Cli, tmp_path: Path
) -> None:
    """Somebody saw the peak elsewhere, and left the frame that stands beside it."""
    fake.study("pa-aaaaaa", "pa", split="test")
    folder = fake.result("pa-aaaaaa")
    assert cli("measure").exit_code == 0
    table = "measure,value,unit,frames,flags\nhyoid_peak_time,1350,ms,13,said by hand\n"
    (folder / "measures.csv").write_text(table)
    assert "Ingested anew" not in cli("report").stderr
    assert "said by hand" in page_of(tmp_path)
    fake.study("pa-aaaaaa", "pa", frame_times_s=[0.5 * frame for frame in range(FRAMES)])
    shutil.rmtree(tmp_path / "reports")
    _says_that_it_was_measured_before(cli, tmp_path)


def test_a_table_of_measures_that_is_none_is_named(
    fake: FakeWorkspace, cli: Cli, tmp_path: Path
) -> None:
    fake.study("pa-aaaaaa", "pa", split="test")
    (fake.result("pa-aaaaaa") / "measures.csv").write_text("what,how much\na,1\n")
    outcome = cli("report")
    assert outcome.exit_code == 0
    assert "measures.csv is no table of measures" in " ".join(outcome.stderr.split())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
@pytest.mark.parametrize("comma, point", [(",", "."), (";", ","), (";", ".")])
def test_measures_corrected_in_a_spreadsheet(
    tmp_path: Path, encoding: str, comma: str, point: str
) -> None:
    lines = (COLUMNS, ("bolus_residue", f"1{point}5", "%(C2-4)²", "13", "said by hand"))
    table = "".join(f"{comma.join(line)}\r\n" for line in lines)
    (tmp_path / "measures.csv").write_bytes(table.encode(encoding))
    (line,) = read_measures(tmp_path) or ()
    assert [*line.values()] == ["bolus_residue", "1.5", "%(C2-4)²", "13", "said by hand"]


def test_a_study_ingested_anew_with_other_repeats(
    fake: FakeWorkspace, cli: Cli, tmp_path: Path
) -> None:
    fake.study("pa-aaaaaa", "pa", split="test")
    folder = fake.result("pa-aaaaaa")
    assert cli("measure").exit_code == 0
    assert "Ingested anew" not in cli("report").stderr
    fake.study("pa-aaaaaa", "pa", repeats=list(range(1, FRAMES, 2)))
    shutil.rmtree(tmp_path / "reports")
    _says_that_it_was_measured_before(cli, tmp_path)
    assert cli("measure", "--force").exit_code == 0
    assert "Ingested anew" not in cli("report").stderr
    fake.study("pa-aaaaaa", "pa")
    (folder / "measured.json").unlink()  # measured by an earlier version, which noted nothing
    assert "Ingested anew" not in cli("report").stderr


def test_a_kept_correction_that_is_put_back_is_shown(
    fake: FakeWorkspace, cli: Cli, tmp_path: Path
) -> None:
    """`vfss segment --force` leaves no note beside it, and a corrected time is no frame's."""
    fake.study("pa-aaaaaa", "pa", split="test")
    folder = fake.result("pa-aaaaaa")
    assert cli("measure").exit_code == 0
    table = (folder / "measures.csv").read_text(encoding="utf-8")
    corrected = table.replace("bolus_pharynx_first,533.3333", "bolus_pharynx_first,612.5")
    assert corrected != table
    (folder / "measures.csv").write_text(corrected, encoding="utf-8")
    (folder / "measured.json").unlink()
    assert "Ingested anew" not in cli("report").stderr
    assert "612.5" in page_of(tmp_path)
    fake.study("pa-aaaaaa", "pa", frame_times_s=[n / 30 for n in range(FRAMES)])
    shutil.rmtree(tmp_path / "reports")
    assert "Ingested anew" in " ".join(cli("report").stderr.split())


def _says_that_it_was_measured_before(cli: Cli, root: Path) -> None:
    outcome = cli("report")
    assert outcome.exit_code == 0
    said = "Ingested anew with other times, view or repeated frames since measured: pa-aaaaaa."
    assert said in " ".join(outcome.stderr.split())
    page = page_of(root)
    assert said in page and "said by hand" not in page


def test_pages_say_what_their_numbers_stand_on(
    fake: FakeWorkspace, cli: Cli, tmp_path: Path
) -> None:
    fake.study("p1-aaaaaa", "p1", split="test", labels=(0, 10))
    for model in ("one", "other"):
        fake.result("p1-aaaaaa", model=model)
    for command in (("report",), ("compare", "one", "other")):
        assert cli(*command, "--name", command[0]).exit_code == 0
        page = (tmp_path / "reports" / command[0] / "index.html").read_text(encoding="utf-8")
        assert "can be lopsided" in page, "of tasks that few patients have"
        assert "A labelled frame that repeats the one before it" in page
        assert "in pixels of the film, made square where they were not" in page
        assert "dt { break-after: avoid" in page, "a rule is printed below its name"
