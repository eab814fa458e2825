"""What `segment` writes about one study: masks, frames.csv, overlay, run.json.

results/<study>/<model>/
  run.json     what was done, with which model, on which device
  frames.csv   one line per frame: time, and per task area, centroid, confidence
  masks/<task>/000000.png   0 or 255, size of the source; blank where the task is absent
  overlay.mp4
"""

from __future__ import annotations

import contextlib
import csv
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, WorkspaceError
from ..intake.picture import lit_part
from ..intake.repeats import RepeatCounter
from ..letterbox import Letterbox, Part
from ..provenance import document
from ..workspace import is_temporary, put_back, read_json, write_json
from .canvas import Caption
from .masks import MaskMaker, TaskMask
from .overlay import OverlayWriter
from .reading import Reading
from .run_file import check_run
from .session import Segmenter

if TYPE_CHECKING:
    from ..intake.source import Frame

OVERLAY, MASKS, FRAMES_CSV, RUN = "overlay.mp4", "masks", "frames.csv", "run.json"
MEASURES = "measures.csv"  # of `vfss measure`; a person may have corrected it
_STALE_S = 3600.0  # a result being made gets a frame every few milliseconds
SIMULATED = "trained on simulations"
_OTHER_FRAMES = (
    "its result is of other frames of this recording (mirrored, blanked or "
    "deinterlaced otherwise since)"
)

# Unfiltered rows and run lengths: the fastest PNG for masks, and the smallest.
_PNG = (
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),
)

_SAME_TIME_S = 0.002  # records round times


@dataclass(frozen=True)
class Subject:
    """Which recording this is. Pseudonyms only: all of it is written.

    `facing`: where the patient looks in the frames that are read. Networks know patients who face
    left: others are mirrored for the network, and its masks mirrored back. `notice`: a line on
    how view and side were decided. `frames_of`: how the frames were read. `frame_times_s`: of an
    ingested study; empty for a stranger. `also_of_patient`: digests of the patient's recordings in
    the workspace, of deleted ones their first digits; these are not written.
    """

    study: str
    patient: str | None
    source_sha256: str
    simulated: bool = False
    view: str = "lateral"
    facing: str = "left"
    notice: str = ""
    frames_of: Reading = field(default_factory=Reading)
    frame_times_s: tuple[float, ...] = ()
    also_of_patient: tuple[str, ...] = ()


@dataclass(frozen=True)
class SegmentOutcome:
    """A result on disk. `seconds`: wall time of segmentation; `fps`: frames by seconds.

    `overlay` and `masks` are None when they were not asked for. `existed`: found, not made now.
    `frames_of` None: made by a version that did not note it.
    """

    study: str
    frames: int
    seconds: float
    fps: float
    provider: str
    model: str
    model_sha256: str
    folder: Path
    overlay: Path | None
    masks: Path | None
    frames_csv: Path
    seen_in_training: bool | None
    warnings: tuple[str, ...] = ()
    existed: bool = False
    frames_of: Reading | None = None
    frame_times_s: tuple[float, ...] = ()

    def differs(self, who: Subject, *, overlay: bool, masks: bool) -> str:
        """In which way it is not what segmenting `who` would give now; "" when it is."""
        if self.frames_of not in (None, who.frames_of):
            return _OTHER_FRAMES
        ours, theirs = self.frame_times_s, who.frame_times_s
        if len(ours) == len(theirs) and not np.allclose(ours, theirs, rtol=0, atol=_SAME_TIME_S):
            return "its result has other times than its study, which was ingested anew since"
        if overlay and self.overlay is None:
            return "its result was made without an overlay"
        return "its result was made without masks" if masks and self.masks is None else ""


class ResultWriter:
    """Writes the frames of one study into a folder, one at a time; a context manager."""

    def __init__(
        self,
        folder: Path,
        letterbox: Letterbox,
        segmenter: Segmenter,
        subject: Subject,
        *,
        overlay: bool,
        masks: bool,
    ) -> None:
        self.size = (letterbox.height, letterbox.width)
        self.side = letterbox.size
        self.frame_times_s: list[float] = []
        self._repeats = RepeatCounter()
        self._top = np.zeros(self.size, np.uint8)  # the brightest of all frames
        self._masks = folder / MASKS if masks else None
        ids = segmenter.tasks.ids
        self._make = MaskMaker(letterbox, ids, [segmenter.thresholds[task] for task in ids])
        for task in ids if masks else ():
            (folder / MASKS / task).mkdir(parents=True)
        self._blank = _png(np.zeros(self.size, np.uint8))
        self._open = contextlib.ExitStack()
        csv_file = (folder / FRAMES_CSV).open("w", newline="", encoding="utf-8")
        self._table = csv.writer(self._open.enter_context(csv_file))
        self._table.writerow(csv_columns(ids))
        self._overlay: OverlayWriter | None = None
        if overlay:
            warning = SIMULATED if segmenter.simulated else ""
            caption = Caption(subject.study, segmenter.result_name, warning)
            film = OverlayWriter(folder / OVERLAY, *self.size, segmenter.tasks, caption)
            self._overlay = self._open.enter_context(film)

    def __enter__(self) -> ResultWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def add(self, frame: Frame, maps: NDArray[np.float32]) -> None:
        """One frame with its probabilities (T, S, S) on the square."""
        number = len(self.frame_times_s)
        found = self._make(maps)
        self.frame_times_s.append(frame.time_s)
        self._repeats.add(frame.grey)
        cv2.max(self._top, frame.grey, self._top)
        self._table.writerow(_row(number, frame.time_s, found))
        if self._masks is not None:
            for mask in found:
                data = _png(mask.full(*self.size)) if mask.area_px else self._blank
                (self._masks / mask.task / f"{number:06d}.png").write_bytes(data)
        if self._overlay is not None:
            self._overlay.add(frame.grey, number, frame.time_s, found)

    @property
    def repeats(self) -> tuple[int, ...]:
        """Frames that repeat the one before them."""
        return self._repeats.repeats

    @property
    def lit(self) -> Part:
        """x, y, width, height of what is not black on every frame."""
        return lit_part(self._top)

    @property
    def unique_fps(self) -> float | None:
        """Rate of the frames that do not repeat the one before: no time is finer than that."""
        rate = self._repeats.unique_fps(self.frame_times_s)
        return None if rate is None else round(rate, 3)

    @property
    def repeats_warning(self) -> str | None:
        return self._repeats.warning(self.frame_times_s)


