"""Two labelled studies, and label files as the tools of others write them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from shutil import rmtree

import numpy as np

from conftest import Outcome
from tiny_studies import write_splits, write_study
from vfss_distill.intake.study import Study, list_studies, write_mask, write_record
from vfss_distill.workspace import Workspace

HEIGHT, WIDTH = 48, 64
Masks = dict[tuple[str, str, int], np.ndarray]


def make_world(tmp_path: Path) -> Workspace:
    """Two studies; bolus and hyoid overlap, one mask is blank, and frame 5 has no c3."""
    workspace = Workspace(tmp_path / "world")
    for patient in ("pa", "pb"):
        labelled = {"bolus": range(6), "hyoid": range(0, 6, 2), "c3": range(5)}
        study = write_study(workspace, patient, size=(HEIGHT, WIDTH), labelled=labelled)
        hyoid = study.read_mask("hyoid", 0)
        assert hyoid is not None
        write_mask(study.folder, "bolus", 0, hyoid | np.roll(hyoid, 3, 1))  # overlap
        write_mask(study.folder, "bolus", 1, np.zeros((HEIGHT, WIDTH), bool))  # absent
    write_splits(workspace, train=["pa"], test=["pb"])
    (workspace.root / "vfss.yaml").write_text("task_set: vfss12\n")
    return workspace


def all_masks(workspace: Workspace) -> Masks:
    found = {}
    for study in list_studies(workspace):
        for task, frames in study.record.labelled.items():
            for frame in frames:
                mask = study.read_mask(task, frame)
                assert mask is not None
                found[study.id, task, frame] = mask
    return found


def forget_labels(workspace: Workspace) -> None:
    for study in list_studies(workspace):
        rmtree(study.folder / "masks", ignore_errors=True)
        write_record(study.folder, replace(study.record, labelled={}), source_kind="film")


def dice(one: np.ndarray, other: np.ndarray) -> float:
    both = one.sum() + other.sum()
    return 1.0 if not both else 2 * float((one & other).sum()) / float(both)


def first_study(workspace: Workspace) -> Study:
    return list_studies(workspace)[0]


def ok(outcome: Outcome) -> Outcome:
    assert outcome.exit_code == 0, outcome.stderr
    return outcome


def coco(study: str, **changes: object) -> dict[str, object]:
    square = [10.0, 10.0, 20.0, 10.0, 20.0, 22.0, 10.0, 22.0]
    body: dict[str, object] = {
        "images": [
            {"id": 7, "file_name": f"{study}/000002.png", "height": HEIGHT, "width": WIDTH},
            {"id": 9, "file_name": f"{study}/000004.png", "height": HEIGHT, "width": WIDTH},
        ],
        "categories": [{"id": 3, "name": "Hyoid Bone"}, {"id": 1, "name": "bolus"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "segmentation": [square]},
            {
                "id": 2,
                "image_id": 9,
                "category_id": 1,
                "segmentation": {
                    "size": [HEIGHT, WIDTH],
                    "counts": [2 * HEIGHT, 5, HEIGHT * WIDTH - 2 * HEIGHT - 5],
                },
            },
        ],
    }
    return {**body, **changes}


def put(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def cvat_video(*shapes: str, head: str = "") -> str:
    return (
        f'<?xml version="1.0" encoding="utf-8"?>{head}<annotations><version>1.1</version>'
        "<meta><task><labels><label><name>c3</name></label></labels><original_size>"
        f"<width>{WIDTH}</width><height>{HEIGHT}</height></original_size></task></meta>"
        f'<track id="0" label="c3" source="manual">{"".join(shapes)}</track></annotations>'
    )
