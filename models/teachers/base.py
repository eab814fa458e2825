"""What every teacher offers, whatever its family."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from .card import UNBUILDABLE, TeacherCard, card_fault, reason_of
from .checkpoint import Checkpoint
from .preprocess import Preprocessing


class Teacher(nn.Module, ABC):
    """A frozen encoder: grey frames in, a map of patch features out.

        teacher = load_teacher(load_card("medsam"), Path("weights/medsam_vit_b.pth"))
        maps = teacher.features(frames)  # uint8 (B, H, W) → float32 (B, 256, 64, 64)

    `channels` and `grid` are the map's depth and side; `layout` the published naming the file was
    recognised by; `dropped` the tensors of the file that were left out by name. A teacher never
    trains: it stays in evaluation mode and its parameters take no gradients.
    """

    channels: int
    grid: int

    def __init__(self, card: TeacherCard, checkpoint: Checkpoint, layout: str) -> None:
        super().__init__()
        self.card = card
        self.weights_sha256 = checkpoint.sha256
        self.unwrapped = checkpoint.unwrapped
        self.layout = layout
        self.dropped: tuple[str, ...] = ()
        self.preprocessing: Preprocessing
        self._fingerprint: str | None = None

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Preprocessed images (B, 3, S, S) → map (B, channels, grid, grid)."""

    def features(self, frames: Tensor) -> Tensor:
        """Raw grey uint8 frames (B, H, W) → float32 map (B, channels, grid, grid)."""
        with torch.no_grad():
            images = self.preprocessing(frames.to(self.device))
            return self.encode(images).float().contiguous()

    def pooled(self, frames: Tensor) -> Tensor:
        """uint8 frames (B, H, W) → unit vectors (B, E) of an image-text teacher.

        Raises ValueError for teachers that have none (sam, dinov2).
        """
        raise ValueError(f"teacher {self.card.name} gives no pooled embedding")

    def map_shape(self) -> tuple[int, int]:
        """(channels, grid) of what `encode` gives for the card's square.

        Raises ConfigError when it gives no square map: a wrong `image_size` or `stage`.
        """
        side = self.preprocessing.size
        remedy = "Mend `image_size` or `stage`, or choose another network."
        try:
            with torch.no_grad():
                maps = self.eval().encode(torch.zeros(1, 3, side, side))
        except UNBUILDABLE as error:
            raise card_fault(
                self.card, f"no map from a square of {side} ({reason_of(error)})", remedy
            ) from error
        if maps.ndim != 4 or maps.shape[2] != maps.shape[3] or maps.shape[3] < 2:
            raise card_fault(
                self.card, f"{list(maps.shape)} from a square of {side} is no map", remedy
            )
        return maps.shape[1], maps.shape[2]

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def freeze(self) -> Teacher:
        self.requires_grad_(False)
        return self.eval()

    def train(self, mode: bool = True) -> Teacher:
        """Stays in evaluation mode: features must not change from batch to batch."""
        super().train(False)
        return self

    def fingerprint(self) -> str:
        """Hex digest that changes with weights, preprocessing or what the libraries compute.

        Feature statistics on a fixed image are rounded to three digits, so that another machine's
        arithmetic (differences near 1e-6) gives the same.
        """
        if self._fingerprint is None:
            maps = self.features(fixed_image()[None].to(self.device))[0].double()
            halves = (
                maps.mean(),
                maps.std(),
                maps.abs().max(),
                maps[::2].std(),
                maps[:, ::2].std(),
            )
            facts = {
                "weights": self.weights_sha256,
                "preprocessing": self.preprocessing.facts(),
                "shape": list(maps.shape),
                "features": [f"{float(value):.2e}" for value in halves],
            }
            text = json.dumps(facts, sort_keys=True)
            self._fingerprint = hashlib.sha256(text.encode()).hexdigest()
        return self._fingerprint

    def describe(self) -> dict[str, Any]:
        """JSON-ready facts about what was loaded."""
        return {
            "name": self.card.name,
            "family": self.card.family,
            "layout": self.layout,
            "unwrapped": list(self.unwrapped),
            "parameters": sum(parameter.numel() for parameter in self.parameters()),
            "image_size": self.preprocessing.size,
            "channels": self.channels,
            "grid": self.grid,
            "dropped": list(self.dropped),
            "weights_sha256": self.weights_sha256,
        }


def fixed_image(side: int = 96) -> Tensor:
    """A grey image of ramps, edges and texture, the same everywhere: uint8 (side, side)."""
    y = torch.arange(side)[:, None]
    x = torch.arange(side)[None]
    ramp = (x + 2 * y) * 255 // (3 * side)
    texture = (3 * x * x + 7 * y * y + x * y) % 61
    disc = ((x - side // 2) ** 2 + (y - side // 3) ** 2 < (side // 5) ** 2) * 70
    return (ramp // 2 + texture + disc).clamp(0, 255).to(torch.uint8)
