"""Texts through the text towers of image-text teachers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from open_clip.hf_model import HFTextEncoder
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from transformers import BertConfig, BertModel, BertTokenizer

from tiny_teachers import Tensors, medclip_state, open_clip_state, random_state
from vfss_distill.errors import ConfigError, WeightsMismatch
from vfss_distill.models import PACKAGED_WEIGHTS
from vfss_distill.models.teachers import text
from vfss_distill.models.teachers.card import load_card
from vfss_distill.models.teachers.checkpoint import Checkpoint
from vfss_distill.models.teachers.text import NoTexts, embed_texts

CLIP = PACKAGED_WEIGHTS / "small-clip.safetensors"
WORDS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "oral", "phase", "pharynge", "##al", "clear"),
    *("Oral", "no", "aspiration", "-", "of", "the", "airway", "\N{LINE SEPARATOR}"),
]
TEXTS = ["oral phase", "Pharyngeal phase", "no aspiration of the airway - clear"]
BERT = BertConfig(
    vocab_size=len(WORDS),
    hidden_size=128,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=40,
)


def medclip(folder: Path) -> tuple[Path, Tensors]:
    """As its zip archive unpacks, with the words of its text encoder put beside it."""
    projection = torch.randn(16, 128, generator=torch.Generator().manual_seed(1))
    state = medclip_state(bert=BERT) | {"text_model.projection_head.weight": projection}
    path = folder / "pytorch_model.bin"
    torch.save(state, path)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return path, state


def open_clip_encoder() -> HFTextEncoder:
    return HFTextEncoder(
        "tiny",
        16,
        config=BERT,
        pooler_type="cls_last_hidden_state_pooler",
        proj_type="mlp",
        pretrained=False,
    ).eval()


def biomedclip(folder: Path) -> tuple[Path, Tensors]:
    words = {  # the published tower has no pooler
        name: tensor
        for name, tensor in random_state(open_clip_encoder, 3).items()
        if "pooler" not in name
    }
    state = {n: t for n, t in open_clip_state().items() if not n.startswith("text.")}
    state |= {f"text.{name}": tensor for name, tensor in words.items()}
    state["text.transformer.embeddings.position_ids"] = torch.arange(40)[None]
    path = folder / "open_clip_pytorch_model.bin"
    torch.save(state, path)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return path, words


def published_rows(folder: Path) -> list[Tensor]:
    """Tokens of TEXTS by transformers' own tokenizer."""
    tokenizer = BertTokenizer.from_pretrained(folder, local_files_only=True)
    return [tokenizer(one, return_tensors="pt")["input_ids"] for one in TEXTS]


def test_texts_of_the_packaged_teacher() -> None:
    vectors, scale = embed_texts(CLIP, ["oral phase", "Pharyngeal phase"])
    assert vectors.shape == (2, 128)
    assert vectors.norm(dim=1).tolist() == pytest.approx([1, 1], abs=1e-5)
    assert scale > 1
    assert torch.allclose(embed_texts(CLIP, ["pharyngeal phase"])[0][0], vectors[1], atol=1e-5)
    with pytest.raises(ConfigError, match="never learned: stomach"):
        embed_texts(CLIP, ["oral phase", "stomach phase"])


def test_medclip_says_what_its_own_code_says(tmp_path: Path) -> None:
    path, state = medclip(tmp_path)
    vectors, scale = embed_texts(path, TEXTS)
    network = BertModel(BERT).eval()
    prefix = "text_model.model."
    network.load_state_dict(
        {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}, strict=False
    )
    with torch.no_grad():
        for row, vector in zip(published_rows(tmp_path), vectors, strict=True):
            states = network(input_ids=row, output_hidden_states=True).hidden_states
            pooled = torch.stack([states[1], states[2], states[-1]]).permute(1, 0, 2, 3)
            said = pooled.mean(2).mean(1) @ state["text_model.projection_head.weight"].T
            torch.testing.assert_close(vector, functional.normalize(said)[0])
    assert scale == pytest.approx(float(state["logit_scale"].exp()))
    # A text alone and among others is the same.
    assert torch.allclose(embed_texts(path, TEXTS[:1])[0][0], vectors[0], atol=1e-6)


