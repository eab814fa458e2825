"""Documents that cannot rot: the command reference, the README's commands and links."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT, Cli
from vfss_distill.config import DistillConfig
from vfss_distill.evaluate.definitions import DEFINITIONS

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_command_reference_is_what_help_says() -> None:
    code = "from make_cli import reference; print(reference(), end='')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "docs", capture_output=True, text=True, check=True
    )
    written = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert done.stdout == written, "run: python docs/make_cli.py"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_documents_exist_with_their_options(document: Path, cli: Cli) -> None:
    shown: dict[str, str] = {}
    for line in re.findall(r"^\s*(?:\$ )?vfss ([^\n#|&`]+)", document.read_text(), re.MULTILINE):
        words = line.split()
        if not re.fullmatch(r"[a-z]+", words[0]):
            continue
        if words[0] not in shown:
            helped = cli(words[0], "--help")
            assert helped.exit_code == 0, f"{document.name}: vfss {line}"
            shown[words[0]] = helped.stdout
        for option in (word.split("=")[0] for word in words if word.startswith("--")):
            assert option in shown[words[0]] or words[0] == "teachers", f"{document.name}: {line}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if not link.startswith("http"):
            assert (document.parent / link).exists(), f"{document.name} → {link}"


def test_documents_name_no_absolute_path_and_no_registry() -> None:
    bad = re.compile(r"/(?:home|root|work|Users)/|pypi\.org|simple/")
    for path in (*DOCUMENTS, ROOT / "constraints.txt", ROOT / "pyproject.toml"):
        assert not bad.search(path.read_text()), path.name


def test_the_page_of_settings_has_all_with_their_defaults() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    table = page.partition("## All settings")[2].partition("| variable |")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", table, re.MULTILINE)
    words = {"": "empty: random weights", (): "`[]`", str({}): "all 1"}
    names, told = zip(*rows, strict=True)
    assert names == tuple(DistillConfig.model_fields)
    for name, default in zip(names, told, strict=True):
        real = DistillConfig.model_fields[name].get_default(call_default_factory=True)
        if isinstance(real, bool):
            assert default == str(real).lower(), name
        elif isinstance(real, int | float):
            assert float(default) == real, name
        elif name == "teachers":
            assert default == "none named"
        else:
            assert default == words.get(real if isinstance(real, tuple) else str(real), real), name


def test_the_page_of_measures_says_what_the_report_says() -> None:
    page = (ROOT / "docs" / "measures.md").read_text(encoding="utf-8").partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| (.+) \|$", page, re.MULTILINE))
    assert rows == DEFINITIONS
