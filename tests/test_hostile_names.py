"""Names that are formulas to a spreadsheet or markup to a terminal: shown as they are. And names
that are written in two ways and look alike: one."""

from __future__ import annotations

import csv
import json
import shutil
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import Cli
from fake_results import FakeWorkspace
from ingest_jobs import identities, ingested, stored, write_mask
from intake_films import write_dicom, write_film, write_images
from label_world import make_world, ok
from vfss_distill.config import DistillConfig
from vfss_distill.distill.model_card import CardFacts, model_card
from vfss_distill.tasks import VFSS12, TaskSet

FORMULA = "=1+1"
MARKUP = "[bold]x"
NFC, NFD = "M\u00fcller", "Mu\u0308ller"

# On Linux both forms are names of their own; a Mac's disk takes them for one, or rewrites them.
two_folders = pytest.mark.skipif(sys.platform != "linux", reason="both may be one folder")


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


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
def test_names_that_would_move_a_terminal(cli: Cli, tmp_path: Path) -> None:
    """As a recording that fails and as one that is skipped."""
    folder = tmp_path / "v" / "pa\nt\x1b[31m"
    write_film(folder / "a.mp4", frames=3)
    (folder / "b.mp4").write_bytes(b"junk")
    for given in ("v", tmp_path / "v"):
        said = cli("ingest", given)
        assert said.exit_code == 3
        assert "\x1b" not in said.stdout + said.stderr
        assert "v/pa\\nt\\x1b[31m/b.mp4: is not a film" in said.stderr
    assert "skipped v/pa\\nt\\x1b[31m/a.mp4: already ingested" in said.stdout.splitlines()[0]


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


@two_folders
def test_a_patient_in_two_unicode_forms_is_one(cli: Cli, tmp_path: Path) -> None:
    assert unicodedata.normalize("NFC", NFD) == NFC != NFD
    write_film(tmp_path / "v" / NFC / "visit1.mp4", frames=3)
    write_film(tmp_path / "v" / NFD / "visit2.mp4", frames=4)
    write_dicom(tmp_path / "v" / "x" / "a.dcm", 5, PatientID=NFD, SpecificCharacterSet="ISO_IR 192")
    said = cli("ingest", "v").stderr
    assert said.count("two folders have this name; taken as one patient") == 1
    assert len({study.patient for study in stored(tmp_path)}) == 1
    assert {row["source_patient"] for row in identities(tmp_path)} == {NFC, NFD}  # as given
    assert len(ingested(cli, "v")["skipped"]) == 3


def test_a_table_finds_films_in_another_form(cli: Cli, tmp_path: Path) -> None:
    for frames, name in ((3, f"{NFD}/a.mp4"), (4, f"x/{NFD}.mp4"), (5, "y/b.mp4")):
        write_film(tmp_path / "v" / name, frames=frames)
    rows = [f"{NFC}/a.mp4,{NFC},S\u00fcd", f"{NFC.upper()},{NFD},Su\u0308d", f"b,{NFC},S\u00fcd"]
    again = f"b,{NFD},Su\u0308d"  # no other patient
    who = "\n".join(["file,patient,site", *rows, again])
    (tmp_path / "who.csv").write_text(who, encoding="utf-8")
    (tmp_path / "views.csv").write_text(f"file,view,facing\n{NFC},frontal,\n", encoding="utf-8")
    boxes = f"file,x,y,width,height\n{NFC}/a.mp4,0,0,9,9\n"
    (tmp_path / "boxes.csv").write_text(boxes, encoding="utf-8")
    tables = ("--patients", "who.csv", "--views", "views.csv", "--blank-boxes", "boxes.csv")
    outcome = cli("ingest", "v", *tables)
    assert outcome.exit_code == 0 and "names what is none" not in outcome.stderr
    studies = {study.record.frames: study for study in stored(tmp_path)}
    assert len({(study.patient, study.record.site) for study in studies.values()}) == 1
    assert studies[4].record.view == "frontal"
    assert "given" in {box.reason for box in studies[3].record.blanked}


