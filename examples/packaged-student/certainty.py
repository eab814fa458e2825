"""Set the student's cuts for the surest pixel on more patients than a run's validation has.

    python certainty.py WORKSPACE RUN      # minutes; then `vfss export RUN` writes the ONNX file

Three false alarms in two hundred frames cannot be read off the frames of 32 patients. These are
300 others of the training ranges, neither trained on nor tested with.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from vfss_distill.distill.certainty import set_certainty
from vfss_distill.distill.data import Frames, LabelledFrames, labelled_keys, memory_budget
from vfss_distill.intake.study import list_studies
from vfss_distill.models.students import load_student, replace_weights
from vfss_distill.workspace import Workspace, read_json

FILMS = "--patients 300 --seed 930000 --size 256 --fps 12 --frames 24 --label-every 4 --workers 2"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace", type=Path, help="for the 300 patients; made if need be")
    parser.add_argument("run", type=Path, help="folder of the run, changed in place")
    options = parser.parse_args()
    options.workspace.mkdir(parents=True, exist_ok=True)
    for words in (f"simulate films {FILMS} --quiet", "ingest films --quiet"):
        command = [sys.executable, "-m", "vfss_distill", *words.split()]
        subprocess.run(command, cwd=options.workspace, check=True, stdout=subprocess.DEVNULL)
    path = options.run / "student.safetensors"
    student = load_student(path)
    tasks, size = student.config.tasks, student.config.image_size
    studies = list_studies(Workspace(options.workspace))
    keys = labelled_keys(studies, tasks)
    budget = memory_budget()
    frames = Frames(studies, keys, size=size, context=student.config.context, budget_bytes=budget)
    labelled = LabelledFrames(frames, keys, tasks, budget_bytes=budget)
    usual = read_json(options.run / "facts.json")["spine_px"]
    for line in set_certainty(student, labelled, usual):
        print(line)
    replace_weights(student, path)


if __name__ == "__main__":
    main()
