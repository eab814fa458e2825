"""The adapters of each family give what the families' own libraries give."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import Dinov2Config, Dinov2Model, SwinConfig, SwinModel

from tiny_teachers import (
    TINY_SAM,
    dino_memory_state,
    dino_original_state,
    dino_state,
    lab_card,
    medclip_resnet_state,
    medclip_state,
    noise,
    open_clip_state,
    sam_state,
    saved,
    teacher_of,
    write_tiny_weights,
)
from vfss_distill.errors import ConfigError, WeightsMismatch
from vfss_distill.models.teachers import small
from vfss_distill.models.teachers.base import fixed_image
from vfss_distill.models.teachers.card import load_card
from vfss_distill.models.teachers.registry import load_teacher
from vfss_distill.models.teachers.sam import SamTeacher, sam_network

Tensors = dict[str, Tensor]
REAL = ("medsam", "raddino", "medclip")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_tiny_weights(tmp_path_factory.mktemp("tiny"))


def test_each_layout_of_dino_gives_the_same_features(tmp_path: Path) -> None:
    teachers = [
        teacher_of("raddino", state, tmp_path / f"{number}.safetensors")
        for number, state in enumerate((dino_memory_state(), dino_state(), dino_original_state()))
    ]
    assert len({teacher.layout for teacher in teachers}) == 3
    first = teachers[0].features(noise())
    # Without config.json the heads follow from 64 channels each: one here, in all three.
    assert all(torch.equal(first, teacher.features(noise())) for teacher in teachers[1:])


def test_dino_gives_the_tokens_of_the_library(tmp_path: Path) -> None:
    config = Dinov2Config(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14
    )
    network = Dinov2Model(config).eval()
    (tmp_path / "config.json").write_text('{"hidden_size": 64, "num_attention_heads": 2}')
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    teacher = teacher_of("raddino", state, tmp_path / "model.safetensors")
    with torch.no_grad():
        tokens = network(teacher.preprocessing(noise())).last_hidden_state
    maps = teacher.features(noise())
    assert maps.shape == (2, 64, 4, 4)
    torch.testing.assert_close(maps[:, :, 1, 2], tokens[:, 1 + 4 + 2])


def test_swin_gives_the_states_of_the_library_under_either_naming(tmp_path: Path) -> None:
    config = SwinConfig(embed_dim=8, depths=[1, 1, 1, 2], num_heads=[1, 2, 2, 4])
    network = SwinModel(config).eval()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    teacher = teacher_of("medclip", state, tmp_path / "swin.safetensors")
    assert teacher.layout == "bare Swin, transformers 5 names"
    with torch.no_grad():
        output = network(teacher.preprocessing(noise()))
    torch.testing.assert_close(
        teacher.features(noise()).flatten(2).transpose(1, 2), output.last_hidden_state
    )
    old = medclip_state()
    new = {name: tensor for name, tensor in small.medclip.to_memory(old).items()}
    first = teacher_of("medclip", old, tmp_path / "old.bin")
    second = teacher_of("medclip", new, tmp_path / "new.bin")
    assert (first.layout, second.layout) == (
        "MedCLIP, Swin, transformers 4 names",
        "MedCLIP, Swin, transformers 5 names",
    )
    assert torch.equal(first.features(noise()), second.features(noise()))
    pooled = first.pooled(noise())
    assert pooled.shape == (2, 16)
    torch.testing.assert_close(pooled.norm(dim=1), torch.ones(2))


def test_a_swin_at_a_size_its_window_does_not_fit_is_refused(tmp_path: Path) -> None:
    card = load_card(str(lab_card(tmp_path, family="medclip", drop=["text_model.*", "logit_*"])))
    with pytest.raises(WeightsMismatch, match="image_size"):
        load_teacher(card, saved(medclip_state(), tmp_path / "swin.bin"))


def test_medclip_resnet_variant(tmp_path: Path) -> None:
    teacher = teacher_of("medclip", medclip_resnet_state(), tmp_path / "resnet.bin")
    assert teacher.layout == "MedCLIP, ResNet-50"
    assert teacher.features(noise(1)).shape == (1, 2048, 7, 7)
    assert teacher.pooled(noise(1)).shape == (1, 512)


def test_open_clip_drops_text_and_class_token(tmp_path: Path) -> None:
    teacher = teacher_of("biomedclip", open_clip_state(), tmp_path / "oc.bin")
    assert set(teacher.dropped) == {"text.proj.0.weight", "logit_scale"}
    assert teacher.features(noise()).shape == (2, 64, 4, 4)
    assert teacher.pooled(noise()).shape == (2, 16)


def test_a_stage_of_biomedclip_is_the_map_after_that_block(tmp_path: Path) -> None:
    path = saved(open_clip_state(), tmp_path / "oc.bin")
    card, frames = load_card("biomedclip"), noise()
    last, second, first = (
        load_teacher(replace(card, stage=stage), path).features(frames) for stage in (None, 2, 1)
    )
    torch.testing.assert_close(last, second, atol=1e-5, rtol=1e-4)  # of two blocks
    assert first.shape == last.shape and not torch.allclose(first, last, atol=1e-2)
    with pytest.raises(ConfigError, match="has 2 blocks"):
        load_teacher(replace(card, stage=3), path)


def test_sam_masks_under_boxes_are_those_of_segment_anything(tmp_path: Path) -> None:
    teacher = teacher_of("medsam", sam_state(), tmp_path / "sam.pth")
    assert isinstance(teacher, SamTeacher)
    frames = noise(2, 60, 80)
    boxes = [torch.tensor([[10.0, 5, 40, 30], [0, 0, 80, 60]]), torch.zeros(0, 4)]
    logits = teacher.mask_logits(frames, boxes)
    assert [tuple(some.shape) for some in logits] == [(2, 32, 32), (0, 32, 32)]
    sam = sam_network(TINY_SAM).eval()
    sam.load_state_dict(sam_state())
    with torch.no_grad():
        image = sam.image_encoder(teacher.preprocessing(frames[:1]))
        box = torch.tensor([[10 * 128 / 80, 5 * 128 / 60, 64, 64]])
        sparse, dense = sam.prompt_encoder(points=None, boxes=box, masks=None)
        position = sam.prompt_encoder.get_dense_pe()
        expected, _ = sam.mask_decoder(image, position, sparse, dense, multimask_output=False)
    torch.testing.assert_close(logits[0][:1], expected[:, 0], atol=1e-5, rtol=1e-4)


def test_the_image_encoder_alone_is_a_teacher_without_masks(tmp_path: Path) -> None:
    state = {name: t for name, t in sam_state().items() if name.startswith("image_encoder.")}
    teacher = teacher_of("medsam", state, tmp_path / "encoder.safetensors")
    assert isinstance(teacher, SamTeacher)
    whole = teacher_of("medsam", sam_state(), tmp_path / "whole.pth")
    assert torch.equal(teacher.features(noise()), whole.features(noise()))
    with pytest.raises(ValueError, match="no mask decoder"):
        teacher.mask_logits(noise(1), [torch.zeros(1, 4)])


def test_sam_in_transformers_names(tmp_path: Path) -> None:
    """transformers' own SamModel, tiny: its vision features and ours agree."""
    from transformers import SamConfig, SamModel

    config = SamConfig(
        vision_config={
            "hidden_size": 32,
            "output_channels": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 128,
            "patch_size": 16,
            "window_size": 4,
            "global_attn_indexes": [1],
            "mlp_dim": 64,
            "num_pos_feats": 16,
        },
        prompt_encoder_config={"hidden_size": 32, "image_size": 128, "patch_size": 16},
        mask_decoder_config={
            "hidden_size": 32,
            "mlp_dim": 32,
            "num_attention_heads": 8,
            "iou_head_hidden_dim": 32,
        },
    )
    network = SamModel(config).eval()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    teacher = teacher_of("medsam", state, tmp_path / "model.safetensors")
    assert teacher.layout == "transformers SamModel"
    with torch.no_grad():
        images = teacher.preprocessing(noise(1))
        expected = network.get_image_embeddings(images)
        box = torch.tensor([[[0.0, 0, 80, 60]]])
        masks = network(
            image_embeddings=expected,
            input_boxes=box * torch.tensor([128 / 80, 128 / 60] * 2),
            multimask_output=False,
        ).pred_masks
    torch.testing.assert_close(teacher.features(noise(1)), expected, atol=1e-5, rtol=1e-4)
    assert isinstance(teacher, SamTeacher)
    ours = teacher.mask_logits(noise(1), [box[0]])[0]
    torch.testing.assert_close(ours[None, :, None], masks, atol=1e-4, rtol=1e-3)
    state["shared_image_embedding.positional_embedding"] += 1
    with pytest.raises(WeightsMismatch, match="two different"):
        teacher_of("medsam", state, tmp_path / "untied.safetensors")


