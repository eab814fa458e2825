"""View and side: found, mirrored, overridden, and undone where a raw film is segmented."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import Cli
from intake_films import barcode, write_dicom, write_frames
from vfss_distill.errors import ConfigError
from vfss_distill.inference.pipeline import SegmentOptions, segment_source
from vfss_distill.inference.record import Subject
from vfss_distill.inference.session import Segmenter, find_model
from vfss_distill.intake import view as view_module
from vfss_distill.intake.source import Found, Frame, SourceInfo
from vfss_distill.intake.study import Study, list_studies
from vfss_distill.intake.view import UNSURE, ViewTable
from vfss_distill.workspace import Workspace
from view_patients import FIRST_SEED, RIGHT, swallow

Grey = NDArray[np.uint8]


@pytest.fixture(scope="module")
def left() -> Any:
    return swallow()


@pytest.fixture(scope="module")
def right() -> Any:
    """Another patient, who really faces right."""
    return swallow(FIRST_SEED + 1, RIGHT)


def write_masks(folder: Path, masks: NDArray[np.bool_], task: str) -> None:
    write_frames(folder / task, masks.astype(np.uint8) * 255)


def ingested(cli: Cli, *words: object, cwd: Path) -> tuple[list[Study], str]:
    outcome = cli("ingest", *words, "--no-blank", "-w", "lab", cwd=cwd)
    assert outcome.exit_code == 0, outcome.stderr
    return list_studies(Workspace(cwd / "lab")), outcome.stderr


class TestIngest:
    def test_who_faces_left_is_left_alone(self, cli: Cli, tmp_path: Path, left: Any) -> None:
        write_frames(tmp_path / "films" / "a", left.frames)
        (study,), said = ingested(cli, "films", cwd=tmp_path)
        record = study.record
        assert (record.view, record.facing, record.mirrored) == ("lateral", "left", False)
        assert record.view_by == "model" and record.view_confidence >= 0.9
        assert np.array_equal(study.read_frame(2), left.frames[2])
        assert "mirrored" not in said and UNSURE not in said

    def test_who_faces_right_is_mirrored_with_labels(
        self, cli: Cli, tmp_path: Path, right: Any
    ) -> None:
        write_frames(tmp_path / "films" / "a", right.frames)
        write_masks(tmp_path / "films" / "a_masks", right.masks["c3"], "c3")
        (study,), said = ingested(cli, "films", cwd=tmp_path)
        record = study.record
        assert (record.view, record.facing, record.mirrored) == ("lateral", "right", True)
        for index in range(record.frames):
            assert np.array_equal(study.read_frame(index), right.frames[index][:, ::-1])
            assert np.array_equal(study.read_mask("c3", index), right.masks["c3"][index][:, ::-1])
        assert "faces right: mirrored" in said

    def test_imported_labels_and_the_review_are_reminded(
        self, cli: Cli, tmp_path: Path, right: Any
    ) -> None:
        write_frames(tmp_path / "a", right.frames)
        (study,), _ = ingested(cli, "a", cwd=tmp_path)
        write_masks(tmp_path / "drawn" / study.id, right.masks["c3"][:, :, ::-1], "c3")
        outcome = cli("labels", "import", "drawn", "-w", "lab", "--json", cwd=tmp_path)
        assert outcome.exit_code == 0, outcome.stderr
        assert "mirrored at ingest" in outcome.stdout + outcome.stderr
        assert cli("ingest", "--review", "-w", "lab", cwd=tmp_path).exit_code == 0
        page = tmp_path / "lab" / "reports" / "review-001" / "index.html"
        assert "lateral, faced right, mirrored" in page.read_text()

    def test_json_says_it(self, cli: Cli, tmp_path: Path, right: Any) -> None:
        write_frames(tmp_path / "a", right.frames)
        outcome = cli("ingest", "a", "--json", cwd=tmp_path)
        (study,) = json.loads(outcome.stdout)["studies"]
        assert (study["view"], study["facing"], study["mirrored"]) == ("lateral", "right", True)

    def test_text_is_blanked_where_the_mirrored_frame_has_it(
        self, cli: Cli, tmp_path: Path, right: Any
    ) -> None:
        frames = right.frames.copy()
        frames[:, 4:18, 2:60] = 0
        for grey in frames:
            cv2.putText(grey, "ANNA K", (3, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, 255, 1)
        write_frames(tmp_path / "a", np.concatenate([frames, frames]))
        table = "file,view,facing\na,lateral,right\n"
        (tmp_path / "views.csv").write_text(table)
        assert cli("ingest", "a", "--views", "views.csv", cwd=tmp_path).exit_code == 0
        (study,) = list_studies(Workspace(tmp_path))
        assert study.record.blanked
        assert all(box.x > 60 for box in study.record.blanked)
        for box in study.record.blanked:
            assert not study.read_frame(0)[box.window].any()
        written = (frames[0] == 255)[4:18, 2:60][:, ::-1]
        assert not study.read_frame(0)[4:18, 128 - 60 : 126][written].any()

    def test_nothing_like_a_swallow_stays_and_is_said(self, cli: Cli, tmp_path: Path) -> None:
        for name in "abcde":
            frames = np.stack([barcode(index + ord(name)) for index in range(8)])
            write_frames(tmp_path / "films" / name, frames)
        studies, said = ingested(cli, "films", cwd=tmp_path)
        assert said.count(UNSURE) == 1 and "--views" in said
        assert f"5 recordings (films/a, films/b, films/c, and 2 more): {UNSURE}" in said
        for study in studies:
            assert (study.record.view, study.record.mirrored) == ("lateral", False)
            assert study.record.view_by == "assumed"
            assert np.array_equal(study.read_frame(0).shape, barcode(0).shape)


class TestTable:
    def test_it_overrules_the_picture(self, cli: Cli, tmp_path: Path, left: Any) -> None:
        for name in "abc":
            frames = left.frames.copy()
            frames[:, 0, 0] = ord(name)  # three recordings, not one in three copies
            write_frames(tmp_path / "films" / name, frames)
        (tmp_path / "views.csv").write_text(
            "File;View;Facing\nfilms/a;Lateral;RIGHT\nb;frontal;\n", encoding="utf-8-sig"
        )
        studies, said = ingested(cli, "films", "--views", "views.csv", cwd=tmp_path)
        found = {
            (s.record.view, s.record.facing, s.record.mirrored, s.record.view_by) for s in studies
        }
        assert found == {
            ("lateral", "right", True, "table"),
            ("frontal", "left", False, "table"),
            ("lateral", "left", False, "model"),
        }
        assert "frontal view: kept, but left out of training" in said

    def test_force_takes_it_and_keeps_it(self, cli: Cli, tmp_path: Path, left: Any) -> None:
        write_frames(tmp_path / "a", left.frames)
        ingested(cli, "a", cwd=tmp_path)
        (tmp_path / "v.csv").write_text("file,view,facing\na,frontal,\n")
        (study,), said = ingested(cli, "a", "--views", "v.csv", cwd=tmp_path)
        assert study.record.view == "lateral"
        assert "--views names another view: use --force" in said
        for more in (("--views", "v.csv"), ()):
            (study,), said = ingested(cli, "a", "--force", *more, cwd=tmp_path)
            assert (study.record.view, study.record.view_by) == ("frontal", "table")

    @pytest.mark.parametrize(
        ("text", "code", "named"),
        [
            ("file,view,facing\na.mp4,oblique,\n", 4, "line 2: view 'oblique'"),
            ("file,view,facing\na.mp4,lateral,up\n", 4, "line 2: facing 'up'"),
            ("file,view,facing\n,lateral,left\n", 4, "line 2: file is empty"),
            ("file,view,facing\na.mp4,,left\na.mp4,,right\n", 4, "line 3"),
            ("file,facing\na.mp4,left\n", 4, "lacks the columns file, view and facing"),
        ],
    )
    def test_faults_stop_ingest_before_it_begins(
        self, cli: Cli, tmp_path: Path, left: Any, text: str, code: int, named: str
    ) -> None:
        write_frames(tmp_path / "a", left.frames[:2])
        (tmp_path / "v.csv").write_text(text)
        outcome = cli("ingest", "a", "--views", "v.csv", cwd=tmp_path)
        assert outcome.exit_code == code
        assert named in outcome.stderr and "v.csv" in outcome.stderr
        assert not (tmp_path / "studies").exists()

    def test_files_are_matched_as_patients_are(self, tmp_path: Path) -> None:
        path = tmp_path / "v.csv"
        path.write_text("file,view,facing\nx\\A.MP4,,right\nb,lateral,\nc.mp4,,\n")
        table = ViewTable(path)
        root = tmp_path / "films"

        def find(name: str) -> str:
            return table.word(Found(root / name, root))

        assert (find("x/a.mp4"), find("y/a.mp4")) == ("right", "")
        assert (find("z/b.avi"), find("c.mp4"), find("d.mp4")) == ("lateral", "", "")

    def test_a_misspelt_file_is_said(self, cli: Cli, tmp_path: Path, left: Any) -> None:
        write_frames(tmp_path / "a", left.frames)
        (tmp_path / "v.csv").write_text("file,view,facing\nA,,left\nb.mp4,,left\n")
        _, said = ingested(cli, "a", "--views", "v.csv", cwd=tmp_path)
        assert "--views names what is none of these recordings: b.mp4\n" in said

    def test_unknown_values_are_all_named(self, tmp_path: Path) -> None:
        path = tmp_path / "v.csv"
        path.write_text("file,view,facing\na,x,\nb,,y\n")
        with pytest.raises(ConfigError, match=r"line 2.*line 3"):
            ViewTable(path)


class TestFrontal:
    def test_it_is_not_trained_on_nor_scored(self, cli: Cli, tmp_path: Path, left: Any) -> None:
        from vfss_distill.config import DistillConfig
        from vfss_distill.distill.survey import survey
        from vfss_distill.errors import WorkspaceError
        from vfss_distill.evaluate.cases import gather
        from vfss_distill.tasks import VFSS12

        write_frames(tmp_path / "films" / "a", left.frames)
        write_masks(tmp_path / "films" / "a_masks", left.masks["c3"], "c3")
        (tmp_path / "v.csv").write_text("file,view,facing\na,frontal,\n")
        (study,), _ = ingested(cli, "films", "--views", "v.csv", cwd=tmp_path)
        assert study.labelled_frames("c3")
        with pytest.raises(WorkspaceError, match="no lateral study"):
            survey(Workspace(tmp_path / "lab"), VFSS12, DistillConfig(), lambda line: None)
        done = cli("segment", study.id, "--no-overlay", "-w", "lab", cwd=tmp_path)
        assert done.exit_code == 0 and "frontal" in done.stderr
        ((group,), _) = gather(Workspace(tmp_path / "lab"))
        assert group.cases[0].result.run["view"] == "frontal"
        assert not group.scored and "1 labelled study left out: frontal" in " ".join(group.notes)


class _One:
    """A recording of one frame."""

    path = Path("one")
    info = SourceInfo("images", "png", 1, None)

    def __init__(self, grey: Grey) -> None:
        self.grey = grey

    def frames(self) -> Iterator[Frame]:
        yield Frame(0, 0.0, self.grey)


class TestSegment:
    def test_a_raw_film_comes_back_in_its_own_orientation(
        self, cli: Cli, tmp_path: Path, right: Any
    ) -> None:
        write_frames(tmp_path / "raw", right.frames)
        outcome = cli("segment", "raw", cwd=tmp_path)
        assert outcome.exit_code == 0, outcome.stderr
        assert "faces right: shown to the network mirrored; masks lie on" in outcome.stderr
        assert "--views" in outcome.stderr and "as all studies do" not in outcome.stderr
        (run_file,) = (tmp_path / "results").glob("*/*/run.json")
        run = json.loads(run_file.read_text())
        assert (run["view"], run["facing"], run["mirrored"]) == ("lateral", "right", True)
        truth, said = right.masks["mandible"], []
        for index in range(len(truth)):
            path = run_file.parent / "masks" / "mandible" / f"{index:06d}.png"
            said.append(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 0)
        dice = 2 * (np.stack(said) & truth).sum() / (np.stack(said).sum() + truth.sum())
        assert dice > 0.6
        with av.open(run_file.parent / "overlay.mp4") as film:
            first = next(film.decode(video=0)).to_ndarray(format="gray")
        near = cv2.resize(first, (128, 128)).astype(float)
        same, turned = (np.corrcoef(near.ravel(), g.ravel())[0, 1]
                        for g in (right.frames[0], right.frames[0][:, ::-1]))  # fmt: skip
        assert same > turned

    def test_a_header_is_asked_as_ingest_asks_it(
        self, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        leaning = [0.2, 0.7, 0.05, 0.05]
        monkeypatch.setattr(view_module, "mean_probabilities", lambda frames: leaning)
        write_dicom(tmp_path / "with.dcm", frames=3, PatientOrientation=["A", "F"])
        write_dicom(tmp_path / "without.dcm", frames=3, PatientID="other")
        for name, facing in (("with.dcm", "right"), ("without.dcm", "left")):
            outcome = cli("segment", name, "--no-overlay", "--force")
            assert outcome.exit_code == 0, outcome.stderr
            assert ("could not be told" in outcome.stderr) is (facing == "left")
            (run_file,) = (tmp_path / "results").glob("*/*/run.json")
            assert json.loads(run_file.read_text())["facing"] == facing
            shutil.rmtree(tmp_path / "results")

    def test_a_study_already_mirrored_is_not_mirrored_again(
        self, cli: Cli, tmp_path: Path, right: Any
    ) -> None:
        write_frames(tmp_path / "films" / "a", right.frames)
        (study,), _ = ingested(cli, "films", cwd=tmp_path)
        assert cli("segment", study.id, "-w", "lab", cwd=tmp_path).exit_code == 0
        (run_file,) = (tmp_path / "lab" / "results").glob("*/*/run.json")
        run = json.loads(run_file.read_text())
        assert (run["facing"], run["mirrored"]) == ("left", False)

    @pytest.mark.parametrize("size", [(60, 81), (81, 60), (64, 64), (97, 130)])
    def test_mirrored_film_gives_mirrored_masks_to_the_pixel(
        self, tmp_path: Path, segmenter: Segmenter, size: tuple[int, int]
    ) -> None:
        """Whatever the parity of the letterbox's borders."""
        grey = np.asarray(cv2.resize(swallow(frames=1).frames[0], size[::-1]), np.uint8)
        masks = {}
        for facing, shown in (("left", grey), ("right", np.ascontiguousarray(grey[:, ::-1]))):
            subject = Subject("s-0", None, "0" * 64, facing=facing)
            options = SegmentOptions(subject, overlay=False)
            segment_source(_One(shown), segmenter, tmp_path / facing, options)
            masks[facing] = [
                cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
                for path in sorted((tmp_path / facing / "masks").rglob("*.png"))
            ]
        assert any(mask.any() for mask in masks["left"])
        for one, other in zip(masks["left"], masks["right"], strict=True):
            assert np.array_equal(one, other[:, ::-1])


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    return Segmenter(find_model(Workspace(tmp_path_factory.mktemp("empty")), None))
