"""Many simulated patients into one folder, in parallel, resumable."""

from __future__ import annotations

import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ..engines import Engine, OneProcess, Processes, WorkerDied
from ..errors import UsageError
from ..workspace import clear_temporaries, is_temporary, read_json, write_text
from .options import SimulateOptions
from .study import StudySimulator
from .writers import SUFFIXES, Format, write_study

Tick = Callable[[int, int, str], None]

_MARKER = "SIMULATED.txt"
_MASKS = ("_masks", "_extra_masks")
_NOTICE = (
    "Every film in this folder is simulated. No patient was filmed. Made by `vfss simulate`.\n"
)


@dataclass(frozen=True)
class DatasetOptions:
    """What `vfss simulate` makes: `patients` × `studies`, written as `kind`."""

    patients: int = 4
    studies: int = 1
    seed: int = 0
    kind: Format = "mp4"
    label_every: int = 1
    write_extras: bool = False
    study: SimulateOptions = field(default_factory=SimulateOptions)

    def __post_init__(self) -> None:
        if not 1 <= self.patients <= 9999:
            raise UsageError(f"{self.patients} patients is not between 1 and 9999")
        if not 1 <= self.studies <= 99:
            raise UsageError(f"{self.studies} studies is not between 1 and 99")
        if self.label_every < 1:
            raise UsageError("--label-every must be at least 1")
        if self.kind not in SUFFIXES:
            raise UsageError(
                f"no format {self.kind!r}", remedy=f"Use one of: {', '.join(SUFFIXES)}."
            )
        # Such films store colour for every two pixels and would be a pixel larger than their masks.
        if self.kind != "dicom" and any(side % 2 for side in self.study.shape):
            raise UsageError(
                f"{self.kind} films have even sizes", remedy="Use an even size, or DICOM."
            )


@dataclass(frozen=True)
class Job:
    """One study of one patient; `patient_seed` is the same for all of a patient's studies."""

    number: int
    study_number: int
    options: DatasetOptions

    @property
    def patient_seed(self) -> int:
        # Disjoint for different seeds and populations, so that "unseen" means unseen.
        population = zlib.crc32(self.options.study.population.name.encode()) & 0xFFFF
        return (self.options.seed << 32) + (population << 16) + self.number

    @property
    def patient(self) -> str:
        return f"sim{self.number:04d}"

    @property
    def study(self) -> str:
        return f"{self.patient}-{self.study_number:02d}"

    def truth_file(self, root: Path) -> Path:
        return root / self.patient / f"{self.study}_truth.json"


def simulate_dataset(
    root: Path,
    options: DatasetOptions,
    *,
    force: bool = False,
    workers: int = 1,
    tick: Tick = lambda *_: None,
) -> list[dict[str, Any]]:
    """Write all studies; returns one summary each, in order.

    A folder begun by an interrupted run with the same options is continued. Raises UsageError when
    `root` holds anything else and `force` is not set; with it, studies of other options go first.
    """
    jobs = [
        Job(number, study, options)
        for number in range(options.patients)
        for study in range(options.studies)
    ]
    _claim(root, options, force=force)
    summaries: dict[int, dict[str, Any]] = {}
    frames = 0
    for done, (place, summary) in enumerate(_run(root, jobs, workers, force), start=1):
        summaries[place] = summary
        frames += summary["frames"]
        tick(done, len(jobs), f"{frames} frames")
    return [summaries[place] for place in range(len(jobs))]


def _claim(root: Path, options: DatasetOptions, *, force: bool) -> None:
    """Take the folder for this data set, or refuse to touch another one."""
    marker = root / _MARKER
    text = f"{_NOTICE}{options!r}\n"
    if root.exists() and not root.is_dir():
        raise UsageError("is not a folder", file=root, remedy="Name a folder that may be created.")
    before = marker.read_text(encoding="utf-8") if marker.is_file() else None
    there = [path for path in root.iterdir() if not is_temporary(path)] if root.is_dir() else []
    if not force and there and before != text:
        raise UsageError(
            "folder is not empty", file=root, remedy="Name another folder, or use --force."
        )
    if before not in (None, text):
        _clear_all(root)  # under the new marker the other set's studies would count as done
    write_text(marker, text)


def _clear_all(root: Path) -> None:
    """Remove the studies of another data set, and nothing but what `vfss simulate` calls so."""
    endings = "|".join(map(re.escape, ("_truth.json", *_MASKS, *SUFFIXES.values())))
    ours = re.compile(rf"(sim\d{{4}}-\d{{2}})({endings})")
    for folder in root.glob("sim[0-9][0-9][0-9][0-9]"):
        if not folder.is_dir() or folder.is_symlink():
            continue
        names = [ours.fullmatch(path.name) for path in folder.iterdir()]
        for study in {name[1] for name in names if name}:
            _clear(folder / f"{study}_truth.json", study)
        if not any(folder.iterdir()):
            folder.rmdir()


def _run(
    root: Path, jobs: list[Job], workers: int, force: bool
) -> Iterator[tuple[int, dict[str, Any]]]:
    slots = max(min(workers, len(jobs)), 1)
    work = partial(_attempt, root, force)
    engine: Engine = OneProcess(work) if slots == 1 else Processes(work, slots)
    waiting = iter(enumerate(jobs))
    with engine:
        for job in islice(waiting, engine.slots):
            engine.submit(*job)
        for _ in jobs:
            done = engine.wait()
            if isinstance(done.value, WorkerDied):
                name, told = jobs[done.number].study, done.value
                raise WorkerDied(told.what, file=name, remedy=told.remedy)
            if isinstance(done.value, Exception):
                raise done.value
            yield done.number, done.value
            for job in islice(waiting, 1):
                engine.submit(*job)


def _attempt(root: Path, force: bool, job: Job) -> dict[str, Any] | Exception:
    """An error is returned: raised, it would end a worker without a word."""
    try:
        return make_study(root, job, force)
    except Exception as error:
        return error


def _clear(truth_file: Path, study: str) -> None:
    """Remove what an interrupted or older run left of this study."""
    for name in (truth_file.name, *(study + suffix for suffix in SUFFIXES.values())):
        truth_file.with_name(name).unlink(missing_ok=True)
        clear_temporaries(truth_file.parent, of=name)
    for folder in _MASKS:
        shutil.rmtree(truth_file.with_name(study + folder), ignore_errors=True)


def make_study(root: Path, job: Job, force: bool) -> dict[str, Any]:
    """Write one study, or keep the complete one that is there; returns its summary."""
    target = job.truth_file(root)
    options = job.options
    if target.is_file() and not force:
        truth = read_json(target)
    else:
        simulator = StudySimulator(job.patient_seed, job.study_number, options.study)
        target.parent.mkdir(parents=True, exist_ok=True)
        _clear(target, job.study)
        truth = write_study(
            simulator,
            target.parent,
            patient=job.patient,
            study=job.study,
            seed=options.seed,
            kind=options.kind,
            label_every=options.label_every,
            extras=options.write_extras,
        )
    count = len(truth["frame_times_s"])
    return {
        "study": job.study,
        "patient": job.patient,
        "film": f"{job.patient}/{truth['film']}",
        "frames": count,
        "duration_s": round(count / truth["fps"], 3),
        "labelled_frames": len(range(0, count, options.label_every)),
        "findings": truth["findings"],
    }
