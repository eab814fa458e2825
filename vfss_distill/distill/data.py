"""Frames and masks of the study store, letterboxed and ready to be made into batches.

A frame is named by its key, (study number, frame number). Where they fit, frames are kept in
memory as uint8 and masks as bits; otherwise they are read when asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..memory import free_memory

if TYPE_CHECKING:
    from ..intake.study import Study

Key: TypeAlias = tuple[int, int]
Tick: TypeAlias = Callable[[int, int, str], None]
Item = TypeVar("Item")
Read = TypeVar("Read")

# Tasks per plane of bits: a plane is warped as one float image, exact up to 2**24.
BITS = 16


class Frames:
    """Frames of `studies`, each an S×S square with its neighbours as channels if `context`.

    With `earlier`, what `before` gives is kept in memory too.
    """

    def __init__(
        self,
        studies: Sequence[Study],
        keys: Iterable[Key],
        *,
        size: int,
        context: int,
        budget_bytes: int,
        earlier: bool = False,
        tick: Tick = lambda *_: None,
    ) -> None:
        self.studies = studies
        self.size = size
        self.context = context
        asked = [key for one in keys for key in ((one, _one_earlier(one)) if earlier else (one,))]
        needed = sorted({near for key in asked for near in self._neighbourhood(key)})
        self.row_of: dict[Key, int] = {}
        self._held: Tensor | None = None
        if len(needed) * size * size <= budget_bytes:
            held = np.empty((len(needed), size, size), np.uint8)
            for row, square in _all_of(self._read, needed):
                held[row] = square
                tick(row + 1, len(needed), "frames")
            self.row_of = {key: row for row, key in enumerate(needed)}
            self._held = torch.from_numpy(held)

    def move_to(self, device: torch.device, budget_bytes: int) -> None:
        """Keep what is held in the memory of `device` instead, if it takes no more than the budget:
        large batches take longer to put together and send than a GPU takes to learn from them.
        """
        if self._held is not None and self._held.nbytes <= budget_bytes:
            self._held = self._held.to(device)

    def batch(self, keys: Sequence[Key]) -> Tensor:
        """→ uint8 (B, 1 + 2·context, S, S): previous, this, next; on the device that holds them."""
        flat = [near for key in keys for near in self._neighbourhood(key)]
        if self._held is not None:
            rows = torch.tensor([self.row_of[key] for key in flat], device=self._held.device)
            stack = self._held.index_select(0, rows)
        else:
            stack = torch.from_numpy(np.stack([self._read(key) for key in flat]))
        return stack.view(len(keys), -1, self.size, self.size)

    def before(self, keys: Sequence[Key]) -> Tensor:
        """As `batch`, of the frame before each; of a study's first one, itself."""
        return self.batch([_one_earlier(key) for key in keys])

    def name(self, key: Key) -> str:
        """For messages: which frame of which study."""
        return f"study {self.studies[key[0]].id}, frame {key[1]}"

    def _neighbourhood(self, key: Key) -> list[Key]:
        study, frame = key
        last = self.studies[study].record.frames - 1
        reach = range(-self.context, self.context + 1)
        return [(study, min(max(frame + step, 0), last)) for step in reach]

    def _read(self, key: Key) -> NDArray[np.uint8]:
        grey = self.studies[key[0]].read_frame(key[1])
        square: NDArray[np.uint8] = self.studies[key[0]].letterbox(self.size).frame(grey)
        return square


def _one_earlier(key: Key) -> Key:
    study, frame = key
    return study, max(frame - 1, 0)


@dataclass(frozen=True)
class LabelledBatch:
    """Frames uint8 (B, C, S, S), masks as bit planes float32 (B, P, S, S), labelled bool (B, T)."""

    keys: list[Key]
    frames: Tensor
    planes: Tensor
    labelled: Tensor


def joined(one: LabelledBatch, other: LabelledBatch) -> LabelledBatch:
    """The frames of both, in order."""
    return LabelledBatch(
        keys=[*one.keys, *other.keys],
        frames=torch.cat([one.frames, other.frames]),
        planes=torch.cat([one.planes, other.planes]),
        labelled=torch.cat([one.labelled, other.labelled]),
    )


