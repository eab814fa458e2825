"""`vfss export`: one ONNX file that says what it is and agrees with torch, or none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from conftest import Cli
from test_segment import make_film, make_study, picture
from vfss_distill.errors import DataError, ModelError
from vfss_distill.inference import export
from vfss_distill.inference.export import (
    compare_student,
    export_student,
    parity_frames,
)
from vfss_distill.inference.session import Segmenter
from vfss_distill.letterbox import RULE, Letterbox
from vfss_distill.models.students import Student, StudentConfig, build_student, save_student
from vfss_distill.provenance import sha256_file
from vfss_distill.tasks import VFSS12, TaskSet
from vfss_distill.workspace import Workspace, write_json

SIZE = 64
torch.set_num_threads(1)
NANO = StudentConfig("nano", SIZE, 0, VFSS12.ids, 8)


def real_frames(number: int = 4) -> np.ndarray:
    box = Letterbox.fit(96, 128, SIZE)
    return np.stack([box.frame(picture(index)) for index in range(number)])


def lively(student: Student, seed: int = 0) -> Student:
    """Random weights give flat maps; these give masks, so that agreement means something."""
    channels = student.input_channels
    frames = torch.from_numpy(np.repeat(real_frames()[:, None], channels, axis=1))
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        for module in student.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0  # one pass gives the statistics
        student.train()(frames)
        logits = student.eval()(frames)
        head = student.decoder.head
        head.weight.mul_(4 / logits.std())
        head.bias.sub_(logits.mean((0, 2, 3))).mul_(4 / logits.std())
    return student


@pytest.fixture(scope="module")
def student() -> Student:
    torch.manual_seed(0)
    return lively(build_student(NANO))


@pytest.fixture(scope="module")
def exported(student: Student, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("export") / "student.onnx"
    facts = {
        "thresholds": {"bolus": 0.4},
        "trained_sources": ["ab" * 32, "cd" * 8],
        "teachers": ["small-sam"],
        "simulated": "all",
    }
    report = export_student(
        student, target, name="run-007", tasks=VFSS12, frames=real_frames(), facts=facts
    )
    assert report.path == target and report.sha256 == sha256_file(target)
    assert report.max_difference < 1e-4 and report.min_dice > 0.999 and report.frames == 4
    return target


def test_one_file_with_everything_in_it(exported: Path) -> None:
    assert [path.name for path in exported.parent.iterdir()] == ["student.onnx"]
    model = onnx.load(str(exported))
    onnx.checker.check_model(model, full_check=True)
    assert max(opset.version for opset in model.opset_import) <= 20
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    values = {entry.key: entry.value for entry in model.metadata_props}
    assert values["vfss.schema_version"] == "1" and values["vfss.letterbox"] == RULE
    assert json.loads(values["vfss.provenance"])["teachers"] == ["small-sam"]
    assert "Research use only" in values["vfss.notice"]
    everything = exported.read_bytes()
    for private in (b"/work/", b"site-packages", str(Path.home()).encode() + b"/"):
        assert private not in everything, "paths of this machine in the file"


def test_the_file_says_what_it_is(exported: Path) -> None:
    segmenter = Segmenter(exported, "cpu", 1)
    assert (segmenter.name, segmenter.image_size, segmenter.context) == ("run-007", SIZE, 0)
    assert segmenter.tasks == VFSS12
    assert segmenter.thresholds["bolus"] == 0.4 and segmenter.thresholds["hyoid"] == 0.5
    assert segmenter.seen_in_training("ab" * 32) and segmenter.seen_in_training("cd" * 32)
    assert segmenter.seen_in_training("ef" * 32) is False
    assert segmenter.simulated


def test_a_file_that_does_not_name_all_it_saw_promises_nothing(
    exported: Path, tmp_path: Path
) -> None:
    model = onnx.load(str(exported))
    values = {entry.key: entry.value for entry in model.metadata_props}
    facts = json.loads(values["vfss.provenance"]) | {"trained_sources_complete": False}
    onnx.helper.set_model_props(model, values | {"vfss.provenance": json.dumps(facts)})
    onnx.save(model, str(tmp_path / "student.onnx"))
    segmenter = Segmenter(tmp_path / "student.onnx", "cpu", 1)
    assert segmenter.seen_in_training("ab" * 32) is True
    assert segmenter.seen_in_training("ef" * 32) is None


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_any_batch_agrees_with_torch(exported: Path, student: Student, batch: int) -> None:
    frames = real_frames(batch)[:, None]
    with torch.inference_mode():
        mine = torch.sigmoid(student(torch.from_numpy(frames))).numpy()
    theirs = Segmenter(exported, "cpu", 1).probabilities(frames)
    assert theirs.dtype == np.float32 and theirs.shape == (batch, 12, SIZE, SIZE)
    assert np.abs(mine - theirs).max() < 1e-4
    assert mine.std() > 0.1, "a flat map would agree with anything"


class Two(Student):
    """Behaves otherwise when it is traced: what export must not let pass."""

    def forward(self, frames: Tensor) -> Tensor:
        logits = super().forward(frames)
        return logits + 1 if torch.compiler.is_exporting() else logits


class Untraceable(Student):
    def forward(self, frames: Tensor) -> Tensor:
        logits = super().forward(frames)
        return logits if float(logits.mean()) > 0 else -logits


@pytest.mark.parametrize("kind", [Two, Untraceable])
def test_disagreement_is_refused_and_nothing_kept(kind: type[Student], tmp_path: Path) -> None:
    target = tmp_path / "student.onnx"
    target.write_bytes(b"the old one")
    with pytest.raises(ModelError) as caught:
        export_student(
            kind(NANO).eval(), target, name="x", tasks=VFSS12, frames=real_frames(), facts={}
        )
    assert "\n" not in str(caught.value)
    assert "disagree" in str(caught.value) or "cannot be exported" in str(caught.value)
    assert target.read_bytes() == b"the old one"
    assert [path.name for path in tmp_path.iterdir()] == ["student.onnx"]


def test_tasks_must_be_the_students(student: Student, tmp_path: Path) -> None:
    other = TaskSet("other", VFSS12.tasks[::-1])
    with pytest.raises(ModelError, match="task set"):
        export_student(
            student, tmp_path / "a.onnx", name="x", tasks=other, frames=real_frames(), facts={}
        )


def make_run(place: Path, student: Student, name: str = "run-001") -> Path:
    run = place / "runs" / name
    run.mkdir(parents=True)
    save_student(student, run / "student.safetensors", {})
    write_json(
        run / "facts.json",
        {"schema_version": 1, "name": name, "tasks": VFSS12.to_dict(), "simulated": "none"},
    )
    return run


def test_export_then_segment(cli: Cli, tmp_path: Path) -> None:
    """The command, with a student that sees neighbours."""
    torch.manual_seed(1)
    context = StudentConfig("nano", SIZE, 1, VFSS12.ids, 8)
    run = make_run(tmp_path, lively(build_student(context)))
    make_study(tmp_path, "paaaaaaaa-111111", "paaaaaaaa", "1" * 64)
    result = cli("export", "--json")
    assert result.exit_code == 0, result.stderr
    printed = json.loads(result.stdout)
    assert printed["schema_version"] == 1 and printed["file"] == "runs/run-001/student.onnx"
    assert printed["model"]["sha256"] == sha256_file(run / "student.onnx")
    assert printed["parity"]["max_difference"] <= 1e-3 and printed["parity"]["frames"] == 2

    again = cli("export")
    assert again.exit_code == 0 and "exists already" in again.stdout
    (run / "student.onnx").unlink()
    anew = json.loads(cli("export", "--json").stdout)
    assert anew["model"] == printed["model"]  # what it segmented before stays its own
    make_film(tmp_path / "study.mp4", [0.0, 0.1, 0.2])
    segmented = cli("segment", "study.mp4")
    assert segmented.exit_code == 0, segmented.stderr

    # Other weights under the same name: the old file is not taken for theirs.
    save_student(lively(build_student(context), seed=5), run / "student.safetensors", {})
    stale = cli("export")
    assert stale.exit_code == 5 and "disagree" in stale.stderr
    assert len(stale.stderr.strip().splitlines()) == 1


def test_nothing_to_export(cli: Cli, tmp_path: Path, student: Student) -> None:
    assert cli("export").exit_code == 5
    make_run(tmp_path, student)
    no_studies = cli("export")
    assert no_studies.exit_code == 4 and "vfss ingest" in no_studies.stderr
    assert cli("export", "run-009").exit_code == 5
    (tmp_path / "runs" / "run-001" / "student.safetensors").write_bytes(b"no tensors")
    assert cli("export").exit_code == 5


def test_parity_frames_are_real_ones(tmp_path: Path) -> None:
    make_study(tmp_path, "paaaaaaaa-111111", "paaaaaaaa", "1" * 64, frames=1)
    make_study(tmp_path, "pbbbbbbbb-222222", "pbbbbbbbb", "2" * 64, frames=9)
    frames = parity_frames(Workspace(tmp_path), SIZE, 1)
    assert frames.shape == (3, 3, SIZE, SIZE) and frames.dtype == np.uint8
    assert np.array_equal(frames[1, 1], Letterbox.fit(96, 128, SIZE).frame(picture(2)))


def test_parity_frames_are_of_studies_that_can_be_read(tmp_path: Path) -> None:
    for digit in "12":
        make_study(tmp_path, f"paaaaaaaa-{digit * 6}", "paaaaaaaa", digit * 64, frames=2)
    studies = tmp_path / "studies"
    (studies / "paaaaaaaa-111111" / "study.json").write_text("{")
    assert len(parity_frames(Workspace(tmp_path), SIZE, 0)) == 2
    (studies / "paaaaaaaa-222222" / "study.json").write_text("{")
    with pytest.raises(DataError, match="studies/paaaaaaaa-111111: not readable as JSON"):
        parity_frames(Workspace(tmp_path), SIZE, 0)


def test_a_pixel_on_the_threshold_is_no_disagreement() -> None:
    """Of a mask of 20 pixels it is more than a thousandth, and exporting again cannot help."""
    torchs = np.zeros((1, 2, 16, 16), bool)
    torchs[0, 0, 4:8, 4:9] = True
    onnxs = torchs.copy()
    onnxs[0, 0, 4, 4] = False
    assert export._lowest_dice(torchs, torchs) == export._lowest_dice(torchs, onnxs) == 1
    onnxs[0, 0, 7, 8] = False
    assert export._lowest_dice(torchs, onnxs) == pytest.approx(36 / 38)
    onnxs[0, 1, 0, :2] = True
    assert export._lowest_dice(torchs, onnxs) == 0


def test_compare_finds_other_weights(exported: Path, student: Student) -> None:
    other = lively(build_student(NANO), seed=3)
    assert compare_student(student, exported, real_frames()).min_dice > 0.999
    with pytest.raises(ModelError, match="disagree"):
        compare_student(other, exported, real_frames())
