"""Studies whose record cannot be read, and what ingest knows of them all the same.

A study's folder is called `<patient>-<first digits of its recording's digest>`. So no recording is
taken for a new one, no patient for another, and no place in the splits for a free one, because a
record was lost.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..errors import DataError, InputError
from ..workspace import Workspace
from .identities import Identities
from .splits import PatientFacts, Splits
from .study import StudyRecord, folder_of

_NAME = re.compile("(p[a-z2-7]{8})-([0-9a-f]{6}|[0-9a-f]{12})")


class DamagedStudies:
    """The damaged studies of a workspace; true while there are any. `mended` takes one away."""

    def __init__(
        self, workspace: Workspace, failures: Sequence[Mapping[str, str]], identities: Identities
    ) -> None:
        """`failures` as `list_studies_readable` tells them. Raises DataError for a folder that is
        not called as ingest calls it: of which recording and patient it is, nobody could say."""
        self._workspace = workspace
        self._identities = identities
        self._why = {folder_of(one): one["error"] for one in failures}
        self._refused: set[str] = set()
        if strange := [name for name in self._why if not _NAME.fullmatch(name)]:
            first, *others = strange
            more = f" (so is that of {', '.join(others)})" if others else ""
            raise DataError(
                "its record is damaged or of another study, and its name does not tell its "
                f"recording{more}",
                file=f"studies/{first}",
                remedy="If it was renamed, give it its name again; if it is a copy, or nothing can "
                "mend it, move it out of studies/. Until then nothing can be ingested, for it "
                "might be what is here already.",
            )

    def __bool__(self) -> bool:
        return bool(self._why)

    def __contains__(self, study: str) -> bool:
        return study in self._why

    @property
    def ids(self) -> list[str]:
        return list(self._why)

    def find(self, source_sha256: str) -> StudyRecord | None:
        """What is known of the study that was made from a recording of this digest: whose it is,
        and the clinic. None: it is of no damaged one."""
        for study in self._why:
            patient, digits = _parts(study)
            if source_sha256.startswith(digits):
                return StudyRecord(
                    study=study,
                    patient=patient,
                    source_sha256=source_sha256,
                    site=self._site(study),
                    frames=0,
                    frame_times_s=(),
                    width=0,
                    height=0,
                )
        return None

    def refuse(self, study: str, *, force: bool) -> None:
        """Raises InputError for the recording of a damaged study, unless `force` may replace it."""
        folder = self._workspace.studies / study
        if folder.is_symlink() and not folder.exists():  # no damage, a disk that is not there
            why = "which is a link that leads nowhere. Bring its disk back, or delete the link."
        elif force:
            return
        else:
            why = f"whose record cannot be used: {self._why[study]}"
        self._refused.add(study)
        raise InputError(f"is ingested as {study}, {why}")

    def mended(self, study: str) -> None:
        """A study is whole again: its recording was ingested anew."""
        self._why.pop(study, None)

    def unsaid(self) -> dict[str, str]:
        """Why, by study, of those still damaged that were not named with their recording."""
        return {name: why for name, why in self._why.items() if name not in self._refused}

    def settled(self, facts: Mapping[str, PatientFacts], splits: Splits) -> dict[str, PatientFacts]:
        """`facts` and those of damaged studies' patients who have a part: they take up its room.

        Without them newcomers would be dealt out as if these were gone. Who has no part yet waits
        until his record can be read.
        """
        known = dict(facts)
        for study in self._why:
            patient, digits = _parts(study)
            if splits.of(patient) is None:
                continue
            before = known.get(patient, PatientFacts(digits, False))
            tasks = before.tasks | self._tasks(study)
            site = before.site or self._site(study)
            known[patient] = PatientFacts(
                before.digest, before.labelled or bool(tasks), tasks, site
            )
        return known

    def _site(self, study: str) -> str:
        row = self._identities.find(study)
        return "" if row is None else row.site

    def _tasks(self, study: str) -> frozenset[str]:
        """Tasks that have masks."""
        masks = (self._workspace.studies / study / "masks").glob("*/*.png")
        return frozenset(path.parent.name for path in masks)


def _parts(study: str) -> tuple[str, str]:
    patient, _, digits = study.partition("-")
    return patient, digits
