"""Any network of timm from a lab's own file: the card says which, by timm's name for it."""

from __future__ import annotations

from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg
from torch import Tensor

from .base import Teacher
from .card import UNBUILDABLE, TeacherCard, card_fault, reason_of
from .checkpoint import Checkpoint, Tensors, below, fit
from .preprocess import Preprocessing

# Ours to decide: nothing is downloaded, and classifiers are of no use.
_NOT_ARGUMENTS = {
    *("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"),
    *("features_only", "num_classes", "out_indices", "scriptable", "exportable"),
}


class TimmTeacher(Teacher):
    """The last map, or that of `stage` (of a ViT: of a block), after the network's own norm."""

    def __init__(self, card: TeacherCard, checkpoint: Checkpoint) -> None:
        super().__init__(card, checkpoint, f"timm {card.architecture}")
        # The same values, from convolutions about a quarter faster on a CPU.
        self.network = build_network(card).to(memory_format=torch.channels_last)
        classifier = _classifiers(self.network)
        if card.package and not checkpoint.tensors.keys() & self.network.state_dict().keys():
            checkpoint = checkpoint.renamed(in_timms_order(checkpoint, card.architecture or ""))
        inner, spare = below(checkpoint, card.prefix)
        dropped = fit(
            self.network,
            inner,
            network=f"timm's {card.architecture}",
            drop=(*card.drop, *classifier),
        )
        self.dropped = (*dropped, *spare)
        self.inputs = int(card.arguments.get("in_chans", 3))
        self.preprocessing = Preprocessing.of(card, card.image_size)
        self.channels, self.grid = self.map_shape()

    def encode(self, images: Tensor) -> Tensor:
        maps: list[Tensor] = self.network.forward_intermediates(
            images[:, : self.inputs],
            # A number counts from the end, a list from the start.
            indices=[self.card.stage - 1] if self.card.stage else 1,
            norm=True,
            stop_early=True,  # stages after it are not asked for
            intermediates_only=True,
            output_fmt="NCHW",
        )
        return maps[-1]


def in_timms_order(checkpoint: Checkpoint, name: str) -> Tensors:
    """Names of the original code → timm's: the same network, the same order, other words.

    Raises WeightsMismatch.
    """
    with torch.device("meta"):
        expected = timm.create_model(name).state_dict()
    given = checkpoint.tensors
    shapes = [tuple(tensor.shape) for tensor in given.values()]
    if shapes != [tuple(tensor.shape) for tensor in expected.values()]:
        raise checkpoint.mismatch(f"is no {name}", "Install the package again.")
    return dict(zip(expected, given.values(), strict=True))


def build_network(card: TeacherCard) -> Any:
    """timm's network of the card, random. Raises ConfigError."""
    name = card.architecture or ""
    if not timm.is_model(name.partition(".")[0]):
        raise card_fault(card, f"timm knows no network {name!r}", "See `timm.list_models()`.")
    ours = sorted(_NOT_ARGUMENTS & card.arguments.keys())
    if ours:
        raise card_fault(card, f"`arguments` may not hold {', '.join(ours)}", "Leave them out.")
    arguments = dict(card.arguments)
    known = get_pretrained_cfg(name)
    if known is not None and known.fixed_input_size:
        arguments.setdefault("img_size", card.image_size)
    try:
        network = timm.create_model(name, pretrained=False, num_classes=0, **arguments)
    except UNBUILDABLE as error:
        raise card_fault(
            card,
            f"timm cannot build {name} so ({reason_of(error)})",
            "Mend `arguments` or `image_size`.",
        ) from error
    if not hasattr(network, "forward_intermediates"):
        raise card_fault(card, f"timm's {name} gives no feature maps", "Choose another network.")
    return network


def _classifiers(network: Any) -> tuple[str, ...]:
    """Patterns of the tensors of a classifier, which a published or fine-tuned file still holds."""
    names = (network.default_cfg or {}).get("classifier") or ()
    return tuple(f"{name}.*" for name in ([names] if isinstance(names, str) else names))


def build_timm(card: TeacherCard, checkpoint: Checkpoint) -> TimmTeacher:
    """Raises ConfigError (the card), WeightsMismatch (the file is not all of that network)."""
    return TimmTeacher(card, checkpoint)
