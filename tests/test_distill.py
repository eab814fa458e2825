"""`vfss distill`: four words on a command line, and runs that go on as if never interrupted."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from conftest import Cli
from distill_lab import TINY, run, same, tiny_lab, weights
from tiny_studies import TASKS, write_splits, write_study
from tiny_teachers import dino_state
from vfss_distill import claims
from vfss_distill.distill.journal import read_metrics
from vfss_distill.distill.run import RunOutcome
from vfss_distill.distill.settings import find_unfinished
from vfss_distill.errors import ModelError, UsageError, WorkspaceError
from vfss_distill.workspace import Workspace
from watched import holder


@pytest.fixture(autouse=True)
def _same_threads() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def lab(tmp_path: Path) -> Workspace:
    return tiny_lab(tmp_path)


# ---- through the command line


def test_three_teachers_make_a_student(cli: Cli, lab: Workspace) -> None:
    done = cli("distill", "--teachers", "medsam,raddino,medclip", "--json", cwd=lab.root)
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["run"] == "run-001"
    assert told["steps"] == 8
    assert told["mean_val_dice"] < 0.3 and "run-001 hardly finds anything yet" in done.stderr
    assert set(told["val_dice"]) == set(TASKS)
    folder = lab.runs / "run-001"
    for name in [
        "config.yaml",
        "train.log",
        "curves.svg",
        "facts.json",
        "student.onnx",
        "last.ckpt",
    ]:
        assert (folder / name).exists(), name
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(8))
    assert all(set(line["alpha"]) == {"medsam", "raddino", "medclip"} for line in lines)
    assert all(sum(line["alpha"].values()) == pytest.approx(1, abs=1e-4) for line in lines)
    assert "task" not in lines[0]
    assert "task" in lines[-1]
    card = (folder / "MODEL_CARD.md").read_text()
    assert "simulated patients only" in card
    assert "Apache-2.0" in card
    assert not list(folder.rglob("*.pt")) + list(folder.rglob("*.pkl"))
    kept = set(weights(RunOutcome("", folder, None, {}, 0, 0, False)))
    assert not [name for name in kept if "projector" in name or "balance" in name]


def test_the_cache_alone_is_filled_for_a_run_to_come(
    cli: Cli, lab: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("distill", "--teachers", "raddino")
    done = cli(*words, "--cache-only", "--json", cwd=lab.root)
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["outputs"] == {"cache": "cache"}
    assert len(list(lab.cache.glob("raddino-*/*.safetensors"))) == 3
    assert not list(lab.runs.glob("*"))
    again = cli(*words, "--cache-only", cwd=lab.root)
    assert "features of 3 studies are cached" in " ".join(again.stderr.split())
    assert cli("distill", "--teachers", "none", "--cache-only", cwd=lab.root).exit_code == 2
    monkeypatch.setattr("vfss_distill.distill.run.fill_caches", lambda *_, **__: None)
    monkeypatch.setenv("RANK", "1")  # of several processes the first one speaks
    other = cli(*words, "--cache-only", "--json", cwd=lab.root)
    assert other.exit_code == 0 and other.stdout + other.stderr == ""


def test_teachers_must_be_named(cli: Cli, lab: Workspace) -> None:
    done = cli("distill", cwd=lab.root)
    assert done.exit_code == 2
    assert "--teachers" in done.stderr


def test_a_wrong_flag_is_a_usage_error_and_a_wrong_file_is_not(cli: Cli, lab: Workspace) -> None:
    words = ("distill", "--teachers", "none")
    assert cli(*words, "--balancing", "fair", cwd=lab.root).exit_code == 2
    (lab.root / "c.yaml").write_text("balancing: fair\ngridd: 3\n")
    done = cli(*words, "--config", "c.yaml", cwd=lab.root)
    assert done.exit_code == 4
    assert "balancing" in done.stderr
    assert "gridd" in done.stderr


def test_all_missing_weights_are_listed_with_their_source(cli: Cli, lab: Workspace) -> None:
    shutil.rmtree(lab.weights)
    done = cli("distill", "--teachers", "medsam,raddino", cwd=lab.root)
    assert done.exit_code == 5
    assert "medsam_vit_b.pth" in done.stderr
    assert done.stderr.count("https://") == 2
    assert not lab.runs.exists()


def test_weights_of_another_network(cli: Cli, lab: Workspace) -> None:
    torch.save(dino_state(), lab.weights / "medsam_vit_b.pth")
    done = cli("distill", "--teachers", "medsam", cwd=lab.root)
    assert done.exit_code == 5
    assert "medsam_vit_b.pth" in done.stderr
    assert not list(lab.runs.iterdir())


def test_nothing_to_train_on(cli: Cli, lab: Workspace, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    done = cli("distill", "--teachers", "none", cwd=empty)
    assert (done.exit_code, "vfss ingest" in done.stderr) == (4, True)

    write_splits(lab, val=["pa", "pb"], test=["pc", "pd", "pe"])
    done = cli("distill", "--teachers", "none", cwd=lab.root)
    assert (done.exit_code, "training patient" in done.stderr) == (4, True)

    write_study(lab, "pu", labelled={})
    write_splits(lab, train=["pu"], test=["pa", "pb", "pc", "pd", "pe"])
    done = cli("distill", "--teachers", "none", cwd=lab.root)
    assert (done.exit_code, "labels" in done.stderr) == (4, True)


def test_a_task_without_labels_is_said_and_recorded(cli: Cli, lab: Workspace) -> None:
    for patient in ("pa", "pb", "pc"):
        shutil.rmtree(next(lab.studies.glob(f"{patient}-*")))
        write_study(lab, patient, labelled={"bolus": range(6), "c3": (1, 2)})
    done = cli("distill", "--teachers", "none", "--no-export", cwd=lab.root)
    assert done.exit_code == 0, done.stderr
    assert "no training labels for hyoid" in done.stderr
    assert "hyoid: labelled in validation patients only" in done.stderr
    assert "Not trained: hyoid" in (lab.runs / "run-001" / "MODEL_CARD.md").read_text()
    assert untrained(lab, "run-001") == ["hyoid"]


def untrained(lab: Workspace, name: str) -> list[str]:
    facts = json.loads((lab.runs / name / "facts.json").read_text())
    return list(facts["untrained_tasks"])


def test_a_task_without_weight_counts_as_not_trained(lab: Workspace) -> None:
    said: list[str] = []
    done = run(lab, task_weights={"c3": 0}, say=said.append)
    assert any("task_weights is 0 for c3" in line for line in said)
    assert untrained(lab, done.folder.name) == ["c3"]
    assert set(done.val_dice) == {"bolus", "hyoid"}
    assert "| c3 | 18 | not measured |" in (done.folder / "MODEL_CARD.md").read_text()


def test_alignment_alone_trains_no_task(lab: Workspace) -> None:
    done = run(lab, teachers=("medsam",), task_steps=0)
    assert untrained(lab, done.folder.name) == list(TASKS)
    card = (done.folder / "MODEL_CARD.md").read_text()
    assert "No step had masks" in card and "No validation labels" not in card


@pytest.mark.parametrize(
    "asked",
    [
        signal.SIGINT,
        pytest.param(
            getattr(signal, "SIGHUP", None),  # a terminal that closes
            marks=pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="none on this system"),
        ),
    ],
)
def test_ctrl_c_leaves_a_checkpoint_and_resume_goes_on(
    asked: signal.Signals, cli: Cli, lab: Workspace
) -> None:
    metrics = lab.runs / "run-001" / "metrics.jsonl"

    def interrupt() -> None:
        for _ in range(3000):
            if metrics.exists() and len(metrics.read_text().splitlines()) >= 2:
                os.kill(os.getpid(), asked)
                return
            time.sleep(0.01)

    threading.Thread(target=interrupt, daemon=True).start()
    words = ("distill", "--teachers", "none", "--task-steps", "40", "--no-export")
    stopped = cli(*words, cwd=lab.root)
    assert stopped.exit_code == 130, stopped.stderr
    assert "vfss distill --resume" in stopped.stderr
    assert (lab.runs / "run-001" / "last.ckpt" / "state.json").exists()
    assert not (lab.runs / "run-001" / "student.safetensors").exists()

    other = cli("distill", "--resume", "--lr", "0.5", "--batch-size", "2", cwd=lab.root)
    assert other.exit_code == 2
    assert "learning_rate" in other.stderr
    assert "batch_size: 4 → 2" in other.stderr

    done = cli("distill", "--resume", "--no-export", cwd=lab.root)
    assert done.exit_code == 0, done.stderr
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert steps == list(range(40))
    again = cli("distill", "--resume", cwd=lab.root)
    assert again.exit_code == 4 and "run-001 is trained" in again.stderr
    assert "`vfss export run-001`" in again.stderr


# ---- runs that are being trained


def unfinished(lab: Workspace) -> None:
    """Two runs without a student; run-002 is the newer one."""
    for number in (1, 2):
        folder = lab.runs / f"run-00{number}"
        folder.mkdir(parents=True)
        settings = {**TINY, "teachers": [], "align_steps": 0}
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))
        os.utime(folder / "config.yaml", (10**9 + number, 10**9 + number))


@pytest.mark.skipif(claims.fcntl is None, reason="no locks on this system")
def test_a_run_that_another_process_trains_is_not_resumed(cli: Cli, lab: Workspace) -> None:
    unfinished(lab)
    alive = holder(lab.distill_lock, "run-002")
    assert find_unfinished(lab, None).name == "run-001"
    assert find_unfinished(lab, None, trained_too=True).name == "run-002"
    words = ("distill", "--resume", "--name", "run-002")
    named = cli(*words, cwd=lab.root)
    assert named.exit_code == 4
    assert "runs/run-002: is being trained by another process" in " ".join(named.stderr.split())
    with pytest.raises(WorkspaceError, match="being trained"):  # begun since it was looked for
        run(lab, resume=lab.runs / "run-002")
    assert [path.name for path in (lab.runs / "run-002").iterdir()] == ["config.yaml"]
    other = holder(lab.distill_lock, "run-001")
    with pytest.raises(WorkspaceError, match=r"run-002: is being trained"):
        find_unfinished(lab, None)
    for process in (alive, other):
        process.kill()  # what it held is free, however it ended
        process.communicate()
    assert find_unfinished(lab, None).name == "run-002"


@pytest.mark.skipif(claims.fcntl is None, reason="no locks on this system")
def test_a_run_is_held_from_its_first_to_its_last_step(lab: Workspace) -> None:
    seen: set[str] = set()

    def look(done: int, total: int, words: str) -> None:
        if "loss" in words and done in (1, total):
            code = "import sys; from pathlib import Path; from vfss_distill.claims import *; "
            code += "print(is_trained(Workspace(Path(sys.argv[1])), 'run-001'))"
            asked = [sys.executable, "-c", code, str(lab.root)]
            seen.add(subprocess.run(asked, check=True, capture_output=True, text=True).stdout)

    run(lab, tick=look)
    assert seen == {"True\n"}
    assert not claims.is_trained(lab, "run-001")
    assert [path.name for path in lab.runs.iterdir()] == ["run-001"]


@pytest.mark.skipif(claims.fcntl is None, reason="no locks on this system")
def test_processes_that_look_at_once_see_the_same_run(
    lab: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of those that a launcher starts holds a run for a moment, to see whether it is free."""
    unfinished(lab)
    beside = holder(lab.distill_lock, "run-002")
    monkeypatch.setattr(claims.time, "sleep", lambda _: beside.communicate(""))
    assert find_unfinished(lab, None).name == "run-002"


