"""Tasks: the anatomies we segment, as one table without torch.

The table feeds the command line, ONNX metadata, colours, reports and documents. Masks are
independent binary maps, because X-ray shadows overlap: never one label image, never a softmax.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .counting import listed
from .errors import ConfigError, LabelError
from .yaml_file import load_yaml

TOUCH = 0.1  # masks that share less of the smaller one only touch

_TASK_ID = re.compile(r"[a-z][a-z0-9_]{0,31}")


@dataclass(frozen=True)
class Task:
    """One anatomy to segment.

    `id` names folders and columns (lower case, digits, underscores). `colour` is RGB, 0-255.
    `may_be_absent`: a normal frame may show none of it. `may_overlap`: ids of tasks whose shadows
    it may cross; anything else that overlaps is worth a warning.
    """

    id: str
    name: str
    colour: tuple[int, int, int]
    may_be_absent: bool = False
    may_overlap: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _TASK_ID.fullmatch(self.id) or self.id == "mean":  # tables have a line of that name
            raise ConfigError(
                f"{self.id!r} cannot be a task id: use lower-case letters, digits and underscores, "
                "a letter first, at most 32; not `mean`"
            )


@dataclass(frozen=True)
class TaskSet:
    """An ordered list of tasks: the order of a model's output channels."""

    name: str
    tasks: tuple[Task, ...]

    def __post_init__(self) -> None:
        ids = [task.id for task in self.tasks]
        if not ids or len(set(ids)) != len(ids):
            raise ConfigError(f"task set {self.name!r} must list at least one task, each once")

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(task.id for task in self.tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, task_id: str) -> Task:
        for task in self.tasks:
            if task.id == task_id:
                return task
        raise LabelError(
            f"unknown task {task_id!r}",
            remedy=f"Task set {self.name!r} has: {' '.join(self.ids)}.",
        )

    def find(self, word: str) -> Task | None:
        """The task that a person means: its id, or its id or name in any case (`C3`, `Hyoid Bone`).
        None where no task, or more than one, is called so."""
        if word in self:
            return self[word]
        called = [task for task in self if _plain(word) in (_plain(task.id), _plain(task.name))]
        return called[0] if len(called) == 1 else None

    def may_overlap(self, one: str, other: str) -> bool:
        """Whether their shadows may cross: it is enough if either task says so."""
        return other in self[one].may_overlap or one in self[other].may_overlap

    def __contains__(self, task_id: object) -> bool:
        return task_id in self.ids

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back."""
        return {"name": self.name, "tasks": [asdict(task) for task in self.tasks]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, file: str | Path | None = None) -> TaskSet:
        """Raises ConfigError, naming every fault, when `data` is not a task set."""
        faults = []
        tasks = []
        entries = data.get("tasks") if isinstance(data, Mapping) else None
        if not isinstance(entries, list) or not entries:
            raise ConfigError("no `tasks:` list", file=file, remedy="See docs/tasks.md.")
        for number, entry in enumerate(entries):
            try:
                tasks.append(_task_from(entry, number))
            except ConfigError as error:
                faults.append(error.what)
        name = data.get("name", "custom")
        if not _is_text(name):
            faults.append("its name must be a text")
        if faults:
            raise ConfigError(listed(faults), file=file, remedy="See docs/tasks.md.")
        return cls(name, tuple(tasks))

    @classmethod
    def load(cls, name_or_file: str | Path) -> TaskSet:
        """A built-in set by name (`vfss12`), or a YAML file. Raises ConfigError."""
        if str(name_or_file) in TASK_SETS:
            return TASK_SETS[str(name_or_file)]
        path = Path(name_or_file)
        try:
            data = load_yaml(path, shown=name_or_file)
        except OSError as error:
            raise ConfigError(
                "no such task set",
                file=name_or_file,
                remedy=f"Name a built-in set ({', '.join(TASK_SETS)}) or a YAML file.",
            ) from error
        found = cls.from_dict(data, file=path)
        # Here, where a person wrote it: a word that is misspelt would mean "may not overlap".
        strange = [
            f"task {task.id}: may_overlap names {other!r}, which is no task of the set"
            for task in found.tasks
            for other in task.may_overlap
            if other not in found
        ]
        if strange:
            raise ConfigError(listed(strange), file=path, remedy="See docs/tasks.md.")
        return found


def _plain(word: str) -> str:
    return re.sub(r"[\s\-]+", "_", unicodedata.normalize("NFC", word).strip().casefold())


def _task_from(entry: object, number: int) -> Task:
    known = {"id", "name", "colour", "may_be_absent", "may_overlap"}
    if isinstance(entry, str):
        entry = {"id": entry}
    if not isinstance(entry, Mapping) or "id" not in entry:
        raise ConfigError(f"task {number + 1} has no id")
    if unknown := set(entry) - known:
        raise ConfigError(f"task {entry['id']}: unknown keys {sorted(map(str, unknown))}")
    task_id, name = str(entry["id"]), entry.get("name", str(entry["id"]))
    colour = entry.get("colour", _PALETTE[number % len(_PALETTE)])
    absent, overlap = entry.get("may_be_absent", False), entry.get("may_overlap", ())
    for wrong, rule in (
        (not _is_text(name), "name must be a text"),
        (not _is_rgb(colour), "colour must be three numbers, 0 to 255"),
        (not isinstance(absent, bool), "may_be_absent must be true or false"),
        (not _are_ids(overlap), "may_overlap must be a list of task ids"),
    ):
        if wrong:
            raise ConfigError(f"task {task_id}: {rule}")
    return Task(
        id=task_id,
        name=name,
        colour=(int(colour[0]), int(colour[1]), int(colour[2])),
        may_be_absent=absent,
        may_overlap=tuple(overlap),
    )


def _is_text(value: object) -> bool:
    """A text that can be written: none has a NUL or half a character in it."""
    return isinstance(value, str) and all(c.isprintable() or c.isspace() for c in value)


def _are_ids(value: object) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_text, value))


def _is_rgb(value: object) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and len(value) == 3
        and all(isinstance(part, int) and 0 <= part <= 255 for part in value)
    )


# Twelve colours apart for the three common kinds of colour blindness: soft tissue in saturated
# Okabe-Ito hues, the spine as one ramp from lime to violet, so that neighbours differ in
# lightness as well as in hue.
_PALETTE = (
    (213, 94, 0),
    (86, 180, 233),
    (0, 114, 178),
    (255, 237, 70),
    (204, 121, 167),
    (160, 218, 57),
    (94, 201, 98),
    (53, 183, 121),
    (32, 155, 138),
    (44, 121, 142),
    (59, 82, 139),
    (94, 47, 140),
)

# The dens of C2 lies in the ring of C1.
_BESIDE = {1: ("mandible", "c2"), 2: ("mandible", "c1"), 3: ("mandible",)}
_VERTEBRAE = tuple(
    Task(f"c{n}", f"C{n} vertebra", _PALETTE[4 + n], may_overlap=_BESIDE.get(n, ()))
    for n in range(1, 8)
)

VFSS12 = TaskSet(
    "vfss12",
    (
        Task(
            "bolus",
            "bolus",
            _PALETTE[0],
            may_be_absent=True,
            may_overlap=("pharynx", "airway", "hyoid", "mandible"),
        ),
        Task(
            "pharynx", "pharynx", _PALETTE[1], may_overlap=("bolus", "airway", "hyoid", "mandible")
        ),
        Task(
            "airway", "airway", _PALETTE[2], may_overlap=("bolus", "pharynx", "hyoid", "mandible")
        ),
        Task(
            "hyoid",
            "hyoid bone",
            _PALETTE[3],
            may_be_absent=True,
            may_overlap=("bolus", "pharynx", "airway", "mandible"),
        ),
        Task(
            "mandible",
            "mandible",
            _PALETTE[4],
            may_overlap=("bolus", "pharynx", "airway", "hyoid", "c1", "c2", "c3"),
        ),
        *_VERTEBRAE,
    ),
)

TASK_SETS: Mapping[str, TaskSet] = {VFSS12.name: VFSS12}
