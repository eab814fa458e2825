"""How much a teacher's features say of the labels: a linear probe, tried on other patients.

Asked once, before the first step, where `balancing` is `probe`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

GRID = 16
FRAMES = 240  # enough to tell a teacher that says something from one that does not, in seconds
_FOLDS = 5
_RIDGES = (1e-3, 1e-2, 1e-1, 1.0)  # of the mean variance of a channel


def explained(features: Tensor, shares: Tensor, labelled: Tensor, patients: Sequence[str]) -> float:
    """Share of the labels' variance, 0..1, that a ridge regression on the features explains in
    patients it was not fitted on; mean over the tasks, one that it says nothing of counting 0.

    Of n frames: `features` (n, C, g, g), `shares` (n, T, g, g) of each cell inside each mask, which
    of these are `labelled` (n, T) bool, and whose frames they are, two patients at least. Teachers
    are told apart on one grid, GRID × GRID, whatever their own.
    """
    names, patient_of = np.unique(patients, return_inverse=True)
    fold_of = patient_of % min(_FOLDS, len(names))
    tokens, goals = features.flatten(2).mT, shares.flatten(2).mT  # (n, g², C), (n, g², T)
    known = labelled.numpy()
    missed, spread = np.zeros((len(_RIDGES), known.shape[1])), np.zeros(known.shape[1])
    for fold in range(fold_of.max() + 1):
        # Tasks labelled in the same frames share one regression.
        for frames in np.unique(known, axis=1).T:
            fitted, tried = frames & (fold_of != fold), frames & (fold_of == fold)
            if fitted.any() and tried.any():
                tasks = (known == frames[:, None]).all(0)
                errors, from_mean = _tried(tokens, goals[:, :, tasks], fitted, tried)
                missed[:, tasks] += errors
                spread[tasks] += from_mean
    varies = spread > 0
    if not varies.any():
        return 0.0
    per_ridge = np.maximum(0, 1 - missed[:, varies] / spread[varies]).mean(1)
    return round(float(per_ridge.max()), 3)  # beyond that it is chance, or the last bits


def _tried(
    tokens: Tensor, goals: Tensor, fitted: NDArray[np.bool_], tried: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Squared errors in the frames `tried`: of each ridge (R, T), and of the mean alone (T,)."""

    def cells(frames: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
        rows = torch.from_numpy(frames)
        return tokens[rows].flatten(0, 1).double(), goals[rows].flatten(0, 1).double()

    x, y = cells(fitted)
    centre, mean = x.mean(0), y.mean(0)
    x, y = x - centre, y - mean
    products, answers = x.mT @ x, x.mT @ y
    unit = products.diagonal().mean().clamp_min(1e-12) * torch.eye(len(products)).double()
    x, y = cells(tried)
    x, y = x - centre, y - mean
    errors = [y - x @ torch.linalg.solve(products + r * unit, answers) for r in _RIDGES]
    return torch.stack([e.square().sum(0) for e in errors]).numpy(), y.square().sum(0).numpy()
