"""One simulated study to disk: film, masks, truth. Same study, same bytes.

<patient>/<study>.mp4 | .avi | .dcm
<patient>/<study>_masks/<task>/000000.png          0 or 255
<patient>/<study>_extra_masks/<structure>/…        only when asked for
<patient>/<study>_truth.json                       written last: its presence means "complete"
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from ..provenance import document
from ..tasks import VFSS12
from ..workspace import atomic_path, storage_errors, write_json
from .mask_png import png
from .study import SimulatedFrame, StudySimulator

Format = Literal["mp4", "avi", "dicom"]
SUFFIXES: dict[str, str] = {"mp4": ".mp4", "avi": ".avi", "dicom": ".dcm"}

TITLE = "SIMULATED videofluoroscopy, no real patient"

# Where tube, patient and detector of a DICOM stand; the same for all, as in one room of a clinic.
# The picture's scale is that in the patient: at the detector, all is larger by the magnification.
SOURCE_TO_DETECTOR_MM, SOURCE_TO_PATIENT_MM = 1100, 880
MAGNIFICATION = SOURCE_TO_DETECTOR_MM / SOURCE_TO_PATIENT_MM

Grey = NDArray[np.uint8]


class FilmWriter(Protocol):
    def add(self, grey: Grey) -> None: ...


def write_study(
    simulator: StudySimulator,
    folder: Path,
    *,
    patient: str,
    study: str,
    seed: int,
    kind: Format = "mp4",
    label_every: int = 1,
    extras: bool = False,
) -> dict[str, Any]:
    """Write film, masks of every `label_every`-th frame and truth into `folder`; returns the truth.

    Raises StorageError on a full or read-only disk.
    """
    film = folder / f"{study}{SUFFIXES[kind]}"
    names = [*VFSS12.ids]
    masks = _MaskWriter(folder / f"{study}_masks")
    extra_masks = _MaskWriter(folder / f"{study}_extra_masks")
    with film_writer(film, kind, simulator, patient, study) as writer:
        for frame in simulator.frames():
            writer.add(frame.grey)
            if frame.index % label_every == 0:
                masks.add(frame, names)
                if extras:
                    extra_masks.add(frame, [name for name in frame.masks if name not in names])
    truth = truth_document(simulator, patient=patient, study=study, seed=seed, film=film.name)
    write_json(folder / f"{study}_truth.json", truth)
    return truth


def truth_document(
    simulator: StudySimulator, *, patient: str, study: str, seed: int, film: str
) -> dict[str, Any]:
    truth = simulator.truth()
    record = simulator.patient
    body = {
        "simulated": True,
        "patient": patient,
        "study": study,
        "film": film,
        "seed": seed,
        "size": [simulator.screen.width, simulator.screen.height],
        "fps": simulator.options.fps,
        "pulses_per_s": simulator.pulses,
        "frame_times_s": list(simulator.frame_times_s),
        "facing": simulator.facing,
        "polarity": simulator.machine.polarity,
        "mm_per_px": round(1 / simulator.view.px_per_mm, 6),
        "events": truth.events,
        "swallows": truth.swallows,
        "measures": truth.measures,
        "findings": truth.findings,
        "subject": {
            "age_years": record.age_years,
            "sex": record.sex,
            "teeth": record.teeth,
            "plate": record.plate is not None,
            "earring": record.earring,
            "tube": record.tube,
            "fillings": record.fillings,
        },
        "landmarks": {
            name: [[round(float(x), 3), round(float(y), 3)] for x, y in points]
            for name, points in truth.landmarks.items()
        },
    }
    return document(body, created=False)


class _MaskWriter:
    """`folder`/<structure>/000000.png; a mask that is shown again is packed once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._last: dict[str, tuple[NDArray[np.bool_], bytes]] = {}

    def add(self, frame: SimulatedFrame, names: list[str]) -> None:
        with storage_errors(self._folder):
            for name in names:
                if name not in self._last:
                    (self._folder / name).mkdir(parents=True, exist_ok=True)
                target = self._folder / name / f"{frame.index:06d}.png"
                target.write_bytes(self._packed(name, frame.masks[name]))

    def _packed(self, name: str, mask: NDArray[np.bool_]) -> bytes:
        before = self._last.get(name)
        if before is not None and before[0] is mask:
            return before[1]
        packed = png(mask)
        self._last[name] = mask, packed
        return packed


@contextmanager
def film_writer(
    target: Path, kind: str, simulator: StudySimulator, patient: str, study: str
) -> Iterator[FilmWriter]:
    """The film appears under its name only when complete."""
    with atomic_path(target) as temporary:
        if kind == "dicom":
            dicom = _DicomWriter(temporary, simulator, patient, study)
            yield dicom
            dicom.close()
        else:
            with _VideoWriter(temporary, kind, simulator) as video:
                yield video


