"""`vfss compare`: pairs, intervals, what it leaves out and says so, and what it refuses."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from conftest import Cli
from fake_results import SIZE, FakeWorkspace, Swallow, digest
from vfss_distill.evaluate.paired import wilcoxon_p
from vfss_distill.tasks import VFSS12, TaskSet

LABELLED = (0, 10, 15)
FEW = TaskSet("few", tuple(VFSS12[task] for task in ("bolus", "pharynx", "c3")))
PATIENTS = tuple(f"p{n}" for n in range(6))


@pytest.fixture
def fake(tmp_path: Path) -> FakeWorkspace:
    return FakeWorkspace(tmp_path, FEW)


def study_of(patient: str) -> str:
    return f"{patient}-{digest(patient)[:6]}"


def add_studies(fake: FakeWorkspace, patients: tuple[str, ...], split: str = "test") -> None:
    for patient in patients:
        fake.study(study_of(patient), patient, split=split, labels=LABELLED)


def add_results(
    fake: FakeWorkspace, model: str, patients: tuple[str, ...], shift: int, **facts: Any
) -> None:
    """Patients differ in how hard they are: every other one is a pixel worse under every model."""
    for number, patient in enumerate(patients):
        fake.result(study_of(patient), model=model, shift=shift + number % 2, n=16, **facts)


def compared(cli: Cli, *words: object) -> dict[str, Any]:
    outcome = cli("compare", *words, "--json")
    assert outcome.exit_code == 0, outcome.stderr
    body: dict[str, Any] = json.loads(outcome.stdout)
    return body


@pytest.fixture(scope="session")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six labelled test patients, made once and copied."""
    made = FakeWorkspace(tmp_path_factory.mktemp("studies"), FEW)
    add_studies(made, PATIENTS)
    return made.root


