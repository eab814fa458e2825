"""Which patient a recording belongs to: from a table, from the recording, or from its folder."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..counting import listed
from ..errors import ConfigError
from ..workspace import delimiter_of
from .names import plain_name
from .source import GENERIC_FOLDERS, Found, recording_name

_REMEDY = "Give a CSV with the columns file,patient and, if you like, site."
_MOST_BYTES = 64_000_000  # a million recordings


@dataclass(frozen=True)
class Owner:
    """`source_patient` and `site` as the source names them, never written but to identities.csv.

    `guessed`: nothing said who it is, so the recording counts as a patient of its own.
    `pseudonym`: where the patient is one of a stored study; empty: to be made of his name.
    """

    source_patient: str
    guessed: bool = False
    site: str = ""
    pseudonym: str = ""


class PatientTable:
    """`--patients CSV`: patients by file, matched by relative path, else by name or stem, where one
    recording alone has it.

    A column `site` (clinic) is optional: the splits then give each part its share of each site.
    """

    def __init__(self, path: Path | None) -> None:
        """Raises ConfigError, naming the lines, when the table cannot be used."""
        self._by_file: dict[str, tuple[str, str]] = {}
        self._lines: dict[str, int] = {}
        self._namesakes: frozenset[Found] = frozenset()
        self._path = path
        self.given = path is not None
        if path is not None:
            self._read(path)

    def find(self, found: Found) -> tuple[str, str] | None:
        """Patient and site (may be empty) that the table names for a recording, or None."""
        if found in self._namesakes:
            return None
        return next((self._by_file[key] for key in keys_of(found) if key in self._by_file), None)

    def settle(self, found: Sequence[Found]) -> None:
        """See which row is whose of all these. Raises ConfigError: one is of several."""
        if self._path is not None:
            self._namesakes = namesakes(self._lines, found, self._path)

    def unused(self, found: Sequence[Found]) -> list[str]:
        """Files the table names that are none of these."""
        return unused_keys(self._by_file, found)

    def _read(self, path: Path) -> None:
        faults = []
        for line, key, row in read_table(path, ("file", "patient"), _REMEDY):
            patient, site = row["patient"], row.get("site", "")
            self._lines.setdefault(key, line)
            if not key or not patient:
                faults.append(f"line {line}: file or patient is empty")
            elif not _same(self._by_file.setdefault(key, (patient, site)), (patient, site)):
                faults.append(f"line {line}: this file has another patient above")
        if faults:
            raise ConfigError(listed(faults), file=path, remedy="Mend these lines.")


def read_table(
    path: Path, columns: Sequence[str], remedy: str
) -> Iterator[tuple[int, str, dict[str, str]]]:
    """The lines of a table of recordings: line number, key of its `file`, and the cells by column.

    Keys are those of `keys_of`. CSV as spreadsheets save it: comma or semicolon,
    columns in any order and case. Raises ConfigError: unreadable, or `columns` are not all there.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ConfigError("is too large for a table of recordings", file=path, remedy=remedy)
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", file=path, remedy=remedy) from error
    except UnicodeDecodeError as error:
        raise ConfigError("cannot be read as UTF-8", file=path, remedy=remedy) from error
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


def owner_of(
    found: Found,
    table: PatientTable,
    hint: str | None,
    source_sha256: str,
    exam: str | None = None,
) -> Owner:
    """The patient of a recording: the table, else PatientID (`hint`), else the parent folder.

    A recording without a folder of its own below the input is its own patient, known by content,
    so that two films of one name in two folders are not taken for one patient; those of one DICOM
    study (`exam`) are of one patient all the same.
    """
    listed = table.find(found)
    if listed is not None:
        return Owner(listed[0], site=listed[1])
    if hint:
        return Owner(hint)
    parent = found.path.resolve().parent
    if parent != found.root.resolve() or _is_generic(found.path):
        return Owner(parent.name)
    if exam:
        return Owner(f"exam {exam}", guessed=True)
    return Owner(guessed_name(found, source_sha256), guessed=True)


def guessed_name(found: Found, source_sha256: str) -> str:
    """The patient of a recording that nothing says anything of."""
    return f"{recording_name(found.path)} {source_sha256[:16]}"


def display(found: Found) -> str:
    """A recording as shown to the user: a relative path, never an absolute one, with forward
    slashes; printable."""
    name = os.fsencode(_relative(found).as_posix()).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() or c >= "\xa0" else ascii(c)[1:-1] for c in name)


def _relative(found: Found) -> Path:
    path = found.path
    if not path.is_absolute() and ".." not in path.parts:
        return path
    real = Path(os.path.realpath(path))  # `resolve` ends on a link to itself
    root = found.root.resolve()
    if not real.is_relative_to(root):  # a link, by its own name
        return Path(path.name)
    if real == root:
        return Path(real.name)
    return Path(root.name) / real.relative_to(root)


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
        if _is_generic(found.path):
            bare.insert(0, real.parent.name)
    tiers = ([found.path.as_posix()], [display(found)], below, bare)
    return [[*map(_key, names)] for names in tiers]


def namesakes(lines: Mapping[str, int], found: Sequence[Found], table: Path) -> frozenset[Found]:
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


def unused_keys(keys: Iterable[str], found: Sequence[Found]) -> list[str]:
    """Of the files a table names, those that are no recording of these: misspelt, most likely."""
    used = {key for item in found for key in keys_of(item)}
    return [key for key in keys if key not in used]


def _same(names: Iterable[str], others: Iterable[str]) -> bool:
    return [*map(plain_name, names)] == [*map(plain_name, others)]


def _key(name: str) -> str:
    return plain_name(name).casefold()


def _is_generic(path: Path) -> bool:
    return path.is_dir() and path.name.lower() in GENERIC_FOLDERS
