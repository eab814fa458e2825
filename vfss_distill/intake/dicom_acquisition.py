"""How a DICOM recording was made: the few technical facts that a study keeps of its header.

Two locks, either of which alone would keep a name out. First, an allow-list: numbers within what a
machine can give, and words out of fixed lists; no free text, no date, no identifier, whatever the
attribute is called. Second, the de-identification profile of DICOM PS3.15 Annex E, applied by
dicom-anonymizer: an attribute that it would remove or change is left out, even if it stands here.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

_MODALITIES = ("XA", "RF", "DX", "CR", "US", "MR", "CT", "ES", "XC", "SC", "OT", "GM")
# As they begin the texts their machines write.
_MANUFACTURERS = {
    "siemens": "Siemens",
    "philips": "Philips",
    "ge ": "GE",
    "gems": "GE",
    "general electric": "GE",
    "oec": "GE OEC",
    "toshiba": "Toshiba",
    "canon": "Canon",
    "shimadzu": "Shimadzu",
    "hitachi": "Hitachi",
    "fuji": "Fujifilm",
    "ziehm": "Ziehm",
    "carestream": "Carestream",
    "agfa": "Agfa",
    "tims": "TIMS",
    "pentax": "Pentax",
    "kay": "KayPENTAX",
}
_ORIENTATIONS = ("L", "R", "A", "P", "H", "F")


@dataclass(frozen=True)
class Number:
    """A number between `low` and `high`; several where the attribute has several."""

    low: float
    high: float

    def read(self, value: Any) -> float | list[float] | None:
        values = [value] if isinstance(value, str | int | float) else list(value)
        numbers = [float(item) for item in values]
        if not 0 < len(numbers) <= 4:
            return None
        if not all(math.isfinite(item) and self.low <= item <= self.high for item in numbers):
            return None
        rounded = [int(item) if item.is_integer() else round(item, 6) for item in numbers]
        return rounded[0] if len(rounded) == 1 else rounded


@dataclass(frozen=True)
class Words:
    """One of `words`; several where the attribute has several."""

    words: tuple[str, ...]

    def read(self, value: Any) -> str | list[str] | None:
        values = [value] if isinstance(value, str) else [str(item) for item in value]
        if not 0 < len(values) <= 4 or any(item not in self.words for item in values):
            return None
        return values[0] if len(values) == 1 else values


@dataclass(frozen=True)
class Maker:
    """The manufacturer's name as we spell it, if it is a known one."""

    def read(self, value: Any) -> str | None:
        text = f"{value} ".lower()
        return next((name for key, name in _MANUFACTURERS.items() if text.startswith(key)), None)


@dataclass(frozen=True)
class Flag:
    """01 or 00."""

    def read(self, value: Any) -> bool | None:
        return {"01": True, "00": False}.get(str(value))


# Keyword of the standard → our name with its unit, and what it may hold.
ALLOWED: dict[str, tuple[str, Number | Words | Maker | Flag]] = {
    "Modality": ("modality", Words(_MODALITIES)),
    "Manufacturer": ("manufacturer", Maker()),
    "KVP": ("tube_voltage_kv", Number(1, 500)),
    "XRayTubeCurrent": ("tube_current_ma", Number(0, 5000)),
    "XRayTubeCurrentInmA": ("tube_current_ma", Number(0, 5000)),
    "ExposureTime": ("exposure_time_ms", Number(0, 1e7)),
    "ExposureTimeInms": ("exposure_time_ms", Number(0, 1e7)),
    "Exposure": ("exposure_mas", Number(0, 1e6)),
    "AveragePulseWidth": ("pulse_width_ms", Number(0, 1000)),
    "RadiationMode": ("radiation_mode", Words(("CONTINUOUS", "PULSED"))),
    "RadiationSetting": ("radiation_setting", Words(("SC", "GR"))),
    "FrameTime": ("frame_time_ms", Number(0.1, 1e5)),
    "CineRate": ("cine_rate_per_s", Number(0.01, 1000)),
    "RecommendedDisplayFrameRate": ("display_rate_per_s", Number(0.01, 1000)),
    "FieldOfViewShape": ("field_of_view_shape", Words(("RECTANGLE", "ROUND", "HEXAGONAL"))),
    "FieldOfViewDimensions": ("field_of_view_mm", Number(1, 2000)),
    "FieldOfViewDimensionsInFloat": ("field_of_view_mm", Number(1, 2000)),
    "IntensifierSize": ("intensifier_size_mm", Number(1, 2000)),
    "ImagerPixelSpacing": ("imager_pixel_spacing_mm", Number(1e-4, 50)),
    "DistanceSourceToDetector": ("distance_source_detector_mm", Number(1, 10000)),
    "DistanceSourceToPatient": ("distance_source_patient_mm", Number(1, 10000)),
    "EstimatedRadiographicMagnificationFactor": ("magnification", Number(0.1, 20)),
    "PositionerPrimaryAngle": ("positioner_primary_angle_deg", Number(-360, 360)),
    "PositionerSecondaryAngle": ("positioner_secondary_angle_deg", Number(-360, 360)),
    "PatientOrientation": (
        "orientation",
        Words((*_ORIENTATIONS, *(a + b for a in _ORIENTATIONS for b in _ORIENTATIONS if a != b))),
    ),
    "ViewPosition": ("view_position", Words(("AP", "PA", "LL", "RL", "RLD", "LLD", "LLO", "RLO"))),
    "PixelIntensityRelationship": ("pixel_intensity", Words(("LIN", "LOG", "DISP"))),
    "BitsStored": ("bits_stored", Number(1, 32)),
    "LossyImageCompression": ("lossy", Flag()),
    "LossyImageCompressionRatio": ("lossy_ratio", Number(1, 10000)),
}


def acquisition_of(header: Any) -> dict[str, Any]:
    """What of `header` and of its functional groups passes both locks, by our names."""
    facts: dict[str, Any] = {}
    for keyword, value in _profiled(_found(header)):
        name, rule = ALLOWED[keyword]
        try:
            kept = rule.read(value)
        except (TypeError, ValueError, OverflowError):
            continue
        if kept is not None and kept != "":
            facts.setdefault(name, kept)
    return facts


def _found(header: Any) -> Dataset:
    """The allowed attributes of the header, else of its shared or first frame's macros."""
    found = Dataset()
    for place in _places(header):
        for keyword in ALLOWED:
            tag = tag_for_keyword(keyword)
            if tag is not None and keyword in place and tag not in found:
                found[tag] = copy.deepcopy(place[tag])
    return found


def _places(header: Any) -> Iterator[Any]:
    yield header
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        groups = header.get(name)
        for element in groups[0] if groups else ():
            if element.VR == "SQ" and not element.tag.is_private and element.value:
                yield element.value[0]


def _profiled(found: Dataset) -> Iterator[tuple[str, Any]]:
    """(keyword, value) of the attributes that the profile leaves as they are."""
    from dicomanonymizer import anonymize_dataset

    before = {element.keyword: element.value for element in copy.deepcopy(found)}
    anonymize_dataset(found, base_rules_gen=_rules)
    for keyword, value in before.items():
        if keyword in found and found[keyword].value == value and value not in (None, ""):
            yield keyword, value


@functools.cache
def _rules() -> dict[Any, Callable[..., Any]]:
    from dicomanonymizer.simpledicomanonymizer import initialize_actions_2024b

    rules: dict[Any, Callable[..., Any]] = initialize_actions_2024b()
    return rules
