"""Splits: by patient, for good, and decided by content alone."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vfss_distill.config import SplitConfig
from vfss_distill.errors import ConfigError
from vfss_distill.intake.splits import PatientFacts, Splits, load_splits, update_splits
from vfss_distill.workspace import Workspace

Cohort = dict[str, PatientFacts]


def cohort(numbers: set[int], prefix: str = "p") -> Cohort:
    """Patients whose content depends on their number and whose name also on `prefix`."""
    return {
        f"{prefix}{number}": PatientFacts(
            hashlib.sha256(str(number).encode()).hexdigest(), number % 3 > 0
        )
        for number in numbers
    }


def deal(*cohorts: Cohort, config: SplitConfig | None = None) -> Splits:
    """Splits after `cohorts` came one after another, into a fresh workspace."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder))
        for patients in cohorts:
            dealt = update_splits(workspace, patients, config or SplitConfig())
            assert dealt == load_splits(workspace)
        return dealt


numbers = st.sets(st.integers(0, 400), max_size=40)


@settings(max_examples=40, deadline=None)
@given(numbers)
def test_everyone_is_in_one_part(some: set[int]) -> None:
    dealt = deal(cohort(some))
    everyone = [*dealt.train, *dealt.val, *dealt.test]
    assert sorted(everyone) == sorted(cohort(some))
    assert len(dealt.train) >= len(dealt.val) and len(dealt.train) >= len(dealt.test)


@settings(max_examples=40, deadline=None)
@given(numbers, numbers)
def test_newcomers_move_nobody(some: set[int], more: set[int]) -> None:
    before, after = deal(cohort(some)), deal(cohort(some), cohort(some | more))
    for patient in cohort(some):
        assert after.of(patient) == before.of(patient)
    assert all(after.of(patient) for patient in cohort(more))


@settings(max_examples=40, deadline=None)
@given(numbers, st.randoms())
def test_pseudonyms_and_order_do_not_matter(some: set[int], random: object) -> None:
    one, other = deal(cohort(some, "p")), deal(dict(reversed(cohort(some, "zz").items())))
    for number in some:
        assert one.of(f"p{number}") == other.of(f"zz{number}")


@settings(max_examples=40, deadline=None)
@given(st.sets(st.integers(0, 400), min_size=40, max_size=60))
def test_labelled_and_unlabelled_get_their_shares(some: set[int]) -> None:
    dealt = deal(cohort(some), config=SplitConfig(val=0.25, test=0.25))
    for labelled in (True, False):
        group = {name for name, facts in cohort(some).items() if facts.labelled is labelled}
        for part in ("val", "test"):
            got = sum(dealt.of(name) == part for name in group)
            assert abs(got - 0.25 * len(group)) <= 1.01


@pytest.mark.parametrize(
    ("count", "sizes"), [(0, (0, 0, 0)), (1, (1, 0, 0)), (2, (1, 0, 1)), (3, (1, 1, 1))]
)
def test_few_patients(count: int, sizes: tuple[int, int, int]) -> None:
    labelled = {
        name: PatientFacts(facts.digest, True) for name, facts in cohort(set(range(count))).items()
    }
    dealt = deal(labelled)
    assert (len(dealt.train), len(dealt.val), len(dealt.test)) == sizes


def test_seed_changes_who_and_not_how_many() -> None:
    some = cohort(set(range(30)))
    one, other = deal(some), deal(some, config=SplitConfig(seed=7))
    assert one != other and len(one.test) == len(other.test)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: [a]\ntest: [a]\n", "listed twice: a"),
        ("train: 3\n", "train: not a list"),
        ("training: [a]\n", "train, val and test"),
        ("- a\n", "train, val and test"),
    ],
)
def test_a_file_that_cannot_be_used(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "splits.yaml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_splits(Workspace(tmp_path))


def test_moving_a_patient_by_hand_is_respected(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert load_splits(workspace) == Splits() and Splits().of("p1") is None
    update_splits(workspace, cohort({1, 2, 4}), SplitConfig())
    (tmp_path / "splits.yaml").write_text("val: [p1, p2, p4]\n")
    assert update_splits(workspace, cohort({1, 2, 4}), SplitConfig()).val == ("p1", "p2", "p4")
    assert (tmp_path / "splits.yaml").read_text() == "val: [p1, p2, p4]\n"
