"""A student as an ONNX file: opened, checked, run on the CPU or a CUDA device. No torch."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cores import usable_cores
from ..errors import DeviceError, ModelError, UsageError, WeightsMissing
from ..magnification import SPINE, film_spine_px, side_for, spine_px
from ..models import PACKAGED_STUDENT, PACKAGED_WEIGHTS
from ..provenance import one_is_named, sha256_file
from ..workspace import Workspace
from .description import Description

_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
# Sums in full precision, as on the CPU: masks shall depend on the device no more than they must.
# Kernels by rule, not by trying them all at each start.
_CUDA_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
_SILENT = 4  # ONNX Runtime's severity FATAL: it would print coloured warnings on stderr


class Segmenter:
    """A model file ready to run.

    `Segmenter(path).probabilities(batch)`: uint8 (B, C, S, S) letterboxed frames → float32
    (B, T, S, S) probabilities; S is `image_size`, or any multiple of 32 from 64 on where it
    `takes_any_side`; C is 1 or, with `context` 1, 3 (previous, this, next frame). A model
    with context takes single frames too: each then stands for its neighbours. Tasks that it was not
    trained on (`untrained`) have probability 0: its maps of them mean nothing.

    `usual_spine`: how long, in pixels of a square of `image_size`, C2 to C4 is in what it learned
    from; None: not known, or it takes that side only.

    `device`: "auto" takes CUDA only where it really works, "cuda" insists on it. `threads` 0: as
    many as this process may use. `gpu_left_idle`: why "auto" runs on the CPU beside a GPU, or "".
    Raises ModelError when the file is no such model, DeviceError when `cuda` was asked for and not
    got.
    """

    def __init__(self, path: Path, device: str = "auto", threads: int = 0) -> None:
        if device not in ("auto", "cpu", "cuda"):
            raise UsageError(f"unknown device {device!r}", remedy="Use auto, cpu or cuda.")
        self.path = path
        self.sha256 = _digest(path)
        self.threads = threads or usable_cores()
        self._session = _open(path, self.threads)
        facts = Description(_described(self._session, path), path)
        self.name = facts.text("vfss.name")
        self.tasks = facts.tasks()
        self.image_size = facts.number("vfss.image_size", 32, 4096)
        self.context = facts.number("vfss.context", 0, 1)
        self.thresholds = facts.thresholds(self.tasks)
        self.trained_sources = facts.trained_sources()
        self.names_all_sources = facts.names_all_sources()
        self.simulated = facts.simulated()
        self.untrained = facts.untrained(self.tasks)
        facts.check_rule()
        self.takes_any_side = self._check_shapes()
        knows_spine = set(SPINE) <= set(self.tasks.ids) - set(self.untrained)
        use = self.takes_any_side and knows_spine
        self.usual_spine = facts.usual_spine() if use else None
        self.gpu_left_idle = ""
        if device == "cuda" and not _gpu_is_there():
            raise DeviceError(
                "no GPU here that its CUDA driver counts", remedy="Use --device auto or cpu."
            )
        if device != "cpu" and _gpu_is_there():
            self._move_to_gpu(insist=device == "cuda")
        self.provider: str = self._session.get_providers()[0]

    def _move_to_gpu(self, *, insist: bool) -> None:
        session = _open(self.path, self.threads, cuda=True)
        fault = ""
        if session.get_providers()[0] != _CUDA:
            fault = "its libraries of CUDA are not found, or are of another version"
        else:
            # That it loads says little: there may be no code for this card, or no memory left.
            shape = (1, self.channels, self.image_size, self.image_size)
            try:
                session.run(None, {"frames": np.zeros(shape, np.uint8)})
            except _runtime_errors():
                fault = "the card is of a kind it has no code for, or its memory is full"
        if not fault:
            self._session = session
            return
        self.gpu_left_idle = f"ONNX Runtime cannot use the GPU of this machine: {fault}"
        if insist:
            raise DeviceError(self.gpu_left_idle, remedy="Use --device cpu; see `vfss doctor`.")

    @property
    def channels(self) -> int:
        return 1 + 2 * self.context

    @property
    def result_name(self) -> str:
        """Folder name of this model's results: `<name>-<first 8 of sha256>`."""
        safe = re.sub(r"[^A-Za-z0-9._-]+", "-", self.name).strip(".-")[:64] or "model"
        return f"{safe}-{self.sha256[:8]}"

    def seen_in_training(self, *sources_sha256: str) -> bool | None:
        """True when one of these recordings was among those it was trained or tuned on; None when
        it names none of them, but not all that it was. Of a digest the first digits are enough."""
        if one_is_named(sources_sha256, self.trained_sources):
            return True
        return False if self.names_all_sources else None

    @property
    def warnings(self) -> tuple[str, ...]:
        """Lines on what a result of this model does not say."""
        names = ", ".join(self.tasks[task].name for task in self.untrained)
        return (f"not trained on {names}: left blank",) if names else ()

    def probabilities(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Raises DeviceError when the device gives up (memory), ModelError when the model does."""
        maps = self.raw_probabilities(batch)
        if self.untrained:
            maps[:, [self.tasks.ids.index(task) for task in self.untrained]] = 0
        return maps

    def raw_probabilities(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the network puts out, with its maps of tasks that it was not trained on."""
        if batch.shape[1] == 1 < self.channels:
            batch = np.repeat(batch, self.channels, axis=1)
        try:
            (maps,) = self._session.run(["probabilities"], {"frames": batch})
        except _runtime_errors() as error:
            if self.provider == _CUDA:
                raise DeviceError("the GPU failed", remedy="Try --device cpu.") from error
            raise ModelError("the model cannot run", file=self.path.name) from error
        result: NDArray[np.float32] = maps
        if result.shape != (len(batch), len(self.tasks), *batch.shape[2:]) or np.isnan(
            result.sum()
        ):
            raise ModelError(  # comparisons with NaN are false: nothing would be found, in silence
                "what it puts out are no maps of its tasks",
                file=self.path.name,
                remedy="Make it anew with `vfss export`.",
            )
        return result

    def side(self, squares: Iterable[NDArray[np.uint8]]) -> int:
        """Side of the square in which to show a film, so that its spine is as long as usual. Told
        from some of its frames in squares of `image_size`, (S, S) each; none is asked for where
        nothing can be told."""
        if self.usual_spine is None:
            return self.image_size
        tasks = [(self.tasks.ids.index(task), self.thresholds[task]) for task in SPINE]
        lengths = []
        for square in squares:
            (maps,) = self.probabilities(square[None, None])
            lengths.append(spine_px(*(maps[number] >= cut for number, cut in tasks)))
        return side_for(film_spine_px(lengths), self.usual_spine, self.image_size)

    def _check_shapes(self) -> bool:
        """Whether frames of any side go in, or of `image_size` only."""
        inputs = {node.name: node for node in self._session.get_inputs()}
        outputs = {node.name: node for node in self._session.get_outputs()}
        shape = list(inputs["frames"].shape[1:]) if "frames" in inputs else []
        any_side = len(shape) == 3 and not any(isinstance(side, int) for side in shape[1:])
        sides = shape[1:] if any_side else [self.image_size, self.image_size]
        fits = (
            list(inputs) == ["frames"]
            and inputs["frames"].type == "tensor(uint8)"
            and shape == [self.channels, *sides]
            and "probabilities" in outputs
            and outputs["probabilities"].type == "tensor(float)"
            and outputs["probabilities"].shape[1:2] in ([len(self.tasks)], [None])
        )
        if not fits:
            raise ModelError(
                "its inputs and outputs do not fit its own description",
                file=self.path.name,
                remedy="Make it anew with `vfss export`.",
            )
        return any_side


def find_model(workspace: Workspace, model: str | None = None) -> Path:
    """The model file meant: a path, a run's name; None: of the run that was exported last, else the
    packaged one.

    Raises WeightsMissing when there is none.
    """
    if model is not None:
        run = workspace.runs / model
        for candidate in (
            Path(model),
            Path(model) / "student.onnx",
            run / "student.onnx",
            packaged_model(model),
        ):
            if candidate.is_file():
                return candidate
        if (run / "student.safetensors").is_file():
            raise WeightsMissing(
                "this run has no student.onnx", file=model, remedy=f"Run `vfss export {model}`."
            )
        if (run / "config.yaml").is_file():
            raise WeightsMissing(
                "this run has not come to its end",
                file=model,
                remedy=f"Go on with `vfss distill --resume --name {model}`.",
            )
        raise WeightsMissing(
            "no such model", file=model, remedy="Name an ONNX file or a run; `ls runs` lists them."
        )
    if exported := exported_runs(workspace):
        return exported[-1] / "student.onnx"
    if packaged_model(PACKAGED_STUDENT).is_file():
        return packaged_model(PACKAGED_STUDENT)
    raise WeightsMissing(
        "no trained model in this workspace and none packaged",
        remedy="Run `vfss distill`, or name a model with --model FILE.",
    )


def exported_runs(workspace: Workspace) -> list[Path]:
    """Folders of the runs that have been exported, the last one at the end."""
    files = [path for path in workspace.runs.glob("*/student.onnx") if path.is_file()]
    files = [path for path in files if not path.parent.name.startswith(".")]
    files.sort(key=lambda path: (path.stat().st_mtime_ns, path.parent.name))
    return [path.parent for path in files]


def packaged_model(name: str) -> Path:
    return PACKAGED_WEIGHTS / f"{name}.onnx"


def _digest(path: Path) -> str:
    try:
        return sha256_file(path)
    except FileNotFoundError as error:
        raise WeightsMissing("no such model file", file=path.name) from error
    except OSError as error:
        raise ModelError(f"cannot be read ({error.strerror})", file=path.name) from error


_BESIDE = "session.model_external_initializers_file_folder_path"


def _open(path: Path, threads: int, *, cuda: bool = False) -> Any:
    """An ONNX Runtime session; with `cuda` there, if ONNX Runtime finds what it needs for that."""
    with _silence():
        import onnxruntime

        onnxruntime.set_default_logger_severity(_SILENT)
        if cuda:
            onnxruntime.preload_dlls()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _SILENT
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Idle threads must not spin: decoding and encoding share the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Weights in a file beside the model would be no part of its digest, and so of its name.
        options.add_session_config_entry(_BESIDE, os.devnull)
        try:
            return onnxruntime.InferenceSession(
                path.read_bytes(),
                options,
                providers=[(_CUDA, _CUDA_OPTIONS), _CPU] if cuda else [_CPU],
            )
        except _runtime_errors() as error:
            beside = "external" in str(error).lower()
            raise ModelError(
                "its weights lie in another file"
                if beside
                else "not an ONNX model that can be run",
                file=path.name,
                remedy="Name a file made by `vfss export`.",
            ) from error


def _described(session: Any, path: Path) -> dict[str, str]:
    """The model's own words, which ONNX Runtime takes apart when they are asked for."""
    try:
        words: dict[str, str] = session.get_modelmeta().custom_metadata_map
        session.get_inputs(), session.get_outputs()
    except UnicodeDecodeError as error:
        raise ModelError(
            "its description is damaged", file=path.name, remedy="Make it anew with `vfss export`."
        ) from error
    return words


@functools.cache
def _gpu_is_there() -> bool:
    """True when the driver loads and counts a device: being compiled in proves nothing."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        count = ctypes.c_int(0)
        found = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    except (OSError, AttributeError):
        return False
    return found and count.value > 0


@functools.cache
def _runtime_errors() -> tuple[type[BaseException], ...]:
    """Every exception of ONNX Runtime: they have no base class of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    found = [value for value in vars(state).values() if isinstance(value, type)]
    own = [value for value in found if issubclass(value, Exception)]
    return (*own, RuntimeError, ValueError)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """ONNX Runtime prints advice on failures we report ourselves."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
