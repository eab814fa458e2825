"""A comparison's page: one HTML file that opens anywhere, offline, in the style of the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from ..pages import page_environment
from ..provenance import RESEARCH_USE_ONLY, provenance
from .compare import GAIN_RULE, verdict
from .compare_figures import colour, forest, patients_in_pairs, sign
from .metrics import HD95_DEFINITION, REPEATS_COUNT
from .paired import FEWEST_FOR_A_TEST, Comparison
from .scoring import NOT_AN_ESTIMATE
from .statistics import FEW_HAVE_A_TASK

if TYPE_CHECKING:
    from .compare import Compared
    from .entrants import Entrant


@dataclass(frozen=True)
class Section:
    """What the page shows of one model against the baseline."""

    model: Entrant
    found: Comparison
    verdict: str
    colour: str
    sign: str
    pairs: Markup


def render(compared: Compared) -> str:
    """The page as text."""
    environment = page_environment(__file__)
    environment.filters["number"] = lambda x, digits=3: "–" if x is None else f"{x:.{digits}f}"
    environment.filters["signed"] = signed
    environment.filters["interval"] = interval
    environment.filters["p"] = p_value
    environment.filters["percent"] = lambda x: f"{100 * x:.1f}"
    pairs = compared.pairs
    differences = [(entrant.name, found) for entrant, found in pairs]
    return environment.get_template("compare.html.j2").render(
        compared=compared,
        basis=compared.whose,
        forest=Markup(forest(differences, compared.tasks, compared.baseline.name)),
        sections=[
            Section(
                model=entrant,
                found=found,
                verdict=verdict(compared.baseline, entrant, found),
                colour=colour(place),
                sign=sign(place),
                pairs=Markup(patients_in_pairs(found, compared.tasks)),
            )
            for place, (entrant, found) in enumerate(pairs)
        ],
        methods=_methods(compared),
        notice=RESEARCH_USE_ONLY,
        not_an_estimate=NOT_AN_ESTIMATE,
        gain_rule=GAIN_RULE,
        fewest=FEWEST_FOR_A_TEST,
        provenance=provenance(),
    )


def signed(value: float | None, digits: int = 3) -> str:
    """`+0.012`, `−0.012`; what rounds to nothing bears no sign."""
    if value is None:
        return "–"
    if round(value, digits) == 0:
        return f"{0:.{digits}f}"
    return f"{value:+.{digits}f}".replace("-", "−")


def interval(ends: tuple[float, float] | None, digits: int = 3) -> str:
    return "–" if ends is None else f"{signed(ends[0], digits)} to {signed(ends[1], digits)}"


def p_value(value: float | None) -> str:
    if value is None:
        return "–"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _methods(compared: Compared) -> list[tuple[str, str]]:
    """Every rule by which a number on the page came about."""
    options = compared.options
    return [
        (
            "What is compared",
            "Labelled masks on which every model of this page has a result, and nothing else. "
            f"{REPEATS_COUNT} "
            "Patients that any of the models was trained or chosen on are left out unless --split "
            "train, val or all is asked for. "
            f"Asked for here: --split {options.split or 'default'}.",
        ),
        (
            "Dice of a patient",
            "The mean over the frames of all his studies that count under either model: the same "
            "frames for both. Truth and both predictions empty: not counted. Where the truth is "
            "empty and one model alone predicts something, that one has 0 and the other 1. "
            "`vfss report` does not count such a frame for the other, so its Dice there may "
            "differ, as may the baseline's from one model of this page to the next.",
        ),
        (
            "Difference",
            "Model − baseline for each patient, then the mean over patients. The mean over tasks "
            "is the mean of the tasks' means. Above 0, the model overlaps better with the truth.",
        ),
        (
            "95 % interval",
            f"Paired percentile bootstrap over patients: {options.resamples} resamples, seed "
            f"{options.seed}; a patient is drawn with the values of both models. {FEW_HAVE_A_TASK} "
            "It covers the "
            "choice of patients, not the choice of training run: models trained again with "
            f"another seed may differ by more. Where it includes 0, {GAIN_RULE}.",
        ),
        (
            "p",
            "Two-sided Wilcoxon signed-rank test on the patients' differences, exploratory. That "
            "of the mean takes each patient's mean over the tasks that he has: where some lack "
            "tasks, it weighs patients otherwise than the difference and its interval do. By task "
            "it is corrected by Holm's method over the tasks of one comparison, not over "
            f"several models. With fewer than {FEWEST_FOR_A_TEST} patients it cannot fall below "
            "0.05.",
        ),
        (
            "False positives",
            "Among labelled frames whose truth is empty (their number in parentheses), the share "
            "in which a model predicted at least one pixel. A dash: there is no such frame.",
        ),
        (
            HD95_DEFINITION.partition(":")[0],
            "The"
            + HD95_DEFINITION.partition(": the")[2]
            + " A patient's HD95 is the median over the frames in which both models have one; "
            "differences are averaged over patients. Below 0, the model's outline lies closer. "
            "Where a model draws nothing that is there, or what is not, it has none, and the frame "
            "is left out for both: the table says of how many patients and frames HD95 is, and how "
            "many each model lacks. One that leaves out what is hard can look closer than it is.",
        ),
    ]
