"""The frames inside a DICOM file's pixel data: found once, then read and decoded one at a time.

The header's NumberOfFrames is compared with what is really there, and what is there counts. Each
frame stands for itself: a damaged one spoils no other.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import JPEGExtended12Bit, RLELossless

from ..errors import InputError
from .dicom_file import open_dicom, syntax_name
from .dicom_jpeg import coded_size
from .gdcm_process import GDCM
from .source import check_size

_UNDEFINED = 0xFFFFFFFF
_ITEM = 0xE000
_PIXEL_VRS = (b"OB", b"OW", b"UN", b"OX")
_PIXEL_DATA = (0x7FE0, 0x0010)
_FRAME_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")  # JPEG and -LS, J2K, JP2
_PLUGINS = ("pydicom", "pylibjpeg", "pyjpegls", "pillow")  # what they lack, GDCM decodes
_HEAD = 1 << 16  # bytes of a compressed frame in which its size must be told

Piece = tuple[int, int]  # where in the file, how many bytes


@dataclass(frozen=True)
class PixelData:
    """Where each frame lies. `frames`: the pieces of each whole one.

    `PixelData.find(path, header, stream)` with `stream` at the pixel data as `read_header` leaves
    it; raises InputError when there is none.
    """

    path: Path
    header: Any
    encapsulated: bool
    vr: str
    frames: tuple[tuple[Piece, ...], ...]
    _options: dict[str, Any] = field(repr=False)

    @classmethod
    def find(cls, path: Path, header: Any, stream: IO[bytes]) -> PixelData:
        here, end = stream.tell(), stream.seek(0, io.SEEK_END)
        stream.seek(here)
        vr, length = _element(path, header, stream)
        header.NumberOfFrames = declared_frames(header)
        options = as_pixel_options(header, number_of_frames=1)
        # Bits around the stored ones are taken off by Tone, which knows of HighBit.
        options |= {"pixel_keyword": "PixelData", "pixel_vr": vr, "correct_unused_bits": False}
        if length == _UNDEFINED:
            frames = _encapsulated_frames(header, stream, end)
        else:
            frames = _native_frames(header, stream.tell(), length, end)
        return cls(path, header, length == _UNDEFINED, vr, tuple(frames), options)

    def check_decoder(self) -> None:
        """Raises InputError when this transfer syntax cannot be decoded here."""
        try:
            available = get_decoder(self._syntax).is_available
        except NotImplementedError:
            available = False
        if not available:
            raise InputError(
                f"no decoder for {syntax_name(self.header)}",
                file=self.path,
                remedy="Run `vfss doctor`; it names the plug-ins. Or export it uncompressed.",
            )

    def decode(self, stream: IO[bytes], index: int) -> NDArray[Any]:
        """Frame `index` as stored, (H, W) or (H, W, 3) in RGB. Raises what the decoder raises."""
        data = b"".join(_read(stream, piece) for piece in self.frames[index])
        if not self.encapsulated:
            pixels, _ = get_decoder(self._syntax).as_array(data, index=0, **self._options)
            return np.asarray(pixels)
        data += b"\0" * (len(data) % 2)
        self._check(data)
        decoder = get_decoder(self._syntax)
        plugin = next((name for name in _PLUGINS if name in decoder.available_plugins), None)
        twelve = self._syntax == JPEGExtended12Bit and self._options["bits_stored"] > 8
        if plugin is None or twelve:
            return GDCM.decode(data, str(self._syntax), self._options)
        options = self._options | {"decoding_plugin": plugin}
        pixels, _ = decoder.as_array(encapsulate([data]), index=0, **options)
        return np.asarray(pixels)

    def stream(self) -> IO[bytes]:
        """All fragments as one file, read as needed: the film of an MPEG transfer syntax."""
        pieces = [piece for frame in self.frames for piece in frame]
        return io.BufferedReader(_Joined(open_dicom(self.path), pieces), 1 << 16)

    @property
    def _syntax(self) -> Any:
        return self.header.file_meta.TransferSyntaxUID

    def _check(self, data: bytes) -> None:
        """A decoder makes room for the size told in the coded frame, whatever the header says."""
        size = coded_size(data[:_HEAD])
        if size is not None and size != (int(self.header.Rows), int(self.header.Columns)):
            check_size(*size, self.path)
            raise ValueError("a coded frame of another size than the header's")


class _Joined(io.RawIOBase):
    """Pieces of a file read as if they were one."""

    def __init__(self, stream: IO[bytes], pieces: Sequence[Piece]) -> None:
        self._stream = stream
        self._pieces = pieces
        self._starts = np.cumsum([0, *(length for _, length in pieces)])
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: int(self._starts[-1])}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        which = int(np.searchsorted(self._starts, self._at, side="right")) - 1
        if which >= len(self._pieces):
            return 0
        offset, length = self._pieces[which]
        inside = self._at - int(self._starts[which])
        self._stream.seek(offset + inside)
        data = self._stream.read(min(len(buffer), length - inside))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _read(stream: IO[bytes], piece: Piece) -> bytes:
    stream.seek(piece[0])
    return stream.read(piece[1])


def declared_frames(header: Any) -> int:
    """NumberOfFrames; 1 where it is missing or no number."""
    try:
        return max(1, int(header.get("NumberOfFrames") or 1))
    except (TypeError, ValueError):
        return 1


def _element(path: Path, header: Any, stream: IO[bytes]) -> tuple[str, int]:
    """VR and length of the pixel data element; `stream` is left at its value."""
    implicit, little = header.original_encoding
    order = "<" if little else ">"
    start = stream.read(8)
    tag = struct.unpack(order + "HH", start[:4]) if len(start) == 8 else None
    if tag != _PIXEL_DATA:
        raise InputError(
            "is DICOM without pixel data", file=path, remedy="Export it with its pictures."
        )
    # Some files announce explicit VRs and have none.
    if implicit or start[4:6] not in _PIXEL_VRS:
        return "OW", struct.unpack(order + "L", start[4:])[0]
    return start[4:6].decode("ascii"), struct.unpack(order + "L", stream.read(4))[0]


def _native_frames(header: Any, start: int, length: int, end: int) -> list[tuple[Piece, ...]]:
    samples = int(header.get("SamplesPerPixel") or 1)
    pixels = int(header.Rows) * int(header.Columns) * samples
    size = pixels * int(header.BitsAllocated) // 8
    if header.get("PhotometricInterpretation") == "YBR_FULL_422":
        size = size // 3 * 2
    declared = declared_frames(header)
    count = min(length, end - start) // size
    # More than declared is padding, unless it makes whole frames.
    if count > declared and length - count * size > 1:
        count = declared
    # An even number of bytes: big endian files swap them in pairs, the padding byte too.
    return [((start + index * size, size + size % 2),) for index in range(count)]


def _encapsulated_frames(header: Any, stream: IO[bytes], end: int) -> list[tuple[Piece, ...]]:
    """Fragments put together to frames: by the coded frames' own beginnings where they have one,
    else one each, else by the offset table. All of them lie less often than NumberOfFrames."""
    table, first, pieces, starts = _fragments(stream, end)
    declared = declared_frames(header)
    known = {offset - 8 - first: index for index, (offset, _) in enumerate(pieces)}
    listed = [known[offset] for offset in table if offset in known]
    if starts and starts[0] == 0:
        begins = starts
    elif header.file_meta.TransferSyntaxUID == RLELossless or declared == len(pieces):
        begins = list(range(len(pieces)))  # PS3.5 A.4.2: RLE has a fragment for a frame
    elif listed and listed[0] == 0 and listed == sorted(set(listed)):
        begins = listed
    else:
        begins = [0] if declared == 1 and pieces else list(range(len(pieces)))
    ends = [*begins[1:], len(pieces)]
    return [tuple(pieces[begin:stop]) for begin, stop in zip(begins, ends, strict=True)]


def _fragments(stream: IO[bytes], end: int) -> tuple[tuple[int, ...], int, list[Piece], list[int]]:
    """The Basic Offset Table, where the first fragment's item begins, all whole fragments, and
    which of them begin a coded frame. A fragment that the file's end cuts off is left out."""
    table: tuple[int, ...] | None = None
    first = 0
    pieces: list[Piece] = []
    starts: list[int] = []
    while True:
        tag = stream.read(8)
        if len(tag) < 8:
            break
        group, element, length = struct.unpack("<HHL", tag)
        at = stream.tell()
        if (group, element) != (0xFFFE, _ITEM) or at + length > end:
            break
        if table is None:
            count = length // 4
            table = struct.unpack(f"<{count}L", stream.read(count * 4))
            first = at + length
        else:
            if stream.read(12).startswith(_FRAME_STARTS):
                starts.append(len(pieces))
            pieces.append((at, length))
        stream.seek(at + length)
    return table or (), first, pieces, starts
