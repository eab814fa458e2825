"""Plots of a comparison as SVG text: differences with intervals, and patients in pairs."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..colours import LINES
from ..tasks import TaskSet
from .figures import (
    INK,
    STYLE,
    as_svg,
    extra_line,
    margins,
    room_for,
    row_names,
    titles,
    uncluttered,
)
from .paired import FEWEST_FOR_A_TEST, MEAN, Comparison, Difference, TaskDifference
from .plot_words import fitted

UP, DOWN, SAME = "#0b6e8f", "#c0561a", "#9aa5b1"
_COLUMNS = 7
# Where the colours begin anew, another shape tells models apart: of the marker, and in the legend.
_SHAPES = (("o", "●"), ("s", "■"), ("^", "▲"), ("v", "▼"), ("P", "✚"), ("X", "✖"))


def colour(place: int) -> str:
    return LINES[place % len(LINES)]


def sign(place: int) -> str:
    """A model's sign in the legend, in its `colour`."""
    return _shape(place)[1]


def _shape(place: int) -> tuple[str, str]:
    return _SHAPES[place // len(LINES) % len(_SHAPES)]


def forest(models: Sequence[tuple[str, Comparison]], tasks: TaskSet, baseline: str) -> str:
    """A row per task, the mean on top; each model's difference with its 95 % interval.

    A marker is filled where the models are told apart: the interval of enough patients excludes 0.
    """
    rows = [MEAN, *tasks.ids]
    step = min(0.26, 0.72 / len(models))
    with mpl.rc_context(STYLE):
        height = max(0.34, 0.2 * len(models)) * len(rows) + 0.85
        figure = Figure(figsize=(8.6, height))
        axes = figure.subplots()
        names = row_names(["mean over tasks", *(tasks[task].name for task in tasks.ids)])
        left = room_for(names, at_least=1.35)
        margins(figure, left=left, right=0.15, bottom=0.58, top=0.27)
        for row in range(0, len(rows), 2):
            axes.axhspan(row - 0.5, row + 0.5, color="#f5f7fa", zorder=0, linewidth=0)
        for place, (_, found) in enumerate(models):
            shift = (place - (len(models) - 1) / 2) * step
            for row, task in enumerate((found.mean, *found.tasks)):
                _whisker(axes, row + shift, task.dice, place, is_mean=row == 0)
        axes.axvline(0, color=INK, linewidth=1.1, zorder=2)
        axes.axhline(0.5, color="#9aa5b1", linewidth=0.8)
        reach = max(0.01, *(1.04 * abs(end) for end in axes.get_xlim()))
        axes.set_xlim(-reach, reach)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(range(len(rows)), names, parse_math=False)
        axes.get_yticklabels()[0].set_fontweight("bold")
        axes.set_xlabel(
            "difference in Dice (bar: 95 % interval; filled: it excludes 0, of "
            f"{FEWEST_FOR_A_TEST} or more patients)"
        )
        room = (8.6 - left) / 2 - 0.9  # beside the words below
        right = fitted(models[0][0], room, 9) if len(models) == 1 else "model"
        sides = (
            (0.0, "left", f"← {fitted(baseline, room, 9)} higher"),
            (1.0, "right", f"{right} higher →"),
        )
        for x, side, words in sides:
            axes.text(
                x, 1.0, words, transform=axes.transAxes, ha=side, va="bottom", fontsize=9,
                color="#52606d", parse_math=False,
            )  # fmt: skip
        uncluttered(axes)
        return as_svg(figure, "Differences in Dice by task with 95 percent intervals")


def patients_in_pairs(found: Comparison, tasks: TaskSet) -> str:
    """A small panel per task: each patient's Dice, baseline left, model right, a line between."""
    shown = [task for task in (found.mean, *found.tasks) if task.dice_by_patient]
    columns = min(_COLUMNS, max(4, len(shown)))
    rows = ceil(len(shown) / columns)
    values = [value for task in shown for both in task.dice_by_patient.values() for value in both]
    bottom = max(0.0, float(np.floor((min(values) - 0.03) * 10) / 10))
    with mpl.rc_context({**STYLE, "font.size": 8}):
        of_tasks = [tasks[task.task].name for task in shown if task.task != MEAN]
        names = ["mean over tasks", *titles(of_tasks, 8.1 / columns - 0.1)]
        more = extra_line(names)
        figure = Figure(figsize=(8.6, (1.75 + more) * rows + 0.15))
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
        margins(figure, left=0.42, right=0.06, bottom=0.3, top=0.24 + more)
        figure.subplots_adjust(wspace=0.14, hspace=0.42 + more)
        for axes, task, name in zip(grid, shown, names, strict=False):
            _pairs_panel(axes, task, name)
            axes.set_ylim(bottom - 0.02, 1.03)
        for axes in grid[len(shown) :]:
            axes.set_visible(False)
        figure.supylabel("Dice", fontsize=8, color="#3e4c59", x=0.003)
        return as_svg(figure, "Dice of each patient under both models")


def _whisker(axes: Axes, y: float, found: Difference | None, place: int, *, is_mean: bool) -> None:
    if found is None:
        return
    shade = colour(place)
    marker = "D" if is_mean and place < len(LINES) else _shape(place)[0]
    if found.ci95 is not None:
        axes.plot(found.ci95, [y, y], color=shade, linewidth=2.6 if is_mean else 1.8, zorder=3)
    axes.scatter(
        [found.difference], [y], marker=marker, s=46 if is_mean else 30,
        color=shade if found.told_apart else "white", edgecolor=shade, linewidth=1.5, zorder=4,
    )  # fmt: skip


def _pairs_panel(axes: Axes, task: TaskDifference, name: str) -> None:
    both = np.array(list(task.dice_by_patient.values()))
    faint = 0.85 if len(both) <= 20 else 0.45
    for before, after in both:
        shade = SAME if abs(after - before) < 5e-4 else UP if after > before else DOWN
        axes.plot(
            [0, 1], [before, after], color=shade, linewidth=1, alpha=faint, marker="o",
            markersize=3, markeredgewidth=0, zorder=2,
        )  # fmt: skip
    assert task.dice is not None  # it has patients
    means = [task.dice.baseline, task.dice.model]  # as in the table: some patients may lack tasks
    axes.plot(
        [0, 1], means, color=INK, linewidth=1.8, marker="D", markersize=4.5,
        markerfacecolor="white", zorder=3,
    )  # fmt: skip
    bold = "bold" if task.task == MEAN else "normal"
    axes.set_title(
        name, loc="left", fontsize=8, color=INK, pad=3, fontweight=bold, parse_math=False
    )
    axes.set_xlim(-0.3, 1.3)
    axes.set_xticks([0, 1], ["baseline", "model"])
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.grid(axis="y", color="#e4e7eb", linewidth=0.6)
    axes.tick_params(length=0, labelsize=6.8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
