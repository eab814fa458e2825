"""`vfss cache ls` and `prune`: what is there, what goes, and what must never go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from conftest import Cli
from fake_results import FakeWorkspace
from vfss_distill import claims
from vfss_distill.distill.shelf import STALE_S, megabytes
from vfss_distill.models.teachers.card import list_cards
from vfss_distill.provenance import sha256_file
from vfss_distill.workspace import Workspace, read_json
from watched import holder

TEACHER = "medsam"
FOLDER = f"{TEACHER}-0123456789ab"
WEIGHTS = b"weights of a teacher"


@pytest.fixture(autouse=True)
def no_other_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VFSS_WEIGHTS", raising=False)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Two studies; three shards, one of a study that is gone; an old and a young temporary."""
    for study in ("pa-aaaaaa", "pb-bbbbbb"):
        (tmp_path / "studies" / study).mkdir(parents=True)
    folder = tmp_path / "cache" / FOLDER
    for study, frames in (("pa-aaaaaa", 3), ("pb-bbbbbb", 2), ("gone-cccccc", 4)):
        add_shard(folder, study, frames)
    add_index(folder, TEACHER)
    add_temporary(folder / ".partial-11111111-pb-bbbbbb.safetensors", STALE_S + 60)
    add_temporary(folder / ".partial-22222222-pa-aaaaaa.safetensors", 0)
    return tmp_path


def add_shard(folder: Path, study: str, frames: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    features = np.zeros((frames, 5, 2, 2), np.float16)
    path = folder / f"{study}.safetensors"
    path.write_bytes(save({"features": features, "frames": np.arange(frames)}, {"recipe": "x"}))
    return path


def add_index(folder: Path, teacher: str, weights_sha256: str = "0" * 64) -> None:
    sizes = {path.stem: path.stat().st_size for path in folder.glob("[!.]*.safetensors")}
    digest = folder.name.rpartition("-")[2] + "f" * 52
    body = {
        "schema_version": 1, "teacher": teacher, "weights_sha256": weights_sha256, "grid": 2,
        "channels": 5, "digest": digest, "shards_bytes": sizes,
    }  # fmt: skip
    (folder / "index.json").write_text(json.dumps(body), encoding="utf-8")


def add_temporary(path: Path, age_s: float) -> None:
    path.write_bytes(b"half")
    then = time.time() - age_s
    os.utime(path, (then, then))


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir()}


def run_json(cli: Cli, *words: object) -> dict[str, Any]:
    outcome = cli("cache", *words, "--json")
    assert outcome.exit_code == 0, outcome.stderr
    body: dict[str, Any] = json.loads(outcome.stdout)
    assert body["schema_version"] == 1
    return body


def test_ls_says_what_is_there(workspace: Path, cli: Cli) -> None:
    (workspace / "cache" / "leaks.json").write_text("{}")  # ours too, though no teacher's
    told = run_json(cli, "ls")
    (folder,) = told["folders"]
    assert "leaks.json" not in told["not_ours"]
    assert folder["folder"] == f"cache/{FOLDER}" and folder["teacher"] == TEACHER
    assert folder["digest"].startswith("0123456789ab")
    assert (folder["studies"], folder["frames"], folder["grid"]) == (3, 9, 2)
    assert folder["studies_gone"] == ["gone-cccccc"] and folder["damaged"] == []
    assert folder["leftovers"] == 1 and folder["weights"] == "missing"
    young = (workspace / "cache" / FOLDER / ".partial-22222222-pa-aaaaaa.safetensors").stat()
    whole = sum(path.stat().st_size for path in (workspace / "cache" / FOLDER).iterdir())
    assert folder["bytes"] == whole - young.st_size
    shown = cli("cache", "ls")
    assert FOLDER in shown.stdout and "3 studies, 9 frames" in shown.stdout
    assert "vfss cache prune" in shown.stderr


def test_ls_tells_whether_the_weights_are_those_found_now(workspace: Path, cli: Cli) -> None:
    card = next(card for card in list_cards(workspace) if card.name == TEACHER)
    weights = workspace / "weights" / card.file[0]
    weights.parent.mkdir()
    weights.write_bytes(WEIGHTS)
    assert run_json(cli, "ls")["folders"][0]["weights"] == "changed"
    assert "--teacher" in cli("cache", "ls").stderr
    add_index(workspace / "cache" / FOLDER, TEACHER, sha256_file(weights))
    assert run_json(cli, "ls")["folders"][0]["weights"] == "found"
    add_index(workspace / "cache" / FOLDER, "nobody")
    assert run_json(cli, "ls")["folders"][0]["weights"] == "unknown"
    (workspace / "weights/mine.yaml").write_text("no card", encoding="utf-8")
    assert run_json(cli, "ls")["folders"][0]["weights"] == "unknown"


