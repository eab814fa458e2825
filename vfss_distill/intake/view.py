"""View and side: is a film lateral, and does the patient face left? If right, it is mirrored.

A person's table decides; else a small network, when it is sure; else a DICOM header that agrees
with the network's best guess. What nobody can tell stays as it is, lateral and facing left, and is
said. One word stands for a view throughout: "left" or "right" (lateral, facing so), "lateral" (side
unknown), "frontal", or "" (unknown).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..counting import listed
from ..errors import ConfigError
from .film_sample import FrameSample
from .picture import find_picture
from .record import StudyRecord
from .recording_table import RecordingTable, read_table
from .source import Found, FrameSource
from .view_model import CLASSES, packaged_model

By = Literal["table", "model", "header", "assumed"]

SURE = 0.9  # mean probability from which the network is believed
_FRAMES = 12  # looked at, spread over the film
_FIRST_FRAMES = 900  # of a film that is segmented as it comes: 30 s of it
_OTHER = CLASSES.index("other")
_REMEDY = "Give a CSV with the columns file,view,facing: film.mp4,lateral,right."

UNTOLD = "view and side could not be told: taken as lateral, facing left"
UNSURE = f"{UNTOLD}; if that is wrong, say it in --views"
FACES_RIGHT = "faces right: mirrored, so that it faces left as all studies do"
FRONTAL = "frontal view: kept, but left out of training and of Dice"
DISAGREES = "the DICOM header names another view than the picture shows: the picture was followed"


@dataclass(frozen=True)
class Decision:
    """`view` lateral or frontal; `facing` left or right, as filmed; `by` whom it was decided.

    `confidence`: the network's mean probability (0-1) for its likeliest class; None when it was
    not asked. `warning`: a line, or nothing.
    """

    view: str = "lateral"
    facing: str = "left"
    by: By = "assumed"
    confidence: float | None = None
    warning: str = ""

    @property
    def mirrored(self) -> bool:
        """Are the frames to be mirrored so that the patient faces left?"""
        return self.view == "lateral" and self.facing == "right"


def decide(frames: Sequence[NDArray[np.uint8]], *, listed: str = "", hint: str = "") -> Decision:
    """View and side of a film from grey frames (H, W) spread over it, as filmed.

    `listed`: the word of a person's table; `hint`: the header's. Raises WeightsMissing.
    """
    if listed in ("left", "right", "frontal"):
        return _decision(listed, "table", None)
    means = mean_probabilities(frames)
    if listed == "lateral":
        return _side(means, "table")
    likeliest = int(np.argmax(means))
    word, confidence = CLASSES[likeliest], means[likeliest]
    if likeliest != _OTHER and confidence >= SURE:
        return _decision(word, "model", confidence, "" if _agree(word, hint) else DISAGREES)
    if hint == "lateral":
        return _side(means, "header")
    return _decision(word, "header", confidence) if word == hint else _unsure(confidence)


def notice(view: str, mirrored: bool, by: str) -> str:
    """What a user should be told of a decided view, in one line; "" when there is nothing."""
    if by == "assumed":
        return UNSURE
    if view == "frontal":
        return FRONTAL
    return FACES_RIGHT if mirrored else ""


def decide_source(source: FrameSource, *, hint: str = "") -> Decision:
    """View and side of a film not yet read, from its first 900 frames. Raises InputError."""
    sample = FrameSample()
    with closing(source.frames()) as frames:  # type: ignore[type-var]
        for frame in frames:
            sample.add(frame.grey)
            if frame.index + 1 >= _FIRST_FRAMES:
                break
    return decide(sample.frames, hint=hint)


class ViewTable(RecordingTable[str]):
    """`--views CSV`: view and side by file, matched as patients are."""

    def word(self, found: Found) -> str:
        """What the table says of a recording: left, right, lateral, frontal; "" for nothing."""
        return self.row(found) or ""

    def draft(self, found: Found, known: StudyRecord | None) -> dict[str, Any]:
        """What a new study's record holds of this from the start: the table's word, else what an
        earlier table said of the study that is made anew."""
        word = self.word(found)
        if not word and known is not None and known.view_by == "table":
            word = word_of(known.view, known.facing)
        if not word:
            return {}
        if word in ("frontal", "lateral"):
            return {"view": word, "facing": "", "view_by": "table"}
        return {"view": "lateral", "facing": word, "view_by": "table"}

    def _read(self, path: Path) -> None:
        faults = []
        for line, key, row in read_table(path, ("file", "view", "facing"), _REMEDY):
            view, facing = row["view"].lower(), row["facing"].lower()
            if not key:
                faults.append(f"line {line}: file is empty")
            elif view not in ("lateral", "frontal", ""):
                faults.append(f"line {line}: view {row['view'][:20]!r}")
            elif facing not in ("left", "right", ""):
                faults.append(f"line {line}: facing {row['facing'][:20]!r}")
            elif word := word_of(view, facing):
                self._lines.setdefault(key, line)
                if self._by_file.setdefault(key, word) != word:
                    faults.append(f"line {line}: this file has another view above")
        if faults:
            raise ConfigError(
                listed(faults), file=path, remedy="View is lateral or frontal, facing left or "
                "right; either may be left empty to let the program look.",
            )  # fmt: skip


def means(word: str, view: str, facing: str) -> bool:
    """Does a table's word fit a decided view?"""
    return word in ("", view, word_of(view, facing))


