"""How long the spine is in the films a student learns from, and in what squares it is shown films.

As `vfss segment` shows them (magnification.py), so that what is measured of a student holds there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..magnification import SPINE, Usual, film_spine_px, side_for, spine_px, usual_of
from ..models.decoder import enlarge
from ..models.students import Student
from .data import BITS, Frames, LabelledFrames
from .spread import evenly

_LOOKED_AT = 12  # frames of a film


def usual_spine(labelled: LabelledFrames) -> Usual | None:
    """From the masks of C2 and C4, in pixels of the square; None where no frame has both."""
    if not set(SPINE) <= set(labelled.tasks):
        return None
    places = [labelled.tasks.index(task) for task in SPINE]
    rows_of: dict[int, list[int]] = defaultdict(list)
    for row in np.flatnonzero(labelled.labelled[:, places].all(1).numpy()):
        rows_of[labelled.keys[row][0]].append(int(row))
    films = []
    for rows in rows_of.values():
        lengths = [_labelled_spine(labelled, row, places) for row in evenly(rows, _LOOKED_AT)]
        if not np.isnan(lengths).all():
            films.append(float(np.nanmedian(lengths)))
    return usual_of(films)


def _labelled_spine(labelled: LabelledFrames, row: int, places: list[int]) -> float:
    planes = labelled.planes(row)
    return spine_px(*((planes[n // BITS] >> n % BITS & 1).astype(bool) for n in places))


def in_squares(
    student: Student, labelled: LabelledFrames, usual: Usual | None, most: int
) -> Iterator[tuple[list[int], Tensor]]:
    """Rows of `labelled`, `most` at once, with their frames uint8 (B, C, S, S): S is what the film
    would be shown in. All in the student's own side where no length is `usual`."""
    rows_of: dict[int, list[int]] = defaultdict(list)
    for row, key in enumerate(labelled.keys):
        rows_of[key[0] if usual else 0].append(row)
    for rows in rows_of.values():
        frames = _magnified(student, labelled.frames, [labelled.keys[row] for row in rows], usual)
        for first in range(0, len(rows), most):
            some = rows[first : first + most]
            yield some, frames.batch([labelled.keys[row] for row in some])


def _magnified(
    student: Student, frames: Frames, keys: list[tuple[int, int]], usual: Usual | None
) -> Frames:
    """`frames`, or those `keys` of them, all of one film, in squares of another side."""
    if usual is None:
        return frames
    places = [student.config.tasks.index(task) for task in SPINE]
    with torch.no_grad():
        seen = student.decode(student.pyramid(frames.batch(evenly(keys, _LOOKED_AT))))
        masks = enlarge(seen[:, places], frames.size).numpy() > 0
    side = side_for(film_spine_px(spine_px(*pair) for pair in masks), usual, frames.size)
    if side == frames.size:
        return frames
    return Frames(frames.studies, keys, size=side, context=frames.context, budget_bytes=0)
