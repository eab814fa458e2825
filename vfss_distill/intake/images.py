"""A folder of numbered images, read as one recording.

Read with Pillow, not OpenCV: it refuses an image that breaks off, where OpenCV returns half of it
in grey and prints to stderr.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import MALFORMED, InputError
from .source import ASSUMED, ASSUMED_FPS, Frame, SourceInfo, check_size, image_files

# Pillow goes by a file's content, not by its name, and starts Ghostscript for what is PostScript.
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
# What it raises of a damaged one.
_UNREADABLE = (
    *(OSError, SyntaxError, EOFError, RuntimeError, struct.error, Image.DecompressionBombError),
    *MALFORMED,
)
_SAMPLED = 9  # images looked at to scale pixels of more than 8 bits


@dataclass
class ImageSource:
    """Images of one folder in natural order; images have no time, so `fps` gives it.

    All images must have one size. More than 8 bits are scaled by one range for the whole folder.
    Raises InputError: no images, a damaged image, sizes that differ.
    """

    path: Path
    fps: float | None = None
    _files: list[Path] = field(init=False)
    _info: SourceInfo = field(init=False)

    def __post_init__(self) -> None:
        try:
            self._files = image_files(self.path)
        except OSError as error:
            raise InputError(
                f"cannot be read ({error.strerror})", file=self.path, remedy="Check permissions."
            ) from error
        if not self._files:
            raise InputError(
                "holds no images", file=self.path, remedy="Give a folder of PNG or JPEG frames."
            )
        said: tuple[str, ...] = ()
        if self.fps is None:
            said = (
                f"images carry no time; {ASSUMED_FPS:g} {ASSUMED}, set it with `vfss ingest --fps`",
            )
        self._info = SourceInfo(
            kind="images",
            codec=self._files[0].suffix.lower().lstrip("."),
            declared_frames=len(self._files),
            nominal_fps=self.fps or ASSUMED_FPS,
            warnings=said,
            stored_size=image_size(self._files[0]),
        )

    @property
    def info(self) -> SourceInfo:
        return self._info

    @property
    def files(self) -> tuple[Path, ...]:
        """The images, in the order of their frame indices."""
        return tuple(self._files)

    def frames(self) -> Iterator[Frame]:
        rate = self._info.nominal_fps or ASSUMED_FPS
        scale: tuple[float, float] | None = None
        for index, file in enumerate(self._files):
            pixels = read_image(file)
            if pixels.shape != self._info.stored_size:
                height, width = pixels.shape
                first_height, first_width = self._info.stored_size
                raise InputError(
                    f"is {width}x{height}, the first image is {first_width}x{first_height}",
                    file=file,
                    remedy="Keep one recording to a folder, all images of one size.",
                )
            if pixels.dtype != np.uint8:
                scale = scale or self._range()
                pixels = _to_8_bit(pixels, scale)
            yield Frame(index, index / rate, pixels)

    def _range(self) -> tuple[float, float]:
        chosen = np.linspace(0, len(self._files) - 1, min(_SAMPLED, len(self._files))).astype(int)
        sample = np.concatenate([read_image(self._files[i])[::4, ::4].ravel() for i in chosen])
        low, high = np.percentile(sample, (0.5, 99.5))
        least = 1.0 if sample.dtype.kind in "iu" else 1e-6
        return float(low), float(max(high, low + least))


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) from the header alone. Raises InputError."""
    with opened(path) as image:
        return image.height, image.width


def read_image(path: Path) -> NDArray[Any]:
    """Grey (H, W): uint8, or uint16 / int32 / float32 for deeper images. Raises InputError."""
    with opened(path) as image:
        deep = image.mode.startswith(("I", "F"))
        return np.asarray(image if deep or image.mode == "L" else image.convert("L"))


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """The image by Pillow. InputError when it, or reading its pixels in here, shows a damaged file,
    one of another format or of several pages, or far too large a one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes, and of what it raises anyway
            with Image.open(path, formats=_FORMATS) as image:
                check_size(image.height, image.width, path)
                _check_pages(image, path)
                yield image
    except _UNREADABLE as error:
        raise InputError(
            "is no readable image",
            file=path,
            remedy="Export it again, or take it out of the folder.",
        ) from error


def _check_pages(image: Image.Image, path: Path) -> None:
    """Only of the first page would anything be seen; JPEGs may well hold a thumbnail besides."""
    pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
    if pages > 1:
        raise InputError(
            f"holds {pages} pages", file=path, remedy="Export one image for each frame."
        )


def _to_8_bit(pixels: NDArray[Any], scale: tuple[float, float]) -> NDArray[np.uint8]:
    low, high = scale
    return np.clip((pixels - low) * (255.0 / (high - low)) + 0.5, 0, 255).astype(np.uint8)
