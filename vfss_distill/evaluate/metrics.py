"""How well one predicted mask fits one true mask: Dice and HD95, with every empty case decided.

| truth   | prediction | Dice | counted | HD95    |
|---------|------------|------|---------|---------|
| present | present    | 0..1 | yes     | a number|
| present | empty      | 0    | yes     | missing |
| empty   | present    | 0    | yes     | missing | and a false positive
| empty   | empty      | none | no      | missing |

An unlabelled frame has no truth and never reaches this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import LabelError

Mask = NDArray[np.bool_]
Reason = Literal["both_present", "prediction_empty", "false_positive", "both_empty"]

HD95_DEFINITION = (
    "HD95: the larger of the two directed 95th percentiles (truth to prediction, prediction to "
    "truth) of Euclidean distances between boundary pixels, in pixels of the film, made square "
    "where they were not. A boundary pixel is a mask pixel with at least one of its four "
    "neighbours outside the mask; percentiles are interpolated linearly. This is MONAI's "
    "definition."
)

REPEATS_COUNT = (
    "A labelled frame that repeats the one before it, as of 15 pulses stored as 30 frames, counts "
    "as any other: numbers of frames may be twice those of pulses."
)


@dataclass(frozen=True)
class Score:
    """One mask against its truth. `dice` None: not counted. `hd95_px` None: one side is empty."""

    dice: float | None
    hd95_px: float | None
    truth_px: int
    predicted_px: int

    @property
    def counted(self) -> bool:
        return self.dice is not None

    @property
    def reason(self) -> Reason:
        if self.truth_px:
            return "both_present" if self.predicted_px else "prediction_empty"
        return "false_positive" if self.predicted_px else "both_empty"


def dice(truth: Mask, predicted: Mask) -> float | None:
    """2|A∩B| / (|A|+|B|), 0 to 1; None when both H×W masks are empty (not counted).

    Raises LabelError when the sizes differ.
    """
    return score(truth, predicted, distances=False).dice


def hd95(truth: Mask, predicted: Mask) -> float | None:
    """Symmetric 95 % Hausdorff distance in pixels (`HD95_DEFINITION`); None if one side is empty.

    Raises LabelError when the sizes differ.
    """
    return score(truth, predicted).hd95_px


def score(truth: Mask, predicted: Mask, *, distances: bool = True) -> Score:
    """Dice and HD95 in one pass. Raises LabelError when the sizes differ."""
    if truth.shape != predicted.shape or truth.ndim != 2:
        raise LabelError(
            f"a mask of {_size(predicted)} was compared with a truth of {_size(truth)}",
            remedy="Segment the study again: the film has changed since.",
        )
    in_truth = int(np.count_nonzero(truth))
    in_prediction = int(np.count_nonzero(predicted))
    if in_truth + in_prediction == 0:
        return Score(None, None, 0, 0)
    if not in_truth or not in_prediction:
        return Score(0.0, None, in_truth, in_prediction)
    common = int(np.count_nonzero(truth & predicted))
    distance = _hd95(truth, predicted) if distances else None
    return Score(2 * common / (in_truth + in_prediction), distance, in_truth, in_prediction)


def _hd95(truth: Mask, predicted: Mask) -> float:
    """Both masks non-empty. Distances are taken only inside the box that holds both."""
    box = _bounds(truth | predicted)
    truth_edge, predicted_edge = _edge(truth[box]), _edge(predicted[box])
    there = _distance_to(truth_edge)[predicted_edge]
    back = _distance_to(predicted_edge)[truth_edge]
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def _bounds(mask: Mask) -> tuple[slice, slice]:
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _edge(mask: Mask) -> Mask:
    """Mask pixels with a 4-neighbour outside; beyond the picture is outside."""
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    edge: Mask = mask & ~inside
    return edge


def _distance_to(edge: Mask) -> NDArray[np.float32]:
    """Exact Euclidean distance of every pixel to the nearest edge pixel."""
    elsewhere = (~edge).astype(np.uint8)
    distance: NDArray[np.float32] = cv2.distanceTransform(
        elsewhere, cv2.DIST_L2, cv2.DIST_MASK_PRECISE
    )
    return distance


def _size(mask: NDArray[np.generic]) -> str:
    return "×".join(map(str, mask.shape))
