"""Splits: by patient, for good, and decided by content alone."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import Cli
from intake_films import write_film
from tiny_studies import small_world, write_splits
from vfss_distill.config import SplitConfig
from vfss_distill.errors import ConfigError, DataError
from vfss_distill.intake.leaks import refuse_leaks
from vfss_distill.intake.record import StudyRecord
from vfss_distill.intake.splits import PatientFacts, Splits, load_splits, lock_test, update_splits
from vfss_distill.intake.study import Study, list_studies, write_png, write_record
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
        ("train: [a]\nval: []\ntest: [a]\n", "listed twice: a"),
        ("train: 3\nval: []\ntest: []\n", "train: not a list"),
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
    by_hand = "train: []\nval: [p1, p2, p4]\ntest: []\n"
    (tmp_path / "splits.yaml").write_text(by_hand)
    assert update_splits(workspace, cohort({1, 2, 4}), SplitConfig()).val == ("p1", "p2", "p4")
    assert (tmp_path / "splits.yaml").read_text() == by_hand


TASKS = ("bolus", "hyoid", "c3", "c4")


def mixed(numbers: set[int], clinic: str = "") -> Cohort:
    """Patients with one to four labelled tasks, of three clinics of unlike size."""
    found = {}
    for number in numbers:
        draw = hashlib.sha256(f"m{number}".encode()).digest()
        tasks = frozenset(task for task, byte in zip(TASKS, draw[:4], strict=True) if byte < 120)
        site = clinic + "AAABBC"[draw[4] % 6]
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        found[f"p{number}"] = PatientFacts(digest, bool(tasks), tasks, site)
    return found


def test_each_task_and_site_is_shared_out() -> None:
    """Far more evenly than by chance: deviations from a fifth, over twenty cohorts of forty."""

    def deviation(patients: Cohort, dealt: Splits) -> float:
        off = []
        for trait in (*TASKS, "site A", "site B", "site C"):
            group = [name for name, facts in patients.items() if trait in facts.traits()]
            for part in ("val", "test"):
                got = sum(dealt.of(name) == part for name in group)
                off.append(abs(got - 0.2 * len(group)))
        return sum(off) / len(off)

    config = SplitConfig(val=0.2, test=0.2)
    stratified, by_chance = [], []
    for first in range(0, 800, 40):
        patients = mixed(set(range(first, first + 40)))
        blind = {name: PatientFacts(some.digest, some.labelled) for name, some in patients.items()}
        stratified.append(deviation(patients, deal(patients, config=config)))
        by_chance.append(deviation(patients, deal(blind, config=config)))
    assert sum(stratified) < 0.6 * sum(by_chance)
    assert sum(stratified) / len(stratified) < 0.8


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(0, 400), max_size=40))
def test_pseudonyms_of_sites_do_not_matter(some: set[int]) -> None:
    assert deal(mixed(some, "z")) == deal(mixed(some, "a"))


class TestLock:
    @pytest.fixture
    def lab(self, tmp_path: Path) -> Workspace:
        workspace = Workspace(tmp_path)
        update_splits(workspace, cohort(set(range(12))), SplitConfig())
        return workspace

    @staticmethod
    def records(some: Cohort) -> list[StudyRecord]:
        return [
            StudyRecord(name, name, facts.digest, 1, (0.0,), 1, 1) for name, facts in some.items()
        ]

    def test_nobody_joins_or_leaves(self, lab: Workspace) -> None:
        before = load_splits(lab)
        locked = lock_test(lab, self.records(cohort(set(range(12)))))
        assert locked.locked is not None and set(locked.locked) == set(before.test)
        assert load_splits(lab) == locked
        after = update_splits(lab, cohort(set(range(60))), SplitConfig())
        assert after.test == before.test and after.locked == locked.locked
        assert len(after.train) + len(after.val) == 60 - len(before.test)
        assert len(after.val) > len(before.val)
        text = lab.splits_file.read_text()
        assert lock_test(lab, []) == after and lab.splits_file.read_text() == text

    @pytest.mark.parametrize("change", ["join", "leave", "both", "lock", "nonsense"])
    def test_a_change_by_hand_is_refused(self, change: str, lab: Workspace) -> None:
        splits = lock_test(lab, self.records(cohort(set(range(12)))))
        data = yaml.safe_load(lab.splits_file.read_text())
        one = splits.test[0]
        if change == "join":
            data["test"].append(data["train"].pop())
        elif change == "leave":
            data["train"].append(data["test"].pop(0))
        elif change == "both":
            data["test"].remove(one)
            del data["locked"]["test"][one]
        elif change == "lock":
            data["locked"]["test"][one] = ["0" * 64]
        else:
            data["locked"] = True
        lab.splits_file.write_text(yaml.safe_dump(data))
        with pytest.raises(ConfigError, match="locked") as caught:
            load_splits(lab)
        assert "delete `locked`" in str(caught.value)
        with pytest.raises(ConfigError):
            update_splits(lab, cohort(set(range(20))), SplitConfig())
        del data["locked"]
        lab.splits_file.write_text(yaml.safe_dump(data))
        assert load_splits(lab).locked is None

    def test_what_it_keeps_out(self) -> None:
        locked = Splits(train=("pb",), test=("pa",), locked={"pa": ("11", "22")})
        assert locked.why_closed("pa", "33") == "its patient, pa, is in the locked test set"
        said = "it is in the locked test set, as a recording of pa"
        assert locked.why_closed("pb", "22") == said, "its study gone, its patient another"
        assert not locked.why_closed("pa", "22") and not locked.why_closed("pb", "33")
        assert not replace(locked, locked=None).why_closed("pa", "33")

    def test_nothing_to_lock(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no patient in the test set"):
            lock_test(Workspace(tmp_path), [])

    def test_as_a_user_meets_it(self, cli: Cli, tmp_path: Path) -> None:
        for number in range(5):
            write_film(tmp_path / "v" / f"p{number}" / "a.mp4", frames=3 + number)
        outcome = cli("ingest", "v", "--lock-test")
        assert outcome.exit_code == 0 and "The test set is locked: 1 patient." in outcome.stdout
        workspace = Workspace(tmp_path)
        splits = load_splits(workspace)
        sources = {row["patient"]: row["source_patient"] for row in identities(tmp_path)}
        write_film(tmp_path / "v" / sources[splits.test[0]] / "b.mp4", frames=20)
        write_film(tmp_path / "v" / "p9" / "a.mp4", frames=21)
        again = cli("ingest", "v")
        assert f"b.mp4: left out: its patient, {splits.test[0]}, is in the locked" in again.stderr
        assert again.exit_code == 0 and len(list_studies(workspace)) == 6
        assert load_splits(workspace).test == splits.test
        assert json.loads(cli("ingest", "--lock-test", "--json").stdout)["test_locked"] is True
        text = (tmp_path / "splits.yaml").read_text().replace("test:\n- ", "test:\n- p2\n- ", 1)
        (tmp_path / "splits.yaml").write_text(text)
        for command in (("ingest", "v"), ("labels", "check"), ("segment", "--split", "test")):
            refused = cli(*command)
            assert refused.exit_code == 4 and "locked, but added: p2" in refused.stderr


class TestSites:
    def test_a_column_of_the_table_becomes_a_pseudonym(self, cli: Cli, tmp_path: Path) -> None:
        lines = ["file;patient;Site"]
        for number in range(6):
            write_film(tmp_path / "v" / f"{number}.mp4", frames=3 + number)
            lines.append(f"{number}.mp4;anna{number};{'Nordstadt' if number % 2 else ''}")
        (tmp_path / "who.csv").write_text("\n".join(lines))
        assert cli("ingest", "v", "--patients", "who.csv").exit_code == 0
        sites = {
            study.record.frames: study.record.site for study in list_studies(Workspace(tmp_path))
        }
        assert sites[3] == "" and sites[4] == sites[6] and len(sites[4]) == 7
        rows = {row["site"]: row["source_site"] for row in identities(tmp_path)}
        assert rows == {"": "", sites[4]: "Nordstadt"}
        for path in tmp_path.glob("studies/*/study.json"):
            assert "Nordstadt" not in path.read_text()

    def test_a_table_of_identities_from_before_sites(self, cli: Cli, tmp_path: Path) -> None:
        write_film(tmp_path / "v" / "anna" / "a.mp4", frames=3)
        cli("ingest", "v")
        before = identities(tmp_path)
        columns = ("study", "patient", "source_patient", "source_path")
        rows = [columns, *([row[name] for name in columns] for row in before)]
        text = "\n".join(",".join(row) for row in rows) + "\n"
        (tmp_path / "identities.csv").write_text(text)
        write_film(tmp_path / "v" / "bert" / "a.mp4", frames=4)
        assert cli("ingest", "v").exit_code == 0
        assert len(identities(tmp_path)) == 2 and before[0] in identities(tmp_path)


class TestLeaks:
    def test_clean_splits_are_read_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        workspace = small_world(tmp_path)
        refuse_leaks(workspace)
        monkeypatch.setattr(Study, "read_frame", lambda *_: pytest.fail("read again"))
        refuse_leaks(workspace)
        write_splits(workspace, train=["pa", "pb"], val=["pd", "pc"], test=["pe"])
        with pytest.raises(pytest.fail.Exception):
            refuse_leaks(workspace)

    @pytest.mark.parametrize("anew", [{"mirrored": True}, {"interlaced": "kept"}])
    def test_clean_splits_are_read_again_when_other_frames_are_shown(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, anew: dict[str, Any]
    ) -> None:
        workspace = small_world(tmp_path)
        refuse_leaks(workspace)
        study = list_studies(workspace)[0]
        write_record(study.folder, replace(study.record, **anew))
        monkeypatch.setattr(Study, "read_frame", lambda *_: pytest.fail("read again"))
        with pytest.raises(pytest.fail.Exception):
            refuse_leaks(workspace)

    def test_a_damaged_note_of_clean_splits_costs_a_second_look(self, tmp_path: Path) -> None:
        workspace = small_world(tmp_path)
        refuse_leaks(workspace)
        clean = workspace.leaks_file.read_bytes()
        for damage in (b"", b"[]", b"\xff"):
            workspace.leaks_file.write_bytes(damage)
            refuse_leaks(workspace)
            assert workspace.leaks_file.read_bytes() == clean

    def test_frames_of_one_part_in_another(self, cli: Cli, tmp_path: Path) -> None:
        workspace = small_world(tmp_path)
        studies = {study.patient: study for study in list_studies(workspace)}
        copied = studies["pa"].read_frame(2).astype(np.float32) * 0.8 + 10
        write_png(studies["pe"].folder / "frames" / "000004.png", copied.astype(np.uint8))
        with pytest.raises(DataError, match="1 frames are nearly frames of pe-"):
            refuse_leaks(workspace)
        outcome = cli("labels", "check", "--json")
        assert outcome.exit_code == 4 and "nearly frames of pe-" in outcome.stdout
        refused = cli("distill", "--teachers", "none", "--device", "cpu")
        assert refused.exit_code == 4 and "the splits leak" in refused.stderr
        assert "Put both patients into one list" in refused.stderr
        assert not list(tmp_path.glob("runs/*"))
        write_splits(workspace, train=["pa", "pb", "pc", "pe"], val=["pd"])
        refuse_leaks(workspace)

    def test_one_recording_of_two_patients(self, tmp_path: Path) -> None:
        workspace = small_world(tmp_path)
        one, other = list_studies(workspace)[:2]
        twin = replace(other.record, source_sha256=one.record.source_sha256)
        write_record(other.folder, twin)
        with pytest.raises(DataError, match="the same recording as pa-"):
            refuse_leaks(workspace)

    def test_a_locked_study_that_is_gone(self, tmp_path: Path) -> None:
        workspace = small_world(tmp_path)
        records = [study.record for study in list_studies(workspace)]
        lock_test(workspace, records)
        refuse_leaks(workspace)
        gone = next(study for study in list_studies(workspace) if study.patient == "pe")
        shutil.rmtree(gone.folder)
        with pytest.raises(DataError, match="studies of pe are not those it had"):
            refuse_leaks(workspace)


def identities(root: Path) -> list[dict[str, str]]:
    with (root / "identities.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))
