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
import secrets
from dataclasses import astuple, dataclass
from pathlib import Path

from ..errors import WorkspaceError
from ..workspace import Workspace, atomic_path, spreadsheet_cell, write_text

_COLUMNS = ("study", "patient", "source_patient", "source_path", "site", "source_site")
_COLUMNS_BEFORE = _COLUMNS[:4]  # of versions that knew no sites
_IGNORED = ("identities.*", ".ingest.lock")
_PRIVATE = 0o600


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
        """Raises WorkspaceError when the table is there but its key is lost."""
        self._workspace = workspace
        self._rows = _read(workspace.identities_file)
        if workspace.identities_key.exists():
            self._key = workspace.identities_key.read_text(encoding="ascii").strip()
        elif self._rows:
            raise WorkspaceError(
                "identities.key is missing, so known patients would get new pseudonyms",
                remedy="Put the file back from a copy, or begin a new workspace.",
            )
        else:
            self._key = secrets.token_hex(32)

    def pseudonym(self, source_patient: str) -> str:
        """The pseudonym of a patient as the source names him."""
        return "p" + self._keyed(source_patient)[:8]

    def site_pseudonym(self, source_site: str) -> str:
        """The pseudonym of a clinic; empty for none."""
        return "c" + self._keyed(f"site\0{source_site}")[:6] if source_site else ""

    def exam_pseudonym(self, source_exam: str | None) -> str:
        """The pseudonym of an examination; empty for none."""
        return "e" + self._keyed(f"exam\0{source_exam}")[:8] if source_exam else ""

    def find(self, study: str) -> Identity | None:
        """The row of a study, or None."""
        row = self._rows.get(study)
        return None if row is None else Identity(*row)

    def lay_at(self, study: str, source_path: str) -> bool:
        """Is this where the recording of a study lay when it was ingested?"""
        row = self._rows.get(study)
        return row is not None and row[3] == spreadsheet_cell(source_path)

    def source_patient(self, patient: str) -> str:
        """What the source calls a patient, by his pseudonym; empty where no row says it."""
        return next((row[2] for row in self._rows.values() if row[1] == patient), "")

    def _keyed(self, text: str) -> str:
        name = text.encode(errors="surrogateescape")  # folders' names are bytes, not always UTF-8
        digest = hmac.new(self._key.encode(), name, hashlib.sha256).digest()
        return base64.b32encode(digest).decode("ascii").lower()

    def record(self, identity: Identity) -> None:
        """Write one row, in place of an older one of the same study. Raises StorageError."""
        if self._rows.get(identity.study) == _cells(identity):
            return
        self._rows[identity.study] = _cells(identity)
        if not self._workspace.identities_key.exists():
            _keep_out_of_git(self._workspace)
            _write_private(self._workspace.identities_key, self._key + "\n")
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(self._rows[study] for study in sorted(self._rows))
        _write_private(self._workspace.identities_file, text.getvalue())


def _read(path: Path) -> dict[str, tuple[str, ...]]:
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        rows = list(csv.reader(stream))
    if not rows or tuple(rows[0]) not in (_COLUMNS, _COLUMNS_BEFORE):
        raise WorkspaceError(
            "has other columns than ours",
            file=path.name,
            remedy=f"Its first line must be {','.join(_COLUMNS)}.",
        )
    width = len(rows[0])
    missing = ("",) * (len(_COLUMNS) - width)
    return {row[0]: (*row, *missing) for row in rows[1:] if len(row) == width}


def _cells(identity: Identity) -> tuple[str, ...]:
    return tuple(spreadsheet_cell(cell) for cell in astuple(identity))


def _write_private(target: Path, text: str) -> None:
    with atomic_path(target, mode=_PRIVATE) as temporary:
        temporary.touch(mode=_PRIVATE)  # before a single name is in it
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


def _keep_out_of_git(workspace: Workspace) -> None:
    path = workspace.root / ".gitignore"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    if missing := [line for line in _IGNORED if line not in lines]:
        write_text(path, "\n".join([*lines, *missing]) + "\n")
