"""Films of other fields are shown to the network as large as those it learned from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from square_models import WHO, make_model, read_mask
from tiny_studies import write_study
from vfss_distill.distill.certainty import set_certainty
from vfss_distill.distill.data import Frames, LabelledFrames
from vfss_distill.distill.spines import in_squares, usual_spine
from vfss_distill.errors import ModelError
from vfss_distill.inference.pipeline import SegmentOptions, segment_source
from vfss_distill.inference.session import Segmenter, find_model
from vfss_distill.intake.source import Frame, SourceInfo
from vfss_distill.intake.study import write_mask
from vfss_distill.magnification import film_spine_px, is_usual, side_for, spine_px, usual_of
from vfss_distill.models.students import StudentConfig, build_student
from vfss_distill.simulate import SimulateOptions, simulate_study
from vfss_distill.simulate.population import TRAIN
from vfss_distill.tasks import VFSS12, Task, TaskSet
from vfss_distill.workspace import Workspace

NAN = float("nan")
TWO = TaskSet("two", (Task("c2", "C2", (213, 94, 0)), Task("c4", "C4", (0, 114, 178))))


def block(row: int, column: int, side: int = 6, size: int = 100) -> NDArray[np.bool_]:
    mask = np.zeros((size, size), bool)
    mask[row : row + side, column : column + side] = True
    return mask


def test_the_spine_is_measured_between_the_middles_of_c2_and_c4() -> None:
    assert spine_px(block(10, 20), block(50, 50)) == pytest.approx(50)
    assert np.isnan(spine_px(block(10, 20), block(50, 50, side=1))), "a speck"
    assert np.isnan(spine_px(block(10, 20), np.zeros((100, 100), bool)))


@pytest.mark.parametrize(
    ("lengths", "length"),
    [
        ([50, 51, 49, NAN], 50),
        ([50], 50),
        ([50, NAN, NAN], None),
        ([], None),
        ([30, 30, 50, 60, 60], None),
    ],
)
def test_a_film_whose_spine_is_seen_in_few_frames_or_at_odds_tells_nothing(
    lengths: list[float], length: float | None
) -> None:
    assert film_spine_px(lengths) == length


def test_what_is_usual_reaches_from_what_a_third_exceed_to_what_few_do() -> None:
    assert usual_of(range(101)) == (66, 98)
    assert usual_of([]) is None


@pytest.mark.parametrize(
    ("spine", "side"),
    [(50, 256), (60, 256), (55, 256), (40, 320), (80, 192), (10, 384), (500, 160), (None, 256)],
)
def test_the_side_brings_the_spine_to_its_usual_length_within_bounds(
    spine: float | None, side: int
) -> None:
    assert side_for(spine, (50, 60), 256) == side
    assert side_for(spine, None, 256) == 256


def test_a_small_square_stays_one_that_was_exported() -> None:
    assert side_for(500, (5, 6), 64) == 64


@pytest.mark.parametrize("said", [None, 5, [], [50], [60, 50], [0, 5], ["a", "b"], [50, NAN]])
def test_what_is_no_usual_spine_is_told(said: object) -> None:
    assert not is_usual(said)
    assert is_usual([50, 60.5]) and is_usual([50, 50])


# ── in `vfss segment` ────────────────────────────────────────────────────────────────────────


class Blocks:
    """Ten frames of 96 × 96: C2 is bright, C4 dark, `apart` pixels below it."""

    info = SourceInfo("video", "none", None, 30.0)
    path = Path("blocks")

    def __init__(self, apart: int) -> None:
        self.grey = np.full((96, 96), 130, np.uint8)
        self.grey[20:28, 40:48] = 230
        self.grey[20 + apart : 28 + apart, 40:48] = 30

    def frames(self) -> Iterator[Frame]:
        for index in range(10):
            yield Frame(index, index / 30, self.grey)


def spine_model(path: Path, usual: Any = (32, 32), side: str | int = "side") -> Path:
    """Finds C2 where it is brighter than 190, C4 where it is darker than 70."""
    levels = np.array([230, 30], np.float32).reshape(1, 2, 1, 1)
    nodes = [
        helper.make_node("Cast", ["frames"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["real", "levels"], ["off"]),
        helper.make_node("Abs", ["off"], ["far"]),
        helper.make_node("Sub", ["forty", "far"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["probabilities"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "spine",
        [info("frames", TensorProto.UINT8, ["n", 1, side, side])],
        [info("probabilities", TensorProto.FLOAT, ["n", 2, side, side])],
        [
            numpy_helper.from_array(levels, "levels"),
            numpy_helper.from_array(np.float32(40), "forty"),
        ],
    )
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    described = onnx.load(str(make_model(path)))
    said = {entry.key: entry.value for entry in described.metadata_props}
    said["vfss.tasks"] = json.dumps(TWO.to_dict())
    said["vfss.thresholds"] = json.dumps(dict.fromkeys(TWO.ids, 0.5))
    said["vfss.image_size"] = "96"
    said["vfss.spine_px"] = json.dumps(usual)
    helper.set_model_props(model, said)
    onnx.save(model, str(path))
    return path


def shown(model: Path, apart: int, folder: Path) -> int:
    """Side of the square that a film was shown in; its masks lie where they should."""
    options = SegmentOptions(WHO, overlay=False)
    segment_source(Blocks(apart), Segmenter(model, "cpu", 1), folder, options)
    for task, row in (("c2", 20), ("c4", 20 + apart)):
        mask = read_mask(folder / "masks" / task / "000009.png") > 0
        rows, columns = np.nonzero(mask)
        assert abs(rows.mean() - row - 3.5) < 0.6 and abs(columns.mean() - 43.5) < 0.6
        assert 40 < mask.sum() < 110
    return int(json.loads((folder / "run.json").read_text())["side_px"])


@pytest.mark.parametrize(("apart", "side"), [(32, 96), (20, 128), (56, 64)])
def test_a_film_is_shown_as_large_as_the_model_knows_patients(
    tmp_path: Path, apart: int, side: int
) -> None:
    assert shown(spine_model(tmp_path / "m.onnx"), apart, tmp_path / "r") == side


@pytest.mark.parametrize("told", [{"side": 96}, {"usual": None}])
def test_models_of_one_side_or_without_a_usual_spine_show_all_films_alike(
    tmp_path: Path, told: dict[str, Any]
) -> None:
    assert shown(spine_model(tmp_path / "m.onnx", **told), 20, tmp_path / "r") == 96


def test_a_model_that_says_nonsense_of_its_spine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="spine_px"):
        Segmenter(spine_model(tmp_path / "m.onnx", usual=[60, "x"]), "cpu", 1)


# ── in training ──────────────────────────────────────────────────────────────────────────────


def labelled_spines(root: Path) -> LabelledFrames:
    """Two films of 64 × 64 with C2 and C4 12 and 20 pixels apart."""
    studies = []
    for patient, apart in (("pa", 12), ("pb", 20)):
        study = write_study(Workspace(root), patient, size=(64, 64), labelled={"c2": [], "c4": []})
        record = replace(study.record, labelled={"c2": (0, 1, 2), "c4": (0, 1, 2)})
        for frame in range(3):
            for task, row in (("c2", 10), ("c4", 10 + apart)):
                (study.folder / "masks" / task).mkdir(parents=True, exist_ok=True)
                write_mask(study.folder, task, frame, block(row, 30, size=64))
        studies.append(replace(study, record=record))
    keys = [(number, frame) for number in range(2) for frame in range(3)]
    frames = Frames(studies, keys, size=64, context=0, budget_bytes=1 << 24)
    return LabelledFrames(frames, keys, ("bolus", "c2", "c4"), budget_bytes=1 << 24)


def test_what_is_usual_is_measured_on_the_masks_learned_from(tmp_path: Path) -> None:
    labelled = labelled_spines(tmp_path)
    assert usual_spine(labelled) == (17.28, 19.84)
    labelled.leave_out(["c4"])
    assert usual_spine(labelled) is None


class Seeing(torch.nn.Module):
    """A student that finds C2 and C4 a quarter of the frame apart, wherever they are."""

    config = StudentConfig("small", 64, 0, ("bolus", "c2", "c4"), 8)

    def __init__(self) -> None:
        super().__init__()
        self.certain = torch.zeros(3)
        self.sides: list[int] = []

    def pyramid(self, frames: torch.Tensor) -> torch.Tensor:
        self.sides.append(frames.shape[-1])
        return frames

    def decode(self, frames: torch.Tensor) -> torch.Tensor:
        logits = torch.full((len(frames), 3, 32, 32), -9.0)
        logits[:, 1, 8:10, 16:18] = logits[:, 2, 16:18, 16:18] = 9.0
        return logits


def test_cuts_are_set_on_frames_as_large_as_they_will_be_shown(tmp_path: Path) -> None:
    labelled, student = labelled_spines(tmp_path), Seeing()
    list(set_certainty(student, labelled, (24, 24)))  # type: ignore[arg-type]
    assert set(student.sides) == {64, 96}, "looked at in 64, then shown in 96"
    alike = in_squares(student, labelled, None, 4)  # type: ignore[arg-type]
    assert [(rows, frames.shape[-1]) for rows, frames in alike] == [
        ([0, 1, 2, 3], 64),
        ([4, 5], 64),
    ]


@pytest.mark.parametrize("preset", ["nano", "small"])
def test_presets_for_any_side_give_maps_of_that_side(preset: str) -> None:
    student = build_student(StudentConfig(preset, 64, 0, VFSS12.ids, 8)).eval()
    assert student.takes_any_side
    assert student(torch.zeros(1, 1, 96, 96)).shape == (1, 12, 96, 96)


# ── the packaged student ─────────────────────────────────────────────────────────────────────


class Simulated:
    info = SourceInfo("video", "none", None, 5.0)
    path = Path("simulated")

    def __init__(self, field_mm: float) -> None:
        ranges = replace(TRAIN, field_mm=(field_mm, field_mm))
        options = SimulateOptions(size=512, frames=4, fps=5, pulses=5, ranges=ranges)
        self.study = simulate_study(909_091, 0, options)

    def frames(self) -> Iterator[Frame]:
        for index, grey in enumerate(self.study.frames):
            yield Frame(index, index / 5, grey)


@pytest.mark.parametrize(("field_mm", "larger"), [(380, True), (105, False)])
def test_patients_of_wide_and_narrow_fields_are_better_found(
    tmp_path: Path, field_mm: float, larger: bool
) -> None:
    model = Segmenter(find_model(Workspace(tmp_path), None), "cpu", 2)
    film = Simulated(field_mm)
    who = replace(WHO, facing=film.study.facing)
    tasks = [task for task in VFSS12.ids if task != "bolus"]
    scores = []
    for usual in (model.usual_spine, None):
        model.usual_spine = usual
        folder = tmp_path / str(usual)
        segment_source(film, model, folder, SegmentOptions(who, overlay=False))
        side = json.loads((folder / "run.json").read_text())["side_px"]
        assert (side > 256) is larger if usual else side == 256
        dice = []
        for task in tasks:
            truth = film.study.masks[task]
            said = [read_mask(folder / "masks" / task / f"{n:06d}.png") > 0 for n in range(4)]
            if truth.any():
                dice.append(2 * (np.array(said) & truth).sum() / (np.sum(said) + truth.sum()))
        scores.append(np.mean(dice))
    assert scores[0] > scores[1] + 0.02
