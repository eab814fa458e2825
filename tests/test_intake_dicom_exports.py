"""Cine DICOM: whole exports sorted out, and no word of a header in the workspace."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import generate_uid

from conftest import Cli
from dicom_cine import SHIPPED, films, read
from dicom_files import group, plant_deeper, planted
from ingest_jobs import identities
from intake_films import barcode, dicom_header, read_barcode, write_dicom
from vfss_distill.inference.inputs import find_inputs
from vfss_distill.intake.dicom_acquisition import ALLOWED, acquisition_of
from vfss_distill.intake.source import content_sha256
from vfss_distill.intake.study import list_studies
from vfss_distill.intake.walk import walk
from vfss_distill.workspace import Workspace

# In a process of our own they are silenced, where pydicom is imported.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


class TestExports:
    def test_a_series_of_single_files_is_one_study(self, cli: Cli, tmp_path: Path) -> None:
        """Numbers decide the order, not names; times are each file's own."""
        folder = tmp_path / "export" / "SE1"
        _series(folder, "1.2.3", range(12), name=lambda i: f"IM{(i * 7) % 12:04d}")
        (study,) = _ingest(cli, tmp_path / "export")["studies"]
        stored = list_studies(Workspace(tmp_path))[0]
        assert study["frames"] == 12
        assert [read_barcode(frame.grey) for frame in stored.frames()] == list(range(12))
        assert stored.record.frame_times_s == pytest.approx([0.1 * i for i in range(12)])
        assert stored.record.acquisition["times_from"] == "AcquisitionTime"
        again = _ingest(cli, *sorted(folder.iterdir()))
        assert again["studies"] == [] and len(again["skipped"]) == 1
        assert content_sha256(folder / "IM0005") == stored.record.source_sha256
        words = [str(path) for path in sorted(folder.iterdir())]
        assert len(find_inputs(words, Workspace(tmp_path))[0]) == 1

    def test_two_series_in_one_folder_and_a_copy(self, tmp_path: Path) -> None:
        _series(tmp_path, "1.2.3", range(10), name=lambda i: f"a{i}")
        _series(tmp_path, "1.2.4", range(20, 29), name=lambda i: f"b{i}", clock=False)
        (tmp_path / "copy").write_bytes((tmp_path / "a3").read_bytes())
        left_out: list[Any] = []
        found = walk([tmp_path], left_out=left_out)
        numbers = [[read_barcode(f.grey) for f in read(item.path)] for item in found]
        assert numbers == [list(range(10)), list(range(20, 29))]
        assert [item.found.path.name for item in left_out] == ["copy"]

    def test_order_by_time_without_numbers(self, tmp_path: Path) -> None:
        _series(tmp_path, "1.2.3", range(5), name=lambda i: f"f{9 - i}", InstanceNumber=None)
        (found,) = walk([tmp_path])
        assert [read_barcode(frame.grey) for frame in read(found.path)] == list(range(5))

    def test_a_single_image_joins_no_acquisitions(self, tmp_path: Path) -> None:
        for number, count in ((1, 6), (2, 5), (3, 1)):
            frames = range(10 * number, 10 * number + count)
            name = lambda i, number=number: f"{number}-{i}"  # noqa: E731
            _series(tmp_path, "1.2.3", frames, name=name, AcquisitionNumber=number)
        left_out: list[Any] = []
        found = walk([tmp_path], left_out=left_out)
        seen = [[read_barcode(frame.grey) for frame in read(one.path)] for one in found]
        assert sorted(seen) == [[*range(10, 16)], [*range(20, 25)]]
        assert [one.why for one in left_out] == ["a single image (XA), not a cine run"]

    def test_a_number_of_its_own_for_each_image_parts_none(self, tmp_path: Path) -> None:
        for number in range(9):
            name = lambda _, number=number: f"{number}"  # noqa: E731
            _series(
                tmp_path,
                "1.2.3",
                range(number, number + 1),
                name=name,
                clock=False,
                AcquisitionNumber=number,
            )
        (found,) = walk([tmp_path])
        assert len(read(found.path)) == 9

    def test_grey_without_a_window_is_what_is_stored(self, tmp_path: Path) -> None:
        """As of the same frames in one file; and not spread over their range."""
        _series(tmp_path, "1.2.3", range(5))
        (found,) = walk([tmp_path])
        for number, frame in enumerate(read(found.path)):
            assert np.array_equal(frame.grey, barcode(number))

    def test_a_whole_export(self, cli: Cli, tmp_path: Path) -> None:
        """Runs of two patients among all that such a folder holds; what is no run is listed."""
        root = tmp_path / "export"
        exams = {"A": generate_uid(), "B": generate_uid()}
        for number, (who, exam) in enumerate([("A", "A"), ("A", "A"), ("", "B"), ("", "B")]):
            tags = {"PatientID": who, "StudyInstanceUID": exams[exam]}
            pixels = films(4) + np.uint8(number)
            write_dicom(root / f"ST{number}" / f"SE{number}" / "IM1", pixels=pixels, **tags)
        write_dicom(root / "scout" / "IM1", 1, SeriesInstanceUID="1.9", Modality="CR")
        _series(root / "ct", "1.8", range(6), ImagePositionPatient=True, Modality="CT")
        _series(root / "dx", "1.7", range(3), step_s=60.0, Modality="DX")
        places = [
            group(PlanePositionSequence={"ImagePositionPatient": [0, 0, i]}) for i in range(4)
        ]
        tags = {"PerFrameFunctionalGroupsSequence": Items(places), "Modality": "MR"}
        write_dicom(root / "mr" / "IM1", 4, **tags)
        for name, kind in (("report", "88.11"), ("state", "11.1")):
            document = Dataset()
            document.file_meta = dicom_header().file_meta
            document.SOPClassUID = f"1.2.840.10008.5.1.4.1.1.{kind}"
            document.PatientName = "X"
            (root / name).mkdir()
            document.save_as(root / name / "IM1", enforce_file_format=True)
        result = _ingest(cli, root)
        assert [study["frames"] for study in result["studies"]] == [4] * 4
        assert len({study["patient"] for study in result["studies"]}) == 2
        records = [study.record for study in list_studies(Workspace(tmp_path))]
        pairs = {(record.patient, record.exam) for record in records}
        assert len(pairs) == 2 and all(exam.startswith("e") for _, exam in pairs)
        assert all(item["study"] is None for item in result["skipped"])
        assert {item["input"]: item["why"] for item in result["skipped"]} == {
            "export/scout/IM1": "a single image (CR), not a cine run",
            "export/ct/f0": "6 slices of a volume (CT), not a cine run",
            "export/dx/f0": "3 single images (DX), not a cine run",
            "export/mr/IM1": "slices of a volume (MR), not a cine run",
            "export/report/IM1": "no pictures inside (Basic Text SR Storage)",
            "export/state/IM1": (
                "no pictures inside (Grayscale Softcopy Presentation State Storage)"
            ),
        }
        assert "export/scout/IM1: a single image (CR)" in cli("ingest", root).stdout

    def test_an_exam_is_of_one_patient(self, cli: Cli, tmp_path: Path) -> None:
        """Learnt from a recording that names him, and from what is stored."""
        exams = [generate_uid(), generate_uid()]
        for number, (place, who, exam) in enumerate(
            [("1/named", "A", 0), ("1/other", "", 0), ("2/later", "", 0), ("2/apart", "", 1)]
        ):
            tags = {"PatientID": who, "StudyInstanceUID": exams[exam]}
            write_dicom(tmp_path / place / "IM1", pixels=films(4) + np.uint8(number), **tags)
        first = _ingest(cli, "1")["studies"]
        assert len({study["patient"] for study in first}) == 1
        (tmp_path / "1" / "named" / "IM1").unlink()
        later = {study["patient"] for study in _ingest(cli, "2")["studies"]}
        assert len(later) == 2 and first[0]["patient"] in later
        assert len(_ingest(cli, "2/later", "1", "--force")["studies"]) == 2
        names = {row["source_patient"] for row in identities(tmp_path)}
        assert names == {"A", "apart"}

    def test_an_exam_of_two_patients_is_told(self, cli: Cli, tmp_path: Path) -> None:
        uid = generate_uid()
        for number, who in enumerate(["Anna", "Bert", "Bert"]):
            pixels, tags = films(4) + np.uint8(number), {"StudyInstanceUID": uid}
            write_dicom(tmp_path / "v" / f"{number}.dcm", pixels=pixels, PatientID=who, **tags)
        said = cli("ingest", "v").stderr
        assert said.count("recordings of one DICOM study are taken as of two patients") == 1
        patients = {study.patient for study in list_studies(Workspace(tmp_path))}
        assert len(patients) == 2 and all(patient in said for patient in patients)
        assert "Anna" not in said and "Bert" not in said
        assert "one DICOM study" not in cli("ingest", "v").stderr

    def test_dicomdir_names_what_is_taken(self, cli: Cli, tmp_path: Path) -> None:
        root = tmp_path / "medium"
        write_dicom(root / "dicom" / "im1", 3, PatientID="1")
        write_dicom(root / "dicom" / "im2", pixels=films(5) + np.uint8(1), PatientID="1")
        write_dicom(root / "dicom" / "unlisted", 6, PatientID="2")
        write_dicom(tmp_path / "outside", 6, PatientID="3")
        named = [["DICOM", "IM1"], ["DICOM", "IM2"], ["DICOM", "GONE"], ["..", "outside"]]
        _dicomdir(root / "DICOMDIR", named)
        result = _ingest(cli, root / "DICOMDIR")
        assert [study["frames"] for study in result["studies"]] == [3, 5]
        assert len(_ingest(cli, root)["studies"]) == 1  # the folder holds one more
        _dicomdir(root / "DICOMDIR", [["DICOM", "GONE"]])
        outcome = cli("ingest", root / "DICOMDIR")
        assert outcome.exit_code == 4 and "names no file that is here" in outcome.stderr

    def test_the_export_shipped_with_pydicom(self, cli: Cli) -> None:
        """Seven series of slices and stills of three patients, and not one run."""
        result = _ingest(cli, SHIPPED / "dicomdirtests" / "DICOMDIR")
        assert result["studies"] == [] and result["failed"] == []
        whys = [item["why"] for item in result["skipped"]]
        assert len(whys) == 13 and all("not a cine run" in why for why in whys)

    def test_links_and_cycles(self, tmp_path: Path) -> None:
        secret = write_dicom(tmp_path / "elsewhere" / "secret", 4).path
        _series(tmp_path / "elsewhere", "1.2.3", range(4, 8))
        _series(tmp_path / "in" / "a", "1.2.3", range(4))
        (tmp_path / "in" / "a" / "loop").symlink_to(tmp_path / "in")
        (tmp_path / "in" / "a" / "film").symlink_to(secret)
        (tmp_path / "in" / "a" / "f5").symlink_to(tmp_path / "elsewhere" / "f5")
        (found,) = walk([tmp_path / "in"])
        assert [read_barcode(frame.grey) for frame in read(found.path)] == [0, 1, 2, 3]


