"""`vfss distill`: four words on a command line, and what must hold inside."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any
from unittest.mock import DEFAULT, patch

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from conftest import Cli
from tiny_studies import TASKS, small_world, write_splits, write_study
from tiny_teachers import dino_state, write_tiny_weights
from vfss_distill.config import DistillConfig
from vfss_distill.distill import balance, losses, standardise
from vfss_distill.distill import run as runs
from vfss_distill.distill.augment import geometric, photometric
from vfss_distill.distill.data import Frames, LabelledFrames, Order, labelled_keys, unpack
from vfss_distill.distill.journal import Metrics, draw_curves, read_metrics
from vfss_distill.distill.packing import checksum
from vfss_distill.distill.processes import Processes
from vfss_distill.distill.run import RunOutcome, distill
from vfss_distill.errors import ModelError, StorageError, UsageError
from vfss_distill.intake.study import list_studies
from vfss_distill.workspace import Workspace

WRITTEN = ("config.yaml", "train.log", "curves.svg", "facts.json", "student.onnx", "last.ckpt")
TINY: dict[str, Any] = {
    "task_set": "three.yaml",
    "student": "nano",
    "image_size": 64,
    "grid": 8,
    "batch_size": 4,
    "align_steps": 3,
    "task_steps": 5,
    "warmup_steps": 2,
    "validate_every": 2,
    "checkpoint_every": 2,
    "learning_rate": 3e-3,
    "threads": 1,
    "device": "cpu",
}


@pytest.fixture(autouse=True)
def _same_threads() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def lab(tmp_path: Path) -> Workspace:
    """Five tiny patients, labelled, and tiny weights of the three teachers."""
    workspace = small_world(tmp_path)
    write_tiny_weights(workspace.weights)
    lab = {"task_set": "three.yaml", "distill": {k: v for k, v in TINY.items() if k != "task_set"}}
    (tmp_path / "vfss.yaml").write_text(yaml.safe_dump(lab))
    return workspace


def run(workspace: Workspace, *, teachers: tuple[str, ...] = (), **changes: Any) -> RunOutcome:
    arguments = {
        key: changes.pop(key) for key in ("run_name", "resume", "tick", "say") & changes.keys()
    }
    if not teachers:
        changes = {"align_steps": 0, **changes}
    config = DistillConfig(**{**TINY, "teachers": teachers, **changes})
    # Pictures take longer than training here; the command line draws them, and test_pictures.
    with patch.multiple(runs, draw_curves=DEFAULT, draw_features=DEFAULT):
        return distill(workspace, config, weights_folders=[workspace.weights], **arguments)


def weights(outcome: RunOutcome) -> dict[str, torch.Tensor]:
    return load_file(outcome.folder / "student.safetensors")


def same(a: RunOutcome, b: RunOutcome) -> bool:
    x, y = weights(a), weights(b)
    return x.keys() == y.keys() and all(torch.equal(x[name], y[name]) for name in x)


# ---- through the command line


def test_three_teachers_make_a_student(cli: Cli, lab: Workspace) -> None:
    done = cli("distill", "--teachers", "medsam,raddino,medclip", "--json", cwd=lab.root)
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["run"] == "run-001"
    assert told["steps"] == 8
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


def test_the_cache_alone_is_filled_for_a_run_to_come(cli: Cli, lab: Workspace) -> None:
    words = ("distill", "--teachers", "raddino")
    done = cli(*words, "--cache-only", "--json", cwd=lab.root)
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["outputs"] == {"cache": "cache"}
    assert len(list(lab.cache.glob("raddino-*/*.safetensors"))) == 3
    assert not list(lab.runs.glob("*"))
    again = cli(*words, "--cache-only", cwd=lab.root)
    assert "features of 3 studies are cached" in " ".join(again.stderr.split())
    assert cli("distill", "--teachers", "none", "--cache-only", cwd=lab.root).exit_code == 2


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
    assert "No labels for: hyoid" in (lab.runs / "run-001" / "MODEL_CARD.md").read_text()
    assert json.loads((lab.runs / "run-001" / "facts.json").read_text())["untrained_tasks"] == [
        "hyoid"
    ]


def test_ctrl_c_leaves_a_checkpoint_and_resume_goes_on(cli: Cli, lab: Workspace) -> None:
    metrics = lab.runs / "run-001" / "metrics.jsonl"

    def interrupt() -> None:
        for _ in range(3000):
            if metrics.exists() and len(metrics.read_text().splitlines()) >= 2:
                os.kill(os.getpid(), signal.SIGINT)
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
    assert cli("distill", "--resume", cwd=lab.root).exit_code == 4


def test_nothing_written_names_a_place(cli: Cli, lab: Workspace) -> None:
    cli("distill", "--teachers", "medsam", "--no-export", cwd=lab.root)
    for path in (*lab.runs.rglob("*"), *lab.cache.rglob("*")):
        if path.is_file():
            assert str(lab.root).encode() not in path.read_bytes(), path.name


# ---- resuming, bit for bit


@pytest.mark.parametrize(
    "changes",
    [{"balancing": "attention"}, {"balancing": "mlp", "align_steps": 0, "task_steps": 8}],
    ids=["alignment first", "all at once"],
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


# ---- the cache


def test_cache_is_reused_and_damaged_shards_are_recomputed(lab: Workspace) -> None:
    said: list[str] = []
    run(lab, teachers=("raddino",), say=said.append)
    assert any("18 frames of 3 studies to compute" in line for line in said)
    (folder,) = lab.cache.glob("raddino-*")
    shards = sorted(folder.glob("*.safetensors"))
    times = {path: path.stat().st_mtime_ns for path in shards}
    features = load_file(shards[0])["features"].clone()  # the file itself will be damaged
    assert features.dtype == torch.float16
    assert features.shape == (6, 64, 8, 8)
    assert json.loads((folder / "index.json").read_text())["teacher"] == "raddino"

    shards[0].write_bytes(shards[0].read_bytes()[:-100])
    save_file(load_file(shards[1]), shards[1], metadata={"recipe": "of other weights"})
    said.clear()
    run(lab, teachers=("raddino",), say=said.append)
    text = "\n".join(said)
    assert f"{shards[0].stem} are damaged" in text
    assert f"{shards[1].stem} are of other weights" in text
    assert "12 frames of 2 studies to compute" in text
    assert shards[2].stat().st_mtime_ns == times[shards[2]]
    assert torch.equal(load_file(shards[0])["features"], features)


def test_other_weights_have_another_cache(lab: Workspace) -> None:
    run(lab, teachers=("raddino",))
    save_file(dino_state(seed=9), lab.weights / "rad-dino" / "model.safetensors")
    run(lab, teachers=("raddino",))
    assert len(list(lab.cache.glob("raddino-*"))) == 2


def test_a_disk_too_small_is_said_before_the_first_frame(
    lab: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vfss_distill.distill.cache.free_bytes", lambda _: 1000)
    with pytest.raises(Exception, match="unlabelled_every") as caught:
        run(lab, teachers=("raddino",))
    assert getattr(caught.value, "exit_code", None) == 6
    assert not list(lab.cache.glob("raddino-*"))


def test_features_that_are_no_numbers_name_study_and_frame(
    lab: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vfss_distill.models.teachers.base import Teacher

    honest = Teacher.features
    calls = []

    def broken(self: Teacher, frames: torch.Tensor) -> torch.Tensor:
        maps = honest(self, frames)
        calls.append(len(frames))
        if len(calls) == 4:  # fingerprint; pa 0-3, 4-5; pb 0-3
            maps[2] = float("nan")
        return maps

    monkeypatch.setattr(Teacher, "features", broken)
    with pytest.raises(ModelError, match=r"study pb-\w+, frame 2"):
        run(lab, teachers=("medsam",))


def test_a_loss_that_is_no_number_keeps_the_last_checkpoint(
    lab: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vfss_distill.distill import loop

    honest, calls = losses.task_loss, []

    def broken(*arguments: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return honest(*arguments) * (float("nan") if len(calls) == 4 else 1)

    monkeypatch.setattr(loop, "task_loss", broken)
    with pytest.raises(ModelError, match=r"step 3 \(study p\w-\w+, frame \d"):
        run(lab, run_name="nan")
    state = json.loads((lab.runs / "nan" / "last.ckpt" / "state.json").read_text())
    assert state["step"] == 2


def fill_disk_at(monkeypatch: pytest.MonkeyPatch, part: str, count: int) -> None:
    """The `count`-th write to a file with `part` in its name finds the disk full, half way."""
    real, seen = Path.write_bytes, []

    def write(self: Path, data: bytes) -> int:
        seen.extend([self] if part in self.name else [])
        if part in self.name and len(seen) == count:
            real(self, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return real(self, data)

    monkeypatch.setattr(Path, "write_bytes", write)


def test_a_full_disk_loses_nothing(lab: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        fill_disk_at(patch, "pb-", 1)
        with pytest.raises(StorageError, match="disk is full"):
            run(lab, teachers=("raddino",))
    assert not list(lab.runs.iterdir())
    (folder,) = lab.cache.glob("raddino-*")
    assert sorted(path.name[:2] for path in folder.iterdir()) == ["cl", "in", "pa"]

    said: list[str] = []
    whole = run(lab, teachers=("raddino",), run_name="whole", say=said.append)
    assert any("12 frames of 2 studies to compute" in line for line in said)
    with monkeypatch.context() as patch:
        fill_disk_at(patch, "heads.safetensors", 2)
        with pytest.raises(StorageError, match="disk is full"):
            run(lab, teachers=("raddino",), run_name="full")
    full = lab.runs / "full"
    assert json.loads((full / "last.ckpt" / "state.json").read_text())["step"] == 2
    assert not [path for path in full.iterdir() if path.name.startswith(".partial")]
    # Its settings were written before some of today's existed.
    stored = yaml.safe_load((full / "config.yaml").read_text())
    for newer in ("mask_weight", "affinity_weight", "anchors", "drop_probability"):
        del stored[newer]
    (full / "config.yaml").write_text(yaml.safe_dump(stored))
    assert same(whole, run(lab, teachers=("raddino",), resume=full))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_under_the_metrics(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with pytest.raises(StorageError, match="disk is full"), Metrics(path, 0) as metrics:
        metrics.stream = Path("/dev/full").open("w", buffering=1)  # noqa: SIM115
        metrics.write({"step": 0})
    path.write_text('{"step": 0}\n{"step": 1, "align": {"medsam": 0.5}')  # cut off in a line
    assert [line["step"] for line in read_metrics(path)] == [0]


def test_cached_features_that_are_no_numbers_name_study_and_frame(lab: Workspace) -> None:
    run(lab, teachers=("raddino",))
    shard = next(lab.cache.glob("raddino-*/pb-*.safetensors"))
    with safe_open(shard, framework="pt") as file:
        header = dict(file.metadata())
    tensors = {name: tensor.clone() for name, tensor in load_file(shard).items()}
    tensors["features"][3, 0, 0, 0] = float("nan")
    save_file(tensors, shard, metadata={**header, "sha256": checksum(tensors)})
    with pytest.raises(ModelError, match=rf"raddino .* study {shard.stem}, frame 3") as caught:
        run(lab, teachers=("raddino",))
    assert "vfss cache prune --teacher raddino" in str(caught.value)


def test_teacher_weights_that_match_in_part_are_refused(cli: Cli, lab: Workspace) -> None:
    whole = dino_state()
    for spoil in ("encoder.layer.1.norm1.weight", "layernorm.bias"):
        part = {name: tensor for name, tensor in whole.items() if name != spoil}
        save_file(part, lab.weights / "rad-dino" / "model.safetensors")
        done = cli("distill", "--teachers", "raddino", cwd=lab.root)
        assert done.exit_code == 5
        assert "1 missing" in done.stderr
    assert not list(lab.runs.iterdir())


# ---- losses


def test_task_loss_sees_only_what_is_labelled() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 8, 8, generator=generator, requires_grad=True)
    masks = (torch.rand(3, 4, 8, 8, generator=generator) > 0.6).float()
    labelled = torch.tensor([[1, 0, 1, 0], [0, 0, 1, 0], [1, 1, 0, 0]], dtype=torch.bool)
    loss = losses.task_loss(logits, masks, labelled)
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad.abs().sum((2, 3)) > 0).equal(labelled)
    wrong = torch.where(labelled[:, :, None, None], masks, 1 - masks)
    assert torch.equal(losses.task_loss(logits, wrong, labelled), loss)
    nothing = losses.task_loss(logits, masks, torch.zeros_like(labelled))
    assert nothing.item() == 0


def test_task_loss_agrees_with_monai() -> None:
    from monai.losses import DiceLoss

    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 4, 16, 16, generator=generator)
    masks = (torch.rand(3, 4, 16, 16, generator=generator) > 0.7).float()
    dice = DiceLoss(sigmoid=True, squared_pred=True, batch=True, smooth_nr=0, smooth_dr=0)
    bce = torch.nn.BCEWithLogitsLoss()
    known = torch.ones(3, 4, dtype=torch.bool)
    ours = losses.task_loss(logits, masks, known, presence_weight=0)
    assert ours.item() == pytest.approx((dice(logits, masks) + bce(logits, masks)).item(), abs=1e-5)


def test_a_small_false_mask_costs_presence_as_much_as_a_large_one() -> None:
    empty = torch.zeros(1, 1, 32, 32)
    known = torch.ones(1, 1, dtype=torch.bool)
    small, large, none = (torch.full_like(empty, -6.0) for _ in range(3))
    small[..., 8:12, 8:12], large[..., 8:24, 8:24] = 3.0, 3.0
    costs = [
        losses.task_loss(x, empty, known).item()
        - losses.task_loss(x, empty, known, presence_weight=0).item()
        for x in (small, large, none)
    ]
    assert costs[0] == pytest.approx(costs[1], rel=1e-3)
    assert costs[0] > 100 * costs[2]


def test_dice_of_empty_truth() -> None:
    empty, full = torch.zeros(1, 1, 4, 4, dtype=torch.bool), torch.ones(1, 1, 4, 4).bool()
    assert torch.isnan(losses.dice_scores(empty, empty)).all()
    assert losses.dice_scores(full, empty).item() == 0
    assert losses.dice_scores(full, full).item() == 1


def test_feature_loss_is_zero_for_equal_features() -> None:
    maps = torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    assert losses.feature_loss(maps, maps).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert losses.feature_loss(maps, -maps).min() > 1


# ---- balancing


def settle(rule: type[balance.Balance], floor: float) -> torch.Tensor:
    """Weights after training on losses of which one is the easiest."""
    torch.manual_seed(0)
    weigher = rule(3, floor)
    optimiser = torch.optim.Adam(weigher.parameters(), lr=0.05)
    levels = torch.tensor([0.9, 0.2, 0.6])
    for _ in range(400):
        optimiser.zero_grad()
        (weigher(levels) * levels).sum().backward()
        optimiser.step()
    return weigher(levels).detach()


@pytest.mark.parametrize("rule", [balance.MlpBalance, balance.AttentionBalance])
def test_without_a_floor_all_weight_goes_to_the_easiest(rule: type[balance.Balance]) -> None:
    collapsed = settle(rule, floor=0.0)
    assert collapsed.argmax() == 1
    assert collapsed.max() > 0.99
    held = settle(rule, floor=0.7)
    assert balance.entropy(held) >= 0.7 * np.log(3) - 1e-5
    assert held.min() > 0.05
    assert held.sum().item() == pytest.approx(1)


@given(st.integers(2, 5), st.integers(1, 9), st.floats(0, 0.99), st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_dropping_keeps_the_worst_matched_of_each_frame(
    teachers: int, frames: int, probability: float, seed: int
) -> None:
    rule = balance.DropBalance(teachers, probability)
    matched = torch.rand(teachers, frames, generator=torch.Generator().manual_seed(seed))
    torch.manual_seed(seed)
    alpha = rule.weigh(matched, frames)
    assert alpha.sum(0).tolist() == pytest.approx([1] * frames)
    assert (alpha.gather(0, matched.argmax(0, keepdim=True)) > 0).all()
    shares = [alpha[:, frame][alpha[:, frame] > 0] for frame in range(frames)]
    assert all(torch.equal(share, share[:1].expand_as(share)) for share in shares)
    # Of several processes, each sees its columns of the same draw.
    parts = []
    for rank in range(min(2, frames)):
        some = Processes(rank, min(2, frames))
        torch.manual_seed(seed)
        parts.append(rule.weigh(matched[:, some.part(frames)], frames, some))
    assert torch.equal(torch.cat(parts, dim=1), alpha)


def test_dropping_drops_as_often_as_asked() -> None:
    torch.manual_seed(0)
    matched = torch.tensor([[0.9], [0.2], [0.6]]).expand(3, 4000)
    kept = (balance.DropBalance(3, 0.3).weigh(matched, 4000) > 0).float().mean(1)
    assert kept.tolist() == pytest.approx([1, 0.7, 0.7], abs=0.03)
    assert (balance.DropBalance(3, 0.0).weigh(matched, 4000) == 1 / 3).all()


def test_a_run_with_dropping_logs_its_weights(lab: Workspace) -> None:
    done = run(lab, teachers=("medsam", "raddino"), balancing="drop", drop_probability=0.8)
    text = (done.folder / "metrics.jsonl").read_text()
    alphas = [json.loads(line)["alpha"] for line in text.splitlines()]
    assert all(sum(alpha.values()) == pytest.approx(1, abs=1e-4) for alpha in alphas)
    assert any(abs(alpha["medsam"] - 0.5) > 0.2 for alpha in alphas)
    draw_curves(done.folder / "metrics.jsonl", done.folder / "curves.svg")
    curves = (done.folder / "curves.svg").read_text()
    assert "weight α of each teacher" in curves
    assert same(done, run(lab, teachers=("medsam", "raddino"), balancing="drop",
                          drop_probability=0.8))  # fmt: skip


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=5), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_entropy_floor_always_holds(logits: list[float], floor: float) -> None:
    alpha = balance.hold_entropy(torch.softmax(torch.tensor(logits).double(), 0), floor)
    assert balance.entropy(alpha) >= floor * np.log(len(logits)) - 1e-6
    assert alpha.sum().item() == pytest.approx(1)


# ---- standardisation


@pytest.mark.parametrize("channels", [5, 12, 16, 64, 96, 100])
def test_phi_s_gives_every_channel_the_same_variance(channels: int) -> None:
    rng = np.random.default_rng(channels)
    mixed = rng.normal(size=(channels, channels)) * rng.exponential(size=channels)
    tokens = (rng.normal(size=(4000, channels)) @ mixed + 3).astype(np.float32)
    made = standardise.fit("phi-s", [tokens[:1000], tokens[1000:]], teacher="t")
    out = made(tokens)
    assert out.mean(0) == pytest.approx(np.zeros(channels), abs=1e-3)
    assert out.std(0) == pytest.approx(np.ones(channels), abs=1e-3)
    assert made.invert(out) == pytest.approx(tokens, abs=1e-2)
    # A rotation and one scale: distances keep their proportions.
    far = np.linalg.norm(out[1:50] - out[0], axis=1) / np.linalg.norm(
        tokens[1:50] - tokens[0], axis=1
    )
    assert far == pytest.approx(np.full(49, far[0]), rel=1e-3)


def test_meanstd_and_none() -> None:
    tokens = np.random.default_rng(0).normal(2, [1, 5, 9], (500, 3)).astype(np.float32)
    assert standardise.fit("meanstd", [tokens], teacher="t")(tokens).std(0) == pytest.approx(1)
    assert np.array_equal(standardise.fit("none", [tokens], teacher="t")(tokens), tokens)
    with pytest.raises(ModelError, match="same for every frame"):
        standardise.fit("phi-s", [np.ones((10, 4), np.float32)], teacher="t")


def test_statistics_come_from_training_patients_only(lab: Workspace) -> None:
    run(lab, teachers=("medsam",), run_name="a")
    shutil.rmtree(next(lab.studies.glob("pe-*")))
    write_study(lab, "px")
    write_splits(lab, train=["pa", "pb", "pc"], val=["pd"], test=["px"])
    run(lab, teachers=("medsam",), run_name="b")
    one, two = (load_file(lab.runs / name / "standardise.safetensors") for name in "ab")
    assert all(torch.equal(one[key], two[key]) for key in one)


# ---- data and augmentation


def test_batches_from_memory_and_from_disk_are_the_same(lab: Workspace) -> None:
    studies = list_studies(lab)
    keys = labelled_keys(studies, TASKS)
    made = []
    for budget in (1 << 30, 0):
        frames = Frames(studies, keys, size=64, context=1, budget_bytes=budget)
        made.append(LabelledFrames(frames, keys, TASKS, budget_bytes=budget).batch([0, 5, 7]))
    assert torch.equal(made[0].frames, made[1].frames)
    assert torch.equal(made[0].planes, made[1].planes)
    assert made[0].frames.shape == (3, 3, 64, 64)
    # The first frame has no predecessor and stands in for it.
    assert torch.equal(made[0].frames[0, 0], made[0].frames[0, 1])


def test_photometric_keeps_geometry_and_geometric_moves_masks_along(lab: Workspace) -> None:
    frames = torch.full((8, 1, 64, 64), 40, dtype=torch.uint8)
    frames[:, :, 20:40, 24:44] = 200
    planes = (frames > 100).float()
    generator = torch.Generator().manual_seed(0)
    bent, moved = geometric(frames.float(), planes, generator, 0.0)
    inside = moved > 0.5
    assert not torch.equal(moved, planes)
    assert (bent[inside] > 100).float().mean() > 0.95
    assert set(moved.unique().tolist()) <= {0.0, 1.0}
    seen = photometric(frames, generator)
    assert seen.min() >= 0
    assert seen.max() <= 255
    step = (seen[..., 30, 26:42].mean(-1) - seen[..., 30, 2:20].mean(-1)).abs()
    assert (step > 20).float().mean() > 0.8  # the square is where it was


def test_bits_of_many_tasks_survive() -> None:
    tasks = 37
    masks = torch.rand(2, tasks, 6, 6, generator=torch.Generator().manual_seed(0)) > 0.5
    planes = torch.zeros(2, 3, 6, 6)
    for task in range(tasks):
        planes[:, task // 16] += masks[:, task] * float(1 << (task % 16))
    assert torch.equal(unpack(planes, tasks) > 0.5, masks)


@given(st.integers(1, 20), st.integers(1, 7), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_order_visits_every_row_once_a_pass(rows: int, size: int, seed: int) -> None:
    order = Order(rows, seed, 1)
    seen = [row for step in range(rows) for row in order.batch(step, size)]
    for number in range(size):
        assert sorted(seen[number * rows : (number + 1) * rows]) == list(range(rows))
    assert Order(rows, seed, 1).batch(3, size) == order.batch(3, size)
