"""`vfss ingest`, as a user meets it."""

from __future__ import annotations

import csv
import errno
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from conftest import Cli
from intake_films import (
    HEIGHT,
    WIDTH,
    barcode,
    read_barcode,
    write_dicom,
    write_film,
    write_image,
    write_images,
    write_sound,
)
from vfss_distill.config import lab_tasks
from vfss_distill.intake import study as study_module
from vfss_distill.intake.source import find_sources, open_source
from vfss_distill.intake.splits import load_splits
from vfss_distill.intake.study import Study, find_study, list_studies
from vfss_distill.workspace import Workspace

TONGUE = "name: tongue\ntasks:\n  - {id: tongue, may_be_absent: true}\n"


def stored(folder: Path) -> list[Study]:
    return list_studies(Workspace(folder))


def ingested(cli: Cli, *words: object, code: int = 0) -> dict[str, Any]:
    """The JSON of one ingest, whose exit code must be `code`."""
    outcome = cli("ingest", *words, "--json")
    assert outcome.exit_code == code, outcome.stderr
    assert "Traceback" not in outcome.stderr
    result: dict[str, Any] = json.loads(outcome.stdout)
    return result


def write_mask(
    path: Path, *, blank: bool = False, shape: tuple[int, int] = (HEIGHT, WIDTH)
) -> None:
    mask = np.zeros(shape, np.uint8)
    if not blank:
        mask[10:30, 20:60] = 255
    write_image(path, mask)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Three patients, five recordings of five kinds, labels for two of them."""
    folder = tmp_path / "videos"
    write_film(folder / "anna" / "one.mp4", variable=True)
    write_film(folder / "anna" / "two.avi", "mjpeg", "yuvj420p", frames=30)
    write_film(folder / "bert" / "one.mkv", frames=20)
    write_images(folder / "bert" / "run 2", 12)
    write_dicom(folder / "röntgen ä" / "x.dcm", 15, rle=True, PatientID="12345")
    for frame in (0, 7):
        write_mask(folder / "anna" / "one_masks" / "bolus" / f"{frame:06d}.png", blank=frame == 7)
    write_mask(folder / "anna" / "one_masks" / "c2" / "frame_7.jpg")
    write_mask(folder / "bert" / "run 2_masks" / "hyoid" / "0003.png")
    return folder


class TestTheJob:
    def test_a_folder_of_films_becomes_studies(self, cli: Cli, videos: Path) -> None:
        result = ingested(cli, "videos")
        assert result["schema_version"] == 1 and result["failed"] == []
        assert sorted(item["frames"] for item in result["studies"]) == [12, 15, 20, 30, 40]
        assert set(result["studies"][0]) >= {
            *("study", "patient", "frames", "duration_s", "labelled_frames")
        }
        studies = stored(videos.parent)
        assert len(studies) == 5
        assert len({study.patient for study in studies}) == 3
        for study in studies:
            assert re.fullmatch(r"p[a-z2-7]{8}-[0-9a-f]{6}", study.id)
            assert study.folder.name == study.id
            numbers = [read_barcode(frame.grey) for frame in study.frames()]
            assert numbers == list(range(study.record.frames))
            times = study.record.frame_times_s
            assert times[0] == 0 and np.all(np.diff(times) > 0)

    def test_stored_frames_and_times_are_the_source_s(self, cli: Cli, videos: Path) -> None:
        ingested(cli, "videos")
        for path in find_sources([videos]):
            source = open_source(path)
            twins = [s for s in stored(videos.parent) if s.record.codec == source.info.codec]
            frames = list(source.frames())
            twin = next(s for s in twins if s.record.frames == len(frames))
            for frame, kept in zip(frames, twin.frames(), strict=True):
                assert np.array_equal(frame.grey, kept.grey)
                assert frame.time_s == pytest.approx(kept.time_s, abs=1e-8)

    def test_masks_know_three_states(self, cli: Cli, videos: Path) -> None:
        ingested(cli, "videos")
        study = next(s for s in stored(videos.parent) if s.record.frames == 40)
        assert study.record.labelled == {"bolus": (0, 7), "c2": (7,)}
        assert study.record.labelled_frames == (0, 7)
        present, absent = study.read_mask("bolus", 0), study.read_mask("bolus", 7)
        assert present is not None and present.dtype == bool and present.sum() == 800
        assert absent is not None and not absent.any()
        assert study.read_mask("bolus", 1) is None and study.read_mask("c3", 7) is None
        lossy = study.read_mask("c2", 7)
        assert lossy is not None and abs(int(lossy.sum()) - 800) < 20
        images = next(s for s in stored(videos.parent) if s.record.frames == 12)
        assert images.labelled_frames("hyoid") == (2,)  # the image called 0003 is the third

    def test_again_does_nothing_and_says_so(self, cli: Cli, videos: Path) -> None:
        ingested(cli, "videos")
        before = _bytes_below(videos.parent)
        again = ingested(cli, "videos")
        assert again["studies"] == [] and len(again["skipped"]) == 5
        assert _bytes_below(videos.parent) == before
        assert "already ingested" in cli("ingest", "videos").stdout

    def test_force_takes_new_labels(self, cli: Cli, videos: Path) -> None:
        ingested(cli, "videos")
        write_mask(videos / "bert" / "one_masks" / "c4" / "5.png")
        outcome = cli("ingest", "videos")
        assert "labels have changed" in outcome.stderr
        assert all("c4" not in study.record.labelled for study in stored(videos.parent))
        ids = {study.id for study in stored(videos.parent)}
        ingested(cli, "videos", "--force")
        assert {study.id for study in stored(videos.parent)} == ids
        assert any(study.record.labelled == {"c4": (5,)} for study in stored(videos.parent))

    def test_table_for_people(self, cli: Cli, videos: Path) -> None:
        outcome = cli("ingest", "videos")
        assert outcome.exit_code == 0
        assert "5 ingested from 3 patients, 0 skipped, 0 failed" in outcome.stdout
        assert "1 patients for training" not in outcome.stderr
        assert "reduced, never surely removed" in outcome.stderr
        assert cli("ingest", "videos", "--quiet").stderr == ""

    def test_help_has_an_example(self, cli: Cli) -> None:
        assert "Example:  vfss ingest" in " ".join(cli("ingest", "--help").stdout.split("\n"))

    def test_workspace_elsewhere_and_settings_kept(self, cli: Cli, videos: Path) -> None:
        ingested(cli, "videos", "--workspace", "lab")
        root = videos.parent / "lab"
        settings = (root / "vfss.yaml").read_bytes()
        assert lab_tasks(Workspace(root)).name == "vfss12"
        write_film(videos / "carl" / "x.mp4", frames=5)
        ingested(cli, "videos", "--workspace", "lab")
        assert (root / "vfss.yaml").read_bytes() == settings
        assert not (videos.parent / "vfss.yaml").exists()

    def test_own_results_are_no_input(self, cli: Cli, videos: Path) -> None:
        ingested(cli, ".")
        again = ingested(cli, ".")
        assert again["failed"] == [] and len(again["skipped"]) == 5

    def test_repeated_frames_are_counted(self, cli: Cli, tmp_path: Path) -> None:
        write_film(tmp_path / "v" / "p" / "a.mp4", rate=30, repeat=2)
        write_film(tmp_path / "v" / "p" / "b.mp4", rate=30)
        studies = {item["unique_fps"]: item for item in ingested(cli, "v")["studies"]}
        assert set(studies) == {15.0, 30.0}
        assert "15.0 pulses/s stored as 30.0 frames/s" in studies[15.0]["warnings"][0]
        assert studies[30.0]["warnings"] == []

    def test_simulated_patients_are_marked(self, cli: Cli, tmp_path: Path) -> None:
        write_film(tmp_path / "v" / "p" / "a.mp4", frames=3)
        write_film(tmp_path / "v" / "p" / "b.mp4", frames=4)
        (tmp_path / "v" / "p" / "a_truth.json").write_text('{"simulated": true}')
        ingested(cli, "v")
        assert {s.record.frames: s.record.simulated for s in stored(tmp_path)} == {
            3: True,
            4: False,
        }

    def test_non_square_pixels_take_their_masks_along(self, cli: Cli, tmp_path: Path) -> None:
        write_dicom(tmp_path / "v" / "a.dcm", 2, PixelAspectRatio=[4, 3], PatientID="1")
        write_mask(tmp_path / "v" / "a_masks" / "c2" / "1.png")
        ingested(cli, "v")
        study = stored(tmp_path)[0]
        mask = study.read_mask("c2", 1)
        assert mask is not None and mask.shape == study.read_frame(1).shape == (128, 128)
        assert mask.sum() == pytest.approx(800 * 4 / 3, rel=0.05)


class TestLabels:
    def test_given_folder_by_name_or_by_place(self, cli: Cli, tmp_path: Path) -> None:
        for patient, frames in (("p1", 5), ("p2", 6)):
            write_film(tmp_path / "v" / patient / "a.mp4", frames=frames)
        write_film(tmp_path / "v" / "p3" / "b.mp4", frames=7)
        write_mask(tmp_path / "gt" / "p1" / "a" / "c2" / "1.png")
        write_mask(tmp_path / "gt" / "p2" / "a_masks" / "c3" / "2.png")
        write_mask(tmp_path / "gt" / "b" / "c4" / "3.png")
        ingested(cli, "v", "--labels", "gt")
        labels = {s.record.frames: s.record.labelled for s in stored(tmp_path)}
        assert labels == {5: {"c2": (1,)}, 6: {"c3": (2,)}, 7: {"c4": (3,)}}

    def test_two_recordings_cannot_share_labels(self, cli: Cli, tmp_path: Path) -> None:
        for patient, frames in (("p1", 5), ("p2", 6)):
            write_film(tmp_path / "v" / patient / "a.mp4", frames=frames)
        write_mask(tmp_path / "gt" / "a" / "c2" / "1.png")
        failed = ingested(cli, "v", "--labels", "gt", code=4)["failed"]
        assert len(failed) == 2 and "2 recordings of one name" in failed[0]["error"]

    def test_a_single_film_needs_no_name(self, cli: Cli, tmp_path: Path) -> None:
        write_film(tmp_path / "a.mp4", frames=5)
        write_mask(tmp_path / "gt" / "c2" / "1.png")
        ingested(cli, "a.mp4", "--labels", "gt")
        assert stored(tmp_path)[0].record.labelled == {"c2": (1,)}

    @pytest.mark.parametrize(
        ("mask", "words"),
        [
            ("c9/1.png", "unknown task 'c9'. Task set 'vfss12' has: bolus pharynx"),
            ("c2/5.png", "labels frame 5 of c2, but the recording has frames 0 to 4"),
            ("c2/first.png", "no frame number"),
            ("7.png", "task set has 12 tasks"),
        ],
    )
    def test_labels_that_do_not_fit(self, mask: str, words: str, cli: Cli, tmp_path: Path) -> None:
        write_film(tmp_path / "v" / "p" / "bad.mp4", frames=5)
        write_film(tmp_path / "v" / "p" / "good.mp4", frames=6)
        write_mask(tmp_path / "v" / "p" / "bad_masks" / mask)
        result = ingested(cli, "v", code=3)
        assert [item["frames"] for item in result["studies"]] == [6]
        assert [item["input"] for item in result["failed"]] == ["v/p/bad.mp4"]
        assert words in result["failed"][0]["error"]
        assert [study.record.frames for study in stored(tmp_path)] == [6]

    def test_masks_of_another_kind(self, cli: Cli, tmp_path: Path) -> None:
        write_film(tmp_path / "v" / "p" / "a.mp4", frames=5)
        mask = tmp_path / "v" / "p" / "a_masks" / "c2" / "1.png"
        write_mask(mask, shape=(50, 60))
        assert "is 60x50, its recording 128x96" in ingested(cli, "v", code=4)["failed"][0]["error"]
        write_image(mask, np.full((HEIGHT, WIDTH), 3, np.uint8))
        assert "holds values up to 3" in ingested(cli, "v", code=4)["failed"][0]["error"]
        mask.write_bytes(mask.read_bytes()[:40])
        assert "no readable mask" in ingested(cli, "v", code=4)["failed"][0]["error"]
        write_mask(mask)
        write_mask(mask.with_name("0001.png"))
        assert "two masks for one frame" in ingested(cli, "v", code=4)["failed"][0]["error"]
        assert stored(tmp_path) == [] and not _temporaries(tmp_path)
        mask.with_name("0001.png").unlink()
        write_image(mask, np.eye(HEIGHT, WIDTH, dtype=np.uint8))
        ingested(cli, "v")
        kept = stored(tmp_path)[0].read_mask("c2", 1)
        assert kept is not None and kept.sum() == HEIGHT  # 0 and 1 mean what they say


class TestPatients:
    def test_table_then_dicom_then_folder(self, cli: Cli, tmp_path: Path) -> None:
        write_film(tmp_path / "v" / "x" / "a.mp4", frames=4)
        write_film(tmp_path / "v" / "y" / "b.mp4", frames=5)
        write_dicom(tmp_path / "v" / "y" / "c.dcm", 6, PatientID="007")
        write_film(tmp_path / "v" / "z" / "d.mp4", frames=7)
        (tmp_path / "who.csv").write_text("﻿Patient;File\n007;x/a.mp4\n", encoding="utf-8")
        outcome = cli("ingest", "v", "--patients", "who.csv")
        assert "v/y/b.mp4: not in --patients" in outcome.stderr
        patients = {s.record.frames: s.patient for s in stored(tmp_path)}
        assert patients[4] == patients[6] and len(set(patients.values())) == 3
        assert {row["source_patient"] for row in _identities(tmp_path)} == {"007", "y", "z"}

    def test_films_without_a_folder_of_their_own(self, cli: Cli, tmp_path: Path) -> None:
        for number in range(3):
            write_film(tmp_path / "v" / f"{number}.mp4", frames=3 + number)
        outcome = cli("ingest", "v")
        assert "each counts as a patient" in outcome.stderr
        assert len({study.patient for study in stored(tmp_path)}) == 3

    def test_a_table_that_cannot_be_used(self, cli: Cli, tmp_path: Path) -> None:
        write_film(tmp_path / "v" / "a.mp4", frames=3)
        for text, words in (
            ("name,id\na.mp4,1\n", "lacks the columns"),
            ("file,patient\na.mp4,1\na.mp4,2\n,3\n", "line 3: this file has another patient above"),
        ):
            (tmp_path / "who.csv").write_text(text)
            outcome = cli("ingest", "v", "--patients", "who.csv")
            assert outcome.exit_code == 4 and words in outcome.stderr

    def test_one_recording_of_two_patients_is_refused(self, cli: Cli, tmp_path: Path) -> None:
        film = write_film(tmp_path / "v" / "anna" / "a.mp4", frames=3).path
        (tmp_path / "v" / "bert").mkdir()
        shutil.copy(film, tmp_path / "v" / "bert" / "b.mp4")
        result = ingested(cli, "v", code=3)
        assert result["failed"][0]["input"] == "v/bert/b.mp4"
        error = result["failed"][0]["error"]
        assert "v/anna/a.mp4" in error and len(re.findall(r"\bp[a-z2-7]{8}\b", error)) == 2
        # Of one patient it is a copy, and without any patient it is whose it was.
        shutil.move(tmp_path / "v" / "bert" / "b.mp4", tmp_path / "v" / "anna" / "b.mp4")
        assert len(ingested(cli, "v")["skipped"]) == 2
        assert len(ingested(cli, "v/anna/a.mp4")["skipped"]) == 1
        assert len(stored(tmp_path)) == 1

    def test_two_files_of_one_name_do_not_collide(self, cli: Cli, tmp_path: Path) -> None:
        write_film(tmp_path / "v" / "a" / "x.mp4", frames=3)
        write_film(tmp_path / "v" / "b" / "x.mp4", frames=4)
        ingested(cli, "v")
        assert len(stored(tmp_path)) == 2

    def test_a_lost_key_is_not_replaced(self, cli: Cli, tmp_path: Path) -> None:
        write_film(tmp_path / "v" / "a.mp4", frames=3)
        ingested(cli, "v")
        (tmp_path / "identities.key").unlink()
        outcome = cli("ingest", "v")
        assert outcome.exit_code == 4 and "identities.key is missing" in outcome.stderr


class TestPrivacy:
    NAMES = ("Mustermann", "ERIKA", "19620712", "H-99881", "Klinik Nordstadt", "Dr. Geheim")

    def test_no_name_is_written_but_in_identities(self, cli: Cli, tmp_path: Path) -> None:
        folder = tmp_path / "v" / "Mustermann"
        write_dicom(
            folder / "Mustermann_ERIKA_19620712.dcm",
            4,
            PatientName="Mustermann^ERIKA",
            PatientID="H-99881",
            PatientBirthDate="19620712",
            InstitutionName="Klinik Nordstadt",
            ReferringPhysicianName="Dr. Geheim",
            StudyDescription="Mustermann",
        )
        film = write_film(folder / "ERIKA.mp4", frames=5).path
        write_film(folder / "Mustermann.mp4", frames=6)
        write_mask(folder / "ERIKA_masks" / "c2" / "1.png")
        (tmp_path / "who.csv").write_text("file,patient\nERIKA.mp4,Dr. Geheim\n")
        outcome = cli("ingest", folder.parent, "--patients", "who.csv", "-w", "lab")
        assert outcome.exit_code == 0, outcome.stderr
        assert film.exists()
        lab = tmp_path / "lab"
        secret = {lab / "identities.csv", lab / "identities.key"}
        for path in lab.rglob("*"):
            text = path.relative_to(lab).as_posix()
            if path.is_file() and path not in secret:
                text += path.read_bytes().decode("latin-1")
            for name in (*self.NAMES, str(tmp_path)):
                assert name.lower() not in text.lower(), (path, name)
        assert all(path.stat().st_mode & 0o777 == 0o600 for path in secret)
        assert "identities.*" in (lab / ".gitignore").read_text().splitlines()
        rows = _identities(lab)
        assert {row["source_patient"] for row in rows} == {"H-99881", "Dr. Geheim", "Mustermann"}
        for row in rows:
            assert (lab / row["source_path"]).resolve().is_file()

    def test_pseudonyms_depend_on_the_key(self, cli: Cli, tmp_path: Path) -> None:
        write_film(tmp_path / "v" / "anna" / "a.mp4", frames=3)
        patients = [ingested(cli, "v", "-w", lab)["studies"][0]["patient"] for lab in ("l1", "l2")]
        assert patients[0] != patients[1]

    def test_names_that_are_formulas(self, cli: Cli, tmp_path: Path) -> None:
        write_film(tmp_path / "v" / "=1+1" / "=cmd('x').mp4", frames=3)
        write_dicom(tmp_path / "v" / "q" / "a.dcm", 3, PatientID="@SUM(A1)")
        ingested(cli, "v")
        for row in _identities(tmp_path):
            assert not any(str(cell).startswith(("=", "+", "-", "@")) for cell in row.values())
        assert len(ingested(cli, "v")["skipped"]) == 2

    def test_absolute_inputs_are_shown_relative(self, cli: Cli, tmp_path: Path) -> None:
        (tmp_path / "v").mkdir()
        (tmp_path / "v" / "x.mp4").write_text("no film")
        result = ingested(cli, tmp_path / "v", tmp_path / "v2", code=4)
        assert {item["input"] for item in result["failed"]} == {"v/x.mp4", "v2"}
        assert str(tmp_path) not in json.dumps(result)


class TestBadInput:
    def test_one_bad_file_never_stops_the_others(self, cli: Cli, tmp_path: Path) -> None:
        write_film(tmp_path / "v" / "p" / "z good é.mp4", frames=3)
        write_sound(tmp_path / "v" / "p" / "sound.mp4")
        (tmp_path / "v" / "p" / "empty.avi").touch()
        (tmp_path / "v" / "p" / "letter.mpg").write_text("dear")
        outcome = cli("ingest", "v", "missing.mp4")
        assert outcome.exit_code == 3
        lines = [line for line in outcome.stderr.splitlines() if line.startswith("error:")]
        assert len(lines) == 4
        for name in ("sound.mp4", "empty.avi", "letter.mpg", "missing.mp4"):
            assert sum(name in line for line in lines) == 1
        assert len(stored(tmp_path)) == 1 and not _temporaries(tmp_path)

    def test_nothing_to_ingest(self, cli: Cli, tmp_path: Path) -> None:
        (tmp_path / "v").mkdir()
        outcome = cli("ingest", "v")
        assert outcome.exit_code == 4 and "no recordings found" in outcome.stderr
        assert cli("ingest", "nowhere").exit_code == 4
        assert not (tmp_path / "vfss.yaml").exists()
        assert cli("ingest").exit_code == 2

    def test_full_disk(self, cli: Cli, videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write = study_module.write_png
        written = []

        def fills_up(target: Path, grey: Any, *settings: Any) -> None:
            written.append(target)
            if len(written) > 45:
                raise OSError(errno.ENOSPC, "No space left on device", str(target))
            write(target, grey, *settings)

        monkeypatch.setattr(study_module, "write_png", fills_up)
        outcome = cli("ingest", "videos")
        assert outcome.exit_code == 6 and "the disk is full" in outcome.stderr
        assert [study.record.frames for study in stored(videos.parent)] == [40]
        assert not _temporaries(videos.parent)
        monkeypatch.undo()
        result = ingested(cli, videos, "-w", videos.parent)
        assert len(result["skipped"]) == 1 and len(result["studies"]) == 4

    def test_interrupted(self, cli: Cli, videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write = study_module.write_png
        written = []

        def interrupts(target: Path, grey: Any, *settings: Any) -> None:
            written.append(target)
            if len(written) == 60:
                raise KeyboardInterrupt
            write(target, grey, *settings)

        monkeypatch.setattr(study_module, "write_png", interrupts)
        assert cli("ingest", "videos").exit_code == 130
        assert len(stored(videos.parent)) == 1 and not _temporaries(videos.parent)
        assert len(load_splits(Workspace(videos.parent)).train) == 1

    def test_task_sets(self, cli: Cli, videos: Path) -> None:
        (videos.parent / "tongue.yaml").write_text(TONGUE)
        failed = ingested(cli, "videos", "--tasks", "tongue.yaml", code=3)["failed"]
        assert len(failed) == 2 and "Task set 'tongue' has: tongue" in failed[0]["error"]
        settings = yaml.safe_load((videos.parent / "vfss.yaml").read_text())
        assert settings["task_set"] == "task_set.yaml"
        assert lab_tasks(Workspace(videos.parent)).ids == ("tongue",)
        assert lab_tasks(Workspace(videos.parent))["tongue"].may_be_absent
        outcome = cli("ingest", "videos", "--tasks", "vfss12")
        assert outcome.exit_code == 4 and "uses task set 'tongue'" in outcome.stderr
        assert cli("ingest", "videos", "--tasks", "none.yaml", "-w", "w2").exit_code == 4

    def test_damaged_store_is_named(self, cli: Cli, tmp_path: Path) -> None:
        write_film(tmp_path / "v" / "a.mp4", frames=3)
        ingested(cli, "v")
        study = stored(tmp_path)[0]
        (study.folder / "frames" / "000001.png").write_bytes(b"x")
        with pytest.raises(Exception, match=r"000001.png: is missing or damaged"):
            list(study.frames())
        (study.folder / "study.json").write_text("{}")
        outcome = cli("ingest", "v")
        assert outcome.exit_code == 4 and "study record" in outcome.stderr


class TestReal:
    def test_xa_cine(self, cli: Cli, shared_data: Path, tmp_path: Path) -> None:
        film = shared_data / "xa-coronary-cine" / "xa_96frames.dcm"
        result = ingested(cli, film)
        assert result["studies"][0]["frames"] == 96
        assert result["studies"][0]["duration_s"] == pytest.approx(96 * 0.033)
        study = stored(tmp_path)[0]
        assert study.record.frame_times_s == pytest.approx([0.033 * i for i in range(96)])
        assert find_study(Workspace(tmp_path), study.record.source_sha256) is not None
        assert list(open_source(study.folder).frames())[5].time_s == pytest.approx(0.165)

    def test_cine_mri_with_jpeg_masks(self, cli: Cli, shared_data: Path, tmp_path: Path) -> None:
        for subject in ("subj01", "subj24"):
            shutil.copytree(shared_data / "swallow-cine-mri" / subject, tmp_path / "mri" / subject)
        (tmp_path / "tongue.yaml").write_text(TONGUE)
        result = ingested(cli, "mri", "--tasks", "tongue.yaml", "--fps", "20")
        assert sorted(item["frames"] for item in result["studies"]) == [16, 24]
        assert all(item["labelled_frames"] == item["frames"] for item in result["studies"])
        assert {row["source_patient"] for row in _identities(tmp_path)} == {"subj01", "subj24"}
        for study in stored(tmp_path):
            for frame in study.labelled_frames("tongue"):
                mask = study.read_mask("tongue", frame)
                assert mask is not None and 0.005 < mask.mean() < 0.03
        again = ingested(cli, "mri/subj01", "--labels", "mri", "-w", "w2", "--tasks", "tongue.yaml")
        assert again["studies"][0]["labelled_frames"] == 24

    def test_every_dicom_we_have(self, cli: Cli, shared_data: Path) -> None:
        result = ingested(cli, shared_data / "dicom-variety")
        assert [item["frames"] for item in result["studies"]] == [10]
        assert ["single image (CR)" in item["why"] for item in result["skipped"]] == [True]
        chest = shared_data / "dicom-variety" / "cr_chest_monochrome1_15bit_j2k.dcm"
        assert [item["frames"] for item in ingested(cli, chest)["studies"]] == [1]


def _identities(root: Path) -> list[dict[str, str]]:
    with (root / "identities.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _temporaries(root: Path) -> list[Path]:
    return [path for path in root.rglob(".partial-*")]


def _bytes_below(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_barcodes_are_what_the_tests_take_them_for() -> None:
    assert [read_barcode(barcode(index)) for index in range(256)] == list(range(256))
