"""Who is for training, who for validation, who for the test: by patient, never by frame.

`splits.yaml` is written once per patient and kept: a patient stays where he is for good, and
newcomers are dealt out by the content of their recordings, so that neither their names, nor their
pseudonyms, nor the order of files decides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from ..config import SplitConfig, read_yaml
from ..errors import ConfigError
from ..workspace import Workspace, write_text

Part = Literal["train", "val", "test"]
_PARTS: tuple[Part, ...] = ("train", "val", "test")
_NOTE = (
    "# Patients by part. Kept as it is: newcomers are added, nobody is moved. You may move a\n"
    "# patient by hand before the first training; each must stand in exactly one list.\n"
)


@dataclass(frozen=True)
class PatientFacts:
    """What a split may depend on: the smallest digest of the patient's recordings, and labels."""

    digest: str
    labelled: bool


@dataclass(frozen=True)
class Splits:
    """Pseudonyms of patients by part; each in one part only."""

    train: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()

    def of(self, patient: str) -> Part | None:
        """The part `patient` is in; None for a stranger."""
        for part in _PARTS:
            if patient in getattr(self, part):
                return part
        return None


def load_splits(workspace: Workspace) -> Splits:
    """`splits.yaml`, or empty splits where there is none.

    Raises ConfigError when a patient is in two parts or the file is not lists of pseudonyms.
    """
    path = workspace.splits_file
    if not path.exists():
        return Splits()
    data = read_yaml(path) or {}
    if not isinstance(data, dict) or not set(data) <= {"schema_version", *_PARTS}:
        raise ConfigError(
            "must hold the lists train, val and test and nothing else", file=path.name
        )
    lists: dict[str, Any] = {part: data.get(part) or [] for part in _PARTS}
    faults = [part for part, some in lists.items() if not _are_names(some)]
    if faults:
        raise ConfigError(f"{', '.join(faults)}: not a list of pseudonyms", file=path.name)
    everyone = [patient for some in lists.values() for patient in some]
    twice = sorted({patient for patient in everyone if everyone.count(patient) > 1})
    if twice:
        raise ConfigError(
            f"listed twice: {' '.join(twice)}",
            file=path.name,
            remedy="Leave each patient in one list only.",
        )
    return Splits(*(tuple(lists[part]) for part in _PARTS))


def update_splits(
    workspace: Workspace, patients: Mapping[str, PatientFacts], config: SplitConfig
) -> Splits:
    """Add newcomers among `patients` (all of the workspace) to `splits.yaml` and return it.

    Patients with labels and patients without are dealt out separately, so that each part gets its
    share of both. Writes only when something changed. Raises ConfigError, StorageError.
    """
    before = load_splits(workspace)
    parts: dict[Part, list[str]] = {part: list(getattr(before, part)) for part in _PARTS}
    for labelled in (True, False):
        stratum = {name: facts for name, facts in patients.items() if facts.labelled is labelled}
        _deal(stratum, before, parts, config)
    if all(len(parts[part]) == len(getattr(before, part)) for part in _PARTS):
        return before
    after = Splits(*(tuple(sorted(parts[part])) for part in _PARTS))
    body: dict[str, Any] = {"schema_version": 1}
    body |= {part: list(getattr(after, part)) for part in _PARTS}
    text = yaml.safe_dump(body, sort_keys=False, allow_unicode=True)
    write_text(workspace.splits_file, _NOTE + text)
    return after


def _deal(
    stratum: Mapping[str, PatientFacts],
    before: Splits,
    parts: dict[Part, list[str]],
    config: SplitConfig,
) -> None:
    quotas = _quotas(len(stratum), config)
    counts = {part: sum(before.of(name) == part for name in stratum) for part in _PARTS}
    newcomers = [name for name in stratum if before.of(name) is None]
    for name in sorted(newcomers, key=lambda name: _draw(config.seed, stratum[name].digest)):
        part = max(_PARTS, key=lambda part: quotas[part] - counts[part])
        counts[part] += 1
        parts[part].append(name)


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
