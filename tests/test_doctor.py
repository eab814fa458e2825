"""`vfss doctor` says what is here, what is broken, and how to mend it."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest

from conftest import Cli


def test_doctor_looks_at_everything(cli: Cli) -> None:
    done = cli("doctor", "--json")
    told = json.loads(done.stdout)
    assert done.exit_code == (0 if told["healthy"] else 6)
    looked = {check["name"] for check in told["checks"]}
    assert {"Python", "packages: core", "ONNX Runtime", "OpenCV", "torch pair"} <= looked
    assert {"film codecs", "inference", "processor", "disk", "model", "teachers"} <= looked
    assert all(check["remedy"] for check in told["checks"] if check["status"] == "failed")


def test_doctor_finds_two_onnx_runtimes(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version
    monkeypatch.setattr(
        metadata, "version", lambda name: "1.0" if name == "onnxruntime" else real(name)
    )
    told = diagnosis(cli, "ONNX Runtime")
    assert told["status"] == "failed"
    assert "share one folder" in told["found"]
    assert "pip uninstall" in told["remedy"]


def test_doctor_finds_a_mismatched_torch_pair(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version
    monkeypatch.setattr(
        metadata, "version", lambda name: "2.13.0" if name == "torch" else real(name)
    )
    told = diagnosis(cli, "torch pair")
    assert told["status"] == "failed"
    assert "torch==2.15.0 torchvision==0.29.2" in told["remedy"]


def test_doctor_leaks_no_path(cli: Cli) -> None:
    assert "/" + "root" not in cli("doctor").stdout


def test_doctor_opens_the_model_that_would_be_used(cli: Cli, tmp_path: Path) -> None:
    student = tmp_path / "runs" / "run-001" / "student.onnx"
    student.parent.mkdir(parents=True)
    student.write_bytes(b"no model")
    told = diagnosis(cli, "model")
    assert told["status"] == "failed" and told["remedy"]
    assert "runs/run-001/student.onnx: not an ONNX model" in told["found"]


def test_a_faulty_card_is_one_check_among_the_others(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "ours.yaml").write_text("family: [")
    told = diagnosis(cli, "teacher card")
    assert told["status"] == "failed" and told["remedy"]
    assert "ours.yaml" in told["found"] and str(tmp_path) not in told["found"]
    assert "small-dino" in diagnosis(cli, "teachers")["found"]


def diagnosis(cli: Cli, name: str) -> dict[str, str]:
    """One check of an unhealthy machine."""
    done = cli("doctor", "--json")
    assert done.exit_code == 6
    (found,) = (check for check in json.loads(done.stdout)["checks"] if check["name"] == name)
    return found
