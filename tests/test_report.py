"""`vfss report`: what it says, what it refuses to say, and the page it leaves."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Cli
from fake_results import FRAMES, FakeWorkspace, Swallow, digest, moved
from vfss_distill.intake.splits import lock_test
from vfss_distill.intake.study import list_studies
from vfss_distill.tasks import VFSS12, TaskSet
from vfss_distill.workspace import Workspace

EVERY_THIRD = range(0, FRAMES, 3)


@pytest.fixture
def fake(tmp_path: Path) -> FakeWorkspace:
    """Three tasks are enough for most of what is tested here."""
    few = TaskSet("few", tuple(VFSS12[task] for task in ("bolus", "pharynx", "c3")))
    return FakeWorkspace(tmp_path, few)


def add(
    fake: FakeWorkspace,
    patient: str,
    split: str | None,
    *,
    shift: int = 1,
    seen: bool | None = None,
    model: str = "run-001",
    **facts: object,
) -> str:
    """One labelled study of `patient` and a result, `seen` as its split says; the study's id."""
    study = f"{patient}-{digest(patient)[:6]}"
    fake.study(study, patient, split=split, labels=facts.pop("labels", EVERY_THIRD), **facts)  # type: ignore[arg-type]
    seen = split in ("train", "val") if seen is None else seen
    fake.result(study, patient=patient, shift=shift, model=model, seen=seen)
    return study


def reported(cli: Cli, *words: object) -> dict[str, Any]:
    outcome = cli("report", *words, "--json")
    assert outcome.exit_code == 0, outcome.stderr
    body: dict[str, Any] = json.loads(outcome.stdout)
    return body


def test_dice_of_test_patients_with_the_agreed_keys(fake: FakeWorkspace, cli: Cli) -> None:
    add(fake, "pa", "train", shift=0)
    add(fake, "pb", "test", shift=1)
    add(fake, "pc", "test", shift=2)
    body = reported(cli)
    assert body["schema_version"] == 1
    (model,) = body["models"]
    assert model["name"] == "run-001"
    assert model["split"] == "test" and model["seen_in_training"] is False
    assert model["n_patients"] == 2
    assert 0.5 < model["mean_dice"] < 0.95
    low, high = model["mean_dice_ci95"]
    assert low <= model["mean_dice"] <= high
    assert [task["task"] for task in model["tasks"]] == ["bolus", "pharynx", "c3"]
    keys = "task dice_mean dice_ci95 n_frames n_patients false_positive_rate hd95_median_px"
    assert set(keys.split()) <= set(model["tasks"][0])
    pharynx = model["tasks"][1]
    assert pharynx["n_frames"] == 2 * len(EVERY_THIRD)
    assert pharynx["false_positive_rate"] is None, "the pharynx is in every frame"
    bolus = model["tasks"][0]
    assert bolus["false_positive_rate"] == 0
    assert bolus["n_frames"] < bolus["n_labelled"]
    assert not Path(body["report"]).is_absolute()


