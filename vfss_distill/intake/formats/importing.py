"""Label files into the studies of a workspace.

Masks are compared before anything is written: what is there and equal stays, what differs needs
`force`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ...claims import alone_in
from ...config import lab_tasks
from ...counting import counted, first_of, listed
from ...errors import DataError, LabelError, StorageError, UsageError, VfssError, WorkspaceError
from ...provenance import sha256_file
from ...tasks import TaskSet
from ...workspace import Workspace, clear_temporaries, read_json
from ..mask_folders import MANIFEST
from ..source import IMAGE_SUFFIXES, square_size
from ..study import Study, folder_of, list_studies_readable
from .annotations import Annotations, Mask, Piece, Place, Size, mask_png
from .into_study import write_masks
from .registry import Format, read_labels

Tick = Callable[[int, int, str], None]
LEAVE_OUT = "-"
_ROBOFLOW = re.compile(r"\.rf\.\w{7,}$")  # frame_12_png.rf.0a9bcd3….jpg: a hash, no number


@dataclass(frozen=True)
class ImportOptions:
    """`study`: take everything for this one. `renames`: their label → our task, or "-".

    `absent`: on annotated frames, labels the file knows and does not show are blank masks.
    `first`: the number the file gives the first frame. `force`: replace masks that differ.
    """

    format: str = "auto"
    study: str | None = None
    renames: Mapping[str, str] = field(default_factory=dict)
    absent: bool = False
    first: int = 0
    force: bool = False
    dry_run: bool = False


@dataclass
class ImportedStudy:
    """Masks by fate. `blank` counts those new or replaced masks that say "absent"."""

    study: str
    new: int = 0
    replaced: int = 0
    same: int = 0
    blank: int = 0
    frames: int = 0
    tasks: dict[str, int] = field(default_factory=dict)


@dataclass
class ImportReport:
    """`left_out`: their labels that `renames` gave up. `failed`: `[{"input", "error"}]`."""

    format: str
    studies: list[ImportedStudy] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)


@dataclass
class _Wanted:
    """One mask to be: the pieces of one task on one frame, drawn at the file's frame size."""

    file: Path
    size: Size
    pieces: list[Piece] = field(default_factory=list)


# task, frame → mask to be
_Plan = dict[tuple[str, int], _Wanted]


def import_labels(
    workspace: Workspace,
    path: Path,
    options: ImportOptions,
    *,
    tick: Tick = lambda done, total, words: None,
) -> ImportReport:
    """Take the labels of `path` (a file or folder) into the workspace's studies.

    Raises LabelError, naming every unknown label at once, and for frames, sizes or studies that
    do not fit, before anything is written. A study whose label files cannot be read, whose masks
    cannot be drawn or would be replaced without `force`, or whose record is damaged, is listed in
    `failed`, and the others go on. Raises WorkspaceError without studies, and while another import
    or ingest is at work, DataError when the study asked for is damaged, and StorageError.
    """
    if options.dry_run or not workspace.studies.is_dir():  # nothing to write, or to write to
        return _import(workspace, path, options, tick)
    with alone_in(workspace):
        return _import(workspace, path, options, tick)


def _import(workspace: Workspace, path: Path, options: ImportOptions, tick: Tick) -> ImportReport:
    readable, failures = list_studies_readable(workspace)
    studies = {study.id: study for study in readable}
    damaged = {folder_of(failure): failure for failure in failures}
    if not studies and not damaged:
        raise WorkspaceError("no studies yet", remedy="Run `vfss ingest` on the films first.")
    if options.study in damaged:
        raise DataError(damaged[options.study]["error"], file=damaged[options.study]["input"])
    if options.study is not None and options.study not in studies:
        raise UsageError(f"no study {options.study!r}", remedy="See the studies/ folder.")
    kind, files = read_labels(path, options.format)
    report = ImportReport(kind.name)
    for found in files:
        report.notes += [note for note in found.notes if note not in report.notes]
    names = _names(files, lab_tasks(workspace), options.renames)
    report.left_out = sorted(label for label, task in names.items() if task == LEAVE_OUT)
    plans = _Planner(studies, damaged, names, options, report).plan(files)
    report.notes += _doubts([studies[study_id] for study_id in sorted(plans)], path)
    digest = _digest(path)
    for number, (study_id, plan) in enumerate(sorted(plans.items())):
        tick(number, len(plans), study_id)
        facts = {"format": kind.name, **({"sha256": digest} if digest else {})}
        try:
            report.studies.append(_apply(studies[study_id], plan, options, kind, facts))
        except StorageError:  # a full disk concerns all studies
            raise
        except (VfssError, MemoryError) as error:
            line = str(error) or "not enough memory"
            report.failed.append({"input": study_id, "error": line})
    return report


def _doubts(studies: Sequence[Study], path: Path) -> Iterator[str]:
    """Why labels may lie elsewhere than they were drawn."""
    if turned := [study.id for study in studies if study.record.mirrored]:
        yield (
            f"{first_of(turned)} was mirrored at ingest: labels must be drawn on the study's "
            "frames, not on the film"
        )
    fields = [study.id for study in studies if study.record.interlaced == "fields"]
    if fields and not _exported_labels(path):
        yield (
            f"{first_of(fields)} has two frames for each of the film, its fields: labels must be "
            "numbered by field"
        )


