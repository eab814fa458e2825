"""Train the packaged self-supervised encoder: no labels at all.

    python train_small_dino.py --world build/world --out ../../models/weights/small-dino.safetensors

Half of the patches are hidden. From the others the encoder must give what a slowly moving copy of
itself says of the whole frame (as iBOT and data2vec do), and the hidden pixels (as MAE does), which
keeps so small a network from agreeing with itself on nothing.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch
from recipe import Recipe, photometric, train
from torch import Tensor, nn
from torch.nn import functional
from world import load_world

from vfss_distill.models.teachers.preprocess import Preprocessing
from vfss_distill.models.teachers.small import build_small_dino

PATCH, GRID, WIDTH = 14, 16, 192
PREPROCESSING = Preprocessing(224, "crop", "unit", (0.45,), (0.25,))


def hidden_patches(batch: int, generator: torch.Generator) -> Tensor:
    """(B, GRID²) bool: about half, in blocks of 2×2 so that no neighbour gives it away."""
    coarse = torch.rand(batch, 1, GRID // 2, GRID // 2, generator=generator)
    cut = coarse.flatten(1).median(1).values[:, None, None, None]
    return functional.interpolate((coarse > cut).float(), scale_factor=2).bool().flatten(1)


def patch_pixels(images: Tensor) -> Tensor:
    """(B, 3, 224, 224) → (B, GRID², PATCH²), each patch with mean 0 and deviation 1."""
    patches = functional.unfold(images[:, :1], PATCH, stride=PATCH).transpose(1, 2)
    return (patches - patches.mean(-1, True)) / (patches.std(-1, keepdim=True) + 0.05)


class Pupil(nn.Module):
    """The encoder and its two throw-away heads."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = build_small_dino(drop_path=0.05)
        self.to_features = nn.Sequential(nn.Linear(WIDTH, 384), nn.GELU(), nn.Linear(384, WIDTH))
        self.to_pixels = nn.Sequential(
            nn.Linear(WIDTH, 384), nn.GELU(), nn.Linear(384, PATCH * PATCH)
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(2)
    world = load_world(options.world)
    pupil = Pupil()
    elder = copy.deepcopy(pupil.encoder).requires_grad_(False).eval()

    def loss(step: int, generator: torch.Generator) -> Tensor:
        with torch.no_grad():  # the elder follows what the last step made of the pupil
            keep = 1 - 0.02 * (1 - step / options.steps) - 1e-3
            for old, new in zip(elder.parameters(), pupil.encoder.parameters(), strict=True):
                old.lerp_(new, 1 - keep)
        raw = world.frames_at(world.pick(12, generator))
        images = PREPROCESSING(photometric(raw, generator)).contiguous()
        plain = PREPROCESSING(raw).contiguous()
        hidden = hidden_patches(len(images), generator)
        seen = pupil.encoder(images, bool_masked_pos=hidden).last_hidden_state[:, 1:]
        with torch.no_grad():
            goal = functional.layer_norm(elder(plain).last_hidden_state[:, 1:], (WIDTH,))
        features = functional.smooth_l1_loss(pupil.to_features(seen[hidden]), goal[hidden])
        pixels = functional.mse_loss(pupil.to_pixels(seen[hidden]), patch_pixels(plain)[hidden])
        return pixels + features

    facts = {"trained_on": world.description, "task": "masked patches, without labels"}
    recipe = Recipe("small-dino", options.steps, 1e-3)
    train(pupil, loss, recipe, options.out, facts, keep=lambda: pupil.encoder)


if __name__ == "__main__":
    main()
