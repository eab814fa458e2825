"""YAML as people write it, and as disks damage it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .errors import MALFORMED, ConfigError

_MAX_BYTES = 4 * 2**20  # the splits of 100 000 patients; the parser takes a minute for them


class _Refused(yaml.MarkedYAMLError):
    """Sound YAML that is not read here; `problem` says why."""


class _SafeLoader(yaml.SafeLoader):
    """Without `*aliases`: lists of them in lists of them are few lines and more than any memory."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise _Refused(problem="write out what *names stand for", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Of two values under one key the last would count, and nobody would know."""
        mapping = super().construct_mapping(node, deep=deep)
        if len(mapping) < len(node.value):
            seen = set()
            for key, _ in node.value:
                if key.value in seen:
                    mark = key.start_mark
                    raise _Refused(problem="two values under one key", problem_mark=mark)
                seen.add(key.value)
        return mapping


def load_yaml(path: Path, *, shown: str | Path) -> Any:
    """Raises OSError where there is no file to read, ConfigError naming `shown` for one that is no
    YAML."""
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except ValueError as error:  # a NUL, half a character
        raise ConfigError("no file can have such a name", file=ascii(str(shown))) from error
    remedy = "Mend it, or put it back from a backup."
    if len(data) > _MAX_BYTES:
        what = f"not readable as YAML: larger than {_MAX_BYTES // 2**20} MB"
        raise ConfigError(what, file=shown, remedy=remedy)
    try:
        return yaml.load(data.decode("utf-8"), _SafeLoader)  # plain values alone, as safe_load
    except (yaml.YAMLError, ArithmeticError, *MALFORMED) as error:  # of dates, numbers, depths
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f" (line {mark.line + 1})"
        why = f": {error.problem}" if isinstance(error, _Refused) else ""
        raise ConfigError(f"not readable as YAML{line}{why}", file=shown, remedy=remedy) from error
