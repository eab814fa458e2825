"""The workspace: which file lies where, and how files are written.

    workspace/
      vfss.yaml                                 what a lab sets once
      studies/<study>/{study.json,frames/,masks/<task>/}
      splits.yaml                               train / val / test by patient
      cache/<teacher>-<digest>/<study>.safetensors
      runs/<run>/
      results/<study>/<model>/
      reports/<name>/
      weights/                                  teacher weights a lab has put there
      identities.csv, identities.key            the only link from pseudonyms to sources; mode 600
      .ingest.lock                              empty; one ingest or import at a time
      .distill.lock                             empty; a run is trained by one process at a time

Every write is atomic: a temporary beside the target, fsync, rename. A process that dies leaves the
old file or the new one, and perhaps a temporary that `is_temporary` recognises; `put_back` and
`clear_temporaries` are for whoever knows that nobody else is writing there.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import DataError, StorageError, WorkspaceError

_TEMPORARY = ".partial-"
_SET_ASIDE = re.compile(re.escape(_TEMPORARY) + r"[0-9a-f]{8}~(?P<name>.+)")
_NAME = 80  # letters of a target's name in that of its temporary
_MEND = "Put it back from a backup, or make it anew."
_IS_WINDOWS = os.name == "nt"
_C = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Workspace:
    """Paths inside one workspace folder. Nothing is created until something is written."""

    root: Path

    @property
    def config_file(self) -> Path:
        return self.root / "vfss.yaml"

    @property
    def studies(self) -> Path:
        return self.root / "studies"

    @property
    def splits_file(self) -> Path:
        return self.root / "splits.yaml"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def leaks_file(self) -> Path:
        """What was found clean last, so that the next run need not look."""
        return self.cache / "leaks.json"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def weights(self) -> Path:
        return self.root / "weights"

    @property
    def identities_file(self) -> Path:
        return self.root / "identities.csv"

    @property
    def identities_key(self) -> Path:
        return self.root / "identities.key"

    @property
    def ingest_lock(self) -> Path:
        """Empty; held while an ingest, or an import of labels, is at work."""
        return self.root / ".ingest.lock"

    @property
    def distill_lock(self) -> Path:
        """Empty; a byte of it is held while a run is trained."""
        return self.root / ".distill.lock"

    def next_report(self, kind: str) -> str:
        """The first free name `<kind>-NNN` in reports/."""
        taken = {path.name for path in self.reports.glob(f"{kind}-*")}
        number = next(n for n in range(1, len(taken) + 2) if f"{kind}-{n:03d}" not in taken)
        return f"{kind}-{number:03d}"

    def relative(self, path: Path) -> str:
        """`path` as written in records: relative to the workspace, with forward slashes.

        Raises WorkspaceError when `path` lies outside: such a path may hold a name.
        """
        try:
            return path.resolve().relative_to(self.root.resolve()).as_posix()
        except ValueError as error:
            raise WorkspaceError(
                "an output would lie outside the workspace",
                remedy="Where runs/, results/ or reports/ is a link to another disk, put a folder "
                "in its place, or move the whole workspace to that disk.",
            ) from error

    def check_output(self, target: Path) -> None:
        """Before long work that ends in `target`: it lies inside, and can be written.

        Raises WorkspaceError as `relative`, StorageError.
        """
        self.relative(target)
        check_writable(target)


def is_temporary(path: Path) -> bool:
    """True for what an interrupted write may leave behind; readers skip it."""
    return path.name.startswith(_TEMPORARY)


def put_back(folder: Path, of: str = "") -> None:
    """What `atomic_folder` had set aside in `folder` when its process died between two renames
    gets its name again, unless something has that by now: everything, or the target named `of`.

    For whoever knows that nobody else is writing it. What cannot be moved stays.
    """
    for path in sorted(folder.glob(f"{_TEMPORARY}*")):
        aside = _SET_ASIDE.fullmatch(path.name)
        if aside and len(aside["name"]) < _NAME and of in ("", aside["name"]):
            target = folder / aside["name"]
            with suppress(OSError):
                if not os.path.lexists(target):
                    path.rename(target)


def clear_temporaries(folder: Path, of: str = "") -> None:
    """`put_back`, then take away what else interrupted writes left in `folder` (not below)."""
    put_back(folder, of)
    for path in folder.glob(f"{_TEMPORARY}*"):
        if of and path.name[len(_TEMPORARY) + 9 :] != of[-_NAME:]:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink(missing_ok=True)


@contextmanager
def storage_errors(target: Path) -> Iterator[None]:
    """Turn the operating system's word on a failed write into a StorageError with a remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            what, remedy = "the disk is full", "Free some space and run the same command again."
        elif error.errno == errno.EFBIG:  # FAT32 ends at 4 GB, and `ulimit -f` where it says
            what, remedy = "the disk takes no file of that size", "Write to another disk."
        elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            what, remedy = "cannot be written", "Choose a folder you may write to."
            if _IS_WINDOWS:
                remedy = "Close the program that has it open, or choose a folder you may write to."
        else:
            raise
        raise StorageError(what, file=target.name, remedy=remedy) from error


