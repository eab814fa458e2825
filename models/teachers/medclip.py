"""The MedCLIP family: an image tower of Swin (transformers) or ResNet-50 (torchvision) and the
projection into the space it shares with reports.

Layouts: MedCLIP's `pytorch_model.bin` (Swin under transformers 4 names, below
`vision_model.model.`), the same under transformers 5 names, and a bare Swin of either naming.
transformers 5 renamed Swin's tensors, and a plain `load_state_dict(strict=False)` of the old names
would leave the tower random: so names are mapped and coverage is checked.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import SwinConfig, SwinModel

from .base import Teacher
from .card import TeacherCard
from .checkpoint import Checkpoint, Tensors, fit, ratio
from .preprocess import Preprocessing

_PREFIX = "vision_model.model."
_PROJECTION = "vision_model.projection_head.weight"
_TABLE = "attention.relative_position_bias.relative_position_bias_table"

_OLD_TO_NEW = (
    (".attention.self.relative_position_bias_table", f".{_TABLE}"),
    (".attention.self.query.", ".attention.q_proj."),
    (".attention.self.key.", ".attention.k_proj."),
    (".attention.self.value.", ".attention.v_proj."),
    (".attention.output.dense.", ".attention.o_proj."),
    (".intermediate.dense.", ".mlp.fc1."),
    (".output.dense.", ".mlp.fc2."),
)


class VisionTower(nn.Module):
    """`model` and `projection_head` under MedCLIP's names; `map` and `project` over both kinds."""

    model: nn.Module
    projection_head: nn.Linear | None

    def map(self, images: Tensor, stage: int | None) -> Tensor:
        raise NotImplementedError

    def embed(self, images: Tensor) -> Tensor:
        raise NotImplementedError


class SwinTower(VisionTower):
    """`embedding` 0: without projection head."""

    def __init__(self, config: SwinConfig, embedding: int) -> None:
        super().__init__()
        self.model = SwinModel(config)
        width = config.embed_dim << (len(config.depths) - 1)
        self.projection_head = nn.Linear(width, embedding, bias=False) if embedding else None
        self.side = config.image_size // config.patch_size

    def map(self, images: Tensor, stage: int | None) -> Tensor:
        """Images → (B, C, g, g): the last stage after its norm, or stage 1.. before merging."""
        if stage is None:
            tokens = self.model(images).last_hidden_state  # (B, g·g, C)
            side = round(tokens.shape[1] ** 0.5)
            return tokens.transpose(1, 2).unflatten(2, (side, side))
        states = self.model(
            images, output_hidden_states=True, output_hidden_states_before_downsampling=True
        ).reshaped_hidden_states
        return states[stage]  # 0 is the patch embedding

    def embed(self, images: Tensor) -> Tensor:
        pooled = self.model(images).pooler_output
        return pooled if self.projection_head is None else self.projection_head(pooled)


class ResNetTower(VisionTower):
    """torchvision's resnet50 whose `fc` is the projection."""

    def __init__(self, embedding: int) -> None:
        super().__init__()
        from torchvision.models import resnet50

        self.model = resnet50(weights=None)
        self.model.fc = nn.Linear(2048, embedding, bias=False)
        self.projection_head = None

    def map(self, images: Tensor, stage: int | None) -> Tensor:
        net: Any = self.model
        maps = net.maxpool(net.relu(net.bn1(net.conv1(images))))
        for number in range(1, (stage or 4) + 1):
            maps = getattr(net, f"layer{number}")(maps)
        return maps

    def embed(self, images: Tensor) -> Tensor:
        return self.model(images)


class MedClipTeacher(Teacher):
    """Map (B, 768, 7, 7) for MedCLIP's Swin; `pooled` gives its 512 numbers per frame."""

    def __init__(
        self, card: TeacherCard, checkpoint: Checkpoint, layout: str, tower: VisionTower
    ) -> None:
        super().__init__(card, checkpoint, layout)
        holder: Any = nn.Module()
        holder.vision_model = tower
        kind = "MedCLIP's ResNet-50" if isinstance(tower, ResNetTower) else "a Swin"
        self.dropped = fit(holder, checkpoint, network=kind, drop=card.drop)
        self.network = tower
        self.preprocessing = Preprocessing.of(card, card.image_size)
        self.channels, self.grid = self._map_shape(card)

    def _map_shape(self, card: TeacherCard) -> tuple[int, int]:
        blank = torch.zeros(1, 3, card.image_size, card.image_size)
        with torch.no_grad():
            _, channels, grid, _ = self.network.eval().map(blank, card.stage).shape
        return channels, grid

    def encode(self, images: Tensor) -> Tensor:
        return self.network.map(images, self.card.stage)

    def pooled(self, frames: Tensor) -> Tensor:
        """uint8 (B, H, W) → unit vectors (B, 512), comparable with the text tower's."""
        with torch.no_grad():
            images = self.preprocessing(frames.to(self.device))
            return functional.normalize(self.network.embed(images).float(), dim=-1)


