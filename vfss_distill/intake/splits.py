"""Who is for training, who for validation, who for the test: by patient, never by frame.

`splits.yaml` is written once per patient and kept: a patient stays where he is for good, and
newcomers are dealt out by the content of their recordings, so that neither their names, nor their
pseudonyms, nor the order of files decides. A test set can be locked: then nothing is added to it
and nothing taken from it, by us or by hand.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

import yaml

from ..config import SplitConfig, read_yaml
from ..errors import ConfigError, DataError
from ..provenance import digest_json
from ..workspace import Workspace, write_text

if TYPE_CHECKING:
    from .record import StudyRecord

Part = Literal["train", "val", "test"]
_PARTS: tuple[Part, ...] = ("train", "val", "test")
_SITE = "site "
_MEND = "Put the file back from a copy. A list in which nobody is reads `val: []`."
_NOTE = (
    "# Patients by part. Kept as it is: newcomers are added, nobody is moved. You may move a\n"
    "# patient by hand before the first training; each must stand in exactly one list.\n"
)
_LOCK_NOTE = (
    "# The test set is locked: nobody joins or leaves it. To unlock it, delete `locked` and its\n"
    "# lines; figures from before and after are then of different test sets.\n"
)


@dataclass(frozen=True)
class PatientFacts:
    """What a split may depend on.

    `digest`: the smallest digest of the patient's recordings. `tasks`: those with labels. `site`:
    pseudonym of the clinic, or empty.
    """

    digest: str
    labelled: bool
    tasks: frozenset[str] = frozenset()
    site: str = ""

    def traits(self) -> frozenset[str]:
        """What each part should get its share of."""
        site = {_SITE + self.site} if self.site else set()
        return frozenset({*self.tasks, *site, "labelled" if self.labelled else "unlabelled"})


@dataclass(frozen=True)
class Splits:
    """Pseudonyms of patients by part; each in one part only.

    `locked`: of a locked test set, the digests of each patient's recordings; else None.
    """

    train: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    locked: Mapping[str, tuple[str, ...]] | None = field(default=None, hash=False)

    def of(self, patient: str) -> Part | None:
        """The part `patient` is in; None for a stranger."""
        for part in _PARTS:
            if patient in getattr(self, part):
                return part
        return None

    def why_closed(self, patient: str, source_sha256: str) -> str:
        """Why a locked test set keeps out a recording that is said to be `patient`'s: he is in the
        set and it is not, or it is in the set as somebody else's. "" where nothing does."""
        locked = self.locked or {}
        if patient in locked and source_sha256 not in locked[patient]:
            return f"its patient, {patient}, is in the locked test set"
        others = [name for name, some in locked.items() if source_sha256 in some]
        if others and patient not in others:
            return f"it is in the locked test set, as a recording of {others[0]}"
        return ""


class Recorded(Protocol):
    """What a lock needs to know of a study; `StudyRecord` has it."""

    @property
    def patient(self) -> str: ...

    @property
    def source_sha256(self) -> str: ...


def load_splits(workspace: Workspace) -> Splits:
    """`splits.yaml`, or empty splits where there is none.

    Raises ConfigError when a list is missing or cut off, when a patient is in two parts, when the
    file is not lists of pseudonyms, or when a locked test set was changed.
    """
    path = workspace.splits_file
    if not os.path.lexists(path):  # a link that leads nowhere is a file that was there
        return Splits()
    try:
        data = read_yaml(path)
    except ConfigError as error:
        raise ConfigError(error.what, file=path.name, remedy=_MEND) from error
    if not isinstance(data, dict) or not set(data) <= {"schema_version", "locked", *_PARTS}:
        raise ConfigError(
            "must hold the lists train, val and test and nothing else",
            file=path.name,
            remedy=_MEND,
        )
    if missing := [part for part in _PARTS if data.get(part) is None]:
        # Taken for empty lists, a half file would deal out anew whoever stood in the other half.
        raise ConfigError(f"{', '.join(missing)}: no such list", file=path.name, remedy=_MEND)
    lists: dict[str, Any] = {part: data[part] for part in _PARTS}
    faults = [part for part, some in lists.items() if not _are_names(some)]
    if faults:
        raise ConfigError(
            f"{', '.join(faults)}: not a list of pseudonyms", file=path.name, remedy=_MEND
        )
    everyone = [patient for some in lists.values() for patient in some]
    twice = sorted({patient for patient in everyone if everyone.count(patient) > 1})
    if twice:
        raise ConfigError(
            f"listed twice: {' '.join(twice)}",
            file=path.name,
            remedy="Leave each patient in one list only.",
        )
    locked = None if "locked" not in data else _lock(data["locked"], lists["test"], path.name)
    train, val, test = (tuple(lists[part]) for part in _PARTS)
    return Splits(train, val, test, locked)


