"""Which recordings a student has learned from: its file says so, as do older runs' folders.

A student that starts from another has seen what that one saw: its test patients must not be theirs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..errors import DataError
from ..workspace import read_json
from . import PACKAGED_STUDENT

HEADER = "vfss.trained_on"
THE_STUDENT, THE_TRUNK = "the student", "the trunk"  # which of both start.json says was filled


@dataclass(frozen=True)
class TrainedOn:
    """`sources`: of each recording the first 16 digits of its sha256. `complete`: no others.

    `simulated`: `all`, `some` or `none` of them were simulated; "" where there were none at all, or
    it is not known.
    """

    sources: tuple[str, ...] = ()
    complete: bool = True
    simulated: str = ""

    @classmethod
    def from_dict(cls, said: Any) -> TrainedOn:
        """`NOT_KNOWN` for what is damaged."""
        if not isinstance(said, dict):
            return NOT_KNOWN
        sources, complete = said.get("sources"), said.get("complete")
        simulated = said.get("simulated")
        if not isinstance(sources, list) or not all(isinstance(one, str) for one in sources):
            return NOT_KNOWN
        if not isinstance(complete, bool) or not isinstance(simulated, str):
            return NOT_KNOWN
        return cls(tuple(sources), complete, simulated)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def header(self) -> dict[str, str]:
        """What a student's file says of it."""
        return {HEADER: json.dumps(self.to_dict())}

    def after(self, before: TrainedOn) -> TrainedOn:
        """Both, for a student that learned from these and started from one of `before`."""
        kinds = {self.simulated, before.simulated} - {""}
        # Of those nobody noted some may be real.
        mixed = len(kinds) > 1 or (kinds == {"all"} and not before.complete)
        return TrainedOn(
            tuple(sorted({*self.sources, *before.sources})),
            self.complete and before.complete,
            "some" if mixed else "".join(kinds),
        )


NOTHING = TrainedOn()
NOT_KNOWN = TrainedOn(complete=False)
# Its simulated patients are nobody else's: a seed of their own, see models/weights/README.md.
OF_THE_PACKAGED = TrainedOn(simulated="all")


def of_student(path: Path) -> TrainedOn:
    """Of a student's file, or of the folder of a run that an earlier version trained."""
    try:
        with safe_open(path, framework="pt") as file:
            said = (file.metadata() or {}).get(HEADER)
    except (SafetensorError, OSError):
        return NOT_KNOWN
    if said is None:
        return _of_older_run(path.parent)
    try:
        return TrainedOn.from_dict(json.loads(said))
    except (ValueError, RecursionError):
        return NOT_KNOWN


def of_start(init: str, start: Mapping[str, Any]) -> TrainedOn:
    """Of the weights a run began with, by its setting `init` and its `start.json` (or {})."""
    if not init:
        return NOTHING
    if "trained_on" in start:
        return TrainedOn.from_dict(start["trained_on"])
    if init == PACKAGED_STUDENT:
        return OF_THE_PACKAGED
    # Noted by an earlier version. Weights of a trunk alone are no student's.
    return NOTHING if start.get("filled") == THE_TRUNK else NOT_KNOWN


def _of_older_run(folder: Path) -> TrainedOn:
    """It noted its own recordings, but not those of a student it had started from itself."""
    try:
        facts = read_json(folder / "facts.json")
        start = folder / "start.json"
        begun = read_json(start) if start.exists() else {"filled": THE_TRUNK}
    except DataError:
        return NOT_KNOWN
    packaged = PACKAGED_STUDENT if begun.get("source") == PACKAGED_STUDENT else "a file"
    own = {"sources": facts.get("trained_sources"), "complete": True}
    return TrainedOn.from_dict({**own, "simulated": facts.get("simulated", "")}).after(
        of_start(packaged, begun)
    )
