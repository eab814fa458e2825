"""Weight files of strangers: code in them, what is damaged, incomplete or wrapped."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from conftest import Cli
from tiny_teachers import (
    dino_memory_state,
    dino_original_state,
    dino_state,
    medclip_state,
    noise,
    open_clip_state,
    sam_state,
    saved,
    teacher_of,
)
from vfss_distill.errors import WeightsMismatch
from vfss_distill.models.teachers.card import load_card
from vfss_distill.models.teachers.checkpoint import open_checkpoint
from vfss_distill.models.teachers.registry import load_teacher

Tensors = dict[str, Tensor]


class Evil:
    """A pickle that would leave a mark if its code ran."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


def test_code_in_a_weights_file_is_refused_and_not_run(cli: Cli, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    for number, write in enumerate((torch.save, _bare_pickle, _old_torch)):
        path = tmp_path / f"evil{number}.pth"
        write({"model": sam_state(), "loss": Evil(mark)}, path)
        outcome = cli("teachers", "check", "medsam", path)
        assert outcome.exit_code == 5
        assert path.name in outcome.stderr and "code" in outcome.stderr
    assert not mark.exists()


def _bare_pickle(value: object, path: Path) -> None:
    path.write_bytes(pickle.dumps({"loss": value["loss"]}))  # type: ignore[index]


def _old_torch(value: object, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


def test_torchscript_is_refused_as_code(tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), str(path))
    with pytest.raises(WeightsMismatch, match="code"):
        open_checkpoint(path)


def _zip(inner: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(inner, "x")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "LFS"),
        (b"<!DOCTYPE html><html>Sign in</html>", "no weights file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "no weights file"),
        (_zip("pytorch_model.bin"), "Unpack"),
        (_zip("readme.txt"), "zip"),
        (b"\x80\x02}q\x00.", "damaged|tensors"),
        ((20).to_bytes(8, "little") + b'{"a":{"dtype":"F32"}', "damaged"),
    ],
)
def test_what_is_no_weights_file_is_refused(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(content)
    with pytest.raises(WeightsMismatch, match=word) as caught:
        open_checkpoint(path)
    assert caught.value.file == "weights.bin"


@settings(max_examples=25, deadline=None)
@given(share=st.floats(0, 0.999), kind=st.sampled_from(["zip", "legacy", "safetensors"]))
def test_a_truncated_file_is_refused(
    tmp_path_factory: pytest.TempPathFactory, share: float, kind: str
) -> None:
    state = {"a.weight": torch.rand(40, 50), "b.bias": torch.rand(9)}
    path = tmp_path_factory.mktemp("cut") / ("w.safetensors" if kind == "safetensors" else "w.pth")
    if kind == "legacy":
        _old_torch(state, path)
    else:
        saved(state, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(WeightsMismatch):
        open_checkpoint(path)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = sam_state()
    state["image_encoder.neck.1.bias"][3] = float("nan")
    with pytest.raises(WeightsMismatch, match=r"neck\.1\.bias"):
        teacher_of("medsam", state, tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("tensor", "word"),
    [
        (torch.zeros(32, device="meta"), "without values"),
        (torch.zeros(32).to_sparse(), "sparse"),
        (torch.zeros(32, dtype=torch.int64), "kind of number"),
        (torch.zeros(32, dtype=torch.complex64), "kind of number"),
    ],
)
def test_tensors_of_odd_kinds_are_refused(tmp_path: Path, tensor: Tensor, word: str) -> None:
    state = sam_state() | {"image_encoder.neck.1.bias": tensor}
    with pytest.raises(WeightsMismatch, match=word):
        teacher_of("medsam", state, tmp_path / "odd.pth")


@pytest.mark.parametrize("value", [torch.zeros(3), [torch.zeros(3)], {"a": 1}, {"model": {}}])
def test_what_holds_no_named_tensors_is_refused(tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / "none.pth")
    with pytest.raises(WeightsMismatch, match="no tensors"):
        open_checkpoint(tmp_path / "none.pth")


def _wrapped(state: Tensors) -> dict[str, object]:
    return {
        "model": {f"module.{name}": tensor for name, tensor in state.items()},
        "optimizer": {"state": {0: torch.zeros(3)}},
        "epoch": 7,
    }


@pytest.mark.parametrize(
    "wrap",
    [
        _wrapped,
        lambda state: {"state_dict": state},
        lambda state: {"state_dict": state, "best_acc1": torch.tensor(71.2)},
        lambda state: {"mean": torch.zeros(3), "model": {"state_dict": state}},
        lambda state: {f"module._orig_mod.{name}": tensor for name, tensor in state.items()},
        lambda state: {name: tensor.half() for name, tensor in state.items()},
    ],
    ids=["raw training", "state_dict", "best score", "mean", "compiled parallel", "half"],
)
def test_wrapped_checkpoints_load_alike(
    tmp_path: Path, wrap: Callable[[Tensors], dict[str, object]]
) -> None:
    plain = teacher_of("medsam", sam_state(), tmp_path / "plain.pth")
    path = tmp_path / "wrapped.pth"
    torch.save(wrap(sam_state()), path)
    wrapped = load_teacher(load_card("medsam"), path)
    assert next(wrapped.parameters()).dtype == torch.float32
    half = not wrapped.unwrapped
    torch.testing.assert_close(
        plain.features(noise()), wrapped.features(noise()), atol=0.05 if half else 0, rtol=0
    )


STATES: dict[str, tuple[str, Callable[[], Tensors], str]] = {
    "sam": ("medsam", sam_state, "image_encoder.blocks.1.mlp.lin2.bias"),
    "dino disk": ("raddino", dino_state, "encoder.layer.1.layer_scale2.lambda1"),
    "dino memory": ("raddino", dino_memory_state, "encoder.layer.1.attention.o_proj.bias"),
    "dino original": ("raddino", dino_original_state, "blocks.1.attn.qkv.bias"),
    "medclip": ("medclip", medclip_state, "vision_model.model.layernorm.bias"),
    "open_clip": ("biomedclip", open_clip_state, "visual.trunk.blocks.1.norm2.weight"),
}


@pytest.mark.parametrize("which", STATES)
def test_incomplete_spare_or_mis_shaped_tensors_are_refused(tmp_path: Path, which: str) -> None:
    name, build, victim = STATES[which]
    whole = build()
    lacking = {key: tensor for key, tensor in whole.items() if key != victim}
    last = victim.rpartition(".")[0].rpartition(".")[2]
    with pytest.raises(WeightsMismatch, match="missing") as caught:
        teacher_of(name, lacking, tmp_path / "lacking.pth")
    assert last in str(caught.value) or "q_proj.bias" in str(caught.value)
    with pytest.raises(WeightsMismatch, match=r"1 unexpected \(.*surprise"):
        teacher_of(name, {**whole, "surprise.weight": torch.zeros(2)}, tmp_path / "spare.pth")
    with pytest.raises(WeightsMismatch, match="another shape"):
        misshaped = {**whole, victim: torch.zeros(*whole[victim].shape[:-1], 999)}
        teacher_of(name, misshaped, tmp_path / "misshaped.pth")


def test_every_single_tensor_of_a_tower_is_needed(tmp_path: Path) -> None:
    state = medclip_state()
    tower = [name for name in state if name.startswith("vision_model.") and "_index" not in name]
    assert len(tower) > 40
    for victim in tower:
        lacking = {name: tensor for name, tensor in state.items() if name != victim}
        with pytest.raises(WeightsMismatch):
            teacher_of("medclip", lacking, tmp_path / "lacking.bin")


def test_shapes_that_no_network_has_are_a_fault_of_the_file(tmp_path: Path) -> None:
    state = sam_state()
    state["image_encoder.neck.0.weight"] = torch.zeros(7, 32, 1, 1)
    with pytest.raises(WeightsMismatch, match="describes no network"):
        teacher_of("medsam", state, tmp_path / "odd.pth")


def test_other_kinds_are_named(tmp_path: Path) -> None:
    lite = {"image_encoder.patch_embed.seq.0.c.weight": torch.zeros(32, 3, 1, 1)}
    with pytest.raises(WeightsMismatch, match="TinyViT"):
        teacher_of("medsam", lite, tmp_path / "lite.pth")
    with_registers = {**dino_state(), "embeddings.register_tokens": torch.zeros(1, 4, 64)}
    with pytest.raises(WeightsMismatch, match="register"):
        teacher_of("raddino", with_registers, tmp_path / "registers.safetensors")


def test_a_folder_is_told_from_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsMismatch, match="is a folder"):
        open_checkpoint(tmp_path)
