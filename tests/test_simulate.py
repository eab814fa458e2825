"""`vfss simulate`: films, masks and truth of patients that never lived."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from conftest import Cli
from vfss_distill.commands import simulate as command
from vfss_distill.simulate import (
    EXTRA_STRUCTURES,
    SimulateOptions,
    StudySimulator,
    dataset,
)
from vfss_distill.simulate.curves import below, ease, smooth
from vfss_distill.simulate.mask_png import png
from vfss_distill.simulate.preview import _moments
from vfss_distill.simulate.raster import rasterise
from vfss_distill.simulate.truth import EVENTS
from vfss_distill.tasks import VFSS12
from watched import until, workers_of

SMALL = ("--size", 96, "--frames", 8, "--quiet")


def vfss(*words: object) -> tuple[int, str, str]:
    """The command alone, so that this file stands without the other rooms."""
    app = typer.Typer()
    app.callback()(lambda: None)
    command.register(app)
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, result.stdout, result.stderr


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def decoded(film: Path) -> list[NDArray[np.uint8]]:
    """All frames of a film by an independent reader."""
    if film.suffix == ".dcm":
        import pydicom

        return list(pydicom.dcmread(film).pixel_array)
    import av

    with av.open(str(film)) as container:
        return [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]


# ── the command ──────────────────────────────────────────────────────────────────────────────


def test_layout_is_ready_for_ingest(tmp_path: Path) -> None:
    code, out, _ = vfss("simulate", tmp_path / "out", "-n", 2, "--studies", 2, *SMALL, "--json")
    assert code == 0
    told = json.loads(out)
    assert told["schema_version"] == 1 and told["simulated"] and len(told["studies"]) == 4
    assert str(tmp_path) not in out
    for study in told["studies"]:
        film = tmp_path / "out" / study["film"]
        assert film.parent.name == study["patient"]
        masks = film.with_name(film.stem + "_masks")
        assert sorted(p.name for p in masks.iterdir()) == sorted(VFSS12.ids)
        assert len(list((masks / "bolus").iterdir())) == 8
        truth = json.loads(film.with_name(film.stem + "_truth.json").read_text())
        assert truth["simulated"] is True and len(truth["frame_times_s"]) == 8
        assert set(truth["events"]) == set(EVENTS)
        assert len(truth["swallows"]) == truth["findings"]["swallows"]
        assert all(1 <= each["pas"] <= 8 for each in truth["swallows"])
        assert "created_utc" not in truth["provenance"]


def test_masks_on_disk_are_black_and_white(tmp_path: Path) -> None:
    import cv2

    assert vfss("simulate", tmp_path, "-n", 1, "--force", *SMALL)[0] == 0
    masks = list((tmp_path / "sim0000").rglob("*.png"))
    assert len(masks) > 12
    for path in masks:
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert mask.dtype == np.uint8 and mask.shape == (96, 96)
        assert set(np.unique(mask)) <= {0, 255}


@pytest.mark.parametrize("kind", ["mp4", "avi", "dicom"])
def test_every_format_holds_every_frame(tmp_path: Path, kind: str) -> None:
    assert vfss("simulate", tmp_path / "o", "-n", 1, "--format", kind, *SMALL)[0] == 0
    suffix = {"mp4": ".mp4", "avi": ".avi", "dicom": ".dcm"}[kind]
    frames = decoded(tmp_path / "o" / "sim0000" / f"sim0000-00{suffix}")
    assert len(frames) == 8 and all(frame.shape == (96, 96) for frame in frames)
    from vfss_distill.simulate.dataset import DatasetOptions, Job

    options = SimulateOptions(size=96, frames=8, extras=False)
    simulator = StudySimulator(Job(0, 0, DatasetOptions(study=options)).patient_seed, 0, options)
    drawn = np.stack([frame.grey for frame in simulator.frames()])
    error = np.abs(drawn.astype(float) - np.stack(frames)).mean()
    assert error == 0 if kind == "dicom" else error < 6


def test_dicom_says_what_it_is(tmp_path: Path) -> None:
    import pydicom

    vfss("simulate", tmp_path / "o", "-n", 1, "--format", "dicom", *SMALL)
    data = pydicom.dcmread(tmp_path / "o" / "sim0000" / "sim0000-00.dcm")
    assert data.SOPClassUID == pydicom.uid.XRayAngiographicImageStorage
    assert data.PatientID == "sim0000" and "SIMULATED" in str(data.PatientName)
    assert float(data.FrameTime) == pytest.approx(1000 / 30, abs=1e-3)
    assert data.NumberOfFrames == 8 and data.FrameIncrementPointer == 0x00181063


def test_spacing_of_a_dicom_is_that_of_the_detector(cli: Cli, tmp_path: Path) -> None:
    import pydicom

    vfss("simulate", tmp_path / "o", "-n", 1, "--format", "dicom", *SMALL)
    film = tmp_path / "o" / "sim0000" / "sim0000-00.dcm"
    data = pydicom.dcmread(film)
    truth = json.loads(film.with_name("sim0000-00_truth.json").read_text())
    magnified = float(data.EstimatedRadiographicMagnificationFactor)
    distances = data.DistanceSourceToDetector, data.DistanceSourceToPatient
    assert magnified == float(distances[0]) / float(distances[1]) == 1.25
    row, column = map(float, data.ImagerPixelSpacing)
    assert row == column == pytest.approx(magnified * truth["mm_per_px"], abs=2e-6)
    assert cli("ingest", film).exit_code == 0
    (record,) = tmp_path.glob("studies/*/study.json")
    study = json.loads(record.read_text())
    assert study["pixel_spacing_mm"] == [row, column]
    assert study["acquisition"]["magnification"] == 1.25
    assert (study["height"], study["width"]) == (data.Rows, data.Columns)


def test_video_says_what_it_is(tmp_path: Path) -> None:
    import av

    for kind in ("mp4", "avi"):
        vfss("simulate", tmp_path / kind, "-n", 1, "--format", kind, *SMALL)
        with av.open(str(tmp_path / kind / "sim0000" / f"sim0000-00.{kind}")) as container:
            assert "SIMULATED" in container.metadata["title"]
            times = [float(f.pts * f.time_base) for f in container.decode(video=0)]
        assert np.allclose(np.diff(times), 1 / 30, atol=1e-3)


@pytest.mark.parametrize("kind", ["mp4", "avi", "dicom"])
def test_same_seed_same_bytes(tmp_path: Path, kind: str) -> None:
    words = ("-n", 1, "--seed", 5, "--format", kind, *SMALL)
    for name in "ab":
        assert vfss("simulate", tmp_path / name, *words)[0] == 0
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_workers_do_not_change_the_bytes(tmp_path: Path) -> None:
    words = ("-n", 3, "--size", 64, "--frames", 4, "--quiet")
    assert vfss("simulate", tmp_path / "one", *words)[0] == 0
    assert vfss("simulate", tmp_path / "two", *words, "--workers", 2)[0] == 0
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_another_seed_is_another_patient(tmp_path: Path) -> None:
    for seed in (1, 2):
        vfss("simulate", tmp_path / str(seed), "-n", 1, "--seed", seed, *SMALL)
    first, second = (digests(tmp_path / str(seed)) for seed in (1, 2))
    assert first["sim0000/sim0000-00.mp4"] != second["sim0000/sim0000-00.mp4"]


def test_label_every_and_extras(tmp_path: Path) -> None:
    vfss("simulate", tmp_path / "o", "-n", 1, "--label-every", 3, "--extras", *SMALL)
    folder = tmp_path / "o" / "sim0000"
    names = sorted(p.name for p in (folder / "sim0000-00_masks" / "c3").iterdir())
    assert names == ["000000.png", "000003.png", "000006.png"]
    extra = {p.name for p in (folder / "sim0000-00_extra_masks").iterdir()}
    assert extra == set(EXTRA_STRUCTURES)


def test_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("years of work")
    code, _, err = vfss("simulate", tmp_path, "-n", 1, *SMALL)
    assert code == 2 and "--force" in err and "Traceback" not in err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.doc"]
    assert vfss("simulate", tmp_path, "-n", 1, *SMALL, "--force")[0] == 0
    assert (tmp_path / "thesis.doc").read_text() == "years of work"


def test_interrupted_run_goes_on(tmp_path: Path) -> None:
    words = ("simulate", tmp_path / "o", "-n", 2, *SMALL)
    vfss(*words)
    whole = digests(tmp_path / "o")
    first = tmp_path / "o" / "sim0000" / "sim0000-00.mp4"
    kept = first.stat().st_mtime_ns
    # As if killed while the second study was being written.
    (tmp_path / "o" / "sim0001" / "sim0001-00_truth.json").unlink()
    (tmp_path / "o" / "sim0001" / "sim0001-00.mp4").write_bytes(b"half")
    assert vfss(*words)[0] == 0
    assert digests(tmp_path / "o") == whole
    assert first.stat().st_mtime_ns == kept


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads processes in /proc")
def test_workers_end_with_the_run_that_is_killed(tmp_path: Path) -> None:
    words = ("simulate", "o", "-n", "500", "--workers", "2", *map(str, SMALL))
    command = [sys.executable, "-m", "vfss_distill", *words]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        until(lambda: any(tmp_path.glob("o/*/*_truth.json")) or process.poll() is not None)
        workers = workers_of(process.pid)
        assert len(workers) == 2
        process.kill()
    until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


def test_force_leaves_no_frames_of_a_longer_run(tmp_path: Path) -> None:
    vfss("simulate", tmp_path, "-n", 1, "--size", 64, "--frames", 9, "-q")
    vfss("simulate", tmp_path, "-n", 1, "--size", 64, "--frames", 4, "-q", "--force")
    assert len(list((tmp_path / "sim0000" / "sim0000-00_masks" / "c1").iterdir())) == 4


def test_force_leaves_nothing_of_another_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even when it is interrupted and goes on without --force."""
    words = ("simulate", tmp_path / "o", "-n", 2, *SMALL, "--seed", 1)
    vfss("simulate", tmp_path / "o", "-n", 3, "--studies", 2, *SMALL, "--extras")
    (tmp_path / "o" / "sim0002" / "notes.txt").write_text("years of work")
    with monkeypatch.context() as patched:
        patched.setattr(dataset, "make_study", interrupts)
        assert vfss(*words, "--force")[0] == 130
    assert vfss(*words)[0] == 0
    left = {path.relative_to(tmp_path / "o").as_posix() for path in tmp_path.glob("o/*/*")}
    studies = [f"sim000{number}/sim000{number}-00" for number in range(2)]
    made = {study + end for study in studies for end in (".mp4", "_masks", "_truth.json")}
    assert left == {"sim0002/notes.txt", *made}
    truth = json.loads((tmp_path / "o" / "sim0000" / "sim0000-00_truth.json").read_text())
    assert truth["seed"] == 1
    made_at = [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("o/*/*.mp4"))]
    assert vfss(*words, "--force")[0] == 0  # the same data set: made anew all the same
    again = [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("o/*/*.mp4"))]
    assert all(new > old for new, old in zip(again, made_at, strict=True))


