"""Results as `vfss segment` leaves them: one model applied to one study.

results/<study>/<model>/  run.json  masks/<task>/000000.png  frames.csv
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..counting import listed
from ..errors import ConfigError, DataError, UsageError, WorkspaceError
from ..inference.reading import Reading
from ..inference.run_file import check_run
from ..intake.record import StudyRecord
from ..tasks import TaskSet
from ..workspace import Workspace, is_temporary, read_json

SEGMENT_AGAIN = "Segment the study again with --force."
_WITH_MASKS = "Segment the study again with --force and without --no-masks."


@dataclass(frozen=True)
class Result:
    """One model applied to one study; masks are read when asked for.

    `frame_times_s` are seconds from the first frame, one per frame. `seen` is what the model's
    own list says: True when the study, or another one of its patient, was used to train or to
    choose it; None when not known.
    `frames_of`: how the frames were read; None in results of a version that did not note it.
    `untrained`: tasks that the model was not trained on; their masks are blank. `trained_sources`:
    first digits of the digests of recordings it was trained on; none where that was not noted.
    """

    folder: Path
    study: str
    patient: str | None
    model: str
    model_sha256: str
    tasks: TaskSet
    frames: int
    frame_times_s: tuple[float, ...]
    width: int
    height: int
    source_sha256: str
    seen: bool | None
    run: Mapping[str, Any]
    frames_of: Reading | None = None
    untrained: tuple[str, ...] = ()
    trained_sources: tuple[str, ...] = ()

    @classmethod
    def open(cls, folder: Path) -> Result:
        """Raises DataError when run.json is missing, damaged, incomplete or of another study."""
        run = read_json(folder / "run.json")
        try:
            check_run(run, folder.parent.name)
            frames_of = run.get("frames_of")
            return cls(
                folder=folder,
                study=run["study"],
                patient=run.get("patient"),
                model=run["model"]["name"],
                model_sha256=run["model"]["sha256"],
                tasks=_tasks(run["model"]["tasks"]),
                frames=run["frames"],
                frame_times_s=tuple(map(float, run["frame_times_s"])),
                width=run["width"],
                height=run["height"],
                source_sha256=run["source_sha256"],
                seen=run.get("seen_in_training"),
                run=run,
                frames_of=None if frames_of is None else Reading.from_dict(frames_of),
                untrained=tuple(run["model"].get("untrained_tasks", ())),
                trained_sources=tuple(run["model"].get("trained_sources", ())),
            )
        except (KeyError, TypeError, AttributeError, ConfigError) as error:
            raise DataError("incomplete result", file="run.json", remedy=SEGMENT_AGAIN) from error
        except ValueError as error:
            what = f"damaged or incomplete result: {error}"
            raise DataError(what, file="run.json", remedy=SEGMENT_AGAIN) from error

    @property
    def key(self) -> str:
        """`<study>/<model folder>`: how a result is named on the command line and in messages."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def trained_tasks(self) -> tuple[str, ...]:
        """Ids of the tasks whose masks mean something."""
        return tuple(task for task in self.tasks.ids if task not in self.untrained)

    def check_frames_of(self, record: StudyRecord) -> None:
        """Raises DataError when the study's frames are others than those that were segmented."""
        if self.frames_of is not None and not self.frames_of.lies_on(record):
            raise DataError(
                "the study was ingested anew since it was segmented", remedy=SEGMENT_AGAIN
            )
        own, there = (_extent(one.frames, one.width, one.height) for one in (self, record))
        if own != there:
            raise DataError(f"the result has {own}, the study {there}", remedy=SEGMENT_AGAIN)
        # Not noted: without a patient the film was no study yet when it was segmented.
        as_it_is = self.run.get("mirrored") or self.patient is None
        if self.frames_of is None and record.mirrored and as_it_is:
            raise DataError(
                "the film was segmented as it is, the study is mirrored",
                remedy="Segment the study: `vfss segment` with its id.",
            )

    def mask(self, task: str, frame: int) -> NDArray[np.bool_]:
        """H×W prediction for a 0-based frame. Raises DataError when it cannot be read."""
        outputs = self.run.get("outputs")
        if isinstance(outputs, dict) and outputs.get("masks") is None:
            raise DataError("this result has no masks", remedy=_WITH_MASKS)
        name = f"masks/{task}/{frame:06d}.png"
        picture = read_png(self.folder / name)
        if picture is None:
            raise DataError(f"{name} is missing or damaged", remedy=SEGMENT_AGAIN)
        if picture.shape != (self.height, self.width):
            raise DataError(f"{name} is not of the film's size", remedy=SEGMENT_AGAIN)
        return picture

    def masks(self, task: str) -> Iterator[NDArray[np.bool_]]:
        return (self.mask(task, frame) for frame in range(self.frames))

    def areas_px(self) -> dict[str, NDArray[np.float64]]:
        """Area of each task in each frame, from frames.csv, else counted in the masks."""
        try:
            with (self.folder / "frames.csv").open(encoding="utf-8-sig", newline="") as stream:
                lines = list(csv.DictReader(stream))
            areas = {
                task: np.array([float(line[f"{task}_area_px"] or 0) for line in lines])
                for task in self.tasks.ids
            }
        except (OSError, KeyError, ValueError, TypeError, csv.Error):
            areas = {}
        if areas and all(len(values) == self.frames for values in areas.values()):
            return areas
        return {
            task: np.array([float(np.count_nonzero(mask)) for mask in self.masks(task)])
            for task in self.tasks.ids
        }


