"""`vfss teachers`, cards, weight files of strangers, and the adapters of each family."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import BertConfig, Dinov2Config, Dinov2Model, SwinConfig, SwinModel

from conftest import Cli
from tiny_teachers import (
    TINY_SAM,
    dino_memory_state,
    dino_original_state,
    dino_state,
    medclip_resnet_state,
    medclip_state,
    open_clip_state,
    sam_state,
    write_tiny_weights,
)
from vfss_distill.errors import ConfigError, UsageError, WeightsMismatch, WeightsMissing
from vfss_distill.models import PACKAGED_WEIGHTS
from vfss_distill.models.teachers import preprocess, small
from vfss_distill.models.teachers.base import Teacher, fixed_image
from vfss_distill.models.teachers.card import (
    FAMILIES,
    find_weights,
    list_cards,
    load_card,
    require_weights,
    weights_folders,
)
from vfss_distill.models.teachers.checkpoint import open_checkpoint
from vfss_distill.models.teachers.preprocess import Preprocessing, crop, pad, stretch
from vfss_distill.models.teachers.registry import BUILDERS, load_teacher
from vfss_distill.models.teachers.sam import VIT_B, SamTeacher, sam_network

Tensors = dict[str, Tensor]
REAL = ("medsam", "raddino", "medclip")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_tiny_weights(tmp_path_factory.mktemp("tiny"))


def saved(state: Tensors, path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    else:
        torch.save(state, path)
    return path


def teacher_of(name: str, state: Tensors, path: Path) -> Teacher:
    return load_teacher(load_card(name), saved(state, path))


def noise(count: int = 2, height: int = 60, width: int = 80) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, height, width), generator=generator, dtype=torch.uint8)


# ---------------------------------------------------------------------------------- the command


def test_listing_says_what_is_found_and_where(cli: Cli, tmp_path: Path) -> None:
    write_tiny_weights(tmp_path / "weights")
    shown = json.loads(cli("teachers", "--json").stdout)
    assert shown["schema_version"] == 1
    rows = {row["name"]: row for row in shown["teachers"]}
    assert set(rows) >= {*REAL, "biomedclip", "small-sam", "small-dino", "small-clip"}
    assert rows["raddino"]["where"] == "weights/rad-dino/model.safetensors"
    assert rows["biomedclip"]["found"] is False and rows["biomedclip"]["where"] is None
    assert all(row["licence"] and row["source"] and row["file"] for row in rows.values())
    assert str(tmp_path) not in json.dumps(shown)

    words = cli("teachers").stdout
    assert "weights/medsam_vit_b.pth" in words
    assert "https://github.com/bowang-lab/MedSAM" in words


def test_listing_finds_files_of_the_environment_without_naming_folders(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_weights(tmp_path / "Dr Who")
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("VFSS_WEIGHTS", str(tmp_path / "Dr Who"))
    outcome = cli("teachers", "--json", cwd=empty)
    rows = {row["name"]: row for row in json.loads(outcome.stdout)["teachers"]}
    assert rows["medsam"]["where"] == "$VFSS_WEIGHTS/medsam_vit_b.pth"
    assert "Dr Who" not in outcome.stdout


def test_listing_imports_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, typer\nfrom vfss_distill.commands import teachers\n"
        "app = typer.Typer()\nteachers.register(app)\n"
        "try: app(['teachers', '--json'])\nexcept SystemExit: pass\n"
        "print([name for name in ('torch', 'numpy', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.strip().endswith("[]")


def test_check_says_what_a_file_is(cli: Cli, tiny: dict[str, Path]) -> None:
    words = cli("teachers", "check", "medsam", tiny["medsam"]).stdout
    assert "segment-anything" in words and "32 × 8 × 8" in words
    facts = json.loads(cli("teachers", "check", "medclip", tiny["medclip"], "--json").stdout)
    assert facts["layout"] == "MedCLIP, Swin, transformers 4 names"
    assert (facts["channels"], facts["grid"]) == (64, 7)
    assert "logit_scale" in facts["dropped"]
    assert facts["file"] == "pytorch_model.bin" and len(facts["fingerprint"]) == 64


def test_check_without_a_file_takes_the_one_found(cli: Cli, tmp_path: Path) -> None:
    missing = cli("teachers", "check", "raddino")
    assert missing.exit_code == 5
    assert "https://huggingface.co/microsoft/rad-dino" in missing.stderr
    write_tiny_weights(tmp_path / "weights")
    assert "64 × 8 × 8" in cli("teachers", "check", "raddino").stdout


@pytest.mark.parametrize("name", REAL)
def test_check_refuses_another_networks_file(cli: Cli, tiny: dict[str, Path], name: str) -> None:
    for other in set(REAL) - {name}:
        outcome = cli("teachers", "check", name, tiny[other])
        assert outcome.exit_code == 5
        assert tiny[other].name in outcome.stderr and "looks like" in outcome.stderr
        assert outcome.stderr.count("\n") == 1


def test_check_knows_its_usage_errors(cli: Cli, tiny: dict[str, Path], tmp_path: Path) -> None:
    unknown = cli("teachers", "check", "gpt", tiny["medsam"])
    assert unknown.exit_code == 2 and "medsam" in unknown.stderr
    assert cli("teachers", "check", "medsam", tmp_path / "none.pth").exit_code == 5
    (tmp_path / "bad.yaml").write_text("name: Bad\n")
    assert cli("teachers", "check", "bad.yaml", tiny["medsam"]).exit_code == 4


# ---------------------------------------------------------------------------------------- cards


def test_families_of_cards_are_those_that_can_be_built() -> None:
    assert set(FAMILIES) == set(BUILDERS)
    assert {card.family for card in list_cards()} <= set(FAMILIES)


def test_a_wrong_card_names_every_fault(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: My Teacher\nfamily: vgg\nlicence: MIT\nsource: x\nfile: [../w.pth, /etc/w]\n"
        "image_size: '224'\nresize: crop\nintensity: unit\nmean: [1, 2]\nstd: [0]\nsecret: 1\n"
        "folder: /tmp\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_card(str(path))
    faults = ("name", "family", "title", "file.0", "file.1", "image_size", "mean", "std", "secret")
    assert all(f"{fault}:" in str(caught.value) for fault in (*faults, "folder"))
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("text", ["", "- a\n", "name: [", "\x00"])
def test_what_is_no_card_is_a_configuration_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        load_card(str(path))


def lab_card(folder: Path, **changes: object) -> Path:
    import yaml

    facts = {
        "name": "ours",
        "title": "Our DINO",
        "family": "dinov2",
        "licence": "ours",
        "source": "our shelf",
        "file": ["ours.safetensors"],
        "image_size": 112,
        "resize": "pad",
        "intensity": "minmax",
        "mean": [0.4],
        "std": [0.2],
    }
    folder.mkdir(exist_ok=True)
    path = folder / "ours.yaml"
    path.write_text(yaml.safe_dump(facts | changes))
    return path


def test_a_labs_own_card_beside_its_weights_is_a_teacher(tmp_path: Path) -> None:
    path = lab_card(tmp_path / "weights")
    saved(dino_state(), tmp_path / "weights" / "ours.safetensors")
    card = load_card("ours", tmp_path)
    assert card == load_card(str(path))
    weights = require_weights(card, folders=[])
    assert load_teacher(card, weights).features(noise()).shape == (2, 64, 8, 8)
    with pytest.raises(UsageError, match="ours"):
        load_card("nobody", tmp_path)


def test_a_labs_card_replaces_a_packaged_one(tmp_path: Path) -> None:
    lab_card(tmp_path / "weights", name="raddino")
    assert load_card("raddino", tmp_path).licence == "ours"
    assert load_card("raddino").licence == "MIT"


def test_weights_are_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = tmp_path / "there", tmp_path / "more"
    monkeypatch.setenv("VFSS_WEIGHTS", os.pathsep.join(map(str, (here, there))))
    assert weights_folders(tmp_path) == [tmp_path / "weights", here, there, PACKAGED_WEIGHTS]
    card = load_card("medsam")
    assert find_weights(card, folders=weights_folders(tmp_path)) is None
    for folder in (there, here, tmp_path / "weights"):
        folder.mkdir()
        (folder / "medsam_vit_b.pth").touch()
        assert find_weights(card, folders=weights_folders(tmp_path)) == folder / card.file[0]
    with pytest.raises(WeightsMissing, match="Apache"):
        require_weights(card, folders=[])


# ---------------------------------------------------------------------------------- weight files


class Evil:
    """A pickle that would leave a mark if its code ran."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


