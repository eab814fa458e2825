"""What training minimises: agreement with teachers, and masks where they are labelled."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def feature_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Half cosine distance over channels, half smooth-L1 (UNIC, Sarıyıldız et al. 2024).

    Both (B, C, g, g), the teacher's standardised. → scalar; 0 when equal, about .5 + .2 for an
    untrained student against features of unit variance.
    """
    cosine = 1 - F.cosine_similarity(student, teacher, dim=1).mean()
    return 0.5 * cosine + 0.5 * F.smooth_l1_loss(student, teacher)


def task_loss(logits: Tensor, masks: Tensor, labelled: Tensor) -> Tensor:
    """BCE + Dice over what is labelled, and nothing else.

    `logits` and `masks` (B, T, s, s), masks 0..1 (soft edges welcome); `labelled` (B, T) bool.
    BCE: mean over pixels of labelled maps. Dice: per task over the labelled maps of the whole
    batch (V-Net's squared form, Milletari et al. 2016), mean over the tasks that occur; a task
    that is absent from the whole batch is taught by BCE alone. → scalar, 0 if nothing is labelled.
    """
    known = labelled.to(logits.dtype)  # (B, T)
    counted = known.sum().clamp_min(1)
    pixels = F.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean((2, 3))
    bce = (pixels * known).sum() / counted

    probabilities = torch.sigmoid(logits)
    shared = ((probabilities * masks).sum((2, 3)) * known).sum(0)  # (T,)
    squares = (probabilities.square() + masks.square()).sum((2, 3))
    total = (squares * known).sum(0)
    occurs = ((masks.sum((2, 3)) * known).sum(0) > 0).to(logits.dtype)
    dice = 1 - 2 * shared / total.clamp_min(1e-6)
    return bce + (dice * occurs).sum() / occurs.sum().clamp_min(1)


def dice_scores(predicted: Tensor, truth: Tensor) -> Tensor:
    """Dice of binary maps (B, T, S, S) bool → (B, T); NaN where both are empty."""
    # float32 counts exactly up to 2**24 pixels, and four times as fast as integers.
    shared, total = (predicted & truth).float().sum((2, 3)), predicted.float().sum((2, 3))
    return 2 * shared.double() / (total + truth.float().sum((2, 3)))  # 0 / 0 = NaN: not counted
