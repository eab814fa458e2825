"""Who does which piece of work, where several processes or machines share one disk.

A claim is a lock on one byte of a file. The system frees it when the process that holds it ends,
however it ends, and a network disk when the machine is gone: nothing stale is left behind. Where a
disk knows no locks every claim is granted.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeVar

from .errors import WorkspaceError
from .workspace import Workspace, storage_errors

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]
try:
    import msvcrt
except ImportError:  # nowhere else
    msvcrt = None  # type: ignore[assignment]

T = TypeVar("T")

_POLL_S = 1.0
_LOOK_S = 0.05
_LOOKS = 20
_TAKEN = (errno.EAGAIN, errno.EACCES)


class Claims:
    """This process's claims in one file, which is made if need be; all given back at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        with storage_errors(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def take(self, work: str) -> bool:
        """Whether this process may do that work now; False while another one does."""
        try:
            self._lock(work, held=True)
        except OSError as error:
            return error.errno not in _TAKEN
        return True

    def take_patiently(self, work: str) -> bool:
        """`take`, though another process has it for the moment that `is_trained` needs it."""
        for _ in range(_LOOKS):
            if self.take(work):
                return True
            time.sleep(_LOOK_S)
        return self.take(work)

    def give_back(self, work: str) -> None:
        with suppress(OSError):  # a disk without locks never gave one
            self._lock(work, held=False)

    def _lock(self, work: str, *, held: bool) -> None:
        """Lock the byte of `work`, or free it. Raises OSError, at once where another has it."""
        if self._file is None:
            return
        if fcntl is not None:
            how = fcntl.LOCK_EX | fcntl.LOCK_NB if held else fcntl.LOCK_UN
            fcntl.lockf(self._file, how, 1, _place(work))
        elif msvcrt is not None:  # there the byte is where the file stands, a number of 31 bits
            how = msvcrt.LK_NBLCK if held else msvcrt.LK_UNLCK  # type: ignore[attr-defined]
            os.lseek(self._file.fileno(), _place(work) % 2**31, os.SEEK_SET)
            msvcrt.locking(self._file.fileno(), how, 1)  # type: ignore[attr-defined]


@contextmanager
def alone_in(workspace: Workspace) -> Iterator[None]:
    """What rewrites studies and identities does it alone: each of two at once would write back what
    it read before the other wrote. Raises WorkspaceError while one is at work, and StorageError.
    """
    with Claims(workspace.ingest_lock) as claims:
        if not claims.take("ingest"):
            raise WorkspaceError(
                "another `vfss ingest` or `vfss labels import` is at work in this workspace",
                remedy="Run this one when it has ended.",
            )
        try:
            yield
        finally:
            claims.give_back("ingest")  # Windows takes its time with locks of files that were shut


@contextmanager
def alone_on_run(workspace: Workspace, run: str) -> Iterator[None]:
    """Of two processes that train one run each would write over the other's checkpoints and
    metrics. Raises WorkspaceError while another one does, and StorageError."""
    with Claims(workspace.distill_lock) as claims:
        if not claims.take_patiently(run):
            raise being_trained(run)
        try:
            yield
        finally:
            claims.give_back(run)  # as in `alone_in`


def is_trained(workspace: Workspace, run: str) -> bool:
    """Whether another process trains that run. For processes that train none yet: where one shuts
    the file it loses its claims in it. Raises StorageError."""
    with Claims(workspace.distill_lock) as claims:
        free = claims.take_patiently(run)
        if free:
            claims.give_back(run)
    return not free


def being_trained(
    run: str,
    remedy: str = "Wait until that one has ended, or start another run without --resume.",
) -> WorkspaceError:
    """What is told of a run that another process trains."""
    return WorkspaceError(
        "is being trained by another process",
        file=f"runs/{run}",
        remedy=remedy,
    )


def in_turn(
    path: Path,
    jobs: Sequence[T],
    name_of: Callable[[T], str],
    is_done: Callable[[T], bool],
    waiting: Callable[[int], None],
) -> Iterator[T]:
    """The jobs that fall to this process, each claimed in the file `path` while it is worked on.

    Where a disk knows no locks, a job may be done twice: what it makes must appear whole and alike.
    Ends when all `jobs` are done, by whomever; `waiting` hears once how many others still compute.
    Raises StorageError.
    """
    left, told = list(jobs), False
    with Claims(path) as claims:
        while left:
            taken = []
            for job in left:
                if not claims.take(name_of(job)):
                    taken.append(job)
                    continue
                try:
                    if not is_done(job):
                        yield job
                finally:
                    claims.give_back(name_of(job))
            if len(taken) == len(left):
                if not told:
                    waiting(len(taken))
                    told = True
                time.sleep(_POLL_S)
            left = taken


def _place(work: str) -> int:
    return int.from_bytes(hashlib.sha256(work.encode()).digest()[:6], "big")
