"""The open_clip family (BiomedCLIP): image towers that are timm ViTs, `visual.trunk.*`."""

from __future__ import annotations

import math
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from .base import Teacher
from .card import TeacherCard
from .checkpoint import Checkpoint, fit, ratio
from .preprocess import Preprocessing

_TRUNK = "visual.trunk."
_HEAD_DIM = 64  # of every timm ViT that open_clip publishes


class VisualTower(nn.Module):
    """`trunk` and `head.proj` under open_clip's names."""

    def __init__(self, trunk: VisionTransformer, embedding: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.head: Any = nn.Module()
        self.head.proj = nn.Linear(trunk.embed_dim, embedding, bias=False)


class OpenClipTeacher(Teacher):
    """Patch tokens after the final norm, class token dropped: (B, 768, 14, 14) for BiomedCLIP."""

    def __init__(self, card: TeacherCard, checkpoint: Checkpoint, layout: str) -> None:
        super().__init__(card, checkpoint, layout)
        trunk = read_trunk(checkpoint)
        embedding, _ = checkpoint.shape("visual.head.proj.weight", 2)
        holder: Any = nn.Module()
        holder.visual = VisualTower(trunk, embedding)
        self.dropped = fit(
            holder, checkpoint, network="an open_clip tower with a timm ViT", drop=card.drop
        )
        self.network = holder.visual
        self.channels = trunk.embed_dim
        self.grid = trunk.patch_embed.grid_size[0]
        self.preprocessing = Preprocessing.of(card, trunk.patch_embed.img_size[0])

    def encode(self, images: Tensor) -> Tensor:
        tokens = self.network.trunk.forward_features(images)[:, 1:]  # (B, g·g, C)
        return tokens.transpose(1, 2).unflatten(2, (self.grid, self.grid))

    def pooled(self, frames: Tensor) -> Tensor:
        """uint8 (B, H, W) → unit vectors (B, 512): the class token, projected."""
        with torch.no_grad():
            images = self.preprocessing(frames.to(self.device))
            classes = self.network.trunk.forward_features(images)[:, 0]
            return functional.normalize(self.network.head.proj(classes).float(), dim=-1)


def read_trunk(checkpoint: Checkpoint) -> VisionTransformer:
    """The timm ViT that the tensor shapes describe. Raises WeightsMismatch."""
    width, _, patch, _ = checkpoint.shape(f"{_TRUNK}patch_embed.proj.weight", 4)
    _, positions, _ = checkpoint.shape(f"{_TRUNK}pos_embed", 3)
    grid = math.isqrt(positions - 1)
    if grid * grid != positions - 1:
        raise checkpoint.mismatch(f"its {positions} positions are no square and a class token")
    if width % max(1, width // _HEAD_DIM):
        raise checkpoint.mismatch(f"its {width} channels are no heads of {_HEAD_DIM}")
    hidden, _ = checkpoint.shape(f"{_TRUNK}blocks.0.mlp.fc1.weight", 2)
    return VisionTransformer(
        img_size=grid * patch,
        patch_size=patch,
        embed_dim=width,
        depth=checkpoint.count(f"{_TRUNK}blocks."),
        num_heads=max(1, width // _HEAD_DIM),
        mlp_ratio=ratio(hidden, width),
        num_classes=0,
    )


def build_open_clip(card: TeacherCard, checkpoint: Checkpoint) -> OpenClipTeacher:
    """Raises WeightsMismatch when the file holds no such tower, or not all of it."""
    if f"{_TRUNK}patch_embed.proj.weight" not in checkpoint:
        raise checkpoint.mismatch("is no open_clip model with a timm ViT image tower")
    return OpenClipTeacher(card, checkpoint, "open_clip, timm trunk")
