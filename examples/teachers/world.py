"""The world the small teachers learn from: another population than the student's, other seeds.

    python world.py --out build/world          # about two minutes on one core

A folder of three files: frames.npy uint8 (N, 256, 256), masks.npy bits (N, K, 256, 32), and
world.json with structures, captions and whose frames they are.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vfss_distill.simulate.population import TRAIN, Ranges
from vfss_distill.simulate.study import (
    SimulatedStudy,
    SimulateOptions,
    StudySimulator,
    simulate_study,
)

SIZE = 256
FIRST_SEED = 5_000_000  # no student's and no test patient's seed comes near
FRAMES_EACH = 8

# Structures that the simulator labels and the packaged teachers were not taught.
_UNTAUGHT = (
    *("thyroid", "cricoid", "skull_base", "maxilla", "teeth"),
    *("larynx", "trachea", "posterior_elements", "shoulders", "metal", "tube"),
    *(f"disc_c{n}_c{n + 1}" for n in range(2, 7)),
)

# Wider than what students train on, and without the lag that frames half a second apart would show.
TEACHERS: Ranges = replace(
    TRAIN,
    name="teachers",
    lean_deg=(-2, 36),
    head_pitch_deg=(-16, 16),
    warp_mm=(1.0, 3.4),
    field_mm=(150, 270),
    c4_x=(0.44, 0.74),
    c4_y=(0.40, 0.66),
    roll_deg=(-14, 14),
    photons=(600, 30000),
    blur_mm=(0.1, 0.8),
    scatter=(0.0, 1.4),
    sharpening=(0.0, 1.6),
    lag=(0.0, 0.0),
    light_bone_share=0.4,
    edentulous_share=0.3,
    plate_share=0.1,
    earring_share=0.15,
    tube_share=0.12,
    impaired_share=0.5,
)


def caption(study: SimulatedStudy, simulator: StudySimulator, frame: int) -> str:
    """What a radiologist might dictate of one frame: picture, phase, consistency, findings."""
    words = [*_picture(simulator), _phase(study, frame)]
    if study.masks["bolus"][frame].sum() > 60:
        words.append(f"barium {str(study.findings.get('consistency', '')).replace('_', ' ')}")
    else:
        words.append("no barium")
    if study.masks["airway"][frame].any() and _aspirating(study, frame):
        words.append("barium in airway")
    patient = study.patient
    words += [
        {"own": "teeth", "none": "no teeth", "denture": "denture"}[patient.teeth],
        *(["fillings"] if patient.fillings else []),
        *(["plate"] if patient.plate else []),
        *(["tube"] if patient.tube else []),
        *(["degenerative spine"] if patient.degeneration > 0.5 else []),
    ]
    return " ".join(" ".join(words).split())


def _picture(simulator: StudySimulator) -> list[str]:
    """Words for the whole picture, which are what an untrained eye learns first."""
    field_mm = simulator.view.field_mm
    return [
        simulator.machine.polarity.replace("-barium", ""),
        f"{simulator.collimator.shape} field",
        "close" if field_mm < 190 else "wide" if field_mm > 230 else "middle",
        "young" if simulator.patient.age_years < 50 else "old",
    ]


def _phase(study: SimulatedStudy, frame: int) -> str:
    def at(name: str, default: int) -> int:
        found = study.events.get(name)
        return default if found is None else found

    last = len(study.frames)
    if study.events.get("HYB") is None:
        return "no swallow"
    if frame < min(at("BPM", last), at("HYB", last)):
        return "oral phase"
    if frame < at("UESC", at("rest", last)):
        return "pharyngeal phase"
    return "after swallow"


def _aspirating(study: SimulatedStudy, frame: int) -> bool:
    return bool((study.masks["bolus"][frame] & study.masks["airway"][frame]).sum() > 20)


@dataclass(frozen=True)
class World:
    """Frames, masks of every visible structure, captions; read from disk as needed."""

    frames: NDArray[np.uint8]
    bits: NDArray[np.uint8]
    structures: list[str]
    captions: list[str]
    patients: list[int]
    description: str

    def pick(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randint(len(self.frames), (count,), generator=generator)

    def frames_at(self, picked: Tensor) -> Tensor:
        """uint8 (B, 256, 256)."""
        return torch.from_numpy(np.ascontiguousarray(self.frames[picked.numpy()]))

    def masks_at(self, picked: Tensor) -> Tensor:
        """bool (B, K, 256, 256)."""
        unpacked = np.unpackbits(self.bits[picked.numpy()], axis=-1)
        return torch.from_numpy(unpacked.astype(bool))


def load_world(folder: Path) -> World:
    facts: dict[str, Any] = json.loads((folder / "world.json").read_text())
    return World(
        frames=np.load(folder / "frames.npy", mmap_mode="r"),
        bits=np.load(folder / "masks.npy", mmap_mode="r"),
        **facts,
    )


def make_world(folder: Path, patients: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    options = SimulateOptions(
        size=SIZE, fps=2, pulses=2, seconds=FRAMES_EACH / 2, ranges=TEACHERS, extras=True
    )
    frames = np.zeros((patients * FRAMES_EACH, SIZE, SIZE), np.uint8)
    bits: NDArray[np.uint8] | None = None
    structures: list[str] = []
    captions, owners = [], []
    for number in range(patients):
        study = simulate_study(FIRST_SEED + number, 0, options)
        simulator = StudySimulator(FIRST_SEED + number, 0, options)
        rows = slice(number * FRAMES_EACH, (number + 1) * FRAMES_EACH)
        if bits is None:
            structures = [name for name in study.masks if name not in _UNTAUGHT]
            bits = np.zeros((len(frames), len(structures), SIZE, SIZE // 8), np.uint8)
        frames[rows] = study.frames
        stacked = np.stack([study.masks[name] for name in structures], axis=1)
        bits[rows] = np.packbits(stacked, axis=-1)
        captions += [caption(study, simulator, frame) for frame in range(FRAMES_EACH)]
        owners += [FIRST_SEED + number] * FRAMES_EACH
    np.save(folder / "frames.npy", frames)
    np.save(folder / "masks.npy", bits)
    description = f"{patients} simulated patients (population 'teachers'), {len(frames)} frames"
    facts = {
        "structures": structures,
        "captions": captions,
        "patients": owners,
        "description": description,
    }
    (folder / "world.json").write_text(json.dumps(facts))
    print(description)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--patients", type=int, default=300)
    options = parser.parse_args()
    make_world(options.out, options.patients)
