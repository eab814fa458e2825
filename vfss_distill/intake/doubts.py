"""What a person should check about who is who: said of patients that names of folders made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..counting import counted, listed
from .identities import Identities
from .names import display, plain_name
from .patients import Owner, PatientTable
from .source import Found
from .splits import Splits


class Doubts:
    """Feed the owner of each recording with `add`, and `tell` at the end what concerns them all."""

    def __init__(self, patients: PatientTable, say: Callable[[str], None]) -> None:
        self._patients = patients
        self._say = say
        self._folders: dict[str, Path] = {}
        self._below: dict[Path, set[str]] = {}  # folder directly in an input → patients in it
        self._guessed = self._kept = 0

    def add(self, found: Found, owner: Owner, *, is_new: bool = True) -> None:
        """Note whose a recording is taken to be; what is odd of it alone is said at once.

        One that is not new keeps its patient, whatever its place says.
        """
        self._guessed += owner.guessed and is_new
        if self._patients.given and self._patients.row(found) is None:
            self._say(f"{display(found)}: not in --patients; patient taken from file or folder")
        parent, root = found.path.resolve().parent, found.root.resolve()
        name = plain_name(owner.source_patient)
        if owner.guessed or name != plain_name(parent.name):
            return
        if parent != root and parent.is_relative_to(root):
            top = Path(found.root.name, parent.relative_to(root).parts[0])
            self._below.setdefault(top, set()).add(name)
        if self._folders.setdefault(name, parent) != parent:
            self._say(
                f"{display(found)}: two folders have this name; taken as one patient. "
                "If they are two, use --patients."
            )

    def add_kept(self) -> None:
        """Note a recording whose patient is still the one that a table named."""
        self._kept += 1

    def tell(self) -> None:
        """Say which recordings count as patients of their own, and which folders as several."""
        if self._kept:
            self._say(
                "the patients that an earlier --patients named are kept "
                f"({counted(self._kept, 'recording')}). "
                "If it names new ones too, give it again: they are taken by folder or header."
            )
        if self._guessed:
            self._say(
                f"{counted(self._guessed, 'recording')} in no folder of a patient and without a "
                "name: each counts as a patient. If some are of one person, use --patients."
            )
        if shared := [folder for folder, patients in self._below.items() if len(patients) > 1]:
            names = [folder.as_posix() for folder in shared]
            self._say(
                f"{listed(names, 1, ' ')}: the folders in it are taken as "
                f"{len(self._below[shared[0]])} patients. If they are one, use --patients."
            )


def twins_apart(identities: Identities, splits: Splits) -> list[str]:
    """What to say of patients in two parts of the splits who may be one, in two Unicode forms."""
    return [
        f"{' and '.join(patients)} have one name in identities.csv, written in two Unicode forms, "
        "and stand in two parts of the splits. If they are one patient, put them into one list of "
        "splits.yaml."
        for patients in identities.twins()
        if len({splits.of(patient) for patient in patients}) > 1
    ]
