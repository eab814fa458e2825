"""What the first ingest settles for a workspace: its task set and `vfss.yaml`."""

from __future__ import annotations

from pathlib import Path

import yaml

from ..config import LabConfig, create_lab, lab_tasks
from ..errors import ConfigError
from ..tasks import TASK_SETS, VFSS12, TaskSet
from ..workspace import Workspace, write_text

_TASK_FILE = "task_set.yaml"


def decide_tasks(workspace: Workspace, asked: str | Path | None) -> TaskSet:
    """The workspace's task set, or on the first ingest `asked` (a built-in name or a YAML file).

    Raises ConfigError when both are there and differ: studies of one workspace share their tasks.
    """
    if not workspace.config_file.exists():
        return VFSS12 if asked is None else TaskSet.load(asked)
    present = lab_tasks(workspace)
    if asked is not None and TaskSet.load(asked).tasks != present.tasks:
        raise ConfigError(
            f"this workspace uses task set {present.name!r} ({' '.join(present.ids)})",
            file=workspace.config_file.name,
            remedy="Leave --tasks out, or use another --workspace for other tasks.",
        )
    return present


def prepare_workspace(workspace: Workspace, tasks: TaskSet) -> None:
    """Write `vfss.yaml`, and `task_set.yaml` for a set of the lab's own, unless they are there."""
    if workspace.config_file.exists():
        return
    name = tasks.name
    if TASK_SETS.get(name) != tasks:
        name = _TASK_FILE
        text = yaml.safe_dump(_plain(tasks), sort_keys=False, allow_unicode=True)
        write_text(workspace.root / name, text)
    create_lab(workspace, LabConfig(task_set=name))


def _plain(tasks: TaskSet) -> dict[str, object]:
    """A task set as plain YAML values: safe YAML has no tuples."""
    listed = [
        {
            "id": task.id,
            "name": task.name,
            "colour": list(task.colour),
            "may_be_absent": task.may_be_absent,
            "may_overlap": list(task.may_overlap),
        }
        for task in tasks
    ]
    return {"name": tasks.name, "tasks": listed}
