"""`vfss labels`: labels of other tools in and out, and the check of those that are here."""

from __future__ import annotations

import gzip
import json
import re
import tracemalloc
from dataclasses import replace
from pathlib import Path
from shutil import rmtree

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from conftest import ROOT, Cli, Outcome
from tiny_studies import TASKS, small_world, write_splits, write_study
from vfss_distill.errors import LabelError
from vfss_distill.intake.formats.annotations import Annotations
from vfss_distill.intake.formats.outlines import Polygon, fill, outline, trace
from vfss_distill.intake.formats.registry import FORMATS
from vfss_distill.intake.formats.runs import (
    Brush,
    Runs,
    boxed_runs,
    coco_counts,
    coco_text,
    counts_of,
    pack_brush,
)
from vfss_distill.intake.formats.slicer import read_slicer
from vfss_distill.intake.study import Study, list_studies, write_mask, write_png, write_record
from vfss_distill.workspace import Workspace, read_json

HEIGHT, WIDTH = 48, 64
EXACT = ("masks", "coco", "cvat-images", "cvat-video", "labelme", "label-studio", "slicer")
POLYGONS = ("coco", "cvat-images", "cvat-video", "labelme", "label-studio")
Masks = dict[tuple[str, str, int], np.ndarray]

masks_2d = arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))


@pytest.fixture
def world(tmp_path: Path) -> Workspace:
    """Two studies; bolus and hyoid overlap, one mask is blank, and frame 5 has no c3."""
    workspace = Workspace(tmp_path / "world")
    for patient, part in (("pa", "train"), ("pb", "test")):
        labelled = {"bolus": range(6), "hyoid": range(0, 6, 2), "c3": range(5)}
        study = write_study(workspace, patient, size=(HEIGHT, WIDTH), labelled=labelled)
        hyoid = study.read_mask("hyoid", 0)
        assert hyoid is not None
        write_mask(study.folder, "bolus", 0, hyoid | np.roll(hyoid, 3, 1))  # overlap
        write_mask(study.folder, "bolus", 1, np.zeros((HEIGHT, WIDTH), bool))  # absent
        assert part
    write_splits(workspace, train=["pa"], test=["pb"])
    (workspace.root / "vfss.yaml").write_text("task_set: vfss12\n")
    return workspace


def all_masks(workspace: Workspace) -> Masks:
    found = {}
    for study in list_studies(workspace):
        for task, frames in study.record.labelled.items():
            for frame in frames:
                mask = study.read_mask(task, frame)
                assert mask is not None
                found[study.id, task, frame] = mask
    return found


def forget_labels(workspace: Workspace) -> None:
    for study in list_studies(workspace):
        rmtree(study.folder / "masks", ignore_errors=True)
        write_record(study.folder, replace(study.record, labelled={}), source_kind="film")


def dice(one: np.ndarray, other: np.ndarray) -> float:
    both = one.sum() + other.sum()
    return 1.0 if not both else 2 * float((one & other).sum()) / float(both)


def first_study(workspace: Workspace) -> Study:
    return list_studies(workspace)[0]


def ok(outcome: Outcome) -> Outcome:
    assert outcome.exit_code == 0, outcome.stderr
    return outcome


# Round trips


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


# Files as the tools themselves write them


def coco(study: str, **changes: object) -> dict[str, object]:
    square = [10.0, 10.0, 20.0, 10.0, 20.0, 22.0, 10.0, 22.0]
    body: dict[str, object] = {
        "images": [
            {"id": 7, "file_name": f"{study}/000002.png", "height": HEIGHT, "width": WIDTH},
            {"id": 9, "file_name": f"{study}/000004.png", "height": HEIGHT, "width": WIDTH},
        ],
        "categories": [{"id": 3, "name": "Hyoid Bone"}, {"id": 1, "name": "bolus"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "segmentation": [square]},
            {
                "id": 2,
                "image_id": 9,
                "category_id": 1,
                "segmentation": {
                    "size": [HEIGHT, WIDTH],
                    "counts": [2 * HEIGHT, 5, HEIGHT * WIDTH - 2 * HEIGHT - 5],
                },
            },
        ],
    }
    return {**body, **changes}


