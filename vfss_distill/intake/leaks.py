"""Does one part of the splits know another: the same recording, or all but the same frames?

A model that has seen the test's frames in training looks better than it is. Patients are kept
apart by splits.py; but the same film may lie in two folders under two names, cut, coded or toned
anew, and then only its pictures tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..provenance import digest_json
from ..workspace import Workspace, read_json, write_json
from .splits import Splits, load_splits, missing_from_lock
from .study import Study, list_studies

Tick = Callable[[int, int, str], None]

_THUMB = 16
_ALIKE = 0.998  # correlation of thumbnails: coders, noise and tone keep 0.9985 and more
_FLAT = 6.0  # grey levels; an empty or black frame is like any other
_MOST_FRAMES = 256  # compared per study
_RULE = 2  # of this file's checks; a clean bill of another rule does not count


@dataclass(frozen=True)
class Leak:
    """`study` and `other`; of near-duplicates also a frame of each, counted from 0."""

    study: str
    what: str
    other: str
    frame: int | None = None
    other_frame: int | None = None


def find_leaks(
    studies: Sequence[Study], splits: Splits, *, tick: Tick = lambda *_: None
) -> Iterator[Leak]:
    """Recordings that two patients have, and frames of one part that are all but frames of another.

    Reads at most 256 frames of each study.
    """
    owners: dict[str, Study] = {}
    for study in studies:
        first = owners.setdefault(study.record.source_sha256, study)
        if first.patient != study.patient:
            what = f"the same recording as {first.id}, under another patient"
            yield Leak(study.id, what, first.id)
    parts = {study.id: splits.of(study.patient) for study in studies}
    if len({part for part in parts.values() if part}) < 2:
        return
    dealt = [study for study in studies if parts[study.id]]
    seen: list[tuple[Study, _Thumbs]] = []
    for number, study in enumerate(dealt):
        tick(number, len(dealt), "leak check")
        thumbs = _thumbs(study)
        for other, theirs in seen:
            if parts[study.id] != parts[other.id]:
                leak = _alike(other, theirs, study, thumbs)
                if leak is not None:
                    yield leak
        seen.append((study, thumbs))


def refuse_leaks(workspace: Workspace, *, tick: Tick = lambda *_: None) -> None:
    """Raise DataError when the splits of `workspace` leak, or a locked test set is not as it was.

    What was found clean is remembered in cache/ by the digests of studies, of what is shown of
    their frames, and of splits, so that the frames are read once. Raises ConfigError for splits
    that cannot be used.
    """
    studies, splits = list_studies(workspace), load_splits(workspace)
    changed = missing_from_lock(splits, (study.record for study in studies))
    if changed:
        raise DataError(
            f"the test set is locked, but the studies of {_some(changed)} are not those it had",
            file=workspace.splits_file.name,
            remedy="Bring them back, or delete `locked` in splits.yaml to unlock the test set.",
        )
    digest = _digest(studies, splits)
    remembered = workspace.leaks_file
    with suppress(DataError):  # a note that is damaged, in a folder that may be deleted
        if remembered.is_file() and read_json(remembered).get("clean") == digest:
            return
    leaks = list(find_leaks(studies, splits, tick=tick))
    if leaks:
        more = f" (and {len(leaks) - 1} more: `vfss labels check`)" if len(leaks) > 1 else ""
        raise DataError(
            f"the splits leak: of study {leaks[0].study}, {leaks[0].what}{more}",
            file=workspace.splits_file.name,
            remedy="Put both patients into one list of splits.yaml, or delete one of the studies.",
        )
    write_json(remembered, {"schema_version": 1, "clean": digest})


def _digest(studies: Sequence[Study], splits: Splits) -> str:
    return digest_json(
        [
            _RULE,
            [
                [
                    *(s.id, s.patient, s.record.source_sha256, s.record.frames),
                    *(*s.record.shown, splits.of(s.patient)),
                ]
                for s in studies
            ],
        ]
    )


def _some(names: Sequence[str]) -> str:
    return " ".join(names[:5]) + (" …" if len(names) > 5 else "")


@dataclass(frozen=True)
class _Thumbs:
    """Frame numbers, and unit-length thumbnails (n, 256)."""

    frames: list[int]
    rows: NDArray[np.float32]


def _alike(one: Study, first: _Thumbs, other: Study, second: _Thumbs) -> Leak | None:
    if not first.frames or not second.frames:
        return None
    alike = first.rows @ second.rows.T
    best = np.unravel_index(int(alike.argmax()), alike.shape)
    if alike[best] < _ALIKE:
        return None
    count = int((alike.max(1) >= _ALIKE).sum())
    what = f"{count} frames are nearly frames of {other.id}, which is in another split"
    return Leak(one.id, what, other.id, first.frames[int(best[0])], second.frames[int(best[1])])


def _thumbs(study: Study) -> _Thumbs:
    """Flat and damaged frames are left out."""
    step = 1
    while study.record.frames > step * _MOST_FRAMES:
        step *= 2  # powers of two: copies of unlike length still meet in common frames
    frames, rows = [], []
    for frame in range(0, study.record.frames, step):
        try:
            grey = study.read_frame(frame)
        except DataError:
            continue
        small = cv2.resize(grey, (_THUMB, _THUMB), interpolation=cv2.INTER_AREA)
        row = small.astype(np.float32).ravel()
        row -= row.mean()
        if row.std() >= _FLAT:
            frames.append(frame)
            rows.append(row / np.linalg.norm(row))
    return _Thumbs(frames, np.array(rows, np.float32).reshape(-1, _THUMB * _THUMB))
