"""The table of label formats: what each can hold, who reads it, who writes it, how it is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ...errors import MALFORMED, LabelError, UsageError, VfssError
from ...workspace import read_json
from ..mask_folders import MANIFEST
from ..source import image_files
from . import coco, cvat, dicom_seg, folders, label_studio, labelme, nnunet, slicer
from .annotations import Annotations, Export, read_json_labels

Reader = Callable[[Path], Annotations]
Writer = Callable[[Export], None]


@dataclass(frozen=True)
class Format:
    """`overlap`: structures that overlap survive. `exact`: masks come back pixel by pixel.

    `pattern`: which files of a folder are label files; empty where the folder itself is read.
    `by_frame`: a file is one frame, so that only all of them together know the labels.
    """

    name: str
    title: str
    read: Reader
    write: Writer | None
    overlap: bool = True
    exact: bool = True
    polygons: bool = False
    pattern: str = ""
    by_frame: bool = False


_ALL = (
    Format("masks", "one folder of PNGs per task", folders.read_masks, folders.write_masks),
    Format(
        "index",
        "index PNGs with labels.json",
        folders.read_index_folder,
        folders.write_index,
        overlap=False,
    ),
    Format("coco", "COCO JSON", coco.read_coco, coco.write_coco, polygons=True, pattern="*.json"),
    Format(
        "cvat-images",
        "CVAT for images 1.1",
        cvat.read_cvat,
        cvat.write_cvat_images,
        polygons=True,
        pattern="*.xml",
    ),
    Format(
        "cvat-video",
        "CVAT for video 1.1",
        cvat.read_cvat,
        cvat.write_cvat_video,
        polygons=True,
        pattern="*.xml",
    ),
    Format(
        "labelme",
        "labelme JSON, a file per frame",
        labelme.read_labelme,
        labelme.write_labelme,
        polygons=True,
        pattern="*.json",
        by_frame=True,
    ),
    Format(
        "label-studio",
        "Label Studio JSON",
        label_studio.read_label_studio,
        label_studio.write_label_studio,
        polygons=True,
        pattern="*.json",
    ),
    Format(
        "slicer",
        "3D Slicer .seg.nrrd",
        slicer.read_slicer,
        slicer.write_slicer,
        pattern="*.nrrd",
    ),
    Format(
        "nnunet",
        "nnU-Net v2 dataset folder",
        nnunet.read_nnunet,
        nnunet.write_nnunet,
        overlap=False,
    ),
    Format("dicom-seg", "DICOM Segmentation", dicom_seg.read_dicom_seg, None, pattern="*.dcm"),
)
FORMATS = {one.name: one for one in _ALL}


def read_labels(path: Path, name: str = "auto") -> tuple[Format, list[Annotations]]:
    """All label files of `path` (a file or a folder), by `name` or by what they look like.

    Raises LabelError when a file is not of its format, UsageError for an unknown format. In a
    folder where others are, such a file is one of the `faults`.
    """
    if not path.exists():
        raise LabelError("no such file or folder", file=path, remedy="Check the path.")
    kind = recognise(path) if name == "auto" else _named(name)
    if path.is_dir() and not kind.pattern:
        return kind, [_read(kind, path)]
    if path.is_file() and not kind.pattern:
        raise LabelError(
            f"is a file; {kind.title} is a folder", file=path, remedy="Give the folder."
        )
    files = _files(path, kind.pattern) if path.is_dir() else [path]
    if not files:
        raise LabelError(f"holds no {kind.title} files", file=path, remedy="Check --format.")
    found = _read_each(kind, files, path)
    if kind.by_frame:
        for label in dict.fromkeys(label for one in found for label in one.labels):
            for one in found:
                one.know(label)
    return kind, found


def recognise(path: Path) -> Format:
    """The format by content. Raises LabelError when it is none of ours."""
    name = _folder_format(path) if path.is_dir() else _file_format(path)
    if name is None:
        raise LabelError(
            "is no label format that is known",
            file=path,
            remedy=f"Name it with --format: {', '.join(FORMATS)}.",
        )
    return FORMATS[name]


def _named(name: str) -> Format:
    if name not in FORMATS:
        raise UsageError(
            f"unknown label format {name!r}", remedy=f"Known: auto, {', '.join(FORMATS)}."
        )
    return FORMATS[name]


def _folder_format(folder: Path) -> str | None:
    if (folder / MANIFEST).is_file():
        name = read_json(folder / MANIFEST).get("format")
        return name if isinstance(name, str) and name in FORMATS else None
    if nnunet.is_nnunet(folder):
        return "nnunet"
    for pattern in ("*.seg.nrrd", "*.xml", "*.json"):
        files = [p for p in _files(folder, pattern) if p.name != folders.LABELS_FILE]
        if files:
            return _first_known(files)
    if (folder / folders.LABELS_FILE).is_file() or image_files(folder):
        return "index"
    return "masks" if any(path.is_dir() for path in folder.iterdir()) else None


def _first_known(files: Iterable[Path]) -> str | None:
    """Of the first file that tells it. Raises LabelError when none does and one is damaged."""
    damaged: LabelError | None = None
    for file in files:
        try:
            if name := _file_format(file):
                return name
        except LabelError as error:
            damaged = damaged or error
    if damaged:
        raise damaged
    return None


def _file_format(path: Path) -> str | None:
    with path.open("rb") as stream:
        head = stream.read(1024)
    suffix = path.suffix.lower()
    if head[128:132] == b"DICM":
        return "dicom-seg"
    if head.startswith(b"NRRD"):
        return "slicer"
    if suffix == ".xml" or head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<"):
        return "cvat-images"
    if suffix != ".json":
        return None
    data = read_json_labels(path)
    for name, fits in (
        ("coco", coco.is_coco),
        ("labelme", labelme.is_labelme),
        ("label-studio", label_studio.is_label_studio),
    ):
        if fits(data):
            return name
    return None


def _read(kind: Format, path: Path) -> Annotations:
    try:
        return kind.read(path)
    except VfssError as error:
        if error.file is not None:
            raise
        raise LabelError(error.what, file=path, remedy=error.remedy) from error
    except OSError as error:
        raise LabelError(
            f"cannot be read: {error.strerror or 'the disk says no more'}",
            file=path,
            remedy="Check the file and its disk.",
        ) from error
    except MALFORMED as error:
        raise LabelError(
            f"is not what {kind.title} files look like",
            file=path,
            remedy="Check --format, or export it again.",
        ) from error


def _read_each(kind: Format, files: Iterable[Path], root: Path) -> list[Annotations]:
    """Raises the first file's error when none can be read."""
    found = []
    for file in files:
        one = Annotations(file, kind.name)
        with one.apart(file.relative_to(root).as_posix()):
            one = _read(kind, file)
        found.append(one)
    faults = [one.faults[0][1] for one in found if one.faults]
    if len(faults) == len(found):
        raise faults[0]
    return found


def _files(folder: Path, pattern: str) -> list[Path]:
    """Label files in a folder and one level below, in order; ours and hidden ones left out."""
    home = folder.resolve()
    both: Iterable[Path] = (*folder.glob(pattern), *folder.glob(f"*/{pattern}"))
    return sorted(
        path
        for path in both
        if path.is_file()
        and path.name != MANIFEST
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.resolve().is_relative_to(home)
    )
