"""Opening weight files of strangers: tensors only, no code, every tensor accounted for."""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import VfssError, WeightsMismatch, WeightsMissing
from ...provenance import sha256_file

Tensors = dict[str, Tensor]

# What training code wraps a state dict in, and what parallel wrappers put before each name.
_WRAPPERS = ("model", "state_dict", "teacher", "module", "net", "network")
_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "dinov2.", "swin.")

# A name that only one kind of network has, most telling first.
_MARKS = (
    ("image_encoder.patch_embed.seq.0.c.weight", "a TinyViT SAM (LiteMedSAM or MobileSAM)"),
    ("image_encoder.patch_embed.proj.weight", "a segment-anything SAM"),
    ("vision_encoder.patch_embed.projection.weight", "a SAM in transformers' names"),
    ("vision_model.model.embeddings.patch_embeddings.projection.weight", "MedCLIP's Swin variant"),
    ("vision_model.model.layer1.0.conv1.weight", "MedCLIP's ResNet variant"),
    ("visual.trunk.patch_embed.proj.weight", "an open_clip model with a timm ViT"),
    ("visual.conv1.weight", "an open_clip model with its own tower"),
    ("embeddings.register_tokens", "a DINOv2 with registers"),
    ("register_tokens", "a DINOv2 with registers"),
    ("encoder.layer.0.layer_scale1.lambda1", "a DINOv2 in transformers' names"),
    ("blocks.0.ls1.gamma", "a DINOv2 in its original names"),
    ("blocks.0.attn.qkv.weight", "a timm ViT"),
    ("encoder.layers.0.blocks.0.layernorm_before.weight", "a Swin in transformers' names"),
    ("layer1.0.conv1.weight", "a ResNet"),
)


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of one file by their published names; `unwrapped` names what was taken off."""

    tensors: Tensors
    file: Path
    sha256: str
    unwrapped: tuple[str, ...] = ()

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def mismatch(self, what: str, remedy: str = "") -> WeightsMismatch:
        """An error about this file; where its network is recognised, the message says so."""
        known = recognise(self.tensors)
        hint = f"The file looks like {known}. " if known else ""
        fallback = "Check that it is the published file (vfss teachers lists where to get it)."
        return WeightsMismatch(what, file=self.file.name, remedy=hint + (remedy or fallback))

    def shape(self, name: str, dimensions: int) -> tuple[int, ...]:
        """Shape of a tensor the architecture is read from. Raises WeightsMismatch."""
        if name not in self.tensors:
            raise self.mismatch(f"lacks {name}")
        shape = tuple(self.tensors[name].shape)
        if len(shape) != dimensions or 0 in shape:
            raise self.mismatch(f"{name} has shape {list(shape)}, not {dimensions} dimensions")
        return shape

    def count(self, prefix: str) -> int:
        """How many numbered parts there are: `blocks.` → depth."""
        numbers = {
            name[len(prefix) :].split(".", 1)[0] for name in self.tensors if name.startswith(prefix)
        }
        return len({number for number in numbers if number.isdigit()})

    def renamed(self, tensors: Tensors) -> Checkpoint:
        return replace(self, tensors=tensors)


def recognise(tensors: Mapping[str, Any]) -> str | None:
    """In words, which network these names belong to, or None."""
    return next((words for mark, words in _MARKS if mark in tensors), None)


def open_checkpoint(path: Path) -> Checkpoint:
    """Read a .safetensors, or a .pth/.pt/.bin written by torch.save, whatever its extension.

    Pickled code is never run. Raises WeightsMissing, or WeightsMismatch for a file that is empty,
    truncated, of another format, holds code, or holds no tensors.
    """
    if path.is_dir():
        raise _wrong(path, "is a folder, not a file of weights", "Name the file in it.")
    if not path.is_file():
        raise WeightsMissing("no such weights file", file=path.name, remedy="See: vfss teachers.")
    value = _read(path)
    tensors, unwrapped = _unwrap(value)
    if not tensors:
        raise _wrong(path, "holds no tensors")
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise _wrong(path, f"{name} is sparse, quantised or without values")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
            raise _wrong(path, f"{name} holds values that are not finite numbers")
    return Checkpoint(tensors, path, sha256_file(path), unwrapped)


def fit(
    module: nn.Module, checkpoint: Checkpoint, *, network: str, drop: Sequence[str] = ()
) -> tuple[str, ...]:
    """Load `checkpoint` into `module` completely, as float32; return the names left out.

    Only names that match a pattern of `drop` may be left out. Raises WeightsMismatch naming the
    first missing, unexpected and mis-shaped tensors.
    """
    expected = module.state_dict()
    given = checkpoint.tensors
    missing = [name for name in expected if name not in given]
    spare = [name for name in given if name not in expected]
    dropped = tuple(name for name in spare if any(fnmatchcase(name, p) for p in drop))
    unexpected = [name for name in spare if name not in set(dropped)]
    misshaped = [
        f"{name} {list(given[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in given and given[name].shape != tensor.shape
    ]
    whole = [
        name
        for name, tensor in expected.items()
        if name in given and given[name].is_floating_point() != tensor.is_floating_point()
    ]
    faults = [
        f"{len(names)} {word} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for word, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", misshaped),
            ("of another kind of number", whole),
        )
        if names
    ]
    if faults:
        raise checkpoint.mismatch(
            f"does not fit {network} of {len(expected)} tensors: {'; '.join(faults)}"
        )
    module.load_state_dict(
        {name: given[name].to(tensor.dtype) for name, tensor in expected.items()}, strict=True
    )
    return dropped


def below(checkpoint: Checkpoint, prefix: str) -> tuple[Checkpoint, tuple[str, ...]]:
    """The tensors whose names begin with `prefix`, without it; and the names of all others.

    Raises WeightsMismatch when no name does. A prefix that opening took off already is no fault.
    """
    if not prefix or prefix in checkpoint.unwrapped:
        return checkpoint, ()
    inner = {
        name.removeprefix(prefix): tensor
        for name, tensor in checkpoint.tensors.items()
        if name.startswith(prefix)
    }
    if not inner:
        first = ", ".join(list(checkpoint.tensors)[:3])
        raise checkpoint.mismatch(
            f"no tensor's name begins with {prefix!r} (the first are {first})",
            remedy="Mend `prefix` in the card.",
        )
    others = tuple(name for name in checkpoint.tensors if not name.startswith(prefix))
    return checkpoint.renamed(inner), others


def ratio(hidden: int, width: int) -> float:
    """`hidden / width`, a hair larger, so that libraries that cut `width * ratio` get `hidden`."""
    return hidden / width * (1 + 1e-9)


def _read(path: Path) -> Any:
    with path.open("rb") as stream:
        head = stream.read(64)
    if not head:
        raise _wrong(path, "is empty")
    if head.startswith(b"version https://git-lfs"):
        raise _wrong(path, "is a Git LFS pointer, not the weights", "Download the file it names.")
    if len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 28:
        return _read_safetensors(path)
    if head.startswith((b"PK\x03\x04", b"\x80")):
        return _read_torch(path, zipped=head.startswith(b"PK"))
    raise _wrong(path, "is no weights file (neither safetensors nor torch.save)")


def _read_safetensors(path: Path) -> Tensors:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, ValueError, KeyError) as error:
        raise _wrong(path, "is damaged or truncated") from error


# What torch's unpickler raises when it runs into the end, or into nonsense.
_DAMAGE = (
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    OverflowError,
    struct.error,
)


def _read_torch(path: Path, *, zipped: bool) -> Any:
    if zipped:
        _look_into_zip(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about unusual pickles: what matters is raised
            # mmap: a training checkpoint's optimiser need not come into memory.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        if "truncated" in str(error):
            raise _wrong(path, "is damaged or truncated") from error
        raise _code(path) from error
    except _DAMAGE as error:
        raise _wrong(path, "is damaged or truncated") from error


def _look_into_zip(path: Path) -> None:
    """Raise WeightsMismatch unless the archive is one that torch.save wrote."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise _wrong(path, "is damaged or truncated") from error
    if any(name.endswith("/constants.pkl") for name in names):  # TorchScript
        raise _code(path)
    if not any(name.endswith("data.pkl") for name in names):
        inner = [name for name in names if name.endswith((".bin", ".pth", ".safetensors"))]
        remedy = f"Unpack {inner[0]} from it." if inner else ""
        raise _wrong(path, "is a zip archive, not weights", remedy or "Get the published file.")


