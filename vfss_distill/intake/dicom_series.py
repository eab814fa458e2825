"""Which DICOM files are cine runs, which files together make one, and why the others are none.

An export holds far more than films: single radiographs, slices of volumes, reports, presentation
states, masks. A run is a multi-frame object, or the single-frame files of one series in one folder
that follow one another within a second. The first of these files stands for all of them.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ..errors import InputError, VfssError
from .dicom_file import GROUPS, TIME, damage_as_input_error, open_dicom, read_header
from .dicom_pixels import declared_frames
from .dicom_times import acquired, series_times
from .source import Found, LeftOut, is_dicom, natural_key

_SLOWEST_S = 1.0  # between frames; what is slower is a set of pictures, not a film
_UNTIMED_RUN = 8  # single-frame files without any time: so many of one series are taken for a film
_ALIKE = (
    *("SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "PixelRepresentation"),
)
_NAMES = (
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality", "InstanceNumber"),
    *("AcquisitionNumber", "NumberOfFrames", "ImagePositionPatient"),
    *("Rows", "Columns", *_ALIKE),
    *(*TIME, *GROUPS),
)
_DIRECTORY = "1.2.840.10008.1.3.10"


@dataclass(frozen=True)
class Instance:
    """What has to be known of a file to tell what it is. `header` is None if it is damaged."""

    path: Path
    header: Any = None

    @property
    def frames(self) -> int:
        return declared_frames(self.header)

    @property
    def key(self) -> tuple[Any, ...]:
        """Alike in all files of one run."""
        names = ("SeriesInstanceUID", "Rows", "Columns", *_ALIKE)
        return tuple(str(self.header.get(name)) for name in names)

    @property
    def number(self) -> int | None:
        try:
            return int(self.header.get("InstanceNumber"))
        except (TypeError, ValueError):
            return None

    @property
    def modality(self) -> str:
        return str(self.header.get("Modality") or "?")

    def why_no_run(self) -> str | None:
        """Why this file, by itself, cannot be part of a film; None if it can."""
        if any(not self.header.get(name) for name in ("Rows", "Columns")):
            uid = self.header.get("SOPClassUID")
            # A private class is not spelt out.
            kind = uid.name if uid is not None and uid.name != str(uid) else "of a private kind"
            return f"no pictures inside ({kind})"
        if self.header.get("BitsAllocated") == 1 or self.modality in ("SEG", "RTDOSE"):
            return f"masks or doses, no recording ({self.modality})"
        if self.frames > 1 and _many_places(_positions(self.header)):
            return f"slices of a volume ({self.modality}), not a cine run"
        return None


def run_of(path: Path) -> tuple[Path, ...]:
    """The files of the run that `path` belongs to, in the order of their frames.

    `path` alone, unless it is one of a run's single-frame files.
    """
    try:
        instance = _read(path)
        if instance.header is None or instance.why_no_run() or instance.frames > 1:
            return (path,)
        return _runs_in(path.parent).get(path.name, (path,))
    except (VfssError, OSError):
        pass  # opening the file itself will say what is wrong
    return (path,)


def sort_out(found: Sequence[Found], named: Iterable[Path]) -> tuple[list[Found], list[LeftOut]]:
    """Of the recordings `found`: the DICOM runs, each once, and every other kind as it is.

    What was given by name (`named`) is always kept, so that opening it can say what is wrong.
    """
    kept: list[Found] = []
    out: list[LeftOut] = []
    by_name = {path.resolve() for path in named}
    taken: set[Path] = set()
    runs: dict[Path, dict[str, tuple[Path, ...]]] = {}
    singles: dict[tuple[Any, ...], list[tuple[Found, Instance]]] = defaultdict(list)
    for item in found:
        instance = _read(item.path) if is_dicom(item.path) else None
        if instance is None or instance.header is None:
            kept.append(item)
            continue
        why = instance.why_no_run()
        run = None
        if why is None and instance.frames == 1:
            folder = item.path.parent
            if folder not in runs:
                runs[folder] = _runs_in(folder)
            run = runs[folder].get(item.path.name)
        if run is not None:
            if run[0] not in taken:
                taken.add(run[0])
                kept.append(Found(run[0], item.root))
        elif item.path.resolve() in by_name:
            kept.append(item)
        elif why is not None:
            out.append(LeftOut(item, why))
        elif instance.frames > 1:
            kept.append(item)
        else:
            singles[(item.path.parent, *instance.key)].append((item, instance))
    out += [_left_out(group) for group in singles.values()]
    return kept, out


def listed_files(path: Path) -> list[Path]:
    """The files that a DICOMDIR names, in its order, without those that are not there or lie
    outside its folder. Names are matched whatever their case: media are copied both ways.

    Raises InputError.
    """
    with damage_as_input_error(path):
        with open_dicom(path) as stream:
            header = read_header(stream, ("DirectoryRecordSequence",))
        if header.file_meta.get("MediaStorageSOPClassUID") != _DIRECTORY:
            raise InputError("is no DICOMDIR", file=path, remedy="Give the folder it lies in.")
        names = [record.get("ReferencedFileID") for record in header.DirectoryRecordSequence]
    root = path.parent.resolve()
    files: dict[Path, None] = {}
    for name in names:
        if not name:
            continue
        parts = [name] if isinstance(name, str) else [str(part) for part in name]
        file = _below(path.parent, parts)
        if file is not None and file.resolve().is_relative_to(root):
            files[file] = None
    if not files:
        raise InputError(
            "names no file that is here", file=path, remedy="Copy the whole medium, or its folder."
        )
    return list(files)


def _below(folder: Path, parts: Sequence[str]) -> Path | None:
    for part in parts:
        if part in ("", ".", "..") or "/" in part or not folder.is_dir():
            return None
        exact = folder / part
        same = (entry for entry in folder.iterdir() if entry.name.upper() == part.upper())
        found = exact if exact.exists() else next(same, None)
        if found is None:
            return None
        folder = found
    return folder if folder.is_file() else None


def _read(path: Path) -> Instance:
    try:
        with damage_as_input_error(path), open_dicom(path) as stream:
            header = read_header(stream, _NAMES)
            for _ in header.iterall():  # values are parsed when asked for: here damage is foreseen
                pass
            instance = Instance(path, header)
            _ = (instance.frames, instance.why_no_run())
            return instance
    except (VfssError, MemoryError):
        return Instance(path)


def _runs_in(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The runs of single-frame files directly in `folder`, by the name of each of their files."""
    root = folder.resolve()
    files = [path for path in folder.iterdir() if not path.name.startswith(".") and path.is_file()]
    inside = sorted((path for path in files if path.resolve().parent == root), key=natural_key)
    state = tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in inside)
    return {member.name: run for run in _runs_among(state) for member in run}


