"""Simulated patients who look to one side, as films to be told apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vfss_distill.simulate import SimulateOptions, simulate_study
from vfss_distill.simulate.population import TRAIN

LEFT = replace(TRAIN, mirrored_share=0.0, text_share=0.0)
RIGHT = replace(TRAIN, mirrored_share=1.0, text_share=0.0)
FIRST_SEED = 40_000_000  # neither training nor the figures come near


def swallow(seed: int = FIRST_SEED, ranges: Any = LEFT, frames: int = 6, size: int = 128) -> Any:
    options = SimulateOptions(size=size, fps=2, pulses=2, frames=frames, ranges=ranges)
    return simulate_study(seed, 0, options)
