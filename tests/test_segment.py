"""`vfss segment`: films in; overlay, masks and table out."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from conftest import Cli
from square_models import TASKS, make_film, make_model, only_result, picture, read_mask
from vfss_distill.inference.overlay import read_times
from vfss_distill.intake.boxes import Box
from vfss_distill.intake.record import StudyRecord
from vfss_distill.intake.study import write_frame, write_record
from vfss_distill.provenance import sha256_file
from vfss_distill.tasks import TaskSet

CONSTANT = [index / 30 for index in range(24)]
VARYING = [0.0, 0.033, 0.1, 0.1334, 0.2, 0.5, 0.517, 0.75, 1.9, 2.0]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "runs" / "run-001" / "student.onnx")


@pytest.mark.parametrize("times_s", [CONSTANT, VARYING], ids=["constant", "varying"])
def test_overlay_has_the_frames_and_times_of_the_film(
    cli: Cli, tmp_path: Path, model: Path, times_s: list[float]
) -> None:
    make_film(tmp_path / "study.mp4", times_s)
    result = cli("segment", "study.mp4")
    assert result.exit_code == 0, result.stderr
    assert "study.mp4 → results/s-" in result.stdout
    overlay = only_result(tmp_path) / "overlay.mp4"
    assert read_times(overlay) == pytest.approx(times_s, abs=2e-5)
    with (only_result(tmp_path) / "frames.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    told = {int(row["frame"]): float(row["time_s"]) for row in rows}
    assert told == pytest.approx(dict(enumerate(times_s)), abs=1e-3)
    with av.open(str(overlay)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert stream.width % 2 == stream.height % 2 == 0
        assert len([frame for frame in container.decode(video=0)]) == len(times_s)
    head = overlay.read_bytes()[:4096]
    assert b"moov" in head, "not made for streaming"


def test_files_and_json(cli: Cli, tmp_path: Path, model: Path) -> None:
    make_film(tmp_path / "in" / "Doe^Jane 1950.mp4", CONSTANT)
    result = cli("segment", "in", "--json", "--quiet")
    assert result.exit_code == 0, result.stderr
    printed = json.loads(result.stdout)
    assert printed["schema_version"] == 1 and printed["failed"] == []
    (study,) = printed["studies"]
    assert study["frames"] == 24 and study["fps"] > 0
    assert study["provider"].endswith("ExecutionProvider")
    assert study["model"] == {"name": "bright", "sha256": sha256_file(model)}
    folder = only_result(tmp_path)
    assert folder.name == f"bright-{sha256_file(model)[:8]}"
    assert study["outputs"]["masks"] == folder.relative_to(tmp_path).as_posix() + "/masks"
    for output in study["outputs"].values():
        assert (tmp_path / output).exists()

    run = json.loads((folder / "run.json").read_text())
    assert run["study"] == "s-" + run["source_sha256"][:10] and run["patient"] is None
    assert run["frame_times_s"] == pytest.approx(CONSTANT, abs=1e-5)
    assert (run["width"], run["height"]) == (128, 96)
    assert TaskSet.from_dict(run["model"]["tasks"]) == TASKS
    assert "provenance" in run and run["seen_in_training"] is False

    with (folder / "frames.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["frame"] for row in rows] == [str(index) for index in range(24)]
    for index, row in enumerate(rows):
        mask = read_mask(folder / "masks" / "bright" / f"{index:06d}.png")
        assert mask.shape == (96, 128) and set(np.unique(mask)) == {0, 255}
        assert int(row["bright_area_px"]) == np.count_nonzero(mask)
        assert float(row["bright_x_px"]) == pytest.approx(20 + index + 15.5, abs=1)
        assert float(row["bright_y_px"]) == pytest.approx(45.5, abs=1)
        assert 0.5 <= float(row["bright_confidence"]) <= 1
        # Absent is a blank mask, not a missing one.
        assert not read_mask(folder / "masks" / "never" / f"{index:06d}.png").any()
        assert (row["never_area_px"], row["never_x_px"], row["never_confidence"]) == ("0", "", "")
    for path in (tmp_path / "results").rglob("*"):
        assert "Doe" not in path.name
        assert not path.is_file() or b"Doe" not in path.read_bytes()


def test_existing_result_is_left_alone(cli: Cli, tmp_path: Path, model: Path) -> None:
    make_film(tmp_path / "study.mp4", CONSTANT)
    first = json.loads(cli("segment", "study.mp4", "--json").stdout)
    run = only_result(tmp_path) / "run.json"
    before = run.stat().st_mtime_ns
    again = cli("segment", "study.mp4")
    assert again.exit_code == 0 and "exists already" in again.stdout
    listed = json.loads(cli("segment", "study.mp4", "--json").stdout)
    assert run.stat().st_mtime_ns == before
    assert listed["studies"][0]["existed"] and not first["studies"][0]["existed"]
    same = ("study", "frames", "seconds", "fps", "provider", "model", "outputs")
    assert all(listed["studies"][0][key] == first["studies"][0][key] for key in same)
    assert cli("segment", "study.mp4", "--force").exit_code == 0
    assert run.stat().st_mtime_ns > before


def test_films_are_segmented_though_nobody_reads_on(tmp_path: Path, model: Path) -> None:
    """`vfss segment films | head -1` leaves none out."""
    for name in ("a", "b", "c"):
        make_film(tmp_path / f"{name}.mp4", CONSTANT[: 4 + ord(name) % 4])
    reading, writing = os.pipe()
    os.close(reading)
    words = ("segment", "a.mp4", "b.mp4", "c.mp4", "--no-overlay", "--quiet")
    done = subprocess.run(
        [sys.executable, "-m", "vfss_distill", *words], cwd=tmp_path, stdout=writing, timeout=120
    )
    os.close(writing)
    assert done.returncode == 0
    assert len(list((tmp_path / "results").glob("*/*/run.json"))) == 3


def test_an_overlay_of_a_long_pause_in_a_folder_with_a_colon(
    cli: Cli, tmp_path: Path, model: Path
) -> None:
    """A recorder that was paused for two hours; FFmpeg takes `e:` for a protocol."""
    times_s = [0.0, 0.04, 0.08, 7200.0, 7200.04]
    make_film(tmp_path / "pause.mkv", times_s)
    (tmp_path / "e:1").mkdir()
    words = ("segment", "pause.mkv", "-w", "e:1", "--model", model)
    assert cli(*words).exit_code == 0
    (overlay,) = (tmp_path / "e:1").rglob("overlay.mp4")
    with contextlib.chdir(tmp_path):
        assert read_times(overlay.relative_to(tmp_path)) == pytest.approx(times_s, abs=1e-3)


def test_measures_of_masks_that_are_replaced_are_kept(
    cli: Cli, tmp_path: Path, model: Path
) -> None:
    """A person may have corrected them, and does not think of them when segmenting again."""
    make_film(tmp_path / "study.mp4", CONSTANT)
    assert cli("segment", "study.mp4").exit_code == 0
    folder = only_result(tmp_path)
    for number, words in enumerate(("first", "second"), 1):
        (folder / "measures.csv").write_text(words)
        said = cli("segment", "study.mp4", "--force").stderr
        assert f"is kept as measures-before-{number}.csv" in " ".join(said.split())
        assert not (folder / "measures.csv").exists()
        assert (folder / f"measures-before-{number}.csv").read_text() == words
    assert "kept as" not in cli("segment", "study.mp4", "--force").stderr
    assert (folder / "measures-before-1.csv").read_text() == "first"
    assert "kept as" not in (folder / "run.json").read_text(), "it is no fault of the film"
    (folder / "measures-before-1.csv").unlink()
    (folder / "measures.csv").write_text("third")
    assert "measures-before-3.csv" in " ".join(
        cli("segment", "study.mp4", "--force").stderr.split()
    )
    assert (folder / "measures-before-2.csv").read_text() == "second"


def test_a_film_under_two_names(cli: Cli, tmp_path: Path, model: Path) -> None:
    make_film(tmp_path / "a.mp4", CONSTANT)
    (tmp_path / "b.mp4").write_bytes((tmp_path / "a.mp4").read_bytes())
    for words in ((), ("--force",)):
        made, twin = cli("segment", "a.mp4", "b.mp4", *words).stdout.splitlines()[-2:]
        assert "24 frames" in made and twin.endswith("/ is the same film as a.mp4")


def test_a_result_of_an_earlier_version_is_left_alone(
    cli: Cli, tmp_path: Path, model: Path
) -> None:
    make_film(tmp_path / "study.mp4", CONSTANT)
    cli("segment", "study.mp4")
    run = only_result(tmp_path) / "run.json"
    body = json.loads(run.read_text())
    del body["frames_of"]
    run.write_text(json.dumps(body))
    again = cli("segment", "study.mp4", "--no-blank")
    assert again.exit_code == 0 and "exists already" in again.stdout


@pytest.mark.parametrize(
    "facts",
    [
        {"mirrored": True, "facing": "right"},
        {"interlaced": "kept"},
        {"burned_in": "blanked"},
        {"blanked": (Box(0, 0, 9, 9, "given"),)},
        {"picture": Box(10, 0, 100, 96, "picture")},
    ],
    ids=lambda facts: next(iter(facts)),
)
def test_a_study_made_anew_is_not_what_was_segmented(
    cli: Cli, tmp_path: Path, model: Path, facts: dict[str, Any]
) -> None:
    names = "paaaaaaaa-111111", "paaaaaaaa", "1" * 64
    make_study(tmp_path, *names)
    assert cli("segment", *names[:1]).exit_code == 0
    run = only_result(tmp_path) / "run.json"
    before = run.read_bytes()
    make_study(tmp_path, *names, **facts)
    refused = cli("segment", "--split", "all")
    assert refused.exit_code == 4 and run.read_bytes() == before
    assert "its result is of other frames" in refused.stderr and "--force" in refused.stderr
    assert "mirrored, blanked or deinterlaced otherwise" in " ".join(refused.stderr.split())
    assert cli("segment", "--split", "all", "--force").exit_code == 0
    assert "exists already" in cli("segment", "--split", "all").stdout


def test_a_film_segmented_with_its_text_is_not_one_without(
    cli: Cli, tmp_path: Path, model: Path
) -> None:
    make_film(tmp_path / "study.mp4", CONSTANT)
    assert cli("segment", "study.mp4", "--no-blank").exit_code == 0
    assert "of other frames" in cli("segment", "study.mp4").stderr
    assert cli("segment", "study.mp4", "--force").exit_code == 0
    assert cli("segment", "study.mp4", "--no-blank").exit_code == 4


def test_a_film_of_a_study_is_read_as_the_study_is(cli: Cli, tmp_path: Path, model: Path) -> None:
    digest = sha256_file(make_film(tmp_path / "a.mp4", CONSTANT))
    make_study(tmp_path, "paaaaaaaa-111111", "paaaaaaaa", digest, burned_in="blanked")
    assert cli("segment", "a.mp4").exit_code == 0
    assert "exists already" in cli("segment", "--split", "all").stdout


def test_what_a_result_lacks_is_not_found_in_it(cli: Cli, tmp_path: Path, model: Path) -> None:
    make_film(tmp_path / "study.mp4", CONSTANT)
    for lacking, said in (("--no-masks", "without masks"), ("--no-overlay", "without an overlay")):
        assert cli("segment", "study.mp4", lacking, "--force").exit_code == 0
        assert cli("segment", "study.mp4", lacking).exit_code == 0
        refused = cli("segment", "study.mp4", "--json")
        assert refused.exit_code == 4
        (failure,) = json.loads(refused.stdout)["failed"]
        assert said in failure["error"] and "--force" in failure["error"]


def test_tasks_it_was_not_trained_on_are_left_blank(cli: Cli, tmp_path: Path) -> None:
    provenance = json.dumps({"simulated": "all", "untrained_tasks": ["bright"]})
    make_model(tmp_path / "runs/run-001/student.onnx", vfss__provenance=provenance)
    make_film(tmp_path / "study.mp4", CONSTANT)
    result = cli("segment", "study.mp4")
    assert result.exit_code == 0 and "not trained on bright part: left blank" in result.stderr
    folder = only_result(tmp_path)
    assert not read_mask(folder / "masks" / "bright" / "000000.png").any()
    run = json.loads((folder / "run.json").read_text())
    assert run["model"]["untrained_tasks"] == ["bright"]
    assert "not trained on bright part: left blank" in run["warnings"]


def test_the_threshold_in_the_model_is_the_one_that_counts(cli: Cli, tmp_path: Path) -> None:
    """The square is sure to six nines: at one half it shows, at seven it does not."""
    for name, threshold in (("half", 0.5), ("seven", 0.9999999)):
        cut = json.dumps({"bright": threshold, "never": 0.5})
        make_model(tmp_path / "runs" / name / "student.onnx", vfss__thresholds=cut, vfss__name=name)
        make_film(tmp_path / "study.mp4", CONSTANT)
        assert cli("segment", "study.mp4", "--model", name, "--no-overlay").exit_code == 0
        (folder,) = (tmp_path / "results").glob(f"*/{name}-*")
        assert read_mask(folder / "masks" / "bright" / "000000.png").any() == (name == "half")


def test_only_what_was_asked_for(cli: Cli, tmp_path: Path, model: Path) -> None:
    make_film(tmp_path / "study.mp4", CONSTANT)
    result = cli("segment", "study.mp4", "--no-overlay", "--no-masks", "--json")
    outputs = json.loads(result.stdout)["studies"][0]["outputs"]
    assert outputs["overlay"] is None and outputs["masks"] is None
    names = sorted(path.name for path in only_result(tmp_path).iterdir())
    assert names == ["frames.csv", "run.json"]


def make_study(
    place: Path, study: str, patient: str, sha256: str, frames: int = 5, **facts: Any
) -> None:
    folder = place / "studies" / study
    (folder / "frames").mkdir(parents=True, exist_ok=True)
    times = tuple(index / 25 for index in range(frames))
    for index in range(frames):
        write_frame(folder, index, picture(index))
    record = StudyRecord(study, patient, sha256, frames, times, 128, 96, **facts)
    write_record(folder, record)


def test_a_film_that_was_ingested_keeps_its_study(cli: Cli, tmp_path: Path) -> None:
    digest = sha256_file(make_film(tmp_path / "renamed.mp4", CONSTANT))
    make_study(tmp_path, "paaaaaaaa-123456", "paaaaaaaa", digest)
    make_model(tmp_path / "runs" / "run-001" / "student.onnx", sources=[digest[:16]])
    result = cli("segment", "renamed.mp4")
    assert result.exit_code == 0 and "trained on" in result.stderr
    run = json.loads((only_result(tmp_path) / "run.json").read_text())
    assert (run["study"], run["patient"]) == ("paaaaaaaa-123456", "paaaaaaaa")
    assert run["frames"] == 24, "read from the film itself"
    assert run["seen_in_training"] is True


def test_another_study_of_a_patient_seen_in_training_is_seen(cli: Cli, tmp_path: Path) -> None:
    make_study(tmp_path, "paaaaaaaa-111111", "paaaaaaaa", "1" * 64)
    make_study(tmp_path, "paaaaaaaa-222222", "paaaaaaaa", "2" * 64)  # came after the training
    make_study(tmp_path, "pbbbbbbbb-333333", "pbbbbbbbb", "3" * 64)
    make_model(tmp_path / "runs" / "run-001" / "student.onnx", sources=["1" * 16])
    result = cli("segment", "paaaaaaaa-222222", "pbbbbbbbb-333333", "--no-overlay", "--json")
    assert result.exit_code == 0, result.stderr
    seen = {one["study"]: one["seen_in_training"] for one in json.loads(result.stdout)["studies"]}
    assert seen == {"paaaaaaaa-222222": True, "pbbbbbbbb-333333": False}


def write_identities(root: Path, *rows: str) -> None:
    head = "study,patient,source_patient,source_path,site,source_site"
    (root / "identities.csv").write_text("\n".join([head, *rows, ""]))


@pytest.mark.parametrize(("row", "seen"), [("paaaaaaaa-111111", True), ("", False)])
def test_a_patient_seen_with_a_film_whose_study_was_deleted_is_seen(
    cli: Cli, tmp_path: Path, row: str, seen: bool
) -> None:
    """As when a better copy of a film took its place. Without the table nobody can tell."""
    make_study(tmp_path, "paaaaaaaa-222222", "paaaaaaaa", "2" * 64)
    make_study(tmp_path, "pbbbbbbbb-333333", "pbbbbbbbb", "3" * 64)
    if row:
        write_identities(tmp_path, f"{row},paaaaaaaa,A,a.mp4,,")
    make_model(tmp_path / "runs" / "run-001" / "student.onnx", sources=["1" * 16])
    result = cli("segment", "paaaaaaaa-222222", "pbbbbbbbb-333333", "--no-overlay", "--json")
    assert result.exit_code == 0, result.stderr
    told = {one["study"]: one["seen_in_training"] for one in json.loads(result.stdout)["studies"]}
    assert told == {"paaaaaaaa-222222": seen, "pbbbbbbbb-333333": False}


def test_a_study_that_was_corrected_is_seen_with_its_right_patient_only(
    cli: Cli, tmp_path: Path
) -> None:
    """Its old row stays in the table."""
    make_study(tmp_path, "pbbbbbbbb-111111", "pbbbbbbbb", "1" * 64)
    make_study(tmp_path, "paaaaaaaa-222222", "paaaaaaaa", "2" * 64)
    rows = ("paaaaaaaa-111111,paaaaaaaa,A,a.mp4,,", "pbbbbbbbb-111111,pbbbbbbbb,B,a.mp4,,")
    write_identities(tmp_path, *rows)
    make_model(tmp_path / "runs" / "run-001" / "student.onnx", sources=["1" * 16])
    result = cli("segment", "paaaaaaaa-222222", "pbbbbbbbb-111111", "--no-overlay", "--json")
    assert result.exit_code == 0, result.stderr
    told = {one["study"]: one["seen_in_training"] for one in json.loads(result.stdout)["studies"]}
    assert told == {"paaaaaaaa-222222": False, "pbbbbbbbb-111111": True}


def test_studies_by_id_and_by_split(cli: Cli, tmp_path: Path, model: Path) -> None:
    make_study(tmp_path, "paaaaaaaa-111111", "paaaaaaaa", "1" * 64)
    make_study(tmp_path, "pbbbbbbbb-222222", "pbbbbbbbb", "2" * 64)
    (tmp_path / "splits.yaml").write_text("train: [paaaaaaaa]\nval: []\ntest: [pbbbbbbbb]\n")

    def studies(*words: str) -> list[str]:
        result = cli("segment", *words, "--json", "--no-overlay")
        assert result.exit_code == 0, result.stderr
        return [entry["study"] for entry in json.loads(result.stdout)["studies"]]

    assert studies("paaaaaaaa-111111") == ["paaaaaaaa-111111"]
    assert studies("--split", "test") == ["pbbbbbbbb-222222"]
    assert studies("--split", "all") == ["paaaaaaaa-111111", "pbbbbbbbb-222222"]
    assert studies("studies") == ["paaaaaaaa-111111", "pbbbbbbbb-222222"]
    assert cli("segment", "--split", "val").exit_code == 4
    assert cli("segment", "--split", "val", "studies").exit_code == 2
    nothing = cli("segment")
    assert nothing.exit_code == 2 and "--split" in nothing.stderr


def test_image_folder(cli: Cli, tmp_path: Path, model: Path) -> None:
    (tmp_path / "frames-of-one").mkdir()
    for index in range(3):
        cv2.imwrite(str(tmp_path / "frames-of-one" / f"{index}.png"), picture(index, 97, 61))
    result = cli("segment", "frames-of-one", "--json")
    assert result.exit_code == 0, result.stderr
    folder = only_result(tmp_path)
    assert read_mask(folder / "masks" / "bright" / "000002.png").shape == (97, 61)
    assert len(read_times(folder / "overlay.mp4")) == 3


def test_images_ingested_at_another_rate_are_segmented_anew(
    cli: Cli, tmp_path: Path, model: Path
) -> None:
    images = tmp_path / "anna" / "images"
    images.mkdir(parents=True)
    for index in range(5):
        cv2.imwrite(str(images / f"{index}.png"), picture(index))
    assert cli("ingest", "anna").exit_code == 0
    assert "30 frames/s assumed" in cli("segment", "anna/images", "--no-overlay").stderr
    assert cli("ingest", "anna", "--fps", "15", "--force").exit_code == 0
    refused = cli("segment", "--split", "all", "--no-overlay")
    assert refused.exit_code == 4 and "other times than its study" in refused.stderr
    anew = cli("segment", "anna/images", "--no-overlay", "--force")  # the images, not the study
    assert anew.exit_code == 0 and "assumed" not in anew.stderr
    run = json.loads((only_result(tmp_path) / "run.json").read_text())
    assert run["frame_times_s"] == pytest.approx([index / 15 for index in range(5)], abs=1e-5)
    assert "exists already" in cli("segment", "--split", "all", "--no-overlay").stdout
    assert cli("ingest", "anna", "--fps", "30", "--force").exit_code == 0
    given = cli("segment", "anna/images", "--no-overlay", "--force")
    assert given.exit_code == 0 and "assumed" not in given.stderr, "it was said, not assumed"


def test_real_cine(cli: Cli, tmp_path: Path, model: Path, shared_data: Path) -> None:
    cine = shared_data / "xa-coronary-cine" / "xa_96frames.dcm"
    result = cli("segment", cine, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["studies"][0]["frames"] == 96
    times = read_times(only_result(tmp_path) / "overlay.mp4")
    assert times == pytest.approx([index * 0.033 for index in range(96)], abs=1e-5)
