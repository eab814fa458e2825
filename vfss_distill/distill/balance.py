"""How teachers' losses are weighted: alike, by an MLP on the losses, by attention, or by dropping.

As published, both learned rules are trained on the very loss they weight, Σ α_i L_i, so the
cheapest way down is to put all weight on the easiest teacher, which is often the one that says
least. A floor under the entropy of α keeps that within bounds: the weights are mixed with equal
ones just as far as the floor demands. Better, and the default, is not to ask whose loss is low but
whose is falling: `relative` rules minimise Σ α_i r_i - τ H(α), r_i a loss over its own running
level, while the student minimises Σ α_i L_i with α given. Where all fall alike, weights go back to
equal. Dropping learns nothing: it looks away from teachers that a frame matches well already.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..config import Balancing, DistillConfig
from .processes import Processes

_ALONE = Processes()
_LEVEL_STEP = 0.1  # of the running level: about the last ten steps
_TENSION = 0.2  # τ: a loss 10 % below its level has e^.5 times the weight


class Balance(nn.Module):
    """Losses → weights α of T teachers, positive, summing to 1, entropy ≥ floor · log T.

    A `relative` rule sees each loss over its own running level, about 1, instead of the loss.

    `level` (T,): running mean of each teacher's loss, kept where `relative`; 0 before the first.
    """

    level: Tensor

    def __init__(self, teachers: int, floor: float = 0.0, *, relative: bool = False) -> None:
        super().__init__()
        self.teachers = teachers
        self.floor = floor
        self.relative = relative and teachers > 1
        self.register_buffer("level", torch.zeros(teachers))

    def weigh(
        self, losses: Tensor, frames: int, processes: Processes = _ALONE
    ) -> tuple[Tensor, Tensor]:
        """Losses of each frame here (T, b) of `frames` in the whole batch → α (T, b), and what a
        `relative` rule itself minimises, a scalar, 0 for all others. Moves the running level on.
        """
        seen = processes.total(losses.detach().sum(1)) / frames  # (T,)
        if self.relative:
            step = torch.full_like(seen, _LEVEL_STEP).masked_fill(self.level <= 0, 1.0)
            self.level.lerp_(seen.to(self.level.dtype), step.to(self.level.dtype))
            seen = seen / self.level.clamp_min(1e-6)
        free = torch.softmax(self.logits(seen), dim=0)
        alpha = hold_entropy(free, self.floor)[:, None].expand_as(losses)
        if not self.relative:
            return alpha, losses.new_zeros(())
        lesson = (free * (seen + _TENSION * torch.log(free.clamp_min(1e-6)))).sum()
        return alpha.detach(), lesson

    def logits(self, losses: Tensor) -> Tensor:
        return torch.zeros_like(losses)


class MlpBalance(Balance):
    """α = softmax(W₂ σ(W₁ L + b₁) + b₂), σ = tanh (arXiv 2504.02351, with W₂ of T rows)."""

    def __init__(
        self, teachers: int, floor: float, *, relative: bool = False, hidden: int = 16
    ) -> None:
        super().__init__(teachers, floor, relative=relative)
        self.inner = nn.Linear(teachers, hidden)
        self.outer = nn.Linear(hidden, teachers)
        nn.init.zeros_(self.outer.weight)  # start from equal weights
        nn.init.zeros_(self.outer.bias)

    def logits(self, losses: Tensor) -> Tensor:
        return self.outer(torch.tanh(self.inner(losses)))


class AttentionBalance(Balance):
    """α_i = softmax(qᵀ k_i / √d), q and k_i learned (arXiv 2504.02351; k_i as free vectors)."""

    def __init__(
        self, teachers: int, floor: float, *, relative: bool = False, width: int = 16
    ) -> None:
        super().__init__(teachers, floor, relative=relative)
        self.query = nn.Parameter(torch.randn(width))
        self.keys = nn.Parameter(torch.zeros(teachers, width))  # start from equal weights

    def logits(self, losses: Tensor) -> Tensor:
        return self.keys @ self.query / math.sqrt(len(self.query))


class DropBalance(Balance):
    """Per frame, the worst-matched teacher stays and each other is dropped with a probability.

    Teacher dropping of UNIC (Sarıyıldız et al. 2024), where the probability is .5; here those that
    stay share the frame's weight. Draws from torch's generator, the same in every process.
    """

    def __init__(self, teachers: int, probability: float = 0.5) -> None:
        super().__init__(teachers)
        self.probability = probability

    def weigh(
        self, losses: Tensor, frames: int, processes: Processes = _ALONE
    ) -> tuple[Tensor, Tensor]:
        mine = processes.part(frames)
        draws = torch.rand(self.teachers, frames)[:, mine].to(losses.device)
        stays = draws >= self.probability
        stays.scatter_(0, losses.detach().argmax(0, keepdim=True), value=True)
        return stays.to(losses.dtype) / stays.sum(0), losses.new_zeros(())


def build_balance(config: DistillConfig, teachers: int) -> Balance:
    """The rule of the settings; a single teacher has all weight anyway."""
    if teachers < 2 or config.balancing == "uniform":
        return Balance(teachers)
    if config.balancing == "drop":
        return DropBalance(teachers, config.drop_probability)
    rules: dict[Balancing, type[Balance]] = {"mlp": MlpBalance, "attention": AttentionBalance}
    rule = rules[config.balancing]
    return rule(teachers, config.entropy_floor, relative=config.relative_losses)


def entropy(alpha: Tensor) -> float:
    """In nats; 0 for all weight on one, log T for equal weights."""
    alpha = alpha.detach()
    return float(-(alpha * alpha.clamp_min(1e-30).log()).sum())


def hold_entropy(alpha: Tensor, floor: float) -> Tensor:
    """(1 - m) α + m / T with the smallest m that brings the entropy to `floor` · log T.

    Entropy is concave and greatest at equal weights, so it grows with m: bisection. m is a
    constant to the gradient.
    """
    teachers = len(alpha)
    wanted = floor * math.log(teachers)
    if teachers == 1 or entropy(alpha) >= wanted:
        return alpha
    weights = alpha.detach().double().cpu()
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if entropy((1 - middle) * weights + middle / teachers) < wanted:
            low = middle
        else:
            high = middle
    return (1 - high) * alpha + high / teachers
