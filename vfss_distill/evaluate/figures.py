"""Plots of a report as SVG text, drawn by matplotlib without a display."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from math import ceil

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ..tasks import Task, TaskSet
from .plot_words import fitted, widest
from .statistics import Figures, TaskFigures

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "vfss",
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans", "sans-serif"],
    "font.size": 9.5,
    "axes.edgecolor": "#9aa5b1",
    "axes.linewidth": 0.8,
    "axes.labelcolor": "#3e4c59",
    "xtick.color": "#52606d",
    "ytick.color": "#52606d",
    "text.color": "#1f2933",
}
INK = "#1f2933"
_COLUMNS = 6
_MOST_LEFT = 2.2  # inches for the names of rows
_PANEL = 1.62  # inches from one small panel to the next


def patient_dice(figures: Figures, tasks: TaskSet) -> str:
    """One row per task: each patient a dot, their mean a diamond with its 95 % interval."""
    rows = [task for task in figures.tasks if task.by_patient]
    lowest = min(min(task.by_patient.values()) for task in rows)
    left = max(0.0, np.floor(min(lowest, 0.8) * 10 - 0.2) / 10)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 0.34 * len(rows) + 0.75))
        axes = figure.subplots()
        names = row_names([tasks[task.task].name for task in rows])
        left_margin = room_for(names, at_least=1.15)
        margins(figure, left=left_margin, right=0.1, bottom=0.55, top=0.08)
        for place, task in enumerate(rows):
            _patients_of(axes, place, task, tasks[task.task])
        axes.set_yticks(range(len(rows)), names, parse_math=False)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(left - 0.01, 1.01)
        axes.set_xlabel("Dice (each dot: one patient; diamond and bar: mean, 95 % interval)")
        uncluttered(axes)
        return as_svg(figure, "Dice of each patient by task")


def row_names(names: Sequence[str]) -> list[str]:
    """Names of rows, the long ones on two lines; what is longer is cut: tables have it whole."""
    return titles(names, _MOST_LEFT)


def room_for(names: Sequence[str], *, at_least: float) -> float:
    """Inches left of the axes that `names` need; bold ones too."""
    return max(at_least, widest(names, mpl.rcParams["font.size"], bold=True) + 0.15)


def titles(names: Sequence[str], room: float) -> list[str]:
    """Titles of small panels `room` inches wide, on two lines where they need them."""
    return [fitted(name, room, mpl.rcParams["font.size"], lines=2) for name in names]


def extra_line(names: Sequence[str]) -> float:
    """Inches that a second line of titles takes, if any title has one."""
    return 0.14 if any("\n" in name for name in names) else 0.0


def uncluttered(axes: Axes) -> None:
    """Faint lines behind the marks, no frame: for rows of tasks over one axis of values."""
    axes.grid(axis="x", color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _patients_of(axes: Axes, place: int, figures: TaskFigures, task: Task) -> None:
    values = np.array(list(figures.by_patient.values()))
    # Spread by rank, not at random: the same report draws the same picture.
    order = np.argsort(np.argsort(values, kind="stable"))
    shift = (order * 0.618 % 1 - 0.5) * (0.34 if len(values) > 1 else 0)
    if place % 2 == 0:
        axes.axhspan(place - 0.5, place + 0.5, color="#f5f7fa", zorder=0, linewidth=0)
    colour = tuple(part / 255 for part in task.colour)
    axes.scatter(values, place + shift, s=34, color=colour, edgecolor=INK, linewidth=0.6, zorder=3)
    if figures.dice_ci95 is not None:
        axes.plot(figures.dice_ci95, [place, place], color=INK, linewidth=2.4, zorder=4, alpha=0.8)
    axes.scatter(
        [values.mean()], [place], marker="D", s=38, color="white", edgecolor=INK,
        linewidth=1.4, zorder=5,
    )  # fmt: skip


def areas_over_time(
    times_s: Sequence[float],
    areas_px: Mapping[str, NDArray[np.float64]],
    truth_px: Mapping[str, Mapping[int, int]],
    tasks: TaskSet,
) -> str:
    """A small panel per task against true time; rings are the truth where a frame has it."""
    shown = [task for task in tasks if task.id in areas_px]
    rows = ceil(len(shown) / _COLUMNS)
    columns = min(_COLUMNS, len(shown))
    with mpl.rc_context({**STYLE, "font.size": 8}):
        names = titles([task.name for task in shown], _PANEL - 0.32)
        more = extra_line(names)
        width = _PANEL * columns + 0.5
        figure = Figure(figsize=(width, (1.18 + more) * rows + 0.42))
        grid = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
        margins(figure, left=0.52, right=0.06, bottom=0.38, top=0.2 + more)
        figure.subplots_adjust(wspace=0.34, hspace=0.38 + 1.2 * more)
        for axes, task, name in zip(grid, shown, names, strict=False):
            _area_panel(axes, np.array(times_s), areas_px[task.id], truth_px.get(task.id, {}), task)
            axes.set_title(name, loc="left", fontsize=8, color=INK, pad=3, parse_math=False)
        for axes in grid[len(shown) :]:
            axes.set_visible(False)
        figure.supxlabel("time (s)", fontsize=8, color="#3e4c59", y=0.01)
        figure.supylabel("area (px)", fontsize=8, color="#3e4c59", x=0.05 / width)
        # A panel alone must not fill the page.
        return as_svg(figure, "Area of each task over time", widest_px=round(110 * width))


def _area_panel(
    axes: Axes, times_s: NDArray[np.float64], area: NDArray[np.float64],
    truth: Mapping[int, int], task: Task,
) -> None:  # fmt: skip
    colour = np.array(task.colour) / 255
    axes.fill_between(times_s, area, color=colour, alpha=0.35, linewidth=0)
    axes.plot(times_s, area, color=colour * 0.62, linewidth=1.2)
    if truth:
        frames = np.array(sorted(truth))
        keep = frames[:: max(1, len(frames) // 40)]
        values = [truth[int(frame)] for frame in keep]
        axes.plot(
            times_s[keep], values, "o", markersize=3, markerfacecolor="white",
            markeredgecolor=INK, markeredgewidth=0.7,
        )  # fmt: skip
    axes.set_ylim(0, 1.12 * max(1.0, float(area.max()), *truth.values()))
    axes.set_xlim(times_s[0], max(times_s[-1], times_s[0] + 1e-3))
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    axes.tick_params(length=2, labelsize=6.8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def margins(figure: Figure, *, left: float, right: float, bottom: float, top: float) -> None:
    """Room around the axes, in inches: ten times as fast as matplotlib's own layout."""
    width, height = figure.get_size_inches()
    figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height)


def as_svg(figure: Figure, label: str, *, widest_px: int | None = None) -> str:
    """The <svg> element alone, scaling with the page, named for screen readers."""
    stream = io.StringIO()
    FigureCanvasSVG(figure).print_svg(
        stream, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    limit = "" if widest_px is None else f' style="max-width:{widest_px}px"'
    return re.sub(
        r'<svg ([^>]*?)width="[^"]*" ',
        lambda found: f'<svg role="img" aria-label="{label}"{limit} {found[1]}',
        re.sub(r'(<svg [^>]*?)height="[^"]*" ', r"\1", text, count=1),
        count=1,
    )
