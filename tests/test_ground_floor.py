"""Errors, tasks, provenance, configuration, workspace and letterbox."""

from __future__ import annotations

import errno
import json
import math
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from vfss_distill import errors
from vfss_distill import workspace as workspace_module
from vfss_distill.config import (
    DistillConfig,
    LabConfig,
    create_lab,
    dump_yaml,
    lab_tasks,
    load_lab,
    parse,
)
from vfss_distill.errors import ConfigError, LabelError, StorageError, VfssError, WorkspaceError
from vfss_distill.letterbox import Letterbox
from vfss_distill.provenance import digest_json, document, sha256_file, sha256_files
from vfss_distill.tasks import VFSS12, Task, TaskSet
from vfss_distill.workspace import (
    Workspace,
    atomic_folder,
    atomic_path,
    is_temporary,
    read_json,
    write_json,
    write_text,
)


def test_default_tasks_are_the_twelve_in_order() -> None:
    assert " ".join(VFSS12.ids) == "bolus pharynx airway hyoid mandible c1 c2 c3 c4 c5 c6 c7"
    colours = {task.colour for task in VFSS12}
    assert len(colours) == 12
    assert all(other in VFSS12 for task in VFSS12 for other in task.may_overlap)


def test_task_set_survives_json_and_yaml(tmp_path: Path) -> None:
    assert TaskSet.from_dict(json.loads(json.dumps(VFSS12.to_dict()))) == VFSS12
    file = tmp_path / "tongue.yaml"
    file.write_text("name: tongue\ntasks:\n  - tongue\n")
    assert TaskSet.load(file).ids == ("tongue",)


def test_a_wrong_task_set_names_every_fault(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("tasks: [{id: Tongue}, {id: lip, colour: [1, 2]}, {id: x, shape: 1}]\n")
    with pytest.raises(ConfigError) as caught:
        TaskSet.load(file)
    assert all(word in str(caught.value) for word in ("Tongue", "lip", "shape", "bad.yaml"))


def test_unknown_task_lists_what_there_is() -> None:
    with pytest.raises(LabelError, match="bolus pharynx"):
        VFSS12["tongue"]
    with pytest.raises(ConfigError):
        Task("no spaces", "x", (0, 0, 0))
    with pytest.raises(ConfigError, match="not `mean`"):
        Task("mean", "x", (0, 0, 0))


def test_errors_are_one_line_and_survive_a_worker_process() -> None:
    error = errors.InputError("cannot be\nread.", file="a.mp4", remedy="Copy it again.")
    assert str(error) == "a.mp4: cannot be read. Copy it again."
    assert error.without_file == "cannot be read. Copy it again."
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is errors.InputError
    assert str(again) == str(error)


def test_every_error_is_drawn_in_the_tree() -> None:
    def below(cls: type[VfssError]) -> set[str]:
        return {cls.__name__}.union(*(below(sub) for sub in cls.__subclasses__()))

    assert all(name in (errors.__doc__ or "") for name in below(VfssError))


def test_configuration_lists_all_faults_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(DistillConfig, {"gridd": 1, "batch_size": "3", "learning_rate": -1.0}, file="c.yaml")
    with pytest.raises(ConfigError, match="grid must not be larger"):  # no student file may be so
        parse(DistillConfig, {"image_size": 64, "grid": 96})
    assert all(word in str(caught.value) for word in ("gridd", "batch_size", "learning_rate"))


def test_of_many_faults_the_first_are_told_and_how_many_more() -> None:
    with pytest.raises(ConfigError, match=r"setting0: .*; and 20 more\.") as caught:
        parse(DistillConfig, {f"setting{number}": 1 for number in range(40)})
    assert "setting20" not in str(caught.value)


@pytest.mark.parametrize(
    "setting",
    [{"learning_rate": math.inf}, {"align_weight": math.nan}, {"seed": -1}, {"seed": 10**30}],
)
def test_numbers_that_no_training_can_use_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="|".join(setting)):
        parse(DistillConfig, setting)


@pytest.mark.parametrize("config", [LabConfig(), DistillConfig(teachers=("medsam", "raddino"))])
def test_configuration_round_trips(config: LabConfig | DistillConfig) -> None:
    assert parse(type(config), yaml.safe_load(dump_yaml(config))) == config


