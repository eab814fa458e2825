"""The SAM family (MedSAM) through segment-anything: image encoder, and masks under boxes.

Layouts: segment-anything's own names (`medsam_vit_b.pth`, also a raw training checkpoint, also the
image encoder alone) and transformers' SamModel names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from torch import Tensor, nn

from .base import Teacher
from .card import TeacherCard
from .checkpoint import Checkpoint, Tensors, fit, ratio
from .preprocess import Preprocessing

_DECODER_HEADS = 8  # in every SAM; no tensor shape tells it


@dataclass(frozen=True)
class SamConfig:
    """What segment-anything's constructors need. `window` 0: every block looks everywhere."""

    image_size: int
    patch: int
    embed_dim: int
    depth: int
    heads: int
    mlp_dim: int
    out_channels: int
    window: int
    global_blocks: tuple[int, ...]
    mask_tokens: int = 4
    decoder_depth: int = 2
    decoder_mlp_dim: int = 2048
    iou_hidden_dim: int = 256
    iou_depth: int = 3
    mask_in_channels: int = 16

    @property
    def grid(self) -> int:
        return self.image_size // self.patch


# ViT-B, as SAM and MedSAM publish it.
VIT_B = SamConfig(1024, 16, 768, 12, 12, 3072, 256, 14, (2, 5, 8, 11))


def image_encoder(config: SamConfig) -> ImageEncoderViT:
    return ImageEncoderViT(
        img_size=config.image_size,
        patch_size=config.patch,
        embed_dim=config.embed_dim,
        depth=config.depth,
        num_heads=config.heads,
        mlp_ratio=ratio(config.mlp_dim, config.embed_dim),
        out_chans=config.out_channels,
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=config.window,
        global_attn_indexes=config.global_blocks,
    )


def sam_network(config: SamConfig) -> Sam:
    """The whole SAM: image encoder, prompt encoder and mask decoder, untrained."""
    width = config.out_channels
    return Sam(
        image_encoder=image_encoder(config),
        prompt_encoder=PromptEncoder(
            embed_dim=width,
            image_embedding_size=(config.grid, config.grid),
            input_image_size=(config.image_size, config.image_size),
            mask_in_chans=config.mask_in_channels,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=config.mask_tokens - 1,
            transformer=TwoWayTransformer(
                depth=config.decoder_depth,
                embedding_dim=width,
                mlp_dim=config.decoder_mlp_dim,
                num_heads=_DECODER_HEADS,
            ),
            transformer_dim=width,
            iou_head_depth=config.iou_depth,
            iou_head_hidden_dim=config.iou_hidden_dim,
        ),
    )


