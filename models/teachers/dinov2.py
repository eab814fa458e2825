"""The DINOv2 family (RAD-DINO) through transformers' Dinov2Model.

Layouts: transformers' names on disk (`model.safetensors`), the names transformers 5 gives them in
memory, and the original DINOv2 code's (`backbone_compatible.safetensors`, fused qkv).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

from torch import Tensor
from transformers import Dinov2Config, Dinov2Model

from .base import Teacher
from .card import TeacherCard
from .checkpoint import Checkpoint, Tensors, fit
from .preprocess import Preprocessing

_HEAD_DIM = 64  # of every published DINOv2; a config.json beside the file may say otherwise

_DISK_TO_MEMORY = (
    (r"\.attention\.attention\.query\.", ".attention.q_proj."),
    (r"\.attention\.attention\.key\.", ".attention.k_proj."),
    (r"\.attention\.attention\.value\.", ".attention.v_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
)
_MEMORY_TO_DISK = (
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
)
_ORIGINAL_TO_MEMORY = (
    (r"^cls_token$", "embeddings.cls_token"),
    (r"^mask_token$", "embeddings.mask_token"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^blocks\.", "encoder.layer."),
    (r"^norm\.", "layernorm."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"\.ls([12])\.gamma$", r".layer_scale\1.lambda1"),
)


class DinoTeacher(Teacher):
    """Patch tokens after the final norm, class token dropped: (B, 768, 37, 37) for RAD-DINO."""

    def __init__(self, card: TeacherCard, checkpoint: Checkpoint, layout: str) -> None:
        super().__init__(card, checkpoint, layout)
        config = read_config(checkpoint)
        self.network = Dinov2Model(config)
        self.dropped = fit(self.network, checkpoint, network="a DINOv2", drop=card.drop)
        self.channels = config.hidden_size
        self.grid = config.image_size // config.patch_size
        self.preprocessing = Preprocessing.of(card, config.image_size)

    def encode(self, images: Tensor) -> Tensor:
        tokens = self.network(images).last_hidden_state[:, 1:]  # (B, g·g, C)
        return tokens.transpose(1, 2).unflatten(2, (self.grid, self.grid))


def read_config(checkpoint: Checkpoint) -> Dinov2Config:
    """The architecture from tensor shapes (transformers 5 names). Raises WeightsMismatch."""
    width, _, patch, _ = checkpoint.shape("embeddings.patch_embeddings.projection.weight", 4)
    _, positions, _ = checkpoint.shape("embeddings.position_embeddings", 3)
    grid = math.isqrt(positions - 1)
    if grid * grid != positions - 1:
        raise checkpoint.mismatch(f"its {positions} positions are no square and a class token")
    said = _config_beside(checkpoint, width)
    heads = said.get("num_attention_heads", max(1, width // _HEAD_DIM))
    if not isinstance(heads, int) or heads < 1 or width % heads:
        raise checkpoint.mismatch(f"{heads!r} heads do not divide its {width} channels")
    return Dinov2Config(
        hidden_size=width,
        num_hidden_layers=checkpoint.count("encoder.layer."),
        num_attention_heads=heads,
        mlp_ratio=checkpoint.shape("encoder.layer.0.mlp.fc1.weight", 2)[0] // width,
        image_size=grid * patch,
        patch_size=patch,
        qkv_bias="encoder.layer.0.attention.q_proj.bias" in checkpoint,
        use_mask_token="embeddings.mask_token" in checkpoint,
        layer_norm_eps=1e-6,
        use_swiglu_ffn=False,
    )


def _config_beside(checkpoint: Checkpoint, width: int) -> dict[str, Any]:
    """transformers' config.json beside the weights: the only place that tells unusual heads."""
    path = checkpoint.file.parent / "config.json"
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    # A config.json of another network may lie in the same folder.
    return said if isinstance(said, dict) and said.get("hidden_size") == width else {}


def build_dinov2(card: TeacherCard, checkpoint: Checkpoint) -> DinoTeacher:
    """Raises WeightsMismatch when the file is no DINOv2 or not all of one."""
    if any("register_tokens" in name for name in checkpoint.tensors):
        raise checkpoint.mismatch(
            "has register tokens", "Give it a card of family transformers (docs/teachers.md)."
        )
    rename: Callable[[Tensors], Tensors]
    if "blocks.0.ls1.gamma" in checkpoint:
        layout, rename = "original DINOv2 (backbone_compatible)", _from_original
    elif "encoder.layer.0.attention.attention.query.weight" in checkpoint:
        layout, rename = "transformers Dinov2Model, on disk", _renamer(_DISK_TO_MEMORY)
    elif "encoder.layer.0.layer_scale1.lambda1" in checkpoint:
        layout, rename = "transformers 5 Dinov2Model, in memory", _renamer(())
    else:
        raise checkpoint.mismatch("is no DINOv2")
    return DinoTeacher(card, checkpoint.renamed(rename(checkpoint.tensors)), layout)


def to_published(state: Tensors) -> Tensors:
    """A Dinov2Model's state dict under the names of a published model.safetensors."""
    return _renamer(_MEMORY_TO_DISK)(state)


def _renamer(rules: tuple[tuple[str, str], ...]) -> Callable[[Tensors], Tensors]:
    compiled = [(re.compile(pattern), name) for pattern, name in rules]

    def rename(tensors: Tensors) -> Tensors:
        renamed = {}
        for name, tensor in tensors.items():
            for pattern, replacement in compiled:
                name = pattern.sub(replacement, name)
            renamed[name] = tensor
        return renamed

    return rename


def _from_original(tensors: Tensors) -> Tensors:
    """Original names → transformers 5's; the fused qkv is cut in three."""
    renamed: Tensors = {}
    for name, tensor in _renamer(_ORIGINAL_TO_MEMORY)(tensors).items():
        stem, fused, kind = name.partition(".attn.qkv.")
        if fused and tensor.shape[0] % 3 == 0:
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"{stem}.attention.{letter}_proj.{kind}"] = part
        else:
            renamed[name] = tensor
    return renamed
