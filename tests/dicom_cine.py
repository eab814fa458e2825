"""Pixels to store in a cine DICOM, and what is read back of it."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.data
from numpy.typing import NDArray
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from intake_films import barcode
from vfss_distill.intake.dicom import DicomSource
from vfss_distill.intake.source import Frame, open_source

SHIPPED = Path(pydicom.data.__file__).parent / "test_files"
JPEG_BASELINE, JPEG_EXTENDED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
J2K_LOSSLESS, J2K = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"


def films(count: int = 3, bits: int = 8) -> NDArray[Any]:
    """Barcodes, with noise in the bits below the eighth."""
    pixels = np.stack([barcode(index) for index in range(count)])
    if bits == 8:
        return pixels
    noise = np.random.default_rng(0).integers(0, 1 << (bits - 8), pixels.shape)
    return ((pixels.astype(np.uint16) << (bits - 8)) + noise).astype(np.uint16)


def stored(path: Path) -> list[NDArray[Any]]:
    """Stored pixels of all frames, as decoded."""
    return [pixels for _, pixels in DicomSource(path)._decoded()]


def read(path: Path) -> list[Frame]:
    return list(open_source(path).frames())


def deflate(source: Path, target: Path) -> None:
    """`source`, explicit little endian, with its dataset deflated (PS3.5 A.5)."""
    header = pydicom.dcmread(source)
    length = header.file_meta.FileMetaInformationGroupLength
    dataset = source.read_bytes()[132 + 12 + length :]
    header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    with target.open("wb") as stream:
        stream.write(b"\0" * 128 + b"DICM")
        write_file_meta_info(stream, header.file_meta)
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        stream.write(packer.compress(dataset) + packer.flush())
