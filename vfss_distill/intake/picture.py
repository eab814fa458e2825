"""Where the picture is: within margins that are black on every frame.

A recording of a workstation's screen is wide, the X-ray field in it round: half of the square that
a network sees would be spent on nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ..letterbox import Part
from .boxes import PICTURE, Box, blank_boxes
from .film_sample import Grey

_BLACK = 12  # grey levels; a codec's black is not quite black
_SPECK = 5  # pixels
_ROOM = 0.02  # of the picture's longer side, on each side: a rim that is dark
_WORTH = 0.95  # of the frame's longer side; a larger picture is left as it is
_LEAST = 0.2  # of each of the frame's sides; a smaller one is doubted


def find_picture(frames: Sequence[Grey], black: Sequence[Box] = ()) -> Box | None:
    """The rectangle outside of which all `frames` are black, with a little room around it.

    `frames`: a sample of one film, uint8 (H, W) each; `black`: boxes that will be made black. None
    where that is nearly the whole frame or hardly any of it.
    """
    if len(frames) == 0:
        return None
    top = frames[0].copy()
    for grey in frames[1:]:
        cv2.max(top, grey, top)
    blank_boxes(top, black)
    x, y, wide, high = lit_part(top)
    height, width = top.shape
    room = round(_ROOM * max(wide, high))
    left, upper = max(0, x - room), max(0, y - room)
    right, lower = min(width, x + wide + room), min(height, y + high + room)
    wide, high = right - left, lower - upper
    if wide < _LEAST * width or high < _LEAST * height:
        return None
    if max(wide, high) > _WORTH * max(width, height):
        return None
    return Box(left, upper, wide, high, PICTURE)


def lit_part(top: Grey) -> Part:
    """The rectangle outside of which a film is black, without room; of no size where all is black.

    `top`: uint8 (H, W), the brightest of all frames, pixel by pixel.
    """
    lit = cv2.morphologyEx(
        (top > _BLACK).view(np.uint8), cv2.MORPH_OPEN, np.ones((_SPECK, _SPECK), np.uint8)
    )
    x, y, wide, high = cv2.boundingRect(lit)
    return x, y, wide, high


def without_room(picture: Box, height: int, width: int) -> Part:
    """About the lit rectangle that `find_picture` had found in frames of `height` × `width`.

    A side at the frame's edge stays there: how much room was cut off is not known.
    """
    room = round(_ROOM * max(picture.width, picture.height) / (1 + 2 * _ROOM))
    x, y, wide, high = picture.part
    left, upper = x + room if x else 0, y + room if y else 0
    right, lower = x + wide, y + high
    right -= room if right < width else 0
    lower -= room if lower < height else 0
    return left, upper, right - left, lower - upper
