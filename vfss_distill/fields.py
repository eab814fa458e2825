"""Fields of JSON files that we read back: each of the kind that was written, or a ValueError.

JSON knows no integers beside numbers, holds NaN, infinities and numbers of any length when Python
writes or reads it, and halves of characters. `int()` and `float()` would take a string, too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, TypeVar

T = TypeVar("T")
Check = Callable[[Any], Any]
_MOST = 2**31  # no film has more frames or pixels, and what computes with them could not hold it


def text(value: Any) -> str:
    """A string that can be written again."""
    if not isinstance(value, str):
        raise ValueError("is no text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError("holds half a character") from error
    return value


def flag(value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise ValueError("is neither true nor false")
    return value


def whole(value: Any) -> int:
    """A whole number of 0 or more, as frames are counted."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _MOST:
        raise ValueError("is no whole number of 0 or more")
    return value


def count(value: Any) -> int:
    """A whole number of 1 or more."""
    if whole(value) < 1:
        raise ValueError("is no whole number of 1 or more")
    return int(value)


def number(value: Any) -> float:
    """A finite number; a whole one of any length is none."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:
        pass
    raise ValueError("is no finite number")


def mapping(value: Any) -> dict[str, Any]:
    """An object that can be written again."""
    if not isinstance(value, dict):
        raise ValueError("is no object")
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except ValueError as error:
        raise ValueError("holds what is no JSON") from error
    return value


def several(check: Callable[[Any], T], size: int | None = None) -> Callable[[Any], tuple[T, ...]]:
    """A list of `size` values that `check` takes; of any length without it."""

    def checked(value: Any) -> tuple[T, ...]:
        if not isinstance(value, list | tuple) or size not in (None, len(value)):
            raise ValueError("is no list of that kind")
        return tuple(check(one) for one in value)

    return checked


def maybe(check: Callable[[Any], T]) -> Callable[[Any], T | None]:
    """null, or what `check` takes."""
    return lambda value: None if value is None else check(value)


def times(value: Any) -> tuple[float, ...]:
    """Seconds, each later than the one before."""
    seconds = several(number)(value)
    if any(abs(second) > _MOST for second in seconds):
        raise ValueError("is no time within a film")
    if any(later <= sooner for sooner, later in pairwise(seconds)):
        raise ValueError("does not increase")
    return seconds


def taken(data: Mapping[str, Any], checks: Mapping[str, Check]) -> dict[str, Any]:
    """Those fields of `data` that `checks` name, checked. ValueErrors name the field, and nothing
    that stands in it."""
    values = {}
    for name, check in checks.items():
        if name in data:
            try:
                values[name] = check(data[name])
            except (KeyError, TypeError, AttributeError, OverflowError) as error:
                raise ValueError(f"{name} is not as it was written") from error
            except ValueError as error:
                raise ValueError(f"{name} {error}") from error
    return values
