"""Train the small network by which `vfss ingest` tells view and side; all of it is simulated.

    python train.py --out ../../models/weights/view-side.npz         # about five minutes, one core

torch is used here only: what is written is a NumPy archive that ingest runs without it. Then

    python figures.py --patients 400

measures it on patients it never saw and writes what docs/view.md quotes.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from films import FRONTAL, LEFT, OTHER, RIGHT, Film, stranger, training_films, varied
from torch import Tensor, nn
from torch.nn import functional

from vfss_distill.intake.view_model import CLASSES, STRIDES, prepare

FIRST_SEED = 20_000_000  # far from every student's, teacher's and test patient's
CHANNELS = (16, 32, 48, 64, 64)
SHARES = (0.34, 0.34, 0.18, 0.14)  # of left, right, frontal, other in a batch


class Network(nn.Module):
    """(B, 1, 64, 64) → logits (B, 4). Normalised over the batch in training, folded when saved."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions, self.norms = nn.ModuleList(), nn.ModuleList()
        before = 1
        for channels, stride in zip(CHANNELS, STRIDES, strict=True):
            self.convolutions.append(nn.Conv2d(before, channels, 3, stride, 1, bias=False))
            self.norms.append(nn.BatchNorm2d(channels))
            before = channels
        self.out = nn.Linear(before * 16, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = functional.relu(norm(convolution(x)))
        return self.out(functional.dropout(x.flatten(1), 0.3, self.training))

    def folded(self) -> dict[str, Tensor]:
        """Weights by the names that `view_model` reads, batch norms folded in."""
        stored: dict[str, Tensor] = {"out": self.out.weight, "out_bias": self.out.bias}
        for n, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            stored[f"conv{n}"] = convolution.weight * scale[:, None, None, None]
            stored[f"bias{n}"] = norm.bias - norm.running_mean * scale
        return stored


class Batches:
    """Endless varied batches from a fixed set of films."""

    def __init__(self, films: list[Film], seed: int) -> None:
        self._films = {
            kind: [film for film in films if film.kind == kind or (film.plain and kind == RIGHT)]
            for kind in (LEFT, RIGHT, FRONTAL)
        }
        self._rng = np.random.default_rng(seed)

    def draw(self, size: int) -> tuple[Tensor, Tensor]:
        kinds = self._rng.choice(len(CLASSES), size, p=SHARES)
        pictures = np.stack([prepare(self._one(int(kind))) for kind in kinds])
        return torch.from_numpy(pictures)[:, None], torch.from_numpy(kinds)

    def _one(self, kind: int) -> np.ndarray:
        rng = self._rng
        films = self._films[LEFT if kind == OTHER else kind]
        film = films[int(rng.integers(len(films)))]
        grey = film.frames[int(rng.integers(len(film.frames)))]
        if kind == OTHER:
            grey = stranger(rng, grey)
        # Mirrored before more is written on it.
        if kind == RIGHT and film.kind == LEFT:
            grey = np.ascontiguousarray(grey[:, ::-1])
        return varied(rng, grey)


def train(network: Network, batches: Batches, steps: int, size: int) -> None:
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3, weight_decay=0.03)
    started, total = time.process_time(), 0.0
    for step in range(steps):
        share = min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * share
        pictures, kinds = batches.draw(size)
        loss = functional.cross_entropy(network(pictures), kinds, label_smoothing=0.02)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        total += loss.item()
        if (step + 1) % 100 == 0:
            seconds = time.process_time() - started
            print(f"step {step + 1} loss {total / 100:.3f} {seconds:.0f} s", flush=True)
            total = 0.0


def save(network: Network, path: Path) -> None:
    """fp16, named arrays, no pickle."""
    arrays = {name: value.detach().half().numpy() for name, value in network.folded().items()}
    np.savez_compressed(path, **arrays)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--patients", type=int, default=1600)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--populations", nargs="+", default=["train", "shifted"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    started = time.process_time()
    films = list(training_films(options.patients, FIRST_SEED, tuple(options.populations)))
    print(f"{len(films)} films {time.process_time() - started:.0f} s", flush=True)
    network = Network()
    train(network, Batches(films, seed=1), options.steps, options.batch)
    save(network.eval(), options.out)
    print(f"{options.out.name}: {options.out.stat().st_size} bytes, "
          f"{time.process_time() - started:.0f} CPU seconds")  # fmt: skip


if __name__ == "__main__":
    main()
