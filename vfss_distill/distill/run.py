"""One run: settings, studies and teachers in; a run folder with a student out.

runs/<run>/
  config.yaml  metrics.jsonl  train.log  curves.svg  last.ckpt/
  standardise.safetensors     statistics of the teachers' features
  proposals.safetensors       masks a teacher drew where the student was sure, by option
  readings*.safetensors       masks read from all teachers' features together, by option
  readings.png                four of these frames, to look at
  student.safetensors  facts.json  MODEL_CARD.md
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from ..claims import alone_on_run
from ..config import DistillConfig, dump_yaml
from ..errors import DataError, StorageError, UsageError
from ..intake.leaks import refuse_leaks
from ..magnification import SPINE, Usual
from ..models.decoder import parameters_of
from ..models.pretrained import initialise
from ..models.students import (
    FULL_SIZE_TEACHERS,
    Student,
    StudentConfig,
    build_student,
    save_student,
)
from ..models.trained_on import TrainedOn, of_start
from ..provenance import RESEARCH_USE_ONLY, SCHEMA_VERSION, digest_json, sha256_file
from ..workspace import (
    Workspace,
    clear_temporaries,
    read_json,
    storage_errors,
    write_json,
    write_text,
)
from .batches import check_parts
from .cache import Say
from .certainty import cuts_of, set_certainty
from .checkpoint import FOLDER, check_identity, saved_step
from .data import Tick
from .devices import pick_device
from .events import check_tensorboard
from .journal import draw_curves
from .loop import Place, Trained, resume_from, start, train
from .model_card import CardFacts, model_card
from .pictures import COLOURS, draw_features, shown_in
from .preparation import STANDARDISE, fill, prepare
from .processes import Processes, joined
from .settings import MACHINE, check_unchanged, new_folder, read_run_config, task_set
from .spines import usual_spine
from .survey import Survey, survey
from .teacher_files import TeacherFile, find_teachers
from .validation import mean_dice

THRESHOLD = 0.5
_WEIGHTS = "teachers' weights"
START = "start.json"  # of the weights a student began with


@dataclass(frozen=True)
class RunOutcome:
    """What became of a run. `best_val_dice`: mean over tasks, None without validation labels.

    An interrupted run has no student.safetensors yet; `distill(resume=folder)` goes on. `silent`:
    another process of the same training writes and speaks.
    """

    name: str
    folder: Path
    best_val_dice: float | None
    val_dice: Mapping[str, float]
    steps: int
    seconds: float
    interrupted: bool
    silent: bool = False


def distill(
    workspace: Workspace,
    config: DistillConfig,
    *,
    run_name: str | None = None,
    resume: Path | None = None,
    weights_folders: Sequence[Path] = (),
    tick: Tick = lambda *_: None,
    say: Say = lambda _: None,
) -> RunOutcome:
    """Train a student. With `resume`, a run folder, go on from its last checkpoint.

    Ctrl-C ends the step, leaves a checkpoint and returns with `interrupted`. Raises UsageError
    (resumed with other settings), WorkspaceError (nothing to train on; another process trains that
    run), DataError (splits that leak, a locked test set that was changed), WeightsMissing (every
    missing teacher at once), WeightsMismatch, ModelError (features or loss not finite),
    DeviceError, StorageError.
    """
    started = time.monotonic()
    if resume is not None:
        check_unchanged(config, read_run_config(resume))
    device = pick_device(config, say)
    if config.tensorboard:
        check_tensorboard()
    with joined(device) as processes:
        if not processes.is_first:
            tick, say = (lambda *_: None), (lambda _: None)
        copied = set(config.teachers) - set(config.read_only)
        check_parts(config, processes, aligned=bool(copied) and config.align_weight > 0)
        found = survey(workspace, task_set(workspace, config), config, say)
        refuse_leaks(workspace, tick=tick)
        teachers = find_teachers(workspace, config, weights_folders)
        folder = resume or new_folder(workspace, run_name)
        processes.wait()  # until all know the name; then it is taken
        with _run_folder(workspace, folder, is_new=resume is None, processes=processes) as log:

            def tell(line: str) -> None:
                log(line)
                say(line)

            place = Place(folder, device, tick, tell, processes)
            if processes.is_first:
                write_text(folder / "config.yaml", dump_yaml(config))
            processes.wait()
            try:
                trained, student, shas, usual = _train(workspace, config, found, teachers, place)
            except KeyboardInterrupt:
                # Before the first step: shards that are complete stay.
                return _outcome(place, {}, saved_step(folder / FOLDER), started, interrupted=True)
            if processes.is_first:
                if not trained.interrupted:
                    draw_features(folder, student, shown_in(found))
                    _write_results(config, found, teachers, shas, trained, student, usual, folder)
                    place.say(f"{folder.name}: done after {trained.step} steps")
                draw_curves(folder / "metrics.jsonl", folder / "curves.svg", found.tasks)
        processes.wait()
    return _outcome(place, trained.val_dice, trained.step, started, trained.interrupted)


def fill_caches(
    workspace: Workspace,
    config: DistillConfig,
    *,
    weights_folders: Sequence[Path] = (),
    tick: Tick = lambda *_: None,
    say: Say = lambda _: None,
) -> None:
    """Only the teachers' part of a run with these settings, kept in cache/ for it.

    Several machines on one shared disk may do it at once. Raises UsageError without teachers, else
    as `distill`.
    """
    teachers = find_teachers(workspace, config, weights_folders)
    if not teachers:
        raise UsageError(
            "--cache-only without teachers has nothing to do", remedy="Name some: --teachers."
        )
    device = pick_device(config, say)
    with joined(device) as processes:
        if not processes.is_first:
            tick, say = (lambda *_: None), (lambda _: None)
        found = survey(workspace, task_set(workspace, config), config, say)
        place = Place(workspace.cache, device, tick, say, processes)
        fill(workspace, config, found, teachers, place)


def _train(
    workspace: Workspace,
    config: DistillConfig,
    found: Survey,
    teachers: Sequence[TeacherFile],
    place: Place,
) -> tuple[Trained, Student, dict[str, str], Usual | None]:
    """→ what came out, the student (in the first process with the weights of a training that came
    to its end), the weights digest of each teacher, and how long the spine usually was."""
    torch.manual_seed(config.seed)
    shape = StudentConfig(
        config.student, config.image_size, config.context, found.tasks.ids, config.grid
    )
    student = build_student(shape)
    parameters = student.encoder_parameters()
    _initialise(student, config, workspace, place)
    identity = {
        "studies, labels or splits": found.digest(),
        "teachers' cards": digest_json({t.card.name: t.card.digest() for t in teachers}),
    }
    if (place.folder / FOLDER).is_dir():
        now = dict(identity)
        with contextlib.suppress(OSError):  # weights that cannot be read are told when loaded
            now[_WEIGHTS] = digest_json({t.card.name: sha256_file(t.weights) for t in teachers})
        check_identity(place.folder / FOLDER, now)  # before hours of features
    elif place.processes.is_first:
        _forget_what_was_derived(place.folder)
    place.processes.wait()
    # The teachers come after it: a student that cannot be is told before hours of features.
    random_state = torch.get_rng_state()
    material, shas = prepare(workspace, config, found, teachers, place)
    torch.set_rng_state(random_state)
    training = start(student, material, config, place)
    # Settings at their defaults are left out: a setting that came later changes no digest.
    settings = config.model_dump(mode="json", exclude=MACHINE, exclude_defaults=True)
    training.identity = {
        **identity,
        "configuration": digest_json(settings),
        _WEIGHTS: digest_json(shas),
    }
    if resume_from(training, place.folder):
        place.say(f"{place.folder.name}: going on at step {training.step}")
    here = place.processes.world
    among = f", {here} processes" if here > 1 else ""
    place.say(
        f"student {config.student}: encoder {parameters:,} parameters "
        f"({student.times_smaller():.0f} times smaller than {', '.join(FULL_SIZE_TEACHERS)} "
        "together), "
        f"{len(material.labelled)} labelled and {len(material.align_keys)} alignment frames, "
        f"{place.device.type} with {torch.get_num_threads()} thread(s){among}"
    )
    trained = train(training, material, config, place)
    student.cpu()
    usual = None
    if place.processes.is_first and not trained.interrupted:  # the others write no student
        student.load_state_dict(trained.weights)
        if student.takes_any_side and not set(SPINE) & set(found.untrained(config)):
            usual = usual_spine(material.labelled)
        if material.validation is not None:
            for line in set_certainty(student, material.validation, usual):
                place.say(line)
    return trained, student, shas, usual


def _initialise(
    student: Student, config: DistillConfig, workspace: Workspace, place: Place
) -> None:
    """Weights to start from, where the settings name some; a resumed run has its own."""
    if not config.init or (place.folder / FOLDER).is_dir():
        return
    begun = initialise(student, config.init, workspace.root)
    place.say(f"student {config.student}: {begun.words}")
    if not begun.trained_on.complete:
        place.say(
            f"warning: {begun.source} does not say which patients it was trained on: test patients "
            "may be among them, and reports will say so; name the student.safetensors in its run's "
            "folder, if there is one"
        )
    if place.processes.is_first:
        write_json(place.folder / START, {"schema_version": SCHEMA_VERSION, **asdict(begun)})


def _forget_what_was_derived(folder: Path) -> None:
    """Before there is a checkpoint nothing says of which cards and labels that was."""
    for path in (folder / STANDARDISE, folder / COLOURS, *folder.glob("readings*")):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _run_folder(
    workspace: Workspace, folder: Path, *, is_new: bool, processes: Processes
) -> Iterator[Say]:
    """Yield what writes a line to the log. A run that failed before it had a checkpoint leaves no
    folder; where the disk gives out later, how to go on is said. Raises WorkspaceError
    while another training has it."""
    if not processes.is_first:
        yield lambda _: None
        return
    path = folder / "train.log"

    def log(line: str) -> None:
        with storage_errors(path), path.open("a", encoding="utf-8") as stream:
            stream.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {line}\n")

    with alone_on_run(workspace, folder.name):
        workspace.check_output(folder)
        folder.mkdir(parents=True, exist_ok=True)
        clear_temporaries(folder)
        try:
            yield log
        except Exception as error:
            if (folder / "last.ckpt").exists():
                if isinstance(error, StorageError):
                    go_on = f"go on with `vfss distill --resume --name {folder.name}`"
                    remedy = f"When the disk takes files again, {go_on}."
                    raise StorageError(error.what, file=error.file, remedy=remedy) from error
            elif is_new:
                shutil.rmtree(folder, ignore_errors=True)
            raise


def _write_results(
    config: DistillConfig,
    found: Survey,
    teachers: Sequence[TeacherFile],
    shas: Mapping[str, str],
    trained: Trained,
    student: Student,
    usual: Usual | None,
    folder: Path,
) -> None:
    start = _begun_from(folder / START)
    before = of_start(config.init, start)
    sources = tuple(study.record.source_sha256[:16] for study in (*found.train, *found.val))
    learned = TrainedOn(sources, simulated=found.simulated).after(before)
    listed = [
        {
            "name": teacher.card.name,
            "title": teacher.card.title,
            "licence": teacher.card.licence,
            "source": teacher.card.source,
            "sha256": shas[teacher.card.name],
        }
        for teacher in teachers
    ]
    facts = {
        "name": folder.name,
        "tasks": found.tasks.to_dict(),
        "thresholds": dict.fromkeys(found.tasks.ids, THRESHOLD),
        "trained_sources": list(learned.sources),
        "trained_sources_complete": learned.complete,
        "untrained_tasks": found.untrained(config),
        "spine_px": usual,
        "teachers": [{"name": t["name"], "sha256": t["sha256"]} for t in listed],
        "simulated": learned.simulated,
        "seed": config.seed,
        "config_sha256": digest_json(config.model_dump(mode="json")),
    }
    card = CardFacts(
        name=folder.name,
        config=config,
        encoder_parameters=student.encoder_parameters(),
        times_smaller=student.times_smaller(),
        start=start,
        before=before,
        parameters=parameters_of(student),
        teachers=listed,
        patients={
            part: len({study.patient for study in studies})
            for part, studies in (("train", found.train), ("val", found.val))
        },
        frames={"train": len(found.train_labelled), "val": len(found.val_labelled)},
        labels=found.labels(found.train),
        untrained=found.untrained(config),
        val_dice=trained.val_dice,
        cuts=cuts_of(student, found.tasks.ids),
        simulated=learned.simulated,
        steps=trained.step,
    )
    write_text(folder / "MODEL_CARD.md", model_card(card))
    write_json(folder / "facts.json", {"schema_version": SCHEMA_VERSION, **facts})
    # Last: a run with a student is a finished run.
    header = {"vfss.name": folder.name, "vfss.notice": RESEARCH_USE_ONLY, **learned.header()}
    save_student(student, folder / "student.safetensors", header)


def _begun_from(path: Path) -> Mapping[str, Any]:
    """A damaged note costs a line of the card, not the training it would end."""
    try:
        return read_json(path) if path.exists() else {}
    except DataError:
        return {"damaged": True}


def _outcome(
    place: Place, val_dice: Mapping[str, float], steps: int, started: float, interrupted: bool
) -> RunOutcome:
    return RunOutcome(
        name=place.folder.name,
        folder=place.folder,
        best_val_dice=mean_dice(val_dice) if val_dice else None,
        val_dice=val_dice,
        steps=steps,
        seconds=time.monotonic() - started,
        interrupted=interrupted,
        silent=not place.processes.is_first,
    )