def read_png(path: Path) -> NDArray[np.bool_] | None:
    """A mask picture as booleans; None when it is missing or damaged.

    OpenCV is given bytes, not a path: it cannot open every name on every system.
    """
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
        picture = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if data.size else None
    except (OSError, cv2.error):
        return None
    return None if picture is None else np.asarray(picture > 127)


def list_results(
    workspace: Workspace, *, model: str | None = None
) -> tuple[list[Result], list[dict[str, str]]]:
    """All results, by study then model, and those that cannot be read: `[{"input", "error"}]`.

    `model` keeps one model, by name, result folder name or start of its sha256 (6 or more).
    Raises WorkspaceError without any result, UsageError when none is of that model, DataError when
    none of those can be read.
    """
    found, failed = [], []
    for folder in result_folders(workspace.results):
        try:
            found.append(Result.open(folder))
        except DataError as error:
            where = f"{folder.parent.name}/{folder.name}"
            failed.append({"input": where, "error": str(error)})
    if not found and not failed:
        raise WorkspaceError(
            "no results yet", file="results", remedy="Run `vfss segment` on a film or study first."
        )
    if model is None:
        return found, failed
    chosen = [result for result in found if is_model(result, model)]
    if not chosen and (own := [one for one in failed if may_be_model(one["input"], model)]):
        lines = listed([f"{one['input']}: {one['error']}" for one in own])
        raise DataError(f"no result of model {model!r} can be read: {lines}")
    if not chosen:
        names = sorted({result.model for result in found})
        there = f"There are results of: {', '.join(names)}." if names else "None can be read."
        raise UsageError(f"no result of model {model!r}", remedy=there)
    return chosen, failed


def result_folders(results: Path) -> list[Path]:
    """Every results/<study>/<model> folder, complete or not; temporaries are skipped."""
    return sorted(
        folder
        for study in (results.iterdir() if results.is_dir() else ())
        if study.is_dir() and not is_temporary(study)
        for folder in study.iterdir()
        if folder.is_dir() and not is_temporary(folder)
    )


def is_model(result: Result, name: str) -> bool:
    by_digest = len(name) >= 6 and result.model_sha256.startswith(name.lower())
    return name in (result.model, result.folder.name) or by_digest


def may_be_model(key: str, name: str) -> bool:
    """Is it one of this model, by the name of its folder alone? For results that cannot be read."""
    folder = key.rpartition("/")[2]
    own, _, digest = folder.rpartition("-")
    by_digest = len(name) >= 6 and digest.startswith(name.lower()[:8])  # a folder's has eight
    return name in (own, folder) or by_digest


def unreadable_of(
    model: str, found: Sequence[Result], failed: Sequence[dict[str, str]]
) -> list[dict[str, str]]:
    """Those of `failed` that may be of `model`, by its names in the readable results, `found`."""
    names = {model, *(result.model for result in found), *(one.folder.name for one in found)}
    return [one for one in failed if any(may_be_model(one["input"], name) for name in names)]


def model_names(results: Sequence[Result]) -> dict[str, str]:
    """sha256 → a name unlike any other's: the model's own, with a digest where two share it."""
    digests: dict[str, set[str]] = {}
    for result in results:
        digests.setdefault(result.model, set()).add(result.model_sha256)
    return {
        digest: name if len(some) == 1 else f"{name}-{digest[:8]}"
        for name, some in digests.items()
        for digest in some
    }


def _extent(frames: int, width: int, height: int) -> str:
    return f"{frames} frames of {width}x{height}"


def _tasks(value: Any) -> TaskSet:
    """run.json holds a whole task set, or only the list of ids."""
    if isinstance(value, list):
        value = {"name": "custom", "tasks": value}
    return TaskSet.from_dict(value)
