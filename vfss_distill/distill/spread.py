"""A few of many, spread over all of them, that leave nothing out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def evenly(items: Sequence[T], count: int) -> list[T]:
    """At most `count` of `items`, spread over all."""
    if count >= len(items):
        return list(items)
    return [items[row] for row in np.linspace(0, len(items) - 1, count).round().astype(int)]


def with_enough(
    items: Sequence[T], count: int, groups: Iterable[tuple[Sequence[T], int]]
) -> list[T]:
    """`count` of `items`, spread evenly, and so many of each group as it should have among them.

    What is labelled in few of many frames would else be missed. In the order of `items`.
    """
    chosen = set(evenly(items, count))
    for group, enough in groups:
        if len(chosen.intersection(group)) < min(enough, len(group)):
            chosen.update(evenly(group, enough))
    return [item for item in items if item in chosen]
