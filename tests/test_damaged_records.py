"""A `study.json` that cannot be read: what goes on without that study, and what must not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom.uid import generate_uid

from conftest import Cli
from ingest_jobs import identities, ingested, stored, write_mask
from intake_films import write_dicom, write_film, write_image
from label_world import coco, forget_labels, make_world, put
from tiny_studies import small_world, write_splits
from vfss_distill.errors import DataError
from vfss_distill.intake.splits import load_splits
from vfss_distill.intake.study import Study, list_studies
from vfss_distill.workspace import Workspace


@pytest.mark.parametrize(
    "words", [("distill", "--teachers", "none", "--device", "cpu"), ("ingest", "--lock-test")]
)
def test_what_a_missing_study_would_change_stops_and_names_all(
    words: tuple[str, ...], tmp_path: Path, cli: Cli
) -> None:
    workspace = small_world(tmp_path)
    first, second, *_ = list_studies(workspace)
    (first.folder / "study.json").write_text("{")
    (second.folder / "study.json").unlink()
    before = workspace.splits_file.read_bytes()
    outcome = cli(*words)
    assert outcome.exit_code == 4
    (line,) = outcome.stderr.splitlines()
    assert f"studies/{first.id}/study.json: not readable as JSON; " in line
    assert f"studies/{second.id}/study.json: file is missing. Put study.json back" in line
    assert "move its folder out of studies/" in line
    assert workspace.splits_file.read_bytes() == before and not list(tmp_path.glob("runs/*"))
    (second.folder / "study.json").write_text("[]")
    with pytest.raises(DataError, match="holds no JSON object"):
        list_studies(workspace)


@pytest.fixture
def lab(cli: Cli, tmp_path: Path) -> Path:
    """A study of each of three patients, of whom two have masks."""
    for number, name in enumerate(("anna", "bert", "carl")):
        write_film(tmp_path / "v" / name / "a.mp4", frames=4 + number)
    for name in ("anna", "bert"):
        write_mask(tmp_path / "v" / name / "a_masks" / "bolus" / "000000.png")
    ingested(cli, "v")
    return tmp_path


def of(lab: Path, name: str) -> Study:
    """The study of a patient who has one."""
    (row,) = [row for row in identities(lab) if row["source_patient"] == name]
    return next(study for study in stored(lab) if study.id == row["study"])


def damage(study: Study, text: str | None = "{") -> None:
    record = study.folder / "study.json"
    record.unlink()
    if text is not None:
        record.write_text(text)


def asked_for(cli: Cli, tmp_path: Path) -> tuple[Study, str]:
    """A study with boxes (two that overlap, one that is dark in places), a side and an imported
    mask, beside that of its film; and its record. The tables are given no more."""
    pixels = np.random.default_rng(0).integers(1, 256, (30, 40, 60), np.uint8)
    pixels[:, 34:36, 22:30] = 0
    write_dicom(tmp_path / "v" / "p" / "case.dcm", pixels=pixels)
    write_mask(tmp_path / "v" / "p" / "case_masks" / "bolus" / "000003.png", shape=(40, 60))
    boxes = ("50,0,99,8", "55,0,5,20", "20,30,12,8", "0,0,3,3")
    table = "".join(f"case.dcm,{box}\n" for box in boxes)
    (tmp_path / "boxes.csv").write_text(f"file,x,y,width,height\n{table}")
    (tmp_path / "views.csv").write_text("file,view,facing\ncase.dcm,lateral,right\n")
    ingested(cli, "v", "--blank-boxes", "boxes.csv", "--views", "views.csv")
    (study,) = stored(tmp_path)
    write_mask(tmp_path / "mine" / "hyoid" / "000002.png", shape=(40, 60))
    assert cli("labels", "import", "mine", "--study", study.id).exit_code == 0
    return stored(tmp_path)[0], (study.folder / "study.json").read_text()


def pixels_of(study: Study) -> dict[str, bytes]:
    """Frames and masks of a study by their place, decoded."""
    return {
        path.relative_to(study.folder).as_posix(): cv2.imread(str(path), 0).tobytes()
        for path in sorted(study.folder.rglob("*.png"))
    }


def newcomer(lab: Path) -> Path:
    return write_film(lab / "new" / "dora" / "a.mp4", frames=9).path


class TestIngest:
    @pytest.mark.parametrize("text", [None, "", '{"study": "p', "[]", "{}", "folder"])
    def test_other_films_are_ingested(self, text: str | None, lab: Path, cli: Cli) -> None:
        study = of(lab, "bert")
        damage(study, None if text == "folder" else text)
        if text == "folder":
            (study.folder / "study.json").mkdir()
        newcomer(lab)
        other = ingested(cli, "new", code=3)
        assert [one["frames"] for one in other["studies"]] == [9]
        assert [one["input"] for one in other["failed"]] == [f"studies/{study.id}"]
        assert "with --force" in other["failed"][0]["error"]

        again = ingested(cli, "v", code=3)
        assert len(again["skipped"]) == 2 and again["studies"] == []
        (failed,) = again["failed"]  # named once, as the film that it is
        assert failed["input"] == "v/bert/a.mp4" and study.id in failed["error"]
        assert (study.folder / "masks").is_dir() and len(identities(lab)) == 4

    def test_force_mends_it_under_the_same_key_and_split(self, lab: Path, cli: Cli) -> None:
        study, splits = of(lab, "bert"), (lab / "splits.yaml").read_bytes()
        before, rows = (study.folder / "study.json").read_bytes(), identities(lab)
        damage(study)
        (lab / "copy" / "bert").mkdir(parents=True)
        shutil.copy(lab / "v" / "bert" / "a.mp4", lab / "copy" / "bert")
        outcome = cli("ingest", "v/bert", "copy", "--force")  # the first input names no patient
        assert outcome.exit_code == 0, outcome.stderr
        assert "lost with its damaged record: what --views said of" in outcome.stderr
        assert "same recording as" in outcome.stdout
        assert (study.folder / "study.json").read_bytes() == before
        assert (lab / "splits.yaml").read_bytes() == splits and len(stored(lab)) == 3
        assert [row["study"] for row in identities(lab)] == [row["study"] for row in rows]
        assert ingested(cli, "v")["failed"] == []

    @pytest.mark.parametrize("told", [True, False])
    def test_what_a_person_did_to_it_is_kept(self, told: bool, cli: Cli, tmp_path: Path) -> None:
        """Boxes, side and imported masks: from what is left of the record, and from the files."""
        study, record = asked_for(cli, tmp_path)
        before = pixels_of(study)
        damage(study, record.replace('"width": ', '"width": -') if told else "")
        outcome = cli("ingest", "v", "--force", "--quiet")
        assert outcome.exit_code == 0, outcome.stderr
        lost = "p/case.dcm: lost with its damaged record: what --views said of lateral or frontal"
        assert (lost in outcome.stderr) is not told
        (mended,) = stored(tmp_path)
        assert pixels_of(mended) == before
        assert mended.record.view_by == "table" and mended.record.mirrored
        assert mended.record.labelled == {"bolus": (3,), "hyoid": (2,)}
        again = cli("ingest", "v", "--force")  # whole again, it keeps what tables had said
        assert "made anew without the labels that were imported" in again.stderr
        after = {name: data for name, data in before.items() if "hyoid" not in name}
        assert pixels_of(stored(tmp_path)[0]) == after

    def test_masks_are_turned_with_a_side_that_is_given_now(self, cli: Cli, tmp_path: Path) -> None:
        study, _ = asked_for(cli, tmp_path)
        mask = study.read_mask("hyoid", 2)
        assert mask is not None
        damage(study)
        (tmp_path / "views.csv").write_text("file,view,facing\ncase.dcm,lateral,left\n")
        outcome = cli("ingest", "v", "--force", "--views", "views.csv")
        assert outcome.exit_code == 0 and "lost with" not in outcome.stderr
        turned = stored(tmp_path)[0].read_mask("hyoid", 2)
        assert turned is not None and np.array_equal(turned, mask[:, ::-1])

    def test_of_two_masks_for_a_frame_the_study_s_is_kept(self, lab: Path, cli: Cli) -> None:
        study = of(lab, "bert")
        before = pixels_of(study)
        damage(study)
        film_s = lab / "v" / "bert" / "a_masks" / "bolus" / "000000.png"
        write_mask(film_s, blank=True)
        outcome = cli("ingest", "v/bert", "--force")
        assert outcome.exit_code == 0 and "1 mask of this study differ" in outcome.stderr
        assert pixels_of(of(lab, "bert")) == before
        ingested(cli, "v/bert", "--force")
        mask = of(lab, "bert").read_mask("bolus", 0)
        assert mask is not None and not mask.any()

    @pytest.mark.parametrize("how", ["other", "damaged", "gone", "size", "beyond"])
    def test_masks_that_fit_no_more_are_not_written_over(
        self, how: str, lab: Path, cli: Cli
    ) -> None:
        study = of(lab, "bert")
        damage(study)
        frames = sorted((study.folder / "frames").iterdir())
        masks = study.folder / "masks" / "bolus"
        if how in ("other", "damaged"):
            other = np.random.default_rng(0).integers(1, 256, (96, 128), np.uint8)
            for path in frames:
                write_image(path, other) if how == "other" else path.write_bytes(b"")
        elif how == "gone":
            shutil.rmtree(study.folder / "frames")
        elif how == "size":
            write_mask(masks / "000001.png", shape=(48, 64))
        else:
            write_mask(masks / "000009.png")
        newcomer(lab)
        told = ingested(cli, "v/bert", "new", "--force", "--quiet", code=3)
        assert [one["frames"] for one in told["studies"]] == [9]
        (failed,) = told["failed"]
        assert failed["input"] == "v/bert/a.mp4" and study.id in failed["error"]
        assert ("move" in failed["error"].lower()) and masks.is_dir()
        shutil.rmtree(study.folder / "masks")
        shutil.rmtree(study.folder / "frames", ignore_errors=True)
        outcome = cli("ingest", "v/bert", "--force", "--quiet")
        assert outcome.exit_code == 0
        assert "lateral or frontal and boxes of --blank-boxes. If there was any" in outcome.stderr

    def test_a_mask_that_cannot_be_read_is_told_of(self, lab: Path, cli: Cli) -> None:
        study = of(lab, "carl")
        damage(study)
        (study.folder / "masks" / "bolus").mkdir(parents=True)
        (study.folder / "masks" / "bolus" / "000002.png").write_bytes(b"\x89PNG")
        outcome = cli("ingest", "v/carl", "--force", "--quiet")
        assert outcome.exit_code == 0
        assert "1 mask that cannot be read (bolus/000002.png)" in outcome.stderr

    def test_a_film_that_cannot_be_read_mends_nothing(self, lab: Path, cli: Cli) -> None:
        study = of(lab, "bert")
        film = lab / "v" / "bert" / "a.mp4"
        damage(study)
        film.write_bytes(film.read_bytes()[:100])
        failed = ingested(cli, "v", "--force", code=3)["failed"]
        assert {one["input"] for one in failed} == {"v/bert/a.mp4", f"studies/{study.id}"}
        assert (study.folder / "masks").is_dir()

    def test_its_patient_gets_no_second_key(self, cli: Cli, tmp_path: Path) -> None:
        """The table that named him is not given now; a copy lies with another patient's films."""
        write_film(tmp_path / "v" / "anna" / "a.mp4", frames=4)
        (tmp_path / "who.csv").write_text("file,patient,site\na.mp4,007,north\n")
        (first,) = ingested(cli, "v", "--patients", "who.csv")["studies"]
        (study,) = stored(tmp_path)
        site, rows = study.record.site, identities(tmp_path)
        damage(study)
        (tmp_path / "w" / "bert").mkdir(parents=True)
        shutil.copy(tmp_path / "v" / "anna" / "a.mp4", tmp_path / "w" / "bert")
        for words in (("w",), ("w", "--force")):
            refused = ingested(cli, *words, code=4)
            assert refused["studies"] == [] and identities(tmp_path) == rows
        assert "given for patient" in refused["failed"][0]["error"]
        (mended,) = ingested(cli, "v", "--force")["studies"]
        assert (mended["study"], mended["split"]) == (first["study"], first["split"])
        assert identities(tmp_path) == rows and stored(tmp_path)[0].record.site == site != ""

    def test_its_exam_is_given_to_no_other_patient(self, cli: Cli, tmp_path: Path) -> None:
        """What names no patient may be of the exam whose patient stood in the damaged record."""
        exam = generate_uid()
        write_dicom(tmp_path / "1" / "a" / "IM1", 4, PatientID="A", StudyInstanceUID=exam)
        write_dicom(tmp_path / "2" / "b" / "IM1", 5, PatientID="", StudyInstanceUID=exam)
        write_dicom(tmp_path / "2" / "c" / "IM1", 6, PatientID="C", StudyInstanceUID=exam)
        (first,) = ingested(cli, "1")["studies"]
        damage(stored(tmp_path)[0])
        told = ingested(cli, "2/b", "2/c", code=3)
        assert [one["frames"] for one in told["studies"]] == [6]
        assert "may be of one DICOM study" in told["failed"][0]["error"]
        shutil.rmtree(tmp_path / "studies" / told["studies"][0]["study"])
        later = ingested(cli, "1", "2/b", "--force")["studies"]
        assert {one["patient"] for one in later} == {first["patient"]} and len(later) == 2

    @pytest.mark.parametrize("name", ["anna", "bert", "carl"])
    def test_newcomers_are_dealt_as_if_it_were_whole(self, name: str, lab: Path, cli: Cli) -> None:
        for number in range(4):
            film = write_film(lab / "new" / f"d{number}" / "a.mp4", frames=9 + number).path
            if number % 2:
                write_mask(film.parent / "a_masks" / "bolus" / "000000.png")
        twin = lab / "twin"
        for part in ("studies", "new"):
            shutil.copytree(lab / part, twin / part)
        for file in ("splits.yaml", "vfss.yaml", "identities.csv", "identities.key"):
            shutil.copy(lab / file, twin)
        ingested(cli, "new", "--workspace", "twin")
        damage(of(lab, name))
        assert len(ingested(cli, "new", code=3)["studies"]) == 4
        assert (lab / "splits.yaml").read_bytes() == (twin / "splits.yaml").read_bytes()

    def test_who_has_no_part_yet_waits_for_his_record(self, lab: Path, cli: Cli) -> None:
        study = of(lab, "carl")
        damage(study)
        before = load_splits(Workspace(lab))
        parts = {part: getattr(before, part) for part in ("train", "val", "test")}
        write_splits(Workspace(lab), **{
            part: [one for one in some if one != study.patient] for part, some in parts.items()
        })  # fmt: skip
        splits = lab / "splits.yaml"
        ingested(cli, "v", code=3)
        assert study.patient not in splits.read_text()
        ingested(cli, "v/carl", "--force")
        assert study.patient in splits.read_text()

    def test_a_link_to_a_disk_that_is_not_there_is_kept(self, lab: Path, cli: Cli) -> None:
        study = of(lab, "bert")
        study.folder.rename(lab / "away")
        study.folder.symlink_to(lab / "nowhere")
        for words in (("v",), ("v", "--force")):
            (failed,) = ingested(cli, *words, code=3)["failed"]
            assert failed["input"] == "v/bert/a.mp4"
            assert "a link that leads nowhere. Bring its disk back" in failed["error"]
        assert study.folder.is_symlink() and len(identities(lab)) == 3

    @pytest.mark.parametrize("text", ["whole", "", None])
    def test_a_folder_that_does_not_tell_its_recording(
        self, text: str | None, lab: Path, cli: Cli
    ) -> None:
        """Renamed, its film would be taken for a new one; other films are."""
        study = of(lab, "bert")
        if text != "whole":
            damage(study, text)
        renamed = study.folder.rename(study.folder.with_name("bert again"))
        newcomer(lab)
        told = ingested(cli, "new", "v", "--force", "--quiet", code=3)
        assert sorted(one["frames"] for one in told["studies"]) == [4, 6, 9]
        film, folder = told["failed"]
        assert film["input"] == "v/bert/a.mp4" and study.id in film["error"]
        assert "studies/bert again" in film["error"]
        assert folder["input"] == "studies/bert again"
        assert "give it its name again" in folder["error"]
        assert (f"({study.id})" in folder["error"]) is (text == "whole")
        assert len(identities(lab)) == 4 and len(list((lab / "studies").iterdir())) == 4
        renamed.rename(study.folder)
        assert ingested(cli, "v/bert", "--force")["studies"][0]["study"] == study.id

    def test_a_copy_of_a_study_is_named_and_stops_nothing(self, lab: Path, cli: Cli) -> None:
        study = of(lab, "bert")
        shutil.copytree(study.folder, study.folder.with_name("copy"))
        newcomer(lab)
        told = ingested(cli, "v", "new", code=3)
        assert len(told["studies"]) == 1 and len(told["skipped"]) == 3
        assert [one["input"] for one in told["failed"]] == ["studies/copy"]

    def test_a_lock_that_cannot_be_made_hides_nothing(self, lab: Path, cli: Cli) -> None:
        study = of(lab, "bert")
        text = (study.folder / "study.json").read_text()
        damage(study)
        newcomer(lab)
        told = ingested(cli, "new", "--lock-test", code=4)
        assert len(told["studies"]) == 1 and not told["test_locked"]
        damage(study, text)
        assert ingested(cli, "new", "--lock-test")["test_locked"]
        damage(study)
        assert ingested(cli, "new", "--lock-test", code=3)["test_locked"]

    def test_a_lost_key_is_said(self, cli: Cli, tmp_path: Path) -> None:
        write_film(tmp_path / "v" / "anna" / "a.mp4", frames=4)
        ingested(cli, "v")
        damage(list_studies(Workspace(tmp_path))[0])
        (tmp_path / "identities.key").unlink()
        (tmp_path / "identities.csv").unlink()
        newcomer(tmp_path)
        assert "identities.key is missing" in cli("ingest", "new").stderr


