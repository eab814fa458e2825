"""The report's page: one HTML file that opens anywhere, offline, and prints well."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from ..errors import DataError
from ..pages import page_environment
from ..provenance import RESEARCH_USE_ONLY, provenance
from .cases import Case
from .definitions import DEFINITIONS
from .figures import areas_over_time, patient_dice
from .measures import shown
from .metrics import HD95_DEFINITION, REPEATS_COUNT
from .pictures import Picture, worst_and_best
from .scoring import NOT_AN_ESTIMATE, ModelReport, Report
from .statistics import FEW_HAVE_A_TASK

MOST_STUDIES = 12


@dataclass(frozen=True)
class StudySection:
    """One study under one model: its areas over time, and measures when they were taken."""

    case: Case
    plot: Markup
    measures: list[dict[str, str]]


@dataclass(frozen=True)
class ModelSection:
    """What the page shows of one model."""

    model: ModelReport
    whose: str
    over: str
    dice_plot: Markup | None
    worst: list[Picture]
    best: list[Picture]
    studies: list[StudySection]
    left_out: int


def render(report: Report) -> str:
    """The page as text."""
    environment = page_environment(__file__)
    environment.filters["number"] = _number
    environment.filters["short"] = _short
    environment.filters["percent"] = lambda x: "–" if x is None else f"{100 * x:.1f} %"
    return environment.get_template("report.html.j2").render(
        report=report,
        sections=[_section(model, report.over(model)) for model in report.models],
        no_dice=_no_dice(report),
        notice=RESEARCH_USE_ONLY,
        not_an_estimate=NOT_AN_ESTIMATE,
        methods=_methods(report),
        definitions=DEFINITIONS,
        provenance=provenance(),
    )


def _no_dice(report: Report) -> str:
    """Why no model has a Dice; "" when one has."""
    reasons = [model.no_dice for model in report.models]
    return "" if "" in reasons else _sentence("; ".join(dict.fromkeys(reasons)))


def _section(model: ModelReport, over: str) -> ModelSection:
    group = model.group
    worst, best = worst_and_best(model)
    counted = model.figures.mean_dice is not None
    plot = Markup(patient_dice(model.figures, group.tasks)) if counted else None
    scored_first = sorted(group.cases, key=lambda case: (case not in group.scored, case.id))
    shown = scored_first[:MOST_STUDIES]
    return ModelSection(
        model=model,
        whose=group.whose,
        over=over,
        dice_plot=plot,
        worst=worst,
        best=best,
        studies=[_study(case, model) for case in shown],
        left_out=len(scored_first) - len(shown),
    )


def _study(case: Case, model: ModelReport) -> StudySection:
    truth: dict[str, dict[int, int]] = defaultdict(dict)
    for row in model.rows:
        if row.study == case.id:
            truth[row.task][row.frame] = row.score.truth_px
    areas = _areas(case)
    plot = areas_over_time(case.times_s, areas, truth, case.result.tasks) if areas else ""
    return StudySection(case, Markup(plot), case.measures)


def _areas(case: Case) -> dict[str, NDArray[np.float64]]:
    """None of them when the result is damaged: that is said among the failures."""
    try:
        return case.result.areas_px()
    except DataError:
        return {}


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _short(text: str) -> str:
    """A stored measure as the terminal shows it; what is no number stays."""
    try:
        return shown(float(text))
    except ValueError:
        return text


def _methods(report: Report) -> list[tuple[str, str]]:
    """Every rule by which a number on the page came about."""
    options = report.options
    return [
        (
            "What is compared",
            "Each labelled mask of a frame with the predicted mask of the same frame at the film's "
            "own size, pixels made square where they were not. Frames and tasks without a label "
            f"are not looked at; a blank label says the anatomy is absent. {REPEATS_COUNT}",
        ),
        (
            "Dice",
            "2|A∩B| ÷ (|A|+|B|), from 0 (no overlap) to 1 (identical). Truth and prediction both "
            "empty: not counted. Truth empty and something predicted: 0, counted. Truth present "
            "and nothing predicted: 0, counted.",
        ),
        (
            "Means",
            "Dice is averaged over the counted frames of a patient, then over patients. The mean "
            "Dice of a model is the mean of its tasks' means; a task without a counted frame has "
            "none. “Frames” are counted frames, “patients” those with at least one.",
        ),
        (
            "95 % intervals",
            f"Percentile bootstrap over patients, for a task those who have it; "
            f"{options.resamples} resamples, seed {options.seed}. No interval with fewer than two "
            f"patients. {FEW_HAVE_A_TASK} They cover the choice of patients, not the choice of "
            "training run.",
        ),
        (
            "False-positive rate",
            "Among labelled frames whose truth is empty, the share in which at least one pixel was "
            "predicted. A dash: there is no such frame.",
        ),
        (
            HD95_DEFINITION.partition(":")[0],
            _sentence(HD95_DEFINITION.partition(":")[2].strip())
            + " Where just one side is empty it is missing, and counted as such. The table gives "
            "the median over patients of each patient's median over frames.",
        ),
        (
            "Which studies",
            "By default test patients none of whose studies the model was trained or chosen on; "
            "where there are none, other unseen patients; failing that, patients seen in training, "
            f"marked “{NOT_AN_ESTIMATE}”. Asked for here: --split {options.split or 'default'}. "
            "Patients are split as wholes; splits.yaml says how.",
        ),
        (
            "Areas over time",
            "Predicted area in pixels of the film, made square where they were not, at the film's "
            "own time stamps (0 at the first frame). Rings: area of the truth, in studies that "
            "Dice is of (at most about 40).",
        ),
        (
            "Best and worst frames",
            "By mean Dice over the counted tasks of a frame: first one per patient, then further "
            "frames at least ten apart. Frame numbers start at 0.",
        ),
    ]


def _sentence(words: str) -> str:
    """With a capital first letter; names in it keep theirs."""
    return words[:1].upper() + words[1:]
