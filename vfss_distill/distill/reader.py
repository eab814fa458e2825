"""A reader of frames nobody has labelled: masks from all that the teachers say of them.

    cache/<teacher>-<digest12>/<study>.safetensors   features of labelled frames, moved and altered

The reader is a small network on the frozen features of every teacher side by side, fitted on the
labels; a second one, fitted on the labels and on what the first has read, which is of many more
patients, reads again. What one teacher does not tell apart another may, and the reader sees both at
once, which a student that copies each of them by itself does not. What becomes of what it reads is
in readings.py.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..config import DistillConfig
from ..models.decoder import pool_to
from ..provenance import digest_json
from .augment import collimated, geometric, photometric
from .cache import Job, Recipe, frames_digest
from .data import (
    Key,
    LabelledFrames,
    Order,
    Tick,
    labelled_keys,
    mixed_seed,
    shares,
)
from .features import TeacherFeatures
from .losses import task_loss
from .readings import SIDE, Plausible, all_read
from .spread import with_enough

if TYPE_CHECKING:
    from ..intake.study import Study

_RULE = 1  # counts changes of what views show: part of the cache key
VIEWS = 400  # of labelled frames, all together; three times as many read no better
_OF_A_TASK = 24  # of these at least: what a reader has not seen it reads wrongly
_GRID = 32
_WIDTH = 64
_STEPS = 300
_BATCH = 8
_RATE = 0.01
_WEIGHT_DECAY = 0.05
_OF_READ = 6  # of a batch, for the second reader; a third is no better than the second
_DROPPED = 0.1  # of the channels: not everything on one
_RARE = -3.0  # maps begin at a probability of .05: most of a frame is nothing
_STREAM, _READ_STREAM = 6, 7


@dataclass(frozen=True)
class Views(Job):
    """Labelled frames of one study as a job for the cache, each seen `each` times: as a student
    would, moved, collimated and altered. `frames` are frame · each + view."""

    size: int = 256
    each: int = 1
    mirrored: float = 0.5

    @property
    def of(self) -> list[int]:
        """The frames themselves."""
        return sorted({number // self.each for number in self.frames})

    def squares(self, numbers: Sequence[int]) -> NDArray[np.uint8]:
        box = self.study.letterbox(self.size)
        blank = torch.zeros(1, 1, self.size, self.size)
        seen = []
        for number in numbers:
            square = box.frame(self.study.read_frame(number // self.each))
            frame = torch.from_numpy(square)[None, None]
            seen.append(self.moved(number, photometric(frame, self._drawn(number, 0)), blank)[0])
        return torch.cat(seen)[:, 0].round().clamp(0, 255).to(torch.uint8).numpy()

    def digest(self, numbers: Sequence[int]) -> str:
        return frames_digest(self.study, sorted({number // self.each for number in numbers}))

    def moved(self, number: int, frame: Tensor, planes: Tensor) -> tuple[Tensor, Tensor]:
        """A frame (1, 1, S, S) and bit planes of its masks (1, P, S, S) as that view has them."""
        generator = self._drawn(number, 1)
        return geometric(*collimated(frame, planes, generator), generator, self.mirrored)

    def _drawn(self, number: int, stream: int) -> torch.Generator:
        study = zlib.crc32(self.study.id.encode())
        return torch.Generator().manual_seed(mixed_seed(study, number, stream))


def view_size(config: DistillConfig) -> int:
    """Side of views: twice as fine as what the student sees, which teachers make use of."""
    return 2 * config.image_size


def view_jobs(
    studies: Sequence[Study], keys: Sequence[Key], tasks: Sequence[str], config: DistillConfig
) -> dict[int, Views]:
    """By study number: of labelled frames `keys` as many as show every one of `tasks` that is
    labelled, each as often as makes about VIEWS together."""
    groups = [(labelled_keys(studies, [task]), _OF_A_TASK) for task in tasks]
    chosen = with_enough(keys, VIEWS, groups)
    each = max(1, VIEWS // max(1, len(chosen)))
    frames: dict[int, list[int]] = {}
    for study, frame in chosen:
        frames.setdefault(study, []).extend(frame * each + view for view in range(each))
    size, mirrored = view_size(config), config.mirrored
    return {
        study: Views(studies[study], tuple(some), size, each, mirrored)
        for study, some in frames.items()
    }


def view_recipe(features: Recipe, jobs: Mapping[int, Views]) -> Recipe:
    """The cache key of what a teacher says of views, from that of its features."""
    shown = {(views.size, views.each, views.mirrored) for views in jobs.values()}
    rules = {"features": features.fingerprint, "rule": _RULE, "views": sorted(shown)}
    return replace(features, fingerprint=digest_json(rules))


class Reader(nn.Module):
    """Standardised maps of all teachers (B, C, 32, 32) → logits (B, T, 64, 64)."""

    def __init__(self, channels: int, tasks: int) -> None:
        super().__init__()
        last = nn.Conv2d(_WIDTH, 4 * tasks, 1)
        nn.init.constant_(last.bias, _RARE)  # type: ignore[arg-type]
        self.layers = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.Dropout2d(_DROPPED),
            *_block(channels, 1),
            *_block(_WIDTH, 3),
            *_block(_WIDTH, 3),
            last,
            nn.PixelShuffle(SIDE // _GRID),
        )

    def forward(self, maps: Tensor) -> Tensor:
        logits: Tensor = self.layers(maps)
        return logits


def _block(channels: int, kernel: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels, _WIDTH, kernel, padding=kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(_WIDTH), nn.ReLU()


@dataclass(frozen=True)
class Lesson:
    """What a reader is fitted on: views of labelled frames, and what teachers say of each.

    `jobs` by study number; `features` by teacher, standardised, with keys (study, view).
    """

    jobs: Mapping[int, Views]
    features: Sequence[TeacherFeatures]
    labelled: LabelledFrames  # of the views' size
    plausible: Plausible


@dataclass(frozen=True)
class Taught:
    """Masks with what teachers say of their frames: `each_batch` of them in a batch."""

    features: Sequence[TeacherFeatures]
    keys: Sequence[Key]
    masks: Tensor  # (n, T, 64, 64), 0..1
    labelled: Tensor  # (n, T) bool
    order: Order
    each_batch: int

    def batch(self, step: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        rows = self.order.batch(step, self.each_batch)
        maps = _maps(self.features, [self.keys[row] for row in rows], device)
        return maps, self.masks[rows].float().to(device), self.labelled[rows].to(device)


def read_twice(
    lesson: Lesson,
    features: Sequence[TeacherFeatures],
    keys: Sequence[Key],
    seed: int,
    device: torch.device,
    tick: Tick,
) -> Tensor:
    """`features` of the frames `keys` → probabilities (n, T, 64, 64) as uint8, 255 for certain."""
    seen = lesson.features[0].keys
    masks, labelled = _seen_masks(lesson, seen)
    order = Order(len(seen), seed, _STREAM)
    labels = Taught(lesson.features, seen, masks, labelled, order, _BATCH)
    first = read(fit_reader([labels], seed, device, tick), features, keys, device, tick)
    # Masks that lie on one another stay: without them a poor reader has too few.
    known = labelled.any(0) & lesson.plausible.there(first)
    order = Order(len(keys), seed, _READ_STREAM)
    before = Taught(features, keys, first.half() / 255, known, order, _OF_READ)
    fewer = replace(labels, each_batch=_BATCH - _OF_READ)
    second = fit_reader([fewer, before], seed + 1, device, tick)
    return read(second, features, keys, device, tick)


def fit_reader(parts: Sequence[Taught], seed: int, device: torch.device, tick: Tick) -> Reader:
    """A reader of these masks. torch's own random numbers are drawn from `seed`."""
    channels = sum(teacher.channels for teacher in parts[0].features)
    torch.manual_seed(seed)
    reader = Reader(channels, parts[0].masks.shape[1]).to(device).train()
    optimiser = torch.optim.AdamW(reader.parameters(), weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, _STEPS)
    for step in range(_STEPS):
        batches = [part.batch(step, device) for part in parts]
        maps, masks, labelled = (torch.cat(some) for some in zip(*batches, strict=True))
        loss = task_loss(reader(maps), masks, labelled)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        tick(step + 1, _STEPS, "the reader of all teachers")
    return reader.eval()


