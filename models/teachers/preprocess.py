"""From raw grey frames to what a teacher was trained on, batched, each by its published rule.

Every resize is separable and linear, so it is two small matrices: the spline's comes from scipy,
bicubic's from torch's anti-aliased kernel, which is Pillow's.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .card import TeacherCard


@dataclass(frozen=True)
class Preprocessing:
    """How uint8 frames (B, H, W) become float32 images (B, 3, size, size).

    `resize`, `intensity`, `mean` and `std` as in TeacherCard.
    """

    size: int
    resize: str
    intensity: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, card: TeacherCard, size: int) -> Preprocessing:
        return cls(size, card.resize, card.intensity, card.mean, card.std)

    def __call__(self, frames: Tensor) -> Tensor:
        if frames.dtype != torch.uint8 or frames.ndim != 3:
            raise ValueError(f"expected uint8 (B, H, W), got {frames.dtype} {list(frames.shape)}")
        rule = {"stretch": stretch, "crop": crop, "pad": pad}[self.resize]
        grey = rule(frames, self.size)  # (B, S, S), whole numbers 0..255
        if self.intensity == "minmax":
            low = grey.amin((1, 2), keepdim=True)
            high = grey.amax((1, 2), keepdim=True)
            grey = (grey - low) / (high - low).clamp_min(1e-8)
        else:
            grey = grey / 255
        mean, std = (grey.new_tensor(value).view(1, -1, 1, 1) for value in (self.mean, self.std))
        return ((grey[:, None] - mean) / std).expand(-1, 3, -1, -1)

    def facts(self) -> dict[str, Any]:
        """JSON-ready; part of a teacher's fingerprint."""
        return asdict(self)


def stretch(frames: Tensor, size: int) -> Tensor:
    """Both sides to `size`, aspect ratio not kept: skimage.transform.resize(order=3,
    preserve_range, anti_aliasing).astype(uint8), as MedSAM_Inference.py does.
    """
    height, width = frames.shape[1:]
    rows, columns = _spline(height, size), _spline(width, size)
    grey = frames.double()  # in double, for the cast to uint8 cuts off
    resized = rows.to(grey.device) @ grey @ columns.to(grey.device).T
    low, high = grey.amin((1, 2), keepdim=True), grey.amax((1, 2), keepdim=True)
    return resized.clamp(low, high).floor().float()


def crop(frames: Tensor, size: int) -> Tensor:
    """Shorter side to `size` (bicubic), then the centre: BitImageProcessor, open_clip."""
    height, width = frames.shape[1:]
    short = min(height, width)
    scaled = _bicubic(frames, size * height // short, size * width // short)
    top, left = (scaled.shape[1] - size) // 2, (scaled.shape[2] - size) // 2
    return scaled[:, top : top + size, left : left + size]


def pad(frames: Tensor, size: int) -> Tensor:
    """Centred on a black square of its longer side, then bicubic to `size`: MedCLIP, which leaves
    smaller pictures small in a black frame. Theirs are never smaller; our films may be, and a
    frame around them would shift every place of the map against the student's."""
    height, width = frames.shape[1:]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = functional.pad(frames, (left, side - width - left, top, side - height - top))
    return _bicubic(square, size, size)


def _bicubic(frames: Tensor, height: int, width: int) -> Tensor:
    """Pillow's bicubic: across, then down, rounded to 0..255 after each."""
    grey = frames.float()
    if width != frames.shape[2]:
        grey = grey @ _cubic(frames.shape[2], width).to(grey.device).T
        grey = grey.add_(0.5).floor_().clamp_(0, 255)
    if height != frames.shape[1]:
        grey = _cubic(frames.shape[1], height).to(grey.device) @ grey
        grey = grey.add_(0.5).floor_().clamp_(0, 255)
    return grey


@lru_cache(maxsize=16)
def _cubic(source: int, target: int) -> Tensor:
    """(target, source) weights of the anti-aliased bicubic kernel with a = -0.5."""
    unit = torch.eye(source)[None, None]
    return functional.interpolate(
        unit, size=(target, source), mode="bicubic", antialias=True, align_corners=False
    )[0, 0]


@lru_cache(maxsize=16)
def _spline(source: int, target: int) -> Tensor:
    """(target, source) weights of a Gaussian blur (sigma (factor - 1) / 2) and a cubic spline."""
    from scipy import ndimage

    unit = np.eye(source)
    if source == target:
        return torch.from_numpy(unit)
    sigma = max(0.0, (source / target - 1) / 2)
    if sigma:
        unit = ndimage.gaussian_filter1d(unit, sigma, axis=0, mode="mirror")
    factors = (target / source, 1)
    weights = ndimage.zoom(unit, factors, order=3, mode="mirror", grid_mode=True)
    return torch.from_numpy(weights)