class TestPrivacy:
    def test_nothing_of_a_header_is_in_the_workspace(self, cli: Cli, tmp_path: Path) -> None:
        tags = planted()
        assert len(tags) >= 40
        header = dicom_header(NumberOfFrames=3, KVP="71", CineRate="15", **tags)
        plant_deeper(header)
        header.PixelData = films(3).tobytes()
        folder = tmp_path / "recordings" / "Planted Folder"
        folder.mkdir(parents=True)
        header.save_as(folder / "Planted.dcm", enforce_file_format=True)
        _series(folder, "1.2.826.0.1.19470611.9", range(4), **{
            **tags, "SOPInstanceUID": None, "SeriesInstanceUID": "1.2.826.0.1.19470611.9",
        })  # fmt: skip
        room = tmp_path / "room"
        outcome = cli("ingest", folder.parent, "--workspace", room, "--review", "--json")
        assert {item["frames"] for item in json.loads(outcome.stdout)["studies"]} == {3, 4}
        looked = 0
        for path in room.rglob("*"):
            if not path.is_file() or path.name in ("identities.csv", "identities.key"):
                continue
            content = path.read_bytes() + str(path.relative_to(room)).encode()
            for word in (b"lanted", b"LANTED", b"19470611", b"194706", b"4711"):
                assert word not in content, path
            looked += 1
        assert looked > 10
        records = [study.record for study in list_studies(Workspace(room))]
        record = next(record for record in records if record.frames == 3)
        assert record.acquisition["tube_voltage_kv"] == 71
        assert "manufacturer" not in record.acquisition  # no maker we know

    def test_what_is_kept(self) -> None:
        header = dicom_header(
            Manufacturer="SIEMENS Healthineers AG", KVP="70.5", RadiationMode="PULSED",
            FieldOfViewDimensions=[300, 300], PatientOrientation=["A", "F"], ExposureTime="1e12",
            LossyImageCompression="01", ImagerPixelSpacing=[0.15, 0.15],
        )  # fmt: skip
        shared = group(FieldOfViewSequence={"FieldOfViewShape": "ROUND"})
        header.SharedFunctionalGroupsSequence = Items([shared])
        assert acquisition_of(header) == {
            "modality": "XA", "manufacturer": "Siemens", "tube_voltage_kv": 70.5,
            "radiation_mode": "PULSED", "field_of_view_mm": [300, 300], "orientation": ["A", "F"],
            "lossy": True, "imager_pixel_spacing_mm": [0.15, 0.15], "bits_stored": 8,
            "field_of_view_shape": "ROUND",
        }  # fmt: skip

    def test_the_profile_is_a_lock_of_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(ALLOWED, "PatientWeight", ("weight_kg", ALLOWED["KVP"][1]))
        assert acquisition_of(dicom_header(PatientWeight="70")).keys() == {
            "modality",
            "bits_stored",
        }


