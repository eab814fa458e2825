"""The reader of all teachers, in a run and by itself."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from distill_lab import TINY, lab_with_unlabelled
from tiny_studies import TASKS, small_world, write_splits, write_study
from vfss_distill.config import DistillConfig, parse
from vfss_distill.distill import reader, readings
from vfss_distill.distill.data import Frames, Key, LabelledFrames, labelled_keys
from vfss_distill.distill.reader import Lesson, Views, read_twice, view_jobs
from vfss_distill.distill.readings import Plausible
from vfss_distill.distill.run import RunOutcome, distill, fill_caches
from vfss_distill.errors import ConfigError, ModelError
from vfss_distill.intake.study import Study, list_studies
from vfss_distill.models import PACKAGED_WEIGHTS
from vfss_distill.workspace import Workspace

CPU = torch.device("cpu")
# All tasks of TASKS may be absent, and lie on one another.
ANY = Plausible(torch.ones(len(TASKS), dtype=torch.bool), torch.zeros(3, 3, dtype=torch.bool))
SETTINGS: dict[str, Any] = {
    **TINY,
    "align_steps": 2,
    "task_steps": 4,
    "read_share": 0.5,
    "teachers": ("small-sam", "small-dino"),
}


@pytest.fixture
def lab(tmp_path: Path) -> Workspace:
    return lab_with_unlabelled(tmp_path)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "VIEWS", 12)
    monkeypatch.setattr(reader, "_STEPS", 6)
    monkeypatch.setattr(readings, "_SURENESS", 100.0)  # a student of three steps counts too


def run(workspace: Workspace, **changes: Any) -> RunOutcome:
    arguments = {key: changes.pop(key) for key in ("resume", "tick", "say") & changes.keys()}
    config = DistillConfig(**{**SETTINGS, **changes})
    return distill(workspace, config, weights_folders=[PACKAGED_WEIGHTS], **arguments)


# ---- in a run


def test_frames_are_read_once_and_a_resumed_run_sees_the_same(lab: Workspace, short: None) -> None:
    said: list[str] = []
    fill_caches(lab, DistillConfig(**SETTINGS), weights_folders=[PACKAGED_WEIGHTS], say=said.append)
    assert sum("to compute" in line for line in said) == 4  # frames and views of two teachers
    said.clear()
    whole = run(lab, say=said.append)
    assert sum("are cached" in line for line in said) == 4
    assert any(
        "reader of small-sam, small-dino: fitted on" in line and "6 unlabelled frames" in line
        for line in said
    )
    stored = load_file(whole.folder / "readings.safetensors")
    assert stored["keys"].tolist() == [[2, frame] for frame in range(6)]
    assert stored["masks"].shape == (6, len(TASKS), 64, 64)
    assert cv2.imread(str(whole.folder / "readings.png")) is not None
    kept = load_file(whole.folder / "student.safetensors")
    again = [load_file(whole.folder / f"readings-{step}.safetensors") for step in (3, 4)]
    assert not torch.equal(again[0]["masks"], stored["masks"])  # the student has read them
    assert not torch.equal(again[0]["masks"], again[1]["masks"])

    def stop(done: int, total: int, words: str) -> None:
        if "loss" in words and done == 5:
            os.kill(os.getpid(), signal.SIGINT)

    half = run(lab, tick=stop)
    assert half.interrupted
    latest = half.folder / "readings-4.safetensors"
    masks = latest.read_bytes()
    latest.unlink()
    with pytest.raises(ModelError, match="masks that were read for this run are gone"):
        run(lab, resume=half.folder)
    latest.write_bytes(masks)
    said.clear()
    end = load_file(run(lab, resume=half.folder, say=said.append).folder / "student.safetensors")
    assert not any("reader of" in line for line in said)  # kept in the run
    assert all(torch.equal(kept[name], end[name]) for name in kept)


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    workspace = small_world(tmp_path)
    write_splits(workspace, train=["pa", "pb"], val=["pd"], test=["pc", "pe"])
    for why, lack in (
        ({}, "every frame has labels"),
        ({"teachers": (), "align_steps": 0}, "no teachers"),
        ({"task_steps": 0}, "no step has masks"),
    ):
        said: list[str] = []
        done = run(workspace, **why, say=said.append)
        assert any("read_share does nothing here" in line and lack in line for line in said)
        assert not (done.folder / "readings.safetensors").exists()


def test_a_teacher_may_be_read_and_not_copied(lab: Workspace, short: None) -> None:
    said: list[str] = []
    done = run(lab, read_only=("small-sam",), say=said.append)
    assert any("reader of small-sam, small-dino: fitted on" in line for line in said)
    text = (done.folder / "metrics.jsonl").read_text()
    first = json.loads(text.splitlines()[0])
    assert set(first["align"]) == set(first["alpha"]) == {"small-dino"}
    both = load_file(run(lab).folder / "readings.safetensors")["masks"]
    assert torch.equal(load_file(done.folder / "readings.safetensors")["masks"], both)

    alone = run(lab, read_only=("small-sam", "small-dino"), align_steps=0)
    assert "align" not in (alone.folder / "metrics.jsonl").read_text()
    for wrong, words in (
        ({"read_only": ("medsam",)}, "medsam, no teacher of this run"),
        ({"read_only": ("small-sam",), "read_share": 0}, "needs read_share"),
        ({"read_only": ("small-sam", "small-dino")}, "leaves no teacher"),
    ):
        with pytest.raises(ConfigError, match=words):
            parse(DistillConfig, {**SETTINGS, **wrong})


def test_a_batch_of_one_has_no_room_for_what_was_read(lab: Workspace) -> None:
    said: list[str] = []
    done = run(lab, batch_size=1, say=said.append)
    why = "read_share does nothing here: a batch of one has no room for it"
    assert f"warning: {why}" in said
    assert not (done.folder / "readings.safetensors").exists()


def test_what_was_read_before_a_crash_is_not_what_is_shown(lab: Workspace, short: None) -> None:
    """Without a checkpoint all is read anew, with labels that may be others; and drawn anew."""

    def crash(done: int, total: int, words: str) -> None:
        if "loss" in words:
            raise SystemExit  # as little is kept as after a power cut

    with pytest.raises(SystemExit):
        run(lab, tick=crash, read_again=0)
    (folder,) = lab.runs.iterdir()
    assert not (folder / "last.ckpt").exists()
    (folder / "readings.png").write_bytes(b"of other labels")
    run(lab, resume=folder, read_again=0)
    assert cv2.imread(str(folder / "readings.png")) is not None


# ---- views


def test_every_labelled_task_is_seen(tmp_path: Path) -> None:
    labelled = {"bolus": range(300), "hyoid": range(300), "c3": (101,)}
    rare = write_study(Workspace(tmp_path), "pl", frames=300, labelled=labelled)
    other = write_study(Workspace(tmp_path), "pm", frames=300, labelled={"bolus": range(300)})
    studies = [rare, other]
    jobs = view_jobs(studies, labelled_keys(studies, TASKS), TASKS, DistillConfig())
    assert 101 in jobs[0].of
    assert sum(len(job.frames) for job in jobs.values()) in (400, 401)


def views_of(workspace: Workspace) -> tuple[Study, Views]:
    studies = list_studies(workspace)
    config = DistillConfig(image_size=64, mirrored=0.5)
    (views,) = view_jobs(studies, [(0, 1), (0, 4)], TASKS, config).values()
    return studies[0], views


def test_views_are_the_same_each_time_and_differ_from_one_another(
    lab: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "VIEWS", 6)
    study, views = views_of(lab)
    assert (views.of, views.each, views.size) == ([1, 4], 3, 128)
    assert views.frames == (3, 4, 5, 12, 13, 14)
    seen = views.squares(views.frames)
    assert seen.shape == (6, 128, 128) and seen.dtype == np.uint8
    np.testing.assert_array_equal(views.squares([13]), seen[4:5])
    assert all((seen[row] != seen[row + 1]).mean() > 0.2 for row in range(5))
    digest = views.digest(views.frames)
    picture = study.folder / "frames" / "000004.png"
    picture.write_bytes((study.folder / "frames" / "000000.png").read_bytes())
    assert views.digest(views.frames) != digest
    assert views.digest([3]) == Views(study, (3,), 128, 3).digest([3])


def test_masks_move_with_their_frame(lab: Workspace) -> None:
    views = views_of(lab)[1]
    square = torch.zeros(1, 1, 128, 128)
    square[..., 40:80, 50:90] = 1
    for number in range(5):
        frame, planes = views.moved(number, 255 * square, square)
        near = (frame / 255 - planes).abs()
        assert 300 < planes.sum() < 4000
        assert near.mean() < 0.01  # the rim alone: one linear, the other the nearest


# ---- reading


@dataclass
class Knows:
    """Features of a teacher, made up: one channel with what it knows and one of noise."""

    keys: list[Key]
    maps: Tensor
    channels: int = 2

    def batch(self, keys: list[Key], device: torch.device) -> Tensor:
        return self.maps[[self.keys.index(key) for key in keys]]


def test_two_teachers_are_read_better_than_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_STEPS", 30)
    draw = torch.Generator().manual_seed(3)
    keys = [(0, number) for number in range(24)]
    halves = torch.zeros(2, 24, 1, 32, 32)  # left-right and up-down, shifted from frame to frame
    for row in range(24):
        x, y = torch.randint(8, 24, (2,), generator=draw).tolist()
        halves[0, row, :, :, x:] = 1
        halves[1, row, :, y:] = 1
    noise = torch.randn(2, 24, 1, 32, 32, generator=draw)
    first, second = (
        Knows(keys, torch.cat([half, grain], 1)) for half, grain in zip(halves, noise, strict=True)
    )
    truth = (halves[0] * halves[1]).repeat_interleave(2, 2).repeat_interleave(2, 3)  # both
    known = torch.ones(24, 1, dtype=torch.bool)
    monkeypatch.setattr(reader, "_seen_masks", lambda lesson, keys: (truth, known))

    def dice(*teachers: Any) -> float:
        one = Plausible(torch.tensor([True]), torch.tensor([[False]]))
        lesson = Lesson({}, teachers, SimpleNamespace(), one)  # type: ignore[arg-type]
        seen = read_twice(lesson, teachers, keys, 0, CPU, lambda *_: None)
        found, real = seen > 127, truth > 0.5
        return float(2 * (found & real).sum() / (found.sum() + real.sum()))

    together = dice(first, second)
    assert together > 0.95
    assert max(dice(first), dice(second)) < together - 0.1


def test_masks_of_the_views_are_those_of_their_frames(lab: Workspace) -> None:
    studies = list_studies(lab)
    labelled_frame = studies[0].labelled_frames(TASKS[0])[0]
    jobs = {0: Views(studies[0], (2 * labelled_frame, 2 * labelled_frame + 1), 128, 2)}
    frames = Frames(studies, [(0, labelled_frame)], size=128, context=0, budget_bytes=0)
    labelled = LabelledFrames(frames, [(0, labelled_frame)], TASKS, budget_bytes=0)
    keys = [(0, number) for number in jobs[0].frames]
    lesson = Lesson(jobs, [], labelled, ANY)
    masks, known = reader._seen_masks(lesson, keys)
    assert masks.shape == (2, len(TASKS), 64, 64) and known[:, 0].all()
    planes = labelled.batch([0]).planes
    whole = (planes.int() & 1).float().mean()
    assert whole > 0
    assert (masks[0, 0] != masks[1, 0]).any()
    for one in masks[:, 0]:
        assert 0.2 * whole < one.float().mean() < 3 * whole
