"""`vfss export`: a run's student as one ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..provenance import SCHEMA_VERSION
from . import console
from .console import ForceOption, JsonOption, WorkspaceOption, guarded


def register(app: typer.Typer) -> None:
    app.command(
        "export", epilog="Example:  vfss export    vfss export run-002 --output clinic.onnx"
    )(guarded(export))


def export(
    run: Annotated[str | None, typer.Argument(help="Name of a run. Default: the newest.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="ONNX file. Default: student.onnx in the run."),
    ] = None,
    workspace: WorkspaceOption = Path(),
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Write a trained student as ONNX.

    Tasks, normalisation and provenance are inside.

    Fails, and writes nothing, unless ONNX Runtime and torch agree on frames of the ingested
    studies. `vfss distill` does this at its end; a file that is there already is only compared.
    """
    from ..inference.export import STUDENT_ONNX, export_run, find_run
    from ..inference.inputs import shown
    from ..workspace import Workspace

    place = Workspace(workspace)
    folder = find_run(place, run)
    target = output or folder / STUDENT_ONNX
    existed = target.exists() and not force
    report = export_run(place, folder, target=target, replace=force)
    if json:
        console.print_json(
            {
                "schema_version": SCHEMA_VERSION,
                "run": folder.name,
                "model": {"name": report.name, "sha256": report.sha256},
                "file": shown(report.path),
                "bytes": report.bytes,
                "existed": existed,
                "parity": {
                    "frames": report.frames,
                    "max_difference": report.max_difference,
                    "min_dice": report.min_dice,
                },
            }
        )
        return
    there = " exists already (--force makes it anew)," if existed else " "
    typer.echo(
        f"{shown(report.path)}{there} {report.bytes / 1e6:.1f} MB, agrees with torch on "
        f"{report.frames} frames to {report.max_difference:.1g}"
    )
