"""A folder of films to ingest, the command that does it, and what it leaves."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from conftest import Cli
from intake_films import HEIGHT, WIDTH, write_dicom, write_film, write_image, write_images
from vfss_distill.intake.study import Study, list_studies
from vfss_distill.workspace import Workspace


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


def write_videos(folder: Path) -> Path:
    """Three patients, five recordings of five kinds, labels for two of them."""
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


def identities(root: Path) -> list[dict[str, str]]:
    with (root / "identities.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def temporaries(root: Path) -> list[Path]:
    return [path for path in root.rglob(".partial-*")]
