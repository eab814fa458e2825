"""`vfss labels import` and `export`: what goes out comes back."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT, Cli
from label_world import (
    HEIGHT,
    WIDTH,
    all_masks,
    dice,
    first_study,
    forget_labels,
    make_world,
    ok,
    put,
)
from tiny_studies import TASKS
from vfss_distill.intake.formats.registry import FORMATS
from vfss_distill.intake.study import Study, list_studies, write_mask, write_record
from vfss_distill.workspace import Workspace, read_json

EXACT = ("masks", "coco", "cvat-images", "cvat-video", "labelme", "label-studio", "slicer")
POLYGONS = ("coco", "cvat-images", "cvat-video", "labelme", "label-studio")


@pytest.fixture
def world(tmp_path: Path) -> Workspace:
    return make_world(tmp_path)


def result_of(study: Study, world: Workspace, **facts: object) -> None:
    """All tasks on all frames of a study, as `vfss segment` would leave them."""
    folder = world.results / study.id / "small-12345678"
    for task in TASKS:
        for frame in range(study.record.frames):
            write_mask(folder, task, frame, np.eye(HEIGHT, WIDTH, dtype=bool))
    run = {
        "study": study.id,
        "patient": study.patient,
        "frames": study.record.frames,
        "frame_times_s": list(study.record.frame_times_s),
        "width": WIDTH,
        "height": HEIGHT,
        "source_sha256": study.record.source_sha256,
        "model": {"name": "small", "sha256": "12345678" * 8, "tasks": list(TASKS)},
        **facts,
    }
    put(folder / "run.json", run)


@pytest.mark.parametrize("name", EXACT)
def test_exact_formats_bring_every_mask_back(name: str, world: Workspace, cli: Cli) -> None:
    before = all_masks(world)
    ok(cli("labels", "export", "out", "--format", name, "--pictures", cwd=world.root))
    forget_labels(world)
    (world.root / "out" / "vfss-labels.json").unlink()  # known by their looks
    ok(cli("labels", "import", "out", cwd=world.root))
    after = all_masks(world)
    assert after.keys() == before.keys()  # unlabelled and absent stay apart
    assert all(np.array_equal(after[key], before[key]) for key in before)


@pytest.mark.parametrize("name", POLYGONS)
def test_polygons_bring_masks_back_nearly(name: str, world: Workspace, cli: Cli) -> None:
    before = all_masks(world)
    ok(cli("labels", "export", "out", "--format", name, "--polygons", cwd=world.root))
    forget_labels(world)
    ok(cli("labels", "import", "out", "--format", name, cwd=world.root))
    after = all_masks(world)
    assert after.keys() == before.keys()
    assert min(dice(after[key], before[key]) for key in before) >= 0.99


@pytest.mark.parametrize("name", ["index", "nnunet"])
def test_one_structure_per_pixel_says_what_is_lost(name: str, world: Workspace, cli: Cli) -> None:
    before = all_masks(world)
    words = ("labels", "export", "out", "--format", name, "--json")
    shown = ok(cli(*words, cwd=world.root))
    made = json.loads(shown.stdout)
    assert made["lost_pixels"]["bolus"] > 0
    assert "overlapping structures were cut" in shown.stderr
    forget_labels(world)
    ok(cli("labels", "import", "out", cwd=world.root))
    after = all_masks(world)
    assert after.keys() <= before.keys()
    changed = {key[1] for key in after if not np.array_equal(after[key], before[key])}
    assert changed == set(made["lost_pixels"])
    if name == "nnunet":  # frames 1, 3, 5 lack a task
        assert "left out" in shown.stderr
        assert {frame for _, _, frame in after} == {0, 2, 4}
        dataset = read_json(world.root / "out" / "dataset.json")
        assert dataset["labels"] == {"background": 0, "bolus": 1, "hyoid": 2, "c3": 3}
        images = sorted(path.name for path in (world.root / "out" / "imagesTr").iterdir())
        labels = sorted(path.name for path in (world.root / "out" / "labelsTr").iterdir())
        assert [path.replace("_0000.png", ".png") for path in images] == labels


def test_the_second_import_changes_nothing(world: Workspace, cli: Cli) -> None:
    ok(cli("labels", "export", "out", "--format", "coco", cwd=world.root))
    record = (first_study(world).folder / "study.json").read_bytes()
    shown = json.loads(ok(cli("labels", "import", "out", "--json", cwd=world.root)).stdout)
    assert all(study["same"] and not study["new"] for study in shown["studies"])
    assert (first_study(world).folder / "study.json").read_bytes() == record


def test_masks_that_differ_need_force(world: Workspace, cli: Cli) -> None:
    ok(cli("labels", "export", "out", "--format", "masks", cwd=world.root))
    study = first_study(world)
    path = world.root / "out" / study.id / "c3" / "000002.png"
    path.write_bytes((world.root / "out" / study.id / "c3" / "000003.png").read_bytes())
    refused = cli("labels", "import", "out", cwd=world.root)
    assert refused.exit_code == 3  # the other study is as it was
    assert "--force replaces them" in refused.stderr
    before = study.read_mask("c3", 3)
    ok(cli("labels", "import", "out", "--force", cwd=world.root))
    assert np.array_equal(first_study(world).read_mask("c3", 2), before)


def test_the_record_keeps_its_history(world: Workspace, cli: Cli) -> None:
    ok(cli("labels", "export", "out", "--format", "coco", cwd=world.root))
    forget_labels(world)
    before = read_json(first_study(world).folder / "study.json")
    ok(cli("labels", "import", "out/annotations.json", cwd=world.root))
    after = read_json(first_study(world).folder / "study.json")
    origin = after["provenance"]
    assert origin["source_kind"] == "film"
    assert origin["ingested_utc"] == before["provenance"]["created_utc"]
    assert origin["labels_imported"][0]["format"] == "coco"
    assert len(origin["labels_imported"][0]["sha256"]) == 64
    assert after["labels_sha256"] == before["labels_sha256"]
    assert "out" not in json.dumps(origin["labels_imported"])
    leftovers = [path for path in world.root.rglob(".partial-*")]
    assert not leftovers


def test_dry_run_writes_nothing(world: Workspace, cli: Cli) -> None:
    ok(cli("labels", "export", "out", "--format", "coco", cwd=world.root))
    forget_labels(world)
    ok(cli("labels", "import", "out", "--dry-run", cwd=world.root))
    assert not all_masks(world)


def test_export_does_not_replace_what_it_did_not_make(world: Workspace, cli: Cli) -> None:
    mine = world.root / "mine"
    put(mine / "thesis.txt", "precious")
    words = ("labels", "export", mine, "--format", "coco", "--force")
    assert cli(*words, cwd=world.root).exit_code == 2
    assert (mine / "thesis.txt").exists()
    words = ("labels", "export", "out", "--format", "coco")
    ok(cli(*words, cwd=world.root))
    assert cli(*words, cwd=world.root).exit_code == 2
    ok(cli(*words, "--force", cwd=world.root))


def test_export_of_tasks_and_studies(world: Workspace, cli: Cli) -> None:
    study = first_study(world).id
    words = ("labels", "export", "out", "--format", "masks", "--study", study, "--tasks", "c3")
    made = json.loads(ok(cli(*words, "--pictures", "--json", cwd=world.root)).stdout)
    assert made["studies"] == [study] and made["tasks"] == ["c3"]
    assert sorted(p.name for p in (world.root / "out").iterdir()) == [
        "images",
        study,
        "vfss-labels.json",
    ]
    assert cli("labels", "export", "x", "--format", "dicom-seg", cwd=world.root).exit_code == 2
    assert cli("labels", "export", "x", "--format", "slicer", "--polygons").exit_code in (2, 4)


def test_results_are_exported(world: Workspace, cli: Cli) -> None:
    study = first_study(world)
    result_of(study, world)
    words = ("labels", "export", "out", "--format", "coco", "--results", "small", "--json")
    made = json.loads(ok(cli(*words, cwd=world.root)).stdout)
    assert made["masks"] == 3 * study.record.frames


def test_a_name_of_several_models_lists_them(world: Workspace, cli: Cli) -> None:
    study = first_study(world)
    result_of(study, world)
    results = world.results / study.id
    shutil.copytree(results / "small-12345678", results / "small-87654321")
    run = results / "small-87654321" / "run.json"
    body = json.loads(run.read_text())
    body["model"]["sha256"] = "87654321" + body["model"]["sha256"][8:]
    put(run, body)
    words = ("labels", "export", "out", "--format", "coco", "--results", "small")
    refused = cli(*words, cwd=world.root)
    assert refused.exit_code == 2
    assert "several models: small-12345678, small-87654321" in refused.stderr


def test_results_that_cannot_be_read_are_left_out_and_named(world: Workspace, cli: Cli) -> None:
    first, second = list_studies(world)
    result_of(first, world)
    result_of(second, world)
    run = world.results / first.id / "small-12345678" / "run.json"
    run.write_text("{")
    put(world.results / second.id / "other-87654321" / "run.json", "{")
    words = ("labels", "export", "--format", "masks", "--results", "small", "--json")
    some = cli(*words, "some", cwd=world.root)
    assert some.exit_code == 3, some.stderr
    body = json.loads(some.stdout)
    assert body["studies"] == [second.id]
    assert [one["input"] for one in body["failed"]] == [f"{first.id}/small-12345678"]
    assert some.stderr.count("error:") == 1 and "warning: " in some.stderr  # another model's

    ok(cli(*words, "one", "--study", second.id, cwd=world.root))
    none = cli(*words, "none", "--study", first.id, cwd=world.root)
    assert none.exit_code == 4 and f"{first.id}/small-12345678: " in none.stderr
    put(world.results / second.id / "small-12345678" / "run.json", "{")
    for name in ("small", "123456"):
        none = cli(*words[:5], name, "none", cwd=world.root)
        assert none.exit_code == 4 and f"{name!r} can be read: " in none.stderr
    assert not (world.root / "none").exists()


@pytest.mark.parametrize(
    ("kind", "file", "masks"),
    [
        ("masks", "masks/bolus/000002.png", 14),
        ("slicer", "masks/bolus/000002.png", 14),
        ("nnunet", "masks/bolus/000002.png", 9),
        ("nnunet", "frames/000002.png", 9),
    ],
)
def test_a_study_that_cannot_be_read_is_left_out(
    kind: str, file: str, masks: int, world: Workspace, cli: Cli
) -> None:
    first, second = list_studies(world)
    (first.folder / file).write_bytes(b"")
    some = cli("labels", "export", "out", "--format", kind, "--json", cwd=world.root)
    assert some.exit_code == 3, some.stderr
    body = json.loads(some.stdout)
    assert body["studies"] == [second.id] and body["masks"] == masks
    assert [one["input"] for one in body["failed"]] == [first.id]
    assert not any(first.id in path.name for path in (world.root / "out").rglob("*"))


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"mirrored": True}, "the study is mirrored"),
        ({"patient": None}, "the study is mirrored"),
        (
            {"frames_of": {"mirrored": True, "interlaced": "kept", "blanked": True, "places": ""}},
            "ingested anew since it was segmented",
        ),
        ({"frames": 5, "frame_times_s": [0.1 * i for i in range(5)]}, "the result has 5 frames"),
    ],
)
def test_pictures_beside_results_must_be_theirs(
    facts: dict[str, object], said: str, world: Workspace, cli: Cli
) -> None:
    study = first_study(world)
    write_record(study.folder, replace(study.record, mirrored=True))
    result_of(study, world, **facts)
    words = ("labels", "export", "out", "--format", "coco", "--results", "small")
    refused = cli(*words, "--pictures", cwd=world.root)
    assert (
        refused.exit_code == 4 and said in refused.stderr and "Segment the study" in refused.stderr
    )
    assert study.id in refused.stderr
    assert not (world.root / "out").exists()
    ok(cli(*words, cwd=world.root))  # by themselves they are what they are


def test_commands_of_the_document_exist(cli: Cli) -> None:
    text = (ROOT / "docs" / "labels.md").read_text()
    commands = re.findall(r"`vfss labels (\w+)([^`]*)`", text)
    assert {verb for verb, _ in commands} == {"import", "export", "check"}
    for verb, rest in commands:
        shown = cli("labels", verb, "--help").stdout
        assert all(option in shown for option in re.findall(r"--[a-z-]+", rest))


def test_the_document_lists_every_format() -> None:
    text = (ROOT / "docs" / "labels.md").read_text()
    rows = dict(re.findall(r"^\| `([\w-]+)` \|.*\| yes \| (yes|no) \|", text, re.MULTILINE))
    assert rows == {name: "yes" if one.write else "no" for name, one in FORMATS.items()}
