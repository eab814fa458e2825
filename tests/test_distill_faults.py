"""`vfss distill` on full disks, damaged caches and numbers that are none: nothing is lost."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from conftest import Cli
from distill_lab import run, same, tiny_lab
from tiny_teachers import dino_state
from vfss_distill.distill import losses
from vfss_distill.distill.journal import Metrics, read_metrics
from vfss_distill.distill.packing import checksum
from vfss_distill.distill.settings import find_unfinished, resolve_config
from vfss_distill.errors import (
    ConfigError,
    ModelError,
    StorageError,
    UsageError,
    VfssError,
    WorkspaceError,
)
from vfss_distill.intake.study import Study, write_record
from vfss_distill.models.teachers.card import PACKAGED_CARDS
from vfss_distill.workspace import Workspace


@pytest.fixture(autouse=True)
def _same_threads() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def lab(tmp_path: Path) -> Workspace:
    return tiny_lab(tmp_path)


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


@pytest.mark.parametrize(
    "settings", [{"student": "no_such_net"}, {"init": "vfss12-small", "student": "nano"}]
)
def test_a_student_that_cannot_be_is_said_before_the_first_feature(
    lab: Workspace, settings: dict[str, str]
) -> None:
    with pytest.raises(VfssError, match=r"no_such_net|not nano"):
        run(lab, teachers=("raddino",), **settings)
    assert not list(lab.cache.glob("raddino-*"))
    assert not list(lab.runs.glob("*"))


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

    def broken(*arguments: torch.Tensor, **options: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return honest(*arguments, **options) * (float("nan") if len(calls) == 4 else 1)

    monkeypatch.setattr(loop, "task_loss", broken)
    with pytest.raises(ModelError, match=r"step 3 \(study p\w-\w+, frame \d.*is kept.*new run"):
        run(lab, run_name="nan")
    state = json.loads((lab.runs / "nan" / "last.ckpt" / "state.json").read_text())
    assert state["step"] == 2
    calls.clear()
    with pytest.raises(ModelError) as said:
        run(lab, run_name="early", checkpoint_every=100)
    assert "is kept" not in str(said.value)


def test_a_crash_before_the_first_checkpoint_leaves_no_run_to_resume(
    lab: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vfss_distill.distill import loop

    monkeypatch.setattr(loop, "task_loss", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(lab, run_name="crashed")
    assert not (lab.runs / "crashed").exists()


def stop_at_two(done: int, total: int, words: str) -> None:
    """A `tick` that asks a training to end after its second step."""
    if "loss" in words and done == 2:
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("what", ["masks", "frames"])
def test_masks_or_frames_corrected_meanwhile_are_another_training(
    lab: Workspace, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told before hours of teachers' features."""

    first = run(lab, tick=stop_at_two)
    assert first.interrupted
    folder = lab.studies / "pa-0000d1"
    if what == "masks":
        mask = next((folder / "masks").rglob("000002.png"))
        mask.write_bytes(mask.with_name("000003.png").read_bytes())
    else:
        write_record(folder, replace(Study.open(folder).record, interlaced="kept"))
    features = Mock(side_effect=AssertionError("features before the refusal"))
    monkeypatch.setattr("vfss_distill.distill.run.prepare", features)
    with pytest.raises(ModelError, match="labels or splits changed"):
        run(lab, resume=first.folder)


