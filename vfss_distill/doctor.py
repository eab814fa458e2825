"""What this machine has, what is missing, and how to mend it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from .cores import cgroup_quota, cores_allowed
from .errors import ConfigError, StorageError, VfssError
from .workspace import Workspace, free_bytes, nearest

Status = Literal["ok", "warning", "failed"]

_CORE = (
    "typer",
    "rich",
    "numpy",
    "scipy",
    "pyyaml",
    "pydantic",
    "av",
    "imageio",
    "pillow",
    "jinja2",
)
_CORE_TOO = (
    "pillow",
    "matplotlib",
    "pydicom",
    "pylibjpeg",
    "pylibjpeg-openjpeg",
    "python-gdcm",
    "pyjpegls",
    "dicom-anonymizer",
)
_DISTILL = (
    "torch",
    "torchvision",
    "segment-anything",
    "transformers",
    "open-clip-torch",
    "timm",
    "monai",
    "accelerate",
    "safetensors",
    "onnx",
    "onnxscript",
)
_GPU_LIBRARIES = (
    'Run: pip install "onnxruntime-gpu[cuda,cudnn]". A card that it has no code for stays idle.'
)
# The metadata may agree and the import still fail: a CPU build beside a CUDA torchvision. And a
# driver may count a card for which this build has no code.
_TRY_TORCH = """
import torch, torchvision
print("imported", flush=True)
if torch.cuda.is_available():
    torch.ones(1, device="cuda").add_(1).item()
    print("computes")
