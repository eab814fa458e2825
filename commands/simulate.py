"""`vfss simulate`: films of patients that never lived."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .console import (
    ForceOption,
    JsonOption,
    QuietOption,
    SeedOption,
    guarded,
    note,
    out,
    print_json,
)
from .console import progress as progress_bar


class Format(StrEnum):
    mp4 = "mp4"
    avi = "avi"
    dicom = "dicom"


class Population(StrEnum):
    train = "train"
    shifted = "shifted"


class Polarity(StrEnum):
    dark = "dark-barium"
    light = "light-barium"


def simulate(
    out_folder: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder to write; new or empty.")
    ],
    patients: Annotated[int, typer.Option("--patients", "-n", help="How many patients.")] = 4,
    studies: Annotated[int, typer.Option("--studies", help="Studies of each patient.")] = 1,
    seed: SeedOption = 0,
    film_format: Annotated[Format, typer.Option("--format", help="Film format.")] = Format.mp4,
    size: Annotated[int, typer.Option("--size", help="Side of the picture, pixels.")] = 512,
    frames: Annotated[
        int | None, typer.Option("--frames", help="Frames per study; drawn (3 to 6 s) by default.")
    ] = None,
    fps: Annotated[float, typer.Option("--fps", help="Frames stored per second.")] = 30.0,
    pulses: Annotated[
        float | None,
        typer.Option("--pulses", help="Exposures per second: 30, 15, 7.5; drawn by default."),
    ] = None,
    polarity: Annotated[
        Polarity | None, typer.Option("--polarity", help="Display; drawn by default.")
    ] = None,
    label_every: Annotated[
        int, typer.Option("--label-every", help="Write masks of every K-th frame only.")
    ] = 1,
    extras: Annotated[
        bool, typer.Option("--extras", help="Also masks of epiglottis, tongue, valleculae …")
    ] = False,
    ranges: Annotated[
        Population, typer.Option("--ranges", help="Population and machines to draw from.")
    ] = Population.train,
    workers: Annotated[int, typer.Option("--workers", help="Studies made at once.", min=1)] = 1,
    preview: Annotated[
        bool, typer.Option("--preview", help="Also write contact-sheet.png to look at.")
    ] = False,
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make films of patients that never lived.

    With exact masks and truth, ready for `vfss ingest OUT`.

    Same seed, same files, whatever the number of workers. An interrupted run goes on when called
    again with the same options.
    """
    from ..simulate import DatasetOptions, SimulateOptions, simulate_dataset
    from ..simulate.preview import contact_sheet

    options = DatasetOptions(
        patients=patients,
        studies=studies,
        seed=seed,
        kind=film_format.value,
        label_every=label_every,
        write_extras=extras,
        study=SimulateOptions(
            size=size,
            fps=fps,
            frames=frames,
            pulses=pulses,
            polarity=polarity.value if polarity else None,
            ranges=ranges.value,
            extras=extras,
        ),
    )
    start = time.perf_counter()
    with progress_bar("simulating", quiet=quiet or as_json) as tick:
        done = simulate_dataset(out_folder, options, force=force, workers=workers, tick=tick)
    seconds = time.perf_counter() - start
    sheet = contact_sheet(out_folder, options) if preview else None
    total = sum(summary["frames"] for summary in done)
    if as_json:
        print_json(
            {
                "schema_version": 1,
                "simulated": True,
                "studies": done,
                "frames": total,
                "seconds": round(seconds, 3),
                "contact_sheet": sheet.name if sheet else None,
            }
        )
        return
    if not quiet:
        for summary in done:
            told = summary["findings"]
            out.print(
                f"{summary['film']}  {summary['frames']} frames  {told['kind']}, "
                f"{told['volume_ml']} ml {told['consistency']}",
                markup=False,
            )
        note(f"{total} frames in {seconds:.1f} s. SIMULATED: no patient was filmed.")
        if sheet:
            note(f"Contact sheet: {sheet.as_posix()}")


def register(app: typer.Typer) -> None:
    app.command(
        "simulate", epilog="Example:  vfss simulate films/ --patients 8 --seed 1 --preview"
    )(guarded(simulate))
