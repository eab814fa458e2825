"""What is known of the film behind a result beside its masks."""

from __future__ import annotations

from dataclasses import dataclass

from ..intake.study import StudyRecord
from .results import Result


@dataclass(frozen=True)
class Film:
    """`facing`: where the patient looks in the result's own frames. `repeats`: frames that repeat
    the one before them; `unique_fps`: rate of those that do not, None when not known.
    """

    view: str = "lateral"
    facing: str = "left"
    repeats: tuple[int, ...] = ()
    unique_fps: float | None = None

    @classmethod
    def of(cls, result: Result, record: StudyRecord | None) -> Film:
        """`record`: of the study that the result was made of, None where it was not ingested."""
        run = result.run
        facing = str(run.get("facing", "left"))  # studies are mirrored, films are not
        if record is None:
            repeats = tuple(map(int, run.get("repeats", ())))
            return cls(str(run.get("view", "lateral")), facing, repeats, run.get("unique_fps"))
        same = result.frames == record.frames
        return cls(record.view, facing, record.repeats if same else (), record.unique_fps)