class TestLabelsImport:
    @pytest.fixture
    def world(self, tmp_path: Path) -> Workspace:
        """Two studies without labels, and a file with a label of each."""
        world = make_world(tmp_path)
        forget_labels(world)
        images = [
            {"id": number, "file_name": f"{study.id}/000002.png", "height": 48, "width": 64}
            for number, study in enumerate(list_studies(world))
        ]
        square = [10.0, 10.0, 20.0, 10.0, 20.0, 22.0, 10.0, 22.0]
        shapes = [
            {"id": number, "image_id": number, "category_id": 1, "segmentation": [square]}
            for number in (0, 1)
        ]
        changes = {"images": images, "annotations": shapes}
        bolus = [{"id": 1, "name": "bolus"}]
        put(world.root / "both.json", coco("", categories=bolus, **changes))
        return world

    def test_whole_studies_are_labelled(self, world: Workspace, cli: Cli) -> None:
        first, second = list_studies(world)
        damage(first)
        outcome = cli("labels", "import", "both.json", "--json", cwd=world.root)
        assert outcome.exit_code == 3
        body = json.loads(outcome.stdout)
        assert [one["study"] for one in body["studies"]] == [second.id]
        assert [one["input"] for one in body["failed"]] == [f"studies/{first.id}"]
        assert f"studies/{first.id}: not readable as JSON. Put" in outcome.stderr
        assert not (first.folder / "masks").exists()
        assert Study.open(second.folder).record.labelled == {"bolus": (2,)}

    def test_labels_of_a_damaged_study_are_not_taken_for_another_s(
        self, world: Workspace, cli: Cli
    ) -> None:
        first, second = list_studies(world)
        damage(first)
        words = ("labels", "import", "both.json")
        outcome = cli(*words, "--study", second.id, cwd=world.root)
        assert outcome.exit_code == 0 and "1 frames are of other studies" in outcome.stderr
        asked = cli(*words, "--study", first.id, cwd=world.root)
        assert asked.exit_code == 4
        assert asked.stderr.startswith(f"error: studies/{first.id}: not readable as JSON. Put")

    def test_nothing_but_damaged_studies(self, world: Workspace, cli: Cli) -> None:
        for study in list_studies(world):
            damage(study)
        outcome = cli("labels", "import", "both.json", cwd=world.root)
        assert outcome.exit_code == 4 and outcome.stderr.count("error: studies/") == 2

    def test_one_that_the_file_does_not_label_is_no_matter(
        self, world: Workspace, cli: Cli
    ) -> None:
        first, second = list_studies(world)
        put(world.root / "one.json", coco(second.id, categories=[
            {"id": 3, "name": "hyoid"}, {"id": 1, "name": "bolus"},
        ]))  # fmt: skip
        damage(first)
        outcome = cli("labels", "import", "one.json", cwd=world.root)
        assert outcome.exit_code == 0 and first.id not in outcome.stderr


