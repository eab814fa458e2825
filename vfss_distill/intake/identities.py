"""Pseudonyms, and the one table that links them to their sources.

A pseudonym is "p" and eight base-32 characters of HMAC-SHA256(key, source patient). Without
`identities.key` it cannot be computed from a name, and with it the same patient always gets the
same one. Both files have mode 600 and are git-ignored; nothing else holds a name or a path.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import hmac
import io
import os
import re
import secrets
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import WorkspaceError
from ..workspace import (
    Workspace,
    atomic_path,
    clear_temporaries,
    spreadsheet_cell,
    write_bytes,
)
from .names import plain_name, spellings

if TYPE_CHECKING:
    from .record import StudyRecord

_COLUMNS = ("study", "patient", "source_patient", "source_path", "site", "source_site")
_COLUMNS_BEFORE = _COLUMNS[:4]  # of versions that knew no sites
_IGNORED = ("identities.*", ".partial-*", ".ingest.lock", ".distill.lock")
_PRIVATE = 0o600
_KEY_BYTES = 32
_FROM_A_COPY = "Put it back from a copy."


@dataclass(frozen=True)
class Identity:
    """One row: a study, the pseudonyms of its patient and site, and what the source called them."""

    study: str
    patient: str
    source_patient: str
    source_path: str
    site: str = ""
    source_site: str = ""


class Identities:
    """The key and the table of one workspace. Files are made on the first `record`."""

    def __init__(self, workspace: Workspace) -> None:
        """Raises WorkspaceError when one of them is damaged, or the table is there but its key is
        lost. A table is written anew with every row: what is not understood must stop us."""
        self._workspace = workspace
        self._rows = _read(workspace.identities_file)
        self._given = {row[cell] for row in self._rows.values() for cell in (1, 4)}
        key = _read_key(workspace.identities_key)
        self._is_new = key is None
        if key is not None:
            self._key = key
        elif self._rows:
            raise WorkspaceError(
                "identities.key is missing, so known patients would get new pseudonyms",
                remedy="Put the file back from a copy, or begin a new workspace.",
            )
        else:
            self._key = secrets.token_hex(_KEY_BYTES)

    def pseudonym(self, source_patient: str) -> str:
        """The pseudonym of a patient as the source names him."""
        return self._of_name(source_patient, lambda name: "p" + self._keyed(name)[:8])

    def site_pseudonym(self, source_site: str) -> str:
        """The pseudonym of a clinic; empty for none."""
        if not source_site:
            return ""
        return self._of_name(source_site, lambda name: "c" + self._keyed(f"site\0{name}")[:6])

    def exam_pseudonym(self, source_exam: str | None) -> str:
        """The pseudonym of an examination; empty for none."""
        return "e" + self._keyed(f"exam\0{source_exam}")[:8] if source_exam else ""

    def meet(self, studies: Iterable[str]) -> None:
        """Patients of these ids keep their pseudonyms, also where their rows were deleted."""
        self._given.update(study.partition("-")[0] for study in studies)

    def twins(self) -> list[list[str]]:
        """Pseudonyms of patients whom an earlier version took for two: one name, in two Unicode
        forms."""
        written: dict[str, dict[str, str]] = {}
        for row in self._rows.values():
            written.setdefault(plain_name(row[2]), {})[row[1]] = row[2]
        return [sorted(names) for names in written.values() if len(set(names.values())) > 1]

    def lost(self, studies: Collection[str]) -> list[str]:
        """What a user should know of the ids in `studies` that have no row, or no key, any more.

        Both may be deleted on purpose, so that nobody can tell who the patients are.
        """
        lines = []
        if unnamed := sum(study not in self._rows for study in studies):
            lines.append(
                f"identities.csv has no row of {unnamed} of {len(studies)} studies: who their "
                "patients are stands nowhere else. If that is no purpose, put it back from a copy."
            )
        if studies and self._is_new:
            lines.append(
                "identities.key is missing, so patients who are here already get new pseudonyms "
                "with new recordings, and may stand in two parts of the splits. If that is no "
                "purpose, put it back from a copy."
            )
        return lines

    def find(self, study: str) -> Identity | None:
        """The row of a study, or None."""
        row = self._rows.get(study)
        return None if row is None else Identity(*row)

    def study_of(self, digits: str) -> str:
        """The study that was made of a recording whose digest begins so; "" for none."""
        return next((study for study in self._rows if study.endswith(f"-{digits}")), "")

    def lay_at(self, study: str, source_path: str) -> bool:
        """Is this where the recording of a study lay when it was ingested?"""
        row = self._rows.get(study)
        return row is not None and plain_name(row[3]) == plain_name(spreadsheet_cell(source_path))

    def lain_at(self, source_path: str) -> str:
        """The study whose recording lay there when it was ingested; "" for none."""
        return next((study for study in self._rows if self.lay_at(study, source_path)), "")

    def source_patient(self, patient: str) -> str:
        """What the source calls a patient, by his pseudonym; empty where no row says it."""
        return next((row[2] for row in self._rows.values() if row[1] == patient), "")

    def _of_name(self, name: str, make: Callable[[str], str]) -> str:
        """The pseudonym of a name in NFC, but for who has one already that an earlier version made
        of the name as it was written then."""
        made = (make(one) for one in spellings(name))
        return next((one for one in made if one in self._given), make(plain_name(name)))

    def _keyed(self, text: str) -> str:
        name = text.encode(errors="surrogateescape")  # folders' names are bytes, not always UTF-8
        digest = hmac.new(self._key.encode(), name, hashlib.sha256).digest()
        return base64.b32encode(digest).decode("ascii").lower()

    def sweep(self) -> None:
        """Take away copies of both files that a killed ingest left half written: they hold names.
        For whoever ingests alone here."""
        for path in (self._workspace.identities_file, self._workspace.identities_key):
            target = Path(os.path.realpath(path))
            clear_temporaries(target.parent, of=target.name)

    def record(self, identity: Identity) -> None:
        """Write one row, in place of an older one of the same study. Raises StorageError."""
        if self._rows.get(identity.study) == _cells(identity):
            return
        self._rows[identity.study] = _cells(identity)
        if not self._workspace.identities_key.exists():
            _keep_out_of_git(self._workspace)
            _write_private(self._workspace.identities_key, self._key + "\n")
        rows = (_COLUMNS, *(self._rows[study] for study in sorted(self._rows)))
        _write_private(self._workspace.identities_file, "".join(map(_line, rows)))


def recordings_of_patients(
    workspace: Workspace, records: Iterable[StudyRecord]
) -> dict[str, tuple[str, ...]]:
    """Digests of each patient's recordings: of the studies that are there, and, as identities.csv
    still has their rows, the first digits of those deleted since.

    So that a patient whom a model was trained on stays one when that film's study is gone.
    """
    found: dict[str, list[str]] = {}
    there = set()
    for record in records:
        there.add(_digits(record.study))
        found.setdefault(record.patient, []).append(record.source_sha256)
    rows: dict[str, tuple[str, ...]] = {}
    with suppress(WorkspaceError):  # a damaged table is told where it is written to
        rows = _read(workspace.identities_file)
    for study, row in rows.items():
        digits = _digits(study)
        # Of a study that is there, perhaps under its right patient since, the record says whose.
        if digits and digits not in there:
            found.setdefault(row[1], []).append(digits)
    return {patient: tuple(some) for patient, some in found.items()}


def _digits(study: str) -> str:
    """The end of a study's id: the first digits of its recording's digest."""
    return study.rpartition("-")[2]


def _read(path: Path) -> dict[str, tuple[str, ...]]:
    """The rows by study; none where there is no file."""
    text = _text(path)
    if text is None:
        return {}
    text = text.removeprefix("\ufeff")  # Excel puts that mark in front
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: dict[str, tuple[str, ...]] = {}
    width, last = 0, 0
    try:
        for row in lines:
            if not width:
                if tuple(row) not in (_COLUMNS, _COLUMNS_BEFORE):
                    break
                width = len(row)
            elif row:
                if len(row) != width or row[0] in rows:
                    raise _damaged(path, last + 1)
                rows[row[0]] = (*row, *[""] * (len(_COLUMNS) - width))
            last = lines.line_num
    except csv.Error as error:
        raise _damaged(path, last + 1) from error
    if not width:
        raise WorkspaceError(
            "has other columns than ours",
            file=path.name,
            remedy=f"Its first line must be {','.join(_COLUMNS)}.",
        )
    if not text.endswith("\n"):  # we end it so: cut off, the last cell may lack letters
        raise _damaged(path, last, "is cut off: it does not end with a line break")
    return rows


def _damaged(path: Path, line: int, what: str = "is damaged") -> WorkspaceError:
    """Names the line and nothing of what stands in it: that may be a name."""
    return WorkspaceError(
        f"line {line} {what}",
        file=path.name,
        remedy="Put the file back from a copy, or mend that line.",
    )


def _read_key(path: Path) -> str | None:
    text = _text(path)
    if text is None:
        return None
    key = text.strip()
    if not re.fullmatch(f"[0-9a-f]{{{2 * _KEY_BYTES}}}", key):
        # With another key, or none, whoever knows a name could tell its pseudonym.
        raise WorkspaceError("is damaged", file=path.name, remedy=_FROM_A_COPY)
    return key


def _text(path: Path) -> str | None:
    """What stands in a file; None where there is none. A link that leads nowhere is no absence."""
    if not os.path.lexists(path):
        return None
    try:
        return path.read_bytes().decode(errors="surrogateescape")
    except OSError as error:
        why = "is a link that leads nowhere" if path.is_symlink() else "cannot be read"
        raise WorkspaceError(why, file=path.name, remedy=_FROM_A_COPY) from error


def _cells(identity: Identity) -> tuple[str, ...]:
    return tuple(spreadsheet_cell(cell) for cell in astuple(identity))


def _line(cells: tuple[str, ...]) -> str:
    """One line of the table. Only for an end with both is each of CR and LF in a cell quoted."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n") + "\n"


def _write_private(target: Path, text: str) -> None:
    """Where a link leads to a protected disk, the names are written there, and the link stays."""
    with atomic_path(Path(os.path.realpath(target)), mode=_PRIVATE) as temporary:
        temporary.touch(mode=_PRIVATE)  # before a single name is in it
        # As bytes: on Windows a text's line breaks change, also those in a cell.
        temporary.write_bytes(text.encode(errors="surrogateescape"))


def _keep_out_of_git(workspace: Workspace) -> None:
    path = workspace.root / ".gitignore"
    before = path.read_bytes() if path.exists() else b""  # git asks for no encoding: nor do we
    lines = before.splitlines()
    if missing := [line.encode() for line in _IGNORED if line.encode() not in lines]:
        write_bytes(path, b"\n".join([*lines, *missing, b""]))
