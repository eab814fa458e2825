"""What teachers say beyond their features, and how far the student is from it.

Masks under boxes from a promptable segmenter, likeness of patches from a self-supervised encoder,
the embedding of a whole frame and its nearness to texts from an image-text encoder. All of it is
about frames whose geometry is as the teacher saw it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.decoder import pool_to
from .features import TeacherFeatures
from .prompts import PromptedMasks

_AFFINITY_GRID = 16
# Softens a segmenter that is all too sure at every pixel (Hinton et al. 2015).
_TEMPERATURE = 2.0


@dataclass(frozen=True)
class FrameEmbeddings:
    """One embedding per frame of an image-text teacher, `features` with a grid of 1.

    `mean` (D,) over the training frames: films resemble one another so much that without taking
    it off, every frame agrees with every other. `anchors` (A, D): unit vectors of texts, or None;
    `scale`: what the teacher multiplies likenesses with before a softmax.
    """

    features: TeacherFeatures
    mean: Tensor
    anchors: Tensor | None = None
    scale: float = 1.0

    @property
    def length(self) -> int:
        return self.features.channels


@dataclass(frozen=True)
class Outputs:
    """Targets beyond features; empty where a weight is 0 or no teacher gives them.

    `masks` by teacher; `affinity`: names of teachers, whose features are there anyway.
    """

    masks: Mapping[str, PromptedMasks] = field(default_factory=dict)
    affinity: Sequence[str] = ()
    embeddings: Sequence[FrameEmbeddings] = ()


def mask_loss(logits: Tensor, target: Tensor, prompted: Tensor) -> Tensor:
    """Binary cross-entropy at a temperature, less the target's own entropy, and soft Dice.

    `logits` (B, T, s, s) of the student, `target` (B, T, m, m) of the teacher, `prompted` (B, T)
    bool. → sum over the prompted tasks of each frame (B,); a map counts 0 when equal.
    """
    logits = pool_to(logits, target.shape[-1])
    soft = torch.sigmoid(target / _TEMPERATURE)
    crossed = F.binary_cross_entropy_with_logits(logits / _TEMPERATURE, soft, reduction="none")
    entropy = F.binary_cross_entropy(soft, soft, reduction="none")
    bce = _TEMPERATURE**2 * (crossed - entropy).mean((2, 3))
    ours, theirs = torch.sigmoid(logits), torch.sigmoid(target)
    shared = 2 * (ours * theirs).sum((2, 3))
    dice = 1 - shared / (ours.square() + theirs.square()).sum((2, 3)).clamp_min(1e-6)
    return ((bce + dice) * prompted).sum(1)


def affinity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Difference of cosine similarities between all patches of a frame (relational distillation).

    (B, E, G, G) and (B, C, g, g), compared on at most 16×16 patches, each frame's mean patch taken
    off. → mean square per frame (B,); 0 for features that are turned, mirrored or scaled.
    """
    grid = min(_AFFINITY_GRID, teacher.shape[-1], student.shape[-1])
    return (_likeness(student, grid) - _likeness(teacher, grid)).square().mean((1, 2))


def _likeness(maps: Tensor, grid: int) -> Tensor:
    """→ (B, g², g²)"""
    patches = pool_to(maps, grid).flatten(2)  # (B, C, g²)
    unit = F.normalize(patches - patches.mean(2, keepdim=True), dim=1, eps=1e-6)
    return unit.transpose(1, 2) @ unit


def embedding_loss(student: Tensor, target: Tensor) -> Tensor:
    """Cosine distance of (B, D) and (B, D), the mean taken off both. → (B,)"""
    return 1 - F.cosine_similarity(student, target, dim=1)


def anchor_loss(student: Tensor, target: Tensor, anchors: Tensor, scale: float) -> Tensor:
    """Kullback-Leibler divergence between what both make of the texts (affinity mimicking).

    Embeddings (B, D), the mean included; `anchors` (A, D) unit vectors. → (B,)
    """
    theirs = F.log_softmax(scale * target @ anchors.T, dim=1)
    ours = F.log_softmax(scale * student @ anchors.T, dim=1)
    return (theirs.exp() * (theirs - ours)).sum(1)
