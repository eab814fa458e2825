"""Masks under boxes where nobody has drawn: half way through stage 2 the student proposes.

    runs/<run>/proposals.safetensors    {"masks": (n, T, 64, 64) fp16, "prompted": (n, T),
                                         "keys": (n, 2) study and frame number}

Where the averaged student is sure of an anatomy in an unlabelled frame, the promptable teacher
draws it under a box around that; the two must agree for the mask to count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ..errors import ModelError
from ..workspace import write_bytes
from .data import Frames, Key, Tick
from .processes import Processes
from .prompts import PromptedMasks, draw_masks

_SURE = 0.9  # mean probability inside the mask
_SMALLEST = 5e-4  # of the frame: C3's body has about .004, a trace of bolus .0005
_BATCH = 16


@dataclass(frozen=True)
class Proposals:
    """Made once before step `at`, then read: a resumed run sees what it would have seen."""

    at: int
    file: Path
    frames: Frames
    keys: Sequence[Key]
    teacher: Callable[[], AbstractContextManager[Any]]
    processes: Processes
    tick: Tick

    def before(self, step: int, student: nn.Module, device: torch.device) -> PromptedMasks:
        """For a step of `at` or later. Raises ModelError when the file of a resumed run is gone."""
        if step == self.at:
            if self.processes.is_first:
                self._make(student, device)
            self.processes.wait()
        try:
            stored = load_file(self.file)
            keys = [(int(study), int(frame)) for study, frame in stored["keys"]]
            return PromptedMasks(keys, stored["masks"], stored["prompted"])
        except (OSError, SafetensorError, KeyError) as error:
            raise ModelError(
                "masks that this run's teacher drew are gone",
                file=self.file.name,
                remedy="Start a new run with `vfss distill` (without --resume).",
            ) from error

    def _make(self, student: nn.Module, device: torch.device) -> None:
        logits, prompted = [], []
        with self.teacher() as network:
            for number, (key, masks, tasks) in enumerate(self._sure(student, device)):
                study = self.frames.studies[key[0]]
                drawn, fits = draw_masks(network, study, key[1], masks, tasks)
                logits.append(drawn)
                prompted.append(fits.to(torch.uint8))
                self.tick(number + 1, len(self.keys), "masks under the student's boxes")
        parts = {
            "masks": torch.stack(logits),
            "prompted": torch.stack(prompted),
            "keys": torch.tensor(self.keys),
        }
        write_bytes(self.file, save(parts))

    @torch.no_grad()
    def _sure(
        self, student: nn.Module, device: torch.device
    ) -> Iterator[tuple[Key, dict[int, NDArray[np.bool_]], int]]:
        """→ key, masks of tasks the student is sure of, on its own square, and how many tasks."""
        student.eval()
        for first in range(0, len(self.keys), _BATCH):
            keys = self.keys[first : first + _BATCH]
            seen = torch.sigmoid(student(self.frames.batch(keys).to(device)).float()).cpu()
            for key, maps in zip(keys, seen, strict=True):
                yield key, sure_masks(maps), len(maps)


def sure_masks(probabilities: Tensor) -> dict[int, NDArray[np.bool_]]:
    """(T, S, S) → masks by task number, where the mean probability inside is high."""
    masks = probabilities > 0.5
    areas = masks.sum((1, 2))
    inside = (probabilities * masks).sum((1, 2)) / areas.clamp_min(1)
    sure = (inside >= _SURE) & (areas >= _SMALLEST * masks[0].numel())
    return {number: masks[number].numpy() for number in sure.nonzero()[:, 0].tolist()}
