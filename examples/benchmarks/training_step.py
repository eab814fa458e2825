"""Where the time of a training step goes: batch 16 of `small` at 256 × 256, three teachers.

    python examples/benchmarks/training_step.py [--steps 40] [--threads 2] [--compile]
        [--cpu-time] [--profile]
    python examples/benchmarks/training_step.py --device cuda [--batch 16,64,256] [--compile]

Simulated films; teachers stand in with random features of the published sizes (256 × 32 × 32,
768 × 32 × 32, 768 × 7 × 7), in the cache as always. The steps are those of `vfss distill`. After
each one the benchmark runs forward and backward alone, on a batch that is already there, so that
both see the same machine at the same time:

    step       everything between two lines of metrics.jsonl
    loader     of that: frames, masks and teachers' features put together, and augmentation
    bare       forward and backward alone
    rate       bare / step: 1 would be a step that does nothing else

With `--compile` both lines come twice, the second time with `compile: true` (a minute more).
Memory is what the process holds after each pass over the labelled frames.

With `--device cuda` it is the alignment alone, frames and teachers' features on the card as always
where they fit, and the share of the time in which the GPU computes anything (copies do not count),
by torch's profiler. A step of `small` is many small kernels: on a large card those of a batch of 16
may be done before the next ones have been asked for, so say which batch a figure is of.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from vfss_distill.config import DistillConfig
from vfss_distill.distill.batches import Batches, Material
from vfss_distill.distill.cache import Recipe, fill_cache, jobs_from
from vfss_distill.distill.checkpoint import Training
from vfss_distill.distill.data import (
    Frames,
    Key,
    LabelledFrames,
    alignment_keys,
    labelled_keys,
    memory_budget,
)
from vfss_distill.distill.devices import card_budget
from vfss_distill.distill.features import TeacherFeatures
from vfss_distill.distill.loop import Place, _loss, start, train
from vfss_distill.intake.study import list_studies
from vfss_distill.models.students import StudentConfig, build_student
from vfss_distill.tasks import VFSS12
from vfss_distill.workspace import Workspace

TEACHERS = {"medsam": (256, 32), "raddino": (768, 32), "medclip": (768, 7)}


now: Callable[[], float] = time.perf_counter


class Noise:
    """A teacher's stand-in: features of its size, at no cost."""

    def __init__(self, channels: int, grid: int) -> None:
        self.shape = (channels, grid, grid)

    def features(self, frames: Tensor) -> Tensor:
        return torch.randn(len(frames), *self.shape)


@dataclasses.dataclass
class Fixed:
    """A teacher whose features of one batch are at hand."""

    name: str
    target: Tensor

    def batch(self, _: Sequence[Key], device: torch.device) -> Tensor:
        return self.target.to(device)


class Clock:
    """Seconds spent inside the functions it watches, since the last reading."""

    def __init__(self) -> None:
        self.total = 0.0

    def watch(self, owner: type, name: str) -> Callable[[], None]:
        """→ what takes the watch off again."""
        inner = getattr(owner, name)

        def timed(*arguments: Any) -> Any:
            started = now()
            try:
                return inner(*arguments)
            finally:
                self.total += now() - started

        setattr(owner, name, timed)
        return lambda: setattr(owner, name, inner)

    def read(self) -> float:
        spent, self.total = self.total, 0.0
        return spent


def prepare(root: Path, config: DistillConfig) -> Material:
    films, lab = root / "films", root / "lab"
    lab.mkdir()
    vfss = [sys.executable, "-m", "vfss_distill"]
    shape = ["--patients", "2", "--frames", "16", "--size", "256", "--seed", "5", "--quiet"]
    subprocess.run([*vfss, "simulate", str(films), *shape], check=True, capture_output=True)
    subprocess.run(
        [*vfss, "ingest", str(films), "-w", str(lab), "--quiet"], check=True, capture_output=True
    )
    studies = list_studies(Workspace(lab))
    labelled = labelled_keys(studies, VFSS12.ids)
    aligned = alignment_keys(studies, labelled, 1)
    teachers = []
    (lab / "cache").mkdir(exist_ok=True)
    for name, (channels, grid) in TEACHERS.items():
        recipe = Recipe(name, "0" * 64, "noise", channels, grid)
        folder = fill_cache(
            Noise(channels, grid),
            recipe,
            jobs_from(studies, aligned),
            lab / "cache",
            batch_size=8,
            say=lambda _: None,
            tick=lambda *_: None,
        )
        features = TeacherFeatures(folder, recipe, studies, aligned)
        features.hold(memory_budget())
        teachers.append(features)
    frames = Frames(
        studies, aligned, size=config.image_size, context=0, budget_bytes=memory_budget()
    )
    return Material(
        frames,
        aligned,
        teachers,
        LabelledFrames(frames, labelled, VFSS12.ids, budget_bytes=memory_budget()),
        validation=None,
    )


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


@contextmanager
def watched(clock: Clock) -> Iterator[None]:
    undo = [clock.watch(Batches, "at"), clock.watch(TeacherFeatures, "batch")]
    try:
        yield
    finally:
        for one in undo:
            one()


def begin(material: Material, config: DistillConfig, place: Place) -> Training:
    torch.manual_seed(0)
    shape = StudentConfig(config.student, config.image_size, 0, VFSS12.ids, config.grid)
    return start(build_student(shape), material, config, place)


