"""`vfss labels import`: what does not fit, and what lies."""

from __future__ import annotations

import gzip
import shutil
import tracemalloc
from pathlib import Path

import pytest

from conftest import Cli
from label_world import (
    all_masks,
    coco,
    cvat_video,
    first_study,
    forget_labels,
    make_world,
    ok,
    put,
)
from vfss_distill.intake.study import list_studies
from vfss_distill.workspace import Workspace


@pytest.fixture
def world(tmp_path: Path) -> Workspace:
    return make_world(tmp_path)


def refuse(world: Workspace, cli: Cli, *words: object) -> str:
    before = all_masks(world)
    outcome = cli("labels", "import", *words, cwd=world.root)
    assert outcome.exit_code in (2, 4), outcome.stderr
    assert outcome.stderr.count("error:") == 1
    assert all_masks(world).keys() == before.keys()
    return outcome.stderr


TRIANGLE = {"image_id": 7, "category_id": 3, "segmentation": [[1, 1, 9, 1, 9, 9]]}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"categories": [{"id": 3, "name": "tongue"}, {"id": 1, "name": "bolus"}]}, "'tongue'"),
        ({"images": [{"id": 7, "file_name": "2.png", "height": 48, "width": 64}]}, "--study"),
        ({"images": None}, "not what COCO JSON files look like"),
        ({"annotations": [{**TRIANGLE, "image_id": 1}]}, "not what COCO"),
        ({"annotations": [{**TRIANGLE, "segmentation": [["x"]]}]}, "not what COCO"),
        ({"annotations": []}, "labels no frame"),
    ],
)
def test_coco_that_does_not_fit(
    changes: dict[str, object], said: str, world: Workspace, cli: Cli
) -> None:
    body = coco(first_study(world).id, annotations=[TRIANGLE])
    put(world.root / "coco.json", {**body, **changes})
    assert said in refuse(world, cli, "coco.json")


@pytest.mark.parametrize(
    ("file_name", "size", "said"),
    [
        ("{}/000009.png", (48, 64), "labels frame 9"),
        ("{}/000002.png", (96, 64), "is 64x96, study"),
        ("{}/000002.png", (10**9, 10**9), "is 1000000000x1000000000, study"),
        ("{}/first.png", (48, 64), "no frame number"),
    ],
)
def test_frames_and_sizes_that_do_not_fit(
    file_name: str, size: tuple[int, int], said: str, world: Workspace, cli: Cli
) -> None:
    study = first_study(world).id
    image = {"id": 7, "file_name": file_name.format(study), "height": size[0], "width": size[1]}
    shape = {"id": 1, "image_id": 7, "category_id": 3, "segmentation": [[1, 1, 9, 1, 9, 9]]}
    put(world.root / "coco.json", coco(study, images=[image], annotations=[shape]))
    assert said in refuse(world, cli, "coco.json")


def test_two_pictures_for_one_frame(world: Workspace, cli: Cli) -> None:
    study = first_study(world).id
    body = coco(study)
    for number, image in enumerate(body["images"]):  # type: ignore[arg-type, var-annotated]
        image["file_name"] = f"{study}/{'ab'[number]}_02.png"
    put(world.root / "coco.json", body)
    assert "two entries for frame 2" in refuse(world, cli, "coco.json")


@pytest.mark.parametrize(
    ("kind", "name"),
    [("coco", "annotations.json"), ("cvat-video", "{}.xml"), ("slicer", "{}.seg.nrrd")],
)
def test_two_files_that_label_one_frame(kind: str, name: str, world: Workspace, cli: Cli) -> None:
    file = exported(world, cli, kind) / name.format(first_study(world).id)
    old = file.parent / "old" / file.name
    old.parent.mkdir()
    shutil.copy(file, old)
    said = refuse(world, cli, "out")
    assert f"two entries of bolus for frame 0 of study {first_study(world).id}" in said
    assert str(file.relative_to(world.root)) in said and str(old.relative_to(world.root)) in said


