"""The reader of all teachers, and the frames it reads for the student."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from distill_lab import TINY
from tiny_studies import TASKS, small_world, write_splits, write_study
from vfss_distill.config import DistillConfig, lab_tasks
from vfss_distill.distill import reader, readings
from vfss_distill.distill.batches import Batches, Material
from vfss_distill.distill.data import Frames, Key, LabelledFrames
from vfss_distill.distill.processes import Processes
from vfss_distill.distill.reader import Lesson, Views, read_twice, view_jobs
from vfss_distill.distill.readings import (
    Plausible,
    ReadFrames,
    from_sure_to_unsure,
    renewals,
    save_readings,
    stored_readings,
    surer,
    together,
)
from vfss_distill.distill.run import RunOutcome, distill, fill_caches
from vfss_distill.errors import ModelError
from vfss_distill.intake.study import Study, list_studies
from vfss_distill.models import PACKAGED_WEIGHTS
from vfss_distill.tasks import TOUCH, TaskSet
from vfss_distill.workspace import Workspace

CPU = torch.device("cpu")
# All tasks of TASKS may be absent, and lie on one another.
ANY = Plausible(torch.ones(len(TASKS), dtype=torch.bool), torch.zeros(3, 3, dtype=torch.bool))
SETTINGS: dict[str, Any] = {
    **TINY,
    "align_steps": 2,
    "task_steps": 4,
    "read_share": 0.5,
    "teachers": ("small-sam", "small-dino"),
}


@pytest.fixture
def lab(tmp_path: Path) -> Workspace:
    workspace = small_world(tmp_path)
    write_study(workspace, "pu", labelled={})
    write_splits(workspace, train=["pa", "pb", "pu"], val=["pd"], test=["pc", "pe"])
    return workspace


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "VIEWS", 12)
    monkeypatch.setattr(reader, "_STEPS", 6)
    monkeypatch.setattr(readings, "_SURENESS", 100.0)  # a student of three steps counts too


def run(workspace: Workspace, **changes: Any) -> RunOutcome:
    arguments = {key: changes.pop(key) for key in ("resume", "tick", "say") & changes.keys()}
    config = DistillConfig(**{**SETTINGS, **changes})
    return distill(workspace, config, weights_folders=[PACKAGED_WEIGHTS], **arguments)


# ---- in a run


def test_frames_are_read_once_and_a_resumed_run_sees_the_same(lab: Workspace, short: None) -> None:
    said: list[str] = []
    fill_caches(lab, DistillConfig(**SETTINGS), weights_folders=[PACKAGED_WEIGHTS], say=said.append)
    assert sum("to compute" in line for line in said) == 4  # frames and views of two teachers
    said.clear()
    whole = run(lab, say=said.append)
    assert sum("are cached" in line for line in said) == 4
    assert any(
        "reader of small-sam, small-dino: fitted on" in line and "6 unlabelled frames" in line
        for line in said
    )
    stored = load_file(whole.folder / "readings.safetensors")
    assert stored["keys"].tolist() == [[2, frame] for frame in range(6)]
    assert stored["masks"].shape == (6, len(TASKS), 64, 64)
    assert cv2.imread(str(whole.folder / "readings.png")) is not None
    kept = load_file(whole.folder / "student.safetensors")
    again = [load_file(whole.folder / f"readings-{step}.safetensors") for step in (3, 4)]
    assert not torch.equal(again[0]["masks"], stored["masks"])  # the student has read them
    assert not torch.equal(again[0]["masks"], again[1]["masks"])

    def stop(done: int, total: int, words: str) -> None:
        if "loss" in words and done == 5:
            os.kill(os.getpid(), signal.SIGINT)

    half = run(lab, tick=stop)
    assert half.interrupted
    latest = half.folder / "readings-4.safetensors"
    masks = latest.read_bytes()
    latest.unlink()
    with pytest.raises(ModelError, match="masks that were read for this run are gone"):
        run(lab, resume=half.folder)
    latest.write_bytes(masks)
    said.clear()
    end = load_file(run(lab, resume=half.folder, say=said.append).folder / "student.safetensors")
    assert not any("reader of" in line for line in said)  # kept in the run
    assert all(torch.equal(kept[name], end[name]) for name in kept)


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    workspace = small_world(tmp_path)
    write_splits(workspace, train=["pa", "pb"], val=["pd"], test=["pc", "pe"])
    for why, lack in (
        ({}, "every frame has labels"),
        ({"teachers": (), "align_steps": 0}, "no teachers"),
        ({"task_steps": 0}, "no step has masks"),
    ):
        said: list[str] = []
        done = run(workspace, **why, say=said.append)
        assert any("read_share does nothing here" in line and lack in line for line in said)
        assert not (done.folder / "readings.safetensors").exists()


def two_labelled_and_one(lab: Workspace) -> tuple[list[Key], Frames, LabelledFrames]:
    keys = [(number, 0) for number in range(3)]
    frames = Frames(list_studies(lab), keys, size=64, context=0, budget_bytes=1 << 20)
    return keys, frames, LabelledFrames(frames, keys[:2], TASKS, budget_bytes=1 << 20)


def test_a_batch_has_the_share_of_frames_that_were_read(lab: Workspace) -> None:
    keys, frames, labelled = two_labelled_and_one(lab)
    masks = torch.full((1, len(TASKS), 64, 64), 255, dtype=torch.uint8)
    known = torch.tensor([True, False, True])
    reading = ReadFrames(frames, keys[2:], masks, known, lab_tasks(lab), ANY, lab.root)
    material = Material(frames, [], [], labelled, None, read=reading)
    for share, expected in ((0.0, 0), (0.25, 1), (0.75, 3), (0.99, 3)):
        config = DistillConfig(
            batch_size=4, image_size=64, align_steps=0, read_share=share, blank=0.0
        )
        batch = Batches(material, config, 2, Processes()).at(0, CPU)
        assert sum(key == keys[2] for key in batch.keys) == expected
        if expected:
            assert batch.labelled[-1].tolist() == [True, False, True]
            assert batch.masks[-1].mean() > 0.3  # moved, and black from outside


class Says(nn.Module):
    """A student with one logit for everything."""

    def __init__(self, logit: float) -> None:
        super().__init__()
        self.logit = logit

    def forward(self, frames: Tensor) -> Tensor:
        return torch.full((len(frames), len(TASKS), 32, 32), self.logit)


def test_nothing_that_was_read_is_learned_before_the_student_reads_too(lab: Workspace) -> None:
    keys, frames, labelled = two_labelled_and_one(lab)
    masks = torch.full((1, len(TASKS), 64, 64), 200, dtype=torch.uint8)
    known = torch.ones(len(TASKS), dtype=torch.bool)

    def readings() -> ReadFrames:
        return ReadFrames(frames, keys[2:], masks, known, lab_tasks(lab), ANY, lab.root, [3, 5])

    reading = readings()
    material = Material(frames, [], [], labelled, None, read=reading)
    config = DistillConfig(batch_size=4, image_size=64, align_steps=0, read_share=0.5)
    batches = Batches(material, config, 2, Processes())
    seen = []
    for step in range(6):
        reading.renew(step, Says(0.0 if step == 3 else 9.0), CPU, Processes())
        seen.append(sum(key == keys[2] for key in batches.at(step, CPU).keys))
        if step in (3, 5):  # the reader (200) is surer than the student (128), later it (255) is
            assert reading.masks.unique().tolist() == [199 if step == 3 else 250]
    assert seen == [0, 0, 0, 2, 2, 2]
    later = readings()  # a resumed run
    later.renew(4, Says(9.0), CPU, Processes())
    assert later.open and later.masks.unique().tolist() == [199]


def test_the_student_reads_anew_evenly_over_the_steps_with_masks() -> None:
    def steps(align: int, task: int, again: int) -> list[int]:
        config = DistillConfig(align_steps=align, task_steps=task, read_again=again)
        return renewals(config)

    assert steps(100, 600, 2) == [300, 500]
    assert steps(0, 600, 0) == []
    assert steps(10, 2, 2) == [11]  # never before a student has seen a mask


# ---- views


def views_of(workspace: Workspace) -> tuple[Study, Views]:
    studies = list_studies(workspace)
    config = DistillConfig(image_size=64, mirrored=0.5)
    (views,) = view_jobs(studies, [(0, 1), (0, 4)], config).values()
    return studies[0], views


def test_views_are_the_same_each_time_and_differ_from_one_another(
    lab: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "VIEWS", 6)
    study, views = views_of(lab)
    assert (views.of, views.each, views.size) == ([1, 4], 3, 128)
    assert views.frames == (3, 4, 5, 12, 13, 14)
    seen = views.squares(views.frames)
    assert seen.shape == (6, 128, 128) and seen.dtype == np.uint8
    np.testing.assert_array_equal(views.squares([13]), seen[4:5])
    assert all((seen[row] != seen[row + 1]).mean() > 0.2 for row in range(5))
    digest = views.digest(views.frames)
    picture = study.folder / "frames" / "000004.png"
    picture.write_bytes((study.folder / "frames" / "000000.png").read_bytes())
    assert views.digest(views.frames) != digest
    assert views.digest([3]) == Views(study, (3,), 128, 3).digest([3])


def test_masks_move_with_their_frame(lab: Workspace) -> None:
    views = views_of(lab)[1]
    square = torch.zeros(1, 1, 128, 128)
    square[..., 40:80, 50:90] = 1
    for number in range(5):
        frame, planes = views.moved(number, 255 * square, square)
        near = (frame / 255 - planes).abs()
        assert 300 < planes.sum() < 4000
        assert near.mean() < 0.01  # the rim alone: one linear, the other the nearest


# ---- reading


@dataclass
class Knows:
    """Features of a teacher, made up: one channel with what it knows and one of noise."""

    keys: list[Key]
    maps: Tensor
    channels: int = 2

    def batch(self, keys: list[Key]) -> Tensor:
        return self.maps[[self.keys.index(key) for key in keys]]


def test_two_teachers_are_read_better_than_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_STEPS", 30)
    draw = torch.Generator().manual_seed(3)
    keys = [(0, number) for number in range(24)]
    halves = torch.zeros(2, 24, 1, 32, 32)  # left-right and up-down, shifted from frame to frame
    for row in range(24):
        x, y = torch.randint(8, 24, (2,), generator=draw).tolist()
        halves[0, row, :, :, x:] = 1
        halves[1, row, :, y:] = 1
    noise = torch.randn(2, 24, 1, 32, 32, generator=draw)
    first, second = (
        Knows(keys, torch.cat([half, grain], 1)) for half, grain in zip(halves, noise, strict=True)
    )
    truth = (halves[0] * halves[1]).repeat_interleave(2, 2).repeat_interleave(2, 3)  # both
    known = torch.ones(24, 1, dtype=torch.bool)
    monkeypatch.setattr(reader, "_seen_masks", lambda lesson, keys: (truth, known))

    def dice(*teachers: Any) -> float:
        one = Plausible(torch.tensor([True]), torch.tensor([[False]]))
        lesson = Lesson({}, teachers, SimpleNamespace(), one)  # type: ignore[arg-type]
        seen = read_twice(lesson, teachers, keys, 0, CPU, lambda *_: None)
        found, real = seen > 127, truth > 0.5
        return float(2 * (found & real).sum() / (found.sum() + real.sum()))

    together = dice(first, second)
    assert together > 0.95
    assert max(dice(first), dice(second)) < together - 0.1


def test_masks_of_the_views_are_those_of_their_frames(lab: Workspace) -> None:
    studies = list_studies(lab)
    labelled_frame = studies[0].labelled_frames(TASKS[0])[0]
    jobs = {0: Views(studies[0], (2 * labelled_frame, 2 * labelled_frame + 1), 128, 2)}
    frames = Frames(studies, [(0, labelled_frame)], size=128, context=0, budget_bytes=0)
    labelled = LabelledFrames(frames, [(0, labelled_frame)], TASKS, budget_bytes=0)
    keys = [(0, number) for number in jobs[0].frames]
    lesson = Lesson(jobs, [], labelled, ANY)
    masks, known = reader._seen_masks(lesson, keys)
    assert masks.shape == (2, len(TASKS), 64, 64) and known[:, 0].all()
    planes = labelled.batch([0]).planes
    whole = (planes.int() & 1).float().mean()
    assert whole > 0
    assert (masks[0, 0] != masks[1, 0]).any()
    for one in masks[:, 0]:
        assert 0.2 * whole < one.float().mean() < 3 * whole


def test_only_the_surer_half_is_learned_of_each_task() -> None:
    maps = torch.zeros(6, 2, 8, 8, dtype=torch.uint8)
    for row, inside in enumerate((250, 140, 200, 160)):  # four frames that show the first task
        maps[row, 0, 2:5, 2:5] = inside
    maps[4, 0, 0, 0], maps[5, 0, 0, 0] = 100, 10  # two that do not, one of them nearly
    maps[:, 1, 3:6, 3:6] = 255
    maps[:, 1, 3:6, 0] = torch.arange(6, dtype=torch.uint8)[:, None] * 20  # a doubtful rim
    assert surer(maps).T.tolist() == [
        [True, False, True, False, False, True],
        [True, True, True, False, False, False],
    ]


def test_who_is_surer_of_a_structure_counts_for_more() -> None:
    reader, student = torch.zeros(2, 1, 1, 8, 8, dtype=torch.uint8)
    reader[..., :4, :], student[..., 4:, :] = 200, 200  # as sure, of other places
    assert together(reader, student).unique().tolist() == [100]
    surer_one = student + student // 4
    assert together(reader, surer_one)[0, 0, :, 0].tolist() == [20] * 4 + [225] * 4
    blank = torch.full_like(student, 30)  # it has not learned to see it
    assert together(reader, blank)[0, 0, 0].min() > 195

    # By itself as sure as the reader of the first task, but of nothing else.
    two = torch.cat([reader, reader], 1), torch.cat([student, blank], 1)
    assert together(*two)[0, 0, 0].min() > 195


def test_frames_to_look_at_run_from_sure_to_unsure() -> None:
    maps = torch.zeros(5, 2, 8, 8, dtype=torch.uint8)
    for row, inside in enumerate((150, 250, 200, 180)):  # the last shows nothing at all
        maps[row, 0, 2:5, 2:5] = inside
    maps[2, 1, 0, 0] = 240
    assert from_sure_to_unsure(maps, 5) == [1, 2, 3, 0, 4]
    assert from_sure_to_unsure(maps, 3) == [1, 3, 4]
    assert from_sure_to_unsure(maps, 9) == [1, 2, 3, 0, 4]


def test_what_was_read_is_drawn_and_what_is_learned_is_filled(lab: Workspace) -> None:
    keys, frames, _ = two_labelled_and_one(lab)
    masks = torch.zeros(1, len(TASKS), 64, 64, dtype=torch.uint8)
    masks[0, 2, 16:48, 16:48] = 255
    known, tasks = torch.ones(len(TASKS), dtype=torch.bool), lab_tasks(lab)
    picture = lab.root / "readings.png"

    def coloured() -> list[int]:
        """Of each third of the table's picture, how much is in colour."""
        table = cv2.imread(str(picture))
        assert table is not None
        columns = np.array_split(table[60:330].astype(int), round(table.shape[1] / 286), axis=1)
        return [int((np.ptp(column, axis=2) > 20).sum()) for column in columns]

    ReadFrames(frames, keys[2:], masks, known, tasks, ANY, lab.root).draw()
    grey, filled = coloured()
    assert grey == 0 and filled > 5000
    reading = ReadFrames(frames, keys[2:], masks, known, tasks, ANY, lab.root, [3])
    reading.draw()
    grey, outline = coloured()  # not learned yet
    assert grey == 0 and 0 < outline < filled / 3
    reading.renew(3, Says(-9.0), CPU, Processes())
    grey, outline, filled = coloured()
    assert grey == 0 and 0 < outline < filled / 3
    whole = picture.read_bytes()
    reading.draw()
    assert picture.read_bytes() == whole


