"""`vfss ingest`: names that must not get out, input that is broken, and real material."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import Cli
from ingest_jobs import identities, ingested, stored, temporaries, write_mask, write_videos
from intake_films import write_dicom, write_film, write_sound
from vfss_distill.config import lab_tasks
from vfss_distill.intake import study as study_module
from vfss_distill.intake.source import open_source
from vfss_distill.intake.splits import load_splits
from vfss_distill.workspace import Workspace

TONGUE = "name: tongue\ntasks:\n  - {id: tongue, may_be_absent: true}\n"


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    return write_videos(tmp_path / "videos")


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
        rows = identities(lab)
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
        for row in identities(tmp_path):
            assert not any(str(cell).startswith(("=", "+", "-", "@")) for cell in row.values())
        assert len(ingested(cli, "v")["skipped"]) == 2

    @pytest.mark.skipif(sys.platform != "linux", reason="names there are always Unicode")
    def test_names_that_are_no_utf_8(self, cli: Cli, tmp_path: Path) -> None:
        film = write_film(tmp_path / "a.mp4", frames=3).path
        folder = tmp_path / "v" / os.fsdecode(b"M\xfcller")
        folder.mkdir(parents=True)
        film.rename(folder / os.fsdecode(b"\xe4.mp4"))
        (folder / os.fsdecode(b"\xf6.mp4")).write_text("no film")
        result = ingested(cli, "v", code=3)
        assert [item["input"] for item in result["failed"]] == [r"v/M\xfcller/\xf6.mp4"]
        rows = (tmp_path / "identities.csv").read_bytes()
        assert b",M\xfcller,v/M\xfcller/\xe4.mp4," in rows
        (skipped,) = ingested(cli, "v", code=3)["skipped"]
        assert skipped["study"] == result["studies"][0]["study"]

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
        assert len(stored(tmp_path)) == 1 and not temporaries(tmp_path)

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
        assert not temporaries(videos.parent)
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
        assert len(stored(videos.parent)) == 1 and not temporaries(videos.parent)
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
        assert outcome.exit_code == 4
        assert f"{study.id}, whose record cannot be used: is no study record. Put" in outcome.stderr


class TestReal:
    def test_xa_cine(self, cli: Cli, shared_data: Path, tmp_path: Path) -> None:
        film = shared_data / "xa-coronary-cine" / "xa_96frames.dcm"
        result = ingested(cli, film)
        assert result["studies"][0]["frames"] == 96
        assert result["studies"][0]["duration_s"] == pytest.approx(96 * 0.033)
        study = stored(tmp_path)[0]
        assert study.record.frame_times_s == pytest.approx([0.033 * i for i in range(96)])
        assert list(open_source(study.folder).frames())[5].time_s == pytest.approx(0.165)

    def test_cine_mri_with_jpeg_masks(self, cli: Cli, shared_data: Path, tmp_path: Path) -> None:
        for subject in ("subj01", "subj24"):
            shutil.copytree(shared_data / "swallow-cine-mri" / subject, tmp_path / "mri" / subject)
        (tmp_path / "tongue.yaml").write_text(TONGUE)
        result = ingested(cli, "mri", "--tasks", "tongue.yaml", "--fps", "20")
        assert sorted(item["frames"] for item in result["studies"]) == [16, 24]
        assert all(item["labelled_frames"] == item["frames"] for item in result["studies"])
        assert {row["source_patient"] for row in identities(tmp_path)} == {"subj01", "subj24"}
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