def _exported_labels(path: Path) -> bool:
    """Labels of studies that we exported; results may be of the film."""
    manifest = (path if path.is_dir() else path.parent) / MANIFEST
    return manifest.is_file() and read_json(manifest).get("from") == "labels"


def _names(
    files: Sequence[Annotations], tasks: TaskSet, renames: Mapping[str, str]
) -> dict[str, str]:
    """Their label → our task. A task's id or name will do, in any case."""
    names: dict[str, str] = {}
    unknown: list[str] = []
    for ours in renames.values():
        if ours != LEAVE_OUT:
            tasks[ours]  # raises LabelError for a task that is not in the set
    for label in dict.fromkeys(label for found in files for label in found.labels):
        if label in renames:
            names[label] = renames[label]
        elif task := tasks.find(label):
            names[label] = task.id
        else:
            unknown.append(label)
    if unknown:
        shown = [repr(label[:60]) for label in unknown]
        raise LabelError(
            f"unknown task {listed(shown, 12, ', ')}",
            file=files[0].file,
            remedy=f"Rename with --map theirs=ours, or leave out with --map theirs=-. "
            f"Task set {tasks.name!r} has: {' '.join(tasks.ids)}.",
        )
    if strange := [label for label in renames if label not in names]:
        raise UsageError(
            f"--map {strange[0]!r}: the file has no such label",
            remedy=f"It has: {', '.join(names) or 'none'}.",
        )
    return names


class _Planner:
    """Which mask goes where; everything that can be checked without drawing is checked here."""

    def __init__(
        self,
        studies: Mapping[str, Study],
        damaged: Mapping[str, dict[str, str]],
        names: Mapping[str, str],
        options: ImportOptions,
        report: ImportReport,
    ) -> None:
        self._studies = studies
        self._damaged = damaged
        self._names = names
        self._options = options
        self._report = report
        self._came: dict[tuple[str, int], dict[Place, set[str]]] = {}
        self._others = 0

    def plan(self, files: Sequence[Annotations]) -> dict[str, _Plan]:
        plans: dict[str, _Plan] = {}
        faulty = self._faults(files)
        for found in files:
            for place in found.entries:
                resolved = self._resolve(found, place)
                if resolved is None:
                    continue
                study, frame = resolved
                self._take(plans.setdefault(study.id, {}), found, place, study, frame)
        if self._others:
            self._report.notes.append(
                f"{self._others} frames are of other studies and were left out"
            )
        if not any(plans.values()) and not self._report.failed:
            raise LabelError("labels no frame", file=files[0].file, remedy="Check the export.")
        return {study: plan for study, plan in plans.items() if plan and study not in faulty}

    def _faults(self, files: Sequence[Annotations]) -> dict[str, list[str]]:
        """Studies of which a file cannot be read: none of the others is taken, for half a study's
        labels look like a whole one's."""
        faulty: dict[str, list[str]] = {}
        for found in files:
            for name, error in found.faults:
                named = self._named(name) or self._named(found.file.name)
                study = self._options.study or named
                if study is None:  # nobody's: said by itself
                    failure = {"input": error.file or name, "error": error.without_file}
                    self._report.failed.append(failure)
                elif named in (None, study):
                    faulty.setdefault(study, []).append(str(error))
        for study, lines in faulty.items():
            what = f"left out, {counted(len(lines), 'file')} of it cannot be read: {listed(lines)}"
            self._report.failed.append({"input": study, "error": what})
        return faulty

    def _take(
        self, plan: _Plan, found: Annotations, place: Place, study: Study, frame: int
    ) -> None:
        size = _checked_size(found, place, study)
        missing = dict.fromkeys(found.labels if self._options.absent else (), ())
        for label, pieces in {**missing, **found.entries[place]}.items():
            task = self._names[label]
            if task == LEAVE_OUT:
                continue
            wanted = plan.setdefault((task, frame), _Wanted(found.file, size))
            # Two readers' outlines together are a mask that neither drew.
            if wanted.file != found.file and (pieces or wanted.pieces):
                raise LabelError(
                    f"two entries of {task} for frame {frame} of study {study.id}",
                    file=f"{wanted.file} and {found.file}",
                    remedy="Keep one of them.",
                )
            wanted.pieces += pieces

    def _resolve(self, found: Annotations, place: Place) -> tuple[Study, int] | None:
        """The study and frame a place means; None when another study was asked for, or its record
        is damaged."""
        named = self._named(place.name) or self._named(found.file.name)
        asked = self._options.study
        if asked is not None and named is not None and named != asked:
            self._others += 1
            return None
        if named is not None and named in self._damaged:
            if self._damaged[named] not in self._report.failed:
                self._report.failed.append(self._damaged[named])
            return None
        study_id = asked or named
        if study_id is None:
            raise LabelError(
                "does not say which study it labels", file=found.file, remedy="Name it: --study ID."
            )
        frame = self._frame(found, place, named)
        study = self._studies[study_id]
        if not 0 <= frame < study.record.frames:
            raise LabelError(
                f"labels frame {frame + self._options.first}, but study {study_id} has frames "
                f"{self._options.first} to {study.record.frames - 1 + self._options.first}",
                file=found.file,
                remedy="Check that labels and film belong together; --first N if the file counts "
                "from N.",
            )
        self._refuse_second(found, place, study, frame)
        return study, frame

    def _named(self, name: str) -> str | None:
        """The study a name speaks of; a damaged one too, or its labels would be another's."""
        words = re.split(r"[/\\_.\s]+", name)
        return next((w for w in words if w in self._studies or w in self._damaged), None)

    def _refuse_second(self, found: Annotations, place: Place, study: Study, frame: int) -> None:
        """Two pictures' names may hold one number; folders per task name a frame once each."""
        came = self._came.setdefault((study.id, frame), {})
        labels = set(found.entries[place])
        for before, others in came.items():
            clash = found.format != "masks" or labels & others
            if before != place and place.number is None and clash:
                raise LabelError(
                    f"two entries for frame {frame} of study {study.id}: "
                    f"{_shown(before)} and {_shown(place)}",
                    file=found.file,
                    remedy="Keep one, or import each study's frames by themselves.",
                )
        came.setdefault(place, set()).update(labels)

    def _frame(self, found: Annotations, place: Place, named: str | None) -> int:
        if place.number is not None:
            return place.number - self._options.first
        last = re.split(r"[/\\]", place.name)[-1]
        stem, dot, suffix = last.rpartition(".")
        last = stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else last
        last = _ROBOFLOW.sub("", last)
        numbers = re.findall(r"\d+", last.replace(named, "") if named else last)
        if not numbers or len(numbers[-1]) > 9:
            raise LabelError(
                f"{_shown(place)} has no frame number in its name",
                file=found.file,
                remedy="Name pictures by their frame: 000012.png.",
            )
        return int(numbers[-1]) - self._options.first


