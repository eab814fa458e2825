"""Watching a run: pictures of features, curves, TensorBoard."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import Cli
from tiny_studies import TASKS, small_world, write_study
from tiny_teachers import write_tiny_weights
from vfss_distill.distill.events import Events
from vfss_distill.distill.pictures import (
    COLOURS,
    Shown,
    draw_features,
    frames_to_show,
    look_at,
    principal_colours,
)
from vfss_distill.models.students import StudentConfig, build_student
from vfss_distill.workspace import Workspace

TINY: dict[str, Any] = {
    "student": "nano",
    "image_size": 64,
    "grid": 8,
    "batch_size": 4,
    "align_steps": 2,
    "task_steps": 2,
    "warmup_steps": 1,
    "validate_every": 1,
    "checkpoint_every": 1,
    "threads": 1,
    "device": "cpu",
}


@pytest.fixture
def lab(tmp_path: Path) -> Workspace:
    workspace = small_world(tmp_path)
    write_tiny_weights(workspace.weights)
    (tmp_path / "vfss.yaml").write_text(yaml.safe_dump({"task_set": "three.yaml", "distill": TINY}))
    return workspace


class Halves:
    """A teacher that knows left from right."""

    def __init__(self) -> None:
        self.calls = 0

    def features(self, frames: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        maps = torch.zeros(len(frames), 5, 6, 6)
        maps[:, 2, :, 3:] = 7.0
        return maps + 0.01 * torch.arange(36.0).view(6, 6)


def events_of(folder: Path) -> dict[str, dict[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    read.Reload()
    return {
        tag: {event.step: event.value for event in read.Scalars(tag)}
        for tag in read.Tags()["scalars"]
    }


def test_a_run_leaves_pictures_curves_and_events(cli: Cli, lab: Workspace) -> None:
    done = cli(
        "distill", "--teachers", "medsam,raddino", "--tensorboard", "--no-export", cwd=lab.root
    )
    assert done.exit_code == 0, done.stderr
    folder = lab.runs / "run-001"
    picture = cv2.imread(str(folder / "features.png"))
    assert picture is not None
    # One validation patient: a row; columns frame, student, two teachers.
    height, width = picture.shape[:2]
    assert 3 < width / height < 4
    columns = [picture[:, n * width // 4 : (n + 1) * width // 4] for n in range(4)]
    assert np.ptp(columns[0].astype(int), axis=2).max() == 0, "the frame is grey"
    for column in columns[1:]:
        assert np.ptp(column[60:].astype(int), axis=2).max() > 100, "features have colours"
    curves = (folder / "curves.svg").read_text()
    assert all(word in curves for word in ("<!-- weight α of each teacher -->", *TASKS, "medsam"))
    scalars = events_of(folder)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert sorted(scalars["loss"]) == [0, 1, 2, 3]
    for line in lines:
        step = line["step"]
        assert scalars["loss"][step] == pytest.approx(line["loss"], rel=1e-4)
        assert scalars["alpha/raddino"][step] == pytest.approx(line["alpha"]["raddino"], rel=1e-4)
    assert scalars["val_dice/c3"][3] == pytest.approx(lines[-1]["val_dice"]["c3"], rel=1e-4)
    names = [path.name for path in folder.glob("events*")]
    assert len(names) == 1 and names[0].endswith(".vfss")


def test_without_the_option_no_events_and_without_the_package_a_clear_word(
    cli: Cli, lab: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    done = cli("distill", "--teachers", "none", "--tensorboard", cwd=lab.root)
    assert done.exit_code == 6
    assert "vfss-distill[tensorboard]" in done.stderr
    assert not lab.runs.exists()
    done = cli("distill", "--teachers", "none", "--no-export", cwd=lab.root)
    assert done.exit_code == 0, done.stderr
    assert not list((lab.runs / "run-001").glob("events*"))
    assert (lab.runs / "run-001" / "features.png").exists()


def test_events_of_a_resumed_run_replace_those_after_the_checkpoint(tmp_path: Path) -> None:
    first = Events(tmp_path, 0)
    for step in range(5):
        first.write({"step": step, "stage": "task", "loss": 1.0, "task": float("nan")})
    first.close()
    second = Events(tmp_path, 3)
    second.write({"step": 3, "loss": 2.0, "val_dice": {"c3": 0.5}})
    second.close()
    scalars = events_of(tmp_path)
    assert scalars["loss"] == {0: 1.0, 1: 1.0, 2: 1.0, 3: 2.0}
    assert scalars["val_dice/c3"] == {3: 0.5}
    assert "task" not in scalars


def test_a_teacher_is_looked_at_once(tmp_path: Path) -> None:
    study = write_study(Workspace(tmp_path), "pa")
    shown = frames_to_show([study], [(0, 1), (0, 2), (0, 5)])
    assert shown.keys == [(0, 2)]
    teacher = Halves()
    look_at(teacher, "halves", shown, tmp_path)
    look_at(teacher, "halves", shown, tmp_path)
    assert teacher.calls == 1
    look_at(Halves(), "other", shown, tmp_path)
    student = build_student(StudentConfig("nano", 64, 1, TASKS, grid=8))
    draw_features(tmp_path, student, shown)
    whole = (tmp_path / "features.png").read_bytes()
    draw_features(tmp_path, student, shown)
    assert (tmp_path / "features.png").read_bytes() == whole
    # A file cut short is no reason to fail: the teacher is looked at again.
    (tmp_path / COLOURS).write_bytes(b"\x01")
    look_at(teacher, "halves", shown, tmp_path)
    assert teacher.calls == 2


def test_colours_follow_the_features_and_leave_the_letterbox_black(tmp_path: Path) -> None:
    study = write_study(Workspace(tmp_path), "pa", size=(32, 64))
    shown = Shown([study], [(0, 0)])
    inside = shown.inside(6)
    assert inside[0].sum() == 18 and not inside[0, 0].any() and inside[0, 2:4].all()
    maps = Halves().features(torch.zeros(1, 64, 64)).numpy()
    colours = principal_colours(maps, inside).astype(int)
    assert not colours[0, 0].any()
    red = colours[0, 2, :, 0]
    assert red[:3].max() < 20 and red[3:].min() > 235


def test_frames_to_show_are_spread_over_patients(tmp_path: Path) -> None:
    studies = [write_study(Workspace(tmp_path), f"p{letter}") for letter in "abcdefghi"]
    shown = frames_to_show(studies, [(0, 4), (8, 1)])
    assert shown.keys == [(0, 4), (3, 3), (5, 3), (8, 1)]
    assert frames_to_show([], []).keys == []


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(2, 5), st.booleans())
def test_any_map_has_colours(count: int, channels: int, grid: int, constant: bool) -> None:
    rng = np.random.default_rng(count + 10 * channels)
    maps = rng.normal(size=(count, channels, grid, grid)).astype(np.float32)
    if constant:
        maps[:] = 3.5
    colours = principal_colours(maps, np.ones((count, grid, grid), bool))
    assert colours.shape == (count, grid, grid, 3) and colours.dtype == np.uint8
    assert not colours[..., channels:].any()
    if not constant:
        # Turned or not, the picture is the same up to the order of equal components.
        assert colours[..., 0].max() == 255 and colours[..., 0].min() == 0
