"""What an ONNX file says of itself: tasks, thresholds, where it comes from, what it has seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import ModelError, VfssError
from ..letterbox import RULE
from ..magnification import Usual, is_usual
from ..provenance import SCHEMA_VERSION
from ..tasks import TaskSet


class Description:
    """The model's own description. Every accessor raises ModelError that names file and key."""

    def __init__(self, values: dict[str, str], path: Path) -> None:
        self._values = values
        self._path = path
        version = values.get("vfss.schema_version")
        if version is None:
            raise ModelError(
                "an ONNX file, but not a model of vfss (no vfss.* description in it)",
                file=path.name,
                remedy="Name a file made by `vfss export`.",
            )
        if version != str(SCHEMA_VERSION):
            raise ModelError(
                f"made for schema version {version[:20]}, this program knows {SCHEMA_VERSION}",
                file=path.name,
                remedy="Update vfss, or export the model again.",
            )

    def text(self, key: str) -> str:
        if not self._values.get(key):
            raise self._fault(key)
        return self._values[key]

    def number(self, key: str, low: int, high: int) -> int:
        text = self.text(key)
        if not text.isascii() or not text.isdigit() or len(text) > 9:
            raise self._fault(key)
        if not low <= int(text) <= high:
            raise self._fault(key)
        return int(text)

    def json(self, key: str) -> Any:
        try:
            return json.loads(self.text(key))
        except (ValueError, RecursionError) as error:
            raise self._fault(key) from error

    def tasks(self) -> TaskSet:
        value = self.json("vfss.tasks")
        try:
            return TaskSet.from_dict(value)
        except VfssError as error:
            raise self._fault("vfss.tasks") from error

    def thresholds(self, tasks: TaskSet) -> dict[str, float]:
        value = self.json("vfss.thresholds")
        good = isinstance(value, dict) and all(
            isinstance(value.get(task), int | float) and 0 < value[task] < 1 for task in tasks.ids
        )
        if not good:
            raise self._fault("vfss.thresholds")
        return {task: float(value[task]) for task in tasks.ids}

    def usual_spine(self) -> Usual | None:
        """None also in files of a version that did not note it."""
        said = self.json("vfss.spine_px") if "vfss.spine_px" in self._values else None
        if said is None:
            return None
        if not is_usual(said):
            raise self._fault("vfss.spine_px")
        return float(said[0]), float(said[1])

    def trained_sources(self) -> frozenset[str]:
        value = self.json("vfss.trained_patients")
        if not isinstance(value, list):
            raise self._fault("vfss.trained_patients")
        return frozenset(str(entry)[:16] for entry in value)

    def names_all_sources(self) -> bool:
        """False when it began with weights of which nobody noted what they had learned from."""
        value = self.json("vfss.provenance")
        return not (isinstance(value, dict) and value.get("trained_sources_complete") is False)

    def simulated(self) -> bool:
        """True when the model was trained on simulated patients only."""
        value = self.json("vfss.provenance")
        return isinstance(value, dict) and value.get("simulated") == "all"

    def untrained(self, tasks: TaskSet) -> tuple[str, ...]:
        """Tasks without a label in training; none in files of a version that did not note them."""
        value = self.json("vfss.provenance")
        told = value.get("untrained_tasks", []) if isinstance(value, dict) else []
        if not isinstance(told, list):
            raise self._fault("vfss.provenance")
        return tuple(task for task in tasks.ids if task in told)

    def check_rule(self) -> None:
        if self.text("vfss.letterbox") != RULE:
            raise ModelError(
                "made for frames letterboxed by another rule",
                file=self._path.name,
                remedy="Export it again with this version of vfss.",
            )

    def _fault(self, key: str) -> ModelError:
        return ModelError(
            f"its description lacks a proper {key}",
            file=self._path.name,
            remedy="Make it anew with `vfss export`.",
        )
