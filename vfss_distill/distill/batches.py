"""What a run trains on, and which of it each step sees, augmented.

Frames for alignment keep their geometry, frames for masks are moved too. Everything random is a
function of (seed, step). With several processes each draws the whole batch and keeps its part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..config import DistillConfig
from .augment import blanked, collimated, geometric, lingering, photometric, spliced
from .data import Frames, Key, LabelledBatch, LabelledFrames, Order, joined, mixed_seed, shares
from .features import TeacherFeatures
from .outputs import Outputs
from .processes import Processes
from .prompts import PromptedMasks
from .proposals import Proposals
from .readings import ReadFrames, read_of_batch

_STREAM_ALIGN, _STREAM_TASK, _STREAM_PROMPTED, _STREAM_READ = 1, 2, 3, 4


@dataclass(frozen=True)
class Material:
    """What the loop trains on. `align_keys` is empty and `teachers` too in a supervised run."""

    frames: Frames
    align_keys: Sequence[Key]
    teachers: Sequence[TeacherFeatures]
    labelled: LabelledFrames
    validation: LabelledFrames | None
    outputs: Outputs = field(default_factory=Outputs)
    proposals: Proposals | None = None
    read: ReadFrames | None = None


@dataclass(frozen=True)
class Batch:
    """This process's part of a batch: labelled frames first, then those for alignment.

    `frames` (b + a, C, S, S), 0..255; `masks` (b, T, S/2, S/2) and `labelled` (b, T), both empty
    without labelled frames; `align_keys`: the last a frames. `keys` are those of the whole batch,
    of which the last `aligned` are for alignment. `drawn`: teachers' masks of some of those.
    """

    frames: Tensor
    masks: Tensor
    labelled: Tensor
    align_keys: list[Key]
    keys: list[Key]
    aligned: int
    drawn: Sequence[PromptedMasks]

    @property
    def has_masks(self) -> bool:
        return self.aligned < len(self.keys)

    @property
    def first_aligned(self) -> int:
        """Row of the first frame for alignment."""
        return len(self.frames) - len(self.align_keys)


class Batches:
    """The batch of any step. `stride`: how much smaller than frames the student's logits are."""

    def __init__(
        self, material: Material, config: DistillConfig, stride: int, processes: Processes
    ) -> None:
        self.material = material
        self.config = config
        self.stride = stride
        self.processes = processes
        self.drawn: list[PromptedMasks] = []
        self.prompted: list[Key] = []
        self._align = Order(len(material.align_keys), config.seed, _STREAM_ALIGN)
        self._task = Order(len(material.labelled), config.seed, _STREAM_TASK)
        self._read = Order(len(material.read or ()), config.seed, _STREAM_READ)
        self.add_masks(list(material.outputs.masks.values()))
        if self._share():  # also for masks alone, of which nothing was known before
            check_parts(config, processes, aligned=True)

    def add_masks(self, drawn: Sequence[PromptedMasks]) -> None:
        """From now on, frames that have some of these are among those for alignment."""
        self.drawn += drawn
        self.prompted = sorted({key for masks in self.drawn for key in masks.keys})
        self._prompted = Order(len(self.prompted), self.config.seed, _STREAM_PROMPTED)

    def at(self, step: int, device: torch.device) -> Batch:
        """Also seeds torch's own generator (dropout of a trunk)."""
        generator = _generator(self.config.seed, step, device)
        if step < self.config.align_steps:
            align_keys = self._align_rows(step, self.config.batch_size)
            return self._prepared(align_keys, None, generator)
        masked = self._with_masks(step - self.config.align_steps)
        return self._prepared(self._task_align(step), masked, generator)

    def _with_masks(self, step: int) -> LabelledBatch:
        """Labelled frames, and the share of them that was read instead."""
        size, material = self.config.batch_size, self.material
        read = read_of_batch(self.config)
        if not read or material.read is None or not material.read.open:
            return material.labelled.batch(self._task.batch(step, size))
        labelled = material.labelled.batch(self._task.batch(step, size - read))
        return joined(labelled, material.read.batch(self._read.batch(step, read)))

    def _share(self) -> int:
        """Frames for alignment beside those with masks."""
        config = self.config
        aligns = config.align_weight > 0 or bool(self.prompted)
        return share_of(config) if self.material.teachers and aligns else 0

    def _task_align(self, step: int) -> list[Key]:
        """Where a teacher drew masks under boxes, half of them are frames that have some."""
        share = self._share()
        if not share:
            return []
        prompted = -(-share // 2) if self.prompted else 0
        # Stage 1 took whole batches; go on from any place, as long as the step decides it.
        keys = self._align_rows(step, share - prompted)
        return keys + [self.prompted[row] for row in self._prompted.batch(step, prompted)]

    def _align_rows(self, step: int, size: int) -> list[Key]:
        return [self.material.align_keys[row] for row in self._align.batch(step, size)]

    def _prepared(
        self, align_keys: list[Key], batch: LabelledBatch | None, generator: torch.Generator
    ) -> Batch:
        """Masks are averaged to the stride of the student's logits: soft edges, and for the usual
        stride of 2 a quarter of the work of the loss.
        """
        material, device = self.material, generator.device
        parts: list[Tensor] = []
        masks = labelled = torch.empty(0, device=device)
        mine = self.processes.part(len(align_keys))
        if batch is not None:
            frames = batch.frames.to(device)
            if self.config.lag:
                earlier = material.frames.before(batch.keys).to(device)
                frames = lingering(frames, earlier, generator, self.config.lag)
            if self.config.context:
                frames = spliced(frames, generator)
            frames = photometric(frames, generator)
            planes = batch.planes.to(device)
            frames, planes = collimated(frames, planes, generator)
            frames, planes = geometric(frames, planes, generator, self.config.mirrored)
            frames, planes = blanked(frames, planes, generator, self.config.blank)
            here = self.processes.part(len(frames))
            masks = shares(planes[here], len(material.labelled.tasks), self.stride)
            labelled = batch.labelled[here].to(device)
            parts.append(frames[here])
        if align_keys:
            frames = photometric(material.frames.batch(align_keys).to(device), generator)
            parts.append(frames[mine])
        keys = [*(batch.keys if batch else []), *align_keys]
        here_keys, aligned = align_keys[mine], len(align_keys)
        return Batch(torch.cat(parts), masks, labelled, here_keys, keys, aligned, tuple(self.drawn))


def share_of(config: DistillConfig) -> int:
    """Frames for alignment beside the `batch_size` frames with masks."""
    return max(1, round(config.batch_size * config.align_share))


def check_parts(config: DistillConfig, processes: Processes, *, aligned: bool) -> None:
    """Raises UsageError when there are too many processes for a batch; `aligned`: one that is
    aligned with teachers as well."""
    processes.check_batch(config.batch_size)
    if config.task_steps and aligned:
        what = f"align_share {config.align_share:g} of batch_size {config.batch_size}"
        processes.check_batch(share_of(config), what)


def _generator(seed: int, step: int, device: torch.device) -> torch.Generator:
    """Seeds torch's own generator (dropout of a trunk) and returns one for augmentation."""
    mixed = mixed_seed(seed, step)
    torch.manual_seed(mixed)
    return torch.Generator(device=device).manual_seed(mixed)
