"""Students: a small trunk from timm, a light decoder, and nothing else.

student = build_student(StudentConfig("small", 256, 0, VFSS12.ids, grid=32))
logits = student(frames)              # frames uint8 (B, 1, 256, 256) → (B, 12, 256, 256)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ..errors import MALFORMED, UsageError, WeightsMismatch, WeightsMissing
from ..workspace import write_bytes
from .decoder import Decoder, enlarge, parameters_of, pool_to


@dataclass(frozen=True)
class Preset:
    """A trunk by its timm name, the decoder's width, and the encoder's parameter budget."""

    trunk: str
    width: int
    budget: int


PRESETS: Mapping[str, Preset] = {
    "nano": Preset("mobilenetv2_050", 64, 500_000),
    "small": Preset("lcnet_100", 96, 1_100_000),
    "base": Preset("tf_efficientnetv2_b0", 128, 6_000_000),
}
# base pads by the size of its maps: exported for any, it takes minutes to trace.
_ANY_SIDE = ("nano", "small")
_CONFIG_KEY = "vfss.student"
ANY, ABSENT = -30.0, -30.0  # logits: p < 1e-13

# What a student is compared with: the image encoders of the teachers it was made for, at the size
# they are published in (parameters without text towers and projections).
FULL_SIZE_TEACHERS: Mapping[str, int] = {
    "MedSAM": 89_670_912,
    "RAD-DINO": 86_580_480,
    "MedCLIP": 27_519_354,
}


@dataclass(frozen=True)
class StudentConfig:
    """All that is needed to build a student.

    `trunk`: a preset (nano, small, base) or any timm trunk that gives feature maps. `context` 1
    adds the previous and the next frame as channels. `grid`: side of the map given to alignment.
    """

    trunk: str
    image_size: int
    context: int
    tasks: tuple[str, ...]
    grid: int

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StudentConfig:
        """Raises ValueError for numbers that no student has: memory is taken by them."""
        found = cls(
            trunk=str(data["trunk"]),
            image_size=int(data["image_size"]),
            context=int(data["context"]),
            tasks=tuple(map(str, data["tasks"])),
            grid=int(data["grid"]),
        )
        size, grid = found.image_size, found.grid
        if not (32 <= size <= 4096 and 1 <= grid <= size and found.context in (0, 1)):
            raise ValueError("no student has such numbers")
        return found


class Student(nn.Module):
    """Trunk and decoder. Frames are uint8 or float, 0 to 255; normalisation is inside."""

    mean: Tensor
    std: Tensor
    certain: Tensor

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.config = config
        preset = PRESETS.get(config.trunk)
        self.trunk = _build_trunk(trunk_name(config.trunk), self.input_channels, config.image_size)
        # As some transformers' do.
        self.channels_come_last = str(getattr(self.trunk, "output_fmt", "")).endswith("NHWC")
        self.decoder = Decoder(
            self.trunk.feature_info.channels(),
            self.trunk.feature_info.reduction(),
            tasks=len(config.tasks),
            width=preset.width if preset else 96,
        )
        self.register_buffer("mean", torch.tensor(114.0))
        self.register_buffer("std", torch.tensor(64.0))
        # A task is shown in a frame only where some logit of it there is at least this high. Set
        # once, after training: see vfss_distill/distill/certainty.py.
        self.register_buffer("certain", torch.full((len(config.tasks),), ANY))

    @property
    def input_channels(self) -> int:
        return 1 + 2 * self.config.context

    @property
    def embed_channels(self) -> int:
        return self.decoder.width

    @property
    def logit_stride(self) -> int:
        """How much smaller than the frame the logits of `decode` are: 2 for the presets."""
        return int(self.trunk.feature_info.reduction()[0])

    @property
    def takes_any_side(self) -> bool:
        """Whether squares of other sides than `image_size` go through as well: known of nano and
        small only. Transformers learn places, and take no other."""
        return self.config.trunk in _ANY_SIDE

    def encoder_parameters(self) -> int:
        return parameters_of(self.trunk)

    def times_smaller(self) -> float:
        """How many times the three full-size teachers together are larger than the encoder."""
        return sum(FULL_SIZE_TEACHERS.values()) / self.encoder_parameters()

    def forward(self, frames: Tensor) -> Tensor:
        """(B, C, S, S), 0..255 → logits (B, T, S, S); all very low where a task is not certain.

        S is `config.image_size`, or another multiple of 32 where the student `takes_any_side`.
        """
        logits = self.decode(self.pyramid(frames))
        shown = logits.amax((2, 3), keepdim=True) >= self.certain[:, None, None]
        return enlarge(torch.where(shown, logits, ABSENT), frames.shape[-1])

    def embed(self, frames: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, C, S, S) → the map for alignment (B, E, grid, grid), and the pyramid for `decode`."""
        pyramid = self.pyramid(frames)
        return pool_to(pyramid[0], self.config.grid), pyramid

    def pyramid(self, frames: Tensor) -> list[Tensor]:
        """[fused (B, E, S/8, S/8), then the trunk's maps from fine to coarse]."""
        normalised = (frames.to(self.mean.dtype) - self.mean) / self.std
        if not torch.jit.is_tracing():
            normalised = normalised.contiguous(memory_format=torch.channels_last)
        maps = self.trunk(normalised)
        if self.channels_come_last:
            maps = [one.permute(0, 3, 1, 2) for one in maps]
        return [self.decoder.fuse(maps), *maps]

    def decode(self, pyramid: Sequence[Tensor]) -> Tensor:
        """Pyramid → logits on the finest map, (B, T, S/2, S/2): where training measures them."""
        return self.decoder.refine(pyramid[0], pyramid[1:])


