"""Augmentation of whole batches with torch.

Photometric changes keep every pixel where it is, so cached teacher features stay true.
Geometric ones move pixels, collimators cover some: only frames that go to the task loss get these,
and their masks the same. Some become no film at all, with empty masks: a student that never saw
one finds vertebrae in noise.
All draws come from the generator given, so a step's batch is a function of seed and step.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Blurred noise has .23 of its deviation; with all of it back, eyes find nothing in the frame.
_GRAIN_GAIN = 1.8


def photometric(frames: Tensor, generator: torch.Generator) -> Tensor:
    """(B, C, S, S), 0..255 → float32 of the same shape and range.

    Gamma, window, too little light, uneven light, blur or sharpening, fine or coarse noise that
    differs between dark and bright, a box of text or shutter, and now and then the other polarity;
    one draw per sample, shared by its channels.
    """
    grey = torch.div(frames, 255.0)  # ours: everything below works in place
    count = len(grey)

    def draw(low: float, high: float) -> Tensor:
        unit = torch.rand(count, 1, 1, 1, generator=generator, device=grey.device)
        return low + (high - low) * unit

    def chance(probability: float) -> Tensor:
        return draw(0, 1) < probability

    inverted = chance(0.3).float()
    grey.mul_(1 - 2 * inverted).add_(inverted)
    grey.clamp_min_(1e-4).pow_(torch.exp(draw(-0.6, 0.6)))
    contrast = torch.exp(draw(-0.65, 0.4))
    grey.mul_(contrast).add_(0.5 - 0.5 * contrast + draw(-0.16, 0.16))
    grey.mul_(1 - chance(0.2) * draw(0, 0.65))
    grey.addcmul_(chance(0.5) * draw(0, 0.2), _hills(grey, generator))
    grey.lerp_(_blurred(grey), -(chance(0.5) * draw(-1.3, 1.0)))  # beyond it: sharper
    draws = draw(-0.06, 0.07).clamp_min(0), draw(-1.6, 1.6), chance(0.4).float()
    grey.add_(_noise(grey, draws, generator))
    _boxed(grey, generator)
    return grey.clamp_(0, 1).mul_(255.0)


def lingering(
    frames: Tensor, before: Tensor, generator: torch.Generator, probability: float
) -> Tensor:
    """Some frames (B, C, S, S) with up to .65 of the one `before` in them → float32, 0..255.

    Detectors glow on and filters against noise average over time, more in one clinic than in the
    next: a bolus then leaves a ghost where it was, and is pale where it has just come.
    """
    draws = torch.rand(len(frames), 2, 1, 1, 1, generator=generator, device=frames.device)
    share = 0.65 * draws[:, 0] * (draws[:, 1] < probability)
    return frames.float().lerp_(before.float(), share)


def spliced(frames: Tensor, generator: torch.Generator, probability: float = 0.2) -> Tensor:
    """Some frames (B, C, S, S) get the neighbours of another sample, on one side or both.

    Films are cut, and folders hold stills of many: a student that never saw a stranger beside its
    frame draws the stranger's vertebrae. The frame itself, the middle channel, stays.
    """
    draws = torch.rand(len(frames), 1 + frames.shape[1], generator=generator, device=frames.device)
    foreign = (draws[:, :1] < probability) & (draws[:, 1:] < 0.7)
    foreign[:, frames.shape[1] // 2] = False
    return torch.where(foreign[..., None, None], frames.roll(1, 0), frames)


def _noise(
    grey: Tensor, draws: tuple[Tensor, Tensor, Tensor], generator: torch.Generator
) -> Tensor:
    """Normal noise; `draws`: its deviation at middle grey, how it changes with grey, its grain.

    Few photons behind bone make one end of the scale noisier, which one is a matter of polarity
    and look-up table; coarse grain comes from a detector's blur, filters over time, compression.
    """
    sigma, slope, coarse = draws
    noise = torch.randn(grey.shape, generator=generator, device=grey.device)
    noise.lerp_(_blurred(noise).mul_(_GRAIN_GAIN), coarse)
    return noise.mul_(sigma * torch.exp(slope * (0.5 - grey)))


def _hills(grey: Tensor, generator: torch.Generator) -> Tensor:
    """Light and shade that change slowly over the frame, about -1..1, (B, 1, S, S)."""
    coarse = torch.randn(len(grey), 1, 4, 4, generator=generator, device=grey.device)
    return _smooth(coarse, grey.shape[-1])


def _smooth(coarse: Tensor, size: int) -> Tensor:
    """(..., n, n) → (..., S, S), bicubic from corner to corner; as two products of matrices, which
    cost a tenth of F.interpolate.
    """
    side = coarse.shape[-1]
    unit = torch.eye(side, device=coarse.device)[None, None]
    rise = F.interpolate(unit, size=(size, side), mode="bicubic", align_corners=True)[0, 0]
    return rise @ coarse @ rise.T


def collimated(
    frames: Tensor, planes: Tensor, generator: torch.Generator, probability: float = 0.3
) -> tuple[Tensor, Tensor]:
    """Some frames (B, C, S, S) and their bit planes (B, P, S, S) become 0 outside another field:
    between round and square, 70 to 110 % of the side, up to 7 % off the middle.

    What is covered has no mask: a student told otherwise draws vertebrae behind the collimator.
    """
    count, _, size, _ = frames.shape
    draws = torch.rand(count, 6, 1, 1, generator=generator, device=frames.device)
    axis = torch.linspace(-1, 1, size, device=frames.device)
    x = (axis[None, None, :] - 0.3 * (draws[:, 0] - 0.5)).abs() / (0.7 + 0.4 * draws[:, 1])
    y = (axis[None, :, None] - 0.3 * (draws[:, 5] - 0.5)).abs() / (0.7 + 0.4 * draws[:, 2])
    power = 2 + 10 * draws[:, 3].square()  # of a superellipse
    inside = ((x.pow(power) + y.pow(power)) < 1) | (draws[:, 4] > probability)
    return frames * inside[:, None], planes * inside[:, None]


def _blurred(grey: Tensor) -> Tensor:
    """The mean of 3 × 3 pixels, twice: row by row and column by column, as shifted sums."""
    soft = F.pad(grey, (2, 2, 2, 2), mode="replicate")
    for _ in range(2):
        soft = (soft[..., :-2, :] + soft[..., 1:-1, :]).add_(soft[..., 2:, :])
        soft = (soft[..., :-2] + soft[..., 1:-1]).add_(soft[..., 2:])
    return soft.mul_(1 / 81)


def _boxed(grey: Tensor, generator: torch.Generator, probability: float = 0.2) -> None:
    """In place a box, up to a quarter of the side: a shutter, a marker, or striped like text."""
    count, _, size, _ = grey.shape
    draws = torch.rand(count, 7, generator=generator, device=grey.device).tolist()
    for row, (happens, top, left, height, width, level, striped) in enumerate(draws):
        if happens < probability:
            tall, wide = int(size * (0.02 + 0.1 * height)), int(size * (0.03 + 0.22 * width))
            y, x = int(top * (size - tall)), int(left * (size - wide))
            step = 1 if striped < 0.5 else 3
            grey[row, :, y : y + tall, x : x + wide : step] = level


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
    field = _field(len(frames), frames.shape[-1], frames.device, generator)
    turn = torch.rand(len(frames), 1, 1, generator=generator, device=frames.device) < mirrored
    field[:, 0].mul_(torch.where(turn, -1.0, 1.0))
    grid = field.permute(0, 2, 3, 1)
    moved = F.grid_sample(frames, grid, mode="bilinear", align_corners=False)
    return moved, F.grid_sample(planes, grid, mode="nearest", align_corners=False)


def _field(count: int, size: int, device: torch.device, generator: torch.Generator) -> Tensor:
    """→ sampling positions (B, 2, S, S), x before y, in -1..1 and a little beyond."""

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator, device=device)

    angle = draw(-math.pi / 12, math.pi / 12)
    scale = torch.exp(draw(math.log(1 / 1.35), math.log(1 / 0.72)))
    stretch = torch.exp(draw(-0.06, 0.06))
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    shift = torch.stack([draw(-0.2, 0.2), draw(-0.2, 0.2)], dim=1)
    per_column = torch.stack([cos * stretch, sin * stretch], dim=1)
    per_row = torch.stack([-sin, cos], dim=1)
    axis = torch.linspace(1 / size - 1, 1 - 1 / size, size, device=device)  # centres of pixels
    bend = 0.02 * torch.randn(count, 2, 5, 5, generator=generator, device=device)
    field = _smooth(bend, size)
    field.add_(per_column[..., None, None] * axis + shift[..., None, None])
    return field.add_(per_row[..., None, None] * axis[:, None])
