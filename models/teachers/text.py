"""Texts as an image-text teacher sees them, where its text tower and its words are at hand.

Three layouts: the packaged small teacher, whose words are in its file's header; MedCLIP's
(BioClinicalBERT) and BiomedCLIP's (PubMedBERT), whose words are a `vocab.txt` beside the weights.
Both published tokenizers lower the case, MedCLIP's although its words are cased.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from tokenizers import BertWordPieceTokenizer
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel

from ...errors import ConfigError, ModelError
from .card import VOCABULARY
from .checkpoint import Checkpoint, Tensors, fit, open_checkpoint
from .medclip import to_memory
from .small import SmallClip, build_small_clip

_PAD, _BEGIN = 0, 1
_HEAD_DIM = 64  # of every published BERT
_IDS = "*.position_ids"  # written by older versions of transformers; computed, not learned


class NoTexts(ModelError):
    """A teacher whose text tower or words are not at hand: it can still teach all else."""


def embed_texts(
    weights: Path, texts: Sequence[str], vocabulary: str = VOCABULARY
) -> tuple[Tensor, float]:
    """→ unit vectors (N, D) of `texts`, and the scale the teacher multiplies likenesses with.

    `vocabulary`: name of the file of words beside the weights, one a line. Raises NoTexts,
    ConfigError for a text that cannot be said in these words, WeightsMismatch for a tower that is
    not whole, or whose words are of another number.
    """
    if (words := _header_words(weights)) is not None:
        return _small(weights, words, texts)
    checkpoint = open_checkpoint(weights)
    if "text_model.model.embeddings.word_embeddings.weight" in checkpoint:
        build: type[_MedClipTower] | type[_OpenClipTower] = _MedClipTower
    elif "text.transformer.embeddings.word_embeddings.weight" in checkpoint:
        build = _OpenClipTower
    else:
        raise NoTexts(
            "holds no text tower that vfss reads", file=weights.name, remedy=_ELSE.format("")
        )
    file = weights.parent / vocabulary
    if not file.is_file():
        raise NoTexts(
            f"its text tower is there, but no words: {vocabulary} is not beside it",
            file=weights.name,
            remedy=_ELSE.format(f"Save the published {vocabulary} of its text encoder there, or "),
        )
    tower = build(checkpoint).eval().requires_grad_(False)
    count, _ = checkpoint.shape(f"{tower.inside}embeddings.word_embeddings.weight", 2)
    rows = _tokens(file, count, texts, int(tower.model.config.max_position_embeddings))
    with torch.no_grad():
        # Each for itself: MedCLIP averages over the padding of shorter texts too.
        vectors = torch.cat([tower(torch.tensor([row])) for row in rows])
    scale = checkpoint.tensors.get("logit_scale", torch.tensor(0.0)).float()
    return functional.normalize(vectors, dim=-1), float(scale.clamp(0, 4.6052).exp())


_ELSE = "{}Leave anchor_weight at 0."


class _MedClipTower(nn.Module):
    """The mean over tokens and over the states after the first, second and last layer."""

    inside = "text_model.model."

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        tensors = _below(checkpoint, self.inside)
        self.model = _bert(checkpoint, self.inside, pooler="pooler.dense.weight" in tensors)
        _fill(self.model, checkpoint, tensors)
        named = _below(checkpoint, "text_model.projection_head.")
        width, _ = checkpoint.shape("text_model.projection_head.weight", 2)
        hidden = self.model.config.hidden_size
        self.projection = nn.Linear(hidden, width, bias="bias" in named)
        _fill(self.projection, checkpoint, named)

    def forward(self, tokens: Tensor) -> Tensor:
        states = self.model(input_ids=tokens, output_hidden_states=True).hidden_states
        pooled = torch.stack([states[1], states[2], states[-1]]).mean(0).mean(1)
        projected: Tensor = self.projection(pooled)
        return projected


class _OpenClipTower(nn.Module):
    """The state of the first token after the last layer, through two layers without bias."""

    inside = "text.transformer."

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        tensors, heads = _below(checkpoint, self.inside), _below(checkpoint, "text.proj.")
        if set(heads) != {"0.weight", "2.weight"} or "pooler.dense.weight" in tensors:
            raise NoTexts(
                "its text tower is not put together as BiomedCLIP's",
                file=checkpoint.file.name,
                remedy=_ELSE.format(""),
            )
        self.model = _bert(checkpoint, self.inside, pooler=False)
        _fill(self.model, checkpoint, tensors)
        middle, hidden = checkpoint.shape("text.proj.0.weight", 2)
        width, _ = checkpoint.shape("text.proj.2.weight", 2)
        self.projection = nn.Sequential(
            nn.Linear(hidden, middle, bias=False), nn.GELU(), nn.Linear(middle, width, bias=False)
        )
        _fill(self.projection, checkpoint, heads)

    def forward(self, tokens: Tensor) -> Tensor:
        projected: Tensor = self.projection(self.model(input_ids=tokens).last_hidden_state[:, 0])
        return projected


def _bert(checkpoint: Checkpoint, inside: str, *, pooler: bool) -> BertModel:
    """Random, of the shapes in the file. Raises NoTexts for another kind, WeightsMismatch."""
    words, width = checkpoint.shape(f"{inside}embeddings.word_embeddings.weight", 2)
    positions, _ = checkpoint.shape(f"{inside}embeddings.position_embeddings.weight", 2)
    types, _ = checkpoint.shape(f"{inside}embeddings.token_type_embeddings.weight", 2)
    hidden, _ = checkpoint.shape(f"{inside}encoder.layer.0.intermediate.dense.weight", 2)
    if types != 2 or width % _HEAD_DIM:  # RoBERTa has one type, and other words
        raise NoTexts(
            "its text tower is no BERT", file=checkpoint.file.name, remedy=_ELSE.format("")
        )
    config = BertConfig(
        vocab_size=words,
        hidden_size=width,
        num_hidden_layers=checkpoint.count(f"{inside}encoder.layer."),
        num_attention_heads=width // _HEAD_DIM,
        intermediate_size=hidden,
        max_position_embeddings=positions,
    )
    with torch.random.fork_rng(devices=[]):
        return BertModel(config, add_pooling_layer=pooler)


def _below(checkpoint: Checkpoint, prefix: str) -> Tensors:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in checkpoint.tensors.items()
        if name.startswith(prefix)
    }


def _fill(network: nn.Module, checkpoint: Checkpoint, tensors: Tensors) -> None:
    fit(network, checkpoint.renamed(tensors), network="a BERT text tower", drop=(_IDS,))


def _tokens(file: Path, count: int, texts: Sequence[str], longest: int) -> list[list[int]]:
    """Numbers of word pieces within BERT's marks. Raises NoTexts, ConfigError."""
    try:
        # Not splitlines: some words are themselves what it would split at, such as U+2028.
        words = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, ValueError) as error:
        raise NoTexts("is no list of words", file=file.name) from error
    if len(words) != count or len(set(words)) != count or _MARKS - set(words):
        raise NoTexts(
            f"has {len(words)} words, not the {count} of the text tower with BERT's marks",
            file=file.name,
            remedy=_ELSE.format("Save the vocabulary of that very encoder, or "),
        )
    numbers = {word: number for number, word in enumerate(words)}
    tokenizer = BertWordPieceTokenizer(numbers, lowercase=True)
    tokenizer.enable_truncation(min(longest, _LONGEST))
    rows = []
    for text in texts:
        row = tokenizer.encode(text).ids
        if numbers["[UNK]"] in row or len(row) < 3:
            raise ConfigError(
                f"anchor {text!r} cannot be said in the words of {file.name}",
                remedy="Use plain words.",
            )
        rows.append(list(row))
    return rows


_MARKS = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
_LONGEST = 77  # tokens MedCLIP saw at most; anchors are phrases


def _header_words(weights: Path) -> list[str] | None:
    """Words of the text tower in the header of a safetensors file, in order; None without."""
    if weights.suffix != ".safetensors":
        return None
    try:
        with safe_open(weights, framework="pt") as file:
            words = json.loads((file.metadata() or {}).get("vocabulary", "null"))
    except (SafetensorError, OSError, ValueError, RecursionError):
        return None
    return [str(word) for word in words] if isinstance(words, list) else None


def _small(weights: Path, words: list[str], texts: Sequence[str]) -> tuple[Tensor, float]:
    network = _load_small(weights, len(words))
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


def _load_small(weights: Path, count: int) -> SmallClip:
    checkpoint = open_checkpoint(weights)
    with torch.random.fork_rng(devices=[]):
        network = build_small_clip(count)
    named = checkpoint.renamed(to_memory(checkpoint.tensors))
    fit(network, named, network="an image-text encoder", drop=("*.relative_position_index",))
    # As in training, where the scale was held below e⁴.
    network.logit_scale.data.clamp_(max=4.0)
    return network.eval().requires_grad_(False)


__all__ = ["NoTexts", "embed_texts"]