def interrupts(*_: object) -> None:
    raise KeyboardInterrupt


def test_moments_outside_the_film_are_not_said_to_be_shown() -> None:
    """Films begin too late and end too early: then its first or last frame stands for them."""
    options = SimulateOptions(size=128, frames=30, kind="swallow", extras=False)
    simulator = StudySimulator(2, 0, options)
    swallow = simulator.plan.filmed[0]
    moments = _moments(simulator)
    assert len(moments) == 6
    for name, time in (("UES shuts", swallow.closing), ("rest", swallow.back)):
        outside = round(time * options.fps) >= 30
        assert (f"ends before: {name}" in moments) is outside
        assert (name in moments) is not outside
    assert any(name.startswith("ends before") for name in moments)


def test_preview_is_a_picture(tmp_path: Path) -> None:
    assert vfss("simulate", tmp_path, "-n", 1, "--preview", *SMALL)[0] == 0
    sheet = cv2.imread(str(tmp_path / "contact-sheet.png"))
    assert sheet.shape[2] == 3 and sheet.shape[0] > 2 * 240 and sheet.std() > 10
    plain, masked = sheet[44:284], sheet[286:526]
    assert np.ptp(plain.astype(int), axis=2).max() == 0  # frames are grey, masks are not
    assert np.ptp(masked.astype(int), axis=2).max() > 30


