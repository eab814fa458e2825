"""Names that disks, tables and headers give, in any Unicode normal form.

An "ü" is one character (NFC) or a "u" and a mark (NFD): a Mac writes one, other systems the other,
and nobody sees which. So names are compared and keyed in NFC; what is stored stays as it was given.
Bytes that are no UTF-8 (`surrogateescape`) pass unchanged.
"""

from __future__ import annotations

import unicodedata


def plain_name(name: str) -> str:
    """The form in which names are compared."""
    return unicodedata.normalize("NFC", name)


def spellings(name: str) -> tuple[str, ...]:
    """What may stand on a disk, or have been keyed by an earlier version: as it is, NFC, NFD."""
    return tuple(dict.fromkeys((name, plain_name(name), unicodedata.normalize("NFD", name))))
