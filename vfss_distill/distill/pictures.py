"""features.png of a run: what the student and each teacher see in the same frames, as colours.

The first three principal components of a model's features become red, green and blue, fitted for
each model by itself over the frames shown. Colours of two models cannot be compared; where edges
run, and what stands out from what, can.

    shown = shown_in(found)
    look_at(teacher, "medsam", shown, folder)            # while the teacher is in memory
    draw_features(folder, student, shown)                # at the end
"""

from __future__ import annotations

import contextlib
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from ..workspace import atomic_path, write_bytes
from .cache import full_square
from .data import Frames, Key

if TYPE_CHECKING:
    from ..intake.study import Study
    from ..models.students import Student
    from .survey import Survey

Floats = NDArray[np.float32]
Colours = NDArray[np.uint8]

FILE = "features.png"
COLOURS = "teacher_colours.safetensors"  # kept, so that a resumed run need not look again
_FRAMES = 4


@dataclass(frozen=True)
class Shown:
    """Which frames the pictures are of."""

    studies: Sequence[Study]
    keys: Sequence[Key]

    def inside(self, grid: int) -> NDArray[np.bool_]:
        """(n, grid, grid): cells of which at least half is frame, not the letterbox's black."""
        boxes = []
        for number, _ in self.keys:
            box = self.studies[number].letterbox(grid)
            boxes.append(box.mask(np.ones((box.height, box.width), bool)))
        return np.stack(boxes)


def frames_to_show(studies: Sequence[Study], labelled: Sequence[Key]) -> Shown:
    """The middle labelled frame of up to four of the studies, or simply the middle one."""
    count = min(_FRAMES, len(studies))
    keys = []
    for number in sorted({round(n) for n in np.linspace(0, len(studies) - 1, count)}):
        frames = [frame for study, frame in labelled if study == number]
        frames = frames or list(range(studies[number].record.frames))
        keys.append((number, frames[len(frames) // 2]))
    return Shown(studies, keys)


def shown_in(found: Survey) -> Shown:
    """Frames of validation patients, where there are any."""
    if found.val:
        return frames_to_show(found.val, found.val_labelled)
    return frames_to_show(found.train, found.train_labelled)


def look_at(teacher: Any, name: str, shown: Shown, folder: Path) -> None:
    """Keep the colours of a teacher's own map in the run's folder, unless they are there.

    `teacher.features(uint8 (B, H, W)) → float32 (B, C, g, g)`. Raises StorageError.
    """
    kept = _kept(folder)
    if not shown.keys or any(key.startswith(f"{name}.") for key in kept):
        return
    squares = [full_square(shown.studies[number], frame) for number, frame in shown.keys]
    maps = [teacher.features(torch.from_numpy(square)[None]).cpu().numpy() for square in squares]
    stack = np.nan_to_num(np.concatenate(maps))
    colours = principal_colours(stack, shown.inside(stack.shape[-1]))
    kept[f"{name}.{stack.shape[1]}"] = colours
    write_bytes(folder / COLOURS, save(kept))


def _kept(folder: Path) -> dict[str, Any]:
    """ "<teacher>.<channels>" → colours (n, g, g, 3)."""
    with contextlib.suppress(OSError, SafetensorError):
        return dict(load_file(folder / COLOURS))
    return {}


def principal_colours(maps: Floats, inside: NDArray[np.bool_]) -> Colours:
    """Maps (n, C, g, g) → colours uint8 (n, g, g, 3): three principal components.

    Fitted over the cells `inside` (n, g, g) the pictures, each component stretched from its 1st to
    its 99th percentile; cells outside are black. Deterministic: the largest weight of a component
    is positive.
    """
    cells = maps.transpose(0, 2, 3, 1).astype(np.float64)  # (n, g, g, C)
    fitted = cells[inside]
    mean = fitted.mean(0)
    covariance = np.cov((fitted - mean).T).reshape(maps.shape[1], maps.shape[1])
    axes = np.linalg.eigh(covariance)[1][:, ::-1][:, :3]  # (C, 3), largest variance first
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), range(axes.shape[1])])
    colours = np.zeros((*cells.shape[:3], 3))
    turned = (cells - mean) @ axes
    for part in range(axes.shape[1]):
        low, high = np.percentile(turned[inside][:, part], (1, 99))
        colours[..., part] = ((turned[..., part] - low) / max(high - low, 1e-12)).clip(0, 1)
    colours[~inside] = 0
    return (255 * colours).round().astype(np.uint8)


