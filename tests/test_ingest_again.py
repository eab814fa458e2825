"""`vfss ingest` a second time, or beside what it does not take: what it says of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from conftest import Cli
from ingest_jobs import identities, ingested, stored, write_mask
from intake_films import write_dicom, write_film, write_images


def test_a_rate_given_later_needs_force_and_that_is_said(cli: Cli, tmp_path: Path) -> None:
    """Images carry no time: the first ingest assumed one, and asked for the true one."""
    write_images(tmp_path / "v" / "slow", 8)
    (first,) = ingested(cli, "v")["studies"]
    assert "vfss ingest --fps" in str(first["warnings"])
    again = cli("ingest", "v", "--fps", "15")
    assert "already ingested at 30 frames/s: use --force to take --fps" in again.stderr
    assert "--fps" not in cli("ingest", "v", "--fps", "30").stderr
    ingested(cli, "v", "--fps", "15", "--force")
    (study,) = stored(tmp_path)
    assert study.record.frame_times_s[1] == pytest.approx(1 / 15)
    assert "at 15 frames/s" in cli("ingest", "v", "--fps", "7.5").stderr
    assert "--fps" not in cli("ingest", "v").stderr
    ingested(cli, "v", "--force")
    assert stored(tmp_path)[0].record.frame_times_s == study.record.frame_times_s


def test_a_film_s_own_times_are_no_matter_of_a_given_rate(cli: Cli, tmp_path: Path) -> None:
    write_film(tmp_path / "v" / "a.mp4", frames=5)
    ingested(cli, "v")
    assert "--fps" not in cli("ingest", "v", "--fps", "15").stderr


@pytest.mark.parametrize("place", ["gt/anna/a", "v/anna/a_masks"])
def test_masks_whose_files_are_not_found_are_not_thrown_away(
    place: str, cli: Cli, tmp_path: Path
) -> None:
    """--force was for something else: --labels were forgotten, or masks deleted beside the film."""
    for frames, name in ((4, "anna"), (5, "bert")):
        write_film(tmp_path / "v" / name / "a.mp4", frames=frames)
    write_mask(tmp_path / place / "bolus" / "000001.png")
    given = ("--labels", "gt") if place.startswith("gt") else ()
    ingested(cli, "v", *given)
    (tmp_path / place).rename(tmp_path / "away")
    before = {study.id: study.record for study in stored(tmp_path)}
    for words in ((), given):  # the folder of --labels is there, and nothing in it is his
        again = ingested(cli, "v", "--force", *words, code=3)
        assert [one["frames"] for one in again["studies"]] == [5]
        (failed,) = again["failed"]
        assert failed["input"] == "v/anna/a.mp4" and "--labels as before" in failed["error"]
        assert {study.id: study.record for study in stored(tmp_path)} == before
    (tmp_path / "away").rename(tmp_path / place)
    anew = ingested(cli, "v", "--force", *given)["studies"]
    assert sorted(one["labelled_frames"] for one in anew) == [0, 1]
    (tmp_path / place).rename(tmp_path / "away")
    (study,) = [name for name, record in before.items() if record.labelled]
    (tmp_path / "studies" / study).rename(tmp_path / "moved")
    assert ingested(cli, "v/anna")["studies"][0]["labelled_frames"] == 0


def test_a_better_copy_in_the_place_of_a_film_is_told(cli: Cli, tmp_path: Path) -> None:
    write_film(tmp_path / "v" / "anna" / "a.mp4", frames=5)
    ingested(cli, "v")
    (old,) = stored(tmp_path)
    write_film(tmp_path / "v" / "anna" / "a.mp4", frames=6)
    write_film(tmp_path / "v" / "anna" / "b.mp4", frames=7)
    told = cli("ingest", "v").stderr
    assert told.count("which is kept") == 1 and f"move studies/{old.id} out of" in told
    assert len(stored(tmp_path)) == 3 and "which is kept" not in cli("ingest", "v").stderr


def test_text_is_kept_only_where_something_was_taken(cli: Cli, tmp_path: Path) -> None:
    write_film(tmp_path / "v" / "a.mp4", frames=5)
    ingested(cli, "v")
    assert "WAS KEPT" not in cli("ingest", "v", "--no-blank").stderr
    assert "WAS KEPT" in cli("ingest", "v", "--no-blank", "--force").stderr


def test_a_recording_that_keeps_its_patient_is_none_of_its_own(cli: Cli, tmp_path: Path) -> None:
    """Its folder names the patient; the folder given as the input itself names none."""
    for frames, name in ((4, "a.mp4"), (5, "b.mp4")):
        write_film(tmp_path / "v" / "anna" / name, frames=frames)
    ingested(cli, "v")
    again = cli("ingest", "v/anna", "--force")
    assert again.exit_code == 0 and "counts as a patient" not in again.stderr


def test_films_in_the_folder_of_labels_are_listed_as_left_out(cli: Cli, tmp_path: Path) -> None:
    write_film(tmp_path / "v" / "a.mp4", frames=5)
    write_film(tmp_path / "v" / "masks of b" / "b.mp4", frames=5)
    write_mask(tmp_path / "v" / "masks of b" / "a" / "bolus" / "000000.png")
    told = ingested(cli, "v", "--labels", "v/masks of b")
    (left,) = told["skipped"]
    assert left["input"].endswith("b.mp4") and left["why"] == "lies in the folder of --labels"


def test_links_to_a_disk_that_is_not_there_are_listed(cli: Cli, tmp_path: Path) -> None:
    """A film, a patient's folder, masks; and a link to itself."""
    write_film(tmp_path / "v" / "a.mp4", frames=5)
    for name in ("b.mp4", "p", "a_masks"):
        (tmp_path / "v" / name).symlink_to(tmp_path / "share" / name)
    (tmp_path / "v" / "ring.mp4").symlink_to("ring.mp4")
    for given in ("v", tmp_path / "v"):
        skipped = ingested(cli, given)["skipped"]
        told = {Path(one["input"]).name for one in skipped if one["why"].endswith("leads nowhere")}
        assert told == {"b.mp4", "p", "a_masks", "ring.mp4"}


