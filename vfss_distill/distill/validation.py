"""Dice on the validation patients while training. The report computes the defensible numbers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from .data import LabelledFrames, unpack
from .losses import dice_scores
from .spread import with_enough

_FRAMES = 240
_OF_A_TASK = 24


@torch.no_grad()
def validate(
    student: nn.Module, labelled: LabelledFrames, device: torch.device, batch_size: int = 16
) -> dict[str, float]:
    """Dice per task at threshold .5, over frames of a patient, then over patients, as in reports.

    240 frames, spread evenly, and more of tasks and patients that hardly any of these show. Tasks
    without a counted frame are left out.
    """
    student.eval()
    rows = _sample(labelled)
    sums: dict[tuple[str, str], list[float]] = {}
    for first in range(0, len(rows), batch_size):
        some = rows[first : first + batch_size]
        batch = labelled.batch(some)
        logits = student(batch.frames.to(device))
        truth = unpack(batch.planes, len(labelled.tasks)) > 0.5
        dice = dice_scores(logits.float().cpu() > 0, truth)
        counted = batch.labelled & ~torch.isnan(dice)
        for place, task in counted.nonzero().tolist():
            key = (labelled.tasks[task], labelled.patient(some[place]))
            sums.setdefault(key, []).append(float(dice[place, task]))
    patients: dict[str, list[float]] = {}
    for (task_id, _), values in sums.items():
        patients.setdefault(task_id, []).append(sum(values) / len(values))
    return {
        task_id: sum(patients[task_id]) / len(patients[task_id])
        for task_id in labelled.tasks
        if task_id in patients
    }


def _sample(labelled: LabelledFrames) -> list[int]:
    groups = []
    for column in labelled.labelled.T:
        of_patient: dict[str, list[int]] = {}
        for row in column.nonzero()[:, 0].tolist():
            of_patient.setdefault(labelled.patient(row), []).append(row)
        enough = -(-_OF_A_TASK // max(1, len(of_patient)))
        groups += [(rows, enough) for rows in of_patient.values()]
    return with_enough(range(len(labelled)), _FRAMES, groups)


def mean_dice(scores: Mapping[str, float]) -> float:
    """Mean over tasks; 0 when none was counted."""
    return sum(scores.values()) / len(scores) if scores else 0.0
