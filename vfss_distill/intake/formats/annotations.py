"""What every label file is read into: frames, labels, and pieces of masks not drawn yet.

A film of a thousand frames with twelve structures is gigabytes as masks and megabytes as outlines
and runs, so a mask is drawn only when it is written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, LabelError
from ...tasks import Task

# A parsed JSON or XML text takes up to ten times its size in memory; volumes are read by frame.
MAX_TEXT_BYTES = 256 * 2**20
MAX_VOLUME_BYTES = 512 * 2**20

Mask = NDArray[np.bool_]
Size = tuple[int, int]  # height, width


class Piece(Protocol):
    """Part of a mask as the file gives it; a mask is the union of its pieces."""

    def draw(self, size: Size) -> Mask:
        """Bool (H, W) of the file's frame size. Raises LabelError when it does not fit."""
        ...


@dataclass(frozen=True)
class Place:
    """Which frame is meant, in the file's words.

    `number` where the format counts frames itself, else `name` holds it. `name` may also name a
    study. `size` (height, width) where the file says it.
    """

    name: str
    number: int | None = None
    size: Size | None = None


@dataclass
class Annotations:
    """One label file. `entries`: frame → label → pieces; no pieces: the label is said absent.

    `labels`: every label the file knows, also those on no frame. `faults`: what cannot be read, by
    the name that may tell its study.
    """

    file: Path
    format: str
    labels: list[str] = field(default_factory=list)
    entries: dict[Place, dict[str, list[Piece]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    faults: list[tuple[str, DataError]] = field(default_factory=list)

    @contextmanager
    def apart(self, name: str) -> Iterator[None]:
        """What cannot be read in here is a fault of one study, and no end of the others."""
        try:
            yield
        except DataError as error:
            self.faults.append((name, error))

    def know(self, label: str) -> str:
        """`label` as text, and one of those the file knows from now on."""
        label = str(label)
        if label not in self.labels:
            self.labels.append(label)
        return label

    def frame(self, place: Place) -> dict[str, list[Piece]]:
        """The entry of an annotated frame, made if new."""
        return self.entries.setdefault(place, {})

    def add(self, place: Place, label: str, *pieces: Piece) -> None:
        """One more piece of a label; without any the label is absent there."""
        self.frame(place).setdefault(self.know(label), []).extend(pieces)


class LabelSource(Protocol):
    """What can be exported: a study's labels or a model's masks, all of one size."""

    @property
    def id(self) -> str: ...

    @property
    def frames(self) -> int: ...

    @property
    def size(self) -> Size: ...

    def labelled(self, task: str) -> Sequence[int]:
        """Frames with a mask, blank ones included; in order."""
        ...

    def mask(self, task: str, frame: int) -> Mask: ...

    def picture(self, frame: int) -> NDArray[np.uint8]:
        """The frame itself. Raises WorkspaceError where only masks are kept."""
        ...


class UnreadableSource(Exception):
    """A mask or frame of one source cannot be read: the others can be exported without it."""

    def __init__(self, source: LabelSource, error: DataError) -> None:
        super().__init__(str(error))
        self.source = source
        self.error = error


@dataclass
class Export:
    """One export under way. `polygons`: outlines instead of exact masks, where there is a choice.

    `say` takes what the reader must know; `lost` counts pixels given up to overlap, by task.
    """

    target: Path
    sources: Sequence[LabelSource]
    tasks: Sequence[Task]
    polygons: bool = False
    tick: Callable[[int, int, str], None] = lambda done, total, words: None
    masks: int = 0
    notes: list[str] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)

    def table(self, source: LabelSource) -> dict[int, list[Task]]:
        """Labelled frames in order, each with its labelled tasks."""
        frames: dict[int, list[Task]] = {}
        for task in self.tasks:
            for frame in source.labelled(task.id):
                frames.setdefault(frame, []).append(task)
        return dict(sorted(frames.items()))

    def mask(self, source: LabelSource, task: str, frame: int) -> Mask:
        """A mask to be written, which counts it."""
        self.masks += 1
        return self.look_at(source, task, frame)

    def look_at(self, source: LabelSource, task: str, frame: int) -> Mask:
        try:
            return source.mask(task, frame)
        except DataError as error:
            raise UnreadableSource(source, error) from error

    def picture(self, source: LabelSource, frame: int) -> NDArray[np.uint8]:
        try:
            return source.picture(frame)
        except DataError as error:
            raise UnreadableSource(source, error) from error


def check_bytes(path: Path, limit: int) -> None:
    """Raises LabelError for a file too large to be opened. Nothing of it is read."""
    size = path.stat().st_size
    if size > limit:
        raise LabelError(
            f"is {size / 2**20:.0f} MB, label files of this kind may have {limit // 2**20} MB",
            file=path,
            remedy="Export fewer recordings, or fewer frames, to a file.",
        )
    if size == 0:
        raise LabelError("is empty", file=path, remedy="Export it again.")


def named_twice(name: str, file: Path) -> LabelError:
    """Two pictures of one name: of two recordings, and nothing tells which is which."""
    return LabelError(
        f"two pictures have the name {name[-60:]!r}",
        file=file,
        remedy="Export each recording by itself.",
    )


def read_json_labels(path: Path) -> Any:
    """A JSON label file of bounded size. Raises LabelError."""
    check_bytes(path, MAX_TEXT_BYTES)
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise LabelError(
            "is not readable as JSON", file=path, remedy="Export it again; it may be cut off."
        ) from error


def whole_size(height: object, width: object) -> Size:
    """(height, width) of a file's own words. Raises ValueError."""
    size = int(float(str(height))), int(float(str(width)))
    if min(size) < 1:
        raise ValueError("no size")
    return size


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """uint8 (H, W) as PNG bytes."""
    done, data = cv2.imencode(".png", pixels)
    if not done:
        raise LabelError("a mask could not be encoded")
    return data.tobytes()


def mask_png(mask: Mask) -> bytes:
    """Bool (H, W) as a PNG of 0 and 255."""
    return encode_png(mask.astype(np.uint8) * 255)


def write_json_file(target: Path, value: Any) -> None:
    """Compact JSON into a folder that is being made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(value, allow_nan=False), encoding="utf-8")