def test_two_files_for_one_frame_that_agree(world: Workspace, cli: Cli) -> None:
    forget_labels(world)
    study, both = first_study(world).id, coco(first_study(world).id)["annotations"]
    shape, other = ({**one, "image_id": 7} for one in both)  # type: ignore[attr-defined]
    names = [{"id": 3, "name": "hyoid"}, {"id": 1, "name": "bolus"}, {"id": 2, "name": "c3"}]
    for name, shapes, known in (("a", [shape, shape], [0, 2]), ("b", [other], [1, 2])):
        categories = [names[number] for number in known]
        body = coco(study, annotations=shapes, categories=categories)
        put(world.root / "labels" / f"{name}.json", body)
    ok(cli("labels", "import", "labels", "--absent", cwd=world.root))  # c3 in neither
    found = {task: mask.any() for (_, task, frame), mask in all_masks(world).items() if frame == 2}
    assert found == {"hyoid": True, "bolus": True, "c3": False}

    forget_labels(world)
    body = coco(study, annotations=[other], categories=names)
    put(world.root / "labels" / "b.json", body)  # knows the hyoid, and did not find it
    ok(cli("labels", "import", "labels", "--dry-run", cwd=world.root))
    assert "two entries of hyoid" in refuse(world, cli, "labels", "--absent")


def test_one_name_for_two_pictures(world: Workspace, cli: Cli) -> None:
    study = first_study(world).id
    body = coco(study)
    for image in body["images"]:  # type: ignore[attr-defined]
        image["file_name"] = "frame_2.png"
    put(world.root / "coco.json", body)
    said = refuse(world, cli, "coco.json", "--study", study)
    assert "two pictures have the name 'frame_2.png'" in said
    images = "".join(f'<image id="{n}" name="f_2.png" width="64" height="48"/>' for n in (0, 7))
    put(world.root / "images.xml", f"<annotations>{images}</annotations>")
    assert "two pictures have" in refuse(world, cli, "images.xml", "--study", study)


@pytest.mark.parametrize("tag", ["track", "image"])
def test_a_project_of_several_films(tag: str, world: Workspace, cli: Cli) -> None:
    box = 'points="10,10;20,10;20,20"'
    parts = "".join(
        f'<image id="{n}" name="frame_{n}.png" task_id="{n}" width="64" height="48">'
        f'<polygon label="c3" {box}/></image>'
        if tag == "image"
        else f'<track id="{n}" label="c3" task_id="{n}"><polygon frame="{n}" {box}/></track>'
        for n in (1, 2)
    )
    put(world.root / "project.xml", f"<annotations>{parts}</annotations>")
    said = refuse(world, cli, "project.xml", "--study", first_study(world).id)
    assert "holds 2 tasks" in said and "Export each CVAT task by itself" in said


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [48, 64], "counts": [48 * 64, 10**12]},
        {"size": [48, 64], "counts": [-5, 48 * 64 + 5]},
        {"size": [48, 64], "counts": [2**62] * 4 + [48 * 64]},  # 48 * 64 in 64 bits
        {"size": [48, 64], "counts": [0] * 48 * 64 + [0, 48 * 64]},
        {"size": [10**6, 10**6], "counts": [10**12]},
        {"size": [48, 64], "counts": "P0"},
        [[1, 1, 2, 2]],
    ],
)
def test_shapes_that_lie(segmentation: object, world: Workspace, cli: Cli) -> None:
    shape = {"id": 1, "image_id": 7, "category_id": 3, "segmentation": segmentation}
    put(world.root / "coco.json", coco(first_study(world).id, annotations=[shape]))
    refuse(world, cli, "coco.json")


BOMB = "<!DOCTYPE a [<!ENTITY b 'bb'><!ENTITY c '&b;&b;&b;&b;'>]>"
OUTSIDE = "<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/hostname'>]>"


@pytest.mark.parametrize("head", [BOMB, OUTSIDE, "<!DOCTYPE annotations SYSTEM 'http://x/y.dtd'>"])
def test_xml_with_entity_tricks(head: str, world: Workspace, cli: Cli) -> None:
    text = cvat_video('<polygon frame="1" points="&b;"/>', head=head)
    put(world.root / "task.xml", text)
    said = refuse(world, cli, "task.xml", "--study", first_study(world).id)
    assert "defines entities or a DTD" in said


