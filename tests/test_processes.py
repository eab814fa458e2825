"""Several processes train what one would: `accelerate launch -m vfss_distill distill …`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from distill_lab import TINY
from tiny_studies import small_world, write_splits, write_study
from tiny_teachers import write_tiny_weights
from vfss_distill.config import DistillConfig
from vfss_distill.distill import loop, reader, run
from vfss_distill.distill.batches import check_parts
from vfss_distill.distill.processes import Processes
from vfss_distill.errors import UsageError
from vfss_distill.workspace import Workspace

SETTINGS: dict[str, Any] = {
    **TINY,
    "teachers": ("medsam", "raddino"),
    "batch_size": 9,  # not the same number of frames for both
    "balancing": "mlp",
    "affinity_weight": 1.0,
    "read_share": 0.4,
}
# In double precision rounding cannot hide a mistake: batch norm over a few values of a tiny frame
# turns 1e-7 into 1e-3 of a gradient, with one process as with two.
PROGRAM = """
from vfss_distill.commands.main import app
from vfss_distill.distill import loop, reader, run
reader.VIEWS, reader._STEPS = 12, 6
build_student, build_heads = run.build_student, loop.Heads
run.build_student = lambda shape: build_student(shape).double()
loop.Heads = lambda *words: build_heads(*words).double()
app()
"""

# On machines of two kinds the same teacher computes other last bits.
UNLIKE = """
import os
from dataclasses import replace
from vfss_distill.distill import preparation
recipe_of = preparation._recipe
preparation._recipe = lambda *words: replace(recipe_of(*words), fingerprint=os.environ["RANK"])
"""


@pytest.fixture
def lab(tmp_path: Path) -> Workspace:
    workspace = small_world(tmp_path)
    write_study(workspace, "pu", labelled={})
    write_splits(workspace, train=["pa", "pb", "pu"], val=["pd"], test=["pc", "pe"])
    write_tiny_weights(workspace.weights)
    (tmp_path / "double.py").write_text(PROGRAM)
    (tmp_path / "settings.yaml").write_text(
        yaml.safe_dump({**SETTINGS, "teachers": ["medsam", "raddino"]})
    )
    return workspace


def launch(lab: Workspace, processes: int, *words: str) -> subprocess.Popen[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1",
                "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port",
                str(port), "--num_processes", str(processes)]  # fmt: skip
    return subprocess.Popen(
        [sys.executable, *(launcher if processes > 1 else []), "double.py", "distill",
         "--no-export", *words],
        cwd=lab.root, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, out, err


def metrics(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "metrics.jsonl").read_text() if (folder / "metrics.jsonl").exists() else ""
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def same_training(one: Path, two: Path) -> None:
    for alone, shared in zip(metrics(one), metrics(two), strict=True):
        assert alone.keys() == shared.keys()
        for key in {"loss", "norm", "align", "alpha", "outputs", "task"} & alone.keys():
            assert shared[key] == pytest.approx(alone[key], rel=1e-5), (alone["step"], key)
    a, b = (load_file(folder / "student.safetensors") for folder in (one, two))
    assert a.keys() == b.keys()
    for name, weight in a.items():
        assert torch.allclose(weight, b[name], rtol=1e-5, atol=1e-7), name


def test_two_processes_train_what_one_trains(
    lab: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process begins; one goes on, and so do two."""
    build_student, build_heads = run.build_student, loop.Heads
    monkeypatch.setattr(run, "build_student", lambda shape: build_student(shape).double())
    monkeypatch.setattr(loop, "Heads", lambda *words: build_heads(*words).double())
    monkeypatch.setattr(reader, "VIEWS", 12)
    monkeypatch.setattr(reader, "_STEPS", 6)
    config = DistillConfig(**SETTINGS)

    def stop(done: int, total: int, words: str) -> None:
        if "loss" in words and done == 2:
            os.kill(os.getpid(), signal.SIGINT)

    folders = {"weights_folders": [lab.weights]}
    half = run.distill(lab, config, run_name="one", tick=stop, **folders)  # type: ignore[arg-type]
    assert half.interrupted
    one, two = lab.runs / "one", lab.runs / "two"
    shutil.copytree(one, two)
    run.distill(lab, config, resume=one, **folders)  # type: ignore[arg-type]
    for computed in (*lab.cache.rglob("*.safetensors"), two / "readings.safetensors"):
        computed.unlink()

    code, out, err = finish(launch(lab, 2, "--resume", "--name", "two"))
    assert code == 0, err
    same_training(one, two)
    # Only one of them writes and speaks.
    assert out.count("runs/two") == 1
    log = (two / "train.log").read_text()
    assert log.count("done after 8 steps") == 1
    assert "going on at step 2" in log
    assert "2 processes" in log
    assert sorted(path.name for path in lab.runs.iterdir()) == ["one", "two"]
    # The cache was filled by both.
    counts = []
    for folder in lab.cache.glob("*-*"):
        index = json.loads((folder / "index.json").read_text())
        assert set(index["shards_bytes"]) == {path.stem for path in folder.glob("*.safetensors")}
        counts.append(len(index["shards_bytes"]))
    assert sorted(counts) == [2, 2, 3, 3]  # by teacher: views of labelled frames, frames of all


