"""Which patient a recording belongs to: from a table, from the recording, or from its folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..counting import listed
from ..errors import ConfigError
from .names import plain_name
from .recording_table import RecordingTable, read_table
from .source import Found, is_generic, recording_name

_REMEDY = "Give a CSV with the columns file,patient and, if you like, site."


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


class PatientTable(RecordingTable[tuple[str, str]]):
    """`--patients CSV`: patient and site (may be empty) by file.

    A column `site` (clinic) is optional: the splits then give each part its share of each site.
    """

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
    row = table.row(found)
    if row is not None:
        return Owner(row[0], site=row[1])
    if hint:
        return Owner(hint)
    parent = found.path.resolve().parent
    if parent != found.root.resolve() or is_generic(found.path):
        return Owner(parent.name)
    if exam:
        return Owner(f"exam {exam}", guessed=True)
    return Owner(guessed_name(found, source_sha256), guessed=True)


def guessed_name(found: Found, source_sha256: str) -> str:
    """The patient of a recording that nothing says anything of."""
    return f"{recording_name(found.path)} {source_sha256[:16]}"


def _same(names: Iterable[str], others: Iterable[str]) -> bool:
    return [*map(plain_name, names)] == [*map(plain_name, others)]
