"""One simulated study, frame by frame or as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from .anatomy import SoftTissue
from .collimator import Collimator, draw_collimator
from .exposure import Scene, Shutter
from .furniture import Furniture, draw_furniture
from .layers import Layers
from .leads import draw_leads
from .observer import Observer
from .options import SimulateOptions
from .placement import Placement, draw_view
from .plan import draw_plan
from .population import Patient, draw_patient
from .radiography import Detector, draw_machine, draw_pulses
from .screen import Screen, draw_screen
from .skeleton import build_skeleton
from .structures import Labels
from .swallow import Plan
from .timeline import Timeline, play
from .truth import Truth, truth_of, visible


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
        study = 1 + study_number
        # A stream of its own for each room, so that a change to one leaves the others as they are.
        rng = _rng(patient_seed, study)
        self.screen: Screen = draw_screen(_rng(patient_seed, study, 3), ranges, height, width)
        tall, wide = self.screen.picture
        self.view = draw_view(rng, ranges, wide, tall)
        self.machine = draw_machine(rng, ranges, self.view, options.polarity)
        self.pulses = options.pulses or draw_pulses(rng, ranges, options.fps)
        seconds = options.seconds or float(rng.uniform(3.0, 6.0))
        count = options.frames or max(1, round(seconds * options.fps))
        self.frame_times_s = tuple(round(i / options.fps, 6) for i in range(count))
        self.plan: Plan = draw_plan(
            rng, self.patient, ranges, duration_s=count / options.fps, kind=options.kind
        )
        self.collimator: Collimator = draw_collimator(
            _rng(patient_seed, study, 4), ranges, (tall, wide), count / options.fps
        )
        self.furniture: Furniture = draw_furniture(
            _rng(patient_seed, study, 5), ranges, self.screen, options.fps, self.pulses
        )
        repeat = round(options.fps / self.pulses)
        self._exposure = [i - i % repeat for i in range(count)]
        place = Placement(self.patient, self.view)
        self.skeleton = build_skeleton(place, _rng(patient_seed, 0, 1))
        self.soft = SoftTissue(place, _rng(patient_seed, 0, 2), self.plan.volume_ml)
        self.scene = Scene(
            self.soft,
            self.plan,
            self._played,
            self._shutter(),
            bone=self.machine.bone,
            extras=options.extras,
        )
        self._layers_rng = _rng(patient_seed, 0, 3)
        self._leads = draw_leads(_rng(patient_seed, study, 6), ranges, place)
        self._place = place
        self._seen = self._observer()

    @property
    def facing(self) -> str:
        return "right" if self.view.mirrored else "left"

    @cached_property
    def _layers(self) -> Layers:
        return Layers(self._place, self.skeleton, self.machine.bone, self._leads, self._layers_rng)

    @cached_property
    def _labels(self) -> Labels:
        return Labels(
            self.skeleton,
            self._leads,
            self._layers,
            self.screen,
            self._place.px_per_mm,
            extras=self.options.extras,
        )

    def frames(self) -> Iterator[SimulatedFrame]:
        """All frames in order. May be iterated again; the pictures are then the same."""
        self._seen = self._observer()
        detector = Detector(self.machine, self.screen.picture, self._grain_rng())
        shown: SimulatedFrame | None = None
        for i, time_s in enumerate(self.frame_times_s):
            if self._exposure[i] == i or shown is None:
                shown = self._expose(i, detector)
            else:
                self._seen.again()
            grey = self.furniture.over(self.screen.around(shown.grey), i)
            yield SimulatedFrame(i, time_s, grey, shown.masks)

    def _played(self, later_s: float) -> Timeline:
        """The throat's state in each frame, or so much later."""
        times = np.array([self.frame_times_s[i] for i in self._exposure]) + later_s
        return play(self.plan, times, _rng(*self._seeds, 1))

    def _shutter(self) -> Shutter:
        # A frame that is stored again has both fields from one exposure.
        combed = self.machine.interlaced and self.pulses == self.options.fps
        half = 0.5 / self.options.fps
        return Shutter(self.machine.exposure / self.options.fps, half if combed else None)

    @property
    def timeline(self) -> Timeline:
        return self.scene.timeline

    def _observer(self) -> Observer:
        return Observer(self.skeleton, self._place, self.screen, self.plan.measured)

    def _grain_rng(self) -> np.random.Generator:
        return _rng(*self._seeds, 2)

    def truth(self) -> Truth:
        """Events, landmarks and measures; after all frames were drawn."""
        seen = self._seen
        if len(seen.past_ramus) != len(self.frame_times_s):
            raise UsageError("truth is known once all frames were drawn")
        return truth_of(
            self.plan,
            self.timeline,
            landmarks={name: np.array(points) for name, points in seen.landmarks.items()},
            sizes={name: np.array(values, float) for name, values in seen.sizes.items()},
            past_ramus=np.array(seen.past_ramus),
            frame_times_s=np.array(self.frame_times_s),
            facing=self.facing,
        )

    # ── one exposure ─────────────────────────────────────────────────────────────────────────

    def _expose(self, i: int, detector: Detector) -> SimulatedFrame:
        pose = self.scene.pose(i)
        field = self.collimator.open_at(self.frame_times_s[i])
        still = self._layers.at(pose.motion)
        barium = self.scene.barium(pose)
        grey, *second = (
            detector.grey(image, field, barium) for image in self.scene.exposed(pose, still)
        )
        for lines in second:
            grey[1::2] = lines[1::2]
        shape = self.screen.picture
        drawn = pose.patches["bolus"].mask(shape) | pose.patches["thin_bolus"].mask(shape)
        inside, looks = field > 0.5, detector.contrast()
        open_to_see = drawn & inside
        wet = visible(open_to_see, *looks, self._place.px_per_mm)
        masks = self._labels.masks(pose, wet, inside)
        # Spaces are measured whole, also behind the collimator, and so is what they hold.
        if np.count_nonzero(open_to_see) < np.count_nonzero(drawn):
            wet = visible(drawn, *looks, self._place.px_per_mm)
        self._seen.see(pose, masks["pharynx"], wet)
        return SimulatedFrame(i, self.frame_times_s[i], self.collimator.over(grey, field), masks)


def _rng(*words: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(words))
