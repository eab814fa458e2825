"""3D Slicer segmentations, `.seg.nrrd`: the film as a volume whose slices are its frames.

Segments that overlap lie in layers. Both ways the volume passes frame by frame; what is kept are
run lengths. Layout: teem.sourceforge.net/nrrd/format.html; Slicer's fields: `Segment<N>_Name`,
`_LabelValue`, `_Layer`, and `Segmentation_ReferenceImageExtentOffset` of a cropped volume.
"""

from __future__ import annotations

import gzip
import json
import math
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ...errors import LabelError
from ..source import MAX_PIXELS
from .annotations import MAX_VOLUME_BYTES, Annotations, Export, LabelSource, Place, check_bytes
from .runs import Runs, boxed_runs

_SAID = "vfss_labelled"  # ours; Slicer drops it when it saves the file again
_TYPES = {
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("short", "short int", "signed short", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
}
_MAX_HEADER = 1 << 20
_MAX_VOXELS = 1 << 33
_MAX_SEGMENTS = 1024


@dataclass(frozen=True)
class _Segment:
    name: str
    value: int
    layer: int


@dataclass(frozen=True)
class _Volume:
    """What the header says. `offset`: x, y, frame of a cropped volume; None when it is whole."""

    layers: int
    width: int
    height: int
    frames: int
    dtype: np.dtype[Any]
    packed: bool
    offset: tuple[int, int, int] | None
    segments: tuple[_Segment, ...]
    said: dict[str, list[int]]


def read_slicer(path: Path) -> Annotations:
    """Every segment on every slice where it is. Raises LabelError, also for detached data."""
    check_bytes(path, MAX_VOLUME_BYTES)
    found = Annotations(path, "slicer")
    with path.open("rb") as stream:
        volume = _header(stream)
        for segment in volume.segments:
            found.know(segment.name)
        for label, frames in volume.said.items():
            for frame in frames:
                found.add(_place(path, volume, int(frame)), label)
        try:
            data: BinaryIO | gzip.GzipFile = (
                gzip.GzipFile(fileobj=stream) if volume.packed else stream
            )
            _read_frames(found, path, volume, data)
        except (EOFError, OSError, zlib.error) as error:
            raise LabelError("breaks off or is damaged", file=path, remedy="Save again.") from error
    return found


def _place(path: Path, volume: _Volume, frame: int) -> Place:
    size = (volume.height, volume.width) if volume.offset is None else None
    return Place(path.name.split(".")[0], frame, size)


def _read_frames(
    found: Annotations, path: Path, volume: _Volume, data: BinaryIO | gzip.GzipFile
) -> None:
    left, top, first = volume.offset or (0, 0, 0)
    shape = (volume.height, volume.width, volume.layers)
    wanted = math.prod(shape) * volume.dtype.itemsize
    for number in range(volume.frames):
        raw = data.read(wanted)
        if len(raw) != wanted:
            raise EOFError
        pixels = np.frombuffer(raw, volume.dtype).reshape(shape)
        if not pixels.any():
            continue
        place = _place(path, volume, first + number)
        for segment in volume.segments:
            mask = pixels[:, :, segment.layer] == segment.value
            if mask.any():
                runs = boxed_runs(mask)
                y, x, height, width = runs.box or (0, 0, 0, 0)
                found.add(
                    place, segment.name, Runs(runs.counts, (y + top, x + left, height, width))
                )


def _header(stream: BinaryIO) -> _Volume:
    if not stream.readline(16).startswith(b"NRRD"):
        raise ValueError("not NRRD")
    fields: dict[str, str] = {}
    used = 0
    while line := stream.readline(_MAX_HEADER):
        used += len(line)
        text = line.decode("utf-8").rstrip("\r\n")
        if not text:
            break
        key, mark, value = text.partition(":=") if ":=" in text else text.partition(": ")
        if mark and not text.startswith("#"):
            fields[key.strip()] = value.strip()
        if used > _MAX_HEADER:
            raise ValueError("a header without end")
    if "data file" in fields or "datafile" in fields:
        raise LabelError(
            "keeps its data in another file", remedy="Save it from Slicer as one .seg.nrrd file."
        )
    return _volume(fields)


def _volume(fields: dict[str, str]) -> _Volume:
    sizes = [int(size) for size in fields["sizes"].split()]
    if len(sizes) == 3:
        sizes.insert(0, 1)
    layers, width, height, frames = sizes
    if min(sizes) < 1 or layers * width * height > MAX_PIXELS:
        raise ValueError("sizes that no film has")
    if math.prod(sizes) > _MAX_VOXELS:
        raise LabelError("is too large a volume", remedy="Save fewer frames to a file.")
    if fields["encoding"].lower() not in ("raw", "gzip", "gz"):
        raise LabelError("is encoded in another way than raw or gzip", remedy="Save it with gzip.")
    order = ">" if fields.get("endian", "little").lower() == "big" else "<"
    numbers = sorted({int(n) for n in re.findall(r"\bSegment(\d+)_", " ".join(fields))})
    segments = tuple(
        _Segment(
            fields[f"Segment{n}_Name"],
            int(fields.get(f"Segment{n}_LabelValue", n + 1)),
            int(fields.get(f"Segment{n}_Layer", 0)),
        )
        for n in numbers
        if f"Segment{n}_Name" in fields
    )
    if not 0 < len(segments) <= _MAX_SEGMENTS or any(
        not 0 <= segment.layer < layers for segment in segments
    ):
        raise ValueError("no segments, or segments in layers that are not there")
    offset = None
    if "Segmentation_ReferenceImageExtentOffset" in fields:
        x, y, z = map(int, fields["Segmentation_ReferenceImageExtentOffset"].split())
        offset = (x, y, z)
    return _Volume(
        layers=layers,
        width=width,
        height=height,
        frames=frames,
        dtype=np.dtype(order + _TYPES[fields["type"].lower()]),
        packed=fields["encoding"].lower() != "raw",
        offset=offset,
        segments=segments,
        said={str(k): list(v) for k, v in json.loads(fields.get(_SAID, "{}")).items()},
    )


def write_slicer(export: Export) -> None:
    """<study>.seg.nrrd each; structures that ever overlap lie in layers of their own."""
    for number, source in enumerate(export.sources):
        export.tick(number, len(export.sources), source.id)
        layer = _layers(export, source)
        with (export.target / f"{source.id}.seg.nrrd").open("wb") as stream:
            stream.write(_head(export, source, layer).encode("utf-8"))
            with gzip.GzipFile(
                filename="", fileobj=stream, mode="wb", compresslevel=4, mtime=0
            ) as packed:
                _write_frames(packed, export, source, layer)


def _layers(export: Export, source: LabelSource) -> dict[str, int]:
    """Task → layer: the first in which it never meets another."""
    ids = [task.id for task in export.tasks]
    meets: dict[str, set[str]] = {task: set() for task in ids}
    for frame, tasks in export.table(source).items():
        masks = {task.id: export.look_at(source, task.id, frame) for task in tasks}
        total = sum((mask.astype(np.uint8) for mask in masks.values()), np.zeros((), np.uint8))
        if not np.any(total > 1):
            continue
        for one in masks:
            for other in masks:
                if one < other and np.any(masks[one] & masks[other]):
                    meets[one].add(other)
                    meets[other].add(one)
    layer: dict[str, int] = {}
    for task in ids:
        taken = {layer[other] for other in meets[task] if other in layer}
        layer[task] = next(number for number in range(len(ids)) if number not in taken)
    return layer


def _write_frames(
    packed: gzip.GzipFile, export: Export, source: LabelSource, layer: dict[str, int]
) -> None:
    values = {task.id: number for number, task in enumerate(export.tasks, 1)}
    table = export.table(source)
    shape = (*source.size, max(layer.values()) + 1)
    for frame in range(source.frames):
        pixels: NDArray[np.uint8] = np.zeros(shape, np.uint8)
        for task in table.get(frame, ()):
            mask = export.mask(source, task.id, frame)
            pixels[:, :, layer[task.id]][mask] = values[task.id]
        packed.write(pixels.tobytes())


def _head(export: Export, source: LabelSource, layer: dict[str, int]) -> str:
    height, width = source.size
    layers = max(layer.values()) + 1
    said = {task.id: list(source.labelled(task.id)) for task in export.tasks}
    lines = [
        "NRRD0004",
        "# Complete NRRD file format specification at:",
        "# http://teem.sourceforge.net/nrrd/format.html",
        "type: unsigned char",
        "dimension: 4",
        "space: left-posterior-superior",
        f"sizes: {layers} {width} {height} {source.frames}",
        "space directions: none (1,0,0) (0,1,0) (0,0,1)",
        "kinds: list domain domain domain",
        "encoding: gzip",
        "space origin: (0,0,0)",
    ]
    extent = f"0 {width - 1} 0 {height - 1} 0 {source.frames - 1}"
    for number, task in enumerate(export.tasks):
        colour = " ".join(f"{part / 255:.6f}" for part in task.colour)
        for key, value in (
            ("ID", task.id),
            ("Name", task.id),
            ("NameAutoGenerated", "0"),
            ("Color", colour),
            ("ColorAutoGenerated", "0"),
            ("Extent", extent),
            ("LabelValue", str(number + 1)),
            ("Layer", str(layer[task.id])),
        ):
            lines.append(f"Segment{number}_{key}:={value}")
    lines += [
        "Segmentation_MasterRepresentation:=Binary labelmap",
        "Segmentation_ContainedRepresentationNames:=Binary labelmap|",
        f"{_SAID}:={json.dumps(said, separators=(',', ':'))}",
    ]
    return "\n".join(lines) + "\n\n"
