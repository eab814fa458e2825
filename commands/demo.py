"""`vfss demo`: the whole job on simulated patients."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import ForceOption, JsonOption, SeedOption, err, guarded, note, out, print_json

_STDERR = 2
_LOUD = (
    "SIMULATED PATIENTS: nobody in these films ever lived, and the figures say nothing of real ones"
)


def demo(
    folder: Annotated[Path, typer.Argument(help="A new folder for the demo.")] = Path("vfss-demo"),
    seed: SeedOption = 7,
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Run the whole job on simulated patients.

    Simulate, ingest, distill, segment and report, in some ten minutes on a laptop.

    Runs the commands a user would type, and shows each.
    """
    from rich.markup import escape

    from ..demo import Step, run_demo

    number = 0

    def announce(step: Step) -> None:
        nonlocal number
        number += 1
        words = escape(" ".join(step.words))  # the folder's name may have [brackets]
        err.print(f"\n[bold cyan]{number}. {step.why}[/]\n[bold]$ vfss {words}[/]")

    err.print(f"[black on yellow] {_LOUD} [/]")
    # With --json, stdout is for one object: what the steps print goes to stderr.
    stdout = _STDERR if json else None
    outcome = run_demo(folder, seed=seed, force=force, announce=announce, stdout=stdout)
    err.print(f"\n[black on yellow] {_LOUD} [/]")
    dice = "none" if outcome.mean_dice is None else f"{outcome.mean_dice:.3f}"
    if json:
        print_json(
            {
                "schema_version": 1,
                "simulated": True,
                "mean_dice": outcome.mean_dice,
                "seconds": round(outcome.seconds, 1),
                "report": outcome.report,
                "overlay": outcome.overlay,
            }
        )
        return
    note(
        f"done in {outcome.seconds / 60:.1f} minutes; mean Dice on unseen simulated patients {dice}"
    )
    out.print(f"report:  {folder / outcome.report}", markup=False)
    out.print(f"overlay: {folder / outcome.overlay}", markup=False)


def register(app: typer.Typer) -> None:
    app.command(epilog="Example:  vfss demo build/demo")(guarded(demo))
