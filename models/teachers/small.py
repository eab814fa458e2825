"""The three small teachers the package brings: same families, same adapters, a laptop's size.

These are the networks as their families build them, untrained, for the training scripts;
`save_published_layout` writes them as their family publishes weights, for the adapters to load.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from segment_anything.modeling import Sam
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel, Dinov2Config, Dinov2Model, SwinConfig

from ...workspace import atomic_path
from . import dinov2, medclip
from .checkpoint import Tensors
from .sam import SamConfig, sam_network

SMALL_SAM = SamConfig(
    image_size=256,
    patch=8,
    embed_dim=96,
    depth=5,
    heads=2,
    mlp_dim=384,
    out_channels=64,
    window=8,
    global_blocks=(3,),  # attention over all 1024 patches is what costs time
    decoder_mlp_dim=256,
    iou_hidden_dim=64,
)


def build_small_sam() -> Sam:
    """A promptable segmenter: 256×256 → embedding (B, 64, 32, 32), masks of 128×128."""
    return sam_network(SMALL_SAM)


def build_small_dino(drop_path: float = 0.0) -> Dinov2Model:
    """A self-supervised encoder: 224×224 → 16×16 patch tokens of 192."""
    config = Dinov2Config(
        hidden_size=192,
        num_hidden_layers=6,
        num_attention_heads=3,
        mlp_ratio=4,
        image_size=224,
        patch_size=14,
        drop_path_rate=drop_path,
        layerscale_value=1.0,
    )
    return Dinov2Model(config)


class _TextTower(nn.Module):
    def __init__(self, vocabulary: int, embedding: int) -> None:
        super().__init__()
        config = BertConfig(
            vocab_size=vocabulary,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=128,
            max_position_embeddings=32,
        )
        self.model = BertModel(config)
        self.projection_head = nn.Linear(64, embedding, bias=False)


class SmallClip(nn.Module):
    """Image and text tower under MedCLIP's names. `logit_scale` is the log of 1/temperature."""

    def __init__(self, vocabulary: int = 256, embedding: int = 128) -> None:
        super().__init__()
        config = SwinConfig(
            image_size=224,
            patch_size=4,
            embed_dim=32,
            depths=[2, 2, 2, 2],
            num_heads=[1, 2, 4, 8],
            window_size=7,
        )
        self.vision_model = medclip.SwinTower(config, embedding)
        self.text_model = _TextTower(vocabulary, embedding)
        self.logit_scale = nn.Parameter(torch.tensor(2.6593))  # log(1 / 0.07), as in CLIP

    def embed_images(self, images: Tensor) -> Tensor:
        """Preprocessed images (B, 3, 224, 224) → unit vectors (B, E)."""
        return functional.normalize(self.vision_model.embed(images), dim=-1)

    def embed_texts(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Token ids and mask (B, L), L ≤ 32 → unit vectors (B, E), from the first token."""
        states = self.text_model.model(input_ids=tokens, attention_mask=mask).last_hidden_state
        return functional.normalize(self.text_model.projection_head(states[:, 0]), dim=-1)


def build_small_clip(vocabulary: int = 256) -> SmallClip:
    """An image-text encoder: 224×224 → third stage (B, 128, 14, 14), last (B, 256, 7, 7)."""
    return SmallClip(vocabulary)


def published_state(network: nn.Module) -> Tensors:
    """A network's tensors under the names its family publishes them with."""
    state: Tensors = dict(network.state_dict())
    if isinstance(network, Dinov2Model):
        return dinov2.to_published(state)
    if isinstance(network, Sam):
        return state
    return medclip.to_published(state)


def save_published_layout(
    network: nn.Module,
    path: Path,
    *,
    half: bool = False,
    metadata: dict[str, str] | None = None,
) -> None:
    """Write `network` (Sam, Dinov2Model, SmallClip) as its family publishes weights.

    `.safetensors` by its name, else torch.save; `half`: fp16 (adapters compute in fp32 all the
    same). `metadata` goes into a safetensors header. Raises StorageError.
    """
    tensors = {
        name: (tensor.half() if half and tensor.is_floating_point() else tensor)
        .detach()
        .cpu()
        .contiguous()
        .clone()
        for name, tensor in published_state(network).items()
    }
    with atomic_path(path) as temporary:
        if path.suffix == ".safetensors":
            save_file(tensors, temporary, metadata={"format": "pt", **(metadata or {})})
        else:
            torch.save(tensors, temporary)
