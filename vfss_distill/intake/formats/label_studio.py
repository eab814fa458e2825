"""Label Studio JSON: polygons in percent of the frame, and packed brushes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import LabelError
from .annotations import (
    Annotations,
    Export,
    Mask,
    Piece,
    Place,
    Size,
    read_json_labels,
    whole_size,
    write_json_file,
)
from .outlines import Polygon, Ring, outline
from .runs import Brush, pack_brush

_SAID = "vfss_labelled"  # in a task's data, which Label Studio hands back as it was
_SIZE = "vfss_size"
_PICTURES = ("image", "img", "picture", "frame")


@dataclass(frozen=True)
class PercentPolygon:
    """An outline in percent of the frame, whose size the file need not say."""

    points: Ring

    def draw(self, size: Size) -> Mask:
        height, width = size
        return Polygon(self.points * (width, height) / 100).draw(size)


def is_label_studio(data: Any) -> bool:
    if not isinstance(data, list) or not data or not isinstance(data[0], dict):
        return False
    return "data" in data[0] and bool({"annotations", "completions"} & set(data[0]))


def read_label_studio(path: Path) -> Annotations:
    """The last annotation of each task that was not cancelled; predictions are not labels."""
    found = Annotations(path, "label-studio")
    others = several = 0
    for task in read_json_labels(path):
        done = [one for one in task["annotations"] if not one.get("was_cancelled")]
        several += len(done) > 1
        if not done:
            continue
        regions = done[-1]["result"]
        place = _place(task["data"], regions)
        found.frame(place)
        for label in task["data"].get(_SAID, ()):
            found.add(place, str(label))
        for region in regions:
            labels, piece = _region(region)
            if piece is None:
                others += 1
                continue
            for label in labels:
                found.add(place, label, piece)
    if others:
        found.notes.append(f"{others} regions are no outlines or brushes and were left out")
    if several:
        found.notes.append(f"{several} frames have more than one annotation; the last was taken")
    return found


def _place(data: dict[str, Any], regions: list[dict[str, Any]]) -> Place:
    named = [data[key] for key in _PICTURES if key in data] or [
        value for value in data.values() if isinstance(value, str) and "." in value
    ]
    if not named:
        raise ValueError("a task names no picture")
    sizes = {
        whole_size(region["original_height"], region["original_width"])
        for region in regions
        if "original_height" in region
    }
    if len(sizes) > 1:
        raise ValueError("regions of one frame disagree about its size")
    size = next(iter(sizes), None)
    if size is None and _SIZE in data:
        size = whole_size(*data[_SIZE])
    return Place(str(named[0]), size=size)


def _region(region: dict[str, Any]) -> tuple[list[str], Piece | None]:
    kind, value = region.get("type", ""), region.get("value") or {}
    if kind not in ("polygonlabels", "brushlabels"):
        return [], None
    if region.get("image_rotation"):
        raise LabelError("a frame was rotated in Label Studio", remedy="Rotate it back there.")
    labels = [str(label) for label in value.get(kind, ())]
    if kind == "polygonlabels":
        return labels, PercentPolygon(Polygon.of(value["points"]).points)
    if value.get("format", "rle") != "rle":
        raise ValueError("an unknown kind of brush")
    if not isinstance(value["rle"], list):  # of a number, bytes() makes as many zeros
        raise ValueError("a brush without run lengths")
    return labels, Brush(bytes(value["rle"]))


def write_label_studio(export: Export) -> None:
    """tasks.json, to be imported with frames served as <study>/000000.png."""
    tasks: list[dict[str, Any]] = []
    for number, source in enumerate(export.sources):
        export.tick(number, len(export.sources), source.id)
        for frame, labelled in export.table(source).items():
            results: list[dict[str, Any]] = []
            for task in labelled:
                mask = export.mask(source, task.id, frame)
                results += _results(task.id, mask, export.polygons, len(results))
            data = {
                "image": f"{source.id}/{frame:06d}.png",
                _SAID: [task.id for task in labelled],
                _SIZE: list(source.size),
            }
            tasks.append({"id": len(tasks) + 1, "data": data, "annotations": [{"result": results}]})
    write_json_file(export.target / "tasks.json", tasks)


def _results(task: str, mask: Mask, polygons: bool, first: int) -> list[dict[str, Any]]:
    if not mask.any():
        return []
    height, width = mask.shape
    values: list[dict[str, Any]] = [{"format": "rle", "rle": pack_brush(mask)}]
    kind = "brushlabels"
    if polygons:
        rings = (ring * (100 / width, 100 / height) for ring in outline(mask))
        values = [{"points": ring.round(6).tolist(), "closed": True} for ring in rings]
        kind = "polygonlabels"
    return [
        {
            "id": f"r{first + number}",
            "type": kind,
            "from_name": "label",
            "to_name": "image",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {**value, kind: [task]},
        }
        for number, value in enumerate(values)
    ]
