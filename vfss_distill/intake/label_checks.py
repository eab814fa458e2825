"""What is wrong, or looks wrong, with the labels of a workspace.

    file        a mask or record that is missing or damaged, a mask of another size, or
                one that no record names                                                    wrong
    order       vertebrae out of order along the spine                                      wrong
    leak        nearly the same frame in two splits, or one recording for two patients      wrong
    blank       blank between frames that show the structure, or blank where it never is    look
    area        the area jumps between neighbouring labelled frames                         look
    overlap     two structures lie on one another that the task set says do not             look

`wrong` is wrong; `look` is for a person to look at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..counting import counted
from ..errors import DataError
from ..tasks import TOUCH, Task, TaskSet
from ..workspace import Workspace
from .leaks import find_leaks
from .splits import load_splits
from .study import Stored, Study, folder_of, frame_name

Tick = Callable[[int, int, str], None]

KINDS = {
    "file": "wrong",
    "order": "wrong",
    "leak": "wrong",
    "blank": "look",
    "area": "look",
    "overlap": "look",
}
_NEAR_S = 0.25  # frames farther apart are no neighbours
_JUMP = 2.0  # times; what comes and goes (a bolus) may change faster
_JUMP_ABSENT = 5.0
_LEAST_AREA_PX = 40


@dataclass(frozen=True)
class Finding:
    """`frame` counts from 0. `other`: the second study and frame of a leak. `other_task`: what a
    mask lies on."""

    kind: str
    study: str
    what: str
    task: str | None = None
    frame: int | None = None
    other: str | None = None
    other_frame: int | None = None
    other_task: str | None = None

    @property
    def grade(self) -> str:
        """`wrong` or `look`."""
        return KINDS[self.kind]

    def to_dict(self) -> dict[str, Any]:
        return {"grade": self.grade, **asdict(self)}


@dataclass(frozen=True)
class CheckReport:
    """Findings by study and frame, and what was looked at."""

    studies: int
    masks: int
    findings: tuple[Finding, ...]
    studies_by_id: dict[str, Study]
    tasks: TaskSet

    @property
    def wrong(self) -> int:
        return sum(finding.grade == "wrong" for finding in self.findings)

    def counts(self) -> dict[str, int]:
        """Findings of each kind."""
        return {kind: sum(f.kind == kind for f in self.findings) for kind in KINDS}


@dataclass(frozen=True)
class _Shape:
    """Area in pixels, centroid x and y (NaN when blank)."""

    area: int
    x: float
    y: float


def check_labels(
    workspace: Workspace,
    tasks: TaskSet,
    stored: Stored,
    only: Sequence[str] = (),
    *,
    tick: Tick = lambda done, total, words: None,
) -> CheckReport:
    """Look at every mask of the workspace, or of the studies in `only`, and across the splits.

    `stored`: all studies, from `list_studies_readable`. Masks are read once, one at a time. A study
    whose record is damaged is a finding. Raises ConfigError for splits that cannot be used.
    """
    studies, damaged = stored
    chosen = [study for study in studies if not only or study.id in only]
    names = [(folder_of(one), one["error"]) for one in damaged]
    findings = [Finding("file", name, why) for name, why in names if not only or name in only]
    known = {task.id: task for task in tasks}
    masks = 0
    for number, study in enumerate(chosen):
        tick(number, len(chosen), study.id)
        shapes, faults = _read(study, tasks)
        findings += faults
        findings += _order(study, shapes)
        for task, table in shapes.items():
            masks += len(table)
            task_or_none = known.get(task)
            findings += _blanks(study, task, table, task_or_none)
            findings += _jumps(study, task, table, task_or_none)
    wanted = {study.id for study in chosen}
    for leak in find_leaks(studies, load_splits(workspace)):
        if leak.study in wanted or leak.other in wanted:
            findings.append(Finding("leak", **asdict(leak)))
    tick(len(chosen), len(chosen), "")
    order = list(KINDS)
    findings.sort(key=lambda f: (order.index(f.kind), f.study, f.frame or 0, f.task or ""))
    return CheckReport(
        studies=len(chosen),
        masks=masks,
        findings=tuple(findings),
        studies_by_id={study.id: study for study in studies},
        tasks=tasks,
    )


def _read(study: Study, tasks: TaskSet) -> tuple[dict[str, dict[int, _Shape]], list[Finding]]:
    """Shapes by task and frame; the masks that cannot be used or lie where they cannot."""
    record = study.record
    shapes: dict[str, dict[int, _Shape]] = {task: {} for task in record.labelled}
    overlaps = _Overlaps(tasks)
    faults = []
    tasks_of: dict[int, list[str]] = {}
    for task, frames in record.labelled.items():
        for frame in frames:
            tasks_of.setdefault(frame, []).append(task)
    for frame in sorted(tasks_of):
        masks = {}
        for task in tasks_of[frame]:
            try:
                mask = study.read_mask(task, frame)
            except DataError:
                faults.append(Finding("file", study.id, "is missing or damaged", task, frame))
                continue
            if mask is None:
                continue
            if mask.shape != (record.height, record.width):
                what = (
                    f"is {mask.shape[1]}x{mask.shape[0]}, its frame {record.width}x{record.height}"
                )
                faults.append(Finding("file", study.id, what, task, frame))
                continue
            if frame >= record.frames:
                what = f"labels a frame that does not exist: there are {record.frames}"
                faults.append(Finding("file", study.id, what, task, frame))
            masks[task] = mask
            shapes[task][frame] = _shape(mask)
        overlaps.look(frame, masks)
    return shapes, [*faults, *_unlisted(study), *overlaps.found(study)]


class _Overlaps:
    """Pairs of structures that lie on one another and may not, with the share of the smaller one
    frame by frame."""

    def __init__(self, tasks: TaskSet) -> None:
        self._tasks = tasks
        self._shares: dict[tuple[str, str], dict[int, float]] = {}

    def look(self, frame: int, masks: Mapping[str, NDArray[np.bool_]]) -> None:
        shown = {task: mask for task, mask in masks.items() if task in self._tasks and mask.any()}
        for one, other in combinations(shown, 2):
            if self._tasks.may_overlap(one, other):
                continue
            shared = np.count_nonzero(shown[one] & shown[other])
            share = shared / min(np.count_nonzero(shown[one]), np.count_nonzero(shown[other]))
            if share > TOUCH:
                self._shares.setdefault((one, other), {})[frame] = share

    def found(self, study: Study) -> Iterator[Finding]:
        for (one, other), shares in self._shares.items():
            worst = max(shares, key=shares.__getitem__)
            more = len(shares) - 1
            often = f" (and on {counted(more, 'other frame')})" if more else ""
            what = f"lies on {other}, with {shares[worst]:.0%} of the smaller one{often}"
            yield Finding("overlap", study.id, what, one, worst, other_task=other)


def _unlisted(study: Study) -> Iterator[Finding]:
    root = study.folder / "masks"
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if not folder.is_dir():
            continue
        listed = {frame_name(frame) for frame in study.labelled_frames(folder.name)}
        extra = sorted({path.name for path in folder.glob("*.png")} - listed)
        if extra:
            what = f"{len(extra)} masks are not named in study.json and are not used: {extra[0]} …"
            yield Finding("file", study.id, what, folder.name)


def _shape(mask: NDArray[np.bool_]) -> _Shape:
    found = cv2.moments(mask.astype(np.uint8), True)
    area = int(found["m00"])
    if not area:
        return _Shape(0, float("nan"), float("nan"))
    return _Shape(area, found["m10"] / area, found["m01"] / area)


def _order(study: Study, shapes: dict[str, dict[int, _Shape]]) -> Iterator[Finding]:
    """Vertebrae whose centroids do not follow each other down the spine.

    The spine's axis is the first principal direction of a frame's centroids, pointing down.
    """
    vertebrae = sorted(task for task in shapes if re.fullmatch(r"c[1-7]", task))
    for frame in sorted({frame for task in vertebrae for frame in shapes[task]}):
        present = [t for t in vertebrae if frame in shapes[t] and shapes[t][frame].area]
        if len(present) < 2:
            continue
        points = np.array([(shapes[t][frame].x, shapes[t][frame].y) for t in present])
        along = points @ _axis(points)
        pairs = [
            f"{one} and {other}"
            for one, other, step in zip(present, present[1:], np.diff(along), strict=False)
            if step <= 0
        ]
        if pairs:
            what = f"out of order along the spine: {', '.join(pairs)}"
            task = pairs[0].split()[0]
            yield Finding("order", study.id, what, task, frame)


def _axis(points: NDArray[np.float64]) -> NDArray[np.float64]:
    if len(points) == 2:
        return np.array([0.0, 1.0])
    _, _, directions = np.linalg.svd(points - points.mean(0), full_matrices=False)
    axis: NDArray[np.float64] = directions[0]
    if abs(axis[1]) > abs(axis[0]):
        return axis if axis[1] > 0 else -axis
    # A patient lying down: the way most steps go.
    return axis if np.median(np.diff(points @ axis)) > 0 else -axis


def _blanks(
    study: Study, task: str, table: dict[int, _Shape], known: Task | None
) -> Iterator[Finding]:
    """Blank masks that neighbours contradict, or of what is in every frame."""
    frames = sorted(table)
    never = known is not None and not known.may_be_absent
    blank = [frame for frame in frames if not table[frame].area]
    if never and frames and len(blank) == len(frames):
        what = f"blank on all {len(blank)} labelled frames: is it really absent, or not labelled?"
        yield Finding("blank", study.id, what, task, frames[0])
        return
    for frame in blank:
        at = frames.index(frame)
        around = [frames[i] for i in (at - 1, at + 1) if 0 <= i < len(frames)]
        shown = [other for other in around if table[other].area and _near(study, frame, other)]
        if len(shown) == 2 or (never and shown):
            what = f"blank, but there on frame {' and '.join(map(str, shown))}"
            yield Finding("blank", study.id, what, task, frame)


def _jumps(
    study: Study, task: str, table: dict[int, _Shape], known: Task | None
) -> Iterator[Finding]:
    frames = [frame for frame in sorted(table) if table[frame].area]
    most = _JUMP_ABSENT if known is not None and known.may_be_absent else _JUMP
    for before, frame in pairwise(frames):
        one, two = table[before].area, table[frame].area
        if not _near(study, before, frame) or abs(one - two) < _LEAST_AREA_PX:
            continue
        times = max(one, two) / min(one, two)
        if times > most:
            what = f"area goes from {one} to {two} px since frame {before}, {times:.1f} times"
            yield Finding("area", study.id, what, task, frame)


def _near(study: Study, one: int, other: int) -> bool:
    times = study.record.frame_times_s
    if max(one, other) >= len(times):
        return False
    return abs(times[one] - times[other]) <= _NEAR_S or abs(one - other) == 1
