"""Which device a run computes on, and what that device can do."""

from __future__ import annotations

import os
from functools import lru_cache

import torch

from ..config import DistillConfig
from ..cores import usable_cores
from ..errors import DeviceError, UsageError
from .cache import Say
from .processes import is_launched, local_rank


def pick_device(config: DistillConfig, say: Say = lambda _: None) -> torch.device:
    """`auto` is CUDA where it works. Sets torch's threads.

    `say` is told when there is a GPU that `auto` leaves alone. Raises DeviceError when `cuda` was
    asked for and not got, UsageError when a launcher started more processes than there are GPUs.
    """
    # Torch's own number is of the machine's cores, not of those that a container may use.
    torch.set_num_threads(config.threads or min(torch.get_num_threads(), usable_cores()))
    if config.device == "cpu" or (config.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise DeviceError(
            "no CUDA device that torch can use", remedy="Use --device cpu; see `vfss doctor`."
        )
    device = _own_gpu() if is_launched() else torch.device("cuda")
    if not (why := gpu_fault(device)):
        return device
    if config.device == "cuda" or is_launched():  # processes must compute on the same kind
        raise DeviceError(
            f"the GPU cannot compute ({why})", remedy="Use --device cpu; see `vfss doctor`."
        )
    say(f"warning: a GPU is here, but cannot compute ({why}): training on the CPU")
    return torch.device("cpu")


def _own_gpu() -> torch.device:
    """Of the GPUs of this machine the one with this process's number; where a launcher shows each
    process one GPU only (it does so by a variable), that one."""
    count, rank = torch.cuda.device_count(), local_rank()
    shown = 0 if count == 1 and "CUDA_VISIBLE_DEVICES" in os.environ else rank
    if shown >= count:
        raise UsageError(
            f"process {rank + 1} of this machine has no GPU: {count} to be seen",
            remedy="Start no more processes than there are GPUs, or use --device cpu.",
        )
    return torch.device("cuda", shown)


def gpu_fault(device: torch.device) -> str:
    """Why a GPU that is there cannot compute, "" where it can.

    A driver may load and count a card for which this build of torch has no code, or whose memory
    others have taken: only a kernel that runs proves anything.
    """
    try:
        torch.ones(1, device=device).add_(1).item()
    except RuntimeError as error:  # OutOfMemoryError is one
        return str(error).partition("\n")[0].rstrip(".")
    return ""


def card_budget(device: torch.device) -> int:
    """Bytes that features may take of a GPU's own memory: a third of what is free; else 0."""
    return int(torch.cuda.mem_get_info(device)[0]) // 3 if device.type == "cuda" else 0


@lru_cache(maxsize=8)
def computes_bfloat16(device: torch.device) -> bool:
    """Whether half precision makes a step faster there. Cards older than Ampere only emulate it."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
