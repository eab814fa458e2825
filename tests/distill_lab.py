"""A laboratory small enough to train in: tiny patients, tiny teachers, tiny runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import DEFAULT, patch

import torch
import yaml
from safetensors.torch import load_file

from tiny_studies import small_world, write_splits, write_study
from tiny_teachers import write_tiny_weights
from vfss_distill.config import DistillConfig
from vfss_distill.distill import run as runs
from vfss_distill.distill.run import RunOutcome, distill
from vfss_distill.workspace import Workspace

TINY: dict[str, Any] = {
    "task_set": "three.yaml",
    "student": "nano",
    "image_size": 64,
    "grid": 8,
    "batch_size": 4,
    "align_steps": 3,
    "task_steps": 5,
    "warmup_steps": 2,
    "validate_every": 2,
    "checkpoint_every": 2,
    "learning_rate": 3e-3,
    "threads": 1,
    "device": "cpu",
}


def tiny_lab(root: Path) -> Workspace:
    """Five tiny patients, labelled, and tiny weights of the three teachers."""
    workspace = small_world(root)
    write_tiny_weights(workspace.weights)
    lab = {"task_set": "three.yaml", "distill": {k: v for k, v in TINY.items() if k != "task_set"}}
    (root / "vfss.yaml").write_text(yaml.safe_dump(lab))
    return workspace


def lab_with_unlabelled(root: Path) -> Workspace:
    """Five tiny patients, labelled, and one for training whom nobody has labelled."""
    workspace = small_world(root)
    write_study(workspace, "pu", labelled={})
    write_splits(workspace, train=["pa", "pb", "pu"], val=["pd"], test=["pc", "pe"])
    return workspace


def run(workspace: Workspace, *, teachers: tuple[str, ...] = (), **changes: Any) -> RunOutcome:
    arguments = {
        key: changes.pop(key) for key in ("run_name", "resume", "tick", "say") & changes.keys()
    }
    if not teachers:
        changes = {"align_steps": 0, **changes}
    config = DistillConfig(**{**TINY, "teachers": teachers, **changes})
    # Pictures take longer than training here; the command line draws them, and test_pictures.
    with patch.multiple(runs, draw_curves=DEFAULT, draw_features=DEFAULT):
        return distill(workspace, config, weights_folders=[workspace.weights], **arguments)


def weights(outcome: RunOutcome) -> dict[str, torch.Tensor]:
    return load_file(outcome.folder / "student.safetensors")


def same(a: RunOutcome, b: RunOutcome) -> bool:
    x, y = weights(a), weights(b)
    return x.keys() == y.keys() and all(torch.equal(x[name], y[name]) for name in x)