class LabelledFrames:
    """Frames of which at least one task is labelled, with what is known of each task.

    A task without a label in a frame has its flag False there, and its bits mean nothing.
    """

    def __init__(
        self,
        frames: Frames,
        keys: Sequence[Key],
        tasks: Sequence[str],
        *,
        budget_bytes: int,
        tick: Tick = lambda *_: None,
    ) -> None:
        self.frames = frames
        self.keys = list(keys)
        self.tasks = tuple(tasks)
        self.planes_each = -(-len(self.tasks) // BITS)
        known = {
            (number, frame, task)
            for number in {number for number, _ in self.keys}
            for task in self.tasks
            for frame in frames.studies[number].labelled_frames(task)
        }
        self.labelled = torch.tensor(
            [[(*key, task) in known for task in self.tasks] for key in self.keys],
            dtype=torch.bool,
        ).view(len(self.keys), len(self.tasks))
        self.held: NDArray[np.uint16] | None = None
        shape = (len(self.keys), self.planes_each, frames.size, frames.size)
        if 2 * int(np.prod(shape)) <= budget_bytes:
            held = np.empty(shape, np.uint16)
            for row, planes in _all_of(self._read, range(len(self.keys))):
                held[row] = planes
                tick(row + 1, len(self.keys), "masks")
            self.held = held

    def __len__(self) -> int:
        return len(self.keys)

    def batch(self, rows: Sequence[int]) -> LabelledBatch:
        keys = [self.keys[row] for row in rows]
        return LabelledBatch(
            keys=keys,
            frames=self.frames.batch(keys),
            planes=self.masks(rows),
            labelled=self.labelled[list(rows)],
        )

    def masks(self, rows: Sequence[int]) -> Tensor:
        """→ bit planes float32 (B, P, S, S)."""
        return torch.from_numpy(np.stack([self.planes(row) for row in rows]).astype(np.float32))

    def planes(self, row: int) -> NDArray[np.uint16]:
        """All masks of one frame: (P, S, S), of `BITS` tasks each."""
        return self._read(row) if self.held is None else self.held[row]

    def leave_out(self, tasks: Collection[str]) -> None:
        """From now on these count as not labelled."""
        self.labelled &= torch.tensor([task not in tasks for task in self.tasks])

    def patient(self, row: int) -> str:
        return self.frames.studies[self.keys[row][0]].patient

    def _read(self, row: int) -> NDArray[np.uint16]:
        key = self.keys[row]
        size = self.frames.size
        planes = np.zeros((self.planes_each, size, size), np.uint16)
        for number, task in enumerate(self.tasks):
            if not self.labelled[row, number]:
                continue
            mask = self.frames.studies[key[0]].read_mask(task, key[1])
            if mask is None:  # the record says labelled, the file has gone
                self.labelled[row, number] = False
                continue
            square = self.frames.studies[key[0]].letterbox(size).mask(mask)
            planes[number // BITS] |= square.astype(np.uint16) << (number % BITS)
        return planes


def _all_of(read: Callable[[Item], Read], items: Iterable[Item]) -> Iterator[tuple[int, Read]]:
    """What `read` gives for each, numbered, on as many threads as torch has: decoders of images
    let the others work."""
    pool = ThreadPoolExecutor(torch.get_num_threads())
    try:
        yield from enumerate(pool.map(read, items))
    finally:
        pool.shutdown(cancel_futures=True)


def pack(masks: Tensor) -> Tensor:
    """Masks bool (B, T, S, S) → bit planes float32 (B, P, S, S)."""
    planes = torch.zeros(len(masks), -(-masks.shape[1] // BITS), *masks.shape[2:])
    for task in range(masks.shape[1]):
        planes[:, task // BITS] += masks[:, task].float() * (1 << task % BITS)
    return planes


def unpack(planes: Tensor, tasks: int) -> Tensor:
    """Bit planes (B, P, S, S) → masks float32 (B, T, S, S), 0 or 1."""
    bits = planes.to(torch.int32)
    masks = torch.empty(len(bits), tasks, *bits.shape[2:], device=bits.device)
    for task in range(tasks):
        masks[:, task] = (bits[:, task // BITS] & (1 << task % BITS)) != 0
    return masks


def shares(planes: Tensor, tasks: int, cell: int) -> Tensor:
    """Bit planes (B, P, S, S) → share of each cell × cell square inside each mask, float32
    (B, T, S/cell, S/cell): the mean of `unpack`, at a tenth of its cost.

    Bits far enough apart are counted together, in one word: no count runs into the next.
    """
    bits = planes.to(torch.int32)
    width = (cell * cell).bit_length()
    corners = [bits[..., y::cell, x::cell] for y in range(cell) for x in range(cell)]
    found = torch.empty(len(bits), tasks, *corners[0].shape[2:], device=bits.device)
    for first in range(min(width, BITS)):
        apart = sum(1 << bit for bit in range(first, BITS, width))
        counts = corners[0] & apart
        for corner in corners[1:]:
            counts += corner & apart
        for task in range(tasks):
            if task % BITS % width == first:
                one = (counts[:, task // BITS] >> task % BITS) & ((1 << width) - 1)
                found[:, task] = one
    return found.div_(cell * cell)


def mixed_seed(*numbers: int) -> int:
    """One seed for a generator from several numbers that are not negative."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


class Order:
    """Endless shuffled passes over n rows, without state: which rows step k takes is computed.

    So a run resumed at step k sees what it would have seen, with nothing to save.
    """

    def __init__(self, rows: int, seed: int, stream: int) -> None:
        self.rows = rows
        self.seed = (seed, stream)
        self._pass = lru_cache(maxsize=4)(self._shuffle)

    def batch(self, step: int, size: int) -> list[int]:
        places = range(step * size, (step + 1) * size)
        return [int(self._pass(place // self.rows)[place % self.rows]) for place in places]

    def _shuffle(self, number: int) -> NDArray[np.int64]:
        return np.random.default_rng((*self.seed, number)).permutation(self.rows)


def labelled_keys(studies: Sequence[Study], tasks: Sequence[str]) -> list[Key]:
    """Keys of frames with a label for at least one of `tasks`, in order."""
    keys: set[Key] = set()
    for number, study in enumerate(studies):
        for task in tasks:
            keys.update((number, frame) for frame in study.labelled_frames(task))
    return sorted(keys)


def labels_digest(study: Study, frames: Iterable[int], tasks: Sequence[str]) -> str:
    """Of the mask files themselves: a corrected label is another label."""
    digest = hashlib.sha256()
    for frame in frames:
        for task in tasks:
            path = study.folder / "masks" / task / f"{frame:06d}.png"
            digest.update(hashlib.sha256(path.read_bytes()).digest() if path.exists() else b"-")
    return digest.hexdigest()


def alignment_keys(studies: Sequence[Study], labelled: Iterable[Key], every: int) -> list[Key]:
    """All labelled frames, and of each study's other frames every `every`-th."""
    keys = set(labelled)
    for number, study in enumerate(studies):
        frames = ((number, frame) for frame in range(study.record.frames))
        keys.update([key for key in frames if key not in keys][::every])
    return sorted(keys)


def memory_budget() -> int:
    """Bytes that frames, masks and features may each take: a sixth of what is free now."""
    return free_memory() // 6
