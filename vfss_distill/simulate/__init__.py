"""Patients that never lived: lateral swallows with exact masks, times and events.

    options = SimulateOptions(size=256, seconds=4)
    study = simulate_study(patient_seed=1, study_number=0, options=options)
    study.frames.shape, study.masks["bolus"].sum(), study.events["UESO"]

`population` who · `placement` where in the picture · `skeleton` (`bones`, `spine`, `jaw`) and
`anatomy` (`channel`, `throat`) what they look like · `swallow`, `plan`, `timeline` what happens
when · `layers`, `leads`, `exposure` what the X-rays pass · `radiography`, `collimator` how it is
filmed · `screen`, `furniture` what the film was stored with · `options`, `study` one study ·
`structures` its masks · `observer`, `truth` what really happened · `writers` (`mask_png`),
`dataset`, `preview` onto the disk.
"""

from __future__ import annotations

from .dataset import DatasetOptions, simulate_dataset
from .options import SimulateOptions
from .population import POPULATIONS, Patient, Ranges
from .structures import EXTRA_STRUCTURES
from .study import SimulatedFrame, SimulatedStudy, StudySimulator, simulate_study

__all__ = [
    "EXTRA_STRUCTURES",
    "POPULATIONS",
    "DatasetOptions",
    "Patient",
    "Ranges",
    "SimulateOptions",
    "SimulatedFrame",
    "SimulatedStudy",
    "StudySimulator",
    "simulate_dataset",
    "simulate_study",
]
