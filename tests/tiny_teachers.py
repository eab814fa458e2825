"""Tiny random weights in the published layouts of the big teachers, for tests.

    write_tiny_weights(workspace / "weights")  # then `--teachers medsam,raddino,medclip` works

Random, so they teach nothing; but they go through the same adapters as the real files.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import BertConfig, BertModel, Dinov2Config, Dinov2Model, SwinConfig

from vfss_distill.models.teachers import dinov2, medclip
from vfss_distill.models.teachers.base import Teacher
from vfss_distill.models.teachers.card import load_card
from vfss_distill.models.teachers.medclip import ResNetTower, SwinTower
from vfss_distill.models.teachers.open_clip import VisualTower
from vfss_distill.models.teachers.registry import load_teacher
from vfss_distill.models.teachers.sam import SamConfig, sam_network

Tensors = dict[str, Tensor]

TINY_SAM = SamConfig(
    image_size=128,
    patch=16,
    embed_dim=32,
    depth=2,
    heads=2,
    mlp_dim=64,
    out_channels=32,
    window=4,
    global_blocks=(1,),
    decoder_mlp_dim=32,
    iou_hidden_dim=32,
)
TINY_DINO = Dinov2Config(
    hidden_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=112, patch_size=14
)
TINY_SWIN = SwinConfig(
    image_size=224, patch_size=4, embed_dim=8, depths=[1, 2, 1, 1], num_heads=[1, 2, 2, 4]
)


def write_tiny_weights(folder: Path, seed: int = 0) -> dict[str, Path]:
    """medsam_vit_b.pth, rad-dino/{model.safetensors,config.json}, medclip/pytorch_model.bin.

    Returns the files by teacher name. Together about 1 MB; the same seed gives the same tensors.
    """
    files = {
        "medsam": folder / "medsam_vit_b.pth",
        "raddino": folder / "rad-dino" / "model.safetensors",
        "medclip": folder / "medclip" / "pytorch_model.bin",
    }
    for file in files.values():
        file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(sam_state(seed=seed), files["medsam"])
    save_file(dino_state(seed=seed), files["raddino"])
    (folder / "rad-dino" / "config.json").write_text(
        json.dumps({"hidden_size": 64, "num_attention_heads": 2})
    )
    torch.save(medclip_state(seed=seed), files["medclip"])
    return files


def sam_state(config: SamConfig = TINY_SAM, seed: int = 0) -> Tensors:
    """As segment-anything saves a Sam."""
    return random_state(lambda: sam_network(config), seed)


def dino_state(config: Dinov2Config = TINY_DINO, seed: int = 0) -> Tensors:
    """As transformers writes model.safetensors."""
    return dinov2.to_published(dino_memory_state(config, seed))


def dino_memory_state(config: Dinov2Config = TINY_DINO, seed: int = 0) -> Tensors:
    """As transformers 5 names a Dinov2Model in memory."""
    return random_state(lambda: Dinov2Model(config), seed)


def dino_original_state(config: Dinov2Config = TINY_DINO, seed: int = 0) -> Tensors:
    """As the original DINOv2 code names them: backbone_compatible.safetensors."""
    renames = (
        ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
        ("embeddings.position_embeddings", "pos_embed"),
        ("embeddings.", ""),
        ("encoder.layer.", "blocks."),
        ("attention.output.dense", "attn.proj"),
        ("layer_scale1.lambda1", "ls1.gamma"),
        ("layer_scale2.lambda1", "ls2.gamma"),
        ("layernorm.", "norm."),
    )
    state = dino_state(config, seed)
    original = {}
    for name, tensor in state.items():
        stem, query, kind = name.partition(".attention.attention.query.")
        if query:
            parts = [state[f"{stem}.attention.attention.{p}.{kind}"] for p in _QKV]
            name, tensor = f"{stem}.attn.qkv.{kind}", torch.cat(parts)
        elif ".attention.attention." in name:
            continue
        for old, new in renames:
            name = name.replace(old, new)
        original[name] = tensor
    return original


_QKV = ("query", "key", "value")


def medclip_state(
    config: SwinConfig = TINY_SWIN,
    embedding: int = 16,
    seed: int = 0,
    bert: BertConfig | None = None,
) -> Tensors:
    """As MedCLIP's pytorch_model.bin: old Swin names with index buffers, the text tower, scale."""

    def build() -> nn.Module:
        both = nn.Module()
        both.vision_model = SwinTower(config, embedding)
        return both

    state = medclip.to_published(random_state(build, seed))
    window = config.window_size
    published = {}
    for name, tensor in state.items():
        published[name] = tensor
        if name.endswith(".relative_position_bias_table"):
            index = torch.zeros(window**2, window**2, dtype=torch.int64)
            published[name.replace("_bias_table", "_index")] = index
    text = "text_model.model."
    if bert is not None:
        words = random_state(lambda: BertModel(bert), seed)
        published |= {f"{text}{name}": tensor for name, tensor in words.items()}
        width = bert.hidden_size
    else:
        width = 8
        published[f"{text}embeddings.word_embeddings.weight"] = torch.zeros(10, width)
    published[f"{text}embeddings.position_ids"] = torch.arange(512)[None]
    published["text_model.projection_head.weight"] = torch.zeros(embedding, width)
    published["logit_scale"] = torch.tensor(2.66)
    return published


def medclip_resnet_state(seed: int = 0) -> Tensors:
    """As MedCLIP's ResNet-50 variant; this one is full size (100 MB in memory)."""

    def build() -> nn.Module:
        both = nn.Module()
        both.vision_model = ResNetTower(512)
        return both

    state = random_state(build, seed)
    return {**state, "text_model.projection_head.weight": torch.zeros(512, 8)}


def open_clip_state(seed: int = 0) -> Tensors:
    """As open_clip saves BiomedCLIP, tiny: image tower and the names of a text tower."""
    from timm.models.vision_transformer import VisionTransformer

    def build() -> nn.Module:
        both = nn.Module()
        trunk = VisionTransformer(
            img_size=64, patch_size=16, embed_dim=64, depth=2, num_heads=1, num_classes=0
        )
        both.visual = VisualTower(trunk, 16)
        return both

    text = {"text.proj.0.weight": torch.zeros(4, 4), "logit_scale": torch.tensor(4.6)}
    return {**random_state(build, seed), **text}


def random_state(build: object, seed: int) -> Tensors:
    """State dict of `build()` with seeded values that leave no tensor at all-zero."""
    assert callable(build)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = build().state_dict()
        return {
            name: tensor + 0.02 * torch.randn_like(tensor) ** 2
            if tensor.is_floating_point()
            else tensor
            for name, tensor in state.items()
        }


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


def lab_card(folder: Path, **changes: object) -> Path:
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
