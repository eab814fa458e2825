"""`vfss doctor`: what this machine has and how to mend what it lacks."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer

from .. import __version__
from ..errors import EXIT_DEVICE
from .console import JsonOption, WorkspaceOption, guarded, out, print_json

_MARKS = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "failed": "[bold red]failed[/]"}


def doctor(workspace: WorkspaceOption = Path(), json: JsonOption = False) -> None:
    """Say what this machine lacks, and the remedy.

    Looks at packages, codecs, devices, disk, model and teachers.

    Exits 6 when something that every command needs is broken, and says how to mend it.
    """
    from rich.markup import escape
    from rich.table import Table

    from ..doctor import examine, tools
    from ..workspace import Workspace

    checks = examine(Workspace(workspace))
    broken = any(check.status == "failed" for check in checks)
    if json:
        print_json(
            {
                "schema_version": 1,
                "vfss_distill": __version__,
                "healthy": not broken,
                "checks": [asdict(check) for check in checks],
                "packages": tools(),
            }
        )
    else:
        table = Table(box=None, pad_edge=False)
        for title in ("", "looked at", "found"):
            table.add_column(title)
        for check in checks:
            table.add_row(_MARKS[check.status], check.name, escape(check.found))
            if check.remedy:
                table.add_row("", "", f"[cyan]→ {escape(check.remedy)}[/]")
        out.print(table)
    if broken:
        raise typer.Exit(EXIT_DEVICE)


def register(app: typer.Typer) -> None:
    app.command(epilog="Example:  vfss doctor")(guarded(doctor))
