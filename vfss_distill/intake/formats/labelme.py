"""labelme JSON, one file per frame: polygons, and masks as pictures in a box.

`flags` hold `absent:<task>` for tasks looked for and not there; labelme keeps them.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ...errors import LabelError
from .annotations import (
    Annotations,
    Export,
    Mask,
    Piece,
    Place,
    Size,
    mask_png,
    read_json_labels,
    whole_size,
    write_json_file,
)
from .outlines import Polygon, outline

_ABSENT = "absent:"
_BAD = "Export the labels again."


@dataclass(frozen=True)
class BoxedPicture:
    """A mask picture whose first pixel lies at `top`, `left` of the frame."""

    data: str  # base64 of a PNG
    top: int
    left: int

    def draw(self, size: Size) -> Mask:
        try:
            packed = np.frombuffer(base64.b64decode(self.data, validate=True), np.uint8)
        except (binascii.Error, ValueError) as error:
            raise LabelError("a mask in the file is damaged", remedy=_BAD) from error
        if len(packed) < 24 or packed[:4].tobytes() != b"\x89PNG":
            raise LabelError("a mask in the file is no PNG", remedy=_BAD)
        width, height = np.frombuffer(packed[16:24].tobytes(), ">u4").tolist()
        bottom, right = self.top + height, self.left + width
        if min(self.top, self.left) < 0 or bottom > size[0] or right > size[1]:
            raise LabelError("a mask reaches beyond its frame", remedy=_BAD)
        pixels = cv2.imdecode(packed, cv2.IMREAD_GRAYSCALE)
        if pixels is None or pixels.shape != (height, width):
            raise LabelError("a mask in the file is damaged", remedy=_BAD)
        mask = np.zeros(size, np.bool_)
        mask[self.top : bottom, self.left : right] = pixels > 0
        return mask


def is_labelme(data: Any) -> bool:
    return isinstance(data, dict) and "shapes" in data and "imagePath" in data


def read_labelme(path: Path) -> Annotations:
    """One file, which labels the frame it is named after."""
    data = read_json_labels(path)
    found = Annotations(path, "labelme")
    size = whole_size(data["imageHeight"], data["imageWidth"])
    place = Place(f"{path.parent.name}/{path.stem}", size=size)
    found.frame(place)
    for flag, on in (data.get("flags") or {}).items():
        if on and str(flag).startswith(_ABSENT):
            found.add(place, str(flag).removeprefix(_ABSENT))
    others = 0
    for shape in data["shapes"]:
        piece = _piece(shape)
        others += piece is None
        if piece is not None:
            found.add(place, shape["label"], piece)
    if others:
        found.notes.append("some shapes are no outlines (boxes, points, lines) and were left out")
    return found


def _piece(shape: dict[str, Any]) -> Piece | None:
    kind = shape.get("shape_type", "polygon")
    if kind == "polygon":
        return Polygon.of(shape["points"])
    if kind == "mask":
        (left, top), _ = shape["points"]
        return BoxedPicture(str(shape["mask"]), int(top), int(left))
    return None


def write_labelme(export: Export) -> None:
    """<study>/000000.json, one per labelled frame. Polygons, or masks of labelme 5.3 and later."""
    for number, source in enumerate(export.sources):
        export.tick(number, len(export.sources), source.id)
        height, width = source.size
        for frame, tasks in export.table(source).items():
            masks = {task.id: export.mask(source, task.id, frame) for task in tasks}
            body = {
                "version": "5.5.0",
                "flags": {f"{_ABSENT}{task}": True for task in masks if not masks[task].any()},
                "shapes": [
                    {"label": task, "group_id": None, "description": "", "flags": {}, **shape}
                    for task, mask in masks.items()
                    for shape in _shapes(mask, export.polygons)
                ],
                "imagePath": f"{frame:06d}.png",
                "imageData": None,
                "imageHeight": height,
                "imageWidth": width,
            }
            write_json_file(export.target / source.id / f"{frame:06d}.json", body)


def _shapes(mask: Mask, polygons: bool) -> list[dict[str, Any]]:
    if not mask.any():
        return []
    if polygons:
        rings = (ring.round(2).tolist() for ring in outline(mask))
        return [{"points": ring, "shape_type": "polygon", "mask": None} for ring in rings]
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left, bottom, right = (int(n) for n in (rows[0], columns[0], rows[-1], columns[-1]))
    part = mask_png(mask[top : bottom + 1, left : right + 1])
    return [
        {
            "points": [[left, top], [right, bottom]],
            "shape_type": "mask",
            "mask": base64.b64encode(part).decode("ascii"),
        }
    ]
