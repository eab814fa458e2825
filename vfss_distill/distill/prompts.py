"""Masks a promptable teacher draws under boxes around the labels, computed once.

    cache/<teacher>-<digest12>/<study>.safetensors   {"masks": (n, T, 64, 64) fp16 logits,
                                                      "prompted": (n, T), "frames": (n,)}

Each box is shaken a few times, as a reader's would be, and the logits are averaged. A mask that
hardly covers the label is left out: there the teacher took the box for something else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..claims import in_turn
from ..counting import counted
from ..errors import ModelError
from ..provenance import digest_json
from .cache import (
    Job,
    Recipe,
    Say,
    frames_digest,
    full_square,
    shard_path,
    write_index,
    write_shard,
)
from .data import Key, Tick, labels_digest
from .packing import checksum
from .shelf import CLAIMS

if TYPE_CHECKING:
    from ..intake.study import Study

_SIDE = 64
_BOXES = 4
_SHAKE = 0.1  # of the box's width and height, each edge by itself
_OVERLAP = 0.5  # Dice of the teacher's mask and the label


class PromptedMasks:
    """Mean mask logits of one teacher by frame, for the tasks that are present there."""

    def __init__(self, keys: Sequence[Key], logits: Tensor, prompted: Tensor) -> None:
        """`keys` (n), `logits` (n, T, 64, 64), `prompted` (n, T); frames without a mask go."""
        some = prompted.bool().any(1)
        self.keys: list[Key] = [key for key, any_ in zip(keys, some.tolist(), strict=True) if any_]
        self.logits, self.prompted = logits[some], prompted[some].bool()
        self._row_of = {key: row for row, key in enumerate(self.keys)}

    @classmethod
    def from_cache(cls, folder: Path, jobs: Mapping[int, Job]) -> PromptedMasks:
        """`jobs` by study number, as they were given to `fill_prompts`."""
        keys, logits, prompted = [], [], []
        for number, job in jobs.items():
            with safe_open(shard_path(folder, job.study.id), framework="pt") as file:
                logits.append(file.get_tensor("masks").clone())
                prompted.append(file.get_tensor("prompted").clone())
                keys += [(number, frame) for frame in file.get_tensor("frames").tolist()]
        return cls(keys, torch.cat(logits), torch.cat(prompted))

    def count(self) -> int:
        """How many masks there are."""
        return int(self.prompted.sum())

    def batch(self, keys: Sequence[Key]) -> tuple[Tensor, Tensor]:
        """→ logits float32 (B, T, 64, 64), prompted bool (B, T); frames without a box are blank."""
        logits = torch.zeros(len(keys), *self.logits.shape[1:])
        prompted = torch.zeros(len(keys), self.prompted.shape[1], dtype=torch.bool)
        for place, key in enumerate(keys):
            if (row := self._row_of.get(key)) is not None:
                logits[place], prompted[place] = self.logits[row].float(), self.prompted[row]
        return logits, prompted


def prompt_recipe(features: Recipe, tasks: Sequence[str]) -> Recipe:
    """The cache key of a teacher's masks, from that of its features."""
    rules = {
        "features": features.fingerprint,
        "tasks": list(tasks),
        "boxes": [_BOXES, _SHAKE, _OVERLAP],
    }
    return replace(
        features,
        fingerprint=digest_json(rules),
        channels=len(tasks),
        grid=_SIDE,
        numbers="float16",
    )


def fill_prompts(
    teacher: Any,
    recipe: Recipe,
    jobs: Sequence[Job],
    tasks: Sequence[str],
    root: Path,
    *,
    say: Say,
    tick: Tick,
) -> Path:
    """Compute masks of `jobs`, labelled frames by study; → the folder. Shards that fit stay.

    `teacher.mask_logits(uint8 (B, H, W), boxes) → [(K, h, w)]`. Raises ModelError on logits that
    are not finite, StorageError.
    """
    folder = root / recipe.folder_name

    def is_done(job: Job) -> bool:
        path = shard_path(folder, job.study.id)
        return path.exists() and _is_good(path, _header(recipe, job, tasks))

    def waiting(studies: int) -> None:
        some = counted(studies, "study", "studies")
        say(f"{recipe.teacher}: waiting for masks of {some} that others compute")

    todo = [job for job in jobs if not is_done(job)]
    if not todo:
        return folder
    for job in todo:
        if shard_path(folder, job.study.id).exists():
            study = job.study.id
            say(f"{recipe.teacher}: cached masks of {study} are damaged or of other labels")
    some = counted(len(todo), "study", "studies")
    say(f"{recipe.teacher}: masks under boxes around the labels of {some}")
    done, frames = 0, sum(len(job.frames) for job in todo)
    for job in in_turn(folder / CLAIMS, todo, lambda job: job.study.id, is_done, waiting):
        header = _header(recipe, job, tasks)
        write_shard(folder, recipe, job, _draw(teacher, recipe, job, tasks), header)
        done += len(job.frames)
        tick(done, frames, f"{recipe.teacher}: masks")
    write_index(folder, recipe)
    return folder


