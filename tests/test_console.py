"""What all commands share: one line and an exit code per failure, and progress."""

from __future__ import annotations

import errno
import signal
from collections.abc import Callable

import pytest
import torch
import typer
from typer.testing import CliRunner

from vfss_distill.commands import console
from vfss_distill.errors import DeviceError, InputError, UsageError, WeightsMissing


def run(failure: Callable[[], object]) -> tuple[int, str]:
    """Exit code and stderr of a command that does `failure()`."""
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    @console.guarded
    def command() -> None:
        failure()

    done = CliRunner().invoke(app, [])
    return done.exit_code, done.stderr


def raising(error: BaseException) -> Callable[[], object]:
    def failure() -> object:
        raise error

    return failure


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UsageError("no such split", remedy="Use test."), 2, "no such split. Use test."),
        (InputError("is empty", file="a [b].mp4"), 4, "a [b].mp4: is empty"),
        (WeightsMissing("not here", file="x.pth"), 5, "x.pth: not here"),
        (DeviceError("no CUDA"), 6, "no CUDA"),
        (OSError(errno.ENOSPC, "no space"), 6, "disk is full"),
        (MemoryError(), 6, "memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), 6, "memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 6, "memory"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 6, "torch is not installed"),
        (ModuleNotFoundError("No module named 'jane'", name="jane"), 1, "ModuleNotFoundError"),
        (PermissionError(errno.EACCES, "Permission denied", "/secret/Jane/x.mp4"), 4, "x.mp4"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ZeroDivisionError("Jane Doe"), 1, "unexpected ZeroDivisionError"),
    ],
)
def test_each_failure_is_one_line_and_its_code(error: BaseException, code: int, words: str) -> None:
    exit_code, stderr = run(raising(error))
    assert exit_code == code
    assert words in stderr
    assert len(stderr.strip().splitlines()) == 1
    assert "Traceback" not in stderr
    assert "/secret" not in stderr
    assert "Jane Doe" not in stderr


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_polite_end_is_an_interruption(name: str) -> None:
    if not hasattr(signal, name):
        pytest.skip(f"no {name} here")
    before = signal.getsignal(getattr(signal, name))
    if before is signal.SIG_IGN:
        pytest.skip(f"{name} is ignored here")
    assert run(lambda: signal.raise_signal(getattr(signal, name)))[0] == 130
    assert signal.getsignal(getattr(signal, name)) == before


def test_a_hangup_that_is_ignored_stays_so() -> None:
    if not hasattr(signal, "SIGHUP"):
        pytest.skip("no SIGHUP here")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run(lambda: signal.raise_signal(signal.SIGHUP))[0] == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_debug_shows_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VFSS_DEBUG", "1")
    assert "Traceback" in run(raising(ZeroDivisionError()))[1]


def test_progress_in_a_log_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(console._PlainProgress, "EVERY_S", 0.0)
    with console.progress("distill") as tick:
        tick(0, 10, "")
        tick(5, 10, "align")
    assert "distill: 5 of 10, about 0 min left align" in capsys.readouterr().err
    with console.progress("distill", quiet=True) as tick:
        tick(5, 10, "")
    assert capsys.readouterr().err == ""
