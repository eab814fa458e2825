"""measures.csv as `vfss measure` left it, or a person who corrected it by hand.

measured.json beside it notes the times of the film's frames and which of them counted as repeats
then: no line of the table tells, once somebody has corrected it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..errors import DataError
from ..inference.record import MEASURES
from ..provenance import digest_json, document
from ..workspace import delimiter_of, read_json, write_json, write_text
from .measures import COLUMNS
from .results import Result

BASIS = "measured.json"
_DECIMAL_COMMA = re.compile(r"^\s*(-?\d+),(\d+)\s*$")
_ROUNDED_MS = 0.5  # by a person, to whole milliseconds
_ROUNDED_S = 1e-6  # in run.json


def write_measures(
    folder: Path, text: str, times_s: Sequence[float], repeats: Sequence[int]
) -> None:
    """The table first: one that is newer than its note is taken for old, never the other way."""
    write_text(folder / MEASURES, text)
    noted = {"frame_times": _digest(times_s), "repeats": list(repeats)}
    write_json(folder / BASIS, document(noted))


def is_of(
    result: Result,
    lines: Iterable[Mapping[str, str]],
    times_s: Sequence[float],
    repeats: Sequence[int],
) -> bool:
    """Had the film these times and repeats when it was measured?

    Nothing is noted by earlier versions, nor of a table that a person put back after the film was
    segmented again: then it had those that it was segmented with, where they are the same; else the
    lines themselves tell of times, and nothing of repeats.
    """
    try:
        noted = read_json(result.folder / BASIS)
    except DataError:
        noted = {}
    if noted.get("repeats", [*repeats]) != [*repeats]:
        return False
    if "frame_times" in noted:
        return bool(noted["frame_times"] == _digest(times_s))
    return _segmented_with(result, times_s, repeats) or _has_times_of(lines, times_s)


def read_measures(folder: Path) -> list[dict[str, str]] | None:
    """Its lines; none where there is no such file. None where it cannot be read.

    Spreadsheets of other countries save semicolons, and decimal commas.
    """
    try:
        text = _decoded((folder / MEASURES).read_bytes())
        lines = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter_of(text))
        found = [{key: line[key] or "" for key in COLUMNS} for line in lines]
    except FileNotFoundError:
        return []
    except (OSError, KeyError, csv.Error):
        return None
    return [line | {"value": _DECIMAL_COMMA.sub(r"\1.\2", line["value"])} for line in found]


def _digest(times_s: Sequence[float]) -> str:
    return digest_json([round(1e6 * time) for time in times_s])


def _segmented_with(result: Result, times_s: Sequence[float], repeats: Sequence[int]) -> bool:
    own = result.frame_times_s
    if len(own) != len(times_s) or result.run.get("repeats", [*repeats]) != [*repeats]:
        return False
    return all(abs(one - other) < _ROUNDED_S for one, other in zip(own, times_s, strict=True))


def _decoded(data: bytes) -> str:
    """Excel saves a CSV with a mark in front, or else in the code page of its Windows."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _has_times_of(lines: Iterable[Mapping[str, str]], times_s: Sequence[float]) -> bool:
    """Is each time the one of the frame that it was read from? What is no number tells nothing."""
    return all(
        abs(ms - 1000 * times_s[frame]) <= _ROUNDED_MS
        for frame, ms in _times(lines)
        if 0 <= frame < len(times_s)
    )


def _times(lines: Iterable[Mapping[str, str]]) -> Iterable[tuple[int, float]]:
    """(frame, ms) of what was read from one frame."""
    for line in lines:
        if line["unit"] == "ms":
            try:
                yield int(line["frames"]), float(line["value"])
            except ValueError:
                continue
