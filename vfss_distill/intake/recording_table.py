"""Tables of recordings that a person gives: patients, views, boxes. A row names a recording's file.

CSV as spreadsheets save it. A row may name a file by its path, or by its bare name where one
recording alone has it.
"""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from ..counting import listed
from ..errors import ConfigError
from ..workspace import delimiter_of
from .names import display, plain_name
from .source import Found, is_generic, recording_name

_MOST_BYTES = 64_000_000  # a million recordings

Row = TypeVar("Row")  # what a table says of one recording


class RecordingTable(ABC, Generic[Row]):
    """What a table says of each recording: matched by relative path, else by name or stem."""

    def __init__(self, path: Path | None) -> None:
        """An empty one for None. Raises ConfigError, naming the lines, for a faulty one."""
        self._by_file: dict[str, Row] = {}
        self._lines: dict[str, int] = {}
        self._namesakes: frozenset[Found] = frozenset()
        self._path = path
        self.given = path is not None
        if path is not None:
            self._read(path)

    @abstractmethod
    def _read(self, path: Path) -> None:
        """Fill `_by_file` and `_lines`."""

    def row(self, found: Found) -> Row | None:
        """What the table says of a recording, or None."""
        if found in self._namesakes:
            return None
        return next((self._by_file[key] for key in keys_of(found) if key in self._by_file), None)

    def settle(self, found: Sequence[Found]) -> None:
        """See which row is whose of all these. Raises ConfigError: one is of several."""
        if self._path is not None:
            self._namesakes = _namesakes(self._lines, found, self._path)

    def unused(self, found: Sequence[Found]) -> list[str]:
        """Files the table names that are none of these: misspelt, most likely."""
        used = {key for item in found for key in keys_of(item)}
        return [key for key in self._by_file if key not in used]


def read_table(
    path: Path, columns: Sequence[str], remedy: str
) -> Iterator[tuple[int, str, dict[str, str]]]:
    """The lines of a table of recordings: line number, key of its `file`, and the cells by column.

    Keys are those of `keys_of`. Comma or semicolon, columns in any order and case.
    Raises ConfigError: unreadable, or `columns` are not all there.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ConfigError("is too large for a table of recordings", file=path, remedy=remedy)
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", file=path, remedy=remedy) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            "cannot be read as UTF-8",
            file=path,
            remedy='In Excel save it as "CSV UTF-8 (comma delimited)".',
        ) from error
    # Strict: a quote that is never closed would swallow the rest of the table.
    reader = csv.DictReader(text.splitlines(), delimiter=delimiter_of(text), strict=True)
    try:
        found = [str(name).strip().lower() for name in reader.fieldnames or ()]
        if not set(columns) <= set(found):
            names = f"{', '.join(columns[:-1])} and {columns[-1]}"
            raise ConfigError(f"lacks the columns {names}", file=path, remedy=remedy)
        reader.fieldnames = found
        for row in reader:
            cells = {name: (row[name] or "").strip() for name in found}
            file = cells["file"].replace("\\", "/").removeprefix("./").rstrip("/")
            yield reader.line_num, _key(file), cells
    except csv.Error as error:
        raise ConfigError(
            f"is no CSV as far as line {reader.line_num}: {error}",
            file=path,
            remedy="Look for a quote that is not closed.",
        ) from error


def keys_of(found: Found) -> list[str]:
    """What a table may call a recording, in lower case and NFC, each once, the surest first."""
    return list(dict.fromkeys(key for keys in _tiers(found) for key in keys))


def _tiers(found: Found) -> list[list[str]]:
    """Its keys by how sure they are: the path as given, as shown, below its input; bare names."""
    real, root = found.path.resolve(), found.root.resolve()
    below: list[str] = []
    bare = [found.path.name, recording_name(found.path)]
    if real.is_relative_to(root) and real != root:
        below = [real.relative_to(root).as_posix()]
        if is_generic(found.path):
            bare.insert(0, real.parent.name)
    tiers = ([found.path.as_posix()], [display(found)], below, bare)
    return [[*map(_key, names)] for names in tiers]


def _namesakes(lines: Mapping[str, int], found: Sequence[Found], table: Path) -> frozenset[Found]:
    """Those of `found` that share a name with one whose path is a row of `table`: it is not theirs.

    `lines`: the table's line numbers by key. Raises ConfigError for rows that name several of them
    alike: the patient or side of one would be taken for that of the others.
    """
    claims: dict[str, list[tuple[int, Found]]] = {}
    for item in found:
        named = [(key, tier) for tier, keys in enumerate(_tiers(item)) for key in keys]
        for key, tier in [one for one in named if one[0] in lines][:1]:
            claims.setdefault(key, []).append((tier, item))
    faults: list[str] = []
    unclear: list[Found] = []
    others: set[Found] = set()
    for key, claimed in claims.items():
        surest = min(tier for tier, _ in claimed)
        owners = [item for tier, item in claimed if tier == surest]
        others.update(item for tier, item in claimed if tier > surest)
        if len({_key(item.path.as_posix()) for item in owners}) > 1:  # not of one but for its case
            faults.append(f"line {lines[key]} names {len(owners)} recordings of that name")
            unclear += owners
    if faults:
        remedy = f"Write the path, as in {_clear_path(unclear[0], found)}."
        raise ConfigError(listed(faults), file=table, remedy=remedy)
    return frozenset(others)


def _clear_path(item: Found, found: Sequence[Found]) -> str:
    """How a row can name this one alone: as it is shown, where no other is shown so."""
    shown = display(item)
    alone = [display(other) for other in found].count(shown) == 1
    return shown if alone else item.path.as_posix()


def _key(name: str) -> str:
    return plain_name(name).casefold()