def word_of(view: str, facing: str) -> str:
    """One word for a view and a side, either of them possibly empty."""
    return "frontal" if view == "frontal" else facing or view


def header_view(header: Any) -> str:
    """What a DICOM header says: PatientOrientation (0020,0020), else ViewPosition (0018,5101).

    PatientOrientation names where a row and a column of the picture lead (PS3.3 C.7.6.1.1.1): rows
    that lead to the patient's front (A) show a patient who faces right. Only for upright pictures.
    """
    orientation = header.get("PatientOrientation") or ()
    if not isinstance(orientation, str) and len(orientation) == 2:
        across, down = (str(word)[:1].upper() for word in orientation)
        words = {"A": "right", "P": "left", "L": "frontal", "R": "frontal"}
        if down == "F" and across in words:
            return words[across]
    position = str(header.get("ViewPosition") or "").strip().upper()
    positions = {"AP": "frontal", "PA": "frontal", "LL": "lateral", "RL": "lateral"}
    return positions.get(position, "")


def mean_probabilities(frames: Sequence[NDArray[np.uint8]]) -> list[float]:
    """Mean probabilities of CLASSES over up to 12 frames, spread evenly, without black margins.

    Frames that show nothing like a swallow have no say, unless they are the most.
    """
    chosen = np.unique(np.linspace(0, len(frames) - 1, _FRAMES).round().astype(int))
    picture = find_picture(frames)
    window = picture.window if picture else (slice(None), slice(None))
    said = packaged_model().probabilities([frames[index][window] for index in chosen])
    useful = said[:, _OTHER] < 0.5
    if 2 * useful.sum() >= len(said):
        said = said[useful]
    return [float(value) for value in said.mean(axis=0)]


def _side(means: Sequence[float], by: By) -> Decision:
    """Left or right, where it is known that the film is lateral."""
    confidence = max(means[:2]) / max(sum(means[:2]), 1e-9)
    if confidence < SURE:
        return _unsure(confidence)
    return _decision("left" if means[0] > means[1] else "right", by, confidence)


def _unsure(confidence: float) -> Decision:
    return Decision(confidence=round(confidence, 3))


def _decision(word: str, by: By, confidence: float | None, warning: str = "") -> Decision:
    view, facing = ("frontal", "left") if word == "frontal" else ("lateral", word)
    rounded = None if confidence is None else round(confidence, 3)
    return Decision(view, facing, by, rounded, warning)


def _agree(word: str, hint: str) -> bool:
    return hint in ("", word) or (hint == "lateral" and word in ("left", "right"))
