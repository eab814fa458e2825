"""`vfss report`: how well the masks fit, as a table, a page and files."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..counting import counted
from ..errors import EXIT_SOME_FAILED
from .console import (
    ForceOption,
    JsonOption,
    QuietOption,
    WorkspaceOption,
    guarded,
    note,
    out,
    print_json,
    progress,
    warn,
)

if TYPE_CHECKING:
    from ..evaluate.scoring import ModelReport

EXAMPLE = "Example:  vfss report\n\nExample:  vfss report --split val --name validation --json"


class SplitName(StrEnum):
    test = "test"
    val = "val"
    train = "train"
    all = "all"


def register(app: typer.Typer) -> None:
    app.command("report", epilog=EXAMPLE)(guarded(report))


def report(
    name: Annotated[
        str | None, typer.Option("--name", help="Report folder. Default: next report-NNN.")
    ] = None,
    split: Annotated[
        SplitName | None,
        typer.Option(
            "--split",
            help="Whose Dice. Default: labelled test patients not seen in training; where there "
            "are none, other unseen ones, else seen ones, with a warning.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="One model only, by name or sha256.")
    ] = None,
    workspace: WorkspaceOption = Path(),
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare results with truth, task by task.

    Writes a page with plots, dice.csv and report.json.

    Takes every result in the workspace, by model. Without labels it still shows areas over time.
    """
    from ..evaluate.report import write_report
    from ..evaluate.scoring import ReportOptions
    from ..workspace import Workspace

    place = Workspace(workspace)
    options = ReportOptions(name, split.value if split else None, model, force)
    with progress("reporting", quiet=quiet or as_json) as tick:
        made = write_report(place, options, tick=tick)
    for failure in made.failed:
        warn(f"{failure['input']}: {failure['error']}")
    if as_json:
        print_json(made.to_dict(place))
    else:
        if made.simulated:
            out.print("[bold]SIMULATED PATIENTS: these figures say nothing about real ones.[/]")
        for one in made.models:
            _show(one, made.over(one))
        page = workspace / "reports" / made.name / "index.html"
        out.print("Page:", page.as_posix(), markup=False)
    if made.failed:
        raise typer.Exit(EXIT_SOME_FAILED)


def _show(one: ModelReport, over: str) -> None:
    """The table of one model on stdout, what to mind on stderr."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    figures, group = one.figures, one.group
    for warning in one.warnings:
        warn(f"{group.name}: {warning}")
    if one.no_dice:
        note(f"{group.name}: {one.no_dice}; the page shows areas over time.")
    if not one.rows:
        return
    what = "no Dice" if one.no_dice else f"Dice of {counted(figures.n_patients, 'patient')}"
    table = Table(
        title=escape(f"{group.name}: {what} ({group.whose})"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_footer=True,
    )
    table.add_column("task", f"mean {over}".strip())
    for heading, footer in (
        ("Dice", _number(figures.mean_dice)),
        ("95 % interval", _range(figures.mean_dice_ci95)),
        ("frames", ""),
        ("patients", str(figures.n_patients)),
        ("FP rate", ""),
        ("HD95 px\n(missing)", ""),
    ):
        table.add_column(heading, footer, justify="right", no_wrap=True)
    for task in figures.tasks:
        rate = task.false_positive_rate
        table.add_row(
            task.task,
            _number(task.dice_mean),
            _range(task.dice_ci95),
            str(task.n_frames),
            str(task.n_patients),
            "–" if rate is None else f"{100 * rate:.1f} %",
            _number(task.hd95_median_px, 1)
            + (f" ({task.hd95_missing})" if task.hd95_missing else ""),
        )
    out.print(table)


def _range(interval: tuple[float, float] | None) -> str:
    return "–" if interval is None else f"{interval[0]:.3f}–{interval[1]:.3f}"


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
