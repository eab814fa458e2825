"""What teachers say beyond their features: masks under boxes, likeness, embeddings, texts."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from distill_lab import TINY
from tiny_studies import TASKS, small_world, write_splits, write_study
from tiny_teachers import write_tiny_weights
from vfss_distill.config import DistillConfig, parse
from vfss_distill.distill import outputs, prompts, proposals
from vfss_distill.distill.agreement import agree_on_masks
from vfss_distill.distill.cache import Job, Recipe
from vfss_distill.distill.processes import Processes
from vfss_distill.distill.prompts import PromptedMasks, boxes_around, fill_prompts, prompt_recipe
from vfss_distill.distill.run import RunOutcome, distill
from vfss_distill.errors import ConfigError, ModelError
from vfss_distill.intake.study import Study, list_studies, write_mask
from vfss_distill.models import PACKAGED_WEIGHTS
from vfss_distill.workspace import Workspace

SMALL = ("small-sam", "small-dino", "small-clip")
SETTINGS: dict[str, Any] = {
    **TINY,
    "align_steps": 2,
    "task_steps": 4,
    "mask_weight": 0.5,
    "affinity_weight": 1.0,
    "embedding_weight": 0.5,
    "anchor_weight": 0.5,
    "anchors": ("oral phase", "pharyngeal phase", "dark field"),
}


@pytest.fixture
def lab(tmp_path: Path) -> Workspace:
    workspace = small_world(tmp_path)
    write_splits(workspace, train=["pa", "pb"], val=["pd"], test=["pc", "pe"])
    return workspace


def run(workspace: Workspace, teachers: tuple[str, ...] = SMALL, **changes: Any) -> RunOutcome:
    arguments = {key: changes.pop(key) for key in ("resume", "tick", "say") & changes.keys()}
    config = DistillConfig(**{**SETTINGS, "teachers": teachers, **changes})
    folders = [workspace.weights, PACKAGED_WEIGHTS]
    return distill(workspace, config, weights_folders=folders, **arguments)


def lines(outcome: RunOutcome) -> list[dict[str, Any]]:
    text = (outcome.folder / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


# ---- in a run


def test_outputs_are_learned_logged_and_resumed_bit_for_bit(lab: Workspace) -> None:
    said: list[str] = []
    whole = run(lab, say=said.append)
    assert any("small-sam: masks under boxes around the labels of 2 studies" in s for s in said)
    told = lines(whole)
    in_both = {"affinity", "embedding", "anchors"}
    assert all(set(line["outputs"]) == in_both for line in told[:2])
    assert all(set(line["outputs"]) == in_both | {"masks"} for line in told[2:])
    assert all(value > 0 for value in told[-1]["outputs"].values())
    assert (whole.folder / "curves.svg").read_text().count('id="axes_') == 6  # one stays empty
    kept = load_file(whole.folder / "student.safetensors")
    assert not [name for name in kept if "embedder" in name or "projector" in name]

    def stop(done: int, total: int, words: str) -> None:
        if "loss" in words and done == 3:
            os.kill(os.getpid(), signal.SIGINT)

    said.clear()
    half = run(lab, tick=stop, say=said.append)
    assert half.interrupted
    assert not any("masks under boxes around" in line for line in said)  # cached
    again = load_file(run(lab, resume=half.folder).folder / "student.safetensors")
    assert all(torch.equal(kept[name], again[name]) for name in kept)


def test_the_loss_is_the_sum_of_what_is_logged_and_the_teachers_part_fades(lab: Workspace) -> None:
    told = lines(run(lab, balancing="uniform", align_weight=2.0, align_fades=True))
    for line, left in zip(told[2:], (1, 0.75, 0.5, 0.25), strict=True):  # the four steps with masks
        said = line["outputs"]
        aligned = sum(line["align"].values()) / 3
        aligned += 1.0 * said["affinity"] + 0.5 * (said["embedding"] + said["anchors"])
        expected = line["task"] + left * (2.0 * aligned + 0.5 * said["masks"])
        assert line["loss"] == pytest.approx(expected, rel=1e-4)


def test_a_weight_without_such_a_teacher_is_said(lab: Workspace) -> None:
    write_tiny_weights(lab.weights)
    said: list[str] = []
    done = run(lab, ("medsam", "medclip"), say=said.append, proposal_frames=4)
    text = "\n".join(line for line in said if line.startswith("warning"))
    assert "affinity_weight does nothing here" in text
    assert "anchor_weight does nothing here" in text
    assert "medclip: anchors are off: its text tower is there, but no words: vocab.txt" in text
    assert "embedding_weight" not in text
    assert "proposal_frames does nothing here: every frame has labels" in text
    # A segmenter that knows nothing draws nothing that fits a label: nothing to learn from it.
    assert any("medsam: 0 masks under boxes agree" in line for line in said)
    assert lines(done)[-1]["outputs"]["masks"] == 0
    run(lab, ("medsam",), say=said.append, proposal_frames=4, mask_weight=0)
    assert "warning: proposal_frames does nothing here: mask_weight is 0" in said
    run(lab, ("medsam",), say=said.append, task_steps=0)
    assert "warning: mask_weight does nothing here: no step has masks" in said


def test_masks_count_alike_whoever_drew_them() -> None:
    """A teacher that draws under proposals too counts no more than before."""
    keys = [(0, 0), (0, 1), (0, 2)]
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(3, 2, 64, 64, generator=generator)
    prompted = torch.tensor([[1, 0], [1, 1], [0, 1]])
    logits = torch.randn(3, 2, 32, 32, generator=generator)

    def loss(*lists: PromptedMasks) -> float:
        batch: Any = SimpleNamespace(drawn=lists, align_keys=keys)
        return float(agree_on_masks(logits, batch, Processes(), {}))

    parts = [
        PromptedMasks(keys[:1], drawn[:1], prompted[:1]),
        PromptedMasks(keys[1:], drawn[1:], prompted[1:]),
    ]
    assert loss(*parts) == pytest.approx(loss(PromptedMasks(keys, drawn, prompted)))
    assert loss() == 0


def test_anchors_are_checked() -> None:
    with pytest.raises(ConfigError, match="anchor_weight needs two different texts"):
        parse(DistillConfig, {"anchor_weight": 1.0, "anchors": ["oral phase", "oral phase"]})


# ---- masks where nobody has drawn


def test_proposals_are_made_once_and_resumed_bit_for_bit(
    lab: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_weights(lab.weights)
    write_study(lab, "pu", labelled={})
    write_splits(lab, train=["pa", "pb", "pu"], val=["pd"], test=["pc", "pe"])
    asked = []

    def sure(probabilities: torch.Tensor) -> dict[int, Any]:
        """A student of six steps is sure of nothing yet."""
        assert 0 <= probabilities.min() <= probabilities.max() <= 1
        asked.append(1)
        return {0: np.eye(64, dtype=bool)} if len(asked) % 2 else {}

    monkeypatch.setattr(proposals, "sure_masks", sure)
    monkeypatch.setattr(prompts, "_OVERLAP", 0.0)  # a random segmenter never agrees

    def stop(done: int, total: int, words: str) -> None:
        if "loss" in words and done == 5:  # they are made before step 4
            os.kill(os.getpid(), signal.SIGINT)

    def last(outcome: RunOutcome) -> dict[str, torch.Tensor]:
        return load_file(outcome.folder / "last.ckpt" / "student.safetensors")

    plan = {"proposal_frames": 4, "checkpoint_every": 10}
    whole = run(lab, ("medsam",), **plan)
    assert len(asked) == 4
    stored = load_file(whole.folder / "proposals.safetensors")
    assert stored["keys"].tolist() == [[2, 0], [2, 2], [2, 3], [2, 5]]
    assert stored["prompted"].tolist() == [[1, 0, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0]]

    half = run(lab, ("medsam",), tick=stop, **plan)
    assert half.interrupted
    file = half.folder / "proposals.safetensors"
    drawn = file.read_bytes()
    file.unlink()
    with pytest.raises(ModelError, match="are gone"):
        run(lab, ("medsam",), resume=half.folder, **plan)
    file.write_bytes(drawn)
    kept, again = last(whole), last(run(lab, ("medsam",), resume=half.folder, **plan))
    assert all(torch.equal(kept[name], again[name]) for name in kept)
    assert len(asked) == 8


def test_the_student_must_be_sure() -> None:
    maps = torch.full((4, 64, 64), 0.02)
    maps[0, 10:20, 10:20] = 0.95
    maps[1, 10:20, 10:20] = 0.7  # there, but not surely
    maps[2, 10, 10] = 0.99  # a speck
    sure = proposals.sure_masks(maps)
    assert list(sure) == [0]
    assert sure[0].sum() == 100


# ---- masks under boxes


class Painter:
    """Fills its boxes, exactly; or the frame's first row, or with no numbers at all."""

    def __init__(self, what: str = "boxes") -> None:
        self.what = what
        self.asked = 0

    def mask_logits(self, frames: torch.Tensor, boxes: list[torch.Tensor]) -> list[torch.Tensor]:
        side = frames.shape[-1]
        self.asked += 1
        maps = torch.full((len(boxes[0]), 128, 128), -10.0)
        for row, box in enumerate(boxes[0]):
            x0, y0, x1, y1 = (box * 128 / side).round().int().tolist()
            maps[row, y0:y1, x0:x1] = 10.0
        if self.what == "row":
            maps[:], maps[:, :4] = -10.0, 10.0
        return [maps * float("nan") if self.what == "nan" else maps]