def test_the_figures_are_those_of_the_masks(fake: FakeWorkspace, cli: Cli, tmp_path: Path) -> None:
    """Recomputed here from the same geometry with nothing but sums."""
    for patient, shift in (("pa", 1), ("pb", 3)):
        add(fake, patient, "test", shift=shift)
    (model,) = reported(cli)["models"]
    means = []
    for shift in (1, 3):
        values = []
        for frame in EVERY_THIRD:
            truth = Swallow().masks(frame)["c3"]
            predicted = moved(truth, shift)
            values.append(2 * (truth & predicted).sum() / (truth.sum() + predicted.sum()))
        means.append(np.mean(values))
    c3 = next(task for task in model["tasks"] if task["task"] == "c3")
    assert c3["dice_mean"] == pytest.approx(np.mean(means), abs=1e-4)
    everything = [task["dice_mean"] for task in model["tasks"] if task["dice_mean"] is not None]
    assert model["mean_dice"] == pytest.approx(np.mean(everything), abs=1e-4)
    with (tmp_path / "reports/report-001/dice.csv").open(encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    assert len(lines) == 2 * len(EVERY_THIRD) * 3
    assert np.mean([float(x["dice"]) for x in lines if x["task"] == "c3"]) == pytest.approx(
        c3["dice_mean"], abs=1e-4
    )
    uncounted = [line for line in lines if line["counted"] == "0"]
    assert uncounted and all(x["reason"] == "both_empty" and x["dice"] == "" for x in uncounted)


def test_false_positives_are_seen(fake: FakeWorkspace, cli: Cli) -> None:
    study = "pa-aaaaaa"
    fake.study(study, "pa", split="test", labels=range(8))
    there = {n: {**Swallow().masks(n), "bolus": Swallow().masks(10)["bolus"]} for n in range(4)}
    fake.result(study, masks=there)
    (model,) = reported(cli)["models"]
    bolus = model["tasks"][0]
    assert bolus["false_positive_rate"] == 0.5
    assert bolus["dice_mean"] == 0 and bolus["n_frames"] == 4
    assert bolus["hd95_median_px"] is None and bolus["hd95_missing"] == 4


def test_training_patients_are_loudly_marked(fake: FakeWorkspace, cli: Cli, tmp_path: Path) -> None:
    add(fake, "pa", "train")
    add(fake, "pb", "val")
    outcome = cli("report")
    assert outcome.exit_code == 0
    said = "2 of 2 studies are of patients seen in training – not an estimate of performance"
    assert said in " ".join(outcome.stderr.split())
    assert "seen in training" in outcome.stdout
    page = (tmp_path / "reports/report-001/index.html").read_text(encoding="utf-8")
    assert 'class="banner seen"' in page
    assert "2 of 2 studies are of patients who were used to train or choose this model" in page
    (model,) = reported(cli)["models"]
    assert model["seen_in_training"] is True and model["split"] == "seen"


def test_patients_a_foreign_model_never_saw_may_count(fake: FakeWorkspace, cli: Cli) -> None:
    add(fake, "pa", "train", seen=False)
    (model,) = reported(cli)["models"]
    assert model["split"] == "unseen" and model["seen_in_training"] is False


def test_another_film_of_a_training_patient_is_not_unseen(fake: FakeWorkspace, cli: Cli) -> None:
    add(fake, "pa", "train", seen=True)
    fake.study("pa-second", "pa", split="train", labels=EVERY_THIRD)
    fake.result("pa-second", seen=False)
    (model,) = reported(cli)["models"]
    assert model["split"] == "seen"
    assert all(study["seen_in_training"] for study in model["studies"])


def test_split_chooses_and_complains(fake: FakeWorkspace, cli: Cli) -> None:
    add(fake, "pa", "train")
    add(fake, "pb", "val")
    add(fake, "pc", "test")
    for split, patients in (("train", 1), ("val", 1), ("test", 1), ("all", 3)):
        (model,) = reported(cli, "--split", split)["models"]
        assert (model["split"], model["n_patients"]) == (split, patients)
        assert model["seen_in_training"] is (split != "test")
    empty = cli("report", "--split", "test", "--model", "nobody")
    assert empty.exit_code == 2 and "run-001" in empty.stderr


def test_a_split_without_truth_is_an_error_with_a_remedy(fake: FakeWorkspace, cli: Cli) -> None:
    add(fake, "pa", "train")
    outcome = cli("report", "--split", "test")
    assert outcome.exit_code == 4
    assert "without --split" in outcome.stderr


def test_without_truth_there_are_areas_and_no_dice(
    fake: FakeWorkspace, cli: Cli, tmp_path: Path
) -> None:
    fake.result("s-0123456789")
    outcome = cli("report")
    assert outcome.exit_code == 0
    assert "no truth was given" in outcome.stderr
    page = (tmp_path / "reports/report-001/index.html").read_text(encoding="utf-8")
    assert "No truth was given" in page and "<svg" in page
    body = reported(cli)
    assert body["truth"] is False
    assert body["models"][0]["mean_dice"] is None
    assert body["models"][0]["tasks"][0]["dice_mean"] is None


def test_two_studies_of_a_patient_are_one_patient(fake: FakeWorkspace, cli: Cli) -> None:
    for study, patient, shift in (("pa-1", "pa", 1), ("pa-2", "pa", 2), ("pb-1", "pb", 6)):
        fake.study(study, patient, split="test", labels=EVERY_THIRD)
        fake.result(study, shift=shift)
    (model,) = reported(cli)["models"]
    assert (model["n_patients"], len(model["studies"])) == (2, 3)
    pharynx = model["tasks"][1]
    dice: dict[str, list[float]] = {"pa": [], "pb": []}
    with next((fake.root / "reports").rglob("dice.csv")).open(newline="") as stream:
        for line in csv.DictReader(stream):
            if line["task"] == pharynx["task"]:
                dice[line["patient"]].append(float(line["dice"]))
    assert len(dice["pa"]) == 2 * len(dice["pb"]) == 2 * len(EVERY_THIRD)
    over_patients = np.mean([np.mean(some) for some in dice.values()])
    assert pharynx["dice_mean"] == pytest.approx(over_patients, abs=1e-3)
    assert abs(over_patients - np.mean(dice["pa"] + dice["pb"])) > 0.005


def test_a_film_segmented_before_its_ingest_finds_its_study(fake: FakeWorkspace, cli: Cli) -> None:
    fake.study("pa-aaaaaa", "pa", split="test", labels=EVERY_THIRD)
    fake.result("s-0123456789", source_sha256=digest("pa-aaaaaa"))
    (model,) = reported(cli)["models"]
    assert model["studies"][0]["study"] == "pa-aaaaaa" and model["n_patients"] == 1


@pytest.mark.parametrize(("split", "seen"), [("train", True), ("val", True), ("test", False)])
def test_a_film_segmented_before_its_ingest_may_be_of_a_training_patient(
    fake: FakeWorkspace, cli: Cli, split: str, seen: bool
) -> None:
    """Nobody knew then whose it was, so the model could not tell that it has seen him."""
    fake.study("pa-aaaaaa", "pa", split=split, labels=EVERY_THIRD)
    fake.result("s-0123456789", source_sha256=digest("pa-aaaaaa"), seen=False, patient=None)
    (model,) = reported(cli)["models"]
    assert model["seen_in_training"] is seen
    assert model["split"] == ("seen" if seen else "test")


def test_a_film_segmented_as_somebody_else_s_may_be_of_a_training_patient(
    fake: FakeWorkspace, cli: Cli
) -> None:
    """Its patient was corrected since, and the model looked for another one's films."""
    fake.study("pa-aaaaaa", "pa", split="train", labels=EVERY_THIRD)
    fake.result("pa-aaaaaa", seen=False, patient="pb")
    (model,) = reported(cli)["models"]
    assert model["seen_in_training"] is True and model["split"] == "seen"
    fake.result("pa-aaaaaa", seen=False, patient="pa")
    assert reported(cli)["models"][0]["seen_in_training"] is False


def test_a_locked_test_set_that_lost_a_study_is_told(fake: FakeWorkspace, cli: Cli) -> None:
    add(fake, "pa", "test")
    gone = add(fake, "pb", "test")
    workspace = Workspace(fake.root)
    lock_test(workspace, [study.record for study in list_studies(workspace)])
    assert not any("locked" in line for line in reported(cli)["models"][0]["warnings"])
    shutil.rmtree(fake.root / "studies" / gone)
    (model,) = reported(cli)["models"]
    assert model["n_patients"] == 1
    assert any("locked, but the studies of pb are not" in line for line in model["warnings"])


def test_who_has_been_seen_is_asked_of_the_studies_as_they_are_now(
    fake: FakeWorkspace, cli: Cli
) -> None:
    """A film the model was trained on turned out to be a test patient's, after his own film had
    been segmented."""
    fake.study("pb-bbbbbb", "pb", split="test", labels=EVERY_THIRD)
    sources = [digest("pb-cccccc")[:16]]
    model = {"name": "run-001", "sha256": digest("run-001"), "tasks": fake.tasks.to_dict()}
    fake.result("pb-bbbbbb", patient="pb", model_facts={**model, "trained_sources": sources})
    assert reported(cli)["models"][0]["split"] == "test"
    fake.study("pb-cccccc", "pb", labels=())
    (model_now,) = reported(cli)["models"]
    assert model_now["seen_in_training"] is True and model_now["split"] == "seen"


@pytest.mark.parametrize("anew", [{"mirrored": True}, {"interlaced": "kept"}])
def test_masks_of_other_frames_than_the_study_s_are_not_scored(
    fake: FakeWorkspace, cli: Cli, anew: dict[str, object]
) -> None:
    frames_of = {"mirrored": False, "interlaced": "", "blanked": True, "places": ""}
    fake.study("pa-aaaaaa", "pa", split="test", labels=EVERY_THIRD, **anew)
    for study in ("pa-aaaaaa", "s-0123456789"):  # as the study was, and before there was one
        folder = fake.result(study, source_sha256=digest("pa-aaaaaa"), frames_of=frames_of)
        for command in ("report", "measure"):
            outcome = cli(command, "--json")
            assert outcome.exit_code == (3 if command == "report" else 4)
            (failure,) = json.loads(outcome.stdout)["failed"]
            assert "ingested anew since it was segmented. Segment" in failure["error"]
        shutil.rmtree(folder.parent)
    fake.result("pa-aaaaaa", frames_of={**frames_of, **anew})
    assert reported(cli)["models"][0]["mean_dice"] > 0.5


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"mirrored": True, "patient": "pa"}, "the study is mirrored"),
        ({"patient": None}, "the study is mirrored"),
        ({"width": 320, "patient": "pa"}, "30 frames of 320x160, the study 30 frames of 160x160"),
    ],
)
def test_older_results_of_other_frames_are_neither_scored_nor_measured(
    fake: FakeWorkspace, cli: Cli, facts: dict[str, Any], said: str
) -> None:
    """Those that do not say which frames were segmented."""
    study = add(fake, "pa", "test", mirrored=True)
    fake.result(study, **facts)
    for command in ("report", "measure"):
        (failure,) = json.loads(cli(command, "--json").stdout)["failed"]
        assert said in failure["error"] and "Segment the study" in failure["error"]
    fake.result(study, patient="pa")
    for command in ("report", "measure"):
        assert cli(command).exit_code == 0


