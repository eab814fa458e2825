"""What training minimises: agreement with teachers, and masks where they are labelled."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

# Adds a sum over frames up over all processes that share a batch.
Total = Callable[[Tensor], Tensor]


def alone(part: Tensor) -> Tensor:
    """The total where there is one process."""
    return part


def feature_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Half cosine distance over channels, half smooth-L1 (UNIC, Sarıyıldız et al. 2024).

    Both (B, C, g, g), the teacher's standardised. → one number per frame (B,); 0 when equal, about
    .5 + .2 for an untrained student against features of unit variance.
    """
    cosine = 1 - F.cosine_similarity(student, teacher, dim=1).mean((1, 2))
    smooth = F.smooth_l1_loss(student, teacher, reduction="none").mean((1, 2, 3))
    return 0.5 * cosine + 0.5 * smooth


PRESENCE_WEIGHT = 0.1


def task_loss(
    logits: Tensor,
    masks: Tensor,
    labelled: Tensor,
    total: Total = alone,
    presence_weight: float = PRESENCE_WEIGHT,
    weights: Tensor | None = None,
) -> Tensor:
    """BCE + Dice over what is labelled, and nothing else; and a little of: is it there at all?

    `logits` and `masks` (B, T, s, s), masks 0..1 (soft edges welcome); `labelled` (B, T) bool.
    BCE: mean over pixels of labelled maps. Dice (V-Net's squared form, Milletari et al. 2016), mean
    over the tasks that occur, half of it over all labelled maps of the batch taken as one, which is
    steady, half map by map, which is what is reported: a trace of barium counts as much as a
    mouthful. A task that is absent from the whole batch is taught by BCE alone. Presence: BCE of
    the strongest 4×4 patch, since a false bolus of a hundred pixels hardly moves a mean over the
    frame; here it costs all. `weights` (T,): what a task counts in every mean over tasks, else one.
    → scalar, 0 if nothing is labelled.
    """
    known = labelled.to(logits.dtype)  # (B, T)
    pixels = F.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean((2, 3))
    strongest = F.avg_pool2d(logits, 4, ceil_mode=True).amax((2, 3))
    there = (masks.amax((2, 3)) > 0.5).to(logits.dtype)
    probabilities = torch.sigmoid(logits)
    overlap = (probabilities * masks).sum((2, 3))
    areas = (probabilities.square() + masks.square()).sum((2, 3)).clamp_min(1e-6)
    per_map = (  # each (B, T), summed over the batch to (T,)
        pixels,
        torch.ones_like(known),
        overlap,
        areas,
        masks.sum((2, 3)),
        F.binary_cross_entropy_with_logits(strongest, there, reduction="none"),
        there * (1 - 2 * overlap / areas),
        there,
    )
    bce, counted, shared, squares, truth, presence, apart, present = total(
        torch.stack([(m * known).sum(0) for m in per_map])
    )
    weights = torch.ones_like(counted) if weights is None else weights
    occurs = (truth > 0).to(logits.dtype) * weights
    whole = 1 - 2 * shared / squares.clamp_min(1e-6)
    dice = 0.5 * whole + 0.5 * apart / present.clamp_min(1)
    pixelwise = (weights * (bce + presence_weight * presence)).sum()
    labels, tasks = (weights * counted).sum(), occurs.sum()
    return pixelwise / _or_one(labels) + (dice * occurs).sum() / _or_one(tasks)


def _or_one(total: Tensor) -> Tensor:
    """A sum of weights to divide by: 1 where it is 0, for then so is what it divides."""
    return torch.where(total > 0, total, torch.ones_like(total))


def dice_scores(predicted: Tensor, truth: Tensor) -> Tensor:
    """Dice of binary maps (B, T, S, S) bool → (B, T); NaN where both are empty."""
    # float32 counts exactly up to 2**24 pixels, and four times as fast as integers.
    shared, total = (predicted & truth).float().sum((2, 3)), predicted.float().sum((2, 3))
    return 2 * shared.double() / (total + truth.float().sum((2, 3)))  # 0 / 0 = NaN: not counted
