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
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..config import DistillConfig
from ..errors import ModelError
from ..models.students import Student
from .augment import geometric, photometric
from .cache import Say, TeacherFeatures
from .checkpoint import FOLDER, Training, load_checkpoint, save_checkpoint
from .data import Frames, Key, LabelledBatch, LabelledFrames, Order, Tick, unpack
from .journal import Metrics
from .losses import feature_loss, task_loss
from .projector import Heads
from .validation import mean_dice, validate

# In stage 2 each batch of masks travels with this share of frames for alignment.
_ALIGN_SHARE = 0.25
_STREAM_ALIGN, _STREAM_TASK = 1, 2


@dataclass(frozen=True)
class Material:
    """What the loop trains on. `align_keys` is empty and `teachers` too in a supervised run."""

    frames: Frames
    align_keys: Sequence[Key]
    teachers: Sequence[TeacherFeatures]
    labelled: LabelledFrames
    validation: LabelledFrames | None


@dataclass(frozen=True)
class Place:
    """Where a run computes and writes, and whom it tells."""

    folder: Path
    device: torch.device
    tick: Tick
    say: Say


@dataclass(frozen=True)
class Trained:
    """`weights`: averaged; those with the best validation Dice where there are validation labels.

    `val_dice`: of these weights, per task; empty without validation.
    """

    weights: dict[str, Tensor]
    val_dice: dict[str, float]
    step: int
    interrupted: bool


def start(student: Student, material: Material, config: DistillConfig, device: Any) -> Training:
    """A training at step 0. The caller has seeded torch before building the student."""
    student.to(device)
    shapes = [(teacher.channels, teacher.grid) for teacher in material.teachers]
    heads = Heads(student.embed_channels, shapes, config).to(device)
    ema = copy.deepcopy(student).eval().requires_grad_(False)
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
    student, heads, device = training.student, training.heads, place.device
    total = config.align_steps + config.task_steps
    align_order = Order(len(material.align_keys), config.seed, _STREAM_ALIGN)
    task_order = Order(len(material.labelled), config.seed, _STREAM_TASK)
    parameters = [p for group in training.optimiser.param_groups for p in group["params"]]
    # One process for now. With several, every process computes the same batch and takes its
    # slice here: rank, world = accelerator.process_index, accelerator.num_processes.
    checkpoint = place.folder / FOLDER

    with Metrics(place.folder / "metrics.jsonl", training.step) as metrics, _stop_asked() as stop:
        for step in range(training.step, total):
            started = time.monotonic()
            aligning = step < config.align_steps
            generator = _generator(config.seed, step, device)
            rate = learning_rate(step, config)
            for group in training.optimiser.param_groups:
                group["lr"] = rate

            # Batch: frames for alignment keep their geometry, frames for masks are moved too.
            align_keys, task_batch = _draw(
                step, aligning, material, config, align_order, task_order
            )
            frames, masks, labelled = _prepare(
                align_keys, task_batch, material, generator, device, student.logit_stride
            )

            # Forward and loss.
            student.train()
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                embedding, pyramid = student.embed(frames)  # (B, E, g, g)
            first = len(frames) - len(align_keys)
            loss = torch.zeros((), device=device)
            record: dict[str, Any] = {"step": step, "stage": "align" if aligning else "task"}
            if align_keys:
                aligned = _align(embedding[first:].float(), align_keys, material, heads, record)
                loss = loss + (aligned if aligning else config.align_weight * aligned)
            if task_batch is not None:
                with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                    # All frames, though only the first have masks: the gradient of a slice loses
                    # the channels-last layout, and every level would pay for it.
                    logits = student.decode(pyramid)
                logits = logits[:first] if align_keys else logits
                masked = task_loss(logits.float(), masks, labelled)  # (first, T, S/2, S/2)
                record["task"] = masked.item()
                loss = loss + masked

            # Backward, step, running average. The weights stay as they were when anything is NaN.
            training.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(parameters, config.clip_norm)
            record |= {"loss": loss.item(), "norm": norm.item(), "lr": rate}
            if not (math.isfinite(record["loss"]) and math.isfinite(record["norm"])):
                keys = [*(task_batch.keys if task_batch else []), *align_keys]
                raise _not_finite(step, keys, embedding, material)
            training.optimiser.step()
            update_average(training.ema, student, min(config.ema, (1 + step) / (10 + step)))
            training.step = step + 1

            # Look, write, go on.
            last = training.step == total
            if not aligning and (last or training.step % config.validate_every == 0):
                record["val_dice"] = _validated(training, material, device)
            metrics.write({**record, "s": time.monotonic() - started})
            place.tick(training.step, total, _words(record, training))
            if last or stop.is_set() or training.step % config.checkpoint_every == 0:
                save_checkpoint(checkpoint, training)
            if stop.is_set() and not last:
                break

    weights = training.best if training.best is not None else training.ema.state_dict()
    return Trained(weights, training.best_scores, training.step, training.step < total)


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