def test_sams_image_encoder_saved_alone(tiny: dict[str, Path], tmp_path: Path) -> None:
    """As training code that only wants features saves it."""
    whole = load_teacher(load_card("medsam"), tiny["medsam"])
    assert isinstance(whole, SamTeacher)
    alone = teacher_of("medsam", whole.network.image_encoder.state_dict(), tmp_path / "encoder.pth")
    assert alone.layout == "segment-anything's image encoder alone"
    assert isinstance(alone, SamTeacher) and not alone.has_masks
    assert torch.equal(alone.features(noise()), whole.features(noise()))


def test_a_teacher_is_frozen_and_leaves_the_random_state(tiny: dict[str, Path]) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    teacher = load_teacher(load_card("medclip"), tiny["medclip"])
    assert torch.equal(torch.rand(3), expected)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not teacher.train().training
    assert not teacher.features(noise()).requires_grad


@pytest.mark.parametrize("name", REAL)
def test_batches_do_not_matter(tiny: dict[str, Path], name: str) -> None:
    teacher = load_teacher(load_card(name), tiny[name])
    frames = noise(3, 64, 64)
    together = teacher.features(frames)
    assert together.dtype == torch.float32
    assert together.shape == (3, teacher.channels, teacher.grid, teacher.grid)
    apart = torch.cat([teacher.features(frame[None]) for frame in frames])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", REAL)