def build_medclip(card: TeacherCard, checkpoint: Checkpoint) -> MedClipTeacher:
    """Raises WeightsMismatch when the file holds no whole image tower."""
    if f"{_PREFIX}layer1.0.conv1.weight" in checkpoint:
        embedding, _ = checkpoint.shape(f"{_PREFIX}fc.weight", 2)
        return MedClipTeacher(card, checkpoint, "MedCLIP, ResNet-50", ResNetTower(embedding))
    layout = "MedCLIP, Swin"
    if "embeddings.patch_embeddings.projection.weight" in checkpoint:
        layout = "bare Swin"
        bare = {f"{_PREFIX}{name}": tensor for name, tensor in checkpoint.tensors.items()}
        checkpoint = checkpoint.renamed(bare)
    first = f"{_PREFIX}encoder.layers.0.blocks.0."
    old = f"{first}attention.self.query.weight" in checkpoint
    if not old and f"{first}attention.q_proj.weight" not in checkpoint:
        raise checkpoint.mismatch("is no Swin and no MedCLIP ResNet-50")
    layout += ", transformers 4 names" if old else ", transformers 5 names"
    named = checkpoint.renamed(to_memory(checkpoint.tensors))
    embedding = 0
    if not layout.startswith("bare"):
        embedding, _ = checkpoint.shape(_PROJECTION, 2)
    tower = SwinTower(read_config(named, card.image_size), embedding)
    return MedClipTeacher(card, named, layout, tower)


def read_config(checkpoint: Checkpoint, image_size: int) -> SwinConfig:
    """The architecture from tensor shapes; a Swin file does not tell its image size.

    Raises WeightsMismatch.
    """
    width, _, patch, _ = checkpoint.shape(
        f"{_PREFIX}embeddings.patch_embeddings.projection.weight", 4
    )
    layers = f"{_PREFIX}encoder.layers."
    stages = checkpoint.count(layers)
    tables = [checkpoint.shape(f"{layers}{stage}.blocks.0.{_TABLE}", 2) for stage in range(stages)]
    window = (round(tables[0][0] ** 0.5) + 1) // 2
    last_side = image_size // patch >> (stages - 1)
    if last_side < window:
        raise checkpoint.mismatch(
            f"its window of {window} does not fit the last map of {last_side} at the card's "
            f"image_size {image_size}",
            remedy="Set image_size in the card to what it was trained with.",
        )
    hidden, _ = checkpoint.shape(f"{layers}0.blocks.0.mlp.fc1.weight", 2)
    return SwinConfig(
        image_size=image_size,
        patch_size=patch,
        embed_dim=width,
        depths=[checkpoint.count(f"{layers}{stage}.blocks.") for stage in range(stages)],
        num_heads=[heads for _, heads in tables],
        window_size=window,
        mlp_ratio=ratio(hidden, width),
    )


def to_memory(tensors: Tensors) -> Tensors:
    """The Swin's names as transformers 5 has them in memory; all else as it was."""
    renamed = {}
    for name, tensor in tensors.items():
        if name.startswith(_PREFIX):
            for old, new in _OLD_TO_NEW:
                name = name.replace(old, new)
        renamed[name] = tensor
    return renamed


def to_published(state: Tensors) -> Tensors:
    """A tower's state dict (`vision_model.…`) under the names of MedCLIP's pytorch_model.bin.

    The buffers `relative_position_index` of the published file are computed, not learned, and
    left out here.
    """
    renamed = {}
    for name, tensor in state.items():
        if re.match(r"vision_model\.model\.encoder\.layers\.\d+\.blocks\.", name):
            for old, new in _OLD_TO_NEW:
                name = name.replace(new, old)
        renamed[name] = tensor
    return renamed
