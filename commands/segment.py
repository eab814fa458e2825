"""`vfss segment`: films in, overlay films, masks and a table out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..counting import counted
from ..errors import (
    EXIT_DATA,
    EXIT_SOME_FAILED,
    DataError,
    DeviceError,
    InputError,
    ModelError,
    UsageError,
    VfssError,
)
from ..provenance import SCHEMA_VERSION
from . import console
from .console import ForceOption, JsonOption, QuietOption, WorkspaceOption, guarded

if TYPE_CHECKING:
    from ..inference.inputs import Failure, Identifier, Input
    from ..inference.record import SegmentOutcome
    from ..inference.session import Segmenter
    from ..workspace import Workspace


class Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Split(StrEnum):
    train = "train"
    val = "val"
    test = "test"
    all = "all"


def register(app: typer.Typer) -> None:
    app.command(
        "segment",
        epilog="Example:  vfss segment study.mp4    vfss segment --split test    "
        "vfss segment exports/ --model run-002 --json",
    )(guarded(segment))


def segment(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Films, cine DICOM files, folders of either, image folders, or ids of studies."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="ONNX file or name of a run. Default: the run exported last, else the packaged "
            "one."
        ),
    ] = None,
    device: Annotated[Device, typer.Option(help="Where the network runs.")] = Device.auto,
    threads: Annotated[
        int, typer.Option(min=0, help="CPU threads of the network; 0: all this process may use.")
    ] = 0,
    overlay: Annotated[
        bool, typer.Option("--overlay/--no-overlay", help="Write the overlay film.")
    ] = True,
    masks: Annotated[
        bool, typer.Option("--masks/--no-masks", help="Write a PNG per frame and task.")
    ] = True,
    split: Annotated[
        Split | None, typer.Option(help="Segment the ingested studies of this split.")
    ] = None,
    no_blank: Annotated[
        bool,
        typer.Option(
            "--no-blank", help="Keep text burned into a raw film, and what is drawn around it."
        ),
    ] = False,
    workspace: WorkspaceOption = Path(),
    force: ForceOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Outline the anatomy in every frame of swallowing films.

    Writes results/<study>/<model>/ with overlay.mp4 (same frames and times as the film), masks,
    frames.csv and run.json. A film that was ingested keeps its study id; any other gets an id made
    from its content. What has been segmented by this model already is left alone; a result of other
    frames (its study was ingested anew) or without what is asked for now fails its input. Text that
    is found burned into a raw film, and what is drawn around it, is made black, as ingest does:
    reduced, never surely removed. Research use only; not a medical device.
    """
    from ..inference.inputs import Identifier
    from ..inference.record import clear_results
    from ..inference.session import Segmenter, exported_runs, find_model
    from ..workspace import Workspace

    place = Workspace(workspace)
    clear_results(place.results)
    todo, failed = _inputs(inputs or [], split, place)
    found = find_model(place, model)
    if model is None and not quiet and len(runs := exported_runs(place)) > 1:
        # A copied workspace may have lost which is the newest.
        name = runs[-1].name
        console.note(f"{name}, the run exported last of {len(runs)}; --model takes another")
    segmenter = Segmenter(found, device.value, threads)
    if segmenter.simulated and not quiet:
        console.note(f"{segmenter.name}: trained on simulated patients only")
    if segmenter.gpu_left_idle:
        console.warn(f"{segmenter.gpu_left_idle}. Running on the CPU; see `vfss doctor`.")
    identifier = Identifier(place, blank=not no_blank)
    for one in identifier.damaged:
        console.warn(f"{one['input']}: {one['error']}")
    job = _Job(place, identifier, segmenter, overlay, masks, force, quiet, json)
    outcomes = job.run(todo, failed)
    for failure in failed:
        console.fail_line(f"{failure.shown}: {failure.error.without_file}")
    if json:
        console.print_json(_report(outcomes, failed, place))
    if failed:
        raise typer.Exit(EXIT_SOME_FAILED if outcomes else EXIT_DATA)


