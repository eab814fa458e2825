"""What a student is pulled by: losses, and how teachers are balanced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_lab import run, same, tiny_lab
from vfss_distill.config import DistillConfig
from vfss_distill.distill import balance, losses
from vfss_distill.distill.journal import draw_curves
from vfss_distill.distill.loop import fading
from vfss_distill.distill.processes import Processes
from vfss_distill.tasks import VFSS12
from vfss_distill.workspace import Workspace


@pytest.fixture(autouse=True)
def _same_threads() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def lab(tmp_path: Path) -> Workspace:
    return tiny_lab(tmp_path)


# ---- losses


def test_task_loss_sees_only_what_is_labelled() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 8, 8, generator=generator, requires_grad=True)
    masks = (torch.rand(3, 4, 8, 8, generator=generator) > 0.6).float()
    labelled = torch.tensor([[1, 0, 1, 0], [0, 0, 1, 0], [1, 1, 0, 0]], dtype=torch.bool)
    loss = losses.task_loss(logits, masks, labelled)
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad.abs().sum((2, 3)) > 0).equal(labelled)
    wrong = torch.where(labelled[:, :, None, None], masks, 1 - masks)
    assert torch.equal(losses.task_loss(logits, wrong, labelled), loss)
    nothing = losses.task_loss(logits, masks, torch.zeros_like(labelled))
    assert nothing.item() == 0


def test_task_loss_agrees_with_monai() -> None:
    from monai.losses import DiceLoss

    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 4, 16, 16, generator=generator)
    masks = (torch.rand(3, 4, 16, 16, generator=generator) > 0.7).float()
    shape = {"sigmoid": True, "squared_pred": True, "smooth_nr": 0, "smooth_dr": 0}
    whole, apart = DiceLoss(batch=True, **shape), DiceLoss(batch=False, **shape)
    bce = torch.nn.BCEWithLogitsLoss()
    known = torch.ones(3, 4, dtype=torch.bool)
    ours = losses.task_loss(logits, masks, known, presence_weight=0)
    dice = (whole(logits, masks) + apart(logits, masks)) / 2
    assert ours.item() == pytest.approx((dice + bce(logits, masks)).item(), abs=1e-5)


def test_a_trace_costs_as_much_as_a_mouthful_when_it_is_missed() -> None:
    masks = torch.zeros(2, 1, 32, 32)
    masks[0, :, :20, :20], masks[1, :, 28:31, 28:31] = 1, 1
    known = torch.ones(2, 1, dtype=torch.bool)
    right = 12 * (masks - 0.5)
    missed = []
    for frame in (0, 1):
        logits = right.clone()
        logits[frame] = -6.0
        missed.append(losses.task_loss(logits, masks, known).item())
    assert min(missed) > 0.25  # half of one map in two, whatever its size


def test_a_task_counts_as_much_as_its_weight() -> None:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(2, 3, 16, 16, generator=generator, requires_grad=True)
    masks = (torch.rand(2, 3, 16, 16, generator=generator) > 0.7).float()
    known = torch.ones(2, 3, dtype=torch.bool)

    def pull(*weights: float) -> torch.Tensor:
        loss = losses.task_loss(logits, masks, known, weights=torch.tensor(weights))
        (slope,) = torch.autograd.grad(loss, logits)
        return slope.abs().sum((0, 2, 3))

    even = pull(1, 1, 1)
    torch.testing.assert_close(pull(4, 1, 1) / even, torch.tensor([2.0, 0.5, 0.5]))
    torch.testing.assert_close(pull(0, 1, 1) / even, torch.tensor([0.0, 1.5, 1.5]))
    torch.testing.assert_close(pull(0.1, 0.1, 0.1), even)  # against one another, nothing else


def test_a_small_false_mask_costs_presence_as_much_as_a_large_one() -> None:
    empty = torch.zeros(1, 1, 32, 32)
    known = torch.ones(1, 1, dtype=torch.bool)
    small, large, none = (torch.full_like(empty, -6.0) for _ in range(3))
    small[..., 8:12, 8:12], large[..., 8:24, 8:24] = 3.0, 3.0
    costs = [
        losses.task_loss(x, empty, known).item()
        - losses.task_loss(x, empty, known, presence_weight=0).item()
        for x in (small, large, none)
    ]
    assert costs[0] == pytest.approx(costs[1], rel=1e-3)
    assert costs[0] > 100 * costs[2]


def test_dice_of_empty_truth() -> None:
    empty, full = torch.zeros(1, 1, 4, 4, dtype=torch.bool), torch.ones(1, 1, 4, 4).bool()
    assert torch.isnan(losses.dice_scores(empty, empty)).all()
    assert losses.dice_scores(full, empty).item() == 0
    assert losses.dice_scores(full, full).item() == 1


def test_feature_loss_is_zero_for_equal_features() -> None:
    maps = torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    assert losses.feature_loss(maps, maps).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert losses.feature_loss(maps, -maps).min() > 1


def test_what_teachers_say_fades_where_asked() -> None:
    plan = DistillConfig(align_steps=100, task_steps=200)
    assert [fading(step, plan) for step in (100, 299)] == [1, 1]
    plan = plan.model_copy(update={"align_fades": True})
    assert [fading(step, plan) for step in (100, 200)] == pytest.approx([1, 0.5])
    assert 0 < fading(299, plan) < 0.01


# ---- balancing


def settle(rule: type[balance.Balance], floor: float) -> torch.Tensor:
    """Weights after training on losses of which one is the easiest."""
    torch.manual_seed(0)
    weigher = rule(3, floor)
    optimiser = torch.optim.Adam(weigher.parameters(), lr=0.05)
    levels = torch.tensor([0.9, 0.2, 0.6])
    for _ in range(400):
        optimiser.zero_grad()
        (weigher.weigh(levels[:, None], 1)[0][:, 0] * levels).sum().backward()
        optimiser.step()
    return weigher.weigh(levels[:, None], 1)[0][:, 0].detach()


@pytest.mark.parametrize("rule", [balance.MlpBalance, balance.AttentionBalance])
def test_without_a_floor_all_weight_goes_to_the_easiest(rule: type[balance.Balance]) -> None:
    collapsed = settle(rule, floor=0.0)
    assert collapsed.argmax() == 1
    assert collapsed.max() > 0.99
    held = settle(rule, floor=0.7)
    assert balance.entropy(held) >= 0.7 * np.log(3) - 1e-5
    assert held.min() > 0.05
    assert held.sum().item() == pytest.approx(1)


@pytest.mark.parametrize("rule", [balance.MlpBalance, balance.AttentionBalance])
def test_relative_weights_follow_what_falls_and_come_back(rule: type[balance.Balance]) -> None:
    """Even without a floor: a teacher that is matched well all along is no reason to look at it."""
    torch.manual_seed(0)
    weigher = rule(3, 0.0, relative=True)
    optimiser = torch.optim.Adam(weigher.parameters(), lr=0.01)
    levels = torch.tensor([0.9, 0.2, 0.6])
    history = []
    for step in range(500):
        falling = torch.tensor([1.0, 1.0, 0.97 ** min(step, 60)])
        seen = (levels * falling)[:, None] * (1 + 0.05 * torch.randn(3, 8))
        alpha, lesson = weigher.weigh(seen, 8)
        assert not alpha.requires_grad  # the student is not to choose its teacher
        history.append(alpha[:, 0])
        optimiser.zero_grad()
        lesson.backward()
        optimiser.step()
    assert history[60].argmax() == 2
    assert history[60][2] > 0.4
    assert torch.stack(history[-50:]).mean(0).tolist() == pytest.approx([1 / 3] * 3, abs=0.06)


def test_rules_that_are_not_relative_have_no_lesson_of_their_own() -> None:
    seen = torch.rand(2, 4)
    alpha, lesson = balance.MlpBalance(2, 0.7).weigh(seen, 4)
    assert lesson.item() == 0
    assert alpha.requires_grad


@given(st.integers(2, 5), st.integers(1, 9), st.floats(0, 0.99), st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_dropping_keeps_the_worst_matched_of_each_frame(
    teachers: int, frames: int, probability: float, seed: int
) -> None:
    rule = balance.DropBalance(teachers, probability)
    matched = torch.rand(teachers, frames, generator=torch.Generator().manual_seed(seed))
    torch.manual_seed(seed)
    alpha, _ = rule.weigh(matched, frames)
    assert alpha.sum(0).tolist() == pytest.approx([1] * frames)
    assert (alpha.gather(0, matched.argmax(0, keepdim=True)) > 0).all()
    shares = [alpha[:, frame][alpha[:, frame] > 0] for frame in range(frames)]
    assert all(torch.equal(share, share[:1].expand_as(share)) for share in shares)
    # Of several processes, each sees its columns of the same draw.
    parts = []
    for rank in range(min(2, frames)):
        some = Processes(rank, min(2, frames))
        torch.manual_seed(seed)
        parts.append(rule.weigh(matched[:, some.part(frames)], frames, some)[0])
    assert torch.equal(torch.cat(parts, dim=1), alpha)


def test_dropping_drops_as_often_as_asked() -> None:
    torch.manual_seed(0)
    matched = torch.tensor([[0.9], [0.2], [0.6]]).expand(3, 4000)
    kept = (balance.DropBalance(3, 0.3).weigh(matched, 4000)[0] > 0).float().mean(1)
    assert kept.tolist() == pytest.approx([1, 0.7, 0.7], abs=0.03)
    assert (balance.DropBalance(3, 0.0).weigh(matched, 4000)[0] == 1 / 3).all()


def test_a_run_with_dropping_logs_its_weights(lab: Workspace) -> None:
    done = run(lab, teachers=("medsam", "raddino"), balancing="drop", drop_probability=0.8)
    text = (done.folder / "metrics.jsonl").read_text()
    alphas = [json.loads(line)["alpha"] for line in text.splitlines()]
    assert all(sum(alpha.values()) == pytest.approx(1, abs=1e-4) for alpha in alphas)
    assert any(abs(alpha["medsam"] - 0.5) > 0.2 for alpha in alphas)
    draw_curves(done.folder / "metrics.jsonl", done.folder / "curves.svg", VFSS12)
    curves = (done.folder / "curves.svg").read_text()
    assert "weight α of each teacher" in curves
    assert "#aa4b00" in curves  # the bolus in its own colour, darker
    assert same(done, run(lab, teachers=("medsam", "raddino"), balancing="drop",
                          drop_probability=0.8))  # fmt: skip


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=5), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_entropy_floor_always_holds(logits: list[float], floor: float) -> None:
    alpha = balance.hold_entropy(torch.softmax(torch.tensor(logits).double(), 0), floor)
    assert balance.entropy(alpha) >= floor * np.log(len(logits)) - 1e-6
    assert alpha.sum().item() == pytest.approx(1)
