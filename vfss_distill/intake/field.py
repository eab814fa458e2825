"""The X-ray field of a film: where it twinkles. And other moving pictures beside it.

No two frames of an X-ray film have the same grain, while what a viewer draws around them stands
still to the last bit, or nearly so after a codec. So the field is where most frames differ from the
one before, and what that encloses: its convex hull, for bare beam and deep shadow have no grain.

Whatever is not surely something else counts as field. A film without grain has none: one that was
smoothed, stands still, or went through an analogue recorder, where even tool bars twinkle.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from .boxes import FURNITURE, INSET, Box
from .film_sample import Grey

Mask = NDArray[np.bool_]
Rectangle = tuple[int, int, int, int]  # x, y, width, height

MIDDLE_GREYS = (36, 231)  # an X-ray picture of such grey has grain
DRAWN = 24  # grey levels between what is drawn and its ground
WHITE = 250  # bare beam, without grain
SPECK = 0.0008  # of the frame
_FEWEST_PAIRS = 8  # of frames that differ; below, grain cannot be told from a change
_REPEAT = 0.02  # share of pixels that differ, below which a frame repeats the one before
_LIVE = 0.2  # share of pairs that differ, from which a pixel twinkles
_GRAIN = 0.35  # the same of the typical pixel of a field
_LEAST_FIELD = 0.15  # of the frame
_FRAYED = 0.02  # of what is seen in the hull stands still
_LEAST_FILL = 0.3  # of the field's rectangle twinkles
_MOST_OUTSIDE = 0.02  # of what is around the field twinkles
_MOST_PIECES = 60  # more of them: a film in tatters after a codec
_LEAST_CONTENT = 0.004  # of the frame
_STRAIGHT = 0.85  # of a border
_SOME_FRAMES = 8  # tell what stands still
_INSET_FRAME, _INSET_FIELD = 0.004, 0.6  # least share of the frame, most of the field
_GROUND = 5  # grey levels
_INSET_FILL = 0.92  # of its rectangle


class Maps(NamedTuple):
    """Of the sample, pixel by pixel. `share` float32 (0-1), see `twinkle`; `live`: twinkles;
    `top`, `bottom`, `mean`: brightest, darkest and mean of some frames."""

    share: NDArray[np.float32]
    live: Mask
    top: Grey
    bottom: Grey
    mean: NDArray[np.float32]


class Field(NamedTuple):
    """`grainy`: its pixels as far as they twinkle; `others`: boxes of what moves elsewhere, second
    pictures and parts of a viewer."""

    grainy: Mask
    others: tuple[Box, ...]


def maps_of(frames: Sequence[Grey]) -> Maps | None:
    """`frames`: a sample of one film, uint8 (H, W) each. None where too few frames differ."""
    share = twinkle(frames)
    if share is None:
        return None
    some = [frames[i] for i in np.linspace(0, len(frames) - 1, _SOME_FRAMES).astype(int)]
    top, bottom = some[0].copy(), some[0].copy()
    total = np.zeros(share.shape, np.float32)
    for grey in some:
        cv2.max(top, grey, top)
        cv2.min(bottom, grey, bottom)
        cv2.accumulate(grey, total)
    return Maps(share, share >= _LIVE, top, bottom, total * np.float32(1 / _SOME_FRAMES))


def twinkle(frames: Sequence[Grey]) -> NDArray[np.float32] | None:
    """For each pixel the share (0-1) of frames that differ from the one before, averaged over its
    neighbours. None where too few frames differ at all."""
    changes = np.zeros(frames[0].shape, np.uint8)
    one, pairs = np.empty_like(changes), 0
    for before, after in pairwise(frames):
        cv2.absdiff(before, after, one)
        cv2.min(one, 1, one)
        if cv2.countNonZero(one) >= _REPEAT * one.size:
            cv2.add(changes, one, changes)
            pairs += 1
    if pairs < _FEWEST_PAIRS:
        return None
    side = grain_size(changes.shape)
    share: NDArray[np.float32] = cv2.blur(changes.astype(np.float32), (side, side))
    share *= np.float32(1 / pairs)
    return share


def grain_size(shape: tuple[int, ...]) -> int:
    """An odd number of pixels: smaller than anything that matters, larger than grain."""
    return max(3, round(min(shape) / 100)) | 1


def mask_of(boxes: Sequence[Box], shape: tuple[int, ...]) -> Mask:
    mask = np.zeros(shape, bool)
    for box in boxes:
        mask[box.window] = True
    return mask


def _place(stats: NDArray[np.int32]) -> Rectangle:
    """The bounding box in a row of OpenCV's statistics of pieces."""
    return int(stats[0]), int(stats[1]), int(stats[2]), int(stats[3])


