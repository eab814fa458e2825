"""What teachers' features say of the labels, and weights that follow it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from distill_lab import run, same, tiny_lab
from tiny_studies import write_splits
from vfss_distill.config import DistillConfig
from vfss_distill.distill import balance
from vfss_distill.distill.probe import explained
from vfss_distill.workspace import Workspace

PATIENTS = [patient for patient in ("pa", "pb", "pc", "pd") for _ in range(6)]


@pytest.fixture(autouse=True)
def _same_threads() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def lab(tmp_path: Path) -> Workspace:
    return tiny_lab(tmp_path)


def world(noise: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (24, 8, 8, 8) that are mixtures of the labels (24, 3, 8, 8), and noise."""
    draw = torch.Generator().manual_seed(seed)
    shares = torch.rand(len(PATIENTS), 3, 8, 8, generator=draw)
    mixed = torch.einsum("ct,nthw->nchw", torch.randn(8, 3, generator=draw), shares)
    return mixed + noise * torch.randn(mixed.shape, generator=draw), shares


def test_the_more_features_say_the_more_they_explain() -> None:
    every = torch.ones(len(PATIENTS), 3, dtype=torch.bool)
    found = [explained(*world(noise), every, PATIENTS) for noise in (0, 0.3, 1, 1000)]
    assert found[0] > 0.99
    assert found == sorted(found, reverse=True)
    assert 0.1 < found[2] < found[1] < 0.9
    assert found[3] < 0.01


def test_only_what_is_labelled_counts_task_by_task() -> None:
    features, shares = world(0.3)
    some = torch.ones(len(PATIENTS), 3, dtype=torch.bool)
    some[::2, 1] = False
    some[:, 2] = False
    before = explained(features, shares, some, PATIENTS)
    other = torch.where(some[:, :, None, None], shares, torch.full_like(shares, 9))
    assert explained(features, other, some, PATIENTS) == before > 0.3


def test_to_know_the_patient_is_to_know_nothing() -> None:
    """Features that tell patients apart, labels that are of one patient each: they would be
    explained in full by a fit on the same patients."""
    who = torch.tensor([sorted(set(PATIENTS)).index(patient) for patient in PATIENTS])
    features = torch.nn.functional.one_hot(who).float()[:, :, None, None].expand(-1, -1, 8, 8)
    shares = torch.tensor([0.1, 0.9, 0.3, 0.7])[who][:, None, None, None].expand(-1, 1, 8, 8)
    every = torch.ones(len(PATIENTS), 1, dtype=torch.bool)
    assert explained(features, shares, every, PATIENTS) == 0


def test_constant_features_and_labels_explain_nothing() -> None:
    features, shares = world(0)
    every = torch.ones(len(PATIENTS), 3, dtype=torch.bool)
    assert explained(torch.ones_like(features), shares, every, PATIENTS) == 0
    assert explained(features, torch.zeros_like(shares), every, PATIENTS) == 0


def test_weights_are_in_proportion_to_what_was_found() -> None:
    config = DistillConfig(balancing="probe")
    alpha, lesson = balance.build_balance(config, 3, [0.3, 0.1, 0.0]).weigh(torch.rand(3, 4), 4)
    assert alpha[:, 0].tolist() == pytest.approx([0.75, 0.25, 0])
    assert torch.equal(alpha, alpha[:, :1].expand(3, 4))
    assert lesson.item() == 0
    alike = balance.build_balance(config, 3, None).weigh(torch.rand(3, 4), 4)[0]
    assert alike[:, 0].tolist() == pytest.approx([1 / 3] * 3)


def weights_logged(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["alpha"] for line in lines]


def test_a_run_weighs_teachers_by_what_they_know(lab: Workspace) -> None:
    said: list[str] = []
    teachers = ("medsam", "raddino", "medclip")
    done = run(lab, teachers=teachers, balancing="probe", say=said.append)
    told = next(line for line in said if line.startswith("share of the labels"))
    found = dict(part.rsplit(" ", 1) for part in told.split(": ")[1].split(", "))
    assert set(found) == set(teachers)
    alphas = weights_logged(done.folder)
    assert all(alpha == alphas[0] for alpha in alphas)
    whole = sum(map(float, found.values()))
    for name, share in found.items():
        assert alphas[0][name] == pytest.approx(float(share) / whole, abs=0.05)
    assert max(alphas[0].values()) > 0.4  # tiny teachers differ
    assert same(done, run(lab, teachers=teachers, balancing="probe"))


def test_one_labelled_patient_cannot_tell(lab: Workspace) -> None:
    write_splits(lab, train=["pa"], val=["pd"], test=["pe"])
    said: list[str] = []
    done = run(lab, teachers=("medsam", "raddino"), balancing="probe", say=said.append)
    assert any("two labelled patients" in line for line in said)
    assert weights_logged(done.folder)[0] == {"medsam": 0.5, "raddino": 0.5}


def test_alignment_alone_has_no_labels_to_ask(lab: Workspace) -> None:
    said: list[str] = []
    run(lab, teachers=("medsam", "raddino"), balancing="probe", task_steps=0, say=said.append)
    assert any("two labelled patients" in line for line in said)
