"""The teachers of a run: card and weights of each, found before anything slow is imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config import DistillConfig
from ..errors import UsageError, WeightsMissing
from ..models.teachers.card import TeacherCard, find_weights, load_card, missing_weights
from ..workspace import Workspace


@dataclass(frozen=True)
class TeacherFile:
    card: TeacherCard
    weights: Path


def find_teachers(
    workspace: Workspace, config: DistillConfig, folders: Sequence[Path]
) -> list[TeacherFile]:
    """Card and weights of each teacher. Raises UsageError, WeightsMissing naming all missing."""
    found, missing = [], []
    for name in config.teachers:
        is_file = name.endswith((".yaml", ".yml"))
        card = load_card(str(workspace.root / name) if is_file else name, workspace.root)
        weights = find_weights(card, folders=folders)
        if weights is None:
            missing.append(missing_weights(card))
        else:
            found.append(TeacherFile(card, weights))
    names = [teacher.card.name for teacher in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(
            f"two of these teachers are called {twice!r}",
            remedy="Give one card another `name`, or leave one out.",
        )
    if len(missing) == 1:
        raise missing[0]
    if missing:
        files = ", ".join(error.file or "" for error in missing)
        remedies = " ".join(f"{error.what}: {error.remedy}" for error in missing)
        raise WeightsMissing(f"weights of {len(missing)} teachers", file=files, remedy=remedies)
    return found
