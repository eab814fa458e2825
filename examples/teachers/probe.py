"""Does a teacher know more than its untrained self? A linear probe on the twelve tasks.

    python probe.py --weights build/teachers     # prints a table; minutes on two cores

Features of a teacher are frozen; one 1×1 convolution per task (logistic regression) is fitted on
some simulated patients of the student's population and tried on others. Dice at the teacher's own
grid: truth area-averaged to the grid and cut at one half, prediction cut where Dice is best on the
patients fitted on (a hyoid rarely fills a cell of a coarse grid, so one half would mean nothing).
Mean over patients, 95 % interval by bootstrap over patients.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vfss_distill.models.teachers.card import load_card
from vfss_distill.models.teachers.registry import load_teacher
from vfss_distill.models.teachers.small import (
    build_small_clip,
    build_small_dino,
    build_small_sam,
    save_published_layout,
)
from vfss_distill.simulate.study import SimulateOptions, simulate_study
from vfss_distill.tasks import VFSS12

BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "small-sam": build_small_sam,
    "small-dino": build_small_dino,
    "small-clip": build_small_clip,
}
FIRST_SEED = 7_000_000
FRAMES = 6


def patients(first: int, count: int) -> list[tuple[Tensor, Tensor]]:
    """Per patient: frames uint8 (F, 256, 256) and masks float (F, 12, 256, 256)."""
    options = SimulateOptions(size=256, fps=2, pulses=2, seconds=FRAMES / 2, extras=False)
    made = []
    for number in range(count):
        study = simulate_study(first + number, 0, options)
        masks = np.stack([study.masks[task] for task in VFSS12.ids], axis=1)
        made.append((torch.from_numpy(study.frames), torch.from_numpy(masks).float()))
    return made


def probe(name: str, weights: Path, fit: list, trial: list) -> np.ndarray:
    """Dice (patients, tasks) on `trial`; NaN where a task is in none of a patient's frames."""
    teacher = load_teacher(load_card(name), weights)
    seen = torch.cat([teacher.features(frames) for frames, _ in fit])
    mean, std = seen.mean((0, 2, 3), keepdim=True), seen.std((0, 2, 3), keepdim=True) + 1e-4
    grid = seen.shape[-1]
    goal = torch.cat([functional.adaptive_avg_pool2d(masks, grid) for _, masks in fit])
    head = nn.Conv2d(seen.shape[1], len(VFSS12), 1)
    optimiser = torch.optim.LBFGS(
        head.parameters(), max_iter=150, history_size=10, line_search_fn="strong_wolfe"
    )
    seen = (seen - mean) / std

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = functional.binary_cross_entropy_with_logits(head(seen), goal)
        loss = loss + 1e-5 * head.weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    with torch.no_grad():
        cut = best_cut(head(seen), goal >= 0.5)
    rows = []
    for frames, masks in trial:
        with torch.no_grad():
            said = head((teacher.features(frames) - mean) / std) > cut
        truth = functional.adaptive_avg_pool2d(masks, grid) >= 0.5
        rows.append(dice(said, truth, (2, 3)).nanmean(0).numpy())  # 0/0: in neither, not counted
    return np.array(rows)


def dice(said: Tensor, truth: Tensor, axes: tuple[int, ...]) -> Tensor:
    return 2 * (said & truth).sum(axes).double() / (said.sum(axes) + truth.sum(axes)).double()


def best_cut(logits: Tensor, truth: Tensor) -> Tensor:
    """→ (1, T, 1, 1): per task the logit at which Dice over all cells is best."""
    cuts = torch.linspace(-4, 2, 25)
    scores = torch.stack([dice(logits > cut, truth, (0, 2, 3)) for cut in cuts])
    return cuts[scores.nan_to_num().argmax(0)][None, :, None, None]


def interval(values: np.ndarray) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    picks = rng.integers(len(values), size=(2000, len(values)))
    low, high = np.percentile(np.nanmean(values[picks], axis=1), (2.5, 97.5))
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--patients", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=list(BUILDERS))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    fit = patients(FIRST_SEED, options.patients)
    trial = patients(FIRST_SEED + 1000, options.patients)
    print(f"| teacher | {' | '.join(VFSS12.ids)} | mean | 95 % |")
    print("|" + "---|" * (len(VFSS12) + 3))
    with tempfile.TemporaryDirectory() as folder:
        for name, build in BUILDERS.items():
            if options.only not in (None, name):
                continue
            torch.manual_seed(0)
            untrained = Path(folder) / f"{name}.safetensors"
            save_published_layout(build(), untrained, half=True)
            for label, path in (
                (name, options.weights / f"{name}.safetensors"),
                (f"{name}, untrained", untrained),
            ):
                scores = probe(name, path, fit, trial)
                low, high = interval(np.nanmean(scores, axis=1))
                cells = " | ".join(f"{value:.2f}" for value in np.nanmean(scores, axis=0))
                print(
                    f"| {label} | {cells} | {np.nanmean(scores):.3f} | {low:.3f}-{high:.3f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
