"""How far may a picture be from those the packaged student learned from, before it fails?

    python changed_pictures.py [--model student.onnx]     # two minutes

40 simulated patients it never saw, of the ranges it was trained on, six frames each at 256×256, as
filmed and then changed in one way at a time: turned, another size, darker, noisier, blurred,
compressed. Where a change moves pixels, the truth moves with them. Dice as in a report.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vfss_distill.evaluate.metrics import score
from vfss_distill.evaluate.statistics import Row, summarise
from vfss_distill.inference.session import Segmenter, find_model
from vfss_distill.letterbox import Letterbox
from vfss_distill.simulate.options import SimulateOptions
from vfss_distill.simulate.study import simulate_study
from vfss_distill.workspace import Workspace

SEED, PATIENTS, FRAMES, EVERY, SIZE = 955_000, 40, 36, 6, 256

Picture = NDArray[np.uint8]
Masks = NDArray[np.uint8]  # (tasks, H, W), 0 or 1
Change = Callable[[Picture, Masks, np.random.Generator], tuple[Picture, Masks]]


def moved(
    picture: Picture,
    masks: Masks,
    _: np.random.Generator,
    *,
    size: float = 1.0,
    degrees: float = 0.0,
    width: float = 1.0,
) -> tuple[Picture, Masks]:
    """About the middle; black comes in from outside."""
    middle = (SIZE - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), degrees, size)
    matrix[0] *= width
    matrix[0, 2] += middle * (1 - width)
    shape = SIZE, SIZE
    truth = [cv2.warpAffine(mask, matrix, shape, flags=cv2.INTER_NEAREST) for mask in masks]
    return cv2.warpAffine(picture, matrix, shape), np.stack(truth)


def grey(
    change: Callable[[Any, np.random.Generator], Any],
    picture: Picture,
    masks: Masks,
    rng: np.random.Generator,
) -> tuple[Picture, Masks]:
    """Pixels stay where they are; `change` is given float32 of 0..255."""
    changed = change(picture.astype(np.float32), rng)
    return np.clip(changed, 0, 255).round().astype(np.uint8), masks


def gamma(power: float) -> Change:
    return partial(grey, lambda x, _: 255 * (x / 255) ** power)


def noise(deviation: float) -> Change:
    return partial(grey, lambda x, rng: x + rng.normal(0, deviation, x.shape))


def blur(sigma: float) -> Change:
    return partial(grey, lambda x, _: cv2.GaussianBlur(x, (0, 0), sigma))


def jpeg(quality: int) -> Change:
    def packed(x: Any, _: object) -> Any:
        options = [cv2.IMWRITE_JPEG_QUALITY, quality]
        return cv2.imdecode(
            cv2.imencode(".jpg", x.astype(np.uint8), options)[1], cv2.IMREAD_GRAYSCALE
        )

    return partial(grey, packed)


def reduced(side: int) -> Change:
    def small(x: Any, _: object) -> Any:
        return cv2.resize(cv2.resize(x, (side, side), interpolation=cv2.INTER_AREA), (SIZE, SIZE))

    return partial(grey, small)


def clahe(x: Any, _: object) -> Any:
    return cv2.createCLAHE(4, (8, 8)).apply(x.astype(np.uint8))


def combed(x: Any, _: object) -> Any:
    odd = (np.arange(SIZE) % 2 == 1)[:, None]
    return np.where(odd, np.roll(x, 4, axis=1), x)


CHANGES: Mapping[str, Change] = {
    "as filmed": lambda picture, masks, _: (picture, masks),
    "mirrored": lambda picture, masks, _: (picture[:, ::-1], masks[..., ::-1]),
    **{f"turned by {d}°": partial(moved, degrees=float(d)) for d in (-20, 20, 30)},
    **{f"{s} times the size": partial(moved, size=s) for s in (0.6, 0.75, 1.3, 1.6, 2.0)},
    "three quarters of the width": partial(moved, width=0.75),
    "polarity turned over": partial(grey, lambda x, _: 255 - x),
    "gamma .4": gamma(0.4),
    "gamma 2.5": gamma(2.5),
    "a third of the light": partial(grey, lambda x, _: 0.35 * x),
    "80 grey levels brighter, cut off at white": partial(grey, lambda x, _: x + 80),
    "a quarter of the contrast": partial(grey, lambda x, _: 100 + 0.25 * x),
    "twice the contrast": partial(grey, lambda x, _: 2 * x - 110),
    "local contrast (CLAHE)": partial(grey, clahe),
    **{f"noise of {n} grey levels": noise(n) for n in (15, 30, 50)},
    "blur of 2 pixels": blur(2.0),
    "blur of 3.5 pixels": blur(3.5),
    "JPEG, quality 15": jpeg(15),
    "JPEG, quality 6": jpeg(6),
    "128 pixels": reduced(128),
    "80 pixels": reduced(80),
    "fields 4 pixels apart": partial(grey, combed),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="instead of the packaged one")
    asked = parser.parse_args().model
    model = Segmenter(find_model(Workspace(Path.cwd()), str(asked) if asked else None), "cpu")
    films = list(filmed(model.tasks.ids))
    print(f"| {PATIENTS} patients | mean Dice | 95 % | bolus | the worst but the bolus |")
    print("|---|---|---|---|---|")
    for name, change in CHANGES.items():
        found = summarise(scored(model, films, change), model.tasks.ids)
        low, high = found.mean_dice_ci95 or (np.nan, np.nan)
        dice = {task.task: task.dice_mean or 0.0 for task in found.tasks}
        bolus = dice.pop("bolus")
        worst = min(dice, key=lambda task: dice[task])
        print(
            f"| {name} | {found.mean_dice:.3f} | {low:.3f}-{high:.3f} | {bolus:.3f} "
            f"| {worst} {dice[worst]:.3f} |",
            flush=True,
        )


def filmed(tasks: tuple[str, ...]) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Of each patient frames (n, H, W) and masks (n, tasks, H, W)."""
    for number in range(PATIENTS):
        options = SimulateOptions(size=SIZE, fps=12, frames=FRAMES)
        study = simulate_study((SEED << 32) + number, 0, options)
        masks = np.stack([study.masks[task][::EVERY] for task in tasks], axis=1)
        yield study.frames[::EVERY], masks.astype(np.uint8)


def scored(model: Segmenter, films: list[Any], change: Change) -> Iterator[Row]:
    rng = np.random.default_rng(0)
    limits = np.array([model.thresholds[task] for task in model.tasks.ids])[:, None, None]
    for number, (frames, masks) in enumerate(films):
        pairs = [change(*pair, rng) for pair in zip(frames, masks, strict=True)]
        squares = np.stack([np.ascontiguousarray(picture) for picture, _ in pairs])
        box = Letterbox.fit(SIZE, SIZE, model.side(squares))
        shown = model.probabilities(np.stack([box.frame(square) for square in squares])[:, None])
        maps = np.stack([box.undo(one) for one in shown])
        for frame, ((_, truth), found) in enumerate(zip(pairs, maps >= limits, strict=True)):
            for task, one, other in zip(model.tasks.ids, truth > 0, found, strict=True):
                name = f"patient {number}"
                yield Row(name, name, frame, task, score(one, other, distances=False))


if __name__ == "__main__":
    main()
