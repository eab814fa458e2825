"""Cached features as numbers on the disk: half floats, or a byte each with a scale per channel.

The checksum is over the numbers themselves, so that a bit that flipped on a disk is found before a
student learns from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Numbers = Literal["float16", "int8"]

BYTES: Mapping[str, int] = {"float16": 2, "int8": 1}
_STEPS = 127


def pack(features: Tensor, numbers: str) -> dict[str, Tensor]:
    """Features float16 (n, C, g, g) → the tensors of a shard.

    int8: x ≈ offset + scale · byte, offset and scale float32 (C,) over all of them.
    """
    if numbers == "float16":
        return {"features": features.contiguous()}
    wide = features.float()
    low, high = wide.amin((0, 2, 3)), wide.amax((0, 2, 3))
    offset = (low + high) / 2
    scale = ((high - low) / (2 * _STEPS)).clamp_min(1e-12)
    steps = (wide - offset[:, None, None]) / scale[:, None, None]
    packed = steps.round().clamp(-_STEPS, _STEPS).char().contiguous()
    return {"features": packed, "offset": offset, "scale": scale}


def joined(parts: Mapping[str, Tensor], more: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a shard, if there are any, and rows that are to follow them → those of both.

    int8: offset and scale are then those of each row, (n, C). One for all would pack anew what is
    there: a run that goes on would see other features than before, and twice the loss.
    """
    if not parts:
        return dict(more)
    both = {"features": torch.cat([parts["features"], more["features"]])}
    for name in more.keys() - both.keys():
        rows = [by_row(some[name], len(some["features"])) for some in (parts, more)]
        both[name] = torch.cat(rows)
    return both


def by_row(numbers: Tensor, rows: int) -> Tensor:
    """Offset or scale as a shard has them, (C,) or (n, C) → (n, C)."""
    return numbers.expand(rows, numbers.shape[-1])


def unpack(
    rows: NDArray[np.generic],
    offset: NDArray[np.float32] | None,
    scale: NDArray[np.float32] | None,
) -> NDArray[np.float32]:
    """A row (C, g, g) as it lies in a shard, its offset and scale (C,) → float32."""
    wide: NDArray[np.float32] = rows.astype(np.float32)
    if offset is not None and scale is not None:
        wide *= scale[:, None, None]
        wide += offset[:, None, None]
    return wide


def checksum(parts: Mapping[str, Tensor]) -> str:
    """sha256 over names and bytes of the tensors."""
    digest = hashlib.sha256()
    for name in sorted(parts):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(parts[name].numpy()).data)
    return digest.hexdigest()


class PackingLoss:
    """What packing costs: root mean square error as a share of the features' spread."""

    def __init__(self) -> None:
        self._error = self._spread = 0.0

    def add(self, features: Tensor, parts: Mapping[str, Tensor]) -> None:
        """Features (n, C, g, g) and what `pack` made of them, with or without other parts."""
        wide = features.double()
        back = parts["features"].double()
        if "scale" in parts:
            scale, offset = (parts[name][:, None, None] for name in ("scale", "offset"))
            back = back * scale + offset
        self._error += float((wide - back).square().sum())
        self._spread += float((wide - wide.mean((0, 2, 3), keepdim=True)).square().sum())

    @property
    def share(self) -> float:
        """0: nothing was lost."""
        return float(np.sqrt(self._error / max(self._spread, 1e-300)))
