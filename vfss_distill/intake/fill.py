"""One recording becomes one study folder: the part of ingest that takes time, and runs anywhere.

A `Job` holds all that it needs and travels to other processes and machines; nothing here knows of
other recordings, names of patients, or the tables of a workspace.
"""

from __future__ import annotations

import os
import shutil
import time
import traceback
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..cores import usable_cores
from ..engines import Engine, OneProcess, Processes
from ..errors import InputError, VfssError
from ..workspace import atomic_folder, is_temporary, put_back
from .burned_in import BurnedIn
from .film_sample import FrameSample
from .frame_store import WAITING_FILE, FrameStore
from .ingest_report import IngestOptions
from .labels import Labels, check_frames, read_mask
from .picture import find_picture
from .record import StudyRecord
from .remains import Kept, Remains
from .repeats import RepeatCounter, frame_digest
from .source import FrameSource, Interlaced, SourceInfo, open_source
from .study import write_mask, write_record
from .surroundings import find_to_blank
from .view import Decision, decide, word_of

Words = Callable[[str], None]

STALE_S = 3600.0  # a study being made gets a frame every few milliseconds


@dataclass(frozen=True)
class Job:
    """`path` is absolute, and so is `target`, the study's folder. `draft`: what is known before;
    its `blanked` boxes are those that a person gave. `mends`: `target` is a study whose record is
    damaged; what a person did to it is kept. `boxes_given`: all boxes are named now."""

    path: Path
    target: Path
    labels: Labels
    draft: StudyRecord
    images_fps: float | None = None
    interlaced: Interlaced = "deinterlace"
    mends: bool = False
    boxes_given: bool = False


def engine_for(options: IngestOptions, words: Words) -> Engine:
    """What makes the studies. Raises UsageError when Ray is asked for and not installed."""
    if options.engine == "ray":
        from .ray_engine import RayCluster

        return RayCluster(attempt, options.workers)
    workers = options.workers or usable_cores()
    if workers == 1:
        return OneProcess(lambda job: attempt(job, words))
    return Processes(attempt, workers)


def attempt(job: Job, words: Words = lambda _: None) -> StudyRecord | VfssError:
    """Make the study; whatever is wrong with the recording is returned, not raised.

    `words` hears which frame it is at.
    """
    try:
        return make_study(job, words)
    except VfssError as error:
        return error
    except MemoryError:
        return InputError("is too large for this machine's memory")
    except OSError as error:
        return InputError(
            f"cannot be read ({error.strerror})", remedy="Check the file and its disk."
        )
    except Exception as error:  # a decoder's surprise must not stop the other recordings
        if os.environ.get("VFSS_DEBUG", "") not in ("", "0"):
            traceback.print_exc()
        return unforeseen(error)


def unforeseen(error: Exception) -> VfssError:
    """Of an unforeseen error not even the message: it may hold a name."""
    what = f"unexpected {type(error).__name__}"
    return VfssError(what, remedy="This is our bug; `vfss --debug` shows where.")


def make_study(job: Job, words: Words) -> StudyRecord:
    """Decode the recording once into its study folder, then its masks, then the record."""
    source = open_source(job.path, images_fps=job.images_fps, interlaced=job.interlaced)
    with atomic_folder(job.target) as folder:
        return _fill(folder, source, job, words)


def sweep(studies: Path, study: str | None = None) -> None:
    """Take away what a killed ingest left half done: its frames are perhaps not blanked yet.

    Of `study`, whose maker is known to be dead; without it, whatever nobody has written to for an
    hour. A study that was being replaced is put back where nothing has taken its place.
    """
    put_back(studies, study or "")
    for folder in studies.iterdir() if studies.is_dir() else ():
        if not is_temporary(folder) or not folder.is_dir():
            continue
        ours = study is not None and folder.name.endswith(f"-{study}")
        if ours or (study is None and time.time() - _last_written(folder) > STALE_S):
            shutil.rmtree(folder, ignore_errors=True)


def _last_written(folder: Path) -> float:
    times = [0.0]
    for place in (folder, folder / "frames", folder / "masks", folder / WAITING_FILE):
        if place.exists():
            times.append(place.stat().st_mtime)
    return max(times)


