"""The student translated for this processor while it trains: `compile: true`.

Half of a step on a CPU goes into small operations between the convolutions, each of which reads
and writes whole maps. torch.compile joins them. The same operations in another order: results
differ in the last bits from those without, and are the same bits on every run with it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from os import environ

import torch

from ..config import DistillConfig
from ..errors import DeviceError
from ..models.students import Student

_PARTS = ("embed", "decode")  # what the loop calls
_COMPILERS = ("g++", "clang++", "c++", "cl")  # the likeliest first


@contextmanager
def compiled(student: Student, config: DistillConfig) -> Iterator[None]:
    """Within, the parts of `student` that the loop calls are translated, if `config.compile`.

    Raises DeviceError where they cannot be: no C++ compiler, no Python headers, a trunk of a kind
    that torch cannot translate.
    """
    if not config.compile:
        yield
        return
    on_cpu = next(student.parameters()).device.type == "cpu"
    compiler = _compiler() if on_cpu else None
    from torch._dynamo.exc import TorchDynamoException  # seconds to import
    from torch._inductor import config as inductor
    from torch._inductor.exc import InductorError

    if compiler is not None:  # torch itself looks for g++ alone
        inductor.cpp.cxx = (None, compiler)
    for part in _PARTS:
        setattr(student, part, torch.compile(getattr(student, part), dynamic=False))
    try:
        yield
    except (InductorError, TorchDynamoException) as error:
        raise DeviceError(
            f"the student could not be compiled ({type(error).__name__})",
            remedy="Leave --compile out, or see why with --debug.",
        ) from error
    finally:
        for part in _PARTS:
            delattr(student, part)
        # Or the next student counts as another shape of this one, and there is a limit to those.
        torch._dynamo.reset()  # type: ignore[no-untyped-call]


def _compiler() -> str:
    """The C++ compiler to use: that of $CXX, else one that is here. Raises DeviceError."""
    named = environ.get("CXX", "").strip()
    names = [named] if named else _COMPILERS
    # The first word: "ccache g++" is a compiler too.
    found = next((name for name in names if shutil.which(name.split()[0])), None)
    if found is not None:
        return found
    if named:
        raise DeviceError(
            f"$CXX names a C++ compiler that is not here: {named}",
            remedy="Let it name one that is, or unset it.",
        )
    raise DeviceError(
        "no C++ compiler, which `compile` needs on a CPU",
        remedy="Install g++ or clang++, or leave --compile out.",
    )
