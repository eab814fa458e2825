"""Write docs/simulated.png, the picture in README: `python docs/make_pictures.py`."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from vfss_distill.simulate import SimulateOptions, StudySimulator
from vfss_distill.simulate.preview import with_masks

TARGET = Path(__file__).parent / "simulated.png"
SEED, SIDE, LINE = 524, 236, 20
MOMENTS = {"BPM": "past the mandible", "UESO": "UES opens", "MPC": "throat shut", "rest": "rest"}


def main() -> None:
    options = SimulateOptions(
        size=384, fps=15, pulses=15, seconds=3.2, kind="swallow", polarity="dark-barium"
    )
    simulator = StudySimulator(SEED, 0, options)
    frames = list(simulator.frames())
    events = simulator.truth().events
    moments = {"in the mouth": (events["BPM"] or 0) - 3}
    moments |= {words: events[name] or 0 for name, words in MOMENTS.items()}
    columns = []
    for words, moment in moments.items():
        frame = frames[moment]
        title = np.full((LINE, SIDE, 3), 255, np.uint8)
        told = f"{frame.time_s:.2f} s  {words}"
        cv2.putText(title, told, (2, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (60,) * 3, 1, cv2.LINE_AA)
        plain = np.repeat(frame.grey[..., None], 3, axis=2)
        pair = [
            cv2.resize(x, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
            for x in (plain, with_masks(frame))
        ]
        gap = np.full((4, SIDE, 3), 255, np.uint8)
        column = np.vstack([title, pair[0], gap, pair[1]])
        columns.append(
            cv2.copyMakeBorder(column, 0, 0, 0, 4, cv2.BORDER_CONSTANT, value=(255,) * 3)
        )
    sheet = np.hstack(columns)[:, :-4]
    TARGET.write_bytes(cv2.imencode(".png", sheet)[1].tobytes())


if __name__ == "__main__":
    main()
