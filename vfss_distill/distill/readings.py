"""Masks that were read in frames nobody has labelled, to be learned from as if they were labels.

    runs/<run>/readings.safetensors                  {"masks": (n, T, 64, 64) uint8, 255 for sure,
                                                      "keys": (n, 2) study and frame number}
    runs/<run>/readings-<step>.safetensors           the same, read with the student

The student learns from these masks as from labels, its frames moved and altered in the same way:
not at once, but when it has learned enough from the labels to read with the reader (reader.py), who
learned apart from it and errs elsewhere; and only from those masks that are sure and can be true.
Who of both is surer of a structure counts for more: at first often the reader, later the student.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ..config import DistillConfig
from ..errors import ModelError
from ..tasks import TOUCH, TaskSet
from ..workspace import write_bytes
from .data import Frames, Key, LabelledBatch, LabelledFrames, Tick, pack, unpack
from .processes import Processes
from .reading_pictures import FILE, draw_readings

MOST = 2000  # frames to read: 50 kB each, each time
SIDE = 64
_AT_ONCE = 8
_DRAWN = 4
_SURENESS = 0.05  # of soft Dice: who is surer by so much counts 2.7 times as much


class ReadFrames:
    """Unlabelled frames with the masks that were read, as if labelled."""

    def __init__(
        self,
        frames: Frames,
        keys: Sequence[Key],
        masks: Tensor,
        known: Tensor,
        tasks: TaskSet,
        plausible: Plausible,
        folder: Path,
        renewals: Sequence[int] = (),
    ) -> None:
        """`masks` uint8 (n, T, m, m); `known` (T,) bool: tasks that the reader was taught. What it
        shows of others is noise, which would lie on masks that are right.
        `renewals`: before these steps the student reads too, kept in `folder`. None of it is
        learned before the first of them."""
        self.frames, self.keys, self.known = frames, list(keys), known
        self.tasks, self.plausible = tasks, plausible
        self.folder, self.renewals = folder, renewals
        self._of_reader = masks * known[:, None, None]
        self._since = -1  # the step before which the masks were read
        if self.open:
            self._take(self._of_reader)

    @property
    def open(self) -> bool:
        """To be learned from."""
        return not self.renewals or self._since >= 0

    def renew(
        self,
        step: int,
        student: nn.Module,
        device: torch.device,
        processes: Processes,
        tick: Tick = lambda *_: None,
    ) -> None:
        """Make the masks what they are at this step; a resumed run finds them in its folder.

        Those just read are drawn. Raises ModelError when they are gone, StorageError.
        """
        since = max((at for at in self.renewals if at <= step), default=-1)
        if since == self._since:
            return
        path = self.folder / f"readings-{since}.safetensors"
        if since == step:
            if processes.is_first:
                masks = self._read_by(student, device, tick)
                save_readings(path, self.keys, together(self._of_reader, masks, self.known))
            processes.wait()
        self._take(kept_readings(path, self.keys))
        self._since = since
        if since == step and processes.is_first:
            self.draw()

    def draw(self) -> None:
        """readings.png: four frames with the masks so far. Raises StorageError."""
        rows = from_sure_to_unsure(self._of_reader, _DRAWN)
        frames = self.frames.batch([self.keys[row] for row in rows])[:, self.frames.context]
        nothing = np.zeros((len(rows), len(self.tasks)), bool)
        learned = self.taught[rows].numpy() if self.open else nothing
        of_reader = self._of_reader[rows].numpy()
        columns = {"the reader": (of_reader, nothing if self.renewals else learned)}
        if self.renewals and self.open:
            columns[f"reader and student,\nstep {self._since}"] = self.masks[rows].numpy(), learned
        draw_readings(self.folder / FILE, frames.cpu().numpy(), columns, self.tasks)

    def _take(self, masks: Tensor) -> None:
        self.masks = masks
        self.taught = self.known & self.plausible(masks) & surer(masks)

    @torch.no_grad()
    def _read_by(self, student: nn.Module, device: torch.device, tick: Tick) -> Tensor:
        student.eval()
        masks = all_read(
            self.keys,
            lambda some: student(self.frames.batch(some).to(device)).float(),
            tick,
            "frames that are read anew",
        )
        return masks * self.known[:, None, None]

    def __len__(self) -> int:
        return len(self.keys)

    def batch(self, rows: Sequence[int]) -> LabelledBatch:
        keys = [self.keys[row] for row in rows]
        size = self.frames.size
        maps = F.interpolate(
            self.masks[list(rows)].float(), (size, size), mode="bilinear", align_corners=False
        )
        return LabelledBatch(
            keys=keys,
            frames=self.frames.batch(keys),
            planes=pack(maps > 127.5),
            labelled=self.taught[list(rows)],
        )


@dataclass(frozen=True)
class Plausible:
    """Which masks can be true: `plausible(masks)` is (n, T) bool, of probabilities (n, T, m, m),
    255 for sure.

    A task that is never `absent` (T,) is there, though a reader finds nothing: learned from, such
    frames teach the student to find nothing either. And where two tasks lie on one another that
    are always `apart` (T, T), at least one of both is wrong, often the number of a vertebra.
    """

    absent: Tensor
    apart: Tensor

    @classmethod
    def of(cls, tasks: TaskSet, labelled: LabelledFrames) -> Plausible:
        """As the task set says; tasks whose labels overlap may do so, whatever it says."""
        crossed = torch.eye(len(tasks), dtype=torch.bool)
        for row in range(len(labelled)):
            batch = labelled.batch([row])
            crossed |= _crossing(unpack(batch.planes, len(tasks)) > 0)[0]
        may = [[tasks.may_overlap(one, other) for other in tasks.ids] for one in tasks.ids]
        absent = torch.tensor([task.may_be_absent for task in tasks])
        return cls(absent, ~(torch.tensor(may) | crossed))

    def __call__(self, masks: Tensor) -> Tensor:
        clash = [(_crossing(some) & self.apart).any(2) for some in (masks > 127).split(_AT_ONCE)]
        return self.there(masks) & ~torch.cat(clash)

    def there(self, masks: Tensor) -> Tensor:
        """(n, T) bool: shown, or may be absent."""
        return self.absent | (masks > 127).flatten(2).any(2)


def _crossing(masks: Tensor) -> Tensor:
    """Masks bool (n, T, m, m) → which of them lie on which, (n, T, T) bool: more than touching.
    A reader's maps are coarse."""
    flat = masks.flatten(2).float()
    shared = flat @ flat.transpose(1, 2)
    area = shared.diagonal(dim1=1, dim2=2)
    return shared > TOUCH * torch.minimum(area[:, :, None], area[:, None])


