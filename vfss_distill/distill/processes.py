"""Several processes, one training: each takes its frames, and sums are added up over all of them.

`accelerate launch` (or torchrun) starts them and says by RANK and WORLD_SIZE who is who. Every
process draws the same whole batch and computes its own part of it. Losses and the statistics of
normalisation layers are made of sums over frames, which `total` adds up over the processes, in the
gradient too; so the training is the one a single process would have, up to rounding.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..counting import counted
from ..errors import UsageError

# One process may compute teachers' features for hours while another waits.
_PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Processes:
    """Who this process is among `world` processes. Alone, everything here does nothing."""

    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        """The one that writes and speaks."""
        return self.rank == 0

    @property
    def on_this_machine(self) -> int:
        """How many share this machine's memory."""
        return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if self.world > 1 else 1

    def part(self, count: int) -> slice:
        """This process's rows of `count`."""
        return slice(self.rank * count // self.world, (self.rank + 1) * count // self.world)

    def total(self, part: Tensor) -> Tensor:
        """Sum over processes, the same number in each; its gradient is summed as well."""
        return part if self.world == 1 else _Total.apply(part)  # type: ignore[no-any-return, no-untyped-call]

    def whole(self, part: Tensor, count: int) -> Tensor:
        """Rows of this process → all `count` rows, without gradient."""
        if self.world == 1:
            return part.detach()
        rows = torch.zeros(count, *part.shape[1:], dtype=part.dtype, device=part.device)
        rows[self.part(count)] = part.detach()
        dist.all_reduce(rows)
        return rows

    def any(self, happened: bool) -> bool:
        """Whether it happened in one of them: the others must then do the same."""
        if self.world == 1:
            return happened
        flag = torch.tensor(float(happened), device=_device())
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)

    def wait(self) -> None:
        """Until all have come this far."""
        self.any(False)

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Each parameter's gradient becomes the sum over processes."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.world == 1 or not gradients:
            return
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, summed in zip(
            gradients, flat.split([g.numel() for g in gradients]), strict=True
        ):
            gradient.copy_(summed.view_as(gradient))

    def share_statistics(self, module: nn.Module) -> None:
        """Batch norms inside `module` then see the whole batch. Names of tensors stay."""
        if self.world == 1:
            return
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, _SharedNorm(child, self))
            else:
                self.share_statistics(child)

    def check_batch(self, smallest: int, what: str = "batch_size") -> None:
        """Raises UsageError when some process would have no frame of a batch's part, `what`."""
        if smallest < self.world:
            raise UsageError(
                f"{self.world} processes, but {what} gives them only {counted(smallest, 'frame')}",
                remedy="Raise batch_size or start fewer processes.",
            )

    def agree(self, digest: str) -> bool:
        """Whether all have the same: of a digest in hex, its first digits."""
        if self.world == 1:
            return True
        number = int(digest[:15], 16)
        ends = torch.tensor([number, -number], device=_device())
        dist.all_reduce(ends, dist.ReduceOp.MAX)
        return bool(ends[0] == -ends[1])


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """This process among those it was started with; alone where no launcher started it."""
    if not is_launched():
        yield Processes()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    yield Processes(dist.get_rank(), dist.get_world_size())
    # Not after an error: NCCL would wait for the others, who wait for this process. Its end makes
    # the launcher end them.
    dist.destroy_process_group()


def is_launched() -> bool:
    """Whether a launcher started several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def local_rank() -> int:
    """Number of this process on its machine: which of its GPUs it takes."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def _device() -> torch.device:
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")


class _Total(torch.autograd.Function):
    """y = Σ x over processes. Every y feeds its own process's loss: dx = Σ dy."""

    @staticmethod
    def forward(_: Any, part: Tensor) -> Tensor:
        summed = part.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed


class _SharedNorm(nn.Module):
    """A BatchNorm2d over the frames of all processes, with the old one's tensors and names.

    torch's SyncBatchNorm needs a GPU; this one runs anywhere. timm's norms carry the activation
    that follows them.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, norm: nn.BatchNorm2d, processes: Processes) -> None:
        super().__init__()
        if norm.momentum is None or not norm.affine or not norm.track_running_stats:
            raise UsageError(
                "this student's trunk has batch norms that several processes cannot share",
                remedy="Use nano, small or base, or train with one process.",
            )
        self.weight, self.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        self.eps, self.momentum = norm.eps, norm.momentum
        self.drop = getattr(norm, "drop", None) or nn.Identity()
        self.act = getattr(norm, "act", None) or nn.Identity()
        self.processes = processes
        self.train(norm.training)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) → the same shape and dtype."""
        wide = maps.to(torch.promote_types(maps.dtype, torch.float32))
        mean, variance = self._statistics(wide) if self.training else self._running()
        scale = self.weight * torch.rsqrt(variance + self.eps)
        normalised = wide * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]
        result: Tensor = self.act(self.drop(normalised.to(maps.dtype)))
        return result

    def _running(self) -> tuple[Tensor, Tensor]:
        return self.running_mean, self.running_var

    def _statistics(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        pixels = maps.new_full((1,), maps.numel() / maps.shape[1])
        sums = self.processes.total(torch.cat([maps.sum((0, 2, 3)), pixels]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        # A second pass, as means far from zero would eat the digits of E[x²] - E[x]².
        squares = (maps - mean[:, None, None]).square().sum((0, 2, 3))
        variance = self.processes.total(squares) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked += 1
        return mean, variance
