"""`vfss cache`: what cached teacher features take, and taking away what is no longer needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..counting import counted
from ..errors import UsageError
from .console import JsonOption, WorkspaceOption, guarded, note, out, print_json

if TYPE_CHECKING:
    from ..distill.shelf import Folder

_EPILOG = "Example:  vfss cache ls && vfss cache prune --dry-run"
_LS_EPILOG = "Example:  vfss cache ls --json"
_PRUNE_EPILOG = (
    "Example:  vfss cache prune --dry-run\n\nExample:  vfss cache prune --teacher medsam"
)


def cache() -> None:
    """List or delete cached teacher features.

    Everything in cache/ may go: the next `vfss distill` computes again what it needs.
    """


def ls(workspace: WorkspaceOption = Path(), as_json: JsonOption = False) -> None:
    """List cached features, one folder per teacher.

    Says which are of weights that are no longer here, and what an interrupted run left behind.
    """
    from ..distill.shelf import megabytes, read_shelf
    from ..provenance import SCHEMA_VERSION
    from ..workspace import Workspace

    shelf = read_shelf(Workspace(workspace))
    if as_json:
        print_json(
            {
                "schema_version": SCHEMA_VERSION,
                "bytes": shelf.bytes,
                "folders": [folder.to_dict() for folder in shelf.folders],
                "leftovers": len(shelf.loose),
                "not_ours": list(shelf.foreign),
            }
        )
        return
    if not shelf.folders:
        note("No features are cached in this workspace.")
        return
    for folder in shelf.folders:
        _show(folder)
    out.print(f"{megabytes(shelf.bytes)} in all", markup=False)
    if any(
        f.leftovers or any(s.stray or s.frames is None for s in f.shards) for f in shelf.folders
    ):
        note("`vfss cache prune` deletes what is left over, damaged or of studies that are gone.")
    if any(folder.weights == "changed" for folder in shelf.folders):
        note("`vfss cache prune --teacher FOLDER` deletes features of other weights.")


def prune(
    teacher: Annotated[
        str | None,
        typer.Option("--teacher", help="Delete all features of this teacher, or of one folder."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Delete all features of all teachers.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be deleted.")
    ] = False,
    workspace: WorkspaceOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Delete cached features that are of no more use.

    Without options: interrupted writes, damaged files, features of studies no longer here.

    Nothing outside cache/ is touched, and nothing in it that vfss has not written.
    """
    from ..distill import shelf as shelves
    from ..provenance import SCHEMA_VERSION
    from ..workspace import Workspace

    if teacher is not None and everything:
        raise UsageError("--teacher and --all contradict each other", remedy="Give one of them.")
    place = Workspace(workspace)
    shelf = shelves.read_shelf(place)
    removals = shelves.plan_prune(shelf, teacher=teacher, everything=everything)
    freed = sum(one.bytes for one in removals) if dry_run else shelves.prune(place, removals)
    if not shelf.studies_known and shelf.folders and not (teacher or everything):
        note("There is no studies/ here, so no study counts as gone.")
    if as_json:
        print_json(
            {
                "schema_version": SCHEMA_VERSION,
                "dry_run": dry_run,
                "freed_bytes": freed,
                "deleted": [
                    {"file": one.name, "bytes": one.bytes, "reason": one.reason} for one in removals
                ],
            }
        )
        return
    for one in removals:
        out.print(f"{one.name}  {shelves.megabytes(one.bytes)}  {one.reason}", markup=False)
    files = counted(len(removals), "file")
    if not removals:
        out.print("Nothing to delete.")
    elif dry_run:
        out.print(f"Would free {shelves.megabytes(freed)} ({files}).", markup=False)
    else:
        out.print(f"Freed {shelves.megabytes(freed)} ({files}).", markup=False)


def _show(folder: Folder) -> None:
    from ..distill.shelf import WEIGHTS, megabytes

    facts = folder.to_dict()
    out.print(f"{folder.path.name}  {megabytes(folder.bytes)}", markup=False)
    size = f", {folder.channels} × {folder.grid} × {folder.grid}" if folder.grid else ""
    held = f"{counted(facts['studies'], 'study', 'studies')}, {counted(facts['frames'], 'frame')}"
    out.print(f"  {held}{size}", markup=False)
    out.print(f"  {WEIGHTS[folder.weights]}", markup=False)
    for words, number in (
        ("damaged", len(facts["damaged"])),
        ("of studies that are gone", len(facts["studies_gone"])),
        (f"interrupted writes ({megabytes(facts['leftover_bytes'])})", facts["leftovers"]),
    ):
        if number:
            out.print(f"  [yellow]{number} {words}[/]")


def register(app: typer.Typer) -> None:
    group = typer.Typer(rich_markup_mode=None, no_args_is_help=True)
    group.callback(epilog=_EPILOG)(guarded(cache))
    group.command("ls", epilog=_LS_EPILOG)(guarded(ls))
    group.command("prune", epilog=_PRUNE_EPILOG)(guarded(prune))
    app.add_typer(group, name="cache")
