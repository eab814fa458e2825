"""Where work on many studies runs: in this process, in several, or on a cluster.

An engine takes jobs by `submit` and gives back one finished job at a time by `wait`, in any order.
It decides nothing: what is ingested, skipped or refused is decided in one place and in the order of
the inputs, so that the same files come out whatever the engine and the number of workers.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any, Protocol, Self

from .errors import DeviceError

_PATIENCE_S = 10.0  # for a worker to take its half study away
# Windows waits for 63 things at most, and a worker is two: its connection and its end.
_MOST_WORKERS = 31 if os.name == "nt" else 10_000


class WorkerDied(DeviceError):
    """The process that did a job is gone: killed, out of memory, or crashed in a decoder."""


@dataclass(frozen=True)
class Done:
    """Job `number` is finished; `value` is what the work returned, or the WorkerDied."""

    number: int
    value: Any


class Engine(Protocol):
    """A context manager; leaving it stops what still runs, without leaving half a study."""

    slots: int

    def submit(self, number: int, job: Any) -> None:
        """At most `slots` jobs may be under way."""
        ...

    def wait(self) -> Done:
        """The next job that is finished; there must be one under way."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class OneProcess:
    """Does each job at once, where it stands."""

    slots = 1

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self._work = work
        self._done: deque[Done] = deque()

    def submit(self, number: int, job: Any) -> None:
        self._done.append(Done(number, self._work(job)))

    def wait(self) -> Done:
        return self._done.popleft()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing runs any more."""


class Processes:
    """Several processes of this machine, each with one job at a time.

    Not concurrent.futures: there, one worker that dies takes all jobs under way with it. Here its
    job fails and the others go on. `work` must be importable by name. `slots` may become fewer.
    """

    def __init__(self, work: Callable[[Any], Any], slots: int) -> None:
        self.slots = min(slots, _MOST_WORKERS)
        self._work = work
        self._idle: list[_Worker] = []
        self._busy: dict[int, _Worker] = {}

    def submit(self, number: int, job: Any) -> None:
        while self._idle:
            worker = self._idle.pop()
            if worker.give(job):
                self._busy[number] = worker
                return
            worker.stop()  # it died while it had nothing to do
        worker = _Worker(self._work)
        self._busy[number] = worker  # from now on it is stopped with the others
        worker.give(job)  # if it is gone already, `wait` will say so

    def wait(self) -> Done:
        ends: dict[Any, int] = {}
        for number, worker in self._busy.items():
            ends |= {worker.connection: number, worker.process.sentinel: number}
        number = ends[wait(list(ends))[0]]
        worker = self._busy.pop(number)
        try:
            value = worker.connection.recv() if worker.connection.poll() else worker.died()
        except (EOFError, OSError):
            value = worker.died()
        if not isinstance(value, WorkerDied):
            self._idle.append(worker)
        return Done(number, value)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        workers = [*self._idle, *self._busy.values()]
        for worker in workers:
            worker.process.terminate()  # all at once; `stop` then waits for one after the other
        for worker in workers:
            worker.stop()


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Hold Ctrl-C back. What is started meanwhile inherits that, so a worker still importing is not
    torn down with a traceback: this process hears the Ctrl-C and stops its workers."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Started with the first worker, it would let Ctrl-C through again before that is started.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Worker:
    def __init__(self, work: Callable[[Any], Any]) -> None:
        # Spawned, not forked: decoders and the progress bar have threads, which a fork breaks.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(
            target=_serve, args=(theirs, work), name="vfss-worker", daemon=True
        )
        with _interrupts_later():
            self.process.start()
        theirs.close()  # or the end of the worker would not be the end of the connection

    def give(self, job: Any) -> bool:
        """False when the worker is gone."""
        try:
            self.connection.send(job)
        except OSError:
            return False
        return True

    def died(self) -> WorkerDied:
        self.process.join(_PATIENCE_S)
        code = self.process.exitcode
        self.stop()
        return died(f"signal {-code}" if code is not None and code < 0 else f"exit {code}")

    def stop(self) -> None:
        self.process.terminate()
        self.process.join(_PATIENCE_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.connection.close()


def died(how: str) -> WorkerDied:
    """The error for a worker that is gone. `how`: in brackets."""
    return WorkerDied(
        f"the process that worked on it was killed or crashed ({how})",
        remedy="It may have run out of memory: try fewer --workers, or this one alone.",
    )


def _serve(connection: Connection, work: Callable[[Any], Any]) -> None:
    """One worker: a job in, its value out, until the connection ends."""
    # Ctrl-C reaches every process of a terminal; the parent alone decides, and sends SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        import cv2

        cv2.setNumThreads(1)  # the other cores have jobs of their own
        while True:
            connection.send(work(connection.recv()))
    except (EOFError, OSError, KeyboardInterrupt):
        return  # the parent is gone, or wants us to


def _interrupt(*_: object) -> None:
    # The parent asks twice; the second time would break into what the first one set going.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt  # unwinds `with` blocks, which take half a study away
