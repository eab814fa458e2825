"""Make a run's student the mean of itself and of the student it started from.

    python average.py RUN STARTED_FROM.safetensors

Weights on the way from one to the other are as good on films like those trained on, and better on
films of another clinic (Wortsman et al. 2022, WiSE-FT, arXiv 2109.01903). What was trained stays
beside it as trained.safetensors; run again, the same comes out.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from vfss_distill.models.students import load_student, replace_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of the run, changed in place")
    parser.add_argument("start", type=Path, help="weights it started from")
    options = parser.parse_args()
    path, trained = options.run / "student.safetensors", options.run / "trained.safetensors"
    if not trained.exists():
        shutil.copyfile(path, trained)
    student, start = load_student(trained), load_student(options.start).state_dict()
    # How sure it must be of a task (`certain`) is no weight: certainty.py sets it anew.
    mean = {
        name: (value + start[name]) / 2
        for name, value in student.state_dict().items()
        if value.is_floating_point() and name != "certain"
    }
    student.load_state_dict(student.state_dict() | mean)
    replace_weights(student, path)


if __name__ == "__main__":
    main()