@pytest.mark.parametrize(("film", "masks"), [(NFC, NFD), (NFD, NFC)])
def test_masks_are_found_in_another_form(film: str, masks: str, cli: Cli, tmp_path: Path) -> None:
    """Beside the film, beside images by an image's name, and below the folders of --labels."""
    write_film(tmp_path / "v" / f"{film}.mp4", frames=3)
    write_mask(tmp_path / "v" / f"{masks}_masks" / "c2" / "0.png")
    images = write_images(tmp_path / "w" / film, 4).path
    (images / "0001.png").rename(images / f"{film}.png")
    write_mask(tmp_path / "w" / f"{masks}_masks" / "c4" / f"{masks}.png")
    write_film(tmp_path / "x" / film / "one.mp4", frames=5)
    write_mask(tmp_path / "drawn" / masks / "one" / "c3" / "1.png")
    ingested(cli, "v", "w")
    assert "--labels" not in cli("ingest", "x", "--labels", "drawn").stderr
    labelled = {study.record.frames: study.record.labelled for study in stored(tmp_path)}
    assert labelled == {3: {"c2": (0,)}, 4: {"c4": (3,)}, 5: {"c3": (1,)}}


@two_folders
def test_masks_that_films_in_two_forms_could_claim(cli: Cli, tmp_path: Path) -> None:
    for frames, name in ((3, NFC), (4, NFD)):
        write_film(tmp_path / "v" / f"{name}.mp4", frames=frames)
    write_mask(tmp_path / "v" / f"{NFC}_masks" / "c2" / "0.png")
    assert "2 recordings of one name" in str(ingested(cli, "v", code=4)["failed"])
    shutil.move(tmp_path / "v" / f"{NFC}_masks", tmp_path / "drawn" / NFC)
    failed = ingested(cli, "v", "--labels", "drawn", code=4)["failed"]
    assert str(failed).count("2 recordings of one name") == 2
    write_mask(tmp_path / "v" / f"{NFC}_masks" / "c2" / "0.png")  # each its own
    write_mask(tmp_path / "v" / f"{NFD}_masks" / "c3" / "0.png")
    assert len(ingested(cli, "v")["studies"]) == 2


def _as_before(patch: pytest.MonkeyPatch) -> None:
    """Versions that keyed names as they were written."""
    patch.setattr("vfss_distill.intake.identities.plain_name", lambda name: name)
    patch.setattr("vfss_distill.intake.identities.spellings", lambda name: (name,))


def test_pseudonyms_of_an_older_workspace_stay(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_film(tmp_path / "v" / NFD / "a.mp4", frames=3)
    with monkeypatch.context() as patch:
        _as_before(patch)
        ingested(cli, "v")
    rows = identities(tmp_path)
    assert len(ingested(cli, "v")["skipped"]) == 1
    ingested(cli, "v", "--force")
    assert identities(tmp_path) == rows
    write_film(tmp_path / "w" / NFC / "b.mp4", frames=4)
    assert ingested(cli, "w")["studies"][0]["patient"] == rows[0]["patient"]
    # The rows may be deleted on purpose; the key still knows who was keyed.
    (tmp_path / "identities.csv").unlink()
    write_film(tmp_path / "w" / NFC / "c.mp4", frames=5)
    ingested(cli, "v", "w")
    assert {study.patient for study in stored(tmp_path)} == {rows[0]["patient"]}


@two_folders
def test_a_patient_who_is_two_from_before_is_told(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for frames, name in ((3, NFC), (4, NFD), (5, "x"), (6, "y")):
        write_film(tmp_path / "v" / name / "a.mp4", frames=frames)
    with monkeypatch.context() as patch:
        _as_before(patch)
        ingested(cli, "v")
    patients = {row["source_patient"]: row["patient"] for row in identities(tmp_path)}
    twins, others = sorted((patients[NFC], patients[NFD])), f"{patients['x']}, {patients['y']}"
    (tmp_path / "splits.yaml").write_text(
        f"train: [{twins[0]}]\nval: [{others}]\ntest: [{twins[1]}]\n"
    )
    again = cli("ingest", "v")
    assert again.exit_code == 0 and "4 skipped" in again.stdout
    assert f"{twins[0]} and {twins[1]} have one name" in again.stderr
    (tmp_path / "splits.yaml").write_text(
        f"train: [{', '.join(twins)}]\nval: []\ntest: [{others}]\n"
    )
    assert "have one name" not in cli("ingest", "v").stderr
