"""`vfss ingest`: recordings of a clinic become studies of the workspace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..counting import counted
from ..errors import EXIT_DATA, EXIT_SOME_FAILED, DataError, UsageError
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
    from ..intake.ingest_report import IngestReport


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
        Path | None, typer.Option(help="CSV with the columns file,patient and perhaps site.")
    ] = None,
    views: Annotated[
        Path | None,
        typer.Option(help="CSV with the columns file,view,facing, where the program is wrong."),
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
        bool,
        typer.Option(
            "--no-blank", help="Keep text burned into the pictures, and what is drawn around them."
        ),
    ] = False,
    blank_boxes: Annotated[
        Path | None,
        typer.Option(
            help="CSV with the columns file,x,y,width,height: places to make black as well."
        ),
    ] = None,
    interlaced: Annotated[
        Literal["deinterlace", "fields", "keep"] | None,
        typer.Option(
            help="Interlaced films: make whole frames, a frame of each field, or keep.",
            show_default="deinterlace, or as before",
        ),
    ] = None,
    lock_test: Annotated[
        bool,
        typer.Option("--lock-test", help="Lock the test set: nobody joins or leaves it any more."),
    ] = False,
    workers: Annotated[
        int, typer.Option(min=0, help="Recordings at a time; 0: one for each core.")
    ] = 1,
    engine: Annotated[
        Literal["processes", "ray"],
        typer.Option(help="Workers of this machine, or of a Ray cluster on shared storage."),
    ] = "processes",
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
    is who. What was ingested before is skipped; what was interrupted goes on where it was. The same
    files come out whatever the number of workers.

    Patients who face right are mirrored, with their masks, so that all face left; frontal films are
    kept, but left out of training and of Dice. Where the program is wrong, say so in --views.

    Text burned into the pictures, and what a viewer draws around them, is blanked on all frames
    where it is found: that reduces what identifies a patient, and does not surely remove it. Look
    with --review; it also works alone, as does --lock-test. What is not found (a camera's picture
    over the film, a face), name in --blank-boxes.
    """
    from ..intake.ingest import ingest as run
    from ..intake.ingest import lock
    from ..intake.ingest_report import BURNED_IN, KEPT, Failure, IngestOptions, IngestReport
    from ..intake.review import write_review
    from ..intake.splits import load_splits
    from ..workspace import Workspace

    if not inputs and not review and not lock_test:
        raise UsageError("nothing to ingest was given", remedy="Name films or their folders.")
    place = Workspace(workspace)
    options = IngestOptions(
        labels=labels,
        patients=patients,
        tasks=tasks,
        fps=fps,
        force=force,
        blank=not no_blank,
        interlaced=interlaced,
        workers=workers,
        engine=engine,
        views=views,
        blank_boxes=blank_boxes,
    )
    if inputs:
        with progress("ingest", quiet=quiet) as tick:
            say = (lambda line: None) if quiet else warn
            report = run(place, inputs, options, tick=tick, say=say)
    else:
        report = IngestReport(splits=load_splits(place))
    if no_blank and report.studies:
        warn(KEPT)
    unlocked: DataError | None = None
    if lock_test and not report.stopped:
        try:
            report.splits = lock(place)
        except DataError as error:
            unlocked = error  # raised when all that was done has been shown
    page = None
    something = report.studies or report.skipped or not inputs
    if review and something and not report.stopped:
        with progress("review", quiet=quiet) as tick:
            written, damaged = write_review(place, tick=tick)
        page = place.relative(written)
        named = {failure.input for failure in report.failed}
        report.failed += [
            Failure(one["input"], one["error"]) for one in damaged if one["input"] not in named
        ]
    _name_losses(report)
    if json:
        print_json(_as_json(report) | ({} if page is None else {"review": page}))
    else:
        _show(report, None if page is None else workspace / page, with_table=bool(inputs))
    if report.studies and not quiet and not no_blank:
        note(f"note: {BURNED_IN}")
    if report.stopped:
        raise report.stopped
    if unlocked:
        raise unlocked
    if report.failed:
        nothing = not report.studies and not report.skipped and page is None
        raise typer.Exit(EXIT_DATA if nothing else EXIT_SOME_FAILED)


def register(app: typer.Typer) -> None:
    """Add `ingest` to the command line."""
    app.command(
        "ingest", epilog="Example:  vfss ingest videos/ --patients patients.csv --labels masks/"
    )(guarded(ingest))


def _name_losses(report: IngestReport) -> None:
    """What could not be kept, and what failed: also with --quiet."""
    for line in report.lost:
        warn(line)
    for failure in report.failed:
        fail_line(f"{failure.input}: {failure.error}")


def _show(report: IngestReport, page: Path | None, *, with_table: bool) -> None:
    if with_table:
        _print_table(report)
    if report.splits.locked is not None:
        locked = counted(len(report.splits.locked), "patient")
        out.print(f"The test set is locked: {locked}.", markup=False)
    if page is not None:
        out.print("Page:", page.as_posix(), markup=False)


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
                "view": record.view,
                "facing": record.facing,
                "mirrored": record.mirrored,
                "view_by": record.view_by,
                "view_confidence": record.view_confidence,
                "repeated_frames": record.repeated_frames,
                "interlaced": record.interlaced,
                "blanked": len(record.blanked),
                "suspect": len(record.suspect),
                "split": splits.of(record.patient),
                "warnings": list(record.warnings),
            }
            for record in report.studies
        ],
        "failed": [{"input": item.input, "error": item.error} for item in report.failed],
        "skipped": [
            {"input": item.input, "study": item.study or None, "why": item.why}
            for item in report.skipped
        ],
        "splits": {part: len(getattr(splits, part)) for part in ("train", "val", "test")},
        "test_locked": splits.locked is not None,
    }


def _print_table(report: IngestReport) -> None:
    from rich.markup import escape
    from rich.table import Table

    if report.studies:
        table = Table(box=None, pad_edge=False)
        table.add_column("study", no_wrap=True)
        table.add_column("patient", no_wrap=True)
        for name in ("frames", "seconds", "unique/s", "labelled", "blanked"):
            table.add_column(name, justify="right")
        table.add_column("split")
        for record in report.studies:
            table.add_row(
                escape(record.study),
                escape(record.patient),
                str(record.frames),
                f"{record.duration_s:.2f}",
                "" if record.unique_fps is None else f"{record.unique_fps:.1f}",
                str(len(record.labelled_frames)),
                str(len(record.blanked)),
                report.splits.of(record.patient) or "",
            )
        out.print(table)
    for item in report.skipped:
        of_study = f" ({item.study})" if item.study else ""
        out.print(f"skipped {item.input}: {item.why}{of_study}", markup=False)
    if report.skipped and not report.studies and not report.failed:
        out.print("Nothing new: nothing was written.", markup=False)
    splits = report.splits
    people = {record.patient for record in report.studies}
    out.print(
        f"{len(report.studies)} ingested from {counted(len(people), 'patient')}, "
        f"{len(report.skipped)} skipped, {len(report.failed)} failed. "
        f"Workspace: {counted(len(splits.train), 'patient')} for training, "
        f"{len(splits.val)} for validation, {len(splits.test)} for the test."
    )
