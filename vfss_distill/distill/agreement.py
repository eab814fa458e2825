"""How far the student is from its teachers in one step: features, weighed, and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..config import DistillConfig
from .batches import Batch, Material
from .losses import feature_loss
from .outputs import Outputs, affinity_loss, anchor_loss, embedding_loss, mask_loss
from .processes import Processes
from .projector import Heads


def align(
    embedding: Tensor,
    batch: Batch,
    material: Material,
    heads: Heads,
    config: DistillConfig,
    processes: Processes,
    record: dict[str, Any],
) -> Tensor:
    """Σ α_i L_i over the teachers, and weighted outputs; losses and weights go into `record`.

    `embedding` (a, E, G, G) of this process's frames for alignment.
    """
    targets = {
        teacher.name: teacher.batch(batch.align_keys, embedding.device)
        for teacher in material.teachers
    }
    losses = torch.stack(  # (teachers, a)
        [
            feature_loss(projector(embedding), target)
            for projector, target in zip(heads.projectors, targets.values(), strict=True)
        ]
    )
    alpha, lesson = heads.balance.weigh(losses, batch.aligned, processes)  # (teachers, a)
    sums = torch.cat([losses.sum(1), alpha.sum(1), (alpha * losses).sum()[None]])
    mean = processes.total(sums) / batch.aligned
    told, count = mean.tolist(), len(losses)  # once: a GPU has to be waited for
    record["align"] = dict(zip(targets, told[:count], strict=True))
    record["alpha"] = dict(zip(targets, told[count : 2 * count], strict=True))
    loss = mean[-1] + lesson

    weights = {
        "affinity": config.affinity_weight,
        "embedding": config.embedding_weight,
        "anchors": config.anchor_weight,
    }
    parts = _output_sums(embedding, batch, material.outputs, heads, targets)
    for name, part in parts.items():
        value = processes.total(part) / batch.aligned
        record.setdefault("outputs", {})[name] = value.item()
        loss = loss + weights[name] * value
    return loss


def agree_on_masks(
    logits: Tensor,
    batch: Batch,
    processes: Processes,
    record: dict[str, Any],
) -> Tensor:
    """Mean over the masks that teachers drew under boxes in this batch; 0 without any.

    `logits` (a, T, s, s) of this process's frames for alignment.
    """
    sums = torch.zeros(2, device=logits.device)
    for masks in batch.drawn:
        target, prompted = (t.to(logits.device) for t in masks.batch(batch.align_keys))
        sums = sums + torch.stack([mask_loss(logits, target, prompted).sum(), prompted.sum()])
    total, count = processes.total(sums)
    loss: Tensor = total / count.clamp_min(1)
    record.setdefault("outputs", {})["masks"] = loss.item()
    return loss


def _output_sums(
    embedding: Tensor,
    batch: Batch,
    outputs: Outputs,
    heads: Heads,
    targets: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Sums over this process's frames, of those losses that have a target."""
    parts: dict[str, list[Tensor]] = {}
    for name in outputs.affinity:
        parts.setdefault("affinity", []).append(affinity_loss(embedding, targets[name]).sum())
    for embedder, one in zip(heads.embedders, outputs.embeddings, strict=True):
        mean = one.mean.to(embedding.device)
        ours = embedder(embedding).flatten(1)  # (a, D), about the mean
        theirs = one.features.batch(batch.align_keys, embedding.device).flatten(1)
        parts.setdefault("embedding", []).append(embedding_loss(ours, theirs - mean).sum())
        if one.anchors is not None:
            anchors = one.anchors.to(embedding.device)
            near = anchor_loss(ours + mean, theirs, anchors, one.scale)
            parts.setdefault("anchors", []).append(near.sum())
    return {name: torch.stack(some).sum() for name, some in parts.items()}
