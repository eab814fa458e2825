"""A small network that tells how a film is looked at: lateral to either side, frontal, or neither.

Plain NumPy: 87,000 weights do not need a run-time library. Trained by `examples/view-side`, which
prepares its frames with `prepare` too, so that training and use cannot drift apart.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ..errors import WeightsMismatch, WeightsMissing
from ..letterbox import Letterbox

Floats = NDArray[np.float32]

CLASSES = ("left", "right", "frontal", "other")  # left, right: lateral, and where the face points
SIZE = 64
STRIDES = (2, 2, 1, 2, 2)
_MIRRORED = [1, 0, 2, 3]  # what each class becomes when the picture is mirrored
_FILE = "view-side.npz"
_REMEDY = "Install the package again: the file comes with it."


def prepare(grey: NDArray[Any]) -> Floats:
    """A grey frame (H, W) of any size as the network sees it: float32 (64, 64), letterboxed.

    Mean 0 and deviation 1 over the frame, so that brightness and contrast say nothing; the border
    is 0, and values beyond 3 deviations are cut.
    """
    height, width = grey.shape
    box = Letterbox.fit(height, width, SIZE)
    tight = Letterbox(height, width, SIZE, box.scaled_height, box.scaled_width, 0, 0)
    small = tight.frame(grey.astype(np.float32))[: box.scaled_height, : box.scaled_width]
    small = (small - small.mean()) / max(float(small.std()), 1.0)
    square = np.zeros((SIZE, SIZE), np.float32)
    inner = square[box.top :, box.left :][: box.scaled_height, : box.scaled_width]
    inner[:] = np.clip(small, -3, 3)
    return square


class ViewModel:
    """The packaged network. `probabilities` is exactly symmetric: a mirrored film swaps sides."""

    def __init__(self, weights: dict[str, Floats]) -> None:
        layers = range(len(STRIDES))
        self._convolutions = [(weights[f"conv{n}"], weights[f"bias{n}"]) for n in layers]
        self._last = weights["out"], weights["out_bias"]

    def probabilities(self, frames: Sequence[NDArray[Any]]) -> Floats:
        """Grey frames (H, W) → (len(frames), 4), in the order of CLASSES; each row sums to 1."""
        pictures = [prepare(shown) for grey in frames for shown in (grey, grey[:, ::-1])]
        said = _softmax(self._logits(np.stack(pictures)[:, None]))
        result: Floats = (said[::2] + said[1::2][:, _MIRRORED]) * np.float32(0.5)
        return result

    def _logits(self, x: Floats) -> Floats:
        for (weight, bias), stride in zip(self._convolutions, STRIDES, strict=True):
            x = np.maximum(_convolve(x, weight, stride) + bias[:, None, None], 0)
        weight, bias = self._last
        result: Floats = x.reshape(len(x), -1) @ weight.T + bias
        return result


@functools.cache
def packaged_model() -> ViewModel:
    """Raises WeightsMissing, WeightsMismatch."""
    path = Path(str(resources.files("vfss_distill.models"))) / "weights" / _FILE
    return load_model(path)


def load_model(path: Path) -> ViewModel:
    """A network saved by `examples/view-side`. Raises WeightsMissing, WeightsMismatch."""
    if not path.is_file():
        raise WeightsMissing("the network of views is missing", file=path.name, remedy=_REMEDY)
    try:
        with np.load(path, allow_pickle=False) as stored:
            weights = {name: stored[name].astype(np.float32) for name in stored.files}
        return ViewModel(weights)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise WeightsMismatch(
            "is not the network of views", file=path.name, remedy=_REMEDY
        ) from error


def _convolve(x: Floats, weight: Floats, stride: int) -> Floats:
    """3×3 with a border of one 0: (N, C, H, W), (O, C, 3, 3) → (N, O, H/stride, W/stride)."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    windows = windows[:, :, ::stride, ::stride]
    result: Floats = np.tensordot(windows, weight, ((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)
    return result


def _softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Floats = powers / powers.sum(axis=1, keepdims=True)
    return result
