"""How every HTML page we write is made: escaped, strict about names, templates beside the code."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def page_environment(module: str) -> Environment:
    """Templates in the folder `templates` beside the module file (pass `__file__`)."""
    return Environment(
        loader=FileSystemLoader(Path(module).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
