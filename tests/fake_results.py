"""A workspace with studies and results made by hand: what ingest and segment would leave.

One lateral swallow in outlines, 160×160: spine, hyoid that rises, pharynx that closes, bolus that
passes. A "model" is that truth, eroded and displaced by a fixed amount per patient.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from vfss_distill.tasks import VFSS12, TaskSet

SIZE = 160
FRAMES = 30
STEP_S = 1 / 15
Masks = dict[str, NDArray[np.bool_]]

# Corners of one vertebra's body relative to its antero-inferior one, then its process, in units of
# its height: x posterior, y up.
_BODY = ((0, 0), (0.02, 0.9), (1.25, 0.95), (1.3, 0.55), (2.5, 0.1), (2.4, -0.25), (1.2, 0.1))


@dataclass(frozen=True)
class Swallow:
    """Geometry of one patient; `tilt` turns the spine (radians), `length` is L in pixels."""

    length: float = 44.0
    tilt: float = 0.1
    origin: tuple[float, float] = (92.0, 100.0)

    def point(self, x: float, y: float) -> tuple[float, float]:
        """Image point of (x anterior, y up) in %C2-4 from A4: the inverse of what we measure."""
        up = np.array([np.sin(self.tilt), -np.cos(self.tilt)])
        anterior = np.array([up[1], -up[0]])
        where = np.array(self.origin) + (x * anterior + y * up) * self.length / 100
        return float(where[0]), float(where[1])

    def hyoid(self, frame: int) -> tuple[float, float]:
        """Centre in %C2-4; highest and foremost at frame 15."""
        lift = float(np.exp(-(((frame - 15) / 4) ** 2)))
        return 75 + 25 * lift, -10 + 30 * lift

    def pharynx_width(self, frame: int) -> float:
        return 26 - 20 * float(np.exp(-(((frame - 18) / 3) ** 2)))

    def masks(self, frame: int) -> Masks:
        found = {
            f"c{n}": self._shape([(-x * 38, (4 - n) * 50 + y * 38) for x, y in _BODY])
            for n in range(1, 8)
        }
        wide = self.pharynx_width(frame)
        found["pharynx"] = self._ellipse((22, 20), (wide, 95))
        found["airway"] = self._ellipse((45, -90), (20, 50))
        found["hyoid"] = self._ellipse(self.hyoid(frame), (22, 9))
        found["mandible"] = self._ellipse((120, 70), (70, 22))
        nothing = np.zeros((SIZE, SIZE), bool)
        travels = 8 <= frame <= 20
        place = (26, 80 - (frame - 8) * 14)
        found["bolus"] = self._ellipse(place, (18, 30)) if travels else nothing
        return {task: found[task] for task in VFSS12.ids}

    def _shape(self, points: Sequence[tuple[float, float]]) -> NDArray[np.bool_]:
        corners = np.array([self.point(*point) for point in points])
        picture = np.zeros((SIZE, SIZE), np.uint8)
        cv2.fillPoly(picture, [np.round(corners * 16).astype(np.int32)], 1, shift=4)
        return picture > 0

    def _ellipse(self, middle: tuple[float, float], half: tuple[float, float]) -> NDArray[np.bool_]:
        angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        return self._shape(
            [
                (middle[0] + half[0] * float(np.cos(a)), middle[1] + half[1] * float(np.sin(a)))
                for a in angles
            ]
        )


@dataclass
class FakeWorkspace:
    """Writes studies, splits and results into `root`."""

    root: Path
    tasks: TaskSet = VFSS12
    splits: dict[str, list[str]] = field(
        default_factory=lambda: {"train": [], "val": [], "test": []}
    )

    def study(
        self,
        study: str,
        patient: str,
        *,
        split: str | None = None,
        labels: Sequence[int] = (),
        simulated: bool = False,
        swallow: Swallow | None = None,
        **facts: object,
    ) -> Path:
        """A study with labels of all tasks on the frames `labels`."""
        swallow = swallow or Swallow()
        folder = self.root / "studies" / study
        noise = np.random.default_rng(len(study))
        for frame in range(FRAMES):
            masks = swallow.masks(frame)
            _write(folder / "frames" / f"{frame:06d}.png", film(masks, noise))
            for task in self.tasks.ids if frame in labels else ():
                mask = masks[task]
                _write(folder / "masks" / task / f"{frame:06d}.png", mask * np.uint8(255))
        record = {
            "schema_version": 1,
            "study": study,
            "patient": patient,
            "source_sha256": digest(study),
            "frames": FRAMES,
            "frame_times_s": [frame * STEP_S for frame in range(FRAMES)],
            "width": SIZE,
            "height": SIZE,
            "simulated": simulated,
            "labelled": {task: list(labels) for task in self.tasks.ids} if labels else {},
            "task_set": self.tasks.to_dict(),
            **facts,
        }
        (folder / "study.json").write_text(json.dumps(record), encoding="utf-8")
        if split is not None and patient not in self.splits[split]:
            self.splits[split].append(patient)
            text = yaml.safe_dump({"schema_version": 1, **self.splits})
            (self.root / "splits.yaml").write_text(text, encoding="utf-8")
        return folder

    def result(
        self,
        study: str,
        *,
        model: str = "run-001",
        seen: bool | None = False,
        patient: str | None = None,
        shift: int = 1,
        swallow: Swallow | None = None,
        masks: Mapping[int, Masks] | None = None,
        model_facts: Mapping[str, object] | None = None,
        n: int = FRAMES,
        **facts: object,
    ) -> Path:
        """A result whose masks are the truth moved by `shift` pixels, or `masks` by frame."""
        swallow = swallow or Swallow()
        sha256 = digest(model)
        folder = self.root / "results" / study / f"{model}-{sha256[:8]}"
        for frame in range(n):
            found = (masks or {}).get(frame) or swallow.masks(frame)
            for task in found.keys() & {*self.tasks.ids, "tongue"}:
                mask = found[task]
                path = folder / "masks" / task / f"{frame:06d}.png"
                _write(path, moved(mask, shift) * np.uint8(255))
        run = {
            "schema_version": 1,
            "study": study,
            "patient": patient,
            "frames": FRAMES,
            "seconds": 1.0,
            "fps": 30.0,
            "frame_times_s": [frame * STEP_S for frame in range(FRAMES)],
            "width": SIZE,
            "height": SIZE,
            "provider": "CPUExecutionProvider",
            "model": {"name": model, "sha256": sha256, "tasks": self.tasks.to_dict()}
            if model_facts is None
            else model_facts,
            "source_sha256": digest(study),
            "seen_in_training": seen,
            "warnings": [],
            **facts,
        }
        (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
        return folder


def film(masks: Masks, noise: np.random.Generator) -> NDArray[np.uint8]:
    """A picture in which the outlines can be seen: bone bright, bolus dark."""
    picture = np.full((SIZE, SIZE), 95.0)
    for task, mask in masks.items():
        step = {"bolus": -70, "pharynx": 40, "airway": 45}.get(task, 60)
        picture += step * cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.5)
    picture += noise.normal(0, 6, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


def moved(mask: NDArray[np.bool_], shift: int) -> NDArray[np.bool_]:
    """`mask` moved down and right; nothing comes back in on the other side."""
    return np.pad(mask, ((shift, 0), (shift, 0)))[: mask.shape[0], : mask.shape[1]]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _write(path: Path, picture: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _, data = cv2.imencode(".png", picture)
    path.write_bytes(data.tobytes())
