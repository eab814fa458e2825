"""Train the packaged promptable segmenter: class-agnostic masks of anything visible, from a box.

    python train_small_sam.py --world build/world --out ../../models/weights/small-sam.safetensors

It never learns what a structure is called, nor the twelve tasks as such: each step asks for the
shape inside a jittered box around some structure of the frame.

Through the decoder alone the encoder learns slowly: it needs to know little more than edges to
fill a box. So a throw-away head asks its map for two things as free of names: where the outline
of anything is, and that patches of one structure resemble each other more than the rest of the
frame.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch
from recipe import Recipe, photometric, train
from torch import Tensor, nn
from torch.nn import functional
from world import World, load_world

from vfss_distill.models.teachers.card import load_card
from vfss_distill.models.teachers.preprocess import Preprocessing
from vfss_distill.models.teachers.registry import load_teacher
from vfss_distill.models.teachers.small import build_small_sam

BATCH, PROMPTS = 4, 6
GRID, WIDTH, PLACES = 32, 64, 192  # of the encoder's map; patches compared per frame
PREPROCESSING = Preprocessing(256, "stretch", "minmax", (0.0,), (1.0,))


def boxes_and_shapes(masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """masks (K, S, S) → up to PROMPTS jittered boxes (P, 4) x0 y0 x1 y1, and shapes (P, S, S)."""
    present = (masks.flatten(1).sum(1) > 40).nonzero().flatten()
    chosen = present[torch.randperm(len(present), generator=generator)[:PROMPTS]]
    shapes = masks[chosen].float()
    boxes = []
    for shape in shapes:
        rows, columns = shape.any(1).nonzero().flatten(), shape.any(0).nonzero().flatten()
        box = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).float()
        sides = (box[2:] - box[:2]).repeat(2)
        box = box + (torch.rand(4, generator=generator) - 0.5) * 0.2 * sides
        boxes.append(box.clamp(0, masks.shape[-1]))
    return torch.stack(boxes), shapes


def mask_loss(logits: Tensor, shapes: Tensor) -> Tensor:
    """BCE + Dice, (P, h, w) each."""
    bce = functional.binary_cross_entropy_with_logits(logits, shapes)
    p = logits.sigmoid()
    overlap = 2 * (p * shapes).sum((1, 2)) + 1
    return 5 * bce + (1 - overlap / (p.sum((1, 2)) + shapes.sum((1, 2)) + 1)).mean()


def outlines(masks: Tensor) -> Tensor:
    """masks (B, K, S, S) bool → share of pixels on the rim of anything, (B, 2·GRID, 2·GRID)."""
    whole = masks.float()
    inner = -functional.max_pool2d(-whole, 3, stride=1, padding=1)
    rim = (whole - inner).amax(1, keepdim=True)
    return functional.adaptive_avg_pool2d(rim, 2 * GRID)[:, 0]


def resemblance(maps: Tensor, masks: Tensor, generator: torch.Generator) -> Tensor:
    """Cross-entropy of finding, among PLACES of the same frame, those of the same structures.

    maps (B, C, GRID, GRID) and masks (B, K, S, S). How much two places are the same is the share
    that the structures on both have of those on either: a tooth lies on the jaw as well. Bare
    ground resembles nothing.
    """
    cover = functional.adaptive_avg_pool2d(masks.float(), GRID).flatten(2).transpose(1, 2)
    maps = functional.normalize(maps.float(), dim=1).flatten(2).transpose(1, 2)  # (B, GRID², C)
    parts = []
    for vectors, here in zip(maps, cover, strict=True):
        places = (here.amax(1) > 0.5).nonzero().flatten()
        places = places[torch.randperm(len(places), generator=generator)[:PLACES]]
        on, found = here[places] > 0.5, vectors[places]
        both = (on[:, None] & on[None]).sum(-1).float()
        same = both / (on[:, None] | on[None]).sum(-1).clamp_min(1)
        same.fill_diagonal_(0)
        logits = found @ found.T / 0.1 - 1e4 * torch.eye(len(found))
        goal = same / same.sum(1, keepdim=True).clamp_min(1e-6)
        parts.append(-(goal * functional.log_softmax(logits, dim=1)).sum(1).mean())
    return torch.stack(parts).mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--start", type=Path, help="weights to go on from")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="then 1.3 times as fast")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    world = load_world(options.world)
    network = build_small_sam()
    if options.start:
        known = load_teacher(load_card("small-sam"), options.start)
        network.load_state_dict(known.network.state_dict())
    # Throw-away, no part of the published layout.
    network.rim = nn.Conv2d(WIDTH, 4, 1)
    network.kin = nn.Conv2d(WIDTH, WIDTH, 1)
    encode = network.image_encoder
    if options.compile:
        encode = torch.compile(encode, dynamic=False)

    def loss(step: int, generator: torch.Generator) -> Tensor:
        picked = world.pick(BATCH, generator)
        frames = photometric(world.frames_at(picked), generator)
        embeddings = encode(PREPROCESSING(frames))  # (B, 64, 32, 32)
        structures = world.masks_at(picked)
        rim = functional.pixel_shuffle(network.rim(embeddings), 2)[:, 0].float()
        dense = functional.binary_cross_entropy_with_logits(rim, outlines(structures))
        dense = dense + 0.2 * resemblance(network.kin(embeddings), structures, generator)
        boxes, shapes = boxes_and_shapes(structures[0], generator)
        sparse, plain = network.prompt_encoder(points=None, boxes=boxes, masks=None)
        low, _ = network.mask_decoder(  # of one frame: it takes longer than the encoder on four
            image_embeddings=embeddings[:1],
            image_pe=network.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=plain,
            multimask_output=False,
        )  # (P, 1, 128, 128)
        target = functional.interpolate(shapes[:, None], low.shape[-2:], mode="area")
        return mask_loss(low[:, 0].float(), target[:, 0]) + dense

    def kept() -> nn.Module:
        """The network without the throw-away heads."""
        whole = copy.deepcopy(network)
        del whole.rim, whole.kin
        return whole

    recipe = Recipe("small-sam", options.steps, 8e-4)
    train(network, loss, recipe, options.out, facts(world), keep=kept)


def facts(world: World) -> dict[str, str]:
    task = "class-agnostic masks from jittered boxes; outlines; kinship of patches"
    return {"trained_on": world.description, "task": task}


if __name__ == "__main__":
    main()