def test_a_disk_without_locks_resumes_the_newest(
    lab: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    if claims.fcntl is not None:
        monkeypatch.setattr(claims.fcntl, "lockf", none)
    unfinished(lab)
    assert find_unfinished(lab, None).name == "run-002"


def test_nothing_written_names_a_place(cli: Cli, lab: Workspace) -> None:
    assert cli("distill", "--teachers", "medsam", cwd=lab.root).exit_code == 0
    written = [path for where in (lab.runs, lab.cache) for path in where.rglob("*.*")]
    files = {path.name: path.read_bytes() for path in written if path.is_file()}
    assert {"train.log", "student.onnx", "pa-0000d1.safetensors"} <= files.keys()
    assert not [name for name, data in files.items() if str(lab.root).encode() in data]


# ---- resuming, bit for bit


@pytest.mark.parametrize(
    "changes",
    [
        {"balancing": "attention"},
        {"balancing": "mlp", "align_steps": 0, "task_steps": 8},
        {"context": 1},  # these two have weights that lie channels last
        {"student": "base"},
    ],
    ids=["alignment first", "all at once", "neighbours", "base"],
)
def test_resumed_equals_uninterrupted(lab: Workspace, changes: dict[str, Any]) -> None:
    plan: dict[str, Any] = {"teachers": ("medsam", "raddino"), **changes}
    whole = run(lab, **plan)
    lines = read_metrics(whole.folder / "metrics.jsonl")
    assert ["task" in line for line in lines] == [n >= plan.get("align_steps", 3) for n in range(8)]
    assert all("align" in line for line in lines)

    def stop_at(*steps: int) -> Any:
        def tick(done: int, total: int, words: str) -> None:
            if "loss" in words and done in steps:
                os.kill(os.getpid(), signal.SIGINT if done == 2 else signal.SIGTERM)

        return tick

    first = run(lab, **plan, tick=stop_at(2))
    assert first.interrupted
    assert first.steps == 2
    again = {**plan, "resume": first.folder}
    assert run(lab, **again, tick=stop_at(5)).steps == 5
    last = run(lab, **again)
    assert not last.interrupted
    assert same(whole, last)
    assert whole.val_dice == last.val_dice


def test_killed_between_checkpoints(lab: Workspace) -> None:
    class Killed(BaseException):
        pass

    def tick(done: int, total: int, words: str) -> None:
        if "loss" in words and done == 4:
            raise Killed

    whole = run(lab, teachers=("medsam",))
    with pytest.raises(Killed):
        run(lab, teachers=("medsam",), tick=tick, run_name="dead")
    state = json.loads((lab.runs / "dead" / "last.ckpt" / "state.json").read_text())
    assert state["step"] == 2
    assert same(whole, run(lab, teachers=("medsam",), resume=lab.runs / "dead"))


def test_same_seed_same_weights_other_seed_other_weights(lab: Workspace) -> None:
    one, two = run(lab, seed=5), run(lab, seed=5)
    assert same(one, two)
    assert not same(one, run(lab, seed=6))


def test_resume_refuses_other_settings_and_other_data(lab: Workspace) -> None:
    def stop(done: int, total: int, words: str) -> None:
        if "loss" in words:
            os.kill(os.getpid(), signal.SIGINT)

    half = run(lab, tick=stop)
    with pytest.raises(UsageError, match="image_size: 64 → 96"):
        run(lab, resume=half.folder, image_size=96)
    write_splits(lab, train=["pa", "pb"], val=["pd"], test=["pc", "pe"])
    with pytest.raises(ModelError, match="studies, labels or splits changed"):
        run(lab, resume=half.folder)