def test_nothing_cached(tmp_path: Path, cli: Cli) -> None:
    assert run_json(cli, "ls") == {
        "schema_version": 1, "bytes": 0, "folders": [], "leftovers": 0, "not_ours": [],
    }  # fmt: skip
    assert "No features" in cli("cache", "ls").stderr
    assert "Nothing to delete" in cli("cache", "prune").stdout
    assert not (tmp_path / "cache").exists()


def test_prune_takes_leftovers_and_studies_that_are_gone(workspace: Path, cli: Cli) -> None:
    before = files(workspace)
    planned = run_json(cli, "prune", "--dry-run")
    assert planned["dry_run"] is True and files(workspace) == before
    shown = cli("cache", "prune", "--dry-run")
    assert "Would free" in shown.stdout and files(workspace) == before
    done = run_json(cli, "prune")
    assert done["deleted"] == planned["deleted"]
    assert done["freed_bytes"] == planned["freed_bytes"] > 0
    assert (
        before - files(workspace)
        == {
            f"cache/{FOLDER}/.partial-11111111-pb-bbbbbb.safetensors",
            f"cache/{FOLDER}/gone-cccccc.safetensors",
        }
        == {one["file"] for one in done["deleted"]}
    )
    index = read_json(workspace / "cache" / FOLDER / "index.json")
    assert set(index["shards_bytes"]) == {"pa-aaaaaa", "pb-bbbbbb"} and index["grid"] == 2
    assert "Nothing to delete" in cli("cache", "prune").stdout


@pytest.mark.parametrize("damage", [b"", b"\x00" * 6, b"\xff" * 64, None])
def test_damaged_shards_go(workspace: Path, cli: Cli, damage: bytes | None) -> None:
    path = workspace / "cache" / FOLDER / "pa-aaaaaa.safetensors"
    path.write_bytes(path.read_bytes()[:-2] if damage is None else damage)
    assert run_json(cli, "ls")["folders"][0]["damaged"] == ["pa-aaaaaa"]
    run_json(cli, "prune")
    assert not path.exists() and path.with_name("pb-bbbbbb.safetensors").exists()


def test_a_whole_teacher_goes_and_others_stay(workspace: Path, cli: Cli) -> None:
    other = workspace / "cache" / "raddino-0123456789ab"
    add_shard(other, "pa-aaaaaa", 1)
    add_index(other, "raddino")
    young = workspace / "cache" / FOLDER / ".partial-22222222-pa-aaaaaa.safetensors"
    run_json(cli, "prune", "--teacher", TEACHER)
    assert set((workspace / "cache" / FOLDER).iterdir()) == {young}, "it may still be written"
    assert len(files(other)) == 2
    wrong = cli("cache", "prune", "--teacher", "nobody")
    assert wrong.exit_code == 2 and "raddino" in wrong.stderr
    run_json(cli, "prune", "--teacher", other.name)
    assert not other.exists()


def test_all_of_it(workspace: Path, cli: Cli) -> None:
    add_temporary(workspace / "cache" / ".partial-33333333-index.json", STALE_S + 60)
    (workspace / "cache" / FOLDER / ".partial-22222222-pa-aaaaaa.safetensors").unlink()
    assert "Freed" in cli("cache", "prune", "--all").stdout
    assert list((workspace / "cache").iterdir()) == []
    both = cli("cache", "prune", "--all", "--teacher", TEACHER)
    assert both.exit_code == 2 and "contradict" in both.stderr


@pytest.mark.skipif(claims.fcntl is None, reason="no locks on this system")
def test_features_stay_while_a_run_is_trained(workspace: Path, cli: Cli) -> None:
    (workspace / "runs" / "run-001").mkdir(parents=True)
    before = files(workspace / "cache")
    training = holder(Workspace(workspace).distill_lock, "run-001")
    for which in (("--all",), ("--teacher", TEACHER)):
        refused = cli("cache", "prune", *which)
        assert refused.exit_code == 4 and "runs/run-001: is being trained" in refused.stderr
    assert files(workspace / "cache") == before
    assert cli("cache", "prune").exit_code == 0, "what is left over is of no run"
    training.communicate()
    assert cli("cache", "prune", "--all").exit_code == 0


