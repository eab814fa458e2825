"""The training loop: alignment with the teachers first, then the masks, with alignment kept on.

It reads from top to bottom. Everything random is a function of (seed, step): a resumed run sees
the batches it would have seen, and on the CPU ends with the same bits.
"""

from __future__ import annotations

import copy
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from ..config import DistillConfig
from ..errors import ModelError
from ..models.students import Student
from .agreement import agree_on_masks, align
from .batches import Batch, Batches, Material
from .cache import Say
from .checkpoint import FOLDER, Training, load_checkpoint, save_checkpoint
from .compilation import compiled
from .data import Tick
from .devices import computes_bfloat16
from .journal import Metrics
from .losses import task_loss
from .processes import Processes
from .projector import Heads
from .validation import mean_dice, validate


@dataclass(frozen=True)
class Place:
    """Where a run computes and writes, whom it tells, and who else takes part."""

    folder: Path
    device: torch.device
    tick: Tick
    say: Say
    processes: Processes = field(default_factory=Processes)


@dataclass(frozen=True)
class Trained:
    """`weights`: averaged; those with the best validation Dice where there are validation labels.

    `val_dice`: of these weights, per task; empty without validation.
    """

    weights: dict[str, Tensor]
    val_dice: dict[str, float]
    step: int
    interrupted: bool


