"""Checkpoints: a folder of safetensors and one JSON, never a pickle; the old one or the new one.

    last.ckpt/
      student.safetensors ema.safetensors heads.safetensors optimiser.safetensors
      best.safetensors       EMA weights with the best validation Dice so far, if there are any
      state.json             step, best validation Dice, digests of configuration and data

Data order and augmentation are functions of (seed, step), so the step is all there is to save of
them. `heads` are projectors and balancing: needed to go on, never exported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..errors import DataError, ModelError, WeightsMismatch
from ..fields import Check, flag, mapping, number, taken, whole
from ..models.students import Student
from ..provenance import document
from ..workspace import atomic_folder, read_json, write_json
from .projector import Heads

FOLDER = "last.ckpt"
_ANEW = "Start a new run with `vfss distill` (without --resume)."


@dataclass
class Training:
    """Everything that changes while training."""

    student: Student
    ema: Student
    heads: Heads
    optimiser: torch.optim.Optimizer
    step: int = 0
    best: dict[str, Tensor] | None = None
    best_scores: dict[str, float] = field(default_factory=dict)
    identity: dict[str, str] = field(default_factory=dict)


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    """As bytes first: a full disk is then an OSError, which atomic_folder understands."""
    path.write_bytes(save(_portable(tensors)))


def _load(path: Path) -> dict[str, Tensor]:
    """Read, not mapped: Windows replaces no folder of which a file is mapped."""
    return load(path.read_bytes())


def save_checkpoint(folder: Path, training: Training) -> None:
    """Replace `folder` whole. Raises StorageError; the old checkpoint then stays."""
    with atomic_folder(folder) as new:
        for name in ("student", "ema", "heads"):
            _save(getattr(training, name).state_dict(), new / f"{name}.safetensors")
        _save(_flat_optimiser(training.optimiser), new / "optimiser.safetensors")
        if training.best is not None:
            _save(training.best, new / "best.safetensors")
        body = {
            "step": training.step,
            "best_val_dice": training.best_scores,
            "has_best": training.best is not None,
            "identity": training.identity,
            "random_state": "a function of seed and step",
        }
        write_json(new / "state.json", document(body))


def saved_step(folder: Path) -> int:
    """Steps done when the checkpoint was written; 0 without a readable one."""
    try:
        return _read_state(folder).step
    except WeightsMismatch:
        return 0


def load_checkpoint(folder: Path, training: Training) -> None:
    """Fill `training` from `folder`. Raises WeightsMismatch when it is damaged or of another
    student, ModelError when the run it belongs to saw other data or weights."""
    state = check_identity(folder, training.identity)
    try:
        for name in ("student", "ema", "heads"):
            getattr(training, name).load_state_dict(_load(folder / f"{name}.safetensors"))
        _restore_optimiser(training.optimiser, _load(folder / "optimiser.safetensors"))
        training.best = _load(folder / "best.safetensors") if state.has_best else None
    except (SafetensorError, OSError, RuntimeError, LookupError, ValueError) as error:
        raise WeightsMismatch(
            "the checkpoint is damaged or of another student", file=folder.name, remedy=_ANEW
        ) from error
    training.step = state.step
    training.best_scores = state.best_val_dice


def check_identity(folder: Path, identity: Mapping[str, str]) -> _State:
    """What a checkpoint says, if it is of a run of this identity. What it does not name, as one of
    an earlier version may, counts as unchanged. Raises as `load_checkpoint`."""
    state = _read_state(folder)
    changed = [key for key, value in identity.items() if state.identity.get(key, value) != value]
    if changed:
        raise ModelError(
            f"the {' and the '.join(changed)} changed since the checkpoint was written",
            file=folder.name,
            remedy="Put back what was there, or start a new run without --resume.",
        )
    return state


@dataclass(frozen=True)
class _State:
    step: int
    has_best: bool
    best_val_dice: dict[str, float]
    identity: dict[str, object]


def _scores(value: Any) -> dict[str, float]:
    return {task: number(score) for task, score in mapping(value).items()}


_KINDS: Mapping[str, Check] = {
    "step": whole,
    "has_best": flag,
    "best_val_dice": _scores,
    "identity": mapping,
}


def _read_state(folder: Path) -> _State:
    """Raises WeightsMismatch when state.json is missing, or is not what was written."""
    try:
        return _State(**taken(read_json(folder / "state.json"), _KINDS))
    except (DataError, TypeError, ValueError) as error:  # TypeError: a field that is missing
        raise WeightsMismatch(
            "the checkpoint is damaged", file=folder.name, remedy=_ANEW
        ) from error


def _portable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def _flat_optimiser(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{number}.{name}": value
        for number, moments in optimiser.state_dict()["state"].items()
        for name, value in moments.items()
    }


def _restore_optimiser(optimiser: torch.optim.Optimizer, flat: Mapping[str, Tensor]) -> None:
    """Moments are laid out in memory as their weights are (channels last, some of them): a fused
    optimiser walks both side by side without asking."""
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, value in flat.items():
        number, name = key.split(".")
        weight = weights[int(number)]
        if value.shape == weight.shape:
            value = torch.empty_like(weight, device="cpu").copy_(value)
        state.setdefault(int(number), {})[name] = value
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
