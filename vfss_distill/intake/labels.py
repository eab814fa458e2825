"""Masks given as folders: which file is which task on which frame, and whether it fits.

    <stem>_masks/<task>/000012.png       beside the recording; <stem>.mp4_masks/ will do as well
    masks/<task>/0012.png                beside a folder of images called `images` or `frames`
    DIR/<stem>/<task>/000012.png         with --labels DIR; also below the recording's own folders
    DIR/<task>/000012.png                with --labels DIR and a single recording

`<task>` is a task's id or name, in any case. With a task set of one, masks may lie in the folder
itself instead of `<task>/`. The number in a mask's name is the frame's, from 0; for folders of
images it is the image's name. Masks that several recordings could claim (case01.mp4 and
case01.avi) are nobody's.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ..counting import listed
from ..errors import InputError, LabelError
from ..provenance import sha256_file
from ..tasks import TaskSet
from .images import ImageSource, image_size, read_image
from .mask_folders import may_be_meant
from .names import plain_name, spellings
from .source import Found, FrameSource, image_files, is_generic, recording_name

_LOSSY = frozenset({".jpg", ".jpeg"})
_THRESHOLD = 127
_MASKS = ("masks", "Masks", "MASKS")  # a folder is not read for each recording: these three will do


@dataclass(frozen=True)
class Labels:
    """Mask files by task id and frame index; not read yet."""

    files: dict[str, dict[int, Path]]

    def __iter__(self) -> Iterator[tuple[str, int, Path]]:
        for task, masks in self.files.items():
            for frame in sorted(masks):
                yield task, frame, masks[frame]

    @property
    def sha256(self) -> str:
        """Digest over tasks, frame numbers and file bytes; empty without labels."""
        digest = hashlib.sha256()
        for task, frame, path in self:
            digest.update(f"{task}/{frame}/{sha256_file(path)}\n".encode())
        return digest.hexdigest() if self.files else ""

    def absolute(self) -> Labels:
        """The same files, for a process that stands elsewhere."""
        return Labels(
            {
                task: {frame: path.absolute() for frame, path in masks.items()}
                for task, masks in self.files.items()
            }
        )


class LabelSearch:
    """Where to look for the labels of the recordings of one ingest."""

    def __init__(self, folder: Path | None, tasks: TaskSet, recordings: Sequence[Found]) -> None:
        """`folder`: that of --labels. Names that several recordings share are known from here."""
        self._given = folder
        self._tasks = tasks
        self._recordings = recordings
        paths = [found.path for found in recordings]
        self._names = Counter(plain_name(recording_name(path)) for path in paths)
        self._places = Counter(_place(path) for path in paths)
        beside = (_masks_beside(path) for path in paths)
        self._beside = Counter(masks.absolute() for masks in beside if masks is not None)

    def find(self, found: Found, source: FrameSource) -> Labels:
        """The labels of one recording, sizes checked from the headers.

        Raises LabelError: unknown task, a mask of another size, a mask without a frame number,
        two masks for one frame, labels that two recordings could claim.
        """
        folder = self._folder(found)
        if folder is None:
            return Labels({})
        files = {}
        for task, masks in _by_task(folder, self._tasks):
            numbered = _by_frame(masks, source)
            for path in numbered.values():
                _check_size(path, source.info.stored_size)
            if numbered:
                files[task] = numbered
        return Labels(files)

    def unused(self) -> list[str]:
        """Folders of --labels that are of none of the recordings: misspelt, most likely."""
        labels = self._given
        if labels is None or self._is_whole(labels):
            return []
        if any(found.path.resolve().is_relative_to(labels.resolve()) for found in self._recordings):
            return []  # masks lie beside the recordings, and much else may
        wanted: set[Path] = set()
        above: set[Path] = set()
        for found in self._recordings:
            for place in _places(labels, found):
                wanted |= {_plain(place), _plain(place.with_name(f"{place.name}_masks"))}
                above.update(map(_plain, place.parents))
        return [path.relative_to(labels).as_posix() for path in _strange(labels, wanted, above)]

    def unclaimed(self, mask_folders: Sequence[Found]) -> list[Found]:
        """Those of these folders that hold masks of none of the recordings: misnamed."""
        taken = {_spot(folder) for folder in self._beside}
        for found in self._recordings:  # what `vfss simulate --extras` wrote is for no task
            taken.add(_spot(found.path.with_name(f"{_stem(found.path)}_extra_masks")))
        others = (item for item in mask_folders if _spot(item.path) not in taken)
        return [item for item in others if may_be_meant(item.path)]

    def _folder(self, found: Found) -> Path | None:
        if self._given is not None:
            given = self._in_given_folder(self._given, found)
            if given is not None:
                return given
        folder = _masks_beside(found.path)
        if folder is not None and self._beside[folder.absolute()] > 1:
            raise _claimed_twice(
                folder, self._beside[folder.absolute()], "Rename one recording, and its masks."
            )
        return folder

    def _in_given_folder(self, labels: Path, found: Found) -> Path | None:
        name = recording_name(found.path)
        surest, *_ = places = _places(labels, found)
        for place in places:
            candidates = [place.with_name(f"{name}_masks"), place]
            if is_generic(found.path):
                candidates.insert(0, place / "masks")
            folder = _first_there(candidates, labels)
            if folder is None:
                continue
            if (here := self._places[_place(found.path)]) > 1:
                raise _claimed_twice(folder, here, "Rename one recording, and its masks.")
            if place != surest and (namesakes := self._names[plain_name(name)]) > 1:
                remedy = "Put them below the recordings' folders: DIR/<folder>/<name>/."
                raise _claimed_twice(folder, namesakes, remedy)
            return folder
        return labels if self._is_whole(labels) else None

    def _is_whole(self, labels: Path) -> bool:
        """Do the masks of the only recording lie in --labels itself?"""
        return len(self._recordings) == 1 and _looks_like_labels(labels, self._tasks)


def read_mask(path: Path, size: tuple[int, int]) -> NDArray[np.bool_]:
    """One mask as bool (H, W), brought to `size` (height, width) of the square-pixel frames.

    Above 127 is inside: JPEG masks are never exactly 0 and 255. A lossless mask of 0 and 1 is
    taken as it is meant. Raises LabelError for damaged files and for index images.
    """
    try:
        pixels = read_image(path)
    except InputError as error:
        raise LabelError("is no readable mask", file=path, remedy=error.remedy) from error
    brightest = float(pixels.max())
    threshold = float(_THRESHOLD)
    if path.suffix.lower() not in _LOSSY and 0 < brightest <= _THRESHOLD:
        if brightest != 1:
            raise LabelError(
                f"holds values up to {brightest:g}, a mask holds 0 and 255",
                file=path,
                remedy="Export one black-and-white image per task, not an index image.",
            )
        threshold = 0.5
    mask = (pixels > threshold).astype(np.uint8) * 255
    if mask.shape != size:
        mask = cv2.resize(mask, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    result: NDArray[np.bool_] = mask > _THRESHOLD
    return result


def check_frames(labels: Labels, frames: int) -> None:
    """Raises LabelError for a mask on a frame that the recording does not have."""
    for task, frame, path in labels:
        if frame >= frames:
            raise LabelError(
                f"labels frame {frame} of {task}, but the recording has frames 0 to {frames - 1}",
                file=path,
                remedy="Frames count from 0; check that labels and recording belong together.",
            )


def _by_task(folder: Path, tasks: TaskSet) -> Iterator[tuple[str, Sequence[Path]]]:
    subfolders = sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    masks = {path: files for path in subfolders if (files := image_files(path))}
    folders: dict[str, Path] = {}
    unknown = []
    for path in masks:
        task = tasks.find(path.name)
        if task is None:
            unknown.append(path)
        elif (other := folders.setdefault(task.id, path)) != path:
            what = f"two folders of task {task.id}: {other.name} and {path.name}"
            raise LabelError(what, file=folder, remedy="Keep one.")
    if unknown:
        raise _no_tasks(folder, unknown, tasks)
    loose = image_files(folder)
    if masks or not loose:
        yield from ((task_id, masks[path]) for task_id, path in sorted(folders.items()))
    elif len(tasks) == 1:
        yield tasks.ids[0], loose
    else:
        raise LabelError(
            f"masks lie in the folder itself, but the task set has {len(tasks)} tasks",
            file=folder,
            remedy="Put them into one folder per task.",
        )


def _no_tasks(folder: Path, unknown: Sequence[Path], tasks: TaskSet) -> LabelError:
    names = listed([repr(path.name) for path in unknown], between=", ")
    return LabelError(
        f"unknown task{'s' * (len(unknown) > 1)} {names}",
        file=unknown[0] if len(unknown) == 1 else folder,
        remedy=f"{_near(unknown, tasks)}Task set {tasks.name!r} has: {' '.join(tasks.ids)}. "
        "Add what is to be learned to the task set (before the first ingest the YAML file of "
        f"--tasks, later task_set.yaml), and move other folders out of {folder.name}/.",
    )


def _near(unknown: Sequence[Path], tasks: TaskSet) -> str:
    """What folders are called that are misspelt by a letter or two."""
    renames = []
    for path in unknown:
        for task in get_close_matches(path.name.casefold(), tasks.ids, 1):
            renames.append(f"{path.name} to {task}")
    return f"If misspelt, rename {listed(renames, between=', ')}. " if renames else ""


def _by_frame(masks: Sequence[Path], source: FrameSource) -> dict[int, Path]:
    by_name: dict[str, int] = {}
    by_number: dict[int, int] = {}
    numbers: list[int | None] = []
    if isinstance(source, ImageSource):
        by_name = {_key(path): index for index, path in enumerate(source.files)}
        numbers = [_number(path) for path in source.files]
        times = Counter(numbers)
        by_number = {
            number: index
            for index, number in enumerate(numbers)
            if number is not None and times[number] == 1
        }
    frames: dict[int, Path] = {}
    for path in masks:
        frame = by_name.get(_key(path))
        number = _number(path)
        if frame is None and number is None:
            raise LabelError("has no frame number in its name", file=path, remedy="Name it 12.png.")
        if frame is None and number is not None:
            # Where pictures have numbers, a mask's is one of theirs, or nobody knows whose.
            frame = by_number.get(number) if any(n is not None for n in numbers) else number
        if frame is None:
            raise LabelError(
                "labels a frame that does not exist",
                file=path,
                remedy="Give masks the names of their images.",
            )
        if frame in frames:
            raise LabelError(
                f"two masks for one frame: this and {frames[frame].name}",
                file=path,
                remedy="Keep one.",
            )
        frames[frame] = path
    return frames


def _check_size(path: Path, size: tuple[int, int]) -> None:
    try:
        height, width = image_size(path)
    except InputError as error:
        raise LabelError("is no readable mask", file=path, remedy=error.remedy) from error
    if (height, width) != size:
        raise LabelError(
            f"is {width}x{height}, its recording {size[1]}x{size[0]}",
            file=path,
            remedy="Export masks at the size of the original frames.",
        )


def _places(labels: Path, found: Found) -> list[Path]:
    """Where in the folder `labels` those of a recording may lie, the surest first."""
    name = recording_name(found.path)
    home, root = _home(found.path).resolve(), found.root.resolve()
    inside = home.relative_to(root) if home.is_relative_to(root) else Path()
    return list(dict.fromkeys((labels / inside / name, labels / name)))


def _strange(folder: Path, wanted: set[Path], above: set[Path]) -> Iterator[Path]:
    """Folders below that are none of `wanted`, nor lead to one as those `above` do."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.is_dir() or _plain(path) in wanted:
            continue
        if _plain(path) in above:
            yield from _strange(path, wanted, above)
        else:
            yield path