def _ingest(cli: Cli, *words: object, code: int = 0) -> dict[str, Any]:
    outcome = cli("ingest", *words, "--json")
    assert outcome.exit_code == code, outcome.stderr
    result: dict[str, Any] = json.loads(outcome.stdout)
    return result


def _series(
    folder: Path,
    uid: str,
    numbers: range,
    *,
    name: Any = lambda index: f"f{index}",
    clock: bool = True,
    step_s: float = 0.1,
    **tags: Any,
) -> None:
    """Single-frame files of one series; each frame's barcode is its number."""
    for index, number in enumerate(numbers):
        own: dict[str, Any] = {"InstanceNumber": number, "SeriesInstanceUID": uid} | tags
        own |= {"NumberOfFrames": None, "FrameTime": None, "StudyInstanceUID": uid + ".1"}
        own["SOPInstanceUID"] = f"{uid}.{number + 1}"
        if clock:
            at = datetime(2026, 1, 1, 10) + timedelta(seconds=index * step_s)
            own["AcquisitionTime"] = at.strftime("%H%M%S.%f")
        if own.get("ImagePositionPatient"):
            own["ImagePositionPatient"] = [0, 0, 5 * index]
        write_dicom(folder / name(index), pixels=barcode(number)[None], **own)


def _dicomdir(path: Path, names: list[list[str]]) -> None:
    header = Dataset()
    header.file_meta = dicom_header().file_meta
    header.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    header.FileSetID = "X"
    records = []
    for name in names:
        record = Dataset()
        record.DirectoryRecordType = "IMAGE"
        record.ReferencedFileID = name
        records.append(record)
    header.DirectoryRecordSequence = Items(records)
    header.save_as(path, enforce_file_format=True)
