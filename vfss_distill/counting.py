"""Numbers of things in sentences."""

from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """`counted(1, "patient")` → "1 patient", `counted(2, "study", "studies")` → "2 studies"."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"
