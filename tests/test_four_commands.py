"""The job as a new user does it: four commands in an empty folder, with no network."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tiny_teachers import write_tiny_weights

# Loaded by every Python process the commands start: any word with a network ends the process.
NO_NETWORK = """
import os, sys
def refuse(event, args):
    if event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto"):
        sys.stderr.write(f"NETWORK {event} {args[1:]}\\n")
        sys.stderr.flush()
        os._exit(99)
sys.addaudithook(refuse)
"""

# What a lab sets once; here so small that the four commands take seconds.
LAB = """
splits: {val: 0.25, test: 0.25}
distill:
  {image_size: 64, grid: 8, align_steps: 3, task_steps: 5, batch_size: 4, warmup_steps: 1,
   validate_every: 5, checkpoint_every: 5, student: nano, threads: 2}
"""


class Lab:
    """A folder, and `vfss` run in it as its own process, without a network."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        guard = folder.parent / "guard"
        guard.mkdir()
        (guard / "sitecustomize.py").write_text(NO_NETWORK)
        self.environment = {**os.environ, "PYTHONPATH": str(guard), "COLUMNS": "120"}

    def vfss(self, line: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "vfss_distill", *line.split()],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"vfss {line}: {done.returncode}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A clinic's folder after the four commands: films with labels, and one new film."""
    folder = tmp_path_factory.mktemp("clinic") / "Jane Doe's lab é"
    folder.mkdir()
    lab = Lab(folder)
    small = "--size 96 --frames 10 --seed 3 --format mp4"
    lab.vfss(f"simulate videos --patients 4 --label-every 2 {small}")
    lab.vfss(f"simulate new --patients 1 {small.replace('3', '8', 1)}")
    next((folder / "new").rglob("*.mp4")).rename(folder / "study.mp4")
    (folder / "vfss.yaml").write_text(LAB)
    write_tiny_weights(folder / "weights")

    lab.vfss("ingest videos/")
    lab.vfss("distill --teachers medsam,raddino,medclip")
    lab.vfss("segment study.mp4")
    lab.vfss("report")
    return lab


def test_json_files_are_what_the_docs_say(lab: Lab) -> None:
    paths = set(lab.folder.rglob("*.json")) - set((lab.folder / "weights").rglob("*"))
    files = {path.name: json.loads(path.read_text()) for path in paths}
    assert {"study.json", "index.json", "facts.json", "leaks.json", "run.json"} <= set(files)
    assert [name for name in files if files[name].get("schema_version") != 1] == []
    plain = {name for name in files if "provenance" not in files[name]}
    assert plain == {"facts.json", "leaks.json"}  # and start.json, of a run with `init`


def test_ingest_left_studies_and_splits(lab: Lab) -> None:
    studies = list((lab.folder / "studies").iterdir())
    assert len(studies) == 4
    assert all(len(list((study / "frames").iterdir())) == 10 for study in studies)
    assert all(len(list((study / "masks" / "c2").iterdir())) == 5 for study in studies)
    assert (lab.folder / "splits.yaml").exists()


def test_distill_left_a_run_with_three_teachers(lab: Lab) -> None:
    (run,) = (lab.folder / "runs").iterdir()
    for name in ("config.yaml", "metrics.jsonl", "student.safetensors", "student.onnx"):
        assert (run / name).stat().st_size > 0
    assert (run / "curves.svg").exists()
    assert "Not a medical device" in (run / "MODEL_CARD.md").read_text()
    assert len([one for one in (lab.folder / "cache").iterdir() if one.is_dir()]) == 3


def test_segment_used_that_run(lab: Lab) -> None:
    (run_json,) = (lab.folder / "results").rglob("run.json")
    record = json.loads(run_json.read_text())
    assert record["frames"] == 10
    assert record["model"]["name"].startswith("run-")
    assert (run_json.parent / "overlay.mp4").stat().st_size > 0
    assert len(list((run_json.parent / "masks").rglob("*.png"))) == 12 * 10
    with (run_json.parent / "frames.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == 10


def test_report_says_there_is_no_truth_for_the_new_film(lab: Lab) -> None:
    (page,) = (lab.folder / "reports").rglob("index.html")
    text = page.read_text().lower()
    assert "no truth" in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert 'src="http' not in text


def test_the_test_patients_get_their_dice(lab: Lab) -> None:
    lab.vfss("segment --split test")
    told = json.loads(lab.vfss("report --json").stdout)
    assert told["schema_version"] == 1
    (model,) = told["models"]
    assert [task["task"] for task in model["tasks"]][:2] == ["bolus", "pharynx"]
    assert all(task["n_patients"] <= 1 for task in model["tasks"])
    assert any(task["n_frames"] for task in model["tasks"])


def test_nothing_written_names_the_place_or_the_source(lab: Lab) -> None:
    secrets = [
        b"Jane Doe",
        str(lab.folder.parent).encode(),
        b"videos/",
        os.uname().nodename.encode(),
    ]
    sources = {path for name in ("videos", "new") for path in (lab.folder / name).rglob("*")}
    for path in lab.folder.rglob("*"):
        if not path.is_file() or path in sources or path.name.startswith("identities."):
            continue
        content = path.read_bytes()
        assert not [secret for secret in secrets if len(secret) > 3 and secret in content], path


def test_again_changes_nothing_and_says_so(lab: Lab) -> None:
    before = {path: path.stat().st_mtime_ns for path in (lab.folder / "studies").rglob("*")}
    assert "4 skipped" in lab.vfss("ingest videos/").stdout
    assert before == {path: path.stat().st_mtime_ns for path in (lab.folder / "studies").rglob("*")}
    told = json.loads(lab.vfss("segment study.mp4 --json").stdout)
    assert [study["existed"] for study in told["studies"]] == [True]


def test_the_guard_would_have_seen_a_connection(lab: Lab) -> None:
    code = "import socket; socket.create_connection(('127.0.0.1', 9))"
    done = subprocess.run([sys.executable, "-c", code], env=lab.environment, check=False)
    assert done.returncode == 99
