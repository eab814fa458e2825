"""Any network of transformers becomes a teacher by a card alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel

from card_networks import (
    NETWORKS,
    VIT,
    load,
    noise,
    published,
    refuse_sockets,
    write_card,
)
from vfss_distill.errors import ConfigError, WeightsMismatch


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_sockets(monkeypatch)


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
