"""The X-ray field of a film, and what lies around it: tool bars, icons, logos, a camera's picture.

An X-ray picture twinkles: no two of its frames have the same grain. What a viewer draws around it
stands still to the last bit, or nearly so after a codec. So the field is where most frames differ
from the one before; its convex hull is never touched, for bare beam and deep shadow have no grain.
What is drawn beside the rectangle around that hull, or in its corners, is to be blanked.

Whatever is not surely furniture counts as field. A film without grain has no field and nothing is
blanked: one that was smoothed, stands still, or went through an analogue recorder, where even tool
bars twinkle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from .boxes import FURNITURE, INSET, Box
from .burned_in import BurnedIn, find_text
from .film_sample import Grey

Mask = NDArray[np.bool_]
Rectangle = tuple[int, int, int, int]  # x, y, width, height

_FEWEST_PAIRS = 8  # of frames that differ; below, grain cannot be told from a change
_REPEAT = 0.02  # share of pixels that differ, below which a frame repeats the one before
_LIVE = 0.2  # share of pairs that differ, from which a pixel twinkles
_GRAIN = 0.35  # the same of the typical pixel of a field
_LEAST_FIELD = 0.15  # of the frame
_LEAST_FILL = 0.3  # of the field's rectangle twinkles
_MOST_OUTSIDE = 0.02  # of what is around the field twinkles
_SPECK = 0.0008  # of the frame
_MOST_PIECES = 60  # more of them: a film in tatters after a codec
_STILL = 8  # frames that tell what stands still
_DRAWN = 24  # grey levels between what is drawn and its ground
_FEWEST_DRAWN = 12  # pixels
_SEAM = 20  # pixels that a codec lets grain run over into a bar
_LEAST_CONTENT = 0.004  # of the frame
_WHITE = 250  # bare beam: white, without grain
_MIDDLE_GREYS = (36, 231)  # an X-ray picture of such grey has grain
_INSET_FRAME, _INSET_FIELD = 0.004, 0.6  # least share of the frame, most of the field
_INSET_FILL = 0.92  # of its rectangle


class _Maps(NamedTuple):
    """Of the sample, pixel by pixel. `share` float32 (0-1), see `twinkle`; `live`: twinkles;
    `top`, `bottom`, `mean`: brightest, darkest and mean of some frames."""

    share: NDArray[np.float32]
    live: Mask
    top: Grey
    bottom: Grey
    mean: NDArray[np.float32]


class _Found(NamedTuple):
    """`grainy`: the field's pixels, before its hull; `insets`: other moving pictures."""

    grainy: Mask
    insets: list[Box]


def find_to_blank(frames: Sequence[Grey]) -> BurnedIn:
    """Burned-in text and what lies around the X-ray field, in `frames`, a sample of one film,
    uint8 (H, W) each."""
    text = find_text(frames)
    around = find_surroundings(frames, text.blank)
    rest = (box for box in text.blank if not any(_holds(one, box) for one in around))
    perhaps = (box for box in text.suspect if not any(_holds(one, box) for one in around))
    return BurnedIn((*around, *rest), tuple(perhaps))


def find_surroundings(frames: Sequence[Grey], text: Sequence[Box] = ()) -> tuple[Box, ...]:
    """Boxes of what is drawn around the X-ray field, or nothing when in doubt.

    `text`: boxes that are blanked anyway; a clock among them is no part of the field.
    """
    if not frames or min(frames[0].shape) < 64:
        return ()
    share = twinkle(frames)
    if share is None or (share < _LIVE).mean() < 2 * _SPECK:
        return ()
    maps = _maps(frames, share)
    found = _grainy(maps, text)
    if found is None:
        return ()
    hull = _hull(found.grainy | _content(maps, found.grainy))
    field = cv2.boundingRect(hull.view(np.uint8))
    if not _sure(maps, field, (*text, *found.insets)):
        return ()
    kept = _widened(_trimmed(maps, field), hull.shape)
    strips = [box for box in _strips(kept, hull.shape) if _drawn_in(maps, box)]
    return (*strips, *found.insets, *_islands(maps, hull, kept))


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
    side = _small(changes.shape)
    share: NDArray[np.float32] = cv2.blur(changes.astype(np.float32), (side, side))
    share *= np.float32(1 / pairs)
    return share