@pytest.fixture(scope="session")
def results(studies: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with two models: `good` lies a pixel off the truth, `bad` three."""
    made = FakeWorkspace(tmp_path_factory.mktemp("results"), FEW)
    shutil.copytree(studies, made.root, dirs_exist_ok=True)
    add_results(made, "bad", PATIENTS, 3)
    add_results(made, "good", PATIENTS, 1)
    return made.root


@pytest.fixture
def six(fake: FakeWorkspace, studies: Path) -> FakeWorkspace:
    shutil.copytree(studies, fake.root, dirs_exist_ok=True)
    fake.splits["test"] += PATIENTS
    return fake


@pytest.fixture
def two(fake: FakeWorkspace, results: Path) -> FakeWorkspace:
    shutil.copytree(results, fake.root, dirs_exist_ok=True)
    fake.splits["test"] += PATIENTS
    return fake


def test_a_better_model_is_told_apart(two: FakeWorkspace, cli: Cli) -> None:
    body = compared(cli, "bad", "good")
    assert body["schema_version"] == 1 and body["split"] == "test"
    assert body["baseline"] == "bad" and body["n_patients"] == 6
    assert body["n_frames"] == 6 * len(LABELLED)
    (found,) = body["comparisons"]
    mean = found["mean"]
    low, high = mean["dice_difference_ci95"]
    assert 0 < low <= mean["dice_difference"] <= high
    assert mean["includes_zero"] is False and "higher" in found["verdict"]
    assert mean["wilcoxon_p"] == pytest.approx(2 / 2**6)
    for task in found["tasks"]:
        assert task["wilcoxon_p"] == pytest.approx(2 / 2**6)
        assert task["holm_p"] == pytest.approx(3 * 2 / 2**6, abs=1e-6)
        assert task["hd95_px_difference"] < 0
        assert task["dice_difference"] == pytest.approx(
            task["dice_model"] - task["dice_baseline"], abs=2e-4
        )


def test_each_side_is_what_report_says(two: FakeWorkspace, cli: Cli) -> None:
    (found,) = compared(cli, "bad", "good")["comparisons"]
    outcome = cli("report", "--json")
    models = {model["name"]: model for model in json.loads(outcome.stdout)["models"]}
    for name, side in (("bad", "dice_baseline"), ("good", "dice_model")):
        assert found["mean"][side] == models[name]["mean_dice"]
        for ours, theirs in zip(found["tasks"], models[name]["tasks"], strict=True):
            assert ours[side] == theirs["dice_mean"]


def test_the_same_masks_differ_by_nothing(six: FakeWorkspace, cli: Cli) -> None:
    for model in ("one", "other"):
        add_results(six, model, PATIENTS[:3], 1)
    (found,) = compared(cli, "one", "other")["comparisons"]
    for task in (found["mean"], *found["tasks"]):
        assert task["dice_difference"] == 0 and task["dice_difference_ci95"] == [0, 0]
        assert task["hd95_px_difference"] == 0 and task["hd95_px_difference_ci95"] == [0, 0]
        assert task["wilcoxon_p"] == 1 and task["includes_zero"] is True
    assert "the same" in found["verdict"]


def test_the_other_way_round_is_the_negative(two: FakeWorkspace, cli: Cli) -> None:
    (there,) = compared(cli, "bad", "good")["comparisons"]
    (back,) = compared(cli, "good", "bad")["comparisons"]
    for one, other in zip((there["mean"], *there["tasks"]), (back["mean"], *back["tasks"])):  # noqa: B905
        assert one["dice_difference"] == -other["dice_difference"]
        assert one["dice_difference_ci95"] == [-end for end in other["dice_difference_ci95"][::-1]]
        assert one["wilcoxon_p"] == other["wilcoxon_p"]


def test_a_gain_inside_its_interval_is_not_a_gain(six: FakeWorkspace, cli: Cli) -> None:
    add_results(six, "base", PATIENTS, 2)
    for number, patient in enumerate(PATIENTS):
        six.result(study_of(patient), model="noisy", shift=(1, 4)[number % 2], n=16)
    outcome = cli("compare", "base", "noisy")
    assert outcome.exit_code == 0, outcome.stderr
    assert "a gain inside its interval is not a gain" in outcome.stdout
    (found,) = compared(cli, "base", "noisy")["comparisons"]
    low, high = found["mean"]["dice_difference_ci95"]
    assert low < 0 < high and found["mean"]["includes_zero"] is True


def test_patients_seen_by_any_model_are_left_out_and_said(two: FakeWorkspace, cli: Cli) -> None:
    """`bad` was trained on p0, `good` on a film of p1 that the other has not segmented."""
    two.result(study_of("p0"), model="bad", shift=3, seen=True)
    two.study("p1-second", "p1", split="test", labels=LABELLED)
    two.result("p1-second", model="good", shift=1, seen=True)
    outcome = cli("compare", "bad", "good")
    assert "2 patients seen in training" in outcome.stderr and "left out" in outcome.stderr
    body = compared(cli, "bad", "good")
    assert body["n_patients"] == 4 and body["seen_in_training"] == ["p0", "p1"]
    assert not {study_of("p0"), study_of("p1")} & set(body["studies"])
    assert compared(cli, "bad", "good", "--split", "test")["n_patients"] == 4
    kept = compared(cli, "bad", "good", "--split", "all", "--name", "kept")
    assert kept["n_patients"] == 6 and kept["seen_in_training_kept"] is True
    assert any("not an estimate of performance" in line for line in kept["warnings"])
    page = (two.root / "reports/kept/index.html").read_text(encoding="utf-8")
    assert 'class="banner seen"' in page


def test_of_patients_seen_only_those_scored_are_counted(two: FakeWorkspace, cli: Cli) -> None:
    for patient in PATIENTS[:3]:
        folder = two.result(study_of(patient), model="bad", shift=3, seen=True)
        if patient != "p0":
            shutil.rmtree(folder / "masks")
    outcome = cli("compare", "bad", "good", "--split", "all", "--json")
    body = json.loads(outcome.stdout)
    assert outcome.exit_code == 3 and body["seen_in_training"] == ["p0"]
    page = (two.root / "reports/compare-001/index.html").read_text(encoding="utf-8")
    assert "1 of 4 patients seen in training" in page


def test_when_everyone_was_seen_it_refuses(fake: FakeWorkspace, cli: Cli) -> None:
    add_studies(fake, PATIENTS[:2], split="train")
    add_results(fake, "a", PATIENTS[:2], 1, seen=True)
    add_results(fake, "b", PATIENTS[:2], 2)
    outcome = cli("compare", "a", "b")
    assert outcome.exit_code == 4
    assert "seen in training" in outcome.stderr and "--split all" in outcome.stderr
    assert not (fake.root / "reports").exists()


def test_only_common_studies_count(two: FakeWorkspace, cli: Cli) -> None:
    add_studies(two, ("q1",))
    add_results(two, "good", ("q1",), 1)
    body = compared(cli, "bad", "good")
    assert body["n_patients"] == 6
    assert body["not_segmented_by"] == {"bad": [study_of("q1")]}
    assert any(study_of("q1") in line for line in body["warnings"])
    add_results(two, "elsewhere", ("q1",), 1)
    outcome = cli("compare", "bad", "elsewhere")
    assert outcome.exit_code == 4 and "vfss segment" in outcome.stderr


def test_labelled_studies_that_none_can_be_judged_on_are_said(two: FakeWorkspace, cli: Cli) -> None:
    add_studies(two, ("q1", "q2"))
    two.study("q3-front", "q3", split="test", labels=LABELLED, view="frontal")
    add_results(two, "good", ("q1",), 1)
    for model in ("bad", "good"):
        two.result("q3-front", model=model)
    warnings = compared(cli, "bad", "good")["warnings"]
    nobody = (
        f"1 labelled test study without a result of any of these models: studies/{study_of('q2')}"
    )
    assert warnings.count(nobody) == 1
    assert warnings.count("1 labelled study left out: frontal") == 1
    assert not any(study_of("q1") in line for line in warnings if "any of" in line)


def test_three_models_stand_on_the_same_ground(two: FakeWorkspace, cli: Cli) -> None:
    add_results(two, "third", PATIENTS[:5], 2)
    body = compared(cli, "bad", "good", "third")
    assert body["n_patients"] == 5
    first, second = body["comparisons"]
    assert (first["model"], second["model"]) == ("good", "third")
    assert first["mean"]["dice_baseline"] == second["mean"]["dice_baseline"]
    outcome = cli("compare", "bad", "good", "third")
    assert "good against bad" in outcome.stdout and "third against bad" in outcome.stdout


def test_advice_stands_once_where_nothing_can_be_scored(two: FakeWorkspace, cli: Cli) -> None:
    for mask in two.root.glob("results/*/bad-*/masks/c3/*.png"):
        mask.unlink()
    outcome = cli("compare", "bad", "good")
    assert outcome.exit_code == 4 and "no study can be scored: " in outcome.stderr
    assert outcome.stderr.count("again with --force") == 1


def test_other_tasks_are_left_out_and_said(two: FakeWorkspace, cli: Cli) -> None:
    wider = TaskSet("wide", (VFSS12["hyoid"], VFSS12["c3"], VFSS12["bolus"]))
    other = FakeWorkspace(two.root, wider)
    add_results(other, "wide", PATIENTS, 1)
    body = compared(cli, "bad", "wide")
    assert body["tasks"] == ["bolus", "c3"]
    text = " ".join(body["warnings"])
    assert "pharynx" in text and "hyoid" in text and "2 tasks" in text
    lone = FakeWorkspace(two.root, TaskSet("lone", (VFSS12["c7"],)))
    add_results(lone, "lone", PATIENTS, 1)
    outcome = cli("compare", "bad", "lone")
    assert outcome.exit_code == 4 and "no task in common" in outcome.stderr


def test_tasks_a_model_was_not_trained_on_are_left_out_and_said(
    two: FakeWorkspace, cli: Cli
) -> None:
    few = {"name": "few", "sha256": digest("few"), "tasks": two.tasks.to_dict()}
    facts = {**few, "untrained_tasks": ["c3"]}
    add_results(two, "few", PATIENTS, 1, model_facts=facts)
    body = compared(cli, "bad", "few")
    assert body["tasks"] == ["bolus", "pharynx"]
    assert "few was not trained on c3: left out." in body["warnings"]


def test_few_patients_are_warned_of(six: FakeWorkspace, cli: Cli) -> None:
    add_results(six, "a", PATIENTS[:4], 1)
    add_results(six, "b", PATIENTS[:4], 2)
    outcome = cli("compare", "a", "b")
    assert "rough" in outcome.stderr and "fewer than 6 patients" in outcome.stderr
    add_results(six, "c", PATIENTS[:1], 2)
    body = compared(cli, "a", "c")
    mean = body["comparisons"][0]["mean"]
    assert mean["dice_difference_ci95"] is None and mean["includes_zero"] is True
    assert "nothing can be said" in body["comparisons"][0]["verdict"]


def test_two_patients_who_agree_are_no_evidence(six: FakeWorkspace, cli: Cli) -> None:
    """Under no difference at all, two patients agree in sign, and exclude 0, one time in two."""
    add_results(six, "bad", PATIENTS[:2], 3)
    add_results(six, "good", PATIENTS[:2], 1)
    (found,) = compared(cli, "bad", "good")["comparisons"]
    assert found["mean"]["includes_zero"] is False
    assert "on these 2 patients" in found["verdict"] and "no evidence" in found["verdict"]


def test_hd95_says_of_whom_it_is(six: FakeWorkspace, cli: Cli) -> None:
    """`shy` draws c3 only in the patient in whom it is easy, and lies closer there."""
    add_results(six, "base", PATIENTS, 3)
    blank = np.zeros((SIZE, SIZE), bool)
    silent = {frame: {**Swallow().masks(frame), "c3": blank} for frame in LABELLED}
    add_results(six, "shy", PATIENTS[:1], 0)
    add_results(six, "shy", PATIENTS[1:], 3, masks=silent)
    outcome = cli("compare", "base", "shy")
    assert re.search(r"c3 .* 6 +−3\.6 +1 ", outcome.stdout), outcome.stdout
    assert "0.0 (15)" in cli("report", "--model", "shy").stdout
    (found,) = compared(cli, "base", "shy", "--name", "shy")["comparisons"]
    c3 = found["tasks"][2]
    assert (c3["n_patients"], c3["hd95_px_n_patients"], c3["hd95_px_n_frames"]) == (6, 1, 3)
    assert c3["hd95_px_missing"] == [0, 15] and c3["hd95_px_told_apart"] is False
    assert found["mean"]["hd95_px_told_apart"] is False, "it stands on c3 of one patient"
    bolus = found["tasks"][0]
    assert bolus["n_truth_empty"] == 6 and bolus["hd95_px_missing"] == [0, 0]
    with (six.root / "reports/shy/compare.csv").open(encoding="utf-8") as stream:
        lines = [line for line in csv.DictReader(stream) if line["task"] == "c3"]
    assert [int(x["hd95_px_frames"]) for x in lines] == [3, 0, 0, 0, 0, 0]
    assert sum(int(x["hd95_px_missing_model"]) for x in lines) == 15
    page = (six.root / "reports/shy/index.html").read_text(encoding="utf-8")
    row = page[page.index("C3 vertebra</td>") :].partition("</tr>")[0]
    assert "missing 0 → 15" in row and '1 <span class="soft">(3)</span>' in row
    assert re.search(r'<td class="n faded">−\d\.\d<br>', row)
    assert "0.0 → 0.0 <span" in page and "<dt>False positives</dt>" in page


def test_a_patient_in_whom_all_is_rightly_blank_counts_for_the_rates(
    two: FakeWorkspace, cli: Cli
) -> None:
    two.study("dry-aaaaaa", "dry", split="test", labels=(0, 1))  # before the bolus comes
    for model in ("bad", "good"):
        two.result("dry-aaaaaa", model=model)
    task = compared(cli, "bad", "good", "--name", "dry")["comparisons"][0]["tasks"][0]
    assert task["n_truth_empty"] == 6 + 2
    with (two.root / "reports/dry/compare.csv").open(encoding="utf-8") as stream:
        lines = [line for line in csv.DictReader(stream) if line["task"] == "bolus"]
    assert sum(int(line["truth_empty_frames"]) for line in lines) == 8
    (line,) = [line for line in lines if line["patient"] == "dry"]
    assert line["dice_difference"] == "" and line["false_positives_model"] == "0"


def test_a_task_of_few_patients_is_not_told_apart(six: FakeWorkspace, cli: Cli) -> None:
    """Both models on all six, but c3 is labelled in two of them."""
    for patient in PATIENTS[2:]:
        record = six.root / "studies" / study_of(patient) / "study.json"
        facts = json.loads(record.read_text())
        del facts["labelled"]["c3"]
        record.write_text(json.dumps(facts))
    add_results(six, "bad", PATIENTS, 3)
    add_results(six, "good", PATIENTS, 1)
    body = compared(cli, "bad", "good")
    *others, c3 = body["comparisons"][0]["tasks"]
    assert c3["includes_zero"] is False and c3["told_apart"] is False
    assert all(task["told_apart"] is True for task in others)
    said = "Few patients have c3 (2): such intervals are rough"
    assert any(line.startswith(said) for line in body["warnings"])
    outcome = cli("report")
    assert outcome.stderr.count("Few patients have c3 (2)") == 2, "once for each model"
    page = (six.root / body["page"]).read_text(encoding="utf-8")
    row = page[page.index("C3 vertebra</td>") :].partition("</tr>")[0]
    assert row.count('class="n faded"') == 2 and "fewer than 6 patients" in page


def test_patients_of_whom_nothing_counts_are_not_counted(six: FakeWorkspace, cli: Cli) -> None:
    for model, shift in (("bad", 3), ("good", 1)):
        add_results(six, model, PATIENTS, shift)
    for patient in PATIENTS[1:]:
        for masks in six.root.glob(f"*/{study_of(patient)}/**/masks/*/*.png"):
            cv2.imwrite(str(masks), np.zeros((SIZE, SIZE), np.uint8))
    outcome = cli("compare", "bad", "good")
    assert outcome.exit_code == 0, outcome.stderr
    assert "Dice of 1 patient " in outcome.stdout
    assert "One patient only" in outcome.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("bad", "nobody"), "bad, good"),
        (("bad",), "one model cannot be compared"),
        (("bad", "bad"), "named already"),
        (("bad", "good", "--name", "../out"), "cannot name"),
    ],
)
def test_wrong_usage(two: FakeWorkspace, cli: Cli, words: tuple[str, ...], said: str) -> None:
    outcome = cli("compare", *words)
    assert outcome.exit_code == 2 and said in outcome.stderr


def test_nothing_to_compare(fake: FakeWorkspace, cli: Cli) -> None:
    assert cli("compare", "a", "b").exit_code == 4
    add_studies(fake, ("p0",))
    for model in ("a", "b"):
        fake.result("s-0123456789", model=model)
    outcome = cli("compare", "a", "b")
    assert outcome.exit_code == 4 and "no labelled study" in outcome.stderr


def test_a_run_means_the_student_it_holds(two: FakeWorkspace, cli: Cli) -> None:
    """Two models are called `twin`; the run's file says which is meant."""
    student = two.root / "runs/twin/student.onnx"
    student.parent.mkdir(parents=True)
    student.write_bytes(b"a network")
    no_result = cli("compare", "bad", "twin")
    assert no_result.exit_code == 4 and "--model twin" in no_result.stderr
    for content, shift in ((b"a network", 0), (b"an older one", 4)):
        facts = {"name": "twin", "tasks": FEW.to_dict(), "sha256": sha256(content).hexdigest()}
        for patient in PATIENTS:
            folder = two.result(
                study_of(patient), model="twin", shift=shift, model_facts=facts, n=16
            )
            folder.rename(folder.with_name(f"twin-{facts['sha256'][:8]}"))
    body = compared(cli, "bad", "runs/twin/")
    assert body["models"][1]["sha256"] == sha256(b"a network").hexdigest()
    student.unlink()
    outcome = cli("compare", "bad", "twin")
    assert outcome.exit_code == 2 and "several models" in outcome.stderr
    older = compared(cli, "bad", sha256(b"an older one").hexdigest()[:10])
    assert older["comparisons"][0]["mean"]["dice_difference"] < 0


def test_an_earlier_export_is_said(two: FakeWorkspace, cli: Cli) -> None:
    student = two.root / "runs/good/student.onnx"
    student.parent.mkdir(parents=True)
    student.write_bytes(b"exported again")
    assert any("earlier export" in line for line in compared(cli, "bad", "good")["warnings"])


def test_a_damaged_result_costs_its_study_only(two: FakeWorkspace, cli: Cli) -> None:
    folder = two.root / "results" / study_of("p2") / f"good-{digest('good')[:8]}"
    (folder / "masks/c3/000010.png").write_bytes(b"no picture")
    outcome = cli("compare", "bad", "good", "--json")
    assert outcome.exit_code == 3
    body = json.loads(outcome.stdout)
    assert body["n_patients"] == 5 and study_of("p2") not in body["studies"]
    assert body["failed"][0]["input"].startswith(study_of("p2"))
    # A damaged result of a model that was not asked for is nobody's business here.
    folder.with_name("stranger-00000000").mkdir()
    folder.with_name("good-00000000").mkdir()  # nor one of its name, exported before
    assert len(json.loads(cli("compare", "bad", "good", "--json").stdout)["failed"]) == 1


def test_what_is_invented_shows_beside_the_dice(six: FakeWorkspace, cli: Cli) -> None:
    """By itself a model that rightly predicts nothing has no Dice there; the rates tell too."""
    add_results(six, "calm", PATIENTS[:2], 1)
    bolus = Swallow().masks(10)["bolus"]
    invented = {0: {**Swallow().masks(0), "bolus": bolus}}
    add_results(six, "eager", PATIENTS[:2], 1, masks=invented)
    (found,) = compared(cli, "calm", "eager")["comparisons"]
    task = found["tasks"][0]
    assert task["false_positive_rates"] == [0, 1] and task["dice_difference"] < 0
    assert found["tasks"][1]["false_positive_rates"] is None


def test_who_invents_a_structure_that_a_patient_lacks_pays_for_it(
    six: FakeWorkspace, cli: Cli
) -> None:
    add_results(six, "calm", PATIENTS[:2], 1)
    add_results(six, "eager", PATIENTS[:2], 1)
    six.study("dry-aaaaaa", "dry", split="test", labels=(0, 1))  # before the bolus comes
    six.result("dry-aaaaaa", model="calm")
    bolus = Swallow().masks(10)["bolus"]
    six.result("dry-aaaaaa", model="eager", masks={0: {**Swallow().masks(0), "bolus": bolus}})
    body = compared(cli, "calm", "eager", "--name", "dry")
    (found,) = body["comparisons"]
    task = found["tasks"][0]
    assert task["n_patients"] == 3 and task["n_frames"] == 2 * 2 + 1
    assert task["dice_difference"] == pytest.approx(-1 / 3, abs=1e-4)
    assert found["mean"]["dice_difference"] < 0
    with (six.root / "reports/dry/compare.csv").open(encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    (line,) = [x for x in lines if x["patient"] == "dry" and x["task"] == "bolus"]
    assert (float(line["dice_baseline"]), float(line["dice_model"])) == (1, 0)
    (back,) = compared(cli, "eager", "calm")["comparisons"]
    assert back["tasks"][0]["dice_difference"] == -task["dice_difference"]


def test_the_folder_it_leaves(two: FakeWorkspace, cli: Cli) -> None:
    evil = "<script>x</script>"
    add_results(two, "plain", PATIENTS, 2, model_facts={
        "name": evil, "sha256": digest("plain"), "tasks": FEW.to_dict(),
    })  # fmt: skip
    printed = compared(cli, "bad", digest("plain")[:8])
    folder = two.root / printed["report"]
    assert printed["report"] == "reports/compare-001"
    assert sorted(path.name for path in folder.iterdir()) == [
        "compare.csv",
        "compare.json",
        "index.html",
    ]
    stored = json.loads((folder / "compare.json").read_text(encoding="utf-8"))
    assert stored.pop("provenance")["bootstrap_resamples"] == 2000
    assert stored == printed
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "<div>difference in mean Dice, 95 % interval" in page
    assert "<script" not in page and "default-src 'none'" in page
    assert page.count("<svg") == 2 and not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert str(two.root) not in page + json.dumps(stored)
    with (folder / "compare.csv").open(encoding="utf-8") as stream:
        lines = [line for line in csv.DictReader(stream) if line["task"] == "c3"]
    assert len(lines) == 6
    task = printed["comparisons"][0]["tasks"][2]
    values = [float(line["dice_difference"]) for line in lines]
    assert np.mean(values) == pytest.approx(task["dice_difference"], abs=1e-4)
    assert task["wilcoxon_p"] == pytest.approx(wilcoxon_p(values), abs=1e-6)


def test_names_and_repetition(two: FakeWorkspace, cli: Cli) -> None:
    first = compared(cli, "bad", "good", "--name", "mine")
    assert first["report"] == "reports/mine"
    again = cli("compare", "bad", "good", "--name", "mine")
    assert again.exit_code == 2 and "--force" in again.stderr
    assert compared(cli, "bad", "good", "--name", "mine", "--force") == first
    other = compared(cli, "bad", "good", "--seed", "5", "--name", "seed5")
    assert (
        other["comparisons"][0]["mean"]["dice_difference"]
        == (first["comparisons"][0]["mean"]["dice_difference"])
    )


def test_torch_is_not_needed(two: FakeWorkspace) -> None:
    code = (
        "import sys\nfrom vfss_distill.commands.main import app\n"
        "try: app(['compare', 'bad', 'good', '-q'])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=two.root, check=True, capture_output=True)
