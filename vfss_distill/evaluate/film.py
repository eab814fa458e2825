"""What is known of the film behind a result beside its masks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..intake.picture import without_room
from ..intake.record import StudyRecord
from ..intake.source import made_up_times
from ..intake.view import UNTOLD
from ..letterbox import Part
from .results import Result


@dataclass(frozen=True)
class Film:
    """`facing`: where the patient looks in the result's own frames. `repeats`: frames that repeat
    the one before them; `unique_fps`: rate of those that do not, of earlier versions, which did not
    note which frames these are; else None.
    `times_s`: of the frames; `clock`: what is known against them, "" when they are the
    recording's own. `view_assumed`: nobody could tell view and side.
    `lit`: x, y, width, height of the picture within margins that are black on every frame; None:
    all of the frame.
    """

    times_s: tuple[float, ...]
    view: str = "lateral"
    facing: str = "left"
    repeats: tuple[int, ...] = ()
    unique_fps: float | None = None
    clock: str = ""
    lit: Part | None = None
    view_assumed: bool = False

    @classmethod
    def of(cls, result: Result, record: StudyRecord | None) -> Film:
        """`record`: of the study that has the result's frames, None where it was not ingested.

        The study's word on times and repeats goes: it may have been ingested anew with others
        (`--fps`) since it was segmented.
        """
        run = result.run
        facing = run.get("facing", "left")  # studies are mirrored, films are not
        lit = _lit(run.get("lit"), record)
        if record is None:
            return cls(
                result.frame_times_s,
                run.get("view", "lateral"),
                facing,
                tuple(run.get("repeats", ())),
                None if "repeats" in run else run.get("unique_fps"),
                _clock(run.get("warnings", ())),
                lit,
                any(line.startswith(UNTOLD) for line in run.get("warnings", ())),
            )
        return cls(
            record.frame_times_s,
            record.view,
            facing,
            record.repeats,
            record.unique_fps if record.repeated_frames and not record.repeats else None,
            _clock(record.warnings),
            lit,
            record.view_by == "assumed",
        )


def _clock(warnings: Iterable[str]) -> str:
    return ", ".join(made_up_times(warnings)).replace(";", ",")


def _lit(noted: Any, record: StudyRecord | None) -> Part | None:
    """`noted` in run.json; results of earlier versions have but their study's record."""
    if noted is not None:
        x, y, width, height = noted
        return (x, y, width, height) if width and height else None
    if record is None or record.picture is None:
        return None
    return without_room(record.picture, record.height, record.width)
