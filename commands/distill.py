"""`vfss distill`: several teachers, few labels, one small student."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import EXIT_INTERRUPTED, EXIT_OK, UsageError, VfssError
from ..provenance import SCHEMA_VERSION
from . import console
from .console import JsonOption, QuietOption, WorkspaceOption, guarded

_OF_USE = 0.3  # Dice: below it masks mostly lie elsewhere


def register(app: typer.Typer) -> None:
    app.command(
        "distill",
        epilog="Example:  vfss distill --teachers medsam,raddino,medclip --student small",
    )(guarded(distill))


def distill(
    teachers: Annotated[
        str | None,
        typer.Option(help="Names (see `vfss teachers`), with commas; `none`: labels alone."),
    ] = None,
    student: Annotated[
        str | None, typer.Option(help="nano, small, base, or a timm trunk with feature maps.")
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(help="Start from vfss12-small, imagenet, or a file in the workspace."),
    ] = None,
    balancing: Annotated[str | None, typer.Option(help="uniform, mlp, attention or drop.")] = None,
    standardisation: Annotated[str | None, typer.Option(help="none, meanstd or phi-s.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the input square.")] = None,
    align_steps: Annotated[int | None, typer.Option(help="Steps of feature alignment.")] = None,
    task_steps: Annotated[int | None, typer.Option(help="Steps with the masks.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Frames per step.")] = None,
    learning_rate: Annotated[float | None, typer.Option("--lr", help="Peak learning rate.")] = None,
    unlabelled_every: Annotated[
        int | None, typer.Option(help="Show teachers every n-th unlabelled frame.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same weights.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    cache_int8: Annotated[
        bool, typer.Option("--cache-int8", help="Cache features as bytes: half the space.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write event files for TensorBoard as well.")
    ] = False,
    compile_first: Annotated[
        bool, typer.Option("--compile", help="Compile the student first: a minute, then faster.")
    ] = False,
    config: Annotated[
        Path | None, typer.Option(help="YAML with any of these settings and more.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run. Default: run-NNN.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the interrupted run (or --name RUN).")
    ] = False,
    cache_only: Annotated[
        bool,
        typer.Option(
            "--cache-only",
            help="Compute the teachers' features and stop; machines on one shared disk share it.",
        ),
    ] = False,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="A folder of teacher weights, searched before all but that of a lab's card."
        ),
    ] = None,
    no_export: Annotated[bool, typer.Option("--no-export", help="Write no student.onnx.")] = False,
    workspace: WorkspaceOption = Path(),
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Train a small student from teachers' features and your labels.

    Teacher features are computed once and cached; alignment with them comes first, then the masks.
    Ctrl-C leaves a checkpoint; --resume goes on, and on the CPU ends with the same weights.
    """
    flags: dict[str, Any] = {
        "teachers": teachers,
        "student": student,
        "init": init,
        "balancing": balancing,
        "standardisation": standardisation,
        "image_size": image_size,
        "align_steps": align_steps,
        "task_steps": task_steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "unlabelled_every": unlabelled_every,
        "seed": seed,
        "device": device,
        "threads": threads,
        "tensorboard": tensorboard or None,
        "compile": compile_first or None,
        "cache_numbers": "int8" if cache_int8 else None,
    }
    flags = {key: value for key, value in flags.items() if value is not None}
    from ..distill import settings
    from ..distill.teacher_files import find_teachers
    from ..models.teachers.card import weights_folders
    from ..workspace import Workspace

    if weights is not None and not weights.is_dir():
        raise UsageError("no such folder of weights", file=weights, remedy="Check --weights.")
    place = Workspace(workspace)
    # Features may also be computed for a run that another process trains: it may wait for them.
    unfinished = settings.find_unfinished(place, name, trained_too=cache_only) if resume else None
    before = settings.read_run_config(unfinished) if unfinished else None
    chosen = settings.resolve_config(place, config, flags, before)
    folders = [*([weights] if weights else []), *weights_folders(workspace)]
    find_teachers(place, chosen, folders)  # what is wrong with them is said before torch is loaded
    # Of several processes that a launcher started, the first one speaks.
    is_first = os.environ.get("RANK", "0") == "0"
    quiet = quiet or not is_first
    if cache_only:
        _fill_caches(place, chosen, folders, quiet)
        if json and is_first:
            console.print_json({"schema_version": SCHEMA_VERSION, "outputs": {"cache": "cache"}})
        return
    from ..distill import run

    with console.progress("distill", quiet=quiet) as tick:
        outcome = run.distill(
            place,
            chosen,
            run_name=name,
            resume=unfinished,
            weights_folders=folders,
            tick=tick,
            say=lambda line: _say(line, quiet),
        )
    if outcome.silent:
        raise typer.Exit(EXIT_INTERRUPTED if outcome.interrupted else EXIT_OK)
    if outcome.interrupted:
        console.note(f"interrupted after step {outcome.steps}; go on with `vfss distill --resume`")
        raise typer.Exit(EXIT_INTERRUPTED)
    if not no_export:
        _say("writing student.onnx and comparing it with torch", quiet)
        _export(place, outcome.folder)
    _print(place, outcome, json, begun=bool(chosen.init))


def _fill_caches(place: Any, config: Any, folders: Sequence[Path], quiet: bool) -> None:
    from ..distill.run import fill_caches

    with console.progress("distill", quiet=quiet) as tick:
        fill_caches(
            place,
            config,
            weights_folders=folders,
            tick=tick,
            say=lambda line: _say(line, quiet),
        )
    if not quiet:
        console.note("the teachers' part is in cache/; without --cache-only the same trains")


def _say(line: str, quiet: bool) -> None:
    if line.startswith("warning: "):
        console.warn(line.removeprefix("warning: "))
    elif not quiet:
        console.note(line)


def _export(place: Any, folder: Path) -> None:
    from ..inference.export import export_run

    try:
        export_run(place, folder)
    except (KeyboardInterrupt, VfssError):
        console.note(f"{folder.name} is trained; `vfss export {folder.name}` goes on from there")
        raise


def _print(place: Any, outcome: Any, json: bool, *, begun: bool) -> None:
    """`begun`: from weights that a setting named."""
    files = ("student.safetensors", "student.onnx", "MODEL_CARD.md")
    dice = outcome.best_val_dice
    if dice is not None and dice < _OF_USE:
        begin = "" if begun else ", or --student small --init vfss12-small"
        taken = ", and `vfss segment` takes the newest run unless --model says otherwise"
        console.warn(
            f"{outcome.name} hardly finds anything yet (validation Dice {dice:.3f})"
            f"{taken if (outcome.folder / 'student.onnx').exists() else ''}; it may need "
            f"more steps, more labels{begin}"
        )
    written = {path: place.relative(outcome.folder / path) for path in files}
    if json:
        console.print_json(
            {
                "schema_version": SCHEMA_VERSION,
                "run": outcome.name,
                "steps": outcome.steps,
                "seconds": round(outcome.seconds, 1),
                "val_dice": {task: round(dice, 4) for task, dice in outcome.val_dice.items()},
                "mean_val_dice": outcome.best_val_dice,
                "outputs": {
                    path.replace(".", "_").lower(): where
                    for path, where in written.items()
                    if (outcome.folder / path).exists()
                },
            }
        )
        return
    said = "no validation labels" if dice is None else f"validation Dice {dice:.3f}"
    typer.echo(
        f"{place.relative(outcome.folder)}: {said}, {outcome.steps} steps, "
        f"{outcome.seconds / 60:.1f} min"
    )