def test_a_review_alone_knows_the_splits(cli: Cli, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_film(tmp_path / "v" / name / f"{name}.mp4", frames=4 + ord(name) % 3)
    before = json.loads(cli("ingest", "v", "--lock-test", "--json").stdout)
    alone = json.loads(cli("ingest", "--review", "--json").stdout)
    assert alone["test_locked"] and alone["splits"] == before["splits"]
    assert sum(alone["splits"].values()) == 3


def test_again_without_the_table(cli: Cli, tmp_path: Path) -> None:
    """A table's word outlives the table, though folders and headers have other names."""
    write_film(tmp_path / "v" / "x" / "a.mp4", frames=3)
    write_dicom(tmp_path / "v" / "y" / "b.dcm", 4, PatientID="007")
    (tmp_path / "who.csv").write_text("file,patient\na.mp4,=Anna\nb.dcm,bert\n")
    ingested(cli, "v", "--patients", "who.csv")
    before = identities(tmp_path)
    outcome = cli("ingest", "v")
    assert outcome.exit_code == 0 and "2 skipped" in outcome.stdout
    assert "the patients that an earlier --patients named are kept (2 recordings)" in outcome.stderr
    assert len(ingested(cli, "v", "--force")["studies"]) == 2
    assert identities(tmp_path) == before and len(stored(tmp_path)) == 2


def test_a_copy_elsewhere_is_no_reason_to_forget_the_table(cli: Cli, tmp_path: Path) -> None:
    film = write_film(tmp_path / "v" / "x" / "a.mp4", frames=3).path
    (tmp_path / "who.csv").write_text("file,patient\nx/a.mp4,anna\n")
    ingested(cli, "v", "--patients", "who.csv")
    (tmp_path / "v" / "bert").mkdir()
    shutil.copy(film, tmp_path / "v" / "bert" / "b.mp4")
    result = ingested(cli, "v", code=3)
    assert [item["input"] for item in result["failed"]] == ["v/bert/b.mp4"]
    assert "give it again (--patients)" in result["failed"][0]["error"]
    # A table that is there and does not name the film may have been corrected.
    (tmp_path / "who.csv").write_text("file,patient\nc.mp4,anna\n")
    assert len(ingested(cli, "v", "--patients", "who.csv", code=4)["failed"]) == 2
