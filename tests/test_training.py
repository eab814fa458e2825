"""Does a training train? Other tests compare one run with another; these compare with the truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distill_lab import lab_with_unlabelled, run, tiny_lab, weights
from tiny_studies import TASKS, write_study
from vfss_distill.config import DistillConfig
from vfss_distill.distill import loop
from vfss_distill.distill.batches import Batches, Material
from vfss_distill.distill.certainty import set_certainty
from vfss_distill.distill.data import Frames, LabelledFrames, unpack
from vfss_distill.distill.journal import read_metrics
from vfss_distill.distill.processes import Processes
from vfss_distill.distill.validation import validate
from vfss_distill.intake.study import Study, list_studies, write_mask
from vfss_distill.models.students import ANY
from vfss_distill.workspace import Workspace

CPU = torch.device("cpu")


def labelled_of(studies: list[Study]) -> LabelledFrames:
    """All frames that have labels."""
    keys = [(n, frame) for n, one in enumerate(studies) for frame in one.record.labelled_frames]
    frames = Frames(studies, keys, size=64, context=0, budget_bytes=1 << 24)
    return LabelledFrames(frames, keys, TASKS, budget_bytes=1 << 24)


def test_the_loss_of_masks_falls_and_shapes_are_found(tmp_path: Path) -> None:
    done = run(tiny_lab(tmp_path), task_steps=40, validate_every=40, learning_rate=0.02)
    losses = [line["task"] for line in read_metrics(done.folder / "metrics.jsonl")]
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:5])
    assert done.val_dice["bolus"] > 0.5


def test_alignment_brings_the_student_nearer_to_the_teacher(tmp_path: Path) -> None:
    done = run(tiny_lab(tmp_path), teachers=("raddino",), align_steps=40, task_steps=0)
    losses = [line["align"]["raddino"] for line in read_metrics(done.folder / "metrics.jsonl")]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:3])


def test_the_average_of_weights() -> None:
    average, student = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    with torch.no_grad():
        average.weight.fill_(1)
        student.weight.fill_(0)
        average.running_mean.fill_(2)  # type: ignore[union-attr,operator]
        student.running_mean.fill_(4)  # type: ignore[union-attr,operator]
        student.num_batches_tracked.fill_(7)  # type: ignore[union-attr,operator]
    loop.update_average(average, student, 0.9)
    assert average.weight.item() == pytest.approx(0.9)
    assert average.running_mean.item() == pytest.approx(2.2)  # type: ignore[union-attr,operator]
    assert average.num_batches_tracked.item() == 7  # type: ignore[union-attr,operator]
    assert student.weight.item() == 0


def test_the_average_of_weights_of_a_network_without_counters() -> None:
    average, student = nn.LayerNorm(1), nn.LayerNorm(1)
    nn.init.zeros_(student.weight)
    loop.update_average(average, student, 0.9)
    assert average.weight.item() == pytest.approx(0.9)


def test_the_averaged_weights_that_were_best_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    averages: list[dict[str, Tensor]] = []

    def validated(student: nn.Module, *_: object) -> dict[str, float]:
        averages.append({name: one.clone() for name, one in student.state_dict().items()})
        return {"bolus": (0.1, 0.9, 0.2)[len(averages) - 1]}

    monkeypatch.setattr(loop, "validate", validated)
    kept = weights(run(tiny_lab(tmp_path), task_steps=3, validate_every=1))
    alike = [all(torch.equal(kept[name], one[name]) for name in kept) for one in averages]
    assert alike == [False, True, False]


def test_masks_move_with_their_frames_and_frames_for_alignment_do_not_move(tmp_path: Path) -> None:
    """Teachers' features were computed of frames as they are."""
    studies = list_studies(lab_with_unlabelled(tmp_path))
    labelled = labelled_of(studies)
    material = Material(labelled.frames, labelled.keys, [], labelled, None)
    config = DistillConfig(batch_size=8, image_size=64, align_steps=9, blank=0.0)
    batches = Batches(material, config, 2, Processes())
    inside, aligned = [], []
    for step in range(9):
        batch = batches.at(step, CPU)
        for picture, key in zip(batch.frames, batch.keys, strict=True):
            raw = labelled.frames.batch([key])[0].float()
            aligned.append(np.corrcoef(raw.flatten(), picture.flatten())[0, 1])
        batch = batches.at(step + 9, CPU)
        for picture, masks in zip(batch.frames, batch.masks, strict=True):
            small = nn.functional.avg_pool2d(picture, 2)[0]
            disc, bar = masks[TASKS.index("bolus")] > 0.99, masks[TASKS.index("c3")] > 0.99
            if disc.any() and bar.any():
                inside.append(float((small[disc].mean() - small[bar].mean()) / small.std()))
    assert np.median(np.abs(aligned)) > 0.85  # .43 where they are moved
    assert np.median(np.abs(inside)) > 2  # .5 where only the frames are


def test_dice_of_validation_is_over_patients(tmp_path: Path) -> None:
    """Ten frames of one patient that are all right, two of another that are all wrong."""
    for patient, frames in (("pa", 10), ("pb", 2)):
        write_study(Workspace(tmp_path), patient, frames=frames)
    labelled = labelled_of(list_studies(Workspace(tmp_path)))
    truth = unpack(labelled.batch(range(12)).planes, len(TASKS))

    class Half(nn.Module):
        def forward(self, frames: Tensor) -> Tensor:
            said = 2 * (truth > 0.5).float() - 1
            said[10:] = -1
            return said

    scores = validate(Half(), labelled, CPU)
    assert scores == {task: pytest.approx(0.5) for task in TASKS}


class Sure(nn.Module):
    """A student whose surest logit is 5 for the first task and, for the second, 3 in the first 20
    frames and 1 in the others; the third it never shows."""

    def __init__(self) -> None:
        super().__init__()
        self.certain = torch.zeros(len(TASKS))
        self.seen = 0

    def pyramid(self, frames: Tensor) -> Tensor:
        return frames

    def decode(self, frames: Tensor) -> Tensor:
        logits = torch.full((len(frames), len(TASKS), 4, 4), -9.0)
        logits[:, 0, 0, 0] = 5
        numbers = torch.arange(self.seen, self.seen + len(frames))
        logits[:, 1, 2, 1] = torch.where(numbers < 20, 3.0, 1.0)
        self.seen += len(frames)
        return logits


def test_a_task_gets_its_own_cut_between_what_it_has_and_what_it_lacks(tmp_path: Path) -> None:
    some = {"bolus": range(40), "hyoid": range(40)}
    study = write_study(Workspace(tmp_path), "pa", frames=40, labelled=some)
    for frame in range(20, 40):
        write_mask(study.folder, "hyoid", frame, np.zeros((48, 64), bool))
    student = Sure()
    (said,) = set_certainty(student, labelled_of([study]), None)  # type: ignore[arg-type]
    bolus, hyoid, c3 = student.certain.tolist()
    assert bolus == c3 == ANY and 1 < hyoid < 3
    assert said.startswith("hyoid") and "0.0 %" in said