def put(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_coco_by_others(world: Workspace, cli: Cli) -> None:
    forget_labels(world)
    study = first_study(world)
    put(world.root / "coco.json", coco(study.id))
    ok(cli("labels", "import", "coco.json", cwd=world.root))
    study = first_study(world)
    hyoid = study.read_mask("hyoid", 2)
    assert hyoid is not None and hyoid[10:22, 10:20].all() and hyoid.sum() == 120
    bolus = study.read_mask("bolus", 4)
    assert bolus is not None and bolus[:5, 2].all() and bolus.sum() == 5  # down the column
    assert study.read_mask("bolus", 2) is None  # not drawn: unlabelled


def test_absent_makes_what_is_not_drawn_blank(world: Workspace, cli: Cli) -> None:
    forget_labels(world)
    put(world.root / "coco.json", coco(first_study(world).id))
    ok(cli("labels", "import", "coco.json", "--absent", cwd=world.root))
    study = first_study(world)
    blank = study.read_mask("bolus", 2)
    assert blank is not None and not blank.any()
    assert study.record.labelled == {"bolus": (2, 4), "hyoid": (2, 4)}


def cvat_video(*shapes: str, head: str = "") -> str:
    return (
        f'<?xml version="1.0" encoding="utf-8"?>{head}<annotations><version>1.1</version>'
        "<meta><task><labels><label><name>c3</name></label></labels><original_size>"
        f"<width>{WIDTH}</width><height>{HEIGHT}</height></original_size></task></meta>"
        f'<track id="0" label="c3" source="manual">{"".join(shapes)}</track></annotations>'
    )


def test_cvat_tracks_key_frames_and_outside(world: Workspace, cli: Cli) -> None:
    forget_labels(world)
    points = 'points="10.0,10.0;20.0,10.0;20.0,20.0;10.0,20.0"'
    put(
        world.root / "task.xml",
        cvat_video(
            f'<polygon frame="1" keyframe="1" outside="0" occluded="0" {points} z_order="0"/>',
            f'<polygon frame="2" keyframe="0" outside="0" occluded="1" {points} z_order="0"/>',
            f'<polygon frame="3" keyframe="1" outside="1" occluded="0" {points} z_order="0"/>',
            '<mask frame="4" keyframe="1" outside="0" occluded="0" rle="0, 3, 2, 1" left="5"'
            ' top="6" width="3" height="2" z_order="0"/>',
            '<box frame="5" keyframe="1" outside="0" xtl="1" ytl="1" xbr="2" ybr="2"/>',
        ),
    )
    study = first_study(world).id
    shown = ok(cli("labels", "import", "task.xml", "--study", study, cwd=world.root))
    assert "interpolated" in shown.stderr and "no areas" in shown.stderr
    made = first_study(world)
    assert made.record.labelled == {"c3": (1, 2, 4)}
    square = made.read_mask("c3", 1)
    assert square is not None and square[10:20, 10:20].all() and square.sum() == 100
    mask = made.read_mask("c3", 4)
    assert mask is not None  # along the rows of the box
    assert mask[6, 5:8].all() and mask[7, 7] and mask.sum() == 4


def test_labelme_by_labelme(world: Workspace, cli: Cli) -> None:
    forget_labels(world)
    body = {
        "version": "5.4.1",
        "flags": {},
        "shapes": [
            {"label": "C3", "points": [[5, 5], [9, 5], [9, 9], [5, 9]], "shape_type": "polygon"},
            {"label": "C3", "points": [[0, 0], [9, 9]], "shape_type": "rectangle"},
        ],
        "imagePath": "..\\images\\frame_3.png",
        "imageData": None,
        "imageHeight": HEIGHT,
        "imageWidth": WIDTH,
    }
    put(world.root / "lm" / "frame_3.json", body)
    study = first_study(world).id
    shown = ok(cli("labels", "import", "lm", "--study", study, "--first", 1, cwd=world.root))
    assert "left out" in shown.stderr
    mask = first_study(world).read_mask("c3", 2)
    assert mask is not None and mask.sum() == 16


def test_label_studio_percent_and_cancelled(world: Workspace, cli: Cli) -> None:
    forget_labels(world)
    region = {
        "type": "polygonlabels",
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "image_rotation": 0,
        "value": {"points": [[0, 0], [50, 0], [50, 50], [0, 50]], "polygonlabels": ["c3"]},
    }
    task = {
        "id": 1,
        "data": {"image": "/data/upload/1/8f3a-frame_000001.png"},
        "annotations": [{"result": [region]}, {"was_cancelled": True, "result": []}],
    }
    put(world.root / "ls.json", [task])
    ok(cli("labels", "import", "ls.json", "--study", first_study(world).id, cwd=world.root))
    mask = first_study(world).read_mask("c3", 1)
    assert mask is not None and mask.sum() == HEIGHT * WIDTH // 4


def test_index_pictures_with_a_mapping_on_the_command_line(world: Workspace, cli: Cli) -> None:
    forget_labels(world)
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    pixels[4:8, 4:8], pixels[20:22, 20:22] = 1, 2
    picture = Image.fromarray(pixels, "P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])  # numbers count, not colours
    (world.root / "index").mkdir()
    picture.save(world.root / "index" / "000003.png")
    study = first_study(world).id
    words = ("labels", "import", "index", "--study", study)
    refused = cli(*words, cwd=world.root)
    assert refused.exit_code == 4 and "'1', '2'" in refused.stderr
    ok(cli(*words, "--map", "1=c4", "--map", "2=-", cwd=world.root))
    mask = first_study(world).read_mask("c4", 3)
    assert mask is not None and mask.sum() == 16
    assert set(first_study(world).record.labelled) == {"c4"}


def test_slicer_cropped_single_layer(world: Workspace, cli: Cli) -> None:
    forget_labels(world)
    volume = np.zeros((2, 4, 5), "<i2")  # frames, height, width
    volume[1, 1:3, 1:4] = 7
    header = (
        "NRRD0004\ntype: short\ndimension: 3\nsizes: 5 4 2\nendian: little\nencoding: gzip\n"
        "Segment0_ID:=x\nSegment0_Name:=C3 vertebra\nSegment0_LabelValue:=7\n"
        "Segmentation_ReferenceImageExtentOffset:=10 20 3\n\n"
    )
    path = world.root / "s.seg.nrrd"
    path.write_bytes(header.encode() + gzip.compress(volume.tobytes()))
    ok(cli("labels", "import", path.name, "--study", first_study(world).id, cwd=world.root))
    mask = first_study(world).read_mask("c3", 4)
    assert mask is not None and mask[21:23, 11:14].all() and mask.sum() == 6


def test_slicer_gives_overlapping_structures_layers(world: Workspace, cli: Cli) -> None:
    ok(cli("labels", "export", "out", "--format", "slicer", cwd=world.root))
    path = world.root / "out" / f"{first_study(world).id}.seg.nrrd"
    assert b"sizes: 2 64 48 6" in path.read_bytes()[:400]
    assert read_slicer(path).labels == ["bolus", "hyoid", "c3"]


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL"])
def test_dicom_seg(kind: str, world: Workspace, cli: Cli) -> None:
    forget_labels(world)
    masks = np.zeros((3, HEIGHT, WIDTH), np.uint8)
    masks[0, 3:9, 5:11], masks[1, 4:9, 5:11], masks[2, 30:40, 20:50] = 1, 1, 1
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.66.4"
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.Rows, data.Columns, data.NumberOfFrames = HEIGHT, WIDTH, 3
    data.SamplesPerPixel, data.PixelRepresentation = 1, 0
    data.PhotometricInterpretation = "MONOCHROME2"
    data.SegmentationType = kind
    data.SegmentSequence = [Dataset(), Dataset()]
    for number, segment in enumerate(data.SegmentSequence, 1):
        segment.SegmentNumber, segment.SegmentLabel = number, ("c3", "bolus")[number - 1]
    data.PerFrameFunctionalGroupsSequence = []
    for segment, frame in ((1, 2), (1, 3), (2, 3)):
        groups, identified, image, derived = Dataset(), Dataset(), Dataset(), Dataset()
        identified.ReferencedSegmentNumber = segment
        groups.SegmentIdentificationSequence = [identified]
        image.ReferencedFrameNumber = frame
        derived.SourceImageSequence = [image]
        groups.DerivationImageSequence = [derived]
        data.PerFrameFunctionalGroupsSequence.append(groups)
    if kind == "BINARY":
        data.BitsAllocated = data.BitsStored = 1
        data.HighBit = 0
        data.PixelData = np.packbits(masks.ravel(), bitorder="little").tobytes()
    else:
        data.BitsAllocated = data.BitsStored = 8
        data.HighBit, data.MaximumFractionalValue = 7, 200
        data.PixelData = (masks * 150).tobytes()
    data.save_as(world.root / "seg.dcm", enforce_file_format=True)
    ok(cli("labels", "import", "seg.dcm", "--study", first_study(world).id, cwd=world.root))
    study = first_study(world)
    assert study.record.labelled == {"c3": (1, 2), "bolus": (2,)}
    assert np.array_equal(study.read_mask("c3", 1), masks[0] > 0)
    assert np.array_equal(study.read_mask("bolus", 2), masks[2] > 0)


# What does not fit


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
    "segmentation",
    [
        {"size": [48, 64], "counts": [48 * 64, 10**12]},
        {"size": [48, 64], "counts": [-5, 48 * 64 + 5]},
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
        ("film.txt", b"hello"),
        ("not.dcm", bytes(128) + b"DICM" + bytes(40)),
    ],
)
def test_damaged_files(name: str, data: bytes, world: Workspace, cli: Cli) -> None:
    (world.root / name).write_bytes(data)
    refuse(world, cli, name, "--study", first_study(world).id)


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
    }
    put(folder / "run.json", run)
    words = ("labels", "export", "out", "--format", "coco", "--results", "small", "--json")
    made = json.loads(ok(cli(*words, cwd=world.root)).stdout)
    assert made["masks"] == 3 * study.record.frames


