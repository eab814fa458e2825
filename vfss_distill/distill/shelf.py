"""What lies in cache/: teachers' features by folder, what may go, and taking it away. No torch.

    cache/<teacher>-<digest12>/<study>.safetensors, index.json, claims   as `cache` writes them

Only files of these shapes and interrupted writes of them are ever deleted; links are not followed.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..claims import being_trained, is_trained
from ..errors import MALFORMED, DataError, UsageError, VfssError, WorkspaceError
from ..models.teachers.card import find_weights, list_cards, weights_folders
from ..provenance import sha256_file
from ..workspace import Workspace, is_temporary, read_json, storage_errors, write_json

Weights = Literal["found", "changed", "missing", "unread", "unknown"]
Reason = Literal["interrupted write", "damaged", "study is gone", "whole teacher"]

INDEX = "index.json"
CLAIMS = "claims"  # whose byte locks say which machine computes what
# A write of one shard takes seconds: a younger temporary may belong to a run that is alive.
STALE_S = 600.0
_LARGEST_READ = 1 << 30
_LARGEST_HEADER = 100 << 20
_FOLDER = re.compile(r"(?P<teacher>[a-z0-9][a-z0-9_-]*)-(?P<digest>[0-9a-f]{12})")

WEIGHTS: dict[Weights, str] = {
    "found": "of the weights that are here",
    "changed": "of other weights than those that are here",
    "missing": "weights not found",
    "unread": "weights are here, too large to compare",
    "unknown": "no card or index says whose",
}


@dataclass(frozen=True)
class Shard:
    """Features of one study. `frames` None: the file is damaged. `stray`: its study is gone."""

    path: Path
    bytes: int
    frames: int | None
    stray: bool

    @property
    def study(self) -> str:
        return self.path.stem


@dataclass(frozen=True)
class Folder:
    """One teacher's features under one digest (weights, preprocessing, grid).

    `weights` says whether they are of the teacher's weights found now. `leftovers` are
    interrupted writes; those that may still be going on are not among them.
    """

    path: Path
    teacher: str
    digest: str
    grid: int | None
    channels: int | None
    weights: Weights
    shards: tuple[Shard, ...]
    leftovers: tuple[Path, ...]
    index_bytes: int

    @property
    def bytes(self) -> int:
        return self.index_bytes + sum(shard.bytes for shard in self.shards) + _sizes(self.leftovers)

    def to_dict(self) -> dict[str, Any]:
        return {
            "folder": f"cache/{self.path.name}",
            "teacher": self.teacher,
            "digest": self.digest,
            "grid": self.grid,
            "channels": self.channels,
            "weights": self.weights,
            "studies": len(self.shards),
            "frames": sum(shard.frames or 0 for shard in self.shards),
            "bytes": self.bytes,
            "damaged": [shard.study for shard in self.shards if shard.frames is None],
            "studies_gone": [shard.study for shard in self.shards if shard.stray],
            "leftovers": len(self.leftovers),
            "leftover_bytes": _sizes(self.leftovers),
        }


@dataclass(frozen=True)
class Shelf:
    """All of cache/. `loose`: interrupted writes outside any folder. `foreign`: not ours."""

    folders: tuple[Folder, ...]
    loose: tuple[Path, ...]
    foreign: tuple[str, ...]
    studies_known: bool

    @property
    def bytes(self) -> int:
        return sum(folder.bytes for folder in self.folders) + _sizes(self.loose)


@dataclass(frozen=True)
class Removal:
    """One file to delete, and why; `name` is relative to the workspace."""

    path: Path
    name: str
    bytes: int
    reason: Reason


def read_shelf(workspace: Workspace) -> Shelf:
    """Look at everything in cache/; headers are read, features are not."""
    root = workspace.cache
    known = _study_names(workspace)
    digests = _WeightsNow(workspace)
    folders, loose, foreign = [], [], []
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        if _is_leftover(path):
            loose.append(path)
        elif path.is_dir() and not path.is_symlink() and _FOLDER.fullmatch(path.name):
            folders.append(_read_folder(path, known, digests))
        elif not is_temporary(path) and path != workspace.leaks_file:
            foreign.append(path.name)
    return Shelf(tuple(folders), tuple(loose), tuple(foreign), known is not None)


def plan_prune(
    shelf: Shelf, *, teacher: str | None = None, everything: bool = False
) -> list[Removal]:
    """What to delete: leftovers, damaged shards and those of studies no longer here; or whole
    folders, of one `teacher` (its name, or one folder's) or of all.

    Raises UsageError for a teacher that has no features here.
    """
    if everything or teacher is not None:
        chosen = [f for f in shelf.folders if everything or teacher in (f.teacher, f.path.name)]
        if not chosen and teacher is not None:
            names = sorted({folder.teacher for folder in shelf.folders})
            there = f"There are features of: {', '.join(names)}." if names else "It is empty."
            raise UsageError(f"no features of teacher {teacher!r} in cache/", remedy=there)
        found = [removal for folder in chosen for removal in _whole(folder)]
        return found + (_removals(shelf.loose, "interrupted write") if everything else [])
    found = _removals(shelf.loose, "interrupted write")
    for folder in shelf.folders:
        found += _removals(folder.leftovers, "interrupted write")
        damaged = [shard.path for shard in folder.shards if shard.frames is None]
        gone = [s.path for s in folder.shards if s.stray and s.frames is not None]
        found += _removals(damaged, "damaged") + _removals(gone, "study is gone")
    return found


def prune(workspace: Workspace, removals: Collection[Removal]) -> int:
    """Delete, bring the indexes up to date, drop empty folders; → bytes freed.

    Raises WorkspaceError when cache/ is a link, or a run that is being trained may need what would
    go, StorageError when a file cannot be deleted.
    """
    if any(removal.reason == "whole teacher" for removal in removals):
        for run in sorted(workspace.runs.iterdir()) if workspace.runs.is_dir() else ():
            if is_trained(workspace, run.name):
                raise being_trained(run.name, "Delete features when that one has ended.")
    if workspace.cache.is_symlink():
        raise WorkspaceError(
            "is a link to another place, where nothing is deleted",
            file="cache",
            remedy="Delete in that place by hand; it is safe to.",
        )
    freed = 0
    touched = set()
    for removal in removals:
        with storage_errors(removal.path):
            removal.path.unlink(missing_ok=True)
        freed += removal.bytes
        touched.add(removal.path.parent)
    for folder in sorted(touched - {workspace.cache}):
        _tidy(folder)
    return freed


def _whole(folder: Folder) -> list[Removal]:
    index = [folder.path / INDEX] if (folder.path / INDEX).is_file() else []
    index += [folder.path / CLAIMS] if (folder.path / CLAIMS).is_file() else []
    paths = [*(shard.path for shard in folder.shards), *folder.leftovers, *index]
    return _removals(paths, "whole teacher")


def _removals(paths: Iterable[Path], reason: Reason) -> list[Removal]:
    return [Removal(path, _name(path), _sizes([path]), reason) for path in paths]


def _name(path: Path) -> str:
    parts = path.parts
    return "/".join(parts[-3:] if _FOLDER.fullmatch(path.parent.name) else parts[-2:])


def _tidy(folder: Path) -> None:
    """The index lists what is left; without a shard it goes too, and the folder if it is empty."""
    left = [path for path in sorted(folder.glob("*.safetensors")) if not is_temporary(path)]
    index = folder / INDEX
    with storage_errors(folder):
        if not left:
            index.unlink(missing_ok=True)
            (folder / CLAIMS).unlink(missing_ok=True)
            if not any(folder.iterdir()):
                folder.rmdir()
            return
    try:
        body = read_json(index)
    except DataError:
        return
    write_json(index, {**body, "shards_bytes": {path.stem: path.stat().st_size for path in left}})


def _read_folder(path: Path, known: set[str] | None, digests: _WeightsNow) -> Folder:
    named = _FOLDER.fullmatch(path.name)
    shards, leftovers = [], []
    for file in sorted(path.iterdir()):
        if file.is_symlink() or not file.is_file():
            continue
        if is_temporary(file):
            leftovers += [file] if _is_leftover(file) else []
        elif file.suffix == ".safetensors":
            stray = known is not None and file.stem not in known
            shards.append(Shard(file, file.stat().st_size, _frames_in(file), stray))
    try:
        index = read_json(path / INDEX)
    except DataError:
        index = {}
    teacher = str(index.get("teacher") or (named["teacher"] if named else path.name))
    return Folder(
        path=path,
        teacher=teacher,
        digest=str(index.get("digest") or (named["digest"] if named else "")),
        grid=_whole_number(index.get("grid")),
        channels=_whole_number(index.get("channels")),
        weights=digests.compare(teacher, index.get("weights_sha256")),
        shards=tuple(shards),
        leftovers=tuple(leftovers),
        index_bytes=_sizes([path / INDEX]),
    )


class _WeightsNow:
    """Digests of the teachers' weights found now, each file read once."""

    def __init__(self, workspace: Workspace) -> None:
        self._folders = weights_folders(workspace.root)
        try:
            self._cards = {card.name: card for card in list_cards(workspace.root)}
        except VfssError:  # a lab's card is wrong: `vfss teachers` says so
            self._cards = {}
        self._digests: dict[str, str] = {}

    def compare(self, teacher: str, weights_sha256: object) -> Weights:
        if teacher not in self._cards or not isinstance(weights_sha256, str):
            return "unknown"
        if teacher not in self._digests:
            self._digests[teacher] = self._digest(teacher)
        now = self._digests[teacher]
        if now in ("missing", "unread"):
            return "missing" if now == "missing" else "unread"
        return "found" if now == weights_sha256 else "changed"

    def _digest(self, teacher: str) -> str:
        """Hex digest, "missing", or "unread": too large to read for a listing."""
        path = find_weights(self._cards[teacher], folders=self._folders)
        if path is None:
            return "missing"
        try:
            return sha256_file(path) if path.stat().st_size <= _LARGEST_READ else "unread"
        except OSError:
            return "unread"


def _frames_in(path: Path) -> int | None:
    """Frames of a shard, from its header (safetensors: length, JSON, data); None: damaged."""
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > _LARGEST_HEADER:
                return None
            header = json.loads(stream.read(length))
            size = os.fstat(stream.fileno()).st_size
        ends = [int(one["data_offsets"][1]) for key, one in header.items() if key[:2] != "__"]
        whole = size == 8 + length + max(ends)
        return int(header["frames"]["shape"][0]) if whole else None
    except (OSError, *MALFORMED):
        return None


def _study_names(workspace: Workspace) -> set[str] | None:
    """None without a study: a disk that is not mounted must not cost the cache."""
    if not workspace.studies.is_dir():
        return None
    names = {path.name for path in workspace.studies.iterdir() if not is_temporary(path)}
    return names or None


def _is_leftover(path: Path) -> bool:
    if not is_temporary(path) or path.is_symlink() or not path.is_file():
        return False
    return time.time() - path.stat().st_mtime > STALE_S


def _sizes(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())


def _whole_number(value: object) -> int | None:
    return value if isinstance(value, int) else None


def megabytes(size: int) -> str:
    """A size in words, as people compare it with a disk."""
    for unit, bytes_of in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= bytes_of:
            return f"{size / bytes_of:.1f} {unit}"
    return f"{size} B"
