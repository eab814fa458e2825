"""Everything that can go wrong, as one tree.

    VfssError                 any failure we foresaw; one line, with a remedy     exit 1
    ├── UsageError            options that contradict each other                  exit 2
    ├── DataError             films, labels or configuration are wrong            exit 4
    │   ├── InputError        a film or image cannot be read as one
    │   ├── LabelError        a mask does not fit its film or its task set
    │   ├── ConfigError       vfss.yaml, a task set or a card is wrong
    │   └── WorkspaceError    something expected in the workspace is not there
    ├── ModelError            a model or its weights are wrong                    exit 5
    │   ├── WeightsMissing    the file is not where it should be
    │   ├── WeightsMismatch   the file is there but is not that network
    │   └── NoTexts           a teacher whose text tower or words are not there
    └── DeviceError           this machine cannot do it                           exit 6
        ├── StorageError      the disk is full or cannot be written
        └── WorkerDied        a process that worked on one recording was killed

Exit 3 is no exception: a command that went through several inputs, of which some
failed, finishes the others and exits 3. Exit 130 is Ctrl-C.
"""

from __future__ import annotations

from pathlib import Path

EXIT_OK = 0
EXIT_UNEXPECTED = 1
EXIT_USAGE = 2
EXIT_SOME_FAILED = 3
EXIT_DATA = 4
EXIT_MODEL = 5
EXIT_DEVICE = 6
EXIT_INTERRUPTED = 130


# What taking a damaged or foreign file apart may raise, beside its reader's own errors.
MALFORMED = (
    *(ValueError, LookupError, TypeError, AttributeError),
    *(OverflowError, RecursionError),  # 1e999, and lists in lists in lists
)


class VfssError(Exception):
    """A foreseen failure.

    `what` says what happened, `file` to which file, `remedy` what to do next. `str()` is one
    line: "FILE: WHAT. REMEDY". The file is shown as the user gave it, so it may hold a name:
    print it on the terminal, never write it to a file (use `without_file` there).
    """

    exit_code = EXIT_UNEXPECTED

    def __init__(self, what: str, *, file: str | Path | None = None, remedy: str = "") -> None:
        self.what = " ".join(what.split()).rstrip(".")
        self.file = None if file is None else str(file)
        self.remedy = " ".join(remedy.split())
        super().__init__(str(self))

    @property
    def without_file(self) -> str:
        """The message without the file's name, for logs and written records."""
        return f"{self.what}. {self.remedy}".strip()

    def __str__(self) -> str:
        return f"{self.file}: {self.without_file}" if self.file else self.without_file

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.file, self.remedy)


def _rebuild(cls: type[VfssError], what: str, file: str | None, remedy: str) -> VfssError:
    return cls(what, file=file, remedy=remedy)


class UsageError(VfssError):
    """Options that contradict each other, or ask for something that does not exist."""

    exit_code = EXIT_USAGE


class DataError(VfssError):
    """Films, labels or configuration are wrong."""

    exit_code = EXIT_DATA


class InputError(DataError):
    """A film or image cannot be read as one: empty, truncated, audio only, not a film."""


class LabelError(DataError):
    """A mask does not fit its film (size, frame number) or its task set (unknown task)."""


class ConfigError(DataError):
    """`vfss.yaml`, a task set or a teacher card is wrong. Lists every fault at once."""


class WorkspaceError(DataError):
    """Something the command needs is not in the workspace: studies, labels, a run, results."""


class ModelError(VfssError):
    """A model or its weights cannot be used."""

    exit_code = EXIT_MODEL


class WeightsMissing(ModelError):
    """The weights file is not where it should be."""


class WeightsMismatch(ModelError):
    """The file exists but is not the network it was taken for, or is not safe to open."""


class DeviceError(VfssError):
    """This machine cannot do what was asked: no such device, no codec, no memory."""

    exit_code = EXIT_DEVICE


class StorageError(DeviceError):
    """The disk is full, read-only or gone."""
