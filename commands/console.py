"""What every command shares: streams, options, and how an error becomes one line.

Results go to stdout; progress, notices and errors to stderr. No traceback reaches a user without
`--debug`, and locals never do.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import typer
from rich.console import Console

from ..errors import (
    EXIT_DATA,
    EXIT_INTERRUPTED,
    EXIT_UNEXPECTED,
    DeviceError,
    StorageError,
    VfssError,
)

# No emoji: a name with `:x:` in it is shown as it is.
out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)

# What training and export need and `vfss segment` does not.
_OPTIONAL = frozenset(
    {"torch", "torchvision", "timm", "transformers", "safetensors", "segment_anything", "open_clip"}
    | {"onnx", "onnxscript"}
)
_NO_MEMORY = "can't allocate memory"  # torch's word for it on the CPU, a plain RuntimeError

_REMEDIES = {
    errno.EISDIR: "Move the folder of that name away.",
    errno.ENOTDIR: "Move the file away that stands where a folder belongs.",
    errno.EEXIST: "Move what has that name away.",
    errno.EACCES: "Check that you may read and write it.",
    errno.EPERM: "Check that you may read and write it.",
    errno.ENOENT: "Check the name.",
    errno.ENAMETOOLONG: "Use a shorter name.",
    errno.EMFILE: "Allow more open files (`ulimit -n`).",
}

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

WorkspaceOption = Annotated[
    Path,
    typer.Option("--workspace", "-w", help="Workspace folder.", file_okay=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace what is already there.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only results.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Same seed, same result.", min=0)]


def debugging() -> bool:
    return os.environ.get("VFSS_DEBUG", "") not in ("", "0")


def guarded(command: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Wrap a command so that each failure is one line on stderr and its documented exit code."""

    @functools.wraps(command)
    def wrapper(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        try:
            with _signals_as_interrupt():
                return command(*args, **kwargs)
        except BrokenPipeError:
            # The reader of our output has gone (`vfss report | head`): nothing left to say.
            silence_stdout()
            raise typer.Exit(0) from None
        except (Exception, KeyboardInterrupt) as error:
            if error.__class__.__module__.startswith(("typer", "click")):
                raise
            code, line = _told(error)
            if debugging():
                traceback.print_exc()
        fail_line(line)
        raise typer.Exit(code)

    return wrapper


def _told(error: BaseException) -> tuple[int, str]:
    """Exit code and the one line for it. Of an unforeseen error not even the message: it may hold
    a name.
    """
    match error:
        case VfssError():
            return error.exit_code, str(error)
        case KeyboardInterrupt():
            return EXIT_INTERRUPTED, "interrupted; what was written is complete"
        case OSError():
            return _operating_system(error)
        case ModuleNotFoundError() if (error.name or "").split(".")[0] in _OPTIONAL:
            line = f"{error.name} is not installed. pip install 'vfss-distill[distill]' brings it."
            return DeviceError.exit_code, line
    name = type(error).__name__
    if isinstance(error, MemoryError) or name == "OutOfMemoryError" or _NO_MEMORY in str(error):
        line = "not enough memory. Use fewer workers, a smaller batch or image size."
        return DeviceError.exit_code, line
    return EXIT_UNEXPECTED, f"unexpected {name}. This is our bug; `vfss --debug` shows where."


def _operating_system(error: OSError) -> tuple[int, str]:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError.exit_code, "the disk is full. Free some space and run it again."
    # Of a renaming the second: the first is a temporary of ours.
    file = error.filename2 or error.filename
    name = Path(file).name if isinstance(file, str | os.PathLike) else ""
    remedy = _REMEDIES.get(error.errno or 0, "Check the file and its disk.")
    return EXIT_DATA, f"{name}: {error.strerror or 'cannot be used'}. {remedy}".lstrip(": ")


def silence_stdout() -> None:
    """Where nobody reads it any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail_line(line: str) -> None:
    err.print(f"[bold red]error:[/] {_plain(line)}")


def warn(line: str) -> None:
    err.print(f"[yellow]warning:[/] {_plain(line)}")


def note(line: str) -> None:
    err.print(_plain(line))


def _plain(line: str) -> str:
    """One line, no `[...]` of a file name taken as markup, and nothing that moves a terminal."""
    from rich.markup import escape

    line = " ".join(line.split())
    return escape("".join(c if c.isprintable() or c >= "\xa0" else ascii(c)[1:-1] for c in line))


def print_json(value: dict[str, Any]) -> None:
    """The one JSON object of a `--json` command."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # JSON has escapes of its own for what the stream cannot carry
        text = json.dumps(value, allow_nan=False, indent=2)
    sys.stdout.write(text + "\n")


@contextlib.contextmanager
def progress(title: str, *, quiet: bool = False) -> Iterator[Callable[[int, int, str], None]]:
    """Yield `tick(done, total, words)`: a bar with ETA on a terminal, else a line now and then.

    `total` 0 means unknown. `words` stand behind the bar.
    """
    if quiet or os.environ.get("CI"):
        yield _no_progress
        return
    if not err.is_terminal:
        yield _PlainProgress(title)
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[words]}", markup=False),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(title, total=None, words="")

        def tick(done: int, total: int, words: str = "") -> None:
            bar.update(task, completed=done, total=total or None, words=words)

        yield tick


def _no_progress(done: int, total: int, words: str = "") -> None:
    """Nothing to show."""


class _PlainProgress:
    """For logs: one line every half a minute, with how long the rest may take."""

    EVERY_S = 30.0

    def __init__(self, title: str) -> None:
        self._title = title
        self._start = self._last = time.monotonic()
        self._first: int | None = None

    def __call__(self, done: int, total: int, words: str = "") -> None:
        now = time.monotonic()
        if self._first is None or done < self._first:
            self._start, self._first = now, done  # another stage, or resumed
        if now - self._last < self.EVERY_S:
            return
        self._last = now
        line = f"{self._title}: {done}" + (f" of {total}" if total else "")
        if total and done > self._first:
            left_s = (now - self._start) / (done - self._first) * (total - done)
            line += f", about {left_s / 60:.0f} min left"
        note(f"{line} {words}".rstrip())


@contextlib.contextmanager
def _signals_as_interrupt() -> Iterator[None]:
    """A polite kill, or a terminal that closes, ends like Ctrl-C: temporaries are removed,
    checkpoints kept."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    hangup = getattr(signal, "SIGHUP", signal.SIGTERM)  # Windows has none
    before = {asking: signal.getsignal(asking) for asking in (signal.SIGTERM, hangup)}
    if before[hangup] is signal.SIG_IGN:  # nohup
        del before[hangup]
    try:
        for asking in before:
            signal.signal(asking, interrupt)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        for asking, handler in before.items():
            signal.signal(asking, handler)
