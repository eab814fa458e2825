"""`vfss compare`: is one model better than another on the same patients?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import EXIT_SOME_FAILED
from .console import (
    ForceOption,
    JsonOption,
    QuietOption,
    SeedOption,
    WorkspaceOption,
    guarded,
    note,
    out,
    print_json,
    progress,
    warn,
)
from .report import SplitName

if TYPE_CHECKING:
    from ..evaluate.compare import Compared
    from ..evaluate.entrants import Entrant
    from ..evaluate.paired import Comparison, TaskDifference

EXAMPLE = (
    "Example:  vfss compare run-001 run-002\n\n"
    "Example:  vfss compare run-001 run-002 run-003 --name ablation --json"
)


def register(app: typer.Typer) -> None:
    app.command("compare", epilog=EXAMPLE)(guarded(compare))


def compare(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL",
            help="Runs, or models as results name them; the first is the baseline.",
        ),
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="Report folder. Default: next compare-NNN.")
    ] = None,
    split: Annotated[
        SplitName | None,
        typer.Option(
            "--split",
            help="Whose Dice. Default: labelled test patients that none was trained on.",
        ),
    ] = None,
    seed: SeedOption = 0,
    workspace: WorkspaceOption = Path(),
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare models with a baseline on the same patients.

    Writes a page with plots, compare.csv and compare.json.

    Only labelled frames that all models have results of count. Differences in Dice and HD95 are
    taken patient by patient, with a 95 % interval. A gain inside its interval is not a gain.
    Where the truth is empty and one model alone invents something, it has 0 and the other 1.
    """
    from ..evaluate.compare import write_comparison
    from ..evaluate.scoring import ReportOptions
    from ..workspace import Workspace

    place = Workspace(workspace)
    options = ReportOptions(name, split.value if split else None, None, force, seed=seed)
    with progress("comparing", quiet=quiet or as_json) as tick:
        made = write_comparison(place, models, options, tick=tick)
    for failure in made.failed:
        warn(f"{failure['input']}: {failure['error']}")
    for warning in made.warnings:
        warn(warning)
    if as_json:
        print_json(made.to_dict(place))
    else:
        if made.simulated:
            out.print("[bold]SIMULATED PATIENTS: these figures say nothing about real ones.[/]")
        for entrant, found in made.pairs:
            _show(made, entrant, found)
        note("p: Wilcoxon signed-rank, by task Holm-corrected, exploratory; n: patients.")
        page = workspace / "reports" / made.name / "index.html"
        out.print("Page:", page.as_posix(), markup=False)
    if made.failed:
        raise typer.Exit(EXIT_SOME_FAILED)


def _show(made: Compared, entrant: Entrant, found: Comparison) -> None:
    """One table, then the verdict in words."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from ..evaluate.compare import verdict

    many = found.mean.dice.n_patients if found.mean.dice else 0
    table = Table(
        title=escape(
            f"{entrant.name} against {made.baseline.name}: Dice of {many} patient"
            f"{'' if many == 1 else 's'} ({made.whose})"
        ),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_footer=True,
        pad_edge=False,
        collapse_padding=True,
    )
    name, *values = _cells(found.mean)
    footers = (f"{name} {made.over(found)}".strip(), *values)
    headings = ("task", "baseline", "model", "diff.", "95 % interval", "p", "n", "HD95 px", "n")
    for heading, footer in zip(headings, footers, strict=True):
        left = heading == "task"
        table.add_column(heading, footer, justify="left" if left else "right", no_wrap=not left)
    for task in found.tasks:
        table.add_row(*_cells(task))
    out.print(table)
    out.print(verdict(made.baseline, entrant, found), markup=False)


def _cells(task: TaskDifference) -> tuple[str, ...]:
    from ..evaluate.compare_page import interval, p_value, signed

    if task.dice is None:
        return (task.task, "–", "–", "–", "–", "–", "0", "–", "0")
    return (
        task.task,
        f"{task.dice.baseline:.3f}",
        f"{task.dice.model:.3f}",
        signed(task.dice.difference),
        interval(task.dice.ci95),
        p_value(task.holm_p if task.holm_p is not None else task.wilcoxon_p),
        str(task.dice.n_patients),
        signed(task.hd95_px.difference if task.hd95_px else None, 1),
        str(task.hd95_px.n_patients if task.hd95_px else 0),
    )
