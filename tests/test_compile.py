"""`compile: true`: the same training, translated first."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import Cli
from distill_lab import run, same, tiny_lab, weights
from vfss_distill.config import DistillConfig
from vfss_distill.distill import loop
from vfss_distill.distill import run as runs
from vfss_distill.distill.compilation import compiled
from vfss_distill.errors import DeviceError
from vfss_distill.models.students import StudentConfig, build_student

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++"))), reason="no C++ compiler here"
)


def test_without_a_compiler_it_says_so(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = tiny_lab(tmp_path)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    done = cli("distill", "--teachers", "none", "--compile", "--no-export", cwd=lab.root)
    assert done.exit_code == 6, done.stderr
    assert "no C++ compiler" in done.stderr
    assert "leave --compile out" in done.stderr


def test_the_compiler_that_is_there_is_the_one_used(monkeypatch: pytest.MonkeyPatch) -> None:
    # torch looks for $CXX, else g++, and translates for most of a minute before it misses it.
    from torch._inductor import config as inductor

    here = {"clang++"}
    monkeypatch.setattr(shutil, "which", lambda name: name if name in here else None)
    monkeypatch.setattr(torch, "compile", lambda part, **_: part)
    monkeypatch.setattr(inductor.cpp, "cxx", (None, "g++"))
    monkeypatch.delenv("CXX", raising=False)
    student = build_student(StudentConfig("nano", 64, 0, ("a",), grid=8))
    with compiled(student, DistillConfig(compile=True)):
        assert inductor.cpp.cxx == (None, "clang++")
    monkeypatch.setenv("CXX", "clang++ -stdlib=libc++")
    with compiled(student, DistillConfig(compile=True)):
        assert inductor.cpp.cxx == (None, "clang++ -stdlib=libc++")
    monkeypatch.setenv("CXX", "nowhere/cc")
    with (
        pytest.raises(DeviceError, match="is not here"),
        compiled(student, DistillConfig(compile=True)),
    ):
        pass


@pytest.mark.slow
@needs_compiler
def test_compiled_trains_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In double precision: batch norm over the few values of a tiny frame turns the rounding of
    floats, which is another on each kind of processor, into hundredths of the loss."""
    build, heads = runs.build_student, loop.Heads
    monkeypatch.setattr(runs, "build_student", lambda shape: build(shape).double())
    monkeypatch.setattr(loop, "Heads", lambda *words: heads(*words).double())
    lab = tiny_lab(tmp_path)
    plain, translated = (run(lab, teachers=("medsam",), compile=how) for how in (False, True))
    losses = [
        [json.loads(line)["loss"] for line in (one.folder / "metrics.jsonl").open()]
        for one in (plain, translated)
    ]
    assert len(losses[0]) == 8 and losses[0] == pytest.approx(losses[1], rel=1e-5)
    # The weights are those of a plain student.
    assert weights(translated).keys() == weights(plain).keys()


@pytest.mark.slow
@needs_compiler
def test_compiled_resumes_to_the_bit(tmp_path: Path) -> None:
    lab = tiny_lab(tmp_path)
    whole = run(lab, teachers=("medsam",), compile=True)
    stopped: dict[str, Any] = {}

    def stop_at_five(done: int, of: int, words: str) -> None:
        if done == 5 and "there" not in stopped and "loss" in words:
            stopped["there"] = True
            os.kill(os.getpid(), signal.SIGINT)

    half = run(lab, teachers=("medsam",), compile=True, tick=stop_at_five)
    assert half.interrupted
    again = run(lab, teachers=("medsam",), compile=True, resume=half.folder)
    assert same(whole, again)
    assert all(torch.isfinite(tensor).all() for tensor in weights(whole).values())
