"""A trained student becomes one ONNX file that needs no torch, no config and no second file.

Normalisation and the sigmoid are in the graph; tasks, thresholds, letterbox rule and provenance
are in its metadata. A file that does not agree with torch on real frames is not kept.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..config import DistillConfig, parse, read_yaml
from ..errors import DataError, ModelError, WeightsMissing, WorkspaceError
from ..intake.study import Study, list_studies_readable
from ..letterbox import RULE
from ..magnification import LARGEST_SIDE, LEAST_SIDE, STEP, is_usual
from ..models.students import Student, load_student
from ..provenance import RESEARCH_USE_ONLY, SCHEMA_VERSION, provenance
from ..tasks import TaskSet
from ..workspace import Workspace, atomic_path, read_json
from .session import Segmenter

OPSET = 20  # what ONNX Runtime 1.16 and later, and OpenVINO, load
PARITY_BATCHES = (1, 2, 3)
MAX_DIFFERENCE = 1e-3
MIN_DICE = 0.999
_PARITY_STUDIES, _FRAMES_PER_STUDY = 3, 2

_FACTS = "facts.json"
STUDENT_WEIGHTS, STUDENT_ONNX = "student.safetensors", "student.onnx"


@dataclass(frozen=True)
class ExportReport:
    """An ONNX file that agrees with torch.

    `max_difference`: largest |Δ probability|; `min_dice`: smallest Dice of a task's thresholded
    masks, both over `frames` frames at batch sizes 1, 2 and 3.
    """

    path: Path
    name: str
    sha256: str
    bytes: int
    frames: int
    max_difference: float
    min_dice: float


class _Exported(nn.Module):
    """frames uint8 (B, C, S, S) → probabilities float32 (B, T, S, S)."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student

    def forward(self, frames: Tensor) -> Tensor:
        return torch.sigmoid(self.student(frames).float())


def export_student(
    student: Student,
    target: Path,
    *,
    name: str,
    tasks: TaskSet,
    frames: NDArray[np.uint8],
    facts: Mapping[str, Any],
) -> ExportReport:
    """Write `student` to `target`, atomically, after comparing it with torch.

    `frames`: real letterboxed frames, uint8 (n, S, S) or (n, C, S, S). `facts` may hold
    `thresholds` {task: 0..1}, `trained_sources` (digests of recordings seen in training),
    `trained_sources_complete` (False: it has seen others too), `spine_px` (see magnification.py),
    and anything else for the provenance block (`teachers`, `simulated`, `seed`, …).

    Raises ModelError when the student cannot be exported or the two disagree, StorageError.
    """
    if tuple(student.config.tasks) != tasks.ids:
        raise ModelError("the student's tasks are not those of the task set", file=target.name)
    sample = _as_input(frames, 1 + 2 * student.config.context)
    with atomic_path(target) as temporary:
        described = _metadata(student, name, tasks, facts)
        _write_onnx(student, sample, temporary, described)
        report = compare_student(student, temporary, sample)
    return dataclasses.replace(report, path=target)


def compare_student(student: Student, path: Path, frames: NDArray[np.uint8]) -> ExportReport:
    """Compare an ONNX file with the student it was made from. Raises ModelError.

    `frames` as for `export_student`; batches of 1, 2 and 3 are tried.
    """
    segmenter = Segmenter(path, device="cpu")
    sample = _as_input(frames, segmenter.channels)
    module = _Exported(student).eval()
    difference, dice = _compare(module, segmenter, sample)
    if segmenter.takes_any_side:
        # Checked alike; what is told stays that of the frames as they are.
        _compare(module, segmenter, np.pad(sample, (*2 * [(0, 0)], *2 * [(0, STEP)]), mode="edge"))
    return ExportReport(
        path=path,
        name=segmenter.name,
        sha256=segmenter.sha256,
        bytes=path.stat().st_size,
        frames=len(sample),
        max_difference=difference,
        min_dice=dice,
    )


def export_run(
    workspace: Workspace, run_folder: Path, *, target: Path | None = None, replace: bool = True
) -> ExportReport:
    """Export a run's student.safetensors, by default to student.onnx beside it.

    Compares on frames of the workspace's studies. With `replace` False an existing file is only
    compared. Raises WeightsMissing, WorkspaceError (no studies), ModelError (ONNX and torch
    disagree).
    """
    student = load_student(run_folder / STUDENT_WEIGHTS)
    target = target or run_folder / STUDENT_ONNX
    frames = parity_frames(workspace, student.config.image_size, student.config.context)
    if target.exists() and not replace:
        return compare_student(student, target, frames)
    facts = _run_facts(run_folder)
    return export_student(
        student,
        target,
        name=str(facts.pop("name", run_folder.name)),
        tasks=_run_tasks(workspace, run_folder, facts.pop("tasks", None)),
        frames=frames,
        facts=facts,
    )