RECIPE = Recipe("painter", "0" * 64, "f", 5, 2)


def filled(painter: Painter, study: Study, root: Path) -> tuple[PromptedMasks, Path]:
    job = Job(study, (0, 2, 5))
    recipe = prompt_recipe(RECIPE, TASKS)
    folder = fill_prompts(
        painter, recipe, [job], TASKS, root, say=lambda _: None, tick=lambda *_: None
    )
    return PromptedMasks.from_cache(folder, {7: job}), folder


def test_masks_lie_where_the_labels_lie(lab: Workspace) -> None:
    study = list_studies(lab)[0]
    write_mask(study.folder, "c3", 2, np.zeros((48, 64), bool))  # absent
    masks, _ = filled(Painter(), study, lab.cache)
    assert masks.keys == [(7, 0), (7, 2), (7, 5)]
    logits, prompted = masks.batch([(7, 2), (3, 2), (7, 0)])
    # The disc fills π/4 of its box, the square and the bar nearly all of theirs.
    assert prompted.tolist() == [[True, True, False], [False] * 3, [True] * 3]
    assert masks.count() == 8
    for place, frame in ((0, 2), (2, 0)):
        for number, task in enumerate(TASKS):
            label = study.read_mask(task, frame)
            if not prompted[place, number] or label is None:
                continue
            square = np.zeros((64, 64), np.uint8)
            square[8:56] = label  # 48×64 frames stand in the middle of their square
            ys, xs = np.nonzero(square)
            box = np.zeros((64, 64), bool)
            box[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1] = True
            drawn = logits[place, number].numpy() > 0
            assert (drawn & box).sum() * 2 > 0.8 * (drawn.sum() + box.sum()), (frame, task)
    assert not logits[1].any()


