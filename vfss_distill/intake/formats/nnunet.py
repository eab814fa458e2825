"""nnU-Net v2 datasets: dataset.json, imagesTr/<case>_0000.png, labelsTr/<case>.png.

One index picture per case, so overlapping structures do not survive; labels must run from 0
without gaps. A case is labelled whole: frames on which a task is unlabelled are left out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...errors import LabelError
from ..images import image_size
from ..source import IMAGE_SUFFIXES, image_files
from .annotations import Annotations, Export, Place, encode_png, read_json_labels, write_json_file
from .folders import add_index_picture, flatten, index_values, label_values, read_index

_SAID = "vfss_labelled"


def is_nnunet(folder: Path) -> bool:
    return (folder / "dataset.json").is_file() and (folder / "labelsTr").is_dir()


def read_nnunet(root: Path) -> Annotations:
    """Every case of labelsTr (and labelsTs). Cases with `ignore` pixels are left out."""
    data = read_json_labels(root / "dataset.json")
    found = Annotations(root, "nnunet")
    if str(data.get("file_ending", ".png")).lower() not in IMAGE_SUFFIXES:
        raise LabelError(
            f"holds {data['file_ending']} files; frames of films are pictures",
            file=root,
            remedy="Convert the dataset to PNG.",
        )
    table = dict(data["labels"])
    ignored = label_values({"ignore": table.pop("ignore", 0)}).get("ignore", ())
    names = label_values(table)
    for label in names:
        found.know(label)
    said = {str(case): labels for case, labels in (data.get(_SAID) or {}).items()}
    skipped = 0
    for folder in (root / "labelsTr", root / "labelsTs"):
        for path in image_files(folder) if folder.is_dir() else ():
            with found.apart(path.stem):
                if ignored and np.isin(read_index(path), ignored).any():
                    skipped += 1
                    continue
                place = Place(path.stem, size=image_size(path))
                add_index_picture(found, place, path, names)
                for label in said.get(path.stem, ()):
                    found.add(place, str(label))
    if skipped:
        found.notes.append(f"{skipped} cases hold `ignore` pixels and were left out")
    return found


def write_nnunet(export: Export) -> None:
    """A dataset folder with the frames as images; name it Dataset<NNN>_<Name> for nnU-Net."""
    said = {}
    partly = 0
    for name in ("imagesTr", "labelsTr"):
        (export.target / name).mkdir()
    for number, source in enumerate(export.sources):
        export.tick(number, len(export.sources), source.id)
        for frame, tasks in export.table(source).items():
            if len(tasks) != len(export.tasks):
                partly += 1
                continue
            case = f"{source.id}_{frame:06d}"
            masks = {task.id: export.mask(source, task.id, frame) for task in tasks}
            flat = encode_png(flatten(export, masks, source.size))
            (export.target / "labelsTr" / f"{case}.png").write_bytes(flat)
            picture = encode_png(export.picture(source, frame))
            (export.target / "imagesTr" / f"{case}_0000.png").write_bytes(picture)
            said[case] = list(masks)
    if not said:
        raise LabelError(
            "no frame has labels of all tasks, and nnU-Net cases are labelled whole",
            remedy="Choose fewer tasks with --tasks.",
        )
    if partly:
        export.notes.append(
            f"{partly} frames lack labels of some tasks and were left out: nnU-Net cases are "
            "labelled whole. Choose fewer with --tasks."
        )
    body = {
        "channel_names": {"0": "fluoroscopy"},
        "labels": {"background": 0, **index_values(export)},
        "numTraining": len(said),
        "file_ending": ".png",
        _SAID: said,
    }
    write_json_file(export.target / "dataset.json", body)
