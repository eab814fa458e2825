"""Names that disks, tables and headers give, in any Unicode normal form.

An "ü" is one character (NFC) or a "u" and a mark (NFD): a Mac writes one, other systems the other,
and nobody sees which. So names are compared and keyed in NFC; what is stored stays as it was given.
Bytes that are no UTF-8 (`surrogateescape`) pass unchanged.
"""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from .source import Found


def plain_name(name: str) -> str:
    """The form in which names are compared."""
    return unicodedata.normalize("NFC", name)


def spellings(name: str) -> tuple[str, ...]:
    """What may stand on a disk, or have been keyed by an earlier version: as it is, NFC, NFD."""
    return tuple(dict.fromkeys((name, plain_name(name), unicodedata.normalize("NFD", name))))


def display(found: Found) -> str:
    """A recording as shown to the user: a relative path, never an absolute one, with forward
    slashes; printable."""
    name = os.fsencode(_relative(found).as_posix()).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() or c >= "\xa0" else ascii(c)[1:-1] for c in name)


def _relative(found: Found) -> Path:
    path = found.path
    if not path.is_absolute() and ".." not in path.parts:
        return path
    real = Path(os.path.realpath(path))  # `resolve` ends on a link to itself
    root = found.root.resolve()
    if not real.is_relative_to(root):  # a link, by its own name
        return Path(path.name)
    if real == root:
        return Path(real.name)
    return Path(root.name) / real.relative_to(root)
