"""What a run tells about itself while it trains: metrics.jsonl, and curves.svg drawn from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TextIO

from ..colours import LINES
from ..tasks import TaskSet
from ..workspace import atomic_path, storage_errors, write_text
from .events import Events


class Metrics:
    """metrics.jsonl, one line a step; on resume, lines from the checkpoint's step on go.

    Without a path nothing is written: another process of the same training does. `tensorboard`
    writes the same numbers into event files beside it.
    """

    def __init__(self, path: Path | None, step: int, *, tensorboard: bool = False) -> None:
        self.path = path
        self.step = step
        self.tensorboard = tensorboard and path is not None
        if path is None:
            return
        kept = [line for line, record in _whole_lines(path) if record["step"] < step]
        write_text(path, "".join(f"{line}\n" for line in kept))

    def __enter__(self) -> Metrics:
        self.stream: TextIO | None = None
        self.events: Events | None = None
        if self.path is not None:
            self.stream = self.path.open("a", encoding="utf-8", buffering=1)
            if self.tensorboard:
                self.events = Events(self.path.parent, self.step)
        return self

    def __exit__(self, *_: object) -> None:
        if self.path is not None and self.stream is not None:
            with storage_errors(self.path):
                self.stream.close()
        if self.events is not None:
            self.events.close()

    def write(self, record: dict[str, Any]) -> None:
        if self.path is not None and self.stream is not None:
            with storage_errors(self.path):
                self.stream.write(json.dumps(_rounded(record), allow_nan=True) + "\n")
        if self.events is not None:
            self.events.write(record)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a metrics.jsonl; one cut off by a kill, or damaged, is left out."""
    return [record for _, record in _whole_lines(path)]


def _whole_lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Each line with what it says."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = [line[:-1] for line in text.splitlines(keepends=True) if line.endswith("}\n")]
    return [(line, record) for line in lines if (record := _record(line)) is not None]


def _record(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("step"), int) else None


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return {k: _rounded(v) for k, v in value.items()} if isinstance(value, dict) else value


def draw_curves(metrics: Path, target: Path, tasks: TaskSet) -> None:
    """Losses per teacher, their weights α, task loss and validation Dice over the steps, as SVG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    lines = read_metrics(metrics)
    panels = {
        "feature loss": _series(lines, "align"),
        "weight α of each teacher": _series(lines, "alpha"),
        "task loss (BCE + Dice)": _series(lines, "task"),
        "validation Dice": _series(lines, "val_dice"),
    }
    if outputs := _series(lines, "outputs"):
        panels["losses on teachers' outputs"] = outputs
    # The tasks' own colours, darker: some are too light for a line on white.
    colours = {task.id: tuple(0.8 * part / 255 for part in task.colour) for task in tasks}
    columns = (len(panels) + 1) // 2
    with plt.rc_context({"svg.hashsalt": "vfss", "font.size": 8}):
        figure, axes = plt.subplots(2, columns, figsize=(5 * columns, 6), layout="constrained")
        for axis in axes.flat[len(panels) :]:
            axis.set_axis_off()
        for axis, (title, series) in zip(axes.flat, panels.items(), strict=False):
            axis.set_title(title)
            axis.set_xlabel("step")
            axis.set_prop_cycle(color=LINES)
            for name, (steps, values) in series.items():
                width, marker = (0.6, "") if len(steps) > 200 else (1.2, "." * (len(steps) < 40))
                axis.plot(
                    steps, values, label=name, lw=width, marker=marker, color=colours.get(name)
                )
            if len(series) > 0 and "" not in series:
                axis.legend(ncols=2, fontsize=6)
            if "loss" not in title:
                axis.set_ylim(0, 1)
        with atomic_path(target) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})
        plt.close(figure)


def _series(lines: list[dict[str, Any]], key: str) -> dict[str, tuple[list[int], list[float]]]:
    """Name → (steps, values); a plain number has the name ""."""
    series: dict[str, tuple[list[int], list[float]]] = {}
    for line in lines:
        value = line.get(key)
        named = value if isinstance(value, dict) else {} if value is None else {"": value}
        for name, number in named.items():
            steps, values = series.setdefault(name, ([], []))
            steps.append(line["step"])
            values.append(number)
    return series
