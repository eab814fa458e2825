"""Folders of masks among recordings: none is taken for a patient, none is lost without a word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conftest import Cli
from ingest_jobs import ingested, stored, write_mask
from intake_films import HEIGHT, WIDTH, barcode, write_film, write_image, write_images
from vfss_distill.intake.mask_folders import MASKS, kind_of


@pytest.mark.parametrize("name", ["film_masks", "film.mp4_masks", "film_Masks", "film.mp4_MASKS"])
def test_names_by_which_masks_are_a_film_s(name: str, cli: Cli, tmp_path: Path) -> None:
    write_film(tmp_path / "v" / "film.mp4", frames=5)
    write_mask(tmp_path / "v" / name / "c2" / "1.png")
    outcome = cli("ingest", "v")
    assert "masks" not in outcome.stderr and "skipped " not in outcome.stdout
    assert stored(tmp_path)[0].record.labelled == {"c2": (1,)}
    assert "masks" not in cli("ingest", "v").stderr  # nor when all is there


@pytest.mark.parametrize("name", ["filmx_masks", "masks", "labels"])
def test_masks_of_no_film_are_told(name: str, cli: Cli, tmp_path: Path) -> None:
    write_film(tmp_path / "v" / "p" / "film.mp4", frames=5)
    write_mask(tmp_path / "v" / "p" / name / "c2" / "1.png")
    line = f"v/p/{name}: masks of no film beside it; name it <film>_masks"
    assert line in cli("ingest", "v").stderr
    assert line in cli("ingest", "v").stderr
    assert line not in cli("ingest", "v", "--labels", f"v/p/{name}").stderr


def test_other_folders_named_so_are_not_told(cli: Cli, tmp_path: Path) -> None:
    """Of a result, of an export, of images, of a simulated film; and without any mask."""
    for place in ("r/masks", "e/masks", "i/masks", "i/film_extra_masks"):
        write_mask(tmp_path / "v" / place / "c2" / "0001.png")
    (tmp_path / "v" / "r" / "run.json").write_text("{}")
    (tmp_path / "v" / "e" / "masks" / "vfss-labels.json").write_text("{}")
    write_images(tmp_path / "v" / "i" / "images", 3)
    write_film(tmp_path / "v" / "i" / "film.mp4", frames=5)
    (tmp_path / "v" / "labels").mkdir()
    assert "masks of no film" not in cli("ingest", "v").stderr
    assert {tuple(study.record.labelled) for study in stored(tmp_path)} == {("c2",), ()}


@pytest.mark.parametrize("name", ["film masks", "film_mask"])
def test_masks_are_no_patients(name: str, cli: Cli, tmp_path: Path) -> None:
    """In folders of other names, blank ones too; one line for all tasks of a film."""
    write_film(tmp_path / "v" / "p" / "film.mp4", frames=5)
    for frame in range(20):
        write_mask(tmp_path / "v" / "p" / name / "bolus" / f"{frame}.png", blank=True)
        write_mask(tmp_path / "v" / "p" / name / "c2" / f"{frame}.png", blank=frame > 10)
        write_mask(tmp_path / "v" / "p" / name / "c3" / f"{frame}.jpg")
    told = ingested(cli, "v")
    assert [study["frames"] for study in told["studies"]] == [5]
    skipped = {"input": f"v/p/{name}", "study": None, "why": MASKS}
    assert told["skipped"] == [skipped]
    given = ingested(cli, f"v/p/{name}", f"v/p/{name}/c2")
    assert not given["studies"] and given["skipped"] == [skipped]


def test_masks_beside_recordings_are_told_each(cli: Cli, tmp_path: Path) -> None:
    write_images(tmp_path / "v" / "p" / "run", 3)
    for name, blank in (("bolus", True), ("c2", False)):
        write_mask(tmp_path / "v" / "p" / name / "1.png", blank=blank)
    told = ingested(cli, "v")
    assert [study["frames"] for study in told["studies"]] == [3]
    assert [one["input"] for one in told["skipped"]] == ["v/p/bolus", "v/p/c2"]


def test_black_and_white_frames_make_no_masks_of_a_film(cli: Cli, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "v" / "run", 40).path
    for frame in range(1, 30):  # black, then a title in white on it
        write_mask(folder / f"{frame:04d}.png", blank=frame < 20)
    for frame in range(3):  # dark throughout, and no masks beside it
        write_mask(tmp_path / "v" / "dark" / f"{frame}.png", blank=True)
    told = ingested(cli, "v")
    assert sorted(study["frames"] for study in told["studies"]) == [3, 40] and not told["skipped"]


def test_exported_labels_are_no_recordings(cli: Cli, tmp_path: Path) -> None:
    write_film(tmp_path / "v" / "p" / "film.mp4", frames=5)
    write_mask(tmp_path / "v" / "p" / "film_masks" / "c2" / "1.png")
    ingested(cli, "v")
    for number, form in enumerate(("masks", "nnunet", "labelme")):
        words = {"nnunet": ("--tasks", "c2"), "labelme": ("--pictures",)}.get(form, ())
        outcome = cli("labels", "export", f"out{number}", "--format", form, *words)
        assert outcome.exit_code == 0, outcome.stderr
    told = {one["input"]: one["why"] for one in ingested(cli, ".")["skipped"]}
    assert told.pop("v/p/film.mp4") == "already ingested"
    assert set(told) == {"out0", "out1", "out2"}
    assert set(told.values()) == {"labels that `vfss labels export` wrote, not recordings"}
    outcome = cli("ingest", "out2")
    assert outcome.exit_code == 0 and "skipped out2: labels that" in outcome.stdout


@pytest.mark.parametrize("name", ["film_masks", "film_masks/c2", "film mask", "out"])
def test_masks_are_not_segmented(name: str, cli: Cli, tmp_path: Path) -> None:
    write_mask(tmp_path / "film_masks" / "c2" / "1.png")
    write_mask(tmp_path / "film mask" / "c2" / "1.png")
    write_image(tmp_path / "out" / "000001.png", barcode(3))
    (tmp_path / "out" / "vfss-labels.json").write_text("{}")
    outcome = cli("segment", name)
    assert outcome.exit_code == 4
    assert f"{name}: holds masks, no recording. Name the film itself" in outcome.stderr


def test_what_a_mask_looks_like() -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    assert kind_of(mask) == kind_of(mask + 255) == "blank"
    mask[10:60, 20:70] = 1
    for factor in (1, 5, 127, 255):
        assert kind_of(mask * np.uint8(factor)) == "mask"
    assert kind_of(mask.astype(np.uint16) * 65535) == "mask"
    index = mask.copy()
    index[20:30, 20:60] = 12
    assert kind_of(index) == "mask"
    assert kind_of(barcode(5)) == "picture"
    dark = mask * np.uint8(255)
    dark[:20, :20] = np.arange(20) * 10  # a small dim picture beside white margins
    assert kind_of(dark) == "picture"
    assert kind_of(np.linspace(-1, 1, 100, dtype=np.float32).reshape(10, 10)) == "picture"
