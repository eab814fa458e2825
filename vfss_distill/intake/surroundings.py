"""What lies around the X-ray field: tool bars, icons, logos, clocks, a camera's picture.

Blanked is what is drawn beside the rectangle around the field's hull, or in its corners clear of
the hull. Empty bars of another format are left alone: there is nothing in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from .boxes import FURNITURE, INSET, Box, boxes_outside
from .burned_in import BurnedIn, find_text
from .field import (
    DRAWN,
    MIDDLE_GREYS,
    SPECK,
    Maps,
    Mask,
    Rectangle,
    content_of,
    find_field,
    grain_size,
    hull_of,
    is_frayed,
    is_sure,
    maps_of,
    mask_of,
    window_around,
)
from .film_sample import Grey
from .inset import find_corners

_SMALLEST = 64  # pixels; of a smaller frame nothing is told
_FEWEST_DRAWN = 12  # pixels
_SEAM = 20  # pixels that a codec lets grain run over into a bar
_FLAT = 6  # grey levels


def find_to_blank(frames: Sequence[Grey]) -> BurnedIn:
    """Burned-in text and what lies around the X-ray field, in `frames`, a sample of one film,
    uint8 (H, W) each."""
    text = find_text(frames)
    around = find_surroundings(frames, text.blank)
    blank, suspect = (
        tuple(box for box in some if not any(one.holds(box) for one in around.blank))
        for some in (text.blank, text.suspect)
    )
    return BurnedIn((*around.blank, *blank), (*around.suspect, *suspect))


def told(blanked: Sequence[Box]) -> str:
    """What a user should know of boxes that were blanked, in one line; "" when there is nothing."""
    reasons = {box.reason for box in blanked}
    things = {
        FURNITURE: "what a viewer draws around the X-ray picture",
        INSET: "a second moving picture",
    }
    named = ", ".join(words for reason, words in things.items() if reason in reasons)
    return f"made black: {named}" if named else ""


def find_surroundings(frames: Sequence[Grey], text: Sequence[Box] = ()) -> BurnedIn:
    """What is drawn around the X-ray field; nothing when in doubt. Suspect: pictures that lie over
    the field. `text`: boxes that are blanked anyway."""
    if not frames or min(frames[0].shape) < _SMALLEST:
        return BurnedIn()
    maps = maps_of(frames)
    if maps is None:
        return BurnedIn()
    blank = _around_field(maps, text)
    over = find_corners(maps.mean, maps.live)
    return BurnedIn(blank, tuple(boxes_outside(over, [*blank, *text])))


def _around_field(maps: Maps, text: Sequence[Box]) -> tuple[Box, ...]:
    if (~maps.live).mean() < 2 * SPECK:
        return ()
    field = find_field(maps, text)
    if field is None:
        return ()
    hull = hull_of(field.grainy)
    frayed = is_frayed(maps, hull)
    written = mask_of(text, hull.shape)
    if not field.others and not any(_drawn_beside(maps, hull, written, frayed=frayed)):
        return ()
    hull = hull_of(field.grainy | content_of(maps, field.grainy, frayed=frayed))
    if not is_sure(maps, hull, (*text, *field.others)):
        return ()
    insets = [box for box in field.others if box.reason == INSET and not hull[box.window].any()]
    return (*_drawn_beside(maps, hull, written, frayed=frayed), *insets)


def _kept(maps: Maps, hull: Mask, *, frayed: bool) -> Rectangle:
    """The rectangle around the hull, with room for what a codec may have taken of the field, and
    without lines that are surely bar: a codec's blocks carry grain into it."""
    shape = hull.shape
    place = cv2.boundingRect(hull.view(np.uint8))
    rows, columns = window_around(place, round((0.03 if frayed else 0.004) * min(shape)), shape)
    grey, live = maps.mean[rows], maps.live[rows]
    left = columns.start + _bar_lines(grey, live, columns.start)
    right = columns.stop - _bar_lines(grey[:, ::-1], live[:, ::-1], shape[1] - columns.stop)
    grey, live = maps.mean[:, columns].T, maps.live[:, columns].T
    upper = rows.start + _bar_lines(grey, live, rows.start)
    lower = rows.stop - _bar_lines(grey[:, ::-1], live[:, ::-1], shape[0] - rows.stop)
    place = left, upper, right - left, lower - upper
    rows, columns = window_around(place, max(1, round(min(shape) / 512)), shape)
    return columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start


def _bar_lines(grey: NDArray[np.float32], live: Mask, start: int) -> int:
    """How many columns of `grey` from `start` on look like the bar of flat grey before them: nearly
    all of each, or most of it where nothing twinkles."""
    bar = grey[:, max(0, start - 6) : start]
    if bar.shape[1] < 4:
        return 0
    level = float(np.median(bar))
    if not MIDDLE_GREYS[0] <= level <= MIDDLE_GREYS[1]:
        return 0
    lines = slice(start, start + _SEAM)
    flat = (np.abs(grey[:, lines] - level) <= _FLAT).mean(axis=0)
    alike = (flat >= 0.8) | ((flat >= 0.5) & (live[:, lines].mean(axis=0) <= 0.1))
    return len(alike) if alike.all() else int(np.argmin(alike))


