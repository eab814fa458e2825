"""CVAT 1.1 XML, for images and for video: polygons and masks (rows of a box).

Read with defusedxml as a stream: no entities, no DTD, no network, one track in memory at a time.
An `outside` shape ends a track and labels nothing: CVAT writes one behind every single shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TextIO
from xml.etree.ElementTree import Element, ParseError
from xml.sax.saxutils import quoteattr

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import iterparse

from ...errors import LabelError
from ...tasks import Task
from .annotations import (
    MAX_TEXT_BYTES,
    Annotations,
    Export,
    LabelSource,
    Mask,
    Piece,
    Place,
    Size,
    check_bytes,
    named_twice,
    whole_size,
)
from .outlines import Polygon, outline
from .runs import Runs, boxed_runs

_SHAPES = ("polygon", "mask")
_NO_AREA = ("box", "polyline", "points", "ellipse", "cuboid", "skeleton")
_SAID = "vfss_labelled"  # ours; CVAT passes over attributes and elements it does not know


def read_cvat(path: Path) -> Annotations:
    """Images and tracks of one file. Raises LabelError for entity tricks and broken XML."""
    check_bytes(path, MAX_TEXT_BYTES)
    found = Annotations(path, "cvat")
    try:
        with path.open("rb") as stream:
            _Reader(found).read(iterparse(stream, events=("start", "end"), forbid_dtd=True))
    except DefusedXmlException as error:
        raise LabelError(
            "defines entities or a DTD, which no CVAT file does; not opened",
            file=path,
            remedy="Export it from CVAT again.",
        ) from error
    except (ParseError, UnicodeError) as error:
        raise LabelError(
            "is not readable as XML", file=path, remedy="Export it again; it may be cut off."
        ) from error
    return found


class _Reader:
    """Shapes gathered from the events of one file."""

    def __init__(self, found: Annotations) -> None:
        self._found = found
        self._size: Size | None = None  # of a video's frames, from <original_size>
        self._path: list[str] = []
        self._tasks: set[str] = set()  # CVAT's tasks, each made of a recording of its own
        self._images: dict[str, str] = {}  # name → CVAT's id
        self._counts = dict.fromkeys(("guessed", "outside", "other"), 0)

    def read(self, events: Iterator[tuple[str, Element]]) -> None:
        for event, element in events:
            if event == "start":
                if not self._path and element.tag != "annotations":
                    raise LabelError("is XML, but not CVAT's", file=self._found.file)
                self._path.append(element.tag)
                continue
            self._path.pop()
            self._end(element)
        self._refuse_many_tasks()
        notes = {
            "guessed": "shapes lie between key frames: CVAT interpolated them",
            "outside": "shapes mark the end of a track and label nothing",
            "other": "shapes are no areas (boxes, points, lines) and were left out",
        }
        self._found.notes += [f"{n} {notes[key]}" for key, n in self._counts.items() if n]

    def _end(self, element: Element) -> None:
        inside = "/".join(self._path)
        if element.tag == "original_size":
            self._size = whole_size(element.findtext("height"), element.findtext("width"))
        elif element.tag == "label" and inside.endswith("labels"):
            self._found.know(element.findtext("name") or "")
        elif element.tag == _SAID:
            for frame in (element.get("frames") or "").split():
                self._found.add(Place("", int(frame), self._size), element.attrib["label"])
        elif element.tag == "image":
            self._image(element)
        elif element.tag == "track":
            self._track(element)
        if inside == "annotations":
            element.clear()  # keep memory to one image or track

    def _refuse_many_tasks(self) -> None:
        """A project's export holds several recordings; an import is of one study's frames."""
        tasks = self._tasks - {""}
        if len(tasks) > 1:
            raise LabelError(
                f"holds {len(tasks)} tasks, each of a recording of its own",
                file=self._found.file,
                remedy="Export each CVAT task by itself.",
            )

    def _image(self, element: Element) -> None:
        size = whole_size(element.get("height"), element.get("width"))
        name, identifier = element.attrib["name"], element.get("id", "")
        self._tasks.add(element.get("task_id", ""))
        if self._images.setdefault(name, identifier) != identifier:
            self._refuse_many_tasks()
            raise named_twice(name, self._found.file)
        place = Place(name, size=size)
        for label in (element.get(_SAID) or "").split():
            self._found.add(place, label)
        for shape in element:
            self._counts["other"] += shape.tag in _NO_AREA
            if shape.tag in _SHAPES:
                self._found.add(place, shape.attrib["label"], _piece(shape))

    def _track(self, element: Element) -> None:
        label = self._found.know(element.attrib["label"])
        self._tasks.add(element.get("task_id", ""))
        for shape in element:
            self._counts["other"] += shape.tag in _NO_AREA
            if shape.tag not in _SHAPES:
                continue
            if shape.get("outside") == "1":
                self._counts["outside"] += 1
                continue
            self._counts["guessed"] += shape.get("keyframe", "1") == "0"
            place = Place("", int(shape.attrib["frame"]), self._size)
            self._found.add(place, label, _piece(shape))


def _piece(shape: Element) -> Piece:
    if shape.tag == "polygon":
        points = [pair.split(",") for pair in shape.attrib["points"].split(";") if pair.strip()]
        return Polygon.of([[float(x), float(y)] for x, y in points])
    top, left, height, width = (int(shape.attrib[k]) for k in ("top", "left", "height", "width"))
    counts = [int(count) for count in shape.attrib["rle"].split(",") if count.strip()]
    return Runs(np.array(counts, np.int64), (top, left, height, width))


def write_cvat_images(export: Export) -> None:
    """annotations.xml with one image per labelled frame, named <study>/000000.png."""
    with (export.target / "annotations.xml").open("w", encoding="utf-8") as stream:
        _head(stream, export)
        identifier = 0
        for number, source in enumerate(export.sources):
            export.tick(number, len(export.sources), source.id)
            height, width = source.size
            for frame, tasks in export.table(source).items():
                name = quoteattr(f"{source.id}/{frame:06d}.png")
                said = quoteattr(" ".join(task.id for task in tasks))
                stream.write(
                    f'  <image id="{identifier}" name={name} width="{width}" height="{height}" '
                    f"{_SAID}={said}>\n"
                )
                identifier += 1
                for task in tasks:
                    for tag, attributes in _shapes(export, source, task, frame):
                        label = quoteattr(task.id)
                        stream.write(f"    <{tag} label={label} {attributes}></{tag}>\n")
                stream.write("  </image>\n")
        stream.write("</annotations>\n")


def write_cvat_video(export: Export) -> None:
    """<study>.xml each, for a CVAT task made of the same recording; frames count from 0."""
    for number, source in enumerate(export.sources):
        export.tick(number, len(export.sources), source.id)
        with (export.target / f"{source.id}.xml").open("w", encoding="utf-8") as stream:
            _head(stream, export, source)
            _tracks(stream, export, source)
            stream.write("</annotations>\n")


def _tracks(stream: TextIO, export: Export, source: LabelSource) -> None:
    """One track per shape, ended on the next frame: how CVAT itself writes single shapes."""
    track = 0
    for frame, tasks in export.table(source).items():
        for task in tasks:
            for tag, attributes in _shapes(export, source, task, frame):
                label = quoteattr(task.id)
                stream.write(f'  <track id="{track}" label={label} source="manual">\n')
                for at, outside in ((frame, 0), (frame + 1, 1)):
                    if at < source.frames:
                        head = f'frame="{at}" keyframe="1" outside="{outside}"'
                        stream.write(f"    <{tag} {head} {attributes}></{tag}>\n")
                stream.write("  </track>\n")
                track += 1
    for task in export.tasks:
        if frames := " ".join(map(str, source.labelled(task.id))):
            stream.write(f"  <{_SAID} label={quoteattr(task.id)} frames={quoteattr(frames)}/>\n")


def _shapes(
    export: Export, source: LabelSource, task: Task, frame: int
) -> Iterator[tuple[str, str]]:
    """Tag and attributes of a mask's shapes; none when it is blank."""
    mask = export.mask(source, task.id, frame)
    if not mask.any():
        return
    common = 'occluded="0" source="manual" z_order="0"'
    if not export.polygons:
        yield "mask", f"{common} {_runs(mask)}"
        return
    for ring in outline(mask):
        points = ";".join(f"{x:.2f},{y:.2f}" for x, y in ring)
        yield "polygon", f'{common} points="{points}"'


def _runs(mask: Mask) -> str:
    runs = boxed_runs(mask)
    top, left, height, width = runs.box or (0, 0, 0, 0)
    counts = ", ".join(map(str, runs.counts))
    return f'rle="{counts}" left="{left}" top="{top}" width="{width}" height="{height}"'


def _head(stream: TextIO, export: Export, source: LabelSource | None = None) -> None:
    labels = "".join(
        f"<label><name>{task.id}</name><color>#{''.join(f'{c:02x}' for c in task.colour)}</color>"
        "<attributes></attributes></label>"
        for task in export.tasks
    )
    size = frames = ""
    if source is not None:
        frames = f"<size>{source.frames}</size><mode>interpolation</mode>"
        height, width = source.size
        size = f"<original_size><width>{width}</width><height>{height}</height></original_size>"
    stream.write(
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n'
        f"  <meta><task>{frames}<labels>{labels}</labels>{size}</task></meta>\n"
    )
