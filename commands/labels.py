"""`vfss labels`: labels of other tools in and out, and what is wrong with those that are here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..counting import counted
from ..errors import EXIT_DATA, EXIT_SOME_FAILED, UsageError
from .console import (
    ForceOption,
    JsonOption,
    QuietOption,
    WorkspaceOption,
    fail_line,
    guarded,
    note,
    out,
    print_json,
    progress,
    warn,
)

if TYPE_CHECKING:
    from ..intake.formats.annotations import LabelSource
    from ..intake.formats.importing import ImportReport
    from ..intake.label_checks import CheckReport
    from ..intake.study import Stored
    from ..workspace import Workspace

_EPILOG = "Example:  vfss labels import annotations.xml --study p3k7q2xa-1f0c9b"
_IMPORT_EPILOG = _EPILOG + "\n\nExample:  vfss labels import coco.json --map Hyoid_Bone=hyoid"
_EXPORT_EPILOG = (
    "Example:  vfss labels export for-cvat --format cvat-video"
    "\n\nExample:  vfss labels export review --format labelme --results small --pictures"
)
_CHECK_EPILOG = "Example:  vfss labels check --json"
_SHOWN = 40


def take_in(
    path: Annotated[Path, typer.Argument(help="Label file, or folder of them.")],
    format_name: Annotated[
        str, typer.Option("--format", help="Format (see docs/labels.md), or auto.")
    ] = "auto",
    study: Annotated[
        str | None, typer.Option(help="Study to label, where names in the file do not say it.")
    ] = None,
    renames: Annotated[
        list[str] | None,
        typer.Option("--map", help="theirs=ours, or theirs=- to leave a label out. Repeatable."),
    ] = None,
    absent: Annotated[
        bool,
        typer.Option("--absent", help="On annotated frames, a label not drawn is absent (blank)."),
    ] = False,
    first: Annotated[
        int, typer.Option(help="Number that the file gives to the first frame.", min=0)
    ] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing.")] = False,
    workspace: WorkspaceOption = Path(),
    force: ForceOption = False,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Take labels of another tool into the studies.

    A task not drawn on a frame stays unlabelled there, unless --absent.

    Reads mask folders, index PNGs, COCO, CVAT, labelme, Label Studio, 3D Slicer .seg.nrrd, nnU-Net
    v2 datasets and DICOM SEG. Frames are known by the number in their name, from 0. Masks that
    differ from those there are replaced only with --force.
    """
    from ..intake.formats.importing import ImportOptions, import_labels
    from ..workspace import Workspace

    options = ImportOptions(
        format=format_name,
        study=study,
        renames=_pairs(renames or []),
        absent=absent,
        first=first,
        force=force,
        dry_run=dry_run,
    )
    with progress("importing", quiet=quiet or json) as tick:
        report = import_labels(Workspace(workspace), path, options, tick=tick)
    for failure in report.failed:
        fail_line(f"{failure['input']}: {failure['error']}")
    if not quiet:
        for line in report.notes:
            warn(line)
    if json:
        print_json(_import_json(report, dry_run))
    else:
        _show_import(report, dry_run)
    if report.failed:
        raise typer.Exit(EXIT_SOME_FAILED if report.studies else EXIT_DATA)


