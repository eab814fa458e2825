"""YAML as people write it, and as disks damage it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .errors import MALFORMED, ConfigError


def load_yaml(path: Path, *, shown: str | Path) -> Any:
    """Raises OSError where there is no file to read, ConfigError naming `shown` for one that is no
    YAML."""
    try:
        data = path.read_bytes()
    except ValueError as error:  # a NUL, half a character
        raise ConfigError("no file can have such a name", file=ascii(str(shown))) from error
    try:
        return yaml.safe_load(data.decode("utf-8"))
    except (yaml.YAMLError, ArithmeticError, *MALFORMED) as error:  # of dates, numbers, depths
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f" (line {mark.line + 1})"
        remedy = "Mend it, or put it back from a backup."
        raise ConfigError(f"not readable as YAML{line}", file=shown, remedy=remedy) from error
