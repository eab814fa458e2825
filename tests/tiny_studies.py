"""Small studies in the study store, written directly: shapes that can be learned in seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import yaml

from vfss_distill.intake.record import StudyRecord
from vfss_distill.intake.study import Study, write_mask, write_png, write_record
from vfss_distill.tasks import VFSS12
from vfss_distill.workspace import Workspace

TASKS = ("bolus", "hyoid", "c3")


def write_study(
    workspace: Workspace,
    patient: str,
    *,
    frames: int = 6,
    size: tuple[int, int] = (48, 64),
    labelled: Mapping[str, Sequence[int]] | None = None,
    simulated: bool = True,
) -> Study:
    """A bright disc (bolus), a bright square (hyoid) and a dark bar (c3) that move a little."""
    seed = sum(map(ord, patient))
    rng = np.random.default_rng(seed)
    labelled = {task: range(frames) for task in TASKS} if labelled is None else labelled
    folder = workspace.studies / f"{patient}-{seed:06x}"
    (folder / "frames").mkdir(parents=True)
    height, width = size
    slope = _slope(seed, height, width)
    for index in range(frames):
        shapes = _shapes(rng, height, width)
        grey = 90 + slope
        for task, level in zip(TASKS, (220, 170, 20), strict=True):
            grey[shapes[task]] = level
        grey += rng.normal(0, 6, grey.shape)
        name = f"{index:06d}.png"
        write_png(folder / "frames" / name, grey.clip(0, 255).astype(np.uint8))
        for task, some in labelled.items():
            if index in some:
                write_mask(folder, task, index, shapes[task])
    record = StudyRecord(
        study=folder.name,
        patient=patient,
        source_sha256=f"{seed:064x}",
        frames=frames,
        frame_times_s=tuple(index / 30 for index in range(frames)),
        width=width,
        height=height,
        labelled={task: tuple(some) for task, some in labelled.items()},
        simulated=simulated,
        task_set=VFSS12.to_dict(),
    )
    write_record(folder, record)
    return Study.open(folder)


def write_splits(workspace: Workspace, **parts: Sequence[str]) -> None:
    body = {"schema_version": 1, **{part: list(parts.get(part, ())) for part in _PARTS}}
    workspace.splits_file.write_text(yaml.safe_dump(body))


def small_world(root: Path) -> Workspace:
    """Three training patients, one for validation, one for the test; a task set of three."""
    workspace = Workspace(root)
    for patient in ("pa", "pb", "pc", "pd", "pe"):
        write_study(workspace, patient)
    write_splits(workspace, train=["pa", "pb", "pc"], val=["pd"], test=["pe"])
    (root / "three.yaml").write_text(yaml.safe_dump({"name": "three", "tasks": list(TASKS)}))
    (root / "vfss.yaml").write_text("task_set: three.yaml\n")
    return workspace


_PARTS = ("train", "val", "test")


def _slope(seed: int, height: int, width: int) -> np.ndarray:
    """Light that falls off to one side, another for each patient: frames of two are never alike."""
    angle = 2.4 * seed  # the golden angle keeps neighbours far apart
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    slope: np.ndarray = 16 * (np.cos(angle) * x + np.sin(angle) * y)
    return slope.astype(np.float32)


def _shapes(rng: np.random.Generator, height: int, width: int) -> dict[str, np.ndarray]:
    blank = np.zeros((height, width), np.uint8)
    y, x = height // 4, width // 4
    dy, dx = (int(n) for n in rng.integers(-3, 4, 2))
    disc = cv2.circle(blank.copy(), (x + dx, y + dy), height // 7, 1, -1)
    box = cv2.rectangle(
        blank.copy(), (2 * x + dx, 2 * y), (2 * x + dx + height // 5, 2 * y + height // 5), 1, -1
    )
    bar = cv2.rectangle(blank.copy(), (3 * x + dy, 4), (3 * x + dy + width // 9, height - 5), 1, -1)
    return {"bolus": disc > 0, "hyoid": box > 0, "c3": bar > 0}
