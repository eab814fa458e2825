"""A DICOM file as it lies on disk: the few header elements we read, and where its pixels are.

Of a header only the elements named here are ever loaded; everything else, names, dates, private
and overlay groups, is stepped over in the file and never in memory.
"""

from __future__ import annotations

import io
import logging
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pydicom
from pydicom.filereader import read_file_meta_info
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from ..errors import InputError, VfssError

MAX_INFLATED = 1 << 30  # bytes a deflated file may grow to; it has to be held in memory

IDENTITY = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
PIXELS = (
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
    *("PlanarConfiguration", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
)
GEOMETRY = (
    *("PixelAspectRatio", "ImagerPixelSpacing", "PixelSpacing", "NominalScannedPixelSpacing"),
    *("ImagePositionPatient",),
)
TONE = (
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "VOILUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "PixelPaddingValue"),
    *(f"{colour}PaletteColorLookupTable{part}" for colour in ("Red", "Green", "Blue")
      for part in ("Descriptor", "Data")),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
)  # fmt: skip
TIME = (
    *("FrameIncrementPointer", "FrameTime", "FrameTimeVector", "ActualFrameDuration"),
    *("CineRate", "RecommendedDisplayFrameRate", "AcquisitionDateTime", "AcquisitionDate"),
    *("AcquisitionTime", "ContentDate", "ContentTime", "TriggerTime"),
)
KIND = ("SOPClassUID", "Modality", "InstanceNumber", "AcquisitionNumber")
GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
NEEDED = (*IDENTITY, *PIXELS, *GEOMETRY, *TONE, *TIME, *KIND)

# What pydicom has to say about bent headers goes to our own warnings or is of no use to a reader.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
warnings.filterwarnings("ignore", category=UserWarning, module=r"pydicom")


def open_dicom(path: Path) -> IO[bytes]:
    """The file, or a deflated one unpacked in memory. Raises InputError: no DICOM, unreadable."""
    try:
        with path.open("rb") as stream:
            head = stream.read(132)
        if head[128:] != b"DICM":
            raise InputError("is no DICOM file", file=path, remedy="Export it again.")
        meta = read_file_meta_info(path)
        if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
            return path.open("rb")
        return _inflated(path, meta)
    except OSError as error:
        raise InputError("cannot be read", file=path, remedy="Check permissions.") from error


def read_header(stream: IO[bytes], names: tuple[str, ...]) -> Any:
    """The elements `names` of the header; `stream` is left at the pixel data, or at its end.

    An element whose value cannot be read counts as not there.
    """
    stream.seek(0)
    header = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=list(names))
    for tag in list(header.keys()):
        try:
            header[tag]  # values are parsed when they are asked for
        except Exception:  # and every type has its own way to fail
            del header[tag]
    return header


def syntax_name(header: Any) -> str:
    """The transfer syntax in words; of one that is no standard one, nothing is repeated."""
    uid = header.file_meta.TransferSyntaxUID
    return str(uid.name) if uid.name != str(uid) else "unknown transfer syntax"


@contextmanager
def damage_as_input_error(path: Path) -> Iterator[None]:
    """pydicom reads values when they are asked for, and raises many kinds on damaged ones."""
    try:
        yield
    except (VfssError, MemoryError):
        raise
    except Exception as error:
        raise InputError(
            "its DICOM header is damaged", file=path, remedy="Export it again."
        ) from error


def _inflated(path: Path, meta: Any) -> IO[bytes]:
    """A deflated file as a plain one (PS3.5 A.5), refused when it grows beyond measure."""
    plain = io.BytesIO()
    plain.write(b"\0" * 128 + b"DICM")
    with path.open("rb") as stream:
        stream.seek(132)
        group_length = stream.read(12)
        if group_length[:6] != b"\x02\x00\x00\x00UL":
            raise ValueError("no group length")  # told as a damaged header
        stream.seek(int.from_bytes(group_length[8:12], "little"), io.SEEK_CUR)
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        write_file_meta_info(plain, meta)
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        while piece := stream.read(1 << 16):
            plain.write(unpacker.decompress(piece, max(MAX_INFLATED - plain.tell(), 1)))
            if plain.tell() >= MAX_INFLATED:
                raise InputError(
                    "grows beyond measure when unpacked",
                    file=path,
                    remedy="Export it with another transfer syntax.",
                )
    return plain
