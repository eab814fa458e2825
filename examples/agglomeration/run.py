"""Do several teachers make a better student than one? What stands behind NOTES.md.

    python run.py WORKSPACE --jobs 2            # hours on two cores; run it again to go on
    python run.py WORKSPACE --seeds 1 --arms supervised,small-sam,attention
    python run.py WORKSPACE --times 3           # with three times the steps
    python run.py WORKSPACE --size 256          # the student sees twice as fine: four times as long
    python run.py OTHER --labelled 1            # labels of one patient instead of four
    python run.py THIRD --labelled 1 --turns --times 3 --arms "small-sam,uniform and reader"
    python run.py OTHER --ceiling --arms supervised     # with the labels of all 104 patients
    python run.py WORKSPACE --table             # only the table of what is done
    python run.py OTHER --real DATA --jobs 2    # the same on 18 real patients, cine-MRI, one task

Few labels (4 simulated patients × 20 frames), 100 unlabelled patients, 40 others for the test. Of
the real patients (see ../swallow-cine-mri) 4 are labelled, 6 are not, 8 are for the test. Every arm
has the same student, frames, labels, augmentation and number of steps; an arm without teachers
spends the steps of the alignment on the labels. There are no validation patients: every arm keeps
the averaged weights of its last step. With `--turns` each seed has labelled patients of its own, so
that nothing hangs on whom a lab happens to have labelled: the next of those whose labels show every
task. Differences are paired by patient; intervals are bootstraps over patients, which know nothing
of how much a training differs from the next: the last interval does, of the differences seed by
seed (Student's t).
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lab import Lab, make_films, take_films
from scipy.stats import sem, t

from vfss_distill.claims import in_turn
from vfss_distill.config import DistillConfig, lab_tasks, load_lab, parse
from vfss_distill.distill.run import THRESHOLD, distill
from vfss_distill.evaluate.metrics import Score, score
from vfss_distill.evaluate.paired import compare_rows
from vfss_distill.evaluate.statistics import Row, summarise
from vfss_distill.inference.masks import MaskMaker
from vfss_distill.intake.study import Study, list_studies
from vfss_distill.models.students import Student, load_student
from vfss_distill.models.teachers.card import weights_folders
from vfss_distill.workspace import Workspace, atomic_path

TEACHERS = ("small-sam", "small-dino", "small-clip")
SHARED: dict[str, Any] = {
    "student": "small",
    "batch_size": 8,
    "align_steps": 100,
    "task_steps": 600,
    "warmup_steps": 30,
    "learning_rate": 0.01,
    "align_weight": 1.0,
    "align_fades": True,
    "validate_every": 10_000,
    "checkpoint_every": 400,
    "compile": True,
    "standardisation": "phi-s",
    "balancing": "uniform",
}
STEPS = SHARED["align_steps"] + SHARED["task_steps"]
# What each teacher says beyond its features. Proposals: masks it draws in unlabelled frames where
# the student, half way through the task stage, is sure.
OUTPUTS: Mapping[str, dict[str, Any]] = {
    "small-sam": {"mask_weight": 0.3, "proposal_frames": 400},
    "small-dino": {"affinity_weight": 0.3},
    "small-clip": {"embedding_weight": 0.1},
}
EVERY_OUTPUT = {key: value for said in OUTPUTS.values() for key, value in said.items()}
COLUMNS = (
    *("study", "patient", "frame", "task"),
    *(field.name for field in fields(Score)),
)
ALL = {"teachers": TEACHERS}
# A teacher of photographs (`pip install 'vfss-distill[imagenet]'`) for small-clip.
WITH = {"teachers": ("small-sam", "small-dino", "imagenet")}
# Three quarters of the frames with masks are unlabelled ones that a reader of the arm's teachers
# has read, as finely as they see.
READER: Mapping[str, Any] = {"read_share": 0.75, "grid": 32}

ARMS: dict[str, dict[str, Any]] = {
    "supervised": {"align_steps": 0, "task_steps": STEPS},
    **{name: {"teachers": (name,)} for name in TEACHERS},
    **{f"{name} and output": {"teachers": (name,), **OUTPUTS[name]} for name in TEACHERS},
    "uniform": ALL,
    "mlp": {**ALL, "balancing": "mlp"},
    "attention": {**ALL, "balancing": "attention"},
    "drop": {**ALL, "balancing": "drop"},
    "without small-clip": {"teachers": ("small-sam", "small-dino")},
    "imagenet": {"teachers": ("imagenet",)},
    "small-sam and imagenet": {"teachers": ("small-sam", "imagenet")},
    "uniform with imagenet": WITH,
    "mlp with imagenet": {**WITH, "balancing": "mlp"},
    "attention with imagenet": {**WITH, "balancing": "attention"},
    "all and outputs": {**ALL, **EVERY_OUTPUT},
    **{
        f"outputs without {name}'s": {**ALL, **EVERY_OUTPUT, **dict.fromkeys(OUTPUTS[name], 0)}
        for name in TEACHERS
    },
    "not standardised": {**ALL, "standardisation": "none"},
    "mean and deviation": {**ALL, "standardisation": "meanstd"},
}
READ = (
    *(*TEACHERS, "uniform", "mlp", "attention", "without small-clip"),
    *("imagenet", "small-sam and imagenet"),
    *("uniform with imagenet", "mlp with imagenet", "attention with imagenet"),
)
ARMS |= {f"{arm} and reader": {**ARMS[arm], **READER} for arm in READ}
ARMS["imagenet and reader of all"] = {**WITH, **READER, "read_only": ("small-sam", "small-dino")}
SINGLE = [arm for arm, settings in ARMS.items() if len(settings.get("teachers", ())) == 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument(
        "--real", type=Path, metavar="DATA", help="folder with subjNN/images, masks"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--times", type=int, default=1, help="so many times the steps")
    parser.add_argument("--size", type=int, default=128, help="of the frames the student sees")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, a core each")
    parser.add_argument("--job", action="store_true", help=argparse.SUPPRESS)  # one of them
    parser.add_argument("--labelled", type=int, default=4, help="simulated patients with labels")
    parser.add_argument("--turns", action="store_true", help="others for each seed")
    parser.add_argument(
        "--ceiling",
        action="store_true",
        help="the other simulated patients keep their labels: no teacher could say more of them",
    )
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.turns and (options.real or options.ceiling):
        parser.error("--turns is for simulated patients of whom few have labels")
    lab = Lab(options.workspace, options.times, options.size, options.turns)
    # Seeds outermost: what is done at any time is balanced.
    due = [(arm, seed) for seed in range(options.seeds) for arm in options.arms.split(",")]
    if options.job:
        for arm, seed in in_turn(
            lab.root / "scores" / "claims",
            due,
            name_of=lambda run: lab.run_name(*run),
            is_done=lambda run: lab.scores(*run).exists(),
            waiting=lambda others: print(f"{others} runs are with other jobs", flush=True),
        ):
            one_run(lab, arm, seed)
        return
    if not options.table:
        if options.real is None:
            seeds = options.seeds if options.turns else 0
            make_films(lab, options.labelled, seeds, keep_labels=options.ceiling)
        else:
            take_films(lab, options.real)
        words = [sys.executable, *sys.argv]
        jobs = [subprocess.Popen([*words, "--job"]) for _ in range(options.jobs)]
        if any([job.wait() for job in jobs]):
            sys.exit("a run failed; run this again to go on")
    print("\n".join(table(lab, options.arms.split(","), options.seeds)))


def one_run(lab: Lab, arm: str, seed: int) -> None:
    """Train and score on the test patients; the scores are what stays."""
    name = lab.run_name(arm, seed)
    workspace = lab.train_of(seed)
    folder = workspace.runs / name
    as_fine = {"image_size": lab.size, "grid": lab.size // 8}  # as the student's map
    settings = {**SHARED, **as_fine, **ARMS[arm], "seed": seed, "threads": 1}
    for stage in ("align_steps", "task_steps"):
        settings[stage] *= lab.times
    config = parse(DistillConfig, {"task_set": load_lab(lab.train).task_set, **settings})
    print(f"{arm}, seed {seed}", flush=True)
    if not (folder / "student.safetensors").exists():
        resumed = folder if (folder / "config.yaml").exists() else None
        done = distill(
            workspace,
            config,
            run_name=None if resumed else name,
            resume=resumed,
            weights_folders=weights_folders(workspace.root),
        )
        if done.interrupted:
            raise KeyboardInterrupt
    rows = list(scored(load_student(folder / "student.safetensors"), lab.test))
    target = lab.scores(arm, seed)
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for row in rows:
            where = (row.study, row.patient, row.frame, row.task)
            writer.writerow([*where, *astuple(row.score)])


def scored(student: Student, workspace: Workspace) -> Iterator[Row]:
    """Every labelled mask of the test patients against the student's, at the film's own size."""
    tasks = student.config.tasks
    for study in list_studies(workspace):
        box = study.letterbox(student.config.image_size)
        masks_of = MaskMaker(box, tasks, [THRESHOLD] * len(tasks))
        numbers = study.labelled_frames(tasks[0])
        squares = np.stack([box.frame(study.read_frame(number)) for number in numbers])
        with torch.inference_mode():
            maps = torch.sigmoid(student(torch.from_numpy(squares[:, None]))).numpy()
        for number, one in zip(numbers, maps, strict=True):
            for mask in masks_of(one):
                yield from _row(study, number, mask.task, mask.full(box.height, box.width) > 0)


def _row(study: Study, frame: int, task: str, predicted: Any) -> Iterator[Row]:
    truth = study.read_mask(task, frame)
    if truth is not None:
        yield Row(study.id, study.patient, frame, task, score(truth, predicted))


def stored(path: Path) -> list[Row]:
    def number(text: str) -> float | None:
        return float(text) if text else None

    with path.open(newline="") as stream:
        return [
            Row(
                line["study"],
                line["patient"],
                int(line["frame"]),
                line["task"],
                Score(
                    dice=number(line["dice"]),
                    hd95_px=number(line["hd95_px"]),
                    truth_px=int(line["truth_px"]),
                    predicted_px=int(line["predicted_px"]),
                ),
            )
            for line in csv.DictReader(stream)
        ]


def pooled(lab: Lab, arm: str, seeds: Sequence[int]) -> list[Row]:
    """Rows of all seeds. The seed goes into the study's name, so that rows pair seed by seed while
    the patient, who is drawn in the bootstrap, stays one."""
    return [
        replace(row, study=f"{row.study}/{seed}")
        for seed in seeds
        for row in stored(lab.scores(arm, seed))
    ]


def table(lab: Lab, asked: Sequence[str], most: int) -> Iterator[str]:
    """Markdown: these arms over the seeds that every one of them has, and each against the best
    single teacher."""
    done = {arm: [s for s in range(most) if lab.scores(arm, s).exists()] for arm in asked}
    arms = [arm for arm, seeds in done.items() if seeds]
    seeds = [s for s in range(most) if all(s in done[arm] for arm in arms)]
    if not seeds:
        yield "Nothing to compare yet."
        return
    tasks = lab_tasks(lab.train).ids
    rows = {arm: pooled(lab, arm, seeds) for arm in arms}
    figures = {arm: summarise(some, tasks) for arm, some in rows.items()}
    singles = [arm for arm in arms if arm in SINGLE]
    best = max(singles or arms, key=lambda arm: figures[arm].mean_dice or 0)
    yield f"{len(seeds)} seeds, {figures[best].n_patients} test patients; Δ against {best}."
    yield ""
    heads = ("arm", "mean Dice", "95 %", "Δ points", "95 %", "by seed", "HD95 px", *tasks)
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for arm in arms:
        found = figures[arm]
        low, high = found.mean_dice_ci95 or (np.nan, np.nan)
        delta, spread, by_seed = "", "", ""
        gain = compare_rows(rows[best], rows[arm], tasks).mean.dice
        if arm != best and gain is not None and gain.ci95 is not None:
            delta = f"{100 * gain.difference:+.1f}"
            spread = f"{100 * gain.ci95[0]:+.1f} to {100 * gain.ci95[1]:+.1f}"
            by_seed = over_seeds(lab, best, arm, seeds)
        far = [task.hd95_median_px for task in found.tasks if task.hd95_median_px is not None]
        each = " | ".join(f"{100 * (task.dice_mean or 0):.0f}" for task in found.tasks)
        yield (
            f"| {arm} | {100 * (found.mean_dice or 0):.1f} | {100 * low:.1f}-{100 * high:.1f} "
            f"| {delta} | {spread} | {by_seed} | {np.mean(far):.1f} | {each} |"
        )


def over_seeds(lab: Lab, best: str, arm: str, seeds: Sequence[int]) -> str:
    """95 % interval of the difference in points from its values seed by seed; from three on."""
    tasks = lab_tasks(lab.train).ids
    pairs = [(stored(lab.scores(best, s)), stored(lab.scores(arm, s))) for s in seeds]
    found = [compare_rows(*pair, tasks).mean.dice for pair in pairs]
    gains = [100 * one.difference for one in found if one is not None]
    if len(gains) < 3:
        return ""
    low, high = t.interval(0.95, len(gains) - 1, np.mean(gains), sem(gains))
    return f"{low:+.1f} to {high:+.1f}"


if __name__ == "__main__":
    main()