class _EncoderOnly(nn.Module):
    """The image encoder under the name it has inside a SAM."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.image_encoder = image_encoder(config)


class SamTeacher(Teacher):
    """SAM's image embedding, (B, 256, 64, 64) for MedSAM; masks under boxes where it has them."""

    def __init__(self, card: TeacherCard, checkpoint: Checkpoint, layout: str) -> None:
        super().__init__(card, checkpoint, layout)
        self.config = read_config(checkpoint)
        self.has_masks = any(name.startswith("mask_decoder.") for name in checkpoint.tensors)
        self.network: Any = (
            sam_network(self.config) if self.has_masks else _EncoderOnly(self.config)
        )
        self.dropped = fit(
            self.network, checkpoint, network="a segment-anything SAM", drop=card.drop
        )
        self.channels = self.config.out_channels
        self.grid = self.config.grid
        self.preprocessing = Preprocessing.of(card, self.config.image_size)

    def encode(self, images: Tensor) -> Tensor:
        # One by one: attention over all patches takes 2.4 GB a frame at MedSAM's size, more than
        # most cards have for a batch, and falls out of a CPU's cache.
        return torch.cat([self.network.image_encoder(image) for image in images.split(1)])

    @property
    def takes_boxes(self) -> bool:
        """Whether `mask_logits` works: a decoder in the file, frames stretched to its square."""
        return self.has_masks and self.preprocessing.resize == "stretch"

    def mask_logits(self, frames: Tensor, boxes: Sequence[Tensor]) -> list[Tensor]:
        """Mask logits under box prompts, as MedSAM_Inference.py asks for them.

        `frames` uint8 (B, H, W); `boxes` one (K, 4) tensor per frame, x0 y0 x1 y1 in its pixels.
        Returns one (K, 4·grid, 4·grid) tensor per frame, over the frame as the network sees it.
        Raises ValueError when the file held the image encoder alone.
        """
        if not self.has_masks:
            raise ValueError(f"teacher {self.card.name} has no mask decoder")
        if self.preprocessing.resize != "stretch":
            raise ValueError("boxes are scaled for `resize: stretch` only")
        embeddings = self.features(frames)
        height, width = frames.shape[1:]
        size = self.config.image_size
        scale = embeddings.new_tensor([size / width, size / height] * 2)
        prompt, decoder = self.network.prompt_encoder, self.network.mask_decoder
        logits = []
        with torch.no_grad():
            for embedding, some in zip(embeddings, boxes, strict=True):
                if not len(some):
                    logits.append(embedding.new_zeros(0, 4 * self.grid, 4 * self.grid))
                    continue
                scaled = some.to(scale) * scale  # (K, 4)
                sparse, dense = prompt(points=None, boxes=scaled, masks=None)
                masks, _ = decoder(
                    image_embeddings=embedding[None],
                    image_pe=prompt.get_dense_pe(),
                    sparse_prompt_embeddings=sparse,
                    dense_prompt_embeddings=dense,
                    multimask_output=False,
                )
                logits.append(masks[:, 0])
        return logits


