"""Run lengths of masks: COCO's, CVAT's and Label Studio's.

COCO counts down the columns of the whole frame, CVAT along the rows of a box, both starting with
background. Label Studio packs the RGBA pixels of the frame bit by bit (thi.ng/rle-pack).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import LabelError
from .annotations import Mask, Size

_BRUSH_SIZES = (3, 4, 8, 16)  # bits of a run's length, chosen per run
_BAD = "Export the labels again; the run lengths do not fit the frame."


@dataclass(frozen=True)
class Runs:
    """Runs of background and mask in turn over a box of the frame.

    `box`: top, left, height, width; None for the whole frame. `by_column`: COCO's order.
    """

    counts: NDArray[np.int64]
    box: tuple[int, int, int, int] | None = None
    by_column: bool = False

    def draw(self, size: Size) -> Mask:
        top, left, height, width = self.box or (0, 0, *size)
        inside = top >= 0 and left >= 0 and top + height <= size[0] and left + width <= size[1]
        if not inside or height < 0 or width < 0:
            raise LabelError("a mask reaches beyond its frame", remedy=_BAD)
        if not self._fill(height * width):
            raise LabelError("run lengths of a mask do not add up to its size", remedy=_BAD)
        flat = np.repeat(np.arange(len(self.counts)) % 2 == 1, self.counts)
        part = flat.reshape((height, width), order="F" if self.by_column else "C")
        mask = np.zeros(size, np.bool_)
        mask[top : top + height, left : left + width] = part
        return mask

    def _fill(self, area: int) -> bool:
        """Each run is looked at: a sum of enormous ones can wrap round to the right number."""
        fits = len(self.counts) <= area + 1 and ((self.counts >= 0) & (self.counts <= area)).all()
        return bool(fits) and int(self.counts.sum()) == area


@dataclass(frozen=True)
class Brush:
    """Label Studio's packed brush: the fourth channel of RGBA pixels is the mask."""

    packed: bytes

    def draw(self, size: Size) -> Mask:
        pixels = unpack_brush(self.packed, size[0] * size[1] * 4)
        mask: Mask = pixels.reshape(*size, 4)[:, :, 3] > 127
        return mask


def counts_of(mask: Mask, *, by_column: bool) -> list[int]:
    """Run lengths of a mask, background first (0 where the mask begins at once)."""
    flat = mask.ravel(order="F" if by_column else "C")
    if not flat.size:
        return []
    turns = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate(([0], turns, [flat.size]))).tolist()
    return [0, *counts] if flat[0] else counts


def boxed_runs(mask: Mask) -> Runs:
    """The mask as row-wise runs of its bounding box: the smallest way to keep it in memory."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return Runs(np.zeros(0, np.int64), (0, 0, 0, 0))
    top, left = int(rows[0]), int(columns[0])
    part = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    counts = np.array(counts_of(part, by_column=False), np.int64)
    return Runs(counts, (top, left, *part.shape))


def coco_text(counts: Sequence[int]) -> str:
    """COCO's compressed form: differences to the run before the last, 5 bits to a character."""
    text = bytearray()
    for number, count in enumerate(counts):
        left = count - counts[number - 2] if number > 2 else count
        more = True
        while more:
            bits = left & 0x1F
            left >>= 5
            more = left != -1 if bits & 0x10 else left != 0
            text.append(bits + (0x20 if more else 0) + 48)
    return text.decode("ascii")


def coco_counts(text: str) -> list[int]:
    """The run lengths of `coco_text`. Raises ValueError for text that is none."""
    counts: list[int] = []
    value = shift = 0
    more = False
    for code in text.encode("ascii"):
        bits = code - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("not a run length")
        value |= (bits & 0x1F) << shift
        shift += 5
        more = bool(bits & 0x20)
        if more:
            continue
        if bits & 0x10:
            value |= -1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if more:
        raise ValueError("run lengths break off")
    return counts


def unpack_brush(packed: bytes, expected: int) -> NDArray[np.uint8]:
    """`expected` bytes of thi.ng/rle-pack. Raises LabelError before it reserves any other size."""
    bits = np.unpackbits(np.frombuffer(packed, np.uint8))
    at = 0

    def read(width: int) -> int:
        nonlocal at
        if at + width > len(bits):
            raise LabelError("a brush mask breaks off", remedy=_BAD)
        word = bits[at : at + width]
        at += width
        return int.from_bytes(np.packbits(np.pad(word, (-width % 8, 0))).tobytes())

    if read(32) != expected:
        raise LabelError("a brush mask is of another size than its frame", remedy=_BAD)
    width = read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    out = np.zeros(expected, np.uint8)
    done = 0
    while done < expected:
        is_run = read(1)
        count = 1 + read(sizes[read(2)])
        end = min(done + count, expected)
        if is_run:
            out[done:end] = read(width) & 0xFF
        else:
            if at + count * width > len(bits):
                raise LabelError("a brush mask breaks off", remedy=_BAD)
            words = bits[at : at + count * width].reshape(count, width)[:, -8:]
            values = np.packbits(np.pad(words, ((0, 0), (8 - words.shape[1], 0))), axis=1)[:, 0]
            out[done:end] = values[: end - done]
            at += count * width
        done = end
    return out


def pack_brush(mask: Mask) -> list[int]:
    """A mask as Label Studio keeps it: a list of bytes."""
    counts = [4 * count for count in counts_of(mask, by_column=False)]
    words = [f"{4 * mask.size:032b}", f"{7:05b}", *(f"{bits - 1:04b}" for bits in _BRUSH_SIZES)]
    for number, count in enumerate(counts):
        value = f"{255 * (number % 2):08b}"
        while count:
            length = min(count, 1 << 16)
            which = next(i for i, bits in enumerate(_BRUSH_SIZES) if length <= 1 << bits)
            words.append(f"1{which:02b}{length - 1:0{_BRUSH_SIZES[which]}b}{value}")
            count -= length
    text = "".join(words)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8))