def surer(masks: Tensor) -> Tensor:
    """Which masks are to be learned from, (n, T) bool, of probabilities (n, T, m, m), 255 for sure.

    Of each task the surer half of the frames that show it, by the soft Dice of its map with the map
    cut at one half, and of those that do not, by their surest pixel. Where a reader is unsure it is
    often wrong.
    """
    sure = []
    for map_ in masks.transpose(0, 1):
        agreement, shown = _with_its_cut(map_)
        surest = map_.flatten(1).amax(1).float()
        sure.append(_upper_half(agreement, shown) | _upper_half(-surest, ~shown))
    return torch.stack(sure, dim=1)


def from_sure_to_unsure(masks: Tensor, count: int) -> list[int]:
    """Rows of up to `count` frames, evenly from that whose maps are surest to the least sure."""
    total, shown = torch.zeros(2, len(masks))
    for map_ in masks.unbind(1):
        agreement, shows = _with_its_cut(map_)
        total += agreement * shows
        shown += shows
    order = (total / shown.clamp_min(1)).argsort(descending=True, stable=True)
    places = torch.linspace(0, len(order) - 1, min(count, len(order))).round().long()
    return [int(row) for row in order[places]]


def together(reader: Tensor, student: Tensor, known: Tensor) -> Tensor:
    """The mean of what both have read, uint8 (n, T, m, m), of each task weighed by how sure they
    are: the soft Dice with its cut, over the frames that show it. A student of few steps is unsure
    of what it has hardly seen, and half its doubt would wipe out what the reader sees well. Half of
    the sureness is that of all `known` tasks (T,): a reader of few labels may be sure of one, and
    wrong."""
    own = torch.tensor([[_sureness(task) for task in maps.unbind(1)] for maps in (reader, student)])
    sureness = (own + own[:, known].mean(1, keepdim=True)) / 2
    weights = torch.softmax(sureness / _SURENESS, 0)
    masks = torch.empty_like(reader)
    for task, (first, second) in enumerate(weights.T):  # one at a time: floats of all are large
        masks[:, task] = (first * reader[:, task] + second * student[:, task]).round().byte()
    return masks