def test_reading_the_lab_configuration_writes_nothing(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert load_lab(workspace) == LabConfig()
    assert list(tmp_path.iterdir()) == []


def test_the_lab_configuration_is_never_rewritten(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    create_lab(workspace, LabConfig())
    workspace.config_file.write_text("task_set: mine.yaml\n")
    (tmp_path / "mine.yaml").write_text("tasks: [tongue]\n")
    create_lab(workspace, LabConfig())
    assert lab_tasks(workspace).ids == ("tongue",)


def test_documents_carry_schema_notice_and_versions() -> None:
    value = document({"a": 1}, created=False, seed=3, provider=None)
    assert value["schema_version"] == 1
    assert value["provenance"]["seed"] == 3
    assert "provider" not in value["provenance"]
    assert "created_utc" not in value["provenance"]
    assert "Not a medical device" in value["provenance"]["notice"]


def test_digests(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").write_bytes(b"two")
    both = [tmp_path / "a", tmp_path / "b"]
    assert sha256_file(both[0]) != sha256_file(both[1])
    assert sha256_files(both) != sha256_files(both[::-1])
    assert digest_json({"a": 1, "b": 2}) == digest_json({"b": 2, "a": 1})


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.txt"
    write_text(target, "old")
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as temporary:
        temporary.write_text("half")
        assert is_temporary(temporary)
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    assert list(target.parent.iterdir()) == [target]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "study"
    with pytest.raises(OSError, match="odd"), atomic_folder(target) as folder:
        (folder / "frame").write_text("1")
        raise OSError(errno.EIO, "odd")
    assert list(tmp_path.iterdir()) == []
    for content in ("1", "2"):
        with atomic_folder(target) as folder:
            (folder / content).write_text(content)
    assert [path.name for path in target.iterdir()] == ["2"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_somebody_made_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "report-001"
    with (
        pytest.raises(WorkspaceError, match="by another process meanwhile"),
        atomic_folder(target, replace=False) as folder,
    ):
        (folder / "mine").write_text("1")
        target.mkdir()
        (target / "theirs").write_text("2")
    assert [path.name for path in tmp_path.rglob("*")] == ["report-001", "theirs"]


@pytest.mark.parametrize("swaps", [True, False])
def test_a_folder_is_replaced_in_one_step(
    swaps: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the system's swap there is no moment without a folder: nothing is renamed away."""
    if not swaps:
        monkeypatch.setattr(workspace_module, "_exchange", lambda *_: False)
    elif sys.platform != "linux":
        pytest.skip("only Linux swaps two folders in one step")
    target, renamed, rename = tmp_path / "study", [], Path.rename

    def noted(path: Path, new: Path) -> Path:
        renamed.append(path)
        return rename(path, new)

    for content in ("1", "2"):
        with atomic_folder(target) as folder:
            (folder / content).write_text(content)
        if content == "1":
            monkeypatch.setattr(Path, "rename", noted)
    assert [path.name for path in target.iterdir()] == ["2"]
    assert list(tmp_path.iterdir()) == [target]
    assert (target in renamed) is not swaps


def test_a_full_disk_is_told_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="disk is full") as caught, atomic_path(tmp_path / "x"):
        raise OSError(errno.ENOSPC, "no space")
    assert caught.value.exit_code == 6
    assert list(tmp_path.iterdir()) == []


def test_json_refuses_nan_and_damage(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    (tmp_path / "y.json").write_text("{")
    with pytest.raises(errors.DataError, match=r"y\.json"):
        read_json(tmp_path / "y.json")


def test_records_hold_no_path_outside_the_workspace(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    assert workspace.relative(workspace.studies / "a") == "studies/a"
    with pytest.raises(WorkspaceError):
        workspace.relative(tmp_path / "Jane Doe.mp4")


sides = st.integers(1, 700)


@given(height=sides, width=sides, size=st.sampled_from([64, 256]))
def test_letterbox_fits_and_comes_back(height: int, width: int, size: int) -> None:
    box = Letterbox.fit(height, width, size)
    assert max(box.scaled_height, box.scaled_width) == size
    assert 0 <= box.top <= size - box.scaled_height
    grey = np.full((height, width), 200, np.uint8)
    square = box.frame(grey)
    assert square.shape == (size, size)
    assert np.count_nonzero(square) == box.scaled_height * box.scaled_width
    back = box.undo(square.astype(np.float32))
    assert back.shape == (height, width)
    assert np.allclose(back, 200)


@given(st.data(), st.integers(20, 300), st.integers(20, 300))
def test_letterbox_of_a_part_is_that_of_a_frame_of_its_own(
    data: Any, height: int, width: int
) -> None:
    wide, high = data.draw(st.integers(4, width)), data.draw(st.integers(4, height))
    x, y = data.draw(st.integers(0, width - wide)), data.draw(st.integers(0, height - high))
    grey = np.random.default_rng(0).integers(1, 256, (height, width), dtype=np.uint8)
    box, alone = Letterbox.fit(height, width, 64, (x, y, wide, high)), Letterbox.fit(high, wide, 64)
    inside = grey[box.window]
    assert inside.shape == (high, wide)
    square = box.frame(grey)
    assert np.array_equal(square, alone.frame(inside))
    back = box.undo(square.astype(np.float32))
    assert np.array_equal(back[box.window], alone.undo(square.astype(np.float32)))
    back[box.window] = 0
    assert not back.any()
    turned = box.mirrored().frame(np.ascontiguousarray(grey[:, ::-1]))
    assert np.array_equal(turned, alone.frame(np.ascontiguousarray(inside[:, ::-1])))


def test_letterbox_keeps_a_mask_where_it_was() -> None:
    mask = np.zeros((480, 640), bool)
    mask[100:200, 300:500] = True
    box = Letterbox.fit(480, 640, 256)
    back = box.undo(box.mask(mask).astype(np.float32)) > 0.5
    overlap = 2 * (back & mask).sum() / (back.sum() + mask.sum())
    assert overlap > 0.97


@pytest.mark.parametrize("size", [480, 511, 512])
def test_letterbox_keeps_the_area_of_small_masks(size: int) -> None:
    """Also at two to one, where most of a contour is covered by just half."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size]
    box, gains = Letterbox.fit(size, size, 256), []
    for _ in range(40):
        (top, left), radius = rng.integers(60, size - 60, 2), rng.uniform(8, 20)
        mask = (y - top) ** 2 + (x - left) ** 2 < radius**2
        gains.append(box.mask(mask).sum() / (mask.sum() * (256 / size) ** 2) - 1)
    assert abs(np.mean(gains)) < 0.01