@torch.no_grad()
def read(
    reader: Reader,
    features: Sequence[TeacherFeatures],
    keys: Sequence[Key],
    device: torch.device,
    tick: Tick,
) -> Tensor:
    """→ probabilities (n, T, 64, 64) as uint8, 255 for certain."""
    return all_read(
        keys, lambda some: reader(_maps(features, some, device)), tick, "frames that are read"
    )


def _seen_masks(lesson: Lesson, keys: Sequence[Key]) -> tuple[Tensor, Tensor]:
    """→ masks of the views (n, T, 64, 64), 0..1, and which are labelled (n, T)."""
    row_of = {key: row for row, key in enumerate(lesson.labelled.keys)}
    one_frame = lru_cache(maxsize=1)(lambda row: lesson.labelled.batch([row]))
    masks, labelled = [], []
    for study, number in keys:
        views = lesson.jobs[study]
        batch = one_frame(row_of[study, number // views.each])
        planes = views.moved(number, batch.frames.float(), batch.planes)[1]
        tasks = batch.labelled.shape[1]
        masks.append(shares(planes, tasks, views.size // SIDE).half())
        labelled.append(batch.labelled)
    return torch.cat(masks), torch.cat(labelled)


def _maps(features: Sequence[TeacherFeatures], keys: Sequence[Key], device: torch.device) -> Tensor:
    maps = [pool_to(teacher.batch(keys, device), _GRID) for teacher in features]
    return torch.cat(maps, dim=1)
