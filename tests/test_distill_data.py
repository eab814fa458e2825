"""What a student sees: standardised features, batches, augmentation."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from distill_lab import run, tiny_lab
from tiny_studies import TASKS, write_splits, write_study
from vfss_distill.distill import standardise
from vfss_distill.distill.augment import geometric, photometric
from vfss_distill.distill.data import (
    Frames,
    LabelledFrames,
    Order,
    alignment_keys,
    labelled_keys,
    unpack,
)
from vfss_distill.errors import ModelError
from vfss_distill.intake.study import list_studies
from vfss_distill.workspace import Workspace


@pytest.fixture(autouse=True)
def _same_threads() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def lab(tmp_path: Path) -> Workspace:
    return tiny_lab(tmp_path)


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


def test_frames_held_on_a_card_are_batched_there_if_they_fit(lab: Workspace) -> None:
    """What stands in for the card has no values, but says where it is."""
    studies = list_studies(lab)
    keys, card = [(0, 0), (0, 2)], torch.device("meta")
    frames = Frames(studies, keys, size=64, context=1, budget_bytes=1 << 30)
    held = 4 * 64 * 64  # neighbours too: 0 to 3
    frames.move_to(card, held - 1)
    assert frames.batch(keys).device.type == "cpu"
    frames.move_to(card, held)
    there = frames.batch(keys)
    assert (there.device, there.dtype, there.shape) == (card, torch.uint8, (2, 3, 64, 64))


def test_every_nth_unlabelled_frame_beside_labels_at_the_same_pace(tmp_path: Path) -> None:
    studies = [write_study(Workspace(tmp_path), f"p{n}", frames=9) for n in range(2)]
    labelled = [(0, 0), (0, 3), (0, 6)]
    keys = alignment_keys(studies, labelled, 3)
    assert keys == sorted([*labelled, (0, 1), (0, 5), (1, 0), (1, 3), (1, 6)])


@pytest.mark.parametrize("budget", [1 << 30, 0])
def test_the_frame_before_is_of_the_same_study(lab: Workspace, budget: int) -> None:
    studies = list_studies(lab)
    keys = [(0, 0), (0, 2), (1, 0), (1, 1)]
    frames = Frames(studies, keys, size=64, context=0, budget_bytes=budget, earlier=True)
    assert torch.equal(frames.before(keys), frames.batch([(0, 0), (0, 1), (1, 0), (1, 0)]))


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