@functools.lru_cache(maxsize=8)  # a folder is asked about for each of its files
def _runs_among(state: tuple[tuple[Path, int, int], ...]) -> tuple[tuple[Path, ...], ...]:
    groups: dict[tuple[Any, ...], list[Instance]] = defaultdict(list)
    for path, _, _ in state:
        instance = _read(path) if is_dicom(path) else Instance(path)
        header = instance.header
        if header is None or instance.frames > 1 or instance.why_no_run():
            continue
        if header.get("SeriesInstanceUID"):
            groups[instance.key].append(instance)
    runs = [run for group in groups.values() for run in _split(_once(group)) if _is_run(run)]
    return tuple(tuple(member.path for member in run) for run in runs)


def _once(group: Sequence[Instance]) -> list[Instance]:
    """Without copies of a file under another name."""
    seen: dict[str, Instance] = {}
    for instance in group:
        seen.setdefault(str(instance.header.get("SOPInstanceUID") or instance.path), instance)
    return list(seen.values())


def _split(group: Sequence[Instance]) -> list[list[Instance]]:
    """By acquisition, each in order; not where most are of one image, being but its number."""
    parts: dict[str, list[Instance]] = defaultdict(list)
    for instance in group:
        parts[str(instance.header.get("AcquisitionNumber"))].append(instance)
    if 2 * sum(len(part) == 1 for part in parts.values()) > len(parts):
        parts = {"": list(group)}
    return [_in_order(part) for part in parts.values()]


def _in_order(part: list[Instance]) -> list[Instance]:
    """By instance number; by time where numbers are missing or double; else as named."""
    numbers = [instance.number for instance in part]
    if None not in numbers and len(set(numbers)) == len(numbers):
        return sorted(part, key=lambda instance: instance.number or 0)
    for origin in ("AcquisitionDateTime", "AcquisitionTime", "ContentTime"):
        times = [acquired(instance.header, origin) for instance in part]
        if None not in times and len(set(times)) == len(times):
            return sorted(part, key=lambda one: acquired(one.header, origin) or 0.0)
    return part


def _is_run(part: Sequence[Instance]) -> bool:
    if len(part) < 2 or _many_places([one.header.get("ImagePositionPatient") for one in part]):
        return False
    times = series_times([one.header for one in part], 1.0, False)
    if times.assumed:
        return len(part) >= _UNTIMED_RUN
    steps = [times.of(index + 1) - times.of(index) for index in range(len(part) - 1)]
    return median(steps) <= _SLOWEST_S


def _left_out(group: Sequence[tuple[Found, Instance]]) -> LeftOut:
    item, first = group[0]
    count = len(group)
    if _many_places([one.header.get("ImagePositionPatient") for _, one in group]):
        why = f"{count} slices of a volume ({first.modality}), not a cine run"
    elif count == 1:
        why = f"a single image ({first.modality}), not a cine run"
    else:
        why = f"{count} single images ({first.modality}), not a cine run"
    return LeftOut(item, why)


def _positions(header: Any) -> list[Any]:
    groups = header.get("PerFrameFunctionalGroupsSequence") or ()
    planes = (group.get("PlanePositionSequence") for group in groups)
    return [plane[0].get("ImagePositionPatient") for plane in planes if plane]


def _many_places(positions: Sequence[Any]) -> bool:
    """Whether most pictures lie elsewhere than the others: a stack, not a film."""
    known = {tuple(map(float, position)) for position in positions if position}
    return len(known) > 1 and 2 * len(known) > len(positions)