def test_nothing_is_overwritten_without_force(
    fake: FakeWorkspace, cli: Cli, tmp_path: Path
) -> None:
    add(fake, "pa", "test")
    assert [reported(cli)["report"] for _ in range(2)] == [
        "reports/report-001",
        "reports/report-002",
    ]
    assert reported(cli, "--name", "clinic")["report"] == "reports/clinic"
    again = cli("report", "--name", "clinic")
    assert again.exit_code == 2 and "--force" in again.stderr
    (tmp_path / "reports/clinic/old.txt").write_text("from before")
    reported(cli, "--name", "clinic", "--force")
    assert not (tmp_path / "reports/clinic/old.txt").exists()
    assert cli("report", "--name", "../outside").exit_code == 2
    assert sorted(x.name for x in (tmp_path / "reports").iterdir()) == [
        "clinic",
        "report-001",
        "report-002",
    ]


def test_two_models_and_two_that_share_a_name(fake: FakeWorkspace, cli: Cli) -> None:
    study = add(fake, "pa", "test", shift=1)
    fake.result(study, model="run-002", shift=3)
    good, worse = reported(cli)["models"]
    assert (good["name"], worse["name"]) == ("run-001", "run-002")
    assert good["mean_dice"] > worse["mean_dice"]
    folder = fake.result(study, model="run-003")
    twin = json.loads((folder / "run.json").read_text())
    twin["model"]["name"] = "run-002"
    (folder / "run.json").write_text(json.dumps(twin))
    names = [model["name"] for model in reported(cli)["models"]]
    assert len(set(names)) == 3 and f"run-002-{digest('run-003')[:8]}" in names
    assert [m["name"] for m in reported(cli, "--model", "run-001")["models"]] == ["run-001"]


