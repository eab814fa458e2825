"""Which patient a recording belongs to: from a table, from the recording, or from its folder."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError
from .source import GENERIC_FOLDERS, Found, recording_name

_REMEDY = "Give a CSV with the columns file,patient."


@dataclass(frozen=True)
class Owner:
    """`source_patient` as the source names him, never written but to identities.csv.

    `guessed`: nothing said who it is, so the recording counts as a patient of its own.
    """

    source_patient: str
    guessed: bool = False


class PatientTable:
    """`--patients CSV`: patients by file, matched by relative path, else by name, else by stem."""

    def __init__(self, path: Path | None) -> None:
        """Raises ConfigError, naming the lines, when the table cannot be used."""
        self._by_file: dict[str, str] = {}
        self.given = path is not None
        if path is not None:
            self._read(path)

    def find(self, found: Found) -> str | None:
        """The patient the table names for a recording, or None."""
        for name in _names_of(found):
            if name.casefold() in self._by_file:
                return self._by_file[name.casefold()]
        return None

    def _read(self, path: Path) -> None:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError("cannot be read as UTF-8", file=path, remedy=_REMEDY) from error
        first = text.split("\n", 1)[0]
        delimiter = ";" if first.count(";") > first.count(",") else ","
        reader = csv.DictReader(text.splitlines(), delimiter=delimiter)
        columns = [str(name).strip().lower() for name in reader.fieldnames or ()]
        if "file" not in columns or "patient" not in columns:
            raise ConfigError("lacks the columns file and patient", file=path, remedy=_REMEDY)
        reader.fieldnames = columns
        faults = []
        for row in reader:
            file, patient = (row["file"] or "").strip(), (row["patient"] or "").strip()
            key = file.replace("\\", "/").removeprefix("./").rstrip("/").casefold()
            if not file or not patient:
                faults.append(f"line {reader.line_num}: file or patient is empty")
            elif self._by_file.setdefault(key, patient) != patient:
                faults.append(f"line {reader.line_num}: this file has another patient above")
        if faults:
            raise ConfigError("; ".join(faults), file=path, remedy="Mend these lines.")


def owner_of(found: Found, table: PatientTable, hint: str | None, source_sha256: str) -> Owner:
    """The patient of a recording: the table, else PatientID (`hint`), else the parent folder.

    A recording without a folder of its own below the input is its own patient, known by content,
    so that two films of one name in two folders are not taken for one patient.
    """
    listed = table.find(found)
    if listed is not None:
        return Owner(listed)
    if hint:
        return Owner(hint)
    parent = found.path.resolve().parent
    if parent != found.root.resolve() or _is_generic(found.path):
        return Owner(parent.name)
    return Owner(f"{recording_name(found.path)} {source_sha256[:16]}", guessed=True)


def display(found: Found) -> str:
    """A recording as shown to the user: a relative path, never an absolute one."""
    path = found.path
    if not path.is_absolute() and ".." not in path.parts:
        return path.as_posix()
    real, root = path.resolve(), found.root.resolve()
    if real == root or not real.is_relative_to(root):
        return real.name
    inside = real.relative_to(root)
    return (Path(root.name) / inside).as_posix()


def _names_of(found: Found) -> list[str]:
    real, root = found.path.resolve(), found.root.resolve()
    names = [found.path.as_posix(), display(found)]
    if real.is_relative_to(root) and real != root:
        names.append(real.relative_to(root).as_posix())
        if _is_generic(found.path):
            names.append(real.parent.name)
    return [*names, found.path.name, recording_name(found.path)]


def _is_generic(path: Path) -> bool:
    return path.is_dir() and path.name.lower() in GENERIC_FOLDERS
