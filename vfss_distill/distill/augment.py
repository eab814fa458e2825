"""Augmentation of whole batches with torch.

Photometric changes keep every pixel where it is, so cached teacher features stay true.
Geometric ones move pixels: only frames that go to the task loss get them. Never a flip: facing
left is part of what the student learns. All draws come from the generator given, so a step's
batch is a function of seed and step.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def photometric(frames: Tensor, generator: torch.Generator) -> Tensor:
    """(B, C, S, S), 0..255 → float32 of the same shape and range.

    Gamma, window, blur, noise, a box of text or shutter, and now and then the other polarity;
    one draw per sample, shared by its channels.
    """
    grey = frames.to(torch.float32).div(255.0)
    count = len(grey)

    def draw(low: float, high: float) -> Tensor:
        unit = torch.rand(count, 1, 1, 1, generator=generator, device=grey.device)
        return low + (high - low) * unit

    def chance(probability: float) -> Tensor:
        return draw(0, 1) < probability

    inverted = torch.where(chance(0.05), 1 - grey, grey)
    grey = inverted.clamp_min(1e-4).pow(torch.exp(draw(-0.45, 0.45)))
    grey = (grey - 0.5) * torch.exp(draw(-0.35, 0.35)) + 0.5 + draw(-0.12, 0.12)
    grey = torch.where(chance(0.25), _blurred(grey), grey)
    grey = _noisy(grey, draw(-0.06, 0.06).clamp_min(0), generator)
    grey = _boxed(grey, generator)
    return grey.clamp_(0, 1).mul_(255.0)


def _blurred(grey: Tensor) -> Tensor:
    padded = F.pad(grey, (2, 2, 2, 2), mode="replicate")
    return F.avg_pool2d(F.avg_pool2d(padded, 3, stride=1), 3, stride=1)


def _noisy(grey: Tensor, sigma: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(grey.shape, generator=generator, device=grey.device)
    return grey + sigma * noise


def _boxed(grey: Tensor, generator: torch.Generator, probability: float = 0.2) -> Tensor:
    """A grey box somewhere, up to a quarter of the side: burned-in text, a shutter, a marker."""
    count, _, size, _ = grey.shape
    draws = torch.rand(count, 6, generator=generator, device=grey.device).tolist()
    grey = grey.clone()
    for row, (happens, top, left, height, width, level) in enumerate(draws):
        if happens < probability:
            tall, wide = int(size * (0.02 + 0.1 * height)), int(size * (0.03 + 0.22 * width))
            y, x = int(top * (size - tall)), int(left * (size - wide))
            grey[row, :, y : y + tall, x : x + wide] = level
    return grey


def geometric(frames: Tensor, planes: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Frames (B, C, S, S) and bit planes (B, P, S, S), both float32, moved together.

    Turned up to 12°, scaled .8 to 1.25, shifted up to 8 % of the side, and bent a little.
    Frames linearly, planes by nearest neighbour, black from outside.
    """
    grid = _field(len(frames), frames.shape[-1], frames.device, generator)
    moved = F.grid_sample(frames, grid, mode="bilinear", align_corners=False)
    return moved, F.grid_sample(planes, grid, mode="nearest", align_corners=False)


def _field(count: int, size: int, device: torch.device, generator: torch.Generator) -> Tensor:
    """→ sampling positions (B, S, S, 2) in -1..1."""

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator, device=device)

    angle = draw(-math.pi / 15, math.pi / 15)
    scale = torch.exp(draw(-math.log(1.25), math.log(1.25)))
    stretch = torch.exp(draw(-0.06, 0.06))
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    affine = torch.stack(
        [
            torch.stack([cos * stretch, -sin, draw(-0.16, 0.16)], dim=1),
            torch.stack([sin * stretch, cos, draw(-0.16, 0.16)], dim=1),
        ],
        dim=1,
    )  # (B, 2, 3)
    grid = F.affine_grid(affine, [count, 1, size, size], align_corners=False)
    bend = 0.02 * torch.randn(count, 2, 5, 5, generator=generator, device=device)
    # Smooth on a coarse grid, then cheaply to full size.
    bend = F.interpolate(bend, size=(33, 33), mode="bicubic", align_corners=True)
    bend = F.interpolate(bend, size=(size, size), mode="bilinear", align_corners=True)
    return grid + bend.permute(0, 2, 3, 1)
