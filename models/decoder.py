"""The light decoder: a small feature pyramid that ends at the trunk's finest map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SeparableConv(nn.Sequential):
    """Depthwise k×k, pointwise 1×1, norm, activation: a fraction of a k×k convolution."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__(
            nn.Conv2d(inputs, inputs, kernel, padding=kernel // 2, groups=inputs, bias=False),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.Hardswish(inplace=True),
        )


class Fuse(nn.Module):
    """One step down the pyramid: the coarser map, enlarged, meets the trunk's map."""

    def __init__(self, coarse: int, lateral: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.coarse = nn.Conv2d(coarse, outputs, 1, bias=False)
        self.lateral = nn.Conv2d(lateral, outputs, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.mix = SeparableConv(outputs, outputs, kernel)

    def forward(self, coarse: Tensor, lateral: Tensor) -> Tensor:
        # Channels first, enlarging after: the 1×1 then runs on a quarter of the pixels.
        up = F.interpolate(self.coarse(coarse), size=lateral.shape[-2:], mode="nearest")
        return self.mix(F.hardswish(self.norm(up + self.lateral(lateral))))


class Presence(nn.Module):
    """Is the anatomy in the frame at all? One logit a task, from the whole of the coarsest map.

    Pixels see a neighbourhood; that nobody has swallowed yet, or that this is no X-ray film, shows
    in the whole frame. Starts out saying yes.
    """

    def __init__(self, inputs: int, tasks: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(2 * inputs, 64)
        self.logit = nn.Linear(64, tasks)
        nn.init.zeros_(self.logit.weight)
        nn.init.constant_(self.logit.bias, 3.0)

    def forward(self, coarse: Tensor) -> Tensor:
        """(B, C, s, s) → logits (B, T, 1, 1)."""
        pooled = torch.cat([coarse.mean((2, 3)), coarse.amax((2, 3))], dim=1)
        logits: Tensor = self.logit(F.hardswish(self.hidden(pooled)))
        return logits[:, :, None, None]


class Decoder(nn.Module):
    """Trunk maps, fine to coarse, → one fused map (for alignment) and logits (for masks).

    `fuse(maps)` runs coarse → `embed_stride`; `refine(fused, maps)` goes on to the finest map and
    gives logits there. Feature alignment thus trains the trunk and everything up to the fused map.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        tasks: int,
        width: int = 96,
        embed_stride: int = 8,
    ) -> None:
        super().__init__()
        # How many of the maps (fine to coarse) are finer than the fused one.
        self.finer = sum(stride < embed_stride for stride in strides)
        self.finer = min(self.finer, len(strides) - 1)
        self.width = width
        # A 5×5 on the coarsest map sees most of the frame: C3 and C4 look alike up close.
        self.top = SeparableConv(channels[-1], width, kernel=5)
        self.down = nn.ModuleList(
            Fuse(width, channels[level], width, kernel=5)
            for level in range(len(channels) - 2, self.finer - 1, -1)
        )
        self.fine = nn.ModuleList()
        inputs = width
        for level in range(self.finer - 1, -1, -1):
            outputs = max(24, inputs // 2)
            self.fine.append(Fuse(inputs, channels[level], outputs, kernel=3))
            inputs = outputs
        self.head = nn.Conv2d(inputs, tasks, 1)
        self.presence = Presence(channels[-1], tasks)
        # Most pixels belong to no anatomy: starting near p = .02 saves the first hundred steps.
        assert self.head.bias is not None
        nn.init.constant_(self.head.bias, -4.0)

    def fuse(self, maps: Sequence[Tensor]) -> Tensor:
        """maps: fine to coarse, each (B, c, S/stride, S/stride) → (B, width, S/8, S/8)."""
        fused = self.top(maps[-1])
        for step, lateral in zip(self.down, reversed(maps[self.finer : -1]), strict=True):
            fused = step(fused, lateral)
        return fused

    def refine(self, fused: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """→ logits on the finest map, (B, T, S/2, S/2) for the presets.

        A pixel's logit is lowered by as much as the frame speaks against the anatomy:
        m + log σ(g), close to log-odds of p(pixel) · p(frame) where both are small.
        """
        for step, lateral in zip(self.fine, reversed(maps[: self.finer]), strict=True):
            fused = step(fused, lateral)
        masks: Tensor = self.head(fused)
        return masks + F.logsigmoid(self.presence(maps[-1]))


def enlarge(logits: Tensor, size: int) -> Tensor:
    """Logits (B, T, s, s) → (B, T, size, size), bilinear."""
    if logits.shape[-1] == size:
        return logits
    return F.interpolate(logits, size=(size, size), mode="bilinear", align_corners=False)


def pool_to(maps: Tensor, grid: int) -> Tensor:
    """(B, C, h, h) → (B, C, grid, grid): averaged when smaller, bilinear when larger."""
    if maps.shape[-1] == grid:
        return maps
    if maps.shape[-1] > grid:
        return F.adaptive_avg_pool2d(maps, grid)
    return F.interpolate(maps, size=(grid, grid), mode="bilinear", align_corners=False)


def parameters_of(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


__all__ = ["Decoder", "Fuse", "Presence", "SeparableConv", "enlarge", "parameters_of", "pool_to"]
