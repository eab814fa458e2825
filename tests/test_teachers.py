"""`vfss teachers`, and the cards of teachers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Cli
from tiny_teachers import dino_state, lab_card, noise, saved, write_tiny_weights
from vfss_distill.errors import ConfigError, UsageError, WeightsMissing
from vfss_distill.models import PACKAGED_WEIGHTS
from vfss_distill.models.teachers.card import (
    FAMILIES,
    find_weights,
    list_cards,
    load_card,
    require_weights,
    weights_folders,
)
from vfss_distill.models.teachers.registry import BUILDERS, load_teacher

REAL = ("medsam", "raddino", "medclip")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_tiny_weights(tmp_path_factory.mktemp("tiny"))


def test_listing_says_what_is_found_and_where(cli: Cli, tmp_path: Path) -> None:
    write_tiny_weights(tmp_path / "weights")
    shown = json.loads(cli("teachers", "--json").stdout)
    assert shown["schema_version"] == 1
    rows = {row["name"]: row for row in shown["teachers"]}
    assert set(rows) >= {*REAL, "biomedclip", "small-sam", "small-dino", "small-clip"}
    assert rows["raddino"]["where"] == "weights/rad-dino/model.safetensors"
    assert rows["biomedclip"]["found"] is False and rows["biomedclip"]["where"] is None
    assert all(row["licence"] and row["source"] and row["file"] for row in rows.values())
    assert str(tmp_path) not in json.dumps(shown)

    words = cli("teachers").stdout
    assert "weights/medsam_vit_b.pth" in words
    assert "https://github.com/bowang-lab/MedSAM" in words


def test_listing_finds_files_of_the_environment_without_naming_folders(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_weights(tmp_path / "Dr Who")
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("VFSS_WEIGHTS", str(tmp_path / "Dr Who"))
    outcome = cli("teachers", "--json", cwd=empty)
    rows = {row["name"]: row for row in json.loads(outcome.stdout)["teachers"]}
    assert rows["medsam"]["where"] == "$VFSS_WEIGHTS/medsam_vit_b.pth"
    assert "Dr Who" not in outcome.stdout


def test_listing_imports_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, typer\nfrom vfss_distill.commands import teachers\n"
        "app = typer.Typer()\nteachers.register(app)\n"
        "try: app(['teachers', '--json'])\nexcept SystemExit: pass\n"
        "print([name for name in ('torch', 'numpy', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.strip().endswith("[]")


def test_check_says_what_a_file_is(cli: Cli, tiny: dict[str, Path]) -> None:
    words = cli("teachers", "check", "medsam", tiny["medsam"]).stdout
    assert "segment-anything" in words and "32 × 8 × 8" in words
    facts = json.loads(cli("teachers", "check", "medclip", tiny["medclip"], "--json").stdout)
    assert facts["layout"] == "MedCLIP, Swin, transformers 4 names"
    assert (facts["channels"], facts["grid"]) == (64, 7)
    assert "logit_scale" in facts["dropped"]
    assert facts["file"] == "pytorch_model.bin" and len(facts["fingerprint"]) == 64


def test_check_without_a_file_takes_the_one_found(cli: Cli, tmp_path: Path) -> None:
    missing = cli("teachers", "check", "raddino")
    assert missing.exit_code == 5
    assert "https://huggingface.co/microsoft/rad-dino" in missing.stderr
    write_tiny_weights(tmp_path / "weights")
    assert "64 × 8 × 8" in cli("teachers", "check", "raddino").stdout


@pytest.mark.parametrize("name", REAL)
def test_check_refuses_another_networks_file(cli: Cli, tiny: dict[str, Path], name: str) -> None:
    for other in set(REAL) - {name}:
        outcome = cli("teachers", "check", name, tiny[other])
        assert outcome.exit_code == 5
        assert tiny[other].name in outcome.stderr and "looks like" in outcome.stderr
        assert outcome.stderr.count("\n") == 1


def test_check_knows_its_usage_errors(cli: Cli, tiny: dict[str, Path], tmp_path: Path) -> None:
    unknown = cli("teachers", "check", "gpt", tiny["medsam"])
    assert unknown.exit_code == 2 and "medsam" in unknown.stderr
    assert cli("teachers", "check", "medsam", tmp_path / "none.pth").exit_code == 5
    (tmp_path / "bad.yaml").write_text("name: Bad\n")
    assert cli("teachers", "check", "bad.yaml", tiny["medsam"]).exit_code == 4


def test_families_of_cards_are_those_that_can_be_built() -> None:
    assert set(FAMILIES) == set(BUILDERS)
    assert {card.family for card in list_cards()} <= set(FAMILIES)


def test_a_wrong_card_names_every_fault(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: My Teacher\nfamily: vgg\nlicence: MIT\nsource: x\nfile: [../w.pth, /etc/w]\n"
        "image_size: '224'\nresize: crop\nintensity: unit\nmean: [1, 2]\nstd: [0]\nsecret: 1\n"
        "folder: /tmp\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_card(str(path))
    faults = ("name", "family", "title", "file.0", "file.1", "image_size", "mean", "std", "secret")
    assert all(f"{fault}:" in str(caught.value) for fault in (*faults, "folder"))
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("text", ["", "- a\n", "name: [", "\x00"])
def test_what_is_no_card_is_a_configuration_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        load_card(str(path))


def test_a_labs_own_card_beside_its_weights_is_a_teacher(tmp_path: Path) -> None:
    path = lab_card(tmp_path / "weights")
    saved(dino_state(), tmp_path / "weights" / "ours.safetensors")
    card = load_card("ours", tmp_path)
    assert card == load_card(str(path))
    weights = require_weights(card, folders=[])
    assert load_teacher(card, weights).features(noise()).shape == (2, 64, 8, 8)
    with pytest.raises(UsageError, match="ours"):
        load_card("nobody", tmp_path)


def test_a_labs_card_replaces_a_packaged_one(tmp_path: Path) -> None:
    lab_card(tmp_path / "weights", name="raddino")
    assert load_card("raddino", tmp_path).licence == "ours"
    assert load_card("raddino").licence == "MIT"


def test_weights_are_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = tmp_path / "there", tmp_path / "more"
    monkeypatch.setenv("VFSS_WEIGHTS", os.pathsep.join(map(str, (here, there))))
    assert weights_folders(tmp_path) == [tmp_path / "weights", here, there, PACKAGED_WEIGHTS]
    card = load_card("medsam")
    assert find_weights(card, folders=weights_folders(tmp_path)) is None
    for folder in (there, here, tmp_path / "weights"):
        folder.mkdir()
        (folder / "medsam_vit_b.pth").touch()
        assert find_weights(card, folders=weights_folders(tmp_path)) == folder / card.file[0]
    with pytest.raises(WeightsMissing, match="Apache"):
        require_weights(card, folders=[])
