"""How much faster a pass over cached features is than asking the teachers themselves.

    python examples/benchmarks/cache_speed.py [--teachers medsam,raddino,medclip] [--frames 2]

The networks have their published size and random weights, which cost the same time as learned
ones. "cached" reads each frame's features from the shard on the disk, checks that they are finite
and standardises them, as training does where they do not fit in memory; "held" is from memory.
Times are of this machine; the ratio is what counts. Both are measured in one run.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from transformers import Dinov2Config, Dinov2Model, SwinConfig

from vfss_distill.distill.cache import Job, Recipe, fill_cache
from vfss_distill.distill.features import TeacherFeatures
from vfss_distill.distill.standardise import fit
from vfss_distill.intake.record import StudyRecord
from vfss_distill.intake.study import Study, write_png, write_record
from vfss_distill.models.teachers.card import load_card
from vfss_distill.models.teachers.medclip import SwinTower
from vfss_distill.models.teachers.registry import load_teacher
from vfss_distill.models.teachers.sam import VIT_B, sam_network
from vfss_distill.models.teachers.small import save_published_layout
from vfss_distill.simulate import SimulateOptions
from vfss_distill.simulate.study import StudySimulator
from vfss_distill.workspace import Workspace

GRID = 32


def medclip() -> nn.Module:
    both = nn.Module()
    both.vision_model = SwinTower(SwinConfig(), 512)
    return both


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "medsam": lambda: sam_network(VIT_B),
    "raddino": lambda: Dinov2Model(Dinov2Config(image_size=518)),
    "medclip": medclip,
}


def simulated(root: Path, frames: int) -> Study:
    """A study of the first frames of a simulated patient."""
    film = StudySimulator(7, 0, SimulateOptions())
    folder = Workspace(root).studies / "sim-000000"
    (folder / "frames").mkdir(parents=True)
    for number, seen in zip(range(frames), film.frames(), strict=False):
        write_png(folder / "frames" / f"{number:06d}.png", seen.grey)
        height, width = seen.grey.shape
    record = StudyRecord(
        study=folder.name,
        patient="sim",
        source_sha256="0" * 64,
        frames=frames,
        frame_times_s=tuple(n / 30 for n in range(frames)),
        width=width,
        height=height,
        simulated=True,
    )
    write_record(folder, record)
    return Study.open(folder)


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median over `repeats`, after one that is not counted."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def measure(name: str, study: Study, root: Path) -> tuple[float, float, float]:
    """Seconds a frame: live, cached, held."""
    card = load_card(name)
    weights = root / f"{name}.safetensors"
    torch.manual_seed(0)
    save_published_layout(NETWORKS[name](), weights)
    teacher = load_teacher(card, weights)
    grid = min(GRID, teacher.grid)
    recipe = Recipe(name, teacher.weights_sha256, "benchmark", teacher.channels, grid)
    frames = tuple(range(study.record.frames))
    cache = root / "cache"
    cache.mkdir(exist_ok=True)
    started = time.perf_counter()
    folder = fill_cache(
        teacher, recipe, [Job(study, frames)], cache, batch_size=1, say=print, tick=lambda *_: None
    )
    live = (time.perf_counter() - started) / len(frames)
    weights.unlink()
    del teacher
    keys = [(0, frame) for frame in frames]
    features = TeacherFeatures(folder, recipe, [study], keys)
    features.standardiser = fit("phi-s", features.tokens(), teacher=name)
    cached = seconds(lambda: features.batch(keys), 20) / len(frames)
    features.hold(1 << 30)
    return live, cached, seconds(lambda: features.batch(keys), 20) / len(frames)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--teachers", default="medsam,raddino,medclip")
    parser.add_argument("--frames", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        study = simulated(root, options.frames)
        for name in options.teachers.split(","):
            rows.append((name, *measure(name, study, root)))
    rows.append(("together", *(sum(row[part] for row in rows) for part in (1, 2, 3))))
    print(f"\n{options.frames} frames, {options.threads} thread(s), grid {GRID}, ms a frame")
    print(f"{'teacher':10}{'live':>10}{'cached':>10}{'held':>10}{'cached is':>14}{'held is':>14}")
    for name, live, cached, held in rows:
        times = "".join(f"{1e3 * value:10.2f}" for value in (live, cached, held))
        print(f"{name:10}{times}{live / cached:8.0f}x faster{live / held:8.0f}x faster")


if __name__ == "__main__":
    main()