def give_out(
    target: Annotated[Path, typer.Argument(help="Folder to make.")],
    format_name: Annotated[str, typer.Option("--format", help="Format (see docs/labels.md).")],
    study: Annotated[
        list[str] | None, typer.Option(help="Study; repeatable. Default: all.")
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Tasks, with commas. Default: all that have labels.")
    ] = None,
    results: Annotated[
        str | None, typer.Option(help="Masks of this model instead of the studies' labels.")
    ] = None,
    polygons: Annotated[
        bool, typer.Option("--polygons", help="Outlines to edit instead of exact masks.")
    ] = False,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="The labelled frames too, in images/.")
    ] = False,
    workspace: WorkspaceOption = Path(),
    force: ForceOption = False,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Write labels for another tool.

    Says so where a format cannot hold structures that overlap.

    Formats: masks, index, coco, cvat-images, cvat-video, labelme, label-studio, slicer, nnunet.
    With --results a model's masks are written, to be corrected and taken in again.
    """
    from ..config import lab_tasks
    from ..intake.formats.exporting import ExportOptions, export_labels
    from ..workspace import Workspace

    place = Workspace(workspace)
    sources, damaged = _sources(place, study or [], results)
    for failure in damaged:
        fail_line(f"{failure['input']}: {failure['error']}")
    if not sources:
        raise typer.Exit(EXIT_DATA)
    options = ExportOptions(
        format=format_name,
        tasks=[task.strip() for task in tasks.split(",")] if tasks else [],
        polygons=polygons,
        pictures=pictures,
        force=force,
        facts={"from": "labels" if results is None else "results"},
    )
    with progress("exporting", quiet=quiet or json) as tick:
        made = export_labels(sources, lab_tasks(place), target, options, tick=tick)
    for failure in made.failed:
        fail_line(f"{failure['input']}: {failure['error']}")
    damaged += list(made.failed)
    for line in made.notes:
        warn(line)
    if json:
        print_json({"schema_version": 1, **made.to_dict(), "failed": damaged})
    else:
        out.print(
            f"{counted(made.masks, 'mask')} of {counted(len(made.tasks), 'task')} on "
            f"{counted(made.frames, 'frame')} of {counted(len(made.studies), 'study', 'studies')}: "
            f"{target.as_posix()} ({made.format})",
            markup=False,
        )
    if damaged:
        raise typer.Exit(EXIT_SOME_FAILED)


def check(
    study: Annotated[
        list[str] | None, typer.Option(help="Study; repeatable. Default: all.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Report folder. Default: next labels-NNN.")
    ] = None,
    workspace: WorkspaceOption = Path(),
    force: ForceOption = False,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Look for labels that are wrong.

    Exit 4 when something is wrong; things to look at do not count.

    Masks missing, damaged or of another size; vertebrae out of order; nearly the same frame in two
    splits; blank masks between frames that show the structure; jumps in area. Writes one page with
    pictures.
    """
    from ..config import lab_tasks
    from ..intake.check_page import write_page
    from ..intake.label_checks import check_labels
    from ..workspace import Workspace

    place = Workspace(workspace)
    asked = study or []
    everything = _everything(place, asked)
    for failure in _only(asked, everything)[1]:
        fail_line(f"{failure['input']}: {failure['error']}")
    with progress("checking", quiet=quiet or json) as tick:
        report = check_labels(place, lab_tasks(place), everything, asked, tick=tick)
    page = write_page(place, report, name, force)
    if json:
        print_json(
            {
                "schema_version": 1,
                "studies": report.studies,
                "masks": report.masks,
                "wrong": report.wrong,
                "counts": report.counts(),
                "findings": [finding.to_dict() for finding in report.findings],
                "page": place.relative(page),
            }
        )
    else:
        _show_check(report)
        out.print("Page:", page.as_posix(), markup=False)
    if report.wrong:
        raise typer.Exit(EXIT_DATA)