def boxes_around(mask: NDArray[np.bool_], seed: Sequence[int]) -> NDArray[np.float32]:
    """Shaken boxes (K, 4) around a mask that is not empty: x0 y0 x1 y1 in pixels, inside it."""
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)
    sides = np.tile(box[2:] - box[:2], 2)
    shaken = box + np.random.default_rng(seed).uniform(-_SHAKE, _SHAKE, (_BOXES, 4)) * sides
    height, width = mask.shape
    kept: NDArray[np.float32] = shaken.clip(0, [width, height] * 2).astype(np.float32)
    return kept


def _draw(teacher: Any, recipe: Recipe, job: Job, tasks: Sequence[str]) -> dict[str, Tensor]:
    rows = [
        draw_masks(teacher, job.study, frame, _present(job.study, frame, tasks), len(tasks))
        for frame in job.frames
    ]
    logits, prompted = zip(*rows, strict=True)
    return {"masks": torch.stack(logits), "prompted": torch.stack(prompted).to(torch.uint8)}


def draw_masks(
    teacher: Any, study: Study, frame: int, masks: Mapping[int, NDArray[np.bool_]], tasks: int
) -> tuple[Tensor, Tensor]:
    """What the teacher draws under boxes around `masks` (by task number, any square size).

    → mean logits fp16 (T, 64, 64), and for which tasks they fit, bool (T,).
    """
    logits = torch.zeros(tasks, _SIDE, _SIDE, dtype=torch.float16)
    prompted = torch.zeros(tasks, dtype=torch.bool)
    if not masks:
        return logits, prompted
    square = torch.from_numpy(full_square(study, frame))
    boxes = [
        boxes_around(mask, (frame, number)) * (square.shape[0] / mask.shape[0])
        for number, mask in masks.items()
    ]
    (answers,) = teacher.mask_logits(square[None], [torch.from_numpy(np.concatenate(boxes))])
    answers = answers.float().cpu()
    if not bool(torch.isfinite(answers).all()):
        raise ModelError(
            f"a teacher's masks are not finite for study {study.id}, frame {frame}",
            remedy="Look at that frame; if it is fine, the weights file is damaged.",
        )
    means = answers.unflatten(0, (len(masks), _BOXES)).mean(1)  # (tasks here, h, w)
    for mean, (number, mask) in zip(means, masks.items(), strict=True):
        logits[number] = _resized(mean).clamp(-30, 30)
        prompted[number] = _covers(mean, mask)
    return logits, prompted


def _present(study: Study, frame: int, tasks: Sequence[str]) -> dict[int, NDArray[np.bool_]]:
    """Masks by task number on the square the teacher sees; absent and unlabelled ones left out."""
    found = {}
    for number, task in enumerate(tasks):
        mask = study.read_mask(task, frame)
        if mask is None or not mask.any():
            continue
        square = study.letterbox().mask(mask)
        if square.any():
            found[number] = square
    return found


def _covers(logits: Tensor, mask: NDArray[np.bool_]) -> bool:
    size = mask.shape[0]
    drawn = F.interpolate(logits[None, None], size=(size, size), mode="bilinear")[0, 0] > 0
    truth = torch.from_numpy(mask)
    shared = 2 * int((drawn & truth).sum())
    return shared >= _OVERLAP * (int(drawn.sum()) + int(truth.sum()))


def _resized(logits: Tensor) -> Tensor:
    return F.interpolate(logits[None, None], size=(_SIDE, _SIDE), mode="bilinear", antialias=True)[
        0, 0
    ]


def _header(recipe: Recipe, job: Job, tasks: Sequence[str]) -> dict[str, str]:
    return {
        "recipe": recipe.digest,
        "frames_sha256": frames_digest(job.study, job.frames),
        "labels_sha256": labels_digest(job.study, job.frames, tasks),
    }


def _is_good(path: Path, header: dict[str, str]) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            parts = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            found = file.metadata()
    except (SafetensorError, OSError):
        return False
    return found == {**header, "sha256": checksum(parts)} and "masks" in parts