def _claimed_twice(folder: Path, recordings: int, remedy: str) -> LabelError:
    what = f"these labels could belong to {recordings} recordings of one name"
    return LabelError(what, file=folder, remedy=remedy)


def _masks_beside(path: Path) -> Path | None:
    return _first_there(_beside(path), path.parent)


def _beside(path: Path) -> list[Path]:
    befores = [f"{_stem(path)}_", f"{path.name}_"]
    if is_generic(path):
        befores += ["", f"{recording_name(path)}_"]
    names = (f"{before}{masks}" for masks in _MASKS for before in befores)
    return [path.parent / name for name in dict.fromkeys(names)]


def _stem(path: Path) -> str:
    return path.name if path.is_dir() else path.stem


def _spot(folder: Path) -> str:
    """One for all ways to write where a folder is; disks of Macs do not tell a from A."""
    return plain_name((folder.parent.resolve() / folder.name).as_posix()).casefold()


def _first_there(folders: Sequence[Path], top: Path) -> Path | None:
    """The first of `folders` that is there, in whatever Unicode form its name is below `top`."""
    for folder in folders:
        for inside in spellings(folder.relative_to(top).as_posix()):
            if _is_folder(top / inside):
                return top / inside
    return None


def _is_folder(path: Path) -> bool:
    """False for a name that is too long to exist: that of a recording with `_masks` behind it."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _place(path: Path) -> Path:
    """Of a recording: one for those that folder and name do not tell apart."""
    return _plain(_home(path).resolve() / recording_name(path))


def _plain(path: Path) -> Path:
    return Path(plain_name(path.as_posix()))  # a path, for Windows takes a and A for one


def _key(path: Path) -> str:
    """By which a mask finds the image of its name."""
    return plain_name(path.stem).casefold()


def _home(path: Path) -> Path:
    """The folder a recording lies in; `images` folders are their parent's recording."""
    return path.parent.parent if is_generic(path) else path.parent


def _looks_like_labels(folder: Path, tasks: TaskSet) -> bool:
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir() if path.is_dir()}
    return any(map(tasks.find, names)) or bool(not names and image_files(folder))


def _number(path: Path) -> int | None:
    """The last whole number in a file's name."""
    numbers = re.findall(r"\d+", path.stem)
    return int(numbers[-1]) if numbers else None