# The check


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
    assert cli("labels", "check", "--name", "../up", cwd=spines.root).exit_code == 2


def test_no_studies(tmp_path: Path, cli: Cli) -> None:
    assert cli("labels", "check").exit_code == 4
    put(tmp_path / "a.json", "{}")
    assert cli("labels", "import", "a.json").exit_code == 4


def test_the_small_world_of_other_tests_is_well(tmp_path: Path, cli: Cli) -> None:
    world = small_world(tmp_path / "small")
    _, found = findings(world, cli)
    assert not [one for one in found if one["kind"] == "file"]


# The page about it


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


# Properties


@given(masks_2d)
def test_outlines_traced_along_pixels_are_exact(mask: np.ndarray) -> None:
    assert np.array_equal(fill(trace(mask), mask.shape), mask)


@settings(max_examples=60)
@given(masks_2d)
def test_outlines_with_holes_keep_their_dice(mask: np.ndarray) -> None:
    drawn = np.zeros_like(mask)
    for ring in outline(mask):
        drawn |= Polygon.of(ring).draw(mask.shape)
    assert dice(drawn, mask) >= 0.99


@given(masks_2d)
def test_runs_are_exact(mask: np.ndarray) -> None:
    for by_column in (True, False):
        counts = counts_of(mask, by_column=by_column)
        drawn = Runs(np.array(counts, np.int64), by_column=by_column).draw(mask.shape)
        assert np.array_equal(drawn, mask)
    assert np.array_equal(boxed_runs(mask).draw(mask.shape), mask)
    assert np.array_equal(Brush(bytes(pack_brush(mask))).draw(mask.shape), mask)


@given(st.lists(st.integers(0, 10**7), max_size=30))
def test_coco_text_is_exact(counts: list[int]) -> None:
    assert coco_counts(coco_text(counts)) == counts


def test_coco_text_of_the_coco_api() -> None:
    # Worked by hand from rleToString of cocoapi's maskApi.c: 6 bits less 48, deltas from the third.
    assert coco_text([6, 2, 3, 2, 7]) == "62304"
    assert coco_text([40, 100]) == "X1T3"


@given(st.binary(max_size=60))
def test_brushes_of_noise_are_refused(noise: bytes) -> None:
    with pytest.raises(LabelError):
        Brush(noise).draw((7, 9))


def test_annotations_know_their_labels() -> None:
    found = Annotations(Path("x"), "coco")
    assert found.know("b") == "b" and found.know("a") and found.labels == ["b", "a"]


@settings(max_examples=40)
@given(masks_2d, st.floats(-4e-4, 4e-4))
def test_outlines_survive_rounding(mask: np.ndarray, error: float) -> None:
    for ring in outline(mask):
        exact = fill([ring], mask.shape)
        assert np.array_equal(fill([ring * (1 + error / 10)], mask.shape), exact)
