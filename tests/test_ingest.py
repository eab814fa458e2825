"""`vfss ingest`, as a user meets it."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from conftest import Cli
from ingest_jobs import identities, ingested, stored, temporaries, write_mask, write_videos
from intake_films import (
    HEIGHT,
    WIDTH,
    barcode,
    read_barcode,
    write_dicom,
    write_film,
    write_image,
    write_images,
)
from vfss_distill.config import lab_tasks
from vfss_distill.intake.images import ImageSource
from vfss_distill.intake.labels import LabelSearch
from vfss_distill.intake.source import Found, open_source
from vfss_distill.intake.walk import find_sources
from vfss_distill.tasks import VFSS12
from vfss_distill.workspace import Workspace


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    return write_videos(tmp_path / "videos")


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

    def test_force_says_what_becomes_of_imported_labels(self, cli: Cli, tmp_path: Path) -> None:
        write_film(tmp_path / "v" / "p" / "a.mp4", frames=3)
        ingested(cli, "v")
        study = stored(tmp_path)[0].id
        assert "imported" not in cli("ingest", "v", "--force").stderr
        write_mask(tmp_path / "drawn" / "c2" / "1.png")
        assert cli("labels", "import", "drawn", "--study", study).exit_code == 0
        write_mask(tmp_path / "v" / "p" / "a_masks" / "c3" / "2.png")
        assert "export its imported labels first" in cli("ingest", "v").stderr
        assert "without the labels that were imported" in cli("ingest", "v", "--force").stderr
        assert stored(tmp_path)[0].record.labelled == {"c3": (2,)}
        assert "imported" not in cli("ingest", "v", "--force").stderr

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

    def test_folders_of_no_recording_are_told(self, cli: Cli, tmp_path: Path) -> None:
        write_film(tmp_path / "v" / "p1" / "a.mp4", frames=5)
        write_film(tmp_path / "v" / "p2" / "b.mp4", frames=6)
        for place in ("p1/a", "b_masks"):
            write_mask(tmp_path / "gt" / place / "c2" / "1.png")
        assert "--labels" not in cli("ingest", "v", "--labels", "gt").stderr
        write_mask(tmp_path / "gt" / "p1" / "aa" / "c2" / "1.png")
        write_mask(tmp_path / "gt" / "p3" / "a" / "c2" / "1.png")
        said = cli("ingest", "v", "--labels", "gt").stderr
        assert "--labels names what is none of these recordings: p1/aa, p3" in said

    def test_two_recordings_cannot_share_labels(self, cli: Cli, tmp_path: Path) -> None:
        for patient, frames in (("p1", 5), ("p2", 6)):
            write_film(tmp_path / "v" / patient / "a.mp4", frames=frames)
        write_mask(tmp_path / "gt" / "a" / "c2" / "1.png")
        failed = ingested(cli, "v", "--labels", "gt", code=4)["failed"]
        assert len(failed) == 2 and "2 recordings of one name" in failed[0]["error"]

    @pytest.mark.parametrize("masks", ["v/p/a_masks", "gt/p/a", "gt/a"])
    def test_nor_can_two_of_one_stem_in_one_folder(
        self, masks: str, cli: Cli, tmp_path: Path
    ) -> None:
        write_film(tmp_path / "v" / "p" / "a.mp4", frames=5)
        write_film(tmp_path / "v" / "p" / "a.mkv", frames=6)
        write_film(tmp_path / "v" / "p" / "b.mp4", frames=7)
        write_mask(tmp_path / masks / "c2" / "1.png")
        given = ("--labels", "gt") if masks.startswith("gt") else ()
        result = ingested(cli, "v", *given, code=3)
        assert [item["frames"] for item in result["studies"]] == [7]
        errors = [item["error"] for item in result["failed"]]
        assert len(errors) == 2 and all("could belong to 2 recordings" in one for one in errors)
        assert len(ingested(cli, "v/p/a.mp4", *given)["studies"]) == 1  # given by name, it is clear

    def test_numbers_of_pictures_that_tell_nothing(self, cli: Cli, tmp_path: Path) -> None:
        folder = tmp_path / "v" / "p" / "run"
        for index in range(3):
            write_image(folder / f"{index + 1:04d}_v2.png", barcode(index))
        mask = tmp_path / "v" / "p" / "run_masks" / "c2" / "0001.png"
        write_mask(mask)
        assert "names of their images" in ingested(cli, "v", code=4)["failed"][0]["error"]
        mask.rename(mask.with_name("0001_v2.png"))
        ingested(cli, "v")
        assert stored(tmp_path)[0].record.labelled == {"c2": (0,)}

    def test_masks_of_very_many_images_are_found_at_once(self, tmp_path: Path) -> None:
        """Each number was once looked for among all: minutes for an hour of images."""
        source = ImageSource(write_images(tmp_path / "v", 3).path, fps=30)
        source._files = [tmp_path / "v" / f"x{number}.png" for number in range(30_000)]
        mask = tmp_path / "v_masks" / "c2" / "29999.png"
        write_mask(mask)
        began = time.process_time()
        labels = LabelSearch(None, VFSS12, []).find(Found(tmp_path / "v", tmp_path), source)
        assert labels.files == {"c2": {29999: mask}} and time.process_time() - began < 3

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

    def test_masks_of_more_than_the_task_set(self, cli: Cli, tmp_path: Path) -> None:
        write_film(tmp_path / "v" / "p" / "a.mp4", frames=5)
        for task in ("bolus", "c3", "hyoid"):
            write_mask(tmp_path / "v" / "p" / "a_masks" / task / "1.png")
        (tmp_path / "small.yaml").write_text("name: small\ntasks: [bolus]\n")
        (failed,) = ingested(cli, "v", "--tasks", "small.yaml", code=4)["failed"]
        assert "unknown tasks 'c3', 'hyoid'. Task set 'small' has: bolus. Add " in failed["error"]
        assert "the YAML file of --tasks" in failed["error"]
        assert "move other folders out of a_masks/" in failed["error"]
        (tmp_path / "small.yaml").write_text("name: small\ntasks: [bolus, c3]\n")
        (tmp_path / "v" / "p" / "a_masks" / "hyoid").rename(tmp_path / "hyoid")
        ingested(cli, "v", "--tasks", "small.yaml")
        assert stored(tmp_path)[0].record.labelled == {"bolus": (1,), "c3": (1,)}

    def test_tasks_as_people_write_them(self, cli: Cli, tmp_path: Path) -> None:
        write_film(tmp_path / "v" / "p" / "a.mp4", frames=5)
        masks = tmp_path / "v" / "p" / "a_masks"
        for name in ("Hyoid Bone", "C2", "c3", "bulos"):
            write_mask(masks / name / "1.png")
        (failed,) = ingested(cli, "v", code=4)["failed"]
        assert "unknown task 'bulos'. If misspelt, rename bulos to bolus. Task" in failed["error"]
        (masks / "bulos").rename(masks / "hyoid")
        (failed,) = ingested(cli, "v", code=4)["failed"]
        assert "two folders of task hyoid: Hyoid Bone and hyoid. Keep one." in failed["error"]
        (masks / "hyoid").rename(masks / "BOLUS")
        ingested(cli, "v")
        assert stored(tmp_path)[0].record.labelled == dict.fromkeys(
            ("bolus", "c2", "c3", "hyoid"), (1,)
        )

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
        assert stored(tmp_path) == [] and not temporaries(tmp_path)
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
        assert {row["source_patient"] for row in identities(tmp_path)} == {"007", "y", "z"}

    def test_rows_of_no_recording_are_told(self, cli: Cli, tmp_path: Path) -> None:
        """However a row names its recording: by path, name, stem, or the folder of its images."""
        for number, name in enumerate(("x/a.mp4", "y/b.mp4", "y/c.mp4")):
            write_film(tmp_path / "v" / name, frames=4 + number)
        write_images(tmp_path / "v" / "z" / "images", 3)
        rows = ["v\\x\\A.mp4,1", "b.mp4,2", "c,3", "z/,4"]
        (tmp_path / "who.csv").write_text("\n".join(["file,patient", *rows]))
        said = cli("ingest", "v", "--patients", "who.csv").stderr
        assert "--patients" not in said
        (tmp_path / "who.csv").write_text("\n".join(["file,patient", *rows, "y/a.mp4,1", "d,5"]))
        said = cli("ingest", "v", "--patients", "who.csv").stderr
        assert "--patients names what is none of these recordings: y/a.mp4, d" in said

    def test_a_row_that_several_recordings_answer_to(self, cli: Cli, tmp_path: Path) -> None:
        """By name, stem, folder of images, or a path below each of several inputs."""
        for number, name in enumerate(("x/a.mp4", "y/a.mp4", "x/1/b.mp4", "y/1/b.mp4")):
            write_film(tmp_path / "v" / name, frames=4 + number)
        for number, name in enumerate("xy"):
            write_images(tmp_path / "v" / name / "z" / "images", 9 + number)
        for row, example in (
            *(("a", "v/x/a.mp4"), ("A.mp4", "v/x/a.mp4")),
            *(("z", "v/x/z/images"), ("images", "v/x/z/images"), ("1/b.mp4", "v/x/1/b.mp4")),
        ):
            (tmp_path / "who.csv").write_text(f"file,patient\n{row},Meier\n")
            (tmp_path / "views.csv").write_text(f"file,view,facing\nc,,left\n{row},frontal,\n")
            for words in (("--patients", "who.csv"), ("--views", "views.csv")):
                refused = cli("ingest", "v/x", "v/y", *words)
                line = 2 if words[0] == "--patients" else 3
                assert refused.exit_code == 4
                assert (
                    f"{words[1]}: line {line} names 2 recordings of that name. " in refused.stderr
                )
                assert f"Write the path, as in {example}." in refused.stderr
            assert not (tmp_path / "studies").exists()
        (tmp_path / "who.csv").write_text(f"file,patient\n{example},Meier\n")
        assert len(ingested(cli, "v", "--patients", "who.csv")["studies"]) == 6
        assert [row["source_patient"] for row in identities(tmp_path)].count("Meier") == 1

    def test_a_name_is_of_the_one_left_over(self, cli: Cli, tmp_path: Path) -> None:
        """Others have a row of their own; or it is the whole path of one."""
        for number, name in enumerate(("x/a.mp4", "y/a.mp4", "b.mp4", "y/b.mp4")):
            write_film(tmp_path / "v" / name, frames=4 + number)
        rows = ["y/a.mp4,Y", "a.mp4,A", "b.mp4,B"]
        (tmp_path / "who.csv").write_text("\n".join(["file,patient", *rows]))
        outcome = cli("ingest", "v", "--patients", "who.csv")
        assert outcome.exit_code == 0 and "v/y/b.mp4: not in --patients" in outcome.stderr
        sources = {row["study"]: row["source_patient"] for row in identities(tmp_path)}
        named = {study.record.frames: sources[study.id] for study in stored(tmp_path)}
        assert named == {4: "A", 5: "Y", 6: "B", 7: "y"}

    def test_equal_names_below_equal_folders_elsewhere(self, cli: Cli, tmp_path: Path) -> None:
        """Where what is shown tells them no more apart, the path as it was given does."""
        films = [tmp_path / place / "v" / "p" / "a.mp4" for place in "12"]
        for number, film in enumerate(films):
            write_film(film, frames=4 + number)
        inputs = [film.parents[1] for film in films]
        for row in ("a", "v/p/a.mp4", "p/a.mp4"):
            (tmp_path / "who.csv").write_text(f"file,patient\n{row},Meier\n")
            said = cli("ingest", *inputs, "--patients", "who.csv").stderr
            assert f"as in {films[0].as_posix()}." in said
        (tmp_path / "who.csv").write_text(f"file,patient\n{films[0].as_posix()},Meier\n")
        assert len(ingested(cli, *inputs, "--patients", "who.csv")["studies"]) == 2
        assert {row["source_patient"] for row in identities(tmp_path)} == {"Meier", "p"}

    def test_films_without_a_folder_of_their_own(self, cli: Cli, tmp_path: Path) -> None:
        for number in range(3):
            write_film(tmp_path / "v" / f"{number}.mp4", frames=3 + number)
        outcome = cli("ingest", "v")
        assert "each counts as a patient" in outcome.stderr
        assert len({study.patient for study in stored(tmp_path)}) == 3

    def test_folders_of_days_in_a_folder_of_a_patient(self, cli: Cli, tmp_path: Path) -> None:
        for number, place in enumerate(["anna/2020-01-01", "anna/2021-01-01", "bert/2020-03-03"]):
            write_film(tmp_path / "v" / place / "a.mp4", frames=3 + number)
        said = cli("ingest", "v").stderr
        assert said.count("the folders in it are taken as 2 patients") == 1
        assert "v/anna: " in said and "v/bert: " not in said
        assert len({study.patient for study in stored(tmp_path)}) == 3
        write_images(tmp_path / "v" / "bert" / "2020-03-03" / "images", 4)
        given = cli("ingest", "v/anna", "v/bert/2020-03-03/images", "-w", "w2")
        assert given.exit_code == 0 and "folders in it" not in given.stderr

    def test_force_without_the_table_keeps_names(self, cli: Cli, tmp_path: Path) -> None:
        write_film(tmp_path / "v" / "a.mp4", frames=3)
        (tmp_path / "who.csv").write_text("file,patient,site\na.mp4,=Anna,Nordstadt\n")
        ingested(cli, "v", "--patients", "who.csv")
        before = identities(tmp_path)
        assert before[0]["source_patient"] == "'=Anna"
        ingested(cli, "v", "--force")
        assert identities(tmp_path) == before
        (tmp_path / "who.csv").write_text("file,patient\na.mp4,=Anna\n")
        ingested(cli, "v", "--force", "--patients", "who.csv")
        assert identities(tmp_path) == before

    def test_a_guess_is_no_table(self, cli: Cli, tmp_path: Path) -> None:
        """Else one person's other films would make a second patient of him."""
        write_film(tmp_path / "v" / "anna" / "a.mp4", frames=3)
        ingested(cli, "v/anna/a.mp4")
        assert "given for patient" in ingested(cli, "v", code=4)["failed"][0]["error"]

    def test_a_table_that_cannot_be_used(self, cli: Cli, tmp_path: Path) -> None:
        write_film(tmp_path / "v" / "a.mp4", frames=3)
        for text, words in (
            ("name,id\na.mp4,1\n", "lacks the columns"),
            ("file,patient\na.mp4,1\na.mp4,2\n,3\n", "line 3: this file has another patient above"),
            ('file,patient\na.mp4,"anna\nb.mp4,bert\n', "a quote that is not closed"),
            ('file,patient\n"' + "x" * 140_000, "a quote that is not closed"),
        ):
            (tmp_path / "who.csv").write_text(text)
            outcome = cli("ingest", "v", "--patients", "who.csv")
            assert outcome.exit_code == 4 and words in outcome.stderr
        (tmp_path / "who.csv").write_text("file,patient\na.mp4,Müller\n", encoding="cp1252")
        for option in ("--patients", "--views", "--blank-boxes"):
            outcome = cli("ingest", "v", option, "who.csv")
            assert outcome.exit_code == 4
            assert 'as UTF-8. In Excel save it as "CSV UTF-8 (comma del' in outcome.stderr

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


def _bytes_below(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_barcodes_are_what_the_tests_take_them_for() -> None:
    assert [read_barcode(barcode(index)) for index in range(256)] == list(range(256))
