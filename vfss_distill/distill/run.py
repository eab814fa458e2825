"""One run: settings, studies and teachers in; a run folder with a student out.

runs/<run>/
  config.yaml  metrics.jsonl  train.log  curves.svg  last.ckpt/
  standardise.safetensors     statistics of the teachers' features
  student.safetensors  facts.json  MODEL_CARD.md
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from ..config import DistillConfig, dump_yaml
from ..errors import DeviceError, VfssError, WeightsMissing
from ..models.decoder import parameters_of
from ..models.students import Student, StudentConfig, build_student, save_student
from ..models.teachers.card import TeacherCard, find_weights, load_card, missing_weights
from ..models.teachers.registry import load_teacher
from ..provenance import RESEARCH_USE_ONLY, SCHEMA_VERSION, digest_json
from ..workspace import Workspace, write_bytes, write_json, write_text
from .cache import Recipe, Say, TeacherFeatures, fill_cache, jobs_from
from .data import Frames, LabelledFrames, Tick, memory_budget
from .journal import draw_curves
from .loop import Material, Place, Trained, resume_from, start, train
from .model_card import CardFacts, model_card
from .settings import MACHINE, check_unchanged, new_folder, read_run_config, task_set
from .standardise import Standardiser, fit
from .survey import Survey, survey
from .validation import mean_dice

THRESHOLD = 0.5


@dataclass(frozen=True)
class RunOutcome:
    """What became of a run. `best_val_dice`: mean over tasks, None without validation labels.

    An interrupted run has no student.safetensors yet; `distill(resume=folder)` goes on.
    """

    name: str
    folder: Path
    best_val_dice: float | None
    val_dice: Mapping[str, float]
    steps: int
    seconds: float
    interrupted: bool


@dataclass(frozen=True)
class TeacherFile:
    card: TeacherCard
    weights: Path


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
    (resumed with other settings), WorkspaceError (nothing to train on), WeightsMissing (every
    missing teacher at once), WeightsMismatch, ModelError (features or loss not finite),
    DeviceError, StorageError.
    """
    started = time.monotonic()
    if resume is not None:
        check_unchanged(config, read_run_config(resume))
    device = pick_device(config)
    found = survey(workspace, task_set(workspace, config), config, say)
    teachers = find_teachers(workspace, config, weights_folders)
    folder = resume or new_folder(workspace, run_name)
    with _run_folder(folder, is_new=resume is None) as log_file:

        def tell(line: str) -> None:
            with log_file.open("a", encoding="utf-8") as stream:
                stream.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {line}\n")
            say(line)

        write_text(folder / "config.yaml", dump_yaml(config))
        place = Place(folder, device, tick, tell)
        try:
            trained, student, shas = _train(workspace, config, found, teachers, place)
        except KeyboardInterrupt:
            # Before the first step: shards that are complete stay.
            return _outcome(folder, {}, 0, started, interrupted=True)
        if not trained.interrupted:
            student.load_state_dict(trained.weights)
            _write_results(config, found, teachers, shas, trained, student, folder)
            tell(f"{folder.name}: done after {trained.step} steps")
        draw_curves(folder / "metrics.jsonl", folder / "curves.svg")
    return _outcome(folder, trained.val_dice, trained.step, started, trained.interrupted)


def _train(
    workspace: Workspace,
    config: DistillConfig,
    found: Survey,
    teachers: Sequence[TeacherFile],
    place: Place,
) -> tuple[Trained, Student, dict[str, str]]:
    """→ what came out, the student's shape to put it in, and the weights digest of each teacher."""
    material, shas = prepare(workspace, config, found, teachers, place)
    torch.manual_seed(config.seed)
    shape = StudentConfig(
        config.student, config.image_size, config.context, found.tasks.ids, config.grid
    )
    student = build_student(shape)
    training = start(student, material, config, place.device)
    training.identity = {
        "configuration": digest_json(config.model_dump(mode="json", exclude=MACHINE)),
        "studies, labels or splits": found.digest(),
        "teachers' weights": digest_json(shas),
    }
    if resume_from(training, place.folder):
        place.say(f"{place.folder.name}: going on at step {training.step}")
    place.say(
        f"student {config.student}: encoder {student.encoder_parameters():,} parameters, "
        f"{len(material.labelled)} labelled and {len(material.align_keys)} alignment frames, "
        f"{place.device.type} with {torch.get_num_threads()} thread(s)"
    )
    return train(training, material, config, place), student.cpu(), shas


