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


@pytest.mark.slow
@needs_compiler
def test_compiled_trains_alike_and_resumes_to_the_bit(tmp_path: Path) -> None:
    lab = tiny_lab(tmp_path)
    plain = run(lab, teachers=("medsam",))
    whole = run(lab, teachers=("medsam",), compile=True)
    losses = [
        [json.loads(line)["loss"] for line in (one.folder / "metrics.jsonl").open()]
        for one in (plain, whole)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)
    stopped: dict[str, Any] = {}

    def stop_at_five(done: int, of: int, words: str) -> None:
        if done == 5 and "there" not in stopped and "loss" in words:
            stopped["there"] = True
            os.kill(os.getpid(), signal.SIGINT)

    half = run(lab, teachers=("medsam",), compile=True, tick=stop_at_five)
    assert half.interrupted
    again = run(lab, teachers=("medsam",), compile=True, resume=half.folder)
    assert same(whole, again)
    # The weights are those of a plain student.
    assert weights(whole).keys() == weights(plain).keys()
    assert all(torch.isfinite(tensor).all() for tensor in weights(whole).values())
