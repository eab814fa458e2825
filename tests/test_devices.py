"""GPUs that are there and cannot be used, tried without one: what stands in for the card fails as
its driver, torch and ONNX Runtime do."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from conftest import Cli
from square_models import make_film, make_model
from vfss_distill.config import DistillConfig
from vfss_distill.distill import cache, devices
from vfss_distill.distill.devices import computes_bfloat16, pick_device
from vfss_distill.doctor import examine
from vfss_distill.errors import DeviceError, UsageError
from vfss_distill.inference import session
from vfss_distill.inference.session import Segmenter
from vfss_distill.memory import free_memory
from vfss_distill.workspace import Workspace

NO_CODE = "CUDA error: no kernel image is available for execution on the device\nmore lines"


@pytest.fixture
def card_without_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card that torch counts, and whose first kernel fails."""

    def ones(*_: object, **__: object) -> None:
        raise RuntimeError(NO_CODE)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(devices.torch, "ones", ones)


@pytest.mark.usefixtures("card_without_code")
def test_a_card_that_cannot_compute_is_left_alone_and_that_is_said() -> None:
    said: list[str] = []
    assert pick_device(DistillConfig(device="auto"), said.append).type == "cpu"
    (line,) = said
    assert "no kernel image is available" in line and "training on the CPU" in line
    assert "more lines" not in line
    with pytest.raises(DeviceError, match="cannot compute"):
        pick_device(DistillConfig(device="cuda"))


@pytest.mark.usefixtures("card_without_code")
def test_one_of_several_processes_does_not_go_to_the_cpu_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The others would wait for it on their GPUs for ever."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(DeviceError, match="cannot compute"):
        pick_device(DistillConfig(device="auto"))


@pytest.mark.parametrize(
    ("gpus", "shown", "rank", "taken"),
    [
        (4, "", "3", 3),
        (1, "3", "3", 0),
        (1, "", "0", 0),
        (1, "", "1", None),
        (2, "", "2", None),
        (2, "0,1", "2", None),
    ],
)
def test_each_process_takes_a_gpu_that_is_there(
    monkeypatch: pytest.MonkeyPatch, gpus: int, shown: str, rank: str, taken: int | None
) -> None:
    """A launcher may show each process one GPU only; more processes than GPUs are refused."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(devices, "gpu_fault", lambda _: "")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if shown:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    if taken is None:
        said = f"process {int(rank) + 1} of this machine has no GPU: {gpus} to be seen"
        with pytest.raises(UsageError, match=said):
            pick_device(DistillConfig(device="auto"))
    else:
        assert pick_device(DistillConfig(device="auto")) == torch.device("cuda", taken)


def test_half_precision_is_for_cards_that_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Older cards emulate it, and torch counts that as support unless told otherwise."""

    def supported(including_emulation: bool = True) -> bool:
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    computes_bfloat16.cache_clear()
    assert not computes_bfloat16(torch.device("cuda"))
    assert not computes_bfloat16(torch.device("cpu"))
    computes_bfloat16.cache_clear()


class _Card:
    """A session on a GPU: `fault` is raised by what is run there."""

    def __init__(self, provider: str, fault: Exception | None = None) -> None:
        self.provider, self.fault = provider, fault

    def get_providers(self) -> list[str]:
        return [self.provider]

    def run(self, names: object, feed: dict[str, NDArray[np.uint8]]) -> list[Any]:
        if self.fault is not None:
            raise self.fault
        return [np.zeros((1, 2, 64, 64), np.float32)]


@pytest.mark.parametrize(
    ("card", "why"),
    [
        (_Card("CPUExecutionProvider"), "libraries of CUDA are not found"),
        (_Card("CUDAExecutionProvider", RuntimeError("no kernel image")), "no code for"),
        (_Card("CUDAExecutionProvider"), ""),
    ],
)
def test_a_gpu_left_idle_is_said(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, card: _Card, why: str
) -> None:
    model = make_model(tmp_path / "runs" / "run-001" / "student.onnx")
    really_open = session._open

    def stand_in(path: Path, threads: int, *, cuda: bool = False) -> Any:
        return card if cuda else really_open(path, threads)

    monkeypatch.setattr(session, "_gpu_is_there", lambda: True)
    monkeypatch.setattr(session, "_open", stand_in)
    segmenter = Segmenter(model)
    if not why:
        assert segmenter.provider == "CUDAExecutionProvider" and not segmenter.gpu_left_idle
        assert Segmenter(model, "cpu").provider == "CPUExecutionProvider"
        return
    assert segmenter.provider == "CPUExecutionProvider"
    assert why in segmenter.gpu_left_idle
    with pytest.raises(DeviceError, match=why):
        Segmenter(model, "cuda")
    make_film(tmp_path / "study.mp4", [index / 30 for index in range(8)])
    done = cli("segment", "study.mp4")
    assert done.exit_code == 0
    assert why in " ".join(done.stderr.split()) and "Running on the CPU" in done.stderr
    (check,) = [one for one in examine(Workspace(tmp_path)) if one.name == "inference"]
    assert check.status == "warning" and why in check.found and check.remedy


class _SmallCard:
    """A teacher on a card whose memory holds `most` frames."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.asked: list[int] = []

    def features(self, frames: torch.Tensor) -> torch.Tensor:
        self.asked.append(len(frames))
        if len(frames) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return frames[:, None, :2, :2].float()


def test_features_take_a_third_of_what_a_card_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (900, 1000))
    assert devices.card_budget(torch.device("cuda")) == 300
    assert devices.card_budget(torch.device("cpu")) == 0


def test_frames_too_many_for_the_card_are_taken_in_halves() -> None:
    frames = torch.arange(11 * 9, dtype=torch.uint8).reshape(11, 3, 3)
    card = _SmallCard(most=3)
    assert torch.equal(cache._features(card, frames), frames[:, None, :2, :2].float())
    assert max(card.asked[1:]) <= 6
    with pytest.raises(torch.OutOfMemoryError):
        cache._features(_SmallCard(most=0), frames)


def test_memory_is_what_the_container_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files kept in case count against a container, but go when memory is asked for."""
    machine = SimpleNamespace(total=99_000_000, available=4_096_000)
    monkeypatch.setattr("psutil.virtual_memory", lambda: machine)
    groups = tmp_path / "cgroup"
    assert free_memory(groups) == 4_096_000
    groups.mkdir()
    (groups / "memory.max").write_text("max\n")
    assert free_memory(groups) == 4_096_000
    (groups / "memory.max").write_text("1000000\n")
    (groups / "memory.current").write_text("900000\n")
    (groups / "memory.stat").write_text("anon 5\ninactive_file 300000\n")
    assert free_memory(groups) == 400_000
    (groups / "memory").mkdir()
    for name, text in (("limit_in_bytes", "500000"), ("usage_in_bytes", "450000")):
        (groups / "memory" / f"memory.{name}").write_text(text)
    (groups / "memory" / "memory.stat").write_text("cache 1\ntotal_inactive_file 10000\n")
    assert free_memory(groups) == 60_000