def trunk_name(trunk: str) -> str:
    """timm's name of a preset's trunk, or of the trunk itself."""
    return PRESETS[trunk].trunk if trunk in PRESETS else trunk


def _build_trunk(name: str, input_channels: int, image_size: int) -> Any:
    import timm
    from timm.models import get_pretrained_cfg

    # `hf-hub:…` and the like would go and fetch.
    known = get_pretrained_cfg(name) if timm.is_model(name.partition(".")[0]) else None
    size = {"img_size": image_size} if known is not None and known.fixed_input_size else {}
    try:
        if known is None:
            raise ValueError(f"timm knows no {name}")
        trunk = timm.create_model(name, features_only=True, in_chans=input_channels, **size)
    except (RuntimeError, AttributeError, TypeError, ValueError, AssertionError) as error:
        raise UsageError(
            f"{name!r} is no trunk a student can have",
            remedy=f"Use {', '.join(PRESETS)}, or a timm model that has feature maps "
            "of several sizes (`timm.list_models`).",
        ) from error
    strides = trunk.feature_info.reduction()
    if len(strides) < 2 or list(strides) != sorted(set(strides)) or strides[-1] > 32:
        raise UsageError(
            f"trunk {name!r} has maps at strides {strides}; a student needs growing ones up to 32",
            remedy=f"Use {', '.join(PRESETS)} or another trunk of several sizes.",
        )
    return trunk


def build_student(config: StudentConfig) -> Student:
    """A new student with random weights (torch's global generator). Raises UsageError."""
    student = Student(config)
    return student.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def save_student(student: Student, path: Path, metadata: Mapping[str, str]) -> None:
    """Write weights, with `metadata` and what rebuilds the network beside them. StorageError."""
    tensors = {
        name: value.detach().cpu().contiguous() for name, value in student.state_dict().items()
    }
    header = {**metadata, _CONFIG_KEY: json.dumps(asdict(student.config))}
    write_bytes(path, save(tensors, metadata=header))


def replace_weights(student: Student, path: Path) -> None:
    """Write `student` over the one saved at `path`; what was written beside it stays."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_student(student, path, metadata)


_ANOTHER = "Put it back from a backup, or train again with `vfss distill`."


def is_student(path: Path) -> bool:
    """Whether the file says that it is a student of vfss."""
    try:
        with safe_open(path, framework="pt") as file:
            return _CONFIG_KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def load_student(path: Path) -> Student:
    """The student saved at `path`, in eval mode. Raises WeightsMissing, WeightsMismatch."""
    if not path.is_file():
        raise WeightsMissing("no student here", file=path.name, remedy="Run `vfss distill`.")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsMismatch(
            "not a readable safetensors file", file=path.name, remedy=_ANOTHER
        ) from error
    if _CONFIG_KEY not in header:
        raise WeightsMismatch(
            "safetensors, but no student of vfss", file=path.name, remedy=_ANOTHER
        )
    try:
        config = StudentConfig.from_dict(json.loads(header[_CONFIG_KEY]))
        with torch.device("meta"):  # without memory: the file may name a trunk of any size
            expected = build_student(config).state_dict()
    except (UsageError, *MALFORMED) as error:
        raise WeightsMismatch(
            "does not say properly which student it is", file=path.name, remedy=_ANOTHER
        ) from error
    wrong = sorted(
        name
        for name in expected.keys() | tensors.keys()
        if name not in tensors
        or name not in expected
        or expected[name].shape != tensors[name].shape
    )
    if wrong:
        raise WeightsMismatch(
            f"{len(wrong)} tensors do not fit the student it says it is, first {wrong[0]}",
            file=path.name,
            remedy=_ANOTHER,
        )
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise WeightsMismatch(
                f"{name} holds values that are not finite numbers", file=path.name, remedy=_ANOTHER
            )
    student = build_student(config)
    student.load_state_dict(tensors)
    return student.eval()
