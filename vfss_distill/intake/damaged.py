"""Studies whose record cannot be read, and what ingest knows of them all the same.

A study's folder is called `<patient>-<first digits of its recording's digest>`. So no recording is
taken for a new one, no patient for another, and no place in the splits for a free one, because a
record was lost. Of a folder called otherwise its record may still tell what it is; else a recording
that was ingested, and whose own folder is gone, may be its.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..workspace import Workspace
from .identities import Identities
from .record import RECORD_FILE, StudyRecord, readable_fields
from .splits import PatientFacts, Splits
from .study import folder_of

_NAME = re.compile("(p[a-z2-7]{8})-([0-9a-f]{6}|[0-9a-f]{12})")


class DamagedStudies:
    """The damaged studies of a workspace; true while there are any. `mended` takes one away."""

    def __init__(
        self, workspace: Workspace, failures: Sequence[Mapping[str, str]], identities: Identities
    ) -> None:
        """`failures` as `list_studies_readable` tells them."""
        self._workspace = workspace
        self._identities = identities
        errors = {folder_of(one): one["error"] for one in failures}
        self._why = {name: why for name, why in errors.items() if _NAME.fullmatch(name)}
        # By folders that are not called as ingest calls them: what is left of their records.
        self._strange = {
            name: _remnant(workspace.studies / name / RECORD_FILE)
            for name in errors
            if name not in self._why
        }
        self._named: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._why or self._strange)

    def __contains__(self, study: str) -> bool:
        return study in self._why

    @property
    def ids(self) -> list[str]:
        """Of those whose folder tells it."""
        return list(self._why)

    @property
    def folders(self) -> list[str]:
        return [*self._why, *self._strange]

    def find(self, source_sha256: str) -> StudyRecord | None:
        """What is known of the study that was made from a recording of this digest: whose it is,
        the clinic, and what of a person's word its record still tells. None: it is of no damaged
        one."""
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
                    height=0,
                    **self._still_told(study),
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
        self.named(study)
        raise InputError(f"is ingested as {study}, {why}")

    def refuse_strange(self, source_sha256: str) -> None:
        """Raises InputError for a recording that is in no other folder, where one that is not
        called as ingest calls it holds, or may hold, its study."""
        for name, told in self._strange.items():
            if told.get("source_sha256") == source_sha256:
                raise InputError(
                    f"is ingested as {told.get('study')}, whose folder is studies/{name} now",
                    remedy=_rename(told),
                )
        unknown = [name for name, told in self._strange.items() if "source_sha256" not in told]
        for digits in (source_sha256[:6], source_sha256[:12]) if unknown else ():
            if before := self._identities.study_of(digits):
                raise InputError(
                    f"was ingested as {before}, which may be studies/{unknown[0]}: that has a "
                    "damaged record",
                    remedy=f"If so, rename that folder to {before}; else move it out of studies/.",
                )

    def named(self, study: str) -> None:
        """What is wrong with a study was said with its recording."""
        self._named.add(study)

    def mended(self, study: str) -> None:
        """A study is whole again: its recording was ingested anew."""
        self._why.pop(study, None)

    def unsaid(self) -> dict[str, str]:
        """Why, by folder, of those still damaged that were not named with their recording."""
        strange = {
            name: "its record is damaged or of another study, and its name does not tell its "
            f"recording. {_rename(told)}"
            for name, told in self._strange.items()
        }
        return strange | {name: why for name, why in self._why.items() if name not in self._named}

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

    def _still_told(self, study: str) -> dict[str, Any]:
        """View and boxes, as far as they can be read in what is left of its record; `width` too,
        for boxes of a mirrored study."""
        told = _remnant(self._workspace.studies / study / RECORD_FILE)
        known: dict[str, Any] = {"width": 0}
        if told.get("study") != study:
            return known
        for group in (("view", "facing", "view_by"), ("blanked", "mirrored", "width")):
            if all(name in told for name in group):
                known |= {name: told[name] for name in group}
        return known

    def _site(self, study: str) -> str:
        row = self._identities.find(study)
        return "" if row is None else row.site

    def _tasks(self, study: str) -> frozenset[str]:
        """Tasks that have masks."""
        masks = (self._workspace.studies / study / "masks").glob("*/*.png")
        return frozenset(path.parent.name for path in masks)


def _rename(told: Mapping[str, Any]) -> str:
    study = told.get("study", "")
    name = f" ({study})" if _NAME.fullmatch(study) else ""
    return (
        f"If it was renamed, give it its name again{name}; if it is a copy, or nothing can mend "
        "it, move it out of studies/."
    )


def _remnant(record: Path) -> dict[str, Any]:
    """Fields of a damaged record that are as they were written: each has a line of its own."""
    try:
        text = record.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    told: dict[str, Any] = {}
    for piece in (text, *("{" + line.strip().rstrip(",") + "}" for line in text.splitlines())):
        with suppress(ValueError, RecursionError):
            value = json.loads(piece)
            if isinstance(value, dict):
                told |= readable_fields(value)
    return told


def _parts(study: str) -> tuple[str, str]:
    patient, _, digits = study.partition("-")
    return patient, digits