def measure(material: Material, config: DistillConfig, root: Path, stage: str) -> None:
    device = torch.device("cpu")
    clock = Clock()
    rows: list[tuple[float, float, float]] = []
    memory: list[float] = []
    epoch = max(1, len(material.labelled) // config.batch_size)
    bare: list[Callable[[], None]] = []
    last = [0.0]

    def tick(done: int, _: int, __: str) -> None:
        """Called between two steps."""
        step = now() - last[0]
        loader = clock.read()
        started = now()
        bare[0]()
        rows.append((step, loader, now() - started))
        clock.read()
        if done % epoch == 0:
            memory.append(resident_mb())
        last[0] = now()

    place = Place(root, device, tick, lambda _: None)
    training = begin(material, config, place)
    stride = training.student.logit_stride
    batch = Batches(material, config, stride, place.processes).at(0, device)
    still = dataclasses.replace(
        material,
        teachers=[Fixed(one.name, one.batch(batch.align_keys)) for one in material.teachers],
    )

    def forward_and_backward() -> None:
        loss, _ = _loss(batch, training, still, config, place.processes, {})
        loss.backward()
        training.optimiser.zero_grad(set_to_none=True)

    bare.append(forward_and_backward)
    with watched(clock):
        last[0] = now()
        train(training, material, config, place)
    warm = rows[2:-1]  # the last one writes the checkpoint
    step, loader, alone = (statistics.median(column) for column in zip(*warm, strict=True))
    print(
        f"{stage:14}{1e3 * step:9.0f}{1e3 * loader:9.0f}{1e3 * alone:9.0f}"
        f"{loader / step:10.1%}{alone / step:8.2f}"
        f"{memory[len(memory) // 4]:10.0f}{memory[-1] - memory[len(memory) // 4]:+10.0f}"
    )


def measure_gpu(material: Material, config: DistillConfig, root: Path) -> None:
    """One line: batch, milliseconds a step, share of the time in which the GPU computes."""
    device = torch.device("cuda")
    seen = profile(activities=[ProfilerActivity.CUDA])
    first, last = config.align_steps // 4, config.align_steps - 1  # the last writes the checkpoint
    moments: list[float] = []

    def tick(done: int, _: int, __: str) -> None:
        if done in (first, last):
            torch.cuda.synchronize()
            seen.start() if done == first else seen.stop()
            moments.append(now())

    place = Place(root, device, tick, lambda _: None)
    train(begin(material, config, place), material, config, place)
    spent = moments[1] - moments[0]
    kernels = [
        (event.time_range.start, event.time_range.end)
        for event in seen.events() or ()
        if event.device_type == DeviceType.CUDA and not event.name.startswith("Mem")
    ]
    step = 1e3 * spent / (last - first)
    print(f"{config.batch_size:5}{step:10.1f}{covered(kernels) / 1e6 / spent:10.1%}")


def covered(ranges: Sequence[tuple[float, float]]) -> float:
    """Length of their union: kernels of several streams overlap."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(ranges):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--student", default="small")
    parser.add_argument("--compile", action="store_true", help="Also with a compiled student.")
    parser.add_argument(
        "--cpu-time", action="store_true", help="Count CPU time: for a machine that others use."
    )
    parser.add_argument("--profile", action="store_true", help="Also: where the loader's time is.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", default="16,64,256", help="For a GPU: sizes to try.")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.cpu_time:
        globals()["now"] = time.process_time
    stages = {
        "align": {"align_steps": options.steps, "task_steps": 0},
        "task": {"align_steps": 0, "task_steps": options.steps},
    }
    common = {"student": options.student, "teachers": tuple(TEACHERS)}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        material = prepare(root, DistillConfig(**common))
        with_and_without = [False, True] if options.compile else [False]
        if options.device == "cuda":
            budget = card_budget(torch.device("cuda")) // len(material.teachers)
            for teacher in material.teachers:
                teacher.move_to(torch.device("cuda"), budget)
            material.frames.move_to(torch.device("cuda"), card_budget(torch.device("cuda")))
            print(f"{options.student}, 256 × 256, alignment alone: ms a step, GPU computing")
            batches = map(int, options.batch.split(","))
            for compile, batch in itertools.product(with_and_without, batches):
                steps = {"align_steps": options.steps, "task_steps": 0, "batch_size": batch}
                config = DistillConfig(**common, **steps, checkpoint_every=10**6, compile=compile)
                measure_gpu(material, config, Path(tempfile.mkdtemp(dir=root)))
            return
        print(f"{options.student}, 256 × 256, batch 16, {options.threads} thread(s), median of")
        print(f"{options.steps - 3} steps, ms; megabytes held after a quarter, and growth")
        print("stage            step   loader     bare    loader    rate      held    growth")
        for compile, (stage, steps) in itertools.product(with_and_without, stages.items()):
            config = DistillConfig(**common, **steps, checkpoint_every=10**6, compile=compile)
            name = f"{stage} compiled" if compile else stage
            place = Path(tempfile.mkdtemp(dir=root))
            if options.profile:
                with torch.profiler.profile() as seen:
                    measure(material, config, place, name)
                print(seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=25))
            else:
                measure(material, config, place, name)


if __name__ == "__main__":
    main()
