"""`vfss labels import`: files as the tools themselves write them."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from conftest import Cli
from label_world import (
    HEIGHT,
    WIDTH,
    coco,
    cvat_video,
    first_study,
    forget_labels,
    make_world,
    ok,
    put,
)
from vfss_distill.intake.formats.slicer import read_slicer
from vfss_distill.intake.study import write_record
from vfss_distill.workspace import Workspace


@pytest.fixture
def world(tmp_path: Path) -> Workspace:
    return make_world(tmp_path)


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


@pytest.mark.parametrize(
    "name",
    ["000003_png.rf.0a9bcd3.jpg", "f3_jpg.rf.9d5e1c07ab3f4e6c8d2b1a0f5c7e9b45.jpg", "f3.png", "3"],
)
def test_the_last_whole_number_is_the_frame(name: str, world: Workspace, cli: Cli) -> None:
    forget_labels(world)
    study = first_study(world)
    image = {"id": 7, "file_name": name, "height": HEIGHT, "width": WIDTH}
    shape = {"image_id": 7, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]]}
    put(world.root / "coco.json", coco(study.id, images=[image], annotations=[shape]))
    ok(cli("labels", "import", "coco.json", "--study", study.id, cwd=world.root))
    assert first_study(world).record.labelled == {"bolus": (3,)}


def test_absent_makes_what_is_not_drawn_blank(world: Workspace, cli: Cli) -> None:
    forget_labels(world)
    put(world.root / "coco.json", coco(first_study(world).id))
    ok(cli("labels", "import", "coco.json", "--absent", cwd=world.root))
    study = first_study(world)
    blank = study.read_mask("bolus", 2)
    assert blank is not None and not blank.any()
    assert study.record.labelled == {"bolus": (2, 4), "hyoid": (2, 4)}


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


def test_absent_in_labelme_is_of_all_files(world: Workspace, cli: Cli) -> None:
    forget_labels(world)
    corners = [[5, 5], [9, 5], [9, 9], [5, 9]]
    for frame, label in ((1, "c3"), (2, "bolus")):
        body = {
            "shapes": [{"label": label, "points": corners, "shape_type": "polygon"}],
            "imagePath": f"{frame}.png",
            "imageHeight": HEIGHT,
            "imageWidth": WIDTH,
        }
        put(world.root / "lm" / f"{frame}.json", body)
    study = first_study(world).id
    ok(cli("labels", "import", "lm", "--study", study, "--absent", cwd=world.root))
    made = first_study(world)
    assert made.record.labelled == {"bolus": (1, 2), "c3": (1, 2)}
    blank = made.read_mask("bolus", 1)
    assert blank is not None and not blank.any()


@pytest.mark.parametrize("sized", [True, False])
def test_label_studio_percent_and_cancelled(sized: bool, world: Workspace, cli: Cli) -> None:
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
    if not sized:  # as programs write that draw shapes ahead of people
        del region["original_width"], region["original_height"]
    put(world.root / "ls.json", [task])
    ok(cli("labels", "import", "ls.json", "--study", first_study(world).id, cwd=world.root))
    mask = first_study(world).read_mask("c3", 1)
    assert mask is not None and mask[: HEIGHT // 2, : WIDTH // 2].all()
    assert mask.sum() == HEIGHT * WIDTH // 4


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

    study = first_study(world)  # of a film of 48 x 48
    write_record(study.folder, replace(study.record, pixel_aspect=(4, 3)), source_kind="film")
    refused = cli("labels", "import", path.name, "--study", study.id, "--force", cwd=world.root)
    assert refused.exit_code == 4 and "without cropping" in refused.stderr


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


def test_labels_of_fields_must_be_numbered_by_field(world: Workspace, cli: Cli) -> None:
    study = first_study(world)
    record = replace(study.record, interlaced="fields")
    write_record(study.folder, record, source_kind="film")
    said = f"{study.id} has two frames for each of the film"
    put(world.root / "coco.json", coco(study.id))
    words = ("labels", "import", "--force")
    assert said in ok(cli(*words, "coco.json", cwd=world.root)).stderr
    ok(cli("labels", "export", "out", "--format", "coco", cwd=world.root))
    for path in ("out", "out/annotations.json"):  # numbered as the study is
        assert said not in ok(cli(*words, path, cwd=world.root)).stderr
