"""How the stored values of a DICOM recording become 8-bit grey: one table for all its frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi

from ..errors import InputError


@dataclass(frozen=True)
class Tone:
    """How stored values become 8-bit grey: a table from value - `lowest`, or a colour rule."""

    table: NDArray[np.uint8]
    lowest: int
    header: Any
    palette: bool

    @classmethod
    def decide(cls, header: Any, sample: Any) -> Tone:
        """`sample()` gives stored values; asked only when the header gives no range."""
        bits = int(header.get("BitsStored") or header.BitsAllocated)
        signed = bool(header.get("PixelRepresentation"))
        if bits > 16:
            raise InputError(
                f"pixels of {bits} bits cannot be read",
                file=header.filename,
                remedy="Export it with 8 to 16 bits.",
            )
        lowest = -(1 << (bits - 1)) if signed else 0
        stored = np.arange(lowest, lowest + (1 << bits))
        colour = str(header.get("PhotometricInterpretation", "")).startswith(
            ("RGB", "YBR", "PALETTE")
        )
        palette = str(header.get("PhotometricInterpretation", "")).startswith("PALETTE")
        if colour:
            grey = stored * (255.0 / ((1 << bits) - 1))
        else:
            grey = _presented(header, stored, bits, sample)
        if header.get("PhotometricInterpretation") == "MONOCHROME1":
            grey = 255.0 - grey
        table = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
        return cls(table, lowest, header, palette)

    def apply(self, stored: NDArray[Any]) -> NDArray[np.uint8]:
        """Stored pixels (H, W) or (H, W, 3) → grey uint8 (H, W), 0-255."""
        if self.palette:
            stored = apply_color_lut(stored, self.header)
            stored = stored if stored.dtype == np.uint8 else (stored >> 8).astype(np.uint8)
        elif not (stored.dtype == np.uint8 and len(self.table) == 256 and self.lowest == 0):
            # Bits above BitsStored may hold overlays: fold signed and unsigned values back.
            stored = self.table[(stored.astype(np.int32) - self.lowest) & (len(self.table) - 1)]
        else:
            stored = cv2.LUT(np.ascontiguousarray(stored), self.table)
        if stored.ndim == 3:
            stored = cv2.cvtColor(np.ascontiguousarray(stored), cv2.COLOR_RGB2GRAY)
        return np.asarray(stored, np.uint8)


def functional(header: Any, macro: str) -> Any:
    """The functional group `macro` of an enhanced object (shared, else of frame 0), or `header`."""
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        groups = header.get(name)
        if groups and groups[0].get(macro):
            return groups[0].get(macro)[0]
    return header


def _presented(header: Any, stored: NDArray[Any], bits: int, sample: Any) -> NDArray[Any]:
    """Grey 0-255 (float) of every stored value: modality LUT, then VOI LUT, window or range."""
    transform = functional(header, "PixelValueTransformationSequence")
    if "ModalityLUTSequence" in header:
        values = np.asarray(apply_modality_lut(stored, header), float)
    else:
        slope = float(transform.get("RescaleSlope") or 1)
        values = stored * slope + float(transform.get("RescaleIntercept") or 0)
    if header.get("VOILUTSequence"):
        shown = np.asarray(apply_voi(values.astype(np.int64), header), float)
        depth = int(header.VOILUTSequence[0].LUTDescriptor[2])
        return shown * (255.0 / ((1 << depth) - 1))
    voi = functional(header, "FrameVOILUTSequence")
    centre, width = _first(voi.get("WindowCenter")), _first(voi.get("WindowWidth"))
    windowed = None
    if centre is not None and width is not None and width >= 1:
        function = str(voi.get("VOILUTFunction") or "LINEAR")
        windowed = _window(values, centre, width, function)
    if bits <= 8:
        return stored * (255.0 / ((1 << bits) - 1)) if windowed is None else windowed
    taken = (sample().astype(np.int32) - stored[0]) & (len(stored) - 1)
    # A window that shows next to nothing of the film is a leftover of another image.
    if windowed is not None and np.ptp(np.percentile(windowed[taken], (1, 99))) >= 16:
        return windowed
    padding = header.get("PixelPaddingValue")
    seen = values[taken]
    if isinstance(padding, int) and np.any(kept := stored[taken] != padding):
        seen = seen[kept]
    low, high = np.percentile(seen, (0.5, 99.5))
    return (values - low) * (255.0 / max(high - low, 1.0))


def _window(values: NDArray[Any], centre: float, width: float, function: str) -> NDArray[Any]:
    """Window to 0-255 by DICOM PS3.3 C.11.2.1.2 (LINEAR) and C.11.2.1.3."""
    if function == "SIGMOID":
        sigmoid: NDArray[Any] = 255.0 / (1.0 + np.exp(-4.0 * (values - centre) / width))
        return sigmoid
    if function == "LINEAR_EXACT":
        ramp = (values - centre) / width + 0.5
    else:
        ramp = (values - (centre - 0.5)) / max(width - 1.0, 1e-6) + 0.5
    return np.clip(ramp, 0.0, 1.0) * 255.0


def _first(value: Any) -> float | None:
    if value is None or value == "":
        return None
    return float(value[0]) if isinstance(value, pydicom.multival.MultiValue) else float(value)
