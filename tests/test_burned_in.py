"""Text burned into films: found, blanked on every frame, shown for review; anatomy left alone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from conftest import Cli
from intake_films import write_dicom, write_image
from vfss_distill.intake.boxes import Box, blank_boxes
from vfss_distill.intake.burned_in import find_text
from vfss_distill.intake.film_sample import FrameSample
from vfss_distill.intake.record import StudyRecord
from vfss_distill.intake.source import open_source
from vfss_distill.intake.study import Study, list_studies
from vfss_distill.intake.walk import find_sources
from vfss_distill.simulate import SimulateOptions, simulate_study
from vfss_distill.simulate.population import POPULATIONS
from vfss_distill.workspace import Workspace

NAME = "MUELLER^ANNA"
FONT = cv2.FONT_HERSHEY_SIMPLEX


@pytest.fixture(scope="module")
def film() -> NDArray[np.uint8]:
    """A simulated swallow without text, uint8 (24, 384, 384)."""
    ranges = replace(POPULATIONS["train"], text_share=0.0, compression_share=0.0)
    options = SimulateOptions(size=384, frames=24, fps=8, ranges=ranges, extras=False)
    return simulate_study(8100, 0, options).frames


def written(film: NDArray[np.uint8], words: str, x: int, y: int, **draw: object) -> tuple:
    """`film` with `words` on each frame (`{}`: the frame's number), and where they are."""
    film, mask = film.copy(), np.zeros(film.shape[1:], np.uint8)
    for index, frame in enumerate(film):
        text = words.format(index)
        cv2.putText(frame, text, (x, y), FONT, 0.5, 255, 1, cv2.LINE_AA)
        cv2.putText(mask, text, (x, y), FONT, 0.5, 255, 1, cv2.LINE_AA)
    return film, mask > 100


def covered(film: NDArray[np.uint8], mask: NDArray[np.bool_]) -> float:
    blank = np.zeros(mask.shape, bool)
    for box in find_text(list(film)).blank:
        blank[box.window] = True
    return float((mask & blank).sum() / mask.sum())


class TestFinder:
    def test_nothing_is_blanked_where_nothing_is_written(self, film: NDArray[np.uint8]) -> None:
        assert find_text(list(film)).blank == ()

    @pytest.mark.parametrize(("x", "y"), [(8, 20), (250, 20), (8, 372), (250, 372), (120, 372)])
    def test_names_at_the_border(self, x: int, y: int, film: NDArray[np.uint8]) -> None:
        text, mask = written(film // 2, NAME, x, y)
        assert covered(text, mask) > 0.99

    def test_a_name_over_the_middle(self, film: NDArray[np.uint8]) -> None:
        text, mask = written(film // 2, NAME, 130, 200)
        assert covered(text, mask) > 0.99

    def test_a_counter_that_never_stands_still(self, film: NDArray[np.uint8]) -> None:
        dark = np.where(np.arange(384)[:, None] < 40, 0, film // 2).astype(np.uint8)
        text, mask = written(dark, "00:00:{:02d}", 20, 25)
        assert covered(text, mask) > 0.99

    def test_a_name_on_some_frames_only(self, film: NDArray[np.uint8]) -> None:
        text, mask = written(film[:8] // 2, NAME, 120, 372)
        assert covered(np.concatenate([text, film[8:] // 2]), mask) > 0.99

    def test_dark_text(self, film: NDArray[np.uint8]) -> None:
        text, mask = written(film // 2, NAME, 120, 372)
        assert covered(255 - text, mask) > 0.99

    def test_pictures_without_text_in_them(self) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (12, 64, 96), np.uint8)
        for frames in ([], list(noise[:1]), list(noise), list(np.zeros((12, 64, 96), np.uint8))):
            assert find_text(frames).blank == ()
        assert find_text([np.zeros((5, 7), np.uint8)]).blank == ()

    @settings(max_examples=20, deadline=None)
    @given(frames=st.integers(1, 500), side=st.sampled_from([8, 3000]))
    def test_sample_is_bounded_even_and_starts_at_the_start(self, frames: int, side: int) -> None:
        sample, one = FrameSample(), np.zeros((side, side), np.uint8)
        for index in range(min(frames, 40) if side > 8 else frames):
            one[0, 0], one[0, 1] = index % 256, index // 256
            sample.add(one)
        taken = [int(frame[0, 0]) + 256 * int(frame[0, 1]) for frame in sample.frames]
        assert taken[0] == 0 and len(set(np.diff(taken))) <= 1
        assert len(taken) <= 48 and len(taken) * one.size <= 60_000_000
        assert len(taken) >= min(frames, 2)

    def test_boxes_are_black_and_nothing_else_is(self) -> None:
        grey = np.full((20, 30), 7, np.uint8)
        blank_boxes(grey, [Box(2, 3, 4, 5, "empty")])
        assert (grey == 0).sum() == 20 and not grey[3:8, 2:6].any()

    def test_real_films_lose_nothing(self, shared_data: Path) -> None:
        subjects = [shared_data / "swallow-cine-mri" / name for name in ("subj01", "subj21")]
        for path in find_sources([shared_data / "xa-coronary-cine", *subjects]):
            sample = FrameSample()
            for frame in open_source(path).frames():
                sample.add(frame.grey)
            assert find_text(sample.frames).blank == ()


@pytest.fixture
def named(tmp_path: Path, film: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """videos/a/named.dcm with a name and a label, videos/b/plain.dcm without; where the name is."""
    text, mask = written(film // 2, NAME, 120, 372)
    write_dicom(tmp_path / "videos" / "a" / "named.dcm", pixels=text)
    write_dicom(tmp_path / "videos" / "b" / "plain.dcm", pixels=film)
    label = tmp_path / "videos" / "a" / "named_masks" / "c4" / "000003.png"
    write_image(label, mask.astype(np.uint8) * 255)
    return mask


def study(folder: Path, *, blanked: bool) -> Study:
    studies = list_studies(Workspace(folder))
    return next(s for s in studies if bool(s.record.blanked) == blanked)


class TestIngest:
    def test_blanked_on_all_frames_and_recorded(
        self, cli: Cli, tmp_path: Path, named: NDArray[np.bool_], film: NDArray[np.uint8]
    ) -> None:
        outcome = cli("ingest", "videos", "--json")
        assert sorted(item["blanked"] for item in json.loads(outcome.stdout)["studies"]) == [0, 1]
        assert "reduced, never surely removed" in outcome.stderr
        clean, plain = study(tmp_path, blanked=True), study(tmp_path, blanked=False)
        (box,) = clean.record.blanked
        assert clean.record.burned_in == plain.record.burned_in == "blanked"
        for frame, before in zip(clean.frames(), film // 2, strict=True):
            assert not frame.grey[named].any()
            before[box.window] = 0
            assert np.array_equal(frame.grey, before)
        mask = clean.read_mask("c4", 3)  # labels stay as they were drawn
        assert mask is not None and np.array_equal(mask, named)
        assert all(np.array_equal(f.grey, g) for f, g in zip(plain.frames(), film, strict=True))

    def test_kept_when_asked_loudly(
        self, cli: Cli, tmp_path: Path, named: NDArray[np.bool_]
    ) -> None:
        outcome = cli("ingest", "videos", "--no-blank", "--quiet")
        assert "TEXT BURNED INTO THE PICTURES WAS KEPT" in outcome.stderr
        record = next(s for s in list_studies(Workspace(tmp_path)) if s.record.suspect).record
        assert record.burned_in == "kept" and record.blanked == ()
        again = cli("ingest", "videos")
        assert "use --force to blank that" in again.stdout
        cli("ingest", "videos", "--force")
        assert study(tmp_path, blanked=True).record.study == record.study

    def test_records_of_before(self, cli: Cli, tmp_path: Path, named: NDArray[np.bool_]) -> None:
        cli("ingest", "videos")
        one = study(tmp_path, blanked=True)
        assert Study.open(one.folder) == one
        body = json.loads((one.folder / "study.json").read_text())
        for name in ("burned_in", "blanked", "suspect"):
            del body[name]
        assert StudyRecord.from_dict(body).burned_in == ""
        (one.folder / "study.json").write_text(json.dumps({**body, "blanked": [{"x": "?"}]}))
        outcome = cli("ingest", "videos")
        assert outcome.exit_code == 3 and one.id in outcome.stderr


class TestReview:
    def test_a_page_of_what_is_stored(
        self, cli: Cli, tmp_path: Path, named: NDArray[np.bool_]
    ) -> None:
        outcome = cli("ingest", "videos", "--review", "--json")
        assert json.loads(outcome.stdout)["review"] == "reports/review-001/index.html"
        page = (tmp_path / "reports" / "review-001" / "index.html").read_text()
        assert page.count("<img") == 8 and "reduced, never surely removed" in page
        assert page.count("<td>blanked</td>") == 1 and "not blanked" not in page
        for secret in (NAME, "named", str(tmp_path)):
            assert secret not in page
        assert not re.search(r"(?:src|href)=\"(?!data:|page-)", page)
        alone = cli("ingest", "--review")
        assert alone.exit_code == 0 and "reports/review-002/index.html" in alone.stdout

    def test_says_what_was_kept_and_what_is_damaged(
        self, cli: Cli, tmp_path: Path, named: NDArray[np.bool_]
    ) -> None:
        cli("ingest", "videos", "--no-blank")
        first = list_studies(Workspace(tmp_path))[0]
        (first.folder / "frames" / "000000.png").write_bytes(b"")
        outcome = cli("ingest", "--review")
        assert outcome.exit_code == 3  # the page is there, and one study is not seen on it
        assert outcome.stderr.count("error:") == 1 and f"studies/{first.id}: " in outcome.stderr
        assert "000000.png: is missing or damaged" in outcome.stderr
        page = (tmp_path / "reports" / "review-001" / "index.html").read_text()
        assert "2 studies were ingested without blanking" in page
        assert "is missing or damaged" in page and page.count("<img") == 4

    def test_pages_when_there_are_many(
        self, cli: Cli, tmp_path: Path, named: object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("vfss_distill.intake.review.STUDIES_A_PAGE", 1)
        cli("ingest", "videos", "--review")
        folder = tmp_path / "reports" / "review-001"
        assert sorted(path.name for path in folder.iterdir()) == ["index.html", "page-2.html"]
        assert 'href="page-2.html"' in (folder / "index.html").read_text()

    def test_nothing_to_do_or_to_show(self, cli: Cli) -> None:
        nothing, empty = cli("ingest"), cli("ingest", "--review")
        assert nothing.exit_code == 2 and "nothing to ingest was given" in nothing.stderr
        assert empty.exit_code == 4 and "no studies to review" in empty.stderr


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="tesseract is not installed")
def test_a_program_that_reads_finds_no_name(
    cli: Cli, tmp_path: Path, film: NDArray[np.uint8]
) -> None:
    text = film.copy()
    text[:, :50] = 0
    for frame in text:
        cv2.putText(frame, "MUELLER ANNA", (20, 36), FONT, 1.0, 255, 2, cv2.LINE_AA)
    write_dicom(tmp_path / "a" / "film.dcm", pixels=text)

    def read(workspace: str, *options: str) -> str:
        cli("ingest", "a", "-w", workspace, *options)
        frame = list_studies(Workspace(tmp_path / workspace))[0].folder / "frames" / "000005.png"
        command = ["tesseract", str(frame), "-", "--psm", "11"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert "ANNA" in read("kept", "--no-blank")
    assert not re.search("MUEL|ELLE|ANNA", read("blanked"))
