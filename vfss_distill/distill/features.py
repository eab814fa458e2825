"""Teachers' cached features as the loop asks for them: standardised, by frame.

Where they fit they are held in memory, or in that of a GPU; else they are read from the shards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import ModelError, WorkspaceError
from .cache import HALF, Recipe, shard_path
from .data import Key, Tick
from .packing import by_row, unpack
from .standardise import Floats, Standardiser

if TYPE_CHECKING:
    from ..intake.study import Study

_CPU = torch.device("cpu")
_STATISTIC_TOKENS = 200_000


class TeacherFeatures:
    """Standardised features of one teacher by frame key, from memory where they fit."""

    def __init__(
        self, folder: Path, recipe: Recipe, studies: Sequence[Study], keys: Sequence[Key]
    ) -> None:
        self.name = recipe.teacher
        self.channels = recipe.channels
        self.grid = recipe.grid
        self.keys = list(keys)
        self.standardiser: Standardiser | None = None
        self._studies = studies
        self._folder = folder
        self._open = lru_cache(maxsize=128)(self._open_shard)
        self._row_of: dict[Key, int] = {}
        self._held: Tensor | None = None

    def tokens(self) -> Iterator[Floats]:
        """Raw tokens (n, C) of frames spread evenly over `keys`, for the statistics."""
        per_frame = self.grid * self.grid
        step = max(1, len(self.keys) * per_frame // _STATISTIC_TOKENS)
        for key in self.keys[::step]:
            yield self._raw(key)

    def hold(self, budget_bytes: int, tick: Tick = lambda *_: None) -> None:
        """Keep everything in memory, standardised, if it takes no more than the budget."""
        shape = (len(self.keys), self.channels, self.grid, self.grid)
        if HALF * int(np.prod(shape)) > budget_bytes:
            return
        held = np.empty(shape, np.float16)
        for row, key in enumerate(self.keys):
            held[row] = self._standardised(key)
            tick(row + 1, len(self.keys), f"{self.name}: features")
        self._row_of = {key: row for row, key in enumerate(self.keys)}
        self._held = torch.from_numpy(held)

    def move_to(self, device: torch.device, budget_bytes: int) -> None:
        """Keep what is held in the memory of `device` instead, if it takes no more than the budget.

        A batch of the published teachers is 35 MB: a GPU is done with it before it has been put
        together and sent.
        """
        if self._held is not None and self._held.nbytes <= budget_bytes:
            self._held = self._held.to(device)

    def batch(self, keys: Sequence[Key], device: torch.device = _CPU) -> Tensor:
        """→ float32 (B, C, g, g) on `device`, standardised. Raises WorkspaceError when a frame is
        gone."""
        if self._held is not None:
            rows = torch.tensor([self._row_of[key] for key in keys], device=self._held.device)
            stack = self._held.index_select(0, rows)
        else:
            stack = torch.from_numpy(np.stack([self._standardised(key) for key in keys]))
        return stack.to(device).to(torch.float32)  # sent in half precision: half the bytes

    def _standardised(self, key: Key) -> NDArray[np.float16]:
        # Frame by frame, so that memory or disk makes no difference to the last bit.
        tokens = self._raw(key)
        if self.standardiser is not None:
            tokens = self.standardiser(tokens)
        half = tokens.T.reshape(self.channels, self.grid, self.grid).astype(np.float16)
        self._check(half, key)
        return half

    def _raw(self, key: Key) -> Floats:
        """→ (g², C)"""
        file, row_of, packing = self._open(key[0])
        if (row := row_of.get(key[1])) is None:
            raise self._gone(key[0], f"frame {key[1]} of study")
        offset, scale = (part[row] for part in packing) if packing else (None, None)
        features = unpack(file.get_slice("features")[row : row + 1].numpy()[0], offset, scale)
        self._check(features, key)
        tokens: Floats = features.reshape(self.channels, -1).T
        return tokens

    def _check(self, features: NDArray[Any], key: Key) -> None:
        if not np.isfinite(features).all():
            raise ModelError(
                f"cached features of teacher {self.name} are not finite for study "
                f"{self._studies[key[0]].id}, frame {key[1]}",
                remedy=f"Run `vfss cache prune --teacher {self.name}`, then the same again.",
            )

    def _open_shard(self, number: int) -> tuple[Any, dict[int, int], list[NDArray[np.float32]]]:
        """→ the file, its row of each frame, offset and scale (n, C) where it has them."""
        path = shard_path(self._folder, self._studies[number].id)
        try:
            file = safe_open(path, framework="pt")  # memory-mapped; freed with the object
            frames = file.get_tensor("frames").tolist()
            packing = [name for name in ("offset", "scale") if name in file.keys()]  # noqa: SIM118
            arrays = [by_row(file.get_tensor(name), len(frames)).numpy() for name in packing]
        except (SafetensorError, OSError) as error:
            raise self._gone(number, "study") from error
        return file, {frame: row for row, frame in enumerate(frames)}, arrays

    def _gone(self, number: int, what: str) -> WorkspaceError:
        """They were there when this run filled the cache."""
        return WorkspaceError(
            f"cached features of teacher {self.name} no longer have {what} "
            f"{self._studies[number].id}: they were deleted, or an older version of vfss wrote "
            "others in their place",
            remedy="Run the same again, or `vfss distill --resume` where it has a checkpoint: that "
            "computes them anew.",
        )
