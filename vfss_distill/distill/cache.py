"""Teachers' features, computed once: one shard per study and teacher, in fp16 or, by option, int8.

    cache/<teacher>-<digest12>/<study>.safetensors   {"features": (n, C, g, g), "frames": (n,)}
    cache/<teacher>-<digest12>/index.json            what the digest stands for; shards and sizes

The digest covers weights, preprocessing, grid and kind of number; a shard also bears the digest of
its study's frames and a checksum, and is verified before it is used. Runs with other frames of a
study add theirs and take none away: a shard serves all of them. Safe to delete; a killed run goes
on at the first missing shard.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..claims import in_turn
from ..counting import counted
from ..errors import DataError, ModelError, StorageError
from ..letterbox import RULE
from ..models.decoder import pool_to
from ..provenance import digest_json, document
from ..workspace import free_bytes, is_temporary, read_json, write_bytes, write_json
from .data import Key, Tick
from .forecast import Forecast
from .packing import BYTES, PackingLoss, checksum, joined, pack
from .shelf import CLAIMS

if TYPE_CHECKING:
    from ..intake.study import Study

Say = Callable[[str], None]

HALF = 2  # bytes of a cached number
_SPARE = 256 << 20  # left free on the disk


@dataclass(frozen=True)
class Job:
    """Which frames of one study the teachers are to see."""

    study: Study
    frames: tuple[int, ...]

    def squares(self, numbers: Sequence[int]) -> NDArray[np.uint8]:
        """What the teachers are shown of some of `frames`: (n, S, S)."""
        return np.stack([full_square(self.study, number) for number in numbers])

    def digest(self, numbers: Sequence[int]) -> str:
        """Changes with what `squares` gives."""
        return frames_digest(self.study, numbers)


@dataclass(frozen=True)
class Recipe:
    """What makes the features what they are: the cache key."""

    teacher: str
    weights_sha256: str
    fingerprint: str
    channels: int
    grid: int
    numbers: str = "float16"

    @property
    def digest(self) -> str:
        facts = dict(vars(self))
        dtype = facts.pop("numbers")
        return digest_json({**facts, "letterbox": RULE, "dtype": dtype})

    @property
    def folder_name(self) -> str:
        return f"{self.teacher}-{self.digest[:12]}"

    def bytes_for(self, frames: int) -> int:
        return frames * self.channels * self.grid * self.grid * BYTES[self.numbers]


def jobs_from(studies: Sequence[Study], keys: Sequence[Key]) -> list[Job]:
    """Keys gathered by study; studies without any are left out."""
    frames: dict[int, list[int]] = {}
    for number, frame in keys:
        frames.setdefault(number, []).append(frame)
    return [Job(studies[number], tuple(sorted(frames[number]))) for number in sorted(frames)]


def fill_cache(
    teacher: Any,
    recipe: Recipe,
    jobs: Sequence[Job],
    root: Path,
    *,
    batch_size: int,
    say: Say,
    tick: Tick,
) -> Path:
    """Compute what is missing; → the teacher's cache folder. Others may do the same meanwhile:
    no frame is computed twice, and it returns when all are there.

    `teacher.features(uint8 (B, H, W)) → float32 (B, C, g, g)`. A shard that is damaged, of other
    weights or of other frames is recomputed, and that is said. One that lacks some frames gets
    them; features in it stay as they are, to the bit, whatever would be computed beside them now.
    Raises StorageError before the first frame when the disk will not hold the result, ModelError
    on features that are not finite.
    """
    folder = root / recipe.folder_name
    stored = {job.study.id: _stored(folder, recipe, job, say)[0] for job in jobs}
    lacking = {job.study.id: _lacking(job, stored[job.study.id]) for job in jobs}
    todo = [job for job in jobs if lacking[job.study.id]]
    frames = sum(map(len, lacking.values()))
    if not todo:
        say(f"{recipe.teacher}: features of {counted(len(jobs), 'study', 'studies')} are cached")
        return folder
    size = recipe.bytes_for(frames)
    some = counted(len(todo), "study", "studies")
    say(
        f"{recipe.teacher}: {counted(frames, 'frame')} of {some} to compute, "
        f"{_megabytes(size)} at {recipe.grid}×{recipe.grid}×{recipe.channels}"
    )
    # A shard that gets more frames lies beside its successor for a moment.
    beside = max(len(stored[job.study.id]) for job in todo)
    _check_room(recipe, size + recipe.bytes_for(beside), root)
    done, lost, forecast = 0, PackingLoss(), Forecast(recipe.teacher, frames, say)

    def seen(more: int) -> None:
        tick(done + more, frames, recipe.teacher)
        forecast.seen(done + more)

    def waiting(studies: int) -> None:
        some = counted(studies, "study", "studies")
        say(f"{recipe.teacher}: waiting for {some} that other processes compute")

    def is_done(job: Job) -> bool:
        return not _lacking(job, _stored(folder, recipe, job, _silent)[0])

    for job in in_turn(folder / CLAIMS, todo, lambda job: job.study.id, is_done, waiting):
        there, parts = _stored(folder, recipe, job, _silent)  # others may have added to it
        rest = _lacking(job, there)
        features = _compute(teacher, recipe, replace(job, frames=rest), batch_size, seen)
        more = pack(features, recipe.numbers)
        lost.add(features, more)
        parts = joined(parts, more)  # a copy: Windows replaces no file that is mapped
        del features, more  # writing takes as much again
        whole = replace(job, frames=(*there, *rest))
        header = {"recipe": recipe.digest, "frames_sha256": whole.digest(whole.frames)}
        write_shard(folder, recipe, whole, parts, header)
        done += len(rest)
        forecast.seen(done, whole_study=True)
    write_index(folder, recipe)  # with what others wrote meanwhile
    if recipe.numbers != "float16" and done:
        say(f"{recipe.teacher}: {recipe.numbers} costs {lost.share:.2%} of the features' spread")
    return folder


def _silent(_: str) -> None:
    """What was said before is not said again."""


def _check_room(recipe: Recipe, size: int, root: Path) -> None:
    """Raises StorageError."""
    if size + _SPARE > free_bytes(root):
        raise StorageError(
            f"features of {recipe.teacher} need {_megabytes(size)}, "
            f"and {_megabytes(_SPARE)} to spare; the disk has {_megabytes(free_bytes(root))} free",
            file=root.name,
            remedy="Raise unlabelled_every, lower grid, or delete cache/ folders no longer used.",
        )


def frames_digest(study: Study, frames: Sequence[int]) -> str:
    """Digest of the stored frames themselves, and of which part of them is shown: a study ingested
    anew in another way differs."""
    digest = hashlib.sha256()
    if study.record.picture is not None:
        digest.update(repr(study.record.picture.part).encode())
    for frame in frames:
        path = study.folder / "frames" / f"{frame:06d}.png"
        try:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        except OSError as error:
            raise DataError(
                f"study {study.id} lacks frame {frame}",
                file=path.name,
                remedy="Ingest that recording again with --force.",
            ) from error
    return digest.hexdigest()


def _compute(
    teacher: Any, recipe: Recipe, job: Job, batch_size: int, tick: Callable[[int], None]
) -> Tensor:
    pieces = []
    for first in range(0, len(job.frames), batch_size):
        numbers = job.frames[first : first + batch_size]
        squares = torch.from_numpy(job.squares(numbers))
        features = pool_to(_features(teacher, squares), recipe.grid)
        expected = (len(numbers), recipe.channels, recipe.grid, recipe.grid)
        if tuple(features.shape) != expected:
            raise ModelError(
                f"teacher {recipe.teacher} gave {tuple(features.shape)}, not {expected}"
            )
        half = features.to(torch.float16)
        finite = torch.isfinite(half).flatten(1).all(1)
        if not bool(finite.all()):
            bad = numbers[int((~finite).nonzero()[0])]
            raise ModelError(
                f"features of teacher {recipe.teacher} are not finite for study {job.study.id}, "
                f"frame {bad}",
                remedy="Look at that frame; if it is fine, the weights file is damaged.",
            )
        pieces.append(half)
        tick(first + len(numbers))
    return torch.cat(pieces)


@torch.no_grad()
def _features(teacher: Any, squares: Tensor) -> Tensor:
    """On the CPU. Frames that are too many for a GPU's memory at once are taken in halves."""
    try:
        features: Tensor = teacher.features(squares).float().cpu()
        return features
    except torch.OutOfMemoryError:
        if len(squares) == 1:
            raise
    # Out of the handler: the error holds on to what the attempt had taken.
    torch.cuda.empty_cache()
    half = (len(squares) + 1) // 2
    return torch.cat([_features(teacher, part) for part in squares.split(half)])


