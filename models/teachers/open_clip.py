"""The open_clip family (BiomedCLIP): image towers, `visual.*`.

A timm ViT (`visual.trunk.*`) is read from its tensor shapes. Any other tower is built from the
card's `config` or `architecture`, or from the open_clip_config.json beside the weights.
"""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from open_clip import get_model_config, list_models
from open_clip.model import CLIPVisionCfg, _build_vision_tower
from timm import is_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from .base import Teacher
from .card import UNBUILDABLE, TeacherCard, card_fault, reason_of
from .checkpoint import Checkpoint, below, fit, ratio
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
    """Patch tokens after the final norm, of the last block or that of `stage`, class token dropped:
    (B, 768, 14, 14) for BiomedCLIP."""

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
        if (blocks := len(trunk.blocks)) < (card.stage or 1):
            raise card_fault(card, f"its network has {blocks} blocks", "Mend `stage`.")

    def encode(self, images: Tensor) -> Tensor:
        trunk = self.network.trunk
        if self.card.stage is None:
            tokens = trunk.forward_features(images)[:, 1:]  # (B, g·g, C)
            return tokens.transpose(1, 2).unflatten(2, (self.grid, self.grid))
        maps: list[Tensor] = trunk.forward_intermediates(
            images, indices=[self.card.stage - 1], norm=True, intermediates_only=True
        )
        return maps[-1]

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


class TowerTeacher(Teacher):
    """Any tower that open_clip builds: its last map after its norm, or that of `stage`."""

    def __init__(self, card: TeacherCard, checkpoint: Checkpoint, config: dict[str, Any]) -> None:
        super().__init__(card, checkpoint, "open_clip, its own tower")
        holder: Any = nn.Module()
        holder.visual = build_tower(card, config)
        inner, spare = below(checkpoint, card.prefix)
        dropped = fit(holder, inner, network="an open_clip tower", drop=card.drop)
        self.dropped = (*dropped, *spare)
        self.network = holder.visual
        self.preprocessing = Preprocessing.of(card, card.image_size)
        self.channels, self.grid = self.map_shape()

    def encode(self, images: Tensor) -> Tensor:
        maps = self.network.forward_intermediates(
            images,
            indices=[self.card.stage - 1] if self.card.stage else 1,
            normalize_intermediates=True,
            stop_early=True,  # stages after it are not asked for
            intermediates_only=True,
        )["image_intermediates"]
        last: Tensor = maps[-1]
        return last

    def pooled(self, frames: Tensor) -> Tensor:
        """uint8 (B, H, W) → unit vectors (B, E), comparable with the text tower's."""
        with torch.no_grad():
            images = self.preprocessing(frames.to(self.device))
            return functional.normalize(self.network(images).float(), dim=-1)


def read_config(card: TeacherCard, checkpoint: Checkpoint) -> dict[str, Any]:
    """embed_dim and vision_cfg, as open_clip names them. Raises ConfigError."""
    said: Any = dict(card.config)
    if card.architecture:
        # Other names are addresses: of a page to download from, of a folder.
        known = card.architecture in list_models()
        said = get_model_config(card.architecture) if known else None
    elif not said:
        try:
            path = checkpoint.file.parent / "open_clip_config.json"
            said = json.loads(path.read_text(encoding="utf-8"))
            said = said.get("model_cfg", said) if isinstance(said, dict) else None
        except (OSError, ValueError, RecursionError):
            said = None
    if not isinstance(said, dict) or not isinstance(said.get("vision_cfg"), dict):
        raise card_fault(
            card,
            f"open_clip knows no {card.architecture!r}"
            if card.architecture
            else "nothing says which open_clip tower this is",
            "Give `architecture` (open_clip's name, such as ViT-B-32), or save the published "
            "open_clip_config.json beside the weights.",
        )
    return said


def build_tower(card: TeacherCard, config: dict[str, Any]) -> nn.Module:
    """The image tower, random. Raises ConfigError."""
    said = dict(config["vision_cfg"]) | {"timm_model_pretrained": False}
    trunk = said.get("timm_model_name")
    if trunk and not is_model(str(trunk).partition(".")[0]):
        raise card_fault(card, f"timm knows no network {trunk!r}", "Mend `config`.")
    try:
        tower: nn.Module = _build_vision_tower(
            int(config["embed_dim"]), CLIPVisionCfg(**said), bool(config.get("quick_gelu"))
        )
    except UNBUILDABLE as error:
        raise card_fault(
            card, f"open_clip cannot build this tower ({reason_of(error)})", "Mend `config`."
        ) from error
    return tower


def build_open_clip(card: TeacherCard, checkpoint: Checkpoint) -> Teacher:
    """Raises WeightsMismatch when the file holds no such tower, or not all of it; ConfigError."""
    said = card.architecture or card.config
    if not said and f"{_TRUNK}patch_embed.proj.weight" in checkpoint:
        return OpenClipTeacher(card, checkpoint, "open_clip, timm trunk")
    if not card.prefix and not any(name.startswith("visual.") for name in checkpoint.tensors):
        raise checkpoint.mismatch("is no open_clip model: it has no image tower `visual.`")
    return TowerTeacher(card, checkpoint, read_config(card, checkpoint))
