"""What is known of the film behind a result beside its masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..intake.picture import without_room
from ..intake.source import made_up_times
from ..intake.study import StudyRecord
from ..letterbox import Part
from .results import Result


@dataclass(frozen=True)
class Film:
    """`facing`: where the patient looks in the result's own frames. `repeats`: frames that repeat
    the one before them; `unique_fps`: rate of those that do not, None when not known.
    `clock`: what is known against the result's times, "" when they are the recording's own.
    `lit`: x, y, width, height of the picture within margins that are black on every frame; None:
    all of the frame.
    """

    view: str = "lateral"
    facing: str = "left"
    repeats: tuple[int, ...] = ()
    unique_fps: float | None = None
    clock: str = ""
    lit: Part | None = None

    @classmethod
    def of(cls, result: Result, record: StudyRecord | None) -> Film:
        """`record`: of the study that the result was made of, None where it was not ingested."""
        run = result.run
        facing = str(run.get("facing", "left"))  # studies are mirrored, films are not
        # Of the result, whose times are measured: the study may have been given others since.
        clock = ", ".join(made_up_times(run.get("warnings", ()))).replace(";", ",")
        lit = _lit(run.get("lit"), record)
        if record is None:
            view, repeats = str(run.get("view", "lateral")), tuple(map(int, run.get("repeats", ())))
            return cls(view, facing, repeats, run.get("unique_fps"), clock, lit)
        repeats = record.repeats if result.frames == record.frames else ()
        return cls(record.view, facing, repeats, record.unique_fps, clock, lit)


def _lit(noted: Any, record: StudyRecord | None) -> Part | None:
    """`noted` in run.json; results of earlier versions have but their study's record."""
    if noted is not None:
        x, y, width, height = map(int, noted)
        return (x, y, width, height) if width and height else None
    if record is None or record.picture is None:
        return None
    return without_room(record.picture, record.height, record.width)
