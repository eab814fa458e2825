"""Whose each DICOM study is: its recordings are of one patient, also where only some name him."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..errors import InputError
from .damaged import DamagedStudies
from .identities import Identities
from .patients import Owner
from .record import StudyRecord


class Exams:
    """The patient of each DICOM study, from the stored records and from what comes in."""

    def __init__(
        self, identities: Identities, records: Iterable[StudyRecord], damaged: DamagedStudies
    ) -> None:
        self._identities = identities
        self._damaged = damaged
        self._owners: dict[str, Owner] = {}  # by the exam's pseudonym: records have no other
        self._told: set[str] = set()
        for record in records:
            if record.exam:
                self._owners.setdefault(record.exam, self._stored(record))

    def owner(
        self,
        exam_hint: str,
        owner: Owner,
        *,
        named: bool,
        known: StudyRecord | None,
        say: Callable[[str], None],
    ) -> Owner:
        """The owner of a recording of this exam: who is `named`, else the exam's, else `owner`.

        `known`: the recording's own record, if it is stored already. `say` hears once of an exam
        whose recordings are of two patients. Raises InputError where the exam may be that of a
        damaged study, whose patient would get a second pseudonym.
        """
        exam = self._identities.exam_pseudonym(exam_hint)
        if known is None and not named and self._damaged and exam not in self._owners:
            raise InputError(
                "names no patient, and may be of one DICOM study with a recording whose record is "
                f"damaged ({', '.join(self._damaged.folders)})",
                remedy="Mend that record first, or name the patient in --patients.",
            )
        stored = owner if known is None else self._stored(known)
        first = self._owners.setdefault(exam, stored)
        before = first if known is None else stored
        patients = [self._pseudonym(before), self._pseudonym(owner)]
        if patients[0] == patients[1]:
            return owner
        if not named:
            return before
        if known is None and exam not in self._told:
            self._told.add(exam)
            say(
                f"recordings of one DICOM study are taken as of two patients, {patients[0]} and "
                f"{patients[1]}. If they are one, say so in --patients."
            )
        return owner

    def _stored(self, record: StudyRecord) -> Owner:
        name = self._identities.source_patient(record.patient)
        return Owner(name, pseudonym=record.patient)

    def _pseudonym(self, owner: Owner) -> str:
        return owner.pseudonym or self._identities.pseudonym(owner.source_patient)
