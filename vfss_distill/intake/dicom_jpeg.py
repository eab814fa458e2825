"""What a coded frame of the JPEG family tells of itself, before any decoder sees it."""

from __future__ import annotations

import struct

_JPEG2000 = b"\xff\x4f\xff\x51"
_JPEG = b"\xff\xd8"
# Start of frame: all of FFC0-FFCF but DHT, JPG and DAC, and FFF7 of JPEG-LS (T.81 B.1.1.3, T.87).
_JPEG_SIZE = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
_FILL = 0xFF


def coded_size(head: bytes) -> tuple[int, int] | None:
    """(height, width) told in the head of a JPEG, JPEG-LS or JPEG 2000 frame; None if not found.

    Markers of ITU-T T.81 B.2.2, T.87 C.2.2 and T.800 A.5.1.
    """
    start = head.find(_JPEG2000, 0, 512)  # behind the boxes of a JP2 file, if there are any
    if start >= 0 and len(head) >= start + 24:
        right, bottom, left, top = struct.unpack_from(">4I", head, start + 8)
        return bottom - top, right - left
    at = 2
    while head.startswith(_JPEG) and at + 9 <= len(head) and head[at] == 0xFF:
        marker = head[at + 1]
        if marker in _JPEG_SIZE:
            height, width = struct.unpack_from(">2H", head, at + 5)
            return height, width
        at += 1 if marker == _FILL else 2 + int.from_bytes(head[at + 2 : at + 4], "big")
    return None
