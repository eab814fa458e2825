"""MODEL_CARD.md of a run: what the student learned from, what it reached, what it must not do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..config import DistillConfig
from ..counting import counted, over_tasks
from ..models.students import FULL_SIZE_TEACHERS
from ..models.trained_on import NOTHING, TrainedOn
from ..provenance import RESEARCH_USE_ONLY, digest_json
from .validation import mean_dice


@dataclass(frozen=True)
class CardFacts:
    """What the card states. `patients` and `frames` by part; `labels` per task in training; `cuts`:
    of some tasks the probability that some pixel must reach (certainty.py); `before`: recordings
    that the weights it started from had learned from."""

    name: str
    config: DistillConfig
    encoder_parameters: int
    parameters: int
    times_smaller: float
    teachers: Sequence[Mapping[str, str]]
    patients: Mapping[str, int]
    frames: Mapping[str, int]
    labels: Mapping[str, int]
    untrained: Sequence[str]
    val_dice: Mapping[str, float]
    cuts: Mapping[str, float]
    simulated: str
    steps: int
    start: Mapping[str, Any] = field(default_factory=dict)
    before: TrainedOn = NOTHING


def model_card(facts: CardFacts) -> str:
    """Markdown."""
    config = facts.config
    return "\n".join(
        [
            f"# Student {facts.name}",
            "",
            f"**{RESEARCH_USE_ONLY}** Not clinically validated.",
            *_simulated(facts.simulated),
            "",
            "## What it is",
            "",
            f"- Student `{config.student}`: encoder {facts.encoder_parameters:,} parameters, "
            f"{facts.parameters:,} with the decoder. "
            f"The encoder is {facts.times_smaller:.0f} times "
            f"smaller than {' + '.join(FULL_SIZE_TEACHERS)} at full size.",
            *_start(facts.start),
            f"- Input {config.image_size}×{config.image_size} grey, "
            f"{1 + 2 * config.context} channel(s); one probability map per task.",
            f"- Trained for {facts.steps} steps (alignment {config.align_steps}, "
            f"masks {config.task_steps}), seed {config.seed}, balancing `{config.balancing}`, "
            f"standardisation `{config.standardisation}`.",
            f"- Configuration digest `{digest_json(config.model_dump(mode='json'))[:16]}`; "
            "all settings in `config.yaml`.",
            "",
            "## Teachers",
            "",
            *_teachers(facts.teachers),
            "",
            "## What it saw",
            "",
            "| part | patients | labelled frames |",
            "|---|---|---|",
            *(f"| {part} | {n} | {facts.frames[part]} |" for part, n in facts.patients.items()),
            "",
            *_seen_before(facts.before),
            *_untrained(facts.untrained),
            "## Validation",
            "",
            *_validation(facts),
            "",
            "## Limits",
            "",
            "- Lateral views that face left. Other views, devices or patients than those of the "
            "training may fail without a sign of it.",
            "- Validation chose the weights: the figures above flatter. `vfss report` on test "
            "patients gives the defensible ones.",
            "",
        ]
    )


def _start(start: Mapping[str, Any]) -> list[str]:
    if not start:
        return []
    if not all(
        isinstance(start.get(key), str) for key in ("licence", "filled", "source", "sha256")
    ):
        return ["- What its weights started from is not known: `start.json` is damaged."]
    licence = f", licence {start['licence']}" if start["licence"] else ""
    filled = start["filled"].replace("the ", "The ")
    source = f"`{start['source']}`{licence}, sha256 `{start['sha256'][:16]}`"
    return [f"- {filled} started from {source}."]


def _seen_before(before: TrainedOn) -> list[str]:
    if not before.complete:
        return [
            "**What it started from had learned from recordings that are not all known**: any "
            "patient may be among them, and no test of this student is surely one on unseen "
            "patients.",
            "",
        ]
    if not before.sources:
        return []
    number = counted(len(before.sources), "recording")
    return [f"What it started from had learned from {number}; these count as seen too.", ""]


def _simulated(simulated: str) -> list[str]:
    said = {
        "all": "**Trained on simulated patients only.** Its results on real ones are unknown.",
        "some": "**Trained partly on simulated patients.**",
    }
    return ["", said[simulated]] if simulated in said else []


def _teachers(teachers: Sequence[Mapping[str, str]]) -> list[str]:
    if not teachers:
        return ["None: trained on labels alone (a supervised baseline)."]
    rows = [
        f"| {' | '.join(_cell(t[key]) for key in ('name', 'title', 'licence', 'source'))} "
        f"| `{t['sha256'][:16]}` |"
        for t in teachers
    ]
    return [
        "| name | title | licence | source | weights sha256 |",
        "|---|---|---|---|---|",
        *rows,
        "",
        "Their licences may restrict what this student may be used for.",
    ]


def _cell(text: str) -> str:
    """A lab's own words as one cell of a Markdown table: no cell more, no line, no HTML."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def _untrained(tasks: Sequence[str]) -> list[str]:
    if not tasks:
        return []
    return [f"**Not trained: {', '.join(tasks)}.** The student's maps of these mean nothing.", ""]


def _validation(facts: CardFacts) -> list[str]:
    if not facts.config.task_steps:
        return ["No step had masks (`task_steps` 0): there is nothing to measure."]
    if not facts.val_dice:
        return ["No validation labels: the last averaged weights were kept, unmeasured."]
    rows = [
        f"| {task} | {facts.labels[task]} | {facts.val_dice[task]:.3f} |"
        if task in facts.val_dice
        else f"| {task} | {facts.labels[task]} | not measured |"
        for task in facts.labels
    ]
    over = over_tasks(len(facts.val_dice), len(facts.labels)) or "over tasks"
    return [
        f"Dice over {facts.patients['val']} validation patient(s), averaged over frames, then "
        f"over patients; mean {over} **{mean_dice(facts.val_dice):.3f}**.",
        "",
        "| task | training labels | Dice |",
        "|---|---|---|",
        *rows,
        *_cuts(facts.cuts),
    ]


def _cuts(cuts: Mapping[str, float]) -> list[str]:
    if not cuts:
        return []
    shown = ", ".join(f"{task} {cut:.2f}" for task, cut in cuts.items())
    return [
        "",
        f"Shown only in frames where some pixel reaches a probability of: {shown}. Set on these "
        "patients after the figures above, which are without it.",
    ]
