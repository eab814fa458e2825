"""Train the packaged self-supervised encoder: no labels at all.

    python train_small_dino.py --world build/world --out ../../models/weights/small-dino.safetensors

Two views of a frame, each turned, scaled, shifted, sometimes mirrored and differently exposed; now
and then the second is of another moment of the same film. A patch of one view must find its own
place among all patches of the other (dense contrast: Pinheiro et al. 2020, Wang et al. 2021).
Rivals are only the other places of the same frame: rivals in other patients would teach who is
filmed, not what.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from recipe import Recipe, photometric, train
from torch import Tensor, nn
from torch.nn import functional
from world import FRAMES_EACH, load_world

from vfss_distill.models.teachers.card import load_card
from vfss_distill.models.teachers.preprocess import Preprocessing
from vfss_distill.models.teachers.registry import load_teacher
from vfss_distill.models.teachers.small import build_small_dino

SIZE, GRID, WIDTH, BATCH, POINTS = 224, 16, 192, 6, 128
PREPROCESSING = Preprocessing(SIZE, "crop", "unit", (0.45,), (0.25,))
NEAR = 0.7 * 2 / GRID  # how far apart, in -1..1 of a view, two places are still half the same
ANOTHER_MOMENT = 0.3


def views(count: int, generator: torch.Generator) -> Tensor:
    """Affine maps (B, 2, 3) from a view to its frame, both -1..1."""

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    angle, scale = draw(-math.pi / 9, math.pi / 9), torch.exp(draw(-0.4, 0.15))
    side = torch.where(draw(0, 1) < 0.25, -1.0, 1.0)
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    return torch.stack(
        [
            torch.stack([cos * side, -sin, draw(-0.2, 0.2)], dim=1),
            torch.stack([sin * side, cos, draw(-0.2, 0.2)], dim=1),
        ],
        dim=1,
    )


def seen_through(frames: Tensor, view: Tensor) -> Tensor:
    """uint8 (B, S, S) → the same frames through their views, uint8."""
    grid = functional.affine_grid(view, [len(frames), 1, *frames.shape[-2:]], align_corners=False)
    moved = functional.grid_sample(frames[:, None].float(), grid, align_corners=False)
    return moved[:, 0].to(torch.uint8)


def places(first: Tensor, second: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """→ the same POINTS places in either view (B, P, 2), and which of them both show (B, P)."""
    here = 1.9 * torch.rand(len(first), POINTS, 2, generator=generator) - 0.95
    in_frame = here @ first[:, :, :2].transpose(1, 2) + first[:, None, :, 2]
    back = torch.linalg.inv(second[:, :, :2])
    there = (in_frame - second[:, None, :, 2]) @ back.transpose(1, 2)
    return torch.stack([here, there]), (there.abs() < 0.95).all(-1) & (in_frame.abs() < 1).all(-1)


class Pupil(nn.Module):
    """The encoder and its throw-away head."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = build_small_dino(drop_path=0.0)
        self.head = nn.Sequential(nn.Linear(WIDTH, 384), nn.GELU(), nn.Linear(384, 96))

    def at(self, images: Tensor, spots: Tensor) -> Tensor:
        """(B, 3, 224, 224), places (B, P, 2) → unit vectors (B, P, 96)."""
        tokens = self.encoder(images.contiguous()).last_hidden_state[:, 1:].float()
        maps = tokens.transpose(1, 2).unflatten(2, (GRID, GRID))
        found = functional.grid_sample(maps, spots[:, :, None], align_corners=False)
        return functional.normalize(self.head(found[..., 0].transpose(1, 2)).float(), dim=-1)


def contrast(one: Tensor, other: Tensor, spots: Tensor, known: Tensor) -> Tensor:
    """Cross-entropy of finding a place among all of the frame; places near it count in part."""
    logits = one @ other.transpose(1, 2) / 0.1  # (B, P, P)
    logits = logits.masked_fill(~known[:, None, :], -1e4)
    goal = torch.exp(-(torch.cdist(spots, spots) ** 2) / (2 * NEAR**2)) * known[:, None, :]
    goal = goal / goal.sum(-1, keepdim=True).clamp_min(1e-6)
    each = -(goal * functional.log_softmax(logits, dim=-1)).sum(-1)
    return (each * known).sum() / known.sum().clamp_min(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--start", type=Path, help="weights to go on from, with a new head")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(2)
    world = load_world(options.world)
    pupil = Pupil()
    if options.start:
        known = load_teacher(load_card("small-dino"), options.start)
        pupil.encoder.load_state_dict(known.network.state_dict())

    def loss(step: int, generator: torch.Generator) -> Tensor:
        picked = world.pick(BATCH, generator)
        moment = picked - picked % FRAMES_EACH
        moment = moment + torch.randint(FRAMES_EACH, moment.shape, generator=generator)
        other = torch.where(torch.rand(BATCH, generator=generator) < ANOTHER_MOMENT, moment, picked)
        first, second = views(BATCH, generator), views(BATCH, generator)
        spots, known = places(first, second, generator)
        frames = torch.cat(
            [
                seen_through(world.frames_at(picked), first),
                seen_through(world.frames_at(other), second),
            ]
        )
        images = PREPROCESSING(photometric(frames, generator))
        one, two = pupil.at(images, spots.flatten(0, 1)).chunk(2)
        return (contrast(one, two, spots[1], known) + contrast(two, one, spots[0], known)) / 2

    facts = {"trained_on": world.description, "task": "finding a patch again, without labels"}
    recipe = Recipe("small-dino", options.steps, 1e-3)
    train(pupil, loss, recipe, options.out, facts, keep=lambda: pupil.encoder)


if __name__ == "__main__":
    main()
