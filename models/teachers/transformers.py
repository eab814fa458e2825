"""Any vision encoder of transformers' library from a local file: ViT, DINOv2, DINOv3, SigLIP, …

The architecture comes from the card's `config`, or from the config.json beside the weights. The
library itself maps the names on disk to its own, old to new; nothing is downloaded, no code beside
the weights is run, and what the file must fill, it must fill completely.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import MODEL_MAPPING, AutoConfig, PreTrainedConfig
from transformers.utils import logging

from .base import Teacher
from .card import TeacherCard, card_fault
from .checkpoint import Checkpoint, below
from .preprocess import Preprocessing

# Kinds of network (`model_type`), and how many tokens come before those of the patches, besides
# registers. Others may need a backbone from elsewhere, or have no map.
_FIRST_PATCH = {
    "vit": 1,
    "deit": 2,
    "beit": 1,
    "dinov2": 1,
    "dinov2_with_registers": 1,
    "dinov3_vit": 1,
    "dinov3_convnext": 1,
    "siglip_vision_model": 0,
    "clip_vision_model": 1,
    "swin": 0,
    "convnext": 0,
    "convnextv2": 0,
    "resnet": 0,
}
# The image tower of a network of images and texts.
_TOWERS = {"siglip": "siglip_vision_model", "clip": "clip_vision_model"}
# Pooling comes after the map, and many files lack it.
_POOLING = ("pooler.*", "head.*", "vision_model.head.*")
# What says how or by whom a network was run, not what it is; some would fetch code.
_NOT_ARCHITECTURE = (
    *("auto_map", "architectures", "_name_or_path", "transformers_version"),
    *("dtype", "torch_dtype", "attn_implementation", "_attn_implementation"),
    *("_attn_implementation_internal", "experts_implementation", "_experts_implementation"),
)


class TransformersTeacher(Teacher):
    """Patch tokens of the last layer after its norm, or of `stage`; class token and registers
    dropped.
    """

    def __init__(self, card: TeacherCard, checkpoint: Checkpoint) -> None:
        config = read_config(card, checkpoint)
        super().__init__(card, checkpoint, f"transformers {config.model_type}")
        self.network, self.dropped = load_network(card, checkpoint, config)
        self.is_swin = config.model_type == "swin"
        self.first = _FIRST_PATCH[config.model_type] + getattr(config, "num_register_tokens", 0)
        self.inputs = int(getattr(config, "num_channels", 3))
        self.preprocessing = Preprocessing.of(card, card.image_size)
        self.channels, self.grid = self.map_shape()

    def encode(self, images: Tensor) -> Tensor:
        stage, asked = self.card.stage, {"output_hidden_states": self.card.stage is not None}
        if stage and self.is_swin:
            asked["output_hidden_states_before_downsampling"] = True
        out = self.network(pixel_values=images[:, : self.inputs], **asked)
        states = out.last_hidden_state
        if stage:  # 0 is the patch embedding
            states = (out.reshaped_hidden_states if self.is_swin else out.hidden_states)[stage]
        if states.ndim == 4:
            return states
        tokens = states[:, self._before(states) :]  # (B, g·g, C)
        side = math.isqrt(tokens.shape[1])
        return tokens.transpose(1, 2).unflatten(2, (side, side))

    def _before(self, states: Tensor) -> int:
        """How many tokens come first; the rest must be a square."""
        patches = states.shape[1] - self.first
        if math.isqrt(max(0, patches)) ** 2 != patches:
            raise ValueError(f"{patches} patch tokens are no square")
        return self.first


def read_config(card: TeacherCard, checkpoint: Checkpoint) -> PreTrainedConfig:
    """From the card, else from config.json beside the weights. Raises ConfigError."""
    said = dict(card.config) or _config_beside(card, checkpoint)
    kind = said.pop("model_type", None)
    if kind in _TOWERS and isinstance(said.get("vision_config"), dict):
        kind, said = _TOWERS[kind], dict(said["vision_config"])
        said.pop("model_type", None)
    if kind not in _FIRST_PATCH:
        raise card_fault(
            card,
            f"model_type {kind!r} is none that gives maps here",
            f"Known are {', '.join(sorted((*_FIRST_PATCH, *_TOWERS)))}; or use family timm.",
        )
    if "quantization_config" in said:
        raise card_fault(card, "the weights are quantised", "Get those in 16 or 32 bits.")
    for name in _NOT_ARCHITECTURE:
        said.pop(name, None)
    try:
        return AutoConfig.for_model(kind, **said)
    except (StrictDataclassError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise card_fault(card, f"config of {kind} is wrong ({reason})", "Mend `config`.") from error


def _config_beside(card: TeacherCard, checkpoint: Checkpoint) -> dict[str, Any]:
    path = checkpoint.file.parent / "config.json"
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise card_fault(
            card,
            "no `config`, and no readable config.json beside the weights",
            "Save the config.json published with the weights in their folder.",
        )
    return said


def load_network(
    card: TeacherCard, checkpoint: Checkpoint, config: PreTrainedConfig
) -> tuple[nn.Module, tuple[str, ...]]:
    """The network, float32, filled completely, and the names left out. Raises WeightsMismatch."""
    inner, spare = below(checkpoint, card.prefix)
    kind = MODEL_MAPPING[type(config)]
    # float32 before the library sees them: it would keep the halves of a file.
    tensors = {n: t.float() if t.is_floating_point() else t for n, t in inner.tensors.items()}
    with _quiet():
        # Without a name or path there is nothing it could fetch.
        network, found = kind.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    missing = [n for n in sorted(found["missing_keys"]) if not _any(n, _POOLING)]
    spares = sorted(found["unexpected_keys"])
    dropped = tuple(n for n in spares if _any(n, card.drop))
    faults = {
        "missing": missing,
        "unexpected": [n for n in spares if n not in dropped],
        "of another shape": [_words(one) for one in sorted(found["mismatched_keys"])],
    }
    _refuse(inner, config, network, faults)
    return network, (*dropped, *spare)


def _refuse(
    checkpoint: Checkpoint,
    config: PreTrainedConfig,
    network: nn.Module,
    faults: Mapping[str, list[str]],
) -> None:
    said = [
        f"{len(names)} {word} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for word, names in faults.items()
        if names
    ]
    if said:
        raise checkpoint.mismatch(
            f"does not fit transformers' {config.model_type} of {len(network.state_dict())} "
            f"tensors: {'; '.join(said)}",
            "Use the config.json published with this file; name spare tensors under `drop`.",
        )


def _words(mismatched: tuple[Any, ...]) -> str:
    name, given, expected = mismatched
    return f"{name} {list(given)} instead of {list(expected)}"


def _any(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no warnings of the library: what matters is checked above."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def build_transformers(card: TeacherCard, checkpoint: Checkpoint) -> TransformersTeacher:
    """Raises ConfigError (the card, config.json), WeightsMismatch (not all of that network)."""
    return TransformersTeacher(card, checkpoint)
