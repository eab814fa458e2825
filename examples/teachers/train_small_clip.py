"""Train the packaged image-text encoder on captions made from the simulator's truth.

    python train_small_clip.py --world build/world --out ../../models/weights/small-clip.safetensors

Captions tell phase, consistency, findings and devices of a frame, never where anything is. Beside
the contrast of images and captions, a throw-away head says which words the caption has: contrast
alone stayed at chance for hundreds of steps with so few and so similar captions.
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path

import torch
from recipe import Recipe, photometric, train
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from world import load_world

from vfss_distill.models.teachers.preprocess import Preprocessing
from vfss_distill.models.teachers.small import build_small_clip, published_state

PREPROCESSING = Preprocessing(224, "pad", "unit", (0.45,), (0.25,))
LENGTH, WIDTH, BATCH = 32, 256, 16


def tokenise(captions: list[str]) -> tuple[Tensor, list[str]]:
    """Words to numbers: 0 pads, 1 begins. → (N, LENGTH) and the vocabulary."""
    words = ["[pad]", "[begin]", *sorted({word for text in captions for word in text.split()})]
    number = {word: i for i, word in enumerate(words)}
    rows = [[1, *(number[word] for word in text.split())][:LENGTH] for text in captions]
    return torch.tensor([row + [0] * (LENGTH - len(row)) for row in rows]), words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--start", type=Path, help="weights to go on from, of the same captions")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(3)
    world = load_world(options.world)
    tokens, words = tokenise(world.captions)
    network = build_small_clip(len(words))
    if options.start:
        known = load_file(options.start)
        names = zip(network.state_dict(), published_state(network), strict=True)
        network.load_state_dict({ours: known[theirs].float() for ours, theirs in names})
    network.words = nn.Linear(WIDTH, len(words))  # throw-away, not part of the published layout
    said_words = torch.zeros(len(tokens), len(words)).scatter_(1, tokens, 1.0)

    def loss(step: int, generator: torch.Generator) -> Tensor:
        picked = world.pick(BATCH, generator)
        images = PREPROCESSING(photometric(world.frames_at(picked), generator, inverted=0))
        texts = tokens[picked]
        pooled = network.vision_model.model(images.contiguous()).pooler_output
        seen = functional.normalize(network.vision_model.projection_head(pooled), dim=-1)
        said = network.embed_texts(texts, (texts > 0).long())
        logits = network.logit_scale.clamp(max=4.0).exp() * seen @ said.T
        # Frames of one phase share a caption: all of them are right answers.
        same = (texts[:, None] == texts[None]).all(-1).float()
        same = same / same.sum(1, keepdim=True)
        forward = functional.cross_entropy(logits, same)
        contrast = (forward + functional.cross_entropy(logits.T, same)) / 2
        named = functional.binary_cross_entropy_with_logits(
            network.words(pooled), said_words[picked]
        )
        return contrast + 10 * named

    def kept() -> nn.Module:
        """The network without the throw-away head."""
        whole = copy.deepcopy(network)
        del whole.words
        return whole

    facts = {
        "trained_on": world.description,
        "task": "captions of phase, consistency, findings and devices",
        "vocabulary": json.dumps(words),
    }
    train(network, loss, Recipe("small-clip", options.steps, 6e-4), options.out, facts, keep=kept)


if __name__ == "__main__":
    main()