def window_around(place: Rectangle, pad: int, shape: tuple[int, ...]) -> tuple[slice, slice]:
    x, y, width, height = place
    rows = slice(max(0, y - pad), min(shape[0], y + height + pad))
    return rows, slice(max(0, x - pad), min(shape[1], x + width + pad))


def find_field(maps: Maps, text: Sequence[Box]) -> Field | None:
    """The largest piece that twinkles, and all others but those that are surely furniture. None
    when in doubt.

    `text`: boxes that are blanked anyway; a clock in them is no part of the field.
    """
    live = maps.live.astype(np.uint8)
    side = grain_size(live.shape)
    live = cv2.morphologyEx(live, cv2.MORPH_OPEN, np.ones((side, side), np.uint8))
    _, ids, stats, _ = cv2.connectedComponentsWithStats(live, connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    pieces = [i for i in range(1, len(areas)) if areas[i] >= SPECK * live.size]
    if not pieces or len(pieces) > _MOST_PIECES:
        return None
    main = max(pieces, key=lambda index: int(areas[index]))
    grainy = ids == main
    others: list[Box] = []
    if np.median(maps.share[::2, ::2][grainy[::2, ::2]]) < _GRAIN:
        return None
    field, written = grainy.copy(), mask_of(text, live.shape)
    grounds = _on_grounds(maps, field) if len(pieces) > 1 else []
    for index in pieces:
        piece = _Piece(ids, index, _place(stats[index]), int(areas[index]))
        window = piece.window
        own = ids[window] == index
        if index == main or written[window][own].mean() >= 0.6:
            continue
        picture = _as_picture(piece, field, grounds)
        if picture is not None:
            others.append(picture)
        elif _on_a_bar(maps, piece, field):
            others.append(Box(*piece.place, FURNITURE))
        else:
            grainy[window] |= own
    return Field(grainy, tuple(dict.fromkeys(others)))


class _Ground(NamedTuple):
    """Connected pieces of what differs from one flat grey, clear of the field, and OpenCV's
    statistics of them."""

    ids: NDArray[np.int32]
    stats: NDArray[np.int32]


def _on_grounds(maps: Maps, field: Mask) -> list[_Ground]:
    """Pieces on the two commonest greys of what stands still around the field."""
    size = 2 * grain_size(field.shape) + 1
    clear = cv2.dilate(field.view(np.uint8), np.ones((size, size), np.uint8)) == 0
    still = maps.mean[clear & ~maps.live]
    counts = np.bincount(np.rint(still).astype(np.intp), minlength=256)
    result: list[_Ground] = []
    while counts.any() and len(result) < 2:
        level = int(counts.argmax())
        counts[max(0, level - 2 * _GROUND) : level + 2 * _GROUND + 1] = 0
        drawn = clear & (maps.live | (np.abs(maps.mean - np.float32(level)) > _GROUND))
        found = cv2.connectedComponentsWithStats(drawn.view(np.uint8), connectivity=4)
        result.append(_Ground(found[1], found[2]))
    return result


class _Piece(NamedTuple):
    """A connected piece that twinkles: `ids` equals `number` there. `place`: its bounding box."""

    ids: NDArray[np.int32]
    number: int
    place: Rectangle
    area: int

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of its bounding box."""
        return window_around(self.place, 0, self.ids.shape)


def _on_a_bar(maps: Maps, piece: _Piece, field: Mask) -> bool:
    """Does flat, still, middling grey lie around it? No X-ray picture has any: it is a clock, a
    slider or a picture on a viewer's ground."""
    side = grain_size(field.shape)
    window = window_around(piece.place, 2 * side + 2, field.shape)
    own = (piece.ids[window] == piece.number).astype(np.uint8)
    near = cv2.dilate(own, np.ones((5, 5), np.uint8))
    wide = cv2.dilate(own, np.ones((4 * side + 5, 4 * side + 5), np.uint8))
    ring = (wide > near) & ~maps.live[window]
    if ring.sum() < 0.5 * np.count_nonzero(wide > near):
        return False
    grey = maps.mean[window][ring]
    level = float(np.median(grey))
    flat = float((np.abs(grey - level) <= 6).mean())
    return MIDDLE_GREYS[0] <= level <= MIDDLE_GREYS[1] and flat >= 0.6


def _as_picture(piece: _Piece, field: Mask, grounds: Sequence[_Ground]) -> Box | None:
    """The box of a second moving picture: a rectangle, with what stands still in it, on a flat
    ground and clear of the field. A piece of the field is none."""
    most = _INSET_FIELD * np.count_nonzero(field)
    if piece.area > most:
        return None
    own = piece.ids[piece.window] == piece.number
    for ids, stats in grounds:
        index = int(np.bincount(ids[piece.window][own]).argmax())
        place = _place(stats[index])
        width, height = place[2:]
        if index == 0 or not _INSET_FRAME * field.size <= width * height <= most:
            continue
        window = window_around(place, 0, field.shape)
        if not 0.25 <= width / height <= 4 or field[window].any():
            continue
        if _filled(ids[window] == index) >= _INSET_FILL * width * height:
            return Box(*place, INSET)
    return None


def _filled(piece: Mask) -> float:
    """Pixels within the outline of a connected piece."""
    outlines, _ = cv2.findContours(piece.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    drawn = np.zeros(piece.shape, np.uint8)
    cv2.drawContours(drawn, outlines, -1, 1, cv2.FILLED)
    return float(np.count_nonzero(drawn))


def is_frayed(maps: Maps, hull: Mask) -> bool:
    """Has a codec smoothed parts of the field? They are neither black nor white, and still."""
    seen = hull & (maps.mean > MIDDLE_GREYS[0]) & (maps.bottom < WHITE)
    return bool(np.count_nonzero(seen & ~maps.live) > _FRAYED * np.count_nonzero(seen))


def content_of(maps: Maps, grainy: Mask, *, frayed: bool) -> Mask:
    """What belongs to the field and does not twinkle: bare beam, and in a frayed film whatever is
    neither black nor flat grey. It borders on the field and is no bar: a bar's border is straight.
    """
    content = maps.bottom >= WHITE
    if frayed:
        mean = cv2.convertScaleAbs(maps.mean)
        flat = cv2.morphologyEx(mean, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) <= 3
        content |= (mean > DRAWN) & ~flat
    content &= ~grainy
    side = grain_size(grainy.shape)
    # Thin lines off: they join bare beam to a bar.
    thick = np.ones((side + 2, side + 2), np.uint8)
    content = cv2.morphologyEx(content.view(np.uint8), cv2.MORPH_OPEN, thick) > 0
    near = cv2.dilate(grainy.view(np.uint8), np.ones((2 * side + 1, 2 * side + 1), np.uint8)) > 0
    _, ids, stats, _ = cv2.connectedComponentsWithStats(content.view(np.uint8), connectivity=4)
    touching = np.bincount(ids[content & near], minlength=len(stats))
    own = np.zeros(len(stats), bool)
    for index in np.flatnonzero(touching[1:]) + 1:
        if stats[index, cv2.CC_STAT_AREA] >= _LEAST_CONTENT * grainy.size:
            rows, columns = np.nonzero((ids == index) & near)
            own[index] = _straight(rows, columns, side) < _STRAIGHT
    result: Mask = own[ids]
    return result


def _straight(rows: NDArray[np.intp], columns: NDArray[np.intp], side: int) -> float:
    """Share of a border's pixels that lie in its two fullest columns or its two fullest rows, each
    so many pixels wide."""
    taken = np.zeros(len(rows), bool)
    for places in (rows, columns):
        for _ in range(2):
            left = places[~taken]
            if not left.size:
                break
            counts = np.bincount(left, minlength=2 * side + 1)
            fullest = int(np.convolve(counts, np.ones(2 * side + 1), "same").argmax())
            taken |= np.abs(places - fullest) <= side
    return float(taken.mean())


def hull_of(grainy: Mask) -> Mask:
    """The convex hull of some pixels, at least one."""
    rows = np.flatnonzero(grainy.any(axis=1))
    ends = grainy[rows].argmax(axis=1), grainy.shape[1] - 1 - grainy[rows, ::-1].argmax(axis=1)
    points = np.concatenate([np.column_stack([columns, rows]) for columns in ends])
    hull = np.zeros(grainy.shape, np.uint8)
    cv2.fillConvexPoly(hull, cv2.convexHull(points.astype(np.int32)), 1)
    return hull.view(bool)


def is_sure(maps: Maps, hull: Mask, excused: Sequence[Box]) -> bool:
    """Is the field large, full of grain, and next to nothing twinkling around it?"""
    x, y, width, height = cv2.boundingRect(hull.view(np.uint8))
    if width * height < _LEAST_FIELD * hull.size:
        return False
    if maps.live[y : y + height, x : x + width].mean() < _LEAST_FILL:
        return False
    outside = ~mask_of(excused, hull.shape)
    outside[window_around((x, y, width, height), 10, hull.shape)] = False
    twinkling = np.count_nonzero(maps.live & outside)
    return bool(twinkling <= _MOST_OUTSIDE * np.count_nonzero(outside) + SPECK * outside.size)
