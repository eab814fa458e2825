"""`vfss ingest`: recordings of a clinic become studies of the workspace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
    from ..intake.ingest import IngestReport


def ingest(
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(help="Films, DICOM files, folders of them, or folders of image frames."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Folder of masks: <stem>/<task>/<frame>.png. Default: beside the film."),
    ] = None,
    patients: Annotated[
        Path | None, typer.Option(help="CSV with the columns file,patient.")
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Task set: a YAML file or `vfss12`. First ingest only.")
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(help="Frames per second of recordings that carry no time.", min=0.01),
    ] = None,
    review: Annotated[
        bool,
        typer.Option("--review", help="Write a page that shows every study, and what was blanked."),
    ] = False,
    no_blank: Annotated[
        bool, typer.Option("--no-blank", help="Keep text that is burned into the pictures.")
    ] = False,
    workspace: WorkspaceOption = Path(),
    json: JsonOption = False,
    force: ForceOption = False,
    quiet: QuietOption = False,
) -> None:
    """Turn recordings and masks into studies.

    Lossless grey frames, true frame times, pseudonyms, splits by patient.

    Reads MP4, MOV, AVI, MKV, MPG, WMV, GIF, cine DICOM and folders of numbered images. Masks are
    found beside a film in <stem>_masks/<task>/<frame>.png, or in --labels. The patient is taken
    from --patients, else DICOM PatientID, else the parent folder; only identities.csv knows who
    is who. What was ingested before is skipped.

    Text burned into the pictures is blanked on all frames where it is found: that reduces what
    identifies a patient, and does not surely remove it. Look with --review; it also works alone.
    """
    from ..intake.ingest import BURNED_IN, KEPT, IngestOptions, IngestReport
    from ..intake.ingest import ingest as run
    from ..intake.review import write_review
    from ..workspace import Workspace

    if not inputs and not review:
        raise UsageError("nothing to ingest was given", remedy="Name films or their folders.")
    place = Workspace(workspace)
    options = IngestOptions(labels, patients, tasks, fps, force, blank=not no_blank)
    if no_blank:
        warn(KEPT)
    report = IngestReport()
    if inputs:
        with progress("ingest", quiet=quiet) as tick:
            say = (lambda line: None) if quiet else warn
            report = run(place, inputs, options, tick=tick, say=say)
    for failure in report.failed:
        fail_line(f"{failure.input}: {failure.error}")
    page = None
    something = report.studies or report.skipped or not inputs
    if review and something and not report.stopped:
        with progress("review", quiet=quiet) as tick:
            page = write_review(place, tick=tick)
    if json:
        shown = {} if page is None else {"review": place.relative(page)}
        print_json(_as_json(report) | shown)
    elif inputs:
        _print_table(report)
    if page is not None and not json:
        out.print("Page:", (workspace / place.relative(page)).as_posix(), markup=False)
    if report.studies and not quiet and not no_blank:
        note(f"note: {BURNED_IN}")
    if report.stopped:
        raise report.stopped
    if report.failed:
        nothing = not report.studies and not report.skipped
        raise typer.Exit(EXIT_DATA if nothing else EXIT_SOME_FAILED)


def register(app: typer.Typer) -> None:
    """Add `ingest` to the command line."""
    app.command(
        "ingest", epilog="Example:  vfss ingest videos/ --patients patients.csv --labels masks/"
    )(guarded(ingest))


def _as_json(report: IngestReport) -> dict[str, Any]:
    splits = report.splits
    return {
        "schema_version": 1,
        "studies": [
            {
                "study": record.study,
                "patient": record.patient,
                "frames": record.frames,
                "duration_s": round(record.duration_s, 6),
                "labelled_frames": len(record.labelled_frames),
                "unique_fps": record.unique_fps,
                "blanked": len(record.blanked),
                "suspect": len(record.suspect),
                "split": splits.of(record.patient),
                "warnings": list(record.warnings),
            }
            for record in report.studies
        ],
        "failed": [{"input": item.input, "error": item.error} for item in report.failed],
        "skipped": [
            {"input": item.input, "study": item.study, "why": item.why} for item in report.skipped
        ],
        "splits": {part: len(getattr(splits, part)) for part in ("train", "val", "test")},
    }


def _print_table(report: IngestReport) -> None:
    from rich.table import Table

    if report.studies:
        table = Table(box=None, pad_edge=False)
        table.add_column("study", no_wrap=True)
        table.add_column("patient", no_wrap=True)
        for name in ("frames", "seconds", "labelled", "unique/s", "blanked"):
            table.add_column(name, justify="right")
        table.add_column("split")
        for record in report.studies:
            table.add_row(
                record.study,
                record.patient,
                str(record.frames),
                f"{record.duration_s:.2f}",
                str(len(record.labelled_frames)),
                "" if record.unique_fps is None else f"{record.unique_fps:.1f}",
                str(len(record.blanked)),
                report.splits.of(record.patient) or "",
            )
        out.print(table)
    for item in report.skipped:
        out.print(f"skipped {item.input}: {item.why} ({item.study})", markup=False)
    splits = report.splits
    people = {record.patient for record in report.studies}
    out.print(
        f"{len(report.studies)} ingested from {len(people)} patients, "
        f"{len(report.skipped)} skipped, {len(report.failed)} failed. "
        f"Workspace: {len(splits.train)} patients for training, {len(splits.val)} for validation, "
        f"{len(splits.test)} for the test."
    )
