"""Folders of masks that lie among recordings: known by name, or by what their images hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .images import read_image
from .source import Found, LeftOut, image_files

MASKS = "masks, not a recording; they belong in <film>_masks/<task>/"

MANIFEST = "vfss-labels.json"  # lies in every folder that `vfss labels export` writes

_NAMES = frozenset({"masks", "labels"})
_SAMPLED = 9  # images looked at, spread over the folder
_MOST_LABELS = 15  # an index image counts its structures from 1
_EDGE = 1 / 16  # of the brightest: JPEG makes 3 of 0 and 251 of 255
_TWO_TONES = 0.99  # of all pixels; the rest are edges, which scaling makes grey

Kind = Literal["picture", "mask", "blank"]


def is_named_so(folder: Path) -> bool:
    """Does the name say masks? Then it is no recording, whatever is in it."""
    name = folder.name.lower()
    return name in _NAMES or name.endswith("_masks")


def may_be_meant(folder: Path) -> bool:
    """Does a folder named so hold masks of a recording? Images, in it or in a folder for each task;
    not those of an export, nor of a result."""
    try:
        if (folder / MANIFEST).is_file() or folder.with_name("run.json").is_file():
            return False
        tasks = (below for below in folder.iterdir() if below.is_dir())
        return bool(image_files(folder)) or any(map(image_files, tasks))
    except OSError:
        return False


def without_masks(found: Sequence[Found]) -> tuple[list[Found], list[LeftOut]]:
    """Of the recordings `found`: all but the image folders that hold masks; and those.

    A few images tell. Blank ones tell nothing: a folder of them is one of masks only beside others.
    """
    kinds = {item: _kind_of_folder(item.path) for item in found if item.path.is_dir()}
    beside = {item.path.parent for item, kind in kinds.items() if kind == "mask"}
    masks = {
        item: None  # in order
        for item, kind in kinds.items()
        if kind == "mask" or (kind == "blank" and item.path.parent in beside)
    }
    kept = [item for item in found if item not in masks]
    return kept, _in_one_line(masks, kept)


def kind_of(pixels: NDArray[Any]) -> Kind:
    """A picture has greys; a mask (H, W) has 0 and one bright value, or the numbers of a few
    structures; what is one value throughout may be either."""
    darkest, brightest = float(pixels.min()), float(pixels.max())
    if darkest == brightest:
        return "blank"
    if pixels.dtype.kind in "iu" and darkest >= 0 and brightest <= _MOST_LABELS:
        return "mask"
    if darkest < 0:
        return "picture"
    extreme = (pixels <= _EDGE * brightest) | (pixels >= (1 - _EDGE) * brightest)
    return "mask" if extreme.mean() >= _TWO_TONES else "picture"


def _kind_of_folder(folder: Path) -> Kind:
    """By its first picture; a study, and what cannot be read, is left to whoever opens it."""
    kinds: set[Kind] = set()
    try:
        if (folder / "study.json").is_file():
            return "picture"
        files = image_files(folder)
        chosen = np.linspace(0, len(files) - 1, min(_SAMPLED, len(files))).round().astype(int)
        for index in chosen:
            kinds.add(kind_of(read_image(files[index])))
            if "picture" in kinds:
                return "picture"
    except (InputError, OSError):
        return "picture"
    return "mask" if "mask" in kinds else "blank"


def _in_one_line(masks: Iterable[Found], kept: Sequence[Found]) -> list[LeftOut]:
    """Twelve folders side by side are told as the one they lie in, unless recordings do so too."""
    above = {folder for item in kept for folder in item.path.parents}
    groups: dict[Path, list[Found]] = defaultdict(list)
    for item in masks:
        groups[item.path.parent].append(item)
    told: list[Found] = []
    for parent, group in groups.items():
        whole = len(group) > 1 and parent not in above
        told += [Found(parent, group[0].root)] if whole else group
    return [LeftOut(item, MASKS) for item in told]
