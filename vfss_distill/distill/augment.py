"""Augmentation of whole batches with torch.

Photometric changes keep every pixel where it is, so cached teacher features stay true.
Geometric ones move pixels: only frames that go to the task loss get them. Some of those become
no film at all, with empty masks: a student that never saw one finds vertebrae in noise.
All draws come from the generator given, so a step's batch is a function of seed and step.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def photometric(frames: Tensor, generator: torch.Generator) -> Tensor:
    """(B, C, S, S), 0..255 → float32 of the same shape and range.

    Gamma, window, uneven light, blur or sharpening, noise, another field of the collimator, a box
    of text or shutter, and now and then the other polarity; one draw per sample, shared by its
    channels.
    """
    grey = frames.to(torch.float32).div(255.0)
    count = len(grey)

    def draw(low: float, high: float) -> Tensor:
        unit = torch.rand(count, 1, 1, 1, generator=generator, device=grey.device)
        return low + (high - low) * unit

    def chance(probability: float) -> Tensor:
        return draw(0, 1) < probability

    inverted = torch.where(chance(0.15), 1 - grey, grey)
    grey = inverted.clamp_min(1e-4).pow(torch.exp(draw(-0.6, 0.6)))
    grey = (grey - 0.5) * torch.exp(draw(-0.5, 0.35)) + 0.5 + draw(-0.15, 0.15)
    grey = grey + torch.where(chance(0.5), draw(0, 0.2), torch.zeros(())) * _hills(grey, generator)
    soft = _blurred(grey)
    grey = grey + torch.where(chance(0.5), draw(-1.3, 1.0), torch.zeros(())) * (grey - soft)
    grey = _noisy(grey, draw(-0.06, 0.08).clamp_min(0), generator)
    grey = _collimated(grey, generator)
    grey = _boxed(grey, generator)
    return grey.clamp_(0, 1).mul_(255.0)


def _hills(grey: Tensor, generator: torch.Generator) -> Tensor:
    """Light and shade that change slowly over the frame, about -1..1, (B, 1, S, S)."""
    coarse = torch.randn(len(grey), 1, 4, 4, generator=generator, device=grey.device)
    return F.interpolate(coarse, size=grey.shape[-2:], mode="bicubic", align_corners=True)


def _collimated(grey: Tensor, generator: torch.Generator, probability: float = 0.3) -> Tensor:
    """Black outside a field between round and square that leaves 70 to 110 % of the side."""
    count, _, size, _ = grey.shape
    draws = torch.rand(count, 5, 1, 1, generator=generator, device=grey.device)
    axis = torch.linspace(-1, 1, size, device=grey.device)
    x = (axis[None, None, :] - 0.3 * (draws[:, 0] - 0.5)).abs() / (0.7 + 0.4 * draws[:, 1])
    y = (axis[None, :, None] - 0.3 * (draws[:, 0] - 0.5)).abs() / (0.7 + 0.4 * draws[:, 2])
    power = 2 + 10 * draws[:, 3].square()  # of a superellipse
    inside = ((x.pow(power) + y.pow(power)) < 1) | (draws[:, 4] > probability)
    return grey * inside[:, None]


def _blurred(grey: Tensor) -> Tensor:
    padded = F.pad(grey, (2, 2, 2, 2), mode="replicate")
    return F.avg_pool2d(F.avg_pool2d(padded, 3, stride=1), 3, stride=1)


def _noisy(grey: Tensor, sigma: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(grey.shape, generator=generator, device=grey.device)
    return grey + sigma * noise


def _boxed(grey: Tensor, generator: torch.Generator, probability: float = 0.2) -> Tensor:
    """A box somewhere, up to a quarter of the side: a shutter, a marker, or striped like text."""
    count, _, size, _ = grey.shape
    draws = torch.rand(count, 7, generator=generator, device=grey.device).tolist()
    grey = grey.clone()
    for row, (happens, top, left, height, width, level, striped) in enumerate(draws):
        if happens < probability:
            tall, wide = int(size * (0.02 + 0.1 * height)), int(size * (0.03 + 0.22 * width))
            y, x = int(top * (size - tall)), int(left * (size - wide))
            step = 1 if striped < 0.5 else 3
            grey[row, :, y : y + tall, x : x + wide : step] = level
    return grey


def blanked(
    frames: Tensor, planes: Tensor, generator: torch.Generator, probability: float
) -> tuple[Tensor, Tensor]:
    """Some frames (B, C, S, S), 0..255, become no film, and their bit planes (B, P, S, S) empty.

    One grey, noise, clouds, stripes, or a test pattern; channels of a sample differ in noise alone.
    """
    size, device = frames.shape[-1], frames.device
    draws = torch.rand(len(frames), 5, generator=generator, device=device).tolist()
    frames, planes = frames.clone(), planes.clone()
    for row, (happens, kind, level, strength, period) in enumerate(draws):
        if happens >= probability:
            continue
        shape = frames[row : row + 1].shape
        noise = torch.randn(shape, generator=generator, device=device)
        extreme = 255.0 * (level > 0.5) if strength < 0.4 else 255.0 * level
        grey = torch.full_like(noise, extreme)
        if kind < 0.25:
            grey = grey + 4 * strength * noise
        elif kind < 0.5:
            side = max(4, int(size * (1 if strength < 0.5 else strength / 2)))
            coarse = torch.randn(1, 1, side, side, generator=generator, device=device)
            grain = F.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)
            grey = 255 * level + (20 + 100 * period) * (grain + 0.2 * noise)
        elif kind < 0.75:
            clouds = _hills(noise, generator) + 0.3 * _hills(noise, generator)
            grey = 127 + 90 * clouds + 20 * strength * noise
        else:
            wave = torch.arange(size, device=device) * (math.pi / (2 + 40 * period))
            bars = torch.sign(torch.sin(wave)) if strength < 0.5 else torch.sin(wave)
            grey = 127 + 127 * (bars if level < 0.5 else bars[:, None] * bars) + 3 * noise
        frames[row] = grey[0].clamp(0, 255)
        planes[row] = 0
    return frames, planes


def geometric(
    frames: Tensor, planes: Tensor, generator: torch.Generator, mirrored: float
) -> tuple[Tensor, Tensor]:
    """Frames (B, C, S, S) and bit planes (B, P, S, S), both float32, moved together.

    Turned up to 15°, scaled .72 to 1.35, shifted up to 10 % of the side, bent a little, and a share
    of `mirrored` made to face the other way. Frames linearly, planes by nearest neighbour, black
    from outside.
    """
    grid = _field(len(frames), frames.shape[-1], frames.device, generator)
    turn = torch.rand(len(frames), 1, 1, generator=generator, device=frames.device) < mirrored
    grid = torch.stack([torch.where(turn, -grid[..., 0], grid[..., 0]), grid[..., 1]], dim=-1)
    moved = F.grid_sample(frames, grid, mode="bilinear", align_corners=False)
    return moved, F.grid_sample(planes, grid, mode="nearest", align_corners=False)


def _field(count: int, size: int, device: torch.device, generator: torch.Generator) -> Tensor:
    """→ sampling positions (B, S, S, 2) in -1..1."""

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator, device=device)

    angle = draw(-math.pi / 12, math.pi / 12)
    scale = torch.exp(draw(math.log(1 / 1.35), math.log(1 / 0.72)))
    stretch = torch.exp(draw(-0.06, 0.06))
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    affine = torch.stack(
        [
            torch.stack([cos * stretch, -sin, draw(-0.2, 0.2)], dim=1),
            torch.stack([sin * stretch, cos, draw(-0.2, 0.2)], dim=1),
        ],
        dim=1,
    )  # (B, 2, 3)
    grid = F.affine_grid(affine, [count, 1, size, size], align_corners=False)
    bend = 0.02 * torch.randn(count, 2, 5, 5, generator=generator, device=device)
    # Smooth on a coarse grid, then cheaply to full size.
    bend = F.interpolate(bend, size=(33, 33), mode="bicubic", align_corners=True)
    bend = F.interpolate(bend, size=(size, size), mode="bilinear", align_corners=True)
    return grid + bend.permute(0, 2, 3, 1)