def csv_columns(tasks: Sequence[str]) -> list[str]:
    """Header of frames.csv. `frame` counts from 0; pixels are those of the masks."""
    return [
        "frame",
        "time_s",
        *(f"{task}_{what}" for task in tasks for what in ("area_px", "x_px", "y_px", "confidence")),
    ]


def _row(number: int, time_s: float, masks: Sequence[TaskMask]) -> list[str]:
    row = [str(number), f"{time_s:.6f}"]
    for mask in masks:
        row += [str(mask.area_px), *(_text(value) for value in (mask.x_px, mask.y_px))]
        row.append(_text(mask.confidence, 4))
    return row


def _text(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _png(image: NDArray[np.uint8]) -> bytes:
    _, data = cv2.imencode(".png", image, _PNG)
    return bytes(data)


def write_run(
    folder: Path, outcome: SegmentOutcome, writer: ResultWriter, segmenter: Segmenter, who: Subject
) -> None:
    """run.json of a result still in the making."""
    height, width = writer.size
    model = {"name": outcome.model, "sha256": outcome.model_sha256}
    body: dict[str, Any] = {
        "study": who.study,
        "patient": who.patient,
        "frames": outcome.frames,
        "seconds": round(outcome.seconds, 3),
        "fps": round(outcome.fps, 2),
        "unique_fps": writer.unique_fps,
        "repeats": list(writer.repeats),
        "frame_times_s": [round(time_s, 6) for time_s in writer.frame_times_s],
        "width": width,
        "height": height,
        "lit": list(writer.lit),
        "side_px": writer.side,
        "provider": outcome.provider,
        "model": {
            **model,
            "tasks": segmenter.tasks.to_dict(),
            "thresholds": segmenter.thresholds,
            "image_size": segmenter.image_size,
            "context": segmenter.context,
            "trained_on_simulated_only": segmenter.simulated,
            "trained_sources": sorted(segmenter.trained_sources),
            "untrained_tasks": list(segmenter.untrained),
        },
        "source_sha256": who.source_sha256,
        "frames_of": who.frames_of.to_dict(),
        "simulated": who.simulated,
        "view": who.view,
        "facing": who.facing,
        "mirrored": who.facing == "right",
        "seen_in_training": outcome.seen_in_training,
        "outputs": {
            "overlay": OVERLAY if outcome.overlay else None,
            "masks": MASKS if outcome.masks else None,
            "frames_csv": FRAMES_CSV,
        },
        "warnings": list(outcome.warnings),
    }
    write_json(folder / RUN, document(body, model=model, provider=outcome.provider))


def clear_results(results: Path) -> None:
    """Take away what killed runs left half made: whatever nobody has written to for an hour. A
    result that was being replaced is put back where nothing has taken its place.

    Raises WorkspaceError where `results` is no folder: that is no fault of any film.
    """
    if results.exists() and not results.is_dir():
        raise WorkspaceError(
            "is no folder, and results go there", file=results.name, remedy="Move it away."
        )
    for study in results.glob("*"):
        put_back(
            study
        )  # beside a process that is between its two renames: that one has to go again
    for folder in results.glob("*/*"):
        if is_temporary(folder) and time.time() - _last_written(folder) > _STALE_S:
            shutil.rmtree(folder, ignore_errors=True)


def _last_written(folder: Path) -> float:
    places = (folder, *folder.glob("*"), *folder.glob(f"{MASKS}/*"))
    try:
        return max(place.stat().st_mtime for place in places)
    except FileNotFoundError:  # its maker is at work: it has just been finished
        return time.time()


def read_outcome(folder: Path) -> SegmentOutcome | None:
    """The result already in `folder`; None when there is none, or none that is whole."""
    try:
        run = read_json(folder / RUN)
        check_run(run, folder.parent.name)
        outputs, frames_of = run["outputs"], run.get("frames_of")
        outcome = SegmentOutcome(
            study=run["study"],
            frames=run["frames"],
            seconds=run["seconds"],
            fps=run["fps"],
            provider=run["provider"],
            model=run["model"]["name"],
            model_sha256=run["model"]["sha256"],
            folder=folder,
            overlay=folder / OVERLAY if outputs["overlay"] else None,
            masks=folder / MASKS if outputs["masks"] else None,
            frames_csv=folder / FRAMES_CSV,
            seen_in_training=run["seen_in_training"],
            warnings=tuple(run["warnings"]),
            existed=True,
            frames_of=None if frames_of is None else Reading.from_dict(frames_of),
            frame_times_s=tuple(map(float, run["frame_times_s"])),
        )
    except (DataError, KeyError, TypeError, ValueError):
        return None
    parts = (outcome.overlay, outcome.masks, outcome.frames_csv)
    return outcome if all(part is None or part.exists() for part in parts) else None
