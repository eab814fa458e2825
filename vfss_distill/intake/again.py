"""A recording that is ingested already: is something else asked of it now, and what stays?"""

from __future__ import annotations

from collections.abc import Sequence

from .box_table import given_boxes
from .boxes import Box
from .ingest_report import IngestOptions
from .interlace import HANDLING
from .labels import Labels
from .record import StudyRecord
from .source import Interlaced, made_up_times
from .view import means


def why_skipped(
    known: StudyRecord, options: IngestOptions, labels: Labels, view: str, given: Sequence[Box]
) -> str:
    """Why it is skipped; speaks of --force where its study would become another one by it."""
    why = "already ingested"
    if labels.sha256 and labels.sha256 != known.labels_sha256:
        return f"{why}, but its labels have changed since: use --force to take them"
    if options.blank and known.burned_in != "blanked":
        return f"{why}, with the text burned into it: use --force to blank that"
    if set(given) != set(given_boxes(known)):
        return f"{why}, but --blank-boxes names other boxes: use --force to blank them"
    asked = options.interlaced
    if asked is not None and known.interlaced not in ("", HANDLING[asked]):
        return f"{why}, interlaced ({known.interlaced}): use --force to change that"
    if (rate := _other_rate(known, options.fps)) is not None:
        return f"{why} at {rate:.4g} frames/s: use --force to take --fps"
    if not means(view, known.view, known.facing):
        return f"{why}, but --views names another view: use --force to take it"
    return why


def handling_of(known: StudyRecord | None, asked: Interlaced | None) -> Interlaced:
    """What becomes of the recording if it is interlaced. Its masks lie on the frames of before."""
    for mode, done in HANDLING.items():
        if asked is None and known and done == known.interlaced:
            return mode
    return asked or "deinterlace"


def rate_of(known: StudyRecord | None, asked: float | None) -> float | None:
    """The rate of a recording that carries no time."""
    return asked or (known.rate_given if known else None)


def _other_rate(known: StudyRecord, asked: float | None) -> float | None:
    """The rate that images were given before, where --fps now says another."""
    rate = known.fps
    timeless = known.kind == "images" or made_up_times(known.warnings)
    if asked is None or rate is None or not timeless:
        return None
    return None if abs(rate / asked - 1) < 0.01 else rate
