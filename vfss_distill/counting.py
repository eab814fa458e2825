"""Numbers of things in sentences."""

from __future__ import annotations

from collections.abc import Sequence


def counted(number: int, one: str, many: str = "") -> str:
    """`counted(1, "patient")` → "1 patient", `counted(2, "study", "studies")` → "2 studies"."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def over_tasks(measured: int, of: int) -> str:
    """What a reader must know of a mean over fewer tasks than there are; "" when it is over all."""
    return "" if measured == of else f"over {measured} of {of} tasks"


def first_of(names: Sequence[str]) -> str:
    """The first three names, and whether there are more."""
    return " ".join(names[:3]) + (" …" if len(names) > 3 else "")


def listed(faults: Sequence[str], most: int = 20, between: str = "; ") -> str:
    """One line of faults that a person reads to the end: the first ones, and how many more."""
    more = len(faults) - most
    return between.join([*faults[:most], *([f"and {more} more"] if more > 0 else [])])