def _drawn_beside(maps: Maps, hull: Mask, written: Mask, *, frayed: bool) -> Iterator[Box]:
    """What is drawn above, below, left and right of the kept rectangle, in the corners of the
    frame, and in those of the rectangle."""
    kept = _kept(maps, hull, frayed=frayed)
    x, y, width, height = kept
    tall, wide = hull.shape
    right, lower = x + width, y + height
    near = max(4, round(0.015 * min(hull.shape)))  # pixels; a codec's traces of the field itself
    top, bottom, text = maps.top[:, x:right], maps.bottom[:, x:right], written[:, x:right]
    upper = _deepest(top[:y], bottom[:y], text[:y], near)
    under = _deepest(top[lower:][::-1], bottom[lower:][::-1], text[lower:][::-1], near)
    top, bottom, text = maps.top[y:lower].T, maps.bottom[y:lower].T, written[y:lower].T
    before = _deepest(top[:x], bottom[:x], text[:x], near)
    behind = _deepest(top[right:][::-1], bottom[right:][::-1], text[right:][::-1], near)
    sides = [
        Box(0, 0, wide, upper, FURNITURE),
        Box(0, tall - under, wide, under, FURNITURE),
        Box(0, y, before, height, FURNITURE),
        Box(wide - behind, y, behind, height, FURNITURE),
    ]
    yield from (box for box in sides if box.area)
    for column, across in ((0, x), (right, wide - right)):
        for row, down in ((upper, y - upper), (lower, tall - under - lower)):
            corner = Box(column, row, across, down, FURNITURE)
            if corner.area and _anything(maps.top[corner.window], maps.bottom[corner.window]):
                yield corner
    if not frayed:
        yield from _islands(maps, hull, kept)


def _drawn(top: Grey, bottom: Grey, ground: float) -> Mask:
    high, low = min(int(ground) + DRAWN, 255), max(int(ground) - DRAWN, 0)
    drawn: Mask = (top > high) | (bottom < low)
    return drawn


def _anything(top: Grey, bottom: Grey) -> bool:
    drawn = _drawn(top, bottom, float(np.median(top)))
    return int(np.count_nonzero(drawn)) >= _FEWEST_DRAWN


def _deepest(top: Grey, bottom: Grey, written: Mask, near: int) -> int:
    """How far what is drawn reaches from the frame's edge towards the field, in lines. The last
    line of `top`, `bottom` and `written` (text, blanked where it stands) is beside the field.

    A bar of flat grey counts as far as the field. Over black, nothing more than is drawn, and not
    within `near` lines: the field's darkest parts may be as black.
    """
    if len(top) < 2:
        return 0
    beside = top[-6:].astype(np.float32)
    ground = float(np.median(beside))
    flat = float((np.abs(beside - ground) <= _FLAT).mean()) >= 0.6
    drawn = _drawn(top, bottom, ground)
    if flat and MIDDLE_GREYS[0] <= ground <= MIDDLE_GREYS[1]:
        return len(top) if np.count_nonzero(drawn) >= _FEWEST_DRAWN else 0
    lines = np.count_nonzero(drawn & ~written, axis=1)[: max(len(top) - near, 0)]
    return int(np.flatnonzero(lines)[-1]) + 1 if lines.sum() >= _FEWEST_DRAWN else 0


def _islands(maps: Maps, hull: Mask, kept: Rectangle) -> Iterator[Box]:
    """What is drawn in the kept rectangle's corners, outside of the hull and clear of it."""
    side = grain_size(hull.shape)
    window = window_around(kept, 0, hull.shape)
    clear = cv2.dilate(hull[window].astype(np.uint8), np.ones((4 * side, 4 * side), np.uint8)) == 0
    if np.count_nonzero(clear) < 2 * SPECK * hull.size:
        return
    top, bottom = maps.top[window], maps.bottom[window]
    drawn = clear & _drawn(top, bottom, float(np.median(top[clear])))
    joined = cv2.dilate(drawn.astype(np.uint8), np.ones((4 * side + 1, 4 * side + 1), np.uint8))
    _, ids, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    counts = np.bincount(ids[drawn], minlength=len(stats))
    for index in range(1, len(stats)):
        x, y, width, height = (int(value) for value in stats[index, :4])
        box = Box(kept[0] + x, kept[1] + y, width, height, FURNITURE)
        if counts[index] >= _FEWEST_DRAWN and not hull[box.window].any():
            yield box
