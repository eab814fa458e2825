"""Lines of one plot can be told apart by people who see red and green alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vfss_distill.colours import LINES
from vfss_distill.distill import journal
from vfss_distill.tasks import VFSS12

Array = NDArray[np.float64]

# Machado, Oliveira, Fernandes (2009), severity 1, on linear RGB.
SEEN = {
    "protan": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deutan": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
}
TO_XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
WHITE = [0.9505, 1.0, 1.089]


def lab(colour: str, seen: Sequence[Sequence[float]]) -> Array:
    """CIE L*a*b* of "#rrggbb" as somebody sees it."""
    grey = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    linear = np.where(grey <= 0.04045, grey / 12.92, ((grey + 0.055) / 1.055) ** 2.4)
    xyz = np.array(TO_XYZ) @ (np.array(seen) @ linear).clip(0, 1) / WHITE
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("kind", SEEN)
def test_any_two_lines_differ(kind: str) -> None:
    for one, other in combinations(LINES, 2):
        assert np.linalg.norm(lab(one, SEEN[kind]) - lab(other, SEEN[kind])) > 15, (one, other)


def test_curves_of_teachers_have_these_colours(tmp_path: Path) -> None:
    line = '{"step": %d, "align": {"a": 0.5, "b": 0.4, "c": 0.3}, "task": 1.0}\n'
    (tmp_path / "metrics.jsonl").write_text("".join(line % step for step in range(3)))
    journal.draw_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.svg", VFSS12)
    drawn = re.findall(r"stroke: (#\w{6})", (tmp_path / "curves.svg").read_text())
    assert set(LINES[:3]) <= set(drawn)
