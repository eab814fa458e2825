"""Write docs/cli.md from `vfss … --help`: `python docs/make_cli.py`; a test compares them."""

from __future__ import annotations

import os
from pathlib import Path

from typer.testing import CliRunner

TARGET = Path(__file__).parent / "cli.md"
COMMANDS = (
    "ingest",
    "labels",
    "labels import",
    "labels export",
    "labels check",
    "distill",
    "export",
    "segment",
    "measure",
    "report",
    "compare",
    "teachers",
    "teachers check",
    "cache",
    "cache ls",
    "cache prune",
    "simulate",
    "demo",
    "doctor",
)


def reference() -> str:
    """The whole page, at a fixed terminal width."""
    os.environ.update(COLUMNS="100", TERMINAL_WIDTH="100", NO_COLOR="1", TERM="dumb")
    from vfss_distill.commands.main import app

    runner = CliRunner()
    parts = ["# Command reference\n\nMade from `--help` by `docs/make_cli.py`; do not edit.\n"]
    for command in ("", *COMMANDS):
        words = command.split()
        shown = runner.invoke(app, [*words, "--help"], prog_name="vfss").stdout
        lines = "\n".join(line.rstrip() for line in shown.strip().splitlines())
        parts.append(f"## `{' '.join(['vfss', *words])}`\n\n```text\n{lines}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
