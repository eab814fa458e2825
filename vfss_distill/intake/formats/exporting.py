"""Labels of studies, or masks of results, into the files of other tools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...counting import listed
from ...errors import DataError, LabelError, UsageError, WorkspaceError
from ...provenance import document
from ...tasks import Task, TaskSet
from ...workspace import atomic_folder, write_json
from ..mask_folders import MANIFEST
from ..record import StudyRecord
from ..study import Study
from .annotations import Export, LabelSource, Mask, Size, UnreadableSource, encode_png
from .registry import FORMATS

Tick = Callable[[int, int, str], None]


@dataclass(frozen=True)
class StudyLabels:
    """The labels of a stored study."""

    study: Study

    @property
    def id(self) -> str:
        return self.study.id

    @property
    def frames(self) -> int:
        return self.study.record.frames

    @property
    def size(self) -> Size:
        return self.study.record.height, self.study.record.width

    def labelled(self, task: str) -> tuple[int, ...]:
        return tuple(sorted(self.study.labelled_frames(task)))

    def mask(self, task: str, frame: int) -> Mask:
        mask = self.study.read_mask(task, frame)
        if mask is None or mask.shape != self.size:
            raise DataError(
                f"the mask of {task} on frame {frame} is missing or of another size",
                file=self.id,
                remedy="`vfss labels check` lists all such masks.",
            )
        return mask

    def picture(self, frame: int) -> NDArray[np.uint8]:
        return self.study.read_frame(frame)


class ModelResult(Protocol):
    """A result as `evaluate.results` reads it; intake knows nothing of models."""

    @property
    def study(self) -> str: ...

    @property
    def frames(self) -> int: ...

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def tasks(self) -> TaskSet: ...

    def mask(self, task: str, frame: int) -> Mask: ...

    def check_frames_of(self, record: StudyRecord) -> None: ...


@dataclass(frozen=True)
class ResultMasks:
    """A model's masks of one film: all tasks on all frames. `study` is where its frames are."""

    result: ModelResult
    study: Study | None

    @property
    def id(self) -> str:
        return self.result.study

    @property
    def frames(self) -> int:
        return self.result.frames

    @property
    def size(self) -> Size:
        return self.result.height, self.result.width

    def labelled(self, task: str) -> range:
        return range(self.result.frames if task in self.result.tasks else 0)

    def mask(self, task: str, frame: int) -> Mask:
        return self.result.mask(task, frame)

    def picture(self, frame: int) -> NDArray[np.uint8]:
        if self.study is None:
            raise WorkspaceError(
                "the frames of this result are not in the workspace",
                file=self.id,
                remedy="Ingest its film, or choose a format without pictures.",
            )
        try:
            self.result.check_frames_of(self.study.record)
        except DataError as error:
            raise DataError(error.what, file=self.id, remedy=error.remedy) from error
        return self.study.read_frame(frame)


@dataclass(frozen=True)
class ExportOptions:
    """`tasks`: ids, all that have labels when empty. `pictures`: write the frames too."""

    format: str
    tasks: Sequence[str] = ()
    polygons: bool = False
    pictures: bool = False
    force: bool = False
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Exported:
    """What was written. `lost`: pixels given up where structures overlap, by task. `failed`:
    studies that were left out, `[{"input", "error"}]`."""

    format: str
    studies: tuple[str, ...]
    frames: int
    masks: int
    tasks: tuple[str, ...]
    lost: dict[str, int]
    notes: tuple[str, ...]
    failed: tuple[dict[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": self.format,
            "studies": list(self.studies),
            "frames": self.frames,
            "masks": self.masks,
            "tasks": list(self.tasks),
            "lost_pixels": self.lost,
            "notes": list(self.notes),
        }


def export_labels(
    sources: Sequence[LabelSource],
    tasks: TaskSet,
    target: Path,
    options: ExportOptions,
    *,
    tick: Tick = lambda done, total, words: None,
) -> Exported:
    """Write `target`, a folder, whole or not at all; studies of which a mask or frame cannot be
    read are left out.

    Raises UsageError for a folder that is there and not ours to replace, LabelError without any
    label, DataError when no study can be read.
    """
    failed: list[dict[str, str]] = []
    while True:
        try:
            made = _export(sources, tasks, target, options, tick)
        except UnreadableSource as unreadable:
            gone, error = unreadable.source, unreadable.error
            line = str(error).removeprefix(f"{gone.id}: ")
            failed.append({"input": gone.id, "error": line})
            sources = [one for one in sources if one is not gone]
            if not any(one.labelled(task.id) for one in sources for task in tasks):
                lines = (f"{one['input']}: {one['error']}" for one in failed)
                raise DataError(listed([*lines])) from unreadable
        else:
            return replace(made, failed=tuple(failed))


def _export(
    sources: Sequence[LabelSource],
    tasks: TaskSet,
    target: Path,
    options: ExportOptions,
    tick: Tick,
) -> Exported:
    kind = FORMATS.get(options.format)
    if kind is None or kind.write is None:
        writable = ", ".join(name for name, one in FORMATS.items() if one.write)
        raise UsageError(f"cannot write {options.format!r}", remedy=f"Formats: {writable}.")
    if options.polygons and not kind.polygons:
        raise UsageError(f"{kind.title} has no polygons", remedy="Leave --polygons out.")
    _check_target(target, options.force)
    chosen = _tasks(sources, tasks, options.tasks)
    labelled = [one for one in sources if any(one.labelled(task.id) for task in chosen)]
    with atomic_folder(target) as folder:
        job = Export(folder, labelled, chosen, options.polygons, tick)
        kind.write(job)
        if options.pictures:
            _pictures(job)
        if job.lost:
            shown = ", ".join(f"{task} {count} px" for task, count in sorted(job.lost.items()))
            job.notes.append(
                f"{kind.title} holds one structure per pixel: overlapping structures were cut "
                f"({shown}). Such labels do not come back as they were; keep the studies."
            )
        elif not kind.overlap:
            job.notes.append(f"{kind.title} holds one structure per pixel; here none overlapped.")
        made = Exported(
            format=kind.name,
            studies=tuple(one.id for one in labelled),
            frames=sum(len(job.table(one)) for one in labelled),
            masks=job.masks,
            tasks=tuple(task.id for task in chosen),
            lost=dict(sorted(job.lost.items())),
            notes=tuple(job.notes),
        )
        write_json(folder / MANIFEST, document({**made.to_dict(), **options.facts}))
    return made


def _check_target(target: Path, force: bool) -> None:
    if not target.exists():
        return
    if target.is_dir() and not any(target.iterdir()):
        return
    if not (target / MANIFEST).is_file():
        raise UsageError(
            "is there already and was not made by `vfss labels export`",
            file=target,
            remedy="Choose a new folder.",
        )
    if not force:
        raise UsageError("is there already", file=target, remedy="--force replaces it.")


def _tasks(
    sources: Sequence[LabelSource], tasks: TaskSet, asked: Sequence[str]
) -> tuple[Task, ...]:
    chosen = [tasks[task] for task in asked] or list(tasks)
    there = tuple(t for t in chosen if any(source.labelled(t.id) for source in sources))
    if not there:
        raise LabelError("there are no labels to export", remedy="See `vfss labels import`.")
    return there


def _pictures(job: Export) -> None:
    """<study>/000000.png, which is how label files name them."""
    for source in job.sources:
        for frame in job.table(source):
            target = job.target / "images" / source.id / f"{frame:06d}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(encode_png(job.picture(source, frame)))