def find_run(workspace: Workspace, name: str | None = None) -> Path:
    """Folder of the run called `name` (or a path to it), or of the newest trained student.

    Raises WeightsMissing.
    """
    if name is not None:
        for folder in (workspace.runs / name, Path(name)):
            if (folder / STUDENT_WEIGHTS).is_file():
                return folder
        raise WeightsMissing(
            f"no run {name!r} with a trained student", remedy="`ls runs` lists the runs."
        )
    trained = [
        path
        for path in workspace.runs.glob(f"*/{STUDENT_WEIGHTS}")
        if not path.parent.name.startswith(".")
    ]
    if not trained:
        raise WeightsMissing("no trained student in runs/", remedy="Run `vfss distill` first.")
    return max(trained, key=lambda path: (path.stat().st_mtime_ns, path.parent.name)).parent


def parity_frames(workspace: Workspace, size: int, context: int) -> NDArray[np.uint8]:
    """Letterboxed frames of a few studies, from their middle: uint8 (n, C, size, size).

    Raises WorkspaceError when nothing has been ingested, DataError when no record can be read.
    """
    studies, damaged = list_studies_readable(workspace)
    stacks = [
        _letterboxed(study, index, size, context)
        for study in studies[:_PARITY_STUDIES]
        for index in _spread(study.record.frames)
    ]
    if not stacks and damaged:
        raise DataError(damaged[0]["error"], file=damaged[0]["input"])
    if not stacks:
        raise WorkspaceError(
            "no ingested studies: ONNX and torch are compared on real frames",
            file="studies",
            remedy="Run `vfss ingest` first.",
        )
    return np.stack(stacks)


