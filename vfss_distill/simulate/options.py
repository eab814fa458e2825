"""How studies are simulated."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UsageError
from .population import POPULATIONS, Ranges
from .radiography import Polarity
from .swallow import Kind


@dataclass(frozen=True)
class SimulateOptions:
    """How studies are simulated.

    `size` is the longer side in pixels; `width`, `height` make it other than square. `frames` wins
    over `seconds`; both None: drawn, 3 to 6 s. `pulses`: exposures per second, a divisor of `fps`;
    each is stored `fps / pulses` times; None: drawn. `polarity` and `kind` None: drawn.
    `ranges`: "train", "shifted", or a Ranges. `extras`: also masks of EXTRA_STRUCTURES.
    """

    size: int = 512
    width: int | None = None
    height: int | None = None
    fps: float = 30.0
    seconds: float | None = None
    frames: int | None = None
    pulses: float | None = None
    polarity: Polarity | None = None
    kind: Kind | None = None
    ranges: str | Ranges = "train"
    extras: bool = True

    def __post_init__(self) -> None:
        for name, value in (("size", self.size), ("width", self.width), ("height", self.height)):
            if value is not None and not 64 <= value <= 2048:
                raise UsageError(f"{name} {value} is not between 64 and 2048 pixels")
        if not 1 <= self.fps <= 120:
            raise UsageError(f"{self.fps} frames/s is not between 1 and 120")
        if self.frames is not None and not 1 <= self.frames <= 20000:
            raise UsageError(f"{self.frames} frames is not between 1 and 20000")
        if self.seconds is not None and not 0 < self.seconds <= 600:
            raise UsageError(f"{self.seconds} s is not between 0 and 600")
        if self.pulses is not None and not (
            0 < self.pulses <= self.fps
            and abs(self.fps / self.pulses - round(self.fps / self.pulses)) <= 1e-6
        ):
            raise UsageError(
                f"{self.pulses} pulses/s do not divide {self.fps} frames/s",
                remedy="Use for example 30, 15 or 7.5.",
            )
        if isinstance(self.ranges, str) and self.ranges not in POPULATIONS:
            raise UsageError(
                f"no population {self.ranges!r}", remedy=f"Use one of: {', '.join(POPULATIONS)}."
            )

    @property
    def population(self) -> Ranges:
        return POPULATIONS[self.ranges] if isinstance(self.ranges, str) else self.ranges

    @property
    def shape(self) -> tuple[int, int]:
        return self.height or self.size, self.width or self.size
