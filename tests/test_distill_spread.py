"""A few of many frames: what is labelled in hardly any of them is still among them."""

from __future__ import annotations

from pathlib import Path

import torch

from tiny_studies import TASKS, write_study
from vfss_distill.distill import validation
from vfss_distill.distill.data import Frames, LabelledFrames, labelled_keys
from vfss_distill.distill.spread import evenly, with_enough
from vfss_distill.workspace import Workspace


def test_every_group_has_enough() -> None:
    rows = range(100)
    assert evenly(range(9), 3) == [0, 4, 8] and evenly([1], 3) == [1]
    assert with_enough(rows, 5, [(rows, 4)]) == evenly(rows, 5) == [0, 25, 50, 74, 99]
    assert with_enough(rows, 5, [([7, 8, 9], 2), ([25, 50], 1)]) == [0, 7, 9, 25, 50, 74, 99]
    assert with_enough(rows, 5, [([11], 9), ([], 9)]) == [0, 11, 25, 50, 74, 99]
    assert with_enough(rows, 200, [([11], 9)]) == [*rows]


def test_validation_measures_what_is_labelled_in_few_frames(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    labelled = {"bolus": range(300), "hyoid": range(300), "c3": (101,)}
    study = write_study(workspace, "pv", frames=300, labelled=labelled)
    keys = labelled_keys([study], TASKS)
    frames = Frames([study], keys, size=64, context=0, budget_bytes=0)
    batch = LabelledFrames(frames, keys, TASKS, budget_bytes=0)

    class Nothing(torch.nn.Module):
        def forward(self, seen: torch.Tensor) -> torch.Tensor:
            return torch.full((len(seen), len(TASKS), 64, 64), -9.0)

    assert validation.validate(Nothing(), batch, torch.device("cpu")) == dict.fromkeys(TASKS, 0.0)
    batch.leave_out(["bolus"])
    assert set(validation.validate(Nothing(), batch, torch.device("cpu"))) == {"hyoid", "c3"}
