"""How sure a student must be of a task in a frame before any of it is shown.

Pixels are cut at one half. Where a frame has no bolus, a few pixels just above one half make a
false one; a real one is clearer somewhere. So each task gets a second, higher cut for the surest
pixel of the frame, set on the validation patients once training is over and kept in the student.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ..magnification import Usual
from ..models.students import ANY, Student
from .data import LabelledFrames, unpack
from .spines import in_squares

# At most, of the frames without the task, where 2 % is what one may ask: films of another clinic,
# simulated ones (280 patients), had three times the share of those that the cut was set on.
FALSE_ALARMS = 0.006
HIDDEN = 0.02  # at most, of the task's pixels: a frame with a trace of five is no great loss
FEWEST = 20  # frames of either kind; with fewer, a share of so few in a hundred is guessing


def set_certainty(student: Student, labelled: LabelledFrames, usual: Usual | None) -> Iterator[str]:
    """Set `student.certain` (logits) from labelled validation frames; yield what to say of it.

    `usual`: how long the spine is in what it learned from: in films with another they are shown in
    squares of another side, as `vfss segment` does.

    The lowest cut with which at most 0.6 % of the frames without the task show some, unless that
    hides more than 2 % of its pixels in the frames that have it: then the cut that hides 2 %.
    Tasks with fewer than 20 frames of either kind keep no cut.
    """
    surest, areas, known = _surest(student, labelled, usual)
    for number, task in enumerate(labelled.tasks):
        logits, area = surest[known[:, number], number], areas[known[:, number], number]
        there, absent = logits[area > 0], logits[area == 0]
        if min(len(there), len(absent)) < FEWEST:
            continue
        cut = cut_for(there, area[area > 0], absent)
        if cut > 0:
            student.certain[number] = cut
        share = 1 / (1 + np.exp(-cut))
        alarms, hidden = (absent >= cut).mean(), (there < cut).mean()
        yield (
            f"{task} is shown where some pixel reaches {share:.2f}: in {100 * alarms:.1f} % of the "
            f"validation frames without it, not in {100 * hidden:.1f} % of those with it"
        )


def cuts_of(student: Student, tasks: Sequence[str]) -> dict[str, float]:
    """Of the tasks with a cut above one half, the probability that some pixel must reach."""
    cuts = zip(tasks, student.certain.tolist(), strict=True)
    return {task: 1 / (1 + math.exp(-cut)) for task, cut in cuts if cut > 0}


def cut_for(
    there: NDArray[np.float64], areas: NDArray[np.float64], absent: NDArray[np.float64]
) -> float:
    """The cut for one task from its surest logit in frames with it (and its pixels there) and in
    frames without; 0 (one half) at least: below that no pixel is shown anyway.

    It lies between two logits that occur, as far from both as can be: on one of them the last bit,
    in which ONNX and torch differ, would decide whether a frame shows the task.
    """
    there, absent = there.astype(np.float32), absent.astype(np.float32)
    # Just above the last frame that may not be shown any more; of n + 1 frames, the new one among
    # them, so that few frames do not promise too much (split conformal prediction).
    rank = math.ceil((len(absent) + 1) * (1 - FALSE_ALARMS))
    alarms = np.sort(absent)[min(rank, len(absent)) - 1]
    order = np.argsort(there)
    gone = np.cumsum(areas[order]) / areas.sum()  # were the cut just above this frame
    first_kept = int(np.searchsorted(gone, HIDDEN, side="right"))
    kept = there[order][min(first_kept, len(there) - 1)]
    occurring = np.unique(np.concatenate([there, absent]))
    # The lowest that is shown: the next above those alarms, or the first that has to be.
    above_alarms = np.searchsorted(occurring, alarms, side="right")
    shown = int(min(above_alarms, np.searchsorted(occurring, kept)))
    below = occurring[shown - 1] if shown else occurring[shown] - 1
    between = max((below + occurring[shown]) / 2, np.nextafter(below, np.float32(np.inf)))
    return max(float(between), 0.0)


@torch.no_grad()
def _surest(
    student: Student, labelled: LabelledFrames, usual: Usual | None, batch_size: int = 16
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """→ highest logit, pixels in truth, and whether labelled; each (frames, tasks), in no order."""
    student.eval()
    student.certain.fill_(ANY)
    surest, areas, known = [], [], []
    for rows, frames in in_squares(student, labelled, usual, batch_size):
        logits = student.decode(student.pyramid(frames))
        surest.append(logits.float().amax((2, 3)).cpu().numpy())
        truth = unpack(labelled.masks(rows), len(labelled.tasks))
        areas.append((truth > 0.5).sum((2, 3)).numpy())
        known.append(labelled.labelled[rows].numpy())
    return (
        np.concatenate(surest).astype(np.float64),
        np.concatenate(areas).astype(np.float64),
        np.concatenate(known),
    )