@torch.no_grad()
def update_average(ema: nn.Module, student: nn.Module, decay: float) -> None:
    """ema ← decay · ema + (1 - decay) · student, running statistics too; counters are copied."""
    old = [*ema.parameters(), *ema.buffers()]
    new = [*student.parameters(), *student.buffers()]
    floats = [(a, b) for a, b in zip(old, new, strict=True) if a.is_floating_point()]
    torch._foreach_lerp_([a for a, _ in floats], [b for _, b in floats], 1 - decay)
    for a, b in zip(old, new, strict=True):
        if not a.is_floating_point():
            a.copy_(b)


def _draw(
    step: int,
    aligning: bool,
    material: Material,
    config: DistillConfig,
    align_order: Order,
    task_order: Order,
) -> tuple[list[Key], LabelledBatch | None]:
    """→ keys for alignment (stage 1: a whole batch; stage 2: a share), and the labelled batch."""
    size = config.batch_size
    if aligning:
        return [material.align_keys[row] for row in align_order.batch(step, size)], None
    batch = material.labelled.batch(task_order.batch(step - config.align_steps, size))
    if not material.teachers or config.align_weight == 0:
        return [], batch
    share = max(1, round(size * _ALIGN_SHARE))
    # Stage 1 took whole batches; go on from any place, as long as the step decides it.
    return [material.align_keys[row] for row in align_order.batch(step, share)], batch


def _prepare(
    align_keys: list[Key],
    batch: LabelledBatch | None,
    material: Material,
    generator: torch.Generator,
    device: torch.device,
    stride: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """→ frames (B, C, S, S) 0..255, labelled ones first; masks (b, T, S/2, S/2), labelled (b, T).

    Masks are averaged to the stride of the student's logits: soft edges, and for the usual stride
    of 2 a quarter of the work of the loss.
    """
    parts: list[Tensor] = []
    masks = labelled = torch.empty(0, device=device)
    if batch is not None:
        frames = photometric(batch.frames.to(device), generator)
        frames, planes = geometric(frames, batch.planes.to(device), generator)
        masks = nn.functional.avg_pool2d(unpack(planes, len(material.labelled.tasks)), stride)
        labelled = batch.labelled.to(device)
        parts.append(frames)
    if align_keys:
        parts.append(photometric(material.frames.batch(align_keys).to(device), generator))
    return torch.cat(parts), masks, labelled


def _align(
    embedding: Tensor,
    keys: list[Key],
    material: Material,
    heads: Heads,
    record: dict[str, Any],
) -> Tensor:
    """Σ α_i L_i over the teachers; losses and weights go into `record`."""
    losses = []
    for teacher, projector in zip(material.teachers, heads.projectors, strict=True):
        target = teacher.batch(keys).to(embedding.device)
        if not bool(torch.isfinite(target).all()):
            bad = int((~torch.isfinite(target).flatten(1).all(1)).nonzero()[0])
            raise ModelError(
                f"cached features of teacher {teacher.name} are not finite for "
                f"{material.frames.name(keys[bad])}",
                remedy="Delete the cache folder of that teacher and run it again.",
            )
        losses.append(feature_loss(projector(embedding), target))
    stacked = torch.stack(losses)  # (teachers,)
    alpha = heads.balance(stacked)
    names = [teacher.name for teacher in material.teachers]
    record["align"] = dict(zip(names, stacked.tolist(), strict=True))
    record["alpha"] = dict(zip(names, alpha.tolist(), strict=True))
    return (alpha * stacked).sum()


def _validated(training: Training, material: Material, device: torch.device) -> dict[str, float]:
    """Dice of the averaged weights per task; keeps them if they are the best so far."""
    if material.validation is None:
        return {}
    scores = validate(training.ema, material.validation, device)
    if training.best is None or mean_dice(scores) >= mean_dice(training.best_scores):
        training.best_scores = scores
        training.best = {k: v.detach().clone() for k, v in training.ema.state_dict().items()}
    return scores


def _not_finite(step: int, keys: list[Key], embedding: Tensor, material: Material) -> ModelError:
    finite = torch.isfinite(embedding).flatten(1).all(1)
    bad = [key for key, fine in zip(keys, finite.tolist(), strict=True) if not fine]
    return ModelError(
        f"the loss or its gradient is not a number at step {step} "
        f"({material.frames.name((bad or keys)[0])}); the last checkpoint is kept",
        remedy="Lower learning_rate, or look at that frame, then run `vfss distill --resume`.",
    )


def _generator(seed: int, step: int, device: torch.device) -> torch.Generator:
    """Seeds torch's own generator (dropout of a trunk) and returns one for augmentation."""
    mixed = int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> 1)
    torch.manual_seed(mixed)
    return torch.Generator(device=device).manual_seed(mixed)


def _words(record: dict[str, Any], training: Training) -> str:
    said = f"{record['stage']} loss {record['loss']:.3f}"
    scores = training.best_scores
    return f"{said}, best Dice {mean_dice(scores):.3f}" if scores else said


@contextmanager
def _stop_asked() -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM set the event, so that a step is finished first; a second one is final."""
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}
    for asking in (signal.SIGINT, signal.SIGTERM):
        before[asking] = signal.signal(asking, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
