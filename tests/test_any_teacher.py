"""Any teacher by a card alone: networks of transformers, timm and open_clip, saved small in the
layouts of their authors and read back through a card file.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from conftest import ROOT, Cli
from tiny_teachers import open_clip_state
from vfss_distill.errors import ConfigError, WeightsMismatch
from vfss_distill.models.teachers.base import Teacher
from vfss_distill.models.teachers.card import load_card
from vfss_distill.models.teachers.open_clip import build_tower
from vfss_distill.models.teachers.registry import load_teacher

Tensors = dict[str, Tensor]
CARDS = ROOT / "examples" / "cards"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def write_card(folder: Path, **fields: Any) -> Path:
    facts = {
        "name": "any",
        "title": "Any",
        "licence": "MIT",
        "source": "a shelf",
        "file": ["model.safetensors"],
        "image_size": 64,
        "resize": "crop",
        "intensity": "unit",
        "mean": [0.45],
        "std": [0.25],
    }
    path = folder / "any.yaml"
    path.write_text(yaml.safe_dump(facts | fields))
    return path


def load(card: Path, weights: Path) -> Teacher:
    return load_teacher(load_card(str(card)), weights)


def noise(side: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(side)
    return torch.randint(0, 256, (2, side, side), generator=generator, dtype=torch.uint8)


# ---------------------------------------------------------------------------------- transformers

VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 64,
    "patch_size": 16,
}
DINO = VIT | {"mlp_ratio": 2}
STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
# model_type → configuration, (channels, grid), tokens before the patches
NETWORKS: dict[str, tuple[dict[str, Any], tuple[int, int], int]] = {
    "vit": (VIT, (32, 4), 1),
    "deit": (VIT, (32, 4), 2),
    "beit": (VIT, (32, 4), 1),
    "dinov2": (DINO, (32, 4), 1),
    "dinov2_with_registers": (DINO | {"num_register_tokens": 4}, (32, 4), 5),
    "dinov3_vit": (VIT | {"num_register_tokens": 3}, (32, 4), 4),
    "dinov3_convnext": (STAGES, (32, 2), 1),
    "siglip_vision_model": (VIT, (32, 4), 0),
    "clip_vision_model": (VIT, (32, 4), 1),
    "swin": (
        {
            "image_size": 64,
            "embed_dim": 8,
            "depths": [1, 1],
            "num_heads": [1, 2],
            "window_size": 4,
        },
        (16, 8),
        0,
    ),
    "convnext": (STAGES, (32, 2), 0),
    "convnextv2": (STAGES, (32, 2), 0),
    "resnet": (STAGES | {"embedding_size": 8, "layer_type": "basic"}, (32, 2), 0),
}


def published(kind: str, folder: Path) -> nn.Module:
    """A small random network, with model.safetensors and config.json as the library saves them."""
    torch.manual_seed(len(kind))
    network = AutoModel.from_config(AutoConfig.for_model(kind, **NETWORKS[kind][0])).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    network.save_pretrained(folder)
    return network


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_network_of_transformers_gives_the_librarys_own_states(tmp_path: Path, kind: str) -> None:
    network = published(kind, tmp_path)
    teacher = load(write_card(tmp_path, family="transformers"), tmp_path / "model.safetensors")
    maps = teacher.features(noise())
    _, (channels, grid), first = NETWORKS[kind]
    assert maps.shape == (2, channels, grid, grid) and maps.dtype == torch.float32
    with torch.no_grad():
        states = network(teacher.preprocessing(noise())).last_hidden_state
    flat = states.flatten(2).transpose(1, 2) if states.ndim == 4 else states[:, first:]
    torch.testing.assert_close(maps.flatten(2).transpose(1, 2), flat)
    assert teacher.describe()["layout"] == f"transformers {kind}"
    assert len(teacher.fingerprint()) == 64


@pytest.mark.parametrize("kind", ["dinov3_vit", "swin", "convnext"])
def test_an_earlier_stage(tmp_path: Path, kind: str) -> None:
    published(kind, tmp_path)
    card = write_card(tmp_path, family="transformers", stage=1)
    teacher = load(card, tmp_path / "model.safetensors")
    assert (teacher.channels, teacher.grid) == {"dinov3_vit": (32, 4)}.get(kind, (8, 16))
    with pytest.raises(ConfigError, match="stage"):
        load(write_card(tmp_path, family="transformers", stage=9), tmp_path / "model.safetensors")


def test_halves_and_the_configuration_in_the_card(tmp_path: Path) -> None:
    published("vit", tmp_path)
    whole = load(write_card(tmp_path, family="transformers"), tmp_path / "model.safetensors")
    state = load_file(tmp_path / "model.safetensors")
    alone = tmp_path / "alone"
    alone.mkdir()
    save_file({n: t.half() for n, t in state.items()}, alone / "model.safetensors")
    card = write_card(alone, family="transformers", config={"model_type": "vit", **VIT})
    half = load(card, alone / "model.safetensors")
    assert {p.dtype for p in half.parameters()} == {torch.float32}
    torch.testing.assert_close(
        half.features(noise()), whole.features(noise()), atol=2e-2, rtol=2e-2
    )


def test_the_image_tower_of_siglip_and_a_lab_module_around_a_vit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    both = AutoModel.from_config(
        AutoConfig.for_model(
            "siglip",
            vision_config=VIT,
            text_config={k: v for k, v in VIT.items() if "size" not in k or "hidden" in k}
            | {"vocab_size": 20, "intermediate_size": 64, "max_position_embeddings": 8},
        )
    ).eval()
    both.save_pretrained(tmp_path)
    drop = ["text_model.*", "logit_*"]
    teacher = load(
        write_card(tmp_path, family="transformers", drop=drop), tmp_path / "model.safetensors"
    )
    assert any(name.startswith("text_model.") for name in teacher.dropped)
    with torch.no_grad():
        states = both.vision_model(teacher.preprocessing(noise())).last_hidden_state
    torch.testing.assert_close(teacher.features(noise()).flatten(2).transpose(1, 2), states)

    network = published("vit", tmp_path)
    module = {f"encoder.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save(
        {"state_dict": {**module, "head.weight": torch.ones(3, 32)}, "epoch": 3},
        tmp_path / "last.ckpt",
    )
    teacher = load(
        write_card(tmp_path, family="transformers", prefix="encoder."), tmp_path / "last.ckpt"
    )
    assert teacher.dropped == ("head.weight",)
    with torch.no_grad():
        states = network(teacher.preprocessing(noise())).last_hidden_state
    torch.testing.assert_close(teacher.features(noise())[:, :, 0, 1], states[:, 2])


def test_what_transformers_would_leave_random_is_refused(tmp_path: Path) -> None:
    published("dinov2", tmp_path)
    card = write_card(tmp_path, family="transformers")
    file = tmp_path / "model.safetensors"
    whole = load_file(file)
    victim = "encoder.layer.1.mlp.fc1.bias"
    save_file({n: t for n, t in whole.items() if n != victim}, file)
    with pytest.raises(WeightsMismatch, match=rf"1 missing \({victim}\)"):
        load(card, file)
    save_file(whole | {"surprise.weight": torch.zeros(2)}, file)
    with pytest.raises(WeightsMismatch, match=r"1 unexpected \(surprise"):
        load(card, file)
    save_file(whole | {victim: torch.zeros(3)}, file)
    with pytest.raises(WeightsMismatch, match=r"fc1.bias \[3\] instead of \[64\]"):
        load(card, file)


@pytest.mark.parametrize(
    ("said", "word"),
    [
        (None, "no readable config.json"),
        ("[1", "no readable config.json"),
        ({"model_type": "upernet", "backbone": "resnet50"}, "upernet"),
        ({**VIT}, "model_type None"),
        ({"model_type": "vit", **VIT, "num_attention_heads": "many"}, "config of vit is wrong"),
        ({"model_type": "vit", "quantization_config": {"quant_method": "x"}}, "quantised"),
    ],
)
def test_a_configuration_that_says_nothing_useful(tmp_path: Path, said: object, word: str) -> None:
    published("vit", tmp_path)
    (tmp_path / "config.json").unlink()
    if said is not None:
        text = said if isinstance(said, str) else json.dumps(said)
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=word):
        load(write_card(tmp_path, family="transformers"), tmp_path / "model.safetensors")


def test_a_configuration_that_names_code_runs_none(tmp_path: Path) -> None:
    published("vit", tmp_path)
    marker = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(marker)!r}, 'w')\n")
    said = json.loads((tmp_path / "config.json").read_text())
    said |= {"auto_map": {"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil"}}
    said["_attn_implementation"] = "somebody/kernels"
    (tmp_path / "config.json").write_text(json.dumps(said))
    teacher = load(write_card(tmp_path, family="transformers"), tmp_path / "model.safetensors")
    assert teacher.grid == 4
    assert not marker.exists()


def test_a_size_the_positions_do_not_fit_is_a_fault_of_the_card(tmp_path: Path) -> None:
    published("vit", tmp_path)
    with pytest.raises(ConfigError, match="image_size"):
        load(
            write_card(tmp_path, family="transformers", image_size=96),
            tmp_path / "model.safetensors",
        )


# ------------------------------------------------------------------------------------------ timm

SMALL_VIT = {"embed_dim": 32, "depth": 3, "num_heads": 2, "patch_size": 16}
# architecture, arguments, stage → (channels, grid) at 64 pixels
TIMM = [
    ("lcnet_050", {}, None, (256, 2)),
    ("lcnet_050", {"in_chans": 1}, 3, (64, 8)),
    ("convnext_atto", {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}, 2, (8, 8)),
    ("vit_tiny_patch16_224", SMALL_VIT, None, (32, 4)),
    ("vit_tiny_patch16_224", SMALL_VIT, 2, (32, 4)),
    (
        "swin_tiny_patch4_window7_224",
        {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4},
        None,
        (16, 8),
    ),
]


@pytest.mark.parametrize(("architecture", "arguments", "stage", "shape"), TIMM)
def test_a_network_of_timm(
    tmp_path: Path,
    architecture: str,
    arguments: dict[str, Any],
    stage: int | None,
    shape: tuple[int, int],
) -> None:
    known = timm.models.get_pretrained_cfg(architecture)
    size = {"img_size": 64} if known.fixed_input_size else {}
    network = timm.create_model(architecture, num_classes=5, **arguments, **size).eval()
    torch.save({"model": network.state_dict(), "epoch": 1}, tmp_path / "net.pth")
    fields = {"architecture": architecture, "arguments": arguments, "stage": stage}
    teacher = load(write_card(tmp_path, family="timm", **fields), tmp_path / "net.pth")
    maps = teacher.features(noise())
    assert maps.shape[1:] == (*shape, shape[1])
    assert (teacher.channels, teacher.grid) == shape
    assert all(".fc." in f".{n}" or "head" in n or "classifier" in n for n in teacher.dropped)
    images = teacher.preprocessing(noise())[:, : arguments.get("in_chans", 3)]
    with torch.no_grad():
        every = network.forward_intermediates(images, norm=True, intermediates_only=True)
    expected = every[stage - 1 if stage else -1]
    if expected.shape[1] != shape[0]:
        expected = expected.permute(0, 3, 1, 2)
    torch.testing.assert_close(maps, expected)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"architecture": "no_such_net"}, "no_such_net"),
        ({"architecture": "hf-hub:somebody/net"}, "hf-hub"),
        ({"architecture": "lcnet_050", "arguments": {"pretrained": True}}, "pretrained"),
        ({"architecture": "lcnet_050", "arguments": {"no_such": 1}}, "no_such"),
        ({"architecture": "vit_tiny_patch16_224"}, "150 missing"),
        ({"architecture": "lcnet_050", "stage": 7}, "stage"),
    ],
)
def test_a_card_of_timm_that_cannot_be(tmp_path: Path, fields: dict[str, Any], word: str) -> None:
    torch.manual_seed(0)
    network = timm.create_model("lcnet_050")
    torch.save(network.state_dict(), tmp_path / "net.pth")
    with pytest.raises((ConfigError, WeightsMismatch), match=word):
        load(write_card(tmp_path, family="timm", **fields), tmp_path / "net.pth")


def test_a_prefix_nobody_bears(tmp_path: Path) -> None:
    torch.save(timm.create_model("lcnet_050").state_dict(), tmp_path / "net.pth")
    card = write_card(tmp_path, family="timm", architecture="lcnet_050", prefix="encoder.")
    with pytest.raises(WeightsMismatch, match=r"begins with 'encoder\.' \(the first are conv_stem"):
        load(card, tmp_path / "net.pth")


# ------------------------------------------------------------------------------------- open_clip

TOWERS: dict[str, dict[str, Any]] = {
    "its own ViT": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16},
    "its ResNet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32},
    "a ConvNeXt of timm": {"timm_model_name": "convnext_atto", "image_size": 64},
}


@pytest.mark.parametrize("which", TOWERS)
def test_a_tower_of_open_clip(tmp_path: Path, which: str) -> None:
    config = {"embed_dim": 32, "vision_cfg": TOWERS[which]}
    fields = {"family": "open_clip", "drop": ["text_projection", "logit_scale"]}
    card = load_card(str(write_card(tmp_path, **fields)))
    tower = build_tower(card, config).eval()
    state = {f"visual.{name}": tensor for name, tensor in tower.state_dict().items()}
    texts = {"text_projection": torch.zeros(4, 4), "logit_scale": torch.tensor(4.6)}
    save_file({**state, **texts}, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match="architecture"):
        load_teacher(card, tmp_path / "model.safetensors")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    beside = load_teacher(card, tmp_path / "model.safetensors")
    (tmp_path / "open_clip_config.json").unlink()
    inside = load(write_card(tmp_path, **fields, config=config), tmp_path / "model.safetensors")
    maps = beside.features(noise())
    assert torch.equal(maps, inside.features(noise()))
    assert maps.shape == (2, beside.channels, beside.grid, beside.grid)
    with torch.no_grad():
        vectors = nn.functional.normalize(tower(beside.preprocessing(noise())), dim=-1)
    torch.testing.assert_close(beside.pooled(noise()), vectors)


def test_open_clips_own_names(tmp_path: Path) -> None:
    save_file({"visual.conv1.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match="ViT-Z-99"):
        load(
            write_card(tmp_path, family="open_clip", architecture="ViT-Z-99"),
            tmp_path / "model.safetensors",
        )
    with pytest.raises(WeightsMismatch, match="of 152 tensors: 151 missing"):
        load(
            write_card(tmp_path, family="open_clip", architecture="ViT-B-32", image_size=224),
            tmp_path / "model.safetensors",
        )


# --------------------------------------------------------------------------------- cards, examples


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"family": "timm"}, "architecture"),
        ({"family": "sam", "stage": 2}, "`stage` means nothing"),
        ({"family": "sam", "config": {"model_type": "vit"}}, "`config` means nothing"),
        ({"family": "dinov2", "prefix": "x."}, "`prefix` means nothing"),
        ({"family": "medclip", "stage": 5}, "1 to 4"),
        ({"family": "open_clip", "architecture": "a", "config": {"b": 1}}, "contradict"),
    ],
)
def test_fields_that_a_family_does_not_read(
    tmp_path: Path, fields: dict[str, Any], word: str
) -> None:
    with pytest.raises(ConfigError, match=word):
        load_card(str(write_card(tmp_path, **fields)))


def test_every_example_card_becomes_a_teacher(cli: Cli, tmp_path: Path) -> None:
    """Small networks in place of the published ones, where the card expects them."""
    weights = tmp_path / "weights"
    weights.mkdir()
    for card in CARDS.glob("*.yaml"):
        (weights / card.name).write_bytes(card.read_bytes())
    clip = weights / "biomedclip"
    clip.mkdir()
    torch.save(open_clip_state(), clip / "open_clip_pytorch_model.bin")
    published("dinov2", weights / "dinov2-base")
    published("dinov3_vit", weights / "dinov3-vits16")
    ours = timm.create_model("resnet18", in_chans=1, num_classes=0)
    state = {f"encoder.{name}": tensor for name, tensor in ours.state_dict().items()}
    (weights / "our-lab").mkdir()
    torch.save({"state_dict": state, "epoch": 9}, weights / "our-lab" / "last.ckpt")
    expected = {
        "biomedclip": (64, 4),
        "dinov2": (32, 518 // 16),
        "dinov3": (32, 32),
        "our-lab": (256, 20),
    }
    assert {card.stem for card in CARDS.glob("*.yaml")} == set(expected)
    for name, (channels, grid) in expected.items():
        checked = cli("teachers", "check", name, "--json", cwd=tmp_path)
        assert checked.exit_code == 0, checked.stderr
        told = json.loads(checked.stdout)
        assert (told["channels"], told["grid"]) == (channels, grid), name
    listed = cli("teachers", cwd=tmp_path)
    assert "dinov3" in listed.stdout and "weights/our-lab/last.ckpt" in listed.stdout
