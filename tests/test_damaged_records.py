"""A `study.json` that cannot be read: what goes on without that study, and what must not."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import Cli
from tiny_studies import small_world
from vfss_distill.errors import DataError
from vfss_distill.intake.study import list_studies


@pytest.mark.parametrize(
    "words", [("distill", "--teachers", "none", "--device", "cpu"), ("ingest", "--lock-test")]
)
def test_what_a_missing_study_would_change_stops_and_names_all(
    words: tuple[str, ...], tmp_path: Path, cli: Cli
) -> None:
    workspace = small_world(tmp_path)
    first, second, *_ = list_studies(workspace)
    (first.folder / "study.json").write_text("{")
    (second.folder / "study.json").unlink()
    before = workspace.splits_file.read_bytes()
    outcome = cli(*words)
    assert outcome.exit_code == 4
    (line,) = outcome.stderr.splitlines()
    assert f"studies/{first.id}/study.json: not readable as JSON; " in line
    assert f"studies/{second.id}/study.json: file is missing. Put study.json back" in line
    assert "move its folder out of studies/" in line
    assert workspace.splits_file.read_bytes() == before and not list(tmp_path.glob("runs/*"))
    (second.folder / "study.json").write_text("[]")
    with pytest.raises(DataError, match="holds no JSON object"):
        list_studies(workspace)
