"""Dice on the validation patients while training. The report computes the defensible numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from .data import LabelledFrames, unpack
from .losses import dice_scores

_FRAMES = 240


@torch.no_grad()
def validate(
    student: nn.Module, labelled: LabelledFrames, device: torch.device, batch_size: int = 16
) -> dict[str, float]:
    """Dice per task at threshold .5, over frames of a patient, then over patients, as in reports.

    At most 240 frames, spread evenly. Tasks without a counted frame are left out.
    """
    student.eval()
    rows = np.unique(np.linspace(0, len(labelled) - 1, min(len(labelled), _FRAMES)).round())
    sums: dict[tuple[str, str], list[float]] = {}
    for first in range(0, len(rows), batch_size):
        some = [int(row) for row in rows[first : first + batch_size]]
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


def mean_dice(scores: Mapping[str, float]) -> float:
    """Mean over tasks; 0 when none was counted."""
    return sum(scores.values()) / len(scores) if scores else 0.0
