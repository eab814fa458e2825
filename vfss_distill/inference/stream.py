"""Work ahead in a thread, but only so far: what keeps memory flat whatever a film's length."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")

_POLL_S = 0.1


@dataclass(frozen=True)
class _Raised:
    error: BaseException


class _End:
    pass


def work_ahead(items: Iterable[Item], depth: int) -> Generator[Item]:
    """Yield `items` in order while a thread prepares the next ones, at most `depth` of them.

    An error among the items is raised here, in its place in the order. Closing the generator stops
    the thread, waits for it, and closes `items` in that thread, so chains of these unwind.
    """
    worker = _Worker(iter(items), depth)
    worker.thread.start()
    try:
        while True:
            item = worker.ready.get()
            if isinstance(item, _End):
                return
            if isinstance(item, _Raised):
                raise item.error
            yield item
            del item  # while we wait for the next, nobody holds this one
    finally:
        worker.stopped.set()
        worker.thread.join()


class _Worker(Generic[Item]):
    def __init__(self, items: Iterator[Item], depth: int) -> None:
        self.items = items
        self.ready: queue.Queue[Item | _Raised | _End] = queue.Queue(maxsize=depth)
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._work, name="vfss-work-ahead", daemon=True)

    def _work(self) -> None:
        last: _Raised | _End = _End()
        try:
            for item in self.items:
                if not self._hand_over(item):
                    break
                del item
        except BaseException as error:  # handed to the reader, who raises it
            last = _Raised(error)
        finally:
            close = getattr(self.items, "close", None)
            if close is not None:
                close()
        self._hand_over(last)

    def _hand_over(self, item: Item | _Raised | _End) -> bool:
        while not self.stopped.is_set():
            try:
                self.ready.put(item, timeout=_POLL_S)
                return True
            except queue.Full:
                continue
        return False