def _mask(boxes: Sequence[Box], shape: tuple[int, ...]) -> Mask:
    mask = np.zeros(shape, bool)
    for box in boxes:
        mask[box.window] = True
    return mask


def _small(shape: tuple[int, ...]) -> int:
    """An odd number of pixels: smaller than anything that matters, larger than grain."""
    return max(3, round(min(shape) / 100)) | 1


def _margin(shape: tuple[int, ...]) -> int:
    """Pixels left of the surroundings, so that none of the field is lost."""
    return max(1, round(min(shape) / 256))


def _maps(frames: Sequence[Grey], share: NDArray[np.float32]) -> _Maps:
    some = [frames[i] for i in np.linspace(0, len(frames) - 1, _STILL).astype(int)]
    top, bottom = some[0].copy(), some[0].copy()
    total = np.zeros(share.shape, np.float32)
    for grey in some:
        cv2.max(top, grey, top)
        cv2.min(bottom, grey, bottom)
        cv2.accumulate(grey, total)
    return _Maps(share, share >= _LIVE, top, bottom, total * np.float32(1 / _STILL))


def _grainy(maps: _Maps, text: Sequence[Box]) -> _Found | None:
    """The largest piece that twinkles, and all others but those that are surely furniture."""
    live = maps.live.astype(np.uint8)
    side = _small(live.shape)
    live = cv2.morphologyEx(live, cv2.MORPH_OPEN, np.ones((side, side), np.uint8))
    _, ids, stats, _ = cv2.connectedComponentsWithStats(live, connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    pieces = [i for i in range(1, len(areas)) if areas[i] >= _SPECK * live.size]
    if not pieces or len(pieces) > _MOST_PIECES:
        return None
    main = max(pieces, key=lambda index: int(areas[index]))
    grainy, insets = ids == main, []
    if np.median(maps.share[grainy]) < _GRAIN:
        return None
    field, written = grainy.copy(), _mask(text, live.shape)
    for index in pieces:
        if index == main or written[ids == index].mean() >= 0.6:
            continue
        place = tuple(int(value) for value in stats[index, :4])
        piece = _Piece(ids, index, place, int(areas[index]))
        picture = _as_picture(maps, piece, field)
        if picture is None and not _on_a_bar(maps, piece, field):
            grainy |= ids == index
        elif picture is not None:
            insets.append(picture)
    return _Found(grainy, insets)


class _Piece(NamedTuple):
    """A connected piece that twinkles: `ids` equals `index` there. `place`: its bounding box."""

    ids: NDArray[np.int32]
    index: int
    place: Rectangle
    area: int


def _around(place: Rectangle, pad: int, shape: tuple[int, ...]) -> tuple[slice, slice]:
    x, y, width, height = place
    rows = slice(max(0, y - pad), min(shape[0], y + height + pad))
    return rows, slice(max(0, x - pad), min(shape[1], x + width + pad))


def _on_a_bar(maps: _Maps, piece: _Piece, field: Mask) -> bool:
    """Does flat, still, middling grey lie around it? No X-ray picture has any: it is a clock, a
    slider or a picture on a viewer's ground."""
    side = _small(field.shape)
    window = _around(piece.place, 2 * side + 2, field.shape)
    own = (piece.ids[window] == piece.index).astype(np.uint8)
    near = cv2.dilate(own, np.ones((5, 5), np.uint8))
    wide = cv2.dilate(own, np.ones((4 * side + 5, 4 * side + 5), np.uint8))
    ring = (wide > near) & ~maps.live[window]
    if ring.sum() < 0.5 * np.count_nonzero(wide > near):
        return False
    grey = maps.mean[window][ring]
    level = float(np.median(grey))
    flat = float((np.abs(grey - level) <= 6).mean())
    return _MIDDLE_GREYS[0] <= level <= _MIDDLE_GREYS[1] and flat >= 0.6


def _as_picture(maps: _Maps, piece: _Piece, field: Mask) -> Box | None:
    """The box of a second moving picture: a rectangle, with what stands still in it, on a flat
    ground and clear of the field. A piece of the field is none."""
    x, y, width, height = piece.place
    if piece.area > _INSET_FIELD * np.count_nonzero(field):
        return None
    if width * height < _INSET_FRAME * field.size or not 0.25 <= width / height <= 4:
        return None
    side = _small(field.shape)
    clear = cv2.dilate(field.view(np.uint8), np.ones((2 * side + 1, 2 * side + 1), np.uint8)) == 0
    window = _around(piece.place, 2 * side, field.shape)
    ring = clear[window] & ~maps.live[window] & (piece.ids[window] != piece.index)
    if not ring.any():
        return None
    ground = float(np.median(maps.mean[window][ring]))
    drawn = clear & (maps.live | (np.abs(maps.mean - ground) > 12))
    _, ids, stats, _ = cv2.connectedComponentsWithStats(drawn.view(np.uint8), connectivity=4)
    own = ids[piece.ids == piece.index]
    own = own[own > 0]
    if not own.size:
        return None
    index = int(np.bincount(own).argmax())
    x, y, width, height = (int(value) for value in stats[index, :4])
    outlines, _ = cv2.findContours(
        (ids[y : y + height, x : x + width] == index).astype(np.uint8),
        cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE,
    )  # fmt: skip
    filled = max(cv2.contourArea(outline) for outline in outlines)
    if filled < _INSET_FILL * (width - 1) * (height - 1) or field[y : y + height, x : x + width].any():
        return None
    if width * height > _INSET_FIELD * np.count_nonzero(field):
        return None
    return Box(x, y, width, height, INSET)


def _content(maps: _Maps, grainy: Mask) -> Mask:
    """What belongs to the field and does not twinkle: bare beam, and what a codec has smoothed. It
    borders on the field, is neither black nor a flat grey, and is no bar: a bar's border is
    straight."""
    small = np.ones((5, 5), np.uint8)
    smooth = cv2.convertScaleAbs(maps.mean)
    flat = cv2.subtract(cv2.dilate(smooth, small), cv2.erode(smooth, small)) <= 3
    content = (smooth > _DRAWN) & ~grainy & (~flat | (maps.bottom >= _WHITE))
    side = _small(grainy.shape)
    near = cv2.dilate(grainy.view(np.uint8), np.ones((2 * side + 1, 2 * side + 1), np.uint8)) > 0
    _, ids, stats, _ = cv2.connectedComponentsWithStats(content.view(np.uint8), connectivity=4)
    touching = np.bincount(ids[content & near], minlength=len(stats))
    own = np.zeros(len(stats), bool)
    for index in np.flatnonzero(touching[1:]) + 1:
        if stats[index, cv2.CC_STAT_AREA] >= _LEAST_CONTENT * grainy.size:
            rows, columns = np.nonzero((ids == index) & near)
            own[index] = _straight(rows, columns, side) < 0.85
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
            counts = np.convolve(np.bincount(left), np.ones(2 * side + 1), "same")
            taken |= np.abs(places - int(counts.argmax())) <= side
    return float(taken.mean())


def _hull(grainy: Mask) -> Mask:
    points = cv2.findNonZero(grainy.view(np.uint8))
    hull = np.zeros(grainy.shape, np.uint8)
    cv2.fillConvexPoly(hull, cv2.convexHull(points), 1)
    return hull.view(bool)


def _trimmed(maps: _Maps, field: Sequence[int]) -> Rectangle:
    """Without the lines along its sides that are bar: a codec's blocks carry grain into it."""
    x, y, width, height = field
    tall, wide = maps.mean.shape
    rows, columns = slice(y, y + height), slice(x, x + width)
    left = _bar_lines(maps.mean[rows, max(0, x - 6) : x], maps.mean[rows, x : x + _SEAM])
    right = _bar_lines(
        maps.mean[rows, x + width : x + width + 6], maps.mean[rows, x + width - _SEAM : x + width][:, ::-1]
    )
    upper = _bar_lines(maps.mean[max(0, y - 6) : y, columns].T, maps.mean[y : y + _SEAM, columns].T)
    lower = _bar_lines(
        maps.mean[y + height : y + height + 6, columns].T,
        maps.mean[y + height - _SEAM : y + height, columns][::-1].T,
    )
    return x + left, y + upper, width - left - right, height - upper - lower


def _bar_lines(bar: NDArray[np.float32], lines: NDArray[np.float32]) -> int:
    """How many of the first columns of `lines` look like `bar`, which lies beside them."""
    if bar.shape[1] < 4:
        return 0
    level = float(np.median(bar))
    middling = _MIDDLE_GREYS[0] <= level <= _MIDDLE_GREYS[1]
    alike = (np.abs(lines - level) <= 6).mean(axis=0) >= (0.8 if middling else 0.995)
    return int(np.argmin(alike)) if not alike.all() else 0


def _sure(maps: _Maps, field: Sequence[int], excused: Sequence[Box]) -> bool:
    """Is the field large, full of grain, and next to nothing twinkling around it?"""
    x, y, width, height = field
    if width * height < _LEAST_FIELD * maps.live.size:
        return False
    if maps.live[y : y + height, x : x + width].mean() < _LEAST_FILL:
        return False
    outside = ~_mask(excused, maps.live.shape)
    outside[_around((x, y, width, height), _SEAM // 2, outside.shape)] = False
    twinkling = np.count_nonzero(maps.live & outside)
    return twinkling <= _MOST_OUTSIDE * np.count_nonzero(outside) + _SPECK * outside.size


def _widened(field: Rectangle, shape: tuple[int, ...]) -> Rectangle:
    rows, columns = _around(field, _margin(shape), shape)
    return columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start


def _strips(kept: Rectangle, shape: tuple[int, ...]) -> Iterator[Box]:
    """What lies above, below, left and right of it."""
    x, y, width, height = kept
    tall, wide = shape
    for box in (
        Box(0, 0, wide, y, FURNITURE),
        Box(0, y + height, wide, tall - y - height, FURNITURE),
        Box(0, y, x, height, FURNITURE),
        Box(x + width, y, wide - x - width, height, FURNITURE),
    ):
        if box.area:
            yield box


def _drawn_in(maps: _Maps, box: Box) -> bool:
    """Is anything there but one flat grey, such as the black bars of another format?"""
    top, bottom = maps.top[box.window], maps.bottom[box.window]
    ground = float(np.median(top))
    drawn = (top > ground + _DRAWN) | (bottom < ground - _DRAWN)
    return int(np.count_nonzero(drawn)) >= _FEWEST_DRAWN


def _islands(maps: _Maps, hull: Mask, kept: Rectangle) -> Iterator[Box]:
    """What is drawn in the rectangle's corners, outside of the hull and clear of it."""
    side = _small(hull.shape)
    x, y, width, height = kept
    window = slice(y, y + height), slice(x, x + width)
    size = 2 * (side + _margin(hull.shape)) + 1
    outside = cv2.dilate(hull[window].astype(np.uint8), np.ones((size, size), np.uint8)) == 0
    if np.count_nonzero(outside) < 2 * _SPECK * hull.size:
        return
    top, bottom = maps.top[window], maps.bottom[window]
    ground = float(np.median(top[outside]))
    drawn = outside & ((top > ground + _DRAWN) | (bottom < ground - _DRAWN))
    joined = cv2.dilate(drawn.astype(np.uint8), np.ones((2 * side + 1, 2 * side + 1), np.uint8))
    _, ids, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    counts = np.bincount(ids[drawn], minlength=len(stats))
    for index in range(1, len(stats)):
        left, upper, across, down = (int(value) for value in stats[index, :4])
        box = Box(x + left, y + upper, across, down, FURNITURE)
        if counts[index] >= _FEWEST_DRAWN and not hull[box.window].any():
            yield box


def _holds(one: Box, other: Box) -> bool:
    return (
        one.x <= other.x
        and one.y <= other.y
        and other.x + other.width <= one.x + one.width
        and other.y + other.height <= one.y + one.height
    )
