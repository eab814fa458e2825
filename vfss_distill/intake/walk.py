"""Which recordings lie in the files and folders that a user names, and what else does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import InputError
from .mask_folders import MANIFEST, is_named_so, without_masks
from .source import (
    DICOM_SUFFIXES,
    VIDEO_SUFFIXES,
    Found,
    LeftOut,
    image_files,
    is_dicom,
    natural_key,
)

# Of these folders in a workspace none is a recording.
_OWN_FOLDERS = frozenset({"studies", "results", "cache", "runs", "reports", "weights"})
# On every disk that Windows or Linux has written to: what was deleted, and what nobody may read.
_OF_THE_SYSTEM = frozenset({"$recycle.bin", "recycler", "system volume information", "lost+found"})
A_RESULT = "the overlay of a result, not a recording"
EXPORTED = "labels that `vfss labels export` wrote, not recordings"


def find_sources(inputs: Sequence[Path], *, exclude: Sequence[Path] = ()) -> list[Path]:
    """Recordings under `inputs`, in natural order, each once. See `walk`."""
    return [found.path for found in walk(inputs, exclude=exclude)]


def walk(
    inputs: Sequence[Path],
    *,
    exclude: Sequence[Path] = (),
    left_out: list[LeftOut] | None = None,
    mask_folders: list[Found] | None = None,
    images: bool = True,
) -> list[Found]:
    """Recordings under `inputs`, each with the input it was found under.

    A file given by name is always returned, so that opening it can say what is wrong with it.
    Inside folders: films and DICOM by extension or content; folders that hold images and no film.
    A single image in a folder with recordings below it is none of them (a still, a contact sheet).
    Skipped: hidden names, a disk's bin, `masks`, `labels`, `*_masks`, a workspace's own folders,
    `exclude`, what was seen already. A DICOMDIR stands for the files it names. Of DICOM files only
    cine runs are found (see dicom_series.py). `left_out` gets the DICOM files and single images
    that are no recordings, overlays that `vfss segment` wrote, exported labels, image folders that
    hold masks, and links that lead out of the input or nowhere. `mask_folders` gets those skipped
    by their name. Without `images`, folders of images are passed over. Raises InputError for an
    input that does not exist.
    """
    files = [path.parent for path in inputs if not path.is_dir()]
    common = _common_folder(files)
    seen = {folder.resolve() for folder in exclude}
    found: list[Found] = []
    left_out = [] if left_out is None else left_out
    mask_folders = [] if mask_folders is None else mask_folders
    for path in inputs:
        if not path.exists():
            raise InputError("no such file or folder", file=path, remedy="Check the path.")
        if path.is_dir():
            there = _Walk(path, seen, left_out, mask_folders, images)
            found += [Found(item, path) for item in there.recordings(path)]
        elif path.name.upper() == "DICOMDIR":
            from .dicom_series import listed_files

            listed = [file for file in listed_files(path) if file.resolve() not in seen]
            seen.update(file.resolve() for file in listed)
            found += [Found(file, path.parent) for file in listed]
        elif path.resolve() not in seen:
            seen.add(path.resolve())
            found.append(Found(path, common))
    found, masks = without_masks(found)
    left_out += masks
    if not any(is_dicom(item.path) for item in found):  # pydicom takes a while to import
        return found
    from .dicom_series import sort_out

    found, others = sort_out(found, named=[path for path in inputs if path.is_file()])
    left_out += others
    return found


class _Walk:
    """One walk through the folder `given`, which is `root` without links."""

    def __init__(
        self,
        given: Path,
        seen: set[Path],
        left_out: list[LeftOut],
        mask_folders: list[Found],
        images: bool,
    ) -> None:
        self._given = given
        self._root = given.resolve()
        self._seen = seen
        self._left_out = left_out
        self._mask_folders = mask_folders
        self._images = images

    def recordings(self, folder: Path) -> Iterator[Path]:
        """Those in a folder, `given` itself or one below."""
        if not self._is_new(folder):
            return
        try:
            is_study = (folder / "study.json").is_file()
            entries = sorted(folder.iterdir(), key=natural_key)
        except OSError:
            yield folder  # opening it will say what is wrong
            return
        if is_study:
            yield folder
            return
        if (folder / MANIFEST).is_file():
            self._leave_out(folder, EXPORTED)
            return
        own = _OWN_FOLDERS if (folder / "vfss.yaml").is_file() else frozenset()
        yield from self._among(folder, [e for e in entries if not _is_hidden(e, own)])

    def _among(self, folder: Path, entries: Sequence[Path]) -> Iterator[Path]:
        for entry in filter(_leads_nowhere, entries):
            self._leave_out(entry, "a link that leads nowhere")
        films = [entry for entry in entries if entry.is_file() and _is_film(entry)]
        images = image_files(folder) if self._images and not films else []
        if len(images) > 1:
            yield folder
        for film in films:
            if self._is_new(film):
                yield film
        below = False
        for entry in entries:
            if entry.is_dir() and is_named_so(entry):
                if entry.resolve() not in self._seen:
                    self._mask_folders.append(Found(entry, self._given))
            elif entry.is_dir():
                for item in self.recordings(entry):
                    below = True
                    yield item
        if len(images) == 1 and below:
            self._leave_out(images[0], "a single image, not a recording")
        elif len(images) == 1:
            yield folder

    def _is_new(self, path: Path) -> bool:
        """Whether a file or folder lies in `root`, is no result and comes for the first time."""
        real = path.resolve()
        if real in self._seen:
            return False
        if not real.is_relative_to(self._root):
            self._leave_out(path, "a link that leads out of the folder given")
            return False
        self._seen.add(real)
        if path.name == "overlay.mp4" and path.with_name("run.json").is_file():
            self._leave_out(path, A_RESULT)
            return False
        return True

    def _leave_out(self, path: Path, why: str) -> None:
        self._left_out.append(LeftOut(Found(path, self._given), why))


def _leads_nowhere(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def _is_hidden(path: Path, own: frozenset[str]) -> bool:
    return path.name.startswith(".") or path.name.lower() in _OF_THE_SYSTEM or path.name in own


def _is_film(path: Path) -> bool:
    suffix = path.suffix.lower()
    if path.name.upper() == "DICOMDIR":  # the table of contents of an export, not a recording
        return False
    if suffix in VIDEO_SUFFIXES or suffix in DICOM_SUFFIXES:
        return True
    if suffix and not suffix[1:].isdecimal():  # DICOM names often end in a bare number
        return False
    return is_dicom(path)


def _common_folder(folders: Sequence[Path]) -> Path:
    """The deepest folder that holds all `folders`."""
    if not folders:
        return Path()
    first = folders[0].resolve()
    real = [folder.resolve() for folder in folders]
    for candidate in (first, *first.parents):
        if all(folder.is_relative_to(candidate) for folder in real):
            return candidate
    return first