def undealt(workspace: Workspace, splits: Splits, records: Iterable[Recorded]) -> list[str]:
    """A line for the user when patients who have studies stand in no list of `splits`: each was
    dealt out when he came, unless that ingest was cut short."""
    patients = {record.patient for record in records}
    strangers = sum(splits.of(patient) is None for patient in patients)
    if not strangers:
        return []
    name = workspace.splits_file.name
    if not os.path.lexists(workspace.splits_file):
        what = f"{name} is missing: {strangers} patients are dealt out anew, and no test is locked"
    else:
        what = f"{name} lacks {strangers} of {len(patients)} patients: they are dealt out anew"
    return [f"{what}. If it held them once, put it back from a copy."]


def facts_of(records: Iterable[StudyRecord]) -> dict[str, PatientFacts]:
    """What `update_splits` has to know of the patients of all studies of a workspace."""
    facts: dict[str, PatientFacts] = {}
    for record in sorted(records, key=lambda record: record.source_sha256):
        labelled = record.labelled if record.view == "lateral" else {}  # others are of no use
        tasks = frozenset(task for task, frames in labelled.items() if frames)
        before = facts.get(record.patient)
        if before is None:
            digest, site = record.source_sha256, record.site
            facts[record.patient] = PatientFacts(digest, bool(labelled), tasks, site)
        else:
            facts[record.patient] = PatientFacts(
                before.digest,
                before.labelled or bool(labelled),
                before.tasks | tasks,
                before.site or record.site,
            )
    return facts


def update_splits(
    workspace: Workspace, patients: Mapping[str, PatientFacts], config: SplitConfig
) -> Splits:
    """Add newcomers among `patients` (all of the workspace) to `splits.yaml` and return it.

    Patients with labels and patients without are dealt out separately, so that each part gets its
    share of both; within these, each task and each site is shared out as evenly as may be. Writes
    only when something changed. Raises ConfigError, StorageError.
    """
    before = load_splits(workspace)
    parts: dict[Part, list[str]] = {part: list(getattr(before, part)) for part in _PARTS}
    for labelled in (True, False):
        stratum = {name: facts for name, facts in patients.items() if facts.labelled is labelled}
        _deal(stratum, before, parts, config)
    if all(len(parts[part]) == len(getattr(before, part)) for part in _PARTS):
        return before
    train, val, test = (tuple(sorted(parts[part])) for part in _PARTS)
    return _write(workspace, Splits(train, val, test, before.locked))


def lock_test(workspace: Workspace, studies: Iterable[Recorded]) -> Splits:
    """Lock the test set as it is: its patients, and which recordings each has.

    A set that is locked stays as it was locked. Raises ConfigError, StorageError, and DataError
    when there is no patient in the test set.
    """
    splits = load_splits(workspace)
    if splits.locked is not None:
        return splits
    if not splits.test:
        raise DataError(
            "there is no patient in the test set to lock",
            file=workspace.splits_file.name,
            remedy="Ingest the recordings of more patients, or move one to `test`.",
        )
    digests: dict[str, list[str]] = {patient: [] for patient in splits.test}
    for study in studies:
        if study.patient in digests:
            digests[study.patient].append(study.source_sha256)
    locked = {patient: tuple(sorted(some)) for patient, some in digests.items()}
    return _write(workspace, replace(splits, locked=locked))


def missing_from_lock(splits: Splits, studies: Iterable[Recorded]) -> list[str]:
    """Patients of a locked test set of whom a recording is gone, or one is there that was not."""
    there: dict[str, set[str]] = {}
    for study in studies:
        there.setdefault(study.patient, set()).add(study.source_sha256)
    locked = splits.locked or {}
    return [name for name, digests in locked.items() if there.get(name, set()) != set(digests)]


