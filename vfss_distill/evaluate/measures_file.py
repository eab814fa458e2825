"""measures.csv as `vfss measure` left it, or a person who corrected it by hand.

measured.json beside it notes which frames counted as repeats then: no line of the table tells.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..errors import DataError
from ..provenance import document
from ..workspace import read_json, write_json, write_text
from .measures import COLUMNS

MEASURES, BASIS = "measures.csv", "measured.json"
_ROUNDED_MS = 0.5  # by a person, to whole milliseconds


def write_measures(folder: Path, text: str, repeats: Sequence[int]) -> None:
    """The table first: one that is newer than its note is taken for old, never the other way."""
    write_text(folder / MEASURES, text)
    write_json(folder / BASIS, document({"repeats": list(repeats)}))


def has_repeats_of(folder: Path, repeats: Sequence[int]) -> bool:
    """Did these frames count as repeats when it was measured? Yes where nothing was noted."""
    try:
        return bool(read_json(folder / BASIS).get("repeats", [*repeats]) == [*repeats])
    except DataError:
        return True


def read_measures(folder: Path) -> list[dict[str, str]]:
    """Its lines; none where there is no such file, or none that can be read."""
    try:
        data = (folder / MEASURES).read_bytes()
        lines = csv.DictReader(io.StringIO(_decoded(data), newline=""))
        return [{key: line[key] or "" for key in COLUMNS} for line in lines]
    except (OSError, KeyError, csv.Error):
        return []


def _decoded(data: bytes) -> str:
    """Excel saves a CSV with a mark in front, or else in the code page of its Windows."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def has_times_of(lines: Iterable[Mapping[str, str]], times_s: Sequence[float]) -> bool:
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