def test_other_weights_meanwhile_are_another_training(
    lab: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told before their features are computed; with the former ones it goes on."""

    first = run(lab, teachers=("raddino",), tick=stop_at_two)
    assert first.interrupted
    before = lab.weights / "rad-dino" / "model.safetensors"
    kept = before.read_bytes()
    tensors = load_file(before)
    name = next(name for name, one in tensors.items() if one.is_floating_point())
    save_file({**tensors, name: tensors[name] + 1}, before)
    with monkeypatch.context() as patched:
        features = Mock(side_effect=AssertionError("features before the refusal"))
        patched.setattr("vfss_distill.distill.run.prepare", features)
        with pytest.raises(ModelError, match="the teachers' weights changed since"):
            run(lab, teachers=("raddino",), resume=first.folder)
    before.write_bytes(kept)
    assert not run(lab, teachers=("raddino",), resume=first.folder).interrupted


def test_a_card_that_was_mended_meanwhile_is_another_training(lab: Workspace) -> None:
    card = yaml.safe_load((PACKAGED_CARDS / "raddino.yaml").read_text()) | {"name": "ours"}
    ours = ("weights/ours.yaml",)
    (lab.weights / "ours.yaml").write_text(yaml.safe_dump(card))
    first = run(lab, teachers=ours, tick=stop_at_two)
    assert first.interrupted
    (lab.weights / "ours.yaml").write_text(yaml.safe_dump(card | {"mean": [0.3]}))
    with pytest.raises(ModelError, match="the teachers' cards changed since the checkpoint"):
        run(lab, teachers=ours, resume=first.folder)
    (lab.weights / "ours.yaml").write_text(yaml.safe_dump(card | {"title": "other words"}))
    assert not run(lab, teachers=ours, resume=first.folder).interrupted


def test_what_was_derived_before_the_first_checkpoint_is_derived_anew(lab: Workspace) -> None:
    """Nothing says of which cards and labels it was."""
    whole = run(lab, teachers=("raddino",), run_name="whole")
    folder = lab.runs / "begun"
    folder.mkdir()
    shutil.copy(whole.folder / "config.yaml", folder)
    arrays = load_file(whole.folder / "standardise.safetensors")
    save_file(
        {name: 2 * array for name, array in arrays.items()}, folder / "standardise.safetensors"
    )
    assert same(whole, run(lab, teachers=("raddino",), resume=folder))


def test_two_teachers_of_one_name_are_refused_before_the_first_frame(
    cli: Cli, lab: Workspace
) -> None:
    card = yaml.safe_load((PACKAGED_CARDS / "raddino.yaml").read_text())
    (lab.weights / "again.yaml").write_text(yaml.safe_dump(card))
    done = cli("distill", "--teachers", "raddino,weights/again.yaml", cwd=lab.root)
    assert done.exit_code == 2
    assert "two of these teachers are called 'raddino'" in done.stderr
    assert not list(lab.cache.glob("raddino-*"))


@pytest.mark.parametrize("text", ["none", "raddino", "raddino, medsam"])
def test_teachers_in_a_file_may_be_written_as_on_the_command_line(
    lab: Workspace, text: str
) -> None:
    (lab.root / "c.yaml").write_text(f"teachers: {text}\n")
    config = resolve_config(lab, lab.root / "c.yaml", {})
    assert list(config.teachers) == ([] if text == "none" else text.split(", "))
    (lab.root / "vfss.yaml").write_text(f"distill: {{teachers: '{text}'}}\n")
    assert resolve_config(lab, None, {}).teachers == config.teachers, "nor in the lab's own"
    begun = config.model_copy(update={"init": "runs/gone/student.safetensors"})
    again = resolve_config(lab, None, {}, resumed=begun)
    assert again.init == begun.init, "a resumed run has weights of its own"
    with pytest.raises(UsageError, match="must lie in the workspace"):
        resolve_config(
            lab, None, {"init": "/elsewhere/student.safetensors", "teachers": ("raddino",)}
        )
    (lab.root / "c.yaml").write_text("teachers: 3\n")
    with pytest.raises(ConfigError, match="teachers"):
        resolve_config(lab, lab.root / "c.yaml", {})


def test_a_run_that_is_not_there_is_not_called_trained(lab: Workspace) -> None:
    with pytest.raises(WorkspaceError, match="no run 'run-0l1'"):
        find_unfinished(lab, "run-0l1")


def test_a_weight_for_a_task_that_is_none_is_refused(lab: Workspace) -> None:
    with pytest.raises(ConfigError, match=r"task_weights names boluss.*"):
        run(lab, task_weights={"boluss": 2.0})
    run(lab, task_weights={"bolus": 2.0})


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
        with pytest.raises(StorageError, match=r"disk is full.*--resume --name full`"):
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


@pytest.mark.parametrize(
    ("teachers", "words"),
    [(None, "no teachers were named"), ("smalldino", "smalldino"), ("medsam", "medsam_vit_b.pth")],
)
def test_wrong_teachers_are_said_before_torch_is_loaded(
    tmp_path: Path, teachers: str | None, words: str
) -> None:
    arguments = ["distill", *(["--teachers", teachers] if teachers else [])]
    code = (
        "import sys, typer\nfrom vfss_distill.commands import distill\n"
        "app = typer.Typer()\ndistill.register(app)\napp.command('other')(lambda: None)\n"
        f"try: app({arguments!r})\nexcept SystemExit as done: print(done.code)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert words in done.stderr
    code, loaded = done.stdout.split()
    assert code in ("2", "5") and loaded == "False"