def test_masks_that_miss_their_label_are_left_out(lab: Workspace) -> None:
    masks, _ = filled(Painter("row"), list_studies(lab)[0], lab.cache)
    assert masks.keys == []
    assert masks.count() == 0


def test_masks_are_drawn_again_when_a_label_or_the_file_changed(lab: Workspace) -> None:
    study, painter = list_studies(lab)[0], Painter()
    _, folder = filled(painter, study, lab.cache)
    assert painter.asked == 3
    filled(painter, study, lab.cache)
    assert painter.asked == 3
    moved = np.zeros((48, 64), np.uint8)
    write_mask(study.folder, "hyoid", 2, cv2.circle(moved, (20, 20), 5, 1, -1) > 0)
    masks, _ = filled(painter, study, lab.cache)
    assert painter.asked == 6
    assert masks.batch([(7, 2)])[0][0, 1, 28, 20] > 0
    shard = folder / f"{study.id}.safetensors"
    shard.write_bytes(shard.read_bytes()[:-50])
    filled(painter, study, lab.cache)
    assert painter.asked == 9
    assert json.loads((folder / "index.json").read_text())["teacher"] == "painter"


def test_masks_that_are_no_numbers_name_study_and_frame(lab: Workspace) -> None:
    study = list_studies(lab)[0]
    with pytest.raises(ModelError, match=rf"study {study.id}, frame 0"):
        filled(Painter("nan"), study, lab.cache)


