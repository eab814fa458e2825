"""What is no upright swallow at all: noise, test patterns, other X-ray-like pictures, turned films.

A network that has only ever seen swallows would be sure of anything; this is what it learns to be
unsure about. Nothing here is a real picture.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from vfss_distill.simulate.curves import ribbon, smooth
from vfss_distill.simulate.raster import rasterise

Grey = NDArray[np.uint8]
Draw = Callable[[np.random.Generator, int], Grey]


def other_picture(rng: np.random.Generator, size: int, lateral: Grey) -> Grey:
    """One picture (size, size); `lateral` is a lateral frame, which some kinds turn or scramble."""
    kind = int(rng.integers(10))
    if kind < 3:  # a film on its side or on its head
        turned: Grey = np.ascontiguousarray(np.rot90(lateral, 1 + kind))
        return turned
    if kind == 3:
        return _scrambled(rng, lateral)
    draws: tuple[Draw, ...] = (_flat, _pattern, _clouds, _vessels, _blocks, _tissue)
    return draws[kind - 4](rng, size)


def _flat(rng: np.random.Generator, size: int) -> Grey:
    """A blank or ramped picture with more or less noise."""
    rows, columns = np.mgrid[0:size, 0:size] / size
    slope = rng.uniform(-120, 120, 2) * (rng.random() < 0.5)
    image = rng.uniform(0, 255) + slope[0] * rows + slope[1] * columns
    image = image + rng.normal(0, rng.choice([0.5, 8, 40]), image.shape)
    return _grey(image)


def _pattern(rng: np.random.Generator, size: int) -> Grey:
    """Chequers, bars, rings: what engineers film."""
    rows, columns = np.mgrid[0:size, 0:size] / size
    period = rng.uniform(2, 24)
    kind = int(rng.integers(4))
    if kind == 0:
        image = ((rows * period).astype(int) + (columns * period).astype(int)) % 2 * 255.0
    elif kind == 1:
        image = (columns * period).astype(int) % 8 * 32.0
    elif kind == 2:
        image = 127 + 127 * np.sin(np.hypot(rows - 0.5, columns - 0.5) * period * 4)
    else:
        image = 127 + 127 * np.sin((rows * rng.normal() + columns * rng.normal()) * period * 3)
    return _grey(image + rng.normal(0, 6, image.shape))


def _clouds(rng: np.random.Generator, size: int) -> Grey:
    image = np.zeros((size, size))
    for cells in rng.choice([2, 3, 5, 9, 17, 33], 3, replace=False):
        field = rng.standard_normal((cells, cells)).astype(np.float32)
        image += cv2.resize(field, (size, size), interpolation=cv2.INTER_CUBIC)
    return _grey(128 + 50 * image + rng.normal(0, 6, image.shape))


def _vessels(rng: np.random.Generator, size: int) -> Grey:
    """Dark branching lines on clouds, with ribs: an angiogram's look."""
    image = _clouds(rng, size).astype(np.float32) * 0.4 + 90
    for _ in range(int(rng.integers(2, 6))):
        start = rng.uniform(0, size, 2)
        steps = rng.normal(0, size / 12, (6, 2)) + rng.normal(0, size / 10, 2)
        line = smooth(start + np.cumsum(steps, axis=0), closed=False)
        widths = np.linspace(size / rng.uniform(14, 40), 1.0, len(line))
        patch = rasterise([ribbon(line, widths)], (size, size))
        image -= rng.uniform(30, 90) * patch.full((size, size))
    return _grey(image + rng.normal(0, 5, image.shape))


def _blocks(rng: np.random.Generator, size: int) -> Grey:
    """Squares and discs, as in test films and phantoms."""
    image = np.full((size, size), rng.uniform(0, 255), np.float32)
    for _ in range(int(rng.integers(1, 9))):
        x, y, side = (int(v) for v in rng.uniform((0, 0, 4), (size, size, size / 2)))
        ink = float(rng.uniform(0, 255))
        if rng.random() < 0.5:
            cv2.rectangle(image, (x, y), (x + side, y + side), ink, -1)
        else:
            cv2.circle(image, (x, y), side // 2, ink, -1)
    return _grey(image + rng.normal(0, 4, image.shape))


def _tissue(rng: np.random.Generator, size: int) -> Grey:
    """Rounded bodies upon one another with a bony rim: a limb, a belly, a head from nowhere."""
    image = np.zeros((size, size), np.float32)
    for _ in range(int(rng.integers(2, 7))):
        angle = np.linspace(0, 2 * np.pi, 9)[:-1]
        radius = rng.uniform(0.08, 0.5) * size * rng.uniform(0.7, 1.3, 8)
        outline = np.column_stack([np.cos(angle), np.sin(angle)]) * radius[:, None]
        patch = rasterise([smooth(outline + rng.uniform(0, size, 2))], (size, size))
        image += rng.uniform(-0.4, 1.0) * patch.rounded(size * rng.uniform(0.05, 0.3)).full(
            (size, size)
        )
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 2.5))
    span = max(float(image.max() - image.min()), 1e-3)
    return _grey((image - image.min()) / span * 255 + rng.normal(0, 6, image.shape))


def _scrambled(rng: np.random.Generator, lateral: Grey) -> Grey:
    """Quarters of a film in another order: its texture without its anatomy."""
    size = min(lateral.shape)
    cells = int(rng.choice([2, 3, 4]))
    side = size // cells
    tiles = [
        lateral[r * side : (r + 1) * side, c * side : (c + 1) * side]
        for r in range(cells)
        for c in range(cells)
    ]
    order = np.roll(np.arange(len(tiles)), int(rng.integers(1, len(tiles))))
    if cells > 2:
        order = rng.permutation(len(tiles))
    rows = [np.hstack([tiles[i] for i in order[r * cells :][:cells]]) for r in range(cells)]
    return np.ascontiguousarray(np.vstack(rows))


def _grey(image: NDArray[np.floating]) -> Grey:
    return np.clip(image, 0, 255).astype(np.uint8)
