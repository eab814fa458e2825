"""Settings, strict: an unknown key is an error, and all errors are listed at once.

Two models: `LabConfig` is `vfss.yaml`, what a lab sets once; `DistillConfig` is a run's
`config.yaml`, everything that shapes one training. Flags override files, files override defaults.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from .counting import listed
from .errors import ConfigError
from .tasks import TaskSet
from .workspace import Workspace, write_text
from .yaml_file import load_yaml

Model = TypeVar("Model", bound=BaseModel)

Balancing = Literal["uniform", "mlp", "attention", "drop"]
Standardisation = Literal["none", "meanstd", "phi-s"]


def _printable(name: str) -> str:
    if not name.isprintable():
        raise ValueError("no file can have such a name")
    return name


def named_teachers(said: Any) -> Any:
    """`medsam,raddino` → names; `none` → no teacher; anything but text as it is."""
    if not isinstance(said, str):
        return said
    named = tuple(part.strip() for part in said.split(",") if part.strip())
    return () if named == ("none",) else named


# What torch and NumPy take as one; steps of years, which still divide as floats.
_Seed = Annotated[int, Field(ge=0, lt=2**63)]
_Steps = Annotated[int, Field(ge=0, le=10**9)]

# The name of a file perhaps: neither a NUL nor half a character, which systems refuse, nor a line.
_Name = Annotated[str, AfterValidator(_printable)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class SplitConfig(_Strict):
    """Shares of patients. The rest is for training."""

    val: float = Field(default=0.15, ge=0, lt=1)
    test: float = Field(default=0.2, ge=0, lt=1)
    seed: _Seed = 0

    @model_validator(mode="after")
    def _leaves_some_for_training(self) -> SplitConfig:
        if self.val + self.test >= 1:
            raise ValueError("val + test must leave patients for training")
        return self


class DistillConfig(_Strict):
    """Everything that shapes one run.

    `align_steps` of feature alignment come first, then `task_steps` with the masks, during which
    alignment goes on with weight `align_weight` on `align_share` · `batch_size` further frames a
    step. Where `align_fades`, all that teachers say falls to nothing by the last step.
    `grid` is the side of the square on which student and teachers are compared. Two things keep
    `mlp` and `attention` from leaving all weight on the easiest teacher: `relative_losses` (they
    follow whose loss is falling, not whose is low) and `entropy_floor` (0 to 1, a share of log T).
    Of the unlabelled frames, every
    `unlabelled_every`-th is shown to the teachers. Of the labelled frames of a batch, a share of
    `mirrored` is shown facing the other way, and a share of `blank` is replaced by what is no film
    (black, white, noise, patterns) with nothing to find; in a share of `lag` the frame before
    lingers, as with detectors that glow on and filters against noise. `context` 1: the student sees
    the frame before and the one after as well. `task_weights`: what a task counts in the loss of
    the masks, by its name; 1 for those not named.

    What teachers say beyond features counts with the following weights, 0 leaving it out, and
    where a teacher of that kind takes part. `mask_weight`: masks of a promptable segmenter under
    boxes around the labels, and from half way through `task_steps` also around what the student is
    sure of in up to `proposal_frames` unlabelled frames. `affinity_weight`: which patches of a
    frame look alike to a self-supervised encoder. `embedding_weight`: the one embedding of a frame
    an image-text encoder gives. `anchor_weight`: how near it is to each text of `anchors`.

    `read_share`: of the frames with masks of a batch, so many are unlabelled ones, with masks that
    a small network on the features of all teachers together, fitted on the labels, reads in them.
    `read_again` times during `task_steps` the averaged student reads them together with it, and
    nothing is learned of them before. `read_only`: those of `teachers` that are only read so: the
    student is not aligned with their features.

    `init`: weights the student starts from: `vfss12-small` (the packaged student), `imagenet` (of a
    package that is installed), or a file relative to the workspace: timm's weights of its trunk, or
    another student.

    `tensorboard` writes event files beside metrics.jsonl. `cache_numbers`: kind of number in which
    features are cached; `int8` halves the space and says what it loses. `compile` lets torch
    translate the student for this processor first: a minute, then steps of half the time. It
    needs a C++ compiler on a CPU.
    """

    schema_version: Literal[1] = 1
    task_set: _Name = "vfss12"
    teachers: Annotated[tuple[_Name, ...], BeforeValidator(named_teachers)] = ()
    student: str = "small"
    init: _Name = ""
    image_size: int = Field(default=256, ge=64, le=1024, multiple_of=32)
    context: Literal[0, 1] = 0
    balancing: Balancing = "attention"
    standardisation: Standardisation = "phi-s"
    relative_losses: bool = True
    entropy_floor: float = Field(default=0.7, ge=0, le=1)
    drop_probability: float = Field(default=0.5, ge=0, lt=1)
    grid: int = Field(default=32, ge=4, le=128)
    unlabelled_every: int = Field(default=1, ge=1)
    align_steps: _Steps = 2000
    task_steps: _Steps = 4000
    align_weight: float = Field(default=0.3, ge=0)
    align_fades: bool = False
    align_share: float = Field(default=0.25, gt=0, le=4)
    mask_weight: float = Field(default=0.0, ge=0)
    proposal_frames: int = Field(default=0, ge=0)
    affinity_weight: float = Field(default=0.0, ge=0)
    embedding_weight: float = Field(default=0.0, ge=0)
    anchor_weight: float = Field(default=0.0, ge=0)
    anchors: tuple[str, ...] = ()
    read_share: float = Field(default=0.0, ge=0, lt=1)
    read_again: int = Field(default=2, ge=0, le=10)
    read_only: tuple[_Name, ...] = ()
    mirrored: float = Field(default=0.5, ge=0, le=1)
    blank: float = Field(default=0.03, ge=0, lt=1)
    lag: float = Field(default=0.0, ge=0, le=1)
    task_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    batch_size: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=5e-3, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup_steps: _Steps = 100
    clip_norm: float = Field(default=1.0, gt=0)
    ema: float = Field(default=0.995, ge=0, lt=1)
    validate_every: int = Field(default=250, ge=1)
    checkpoint_every: int = Field(default=250, ge=1)
    seed: _Seed = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(default=0, ge=0, description="0: as many as this process may use")
    tensorboard: bool = False
    compile: bool = False
    cache_numbers: Literal["float16", "int8"] = "float16"

    @model_validator(mode="after")
    def _coherent(self) -> DistillConfig:
        if len(set(self.teachers)) != len(self.teachers):
            raise ValueError("a teacher is named twice")
        if self.grid > self.image_size:
            raise ValueError("grid must not be larger than image_size")
        if self.align_steps + self.task_steps == 0:
            raise ValueError("align_steps + task_steps must be at least 1")
        if self.anchor_weight and len(set(self.anchors)) < 2:
            raise ValueError("anchor_weight needs two different texts or more in anchors")
        if self.read_only:
            self._check_read_only()
        return self

    def _check_read_only(self) -> None:
        if strange := sorted(set(self.read_only) - set(self.teachers)):
            raise ValueError(f"read_only names {', '.join(strange)}, no teacher of this run")
        if not self.read_share:
            raise ValueError("read_only needs read_share: else nobody reads these teachers")
        if self.align_steps and not set(self.teachers) - set(self.read_only):
            raise ValueError("read_only leaves no teacher to align with; set align_steps to 0")


class LabConfig(_Strict):
    """`vfss.yaml`. `task_set` is a built-in name or a YAML file relative to the workspace.

    `distill` holds this lab's own defaults for any setting of `DistillConfig`.
    """

    schema_version: Literal[1] = 1
    task_set: _Name = "vfss12"
    splits: SplitConfig = SplitConfig()
    distill: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _distill_settings_are_known(self) -> LabConfig:
        DistillConfig.model_validate(_jsonable(self.distill))
        return self


def parse(model: type[Model], data: Any, *, file: str | Path | None = None) -> Model:
    """Check `data` against `model`. Raises ConfigError that lists the faults."""
    if not isinstance(data, dict):
        raise ConfigError("holds no settings (expected `key: value` lines)", file=file)
    try:
        # JSON rules: lists become tuples, yet "3" stays no number.
        return model.model_validate(_jsonable(data), strict=None)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc'])) or 'settings'}: {plain_fault(fault)}"
            for fault in error.errors()
        ]
        raise ConfigError(listed(faults), file=file, remedy="Mend these settings.") from error


def plain_fault(fault: ErrorDetails) -> str:
    """What is wrong with one setting, without the words of the library that checks it."""
    if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return "there is no such setting"
    return fault["msg"].removeprefix("Value error, ")


def _jsonable(data: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}


def read_yaml(path: Path) -> Any:
    """Raises ConfigError when the file is missing or not YAML."""
    try:
        return load_yaml(path, shown=path.name)
    except OSError as error:
        raise ConfigError(
            f"cannot be read ({error.strerror})",
            file=path.name,
            remedy="Check that it is a file you may read.",
        ) from error


def dump_yaml(model: BaseModel) -> str:
    """YAML that `parse` reads back."""
    return yaml.safe_dump(model.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def load_lab(workspace: Workspace) -> LabConfig:
    """`vfss.yaml`, or the defaults where there is none. Reading never writes."""
    if not workspace.config_file.exists():
        return LabConfig()
    return parse(LabConfig, read_yaml(workspace.config_file) or {}, file=workspace.config_file.name)


def create_lab(workspace: Workspace, config: LabConfig) -> None:
    """Write `vfss.yaml` unless there is one: what a lab wrote is never rewritten."""
    if not workspace.config_file.exists():
        note = "# What this lab sets once. Flags override it. See docs/configuration.md.\n"
        write_text(workspace.config_file, note + dump_yaml(config))


def lab_tasks(workspace: Workspace) -> TaskSet:
    """The workspace's task set; a YAML file is looked for in the workspace."""
    name = load_lab(workspace).task_set
    inside = workspace.root / name
    return TaskSet.load(inside if inside.is_file() else name)
