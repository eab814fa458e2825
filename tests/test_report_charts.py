"""Charts of the pages with a lab's own task sets: whatever names and however many models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vfss_distill.colours import LINES
from vfss_distill.evaluate import compare_figures, figures
from vfss_distill.evaluate.metrics import Score
from vfss_distill.evaluate.paired import Comparison, compare_rows
from vfss_distill.evaluate.plot_words import fitted, inches
from vfss_distill.evaluate.statistics import Row, summarise
from vfss_distill.tasks import VFSS12, Task, TaskSet

NAMES = (
    "Upper oesophageal sphincter",
    "Posterior pharyngeal wall (incl. pre-vertebral tissue)",
    "upper_oesophageal_sphincter_opening_of_the_adult",
    "Base of tongue and valleculae",
)
LONG = TaskSet(
    "long",
    tuple(Task(task.id, name, task.colour) for task, name in zip(VFSS12, NAMES, strict=False)),
)
MODEL = "a-rather-long-name-of-a-model-with-everything-in-it-2026"


def rows(gain: float) -> list[Row]:
    random = np.random.default_rng(3)
    return [
        Row(f"s{n}", f"p{n}", 0, task, Score(0.7 + gain + random.normal(0, 0.05), 3.0, 9, 9))
        for n in range(8)
        for task in LONG.ids
    ]


def compared(gain: float = 0.02) -> Comparison:
    return compare_rows(rows(0), rows(gain), LONG.ids, resamples=50)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Figure]]:
    """The figures instead of their SVG, in the font they are drawn with."""
    made: list[Figure] = []

    def keep(figure: Figure, label: str, **_: Any) -> str:
        made.append(figure)
        return ""

    monkeypatch.setattr(figures, "as_svg", keep)
    monkeypatch.setattr(compare_figures, "as_svg", keep)
    with mpl.rc_context(figures.STYLE):
        yield made


def test_no_name_is_cut_off_by_the_edge_or_by_another(drawn: list[Figure]) -> None:
    found = compared()
    figures.patient_dice(summarise(rows(0), LONG.ids), LONG)
    areas = {task: np.full(9, 50.0) for task in LONG.ids}
    figures.areas_over_time([n / 9 for n in range(9)], areas, {}, LONG)
    compare_figures.forest([(MODEL, found)], LONG, MODEL[::-1])
    compare_figures.patients_in_pairs(found, LONG)
    assert len(drawn) == 4
    for figure in drawn:
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        edge = figure.bbox
        for axes in figure.axes:
            named = [axes.title, axes._left_title, *axes.texts, *axes.get_yticklabels()]
            for text in (one for one in named if one.get_text() and axes.get_visible()):
                box = text.get_window_extent()
                assert box.x0 >= edge.x0 and box.x1 <= edge.x1, text
                if text not in axes.get_yticklabels():  # some lie outside, and are not drawn
                    assert box.y0 >= edge.y0 and box.y1 <= edge.y1, text
        titles = [axes._left_title for axes in figure.axes if axes.get_visible()]
        sides = [text for axes in figure.axes for text in axes.texts]
        for some in (titles, sides):
            boxes = [text.get_window_extent() for text in some if text.get_text()]
            for n, box in enumerate(boxes):
                assert not any(box.overlaps(other) for other in boxes[n + 1 :])


def test_one_task_alone_does_not_fill_the_page() -> None:
    areas = {"bolus": np.full(9, 50.0)}
    svg = figures.areas_over_time([n / 9 for n in range(9)], areas, {}, VFSS12)
    assert 'style="max-width:' in svg.partition(">")[0]


def test_more_models_than_colours_are_told_apart_by_shape() -> None:
    signs = [(compare_figures.colour(n), compare_figures.sign(n)) for n in range(4 * len(LINES))]
    assert len(set(signs)) == len(signs)


def test_hollow_is_what_is_not_told_apart(drawn: list[Figure]) -> None:
    """Six patients or more, and an interval without 0."""
    few = [row for row in rows(0) if row.patient < "p5"]
    more = [row for row in rows(0.3) if row.patient < "p5"]
    for found, filled in (
        (compared(0.3), True),
        (compare_rows(few, more, LONG.ids, resamples=50), False),
    ):
        compare_figures.forest([("m", found)], LONG, "base")
        for marks in drawn.pop().axes[0].collections:
            assert (tuple(marks.get_facecolor()[0]) != (1, 1, 1, 1)) is filled


def test_words_are_fitted() -> None:
    assert fitted("bolus", 2, 9) == "bolus"
    assert fitted("", 2, 9) == ""
    for lines in (1, 2):
        made = fitted(NAMES[1], 1.3, 9, lines=lines)
        assert len(made.split("\n")) == lines and made.endswith("…") and inches(made, 9) <= 1.3
    made = fitted(NAMES[3], 1.3, 9, lines=2)
    assert made.replace("\n", " ") == NAMES[3] and inches(made, 9) <= 1.3
