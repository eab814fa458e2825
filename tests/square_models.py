"""Small models and films for tests of `vfss segment`: what is bright is found."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from vfss_distill.inference.record import Subject
from vfss_distill.intake.source import Frame, SourceInfo
from vfss_distill.letterbox import RULE
from vfss_distill.tasks import Task, TaskSet

TASKS = TaskSet(
    "pair", (Task("bright", "bright part", (213, 94, 0)), Task("never", "never", (0, 114, 178)))
)
SIZE = 64
WHO = Subject("s-0123456789", None, "0" * 64)


def make_model(
    path: Path, *, context: int = 0, sources: Sequence[str] = (), **changed: str | None
) -> Path:
    """A model that finds what is brighter than 150, and a task that it never finds.

    With context its channels are (previous frame, next frame), each brighter than 150.
    """
    channels = 1 + 2 * context
    picked = [0, 2] if context else [0, 0]
    levels = np.array([150, 150 if context else 999], np.float32).reshape(1, 2, 1, 1)
    nodes = [
        helper.make_node("Gather", ["frames", "picked"], ["two"], axis=1),
        helper.make_node("Cast", ["two"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["real", "levels"], ["above"]),
        helper.make_node("Mul", ["above", "steep"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        nodes,
        "bright",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["n", channels, SIZE, SIZE])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 2, SIZE, SIZE])],
        [
            numpy_helper.from_array(np.array(picked), "picked"),
            numpy_helper.from_array(levels, "levels"),
            numpy_helper.from_array(np.float32(0.2), "steep"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    metadata: dict[str, str | None] = {
        "vfss.schema_version": "1",
        "vfss.name": "bright",
        "vfss.tasks": json.dumps(TASKS.to_dict()),
        "vfss.image_size": str(SIZE),
        "vfss.context": str(context),
        "vfss.thresholds": json.dumps(dict.fromkeys(TASKS.ids, 0.5)),
        "vfss.letterbox": RULE,
        "vfss.trained_patients": json.dumps(list(sources)),
        "vfss.provenance": json.dumps({"simulated": "all"}),
        "vfss.notice": "",
        **{key.replace("__", "."): value for key, value in changed.items()},
    }
    kept = {key: value for key, value in metadata.items() if value is not None}
    helper.set_model_props(model, kept)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return path


def picture(index: int, height: int = 96, width: int = 128) -> NDArray[np.uint8]:
    """Dark grey with a bright square that moves one pixel per frame."""
    grey = np.full((height, width), 60, np.uint8)
    left = 20 + index % 40
    grey[30:62, left : left + 32] = 220
    return grey


def make_film(path: Path, times_s: Sequence[float], height: int = 96, width: int = 128) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    base = Fraction(1, 90_000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "4", "threads": "1"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.time_base = stream.codec_context.time_base = base
        for index, time_s in enumerate(times_s):
            grey = av.VideoFrame.from_ndarray(picture(index, height, width), format="gray")
            frame = grey.reformat(format="yuv420p")
            frame.pts, frame.time_base = round(time_s / base), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


class MovingSquare:
    """A source that counts how many of its frames are alive at once."""

    info = SourceInfo("video", "none", None, 30.0)
    path = Path("moving-square")

    def __init__(self, frames: int, height: int = 96, width: int = 128) -> None:
        self.number, self.size = frames, (height, width)
        self.alive = self.most = 0

    def frames(self) -> Iterator[Frame]:
        for index in range(self.number):
            grey = picture(index, *self.size)
            self.alive += 1
            self.most = max(self.most, self.alive)
            weakref.finalize(grey, self._gone)
            frame = Frame(index, index / 30, grey)
            del grey
            yield frame
            del frame

    def _gone(self) -> None:
        self.alive -= 1


def only_result(place: Path) -> Path:
    (folder,) = (place / "results").glob("*/*")
    return folder


def read_mask(path: Path) -> NDArray[np.uint8]:
    mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert mask is not None
    return mask
