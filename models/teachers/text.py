"""Texts as an image-text teacher sees them, where its text tower and its words are in the file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...errors import ConfigError, ModelError
from .checkpoint import fit, open_checkpoint
from .medclip import to_memory
from .small import SmallClip, build_small_clip

_PAD, _BEGIN = 0, 1


def vocabulary(weights: Path) -> list[str] | None:
    """Words of the text tower in the header of a safetensors file, in order; None without."""
    if weights.suffix != ".safetensors":
        return None
    try:
        with safe_open(weights, framework="pt") as file:
            words = json.loads((file.metadata() or {}).get("vocabulary", "null"))
    except (SafetensorError, OSError, ValueError):
        return None
    return [str(word) for word in words] if isinstance(words, list) else None


def embed_texts(weights: Path, texts: Sequence[str]) -> tuple[Tensor, float]:
    """→ unit vectors (N, D) of `texts`, and the scale the teacher multiplies likenesses with.

    For files of `build_small_clip` with their vocabulary. Raises ConfigError for a word the teacher
    never learned, ModelError for a file without words, WeightsMismatch for another network.
    """
    words = vocabulary(weights)
    if words is None:
        raise ModelError("this teacher's file holds no words for its text tower")
    network = _load(weights, len(words))
    length = network.text_model.model.config.max_position_embeddings
    number = {word: i for i, word in enumerate(words)}
    rows = []
    for text in texts:
        spoken = text.lower().split()
        if strange := [word for word in spoken if word not in number]:
            raise ConfigError(
                f"anchor {text!r} has words the teacher never learned: {' '.join(strange)}",
                remedy=f"Use some of: {' '.join(words[2:])}.",
            )
        row = [_BEGIN, *(number[word] for word in spoken)][:length]
        rows.append(row + [_PAD] * (length - len(row)))
    tokens = torch.tensor(rows)
    with torch.no_grad():
        return network.embed_texts(tokens, (tokens > 0).long()), float(network.logit_scale.exp())


def _load(weights: Path, count: int) -> SmallClip:
    checkpoint = open_checkpoint(weights)
    with torch.random.fork_rng(devices=[]):
        network = build_small_clip(count)
    named = checkpoint.renamed(to_memory(checkpoint.tensors))
    fit(network, named, network="an image-text encoder", drop=("*.relative_position_index",))
    # As in training, where the scale was held below e⁴.
    network.logit_scale.data.clamp_(max=4.0)
    return network.eval().requires_grad_(False)


__all__ = ["embed_texts", "vocabulary"]