def register(app: typer.Typer) -> None:
    """Add `labels` with its three verbs to the command line."""
    group = typer.Typer(
        help="Take labels in from other tools, give them out, check them.",
        epilog=_EPILOG,
        no_args_is_help=True,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    group.command("import", epilog=_IMPORT_EPILOG)(guarded(take_in))
    group.command("export", epilog=_EXPORT_EPILOG)(guarded(give_out))
    group.command("check", epilog=_CHECK_EPILOG)(guarded(check))
    app.add_typer(group, name="labels")


def _pairs(words: list[str]) -> dict[str, str]:
    pairs = {}
    for word in words:
        theirs, mark, ours = word.rpartition("=")
        if not mark or not theirs or not ours:
            raise UsageError(f"--map {word!r} is no pair", remedy="Write --map theirs=ours.")
        pairs[theirs] = ours
    return pairs


def _everything(place: Workspace, asked: list[str]) -> Stored:
    """All studies, and those whose record is damaged; `asked` must be among them."""
    from ..errors import WorkspaceError
    from ..intake.study import folder_of, list_studies_readable

    studies, damaged = list_studies_readable(place)
    if not studies and not damaged:
        raise WorkspaceError("no studies yet", remedy="Run `vfss ingest` on the films first.")
    known = {study.id for study in studies} | {folder_of(one) for one in damaged}
    for study in asked:
        if study not in known:
            raise UsageError(f"no study {study!r}", remedy="See the studies/ folder.")
    return studies, damaged


def _only(asked: list[str], everything: Stored) -> Stored:
    """Those asked for, all without names."""
    from ..intake.study import folder_of

    studies, damaged = everything
    return (
        [study for study in studies if not asked or study.id in asked],
        [one for one in damaged if not asked or folder_of(one) in asked],
    )


def _sources(
    place: Workspace, asked: list[str], model: str | None
) -> tuple[list[LabelSource], list[dict[str, str]]]:
    """What to export, labels of studies or a model's results, and studies that are damaged."""
    from ..intake.formats.exporting import StudyLabels

    if model is None:
        studies, damaged = _only(asked, _everything(place, asked))
        return [StudyLabels(study) for study in studies], damaged
    from ..evaluate.results import list_results, unreadable_of
    from ..intake.formats.exporting import ResultMasks
    from ..intake.study import folder_of, list_studies_readable

    found, failed = list_results(place, model=model)
    lost = [
        failure
        for failure in unreadable_of(model, found, failed)
        if not asked or failure["input"].partition("/")[0] in asked
    ]
    for failure in failed:
        if failure not in lost:
            warn(f"{failure['input']}: {failure['error']}")
    studies, damaged = list_studies_readable(place)
    by_source = {study.record.source_sha256: study for study in studies}
    chosen = [result for result in found if not asked or result.study in asked]
    if not chosen and not lost:
        raise UsageError("no results of these studies", remedy="See the results/ folder.")
    if len({result.study for result in chosen}) != len(chosen):
        names = ", ".join(sorted({result.folder.name for result in chosen}))
        raise UsageError(
            f"{model!r} names several models: {names}",
            remedy="Name one by its sha256 (6 or more digits).",
        )
    broken = {folder_of(one) for one in damaged}
    sound = [result for result in chosen if result.study not in broken]  # else: of which frames?
    sources = [ResultMasks(result, by_source.get(result.source_sha256)) for result in sound]
    return list(sources), lost + _only(asked, (studies, damaged))[1]


def _import_json(report: ImportReport, dry_run: bool) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "schema_version": 1,
        "format": report.format,
        "dry_run": dry_run,
        "studies": [asdict(study) for study in report.studies],
        "left_out": report.left_out,
        "notes": report.notes,
        "failed": report.failed,
    }


def _show_import(report: ImportReport, dry_run: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    if report.studies:
        table = Table(box=None, pad_edge=False)
        table.add_column("study", no_wrap=True)
        for heading in ("frames", "new", "replaced", "same", "blank"):
            table.add_column(heading, justify="right")
        table.add_column("tasks")
        for one in report.studies:
            counts = (one.frames, one.new, one.replaced, one.same, one.blank)
            table.add_row(escape(one.study), *map(str, counts), escape(" ".join(one.tasks)))
        out.print(table)
    if report.failed:
        out.print(f"{len(report.studies)} taken in, {len(report.failed)} failed.")
    if report.left_out:
        out.print(f"left out: {', '.join(report.left_out)}", markup=False)
    if dry_run:
        note("nothing was written (--dry-run)")


def _show_check(report: CheckReport) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    if report.findings:
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column("check")
        table.add_column("study", no_wrap=True)
        table.add_column("task")
        table.add_column("frame", justify="right")
        table.add_column("what")
        for one in report.findings[:_SHOWN]:
            frame = "" if one.frame is None else str(one.frame)
            kind, task = f"{one.kind} ({one.grade})", one.task or ""
            table.add_row(kind, escape(one.study), escape(task), frame, escape(one.what))
        out.print(table)
        if len(report.findings) > _SHOWN:
            note(f"and {len(report.findings) - _SHOWN} more on the page")
    looks = len(report.findings) - report.wrong
    out.print(
        f"{counted(report.masks, 'mask')} in {counted(report.studies, 'study', 'studies')}: "
        f"{report.wrong} wrong, {looks} to look at."
    )
