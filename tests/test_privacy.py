"""Names planted wherever a recording can hold them; everything we write is searched for them.

Fifty studies, and the figures of docs/privacy.md:

    python -m pytest tests/test_privacy.py -m slow -s
"""

from __future__ import annotations

import csv
import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from conftest import Cli
from intake_films import dicom_header
from vfss_distill.intake.source import open_source
from vfss_distill.intake.study import Study
from vfss_distill.simulate import SimulateOptions, simulate_study
from vfss_distill.simulate.population import POPULATIONS

Film = NDArray[np.uint8]
KINDS = ("dicom", "mp4", "mkv", "avi", "mov", "images")
SIZE, FRAMES = 512, 16
KEY = "fedcba9876543210" * 4 + "\n"

PLACES = [(x, y) for y in (0.03, 0.35, 0.65, 0.97) for x in (0.02, 0.5, 0.98)]
HEIGHTS = (12, 16, 22, 30)  # of capitals, in pixels
WORDS = ("MUELLER^ANNA", "Jane Roe", "12.03.1951", "ID 4711-0815", "SMITH, JOHN", "F 1948-02-29")
FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX)

TEXT_TAGS = (
    *("PatientName", "PatientID", "OtherPatientIDs", "OtherPatientNames", "PatientBirthName"),
    *("PatientMotherBirthName", "PatientAddress", "PatientTelephoneNumbers", "CountryOfResidence"),
    *("RegionOfResidence", "EthnicGroup", "Occupation", "AdditionalPatientHistory", "Allergies"),
    *("PatientComments", "MedicalAlerts", "MilitaryRank", "BranchOfService", "AdmissionID"),
    *("PatientReligiousPreference", "ReferringPhysicianName", "ReferringPhysicianAddress"),
    *("PerformingPhysicianName", "NameOfPhysiciansReadingStudy", "OperatorsName", "StudyID"),
    *("PhysiciansOfRecord", "RequestingPhysician", "InstitutionName", "InstitutionAddress"),
    *("InstitutionalDepartmentName", "StationName", "AccessionNumber", "StudyDescription"),
    *("SeriesDescription", "ProtocolName", "DeviceSerialNumber", "ImageComments"),
    *("CurrentPatientLocation", "RequestedProcedureDescription", "DerivationDescription"),
)
DATE_TAGS = ("PatientBirthDate", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")
UID_TAGS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")


@dataclass(frozen=True)
class Written:
    """Words drawn into a film: what, and which pixels."""

    words: str
    pixels: NDArray[np.bool_]


class Secrets:
    """Words no recording would hold by chance; each is planted once and remembered."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def word(self) -> str:
        """Ten letters: they fit the shortest value representation."""
        number = len(self.words)
        letters = "".join(chr(ord("a") + (number // 26**place) % 26) for place in (2, 1, 0))
        self.words.append(f"Quix{letters}wor")
        return self.words[-1]

    def date(self) -> str:
        number = len(self.words)
        self.words.append(f"{1921 + number % 60}{number % 12 + 1:02d}{number % 28 + 1:02d}")
        return self.words[-1]


@functools.cache
def plain(number: int) -> Film:
    """A simulated swallow without text, uint8 (16, 512, 512)."""
    ranges = replace(POPULATIONS["train"], text_share=0.0, compression_share=0.0)
    options = SimulateOptions(size=SIZE, frames=FRAMES, fps=8, ranges=ranges, extras=False)
    return simulate_study(9100 + number, 0, options).frames


def written(film: Film, number: int, count: int = 3) -> tuple[Film, list[Written]]:
    """`film` with `count` strings; twelve studies have every place at every size."""
    film, before = film.copy(), film.mean(axis=0)
    rng = np.random.default_rng(number)
    done: list[Written] = []
    taken = np.zeros(film.shape[1:], bool)
    for turn in range(count):
        place = (5 * (number * count + turn)) % len(PLACES)
        tall = HEIGHTS[(number + turn) % len(HEIGHTS)]
        words, font = WORDS[(number + 2 * turn) % len(WORDS)], FONTS[int(rng.integers(len(FONTS)))]
        scale = tall / cv2.getTextSize("H", font, 1, 1)[0][1]
        (wide, high), low = cv2.getTextSize(words, font, scale, 1)
        x = int(np.clip(PLACES[place][0] * (SIZE - wide), 6, SIZE - wide - 6))
        y = int(np.clip(PLACES[place][1] * SIZE + high / 2, high + 6, SIZE - low - 6))
        mask = np.zeros(film.shape[1:], np.uint8)
        cv2.putText(mask, words, (x, y), font, scale, 255, 1 + (tall >= 16), cv2.LINE_AA)
        pixels = mask > 100
        boxed = bool(rng.random() < 0.5)
        seen = pixels if boxed else pixels & (before < 200)
        if (taken & cv2.dilate(mask, np.ones((9, 41), np.uint8)).astype(bool)).any():
            continue
        if seen.sum() < 0.8 * pixels.sum():
            continue  # white on white: nobody can read it
        for frame in film:
            if boxed:
                cv2.rectangle(frame, (x - 4, y - high - 4), (x + wide + 4, y + low + 4), 0, -1)
            cv2.putText(frame, words, (x, y), font, scale, 255, 1 + (tall >= 16), cv2.LINE_AA)
        taken |= pixels
        done.append(Written(words, pixels))
    return film, done


def write_named_dicom(path: Path, film: Film, secret: Secrets) -> None:
    """Names in forty tags, in sequences, in private tags, in an overlay and its description."""
    header = dicom_header(NumberOfFrames=len(film), FrameTime="40")
    header.Rows, header.Columns = film.shape[1:]
    for tag in TEXT_TAGS:
        setattr(header, tag, secret.word())
    for tag in DATE_TAGS:
        setattr(header, tag, secret.date())
    for tag in UID_TAGS:
        setattr(header, tag, f"1.2.826.{secret.date()}.{secret.date()}")
    inner = Dataset()
    inner.PatientName, inner.RequestedProcedureDescription = secret.word(), secret.word()
    header.RequestAttributesSequence = [inner]
    for group in (0x0009, 0x0029):
        block = header.private_block(group, secret.word(), create=True)
        block.add_new(0x01, "LO", secret.word())
        block.add_new(0x02, "UN", secret.word().encode("utf-16-le"))
        block.add_new(0x03, "SQ", [inner])
    drawn = np.zeros(film.shape[1:], np.uint8)
    cv2.putText(drawn, WORDS[0], (60, 250), FONTS[0], 1.2, 1, 3)
    header.add_new(0x60000010, "US", drawn.shape[0])
    header.add_new(0x60000011, "US", drawn.shape[1])
    header.add_new(0x60000022, "LO", secret.word())
    header.add_new(0x60000040, "CS", "G")
    header.add_new(0x60000050, "SS", [1, 1])
    header.add_new(0x60000100, "US", 1)
    header.add_new(0x60000102, "US", 0)
    header.add_new(0x60001500, "LO", secret.word())
    header.add_new(0x60003000, "OW", np.packbits(drawn, bitorder="little").tobytes())
    header.PixelData = film.tobytes() + secret.word().encode()  # and behind the last frame
    header["PixelData"].VR = "OB"
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.PrivateInformationCreatorUID = f"1.2.3.{secret.date()}"
    header.file_meta.PrivateInformation = secret.word().encode()
    header.save_as(path, enforce_file_format=True)


def write_named_film(path: Path, film: Film, secret: Secrets) -> None:
    """Names in the metadata of container, picture and sound."""
    codec, pixels = ("mjpeg", "yuvj420p") if path.suffix == ".avi" else ("libx264", "yuv420p")
    with av.open(str(path), "w") as container:
        for tag in ("title", "artist", "comment", "author", "description", "copyright", "album"):
            container.metadata[tag] = secret.word()
        stream: Any = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = film.shape[2], film.shape[1], pixels
        stream.thread_count = 1
        stream.options = {"crf": "16"} if codec == "libx264" else {"qmin": "2", "qmax": "3"}
        stream.metadata["title"] = stream.metadata["handler_name"] = secret.word()
        sound: Any = container.add_stream("pcm_s16le" if path.suffix != ".mp4" else "aac", 16000)
        sound.metadata["title"] = secret.word()
        for frame in film:
            picture = av.VideoFrame.from_ndarray(frame, format="gray").reformat(format=pixels)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
        spoken = (np.sin(np.arange(4096) / 7) * 9000).astype(np.int16)[None]
        heard = av.AudioFrame.from_ndarray(spoken, "s16", "mono")
        heard.sample_rate = 16000
        container.mux(sound.encode(heard))
        container.mux(sound.encode())


def write_named_images(folder: Path, film: Film, secret: Secrets) -> None:
    """Names in the text chunks of PNG files and in their own names."""
    from PIL import Image, PngImagePlugin

    folder.mkdir(parents=True)
    who = secret.word()
    for index, frame in enumerate(film):
        notes = PngImagePlugin.PngInfo()
        notes.add_text("Author", who)
        notes.add_itxt("Comment", who, zip=False)
        Image.fromarray(frame).save(folder / f"{who} {index:04d}.png", pnginfo=notes)


@dataclass(frozen=True)
class Clinic:
    """A folder of recordings full of names, and where which words are burned in."""

    folder: Path
    secret: Secrets
    films: dict[Path, list[Written]]


def clinic(root: Path, studies: int, bases: int, *, frames: int = FRAMES) -> Clinic:
    secret, films = Secrets(), {}
    for number in range(studies):
        film, words = written(plain(number % bases)[:frames], number)
        place = root / "exports" / f"{secret.word()}, {secret.word()} {secret.date()}"
        place.mkdir(parents=True)
        name, kind = f"{secret.word()}_{number}", KINDS[number % len(KINDS)]
        if kind == "images":
            path = place / name
            write_named_images(path, film, secret)
        elif kind == "dicom":
            path = place / f"{name}.dcm"
            write_named_dicom(path, film, secret)
        else:
            path = place / f"{name}.{kind}"
            write_named_film(path, film, secret)
        done, label = cv2.imencode(".png", np.zeros(film.shape[1:], np.uint8))
        assert done
        masks = place / f"{name}_masks" / "c3"
        masks.mkdir(parents=True)
        (masks / f"{3:06d}.png").write_bytes(label.tobytes())
        films[path] = words
    return Clinic(root / "exports", secret, films)


_PLANTED = re.compile(rb"quix[a-z]{3}wor|(?=(19[2-8]\d{5}))")  # the shapes of all our words


def found_in(files: Iterator[Path], root: Path, words: Sequence[str]) -> set[str]:
    """Those of `words` that stand in a file's name or bytes, in any case, in UTF-8 or UTF-16."""
    sought = {word.lower().encode(): word for word in words}
    others = [word for word in sought if not _PLANTED.match(word)]
    found = set()
    for path in files:
        data = path.relative_to(root).as_posix().lower().encode() + b" "
        if path.is_file():
            data += path.read_bytes().lower()
        for text in (data, data.replace(b"\0", b"")):
            hits = {match.group(1) or match.group() for match in _PLANTED.finditer(text)}
            found |= {sought[hit] for hit in hits if hit in sought}
            found |= {sought[word] for word in others if word in text}
    return found


def read_aloud(grey: NDArray[np.uint8]) -> str:
    """The words that tesseract reads in a picture, at twice its size: letters, digits, spaces.

    The spaces stay: from speckle it reads single letters, and in a row these make any name."""
    big = cv2.resize(grey, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frame.png"
        path.write_bytes(cv2.imencode(".png", big)[1].tobytes())
        command = ["tesseract", str(path), "-", "--psm", "11"]
        limits = {**os.environ, "OMP_THREAD_LIMIT": "1"}
        said = subprocess.run(command, capture_output=True, text=True, check=True, env=limits)
    return re.sub(r"[^a-z0-9\s]", "", said.stdout.lower())


def readable(text: str, words: Sequence[str]) -> list[str]:
    """Those of `words` of which four letters in a row were read as one word."""
    plain_words = {word: re.sub(r"[^a-z0-9]", "", word.lower()) for word in words}
    return [
        word
        for word, letters in plain_words.items()
        if any(letters[i : i + 4] in text for i in range(len(letters) - 3))
    ]


def last_frame(path: Path) -> NDArray[np.uint8]:
    with av.open(str(path)) as container:
        assert not container.streams.audio
        return [frame.to_ndarray(format="gray") for frame in container.decode(video=0)][-1]


def ingested(cli: Cli, root: Path) -> Path:
    """A workspace with all that we write: studies, review, results, a report, exported labels."""
    lab = root / "lab"
    lab.mkdir()
    (lab / "identities.key").write_text(KEY)
    (lab / "identities.key").chmod(0o600)
    for words in (
        ("ingest", root / "exports", "--review", "-w", lab),
        ("segment", "--split", "all", "--threads", "1", "-w", lab),
        ("report", "-w", lab),
        ("labels", "export", lab / "out", "--format", "coco", "-w", lab),
        ("labels", "check", "-w", lab),
    ):
        outcome = cli(*words, cwd=root)
        assert outcome.exit_code in (0, 4 if words[1] == "check" else 0), outcome.stderr
    return lab


def nothing_is_left(cli: Cli, root: Path, made: Clinic) -> None:
    lab = ingested(cli, root)
    planted = found_in(made.folder.rglob("*"), root, made.secret.words)
    assert len(planted) > 0.9 * len(made.secret.words)  # not every container takes every tag
    words = [*planted, str(root)]
    links = [lab / "identities.csv", lab / "identities.key"]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in links)
    assert found_in(iter(links), lab, words), "the table links pseudonyms to sources"
    everything = [path for path in lab.rglob("*") if path not in links]
    assert len(everything) > 20 * len(made.films)
    assert found_in(iter(everything), lab, words) == set()
    for path in lab.glob("studies/*/frames/*.png"):
        chunks = set(re.findall(rb"tEXt|zTXt|iTXt|eXIf", path.read_bytes()[:200]))
        assert not chunks


@dataclass(frozen=True)
class Reading:
    """Strings burned in, and how many a program reads: in the films, in what is made of them."""

    strings: int
    read: int
    read_in_studies: list[str]
    read_in_overlays: list[str]
    covered: int  # strings of whose pixels 99 % and more are black on all frames


def read_all(cli: Cli, root: Path, made: Clinic) -> Reading:
    """Ingest, and segment the raw films besides; let tesseract look at both."""
    lab, raw = root / "lab", root / "raw"
    if not lab.exists():
        cli("ingest", root / "exports", "-w", lab, cwd=root)
    outcome = cli("segment", root / "exports", "--no-masks", "--threads", "1", "-w", raw, cwd=root)
    assert outcome.exit_code == 0, outcome.stderr
    overlays = {path.parent.parent.name: path for path in raw.glob("results/*/*/overlay.mp4")}
    counts = {"strings": 0, "read": 0, "covered": 0}
    studies, films = [], []
    for path, study in ingested_from(lab):
        strings = made.films[path]
        words = [string.words for string in strings]
        middle = list(open_source(path).frames())[FRAMES // 2].grey
        counts["strings"] += len(words)
        counts["read"] += len(readable(read_aloud(middle), words))
        studies += readable(read_aloud(study.read_frame(FRAMES // 2)), words)
        overlay = overlays[f"s-{study.record.source_sha256[:10]}"]
        films += readable(read_aloud(last_frame(overlay)), words)
        dark = np.stack([frame.grey == 0 for frame in study.frames()]).all(axis=0)
        counts["covered"] += sum(float(dark[s.pixels].mean()) >= 0.99 for s in strings)
    return Reading(**counts, read_in_studies=studies, read_in_overlays=films)


def ingested_from(lab: Path) -> Iterator[tuple[Path, Study]]:
    """Recordings with their studies, by the one table that knows."""
    with (lab / "identities.csv").open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            study = Study.open(lab / "studies" / row["study"])
            yield (lab / row["source_path"]).resolve(), study


needs_tesseract = pytest.mark.skipif(
    shutil.which("tesseract") is None, reason="tesseract is not installed"
)


def test_no_name_is_in_anything_we_write(cli: Cli, tmp_path: Path) -> None:
    """One study of each kind; names in files do not depend on how many frames these have."""
    made = clinic(tmp_path, len(KINDS), bases=1, frames=5)
    assert len(made.secret.words) > 100
    nothing_is_left(cli, tmp_path, made)


@needs_tesseract
def test_a_program_reads_no_name(cli: Cli, tmp_path: Path) -> None:
    """Raw, H.264 twice, and JPEG: the others are decoded like these."""
    reading = read_all(cli, tmp_path, clinic(tmp_path, 4, bases=1))
    assert reading.strings >= 9
    assert reading.read >= 0.6 * reading.strings, "or this test could not fail"
    assert reading.read_in_studies == reading.read_in_overlays == []


@needs_tesseract
def test_raw_films_keep_their_text_when_asked(cli: Cli, tmp_path: Path) -> None:
    made = clinic(tmp_path, 2, bases=1)
    film = list(made.films)[1]
    words = [string.words for string in made.films[film]]
    for option, kept in (("--no-blank", True), ("--force", False)):
        outcome = cli("segment", film, "--no-masks", "--threads", "1", option)
        assert ("made black" in outcome.stderr) is not kept
        assert "reduced, never surely removed" in outcome.stderr or kept
        (overlay,) = tmp_path.glob("results/*/*/overlay.mp4")
        assert bool(readable(read_aloud(last_frame(overlay)), words)) is kept


@pytest.mark.slow
@pytest.mark.timeout(3600)
@needs_tesseract
def test_fifty_studies(cli: Cli, tmp_path: Path) -> None:
    made = clinic(tmp_path, 50, bases=10)
    nothing_is_left(cli, tmp_path, made)
    reading = read_all(cli, tmp_path, made)
    print(
        f"\n{len(made.films)} studies, {len(made.secret.words)} words planted: 0 found by grep\n"
        f"{reading.strings} strings burned in: tesseract reads {reading.read} in the films, "
        f"{len(reading.read_in_studies)} in the studies, {len(reading.read_in_overlays)} in "
        f"overlays of the raw films; {reading.covered} are black to 99 % and more"
    )
    assert reading.read_in_studies == reading.read_in_overlays == []
