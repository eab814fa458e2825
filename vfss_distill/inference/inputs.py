"""What the words after `vfss segment` mean: films, folders, studies, by path or by id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import DataError, InputError, UsageError, VfssError, WorkspaceError
from ..intake.blanked import BlankedSource
from ..intake.box_table import given_boxes
from ..intake.identities import recordings_of_patients
from ..intake.mask_folders import MASKS
from ..intake.record import RECORD_FILE
from ..intake.source import (
    FrameSource,
    LeftOut,
    content_sha256,
    open_source,
)
from ..intake.splits import load_splits
from ..intake.study import Study, is_study_folder, list_studies_readable
from ..intake.view import FRONTAL, UNTOLD, Decision, decide_source
from ..intake.walk import A_RESULT, EXPORTED, walk
from ..workspace import Workspace
from .reading import Reading, is_plain
from .record import Subject

SPLITS = ("train", "val", "test", "all")

_SAY_OTHERWISE = "`vfss ingest --views` can say otherwise"
_FACES_RIGHT = (
    f"faces right: shown to the network mirrored; masks lie on the film as it is; {_SAY_OTHERWISE}"
)
_UNSURE = f"{UNTOLD}; {_SAY_OTHERWISE}"


@dataclass(frozen=True)
class Input:
    """One recording to segment. `shown`: as the user knows it; for the terminal only."""

    shown: str
    path: Path
    study: Study | None = None


@dataclass(frozen=True)
class Failure:
    """An input that could not be segmented, and why."""

    shown: str
    error: VfssError


def find_inputs(words: Sequence[str], workspace: Workspace) -> tuple[list[Input], list[Failure]]:
    """Recordings meant by `words`, in the order given, each once, and the words that mean none.

    A word is a film, a DICOM file, a folder of either, a folder of images, a study's folder, or
    the id of a study in the workspace.
    """
    found: dict[Path, Input] = {}
    failed: list[Failure] = []
    for word in words:
        try:
            for item in _meant_by(word, workspace):
                if isinstance(item, Failure):
                    failed.append(item)
                else:
                    found.setdefault(item.path.resolve(), item)
        except VfssError as error:
            failed.append(Failure(shown(Path(word)), error))
    return list(found.values()), failed


def find_split(split: str, workspace: Workspace) -> tuple[list[Input], list[Failure]]:
    """The ingested studies of a split, or of all, and damaged ones: of which split nobody knows.

    Raises UsageError, WorkspaceError.
    """
    if split not in SPLITS:
        raise UsageError(f"unknown split {split!r}", remedy=f"Use {', '.join(SPLITS)}.")
    studies, damaged = list_studies_readable(workspace)
    if split != "all":
        splits = load_splits(workspace)
        studies = [study for study in studies if splits.of(study.patient) == split]
    if not studies and not damaged:
        raise WorkspaceError(
            "no ingested study" + ("" if split == "all" else f" of split {split}"),
            file="studies",
            remedy="Run `vfss ingest` first; splits.yaml says which patient is where.",
        )
    failed = [Failure(one["input"], DataError(one["error"])) for one in damaged]
    return [_of_store(study) for study in studies], failed


class Identifier:
    """Tells of each input whose recording it is. A raw film that has been ingested, whatever its
    name, is that study; any other is a stranger, known by its digest.

    `damaged`: studies whose record cannot be read, `[{"input", "error"}]`; their films are
    strangers.
    """

    def __init__(self, workspace: Workspace, *, blank: bool = True) -> None:
        """`blank`: text burned into films that are not read from the store is made black. Boxes
        that a person gave for a study are black in any case."""
        self._blank = blank
        studies, self.damaged = list_studies_readable(workspace)
        self._by_digest = {study.record.source_sha256: study for study in studies}
        self._of_patient = recordings_of_patients(workspace, (study.record for study in studies))

    def subject(self, item: Input) -> Subject:
        """Reads the whole file for its digest. Raises InputError."""
        if item.study is not None:
            return self._known(item.study, blanked=item.study.record.burned_in == "blanked")
        digest = _digest(item.path)
        study = self._by_digest.get(digest)
        if study is None:
            reading = Reading(blanked=self._blank)
            return Subject(f"s-{digest[:10]}", None, digest, frames_of=reading)
        of_film = is_plain(study.record)  # else `open` takes the store's frames
        blanked = self._blank if of_film else study.record.burned_in == "blanked"
        return self._known(study, blanked=blanked)

    def _known(self, study: Study, *, blanked: bool) -> Subject:
        digests = self._of_patient.get(study.patient, ())
        return replace(_subject(study, blanked=blanked), also_of_patient=digests)

    def viewed(self, subject: Subject, source: FrameSource) -> Subject:
        """`subject` with view and side. Ingest has decided them for every study; of a stranger's
        film they are found in its first frames and its header. Raises InputError."""
        if subject.patient is not None:
            return subject
        found = decide_source(source, hint=source.info.view_hint)
        return replace(subject, view=found.view, facing=found.facing, notice=_notice(found))

    def open(self, item: Input, subject: Subject) -> FrameSource:
        """The film itself, unless the store holds other frames of it (turned round, or fields of
        an interlaced film): masks must lie on the study's frames.

        Raises InputError.
        """
        if item.study is not None:
            return open_source(item.study.folder)
        study = self._by_digest.get(subject.source_sha256)
        if study is not None and not is_plain(study.record):
            return open_source(study.folder)
        # Where a study's rate was assumed, the line that says so is said here too.
        source = open_source(item.path, images_fps=study.record.rate_given if study else None)
        given = given_boxes(study.record) if study is not None else ()
        picture = study.record.picture if study is not None else None
        if not self._blank:
            return BlankedSource(source, given, picture=picture) if given or picture else source
        known = study is not None and study.record.burned_in == "blanked"
        boxes = study.record.blanked if study and known else None
        return BlankedSource(source, boxes, given, picture)


def shown(path: Path) -> str:
    """A path as the user knows it, never absolute: from the current folder, else its name."""
    if not path.is_absolute():
        return path.as_posix()
    try:
        return path.relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path.name


def _meant_by(word: str, workspace: Workspace) -> list[Input | Failure]:
    path = Path(word)
    if path.exists():
        return _at(path)
    if len(path.parts) == 1 and is_study_folder(workspace.studies / word):
        return [_of_store(Study.open(workspace.studies / word))]
    raise InputError("no such file, folder or study", remedy="`ls studies` lists ingested studies.")


def _at(path: Path) -> list[Input | Failure]:
    left_out: list[LeftOut] = []
    # A DICOMDIR, or one file of a series, stands for more than itself.
    found = walk([path], left_out=left_out)
    whys = {item.why for item in left_out}
    if not found and whys & {A_RESULT, MASKS, EXPORTED}:
        raise InputError(
            f"holds {'results' if A_RESULT in whys else 'masks'}, no recording",
            remedy="Name the film itself, or its study's id (`ls studies`).",
        )
    if not found:
        raise InputError(
            "no film, cine DICOM or image frames in it",
            remedy="Name a video, a DICOM file, or a folder of either.",
        )
    return [_recording(item.path) for item in found]


def _recording(film: Path) -> Input | Failure:
    if not (film / RECORD_FILE).is_file():
        return Input(shown(film), film)
    try:
        return _of_store(Study.open(film))
    except DataError as error:
        return Failure(shown(film), error)


def _of_store(study: Study) -> Input:
    return Input(study.id, study.folder, study)


def _subject(study: Study, *, blanked: bool) -> Subject:
    record = study.record
    return Subject(
        record.study,
        record.patient,
        record.source_sha256,
        record.simulated,
        view=record.view,
        notice=FRONTAL if record.view == "frontal" else "",
        frames_of=Reading.of_study(record, blanked=blanked),
        frame_times_s=record.frame_times_s,
    )


def _notice(found: Decision) -> str:
    """What a user should know of how a stranger's film was taken; "" when there is nothing."""
    if found.by == "assumed":
        return _UNSURE
    words = FRONTAL if found.view == "frontal" else _FACES_RIGHT if found.mirrored else ""
    return "; ".join(line for line in (words, found.warning) if line)


def _digest(path: Path) -> str:
    try:
        return content_sha256(path)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})") from error