@pytest.mark.parametrize(
    "words",
    [
        ("--size", 8),
        ("--size", 97),
        ("--frames", 0),
        ("--patients", 0),
        ("--label-every", 0),
        ("--pulses", 13),
        ("--fps", 0),
        ("--studies", 100),
        ("--format", "gif"),
        ("--ranges", "martians"),
        ("--seed", -1),
    ],
)
def test_bad_options_are_usage_errors(tmp_path: Path, words: tuple[object, ...]) -> None:
    code, _, err = vfss("simulate", tmp_path / "o", *words)
    assert code == 2 and "Traceback" not in err
    assert not (tmp_path / "o").exists()


def test_output_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "o").write_text("")
    assert vfss("simulate", tmp_path / "o", "-n", 1, *SMALL)[0] == 2


# ── subtle internals ─────────────────────────────────────────────────────────────────────────


@given(
    height=st.integers(1, 40), width=st.integers(1, 40), rows=st.tuples(*[st.integers(0, 40)] * 2)
)
@settings(max_examples=60, deadline=None)
def test_any_mask_survives_its_png(height: int, width: int, rows: tuple[int, int]) -> None:
    mask = np.zeros((height, width), np.bool_)
    some = mask[min(rows) : max(rows)]
    some[:] = np.random.default_rng(width).random(some.shape) < 0.5
    packed = png(mask)
    with Image.open(io.BytesIO(packed)) as picture:
        assert picture.mode == "L"
        assert np.array_equal(np.array(picture), np.where(mask, 255, 0))
    read = cv2.imdecode(np.frombuffer(packed, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(read, np.where(mask, 255, 0))
    # Readers are lenient about the checksum of the whole; zlib is not.
    length = int.from_bytes(packed[33:37], "big")
    assert packed[37:41] == b"IDAT"
    stored = zlib.decompress(packed[41 : 41 + length])
    assert len(stored) == height * (1 + width)


@given(x=st.floats(20, 40), y=st.floats(20, 40), rx=st.floats(3, 15), ry=st.floats(3, 15))
@settings(max_examples=40, deadline=None)
def test_coverage_is_the_true_area(x: float, y: float, rx: float, ry: float) -> None:
    angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    disc = np.column_stack([x + rx * np.cos(angle), y + ry * np.sin(angle)])
    patch = rasterise([disc], (64, 64))
    # The outline itself is drawn, up to a fifth of a pixel too wide; a mask is whole pixels.
    around = 2 * np.pi * np.sqrt((rx**2 + ry**2) / 2)
    assert patch.cover.sum() == pytest.approx(np.pi * rx * ry, abs=0.2 * around)
    cover = patch.full((64, 64))
    assert (cover.sum(0) @ np.arange(64)) / cover.sum() == pytest.approx(x, abs=0.07)
    assert (cover.sum(1) @ np.arange(64)) / cover.sum() == pytest.approx(y, abs=0.07)
    assert patch.mask((64, 64)).sum() == pytest.approx(np.pi * rx * ry, abs=0.5 * around)


def test_outlines_off_the_picture_cover_nothing() -> None:
    assert rasterise([np.array([[-9.0, -9], [-5, -9], [-5, -5]])], (32, 32)).empty
    assert rasterise([], (32, 32)).empty


@given(fill=st.floats(0.05, 0.95))
def test_liquid_lies_at_the_bottom(fill: float) -> None:
    square = np.array([[0.0, 0], [10, 0], [10, 10], [0, 10]])
    part = below(square, (0, 1), fill)
    assert part[:, 1].min() == pytest.approx(10 * (1 - fill))
    assert part[:, 1].max() == 10


def test_smooth_goes_through_its_points() -> None:
    points = np.array([[0.0, 0], [4, 1], [5, 6], [1, 7]])
    assert np.allclose(smooth(points, per_segment=5)[::5], points)
    assert np.allclose(smooth(points, per_segment=5, closed=False)[::5], points)


def test_ease_rests_outside_its_keys() -> None:
    values = ease(np.array([-1.0, 0, 0.5, 1, 9]), [0, 1], [2, 4])
    assert values.tolist() == [2, 2, 3, 4, 4]
