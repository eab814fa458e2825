"""DICOM files for the tests: transcoded, put together from coded frames, and full of names."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID

from intake_films import dicom_header

# Made once with codecs that are no dependency of ours, from `ramp()` and `ramp() >> 4`.
_HTJ2K_8 = (  # OpenJPH 0.26
    "|4;u>04YEK0000G0000G00000000000000G0000G0000000000009R90sl|{2mk^A00092QUDA90ssL31q1{@0sm"
    "Y86Cg-XP*6}%P*6}%P*6}vNJ#%=02crOPjF>!N>E53R%LP^FfKASE;BCwkN^q*00000o&W*=lfWg<0Ect{0KgK!6"
    "2K9F<^TtD0L%dgbN~Qj0KgK!6F?FG5hP->0A}(4BUAwV0TTeg6%Yk%0Vn_j{z9EOWdHyYKtP57008Dazjy%n0e=J"
    "lz%2*`uK=$gAP@nAD@C?MPo5HVy&M1l01MO%khS&z4oX|{d-l+qREg2NKL9`o$^a6K*4UZOVBe5D0RPz"
)
_HTJ2K_12 = (  # OpenJPH 0.26
    "|4;u>04YEK0000G0000G00000000000000G0000G0000000000009pH0sl|{2mk^A000XAQUDA90ssL31q1{@0sm"
    "Y86Cj9?kdTm&kdTm&kdTmwh=~7W02crOPjF>!N>E53R%LP^FfKASE;BCwkN^q*00000`~U&}lfVEb7xe`PbN~Rr0"
    "24p}69A<C0ta*e+WZ3tbO68r6%YUgOaK8O0s>M{0K&8Y0<b9nH33Gn0Ob_30Kfnh&;SLc0032hNC1(D7JxuQB)Ek"
    "(mjJ?m1ds$kQUFPkKw|({^p%(ZAPND>B=rE?>9qjB04|mQ0d=qd3w+fC5QHIN8vsZOpAZD%Aixs{RONpeg!j&-g?"
    "yE9HNq=Bec=HSBM4A7E(;bW31Ehx2H*zQz|4S6E&$qK1~4OnF@P*^@nyOeR4VlHn~zlio93uU<S3=0ELzf~wT(IN"
    "^6mXPhTE!suJRxIq)`F?*#"
)
_JPEG_12 = (  # libjpeg-turbo 3.1
    "|JeWF01!$>Nk#wx0RR9200961|JwjV00IF40RaI50RaI50s;a81OoyB0s;jD1Oo&H1qKEN1qKEN2MGuU2MGrT1_%"
    "oX2?`1d3JL}Y3k(Yi3<(Mf3je_X3k(1d01yEI5di<h02TlN0RaF200000000000000B3=RLp04fjw0RjXB0|@{C0"
    "0000000010uciS3K9Sb3?T#)V-_MKDM3b2f$;y@00;pA002J#h?bSz8GHmlmprNwb&$Q72_%8j+xOB?(!rxH;lgF"
    "OV=9zxV2A8rKBIT#<41y(%^8p!Jh%~+IX%cvY?OWjzlVgPrGrLfizURTDuZjm1c@lKIO*g6*#"
)
CODED = {name: base64.b85decode(text) for name, text in (
    ("HTJ2K 8", _HTJ2K_8), ("HTJ2K 12", _HTJ2K_12), ("JPEG 12", _JPEG_12),
)}  # fmt: skip
# What libjpeg-turbo 3.1 decodes from "JPEG 12", which is lossy.
JPEG_12_SHA256 = "c86f9ac3886ed1146a364470cd61e81b4770454d90f868c7bcc87f94bc9d43c4"

PHI = "Planted^Patient"


def ramp() -> NDArray[np.uint16]:
    """The picture of the coded frames above, 12 bits, 16 x 16."""
    y, x = np.mgrid[:16, :16]
    return (400 + 180 * y + 37 * x + (x * y) % 7).astype(np.uint16)


def transcode(source: Path, target: Path, syntax: str) -> Path:
    """Write `source` with another transfer syntax, by GDCM's encoders."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(source))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return target


def write_coded(path: Path, syntax: str, frames: Sequence[bytes], **tags: Any) -> Path:
    """A DICOM file of frames already coded; one item each, with an offset table."""
    return write_fragments(path, syntax, encapsulate(list(frames)), len(frames), **tags)


