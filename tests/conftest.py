"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

# Two processes of pytest share two cores; by itself one may have both.
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")
# Rich would take a terminal's width from here for good; a test that needs one sets its own.
os.environ.pop("COLUMNS", None)
os.environ.pop("LINES", None)

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Outcome:
    """What a user sees of one command."""

    exit_code: int
    stdout: str
    stderr: str


Cli = Callable[..., Outcome]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """`cli("ingest", "videos", cwd=folder)`: the real command, in this process."""

    def run(*words: object, cwd: Path | None = None) -> Outcome:
        from vfss_distill.commands.main import app

        monkeypatch.chdir(cwd or tmp_path)
        result = CliRunner().invoke(app, [str(word) for word in words])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real material beside the checkout; not part of the project."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real material (../shared/data) is not here")
    return folder
