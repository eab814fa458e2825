"""Recordings for the tests of intake: each frame carries its number as a barcode of eight bars."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid

HEIGHT, WIDTH = 96, 128
XA = "1.2.840.10008.5.1.4.1.1.12.1"


@dataclass(frozen=True)
class Film:
    """A written recording and the truth about it."""

    path: Path
    times_s: tuple[float, ...]


def write_frames(folder: Path, frames: NDArray[np.uint8]) -> Path:
    """(N, H, W) as a folder of images."""
    folder.mkdir(parents=True)
    for index, grey in enumerate(frames):
        cv2.imwrite(str(folder / f"{index:04d}.png"), grey)
    return folder


def barcode(index: int, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    """Frame `index` (0-255), in Gray code: one bar changes at a time, as little as in a film."""
    code = index ^ index >> 1
    grey = np.full((height, width), 60, np.uint8)
    step = (width - 16) // 8
    for bit in range(8):
        left = 8 + bit * step
        grey[height // 6 : height * 2 // 3, left : left + step] = 200 if code >> bit & 1 else 20
    return grey


def read_barcode(grey: NDArray[np.uint8]) -> int:
    """The number on a frame of any size."""
    height, width = grey.shape
    step = (width - 16 * width / WIDTH) / 8
    columns = [int(8 * width / WIDTH + (bit + 0.5) * step) for bit in range(8)]
    code = sum(1 << bit for bit, x in enumerate(columns) if grey[height * 2 // 5, x] > 110)
    for shift in (4, 2, 1):
        code ^= code >> shift
    return code


def write_film(
    path: Path,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    *,
    frames: int = 40,
    rate: int | Fraction = 25,
    variable: bool = False,
    start: int = 0,
    aspect: Fraction | None = None,
    repeat: int = 1,
    noise: int = 0,
    drawn: Callable[[int], NDArray[np.uint8]] = barcode,
    container_options: dict[str, str] | None = None,
    **options: str,
) -> Film:
    """Encode `frames` barcodes. `variable`: uneven times; `repeat`: each picture so often;
    `start`: frame times by which the first time stamp is late. The times told are from the first.
    `drawn` gives the picture of each number.

    `noise`, in grey levels: MPEG program streams stamp packets, not frames, and without it many
    of these tiny frames share a packet, as those of no real film do.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    base = Fraction(1, 1000) if variable else 1 / Fraction(rate)
    times: list[float] = []
    random = np.random.default_rng(0)
    with av.open(str(path), "w", container_options=container_options) as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        stream.thread_count = 1
        stream.codec_context.time_base = base
        stream.codec_context.options = options
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        stamp = 0
        for index in range(frames):
            grey = drawn(index // repeat)
            grey += random.integers(0, noise + 1, grey.shape, np.uint8)
            picture = av.VideoFrame.from_ndarray(grey, format="gray")
            picture = picture.reformat(format=pixels)
            late = round(start / Fraction(rate) / base)
            picture.pts, picture.time_base = stamp + late, base
            times.append(float(stamp * base))
            stamp += 20 + (index * 37) % 50 if variable else 1
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return Film(path, tuple(times))


def moving(index: int, pixels: float) -> NDArray[np.uint8]:
    """A barcode, and a disc under it that moves so many pixels a frame."""
    grey = barcode(index)
    left = int(10 + pixels * index) % WIDTH
    cv2.circle(grey, (left, HEIGHT * 5 // 6), HEIGHT // 8, 220, -1)
    return grey


def woven(index: int, *, top_first: bool = True) -> NDArray[np.uint8]:
    """Frame `index` of an interlaced film: fields `2 * index` and the next, in every other line.

    Under the barcode a disc moves, a pixel and a half each field.
    """
    fields = [moving(number, 1.5) for number in (2 * index, 2 * index + 1)]
    whole = fields[0] if top_first else fields[1]
    whole[1::2] = (fields[1] if top_first else fields[0])[1::2]
    return whole


def write_talking_film(path: Path, frames: int = 10) -> Path:
    """An MP4 with a second track of sound."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        film: Any = container.add_stream("libx264", rate=25)
        film.width, film.height, film.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sound: Any = container.add_stream("aac", rate=16000)
        for index in range(frames):
            picture = av.VideoFrame.from_ndarray(barcode(index), format="gray")
            container.mux(film.encode(picture.reformat(format="yuv420p")))
            tone = np.sin(np.arange(640, dtype=np.float32) / 5)[None]
            frame = av.AudioFrame.from_ndarray(tone, "fltp", "mono")
            frame.sample_rate = 16000
            container.mux(sound.encode(frame))
        container.mux(film.encode())
        container.mux(sound.encode())
    return path


def write_sound(path: Path) -> None:
    """A file with sound and no pictures."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_images(folder: Path, frames: int = 12, *, first: int = 1, suffix: str = ".png") -> Film:
    """A folder of numbered images."""
    folder.mkdir(parents=True)
    for index in range(frames):
        write_image(folder / f"{first + index:04d}{suffix}", barcode(index))
    return Film(folder, tuple(index / 30 for index in range(frames)))


def write_image(path: Path, grey: NDArray[Any]) -> None:
    """One image, by its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(path.suffix, grey)
    assert done
    path.write_bytes(data.tobytes())


def dicom_header(**tags: Any) -> Dataset:
    """An XA cine of 8-bit frames, without pixels; `tags` are set on top."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = XA
    header.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["vfss"])
    header.SOPClassUID = XA
    header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID
    header.Modality = "XA"
    header.Rows, header.Columns = HEIGHT, WIDTH
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.BitsAllocated = header.BitsStored = 8
    header.HighBit = 7
    header.PixelRepresentation = 0
    for name, value in tags.items():
        setattr(header, name, value)
    return header


def write_dicom(
    path: Path,
    frames: int = 20,
    *,
    pixels: NDArray[Any] | None = None,
    rle: bool = False,
    **tags: Any,
) -> Film:
    """A multi-frame DICOM of barcodes, or of `pixels` (N, H, W) or (N, H, W, 3)."""
    if pixels is None:
        pixels = np.stack([barcode(index) for index in range(frames)])
    header = dicom_header(**{"NumberOfFrames": len(pixels), "FrameTime": "40", **tags})
    header.Rows, header.Columns = pixels.shape[1:3]
    header.PixelData = pixels.tobytes()
    header["PixelData"].VR = "OW" if pixels.dtype.itemsize > 1 else "OB"
    if rle:
        header.compress(RLELossless, generate_instance_uid=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    header.save_as(path, enforce_file_format=True)
    return Film(path, tuple(0.04 * index for index in range(len(pixels))))


def write_dicom_film(path: Path, film: Path, frames: int, **tags: Any) -> None:
    """A DICOM file that holds an MP4 file."""
    header = dicom_header(NumberOfFrames=frames, **tags)
    header.file_meta.TransferSyntaxUID = pydicom.uid.UID("1.2.840.10008.1.2.4.102")
    header.PhotometricInterpretation = "YBR_PARTIAL_420"
    header.SamplesPerPixel = 3
    data = film.read_bytes()
    header.PixelData = encapsulate([data + b"\0" * (len(data) % 2)])
    header["PixelData"].VR = "OB"
    header["PixelData"].is_undefined_length = True
    header.save_as(path, enforce_file_format=True)
