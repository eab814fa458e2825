"""Whose a recording is: by the table, its header or its folder, or as it was decided before."""

from __future__ import annotations

from collections.abc import Callable

from ..workspace import Workspace
from .discovery import relative_to_workspace
from .doubts import Doubts
from .exams import Exams
from .identities import Identities, Identity
from .patients import Owner, PatientTable, guessed_name, owner_of
from .record import StudyRecord
from .source import Found, SourceInfo


class Owners:
    """Of the recordings of one ingest. `known`: the record of the study that a recording is."""

    def __init__(
        self,
        workspace: Workspace,
        patients: PatientTable,
        identities: Identities,
        exams: Exams,
        doubts: Doubts,
        say: Callable[[str], None],
    ) -> None:
        self._workspace = workspace
        self._patients = patients
        self._identities = identities
        self._exams = exams
        self._doubts = doubts
        self._say = say

    def of(self, found: Found, info: SourceInfo, digest: str, known: StudyRecord | None) -> Owner:
        """Whose it is. Raises InputError where its exam may be that of another patient."""
        owner = owner_of(found, self._patients, info.patient_hint, digest, info.exam_hint)
        if info.exam_hint:
            named = bool(info.patient_hint) or self._patients.row(found) is not None
            owner = self._exams.owner(
                info.exam_hint, owner, named=named, known=known, say=self._say
            )
        if known is None or not self._named_by_table(known, found, owner):
            return owner
        self._doubts.add_kept()
        return Owner(self._identities.source_patient(known.patient), pseudonym=known.patient)

    def record(self, draft: StudyRecord, owner: Owner, found: Found) -> None:
        """Into identities.csv. A guess, or no site, does not take the place of a name there."""
        name, site = owner.source_patient, owner.site
        before = self._identities.find(draft.study)
        if before is not None:
            name = before.source_patient if owner.guessed or owner.pseudonym else name
            site = site or before.source_site
        where = relative_to_workspace(self._workspace, found.path)
        self._identities.record(Identity(draft.study, draft.patient, name, where, draft.site, site))

    def study_at(self, found: Found) -> str:
        """The study whose recording lay in this place when it was ingested; "" for none."""
        return self._identities.lain_at(relative_to_workspace(self._workspace, found.path))

    def _named_by_table(self, known: StudyRecord, found: Found, owner: Owner) -> bool:
        """Was the patient of a study named by a table that is not given now?

        The same file in the same place has the folder and header it had then: had they named its
        patient, they would name him again. A copy elsewhere may be another patient's.
        """
        if self._patients.given or owner.guessed or owner.pseudonym:
            return False
        where = relative_to_workspace(self._workspace, found.path)
        if not self._identities.lay_at(known.study, where):
            return False
        others = (owner.source_patient, guessed_name(found, known.source_sha256))
        return known.patient not in map(self._identities.pseudonym, others)
