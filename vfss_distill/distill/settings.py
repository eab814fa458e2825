"""What a run is asked to be, and where it lies: settings, run folders, what may be resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..claims import being_trained, is_trained
from ..config import DistillConfig, load_lab, named_teachers, parse, read_yaml
from ..errors import ConfigError, UsageError, WorkspaceError
from ..models import IMAGENET, PACKAGED_STUDENT
from ..tasks import TaskSet
from ..workspace import Workspace

# May differ between a run and its resumption: they do not shape it.
MACHINE = {"device", "threads", "tensorboard"}


def resolve_config(
    workspace: Workspace,
    file: Path | None,
    flags: dict[str, Any],
    resumed: DistillConfig | None = None,
) -> DistillConfig:
    """Defaults < `distill:` of vfss.yaml < `file` < `flags`; or those of the run to be resumed.

    Raises ConfigError (a file is wrong), UsageError (a flag is, or nobody named teachers).
    """
    try:
        parse(DistillConfig, flags)
    except ConfigError as error:
        raise UsageError(error.what, remedy="See `vfss distill --help`.") from error
    lab = load_lab(workspace)
    settings: dict[str, Any] = {"task_set": lab.task_set, **lab.distill}
    if resumed is not None:
        settings = resumed.model_dump()
    if file is not None:
        given = read_yaml(file)
        if not isinstance(given, dict):
            raise ConfigError("holds no settings (expected `key: value` lines)", file=file.name)
        settings |= given
    settings |= flags
    if settings.get("teachers") is None:
        raise UsageError(
            "no teachers were named",
            remedy="For example --teachers medsam,raddino,medclip (`vfss teachers` lists them), "
            "or --teachers none to learn from labels alone.",
        )
    settings["teachers"] = named_teachers(settings["teachers"])
    if isinstance(settings["teachers"], list | tuple):  # else `parse` says what is wrong
        settings["teachers"] = [_portable(workspace, str(t)) for t in settings["teachers"]]
    if isinstance(settings.get("read_only"), list | tuple):
        settings["read_only"] = [_portable(workspace, str(t)) for t in settings["read_only"]]
    # A resumed run has weights of its own: those it began with may be gone.
    begun = None if resumed is None else resumed.init
    if settings.get("init") not in (None, "", PACKAGED_STUDENT, IMAGENET, begun):
        settings["init"] = _inside(workspace, str(settings["init"]), "weights to start from")
    config = parse(DistillConfig, settings, file=file.name if file else None)
    if config.teachers:
        return config
    # Without teachers there is nothing to align with.
    return parse(DistillConfig, settings | {"align_steps": 0})


def read_run_config(folder: Path) -> DistillConfig:
    return parse(DistillConfig, read_yaml(folder / "config.yaml"), file="config.yaml")


def find_unfinished(workspace: Workspace, name: str | None, *, trained_too: bool = False) -> Path:
    """The run to resume: by name, else the newest without a student, and none that another process
    trains now, but with `trained_too`. Raises WorkspaceError."""
    runs = [workspace.runs / name] if name else _runs(workspace)
    unfinished = [
        folder
        for folder in reversed(runs)
        if (folder / "config.yaml").is_file()
        and (name or not (folder / "student.safetensors").exists())
    ]
    for folder in unfinished:
        if trained_too or not is_trained(workspace, folder.name):
            return folder
    if unfinished:
        raise being_trained(unfinished[0].name)
    if (
        runs
        and (runs[-1] / "student.safetensors").is_file()
        and not (runs[-1] / "student.onnx").exists()
    ):
        raise WorkspaceError(
            f"{runs[-1].name} is trained, only its student.onnx is missing",
            file="runs",
            remedy=f"Run `vfss export {runs[-1].name}`.",
        )
    raise WorkspaceError(
        f"no run {name!r}" if name else "no interrupted run",
        file="runs",
        remedy="Start one with `vfss distill --teachers …`.",
    )


def check_unchanged(config: DistillConfig, before: DistillConfig) -> None:
    old, new = before.model_dump(mode="json"), config.model_dump(mode="json")
    changed = [
        f"{key}: {old[key]} → {new[key]}"
        for key in old
        if old[key] != new[key] and key not in MACHINE
    ]
    if changed:
        raise UsageError(
            f"a run is resumed with its own settings; these differ: {'; '.join(changed)}",
            remedy="Leave these flags out, or start a new run without --resume.",
        )


def _portable(workspace: Workspace, teacher: str) -> str:
    """Names stay; a card file is named relative to the workspace, for config.yaml is shared."""
    if not teacher.endswith((".yaml", ".yml")):
        return teacher
    return _inside(workspace, teacher, "a teacher's card")


def _inside(workspace: Workspace, file: str, what: str) -> str:
    """A file named relative to the workspace. Raises UsageError for one that lies elsewhere."""
    below = not Path(file).is_absolute() and ".." not in Path(file).parts
    if below and (workspace.root / file).is_file():
        return Path(file).as_posix()
    try:
        return workspace.relative(Path(file))
    except WorkspaceError as error:
        raise UsageError(
            f"{what} must lie in the workspace",
            file=file,
            remedy="Copy it to weights/ of the workspace and name it there.",
        ) from error


def task_set(workspace: Workspace, config: DistillConfig) -> TaskSet:
    inside = workspace.root / config.task_set
    return TaskSet.load(inside if inside.is_file() else config.task_set)


def _runs(workspace: Workspace) -> list[Path]:
    """Run folders, oldest first."""
    if not workspace.runs.is_dir():
        return []
    folders = [path for path in workspace.runs.iterdir() if (path / "config.yaml").is_file()]
    return sorted(folders, key=lambda path: ((path / "config.yaml").stat().st_mtime_ns, path.name))


def new_folder(workspace: Workspace, name: str | None) -> Path:
    if name is None:
        numbers = [
            int(path.name[4:])
            for path in (workspace.runs.glob("run-*") if workspace.runs.is_dir() else ())
            if path.name[4:].isdigit()
        ]
        return workspace.runs / f"run-{max(numbers, default=0) + 1:03d}"
    if not name or Path(name).name != name or name.startswith("."):
        raise UsageError(f"{name!r} cannot be a run's name", remedy="Use a plain folder name.")
    if (workspace.runs / name).exists():
        raise UsageError(
            "this run exists already", file=f"runs/{name}", remedy="Choose another --name."
        )
    return workspace.runs / name
