"""How the stored values of a DICOM recording become 8-bit grey.

What a frame's grey means is the same throughout a recording unless the header itself says
otherwise frame by frame, as enhanced objects and series of single images may.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels import apply_color_lut

from ..errors import InputError

_LEAST_SHOWN = 16  # grey levels a window must spread a recording over to be believed

Sample = Callable[[], Sequence[tuple[int, NDArray[Any]]]]


@dataclass(frozen=True)
class Rule:
    """Rescale and window of one frame; no window: the whole range, or that of a sample."""

    slope: float = 1.0
    intercept: float = 0.0
    centre: float | None = None
    width: float | None = None
    function: str = "LINEAR"

    @classmethod
    def of(cls, header: Any, index: int = 0) -> Rule:
        """From the functional groups of frame `index` of an enhanced object, else the header."""
        transform = functional(header, "PixelValueTransformationSequence", index)
        voi = functional(header, "FrameVOILUTSequence", index)
        centre, width = _first(voi.get("WindowCenter")), _first(voi.get("WindowWidth"))
        function = str(voi.get("VOILUTFunction") or "LINEAR")
        least = 1.0 if function == "LINEAR" else 1e-9  # the others need but more than nothing
        if centre is None or width is None or not (np.isfinite(centre) and least <= width < np.inf):
            centre = width = None
        slope, intercept = (_first(transform.get(f"Rescale{x}")) for x in ("Slope", "Intercept"))
        return cls(slope or 1.0, intercept or 0.0, centre, width, function)


def rules_of(header: Any, count: int) -> tuple[Rule, ...]:
    """The rules of all `count` frames of one file; a single one when they are all alike."""
    return _once(Rule.of(header, index) for index in range(count if _per_frame(header) else 1))


def rules_of_series(headers: Iterable[Any]) -> tuple[Rule, ...]:
    """The same of single-frame files, one a frame."""
    return _once(map(Rule.of, headers))


def _once(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    found = tuple(rules)
    return found[:1] if len(set(found)) == 1 else found


@dataclass
class Tone:
    """`apply` turns stored values into grey by tables made once for each rule.

    `rules`: one for all frames, or one a frame. `sample()` gives (frame, stored values) of a few
    frames; asked only when the range or a window has to be judged by the pixels.
    """

    header: Any
    rules: tuple[Rule, ...]
    sample: Sample
    _bits: int = field(init=False)
    _shift: int = field(init=False)
    _lowest: int = field(init=False)
    _colour: bool = field(init=False)
    _palette: bool = field(init=False)
    _tables: dict[Rule, NDArray[np.uint8]] = field(init=False, default_factory=dict)
    _range: tuple[float, float] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        header = self.header
        self._bits = int(header.get("BitsStored") or header.BitsAllocated)
        if not 8 <= int(header.BitsAllocated) <= 16 or not 1 < self._bits <= 16:
            raise InputError(
                f"pixels of {header.BitsAllocated} bits cannot be read",
                file=header.filename,
                remedy="Export it with 8 to 16 bits.",
            )
        high = header.get("HighBit")
        self._shift = max(0, int(self._bits - 1 if high is None else high) + 1 - self._bits)
        signed = bool(header.get("PixelRepresentation"))
        self._lowest = -(1 << (self._bits - 1)) if signed else 0
        kind = str(header.get("PhotometricInterpretation", ""))
        self._palette = kind.startswith("PALETTE")
        self._colour = self._palette or kind.startswith(("RGB", "YBR"))
        if not self._colour:
            self._judge_windows()

    def apply(self, stored: NDArray[Any], index: int) -> NDArray[np.uint8]:
        """Stored pixels (H, W) or (H, W, 3) → grey uint8 (H, W), 0-255."""
        if self._palette:
            stored = apply_color_lut(self._values(stored).astype(stored.dtype), self.header)
            stored = stored if stored.dtype == np.uint8 else (stored >> 8).astype(np.uint8)
        else:
            table = self._table(self._rule(index))
            if stored.dtype == np.uint8 and len(table) == 256 and self._lowest == 0:
                stored = cv2.LUT(np.ascontiguousarray(stored), table)
            else:
                stored = table[self._values(stored) - self._lowest]
        if stored.ndim == 3:
            stored = cv2.cvtColor(np.ascontiguousarray(stored), cv2.COLOR_RGB2GRAY)
        return np.asarray(stored, np.uint8)

    def _rule(self, index: int) -> Rule:
        return self.rules[min(index, len(self.rules) - 1)]

    def _values(self, stored: NDArray[Any]) -> NDArray[np.int32]:
        """Pixel values without what lies in the bits around them: overlays, or what is left."""
        values: NDArray[np.int32] = stored.astype(np.int32) >> self._shift
        return ((values - self._lowest) & ((1 << self._bits) - 1)) + self._lowest

    def _table(self, rule: Rule) -> NDArray[np.uint8]:
        """Grey of every value from the lowest up."""
        if rule not in self._tables:
            stored = np.arange(self._lowest, self._lowest + (1 << self._bits))
            grey = self._presented(stored, rule)
            if self.header.get("PhotometricInterpretation") == "MONOCHROME1":
                grey = 255.0 - grey
            self._tables[rule] = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
        return self._tables[rule]

    def _presented(self, stored: NDArray[Any], rule: Rule) -> NDArray[Any]:
        """Grey 0-255 (float): modality LUT or rescale, then VOI LUT, window, or range."""
        if self._colour:
            return (stored - self._lowest) * (255.0 / ((1 << self._bits) - 1))
        values = self._physical(stored, rule)
        if self.header.get("VOILUTSequence"):
            item = self.header.VOILUTSequence[0]
            shown = _looked_up(np.rint(values).astype(np.int64), item, self.header)
            return shown * (255.0 / ((1 << int(item.LUTDescriptor[2])) - 1))
        if rule.centre is not None and rule.width is not None:
            return _window(values, rule)
        if self._bits <= 8 and len(self.rules) == 1:
            return (stored - self._lowest) * (255.0 / ((1 << self._bits) - 1))
        low, high = self._sampled_range()
        return (values - low) * (255.0 / max(high - low, 1e-6))

    def _physical(self, stored: NDArray[Any], rule: Rule) -> NDArray[Any]:
        if "ModalityLUTSequence" in self.header:
            return _looked_up(stored, self.header.ModalityLUTSequence[0], self.header)
        return stored * rule.slope + rule.intercept

    def _judge_windows(self) -> None:
        """A window that shows next to nothing of the film is a leftover of another image."""
        if all(rule.centre is None for rule in self.rules) or "VOILUTSequence" in self.header:
            return
        shown = []
        for index, stored in self.sample():
            rule = self._rule(index)
            values = self._physical(self._values(stored), rule)
            if rule.centre is not None:
                shown.append(_window(values, rule))
        if not shown or np.ptp(np.percentile(np.concatenate(shown), (1, 99))) >= _LEAST_SHOWN:
            return
        plain = [Rule(rule.slope, rule.intercept) for rule in self.rules]
        self.rules = _once(plain)

    def _sampled_range(self) -> tuple[float, float]:
        """The range of values over the recording, without padding and the outermost 0.5 %."""
        if self._range is None:
            padding = self.header.get("PixelPaddingValue")
            seen = []
            for index, stored in self.sample():
                values = self._values(stored)
                kept = values[values != padding] if isinstance(padding, int) else values
                seen.append(self._physical(kept if kept.size else values, self._rule(index)))
            low, high = np.percentile(np.concatenate(seen), (0.5, 99.5))
            self._range = float(low), float(max(high, low + self._least_step()))
        return self._range

    def _least_step(self) -> float:
        return abs(self.rules[0].slope)


def functional(header: Any, macro: str, index: int = 0) -> Any:
    """The functional group `macro` of an enhanced object (of frame `index`, else shared), or
    `header` itself."""
    groups = header.get("PerFrameFunctionalGroupsSequence")
    if groups and index < len(groups) and groups[index].get(macro):
        return groups[index].get(macro)[0]
    groups = header.get("SharedFunctionalGroupsSequence")
    if groups and groups[0].get(macro):
        return groups[0].get(macro)[0]
    return header


def _per_frame(header: Any) -> bool:
    groups = header.get("PerFrameFunctionalGroupsSequence")
    wanted = ("PixelValueTransformationSequence", "FrameVOILUTSequence")
    return bool(groups) and any(groups[0].get(macro) for macro in wanted)


def _looked_up(values: NDArray[Any], item: Any, header: Any) -> NDArray[Any]:
    """Through a modality or VOI LUT by PS3.3 C.11.1.1.1: values below the first that is mapped take
    its entry, those above the last take that one's. Entries of 8 bits may be packed, one a byte.

    Pydicom's own keeps the index in the type of the entries, which wraps at 256 with those.
    """
    count, first, _ = map(int, item.LUTDescriptor)
    count, data = count or 1 << 16, item.LUTData
    if isinstance(data, bytes):
        wide = ("<" if header.original_encoding[1] else ">") + "u2"
        table = np.frombuffer(data, "u1" if len(data) < 2 * count else wide, count)
    else:
        table = np.asarray(data)
    return table[np.clip(values - first, 0, len(table) - 1)].astype(float)


def _window(values: NDArray[Any], rule: Rule) -> NDArray[Any]:
    """Window to 0-255 by DICOM PS3.3 C.11.2.1.2 (LINEAR) and C.11.2.1.3."""
    centre, width = rule.centre or 0.0, rule.width or 1.0
    if rule.function == "SIGMOID":
        with np.errstate(over="ignore"):
            sigmoid: NDArray[Any] = 255.0 / (1.0 + np.exp(-4.0 * (values - centre) / width))
        return sigmoid
    if rule.function == "LINEAR_EXACT":
        ramp = (values - centre) / width + 0.5
    else:
        ramp = (values - (centre - 0.5)) / max(width - 1.0, 1e-6) + 0.5
    return np.clip(ramp, 0.0, 1.0) * 255.0


def _first(value: Any) -> float | None:
    if value is None or value == "":
        return None
    return float(value[0]) if isinstance(value, pydicom.multival.MultiValue) else float(value)
