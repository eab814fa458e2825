"""The numbers of metrics.jsonl as TensorBoard reads them, while a run goes on.

    tensorboard --logdir runs

Written with the package's own record writer: torch's SummaryWriter would put the name of the
machine into the file's name.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import DeviceError
from ..workspace import storage_errors

_FLUSH_S = 5.0


def check_tensorboard() -> None:
    """Raises DeviceError where the package is not installed: before the first frame, not after."""
    try:
        import tensorboard  # noqa: F401
    except ImportError as error:
        raise DeviceError(
            "tensorboard is not installed",
            remedy="Install it (pip install 'vfss-distill[tensorboard]'), or leave out "
            "--tensorboard: metrics.jsonl and curves.svg are written anyway.",
        ) from error


class Events:
    """One event file a session of a run; numbers of steps from `step` on replace older ones."""

    def __init__(self, folder: Path, step: int) -> None:
        check_tensorboard()
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = Event, Summary
        target = folder / f"events.out.tfevents.{time.time_ns() // 1000}.vfss"
        with storage_errors(target):
            self._writer: Any = RecordWriter(target.open("wb"))
            self._put(file_version="brain.Event:2")
            self._put(step=step, session_log=SessionLog(status=SessionLog.START))
            self._writer.flush()
        self._target, self._flushed = target, time.monotonic()

    def write(self, record: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl: numbers, and numbers by name. Raises StorageError."""
        values = [
            self._summary.Value(tag=tag, simple_value=number)
            for tag, number in _numbers(record)
            if tag != "step"
        ]
        with storage_errors(self._target):
            self._put(step=record["step"], summary=self._summary(value=values))
            if time.monotonic() - self._flushed > _FLUSH_S:
                self._writer.flush()
                self._flushed = time.monotonic()

    def close(self) -> None:
        with storage_errors(self._target):
            self._writer.close()

    def _put(self, **fields: Any) -> None:
        event = self._event(wall_time=time.time(), **fields)
        self._writer.write(event.SerializeToString())


def _numbers(record: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, float]]:
    """`alpha/medsam`, `val_dice/c3`, `loss`: all finite numbers of a line."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{before}{name}/")
        elif isinstance(value, int | float) and math.isfinite(value):
            yield f"{before}{name}", float(value)
