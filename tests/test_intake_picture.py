"""Where the picture is within black margins: found at ingest, and all that networks are shown."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import Cli
from intake_films import write_frames
from vfss_distill.intake.boxes import INSET, PICTURE, Box
from vfss_distill.intake.picture import find_picture
from vfss_distill.intake.record import StudyRecord
from vfss_distill.intake.study import list_studies
from vfss_distill.simulate import SimulateOptions, simulate_study
from vfss_distill.workspace import Workspace

HEIGHT, WIDTH = 150, 260
LIT = (slice(30, 130), slice(20, 120))


def film(level: int = 90) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(6):
        grey = rng.integers(0, 9, (HEIGHT, WIDTH), dtype=np.uint8)  # a codec's black
        grey[LIT] = level
        frames.append(grey)
    return frames


def test_the_picture_is_what_is_lit_in_some_frame_with_a_little_room() -> None:
    frames = film()
    assert find_picture(frames) == Box(18, 28, 104, 104, PICTURE)
    frames[3][40:60, 120:160] = 60  # a collimator that opens for a moment
    found = find_picture(frames)
    assert found is not None and found.x + found.width == 163


def test_specks_and_what_will_be_black_are_no_picture() -> None:
    frames = film()
    frames[2][5:8, 200:203] = 255
    frames[4][60:90, 200:240] = 200
    assert find_picture(frames, [Box(198, 55, 50, 40, INSET)]) == find_picture(film())


@pytest.mark.parametrize(
    "frames",
    [
        [],
        film(level=5),
        [np.full((HEIGHT, WIDTH), 80, np.uint8)],
        [np.pad(np.full((20, 20), 80, np.uint8), ((40, 90), (100, 140)))],
    ],
    ids=["no frames", "black", "no margins", "hardly any of the frame"],
)
def test_when_in_doubt_the_picture_is_the_whole_frame(frames: list[NDArray[np.uint8]]) -> None:
    assert find_picture(frames) is None


def test_records_keep_it_and_old_ones_have_none() -> None:
    record = StudyRecord("s", "p", "0" * 64, 1, (0.0,), 9, 9, picture=Box(1, 2, 3, 4, PICTURE))
    told = json.loads(json.dumps(record.to_dict()))
    assert StudyRecord.from_dict(told) == record
    del told["picture"]
    assert StudyRecord.from_dict(told).picture is None


@pytest.fixture(scope="module")
def narrow() -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A patient in the left half of a wide screen: frames and masks of C3."""
    options = SimulateOptions(size=192, frames=6, fps=6, pulses=6, kind="quiet", extras=False)
    study = simulate_study(11, 0, options)
    place = ((0, 0), (24, 24), (30, 330))
    return np.pad(study.frames, place), np.pad(study.masks["c3"], place)


def segmented(cli: Cli, root: Path, word: str) -> NDArray[np.bool_]:
    told = json.loads(cli("segment", word, "--no-overlay", "--json").stdout)
    masks = root / told["studies"][0]["outputs"]["masks"] / "c3"
    files = sorted(masks.iterdir())
    return np.stack([cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) > 127 for file in files])


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def test_masks_of_a_narrow_picture_lie_on_the_film(
    cli: Cli, tmp_path: Path, narrow: tuple[NDArray, NDArray]
) -> None:
    frames, truth = narrow
    write_frames(tmp_path / "films" / "a", frames)
    stranger = segmented(cli, tmp_path, "films/a")
    assert stranger.shape == frames.shape
    assert dice(stranger, truth) > 0.9
    cli("ingest", "films", "--fps", "6")
    (study,) = list_studies(Workspace(tmp_path))
    found = study.record.picture
    assert found is not None and found.width < 0.5 * frames.shape[2]
    assert np.array_equal(segmented(cli, tmp_path, study.id), stranger)
    # Mirrored, it is looked at as before.
    write_frames(tmp_path / "turned", np.ascontiguousarray(frames[:, :, ::-1]))
    turned = segmented(cli, tmp_path, "turned")[:, :, ::-1]
    assert np.array_equal(turned, stranger)
    # `vfss measure` asks where the picture ends, to the pixel.
    runs = [json.loads(file.read_text()) for file in tmp_path.glob("results/*/*/run.json")]
    assert sorted(run["lit"] for run in runs) == [[30, 24, 192, 192]] * 2 + [[330, 24, 192, 192]]