def draw_features(folder: Path, student: Student, shown: Shown) -> None:
    """Write features.png: a row a frame; columns frame, student, each teacher looked at.

    Raises StorageError.
    """
    if not shown.keys:
        return
    config = student.config
    frames = Frames(
        shown.studies,
        shown.keys,
        size=config.image_size,
        context=config.context,
        budget_bytes=1 << 30,
    )
    maps = _student_maps(student, frames, shown.keys)
    grid = maps.shape[-1]
    columns = {
        "frame": np.stack([frames.batch([key])[0, config.context].numpy() for key in shown.keys]),
        f"student\n{maps.shape[1]} × {grid} × {grid}": principal_colours(maps, shown.inside(grid)),
    }
    for key, colours in _kept(folder).items():
        name, _, channels = key.rpartition(".")
        grid = colours.shape[1]
        columns[f"{name}\n{channels} × {grid} × {grid}"] = colours
    draw_table(columns, folder / FILE)


@torch.no_grad()
def _student_maps(student: Student, frames: Frames, keys: Sequence[Key]) -> Floats:
    """→ (n, E, S/8, S/8): the fused map, finer than the grid on which it was aligned."""
    student.eval()
    device = next(student.parameters()).device
    fused = [student.pyramid(frames.batch([key]).to(device))[0] for key in keys]
    maps: Floats = torch.cat(fused).float().cpu().numpy()
    return maps


def draw_table(
    columns: Mapping[str, Colours],
    target: Path,
    legend: Mapping[str, tuple[int, int, int]] | None = None,
    words: str = "",
) -> None:
    """Pictures uint8 (n, h, w) or (n, h, w, 3) as a PNG: by title a column, a row for each of n;
    below them `legend`, names with colours, and `words`. Raises StorageError."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import Patch

    rows, wide = max(map(len, columns.values())), 2.6 * len(columns)
    lines = [part for line in words.splitlines() for part in textwrap.wrap(line, round(15 * wide))]
    in_row = int(1.6 * len(columns))
    below = 0.17 * len(lines)
    if legend:
        below += 0.2 + 0.19 * math.ceil(len(legend) / in_row)
    high = 2.6 * rows + 0.5 + below
    with plt.rc_context({"font.size": 9}):
        figure, axes = plt.subplots(rows, len(columns), figsize=(wide, high), squeeze=False)
        figure.subplots_adjust(
            left=0.01,
            right=0.99,
            bottom=0.01 + below / high,
            top=1 - 0.5 / high,
            hspace=0.03,
            wspace=0.03,
        )
        for place, (title, pictures) in enumerate(columns.items()):
            axes[0, place].set_title(title)
            for row, picture in enumerate(pictures):
                # Without smoothing: the grid a model has is part of what it sees.
                grey = {"cmap": "gray", "vmin": 0, "vmax": 255} if picture.ndim == 2 else {}
                axes[row, place].imshow(picture, interpolation="nearest", **grey)
        for axis in axes.flat:
            axis.set_axis_off()
        if legend:
            patches = [
                Patch(color=tuple(part / 255 for part in colour), label=name)
                for name, colour in legend.items()
            ]
            figure.legend(
                handles=patches,
                loc="upper left",
                bbox_to_anchor=(0.005, 0.005 + below / high),
                ncols=in_row,
                frameon=False,
            )
        figure.text(0.01, 0.005, "\n".join(lines), va="bottom")
        with atomic_path(target) as temporary:
            figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
        plt.close(figure)