def prepare(
    workspace: Workspace,
    config: DistillConfig,
    found: Survey,
    teachers: Sequence[TeacherFile],
    place: Place,
) -> tuple[Material, dict[str, str]]:
    """Read frames and masks, fill the cache, standardise. → material, teachers' weight digests."""
    budget = memory_budget()
    align_keys = found.align_keys(config) if teachers else []
    labelled_keys = found.train_labelled if config.task_steps else []
    size = {"size": config.image_size, "context": config.context, "budget_bytes": budget}
    features, shas = [], {}
    for teacher in teachers:
        with _loaded(teacher, place.device) as network:
            shas[teacher.card.name] = network.weights_sha256
            recipe = Recipe(
                teacher.card.name,
                network.weights_sha256,
                network.fingerprint(),
                network.channels,
                min(config.grid, network.grid),
            )
            folder = fill_cache(
                network,
                recipe,
                jobs_from(found.train, align_keys),
                workspace.cache,
                batch_size=32 if place.device.type == "cuda" else 4,
                say=place.say,
                tick=place.tick,
            )
        features.append(TeacherFeatures(folder, recipe, found.train, align_keys))
    _standardise(features, config, place.folder / "standardise.safetensors")
    for cached in features:
        cached.hold(budget // len(features), place.tick)
    frames = Frames(found.train, [*align_keys, *labelled_keys], **size, tick=place.tick)
    labelled = LabelledFrames(
        frames, labelled_keys, found.tasks.ids, budget_bytes=budget, tick=place.tick
    )
    validation = None
    if config.task_steps and (keys := found.val_labelled):
        seen = Frames(found.val, keys, **size, tick=place.tick)
        validation = LabelledFrames(
            seen, keys, found.tasks.ids, budget_bytes=budget, tick=place.tick
        )
    return Material(frames, align_keys, features, labelled, validation), shas


def find_teachers(
    workspace: Workspace, config: DistillConfig, folders: Sequence[Path]
) -> list[TeacherFile]:
    """Card and weights of each teacher. Raises UsageError, WeightsMissing naming all missing."""
    found, missing = [], []
    for name in config.teachers:
        is_file = name.endswith((".yaml", ".yml"))
        card = load_card(str(workspace.root / name) if is_file else name, workspace.root)
        weights = find_weights(card, folders=folders)
        if weights is None:
            missing.append(missing_weights(card))
        else:
            found.append(TeacherFile(card, weights))
    if len(missing) == 1:
        raise missing[0]
    if missing:
        files = ", ".join(error.file or "" for error in missing)
        remedies = " ".join(f"{error.what}: {error.remedy}" for error in missing)
        raise WeightsMissing(f"weights of {len(missing)} teachers", file=files, remedy=remedies)
    return found


def pick_device(config: DistillConfig) -> torch.device:
    """`auto` is CUDA where there is one. Sets torch's threads. Raises DeviceError."""
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.device == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            "no CUDA device that torch can use", remedy="Use --device cpu; see `vfss doctor`."
        )
    use_cuda = config.device != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if use_cuda else "cpu")


@contextlib.contextmanager
def _loaded(teacher: TeacherFile, device: torch.device) -> Iterator[Any]:
    """The network while it is needed: several full-size teachers at once would not fit."""
    network = load_teacher(teacher.card, teacher.weights, device=device.type)
    try:
        yield network
    finally:
        del network
        if device.type == "cuda":
            torch.cuda.empty_cache()


@contextlib.contextmanager
def _run_folder(folder: Path, *, is_new: bool) -> Iterator[Path]:
    """Yield the log's path. A run that failed before it had a checkpoint leaves no folder."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder / "train.log"
    except VfssError:
        if is_new and not (folder / "last.ckpt").exists():
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _standardise(features: Sequence[TeacherFeatures], config: DistillConfig, path: Path) -> None:
    """Statistics over the training patients' features, kept in the run for good."""
    stored: dict[str, Any] = {}
    with contextlib.suppress(OSError, SafetensorError):
        stored = load_file(path)
    for cached in features:
        parts = {part: stored.get(f"{cached.name}.{part}") for part in ("mean", "scale", "matrix")}
        if parts["mean"] is not None and parts["scale"] is not None:
            cached.standardiser = Standardiser(parts["mean"], parts["scale"], parts["matrix"])
        else:
            cached.standardiser = fit(config.standardisation, cached.tokens(), teacher=cached.name)
    if features and not stored:
        arrays = {
            f"{cached.name}.{part}": array
            for cached in features
            if cached.standardiser is not None
            for part, array in cached.standardiser.arrays().items()
        }
        write_bytes(path, save(arrays))


def _write_results(
    config: DistillConfig,
    found: Survey,
    teachers: Sequence[TeacherFile],
    shas: Mapping[str, str],
    trained: Trained,
    student: Student,
    folder: Path,
) -> None:
    sources = sorted(study.record.source_sha256[:16] for study in (*found.train, *found.val))
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
        "trained_sources": sources,
        "untrained_tasks": found.untrained,
        "teachers": [{"name": t["name"], "sha256": t["sha256"]} for t in listed],
        "simulated": found.simulated,
        "seed": config.seed,
        "config_sha256": digest_json(config.model_dump(mode="json")),
    }
    card = CardFacts(
        name=folder.name,
        config=config,
        encoder_parameters=student.encoder_parameters(),
        parameters=parameters_of(student),
        teachers=listed,
        patients={
            part: len({study.patient for study in studies})
            for part, studies in (("train", found.train), ("val", found.val))
        },
        frames={"train": len(found.train_labelled), "val": len(found.val_labelled)},
        labels=found.labels(found.train),
        untrained=found.untrained,
        val_dice=trained.val_dice,
        simulated=found.simulated,
        steps=trained.step,
    )
    write_text(folder / "MODEL_CARD.md", model_card(card))
    write_json(folder / "facts.json", {"schema_version": SCHEMA_VERSION, **facts})
    # Last: a run with a student is a finished run.
    header = {"vfss.name": folder.name, "vfss.notice": RESEARCH_USE_ONLY}
    save_student(student, folder / "student.safetensors", header)


def _outcome(
    folder: Path, val_dice: Mapping[str, float], steps: int, started: float, interrupted: bool
) -> RunOutcome:
    return RunOutcome(
        name=folder.name,
        folder=folder,
        best_val_dice=mean_dice(val_dice) if val_dice else None,
        val_dice=val_dice,
        steps=steps,
        seconds=time.monotonic() - started,
        interrupted=interrupted,
    )