def test_other_tasks_or_weights_are_another_cache() -> None:
    digests = {
        prompt_recipe(RECIPE, TASKS).digest,
        prompt_recipe(RECIPE, TASKS[:2]).digest,
        prompt_recipe(replace(RECIPE, fingerprint="g"), TASKS).digest,
        RECIPE.digest,
    }
    assert len(digests) == 4


@given(
    st.integers(0, 30), st.integers(0, 30), st.integers(1, 30), st.integers(1, 30), st.integers(0)
)
@settings(max_examples=60, deadline=None)
def test_shaken_boxes_stay_near_and_inside(x: int, y: int, w: int, h: int, seed: int) -> None:
    mask = np.zeros((48, 64), bool)
    mask[y : y + h, x : x + w] = True
    bottom, right = min(y + h, 48), min(x + w, 64)
    boxes = boxes_around(mask, (seed,))
    assert np.array_equal(boxes, boxes_around(mask, (seed,)))
    assert boxes.min() >= 0
    assert (boxes <= [64, 48, 64, 48]).all()
    slack = 0.1 * np.array([right - x, bottom - y] * 2) + 1e-4
    assert (abs(boxes - [x, y, right, bottom]) <= slack).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()


# ---- losses


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_mask_loss_is_zero_for_equal_masks_and_blind_elsewhere() -> None:
    target = 6 * noise(2, 3, 16, 16)
    prompted = torch.tensor([[True, False, True], [False, False, False]])
    equal = outputs.mask_loss(target, target, prompted)
    assert equal.tolist() == pytest.approx([0, 0], abs=1e-5)
    free = noise(2, 3, 32, 32, seed=1).requires_grad_()
    outputs.mask_loss(free, target, prompted).sum().backward()
    assert free.grad is not None
    assert (free.grad.abs().sum((2, 3)) > 0).equal(prompted)


def test_affinity_sees_relations_only() -> None:
    teacher = noise(2, 12, 8, 8)
    turn = torch.linalg.qr(noise(12, 12, seed=1))[0]
    turned = 3 * torch.einsum("ij,bjhw->bihw", turn, teacher) + 5
    assert outputs.affinity_loss(turned, teacher).tolist() == pytest.approx([0, 0], abs=1e-6)
    other = outputs.affinity_loss(noise(2, 5, 8, 8, seed=2), teacher)
    assert (other > 0.05).all()
    # Any number of channels and any grid can learn it.
    free = noise(2, 16, 16, 16, seed=3).requires_grad_()
    optimiser = torch.optim.Adam([free], 0.05)
    for _ in range(150):
        optimiser.zero_grad()
        loss = outputs.affinity_loss(free, teacher).sum()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.1 * other.sum().item()


def test_embedding_and_anchor_losses() -> None:
    target, anchors = noise(4, 6), torch.nn.functional.normalize(noise(3, 6, seed=1), dim=1)
    assert outputs.embedding_loss(2 * target, target).tolist() == pytest.approx([0] * 4, abs=1e-6)
    assert outputs.anchor_loss(target, target, anchors, 10).tolist() == pytest.approx(
        [0] * 4, abs=1e-6
    )
    # What the texts cannot tell apart costs nothing.
    blind = torch.linalg.svd(anchors)[2][3:]
    shifted = outputs.anchor_loss(target + blind[0], target, anchors, 10)
    assert shifted.tolist() == pytest.approx([0] * 4, abs=1e-4)
    assert (outputs.anchor_loss(-target, target, anchors, 10) > 0.01).all()
