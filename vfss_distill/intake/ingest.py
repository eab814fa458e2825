"""Ingest: recordings and their labels become complete, pseudonymous studies of the workspace.

Headers, sound, names and paths are not taken over. Text burned into the pictures is looked for and
blanked before the study appears; that makes names fewer, and a person has to look all the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..config import load_lab
from ..errors import InputError, StorageError, VfssError
from ..workspace import Workspace, atomic_folder, read_json
from .burned_in import BurnedIn, find_text
from .film_sample import FrameSample
from .identities import Identities, Identity
from .lab import decide_tasks, prepare_workspace
from .labels import Labels, LabelSearch, check_frames, read_mask
from .patients import Owner, PatientTable, display, owner_of
from .repeats import RepeatCounter
from .source import Found, FrameSource, content_sha256, open_source, recording_name, walk
from .splits import PatientFacts, Splits, load_splits, update_splits
from .study import StudyRecord, blank_frames, list_studies, write_frames, write_mask, write_record

Tick = Callable[[int, int, str], None]
Say = Callable[[str], None]

BURNED_IN = (
    "Text burned into the pictures is reduced, never surely removed: look at every study "
    "(vfss ingest --review) before you share the workspace."
)
KEPT = (
    "TEXT BURNED INTO THE PICTURES WAS KEPT (--no-blank): names and dates that are visible in a "
    "film are visible in its frames. Do not share this workspace."
)
_TASK_FILE = "task_set.yaml"


@dataclass(frozen=True)
class IngestOptions:
    """`labels`: folder of masks. `patients`: CSV. `tasks`: built-in name or YAML file.

    `fps`: frames per second of recordings without time. `force`: ingest again what is there.
    `blank`: make text found in the pictures black.
    """

    labels: Path | None = None
    patients: Path | None = None
    tasks: str | Path | None = None
    fps: float | None = None
    force: bool = False
    blank: bool = True


@dataclass(frozen=True)
class Failure:
    """`input` as displayed (relative), `error` one line with its remedy."""

    input: str
    error: str


@dataclass(frozen=True)
class Skipped:
    """An input that was ingested before, as `study`."""

    input: str
    study: str
    why: str


@dataclass
class IngestReport:
    """What one ingest did. `stopped`: the disk gave out; what is listed is complete all the same.

    `splits` are the whole workspace's.
    """

    studies: list[StudyRecord] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    splits: Splits = field(default_factory=Splits)
    stopped: StorageError | None = None


def ingest(
    workspace: Workspace,
    inputs: Sequence[Path],
    options: IngestOptions,
    *,
    tick: Tick,
    say: Say,
) -> IngestReport:
    """Ingest every recording under `inputs`. One that fails is listed and the others go on.

    `tick(done, total, words)` for each recording and now and then within one; `say(line)` for
    each notice. Raises ConfigError for a task set or patient table that cannot be used, and
    InputError when `inputs` hold nothing at all to ingest.
    """
    report = IngestReport()
    found = _discover(inputs, options, report)
    if not found and not report.failed:
        raise InputError(
            "no recordings found",
            file=", ".join(path.name or str(path) for path in inputs),
            remedy="Give films (MP4, AVI, MKV, MPG, GIF), DICOM files, or folders of images.",
        )
    job = _Ingest(workspace, options, found, report, say)
    try:
        for done, item in enumerate(found):
            tick(done, len(found), display(item))
            job.one(item, functools.partial(tick, done, len(found)))
            if report.stopped:
                break
    finally:
        job.settle()
    return report


class _Ingest:
    """The state of one ingest: what is stored already, who is who, where labels are."""

    def __init__(
        self,
        workspace: Workspace,
        options: IngestOptions,
        found: Sequence[Found],
        report: IngestReport,
        say: Say,
    ) -> None:
        self._workspace = workspace
        self._options = options
        self._report = report
        self._say = say
        self._tasks = decide_tasks(workspace, options.tasks)
        self._splits_config = load_lab(workspace).splits
        load_splits(workspace)  # a broken splits.yaml is said now, not after an hour
        self._patients = PatientTable(options.patients)
        self._identities = Identities(workspace)
        names = [recording_name(item.path) for item in found]
        counts = {name: names.count(name) for name in names}
        self._labels = LabelSearch(options.labels, self._tasks, counts)
        self._records = {study.id: study.record for study in list_studies(workspace)}
        self._shown: dict[str, str] = {}
        self._folders: dict[str, Path] = {}
        self._warned: dict[str, list[str]] = {}
        self._guessed = 0
        _check_option_folder(options.labels)

    def one(self, found: Found, words: Callable[[str], None]) -> None:
        """Ingest one recording; whatever is wrong with it ends in the report."""
        try:
            self._one(found, words)
        except StorageError as error:
            self._report.stopped = error
        except VfssError as error:
            self._fail(found, _line(error, found))
        except MemoryError:
            self._fail(found, "is too large for this machine's memory.")
        except OSError as error:
            self._fail(found, f"cannot be read ({error.strerror}). Check the file and its disk.")

    def settle(self) -> None:
        """Bring `splits.yaml` up to date with the studies that are there; say what was noticed."""
        try:
            self._report.splits = update_splits(
                self._workspace, _facts(self._records.values()), self._splits_config
            )
        except StorageError as error:
            self._report.stopped = self._report.stopped or error
        for line, inputs in self._warned.items():
            who = inputs[0] if len(inputs) == 1 else f"{len(inputs)} recordings"
            self._say(f"{who}: {line}")
        if self._guessed:
            self._say(
                f"{self._guessed} recordings lie in no folder of their own and name no patient: "
                "each counts as a patient. If some are of one person, use --patients."
            )

    def _one(self, found: Found, words: Callable[[str], None]) -> None:
        source = open_source(found.path, images_fps=self._options.fps)
        if source.info.kind == "study":
            raise InputError("is a study already", remedy="Give the recording it was made from.")
        digest = content_sha256(found.path)
        owner = owner_of(found, self._patients, source.info.patient_hint, digest)
        patient = self._identities.pseudonym(owner.source_patient)
        labels = self._labels.find(found, source)
        known = next((r for r in self._records.values() if r.source_sha256 == digest), None)
        if known is not None:
            self._refuse_second_patient(known, patient, owner)
            patient = known.patient
            if not self._options.force or known.study in self._shown:
                self._skip(found, known, labels)
                return
        self._notice(found, owner)
        study = known.study if known else self._new_id(patient, digest)
        draft = StudyRecord(
            study=study,
            patient=patient,
            source_sha256=digest,
            frames=0,
            frame_times_s=(),
            width=0,
            height=0,
            simulated=_is_simulated(found.path),
            labelled={task: tuple(sorted(masks)) for task, masks in labels.files.items()},
            task_set=self._tasks.to_dict(),
            labels_sha256=labels.sha256,
            burned_in="blanked" if self._options.blank else "kept",
        )
        prepare_workspace(self._workspace, self._tasks)
        self._identities.record(
            Identity(study, patient, owner.source_patient, _from(self._workspace, found.path))
        )
        with atomic_folder(self._workspace.studies / study) as folder:
            record = _fill(folder, source, labels, draft, words)
        self._records[study] = record
        self._shown[study] = display(found)
        self._report.studies.append(record)
        for line in record.warnings:
            self._warned.setdefault(line, []).append(display(found))

    def _refuse_second_patient(self, known: StudyRecord, patient: str, owner: Owner) -> None:
        if owner.guessed or patient == known.patient:
            return
        before = self._shown.get(known.study, f"study {known.study}")
        raise InputError(
            f"is the same recording as {before} of patient {known.patient}, "
            f"but given for patient {patient}",
            remedy="Keep one copy, or delete that study and ingest with --patients; "
            "identities.csv says who is who.",
        )

    def _skip(self, found: Found, known: StudyRecord, labels: Labels) -> None:
        why = "already ingested"
        if known.study in self._shown:
            why = f"same recording as {self._shown[known.study]}"
        elif labels.sha256 and labels.sha256 != known.labels_sha256:
            why = "already ingested, but its labels have changed since: use --force to take them"
        elif self._options.blank and known.burned_in != "blanked":
            why = "already ingested, with the text burned into it: use --force to blank that"
        self._report.skipped.append(Skipped(display(found), known.study, why))
        if "--force" in why:
            self._say(f"{display(found)}: {why}")

    def _notice(self, found: Found, owner: Owner) -> None:
        self._guessed += owner.guessed
        if self._patients.given and self._patients.find(found) is None:
            self._say(f"{display(found)}: not in --patients; patient taken from file or folder")
        if owner.guessed or owner.source_patient != found.path.resolve().parent.name:
            return
        grandparent = found.path.resolve().parent.parent
        if self._folders.setdefault(owner.source_patient, grandparent) != grandparent:
            self._say(
                f"{display(found)}: two folders have this name; taken as one patient. "
                "If they are two, use --patients."
            )

    def _new_id(self, patient: str, digest: str) -> str:
        study = f"{patient}-{digest[:6]}"
        return f"{patient}-{digest[:12]}" if study in self._records else study

    def _fail(self, found: Found, line: str) -> None:
        self._report.failed.append(Failure(display(found), line))


def _discover(inputs: Sequence[Path], options: IngestOptions, report: IngestReport) -> list[Found]:
    """Recordings under `inputs`; inputs that do not exist go to the report."""
    there = [path for path in inputs if path.exists()]
    for path in inputs:
        if not path.exists():
            line = "no such file or folder. Check the path."
            report.failed.append(Failure(display(Found(path, path)), line))
    labels = options.labels
    # Labels given as the input itself lie beside their recordings: nothing to leave out.
    apart = labels is not None and not any(
        path.resolve().is_relative_to(labels.resolve()) for path in there
    )
    return walk(there, exclude=[labels] if labels is not None and apart else [])


def _fill(
    folder: Path,
    source: FrameSource,
    labels: Labels,
    draft: StudyRecord,
    words: Callable[[str], None],
) -> StudyRecord:
    """Decode `source` once into the study folder being made, then its masks, then the record."""
    times = []
    repeats, sample = RepeatCounter(), FrameSample()
    height = width = 0
    for frame in write_frames(folder, source.frames()):
        times.append(frame.time_s)
        repeats.add(frame.grey)
        sample.add(frame.grey)
        height, width = frame.grey.shape
        if frame.index % 50 == 0:
            words(f"frame {frame.index}")
    check_frames(labels, len(times))
    text = find_text(sample.frames)
    if draft.burned_in == "blanked":
        blank_frames(folder, len(times), text.blank)
    else:
        text = BurnedIn(suspect=(*text.blank, *text.suspect))
    for task, index, path in labels:
        write_mask(folder, task, index, read_mask(path, (height, width)))
    info = source.info  # read after the frames: only then are its warnings complete
    record = replace(
        draft,
        frames=len(times),
        frame_times_s=tuple(round(time, 9) for time in times),
        width=width,
        height=height,
        pixel_aspect=info.pixel_aspect,
        pixel_spacing_mm=info.pixel_spacing_mm,
        kind=info.kind,
        codec=info.codec,
        repeated_frames=repeats.repeated,
        blanked=text.blank,
        suspect=text.suspect,
    )
    rate = repeats.unique_fps(record.duration_s)
    said = [*info.warnings, repeats.warning(record.duration_s)]
    if labels.files and any(line.startswith("decoded") for line in info.warnings):
        said.append("frames are missing: labels behind the gap may lie on the wrong frames")
    record = replace(
        record,
        unique_fps=None if rate is None else round(rate, 3),
        warnings=tuple(line for line in said if line),
    )
    write_record(folder, record)
    return record


def _facts(records: Iterable[StudyRecord]) -> dict[str, PatientFacts]:
    facts: dict[str, PatientFacts] = {}
    for record in records:
        before = facts.get(record.patient, PatientFacts(record.source_sha256, False))
        facts[record.patient] = PatientFacts(
            min(before.digest, record.source_sha256), before.labelled or bool(record.labelled)
        )
    return facts


def _is_simulated(path: Path) -> bool:
    truth = path.with_name(f"{path.name if path.is_dir() else path.stem}_truth.json")
    try:
        return truth.is_file() and read_json(truth).get("simulated") is True
    except VfssError:
        return False


def _check_option_folder(labels: Path | None) -> None:
    if labels is not None and not labels.is_dir():
        raise InputError("no such folder of labels", file=labels, remedy="Check --labels.")


def _line(error: VfssError, found: Found) -> str:
    """The error without the recording's own name, which stands beside it; a mask is named."""
    if error.file is None or Path(error.file) == found.path:
        return error.without_file
    path = Path(error.file)
    return f"{'/'.join(path.parts[-3:]).lstrip('/')}: {error.without_file}"


def _from(workspace: Workspace, path: Path) -> str:
    """`path` relative to the workspace, for identities.csv: both can be moved together."""
    real, root = path.resolve(), workspace.root.resolve()
    up = 0
    while not real.is_relative_to(root):
        root, up = root.parent, up + 1
    return "/".join([*[".."] * up, *real.relative_to(root).parts])
