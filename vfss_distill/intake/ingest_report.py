"""What an ingest is asked for, and what it says it did."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..errors import StorageError
from .record import StudyRecord
from .source import Interlaced
from .splits import Splits

EngineName = Literal["processes", "ray"]

BURNED_IN = (
    "Text burned into the pictures is reduced, never surely removed: look at every study "
    "(vfss ingest --review) before you share the workspace."
)
KEPT = (
    "TEXT BURNED INTO THE PICTURES WAS KEPT (--no-blank): names and dates that are visible in a "
    "film are visible in its frames. Do not share this workspace."
)


@dataclass(frozen=True)
class IngestOptions:
    """`labels`: folder of masks. `patients`, `views`, `blank_boxes`: CSV. `tasks`: built-in name
    or YAML file.

    `fps`: frames per second of recordings without time. `force`: ingest again what is there.
    `blank`: make text found in the pictures black. `interlaced`: what becomes of interlaced films.
    What is None stays, in a recording ingested before, as it was asked for then.
    """

    labels: Path | None = None
    patients: Path | None = None
    tasks: str | Path | None = None
    fps: float | None = None
    force: bool = False
    blank: bool = True
    interlaced: Interlaced | None = None
    workers: int = 1
    engine: EngineName = "processes"
    views: Path | None = None
    blank_boxes: Path | None = None


@dataclass(frozen=True)
class Failure:
    """`input` as displayed (relative), `error` one line with its remedy."""

    input: str
    error: str


@dataclass(frozen=True)
class Skipped:
    """An input that was not taken: ingested before as `study`, or left out; `why` says which."""

    input: str
    study: str
    why: str


@dataclass
class IngestReport:
    """What one ingest did. `stopped`: the disk gave out; what is listed is complete all the same.

    `splits` are the whole workspace's. `lost`: lines on what could not be kept of mended studies.
    """

    studies: list[StudyRecord] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    splits: Splits = field(default_factory=Splits)
    stopped: StorageError | None = None
    lost: list[str] = field(default_factory=list)