@pytest.mark.slow
def test_two_processes_stop_together_and_go_on(lab: Workspace) -> None:
    one, two = lab.runs / "one", lab.runs / "two"
    begun = launch(lab, 2, "--config", "settings.yaml", "--name", "two")
    while begun.poll() is None and len(metrics(two)) < 3:
        time.sleep(0.02)
    os.killpg(begun.pid, signal.SIGINT)
    code, _, err = finish(begun)
    assert code != 0
    assert not (two / "student.safetensors").exists(), "it was to be stopped before its end"
    assert (two / "last.ckpt" / "state.json").exists(), err
    code, _, err = finish(launch(lab, 2, "--resume", "--name", "two"))
    assert code == 0, err
    code, _, err = finish(launch(lab, 1, "--config", "settings.yaml", "--name", "one"))
    assert code == 0, err
    same_training(one, two)


@pytest.mark.slow
def test_faults_are_told_and_leave_nothing(lab: Workspace) -> None:
    code, _, err = finish(launch(lab, 2, "--config", "settings.yaml", "--batch-size", "4"))
    assert code != 0
    told = " ".join(err.split())
    assert "2 processes, but align_share 0.25 of batch_size 4 gives them only 1 frame" in told
    assert not lab.runs.exists() and not lab.cache.exists()

    (lab.root / "double.py").write_text(UNLIKE + PROGRAM)
    code, _, err = finish(launch(lab, 2, "--config", "settings.yaml"))
    assert code != 0
    assert "the processes' weights, libraries or processors differ" in " ".join(err.split())
    assert not list(lab.cache.rglob("*.safetensors"))


@given(st.integers(0, 40), st.integers(1, 9))
@settings(max_examples=50, deadline=None)
def test_parts_are_the_whole(count: int, world: int) -> None:
    parts = [list(range(count))[Processes(rank, world).part(count)] for rank in range(world)]
    assert [row for part in parts for row in part] == list(range(count))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    if count < world:
        with pytest.raises(UsageError, match="fewer processes"):
            Processes(0, world).check_batch(count)
    else:
        assert min(sizes) > 0


def test_too_many_processes_for_a_batch_are_told_with_the_setting() -> None:
    config = DistillConfig(batch_size=16, align_share=0.25)
    check_parts(config, Processes(0, 4), aligned=True)
    check_parts(config, Processes(0, 16), aligned=False)
    with pytest.raises(UsageError, match=r"5 processes, but align_share 0\.25 of batch_size 16"):
        check_parts(config, Processes(0, 5), aligned=True)
    with pytest.raises(UsageError, match="17 processes, but batch_size gives them only 16 frames"):
        check_parts(config, Processes(0, 17), aligned=False)


def test_alone_nothing_is_added_or_changed() -> None:
    alone, sums = Processes(), torch.ones(3, requires_grad=True)
    assert alone.total(sums) is sums
    assert not alone.any(False)
    module = torch.nn.Sequential(torch.nn.BatchNorm2d(3))
    alone.share_statistics(module)
    assert type(module[0]) is torch.nn.BatchNorm2d
