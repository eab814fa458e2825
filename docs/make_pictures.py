"""Write docs/simulated.png, the picture in README: `python docs/make_pictures.py`."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from vfss_distill.simulate import SimulateOptions, StudySimulator
from vfss_distill.simulate.preview import with_masks

TARGET = Path(__file__).parent / "simulated.png"
SEED, SIDE = 60, 240


def main() -> None:
    options = SimulateOptions(
        size=384, fps=15, pulses=15, seconds=3.2, kind="swallow", polarity="dark-barium"
    )
    simulator = StudySimulator(SEED, 0, options)
    frames = list(simulator.frames())
    events = simulator.truth().events
    at = {name: frame for name, frame in events.items() if frame is not None}
    middle = (at["UESO"] + at["UESC"]) // 2
    moments = [at["BPM"] - 3, at["BPM"] + 1, at["UESO"], middle, at["UESC"] + 2]
    columns = []
    for moment in moments:
        frame = frames[moment]
        plain = np.repeat(frame.grey[..., None], 3, axis=2)
        pair = [
            cv2.resize(x, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
            for x in (plain, with_masks(frame))
        ]
        columns.append(np.vstack(pair))
    sheet = np.hstack(columns)
    TARGET.write_bytes(cv2.imencode(".png", sheet)[1].tobytes())


if __name__ == "__main__":
    main()
