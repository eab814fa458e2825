"""The student that comes with the package: found, small, and exact on a real cine."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

from conftest import Cli
from vfss_distill.inference.session import Segmenter, find_model
from vfss_distill.tasks import VFSS12
from vfss_distill.workspace import Workspace


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    return Segmenter(find_model(Workspace(tmp_path_factory.mktemp("empty")), None))


def test_it_is_the_default_and_says_what_it_is(segmenter: Segmenter, tmp_path: Path) -> None:
    assert segmenter.name == "vfss12-small"
    assert segmenter.tasks.ids == VFSS12.ids
    assert segmenter.simulated
    assert find_model(Workspace(tmp_path), None).stat().st_size <= 8_000_000


def test_it_finds_the_spine_of_a_patient_it_never_saw(segmenter: Segmenter) -> None:
    from vfss_distill.simulate import SimulateOptions, simulate_study

    study = simulate_study(909_090, 0, SimulateOptions(size=256, frames=3, fps=5, pulses=5))
    said = segmenter.probabilities(study.frames[:, None]) > 0.5
    for number, task in enumerate(segmenter.tasks.ids):
        if task in ("c2", "c3", "mandible"):
            truth = study.masks[task]
            dice = 2 * (said[:, number] & truth).sum() / (said[:, number].sum() + truth.sum())
            assert dice > 0.7, task


def test_a_real_cine_is_decoded_timed_and_drawn_exactly(
    cli: Cli, tmp_path: Path, shared_data: Path
) -> None:
    """Its masks mean nothing: it shows a heart's vessels."""
    cine = shared_data / "xa-coronary-cine" / "xa_96frames.dcm"
    done = cli("segment", cine, "--json")
    assert done.exit_code == 0, done.stderr
    (study,) = json.loads(done.stdout)["studies"]
    assert study["frames"] == 96
    with av.open(tmp_path / study["outputs"]["overlay"]) as film:
        times = [float(frame.time) for frame in film.decode(video=0)]
    assert np.allclose(times, 0.033 * np.arange(96), atol=1e-4)
