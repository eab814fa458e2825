"""Files of a workspace that are damaged: said with the file's name, and never written over."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from conftest import Cli
from fake_results import FakeWorkspace
from ingest_jobs import identities, ingested
from intake_films import write_film
from label_world import first_study, make_world
from vfss_distill.errors import ConfigError, DataError
from vfss_distill.inference.record import read_outcome
from vfss_distill.intake.splits import load_splits
from vfss_distill.intake.study import Study, list_studies
from vfss_distill.workspace import Workspace

_NO_LABELS = (
    *('{"bolus": 3}', '{"bolus": "x"}', '{"bolus": {"a": 1}}', '{"bolus": [[1, 2]]}'),
    *('{"bolus": ["0"]}', '{"bolus": [-1]}', '{"bolus": [6]}', '{"../../x": [0]}', "[]", "null"),
)
_NO_TIMES = (
    *("null", '"012345"', "[0, 1, 2, 3, 4]", "[0, 1, 2, 3, 4, NaN]", "[0, 1, 2, 3, 4, 1e999]"),
    *("[0, 1, 2, 3, 3, 4]", "[0, 1, 2, 3, 4, 1" + "0" * 400 + "]", '[0, 1, 2, 3, 4, "5"]'),
)


@pytest.fixture
def lab(cli: Cli, tmp_path: Path) -> Path:
    """A workspace with a study of each of two patients, and a third film to ingest."""
    for number, name in enumerate(("anna", "bert")):
        write_film(tmp_path / "v" / name / "a.mp4", frames=3 + number)
    ingested(cli, "v")
    write_film(tmp_path / "v" / "carl" / "a.mp4", frames=6)
    return tmp_path


class TestIdentities:
    @pytest.mark.parametrize(
        ("damage", "words"),
        [
            (lambda text: text.replace(",anna", ',"anna', 1), "line "),
            (lambda text: text[:-2], "line 3 is damaged"),
            (lambda text: text[:-1], "line 3 is cut off"),
            (lambda text: text + "x" * 140_000 + ",,,,,\n", "line 4 is damaged"),
            (lambda text: text + text.splitlines()[1] + "\n", "line 4 is damaged"),
            (lambda text: "", "other columns"),
        ],
    )
    def test_a_damaged_table_is_kept_as_it_is(
        self, damage: object, words: str, lab: Path, cli: Cli
    ) -> None:
        table = lab / "identities.csv"
        assert callable(damage)
        table.write_text(damage(table.read_text()))
        before = table.read_bytes()
        outcome = cli("ingest", "v")
        assert outcome.exit_code == 4 and "identities.csv: " in outcome.stderr
        assert words in outcome.stderr and "anna" not in outcome.stderr
        assert table.read_bytes() == before

    @pytest.mark.parametrize("name", ["identities.csv", "identities.key"])
    @pytest.mark.parametrize("to", ["nowhere", None])
    def test_a_link_that_leads_nowhere(
        self, name: str, to: str | None, lab: Path, cli: Cli
    ) -> None:
        (lab / name).unlink()
        (lab / name).symlink_to(to or name)
        outcome = cli("ingest", "v")
        assert outcome.exit_code == 4 and f"{name}: is a link that leads nowhere" in outcome.stderr
        assert (lab / name).is_symlink() and not (lab / "nowhere").exists()

    @pytest.mark.parametrize("what", ["gone", "header"])
    def test_rows_that_are_gone_are_counted(self, what: str, lab: Path, cli: Cli) -> None:
        table = lab / "identities.csv"
        if what == "gone":
            table.unlink()
        else:
            table.write_text(table.read_text().splitlines()[0] + "\n")
        outcome = cli("ingest", "v")
        assert outcome.exit_code == 0
        assert "identities.csv has no row of 2 of 2 studies" in outcome.stderr
        assert [row["source_patient"] for row in identities(lab)] == ["carl"]

    @pytest.mark.parametrize("text", ["", "\n", "é" * 64, "0" * 63, "g" * 64, "0" * 64 + " 1"])
    def test_a_damaged_key_is_no_key(self, text: str, lab: Path, cli: Cli) -> None:
        (lab / "identities.key").write_text(text)
        outcome = cli("ingest", "v")
        assert outcome.exit_code == 4 and "identities.key: is damaged. Put it" in outcome.stderr
        assert (lab / "identities.key").read_text() == text

    def test_without_key_and_table_patients_are_new_and_that_is_said(
        self, lab: Path, cli: Cli
    ) -> None:
        (lab / "identities.key").unlink()
        (lab / "identities.csv").unlink()
        outcome = cli("ingest", "v/carl")
        assert outcome.exit_code == 0 and "identities.key is missing" in outcome.stderr
        assert "no row of 2 of 2 studies" in outcome.stderr

    def test_files_on_a_protected_disk_stay_there(self, lab: Path, cli: Cli) -> None:
        disk = lab / "protected"
        disk.mkdir()
        for name in ("identities.csv", "identities.key"):
            (lab / name).rename(disk / name)
            (lab / name).symlink_to(disk / name)
        ingested(cli, "v")
        assert (lab / "identities.csv").is_symlink() and (lab / "identities.key").is_symlink()
        assert len(identities(disk)) == 3
        assert (disk / "identities.csv").stat().st_mode & 0o777 == 0o600

    def test_a_gitignore_in_another_encoding(self, cli: Cli, tmp_path: Path) -> None:
        write_film(tmp_path / "v" / "anna" / "a.mp4", frames=3)
        (tmp_path / ".gitignore").write_bytes(b"R\xf6ntgen/\n")
        ingested(cli, "v")
        lines = (tmp_path / ".gitignore").read_bytes().splitlines()
        assert lines[:3] == [b"R\xf6ntgen/", b"identities.*", b".partial-*"]

    def test_nothing_is_said_of_a_whole_workspace(self, lab: Path, cli: Cli) -> None:
        assert "identities" not in cli("ingest", "v", "--no-blank").stderr

    def test_a_name_with_a_carriage_return_is_read_back(self, cli: Cli, tmp_path: Path) -> None:
        write_film(tmp_path / "v" / "an\rna" / "a.mp4", frames=3)
        ingested(cli, "v")
        write_film(tmp_path / "v" / "bert" / "a.mp4", frames=4)
        ingested(cli, "v")
        assert {row["source_patient"] for row in identities(tmp_path)} == {"an\rna", "bert"}


class TestSplits:
    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("", "must hold the lists"),
            ("schema_version: 1\n", "train, val, test: no such list"),
            ("train: [a]\nval: [b]\n", "test: no such list"),
            ("train: [a]\nval:\ntest: []\n", "val: no such list"),
            (None, "cannot be read"),
        ],
    )
    def test_half_a_file_is_not_taken_for_empty_lists(
        self, text: str | None, words: str, lab: Path, cli: Cli
    ) -> None:
        path = lab / "splits.yaml"
        if text is None:
            path.unlink()
            path.symlink_to("splits.yaml")
        else:
            path.write_text(text)
        outcome = cli("ingest", "v")
        assert outcome.exit_code == 4 and "splits.yaml: " in outcome.stderr
        assert words in outcome.stderr and "back from a copy" in outcome.stderr
        assert path.is_symlink() if text is None else path.read_text() == text

    def test_no_cut_of_a_locked_file_unlocks_it(self, lab: Path, cli: Cli) -> None:
        assert cli("ingest", "--lock-test").exit_code == 0
        workspace = Workspace(lab)
        locked = load_splits(workspace)
        text = workspace.splits_file.read_text()
        for end in range(len(text) - 1):
            workspace.splits_file.write_text(text[:end])
            with pytest.raises(ConfigError):
                load_splits(workspace)
        data = yaml.safe_load(text)
        before = {part: data[part] for part in ("train", "val", "test", "locked")}
        workspace.splits_file.write_text(yaml.safe_dump(before, sort_keys=False))
        assert load_splits(workspace) == locked  # as earlier versions wrote it: the lock last

    def test_patients_who_are_dealt_out_anew_are_counted(self, lab: Path, cli: Cli) -> None:
        path = lab / "splits.yaml"
        path.unlink()
        said = cli("ingest", "v").stderr
        assert "splits.yaml is missing: 2 patients are dealt out anew" in said
        splits = yaml.safe_load(path.read_text())
        next(some for some in splits.values() if isinstance(some, list) and some).pop()
        path.write_text(yaml.safe_dump(splits))
        assert "splits.yaml lacks 1 of 3 patients" in cli("ingest", "v").stderr
        assert "splits.yaml" not in cli("ingest", "v").stderr


class TestStudies:
    @pytest.mark.parametrize("how", ["gone", "folder", "loop"])
    def test_a_study_without_its_record_is_not_ingested_over(
        self, how: str, lab: Path, cli: Cli
    ) -> None:
        folder = min((lab / "studies").iterdir())
        record = folder / "study.json"
        record.unlink()
        if how == "folder":
            record.mkdir()
        elif how == "loop":
            record.symlink_to("study.json")
        (folder / "masks").mkdir()
        outcome = cli("ingest", "v")
        assert outcome.exit_code == 3 and f"as {folder.name}, whose record cannot" in outcome.stderr
        assert "back from a backup" in outcome.stderr and (folder / "masks").is_dir()
        named = cli("segment", folder.name)
        assert named.exit_code == 4 and "back from a backup" in named.stderr

    def test_a_strange_folder_in_the_way_is_replaced_with_force_only(
        self, lab: Path, cli: Cli
    ) -> None:
        third = ingested(cli, "v")["studies"][0]["study"]
        shutil.rmtree(lab / "studies" / third)
        (lab / "studies" / third).mkdir()
        (lab / "studies" / third / "notes.txt").write_text("keep")
        (lab / "studies" / ".DS_Store").write_bytes(b"")
        (lab / "studies" / "empty").mkdir()
        refused = cli("ingest", "v")
        assert refused.exit_code == 3
        assert f"studies/{third} is there and is no study" in refused.stderr
        assert (lab / "studies" / third / "notes.txt").read_text() == "keep"
        assert ingested(cli, "v", "--force")["failed"] == []

    @pytest.mark.parametrize("name", ["../../EVIL", "{tmp}/EVIL", "..", ".", "", "another-study"])
    def test_a_record_names_no_other_place(self, name: str, tmp_path: Path, cli: Cli) -> None:
        lab = make_world(tmp_path)
        study = first_study(lab)
        outside = tmp_path / "EVIL"
        outside.mkdir()
        (outside / "kept").write_text("x")
        change(study.folder / "study.json", study=name.format(tmp=tmp_path))
        for words in (
            ("segment", study.folder, "--force"),
            ("labels", "export", "out", "--format", "masks", "--force", "--study", study.id),
        ):
            outcome = cli(*words, cwd=lab.root)
            assert outcome.exit_code != 0, words
        with pytest.raises(DataError, match="names another study"):
            Study.open(study.folder)
        assert [path.name for path in outside.iterdir()] == ["kept"]

    def test_a_study_is_opened_by_any_path_to_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        study = first_study(make_world(tmp_path))
        (tmp_path / "link").symlink_to(study.folder)
        monkeypatch.chdir(study.folder)
        assert Study.open(Path()).id == Study.open(tmp_path / "link").id == study.id

    @pytest.mark.parametrize(
        ("field", "text"),
        [
            *(("labelled", text) for text in _NO_LABELS),
            *(
                ("frames", text)
                for text in ("1e999", "-1", "6.5", '"6"', "7", "true", "1" + "0" * 400)
            ),
            *(("frame_times_s", text) for text in _NO_TIMES),
            ("patient", "3"),
            ("patient", '"\\ud800"'),
            ("source_sha256", "null"),
            ("study", '"\\ud800"'),
            ("warnings", "true"),
            ("width", "1e999"),
            ("repeats", "[99]"),
            ("blanked", '[{"x": 1e999, "y": 0, "width": 1, "height": 1, "reason": "given"}]'),
            ("acquisition", '{"kvp": NaN}'),
        ],
    )
    def test_a_field_of_another_kind(self, field: str, text: str, tmp_path: Path, cli: Cli) -> None:
        lab = make_world(tmp_path)
        study = first_study(lab)
        put_raw(study.folder / "study.json", field, text)
        with pytest.raises(DataError, match=r"study.json: damaged: .*\. Put study.json back"):
            Study.open(study.folder)
        outcome = cli("labels", "check", cwd=lab.root)
        assert outcome.exit_code == 4 and f"studies/{study.id}: damaged" in outcome.stderr

    def test_a_record_of_an_earlier_version(self, tmp_path: Path) -> None:
        study = first_study(make_world(tmp_path))
        body = json.loads((study.folder / "study.json").read_text())
        needed = ("study", "patient", "source_sha256", "frames", "frame_times_s", "width", "height")
        (study.folder / "study.json").write_text(json.dumps({name: body[name] for name in needed}))
        assert Study.open(study.folder).record.labelled == {}

    def test_one_damaged_record_stops_no_other_study(self, tmp_path: Path, cli: Cli) -> None:
        lab = make_world(tmp_path)
        first, second = list_studies(lab)
        (first.folder / "study.json").write_text("{")
        said = f"studies/{first.id}: not readable as JSON"

        checked = cli("labels", "check", "--json", cwd=lab.root)
        assert checked.exit_code == 4 and said in checked.stderr
        body = json.loads(checked.stdout)
        assert body["studies"] == 1 and body["masks"] == 14
        named = [one["kind"] for one in body["findings"] if one["study"] == first.id]
        assert named == ["file"]

        words = ("labels", "export", "--format", "masks", "--json")
        out = cli(*words, "all", cwd=lab.root)
        assert out.exit_code == 3 and said in out.stderr
        made = json.loads(out.stdout)
        assert made["failed"][0]["input"] == f"studies/{first.id}"
        assert {path.name for path in (lab.root / "all").glob("p*")} == {second.id}
        assert cli(*words, "one", "--study", second.id, cwd=lab.root).exit_code == 0
        assert cli(*words, "none", "--study", first.id, cwd=lab.root).exit_code == 4
        assert not (lab.root / "none").exists()

        seen = cli("ingest", "--review", cwd=lab.root)
        assert seen.exit_code == 3 and said in seen.stderr
        page = (lab.root / "reports" / "review-001" / "index.html").read_text()
        assert f"Not shown: studies/{first.id}" in page and f'id="{second.id}"' in page
        (second.folder / "study.json").write_text("{")
        assert cli("ingest", "--review", cwd=lab.root).exit_code == 4


def put_raw(file: Path, field: str, text: str) -> None:
    """A field of a JSON file becomes `text`, which need not be JSON."""
    body = {**json.loads(file.read_text()), field: "PLACE"}
    file.write_text(json.dumps(body).replace('"PLACE"', text))


def change(file: Path, **facts: object) -> None:
    """Fields of a JSON file become others."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **facts}))


