"""The packaged small teachers, and the large ones' published names and sizes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, Dinov2Config, SwinConfig, SwinModel

from tiny_teachers import (
    dino_memory_state,
    dino_original_state,
    dino_state,
    medclip_state,
    noise,
    sam_state,
    saved,
)
from vfss_distill.errors import WeightsMismatch
from vfss_distill.models import PACKAGED_WEIGHTS
from vfss_distill.models.teachers import small
from vfss_distill.models.teachers.card import find_weights, load_card
from vfss_distill.models.teachers.registry import load_teacher
from vfss_distill.models.teachers.sam import VIT_B, sam_network

Tensors = dict[str, Tensor]


BUILD_SMALL = {
    "small-sam": (small.build_small_sam, (64, 32)),
    "small-dino": (small.build_small_dino, (192, 16)),
    "small-clip": (small.build_small_clip, (128, 14)),
}


@pytest.mark.parametrize("name", BUILD_SMALL)
def test_small_teachers_go_through_the_same_adapters(tmp_path: Path, name: str) -> None:
    build, (channels, grid) = BUILD_SMALL[name]
    network = build()
    path = tmp_path / f"{name}.safetensors"
    small.save_published_layout(network, path, half=True, metadata={"n_patients": "0"})
    assert path.stat().st_size <= 6e6
    teacher = load_teacher(load_card(name), path)
    assert teacher.features(noise()).shape == (2, channels, grid, grid)
    assert teacher.card.packaged
    small.save_published_layout(network, tmp_path / "whole.pth")
    whole = load_teacher(load_card(name), tmp_path / "whole.pth")
    torch.testing.assert_close(
        whole.features(noise()), teacher.features(noise()), atol=0.05, rtol=0.05
    )


def test_small_clip_compares_pictures_and_words() -> None:
    network = small.build_small_clip(vocabulary=40)
    images = network.embed_images(torch.rand(2, 3, 224, 224))
    words = network.embed_texts(torch.ones(2, 8, dtype=torch.int64), torch.ones(2, 8))
    assert images.shape == words.shape == (2, 128)
    torch.testing.assert_close((images**2).sum(1), torch.ones(2))


@pytest.mark.parametrize("name", BUILD_SMALL)
def test_packaged_weights_load_where_they_are(name: str) -> None:
    card = load_card(name)
    weights = find_weights(card, folders=[PACKAGED_WEIGHTS])
    assert weights is not None
    _, (channels, grid) = BUILD_SMALL[name]
    teacher = load_teacher(card, weights)
    assert (teacher.channels, teacher.grid) == (channels, grid)


# ------------------------------------------------------------------------------- at published size


def keys(shared_data: Path, name: str) -> dict[str, list[int]]:
    return json.loads((shared_data / "teacher-keys" / f"{name}.json").read_text())


def shapes(state: Tensors) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in state.items()}


def test_published_names_of_sam(shared_data: Path) -> None:
    with torch.device("meta"):
        network = sam_network(VIT_B)
    assert shapes(network.state_dict()) == keys(shared_data, "medsam_vit_b")
    assert sum(parameter.numel() for parameter in network.state_dict().values()) == 93_735_728


def test_transformers_names_of_sam_map_onto_segment_anythings(shared_data: Path) -> None:
    from vfss_distill.models.teachers.checkpoint import Checkpoint
    from vfss_distill.models.teachers.sam import _one_name

    table = keys(shared_data, "medsam_vit_b.hf_transformers5")
    checkpoint = Checkpoint(dict.fromkeys(table, torch.zeros(1)), Path("x"), "")
    mapped = {_one_name(name, checkpoint): shape for name, shape in table.items()}
    assert mapped == keys(shared_data, "medsam_vit_b")


@pytest.mark.parametrize(
    ("table", "build"),
    [
        ("rad_dino.hf_on_disk", dino_state),
        ("rad_dino.hf_transformers5", dino_memory_state),
        ("rad_dino.backbone_compatible", dino_original_state),
    ],
)
def test_published_names_of_raddino(
    shared_data: Path, table: str, build: Callable[..., Tensors]
) -> None:
    with torch.device("meta"):
        state = build(Dinov2Config(image_size=518))
    assert shapes(state) == keys(shared_data, table)


FULL_SWIN = SwinConfig()
BERT = BertConfig(vocab_size=28996)


def test_published_names_of_medclip(shared_data: Path) -> None:
    with torch.device("meta"):
        state = medclip_state(FULL_SWIN, 512, bert=BERT)
        new = SwinModel(FULL_SWIN).state_dict()
    assert shapes(state) == keys(shared_data, "medclip_vit")
    assert shapes(new) == keys(shared_data, "swin_tiny.hf_transformers5")


def test_published_names_of_biomedclip(shared_data: Path) -> None:
    from timm.models.vision_transformer import VisionTransformer

    from vfss_distill.models.teachers.open_clip import VisualTower

    table = keys(shared_data, "biomedclip.open_clip")
    visual = {name: shape for name, shape in table.items() if name.startswith("visual.")}
    with torch.device("meta"):
        tower = VisualTower(VisionTransformer(num_classes=0), 512)
    assert {f"visual.{name}": shape for name, shape in shapes(tower.state_dict()).items()} == visual
    drop = load_card("biomedclip").drop
    from fnmatch import fnmatchcase

    spare = set(table) - set(visual)
    assert all(any(fnmatchcase(name, pattern) for pattern in drop) for name in spare)


FULL_SIZE = {
    "medsam": (lambda: sam_state(VIT_B), 314, (256, 64)),
    "raddino": (lambda: dino_state(Dinov2Config(image_size=518)), 223, (768, 37)),
    "medclip": (lambda: medclip_state(FULL_SWIN, 512, bert=BERT), 434, (768, 7)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL_SIZE)
def test_at_published_size(tmp_path: Path, name: str) -> None:
    """Built, saved in the published layout, loaded with complete coverage, one forward each."""
    build, tensors, (channels, grid) = FULL_SIZE[name]
    state = build()
    assert len(state) == tensors
    card = load_card(name)
    path = tmp_path / card.file[0]
    path.parent.mkdir(exist_ok=True)
    teacher = load_teacher(card, saved(state, path))
    tower = sum(p.numel() for p in teacher.parameters())
    assert tower > 27_000_000
    assert set(state) >= set(teacher.dropped)
    maps = teacher.features(noise(1, 480, 480))
    assert maps.shape == (1, channels, grid, grid)
    assert bool(maps.isfinite().all())
    del teacher
    victim = next(key for key in state if key.endswith("norm1.bias") or "layernorm_after" in key)
    del state[victim]
    with pytest.raises(WeightsMismatch, match="1 missing"):
        load_teacher(card, saved(state, path))