def write_fragments(path: Path, syntax: str, data: bytes, frames: int, **tags: Any) -> Path:
    """A DICOM file around encapsulated pixel data."""
    header = dicom_header(**{"NumberOfFrames": frames, **tags})
    header.file_meta.TransferSyntaxUID = UID(syntax)
    header.PixelData = data
    header["PixelData"].VR = "OB"
    header["PixelData"].is_undefined_length = True
    path.parent.mkdir(parents=True, exist_ok=True)
    header.save_as(path, enforce_file_format=True, implicit_vr=False, little_endian=True)
    return path


def deep_tags(bits: int = 12, **tags: Any) -> dict[str, Any]:
    """Header of pixels of more than 8 bits."""
    return {"BitsAllocated": 16, "BitsStored": bits, "HighBit": bits - 1, **tags}


def group(**macros: dict[str, Any]) -> Dataset:
    """One item of functional groups: macro → its attributes."""
    item = Dataset()
    for macro, attributes in macros.items():
        inner = Dataset()
        for name, value in attributes.items():
            setattr(inner, name, value)
        setattr(item, macro, Items([inner]))
    return item


def planted() -> dict[str, Any]:
    """PHI in forty and more attributes, in sequences, in private ones, and in the allowed ones."""
    names = (
        *("PatientName", "OtherPatientNames", "ReferringPhysicianName", "OperatorsName"),
        *("PerformingPhysicianName", "NameOfPhysiciansReadingStudy", "PatientBirthName"),
        *("PatientMotherBirthName", "RequestingPhysician", "PhysiciansOfRecord"),
        *("ResponsiblePerson", "ScheduledPerformingPhysicianName", "HumanPerformerName"),
        *("EvaluatorName", "OrderEnteredBy", "ReviewerName", "VerifyingObserverName"),
    )
    words = (
        *("PatientID", "IssuerOfPatientID", "InstitutionName", "InstitutionalDepartmentName"),
        *("StationName", "StudyDescription", "SeriesDescription", "ProtocolName"),
        *("AdmittingDiagnosesDescription", "Occupation", "MedicalAlerts", "Allergies"),
        *("PatientReligiousPreference", "RegionOfResidence", "CountryOfResidence"),
        *("DeviceSerialNumber", "ManufacturerModelName", "RequestedProcedureDescription"),
        *("AcquisitionDeviceProcessingDescription", "ContrastBolusAgent", "SoftwareVersions"),
        *("Manufacturer", "InsurancePlanIdentification", "MilitaryRank", "PatientTelephoneNumbers"),
    )
    texts = (
        *("PatientComments", "AdditionalPatientHistory", "ImageComments", "InstitutionAddress"),
        *("DerivationDescription", "VisitComments", "SpecialNeeds"),
    )
    tags: dict[str, Any] = {name: PHI for name in (*names, *words, *texts)}
    for name in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "PatientBirthDate"):
        tags[name] = "19470611"
    for name in ("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime", "PatientBirthTime"):
        tags[name] = "194706.11"
    tags |= {"AccessionNumber": "PLANTED4711", "StudyID": "PLANTED4711"}
    for number, name in enumerate(("StudyInstanceUID", "SeriesInstanceUID")):
        tags[name] = f"1.2.826.0.1.19470611.{number}"
    # Words that are no words of these attributes, where the allow-list looks.
    tags |= {"RadiationMode": "PLANTED", "ViewPosition": "PLANTED", "FieldOfViewShape": "PLANTED"}
    return tags


def plant_deeper(header: Dataset) -> None:
    """PHI in sequences, private groups, curves and overlays."""
    inner = Dataset()
    inner.PatientName, inner.PatientID, inner.KVP = PHI, PHI, "19470611"
    deeper = Dataset()
    deeper.RequestAttributesSequence = Items([inner])
    header.RequestAttributesSequence = Items([deeper])
    header.OtherPatientIDsSequence = Items([inner])
    shared = group(FrameAnatomySequence={"FrameLaterality": "R"})
    shared.ReferencedPatientSequence = Items([inner])
    header.SharedFunctionalGroupsSequence = Items([shared])
    block = header.private_block(0x0019, PHI, create=True)
    block.add_new(0x01, "LO", PHI)
    block.add_new(0x02, "UN", PHI.encode())
    block.add_new(0x03, "SQ", Items([inner]))
    header.add_new(0x50002500, "LO", PHI)
    header.add_new(0x60000022, "LO", PHI)
    header.add_new(0x60004000, "LT", PHI)