def test_one_bad_result_does_not_stop_the_others(
    fake: FakeWorkspace, cli: Cli, tmp_path: Path
) -> None:
    for patient in ("pa", "pb", "pc", "pd"):
        add(fake, patient, "test")
    results = {
        path.parent.parent.name[:2]: path.parent for path in tmp_path.glob("results/*/*/run.json")
    }
    (results["pa"] / "masks/c3/000003.png").unlink()
    (results["pb"] / "run.json").write_text("not json")
    record = json.loads((results["pc"] / "run.json").read_text())
    record["frames"], record["frame_times_s"] = 2, [0.0, 0.1]
    (results["pc"] / "run.json").write_text(json.dumps(record))
    outcome = cli("report", "--json")
    assert outcome.exit_code == 3
    body = json.loads(outcome.stdout)
    assert {item["input"][:2] for item in body["failed"]} == {"pa", "pb", "pc"}
    assert body["models"][0]["n_patients"] == 1
    for item in body["failed"]:
        assert str(tmp_path) not in item["error"]
    add(fake, "pe", "test", model="run-002")
    alone = cli("report", "--model", "run-002", "--json")
    assert alone.exit_code == 0 and json.loads(alone.stdout)["failed"] == []


def test_a_damaged_study_costs_its_truth_not_the_report(
    fake: FakeWorkspace, cli: Cli, tmp_path: Path
) -> None:
    for patient in ("pa", "pb"):
        study = add(fake, patient, "test")
    (tmp_path / "studies" / study / "study.json").write_text("{}")
    outcome = cli("report", "--json")
    assert outcome.exit_code == 3
    body = json.loads(outcome.stdout)
    assert [item["input"] for item in body["failed"]] == [f"studies/{study}"]
    assert body["models"][0]["n_patients"] == 1


