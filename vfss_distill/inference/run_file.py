"""The fields of a result's `run.json`, each of the kind that `segment` writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..fields import Check, count, flag, mapping, maybe, number, several, taken, text, times, whole

# Where they are there: earlier versions knew fewer.
_KINDS: Mapping[str, Check] = {
    **dict.fromkeys(("study", "source_sha256", "provider", "view", "facing"), text),
    **dict.fromkeys(("frames", "width", "height"), count),
    **dict.fromkeys(("simulated", "mirrored"), flag),
    **dict.fromkeys(("seconds", "fps"), number),
    **dict.fromkeys(("model", "outputs"), mapping),
    "patient": maybe(text),
    "unique_fps": maybe(number),
    "repeats": several(whole),
    "frame_times_s": times,
    "lit": maybe(several(whole, 4)),
    "side_px": count,
    "seen_in_training": maybe(flag),
    "frames_of": maybe(mapping),
    "warnings": several(text),
}
_MODEL: Mapping[str, Check] = {
    **dict.fromkeys(("name", "sha256"), text),
    "image_size": maybe(count),
    **dict.fromkeys(("untrained_tasks", "trained_sources"), several(text)),
}


def check_run(run: Mapping[str, Any], study: str) -> None:
    """`study`: whose folder it lies in. Raises ValueError, naming the field, for one of another
    kind, frames without a time, or another study: a path in its place would lead elsewhere."""
    known = taken(run, _KINDS)
    taken(known.get("model", {}), _MODEL)
    if len(known.get("frame_times_s", ())) != known.get("frames"):
        raise ValueError("frames and frame_times_s do not agree")
    if known.get("study") != study:
        raise ValueError("study is another than its folder's")