def read_config(checkpoint: Checkpoint) -> SamConfig:
    """The architecture from tensor shapes. Raises WeightsMismatch."""
    encoder = "image_encoder."
    embed_dim, _, patch, _ = checkpoint.shape(f"{encoder}patch_embed.proj.weight", 4)
    _, grid, _, _ = checkpoint.shape(f"{encoder}pos_embed", 4)
    depth = checkpoint.count(f"{encoder}blocks.")
    spans, heads = [], set()
    for block in range(depth):
        table, head_dim = checkpoint.shape(f"{encoder}blocks.{block}.attn.rel_pos_h", 2)
        spans.append((table + 1) // 2)
        heads.add(embed_dim // head_dim)
    windows = {span for span in spans if span != grid}
    if len(windows) > 1 or len(heads) != 1:
        raise checkpoint.mismatch("its blocks have windows or heads of several sizes")
    config = {
        "image_size": grid * patch,
        "patch": patch,
        "embed_dim": embed_dim,
        "depth": depth,
        "heads": heads.pop(),
        "mlp_dim": checkpoint.shape(f"{encoder}blocks.0.mlp.lin1.weight", 2)[0],
        "out_channels": checkpoint.shape(f"{encoder}neck.0.weight", 4)[0],
        "window": windows.pop() if windows else 0,
    }
    everywhere = tuple(block for block, span in enumerate(spans) if span == grid)
    if "mask_decoder.mask_tokens.weight" in checkpoint:
        config |= _decoder_config(checkpoint)
    return SamConfig(**config, global_blocks=everywhere)


def _decoder_config(checkpoint: Checkpoint) -> dict[str, int]:
    decoder = "mask_decoder."
    layers = f"{decoder}transformer.layers."
    head = f"{decoder}iou_prediction_head.layers."
    return {
        "mask_tokens": checkpoint.shape(f"{decoder}mask_tokens.weight", 2)[0],
        "decoder_depth": checkpoint.count(layers),
        "decoder_mlp_dim": checkpoint.shape(f"{layers}0.mlp.lin1.weight", 2)[0],
        "iou_hidden_dim": checkpoint.shape(f"{head}0.weight", 2)[0],
        "iou_depth": checkpoint.count(head),
        "mask_in_channels": checkpoint.shape("prompt_encoder.mask_downscaling.3.weight", 4)[0],
    }


_ALONE = "blocks.0.attn.rel_pos_h"  # no other ViT has it


def build_sam(card: TeacherCard, checkpoint: Checkpoint) -> SamTeacher:
    """Raises WeightsMismatch when the file is no SAM or not all of one."""
    layout = "segment-anything"
    if _ALONE in checkpoint:
        layout = "segment-anything's image encoder alone"
        whole = {f"image_encoder.{name}": tensor for name, tensor in checkpoint.tensors.items()}
        checkpoint = checkpoint.renamed(whole)
    if "vision_encoder.patch_embed.projection.weight" in checkpoint:
        layout = "transformers SamModel"
        checkpoint = checkpoint.renamed(_from_transformers(checkpoint))
    if "image_encoder.patch_embed.proj.weight" not in checkpoint:
        raise checkpoint.mismatch("is no SAM with a ViT image encoder")
    return SamTeacher(card, checkpoint, layout)


_GAUSSIAN = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"

# transformers SamModel → segment-anything, applied one after the other.
_RENAMES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^(shared_image|prompt_encoder\.shared)_embedding\.positional_embedding$", _GAUSSIAN),
        (r"^vision_encoder\.layers\.", "image_encoder.blocks."),
        (r"^vision_encoder\.patch_embed\.projection\.", "image_encoder.patch_embed.proj."),
        (r"^vision_encoder\.neck\.conv1\.", "image_encoder.neck.0."),
        (r"^vision_encoder\.neck\.layer_norm1\.", "image_encoder.neck.1."),
        (r"^vision_encoder\.neck\.conv2\.", "image_encoder.neck.2."),
        (r"^vision_encoder\.neck\.layer_norm2\.", "image_encoder.neck.3."),
        (r"^vision_encoder\.", "image_encoder."),
        (r"\.mask_embed\.conv1\.", ".mask_downscaling.0."),
        (r"\.mask_embed\.layer_norm1\.", ".mask_downscaling.1."),
        (r"\.mask_embed\.conv2\.", ".mask_downscaling.3."),
        (r"\.mask_embed\.layer_norm2\.", ".mask_downscaling.4."),
        (r"\.mask_embed\.conv3\.", ".mask_downscaling.6."),
        (r"\.point_embed\.", ".point_embeddings."),
        (r"\.upscale_conv1\.", ".output_upscaling.0."),
        (r"\.upscale_layer_norm\.", ".output_upscaling.1."),
        (r"\.upscale_conv2\.", ".output_upscaling.3."),
        (r"\.layer_norm_final_attn\.", ".norm_final_attn."),
        (r"\.layer_norm(\d)\.", r".norm\1."),
    )
)
_HEAD = re.compile(
    r"(mask_decoder\.(?:iou_prediction_head|output_hypernetworks_mlps\.\d+))"
    r"\.(proj_in|proj_out|layers\.(\d+))\.(weight|bias)"
)


def _from_transformers(checkpoint: Checkpoint) -> Tensors:
    """segment-anything's names. Raises WeightsMismatch when the tied embeddings differ."""
    renamed: Tensors = {}
    for name, tensor in checkpoint.tensors.items():
        target = _one_name(name, checkpoint)
        twin = renamed.get(target)
        if twin is not None and not torch.equal(twin, tensor):
            raise checkpoint.mismatch(f"holds two different tensors for {target}")
        renamed[target] = tensor
    return renamed


def _one_name(name: str, checkpoint: Checkpoint) -> str:
    if head := _HEAD.fullmatch(name):
        stem, part, number, kind = head.groups()
        middle = checkpoint.count(f"{stem}.layers.")
        place = {"proj_in": 0, "proj_out": middle + 1}.get(part)
        return f"{stem}.layers.{int(number) + 1 if place is None else place}.{kind}"
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)
    return name
