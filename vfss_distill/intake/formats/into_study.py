"""Imported masks into a study: they appear together, then its record names them.

A process that dies in between leaves new masks that nobody sees, never a record without its masks.
That there was an import is in the record before: masks it replaced are seen at once, and whoever
makes the study anew has to know that they are nowhere else.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...provenance import provenance
from ...workspace import atomic_folder, read_json, write_bytes
from ..record import RECORD_FILE, StudyRecord
from ..study import Study, frame_name, write_record


def write_masks(
    study: Study, masks: Mapping[tuple[str, int], bytes], facts: dict[str, Any]
) -> None:
    """Swap the masks folder for one with the new masks in it, then the record."""
    folder = study.folder / "masks"
    history = _history(study, facts)
    _put_record(study, study.record, history)
    with atomic_folder(folder) as made:
        for path in _kept(folder):
            target = made / path.relative_to(folder)
            if (target.parent.name, _index(target)) not in masks:
                target.parent.mkdir(parents=True, exist_ok=True)
                _link(path, target)
        for (task, frame), data in masks.items():
            (made / task).mkdir(parents=True, exist_ok=True)
            (made / task / frame_name(frame)).write_bytes(data)
    labelled = {task: set(frames) for task, frames in study.record.labelled.items()}
    for task, frame in masks:
        labelled.setdefault(task, set()).add(frame)
    # `labels_sha256` is of the masks beside the recording, which have not changed: left alone, or
    # the next ingest would offer to throw the imported ones away.
    record = replace(
        study.record, labelled={task: tuple(sorted(some)) for task, some in labelled.items()}
    )
    _put_record(study, record, history)


def _put_record(study: Study, record: StudyRecord, history: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as somewhere:
        write_record(Path(somewhere), record, **history)
        write_bytes(study.folder / RECORD_FILE, (Path(somewhere) / RECORD_FILE).read_bytes())


def _history(study: Study, facts: dict[str, Any]) -> dict[str, Any]:
    """What the record knew of its origin, and one more import."""
    block = dict(read_json(study.folder / RECORD_FILE).get("provenance") or {})
    usual = provenance()
    kept = {key: value for key, value in block.items() if key not in usual}
    if "ingested_utc" not in kept and "created_utc" in block:
        kept["ingested_utc"] = block["created_utc"]
    return {**kept, "labels_imported": [*kept.get("labels_imported", ()), facts]}


def _kept(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else iter(())


def _index(path: Path) -> int:
    return int(path.stem) if path.stem.isdecimal() else -1


def _link(path: Path, target: Path) -> None:
    """The same file under another name; a copy where the disk knows no links."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copy2(path, target)
