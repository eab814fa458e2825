"""Runs that a hand or a disk has spoilt: one line that names the file, and what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from conftest import Cli
from tiny_studies import small_world
from vfss_distill.distill.checkpoint import Training, load_checkpoint, saved_step
from vfss_distill.distill.journal import Metrics, read_metrics
from vfss_distill.errors import WeightsMismatch
from vfss_distill.models.students import StudentConfig, build_student, save_student

STATE = '{"step": 4, "has_best": false, "best_val_dice": {}, "identity": {}}'


class TestCheckpoint:
    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("identity", None),
            ("identity", "[]"),
            ("identity", "null"),
            ("step", None),
            ("step", "[2]"),
            ("step", "1e999"),
            ("step", "-1"),
            ("best_val_dice", "[1]"),
            ("best_val_dice", '{"c3": "much"}'),
            ("has_best", None),
        ],
    )
    def test_a_state_of_another_kind(self, key: str, value: str | None, tmp_path: Path) -> None:
        state: dict[str, Any] = json.loads(STATE)
        del state[key]
        body = json.dumps(state)
        if value is not None:
            body = body.replace("{", f'{{"{key}": {value}, ', 1)
        folder = tmp_path / "last.ckpt"
        folder.mkdir()
        (folder / "state.json").write_text(body)
        training = Training(*[MagicMock()] * 4, identity={"configuration": "abc"})
        with pytest.raises(WeightsMismatch, match=r"last\.ckpt: the checkpoint is damaged\. Start"):
            load_checkpoint(folder, training)
        assert saved_step(folder) == 0

    def test_the_step_of_one_that_is_whole(self, tmp_path: Path) -> None:
        (tmp_path / "state.json").write_text(STATE)
        assert saved_step(tmp_path) == 4


def test_damaged_lines_of_the_metrics_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    good = b'{"step": 0, "loss": 1.5}\n'
    path.write_bytes(
        good + b'{"step": \x80}\n{"step": }\n{"step": [1]}\n{"loss": 2}\n{"step": 1}\n'
    )
    assert [line["step"] for line in read_metrics(path)] == [0, 1]
    Metrics(path, step=1)
    assert path.read_bytes() == good


class TestFactsOfARun:
    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("name", '"\\ud800"'),
            ("tasks", "5"),
            ("thresholds", "[1]"),
            ("thresholds", '{"c3": "x"}'),
            ("thresholds", '{"c3": 1e999}'),
            ("trained_sources", "5"),
            ("untrained_tasks", "5"),
        ],
    )
    def test_of_another_kind(self, key: str, value: str, cli: Cli, tmp_path: Path) -> None:
        workspace = small_world(tmp_path)
        shape = StudentConfig("nano", 64, 0, ("bolus", "hyoid", "c3"), 8)
        folder = workspace.runs / "run-001"
        folder.mkdir(parents=True)
        save_student(build_student(shape), folder / "student.safetensors", {})
        (folder / "facts.json").write_text(f'{{"{key}": {value}}}')
        outcome = cli("export", "run-001")
        assert outcome.exit_code == 4 and outcome.stderr.count("\n") == 1
        assert f"facts.json: what it says of {key} is damaged. Put it back" in outcome.stderr