def full_square(study: Study, frame: int) -> NDArray[np.uint8]:
    """At full size: each teacher does its own resizing."""
    square: NDArray[np.uint8] = study.letterbox().frame(study.read_frame(frame))
    return square


def shard_path(folder: Path, study: str) -> Path:
    return folder / f"{study}.safetensors"


def _stored(
    folder: Path, recipe: Recipe, job: Job, say: Say
) -> tuple[tuple[int, ...], dict[str, Tensor]]:
    """Frames and other tensors of a study's shard, mapped; none, and why is said, where it cannot
    be used. It may lack frames of the job."""
    path = shard_path(folder, job.study.id)
    if not path.exists():
        return (), {}
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            parts = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        fault = _fault(header, parts, recipe, job)
    except (SafetensorError, OSError):
        fault = "are damaged"
    if fault:
        say(f"{recipe.teacher}: cached features of {job.study.id} {fault}; computing them again")
        return (), {}
    return tuple(parts.pop("frames").tolist()), parts


def _fault(header: Mapping[str, str], parts: Mapping[str, Tensor], recipe: Recipe, job: Job) -> str:
    """Why a shard cannot be used, or nothing."""
    if not {"features", "frames"} <= parts.keys():
        return "are damaged"
    if header.get("recipe") != recipe.digest:
        return "are of other weights or another preprocessing"
    if header.get("sha256") != checksum(parts):
        return "do not have their checksum"
    frames = parts["frames"].tolist()
    if parts["features"].shape != (len(frames), recipe.channels, recipe.grid, recipe.grid):
        return "have another shape"
    try:
        same = header.get("frames_sha256") == job.digest(frames)
    except DataError:  # the study was ingested anew, with fewer
        same = False
    return "" if same else "are of other frames"