def test_no_results_and_only_broken_ones(fake: FakeWorkspace, cli: Cli) -> None:
    empty = cli("report")
    assert empty.exit_code == 4 and "vfss segment" in empty.stderr
    (fake.result("s-0123456789") / "run.json").unlink()
    assert "None can be read." in cli("report", "--model", "other").stderr
    own = cli("report", "--model", "run-001")
    assert own.exit_code == 4 and "'run-001' can be read: s-0123456789/run-001-" in own.stderr
    broken = cli("report")
    assert broken.exit_code == 4 and "run.json" in broken.stderr
    (fake.root / "results/s-0123456789" / f"run-001-{digest('run-001')[:8]}/run.json").write_text(
        "{}"
    )
    assert cli("report").stderr.count("again with --force") == 1


class Links(HTMLParser):
    """Collects what the page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loads += [value or "" for key, value in attrs if key in ("src", "srcset", "data")]
        if tag == "link":
            self.loads.append("link")


def test_the_page_stands_alone_and_says_what_it_must(
    fake: FakeWorkspace, cli: Cli, tmp_path: Path
) -> None:
    fake.tasks = VFSS12
    for patient, shift in (("pa", 1), ("pb", 2), ("pc", 4)):
        add(fake, patient, "test", shift=shift, simulated=True)
    cli("measure")
    outcome = cli("report")
    assert "SIMULATED" in outcome.stdout and "index.html" in outcome.stdout
    page = (tmp_path / "reports/report-001/index.html").read_text(encoding="utf-8")
    links = Links()
    links.feed(page)
    assert links.loads and all(x.startswith("data:image/png") for x in links.loads)
    assert "script" not in links.tags
    assert not re.search(r"url\((?!#)", page)
    assert "Research use only." in page and "SIMULATED — all patients" in page
    assert page.count('class="three"') == 6, "four worst and two best frames"
    assert "hyoid_xy_peak" in page, "measures stand there when they were taken"
    for word in ("both empty: not counted", "bootstrap over patients", "95th percentile"):
        assert word in page.lower()
    written = "".join(
        path.read_text(encoding="utf-8") for path in (tmp_path / "reports").rglob("*.*")
    )
    assert str(tmp_path) not in written
    assert "nan" not in (tmp_path / "reports/report-001/dice.csv").read_text().lower()


def test_names_are_text_not_markup_nor_formulas(
    fake: FakeWorkspace, cli: Cli, tmp_path: Path
) -> None:
    study = add(fake, "pa", "test")
    path = next((tmp_path / "results" / study).glob("*/run.json"))
    record = json.loads(path.read_text())
    record["model"]["name"] = "=<script>alert(1)</script>[red]"
    record["model"]["tasks"]["tasks"][0]["name"] = "<b>bolus</b>"
    path.write_text(json.dumps(record))
    outcome = cli("report")
    assert outcome.exit_code == 0
    page = (tmp_path / "reports/report-001/index.html").read_text(encoding="utf-8")
    assert "<script" not in page and "<b>" not in page
    assert "[red]" in outcome.stdout
    lines = (tmp_path / "reports/report-001/dice.csv").read_text().splitlines()
    assert lines[1].startswith("'=")


def test_unsegmented_test_patients_are_named(fake: FakeWorkspace, cli: Cli) -> None:
    add(fake, "pa", "train")
    fake.study("pb-bbbbbb", "pb", split="test", labels=EVERY_THIRD)
    outcome = cli("report")
    assert "studies/pb-bbbbbb" in outcome.stderr


def test_the_terminal_table(fake: FakeWorkspace, cli: Cli) -> None:
    add(fake, "pa", "test")
    add(fake, "pb", "test", shift=2)
    outcome = cli("report")
    for word in ("95 % interval", "bolus", "c3", "mean", "2 patients", "FP rate"):
        assert word in outcome.stdout
    assert "Only 2 patients" in outcome.stderr


def test_neither_report_nor_measure_imports_torch() -> None:
    code = (
        "import sys, vfss_distill.evaluate.report, vfss_distill.evaluate.stored;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
