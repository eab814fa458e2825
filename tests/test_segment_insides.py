"""What `vfss segment` is made of: letterbox, canvas, streams."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from square_models import WHO, MovingSquare, make_model, picture
from vfss_distill.errors import InputError, ModelError, StorageError, WeightsMissing
from vfss_distill.inference.canvas import Canvas, Caption
from vfss_distill.inference.masks import MaskMaker, TaskMask
from vfss_distill.inference.pipeline import SegmentOptions, segment_source
from vfss_distill.inference.session import Segmenter, find_model
from vfss_distill.inference.stream import work_ahead
from vfss_distill.intake.source import Frame
from vfss_distill.letterbox import Letterbox
from vfss_distill.provenance import sha256_file
from vfss_distill.tasks import Task, TaskSet
from vfss_distill.workspace import Workspace


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "runs" / "run-001" / "student.onnx")


@settings(max_examples=60, deadline=None)
@given(
    st.integers(3, 150),
    st.integers(3, 150),
    st.sampled_from([32, 64, 96]),
    st.integers(0, 2**32 - 1),
    st.floats(0.0, 0.3),
)
def test_masks_are_the_undone_letterbox(
    height: int, width: int, size: int, seed: int, share: float
) -> None:
    """Bringing back only a box gives what bringing back the whole map gives."""
    rng = np.random.default_rng(seed)
    part = None
    if seed % 2:  # only a part of the frame is in the square
        wide, high = rng.integers(1, width + 1), rng.integers(1, height + 1)
        x, y = rng.integers(0, width - wide + 1), rng.integers(0, height - high + 1)
        part = int(x), int(y), int(wide), int(high)
    box = Letterbox.fit(height, width, size, part)
    maps = np.zeros((3, size, size), np.float32)
    extent = max(2, int(size * share))
    for layer in maps:
        top, left = rng.integers(0, size - extent + 1, 2)
        spot = rng.random((extent, extent), np.float32)
        layer[top : top + extent, left : left + extent] = spot
    masks = MaskMaker(box, ("a", "b", "c"), (0.3, 0.5, 0.7))(maps)
    whole = box.undo(maps)
    for mask, probability, threshold in zip(masks, whole, (0.3, 0.5, 0.7), strict=True):
        got = mask.full(height, width) > 0
        clear = np.abs(probability - threshold) > 1e-5  # not decided by rounding
        assert np.array_equal(got[clear], (probability >= threshold)[clear])
        assert mask.area_px == np.count_nonzero(got)
        if mask.area_px:
            rows, columns = np.nonzero(got)
            assert mask.y_px == pytest.approx(rows.mean(), abs=1e-6)
            assert mask.x_px == pytest.approx(columns.mean(), abs=1e-6)
            assert mask.confidence == pytest.approx(probability[got].mean(), abs=1e-5)
        else:
            assert mask.x_px is mask.y_px is mask.confidence is None


@settings(max_examples=40, deadline=None)
@given(st.integers(40, 700), st.integers(40, 700), st.data())
def test_letterbox_round_trip(height: int, width: int, data: Any) -> None:
    """A rectangle comes back where it was, to within the pixels that one square pixel covers."""
    box = Letterbox.fit(height, width, 256)
    slack = max(1.0, max(height, width) / 256)
    tall, wide = data.draw(st.integers(12, height)), data.draw(st.integers(12, width))
    top, left = data.draw(st.integers(0, height - tall)), data.draw(st.integers(0, width - wide))
    truth = np.zeros((height, width), np.float32)
    truth[top : top + tall, left : left + wide] = 1
    (mask,) = MaskMaker(box, ("a",), (0.5,))(box.frame(truth)[None])
    rows, columns = np.nonzero(mask.full(height, width))
    found = (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1)
    assert found == pytest.approx((top, top + tall, left, left + wide), abs=slack)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 14))
def test_canvas_leaves_the_film_alone(height: int, width: int, tasks: int) -> None:
    """Words lie outside the film; the canvas is even; an absent task draws nothing."""
    grey = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
    some = TaskSet("some", tuple(Task(f"t{n}", "x" * 40, (255, 0, 0)) for n in range(tasks)))
    canvas = Canvas(height, width, some, Caption("study", "model" * 20, "warning"))
    empty = [TaskMask(task.id, 0, 0, np.zeros((0, 0), np.bool_)) for task in some]
    drawn = canvas.draw(grey, 12345, 411.5, empty)
    assert drawn.shape[:2] == canvas.size and drawn.shape[0] % 2 == drawn.shape[1] % 2 == 0
    factor = max(1, -(-360 // max(height, width)))
    film = drawn[: height * factor : factor, : width * factor : factor]
    assert np.array_equal(film, np.repeat(grey[..., None], 3, axis=2))


def test_a_mask_at_the_rim_of_a_film_made_smaller_is_drawn() -> None:
    one = TaskSet("one", (Task("t", "t", (255, 0, 0)),))
    canvas = Canvas(5000, 4400, one, Caption("study", "model"))
    corner = TaskMask("t", 4999, 4399, np.ones((1, 1), np.bool_), area_px=1)
    drawn = canvas.draw(np.zeros((5000, 4400), np.uint8), 0, 0.0, [corner])
    assert drawn[2047, 1801].max() > 0 and not drawn[2000, 1700].any()


def test_overlay_counts_frames_as_the_table_does(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    real = Canvas._write

    def write(self: Canvas, canvas: Any, words: str, *rest: Any) -> None:
        written.append(words)
        real(self, canvas, words, *rest)

    monkeypatch.setattr(Canvas, "_write", write)
    segment_source(MovingSquare(3), Segmenter(model, "cpu", 1), tmp_path / "r", SegmentOptions(WHO))
    frames = [words for words in written if words.startswith("frame")]
    assert frames == ["frame 0", "frame 1", "frame 2"]


def test_memory_does_not_grow_with_length(tmp_path: Path, model: Path) -> None:
    segmenter = Segmenter(model, "cpu", 1)
    most = []
    for frames in (60, 300):
        source = MovingSquare(frames)
        segment_source(source, segmenter, tmp_path / str(frames), SegmentOptions(WHO))
        most.append(source.most)
    assert max(most) <= 16, "frames alive at once"


def test_neighbours_are_what_the_model_sees(tmp_path: Path) -> None:
    """The context model finds the previous frame's square and the next frame's; ends repeat."""
    segmenter = Segmenter(make_model(tmp_path / "context.onnx", context=1), "cpu", 1)
    for frames in (1, 2, 7):
        folder = tmp_path / str(frames)
        options = SegmentOptions(WHO, overlay=False, masks=False)
        segment_source(MovingSquare(frames), segmenter, folder, options)
        with (folder / "frames.csv").open() as stream:
            rows = list(csv.DictReader(stream))
        before = [round(float(row["bright_x_px"]) - 35.5) for row in rows]
        after = [round(float(row["never_x_px"]) - 35.5) for row in rows]
        assert before == [max(0, index - 1) for index in range(frames)]
        assert after == [min(frames - 1, index + 1) for index in range(frames)]


def test_single_frames_stand_for_their_neighbours(tmp_path: Path) -> None:
    segmenter = Segmenter(make_model(tmp_path / "context.onnx", context=1), "cpu", 1)
    frames = np.stack([picture(index)[None] for index in range(2)])
    side = segmenter.image_size
    frames = np.ascontiguousarray(frames[:, :, :side, :side])
    repeated = segmenter.probabilities(np.repeat(frames, 3, axis=1))
    assert repeated.any()
    assert np.array_equal(segmenter.probabilities(frames), repeated)


def test_size_that_changes_is_refused(tmp_path: Path, model: Path) -> None:
    class Changing(MovingSquare):
        def frames(self) -> Iterator[Frame]:
            yield Frame(0, 0.0, picture(0))
            yield Frame(1, 0.1, picture(1, 100, 100))

    with pytest.raises(InputError, match="frame 1 has another size"):
        segment_source(
            Changing(2), Segmenter(model, "cpu", 1), tmp_path / "out", SegmentOptions(WHO)
        )
    assert not (tmp_path / "out").exists()


def test_work_ahead_keeps_order_bound_and_errors() -> None:
    made: list[int] = []
    closed: list[bool] = []

    def numbers() -> Iterator[int]:
        try:
            for number in range(100):
                made.append(number)
                if number == 50:
                    raise StorageError("fifty")
                yield number
        finally:
            closed.append(True)

    seen = []
    with pytest.raises(StorageError, match="fifty"):
        for number in work_ahead(numbers(), 3):
            seen.append(number)
            assert made[-1] - number <= 5
    assert seen == list(range(50)) and closed == [True]

    early = work_ahead(work_ahead(numbers(), 2), 2)
    assert next(early) == 0
    early.close()
    assert closed == [True, True]


def test_which_model_is_meant(tmp_path: Path) -> None:
    place = Workspace(tmp_path)
    old = make_model(tmp_path / "runs" / "run-001" / "student.onnx")
    new = make_model(tmp_path / "runs" / "run-002" / "student.onnx")
    os.utime(old, (1, 1))
    assert find_model(place) == new
    assert find_model(place, "run-001") == old
    assert find_model(place, str(old)) == old
    assert find_model(place, str(old.parent)) == old
    with pytest.raises(WeightsMissing):
        find_model(place, "run-003")


def test_names_of_result_folders_are_safe(tmp_path: Path) -> None:
    path = make_model(tmp_path / "odd.onnx", vfss__name="../../etc/ü 1")
    assert Segmenter(path, "cpu").result_name == f"etc-1-{sha256_file(path)[:8]}"


def test_model_of_other_inputs(tmp_path: Path, model: Path) -> None:
    with pytest.raises(ModelError, match="cannot run"):
        Segmenter(model, "cpu").probabilities(np.zeros((1, 1, 8, 8), np.uint8))