"""
_INSTALL_ALL = 'Run: pip install "vfss-distill[all]"'


@dataclass(frozen=True)
class Check:
    """One thing looked at. `remedy` is empty when there is nothing to do."""

    name: str
    status: Status
    found: str
    remedy: str = ""


def examine(workspace: Workspace) -> list[Check]:
    """Every check, in the order of a diagnosis. Imports torch only in a process of its own."""
    checks: list[Check] = []
    for look in (_python, _packages, _onnxruntime, _opencv, _torch_pair, _codecs, _provider):
        checks += look()
    for look_at in (_machine, _disk, _model, _teachers):
        checks += look_at(workspace)
    return checks


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _python() -> Iterator[Check]:
    found = ".".join(map(str, sys.version_info[:3]))
    yield Check("Python", "ok", found)


def _packages() -> Iterator[Check]:
    for title, names, absent in (
        ("packages: core", (*_CORE, *_CORE_TOO), "failed"),
        ("packages: distill", _DISTILL, "warning"),
    ):
        missing = [name for name in names if _version(name) is None]
        if not missing:
            yield Check(title, "ok", f"all {len(names)} installed")
        elif absent == "failed":
            yield Check(title, "failed", f"missing: {', '.join(missing)}", _INSTALL_ALL)
        else:
            found = f"missing: {', '.join(missing)} (segment and report work without)"
            yield Check(title, "warning", found, _INSTALL_ALL)


def _onnxruntime() -> Iterator[Check]:
    gpu, cpu = _version("onnxruntime-gpu"), _version("onnxruntime")
    if gpu and cpu:
        yield Check(
            "ONNX Runtime",
            "failed",
            f"onnxruntime {cpu} and onnxruntime-gpu {gpu} share one folder and break each other",
            "Run: pip uninstall -y onnxruntime onnxruntime-gpu; pip install onnxruntime-gpu",
        )
    elif gpu or cpu:
        yield Check("ONNX Runtime", "ok", f"onnxruntime{'-gpu' if gpu else ''} {gpu or cpu}")
    else:
        yield Check("ONNX Runtime", "failed", "missing", "Run: pip install onnxruntime-gpu")


def _opencv() -> Iterator[Check]:
    variants = {name: _version(name) for name in ("opencv-python", "opencv-python-headless")}
    found = [f"{name} {version}" for name, version in variants.items() if version]
    if len(found) > 1:
        yield Check(
            "OpenCV",
            "warning",
            f"{' and '.join(found)} overwrite each other",
            "Run: pip uninstall -y opencv-python opencv-python-headless; pip install opencv-python",
        )
    elif found:
        yield Check("OpenCV", "ok", found[0])
    else:
        yield Check("OpenCV", "failed", "missing", "Run: pip install opencv-python")


def _torch_pair() -> Iterator[Check]:
    torch, vision = _version("torch"), _version("torchvision")
    if not torch or not vision:
        return
    wanted = _required_torch()
    pair = f"torch {torch} with torchvision {vision}"
    remedy = "Run: pip install torch==2.15.0 torchvision==0.29.2"
    if not wanted.contains(torch, prereleases=True):
        yield Check("torch pair", "failed", f"{pair}, which asks for torch {wanted}", remedy)
        return
    done = subprocess.run(
        [sys.executable, "-c", _TRY_TORCH],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if "imported" not in done.stdout:
        yield Check("torch pair", "failed", f"{pair} does not import", remedy)
    elif done.returncode:
        found = f"{pair}; the GPU cannot compute, trains on the CPU"
        yield Check("torch pair", "warning", found, "See what else uses it, and its driver's age.")
    else:
        device = "CUDA usable" if "computes" in done.stdout else "no CUDA, trains on the CPU"
        yield Check("torch pair", "ok", f"{pair}; {device}")


def _required_torch() -> SpecifierSet:
    """The torch versions that the installed torchvision says it works with."""
    for line in metadata.requires("torchvision") or ():
        requirement = Requirement(line)
        if requirement.name == "torch":
            return requirement.specifier
    return SpecifierSet()


def _codecs() -> Iterator[Check]:
    try:
        import av
    except ImportError:
        return
    missing = []
    for name, mode in (("libx264", "w"), ("h264", "r"), ("mpeg2video", "r"), ("mjpeg", "r")):
        try:
            av.codec.Codec(name, mode)
        except ValueError:
            missing.append(name)
    if missing:
        yield Check(
            "film codecs", "failed", f"missing: {', '.join(missing)}", "Run: pip install av"
        )
    else:
        yield Check("film codecs", "ok", f"PyAV {av.__version__} reads and writes H.264")


def _provider() -> Iterator[Check]:
    """ONNX Runtime lists what it was built for, not what works: ask by loading a model."""
    try:
        from .inference.session import Segmenter, packaged_model
        from .models import PACKAGED_STUDENT

        segmenter = Segmenter(packaged_model(PACKAGED_STUDENT))
    except VfssError as error:
        yield Check("inference", "failed", error.without_file, _INSTALL_ALL)
    except ImportError as error:
        yield Check("inference", "failed", f"{error.name} does not import", _INSTALL_ALL)
    else:
        found = f"the packaged model loads; runs on {segmenter.provider}"
        if why := segmenter.gpu_left_idle:
            yield Check("inference", "warning", f"{found}. {why}", _GPU_LIBRARIES)
        else:
            yield Check("inference", "ok", found)


def _machine(workspace: Workspace) -> Iterator[Check]:

    usable = cores_allowed()
    quota = cgroup_quota()
    found = f"{usable} of {os.cpu_count()} cores usable"
    if quota and usable and quota < usable:
        yield Check(
            "processor",
            "warning",
            f"{found}, but a quota allows {quota:g}",
            f"Pass --threads {max(1, int(quota))}.",
        )
    else:
        yield Check("processor", "ok", found)


def _disk(workspace: Workspace) -> Iterator[Check]:
    root = workspace.root.resolve()
    try:
        free = free_bytes(root)
    except StorageError:
        found = "the disk of the workspace is not there"
        yield Check("disk", "failed", found, "Connect it, or choose another with -w.")
        return
    found = f"{free / 1e9:.0f} GB free for the workspace"
    writable = os.access(nearest(root), os.W_OK)
    if not writable:
        yield Check("disk", "failed", "the workspace cannot be written", "Choose another with -w.")
    elif free < 5e9:
        yield Check(
            "disk", "warning", found, "Free some space: films and teacher features are big."
        )
    else:
        yield Check("disk", "ok", found)


def _model(workspace: Workspace) -> Iterator[Check]:
    from .inference.session import Segmenter, find_model

    try:
        model = find_model(workspace, None)
    except VfssError as error:
        yield Check("model", "failed", error.without_file, _INSTALL_ALL)
        return
    inside = workspace.runs.resolve() in model.resolve().parents
    where = workspace.relative(model) if inside else "the packaged default"
    try:
        Segmenter(model, "cpu")
    except ImportError:
        pass  # said under inference
    except VfssError as error:
        found = f"`vfss segment` would use {where}: {error.what}"
        yield Check("model", "failed", found, error.remedy or "Name another with --model.")
        return
    yield Check("model", "ok", f"`vfss segment` would use {where}")


def _teachers(workspace: Workspace) -> Iterator[Check]:
    from .models.teachers.card import find_weights, list_cards, weights_folders

    folders = weights_folders(workspace.root)
    faults: dict[str, ConfigError] = {}
    cards = list_cards(workspace.root, faults=faults)
    for name, fault in faults.items():
        remedy = fault.remedy or "Mend the card, or take it out of weights/."
        yield Check("teacher card", "failed", f"{name}.yaml: {fault.what}", remedy)
    found = [card.name for card in cards if find_weights(card, folders=folders)]
    absent = [card.name for card in cards if card.name not in found]
    words = f"found: {', '.join(found) or 'none'}; not here: {', '.join(absent) or 'none'}"
    remedy = "`vfss teachers` says where each is published and where to put it." if absent else ""
    yield Check("teachers", "ok" if found else "warning", words, remedy)


def tools() -> dict[str, str | None]:
    """Versions of every package that matters, None where absent."""
    names = (*_CORE, *_CORE_TOO, "onnxruntime-gpu", "onnxruntime", "opencv-python", *_DISTILL)
    return {name: _version(name) for name in names}