def _as_input(frames: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """(n, S, S) or (n, C, S, S) → (n, C, S, S)."""
    if not len(frames):
        raise ModelError("no frames to compare ONNX and torch on")
    return frames if frames.ndim == 4 else np.repeat(frames[:, None], channels, axis=1)


def _spread(frames: int) -> list[int]:
    return sorted(
        {frames * (2 * k + 1) // (2 * _FRAMES_PER_STUDY) for k in range(_FRAMES_PER_STUDY)}
    )


def _letterboxed(study: Study, index: int, size: int, context: int) -> NDArray[np.uint8]:
    box = study.letterbox(size)
    wanted = range(index - context, index + context + 1)
    inside = [min(max(number, 0), study.record.frames - 1) for number in wanted]
    return np.stack([box.frame(study.read_frame(number)) for number in inside])


_FACTS_FIT: Mapping[str, Callable[[Any], bool]] = {
    "name": lambda said: isinstance(said, str) and said.isprintable(),
    "tasks": lambda said: isinstance(said, dict),
    "thresholds": lambda said: (
        isinstance(said, dict)
        and all(isinstance(one, int | float) and 0 < one < 1 for one in said.values())
    ),
    "trained_sources": lambda said: isinstance(said, list),
    "trained_sources_complete": lambda said: isinstance(said, bool),
    "untrained_tasks": lambda said: isinstance(said, list),
    "spine_px": lambda said: said is None or is_usual(said),
}


def _run_facts(run_folder: Path) -> dict[str, Any]:
    """What training noted beside the weights; {} for a run that noted nothing.

    Raises DataError when that is damaged.
    """
    path = run_folder / _FACTS
    if not path.exists():
        return {}
    facts = {key: value for key, value in read_json(path).items() if key != "schema_version"}
    wrong = [key for key, fits in _FACTS_FIT.items() if key in facts and not fits(facts[key])]
    if wrong:
        raise DataError(
            f"what it says of {', '.join(wrong)} is damaged",
            file=path.name,
            remedy="Put it back from a backup, or train again.",
        )
    return facts


def _run_tasks(workspace: Workspace, run_folder: Path, tasks: Any) -> TaskSet:
    if isinstance(tasks, dict):
        return TaskSet.from_dict(tasks, file=_FACTS)
    config = parse(DistillConfig, read_yaml(run_folder / "config.yaml"), file="config.yaml")
    inside = workspace.root / config.task_set
    return TaskSet.load(inside if inside.is_file() else config.task_set)


def _metadata(
    student: Student, name: str, tasks: TaskSet, facts: Mapping[str, Any]
) -> dict[str, str]:
    given = facts.get("thresholds") or {}
    sources: Sequence[str] = facts.get("trained_sources") or ()
    known = {"thresholds", "trained_sources", "spine_px", "provenance"}
    rest = {key: value for key, value in facts.items() if key not in known}
    return {
        "vfss.schema_version": str(SCHEMA_VERSION),
        "vfss.name": name,
        "vfss.tasks": json.dumps(tasks.to_dict()),
        "vfss.image_size": str(student.config.image_size),
        "vfss.spine_px": json.dumps(facts.get("spine_px")),
        "vfss.context": str(student.config.context),
        "vfss.thresholds": json.dumps({task: float(given.get(task, 0.5)) for task in tasks.ids}),
        "vfss.letterbox": RULE,
        "vfss.trained_patients": json.dumps(sorted({str(digest)[:16] for digest in sources})),
        # No time in it: exported again, a run is the same model, and its results stay valid.
        "vfss.provenance": json.dumps(provenance(created=False, **rest)),
        "vfss.notice": RESEARCH_USE_ONLY,
    }


def _write_onnx(
    student: Student, sample: NDArray[np.uint8], path: Path, metadata: Mapping[str, str]
) -> None:
    """Trace, describe, check and save as one file, for squares of any side where the student takes
    them, else of the sample's. Raises ModelError."""
    import onnx

    shape: dict[int, Any] = {0: torch.export.Dim("batch")}
    if student.takes_any_side:
        steps = torch.export.Dim("steps", min=LEAST_SIDE // STEP, max=LARGEST_SIDE // STEP)
        side = STEP * steps
        shape |= {2: side, 3: side}

    # Two frames: with one, some exporters fix the batch size.
    example = torch.from_numpy(np.ascontiguousarray(np.resize(sample, (2, *sample.shape[1:]))))
    try:
        with _quiet():
            program = torch.onnx.export(
                _Exported(student).eval(),
                (example,),
                dynamo=True,
                external_data=False,
                opset_version=OPSET,
                input_names=["frames"],
                output_names=["probabilities"],
                dynamic_shapes={"frames": shape},
                verbose=False,
            )
        if program is None:
            raise ModelError("torch exported nothing", file=path.name)
        model = program.model_proto
    except (RuntimeError, ValueError, TypeError, NotImplementedError, AssertionError) as error:
        reason = str(error).strip().splitlines()
        raise ModelError(
            f"this student cannot be exported ({reason[0][:160] if reason else 'no reason given'})"
        ) from error
    onnx.helper.set_model_props(model, dict(metadata))
    model.doc_string = RESEARCH_USE_ONLY
    for node in model.graph.node:
        # Exporters leave the source path and stack of every operation: of no use, and private.
        node.doc_string = ""
        del node.metadata_props[:]
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError("the exported graph is not valid ONNX") from error
    path.write_bytes(model.SerializeToString())


def _compare(
    module: nn.Module, segmenter: Segmenter, sample: NDArray[np.uint8]
) -> tuple[float, float]:
    """(largest |Δp|, smallest Dice of a task) over all batch sizes. Raises ModelError."""
    thresholds = np.array(list(segmenter.thresholds.values()), np.float32)[:, None, None]
    difference, dice = 0.0, 1.0
    for size in PARITY_BATCHES:
        for start in range(0, max(1, len(sample) - size + 1), size):
            batch = np.ascontiguousarray(np.resize(sample[start:], (size, *sample.shape[1:])))
            with torch.inference_mode():
                mine = module(torch.from_numpy(batch)).numpy()
            theirs = segmenter.raw_probabilities(batch)
            if theirs.shape != mine.shape or not np.isfinite(theirs).all():
                raise ModelError(f"ONNX gives {theirs.shape} with batch {size}, or no numbers")
            difference = max(difference, float(np.abs(mine - theirs).max()))
            dice = min(dice, _lowest_dice(mine >= thresholds, theirs >= thresholds))
    if difference > MAX_DIFFERENCE or dice < MIN_DICE:
        raise ModelError(
            f"ONNX and torch disagree on real frames: probabilities by up to {difference:.2g} "
            f"(allowed {MAX_DIFFERENCE:g}), masks by Dice {dice:.4f} (needed {MIN_DICE})",
            remedy="Nothing was written. Export again with --force, or use another trunk.",
        )
    return difference, dice


def _lowest_dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Over tasks; frames of the batch (B, T, H, W) taken together. One pixel that is on the
    threshold up to the last bit is no difference: of a small mask it is more than is allowed."""
    both, other = (np.count_nonzero(x, axis=(0, 2, 3)) for x in (a & b, a ^ b))
    dice = 2 * both / np.maximum(2 * both + other, 1)
    return float(np.where(other <= 1, 1.0, dice).min())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter narrates on stdout, warns of its own internals, and logs."""
    names = ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")
    levels = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
