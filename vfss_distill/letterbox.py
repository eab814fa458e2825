"""One rule that makes any frame a square, shared by training, export and inference.

The picture in the frame is scaled so that its longer side is S and centred on a black S×S square.
The picture is the whole frame, or what a recording leaves of it inside margins that stay black.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

RULE = "letterbox: longer side to S (area when smaller, linear when larger), centred, black"

Part = tuple[int, int, int, int]  # x, y, width, height


@dataclass(frozen=True)
class Letterbox:
    """How an H×W frame, or its `part`, lies in an S×S square; all in pixels.

    `Letterbox.fit(480, 640, 256).frame(grey)` → 256×256; `.undo(maps)` brings maps back.
    """

    height: int
    width: int
    size: int
    scaled_height: int
    scaled_width: int
    top: int
    left: int
    part: Part | None = None  # None: all of it

    @classmethod
    def fit(cls, height: int, width: int, size: int, part: Part | None = None) -> Letterbox:
        shown_width, shown_height = part[2:] if part else (width, height)
        scale = size / max(shown_height, shown_width)
        scaled_height = max(1, round(shown_height * scale))
        scaled_width = max(1, round(shown_width * scale))
        top = (size - scaled_height) // 2
        left = (size - scaled_width) // 2
        return cls(height, width, size, scaled_height, scaled_width, top, left, part)

    @property
    def shown(self) -> Part:
        """The part of the frame that is in the square: x, y, width, height."""
        return self.part or (0, 0, self.width, self.height)

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of that part."""
        x, y, width, height = self.shown
        return slice(y, y + height), slice(x, x + width)

    def mirrored(self) -> Letterbox:
        """That of the mirrored frame."""
        if self.part is None:
            return self
        x, y, width, height = self.part
        return replace(self, part=(self.width - x - width, y, width, height))

    def frame(self, grey: NDArray[Any]) -> NDArray[Any]:
        """A grey H×W frame (uint8 or float32) as S×S, same dtype."""
        import cv2  # here, so that `vfss --help` does not pay for it

        square = np.zeros((self.size, self.size), grey.dtype)
        inner = square[self.top :, self.left :][: self.scaled_height, : self.scaled_width]
        shrinks = self.size < max(self.shown[2:])
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        inner[:] = cv2.resize(
            grey[self.window], (self.scaled_width, self.scaled_height), interpolation=how
        )
        return square

    def mask(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """A binary H×W mask as S×S: a pixel is set where the mask covers more than half of it.

        Of pixels that are covered by half, which at two to one is most of a contour, every other
        one is set: all of them would make a hyoid 4 % larger.
        """
        covered = self.frame(mask.astype(np.float32))
        rows, columns = np.ogrid[: self.size, : self.size]
        result: NDArray[np.bool_] = covered > 0.5
        return result | (covered == 0.5) & ((rows + columns) % 2 == 0)

    def undo(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Maps on the square (T×S×S or S×S, float32) brought back to T×H×W or H×W, linearly; 0
        outside the part that is in the square."""
        import cv2

        single = maps.ndim == 2
        stack = maps[None] if single else maps
        inner = stack[
            :,
            self.top : self.top + self.scaled_height,
            self.left : self.left + self.scaled_width,
        ]
        out = np.zeros((len(stack), self.height, self.width), np.float32)
        for source, target in zip(inner, out, strict=True):
            target[self.window] = cv2.resize(
                np.ascontiguousarray(source), self.shown[2:], interpolation=cv2.INTER_LINEAR
            )
        return out[0] if single else out