def _code(path: Path) -> VfssError:
    return WeightsMismatch(
        "holds code, not only tensors, and was not run",
        file=path.name,
        remedy="Use the published file, or have its author save it as safetensors.",
    )


def _wrong(path: Path, what: str, remedy: str = "Get the published file again.") -> VfssError:
    return WeightsMismatch(what, file=path.name, remedy=remedy)


def _unwrap(value: Any) -> tuple[Tensors, tuple[str, ...]]:
    """Take off what training code put around the tensors, and say what."""
    unwrapped: list[str] = []
    while isinstance(value, Mapping):
        inner = next((key for key in _WRAPPERS if isinstance(value.get(key), Mapping)), None)
        # A tensor or two beside the weights (a best score, a mean) are the training's, not theirs.
        if inner is None:
            break
        beside = sum(isinstance(part, Tensor) for part in value.values())
        if beside and beside >= _tensors(value[inner]):
            break
        unwrapped.append(f"{{{inner}: …}}")
        value = value[inner]
    if not isinstance(value, Mapping):
        return {}, ()
    tensors = {str(name): part for name, part in value.items() if isinstance(part, Tensor)}
    while prefix := _common_prefix(tensors):
        unwrapped.append(prefix)
        tensors = {name.removeprefix(prefix): part for name, part in tensors.items()}
    return tensors, tuple(unwrapped)


def _tensors(value: Mapping[Any, Any]) -> int:
    parts = value.values()
    return sum(_tensors(p) if isinstance(p, Mapping) else isinstance(p, Tensor) for p in parts)


def _common_prefix(tensors: Tensors) -> str | None:
    for prefix in _PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            return prefix
    return None
