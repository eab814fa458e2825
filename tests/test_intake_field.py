"""What is drawn around the X-ray field: found and blanked; the field itself never is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from conftest import Cli
from intake_films import barcode, write_dicom
from vfss_distill.inference.inputs import Identifier, find_inputs
from vfss_distill.intake.boxes import FURNITURE, INSET, Box
from vfss_distill.intake.burned_in import BurnedIn
from vfss_distill.intake.field import hull_of, twinkle
from vfss_distill.intake.source import open_source
from vfss_distill.intake.study import Study, list_studies
from vfss_distill.intake.surroundings import find_surroundings, find_to_blank, told
from vfss_distill.intake.walk import find_sources
from vfss_distill.simulate import SimulateOptions
from vfss_distill.simulate.population import POPULATIONS
from vfss_distill.simulate.study import StudySimulator
from vfss_distill.workspace import Workspace

Film = NDArray[np.uint8]
Mask = NDArray[np.bool_]
HEIGHT, WIDTH, FRAMES = 200, 260, 14
PICTURE = (slice(44, 200), slice(50, 250))  # of the film in a viewer
CLOCK = (slice(6, 24), slice(180, 250))


def grainy(height: int, width: int, seed: int = 0, level: float = 110) -> NDArray[np.float64]:
    """Frames with grain over a slope of grey."""
    slope = np.linspace(-30, 30, width)
    return level + slope + np.random.default_rng(seed).normal(0, 6, (FRAMES, height, width))


def bytes_of(film: NDArray[np.float64]) -> Film:
    return np.clip(film, 0, 255).astype(np.uint8)


def viewer(grey: int = 90, *, clock: bool = True) -> Film:
    """Bars with icons above and left, a plain one right; the picture is PICTURE."""
    canvas = np.full((HEIGHT, WIDTH), grey, np.uint8)
    ink = grey + 100 if grey < 130 else grey - 100
    for at in range(8, 180, 30):
        cv2.rectangle(canvas, (12, at), (30, at + 16), ink, 1)
        cv2.putText(canvas, "W/L", (at, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.4, ink, 1, cv2.LINE_AA)
    canvas[:, 250:] = grey
    film = np.repeat(canvas[None], FRAMES, axis=0)
    film[:, PICTURE[0], PICTURE[1]] = bytes_of(grainy(156, 200))
    for index, frame in enumerate(film):
        if clock:
            frame[CLOCK] = grey
            cv2.putText(frame, f"12:03:{index:02d}", (182, 20), 0, 0.4, ink, 1, cv2.LINE_AA)
    return film


def covered(boxes: tuple[Box, ...], shape: tuple[int, ...]) -> Mask:
    mask = np.zeros(shape, bool)
    for box in boxes:
        mask[box.window] = True
    return mask


def as_jpeg(film: Film) -> Film:
    packed = [cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 60])[1] for frame in film]
    return np.stack([cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) for data in packed])


class TestFurniture:
    @pytest.mark.parametrize("grey", [60, 90, 200])
    @pytest.mark.parametrize("codec", ["raw", "jpeg"])
    def test_bars_go_and_the_picture_stays(self, grey: int, codec: str) -> None:
        film = viewer(grey) if codec == "raw" else as_jpeg(viewer(grey))
        boxes = find_surroundings(list(film)).blank
        blank = covered(boxes, film.shape[1:])
        assert not blank[PICTURE].any() and {box.reason for box in boxes} == {FURNITURE}
        ink = np.abs(viewer(grey, clock=False)[0].astype(int) - grey) > 40
        ink[PICTURE] = False
        assert blank[ink].all() and blank[CLOCK].all()

    def test_a_logo_in_the_corner_of_a_round_field(self) -> None:
        disc = np.zeros((220, 220), np.uint8)
        cv2.circle(disc, (110, 110), 105, 1, -1)
        film = bytes_of(grainy(220, 220) * disc)
        film[:, 4:20, 4:20] = 200
        boxes = find_surroundings(list(film)).blank
        blank = covered(boxes, disc.shape)
        assert blank[4:20, 4:20].all() and not blank[disc > 0].any() and blank.sum() < 1600

    def test_empty_bars_are_left_alone(self) -> None:
        for ground in (0, 40, 128):
            film = np.full((FRAMES, HEIGHT, WIDTH), ground, np.uint8)
            film[:, :, 40:220] = bytes_of(grainy(HEIGHT, 180))
            assert find_surroundings(list(film)) == BurnedIn()


class TestFieldIsKept:
    def test_bare_beam_and_deep_shadow_are_field(self) -> None:
        """A field whose side is white and whose corner is black, both without grain; tool bars."""
        film = viewer()
        picture = film[(slice(None), *PICTURE)]
        columns, rows = np.meshgrid(np.arange(200), np.arange(156))
        picture[:, columns > 150 + 20 * np.sin(rows / 30)] = 255
        picture[:, (columns < 60) & (rows > 120)] = 0
        blank = covered(find_surroundings(list(film)).blank, film.shape[1:])
        assert not blank[PICTURE].any() and blank[:20].mean() > 0.9

    def test_two_pictures_of_one_size_both_stay(self) -> None:
        film = np.zeros((FRAMES, 150, 330), np.uint8)
        film[:, 20:130, 10:150] = bytes_of(grainy(110, 140))
        film[:, 20:130, 180:320] = bytes_of(grainy(110, 140, 1))
        cv2.rectangle(film[0], (0, 0), (9, 9), 200, -1)
        blank = covered(find_surroundings(list(film)).blank, film.shape[1:])
        assert not blank[20:130, 10:150].any() and not blank[20:130, 180:320].any()

    def test_films_without_grain_lose_nothing(self) -> None:
        film = viewer()
        still = np.repeat(film[:1], FRAMES, axis=0)
        smooth = viewer(clock=False)
        smooth[(slice(None), *PICTURE)] = np.linspace(60, 160, 200).astype(np.uint8)
        for index, frame in enumerate(smooth):
            cv2.circle(frame, (90 + 8 * index, 120), 14, 200, -1)
        analogue = bytes_of(film + np.random.default_rng(0).normal(0, 4, film.shape))
        bars = np.stack([barcode(index) for index in range(40)])
        noise = bytes_of(grainy(HEIGHT, WIDTH))
        for frames in (still, film[:1], film[:6], smooth, analogue, bars, noise, noise[:, :40]):
            assert find_surroundings(list(frames)) == BurnedIn()
        assert find_surroundings([]) == BurnedIn()

    def test_repeated_frames_are_no_evidence(self) -> None:
        film = np.repeat(viewer(), 3, axis=0)
        assert find_surroundings(list(film)) == find_surroundings(list(viewer()))
        assert find_surroundings(list(np.repeat(viewer()[:5], 6, axis=0))) == BurnedIn()

    @pytest.mark.parametrize("name", ["train", "shifted"])
    @pytest.mark.parametrize("seed", range(8300, 8306))
    def test_no_anatomy_of_simulated_films(self, name: str, seed: int) -> None:
        """Half of them in viewers, a third letterboxed, some through a poor JPEG."""
        ranges = replace(POPULATIONS[name], viewer_share=0.5, boxed_share=0.6)
        options = SimulateOptions(size=256, frames=14, fps=8, ranges=ranges, extras=True)
        frames = list(StudySimulator(seed, 0, options).frames())
        boxes = find_surroundings([frame.grey for frame in frames]).blank
        blank = covered(boxes, frames[0].grey.shape)
        for frame in frames:
            assert not any((mask & blank).any() for mask in frame.masks.values())

    def test_real_films_lose_nothing(self, shared_data: Path) -> None:
        folders = [shared_data / "xa-coronary-cine", shared_data / "swallow-cine-mri" / "subj01"]
        for path in find_sources(folders):
            frames = [frame.grey for frame in open_source(path).frames()]
            assert find_surroundings(frames[:48]) == BurnedIn()


class TestInset:
    @pytest.mark.parametrize("ground", [0, 100])
    def test_a_camera_beside_the_picture(self, ground: int) -> None:
        film = np.full((FRAMES, 200, 320), ground, np.uint8)
        film[:, 10:190, 10:210] = bytes_of(grainy(180, 200))
        film[:, 60:120, 230:310] = bytes_of(grainy(60, 80, 1, level=170))
        boxes = find_surroundings(list(film)).blank
        blank = covered(boxes, film.shape[1:])
        assert INSET in {box.reason for box in boxes}
        assert blank[60:120, 230:310].all() and not blank[:, :210].any()
        assert "a second moving picture" in told(boxes)

    def test_one_over_the_picture_is_named_and_left(self) -> None:
        film = bytes_of(grainy(200, 260))
        for rows, columns in ((slice(130, 200), slice(180, 260)), (slice(40, 110), slice(60, 150))):
            both = film.copy()
            shape = both[:, rows, columns].shape
            both[:, rows, columns] = bytes_of(grainy(*shape[1:], 1, level=200))
            found = find_surroundings(list(both))
            (box,) = found.suspect
            there = covered((box,), both.shape[1:])
            assert found.blank == () and box.reason == INSET and there[rows, columns].all()
            assert there.sum() < 1.1 * shape[1] * shape[2]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 29), st.integers(0, 39)), min_size=1, max_size=30))
def test_a_hull_holds_its_pixels(pixels: list[tuple[int, int]]) -> None:
    grains = np.zeros((30, 40), bool)
    grains[tuple(np.transpose(pixels))] = True
    hull = hull_of(grains)
    rows, columns = np.nonzero(grains)
    assert hull[grains].all()
    assert hull.any(axis=1).sum() == np.ptp(rows) + 1
    assert hull.any(axis=0).sum() == np.ptp(columns) + 1


def test_twinkle_is_the_share_of_frames_that_differ() -> None:
    film = np.zeros((21, 80, 80), np.uint8)
    film[::2, :40] = 9
    film[10:, 40:] = 9
    share = twinkle(list(film))
    assert share is not None
    assert np.allclose(share[:36], 1) and np.allclose(share[44:], 0.05)


@pytest.fixture
def videos(tmp_path: Path) -> Film:
    """v/a/viewer.dcm, and v/b/plain.dcm without any furniture."""
    write_dicom(tmp_path / "v" / "a" / "viewer.dcm", pixels=viewer())
    write_dicom(tmp_path / "v" / "b" / "plain.dcm", pixels=bytes_of(grainy(HEIGHT, WIDTH)))
    return viewer()


def in_viewer(folder: Path) -> Study:
    studies = list_studies(Workspace(folder))
    return next(s for s in studies if s.record.blanked or s.record.suspect)


class TestIngest:
    def test_black_on_all_frames_recorded_and_said(
        self, cli: Cli, tmp_path: Path, videos: Film
    ) -> None:
        outcome = cli("ingest", "v", "--review")
        assert "viewer.dcm: made black: what a viewer draws around" in outcome.stderr
        study = in_viewer(tmp_path)
        assert FURNITURE in {box.reason for box in study.record.blanked}
        expected = videos.copy()
        expected[:, covered(study.record.blanked, videos.shape[1:])] = 0
        assert np.array_equal(np.stack([frame.grey for frame in study.frames()]), expected)
        assert np.array_equal(expected[(slice(None), *PICTURE)], videos[(slice(None), *PICTURE)])
        (page,) = tmp_path.glob("reports/*/index.html")
        assert "drawn around the X-ray picture" in page.read_text()
        again = cli("ingest", "v")
        assert "already ingested" in again.stdout and "made black" not in again.stderr

    def test_kept_when_asked(self, cli: Cli, tmp_path: Path, videos: Film) -> None:
        cli("ingest", "v", "--no-blank")
        study = in_viewer(tmp_path)
        assert study.record.blanked == () and study.record.suspect
        assert np.array_equal(np.stack([frame.grey for frame in study.frames()]), videos)

    def test_the_same_whatever_the_workers(self, cli: Cli, tmp_path: Path, videos: Film) -> None:
        said = []
        for workers in ("1", "2"):
            cli("ingest", "v", "-w", workers, "--workers", workers)
            studies = list_studies(Workspace(tmp_path / workers))
            said.append(sorted(json.dumps(s.record.to_dict()["blanked"]) for s in studies))
        assert said[0] == said[1] and len(said[0]) == 2

    def test_mirrored_boxes_lie_on_mirrored_frames(
        self, cli: Cli, tmp_path: Path, videos: Film
    ) -> None:
        (tmp_path / "views.csv").write_text("file,view,facing\nviewer.dcm,lateral,right\n")
        cli("ingest", "v", "--views", "views.csv")
        study = in_viewer(tmp_path)
        blank = covered(study.record.blanked, videos.shape[1:])
        frames = np.stack([frame.grey for frame in study.frames()])
        assert study.record.mirrored and not frames[:, blank].any() and not blank[60:, 12:200].any()

    def test_segment_of_the_raw_film(self, tmp_path: Path, videos: Film) -> None:
        workspace = Workspace(tmp_path)
        (item,), _ = find_inputs([str(tmp_path / "v" / "a" / "viewer.dcm")], workspace)
        for blank in (True, False):
            identifier = Identifier(workspace, blank=blank)
            source = identifier.open(item, identifier.subject(item))
            frames = np.stack([frame.grey for frame in source.frames()])
            boxes = find_to_blank(list(videos)).blank if blank else ()
            expected = videos.copy()
            expected[:, covered(boxes, videos.shape[1:])] = 0
            assert np.array_equal(frames, expected)
            assert any("what a viewer draws" in line for line in source.info.warnings) is blank