def test_maps_lie_as_the_picture_lies(tiny: dict[str, Path], name: str) -> None:
    """A change in one corner shows most in that corner of the map: no transposed grids."""
    teacher = load_teacher(load_card(name), tiny[name])
    frames = noise(1, 224, 224) // 4 + 90
    frames[:, 96:112, 96:112], frames[:, 112:128, 112:128] = 0, 255  # the same minimum, maximum
    changed = frames.clone()
    changed[:, :56, 168:] = noise(1, 56, 56)
    difference = (teacher.features(frames) - teacher.features(changed)).abs().sum((0, 1))
    middle = teacher.grid // 2
    corner = difference[:middle, -middle:].mean()
    assert corner > 1.2 * difference[-middle:, :middle].mean()
    assert corner > 1.2 * difference[:middle, :middle].mean()


@pytest.mark.parametrize("name", REAL)
def test_fingerprint_is_stable_and_follows_weights_and_card(
    tiny: dict[str, Path], tmp_path: Path, name: str
) -> None:
    import dataclasses

    card = load_card(name)
    first = load_teacher(card, tiny[name]).fingerprint()
    assert load_teacher(card, tiny[name]).fingerprint() == first
    other = write_tiny_weights(tmp_path, seed=1)[name]
    assert load_teacher(card, other).fingerprint() != first
    changed = dataclasses.replace(card, mean=(0.1,))
    assert load_teacher(changed, tiny[name]).fingerprint() != first


def test_the_fixed_image_stays_fixed() -> None:
    import hashlib

    image = fixed_image().numpy()
    assert image.std() > 30
    assert hashlib.sha256(image.tobytes()).hexdigest()[:12] == "fa01744f0f22"