@pytest.mark.parametrize("name", ["big.json", "big.xml", "big.seg.nrrd", "big.dcm"])
def test_two_gigabytes_are_refused_unread(name: str, world: Workspace, cli: Cli) -> None:
    head = {"nrrd": b"NRRD0004\n", "dcm": bytes(128) + b"DICM"}.get(name.rpartition(".")[2], b"{")
    with (world.root / name).open("wb") as stream:
        stream.write(head)
        stream.truncate(2 * 2**30)
    cli("labels", "import", "none", cwd=world.root)  # imports cost memory too
    tracemalloc.start()
    said = refuse(world, cli, name, "--study", first_study(world).id)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "is 2048 MB, label files of this kind may have" in said
    assert peak < 50 * 2**20


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("empty.json", b""),
        ("deep.json", b"[" * 100_000),
        ("cut.json", b'{"images": ['),
        ("cut.xml", b"<annotations><image"),
        ("other.xml", b"<html></html>"),
        ("noise.json", bytes(range(256))),
        (
            "cut.seg.nrrd",
            b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 64 48 6\nencoding: gzip\n"
            b"Segment0_Name:=c3\n\n" + gzip.compress(bytes(99)),
        ),
        ("detached.nrrd", b"NRRD0004\ndata file: /etc/passwd\n\n"),
        (
            "huge.nrrd",
            b"NRRD0004\ntype: uchar\nsizes: 8000 8000 999999\nencoding: raw\nSegment0_Name:=c3\n\n",
        ),
        (
            "brush.json",
            b'[{"data": {"image": "p/000000.png"}, "annotations": [{"result": [{"type":'
            b' "brushlabels", "original_width": 64, "original_height": 48, "value":'
            b' {"format": "rle", "rle": 9000000000000000, "brushlabels": ["bolus"]}}]}]}]',
        ),
        ("film.txt", b"hello"),
        ("not.dcm", bytes(128) + b"DICM" + bytes(40)),
    ],
)
def test_damaged_files(name: str, data: bytes, world: Workspace, cli: Cli) -> None:
    (world.root / name).write_bytes(data)
    refuse(world, cli, name, "--study", first_study(world).id)


def exported(world: Workspace, cli: Cli, kind: str) -> Path:
    ok(cli("labels", "export", "out", "--format", kind, cwd=world.root))
    forget_labels(world)
    return world.root / "out"


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("masks", "{}/bolus/000003.png"),
        ("index", "{}/000003.png"),
        ("nnunet", "labelsTr/{}_000002.png"),
        ("labelme", "{}/000000.json"),
    ],
)
@pytest.mark.parametrize("data", [b"", b"\x89PNG"])
def test_a_file_that_cannot_be_read_costs_its_study_alone(
    kind: str, file: str, data: bytes, world: Workspace, cli: Cli
) -> None:
    out = exported(world, cli, kind)
    first, second = list_studies(world)
    damaged = out / file.format(first.id)
    assert damaged.is_file()
    damaged.write_bytes(data)
    (out / "vfss-labels.json").unlink()  # known by its content, of which the first is damaged
    outcome = cli("labels", "import", "out", cwd=world.root)
    assert outcome.exit_code == 3, outcome.stderr
    (line,) = [line for line in outcome.stderr.splitlines() if "error:" in line]
    assert f"{first.id}: left out, 1 file of it cannot be read: " in line
    assert damaged.name in line and "1 taken in, 1 failed." in outcome.stdout
    assert {study for study, *_ in all_masks(world)} == {second.id}


def test_a_file_of_nobody_that_cannot_be_read(world: Workspace, cli: Cli) -> None:
    forget_labels(world)
    for number, study in enumerate(list_studies(world)):
        put(world.root / "labels" / f"{number}.json", coco(study.id))
    put(world.root / "labels" / "0.json", '{"images": [')
    put(world.root / "labels" / "2.json", "")
    outcome = cli("labels", "import", "labels", cwd=world.root)
    assert outcome.exit_code == 3
    assert "0.json: is not readable as JSON" in outcome.stderr
    assert "2.json: is empty" in outcome.stderr and outcome.stderr.count("error:") == 2
    assert {study for study, *_ in all_masks(world)} == {list_studies(world)[1].id}


def test_of_a_study_that_is_damaged_itself(world: Workspace, cli: Cli) -> None:
    out = exported(world, cli, "masks")
    first, second = list_studies(world)
    shutil.rmtree(out / second.id)
    for mask in (out / first.id).glob("*/*.png"):
        mask.write_bytes(b"")
    (first.folder / "study.json").write_text("{")
    outcome = cli("labels", "import", "out", cwd=world.root)
    assert outcome.exit_code == 4 and f"{first.id}: left out, 14 files of it" in outcome.stderr


def test_of_another_study_than_the_one_asked_for(world: Workspace, cli: Cli) -> None:
    out = exported(world, cli, "masks")
    first, second = list_studies(world)
    (out / first.id / "bolus" / "000003.png").write_bytes(b"")
    ok(cli("labels", "import", "out", "--study", second.id, cwd=world.root))
    assert "1 file of it" in refuse(world, cli, "out", "--study", first.id)
