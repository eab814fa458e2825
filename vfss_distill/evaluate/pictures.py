"""Best and worst frames as pictures: the film, and truth and prediction drawn on it."""

from __future__ import annotations

import base64
import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .cases import Case
from .metrics import Mask
from .scoring import ModelReport
from .statistics import Row

WORST, BEST = 4, 2
_SIDE = 420
_APART = 10


@dataclass(frozen=True)
class Picture:
    """One frame three times, as PNG data URIs, with its mean Dice over counted tasks.

    `lowest` are the (task, Dice) that fit worst; `missed` and `invented` name tasks with one
    side empty.
    """

    study: str
    frame: int
    time_s: float
    dice: float
    lowest: tuple[tuple[str, float], ...]
    missed: tuple[str, ...]
    invented: tuple[str, ...]
    film: str
    truth: str
    prediction: str


def worst_and_best(model: ModelReport) -> tuple[list[Picture], list[Picture]]:
    """Frames by mean Dice over counted tasks, at first one per patient, then some frames apart."""
    frames: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in model.rows:
        if row.score.counted:
            frames[row.study, row.frame].append(row)
    ranked = sorted(frames.values(), key=lambda rows: (_mean(rows), rows[0].study, rows[0].frame))
    cases = {case.id: case for case in model.group.scored}
    worst = _spread(ranked, WORST)
    rest = [rows for rows in reversed(ranked) if rows not in worst]
    best = _spread(rest, BEST)
    return _pictures(cases, worst), _pictures(cases, best)


def _pictures(cases: Mapping[str, Case], chosen: Iterable[Sequence[Row]]) -> list[Picture]:
    """A frame that cannot be read costs its picture, not the report."""
    pictures = []
    for rows in chosen:
        with contextlib.suppress(DataError):
            pictures.append(_picture(cases[rows[0].study], rows))
    return pictures


def _mean(rows: Sequence[Row]) -> float:
    return float(np.mean([row.score.dice for row in rows]))


def _spread(ranked: Sequence[list[Row]], wanted: int) -> list[list[Row]]:
    """The first of each patient, then the next in rank that are not neighbours of those taken."""
    taken: list[list[Row]] = []
    patients = set()
    for rows in ranked:
        if rows[0].patient not in patients and len(taken) < wanted:
            taken.append(rows)
            patients.add(rows[0].patient)
    for rows in ranked:
        first = rows[0]
        near = any(
            first.study == other[0].study and abs(first.frame - other[0].frame) < _APART
            for other in taken
        )
        if len(taken) < wanted and not near:
            taken.append(rows)
    return sorted(taken, key=ranked.index)


def _picture(case: Case, rows: Sequence[Row]) -> Picture:
    frame = rows[0].frame
    study, result = case.study, case.result
    if study is None:
        raise DataError("a scored study is not in the workspace", file=case.id)
    grey = study.read_frame(frame)
    tasks = [row.task for row in rows]
    scores = [(row.task, row.score.dice or 0.0) for row in rows]
    return Picture(
        study=case.id,
        frame=frame,
        time_s=study.record.frame_times_s[frame],
        dice=_mean(rows),
        lowest=tuple(sorted(scores, key=lambda item: item[1])[:3]),
        missed=tuple(row.task for row in rows if row.score.reason == "prediction_empty"),
        invented=tuple(row.task for row in rows if row.score.reason == "false_positive"),
        film=_png(_shown(grey)),
        truth=_drawn(grey, case, tasks, lambda task: study.read_mask(task, frame)),
        prediction=_drawn(grey, case, tasks, lambda task: result.mask(task, frame)),
    )


def _drawn(
    grey: NDArray[np.uint8], case: Case, tasks: Iterable[str], mask: Callable[[str], Mask | None]
) -> str:
    """The frame with the outline of each task's mask, filled faintly."""
    canvas = _shown(grey)
    scale = canvas.shape[1] / grey.shape[1]
    tint = canvas.copy()
    outlines = []
    for task in reversed(list(tasks)):  # the first task (the bolus) last, on top of the others
        found = mask(task)
        if found is None or not found.any():
            continue
        red, green, blue = case.result.tasks[task].colour
        shape = _outline(found, scale)
        cv2.fillPoly(tint, shape, (blue, green, red), cv2.LINE_AA, shift=4)
        outlines.append((shape, (blue, green, red)))
    canvas = cv2.addWeighted(canvas, 0.78, tint, 0.22, 0)
    for shape, colour in outlines:
        cv2.polylines(canvas, shape, True, colour, 2, cv2.LINE_AA, shift=4)
    return _png(canvas)


def _outline(mask: Mask, scale: float) -> list[NDArray[np.int32]]:
    """Contours in sixteenths of a pixel of the picture shown; pixel centres at +0.5."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return [np.round(((contour + 0.5) * scale - 0.5) * 16).astype(np.int32) for contour in contours]


def _shown(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scale = _SIDE / max(grey.shape)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
    shown = cv2.cvtColor(cv2.resize(grey, size, interpolation=how), cv2.COLOR_GRAY2BGR)
    return np.asarray(shown, np.uint8)


def _png(picture: NDArray[np.uint8]) -> str:
    if (picture[..., 0] == picture[..., 1]).all() and (picture[..., 1] == picture[..., 2]).all():
        picture = picture[..., 0]
    _, data = cv2.imencode(".png", picture, (cv2.IMWRITE_PNG_COMPRESSION, 6))
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode("ascii")