def _write(workspace: Workspace, splits: Splits) -> Splits:
    text = _NOTE + yaml.safe_dump({"schema_version": 1})
    if splits.locked is not None:
        test = {patient: list(digests) for patient, digests in sorted(splits.locked.items())}
        lock = {"locked": {"test": test, "sha256": digest_json(test)}}
        # Before the lists: were it last, a file cut off would be whole and unlocked.
        text += _LOCK_NOTE + yaml.safe_dump(lock, sort_keys=False)
    lists = {part: list(getattr(splits, part)) for part in _PARTS}
    text += yaml.safe_dump(lists, sort_keys=False, allow_unicode=True)
    write_text(workspace.splits_file, text)
    return splits


def _lock(data: Any, test: list[str], file: str) -> dict[str, tuple[str, ...]]:
    """The lock, once it is sure that neither it nor the test set was changed."""
    remedy = "Put the file back as it was, or delete `locked` and its lines to unlock the test set."
    try:
        locked = {str(name): tuple(map(str, some)) for name, some in data["test"].items()}
        true = data["sha256"] == digest_json({name: list(some) for name, some in locked.items()})
    except (KeyError, TypeError, AttributeError):
        raise ConfigError("`locked` is not as we wrote it", file=file, remedy=remedy) from None
    joined, left = sorted(set(test) - set(locked)), sorted(set(locked) - set(test))
    changes = [
        f"{what} {' '.join(names)}"
        for what, names in (("added:", joined), ("taken away:", left))
        if names
    ]
    if changes or not true:
        what = "; ".join(changes) or "the lock itself was changed"
        raise ConfigError(f"the test set is locked, but {what}", file=file, remedy=remedy)
    return locked


def _deal(
    stratum: Mapping[str, PatientFacts],
    before: Splits,
    parts: dict[Part, list[str]],
    config: SplitConfig,
) -> None:
    """Deal out the newcomers of a stratum: those with the rarest trait first, each to the part that
    most lacks that trait, while there is room in it.

    Iterative stratification: Sechidis, Tsoumakas, Vlahavas, ECML PKDD 2011, algorithm 1.
    """
    order = sorted(stratum, key=lambda name: _draw(config.seed, stratum[name].digest))
    traits = {name: stratum[name].traits() for name in order}
    members: dict[str, list[str]] = {}
    for name in order:
        for trait in traits[name]:
            members.setdefault(trait, []).append(name)
    quotas = _quotas(len(stratum), config)
    lacks = {
        trait: {part: quotas[part] * len(some) / len(stratum) for part in _PARTS}
        for trait, some in members.items()
    }
    room: dict[Part, float] = dict(quotas)
    open_parts = [part for part in _PARTS if part != "test" or before.locked is None]
    waiting = {trait: [n for n in some if before.of(n) is None] for trait, some in members.items()}

    def settle(name: str, part: Part) -> None:
        room[part] -= 1
        for trait in traits[name]:
            lacks[trait][part] -= 1
            if name in waiting[trait]:
                waiting[trait].remove(name)

    for name in order:
        known = before.of(name)
        if known is not None:
            settle(name, known)
    places = {name: place for place, name in enumerate(order)}
    while left := [trait for trait in waiting if waiting[trait]]:
        trait = min(left, key=lambda trait: _rarity(trait, waiting[trait], places))
        name = waiting[trait][0]
        free = [part for part in open_parts if room[part] > 0] or open_parts
        part = max(free, key=lambda part: (lacks[trait][part], room[part]))
        parts[part].append(name)
        settle(name, part)


def _rarity(trait: str, waiting: list[str], places: Mapping[str, int]) -> tuple[object, ...]:
    """Sorts by how many wait. A tie is broken by whose turn it is, then by the task's name: the
    pseudonym of a site is of this workspace, and must not decide.
    """
    is_site = trait.startswith(_SITE)
    return len(waiting), places[waiting[0]], is_site, "" if is_site else trait


def _quotas(patients: int, config: SplitConfig) -> dict[Part, int]:
    """Whole patients per part. From three patients on no part that has a share stays empty."""
    least = 1 if patients >= 3 else 0
    val = max(round(config.val * patients), least) if config.val else 0
    test = max(round(config.test * patients), least) if config.test else 0
    if patients == 2 and config.test:
        test = 1
    train = max(patients - val - test, min(1, patients))
    return {"train": train, "val": val, "test": test}


def _draw(seed: int, digest: str) -> str:
    return hashlib.sha256(f"{seed}:{digest}".encode()).hexdigest()


def _are_names(some: object) -> bool:
    return isinstance(some, list) and all(isinstance(name, str) for name in some)
