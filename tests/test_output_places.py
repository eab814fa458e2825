"""Folders for outputs that are links to another disk: told before the work, not after it."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import Cli
from distill_lab import run, tiny_lab
from fake_results import FakeWorkspace
from vfss_distill.distill import run as runs
from vfss_distill.errors import StorageError, WorkspaceError
from vfss_distill.evaluate import compare, report, scoring
from vfss_distill.inference import pipeline
from vfss_distill.workspace import nearest

OUTSIDE = "an output would lie outside the workspace"


def lead_away(place: Path, *, there: bool) -> None:
    """A link at `place` to a disk that is there, or is not."""
    disk = place.parent.parent / "disk"
    if there:
        disk.mkdir()
    place.symlink_to(disk)


def asked_too_early(*_: object, **__: object) -> None:
    pytest.fail("the work has begun")


@pytest.mark.parametrize("there", [True, False])
def test_a_run(there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = tiny_lab(tmp_path / "lab")
    lead_away(lab.runs, there=there)
    monkeypatch.setattr(runs, "prepare", asked_too_early)
    with pytest.raises(WorkspaceError, match=OUTSIDE):
        run(lab, teachers=("raddino",))


@pytest.mark.parametrize("there", [True, False])
def test_a_result(there: bool, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeWorkspace(tmp_path / "lab")
    study = fake.study("p1-aaaaaa", "p1", labels=[0])
    lead_away(fake.root / "results", there=there)
    monkeypatch.setattr(pipeline, "segment_source", asked_too_early)
    outcome = cli("segment", study, cwd=fake.root)
    assert outcome.exit_code == 4 and OUTSIDE in outcome.stderr


@pytest.mark.parametrize("there", [True, False])
def test_a_report(there: bool, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeWorkspace(tmp_path / "lab")
    fake.study("p1-aaaaaa", "p1", split="test", labels=[0])
    fake.result("p1-aaaaaa", n=1)
    lead_away(fake.root / "reports", there=there)
    monkeypatch.setattr(report, "score_group", asked_too_early)
    outcome = cli("report", cwd=fake.root)
    assert outcome.exit_code == 4 and OUTSIDE in outcome.stderr


@pytest.mark.parametrize("words", [("report",), ("compare", "good", "bad")])
def test_a_report_whose_name_another_took_meanwhile(
    words: tuple[str, ...], tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has chosen the name: the next one is as good."""
    fake = FakeWorkspace(tmp_path)
    for patient in ("p1", "p2"):
        fake.study(f"{patient}-aaaaaa", patient, split="test", labels=[0])
        for model, shift in (("good", 0), ("bad", 3)):
            fake.result(f"{patient}-aaaaaa", model=model, shift=shift, n=1)
    first = tmp_path / "reports" / f"{words[0]}-001"

    def meanwhile(*arguments: object) -> object:
        first.mkdir(parents=True, exist_ok=True)
        return score(*arguments)

    score = scoring.score_case
    for module in (scoring, compare):
        monkeypatch.setattr(module, "score_case", meanwhile)
    outcome = cli(*words, "--force")
    assert outcome.exit_code == 0, outcome.stderr
    assert not list(first.iterdir())
    assert (first.with_name(f"{words[0]}-002") / "index.html").exists()


def test_room_on_a_disk_that_is_not_there(tmp_path: Path) -> None:
    lab = tmp_path / "lab"
    lab.mkdir()
    assert nearest(lab / "cache" / "sam") == lab
    lead_away(lab / "cache", there=False)
    with pytest.raises(StorageError, match="cache: is a link that leads nowhere"):
        nearest(lab / "cache" / "sam")
