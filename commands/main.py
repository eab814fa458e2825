"""The `vfss` command: a table of subcommands, and nothing that takes time to import."""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from .. import __version__
from ..provenance import RESEARCH_USE_ONLY
from . import (
    cache,
    compare,
    demo,
    distill,
    doctor,
    export,
    ingest,
    labels,
    measure,
    report,
    segment,
    simulate,
    teachers,
)

app = typer.Typer(
    name="vfss",
    help="Segment swallowing X-ray films with a small network distilled from large medical "
    f"encoders.\n\n{RESEARCH_USE_ONLY}",
    epilog="Example:  vfss ingest videos/ && vfss distill --teachers medsam,raddino,medclip "
    "&& vfss segment study.mp4 && vfss report",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for module in (
    ingest,
    labels,
    distill,
    export,
    segment,
    measure,
    report,
    compare,
    teachers,
    cache,
    simulate,
    demo,
    doctor,
):
    module.register(app)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"vfss {__version__}")
        raise typer.Exit


@app.callback()
def vfss(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file's name need not be text
            stream.reconfigure(errors="backslashreplace")
    if debug:
        os.environ["VFSS_DEBUG"] = "1"


def main() -> None:
    """Entry point. Keeps every library that could reach a network from doing so."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    app()