@contextmanager
def atomic_path(target: Path, *, mode: int | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success it becomes `target`, else it is removed.

    Raises StorageError on a full or read-only disk.
    """
    temporary = target.parent / f"{_TEMPORARY}{secrets.token_hex(4)}-{target.name[-_NAME:]}"
    with storage_errors(target), _made(target.parent):
        try:
            yield temporary
            _flush(temporary)
            if mode is not None:
                temporary.chmod(mode)
            _patiently(lambda: temporary.replace(target))
            _flush(target.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(target: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary folder beside `target`; on success it takes `target`'s place.

    An existing `target` is replaced whole and only once the new one is complete: in one step on
    Linux; elsewhere, and on network shares that cannot, there is none for the moment between two
    renames (`put_back` mends it). Files put into the folder need not be written atomically. Raises
    StorageError as `atomic_path`, and WorkspaceError where there is a `target` by then that may not
    be replaced: somebody else has made it meanwhile.
    """
    temporary = target.parent / f"{_TEMPORARY}{secrets.token_hex(4)}-{target.name[-_NAME:]}"
    with storage_errors(target), _made(target.parent):
        temporary.mkdir(parents=True)
        try:
            yield temporary
            _flush_all(temporary)
            if target.exists() and not replace:
                raise WorkspaceError(
                    "was made by another process meanwhile",
                    file=target.name,
                    remedy="Run it again, or give it another --name.",
                )
            if not (target.exists() and _exchange(temporary, target)):
                old = target.parent / f"{_TEMPORARY}{secrets.token_hex(4)}~{target.name[-_NAME:]}"
                try:
                    if target.exists():
                        _patiently(lambda: target.rename(old))
                    _patiently(lambda: temporary.rename(target))
                except BaseException:
                    if old.exists() and not target.exists():
                        _patiently(lambda: old.rename(target))
                    raise
                shutil.rmtree(old, ignore_errors=True)
            _flush(target.parent)
        finally:
            _take_away(temporary)


def check_writable(target: Path) -> None:
    """Before long work that ends in `target`: make something where it will lie, and take it away.

    `os.access` would be wrong on Windows and on shares. Raises StorageError.
    """
    with storage_errors(target):
        probe = nearest(target.parent) / f"{_TEMPORARY}{secrets.token_hex(4)}"
        probe.mkdir()
        probe.rmdir()


def _patiently(move: Callable[[], object]) -> None:
    """On Windows what is open cannot be moved, and scanners open what is new for a moment."""
    for _ in range(100 if _IS_WINDOWS else 0):
        try:
            move()
        except PermissionError:
            time.sleep(0.05)
        else:
            return
    move()


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """`folder` is there; after a failure those made for it are taken away again, if still empty."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with suppress(OSError):  # not empty: somebody else has put something in
            for one in missing:
                one.rmdir()
        raise


def _take_away(folder: Path) -> None:
    """Interrupted, a thread may still be writing a frame into it: then it is not empty yet."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.05)


def write_bytes(target: Path, data: bytes, *, mode: int | None = None) -> None:
    """Write atomically. Raises StorageError."""
    with atomic_path(target, mode=mode) as temporary:
        temporary.write_bytes(data)


def write_text(target: Path, text: str, *, mode: int | None = None) -> None:
    """Write UTF-8 atomically; half a character, as a JSON may hold, as `\\ud800`.

    Raises StorageError.
    """
    write_bytes(target, text.encode("utf-8", "backslashreplace"), mode=mode)


def write_json(target: Path, value: Any) -> None:
    """Write JSON atomically; NaN and infinity are refused, as they are not JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(target, text + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object. Raises DataError when it is missing or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError("file is missing", file=path.name, remedy=_MEND) from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError("not readable as JSON", file=path.name, remedy=_MEND) from error
    if not isinstance(value, dict):
        raise DataError("holds no JSON object", file=path.name, remedy=_MEND)
    return value


def delimiter_of(text: str) -> str:
    """Of a table as a spreadsheet saved it: a semicolon where commas are decimal."""
    first = text.split("\n", 1)[0]
    return ";" if first.count(";") > first.count(",") else ","


def spreadsheet_cell(text: str) -> str:
    """`text` as a CSV cell that no spreadsheet takes for a formula: names come from anywhere."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text


def free_bytes(folder: Path) -> int:
    """Free space where `folder` is, or would be once made. Raises StorageError: no such disk."""
    return shutil.disk_usage(nearest(folder)).free


def nearest(folder: Path) -> Path:
    """`folder`, or the deepest above it that is there. Raises StorageError where not even its
    disk is: on Windows a stick that was pulled out, a network drive that is not connected; and
    where a link leads nowhere."""
    for one in (folder, *folder.parents):
        if one.exists():
            return one
        if one.is_symlink():
            raise StorageError(
                "is a link that leads nowhere",
                file=one.name,
                remedy="Connect the disk it leads to, or put a folder in its place.",
            )
    raise StorageError("its disk is not there", file=folder.name, remedy="Connect that disk.")


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders swap names in one step; False where the system or the disk cannot."""
    swap = getattr(_C, "renameat2", None)
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if swap is None:
        return False
    return bool(swap(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def _flush_all(folder: Path) -> None:
    """Everything in `folder` reaches the disk. One sync: thousands of fsyncs take minutes. Windows
    has none: there records and weights do, and frames and masks, in folders below, a little later.
    """
    if hasattr(os, "sync"):
        os.sync()
        return
    for path in folder.iterdir():
        _flush(path)


def _flush(path: Path) -> None:
    """fsync a file or folder; what cannot be synced (some network shares) is left to the system."""
    try:
        descriptor = os.open(path, os.O_RDWR if _IS_WINDOWS else os.O_RDONLY)
    except PermissionError:
        if _IS_WINDOWS:  # opens no folder, and nothing that is read-only
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
    finally:
        os.close(descriptor)