def test_what_is_never_missing_is_not_learned_as_missing() -> None:
    maps = torch.zeros(2, 2, 8, 8, dtype=torch.uint8)
    maps[0, :, 2:5, 2:5] = 250
    absent, apart = torch.tensor([True, False]), torch.zeros(2, 2, dtype=torch.bool)
    assert Plausible(absent, apart)(maps).tolist() == [[True, True], [True, False]]


def test_what_lies_where_another_thing_is_is_not_learned() -> None:
    maps = torch.zeros(3, 3, 16, 16, dtype=torch.uint8)
    maps[:, 0, 2:6, 2:6] = 250
    for row, top in enumerate((6, 5, 4)):  # beside it, touching it by a rim, half on it
        maps[row, 1, top : top + 10, 2:6] = 250
    maps[2, 2, 4:6, 2:6] = 250  # may lie on both
    apart = torch.zeros(3, 3, dtype=torch.bool)
    apart[0, 1] = apart[1, 0] = True
    absent = torch.ones(3, dtype=torch.bool)
    assert Plausible(absent, apart)(maps).tolist() == [
        [True, True, True],
        [False, False, True],
        [False, False, True],
    ]


def test_what_may_lie_on_what_is_what_tasks_and_labels_say(lab: Workspace) -> None:
    _, frames, labelled = two_labelled_and_one(lab)
    tasks = TaskSet("three", tuple(replace(task, may_overlap=()) for task in lab_tasks(lab)))
    assert len(tasks) == 3
    apart = Plausible.of(tasks, labelled).apart
    assert not apart.diagonal().any()
    masks = [
        [frames.studies[study].read_mask(task, frame) for task in tasks.ids]
        for study, frame in labelled.keys
    ]
    for row in range(3):
        for other in range(3):
            lies = any(
                (one[row] & one[other]).sum() > TOUCH * min(one[row].sum(), one[other].sum())
                for one in masks
            )
            assert apart[row, other] == (row != other and not lies), (row, other)
    named = replace(tasks.tasks[0], may_overlap=tasks.ids[1:])
    said = Plausible.of(TaskSet("said", (named, *tasks.tasks[1:])), labelled).apart
    assert not said[0].any() and not said[:, 0].any()


# ---- kept


def test_readings_are_taken_only_if_they_are_these_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "readings.safetensors"
    keys = [(0, 1), (2, 5)]
    masks = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    assert stored_readings(path, keys) is None
    save_readings(path, keys, masks)
    kept = stored_readings(path, keys)
    assert kept is not None and torch.equal(kept, masks)
    assert stored_readings(path, [(0, 1), (2, 6)]) is None
    path.write_bytes(path.read_bytes()[:-100])
    assert stored_readings(path, keys) is None
