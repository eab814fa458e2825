"""From a card and a file to a teacher. A known family needs no code, only a card."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from .base import Teacher
from .card import UNBUILDABLE, TeacherCard, reason_of
from .checkpoint import Checkpoint, open_checkpoint
from .dinov2 import build_dinov2
from .medclip import build_medclip
from .open_clip import build_open_clip
from .sam import build_sam
from .timm import build_timm
from .transformers import build_transformers

Builder = Callable[[TeacherCard, Checkpoint], Teacher]

# One line per family; the same names as card.FAMILIES.
BUILDERS: dict[str, Builder] = {
    "sam": build_sam,
    "dinov2": build_dinov2,
    "medclip": build_medclip,
    "open_clip": build_open_clip,
    "transformers": build_transformers,
    "timm": build_timm,
}


def load_teacher(card: TeacherCard, weights: Path, device: str = "cpu") -> Teacher:
    """Build the network the file's tensor shapes describe and load it completely, frozen.

    The random state of torch is left as it was. Raises WeightsMissing or WeightsMismatch.
    """
    checkpoint = open_checkpoint(weights)
    try:
        with torch.random.fork_rng(devices=[]):
            teacher = BUILDERS[card.family](card, checkpoint)
    except UNBUILDABLE as error:
        # The shapes are a stranger's: what the libraries cannot build is a fault of the file.
        raise checkpoint.mismatch(
            f"describes no network that can be built ({reason_of(error)})"
        ) from error
    return teacher.freeze().to(device)
