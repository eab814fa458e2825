"""What a killed process leaves: what it set aside comes back, and nothing lies about for ever."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Cli
from distill_lab import run, same, tiny_lab
from fake_results import FakeWorkspace
from ingest_jobs import ingested
from intake_films import write_film
from label_world import first_study, make_world
from vfss_distill.inference.record import clear_results
from vfss_distill.intake import fill
from vfss_distill.intake.formats import into_study
from vfss_distill.intake.study import has_imported_labels
from vfss_distill.workspace import atomic_folder, put_back

# Where folders cannot swap names in one step (network shares, Mac, Windows): dies in between.
_DIES_BETWEEN = """
import os, sys
from pathlib import Path
from vfss_distill import workspace
workspace._exchange = lambda *_: False
moved = []
def move_one(move):
    if moved:
        os._exit(9)
    moved.append(move())
workspace._patiently = move_one
with workspace.atomic_folder(Path(sys.argv[1])) as new:
    (new / "text").write_text("new")
"""


def die_between_renames(target: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _DIES_BETWEEN, target], check=False)
    assert done.returncode == 9 and not target.exists()


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(".partial-*"))


def test_a_folder_set_aside_is_put_back(tmp_path: Path) -> None:
    target = tmp_path / "last.ckpt"
    target.mkdir()
    (target / "text").write_text("old")
    die_between_renames(target)
    put_back(tmp_path, "another")
    assert not target.exists()
    put_back(tmp_path)
    assert (target / "text").read_text() == "old"


def test_a_folder_set_aside_takes_no_others_place(tmp_path: Path) -> None:
    target = tmp_path / "last.ckpt"
    target.mkdir()
    die_between_renames(target)
    target.mkdir()
    (target / "text").write_text("of another")
    put_back(tmp_path)
    assert (target / "text").read_text() == "of another"


def test_what_is_being_made_stays_hidden(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "old-last.ckpt"):
        put_back(tmp_path)
        assert [path.name[:9] for path in tmp_path.iterdir()] == [".partial-"]


def test_a_run_goes_on_from_a_checkpoint_set_aside(tmp_path: Path) -> None:
    whole = run(tiny_lab(tmp_path / "whole"))
    lab = tiny_lab(tmp_path / "lab")
    folder = lab.runs / "run-001"
    steps: list[int] = []

    def die(step: int, _: int, words: str) -> None:
        if step == 5 and "loss" in words:  # the last checkpoint is of step 4
            raise RuntimeError

    with pytest.raises(RuntimeError):
        run(lab, tick=die)
    die_between_renames(folder / "last.ckpt")
    (folder / ".partial-0123abcd-student.onnx").touch()
    resumed = run(
        lab, resume=folder, tick=lambda step, _, words: steps.append(step * ("loss" in words))
    )
    assert [step for step in steps if step] == [5] and not hidden(folder)
    assert same(whole, resumed)


def test_a_study_and_a_result_set_aside_are_put_back(tmp_path: Path) -> None:
    fake = FakeWorkspace(tmp_path)
    study = fake.study("p1-aaaaaa", "p1", labels=[0])
    result = fake.result("p1-aaaaaa", n=1)
    for folder in (study, result):
        die_between_renames(folder)
    fill.sweep(tmp_path / "studies", "p2-bbbbbb")  # others are at work
    assert not study.exists()
    fill.sweep(tmp_path / "studies", "p1-aaaaaa")
    clear_results(tmp_path / "results")
    assert (study / "study.json").exists() and (result / "run.json").exists()


def test_masks_set_aside_are_there_for_the_next_import(cli: Cli, tmp_path: Path) -> None:
    world = make_world(tmp_path)
    study = first_study(world)
    masks = sorted(path.relative_to(study.folder) for path in study.folder.glob("masks/*/*"))
    assert cli("labels", "export", "out", "--format", "masks", cwd=world.root).exit_code == 0
    (study.folder / "masks" / "c3" / "000000.png").unlink()
    die_between_renames(study.folder / "masks")
    outcome = cli("labels", "import", "out", "--study", study.id, "--force", cwd=world.root)
    assert outcome.exit_code == 0, outcome.stderr
    assert sorted(path.relative_to(study.folder) for path in study.folder.glob("masks/*/*")) == (
        masks
    )
    assert not hidden(study.folder)


def test_masks_replaced_by_an_import_that_died_are_known_to_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = first_study(make_world(tmp_path))
    put_record, puts = into_study._put_record, []

    def die_at_the_second(*arguments: object) -> None:
        puts.append(arguments)
        if len(puts) == 2:
            raise KeyboardInterrupt
        put_record(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(into_study, "_put_record", die_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        into_study.write_masks(study, {("bolus", 2): b"corrected"}, {"file": "x"})
    assert (study.folder / "masks" / "bolus" / "000002.png").read_bytes() == b"corrected"
    assert has_imported_labels(study.folder)


def test_names_in_what_a_killed_ingest_wrote_are_taken_away(cli: Cli, tmp_path: Path) -> None:
    write_film(tmp_path / "v" / "anna" / "a.mp4", frames=3)
    ingested(cli, "v")
    protected = tmp_path / "protected"
    protected.mkdir()
    (tmp_path / "identities.key").rename(protected / "key [1]")
    (tmp_path / "identities.key").symlink_to(protected / "key [1]")
    left = [tmp_path / ".partial-0123abcd-identities.csv", protected / ".partial-0123abcd-key [1]"]
    others = [tmp_path / ".partial-0123abcd-mine", protected / ".partial-0123abcd-identities.csv"]
    for path in (*left, *others):
        path.write_text("anna")
    ingested(cli, "v")
    assert not any(path.exists() for path in left) and all(path.exists() for path in others)
    assert ".partial-*" in (tmp_path / ".gitignore").read_text().splitlines()


def test_a_simulated_set_goes_on_after_a_kill_at_its_first_write(cli: Cli, tmp_path: Path) -> None:
    shape = ("--patients", "1", "--frames", "3", "--size", "64", "--quiet")
    films = tmp_path / "films"
    films.mkdir()
    (films / ".partial-0123abcd-SIMULATED.txt").touch()
    assert cli("simulate", "films", *shape).exit_code == 0
    (films / "sim0000" / "sim0000-00_truth.json").unlink()  # killed before it was written
    left = films / "sim0000" / ".partial-0123abcd-sim0000-00.mp4"
    left.touch()
    assert cli("simulate", "films", *shape).exit_code == 0
    assert not left.exists() and (films / "sim0000" / "sim0000-00.mp4").stat().st_size