def test_code_in_a_weights_file_is_refused_and_not_run(cli: Cli, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    for number, write in enumerate((torch.save, _bare_pickle, _old_torch)):
        path = tmp_path / f"evil{number}.pth"
        write({"model": sam_state(), "loss": Evil(mark)}, path)
        outcome = cli("teachers", "check", "medsam", path)
        assert outcome.exit_code == 5
        assert path.name in outcome.stderr and "code" in outcome.stderr
    assert not mark.exists()


def _bare_pickle(value: object, path: Path) -> None:
    path.write_bytes(pickle.dumps({"loss": value["loss"]}))  # type: ignore[index]


def _old_torch(value: object, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


def test_torchscript_is_refused_as_code(tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), str(path))
    with pytest.raises(WeightsMismatch, match="code"):
        open_checkpoint(path)


def _zip(inner: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(inner, "x")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "LFS"),
        (b"<!DOCTYPE html><html>Sign in</html>", "no weights file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "no weights file"),
        (_zip("pytorch_model.bin"), "Unpack"),
        (_zip("readme.txt"), "zip"),
        (b"\x80\x02}q\x00.", "damaged|tensors"),
        ((20).to_bytes(8, "little") + b'{"a":{"dtype":"F32"}', "damaged"),
    ],
)
def test_what_is_no_weights_file_is_refused(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(content)
    with pytest.raises(WeightsMismatch, match=word) as caught:
        open_checkpoint(path)
    assert caught.value.file == "weights.bin"


@settings(max_examples=25, deadline=None)
@given(share=st.floats(0, 0.999), kind=st.sampled_from(["zip", "legacy", "safetensors"]))
def test_a_truncated_file_is_refused(
    tmp_path_factory: pytest.TempPathFactory, share: float, kind: str
) -> None:
    state = {"a.weight": torch.rand(40, 50), "b.bias": torch.rand(9)}
    path = tmp_path_factory.mktemp("cut") / ("w.safetensors" if kind == "safetensors" else "w.pth")
    if kind == "legacy":
        _old_torch(state, path)
    else:
        saved(state, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(WeightsMismatch):
        open_checkpoint(path)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = sam_state()
    state["image_encoder.neck.1.bias"][3] = float("nan")
    with pytest.raises(WeightsMismatch, match=r"neck\.1\.bias"):
        teacher_of("medsam", state, tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("tensor", "word"),
    [
        (torch.zeros(32, device="meta"), "without values"),
        (torch.zeros(32).to_sparse(), "sparse"),
        (torch.zeros(32, dtype=torch.int64), "kind of number"),
        (torch.zeros(32, dtype=torch.complex64), "kind of number"),
    ],
)
def test_tensors_of_odd_kinds_are_refused(tmp_path: Path, tensor: Tensor, word: str) -> None:
    state = sam_state() | {"image_encoder.neck.1.bias": tensor}
    with pytest.raises(WeightsMismatch, match=word):
        teacher_of("medsam", state, tmp_path / "odd.pth")


@pytest.mark.parametrize("value", [torch.zeros(3), [torch.zeros(3)], {"a": 1}, {"model": {}}])
def test_what_holds_no_named_tensors_is_refused(tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / "none.pth")
    with pytest.raises(WeightsMismatch, match="no tensors"):
        open_checkpoint(tmp_path / "none.pth")


def _wrapped(state: Tensors) -> dict[str, object]:
    return {
        "model": {f"module.{name}": tensor for name, tensor in state.items()},
        "optimizer": {"state": {0: torch.zeros(3)}},
        "epoch": 7,
    }


@pytest.mark.parametrize(
    "wrap",
    [
        _wrapped,
        lambda state: {"state_dict": state},
        lambda state: {f"module._orig_mod.{name}": tensor for name, tensor in state.items()},
        lambda state: {name: tensor.half() for name, tensor in state.items()},
    ],
    ids=["raw training", "state_dict", "compiled parallel", "half"],
)
def test_wrapped_checkpoints_load_alike(
    tmp_path: Path, wrap: Callable[[Tensors], dict[str, object]]
) -> None:
    plain = teacher_of("medsam", sam_state(), tmp_path / "plain.pth")
    path = tmp_path / "wrapped.pth"
    torch.save(wrap(sam_state()), path)
    wrapped = load_teacher(load_card("medsam"), path)
    assert next(wrapped.parameters()).dtype == torch.float32
    half = not wrapped.unwrapped
    torch.testing.assert_close(
        plain.features(noise()), wrapped.features(noise()), atol=0.05 if half else 0, rtol=0
    )


# ------------------------------------------------------------------------------------ coverage


STATES: dict[str, tuple[str, Callable[[], Tensors], str]] = {
    "sam": ("medsam", sam_state, "image_encoder.blocks.1.mlp.lin2.bias"),
    "dino disk": ("raddino", dino_state, "encoder.layer.1.layer_scale2.lambda1"),
    "dino memory": ("raddino", dino_memory_state, "encoder.layer.1.attention.o_proj.bias"),
    "dino original": ("raddino", dino_original_state, "blocks.1.attn.qkv.bias"),
    "medclip": ("medclip", medclip_state, "vision_model.model.layernorm.bias"),
    "open_clip": ("biomedclip", open_clip_state, "visual.trunk.blocks.1.norm2.weight"),
}


@pytest.mark.parametrize("which", STATES)
def test_incomplete_spare_or_mis_shaped_tensors_are_refused(tmp_path: Path, which: str) -> None:
    name, build, victim = STATES[which]
    whole = build()
    lacking = {key: tensor for key, tensor in whole.items() if key != victim}
    last = victim.rpartition(".")[0].rpartition(".")[2]
    with pytest.raises(WeightsMismatch, match="missing") as caught:
        teacher_of(name, lacking, tmp_path / "lacking.pth")
    assert last in str(caught.value) or "q_proj.bias" in str(caught.value)
    with pytest.raises(WeightsMismatch, match=r"1 unexpected \(.*surprise"):
        teacher_of(name, {**whole, "surprise.weight": torch.zeros(2)}, tmp_path / "spare.pth")
    with pytest.raises(WeightsMismatch, match="another shape"):
        misshaped = {**whole, victim: torch.zeros(*whole[victim].shape[:-1], 999)}
        teacher_of(name, misshaped, tmp_path / "misshaped.pth")


def test_every_single_tensor_of_a_tower_is_needed(tmp_path: Path) -> None:
    state = medclip_state()
    tower = [name for name in state if name.startswith("vision_model.") and "_index" not in name]
    assert len(tower) > 40
    for victim in tower:
        lacking = {name: tensor for name, tensor in state.items() if name != victim}
        with pytest.raises(WeightsMismatch):
            teacher_of("medclip", lacking, tmp_path / "lacking.bin")


def test_shapes_that_no_network_has_are_a_fault_of_the_file(tmp_path: Path) -> None:
    state = sam_state()
    state["image_encoder.neck.0.weight"] = torch.zeros(7, 32, 1, 1)
    with pytest.raises(WeightsMismatch, match="describes no network"):
        teacher_of("medsam", state, tmp_path / "odd.pth")


def test_other_kinds_are_named(tmp_path: Path) -> None:
    lite = {"image_encoder.patch_embed.seq.0.c.weight": torch.zeros(32, 3, 1, 1)}
    with pytest.raises(WeightsMismatch, match="TinyViT"):
        teacher_of("medsam", lite, tmp_path / "lite.pth")
    with_registers = {**dino_state(), "embeddings.register_tokens": torch.zeros(1, 4, 64)}
    with pytest.raises(WeightsMismatch, match="register"):
        teacher_of("raddino", with_registers, tmp_path / "registers.safetensors")


# ------------------------------------------------------------------------------------- adapters


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


# --------------------------------------------------------------------------------- preprocessing


def picture(height: int, width: int) -> np.ndarray:
    generator = np.random.default_rng(height * width)
    y, x = np.mgrid[:height, :width]
    smooth = 120 + 80 * np.sin(x / 9) * np.cos(y / 13)
    smooth[: height // 3, : width // 4] = 255  # an edge that makes cubic kernels overshoot
    return np.clip(smooth + generator.normal(0, 12, (height, width)), 0, 255).astype(np.uint8)


SIZES = [(512, 512), (240, 320), (700, 1100), (61, 97)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_medsam_stretches_as_skimage_does(height: int, width: int) -> None:
    """skimage.transform.resize(order=3, anti_aliasing=True, preserve_range=True).astype(uint8),
    written out with scipy in two dimensions, so that skimage itself is not needed.
    """
    from scipy import ndimage

    image = picture(height, width)
    size = 1024
    factors = np.array(image.shape) / size
    sigma = np.maximum(0, (factors - 1) / 2)
    blurred = ndimage.gaussian_filter(image.astype(float), sigma, mode="mirror")
    zoomed = ndimage.zoom(blurred, 1 / factors, order=3, mode="mirror", grid_mode=True)
    expected = np.clip(zoomed, image.min(), image.max()).astype(np.uint8)
    ours = stretch(torch.from_numpy(image)[None], size)[0].numpy()
    assert np.abs(ours - expected).max() <= 1
    assert (ours != expected).mean() < 1e-3
    images = Preprocessing.of(load_card("medsam"), size)(torch.from_numpy(image)[None])
    low, high = float(expected.min()), float(expected.max())
    np.testing.assert_allclose(images[0, 1], (expected - low) / (high - low), atol=1.01 / 255)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_raddino_crops_as_its_processor_does(height: int, width: int) -> None:
    image = picture(height, width)
    size, short = 518, min(height, width)
    scaled = Image.fromarray(image).resize(
        (size * width // short, size * height // short), Image.Resampling.BICUBIC
    )
    top, left = (scaled.height - size) // 2, (scaled.width - size) // 2
    expected = np.asarray(scaled, float)[top : top + size, left : left + size]
    ours = crop(torch.from_numpy(image)[None], size)[0].numpy()
    assert np.abs(ours - expected).max() <= 1
    images = Preprocessing.of(load_card("raddino"), size)(torch.from_numpy(image)[None])
    assert images.shape == (1, 3, size, size)
    np.testing.assert_allclose(images[0, 2], (expected / 255 - 0.5307) / 0.2583, atol=0.016)


def test_raddino_agrees_with_transformers_own_processor() -> None:
    from transformers import BitImageProcessor

    processor = BitImageProcessor(
        size={"shortest_edge": 518},
        crop_size={"height": 518, "width": 518},
        resample=3,
        image_mean=[0.5307] * 3,
        image_std=[0.2583] * 3,
    )
    image = picture(240, 320)
    expected = processor(Image.fromarray(image).convert("RGB"), return_tensors="pt").pixel_values
    ours = Preprocessing.of(load_card("raddino"), 518)(torch.from_numpy(image)[None])
    # One grey level is 1 / 255 / 0.2583 = 0.0152; an odd margin may shift the crop by a pixel.
    assert (ours - expected).abs().mean() < 0.01


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_medclip_pads_as_its_processor_does(height: int, width: int) -> None:
    image = picture(height, width)
    side = max(224, height, width)
    square = Image.new("L", (side, side), 0)
    square.paste(Image.fromarray(image), (int((side - width) / 2), int((side - height) / 2)))
    expected = np.asarray(square.resize((224, 224), Image.Resampling.BICUBIC), float)
    ours = pad(torch.from_numpy(image)[None], 224)[0].numpy()
    assert np.abs(ours - expected).max() <= 1
    images = Preprocessing.of(load_card("medclip"), 224)(torch.from_numpy(image)[None])
    mean, std = 0.5862785803043838, 0.27950088968644304
    np.testing.assert_allclose(images[0, 0], (expected / 255 - mean) / std, atol=0.015)


def test_biomedclip_uses_one_mean_per_channel() -> None:
    blank = torch.full((1, 300, 200), 255, dtype=torch.uint8)
    images = Preprocessing.of(load_card("biomedclip"), 224)(blank)
    expected = [(1 - 0.48145466) / 0.26862954, (1 - 0.4578275) / 0.26130258]
    assert images.shape == (1, 3, 224, 224)
    np.testing.assert_allclose(images[0, :2, 5, 5], expected, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(0, 255),
    st.sampled_from(["stretch", "crop", "pad"]),
    st.sampled_from(["unit", "minmax"]),
)
def test_any_size_and_a_blank_frame_give_finite_images(
    height: int, width: int, grey: int, resize: str, intensity: str
) -> None:
    frames = torch.full((2, height, width), grey, dtype=torch.uint8)
    rule = Preprocessing(32, resize, intensity, (0.0,), (1.0,))
    images = rule(frames)
    assert images.shape == (2, 3, 32, 32) and images.dtype == torch.float32
    assert images.min() >= 0 and images.max() <= 1


def test_frames_must_be_raw_grey() -> None:
    rule = Preprocessing.of(load_card("medsam"), 64)
    for wrong in (torch.zeros(2, 8, 8), torch.zeros(8, 8, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            rule(wrong)


def test_resize_weights_keep_brightness() -> None:
    for weights in (preprocess._cubic(97, 40), preprocess._spline(97, 40)):
        torch.testing.assert_close(weights.sum(1), torch.ones_like(weights[:, 0]))


# --------------------------------------------------------------------------------- small teachers


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
