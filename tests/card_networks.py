"""Networks of transformers, saved small as their authors would, and cards to read them by."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from vfss_distill.models.teachers.base import Teacher
from vfss_distill.models.teachers.card import load_card
from vfss_distill.models.teachers.registry import load_teacher


def refuse_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def write_card(folder: Path, **fields: Any) -> Path:
    facts = {
        "name": "any",
        "title": "Any",
        "licence": "MIT",
        "source": "a shelf",
        "file": ["model.safetensors"],
        "image_size": 64,
        "resize": "crop",
        "intensity": "unit",
        "mean": [0.45],
        "std": [0.25],
    }
    path = folder / "any.yaml"
    path.write_text(yaml.safe_dump(facts | fields))
    return path


def load(card: Path, weights: Path) -> Teacher:
    return load_teacher(load_card(str(card)), weights)


def noise(side: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(side)
    return torch.randint(0, 256, (2, side, side), generator=generator, dtype=torch.uint8)


VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 64,
    "patch_size": 16,
}
DINO = VIT | {"mlp_ratio": 2}
STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
# model_type → configuration, (channels, grid), tokens before the patches
NETWORKS: dict[str, tuple[dict[str, Any], tuple[int, int], int]] = {
    "vit": (VIT, (32, 4), 1),
    "deit": (VIT, (32, 4), 2),
    "beit": (VIT, (32, 4), 1),
    "dinov2": (DINO, (32, 4), 1),
    "dinov2_with_registers": (DINO | {"num_register_tokens": 4}, (32, 4), 5),
    "dinov3_vit": (VIT | {"num_register_tokens": 3}, (32, 4), 4),
    "dinov3_convnext": (STAGES, (32, 2), 1),
    "siglip_vision_model": (VIT, (32, 4), 0),
    "clip_vision_model": (VIT, (32, 4), 1),
    "swin": (
        {
            "image_size": 64,
            "embed_dim": 8,
            "depths": [1, 1],
            "num_heads": [1, 2],
            "window_size": 4,
        },
        (16, 8),
        0,
    ),
    "convnext": (STAGES, (32, 2), 0),
    "convnextv2": (STAGES, (32, 2), 0),
    "resnet": (STAGES | {"embedding_size": 8, "layer_type": "basic"}, (32, 2), 0),
}


def published(kind: str, folder: Path) -> nn.Module:
    """A small random network, with model.safetensors and config.json as the library saves them."""
    torch.manual_seed(len(kind))
    network = AutoModel.from_config(AutoConfig.for_model(kind, **NETWORKS[kind][0])).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    network.save_pretrained(folder)
    return network
