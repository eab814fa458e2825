"""Which frames of a recording were segmented: made anew, its study may hold others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..intake.record import StudyRecord
from ..provenance import digest_json

_NOT_DEFAULT = ("fields", "kept")  # interlaced films that a plain reading would deinterlace


@dataclass(frozen=True)
class Reading:
    """What was done with the recording's frames before a network saw them.

    `mirrored`: they are mirrored, as those of a study are whose patient faces right. `interlaced`:
    "fields" or "kept" where a plain reading would have deinterlaced; else "". `blanked`: text found
    burned in was made black. `places`: digest of the boxes that the study's record names as black
    and of where its picture is; "" for a film that was never ingested.
    """

    mirrored: bool = False
    interlaced: str = ""
    blanked: bool = False
    places: str = ""

    @classmethod
    def of_study(cls, record: StudyRecord, *, blanked: bool) -> Reading:
        """The study's own frames, or the film's that lie as they do."""
        return cls(record.mirrored, _interlaced(record), blanked, _places(record))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Reading:
        """Raises KeyError or TypeError for anything else."""
        return cls(
            mirrored=bool(data["mirrored"]),
            interlaced=str(data["interlaced"]),
            blanked=bool(data["blanked"]),
            places=str(data["places"]),
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lies_on(self, record: StudyRecord) -> bool:
        """Do masks of these frames lie on the study's?"""
        return (self.mirrored, self.interlaced) == (record.mirrored, _interlaced(record))


def is_plain(record: StudyRecord) -> bool:
    """Are the study's frames those that a plain reading of its film gives?"""
    return not record.mirrored and not _interlaced(record)


def _interlaced(record: StudyRecord) -> str:
    return record.interlaced if record.interlaced in _NOT_DEFAULT else ""


def _places(record: StudyRecord) -> str:
    picture = None if record.picture is None else record.picture.part
    return digest_json([[box.part for box in record.blanked], picture])[:12]
