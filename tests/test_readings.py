"""Masks that were read in unlabelled frames: which of them are learned, and when."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distill_lab import lab_with_unlabelled
from tiny_studies import TASKS
from vfss_distill.config import DistillConfig, lab_tasks
from vfss_distill.distill.batches import Batches, Material
from vfss_distill.distill.data import Frames, Key, LabelledFrames
from vfss_distill.distill.processes import Processes
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
from vfss_distill.intake.study import list_studies
from vfss_distill.tasks import TOUCH, TaskSet
from vfss_distill.workspace import Workspace

CPU = torch.device("cpu")
# All tasks of TASKS may be absent, and lie on one another.
ANY = Plausible(torch.ones(len(TASKS), dtype=torch.bool), torch.zeros(3, 3, dtype=torch.bool))


@pytest.fixture
def lab(tmp_path: Path) -> Workspace:
    return lab_with_unlabelled(tmp_path)


# ---- learned


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


def test_what_nobody_labelled_is_not_read(lab: Workspace) -> None:
    """A reader that was never taught a task shows noise there, which lies on what is right."""
    keys, frames, _ = two_labelled_and_one(lab)
    masks = torch.full((1, len(TASKS), 64, 64), 255, dtype=torch.uint8)
    known = torch.tensor([True, False, False])
    apart = Plausible(ANY.absent, ~torch.eye(len(TASKS), dtype=torch.bool))
    reading = ReadFrames(frames, keys[2:], masks, known, lab_tasks(lab), apart, lab.root, [3])
    reading.renew(3, Says(9.0), CPU, Processes())
    assert reading.masks.amax((0, 2, 3)).tolist() == [255, 0, 0]
    assert reading.taught.tolist() == [[True, False, False]]


# ---- sure and true


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
    one = torch.ones(1, dtype=torch.bool)
    assert together(reader, student, one).unique().tolist() == [100]
    surer_one = student + student // 4
    assert together(reader, surer_one, one)[0, 0, :, 0].tolist() == [20] * 4 + [225] * 4
    blank = torch.full_like(student, 30)  # it has not learned to see it
    assert together(reader, blank, one)[0, 0, 0].min() > 195

    # By itself as sure as the reader of the first task, but of nothing else.
    two = torch.cat([reader, reader], 1), torch.cat([student, blank], 1)
    assert together(*two, one.repeat(2))[0, 0, 0].min() > 195
    assert together(*two, torch.tensor([True, False]))[0, 0].unique().tolist() == [100]


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