def test_a_result_names_no_other_place(cli: Cli, tmp_path: Path) -> None:
    fake = FakeWorkspace(tmp_path)
    fake.study("p1-aaaaaa", "p1", labels=[0])
    folder = fake.result("p1-aaaaaa", n=1)
    change(folder / "run.json", study="../../EVIL")
    outcome = cli("labels", "export", "out", "--format", "masks", "--results", "run-001")
    assert outcome.exit_code == 4 and "'run-001' can be read: p1-aaaaaa/run-001-" in outcome.stderr
    assert cli("measure").exit_code == 4 and not (tmp_path.parent / "EVIL").exists()


@pytest.mark.parametrize(
    ("field", "text"),
    [
        *(("frames", "1e999"), ("frames", '"30"'), ("warnings", "true"), ("repeats", "3")),
        *(("frame_times_s", "[0, NaN]"), ("lit", "[0, 0]"), ("unique_fps", '"x"')),
        *(
            ("study", '"../../EVIL"'),
            ("model", "[]"),
            ("study", '"\\ud800"'),
            ("seen_in_training", "3"),
            ("width", "0"),
        ),
    ],
)
def test_a_result_with_a_field_of_another_kind(
    field: str, text: str, tmp_path: Path, cli: Cli
) -> None:
    fake = FakeWorkspace(tmp_path)
    folder = fake.result("p1-aaaaaa", n=1)
    put_raw(folder / "run.json", field, text)
    outcome = cli("measure")
    assert outcome.exit_code == 4 and "incomplete result" in outcome.stderr
    assert read_outcome(folder) is None
