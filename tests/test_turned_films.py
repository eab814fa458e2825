"""Films that lie on their side and note how they are to be shown, as telephones make them."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Cli
from ingest_jobs import ingested, stored, write_mask
from intake_films import HEIGHT, WIDTH, write_dicom_film, write_film
from vfss_distill.intake.source import FrameSource, open_source

# Of x and y, what players show: across from a and c, down from b and d (ISO/IEC 14496-12, tkhd).
CLOCKWISE, ABOUT, BACK = (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)
ASLANT, MIRRORED, NOTHING = (0.7071, 0.7071, -0.7071, 0.7071), (-1, 0, 0, 1), (0, 0, 0, 0)


def shown(path: Path, matrix: tuple[float, ...]) -> Path:
    """Note in the header of an MP4 file how it is to be shown."""
    data = bytearray(path.read_bytes())
    assert data.count(b"tkhd") == 1
    place = data.index(b"tkhd") + 4 + 40  # behind version, times, number, duration, layer, volume
    a, b, c, d = (round(value * 65536) for value in matrix)
    struct.pack_into(">9i", data, place, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def pictures(source: FrameSource) -> Any:
    return np.stack([frame.grey for frame in source.frames()])


@pytest.mark.parametrize(
    "matrix, turns, degrees", [(CLOCKWISE, 3, 270), (ABOUT, 2, 180), (BACK, 1, 90)]
)
def test_frames_are_upright(
    tmp_path: Path, matrix: tuple[float, ...], turns: int, degrees: int
) -> None:
    write_film(tmp_path / "film.mp4", frames=6)
    as_coded = pictures(open_source(tmp_path / "film.mp4"))
    source = open_source(shown(tmp_path / "film.mp4", matrix))
    upright = np.rot90(as_coded, turns, axes=(1, 2))
    assert source.info.stored_size == upright.shape[1:]
    assert np.array_equal(pictures(source), upright)
    assert [f"turned by {degrees} degrees" in line for line in source.info.warnings] == [True]


def test_pixels_that_are_not_square_are_turned_too(tmp_path: Path) -> None:
    write_film(tmp_path / "film.mp4", frames=3, aspect=Fraction(2))
    source = open_source(shown(tmp_path / "film.mp4", CLOCKWISE))
    assert source.info.pixel_aspect == (1, 2)
    assert source.info.stored_size == (WIDTH, HEIGHT)
    assert pictures(source).shape == (3, 2 * WIDTH, HEIGHT)


@pytest.mark.parametrize("matrix", [ASLANT, MIRRORED, NOTHING])
def test_what_is_no_quarter_turn_is_left_and_said(
    tmp_path: Path, matrix: tuple[float, ...]
) -> None:
    write_film(tmp_path / "film.mp4", frames=3)
    as_coded = pictures(open_source(tmp_path / "film.mp4"))
    source = open_source(shown(tmp_path / "film.mp4", matrix))
    assert np.array_equal(pictures(source), as_coded)
    assert [line for line in source.info.warnings if "left as it is" in line]


def test_its_masks_are_those_of_the_picture_shown(cli: Cli, tmp_path: Path) -> None:
    write_film(tmp_path / "videos" / "film.mp4", frames=6)
    shown(tmp_path / "videos" / "film.mp4", CLOCKWISE)
    mask = tmp_path / "videos" / "film_masks" / "hyoid" / "000002.png"
    write_mask(mask, shape=(WIDTH, HEIGHT))
    ingested(cli, "videos")
    (study,) = stored(tmp_path)
    assert (study.record.height, study.record.width) == (WIDTH, HEIGHT)
    assert study.labelled_frames("hyoid") == (2,)
    write_mask(mask)
    ingested(cli, "videos", code=4)


def test_a_film_inside_dicom_is_as_its_header_says(tmp_path: Path) -> None:
    write_film(tmp_path / "film.mp4", frames=6)
    film = shown(tmp_path / "film.mp4", CLOCKWISE)
    write_dicom_film(tmp_path / "film.dcm", film, 6)
    assert pictures(open_source(tmp_path / "film.dcm")).shape == (6, HEIGHT, WIDTH)