def test_labels_check_reads_each_record_once(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(tmp_path)
    damage(list_studies(world)[0])
    read: list[str] = []
    one = Study.open
    monkeypatch.setattr(
        Study, "open", classmethod(lambda cls, folder: read.append(folder.name) or one(folder))
    )
    outcome = cli("labels", "check", cwd=world.root)
    assert outcome.exit_code == 4 and outcome.stderr.count("error: studies/") == 1
    assert len(read) == 2


@pytest.mark.parametrize("place", ["masks/bolus", "frames"])
def test_a_file_that_cannot_be_read_keeps_one_study_out_of_an_export(
    place: str, tmp_path: Path, cli: Cli
) -> None:
    world = make_world(tmp_path)
    first, second = list_studies(world)
    (first.folder / place / "000002.png").write_bytes(b"")
    words = ("labels", "export", "out", "--format", "labelme", "--pictures", "--json")
    outcome = cli(*words, cwd=world.root)
    assert outcome.exit_code == 3, outcome.stderr
    assert f"error: {first.id}: " in outcome.stderr and "000002.png: is missing" in outcome.stderr
    body = json.loads(outcome.stdout)
    assert body["studies"] == [second.id]
    assert [one["input"] for one in body["failed"]] == [first.id]
    assert not list((world.root / "out").rglob(f"*{first.id}*"))
    (second.folder / place / "000002.png").unlink()
    outcome = cli(*words, "--force", cwd=world.root)
    assert outcome.exit_code == 4 and (world.root / "out").is_dir()
    assert all(f"{one.id}: " in outcome.stderr for one in (first, second))