def _sureness(maps: Tensor) -> float:
    agreement, shown = _with_its_cut(maps)
    return float(agreement[shown].mean()) if shown.any() else 0.0


def _with_its_cut(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Of one task, uint8 (n, m, m): soft Dice of each map with itself cut at one half (n,), and
    whether that cut shows anything (n,)."""
    soft = maps.flatten(1).float() / 255
    cut = soft > 0.5
    agreement = 2 * (soft * cut).sum(1) / (soft.sum(1) + cut.sum(1)).clamp_min(1e-6)
    return agreement, cut.any(1)


def _upper_half(values: Tensor, among: Tensor) -> Tensor:
    if not among.any():
        return among
    return among & (values >= values[among].quantile(0.5))


def all_read(
    keys: Sequence[Key], logits_of: Callable[[Sequence[Key]], Tensor], tick: Tick, words: str
) -> Tensor:
    """Logits (b, T, s, s) of a few frames at a time → probabilities (n, T, 64, 64) as uint8."""
    seen = []
    for first in range(0, len(keys), _AT_ONCE):
        some = keys[first : first + _AT_ONCE]
        maps = torch.sigmoid(logits_of(some))
        if maps.shape[-1] != SIDE:
            maps = F.interpolate(maps, (SIDE, SIDE), mode="bilinear", antialias=True)
        seen.append((255 * maps).round().clamp(0, 255).to(torch.uint8).cpu())
        tick(first + len(some), len(keys), words)
    return torch.cat(seen)


def save_readings(path: Path, keys: Sequence[Key], masks: Tensor) -> None:
    """Raises StorageError."""
    write_bytes(path, save({"masks": masks.contiguous(), "keys": torch.tensor(list(keys))}))


def stored_readings(path: Path, keys: Sequence[Key]) -> Tensor | None:
    """Masks of exactly these frames, if they are there and whole."""
    try:
        stored = load_file(path)
    except (OSError, SafetensorError):
        return None
    if stored.get("keys", torch.empty(0)).tolist() != [list(key) for key in keys]:
        return None
    return stored.get("masks")


def kept_readings(path: Path, keys: Sequence[Key]) -> Tensor:
    """As `stored_readings`. Raises ModelError where there is nothing."""
    masks = stored_readings(path, keys)
    if masks is None:
        raise ModelError(
            "masks that were read for this run are gone",
            file=path.name,
            remedy="Start a new run with `vfss distill` (without --resume).",
        )
    return masks


def read_of_batch(config: DistillConfig) -> int:
    """How many of the frames with masks in a batch were read; at least one has labels."""
    if not config.read_share:
        return 0
    return min(config.batch_size - 1, max(1, round(config.batch_size * config.read_share)))


def renewals(config: DistillConfig) -> list[int]:
    """Steps before which the student reads: evenly over those with masks."""
    parts = config.read_again + 1
    places = {config.task_steps * part // parts for part in range(1, parts)}
    return sorted(config.align_steps + place for place in places if place)
