"""COCO JSON: polygons, and run lengths compressed and not (column by column)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .annotations import (
    Annotations,
    Export,
    Mask,
    Piece,
    Place,
    named_twice,
    read_json_labels,
    whole_size,
    write_json_file,
)
from .outlines import Polygon, outline
from .runs import Runs, coco_counts, coco_text, counts_of

# Ours: which tasks were labelled on an image, so that absent stays apart from unlabelled.
SAID = "vfss_labelled"


def is_coco(data: Any) -> bool:
    return isinstance(data, dict) and "images" in data and "categories" in data


def read_coco(path: Path) -> Annotations:
    """Instances of every category; boxes without an outline are left out."""
    data = read_json_labels(path)
    found = Annotations(path, "coco")
    names = {entry["id"]: found.know(entry["name"]) for entry in data["categories"]}
    places = {}
    identifiers: dict[str, Any] = {}
    for image in data["images"]:
        size = whole_size(image["height"], image["width"])
        name = str(image["file_name"])
        if identifiers.setdefault(name, image["id"]) != image["id"]:
            raise named_twice(name, path)
        places[image["id"]] = place = Place(name, size=size)
        for label in image.get(SAID, ()):
            found.add(place, str(label))
    boxes = 0
    for entry in data.get("annotations") or ():
        pieces = list(_pieces(entry.get("segmentation")))
        boxes += not pieces
        if pieces:
            found.add(places[entry["image_id"]], names[entry["category_id"]], *pieces)
    if boxes:
        found.notes.append(f"{boxes} annotations are boxes without an outline and were left out")
    return found


def _pieces(segmentation: Any) -> Iterator[Piece]:
    if isinstance(segmentation, dict):
        counts = segmentation["counts"]
        runs = coco_counts(counts) if isinstance(counts, str) else [int(n) for n in counts]
        height, width = (int(n) for n in segmentation["size"])
        yield Runs(np.array(runs, np.int64), (0, 0, height, width), by_column=True)
        return
    for flat in segmentation or ():
        yield Polygon.of(np.asarray(flat, np.float64).reshape(-1, 2))


def write_coco(export: Export) -> None:
    """annotations.json with one image per labelled frame; images are named <study>/000000.png."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    categories = {task.id: number for number, task in enumerate(export.tasks, 1)}
    for number, source in enumerate(export.sources):
        export.tick(number, len(export.sources), source.id)
        height, width = source.size
        for frame, tasks in export.table(source).items():
            image = {
                "id": len(images) + 1,
                "file_name": f"{source.id}/{frame:06d}.png",
                "height": height,
                "width": width,
                SAID: [task.id for task in tasks],
            }
            images.append(image)
            for task in tasks:
                mask = export.mask(source, task.id, frame)
                if mask.any():
                    annotations.append(
                        {
                            "id": len(annotations) + 1,
                            "image_id": image["id"],
                            "category_id": categories[task.id],
                            "iscrowd": 0,
                            **_shape(mask, export.polygons),
                        }
                    )
    body = {
        "images": images,
        "categories": [
            {"id": categories[task.id], "name": task.id, "supercategory": "anatomy"}
            for task in export.tasks
        ],
        "annotations": annotations,
    }
    write_json_file(export.target / "annotations.json", body)


def _shape(mask: Mask, polygons: bool) -> dict[str, Any]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left = int(rows[0]), int(columns[0])
    segmentation: Any
    if polygons:
        segmentation = [ring.round(2).ravel().tolist() for ring in outline(mask)]
    else:
        counts = coco_text(counts_of(mask, by_column=True))
        segmentation = {"size": list(mask.shape), "counts": counts}
    return {
        "segmentation": segmentation,
        "area": int(mask.sum()),
        "bbox": [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1],
    }
