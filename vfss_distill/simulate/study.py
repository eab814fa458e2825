"""One simulated study, frame by frame or as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..tasks import VFSS12
from .anatomy import SoftTissue
from .curves import Points, moved
from .furniture import Furniture, draw_furniture
from .placement import Placement, draw_view
from .population import POPULATIONS, Patient, Ranges, draw_patient
from .radiography import Detector, Image, Layers, Polarity, draw_machine
from .raster import Patch, rasterise
from .skeleton import build_skeleton
from .swallow import Kind, Plan, draw_plan
from .throat import Motion, Throat
from .timeline import Timeline, play
from .truth import Truth, truth_of

EXTRA_STRUCTURES = (
    "epiglottis",
    "tongue",
    "soft_palate",
    "vallecula",
    "pyriform",
    "ues",
    "posterior_wall",
    *(f"c{n}_body" for n in range(2, 8)),
)

_AIR = {"pharynx": 0.42, "airway": 0.36, "mouth_air": 0.25}


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
        if self.pulses is not None and (
            self.pulses <= 0 or abs(self.fps / self.pulses - round(self.fps / self.pulses)) > 1e-6
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


@dataclass(frozen=True)
class SimulatedFrame:
    """One frame: grey uint8 (H, W); masks bool (H, W) by task and extra structure."""

    index: int
    time_s: float
    grey: NDArray[np.uint8]
    masks: dict[str, NDArray[np.bool_]]


@dataclass
class SimulatedStudy:
    """A whole study in memory: 1 byte per pixel, frame and structure."""

    patient: Patient
    frames: NDArray[np.uint8]
    masks: dict[str, NDArray[np.bool_]]
    frame_times_s: tuple[float, ...]
    fps: float
    pulses_per_s: float
    facing: str
    events: dict[str, int | None]
    landmarks: dict[str, NDArray[np.float64]]
    measures: dict[str, Any]
    findings: dict[str, Any]


def simulate_study(
    patient_seed: int, study_number: int, options: SimulateOptions
) -> SimulatedStudy:
    """Simulate one study. Same arguments, same arrays. For long studies use `StudySimulator`."""
    simulator = StudySimulator(patient_seed, study_number, options)
    frames = list(simulator.frames())
    truth = simulator.truth()
    return SimulatedStudy(
        patient=simulator.patient,
        frames=np.stack([frame.grey for frame in frames]),
        masks={name: np.stack([f.masks[name] for f in frames]) for name in frames[0].masks},
        frame_times_s=simulator.frame_times_s,
        fps=options.fps,
        pulses_per_s=simulator.pulses,
        facing=simulator.facing,
        events=truth.events,
        landmarks=truth.landmarks,
        measures=truth.measures,
        findings=truth.findings,
    )


@dataclass
class _Seen:
    """What was measured while drawing, per frame; truth is computed from it."""

    landmarks: dict[str, list[Points]] = field(default_factory=dict)
    pharynx_px: list[int] = field(default_factory=list)
    past_ramus: list[bool] = field(default_factory=list)


class StudySimulator:
    """Draws a study's frames one by one, in constant memory.

    The patient depends on `patient_seed` alone; framing, machine and swallow also on the study.
    """

    def __init__(self, patient_seed: int, study_number: int, options: SimulateOptions) -> None:
        if patient_seed < 0 or study_number < 0:
            raise UsageError("seeds and study numbers are not negative")
        cv2.setNumThreads(1)
        ranges = options.population
        self.options = options
        self._seeds = (patient_seed, 1 + study_number)
        self.patient = draw_patient(_rng(patient_seed, 0), ranges)
        height, width = options.shape
        self._rng = _rng(patient_seed, 1 + study_number)
        self.view = draw_view(self._rng, ranges, width, height)
        self.machine = draw_machine(self._rng, ranges, self.view, options.polarity)
        self.furniture: Furniture = draw_furniture(self._rng, ranges, self.view)
        self.pulses = options.pulses or _draw_pulses(self._rng, options.fps)
        seconds = options.seconds or float(self._rng.uniform(3.0, 6.0))
        count = options.frames or max(1, round(seconds * options.fps))
        self.frame_times_s = tuple(round(i / options.fps, 6) for i in range(count))
        self.plan: Plan = draw_plan(
            self._rng, self.patient, ranges, duration_s=count / options.fps, kind=options.kind
        )
        repeat = round(options.fps / self.pulses)
        self._exposure = [i - i % repeat for i in range(count)]
        exposed = np.array([self.frame_times_s[i] for i in self._exposure])
        self.timeline: Timeline = play(self.plan, exposed, _rng(patient_seed, 1 + study_number, 1))
        place = Placement(self.patient, self.view)
        self.skeleton = build_skeleton(place, _rng(patient_seed, 0, 1))
        self.soft = SoftTissue(place, _rng(patient_seed, 0, 2), self.plan.volume_ml)
        self._layers_rng = _rng(patient_seed, 0, 3)
        self._place = place
        self._seen = _Seen()

    @property
    def facing(self) -> str:
        return "right" if self.view.mirrored else "left"

    @cached_property
    def _layers(self) -> Layers:
        return Layers(self._place, self.skeleton, self.machine.bone, self._layers_rng)

    def frames(self, *, masks: bool = True) -> Iterator[SimulatedFrame]:
        """All frames in order. May be iterated again; the pictures are then the same."""
        self._seen = _Seen()
        detector = Detector(self.machine, self.options.shape, self._grain_rng())
        shown: SimulatedFrame | None = None
        for i, time_s in enumerate(self.frame_times_s):
            if self._exposure[i] == i or shown is None:
                shown = self._expose(i, detector)
            else:
                for values in self._seen.landmarks.values():
                    values.append(values[-1])
                self._seen.pharynx_px.append(self._seen.pharynx_px[-1])
                self._seen.past_ramus.append(self._seen.past_ramus[-1])
            grey = self.furniture.over(shown.grey, i)
            yield SimulatedFrame(i, time_s, grey, shown.masks)

    def _grain_rng(self) -> np.random.Generator:
        return _rng(*self._seeds, 2)

    def truth(self) -> Truth:
        """Events, landmarks and measures; after all frames were drawn."""
        seen = self._seen
        if len(seen.pharynx_px) != len(self.frame_times_s):
            raise UsageError("truth is known once all frames were drawn")
        return truth_of(
            self.plan,
            self.timeline,
            landmarks={name: np.array(points) for name, points in seen.landmarks.items()},
            pharynx_px=np.array(seen.pharynx_px),
            past_ramus=np.array(seen.past_ramus),
            frame_times_s=np.array(self.frame_times_s),
            facing=self.facing,
        )

    # ── one exposure ─────────────────────────────────────────────────────────────────────────

    def _expose(self, i: int, detector: Detector) -> SimulatedFrame:
        motion = self.soft.motion(self.timeline, i)
        throat = self.soft.throat(self.timeline, i, motion)
        shape = self.options.shape
        patches = {name: rasterise(outlines, shape) for name, outlines in _outlines(throat).items()}
        attenuation = self._layers.at(motion)
        self._compose(attenuation, patches)
        grey = detector.grey(attenuation, self.furniture.inside)
        masks = self._masks(patches, motion)
        self._observe(throat, motion, masks)
        return SimulatedFrame(i, self.frame_times_s[i], grey, masks)

    def _compose(self, image: Image, patches: dict[str, Patch]) -> None:
        px = self._place.px_per_mm
        barium = self.plan.barium_per_mm
        wet = patches["bolus"]
        for name, amount in _AIR.items():
            _without(patches[name].rounded(5 * px), wet).add_to(image, -amount)
        for name, amount, round_mm in (
            ("tongue", 0.10, 9.0),
            ("soft_palate", 0.16, 4.0),
            ("epiglottis", 0.17, 1.4),
            ("thyroid", 0.03 + 0.16 * self.patient.calcification, 2.0),
            ("cricoid", 0.06 + 0.22 * self.patient.calcification, 1.6),
            ("hyoid", 0.27 * self.patient.mineral * self.machine.bone, 1.7),
        ):
            patches[name].rounded(round_mm * px).add_to(image, amount)
        wide = 10.0 + 0.6 * min(self.plan.volume_ml, 16.0)
        wet.rounded(5.5 * px).add_to(image, barium * wide)
        patches["thin_bolus"].rounded(0.9 * px).add_to(image, barium * 8.0)

    def _masks(self, patches: dict[str, Patch], motion: Motion) -> dict[str, NDArray[np.bool_]]:
        shape = self.options.shape
        masks = {
            "bolus": patches["bolus"].mask(shape) | patches["thin_bolus"].mask(shape),
            "pharynx": patches["pharynx"].mask(shape),
            "airway": patches["airway"].mask(shape),
            "hyoid": patches["hyoid"].mask(shape),
            "mandible": self._rigid(self.skeleton.mandible, motion.jaw),
        }
        for name, outlines in self.skeleton.vertebrae.items():
            masks[name] = self._rigid(outlines, motion.body)
        if self.options.extras:
            for name in EXTRA_STRUCTURES:
                if name.endswith("_body"):
                    outline = self.skeleton.bodies[name.removesuffix("_body")]
                    masks[name] = self._rigid((outline,), motion.body)
                else:
                    masks[name] = patches[name].mask(shape)
        # Behind the collimator nothing is seen and nothing is labelled.
        inside = self.furniture.inside
        for mask in masks.values():
            mask &= inside
        return {**{task: masks.pop(task) for task in VFSS12.ids}, **masks}

    def _rigid(self, outlines: tuple[Points, ...], matrix: Points) -> NDArray[np.bool_]:
        shape = self.options.shape
        return rasterise([moved(outline, matrix) for outline in outlines], shape).mask(shape)

    def _observe(self, throat: Throat, motion: Motion, masks: dict[str, NDArray[np.bool_]]) -> None:
        hand = self.soft.hand
        for name, body in (("A2", "c2"), ("A4", "c4")):
            outline = moved(self.skeleton.bodies[body], motion.body)
            self._seen.landmarks.setdefault(name, []).append(
                _front_bottom(outline, self._place, hand)
            )
        self._seen.landmarks.setdefault("hyoid", []).append(throat.hyoid_corner)
        self._seen.pharynx_px.append(int(masks["pharynx"].sum()))
        edge = moved(self.skeleton.ramus_back, motion.jaw)
        self._seen.past_ramus.append(_past(throat.bolus_head, edge, hand))


def _outlines(throat: Throat) -> dict[str, list[Points]]:
    names = (
        "pharynx", "airway", "hyoid", "bolus", "thin_bolus", "epiglottis", "tongue", "soft_palate",
        "vallecula", "pyriform", "ues", "posterior_wall", "mouth_air", "thyroid", "cricoid",
    )  # fmt: skip
    return {name: getattr(throat, name) for name in names}


def _without(patch: Patch, other: Patch) -> Patch:
    """`patch` where `other` does not cover it: barium displaces air."""
    if patch.empty or other.empty:
        return patch
    cover = patch.cover.copy()
    top, left = max(patch.row, other.row), max(patch.column, other.column)
    bottom = min(patch.row + cover.shape[0], other.row + other.cover.shape[0])
    right = min(patch.column + cover.shape[1], other.column + other.cover.shape[1])
    if bottom > top and right > left:
        mine = (
            slice(top - patch.row, bottom - patch.row),
            slice(left - patch.column, right - patch.column),
        )
        theirs = (
            slice(top - other.row, bottom - other.row),
            slice(left - other.column, right - other.column),
        )
        cover[mine] *= 1 - other.cover[theirs]
    return Patch(patch.row, patch.column, cover)


def _front_bottom(outline: Points, place: Placement, hand: float) -> Points:
    """The antero-inferior corner of a vertebral body's outline (pixels)."""
    angle = np.deg2rad(-place.patient.lean_deg + place.view.roll_deg)
    cos, sin = np.cos(angle), np.sin(angle)
    ahead = np.array([-cos * hand, -sin])
    down = np.array([-sin * hand, cos])
    corner: Points = outline[int(np.argmax(outline @ (0.72 * ahead + 0.69 * down)))]
    return corner


def _past(head: Points | None, edge: Points, hand: float) -> bool:
    """True when the bolus's leading point lies behind the ramus's back edge (or below it)."""
    if head is None:
        return False
    order = np.argsort(edge[:, 1])
    x = np.interp(head[1], edge[order, 1], edge[order, 0])
    return bool((head[0] - x) * hand > 0 or head[1] > edge[:, 1].max())


def _draw_pulses(rng: np.random.Generator, fps: float) -> float:
    divisor = int(rng.choice((1, 2, 4), p=(0.75, 0.2, 0.05)))
    return fps / divisor


def _rng(*words: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(words))
