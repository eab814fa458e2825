"""The models of a comparison: who is meant by a name, and which tasks they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import UsageError, WorkspaceError
from ..provenance import sha256_file
from ..tasks import TaskSet
from ..workspace import Workspace
from .cases import Case, Group, without_result
from .results import is_model


@dataclass(frozen=True)
class Entrant:
    """One model with its results by study id; `name` is unlike any other's in the workspace."""

    name: str
    model: str
    sha256: str
    tasks: TaskSet
    cases: Mapping[str, Case]
    untrained: tuple[str, ...] = ()

    def knows(self, task: str) -> bool:
        """Is it a task of the model that it was trained on?"""
        return task in self.tasks and task not in self.untrained

    def on(self, tasks: TaskSet) -> Entrant:
        """The same, as if the model knew only `tasks`."""
        cases = {
            key: replace(case, result=replace(case.result, tasks=tasks))
            for key, case in self.cases.items()
        }
        return replace(self, tasks=tasks, cases=cases)


def choose_models(
    workspace: Workspace, groups: Sequence[Group], words: Sequence[str]
) -> tuple[list[Entrant], list[str]]:
    """The models that `words` name, and what to mind about them.

    A word is a run, a model's name as in results, its result folder, or the start of its sha256.
    Raises UsageError (unknown, ambiguous, named twice, fewer than two), WorkspaceError for a run
    without results.
    """
    if len(words) < 2:
        raise UsageError("one model cannot be compared", remedy=_remedy(groups))
    found: list[Entrant] = []
    chosen: list[Group] = []
    notes = []
    for word in words:
        group, note = _find(workspace, groups, word)
        if any(one.sha256 == group.sha256 for one in found):
            raise UsageError(f"{word!r} is named already", remedy=_remedy(groups))
        cases = {case.id: case for case in group.cases}
        model = group.cases[0].result.model
        entrant = Entrant(group.name, model, group.sha256, group.tasks, cases, group.untrained)
        found.append(entrant)
        chosen.append(group)
        notes += [note] if note else []
    return found, [*notes, *without_result(chosen)]


def shared_tasks(entrants: Sequence[Entrant]) -> tuple[TaskSet, list[str]]:
    """The tasks of the baseline that every model was trained on, and what was left out for whom.

    Raises WorkspaceError when there is none.
    """
    first = entrants[0].tasks
    shared = tuple(task for task in first if all(one.knows(task.id) for one in entrants))
    if not shared:
        raise WorkspaceError(
            f"{' and '.join(one.name for one in entrants)} have no task in common",
            remedy="Compare models of the same task set.",
        )
    tasks = replace(first, tasks=shared)
    extra = {
        one.name: [t for t in one.tasks.ids if one.knows(t) and t not in tasks] for one in entrants
    }
    notes = [
        f"{one.name} was not trained on {', '.join(one.untrained)}: left out."
        for one in entrants
        if one.untrained
    ]
    notes += [
        f"{name} alone, or not all others, segments {', '.join(some)}: left out."
        for name, some in extra.items()
        if some
    ]
    if notes:
        notes.append(f"Compared on the {len(shared)} tasks that all models have.")
    return tasks, notes


def _find(workspace: Workspace, groups: Sequence[Group], word: str) -> tuple[Group, str | None]:
    name = Path(word).name  # `runs/run-001/`, as a shell completes it
    exported = workspace.runs / name / "student.onnx"
    named = [
        group
        for group in groups
        if group.name == name or any(is_model(case.result, name) for case in group.cases)
    ]
    if exported.is_file():
        digest = sha256_file(exported)
        own = [group for group in groups if group.sha256 == digest]
        if own:
            return own[0], None
        if not named:
            raise WorkspaceError(
                "no result of this run's student",
                file=name,
                remedy=f"Run `vfss segment studies/… --model {name}` first.",
            )
        if len(named) == 1:
            return named[0], f"The results of {name} are of an earlier export of that run."
    exact = [group for group in named if group.name == name]
    if len(exact or named) == 1:
        return (exact or named)[0], None
    what = "several models are called" if named else "no result of model"
    raise UsageError(f"{what} {name!r}", remedy=_remedy(groups))


def _remedy(groups: Sequence[Group]) -> str:
    names = ", ".join(group.name for group in groups)
    return f"There are results of: {names}." if names else "Run `vfss segment` first."
