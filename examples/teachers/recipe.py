"""What the three trainings share: one plain loop, and photometric variation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from vfss_distill.models.teachers.small import save_published_layout


@dataclass(frozen=True)
class Recipe:
    name: str
    steps: int
    learning_rate: float
    warmup: int = 100
    report_every: int = 50


def train(
    network: nn.Module,
    loss: Callable[[int, torch.Generator], Tensor],
    recipe: Recipe,
    out: Path,
    facts: dict[str, str],
    *,
    keep: Callable[[], nn.Module] | None = None,
) -> None:
    """AdamW with warm-up and cosine; saves `keep()` (or the network) in its published layout.

    Products of matrices are bfloat16 where the processor has it (half the time, the same loss);
    where it has to be imitated it takes seven times as long.
    Every `report_every` steps the weights are saved too, so that a stopped run is not lost.
    """
    network.train()
    optimiser = torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=0.05)
    has_bfloat16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    start, total = time.perf_counter(), 0.0
    for step in range(recipe.steps):
        share = min(1.0, (step + 1) / recipe.warmup)
        share *= 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
        for group in optimiser.param_groups:
            group["lr"] = recipe.learning_rate * share
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16):
            value = loss(step, torch.Generator().manual_seed(step))
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        total += value.item()
        if (step + 1) % recipe.report_every == 0 or step + 1 == recipe.steps:
            seconds = time.perf_counter() - start
            mean = total / recipe.report_every
            print(f"{recipe.name} {step + 1} loss {mean:.4f} {seconds:.0f} s", flush=True)
            total = 0.0
            done = {**facts, "steps": str(step + 1), "notice": "Research use only."}
            kept = keep() if keep else network
            save_published_layout(kept, out, half=True, metadata=done)


def photometric(frames: Tensor, generator: torch.Generator, *, inverted: float = 0.15) -> Tensor:
    """uint8 (B, H, W) with another gamma, contrast, brightness and noise each; some inverted."""

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(len(frames), 1, 1, generator=generator)

    x = (frames.float() / 255).clamp_min(1e-3) ** draw(0.65, 1.5)
    x = (x - 0.5) * draw(0.7, 1.3) + 0.5 + draw(-0.1, 0.1)
    x = x + torch.randn(x.shape, generator=generator) * draw(0, 0.04)
    x = torch.where(draw(0, 1) < inverted, 1 - x, x)
    return (x.clamp(0, 1) * 255).to(torch.uint8)