@dataclass(frozen=True)
class _Job:
    """One invocation: everything the inputs have in common."""

    place: Workspace
    identifier: Identifier
    segmenter: Segmenter
    overlay: bool
    masks: bool
    force: bool
    quiet: bool
    json: bool

    def run(self, todo: Sequence[Input], failed: list[Failure]) -> list[SegmentOutcome]:
        """Every input in turn; those that fail are added to `failed`.

        A device or a model that gives up, or a full disk, concerns them all, and is raised.
        """
        from ..inference.inputs import Failure

        outcomes = []
        first: dict[Path, str] = {}  # what each result was made from, or found for, in this call
        for number, item in enumerate(todo):
            title = f"segment {number + 1}/{len(todo)}"
            try:
                outcome = self._one(item, title)
            except (DeviceError, ModelError):
                raise
            except VfssError as error:
                failed.append(Failure(item.shown, error))
                continue
            except OSError as error:
                fault = InputError(f"cannot be read ({error.strerror})")
                failed.append(Failure(item.shown, fault))
                continue
            outcomes.append(outcome)
            self._say(item, outcome, first.setdefault(outcome.folder, item.shown))
        return outcomes

    def _one(self, item: Input, title: str) -> SegmentOutcome:
        from ..inference.pipeline import SegmentOptions, segment_source
        from ..inference.record import read_outcome

        subject = self.identifier.subject(item)
        target = self.place.results / subject.study / self.segmenter.result_name
        self.place.relative(target)  # raises, before a folder outside the workspace is replaced
        existing = None if self.force else read_outcome(target)
        if existing is not None:
            other = existing.differs(subject, overlay=self.overlay, masks=self.masks)
            if other:
                raise DataError(other, remedy="--force makes it anew.")
            return existing
        self.place.check_output(target)
        source = self.identifier.open(item, subject)
        subject = self.identifier.viewed(subject, source)
        with console.progress(title, quiet=self.quiet) as tick:
            options = SegmentOptions(subject, self.overlay, self.masks, tick)
            return segment_source(source, self.segmenter, target, options)

    def _say(self, item: Input, outcome: SegmentOutcome, first: str) -> None:
        where = self.place.relative(outcome.folder)
        if first != item.shown:
            said = f"{item.shown} → {where}/ is the same film as {first}"
        elif outcome.existed:
            said = f"{item.shown} → {where}/ exists already; --force makes it anew"
        else:
            said = (
                f"{item.shown} → {where}/  {counted(outcome.frames, 'frame')}, "
                f"{outcome.seconds:.1f} s, "
                f"{outcome.fps:.0f} frames/s, {outcome.provider.removesuffix('ExecutionProvider')}"
            )
        for warning in outcome.warnings if not outcome.existed else ():
            console.warn(f"{item.shown}: {warning}")
        if outcome.seen_in_training:
            console.warn(f"{outcome.study}: the model was trained on recordings of this patient")
        if not self.json:
            try:
                typer.echo(said)
            except BrokenPipeError:  # `| head` is no reason to leave films out
                console.silence_stdout()


def _inputs(
    words: Sequence[str], split: Split | None, place: Workspace
) -> tuple[list[Input], list[Failure]]:
    from ..inference.inputs import find_inputs, find_split
    from ..intake.study import list_studies_readable

    if words and split:
        raise UsageError("films and --split together", remedy="Give one or the other.")
    if split:
        return find_split(split.value, place)
    if not words:
        number = len(list_studies_readable(place)[0])
        raise UsageError(
            "no film named",
            remedy=f"`vfss segment --split test` segments ingested studies ({number} here)."
            if number
            else "`vfss segment FILM` takes a video, a cine DICOM, or a folder of either.",
        )
    return find_inputs(words, place)


def _report(
    outcomes: Sequence[SegmentOutcome], failed: Sequence[Failure], place: Workspace
) -> dict[str, Any]:
    def relative(path: Path | None) -> str | None:
        return None if path is None else place.relative(path)

    return {
        "schema_version": SCHEMA_VERSION,
        "studies": [
            {
                "study": outcome.study,
                "frames": outcome.frames,
                "seconds": round(outcome.seconds, 3),
                "fps": round(outcome.fps, 2),
                "provider": outcome.provider,
                "model": {"name": outcome.model, "sha256": outcome.model_sha256},
                "outputs": {
                    "overlay": relative(outcome.overlay),
                    "masks": relative(outcome.masks),
                    "frames_csv": relative(outcome.frames_csv),
                },
                "seen_in_training": outcome.seen_in_training,
                "existed": outcome.existed,
            }
            for outcome in outcomes
        ],
        "failed": [
            {"input": failure.shown, "error": failure.error.without_file} for failure in failed
        ],
    }
