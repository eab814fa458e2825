"""Masks as pictures: a folder per task, or one index picture per frame.

masks   [<study>/]<task>/000000.png       0 and 255; structures may overlap
index   [<study>/]000000.png + labels.json   {"labels": {"bolus": 1}}; they may not
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError, LabelError
from ..images import image_size, opened, read_image
from ..labels import read_mask
from ..source import image_files, is_generic
from .annotations import (
    Annotations,
    Export,
    Mask,
    Place,
    Size,
    encode_png,
    mask_png,
    read_json_labels,
    write_json_file,
)

LABELS_FILE = "labels.json"
_LOSSY = frozenset({".jpg", ".jpeg"})


@dataclass(frozen=True)
class Picture:
    """A black-and-white mask in a file of its own."""

    path: Path

    def draw(self, size: Size) -> Mask:
        return read_mask(self.path, size)


@dataclass(frozen=True)
class IndexPicture:
    """The pixels of some values in an index picture."""

    path: Path
    values: tuple[int, ...]

    def draw(self, size: Size) -> Mask:
        mask: Mask = np.isin(read_index(self.path), self.values)
        if mask.shape != size:
            raise LabelError("is of another size than its frame", file=self.path)
        return mask


def read_index(path: Path) -> NDArray[Any]:
    """Whole numbers (H, W) of an index picture; a palette's numbers, not its colours."""
    if path.suffix.lower() in _LOSSY:
        raise LabelError(
            "is a lossy picture: its index values are not to be trusted",
            file=path,
            remedy="Export index pictures as PNG.",
        )
    try:
        with opened(path) as image:
            if image.mode == "P":
                return np.asarray(image)
            if image.mode in ("RGB", "RGBA"):
                raise LabelError(
                    "is a colour picture, not an index picture",
                    file=path,
                    remedy="Export one number per structure, or one mask per task.",
                )
        return read_image(path)
    except InputError as error:
        raise LabelError("is no readable mask", file=path, remedy="Export it again.") from error


def read_masks(root: Path) -> Annotations:
    """Folders of masks, one per label; a folder above them may name the study."""
    found = Annotations(root, "masks")
    for folder in _folders(root, depth=2):
        above = "" if folder.parent == root else folder.parent.name
        for path in image_files(folder):
            label, name = found.know(folder.name), f"{above}/{path.stem}"
            with found.apart(name):
                found.add(Place(name, size=_size(path)), label, Picture(path))
    if not found.entries and not found.faults:
        raise LabelError(
            "holds no masks",
            file=root,
            remedy="Masks lie in <task>/000000.png or <study>/<task>/000000.png.",
        )
    return found


def read_index_folder(root: Path) -> Annotations:
    """Index pictures in a folder, or in a folder per study, with `labels.json` beside or above."""
    found = Annotations(root, "index")
    names, said = _index_labels(root)
    for label in names:
        found.know(label)
    for folder in (root, *_folders(root, depth=1)):
        for path in image_files(folder):
            name = path.stem if folder == root else f"{folder.name}/{path.stem}"
            with found.apart(name):
                add_index_picture(found, Place(name, size=_size(path)), path, names)
                for label in said.get(name, ()):
                    found.add(Place(name, size=_size(path)), label)
    if not found.entries and not found.faults:
        raise LabelError("holds no index pictures", file=root, remedy="Give the folder of PNGs.")
    return found


def add_index_picture(
    found: Annotations, place: Place, path: Path, names: Mapping[str, tuple[int, ...]]
) -> None:
    """The labels that occur in an index picture. Numbers without a name are labels themselves."""
    there = {int(value) for value in np.unique(read_index(path))} - {0}
    found.frame(place)
    for label, values in names.items():
        if there & set(values):
            found.add(place, label, IndexPicture(path, values))
    for value in sorted(there.difference(*names.values())):
        found.add(place, str(value), IndexPicture(path, (value,)))


def write_masks(export: Export) -> None:
    """<study>/<task>/000000.png, blank ones included: exact, and all three states."""
    for number, source in enumerate(export.sources):
        export.tick(number, len(export.sources), source.id)
        for frame, tasks in export.table(source).items():
            for task in tasks:
                target = export.target / source.id / task.id / f"{frame:06d}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(mask_png(export.mask(source, task.id, frame)))


def write_index(export: Export) -> None:
    """<study>/000000.png and labels.json, which also says what is labelled on which frame."""
    said: dict[str, list[str]] = {}
    for number, source in enumerate(export.sources):
        export.tick(number, len(export.sources), source.id)
        for frame, tasks in export.table(source).items():
            target = export.target / source.id / f"{frame:06d}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            masks = {task.id: export.mask(source, task.id, frame) for task in tasks}
            target.write_bytes(encode_png(flatten(export, masks, source.size)))
            said[f"{source.id}/{frame:06d}"] = [task.id for task in tasks]
    body = {"labels": index_values(export), "labelled": said}
    write_json_file(export.target / LABELS_FILE, body)


def index_values(export: Export) -> dict[str, int]:
    """Task → number, from 1 in the order of the tasks."""
    if len(export.tasks) > 255:
        raise LabelError("more than 255 tasks do not fit into index pictures")
    return {task.id: number for number, task in enumerate(export.tasks, 1)}


def flatten(export: Export, masks: Mapping[str, Mask], size: Size) -> NDArray[np.uint8]:
    """One index picture of masks that may overlap: the smaller one stays; losses are counted."""
    values = index_values(export)
    flat = np.zeros(size, np.uint8)
    for task in sorted(masks, key=lambda task: -int(masks[task].sum())):
        flat[masks[task]] = values[task]
    for task, mask in masks.items():
        gone = int(np.count_nonzero(mask & (flat != values[task])))
        if gone:
            export.lost[task] = export.lost.get(task, 0) + gone
    return flat


def _index_labels(root: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, list[str]]]:
    path = next((p for p in (root / LABELS_FILE, root.parent / LABELS_FILE) if p.is_file()), None)
    if path is None:
        return {}, {}
    data = read_json_labels(path)
    names = label_values(data.get("labels", data))
    said = data.get("labelled", {}) if "labels" in data else {}
    return names, {str(key): [str(label) for label in some] for key, some in said.items()}


def label_values(table: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """{"bolus": 1, "throat": [1, 2]} as tuples, without the background. Raises ValueError."""
    names = {}
    for name, value in table.items():
        values = tuple(int(v) for v in (value if isinstance(value, list) else [value]))
        if name != "background" and values != (0,):
            names[str(name)] = values
    return names


def _folders(root: Path, depth: int) -> list[Path]:
    """Folders below `root`, in order; hidden ones and links that lead out are passed over."""
    home = root.resolve()
    below = [
        path
        for path in sorted(root.iterdir())
        if path.is_dir()
        and not path.name.startswith(".")
        and not is_generic(path)  # the frames, not their masks
        and path.resolve().is_relative_to(home)
    ]
    return below + [
        inner for path in below for inner in (_folders(path, depth - 1) if depth > 1 else [])
    ]


def _size(path: Path) -> Size:
    try:
        return image_size(path)
    except InputError as error:
        raise LabelError("is no readable mask", file=path, remedy=error.remedy) from error
