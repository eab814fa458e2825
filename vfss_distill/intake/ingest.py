"""Ingest: recordings and their labels become complete, pseudonymous studies of the workspace.

Headers, sound, names and paths are not taken over. Text burned into the pictures is looked for and
blanked before the study appears; that makes names fewer, and a person has to look all the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ..claims import alone_in
from ..config import load_lab
from ..counting import listed
from ..engines import Done, Engine, WorkerDied
from ..errors import InputError, StorageError, VfssError
from ..workspace import Workspace
from .again import handling_of, rate_of, why_skipped
from .box_table import BoxTable
from .boxes import Box
from .damaged import DamagedStudies
from .discovery import (
    check_option_folder,
    digests,
    discover,
    error_line,
    is_simulated,
)
from .doubts import Doubts, twins_apart
from .exams import Exams
from .fill import Job, Words, engine_for, sweep, unforeseen
from .identities import Identities
from .ingest_report import Failure, IngestOptions, IngestReport, Skipped
from .lab import decide_tasks, prepare_workspace
from .labels import Labels, LabelSearch
from .names import display
from .owners import Owners
from .patients import Owner, PatientTable
from .record import StudyRecord
from .remains import LOST, nowhere_told
from .source import Found, open_source
from .splits import Splits, facts_of, load_splits, lock_test, undealt, update_splits
from .study import has_imported_labels, list_studies, list_studies_readable
from .surroundings import told as furniture_told
from .view import ViewTable, notice

Tick = Callable[[int, int, str], None]
Say = Callable[[str], None]


def ingest(
    workspace: Workspace,
    inputs: Sequence[Path],
    options: IngestOptions,
    *,
    tick: Tick,
    say: Say,
) -> IngestReport:
    """Ingest every recording under `inputs`. What fails is listed and the others go on.

    `tick(done, total, words)` for each recording and now and then within one; `say(line)` for
    each notice. Raises ConfigError for a task set or patient table that cannot be used, InputError
    when `inputs` hold nothing at all to ingest, WorkspaceError while another one is at work.
    """
    report = IngestReport()
    found, mask_folders = discover(inputs, options, report)
    if not found and not report.failed and not report.skipped:
        raise InputError(
            "no recordings found",
            file=", ".join(path.name or str(path) for path in inputs),
            remedy="Give films (MP4, AVI, MKV, MPG, GIF), DICOM files, or folders of images.",
        )
    with alone_in(workspace):
        job = _Ingest(workspace, options, found, report, say)
        job.tell_unclaimed(mask_folders)
        try:
            with ExitStack() as stack:
                job.run(found, stack, tick)
        finally:
            job.settle()
    return report


def lock(workspace: Workspace) -> Splits:
    """Lock the test set of `workspace` as it is. Raises DataError, ConfigError, StorageError."""
    return lock_test(workspace, _records(workspace))


def _records(workspace: Workspace) -> Iterator[StudyRecord]:
    """Read only when asked for: a set that is locked already needs none."""
    for study in list_studies(workspace):
        yield study.record


class _Ingest:
    """The state of one ingest: what is stored already, who is who, where labels are.

    Whether a recording is taken is decided here, one after the other in the order of the inputs;
    the engine only makes the studies, several at a time. So the same comes out of any engine.
    """

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
        self._splits = load_splits(workspace)  # broken or changed is said now, not after an hour
        self._patients = PatientTable(options.patients)
        self._views = ViewTable(options.views)
        self._boxes = BoxTable(options.blank_boxes)
        self._patients.settle(found)
        self._views.settle(found)
        self._identities = Identities(workspace)
        check_option_folder(options.labels)
        self._labels = LabelSearch(options.labels, self._tasks, found)
        studies, damaged = list_studies_readable(workspace)
        self._damaged = DamagedStudies(workspace, damaged, self._identities)
        self._records = {study.id: study.record for study in studies}
        self._by_digest = {record.source_sha256: record for record in self._records.values()}
        self._shown: dict[str, str] = {}
        exams = Exams(self._identities, self._records.values(), self._damaged)
        self._doubts = Doubts(self._patients, say)
        self._owners = Owners(workspace, self._patients, self._identities, exams, self._doubts, say)
        self._under_way: dict[int, _UnderWay] = {}
        self._ended: dict[int, StudyRecord | Failure | Skipped] = {}
        self._inputs: dict[int, str] = {}
        self._lost: dict[int, str] = {}
        self._words: Words = lambda _: None
        there = [*self._records, *self._damaged.ids]
        self._identities.meet(there)
        for line in (
            *self._identities.lost(there),
            *undealt(workspace, self._splits, self._records.values()),
            *twins_apart(self._identities, self._splits),
        ):
            self._say(line)
        for option, unused in (
            ("--patients", self._patients.unused(found)),
            ("--views", self._views.unused(found)),
            ("--blank-boxes", self._boxes.unused(found)),
            ("--labels", self._labels.unused()),
        ):
            if unused:
                some = listed(unused, 3, ", ")
                self._say(f"{option} names what is none of these recordings: {some}")

    def tell_unclaimed(self, mask_folders: Sequence[Found]) -> None:
        """Of masks that are lost for a folder's name a person would hear nothing else."""
        if lost := [display(item) for item in self._labels.unclaimed(mask_folders)]:
            it = "it" if len(lost) == 1 else "them"
            some = listed(lost, 5, ", ")
            self._say(f"{some}: masks of no film beside {it}; name {it} <film>_masks")

    def run(self, found: Sequence[Found], stack: ExitStack, tick: Tick) -> None:
        """Ingest every recording; whatever is wrong with one ends in the report.

        What the engine and its threads leave behind is put on `stack`.
        """
        sweep(self._workspace.studies)
        self._identities.sweep()
        engine = stack.enter_context(engine_for(self._options, lambda line: self._words(line)))
        for number, (item, digest) in enumerate(digests(found, engine.slots, stack)):
            while len(self._under_way) >= engine.slots:
                self._take(engine.wait())
            if self._report.stopped:
                break
            done, shown = number - len(self._under_way), display(item)
            self._words = lambda line, done=done: tick(done, len(found), line)  # type: ignore[misc]
            tick(done, len(found), shown)
            self._begin(number, item, digest, engine)
        while self._under_way:
            tick(len(found) - len(self._under_way), len(found), "")
            self._take(engine.wait())

    def settle(self) -> None:
        """Bring report and `splits.yaml` up to date with what is there; say what was noticed."""
        for job in self._under_way.values():  # Windows ends a worker before it can clear up
            sweep(self._workspace.studies, job.study)
        warned: dict[str, list[str]] = {}
        for number in sorted(self._ended):
            match self._ended[number]:
                case StudyRecord() as record:
                    self._report.studies.append(record)
                    told = notice(record.view, record.mirrored, record.view_by)
                    around = furniture_told(record.blanked)
                    for line in (*record.warnings, told, around, self._lost.get(number, "")):
                        if line:
                            warned.setdefault(line, []).append(self._inputs[number])
                case Failure() as failure:
                    self._report.failed.append(failure)
                case Skipped() as skipped:
                    self._report.skipped.append(skipped)
        for study, why in self._damaged.unsaid().items():
            self._report.failed.append(Failure(f"studies/{study}", why))
        facts = self._damaged.settled(facts_of(self._records.values()), self._splits)
        try:
            self._report.splits = update_splits(self._workspace, facts, self._splits_config)
        except StorageError as error:
            self._report.stopped = self._report.stopped or error
        for line, inputs in warned.items():
            if line.startswith(LOST):
                self._report.lost.append(f"{_who(inputs)}: {line}")
            else:
                self._say(f"{_who(inputs)}: {line}")
        self._doubts.tell()

    def _begin(self, number: int, found: Found, digest: Future[str], engine: Engine) -> None:
        """Decide what becomes of a recording, and hand it to the engine if it is to be ingested."""
        self._inputs[number] = display(found)
        try:
            job = self._decide(number, found, digest, engine)
        except StorageError as error:
            self._report.stopped = error
        except VfssError as error:
            self._fail(number, error_line(error, found))
        except OSError as error:
            line = f"cannot be read ({error.strerror}). Check the file and its disk."
            self._fail(number, line)
        except Exception as error:  # a header's surprise must not stop the other recordings
            self._fail(number, str(unforeseen(error)))
        else:
            if job is not None:
                draft = job.draft
                self._under_way[number] = _UnderWay(found, draft.study, draft.source_sha256)
                engine.submit(number, job)
                if engine.slots == 1:
                    self._take(engine.wait())

    def _take(self, done: Done) -> None:
        """Note how a job ended."""
        job = self._under_way.pop(done.number)
        value = done.value
        if isinstance(value, StudyRecord):
            self._records[value.study] = self._by_digest[value.source_sha256] = value
            self._damaged.mended(value.study)
            self._shown[value.study] = self._inputs[done.number]
            self._ended[done.number] = value
            return
        if isinstance(value, WorkerDied):
            sweep(self._workspace.studies, job.study)
        if isinstance(value, StorageError):
            self._report.stopped = self._report.stopped or value
        else:
            line = error_line(value, job.found)
            self._fail(done.number, line)
            if job.study in line:
                self._damaged.named(job.study)

    def _decide(
        self, number: int, found: Found, digest_to_come: Future[str], engine: Engine
    ) -> Job | None:
        """The job that makes the study, or None when the recording is not taken."""
        options = self._options
        source = open_source(found.path)
        if source.info.kind == "study":
            raise InputError("is a study already", remedy="Give the recording it was made from.")
        digest = digest_to_come.result()
        known = self._known(digest)
        owner = self._owners.of(found, source.info, digest, known)
        patient = owner.pseudonym or self._identities.pseudonym(owner.source_patient)
        site = self._identities.site_pseudonym(owner.site)
        labels = self._labels.find(found, source)
        study = f"{patient}-{digest[:6]}"
        while any(digest == job.digest or study == job.study for job in self._under_way.values()):
            self._take(engine.wait())  # a copy is being made: see first what comes of it
            known = self._known(digest)
        given = self._boxes.draft(found, source.info, known)
        if known is not None:
            if known.study in self._damaged:
                self._damaged.refuse(known.study, force=options.force)
            self._refuse_second_patient(known, patient, owner)
            patient, study = known.patient, known.study
            if not options.force or study in self._shown:
                self._skip(number, known, labels, self._views.word(found), given)
                return None
            _refuse_to_lose_masks(known, labels)
        else:
            self._damaged.refuse_strange(digest)
            self._tell_of_replaced(found)
            study = study if study not in self._records else f"{patient}-{digest[:12]}"
            self._refuse_strange_folder(study)
        if why := self._splits.why_closed(patient, digest):
            self._leave_out(number, study, f"left out: {why}")
            return None
        self._doubts.add(found, owner, is_new=known is None)
        mends = study in self._damaged
        boxes_given = self._boxes.names(found)
        if mends and known is not None:
            self._lost[number] = nowhere_told(
                self._workspace.studies / study,
                known,
                view_given=bool(self._views.word(found)),
                boxes_given=boxes_given,
            )
        elif known is not None and has_imported_labels(self._workspace.studies / study):
            self._say(
                f"{display(found)}: made anew without the labels that were imported into it; "
                "import them again"
            )
        draft = StudyRecord(
            study=study,
            patient=patient,
            source_sha256=digest,
            frames=0,
            frame_times_s=(),
            width=0,
            height=0,
            simulated=is_simulated(found.path),
            site=site or (known.site if known else ""),
            exam=self._identities.exam_pseudonym(source.info.exam_hint),
            labelled={task: tuple(sorted(masks)) for task, masks in labels.files.items()},
            task_set=self._tasks.to_dict(),
            labels_sha256=labels.sha256,
            burned_in="blanked" if options.blank else "kept",
            blanked=given,
            **self._views.draft(found, known),
        )
        prepare_workspace(self._workspace, self._tasks)
        self._owners.record(draft, owner, found)
        return Job(
            path=found.path.absolute(),
            target=self._workspace.studies.absolute() / study,
            labels=labels.absolute(),
            draft=draft,
            images_fps=rate_of(known, options.fps),
            interlaced=handling_of(known, options.interlaced),
            mends=mends,
            boxes_given=boxes_given,
        )

    def _known(self, digest: str) -> StudyRecord | None:
        """The record of a recording's study, or what is known of it where that is damaged."""
        return self._by_digest.get(digest) or self._damaged.find(digest)

    def _refuse_second_patient(self, known: StudyRecord, patient: str, owner: Owner) -> None:
        if owner.guessed or patient == known.patient:
            return
        before = self._shown.get(known.study, f"study {known.study}")
        remedy = (
            "Keep one copy, or delete that study and ingest with --patients; "
            "identities.csv says who is who."
        )
        if known.study not in self._shown and not self._patients.given:
            remedy = f"If a table named that patient, give it again (--patients). Else: {remedy}"
        raise InputError(
            f"is the same recording as {before} of patient {known.patient}, "
            f"but given for patient {patient}",
            remedy=remedy,
        )

    def _tell_of_replaced(self, found: Found) -> None:
        """A better copy of a film in its place is another recording: both would count."""
        before = self._owners.study_at(found)
        if before in self._records:
            self._say(
                f"{display(found)}: lies where the recording of {before} lay, which is kept; if "
                f"this one replaces it, move studies/{before} out of studies/"
            )

    def _refuse_strange_folder(self, study: str) -> None:
        target = self._workspace.studies / study
        if os.path.lexists(target) and not self._options.force:
            raise InputError(
                f"studies/{study} is there and is no study",
                remedy="Look what is in it and move it away, or replace it with --force.",
            )

    def _skip(
        self,
        number: int,
        known: StudyRecord,
        labels: Labels,
        view: str,
        given: Sequence[Box],
    ) -> None:
        if known.study in self._shown:
            why = f"same recording as {self._shown[known.study]}"
        else:
            why = why_skipped(known, self._options, labels, view, given)
        if "--force" in why and has_imported_labels(self._workspace.studies / known.study):
            why += "; export its imported labels first, they are not kept"
        self._leave_out(number, known.study, why, aloud="--force" in why)

    def _leave_out(self, number: int, study: str, why: str, *, aloud: bool = True) -> None:
        shown = self._inputs[number]
        self._ended[number] = Skipped(shown, study, why)
        if aloud:
            self._say(f"{shown}: {why}")

    def _fail(self, number: int, line: str) -> None:
        self._ended[number] = Failure(self._inputs[number], line)


def _refuse_to_lose_masks(known: StudyRecord, labels: Labels) -> None:
    """--force is for other frames, too: forgotten --labels are no wish to have no masks.

    Of a damaged study nothing is known of them, and its own are kept.
    """
    if known.labels_sha256 and not labels.files:
        raise InputError(
            f"is ingested as {known.study} with masks whose files are not found now",
            remedy="Give input and --labels as before or, to go on without them, move "
            f"studies/{known.study} out of studies/.",
        )


@dataclass(frozen=True)
class _UnderWay:
    found: Found
    study: str
    digest: str


def _who(inputs: Sequence[str]) -> str:
    """Whom a warning is about: all of few recordings, else the first three and how many more."""
    if len(inputs) == 1:
        return inputs[0]
    return f"{len(inputs)} recordings ({listed(inputs, 3, ', ')})"