class _VideoWriter:
    """H.264 in MP4 or motion JPEG in AVI; one thread and no time stamps, for equal bytes."""

    def __init__(self, path: Path, kind: str, simulator: StudySimulator) -> None:
        import av

        self._av = av
        options = {"movflags": "+faststart"} if kind == "mp4" else {}
        self._container = av.open(
            str(path), "w", format=kind, options=options, container_options={"fflags": "+bitexact"}
        )
        self._container.metadata["title"] = TITLE
        rate = Fraction(simulator.options.fps).limit_denominator(1001)
        height, width = simulator.options.shape
        if kind == "mp4":
            stream = self._container.add_stream("libx264", rate=rate)
            stream.pix_fmt = "yuv420p"
            # Twice as fast as "veryfast", and without its macroblock tree, which on small pictures
            # reads memory that was never written: equal frames then gave unequal bytes.
            stream.options = {"crf": "19", "preset": "superfast", "threads": "1"}
            # Without arithmetic coding: the same pictures in three quarters of the time, and files
            # an eighth larger.
            stream.options |= {"x264-params": "mbtree=0:cabac=0"}
        else:
            stream = self._container.add_stream("mjpeg", rate=rate)
            stream.pix_fmt = "yuvj420p"
            stream.options = {"qscale": "3", "qmin": "2", "qmax": "4", "threads": "1"}
        # The chroma planes need even sides; an odd picture is padded by a line of black.
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = 1 / rate
        self._stream, self._count, self._full = stream, 0, kind == "avi"
        # One grey plane and two of colour, which stay without any.
        self._planes = np.full((stream.height * 3 // 2, stream.width), 128, np.uint8)

    def __enter__(self) -> _VideoWriter:
        return self

    def add(self, grey: Grey) -> None:
        h, w = grey.shape
        if (h, w) != (self._stream.height, self._stream.width):
            grey = np.pad(grey, ((0, h % 2), (0, w % 2)))
        if not self._full:  # H.264 is read as limited range: 16 … 235
            grey = cv2.LUT(grey, _LIMITED)
        self._planes[: grey.shape[0]] = grey
        frame = self._av.VideoFrame.from_ndarray(
            self._planes, format="yuvj420p" if self._full else "yuv420p"
        )
        frame.pts = self._count
        frame.time_base = self._stream.codec_context.time_base
        self._count += 1
        self._container.mux(self._stream.encode(frame))

    def __exit__(self, *failure: object) -> None:
        if failure[0] is None:
            self._container.mux(self._stream.encode(None))
        self._container.close()


_LIMITED = np.round(16 + np.arange(256) * 219 / 255).astype(np.uint8)


class _DicomWriter:
    """Multi-frame X-Ray Angiographic Image Storage, 8 bit, uncompressed, with FrameTime."""

    def __init__(self, path: Path, simulator: StudySimulator, patient: str, study: str) -> None:
        self._path, self._simulator = path, simulator
        self._patient, self._study = patient, study
        self._frames: list[bytes] = []

    def add(self, grey: Grey) -> None:
        self._frames.append(grey.tobytes())

    def close(self) -> None:
        from pydicom.dataset import FileDataset, FileMetaDataset
        from pydicom.uid import ExplicitVRLittleEndian, XRayAngiographicImageStorage

        def uid(part: str) -> str:
            # 2.25.<integer>: a UID that needs no registered root (PS3.5 B.2), from a digest.
            digest = hashlib.sha256(f"vfss/{self._patient}/{self._study}/{part}".encode())
            return f"2.25.{int.from_bytes(digest.digest()[:15], 'big')}"

        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = XRayAngiographicImageStorage
        meta.MediaStorageSOPInstanceUID = uid("instance")
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.ImplementationClassUID = "2.25.302043790172249692526321623266752743501"
        data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        height, width = self._simulator.options.shape
        spacing = f"{MAGNIFICATION / self._simulator.view.px_per_mm:.6f}"
        values: dict[str, Any] = {
            "SpecificCharacterSet": "ISO_IR 100",
            "ImageType": ["DERIVED", "PRIMARY", "SINGLE PLANE"],
            "SOPClassUID": XRayAngiographicImageStorage,
            "SOPInstanceUID": uid("instance"),
            "StudyInstanceUID": uid("study"),
            "SeriesInstanceUID": uid("series"),
            "StudyDate": "20000101",
            "StudyTime": "000000",
            "Modality": "XA",
            "Manufacturer": "SIMULATED",
            "PatientName": f"SIMULATED^{self._patient}",
            "PatientID": self._patient,
            "PatientBirthDate": "",
            "PatientSex": "F" if self._simulator.patient.sex == "female" else "M",
            "StudyID": self._study[:16],
            "SeriesNumber": 1,
            "InstanceNumber": 1,
            "StudyDescription": TITLE,
            "SeriesDescription": "SIMULATED lateral swallow",
            "FrameTime": f"{1000 / self._simulator.options.fps:.6f}",
            "CineRate": round(self._simulator.options.fps),
            "ImagerPixelSpacing": [spacing, spacing],
            "DistanceSourceToDetector": SOURCE_TO_DETECTOR_MM,
            "DistanceSourceToPatient": SOURCE_TO_PATIENT_MM,
            "EstimatedRadiographicMagnificationFactor": MAGNIFICATION,
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "NumberOfFrames": len(self._frames),
            "Rows": height,
            "Columns": width,
            "BitsAllocated": 8,
            "BitsStored": 8,
            "HighBit": 7,
            "PixelRepresentation": 0,
            "PixelIntensityRelationship": "LOG",
            "BurnedInAnnotation": "YES" if self._simulator.furniture.texts else "NO",
        }
        for keyword, value in values.items():
            setattr(data, keyword, value)
        data.FrameIncrementPointer = 0x00181063
        pixels = b"".join(self._frames)
        data.PixelData = pixels + b"\0" * (len(pixels) % 2)
        data["PixelData"].VR = "OB"
        data.save_as(self._path, enforce_file_format=True)
