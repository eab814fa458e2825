"""`vfss measure`: swallow measures from stored masks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import EXIT_SOME_FAILED, DataError
from ..provenance import SCHEMA_VERSION
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
    from ..evaluate.stored import Measured

EXAMPLE = "Example:  vfss measure\n\nExample:  vfss measure pq3k5x2a-1f0c9e --json"


def register(app: typer.Typer) -> None:
    app.command("measure", epilog=EXAMPLE)(guarded(measure))


def measure(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="STUDY|RESULT",
            help="Study id, STUDY/MODEL, or a folder in results/. Default: every result.",
        ),
    ] = None,
    workspace: WorkspaceOption = Path(),
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take swallow measures from stored masks.

    Writes measures.csv beside the masks.

    Nothing is segmented again. Lengths are in %C2-4, areas in %(C2-4)², times in ms, frames
    0-based. Of several swallows in a film the first whole one is measured. What the masks cannot
    support is not printed, and the reason is.
    """
    from ..evaluate.stored import measure_stored
    from ..workspace import Workspace

    place = Workspace(workspace)
    with progress("measuring", quiet=quiet or as_json) as tick:
        measured, failed = measure_stored(place, inputs or [], force=force, tick=tick)
    for one in measured:
        if one.kept_file:
            warn(f"{one.measures_csv} differs from these values; --force replaces it")
    for failure in failed:
        warn(f"{failure['input']}: {failure['error']}")
    if as_json:
        results = [one.to_dict() for one in measured]
        print_json({"schema_version": SCHEMA_VERSION, "results": results, "failed": failed})
    else:
        for one in measured:
            _show(one, named=len(measured) > 1)
    if failed:
        raise typer.Exit(EXIT_SOME_FAILED if measured else DataError.exit_code)


def _show(one: Measured, *, named: bool) -> None:
    """One table per result on stdout; what could not be measured on stderr, reason by reason,
    `named` with its study: there it may stand apart from the table."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from ..evaluate.definitions import DEFINITIONS
    from ..evaluate.measures import shown

    title = escape(f"{one.study} · {one.model}")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("measure", no_wrap=True, min_width=max(map(len, DEFINITIONS)))
    for column in ("value", "unit", "frames", "flags"):
        table.add_column(column, justify="right" if column == "value" else "left")
    for found in one.measures.measured:
        record: dict[str, Any] = found.to_dict()
        flags = "; ".join(found.flags)
        table.add_row(found.name, shown(found.value), found.unit, record["frames"], escape(flags))
    if one.simulated:
        out.print("[bold]SIMULATED PATIENT[/]")
    out.print(table if one.measures.measured else f"{title}: nothing could be measured")
    reasons: dict[str, list[str]] = {}
    for name, why in one.measures.missing.items():
        reasons.setdefault(why, []).append(name)
    for why, names in reasons.items():
        which = "all measures" if len(names) == len(DEFINITIONS) else ", ".join(names)
        note(f"{one.study}: " * named + f"not measured: {which}: {why}")
