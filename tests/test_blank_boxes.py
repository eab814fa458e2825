"""`vfss ingest --blank-boxes`: what a person names is black on every frame, in ingest and after."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import Cli
from intake_films import write_dicom
from vfss_distill.errors import ConfigError
from vfss_distill.inference.inputs import Identifier, find_inputs
from vfss_distill.intake import patients
from vfss_distill.intake.box_table import BoxTable
from vfss_distill.intake.source import Found, open_source
from vfss_distill.intake.study import Study, list_studies
from vfss_distill.workspace import Workspace

HEIGHT, WIDTH = 40, 60
TABLE = "file,x,y,width,height\ncase.dcm,50,0,99,8\ncase.dcm,0,30,10,5\n"
INSET = np.zeros((HEIGHT, WIDTH), bool)
INSET[0:8, 50:] = INSET[30:35, 0:10] = True


@pytest.fixture
def film(tmp_path: Path) -> NDArray[np.uint8]:
    """v/p/case.dcm, whose every pixel is 1 or more; boxes.csv names two places of it."""
    pixels = np.random.default_rng(0).integers(1, 256, (30, HEIGHT, WIDTH), np.uint8)
    write_dicom(tmp_path / "v" / "p" / "case.dcm", pixels=pixels)
    (tmp_path / "boxes.csv").write_text(TABLE)
    return pixels


def only_study(folder: Path) -> Study:
    (study,) = list_studies(Workspace(folder))
    return study


def segmented(folder: Path, *, blank: bool) -> NDArray[np.uint8]:
    """What the network sees of the raw film."""
    workspace = Workspace(folder)
    (item,), _ = find_inputs([str(folder / "v" / "p" / "case.dcm")], workspace)
    identifier = Identifier(workspace, blank=blank)
    source = identifier.open(item, identifier.subject(item))
    return np.stack([frame.grey for frame in source.frames()])


def test_black_on_all_frames_and_nothing_else(
    cli: Cli, tmp_path: Path, film: NDArray[np.uint8]
) -> None:
    for options in ((), ("--no-blank", "--force")):
        outcome = cli("ingest", "v", "--blank-boxes", "boxes.csv", "--json", *options)
        assert outcome.exit_code == 0, outcome.stderr
        assert json.loads(outcome.stdout)["studies"][0]["blanked"] == 2
        study = only_study(tmp_path)
        assert {box.reason for box in study.record.blanked} == {"given"}
        wanted = np.where(INSET, 0, film)
        assert np.array_equal(np.stack([frame.grey for frame in study.frames()]), wanted)
        for blank in (True, False):
            assert np.array_equal(segmented(tmp_path, blank=blank), wanted)
    page = cli("ingest", "--review")
    assert page.exit_code == 0
    (html,) = tmp_path.glob("reports/*/index.html")
    assert html.read_text().count("named in --blank-boxes") == 2


def test_a_study_that_is_there_is_told_of_and_keeps_its_boxes(
    cli: Cli, tmp_path: Path, film: NDArray[np.uint8]
) -> None:
    (tmp_path / "views.csv").write_text("file,view,facing\ncase.dcm,lateral,right\n")
    assert cli("ingest", "v", "--views", "views.csv").exit_code == 0
    told = cli("ingest", "v", "--blank-boxes", "boxes.csv")
    assert "--blank-boxes names other boxes: use --force" in told.stderr
    assert only_study(tmp_path).record.blanked == ()
    cli("ingest", "v", "--blank-boxes", "boxes.csv", "--force")
    wanted = np.where(INSET, 0, film)[:, :, ::-1]
    for again in ((), ("--force",)):  # mirrored, and made anew without the table
        cli("ingest", "v", *again)
        study = only_study(tmp_path)
        assert study.record.mirrored and len(study.record.blanked) == 2
        assert np.array_equal(np.stack([frame.grey for frame in study.frames()]), wanted)
    assert "other boxes" not in cli("ingest", "v", "--blank-boxes", "boxes.csv").stderr


def test_pixels_are_the_recording_s_where_they_are_not_square(tmp_path: Path) -> None:
    pixels = np.full((2, HEIGHT, WIDTH), 200, np.uint8)
    path = tmp_path / "a.dcm"
    write_dicom(path, pixels=pixels, PixelAspectRatio=[2, 1])
    (tmp_path / "boxes.csv").write_text("file,x,y,width,height\na,3,5,10,4\n")
    info = open_source(path).info
    (box,) = BoxTable(tmp_path / "boxes.csv").boxes(Found(path, tmp_path), info)
    assert (box.x, box.y, box.width, box.height) == (3, 10, 10, 8)


def test_a_box_outside_the_picture_fails_its_recording(
    cli: Cli, tmp_path: Path, film: NDArray[np.uint8]
) -> None:
    (tmp_path / "boxes.csv").write_text(
        "file,x,y,width,height\ncase.dcm,60,0,5,5\nother.dcm,0,0,1,1"
    )
    outcome = cli("ingest", "v", "--blank-boxes", "boxes.csv")
    assert outcome.exit_code == 4 and "a box at 60,0, but its frames are 60x40" in outcome.stderr
    assert "--blank-boxes names what is none of these recordings: other.dcm" in outcome.stderr
    assert list_studies(Workspace(tmp_path)) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,x,y\na,1,2\n", "lacks the columns"),
        ("file,x,y,width,height\na,1,2,3,\na,0,-1,3,3\n,1,1,1,1\n", "line 2.*line 3.*line 4"),
        ("file,x,y,width,height\na,1,2,0,5\n", "no box inside a picture"),
        ("file,x,y,width,height\na,=1+1,2,3,4\n", "not four whole numbers"),
    ],
)
def test_tables_that_cannot_be_used(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_text(text)
    with pytest.raises(ConfigError, match=words):
        BoxTable(tmp_path / "boxes.csv")


def test_a_table_of_two_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "boxes.csv").open("wb") as file:
        file.truncate(2 << 30)
    with pytest.raises(ConfigError, match="too large"):
        BoxTable(tmp_path / "boxes.csv")
    with pytest.raises(ConfigError, match="too large"):
        patients.PatientTable(tmp_path / "boxes.csv")
