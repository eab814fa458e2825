"""`vfss labels check` finds masks that cannot be right."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from shutil import rmtree

import cv2
import numpy as np
import pytest

from conftest import Cli
from label_world import first_study, put
from tiny_studies import small_world, write_splits, write_study
from vfss_distill.intake.study import Study, list_studies, write_mask, write_png, write_record
from vfss_distill.workspace import Workspace


def findings(world: Workspace, cli: Cli, *words: str) -> tuple[int, list[dict[str, object]]]:
    outcome = cli("labels", "check", "--json", *words, cwd=world.root)
    shown = json.loads(outcome.stdout)
    assert (world.root / shown["page"]).is_file()
    return outcome.exit_code, shown["findings"]


def spine(world: Workspace, patient: str, swap: bool = False, seed: int = 0) -> Study:
    """Seven squares down a slanting line over a ground of its own; all frames labelled."""
    tasks = [f"c{n}" for n in range(1, 8)]
    study = write_study(world, patient, frames=4, size=(96, 96), labelled={})
    labelled = {task: tuple(range(4)) for task in tasks}
    write_record(study.folder, replace(study.record, labelled=labelled))
    rng = np.random.default_rng(sum(map(ord, patient)) + seed)
    for frame in range(4):
        ground = cv2.resize(rng.integers(0, 255, (6, 6)).astype(np.uint8), (96, 96))
        write_png(study.folder / "frames" / f"{frame:06d}.png", ground)
        order = [*tasks]
        if swap and frame == 2:
            order[2], order[3] = order[3], order[2]
        for place, task in enumerate(order):
            mask = np.zeros((96, 96), bool)
            mask[4 + 12 * place : 14 + 12 * place, 30 + 2 * place : 44 + 2 * place] = True
            write_mask(study.folder, task, frame, mask)
    return Study.open(study.folder)


@pytest.fixture
def spines(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / "spines")
    for patient in ("pa", "pb"):
        spine(workspace, patient)
    write_splits(workspace, train=["pa"], test=["pb"])
    (workspace.root / "vfss.yaml").write_text("task_set: vfss12\n")
    return workspace


def test_good_labels_pass(spines: Workspace, cli: Cli) -> None:
    assert findings(spines, cli) == (0, [])


def test_swapped_vertebrae_are_found(spines: Workspace, cli: Cli) -> None:
    rmtree(first_study(spines).folder)
    spine(spines, "pa", swap=True)
    code, found = findings(spines, cli)
    assert code == 4
    assert [(one["kind"], one["frame"]) for one in found] == [("order", 2)]
    assert "c3 and c4" in str(found[0]["what"])


def test_wrong_size_missing_and_unlisted_masks_are_found(spines: Workspace, cli: Cli) -> None:
    masks = first_study(spines).folder / "masks"
    write_png(masks / "c1" / "000000.png", np.zeros((10, 20), np.uint8))
    (masks / "c2" / "000001.png").unlink()
    (masks / "c3" / "000002.png").write_bytes(b"no picture")
    write_mask(first_study(spines).folder, "bolus", 3, np.ones((96, 96), bool))
    code, found = findings(spines, cli)
    said = [(one["kind"], one["task"], one["frame"]) for one in found]
    assert code == 4
    assert sorted(map(str, said)) == sorted(
        map(
            str,
            [
                ("file", "bolus", None),
                ("file", "c1", 0),
                ("file", "c2", 1),
                ("file", "c3", 2),
            ],
        )
    )


def test_blanks_and_jumps_are_for_looking_at(spines: Workspace, cli: Cli) -> None:
    study = first_study(spines)
    write_mask(study.folder, "c5", 1, np.zeros((96, 96), bool))
    big = study.read_mask("c7", 3)
    assert big is not None
    big[80:96, 20:90] = True
    write_mask(study.folder, "c7", 3, big)
    code, found = findings(spines, cli)
    assert code == 0
    assert [(one["kind"], one["task"], one["frame"]) for one in found] == [
        ("blank", "c5", 1),
        ("area", "c7", 3),
    ]


def test_structures_on_one_another_are_for_looking_at(spines: Workspace, cli: Cli) -> None:
    study = first_study(spines)
    mask = np.zeros((96, 96), bool)
    for frame, top in ((1, 52), (2, 55), (3, 61)):  # c5 lies at 52 to 62
        mask[:] = False
        mask[top:75, 36:50] = True
        write_mask(study.folder, "c6", frame, mask)
    code, found = findings(spines, cli)
    (one,) = [one for one in found if one["kind"] == "overlap"]
    assert code == 0 and one["grade"] == "look"
    assert (one["task"], one["other_task"], one["frame"]) == ("c5", "c6", 1)
    assert "on c6" in str(one["what"]) and "on 1 other frame" in str(one["what"])


def test_frames_of_one_split_in_another_are_found(spines: Workspace, cli: Cli) -> None:
    one, two = list_studies(spines)
    grey = one.read_frame(1)
    done, data = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 85])  # through a codec
    assert done
    again = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    write_png(two.folder / "frames" / "000003.png", np.asarray(again, np.uint8))
    code, found = findings(spines, cli)
    assert code == 4
    assert [(f["kind"], f["frame"], f["other_frame"]) for f in found] == [("leak", 1, 3)]


def test_the_page_is_one_file_without_the_network(spines: Workspace, cli: Cli) -> None:
    study = first_study(spines)
    write_mask(study.folder, "c5", 1, np.zeros((96, 96), bool))
    assert cli("labels", "check", "--name", "mine", cwd=spines.root).exit_code == 0
    page = (spines.reports / "mine" / "index.html").read_text()
    assert "data:image/jpeg;base64," in page and "http" not in page.replace("http-equiv", "")
    assert "SIMULATED" in page and "Research use only" in page
    again = cli("labels", "check", "--name", "mine", cwd=spines.root)
    assert again.exit_code == 2 and "--force" in again.stderr
    for elsewhere in ("../up", "C:up"):  # the latter on Windows
        assert cli("labels", "check", "--name", elsewhere, cwd=spines.root).exit_code == 2


def test_no_studies(tmp_path: Path, cli: Cli) -> None:
    assert cli("labels", "check").exit_code == 4
    put(tmp_path / "a.json", "{}")
    assert cli("labels", "import", "a.json").exit_code == 4


def test_the_small_world_of_other_tests_is_well(tmp_path: Path, cli: Cli) -> None:
    world = small_world(tmp_path / "small")
    _, found = findings(world, cli)
    assert not [one for one in found if one["kind"] == "file"]
