"""From the student's map to each teacher's, and the weighing of teachers: used in training only."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..config import DistillConfig
from ..models.decoder import pool_to
from .balance import build_balance


class Projector(nn.Module):
    """1×1 → norm → GELU → the teacher's grid → 1×1.

    Pooled before the last convolution: the same result as after it, at a fraction of the cost.
    """

    def __init__(self, inputs: int, outputs: int, grid: int) -> None:
        super().__init__()
        hidden = min(256, max(inputs, outputs))
        self.grid = grid
        self.lift = nn.Sequential(
            nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.GELU()
        )
        self.out = nn.Conv2d(hidden, outputs, 1)

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, E, grid, grid) → (B, C, g, g)."""
        return self.out(pool_to(self.lift(embedding), self.grid))


class Heads(nn.Module):
    """Projectors and balancing: no parameter of these reaches the exported student."""

    def __init__(
        self,
        inputs: int,
        teachers: Sequence[tuple[int, int]],
        config: DistillConfig,
        embeddings: Sequence[int] = (),
    ) -> None:
        """`inputs`: the student's channels; `teachers`: channels and grid of each; `embeddings`:
        length of each embedding of whole frames."""
        super().__init__()
        self.projectors = nn.ModuleList(
            Projector(inputs, channels, grid) for channels, grid in teachers
        )
        self.balance = build_balance(config, len(teachers))
        self.embedders = nn.ModuleList(Projector(inputs, length, 1) for length in embeddings)