def _lacking(job: Job, there: Sequence[int]) -> tuple[int, ...]:
    """Frames of a job that are not among those."""
    known = set(there)
    return tuple(frame for frame in job.frames if frame not in known)


def write_shard(
    folder: Path, recipe: Recipe, job: Job, parts: Mapping[str, Tensor], header: dict[str, str]
) -> None:
    """One study's shard, and the index brought up to date. Raises StorageError."""
    tensors = {**parts, "frames": torch.tensor(job.frames)}
    header = {**header, "sha256": checksum(tensors)}
    # As bytes: a full disk is then an OSError, which write_bytes understands.
    write_bytes(shard_path(folder, job.study.id), save(tensors, metadata=header))
    write_index(folder, recipe)


def write_index(folder: Path, recipe: Recipe) -> None:
    """What the folder is of, and the shards in it now. Raises StorageError."""
    shards = {
        path.stem: path.stat().st_size
        for path in sorted(folder.glob("*.safetensors"))
        if not is_temporary(path)
    }
    body = {**vars(recipe), "digest": recipe.digest, "letterbox": RULE, "shards_bytes": shards}
    write_json(folder / "index.json", document(body))


def cached_bytes(folder: Path) -> int:
    """What the index of a cache folder says it holds."""
    return sum(map(int, read_json(folder / "index.json")["shards_bytes"].values()))


def _megabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(1, round(size / 1e6))} MB"