def test_what_vfss_has_not_written_stays(workspace: Path, cli: Cli, tmp_path_factory: Any) -> None:
    """Foreign files, links out of the workspace, folders of another shape."""
    outside = tmp_path_factory.mktemp("outside")
    precious = add_shard(outside / FOLDER, "precious", 1)
    cache = workspace / "cache"
    (cache / "linked-0123456789ab").symlink_to(outside / FOLDER)
    (cache / FOLDER / "linked.safetensors").symlink_to(precious)
    (cache / FOLDER / "notes.txt").write_text("mine", encoding="utf-8")
    add_shard(cache / "Thesis", "pz-zzzzzz", 1)
    assert run_json(cli, "ls")["not_ours"] == ["Thesis", "linked-0123456789ab"]
    run_json(cli, "prune", "--all")
    assert precious.exists()
    left = files(cache)
    assert {f"{FOLDER}/notes.txt", f"{FOLDER}/linked.safetensors"} <= left
    assert "Thesis/pz-zzzzzz.safetensors" in left
    assert not {f"{FOLDER}/index.json", f"{FOLDER}/pa-aaaaaa.safetensors"} & left


def test_a_cache_that_is_a_link_is_left_alone(
    workspace: Path, cli: Cli, tmp_path_factory: Any
) -> None:
    elsewhere = tmp_path_factory.mktemp("scratch") / "cache"
    (workspace / "cache").rename(elsewhere)
    (workspace / "cache").symlink_to(elsewhere)
    before = files(elsewhere)
    outcome = cli("cache", "prune", "--all")
    assert outcome.exit_code == 4 and "link" in outcome.stderr
    assert files(elsewhere) == before


def test_without_studies_no_study_is_gone(workspace: Path, cli: Cli) -> None:
    """A disk that is not mounted must not cost hours of computing."""
    (workspace / "studies").rename(workspace / "elsewhere")
    outcome = cli("cache", "prune")
    assert "no studies/" in outcome.stderr
    assert (workspace / "cache" / FOLDER / "gone-cccccc.safetensors").exists()


def test_an_empty_studies_folder_is_a_disk_that_is_not_mounted(workspace: Path, cli: Cli) -> None:
    for study in (workspace / "studies").iterdir():
        study.rmdir()
    done = cli("cache", "prune", "--json", cwd=workspace)
    assert done.exit_code == 0, done.stderr
    assert "study is gone" not in done.stdout
    assert len(list((workspace / "cache").rglob("[!.]*.safetensors"))) == 3


def test_a_folder_without_an_index_is_still_told(workspace: Path, cli: Cli) -> None:
    (workspace / "cache" / FOLDER / "index.json").write_text("{", encoding="utf-8")
    (folder,) = run_json(cli, "ls")["folders"]
    assert folder["teacher"] == TEACHER and folder["weights"] == "unknown"
    assert folder["grid"] is None and folder["frames"] == 9
    run_json(cli, "prune")
    assert run_json(cli, "ls")["folders"][0]["studies"] == 2


def test_shards_as_distill_writes_them(tmp_path: Path, cli: Cli) -> None:
    """The layout that is read here is the one the cache has."""
    torch = pytest.importorskip("torch")
    from vfss_distill.distill.cache import Job, Recipe, cached_bytes, fill_cache
    from vfss_distill.intake.study import Study

    class Blank:
        def features(self, frames: Any) -> Any:
            return torch.zeros(len(frames), 5, 2, 2)

    fake = FakeWorkspace(tmp_path)
    study = Study.open(fake.study("pa-aaaaaa", "pa"))
    recipe = Recipe(TEACHER, "0" * 64, "f", 5, 2)
    folder = fill_cache(
        Blank(), recipe, [Job(study, (0, 4))], tmp_path / "cache",
        batch_size=2, say=lambda line: None, tick=lambda *_: None,
    )  # fmt: skip
    add_shard(folder, "gone-cccccc", 1)
    run_json(cli, "prune")
    (found,) = run_json(cli, "ls")["folders"]
    assert (found["studies"], found["frames"], found["digest"]) == (1, 2, recipe.digest)
    assert cached_bytes(folder) == (folder / "pa-aaaaaa.safetensors").stat().st_size
    assert found["damaged"] == [] and found["channels"] == 5


def test_torch_is_not_needed(workspace: Path) -> None:
    code = (
        "import sys\nfrom vfss_distill.commands.main import app\n"
        "try: app(['cache', 'prune', '--dry-run'])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'safetensors', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=workspace, check=True, capture_output=True)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**13))
def test_sizes_in_words_are_close(size: int) -> None:
    number, unit = megabytes(size).split()
    back = float(number) * {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}[unit]
    assert back == pytest.approx(size, rel=0.05, abs=0.5)
