"""Students: budgets, shapes, and files that rebuild them."""

from __future__ import annotations

import errno
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from vfss_distill.errors import StorageError, UsageError, WeightsMismatch, WeightsMissing
from vfss_distill.models.decoder import enlarge, parameters_of
from vfss_distill.models.students import (
    PRESETS,
    Student,
    StudentConfig,
    build_student,
    load_student,
    replace_weights,
    save_student,
)
from vfss_distill.tasks import VFSS12

THREE_TEACHERS = 89_670_912 + 86_580_480 + 27_520_000  # MedSAM's encoder, RAD-DINO, MedCLIP


def config(trunk: str = "nano", *, context: int = 0) -> StudentConfig:
    return StudentConfig(trunk, 64, context, VFSS12.ids, grid=8)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_keep_their_budget(preset: str) -> None:
    student = build_student(config(preset))
    assert student.encoder_parameters() <= PRESETS[preset].budget
    assert parameters_of(student.decoder) <= 400_000
    if preset == "small":
        assert student.encoder_parameters() * 187 <= THREE_TEACHERS
        assert student.times_smaller() >= 187


@pytest.mark.parametrize("context", [0, 1])
def test_shapes(context: int) -> None:
    student = build_student(config(context=context)).eval()
    frames = torch.randint(0, 256, (2, 1 + 2 * context, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        embedding, pyramid = student.embed(frames)
        logits = enlarge(student.decode(pyramid), 64)
        assert embedding.shape == (2, student.embed_channels, 8, 8)
        assert logits.shape == (2, 12, 64, 64)
        assert torch.equal(logits, student(frames))
        assert torch.allclose(logits, student(frames.float()))


def test_alignment_trains_trunk_and_fused_path_alone() -> None:
    student = build_student(config())
    student.embed(torch.zeros(2, 1, 64, 64))[0].square().mean().backward()
    assert all(p.grad is not None for p in student.decoder.top.parameters())
    assert all(p.grad is not None for p in student.decoder.down.parameters())
    assert all(p.grad is None for p in student.decoder.fine.parameters())
    assert all(p.grad is None for p in student.decoder.head.parameters())


def test_a_timm_trunk_without_a_stride_of_two() -> None:
    student = build_student(StudentConfig("convnext_atto", 64, 0, ("a", "b"), grid=16)).eval()
    assert student.logit_stride == 4
    assert student(torch.zeros(1, 1, 64, 64)).shape == (1, 2, 64, 64)


@pytest.mark.parametrize("trunk", ["no_such_net", "vit_tiny_patch16_224"])
def test_a_trunk_without_a_pyramid_is_refused(trunk: str) -> None:
    with pytest.raises(UsageError, match=trunk):
        build_student(config(trunk))


def test_saved_and_loaded(tmp_path: Path) -> None:
    torch.manual_seed(3)
    student = build_student(config(context=1)).eval()
    save_student(student, tmp_path / "s.safetensors", {"vfss.name": "x"})
    again = load_student(tmp_path / "s.safetensors")
    assert again.config == student.config
    frames = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(again(frames), student(frames))


def test_other_weights_keep_what_is_written_beside_them(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    save_student(build_student(config()), path, {"vfss.name": "x"})
    other = build_student(config(context=1))
    replace_weights(other, path)
    again = load_student(path)
    assert again.config == other.config
    assert torch.equal(again.trunk.conv_stem.weight, other.trunk.conv_stem.weight)
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["vfss.name"] == "x"


def test_files_that_are_no_student(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing):
        load_student(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"\x80\x04nonsense")
    with pytest.raises(WeightsMismatch, match="readable"):
        load_student(tmp_path / "bad.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsMismatch, match="no student"):
        load_student(tmp_path / "other.safetensors")


@pytest.mark.parametrize("header", ["{", "{}", "[]", '{"trunk": "no_such", "image_size": 64}'])
def test_a_header_that_describes_no_student_is_refused(tmp_path: Path, header: str) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "t.safetensors", metadata={"vfss.student": header})
    with pytest.raises(WeightsMismatch, match="which student"):
        load_student(tmp_path / "t.safetensors")


@pytest.mark.parametrize(
    "number", [("image_size", 10**9), ("image_size", -64), ("grid", 10**9), ("context", 5)]
)
def test_numbers_that_no_student_has(tmp_path: Path, number: tuple[str, int]) -> None:
    path = tmp_path / "s.safetensors"
    save_student(build_student(config()), path, {})
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["vfss.student"])
    described = json.dumps({**header, **dict([number])})
    save_file(load_file(path), path, metadata={"vfss.student": described})
    with pytest.raises(WeightsMismatch, match="which student"):
        load_student(path)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers(tmp_path: Path, value: float) -> None:
    student = build_student(config())
    with torch.no_grad():
        student.decoder.head.bias[0] = value
    save_student(student, tmp_path / "s.safetensors", {})
    with pytest.raises(WeightsMismatch, match=r"decoder\.head\.bias holds values that are not"):
        load_student(tmp_path / "s.safetensors")


def test_a_network_of_any_size_takes_no_memory_before_its_weights_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "student.safetensors"
    header = {"trunk": "convnext_xxlarge", "image_size": 64, "context": 0, "tasks": ["a"]}
    save_file({"a": torch.zeros(1)}, path, {"vfss.student": json.dumps(header | {"grid": 8})})
    built = []

    def build(config: StudentConfig) -> Student:
        student = build_student(config)
        built.append({tensor.device.type for tensor in student.state_dict().values()})
        return student

    monkeypatch.setattr("vfss_distill.models.students.build_student", build)
    with pytest.raises(WeightsMismatch, match="do not fit"):
        load_student(path)
    assert built == [{"meta"}]


def test_one_tensor_missing_is_refused(tmp_path: Path) -> None:
    student = build_student(config())
    save_student(student, tmp_path / "s.safetensors", {})
    tensors = load_file(tmp_path / "s.safetensors")
    del tensors["decoder.head.bias"]
    header = '{"trunk": "nano", "image_size": 64, "context": 0, "tasks": %s, "grid": 8}'
    tasks = str(list(VFSS12.ids)).replace("'", '"')
    save_file(tensors, tmp_path / "t.safetensors", metadata={"vfss.student": header % tasks})
    with pytest.raises(WeightsMismatch, match=r"decoder\.head\.bias"):
        load_student(tmp_path / "t.safetensors")


def test_a_full_disk_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space left")

    student = build_student(StudentConfig("nano", 64, 0, ("bolus",), 8))
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="disk is full"):
        save_student(student, tmp_path / "student.safetensors", {})
    assert list(tmp_path.iterdir()) == []