def test_biomedclip_says_what_open_clip_says(tmp_path: Path) -> None:
    path, words = biomedclip(tmp_path)
    vectors, _ = embed_texts(path, TEXTS)
    encoder = open_clip_encoder()
    assert not encoder.load_state_dict(words, strict=False).unexpected_keys
    with torch.no_grad():
        for row, vector in zip(published_rows(tmp_path), vectors, strict=True):
            padded = functional.pad(row, (0, 20 - row.shape[1]))  # as its tokenizer pads
            torch.testing.assert_close(vector, functional.normalize(encoder(padded))[0])


@pytest.mark.parametrize(
    ("name", "inside", "heads"),
    [
        ("medclip_vit", "text_model.model.", 197),
        ("biomedclip.open_clip", "text.transformer.", 197),
    ],
)
def test_published_text_towers_are_whole(
    shared_data: Path, name: str, inside: str, heads: int
) -> None:
    table = json.loads((shared_data / "teacher-keys" / f"{name}.json").read_text())
    tensors = {key: torch.empty(shape, device="meta") for key, shape in table.items()}
    checkpoint = Checkpoint(tensors, Path("published.bin"), "0" * 64)
    named = text._below(checkpoint, inside)
    pooler = "pooler.dense.weight" in named
    with torch.device("meta"):
        network = text._bert(checkpoint, inside, pooler=pooler)
    expected = {key: list(tensor.shape) for key, tensor in network.state_dict().items()}
    given = {k: list(t.shape) for k, t in named.items() if k != "embeddings.position_ids"}
    assert given == expected
    assert len(given) == heads + 2 * pooler
    assert network.config.num_attention_heads == 12


def test_without_words_or_tower_it_says_what_is_lacking(tmp_path: Path) -> None:
    path, state = medclip(tmp_path)
    (tmp_path / "words.txt").write_text((tmp_path / "vocab.txt").read_text())
    embed_texts(path, TEXTS, "words.txt")  # as a card may name it
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS[:-1]))
    with pytest.raises(NoTexts, match="has 17 words, not the 18 of the text tower"):
        embed_texts(path, TEXTS)
    (tmp_path / "vocab.txt").unlink()
    with pytest.raises(NoTexts, match="no words: vocab"):
        embed_texts(path, TEXTS)
    image = {name: tensor for name, tensor in state.items() if name.startswith("vision")}
    save_file(image, tmp_path / "image.safetensors")
    with pytest.raises(NoTexts, match="no text tower that vfss reads"):
        embed_texts(tmp_path / "image.safetensors", TEXTS)


def test_a_tower_that_is_not_whole_or_another_is_refused(tmp_path: Path) -> None:
    path, state = medclip(tmp_path)
    torn = {name: t for name, t in state.items() if "layer.1.output.dense" not in name}
    torch.save(torn, path)
    with pytest.raises(WeightsMismatch, match="2 missing"):
        embed_texts(path, TEXTS)
    types = "text_model.model.embeddings.token_type_embeddings.weight"
    torch.save(state | {types: state[types][:1]}, path)  # as RoBERTa has it
    with pytest.raises(NoTexts, match="no BERT"):
        embed_texts(path, TEXTS)
    path, words = biomedclip(tmp_path)
    linear = {n: t for n, t in words.items() if not n.startswith("proj.")}
    torch.save({f"text.{n}": t for n, t in linear.items()}, path)
    with pytest.raises(NoTexts, match="not put together as BiomedCLIP's"):
        embed_texts(path, TEXTS)


@pytest.mark.parametrize("said", ["stomach", "", "phase \N{SNOWMAN}"])
def test_a_text_that_cannot_be_said(tmp_path: Path, said: str) -> None:
    path, _ = medclip(tmp_path)
    with pytest.raises(ConfigError, match="cannot be said in the words of vocab"):
        embed_texts(path, ["oral phase", said])


def test_packaged_cards_expect_the_published_name() -> None:
    assert load_card("medclip").vocabulary is None
    assert load_card("biomedclip").vocabulary is None
