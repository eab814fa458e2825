"""From studies and teachers to what a run trains on: the cache filled, features standardised."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from torch import Tensor

from ..config import DistillConfig
from ..counting import counted
from ..errors import DeviceError
from ..models.teachers.base import fixed_image
from ..models.teachers.card import VOCABULARY
from ..models.teachers.registry import load_teacher
from ..models.teachers.text import NoTexts, embed_texts
from ..workspace import Workspace, write_bytes
from .batches import Material
from .cache import Job, Recipe, fill_cache, jobs_from, write_index
from .data import Frames, Key, LabelledFrames, memory_budget
from .devices import card_budget
from .features import TeacherFeatures
from .loop import Place
from .outputs import FrameEmbeddings, Outputs
from .pictures import look_at, shown_in
from .prompts import PromptedMasks, fill_prompts, prompt_recipe
from .proposals import Proposals
from .reader import Lesson, Views, read_twice, view_jobs, view_recipe, view_size
from .reading_pictures import FILE as READINGS_PICTURE
from .readings import (
    MOST,
    Plausible,
    ReadFrames,
    kept_readings,
    read_of_batch,
    renewals,
    save_readings,
    stored_readings,
)
from .spread import evenly
from .standardise import Standardiser, fit
from .survey import Survey
from .teacher_files import TeacherFile

STANDARDISE = "standardise.safetensors"
_PROMPTABLE = ("sam",)
_IMAGE_TEXT = ("medclip", "open_clip")
_MASKS = "masks under boxes"


def prepare(
    workspace: Workspace,
    config: DistillConfig,
    found: Survey,
    teachers: Sequence[TeacherFile],
    place: Place,
) -> tuple[Material, dict[str, str]]:
    """Read frames and masks, fill the cache, standardise. → material, teachers' weight digests."""
    budget = memory_budget() // place.processes.on_this_machine
    align_keys = found.align_keys(config) if teachers else []
    labelled_keys = found.train_labelled if config.task_steps else []
    read = partial(
        Frames,
        size=config.image_size,
        context=config.context,
        budget_bytes=budget,
        tick=place.tick,
    )
    asked = _Asked(workspace.cache, config, found, align_keys, labelled_keys, place)
    features, seen, outputs, shas = [], [], Outputs(), {}
    for teacher in teachers:
        with _loaded(teacher, place.device) as network:
            shas[teacher.card.name] = network.weights_sha256
            recipe = _recipe(teacher, network, config)
            features.append(asked.features(network, recipe))
            if asked.to_read:
                seen.append(asked.views(network, recipe))
            outputs = asked.outputs(teacher, network, recipe, outputs)
            if place.processes.is_first:
                look_at(network, teacher.card.name, shown_in(found), place.folder)
    # Named as the settings name them: a card's own name may differ from its file's.
    aligned = [
        cached
        for name, cached in zip(config.teachers, features, strict=True)
        if name not in config.read_only
    ]
    names = [cached.name for cached in aligned]
    outputs = replace(outputs, affinity=[name for name in outputs.affinity if name in names])
    _say_what_is_missing(config, outputs, place)
    if config.read_share and not asked.to_read:
        place.say(f"warning: read_share does nothing here: {asked.why_nothing_to_read()}")
    _standardise(features, config, place)
    card = card_budget(place.device)
    for cached in features:
        cached.hold(budget // len(features), place.tick)
        cached.move_to(place.device, card // len(features))
    frames = read(found.train, [*align_keys, *labelled_keys], earlier=config.lag > 0)
    labelled = LabelledFrames(
        frames, labelled_keys, found.tasks.ids, budget_bytes=budget, tick=place.tick
    )
    validation = None
    if config.task_steps and (keys := found.val_labelled):
        validation = LabelledFrames(
            read(found.val, keys), keys, found.tasks.ids, budget_bytes=budget, tick=place.tick
        )
        validation.leave_out(found.untrained(config))
    drawing = [teacher for teacher in teachers if teacher.card.name in outputs.masks]
    proposals = asked.proposals(drawing[0], frames) if drawing else None
    reading = None
    if asked.to_read:
        plausible = Plausible.of(found.tasks, labelled)
        reading = ReadFrames(
            frames,
            asked.to_read,
            asked.readings(features, seen, plausible),
            known=labelled.labelled.any(0),
            tasks=found.tasks,
            plausible=plausible,
            folder=place.folder,
            renewals=renewals(config),
        )
        if place.processes.is_first and not (place.folder / READINGS_PICTURE).exists():
            reading.draw()
    frames.move_to(place.device, card_budget(place.device))
    material = Material(
        frames, align_keys, aligned, labelled, validation, outputs, proposals, reading
    )
    return material, shas


def fill(
    workspace: Workspace,
    config: DistillConfig,
    found: Survey,
    teachers: Sequence[TeacherFile],
    place: Place,
) -> None:
    """Compute all that a run with these settings would ask its teachers before its first step.

    Started on several machines it is shared out among them.
    """
    labelled_keys = found.train_labelled if config.task_steps else []
    asked = _Asked(workspace.cache, config, found, found.align_keys(config), labelled_keys, place)
    outputs = Outputs()
    for teacher in teachers:
        with _loaded(teacher, place.device) as network:
            recipe = _recipe(teacher, network, config)
            asked.features(network, recipe)
            if asked.to_read:
                asked.views(network, recipe)
            outputs = asked.outputs(teacher, network, recipe, outputs)


def _recipe(teacher: TeacherFile, network: Any, config: DistillConfig) -> Recipe:
    return Recipe(
        teacher.card.name,
        network.weights_sha256,
        network.fingerprint(),
        network.channels,
        min(config.grid, network.grid),
        config.cache_numbers,
    )


@dataclass(frozen=True)
class _Asked:
    """What teachers are asked about: their features of all frames, their outputs by option."""

    cache: Path
    config: DistillConfig
    found: Survey
    align_keys: list[Key]
    labelled_keys: list[Key]
    place: Place

    @cached_property
    def bare(self) -> list[Key]:
        """Unlabelled frames among those the teachers have seen."""
        labelled = set(self.labelled_keys)
        return [key for key in self.align_keys if key not in labelled]

    @cached_property
    def to_read(self) -> list[Key]:
        wanted = self.labelled_keys and read_of_batch(self.config)
        return evenly(self.bare, MOST) if wanted else []

    def why_nothing_to_read(self) -> str:
        if not self.config.teachers:
            return "there are no teachers"
        if not self.config.task_steps:
            return "no step has masks"
        return "a batch of one has no room for it" if self.bare else "every frame has labels"

    @cached_property
    def view_jobs(self) -> dict[int, Views]:
        tasks = self.found.tasks.ids
        return view_jobs(self.found.train, self.labelled_keys, tasks, self.config)

    def features(self, teacher: Any, recipe: Recipe) -> TeacherFeatures:
        jobs = jobs_from(self.found.train, self.align_keys)
        return self._cached(teacher, recipe, jobs, self.align_keys)

    def views(self, teacher: Any, recipe: Recipe) -> TeacherFeatures:
        """What a teacher says of labelled frames that are moved and altered."""
        jobs = self.view_jobs
        keys = [(study, number) for study, job in jobs.items() for number in job.frames]
        self.place.say(f"{recipe.teacher}: for the reader, {len(keys)} views of labelled frames")
        return self._cached(teacher, view_recipe(recipe, jobs), list(jobs.values()), keys)

    def _cached(
        self, teacher: Any, recipe: Recipe, jobs: Sequence[Job], keys: Sequence[Key]
    ) -> TeacherFeatures:
        """Each process computes the shards of its share of studies. Raises DeviceError where those
        of another would not be the same."""
        place = self.place
        if not place.processes.agree(recipe.digest):
            raise DeviceError(
                f"the processes' weights, libraries or processors differ, and with them what "
                f"{recipe.teacher} says of a frame",
                remedy="Start them on machines of one kind, with the same weights and versions.",
            )
        folder = fill_cache(
            teacher,
            recipe,
            jobs[place.processes.rank :: place.processes.world],
            self.cache,
            batch_size=32 if place.device.type == "cuda" else 4,
            say=place.say,
            tick=place.tick,
        )
        self._filled(folder, recipe)
        return TeacherFeatures(folder, recipe, self.found.train, keys)

    def outputs(
        self, teacher: TeacherFile, network: Any, recipe: Recipe, so_far: Outputs
    ) -> Outputs:
        """`so_far` and what this teacher adds."""
        family, config = teacher.card.family, self.config
        if family in _PROMPTABLE:
            if config.mask_weight and self.labelled_keys and network.takes_boxes:
                masks = {**so_far.masks, recipe.teacher: self._masks(network, recipe)}
                return replace(so_far, masks=masks)
        elif family in _IMAGE_TEXT:
            if config.embedding_weight or config.anchor_weight:
                one = self._embeddings(teacher, network, recipe)
                return replace(so_far, embeddings=[*so_far.embeddings, one])
        elif config.affinity_weight:
            return replace(so_far, affinity=[*so_far.affinity, recipe.teacher])
        return so_far

    def _masks(self, network: Any, features: Recipe) -> PromptedMasks:
        place, tasks = self.place, self.found.tasks.ids
        recipe = prompt_recipe(features, tasks)
        jobs = jobs_from(self.found.train, self.labelled_keys)
        folder = fill_prompts(
            network,
            recipe,
            jobs[place.processes.rank :: place.processes.world],
            tasks,
            self.cache,
            say=place.say,
            tick=place.tick,
        )
        self._filled(folder, recipe)
        numbers = {study.id: number for number, study in enumerate(self.found.train)}
        masks = PromptedMasks.from_cache(folder, {numbers[job.study.id]: job for job in jobs})
        labels = sum(self.found.labels(self.found.train).values())
        place.say(
            f"{recipe.teacher}: {masks.count()} masks under boxes agree with their labels, of "
            f"{labels} labels (blank ones have no box)"
        )
        return masks

    def readings(
        self,
        features: Sequence[TeacherFeatures],
        seen: Sequence[TeacherFeatures],
        plausible: Plausible,
    ) -> Tensor:
        """Masks of `to_read`, made in the first process and kept: a resumed run sees the same."""
        place, path = self.place, self.place.folder / "readings.safetensors"
        if place.processes.is_first and stored_readings(path, self.to_read) is None:
            jobs = self.view_jobs
            for cached, views in zip(features, seen, strict=True):
                views.standardiser = cached.standardiser
            lesson = Lesson(jobs, seen, self._labelled(jobs), plausible)
            seed = self.config.seed
            masks = read_twice(lesson, features, self.to_read, seed, place.device, place.tick)
            save_readings(path, self.to_read, masks)
            place.say(
                f"reader of {', '.join(cached.name for cached in features)}: fitted on "
                f"{len(seen[0].keys)} views of labelled frames, has read "
                f"{counted(len(masks), 'unlabelled frame')}"
            )
        place.processes.wait()
        return kept_readings(path, self.to_read)

    def _labelled(self, jobs: Mapping[int, Views]) -> LabelledFrames:
        """The frames that views are of, at their size."""
        keys = [(study, frame) for study, views in jobs.items() for frame in views.of]
        size = view_size(self.config)
        frames = Frames(self.found.train, keys, size=size, context=0, budget_bytes=0)
        return LabelledFrames(frames, keys, self.found.tasks.ids, budget_bytes=0)

    def proposals(self, teacher: TeacherFile, frames: Frames) -> Proposals | None:
        config, place = self.config, self.place
        if not config.proposal_frames:
            return None
        if not (bare := self.bare):
            place.say("warning: proposal_frames does nothing here: every frame has labels")
            return None
        return Proposals(
            at=config.align_steps + config.task_steps // 2,
            file=place.folder / "proposals.safetensors",
            frames=frames,
            keys=evenly(bare, config.proposal_frames),
            teacher=partial(_loaded, teacher, place.device),
            processes=place.processes,
            tick=place.tick,
        )

    def _embeddings(self, teacher: TeacherFile, network: Any, features: Recipe) -> FrameEmbeddings:
        whole = _WholeFrames(network)
        recipe = replace(
            features,
            fingerprint=f"{features.fingerprint}, whole frames",
            channels=whole.length,
            grid=1,
        )
        cached = self.features(whole, recipe)
        mean = torch.from_numpy(np.concatenate(list(cached.tokens())).mean(0))
        anchors, scale = None, 1.0
        if self.config.anchor_weight:
            words = teacher.card.vocabulary or VOCABULARY
            try:
                anchors, scale = embed_texts(teacher.weights, self.config.anchors, words)
            except NoTexts as lack:
                why = f"{recipe.teacher}: anchors are off: {lack.without_file}"
                self.place.say(f"warning: {why}")
        cached.hold(memory_budget() // self.place.processes.on_this_machine, self.place.tick)
        return FrameEmbeddings(cached, mean, anchors, scale)

    def _filled(self, folder: Path, recipe: Recipe) -> None:
        """Wait for the others' shards; then the index is right, whoever wrote it last."""
        processes = self.place.processes
        processes.wait()
        if processes.world > 1 and processes.is_first:
            write_index(folder, recipe)


class _WholeFrames:
    """An image-text teacher whose features are its one embedding, as a map of one cell."""

    def __init__(self, network: Any) -> None:
        self.network = network
        self.length = int(network.pooled(fixed_image()[None]).shape[1])

    def features(self, frames: Tensor) -> Tensor:
        embeddings: Tensor = self.network.pooled(frames)
        return embeddings[:, :, None, None]


def _say_what_is_missing(config: DistillConfig, outputs: Outputs, place: Place) -> None:
    given: Mapping[str, tuple[float, bool, str]] = {
        "mask_weight": (config.mask_weight, bool(outputs.masks), _MASKS),
        "proposal_frames": (config.proposal_frames, bool(outputs.masks), _MASKS),
        "affinity_weight": (config.affinity_weight, bool(outputs.affinity), "patch likeness"),
        "embedding_weight": (config.embedding_weight, bool(outputs.embeddings), "embeddings"),
        "anchor_weight": (
            config.anchor_weight,
            any(one.anchors is not None for one in outputs.embeddings),
            "texts",
        ),
    }
    for name, (weight, there, what) in given.items():
        if weight and not there:
            why = f"no teacher of this run gives {what}"
            if what == _MASKS and not config.task_steps:
                why = "no step has masks"
            elif what == _MASKS and not config.mask_weight:
                why = "mask_weight is 0"
            place.say(f"warning: {name} does nothing here: {why}")


@contextlib.contextmanager
def _loaded(teacher: TeacherFile, device: torch.device) -> Iterator[Any]:
    """The network while it is needed: several full-size teachers at once would not fit."""
    network = load_teacher(teacher.card, teacher.weights, device=device.type)
    try:
        yield network
    finally:
        if device.type == "cuda":
            network.cpu()  # whoever asked for it still holds it
            torch.cuda.empty_cache()


def _standardise(features: Sequence[TeacherFeatures], config: DistillConfig, place: Place) -> None:
    """Statistics over the training patients' features, kept in the run for good."""
    path = place.folder / STANDARDISE
    stored: dict[str, Any] = {}
    with contextlib.suppress(OSError, SafetensorError):
        stored = load_file(path)
    for cached in features:
        parts = {part: stored.get(f"{cached.name}.{part}") for part in ("mean", "scale", "matrix")}
        if parts["mean"] is not None and parts["scale"] is not None:
            cached.standardiser = Standardiser(parts["mean"], parts["scale"], parts["matrix"])
        else:
            cached.standardiser = fit(config.standardisation, cached.tokens(), teacher=cached.name)
    if features and not stored and place.processes.is_first:
        arrays = {
            f"{cached.name}.{part}": array
            for cached in features
            if cached.standardiser is not None
            for part, array in cached.standardiser.arrays().items()
        }
        write_bytes(path, save(arrays))