def _shown(place: Place) -> str:
    return repr(re.split(r"[/\\]", place.name)[-1][-60:])


def _checked_size(found: Annotations, place: Place, study: Study) -> Size:
    """The frame size pieces are drawn at: the study's, or the recording's before squaring."""
    stored = (study.record.height, study.record.width)
    across, down = study.record.pixel_aspect
    if place.size is None and across != down:  # drawn before squaring or after: nothing tells
        raise LabelError(
            f"does not say the size of its frames, and study {study.id} has oblong pixels",
            file=found.file,
            remedy="Save it whole, without cropping.",
        )
    size = place.size or stored
    if size != stored and square_size(*size, study.record.pixel_aspect) != stored:
        raise LabelError(
            f"is {size[1]}x{size[0]}, study {study.id} is {stored[1]}x{stored[0]}",
            file=found.file,
            remedy="Export labels at the size of the original frames.",
        )
    return size


def _apply(
    study: Study, plan: _Plan, options: ImportOptions, kind: Format, facts: dict[str, Any]
) -> ImportedStudy:
    """Compare, then write what is new or replaced."""
    if not options.dry_run:
        clear_temporaries(study.folder)  # of an import that was killed; we are alone in here
    done = ImportedStudy(study.id, frames=len({frame for _, frame in plan}))
    write: dict[tuple[str, int], bytes] = {}
    differing: list[tuple[str, int]] = []
    for (task, frame), wanted in sorted(plan.items()):
        mask = _draw(wanted, study)
        before = _before(study, task, frame)
        done.tasks[task] = done.tasks.get(task, 0) + 1
        if before is not None and np.array_equal(before, mask):
            done.same += 1
            continue
        if frame in study.labelled_frames(task):
            done.replaced += 1
            differing.append((task, frame))
        else:
            done.new += 1
        done.blank += not mask.any()
        write[task, frame] = mask_png(mask)
    if differing and not options.force:
        task, frame = differing[0]
        raise LabelError(
            f"{len(differing)} masks of this study differ from the file's "
            f"(first: {task} on frame {frame})",
            remedy="--force replaces them.",
        )
    if write and not options.dry_run:
        write_masks(study, write, {**facts, "masks": len(write)})
    return done


def _before(study: Study, task: str, frame: int) -> Mask | None:
    """The mask that is there; None without one, also when it is damaged and so to be replaced."""
    try:
        return study.read_mask(task, frame)
    except VfssError:
        return None


def _draw(wanted: _Wanted, study: Study) -> Mask:
    mask = np.zeros(wanted.size, np.bool_)
    try:
        for piece in wanted.pieces:
            mask |= piece.draw(wanted.size)
    except VfssError as error:
        raise LabelError(error.what, file=error.file or wanted.file, remedy=error.remedy) from error
    stored = (study.record.height, study.record.width)
    if mask.shape != stored:
        grey = mask.astype(np.uint8) * 255
        grey = np.asarray(cv2.resize(grey, stored[::-1], interpolation=cv2.INTER_LINEAR))
        mask = grey > 127
    return mask


def _digest(path: Path) -> str:
    return sha256_file(path) if path.is_file() else ""