def _fill(folder: Path, source: FrameSource, job: Job, words: Words) -> StudyRecord:
    labels, draft = job.labels, job.draft
    before = Remains(job.target) if job.mends else None
    times, digests = array("d"), bytearray()  # small for each frame: an hour has 108000
    repeats, sample = RepeatCounter(), FrameSample()
    height = width = 0
    listed = word_of(draft.view, draft.facing) if draft.view_by == "table" else ""

    def foresee(first: Sequence[NDArray[np.uint8]]) -> bool:
        """Will the frames be blanked or mirrored, as far as the first of them tell?"""
        if draft.blanked or (draft.burned_in == "blanked" and find_to_blank(first).blank):
            return True
        return decide(first, listed=listed, hint=source.info.view_hint).mirrored

    store = FrameStore(folder, foresee)
    with closing(store.take(source.frames())) as frames:
        for frame in frames:
            times.append(frame.time_s)
            repeats.add(frame.grey)
            digests += frame_digest(frame.grey).encode()
            sample.add(frame.grey)
            if before:
                before.add(frame.grey)
            height, width = frame.grey.shape
            if frame.index % 50 == 0:
                words(f"frame {frame.index}")
    check_frames(labels, len(times))
    found = find_to_blank(sample.frames)
    given = draft.blanked
    if before and before.fits() and not job.boxes_given:
        given += before.hidden((*given, *found.blank))
    if draft.burned_in != "blanked":
        found = BurnedIn(suspect=(*found.blank, *found.suspect))
    found = found.with_given(given)
    view = _view(sample, listed, source.info.view_hint, before)
    if found.blank:
        # A running clock makes every frame a new one, until it is blanked.
        repeats = RepeatCounter()
    store.finish(found.blank, mirror=view.mirrored, see=repeats.add if found.blank else None)
    picture = find_picture(sample.frames, found.blank)
    if view.mirrored:
        found = found.mirrored(width)
        picture = picture and picture.mirrored(width)
    for task, index, path in labels:
        mask = read_mask(path, (height, width))
        write_mask(folder, task, index, mask[:, ::-1] if view.mirrored else mask)
    kept = before.keep_masks(folder, labels, mirrored=view.mirrored) if before else Kept()
    info = source.info  # read after the frames: only then are its warnings complete
    record = replace(
        draft,
        frames=len(times),
        frame_times_s=tuple(round(time_s, 9) for time_s in times),
        width=width,
        height=height,
        pixel_aspect=info.pixel_aspect,
        pixel_spacing_mm=info.pixel_spacing_mm,
        kind=info.kind,
        codec=info.codec,
        declared_frames=info.declared_frames,
        acquisition=dict(info.acquisition),
        interlaced=info.interlaced,
        repeats=repeats.repeats,
        repeated_frames=repeats.repeated,
        frame_digests=digests.decode(),
        blanked=found.blank,
        suspect=found.suspect,
        picture=picture,
        view=view.view,
        facing=view.facing,
        mirrored=view.mirrored,
        view_by=view.by,
        view_confidence=view.confidence,
    )
    rate = repeats.unique_fps(record.frame_times_s)
    said = [*info.warnings, repeats.warning(record.frame_times_s), view.warning]
    said += [*_doubts_of_labels(labels, info), *kept.said]
    record = replace(
        record,
        unique_fps=None if rate is None else round(rate, 3),
        labelled=kept.with_those_of(record.labelled),
        warnings=tuple(line for line in said if line),
    )
    # Without the time of day: the same recordings give the same bytes, whoever ingests them when.
    write_record(folder, record, created=False, labels_imported=kept.imports)
    return record


def _doubts_of_labels(labels: Labels, info: SourceInfo) -> Iterator[str]:
    """Why labels may lie on other frames than they were drawn on."""
    if labels.files and any(line.startswith("decoded") for line in info.warnings):
        yield "frames are missing: labels behind the gap may lie on the wrong frames"
    if labels.files and info.interlaced == "fields":
        yield "labels are taken as numbered by field, two for each frame"


def _view(sample: FrameSample, listed: str, hint: str, before: Remains | None) -> Decision:
    """View and side. Where the study had another side, a table had said so: the program decides as
    it did then."""
    view = decide(sample.frames, listed=listed, hint=hint)
    if before and not listed and before.mirrored not in (None, view.mirrored):
        return decide(sample.frames, listed="right" if before.mirrored else "left")
    return view