def start(student: Student, material: Material, config: DistillConfig, place: Place) -> Training:
    """A training at step 0. The caller has seeded torch before building the student."""
    device = place.device
    student.to(device)
    shapes = [(teacher.channels, teacher.grid) for teacher in material.teachers]
    embeddings = [one.length for one in material.outputs.embeddings]
    heads = Heads(student.embed_channels, shapes, config, embeddings).to(device)
    ema = copy.deepcopy(student).eval().requires_grad_(False)
    for network in (student, heads):
        place.processes.share_statistics(network)
    decay: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for parameter in (*student.parameters(), *heads.parameters()):
        (decay if parameter.ndim > 1 else plain).append(parameter)
    optimiser = torch.optim.AdamW(
        [
            {"params": decay, "weight_decay": config.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        fused=True,
    )
    return Training(student, ema, heads, optimiser)


def train(training: Training, material: Material, config: DistillConfig, place: Place) -> Trained:
    """Run to the last step, or to an interrupt; either way a checkpoint is left.

    Raises ModelError, with the last good checkpoint kept, when a loss is not finite.
    """
    student, device, processes = training.student, place.device, place.processes
    total = config.align_steps + config.task_steps
    batches = Batches(material, config, student.logit_stride, processes)
    parameters = [p for group in training.optimiser.param_groups for p in group["params"]]
    log = place.folder / "metrics.jsonl" if processes.is_first else None

    metrics = Metrics(log, training.step, tensorboard=config.tensorboard)
    with metrics, compiled(student, config), _stop_asked(processes) as stop:
        for step in range(training.step, total):
            started = time.monotonic()
            aligning = step < config.align_steps
            rate = learning_rate(step, config)
            for group in training.optimiser.param_groups:
                group["lr"] = rate
            if (proposals := material.proposals) is not None and step >= proposals.at:
                batches.add_masks([proposals.before(step, training.ema, device)])
                material = replace(material, proposals=None)
            if material.read is not None:
                material.read.renew(step, training.ema, device, processes, place.tick)
            batch = batches.at(step, device)
            record: dict[str, Any] = {"step": step, "stage": "align" if aligning else "task"}
            loss, embedding = _loss(batch, training, material, config, processes, record)

            # Backward, step, running average. The weights stay as they were when anything is NaN.
            training.optimiser.zero_grad(set_to_none=True)
            (loss / processes.world).backward()
            processes.add_gradients(parameters)
            norm = nn.utils.clip_grad_norm_(parameters, config.clip_norm)
            record["loss"], record["norm"] = torch.stack([loss.detach(), norm]).tolist()
            record["lr"] = rate
            if not (math.isfinite(record["loss"]) and math.isfinite(record["norm"])):
                raise _not_finite(step, batch, embedding, material, place)
            training.optimiser.step()
            update_average(training.ema, student, min(config.ema, (1 + step) / (10 + step)))
            training.step = step + 1

            # Look, write, go on.
            last = training.step == total
            if not aligning and (last or training.step % config.validate_every == 0):
                record["val_dice"] = _validated(training, material, device, processes)
            metrics.write({**record, "s": time.monotonic() - started})
            place.tick(training.step, total, _words(record, training))
            stopping = processes.any(stop.is_set())
            due = last or stopping or training.step % config.checkpoint_every == 0
            if due and processes.is_first:
                save_checkpoint(place.folder / FOLDER, training)
            if stopping and not last:
                break

    weights = training.best if training.best is not None else training.ema.state_dict()
    return Trained(weights, training.best_scores, training.step, training.step < total)


def _loss(
    batch: Batch,
    training: Training,
    material: Material,
    config: DistillConfig,
    processes: Processes,
    record: dict[str, Any],
) -> tuple[Tensor, Tensor]:
    """Forward and loss over the whole batch. → scalar, and this process's embedding."""
    student, device, first = training.student, batch.frames.device, batch.first_aligned
    student.train()
    half = computes_bfloat16(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        embedding, pyramid = student.embed(batch.frames)  # (B, E, g, g)
    loss = torch.zeros((), device=device)
    left = fading(training.step, config)
    if batch.aligned:
        seen = _wide(embedding[first:])
        aligned = align(seen, batch, material, training.heads, config, processes, record)
        weight = config.align_weight * left if batch.has_masks else 1.0
        loss = loss + weight * aligned
    if batch.has_masks:
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            # All frames, though only the first have masks: the gradient of a slice loses
            # the channels-last layout, and every level would pay for it.
            logits = _wide(student.decode(pyramid))  # (B, T, S/2, S/2)
        masked = task_loss(
            logits[:first],
            batch.masks,
            batch.labelled,
            processes.total,
            weights=_task_weights(material.labelled.tasks, config, logits),
        )
        record["task"] = masked.item()
        loss = loss + masked
        if batch.drawn and batch.aligned:
            drawn = agree_on_masks(logits[first:], batch, processes, record)
            loss = loss + config.mask_weight * left * drawn
    return loss, embedding


def _task_weights(tasks: Sequence[str], config: DistillConfig, like: Tensor) -> Tensor | None:
    """(T,), or None where all tasks count alike."""
    if not config.task_weights:
        return None
    return like.new_tensor([config.task_weights.get(task, 1.0) for task in tasks])


def _wide(maps: Tensor) -> Tensor:
    """At least float32: losses are not for half precision."""
    return maps.to(torch.promote_types(maps.dtype, torch.float32))


def resume_from(training: Training, folder: Path) -> bool:
    """Fill `training` from the run's last checkpoint; False where there is none yet."""
    if not (folder / FOLDER).is_dir():
        return False
    load_checkpoint(folder / FOLDER, training)
    return True


def learning_rate(step: int, config: DistillConfig) -> float:
    """Warm-up, then cosine down to a hundredth; once per stage."""
    aligning = step < config.align_steps
    length = config.align_steps if aligning else config.task_steps
    place = step if aligning else step - config.align_steps
    warmup = min(config.warmup_steps, length // 4)
    if place < warmup:
        return config.learning_rate * (place + 1) / warmup
    share = (place - warmup) / max(1, length - warmup)
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


def fading(step: int, config: DistillConfig) -> float:
    """What is left, beside the masks, of the teachers' weight: 1, or from there down to 0 at the
    last step."""
    left = 1 - (step - config.align_steps) / max(1, config.task_steps)
    return left if config.align_fades else 1.0


@torch.no_grad()
def update_average(ema: nn.Module, student: nn.Module, decay: float) -> None:
    """ema ← decay · ema + (1 - decay) · student, running statistics too; counters are copied."""
    old = [*ema.parameters(), *ema.buffers()]
    new = [*student.parameters(), *student.buffers()]
    floats = [(a, b) for a, b in zip(old, new, strict=True) if a.is_floating_point()]
    counters = [(a, b) for a, b in zip(old, new, strict=True) if not a.is_floating_point()]
    torch._foreach_lerp_([a for a, _ in floats], [b for _, b in floats], 1 - decay)
    if counters:  # a trunk may have none
        torch._foreach_copy_([a for a, _ in counters], [b for _, b in counters])


def _validated(
    training: Training, material: Material, device: torch.device, processes: Processes
) -> dict[str, float]:
    """Dice of the averaged weights per task; keeps them if they are the best so far."""
    if material.validation is None or not processes.is_first:
        return {}
    scores = validate(training.ema, material.validation, device)
    if training.best is None or mean_dice(scores) >= mean_dice(training.best_scores):
        training.best_scores = scores
        training.best = {k: v.detach().clone() for k, v in training.ema.state_dict().items()}
    return scores


def _not_finite(
    step: int, batch: Batch, embedding: Tensor, material: Material, place: Place
) -> ModelError:
    processes = place.processes
    fine = torch.isfinite(embedding).flatten(1).all(1).float()
    first = batch.first_aligned
    parts = ((fine[:first], len(batch.keys) - batch.aligned), (fine[first:], batch.aligned))
    whole = [flag for part, count in parts for flag in processes.whole(part, count).tolist()]
    bad = [key for key, flag in zip(batch.keys, whole, strict=True) if not flag]
    kept = "; the last checkpoint is kept" if (place.folder / FOLDER).is_dir() else ""
    return ModelError(
        f"the loss or its gradient is not a number at step {step} "
        f"({material.frames.name((bad or batch.keys)[0])}){kept}",
        remedy="Look at that frame; if it is fine, start a new run with a lower --lr.",
    )


def _words(record: dict[str, Any], training: Training) -> str:
    said = f"{record['stage']} loss {record['loss']:.3f}"
    scores = training.best_scores
    return f"{said}, best Dice {mean_dice(scores):.3f}" if scores else said


@contextmanager
def _stop_asked(processes: Processes) -> Iterator[threading.Event]:
    """Ctrl-C, SIGTERM and a terminal that closes set the event, so that a step is finished first; a
    second one is final.

    Not among several processes: there the terminal and the launcher both send one.
    """
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if asked.is_set() and processes.world == 1:
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}
    hangup = getattr(signal, "SIGHUP", signal.SIGTERM)  # Windows has none
    for asking in {signal.SIGINT, signal.SIGTERM, hangup}:
        if asking != hangup or signal.getsignal(hangup) is not signal.SIG_IGN:  # nohup
            before[asking] = signal.signal(asking, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
