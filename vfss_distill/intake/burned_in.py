"""Text burned into the pictures: found by how it stands still, and where; blanked on all frames.

Text of a recorder or a console is drawn over the picture after the detector. That makes strokes
that are thin, sharp, all of one brightness, in rows, and still, whatever moves or twinkles behind
them. What is found is sorted by what stands behind it:

    empty   nothing but a flat background that reaches the picture's edge (outside the collimated
            field, free air): anything drawn there is blanked, counters too; no anatomy is lost
    border  over the picture, near its edge: blanked when it is text
    inside  over the middle of the picture: blanked when it is very clearly text, else only named

What it cannot find is in docs/privacy.md: names are made fewer, never surely gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from .boxes import Box, boxes_outside, merge_boxes
from .film_sample import FEW_FRAMES, Film, Grey, both_polarities, parts_of

Mask = NDArray[np.bool_]

_MANY_FRAMES = 16  # below, grain still shows in the mean
_BORDER = 0.15  # of the side
_CONTRAST = 32  # grey levels between a stroke and what is behind it
_MOST_STROKES = 1500
_EMPTY = 0.85  # share of a line's surroundings
_BLACK = 14


@dataclass(frozen=True)
class BurnedIn:
    """`blank`: to be blanked. `suspect`: perhaps text, left as it is for a person to judge."""

    blank: tuple[Box, ...] = ()
    suspect: tuple[Box, ...] = ()

    def with_given(self, given: Sequence[Box]) -> BurnedIn:
        """The same, with boxes that a person gave."""
        return BurnedIn((*given, *self.blank), tuple(boxes_outside(self.suspect, given)))

    def mirrored(self, width: int) -> BurnedIn:
        """The same of mirrored frames, `width` pixels wide."""
        return BurnedIn(
            *(tuple(box.mirrored(width) for box in some) for some in (self.blank, self.suspect))
        )


@dataclass(frozen=True)
class Line:
    """A row of strokes and what speaks for text. Grey levels; sizes in pixels; see `_measure`."""

    x: int
    y: int
    width: int
    height: int
    strokes: int  # connected pieces
    contrast: float  # of strokes to what is behind them
    evenness: float  # how much the brightness of pieces differs; 0: all one
    level: float  # their brightness
    steady: float  # change over time of the strokes
    behind: float  # and of what is around them
    sharpness: float  # of the strokes' edges, as a share of the contrast; 1: within two pixels
    flat: float  # share of what is around that is empty
    black: float  # share of what is around that is never brighter than black: a box drawn for text
    uniform: float  # height of the typical piece, as a share of the line's
    aligned: float  # share of the pieces that stand on one line, or hang from one
    rim: bool  # touches the picture's edge


def find_text(frames: Sequence[Grey]) -> BurnedIn:
    """Boxes of burned-in text in `frames`, a sample of one film, uint8 (H, W) each.

    Time and memory are bounded by the sample's size, not by what is in it.
    """
    if not frames or min(frames[0].shape) < 32:
        return BurnedIn()
    blank: list[Box] = []
    suspect: list[Box] = []
    for part in parts_of(frames):
        for film in both_polarities(part):
            lines, picture = find_lines(film)
            for line in lines:
                where = _where(line, film.mean.shape)
                verdict = _verdict(line, where, film.frames)
                if verdict == "text":
                    whole = line if where == "empty" else _lengthened(picture, line)
                    blank.append(_padded(whole, film.mean.shape, where))
                elif verdict == "perhaps":
                    suspect.append(_padded(line, film.mean.shape, where))
    blank = merge_boxes(blank)
    return BurnedIn(tuple(blank), tuple(boxes_outside(merge_boxes(suspect), blank)))


def find_lines(film: Film) -> tuple[list[Line], _Picture]:
    """Rows of strokes brighter than what is behind them, with their measurements."""
    height, width = film.mean.shape
    size = max(11, round(0.03 * min(height, width))) | 1
    kernel = np.ones((size, size), np.uint8)
    mean = cv2.convertScaleAbs(film.mean)
    behind = cv2.morphologyEx(mean, cv2.MORPH_OPEN, kernel)
    hat = cv2.subtract(mean, behind)
    # Compared in 8 bits, an eighth of a grey level each: several times as fast.
    grain = cv2.convertScaleAbs(film.spread, alpha=8)
    still = (hat >= _CONTRAST) & (grain <= cv2.max(cv2.convertScaleAbs(hat, alpha=0.96), 32))
    top_behind = cv2.morphologyEx(film.top, cv2.MORPH_OPEN, kernel)
    top_hat = cv2.subtract(film.top, top_behind)
    empty = _empty(behind, top_behind, cv2.erode(grain, np.ones((5, 5), np.uint8)))
    strokes = still | ((top_hat >= _CONTRAST) & empty)
    # Specks off: hundreds of them in a grainy film, and no part of a letter.
    near = cv2.boxFilter(strokes.astype(np.uint8), cv2.CV_8U, (3, 3), normalize=False)
    strokes &= near >= 3
    marks = _marks(strokes, height, width)
    rows = _rows(marks)
    picture = _Picture(film, mean, behind, hat, top_hat, strokes, empty)
    groups = [marks[row] for row in rows]
    return [_measure(picture, _union(g), g) for g in groups if _worth(picture, g)], picture


def _worth(picture: _Picture, marks: NDArray[np.int32]) -> bool:
    """Whether measuring a row can lead anywhere; see `_verdict`. Most are a single speck."""
    x, y, width, height = _union(marks)
    if len(marks) > 2 or width >= 2 * height or (len(marks) == 2 and width >= 1.2 * height):
        return True
    return bool(picture.empty[max(0, y - 2) : y + height + 2, max(0, x - 2) : x + width + 2].any())


class _Picture(NamedTuple):
    film: Film
    mean: Grey
    behind: Grey
    hat: Grey
    top_hat: Grey
    strokes: Mask
    empty: Mask


def _empty(behind: Grey, top_behind: Grey, grain: Grey) -> Mask:
    """Where nothing can be seen (black, white, or one flat grey), as far as the picture's edge.

    `behind`, `top_behind`: mean and brightest with strokes taken off. `grain`: change over time,
    in eighths of a grey level.
    """
    small = np.ones((5, 5), np.uint8)
    uneven = cv2.subtract(cv2.dilate(behind, small), cv2.erode(behind, small))
    clipped = ((behind <= 14) & (top_behind <= 48)) | (behind >= 243)
    flat = ((uneven <= 8) & clipped & (grain <= 32)) | ((uneven <= 1) & (grain <= 2))
    parts = flat.astype(np.uint8)
    parts[[0, -1]] = parts[[1, -2]]
    parts[:, [0, -1]] = parts[:, [1, -2]]
    _, ids = cv2.connectedComponents(parts, connectivity=4)
    reaches = np.zeros(int(ids.max()) + 1, bool)
    reaches[np.concatenate([ids[0], ids[-1], ids[:, 0], ids[:, -1]])] = True
    reaches[0] = False
    result: Mask = reaches[ids]
    return result


def _marks(strokes: Mask, height: int, width: int) -> NDArray[np.int32]:
    """Connected strokes as rows x, y, width, height, area: those that could be characters."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(strokes.astype(np.uint8), connectivity=8)
    marks = stats[1:]
    tall = (marks[:, 3] >= 4) & (marks[:, 3] <= 0.16 * height) & (marks[:, 4] >= 5)
    wide = (marks[:, 2] <= 0.6 * width) & (marks[:, 2] <= 30 * marks[:, 3])
    kept = marks[tall & wide]
    if len(kept) > _MOST_STROKES:  # a grid or noise; the largest matter
        kept = kept[np.argsort(kept[:, 4])[-_MOST_STROKES:]]
    return np.ascontiguousarray(kept, np.int32)


def _rows(marks: NDArray[np.int32]) -> list[NDArray[np.intp]]:
    """Marks of like height, side by side: indices of each row."""
    if not len(marks):
        return []
    x, y, w, h = (marks[:, i].astype(np.float32) for i in range(4))
    low, high = np.minimum(h[:, None], h), np.maximum(h[:, None], h)
    overlap = np.minimum((y + h)[:, None], y + h) - np.maximum(y[:, None], y)
    gap = np.maximum(x[:, None], x) - np.minimum((x + w)[:, None], x + w)
    linked = (overlap >= 0.6 * low) & (high <= 2.2 * low) & (gap <= 1.3 * high)
    from scipy.sparse.csgraph import connected_components

    count, part = connected_components(linked, directed=False)
    return [np.flatnonzero(part == index) for index in range(count)]


def _union(marks: NDArray[np.int32]) -> tuple[int, int, int, int]:
    left, upper = marks[:, 0].min(), marks[:, 1].min()
    right, lower = (marks[:, 0] + marks[:, 2]).max(), (marks[:, 1] + marks[:, 3]).max()
    return int(left), int(upper), int(right - left), int(lower - upper)


def _measure(picture: _Picture, place: tuple[int, int, int, int], marks: NDArray[np.int32]) -> Line:
    """See `Line`. Characters count by their width: a dot says little."""
    x, y, width, height = place
    grey_height, grey_width = picture.mean.shape
    window = (slice(y, y + height), slice(x, x + width))
    strokes = picture.strokes[window]
    contrast = float(np.percentile(picture.hat[window][strokes], 80))
    level, evenness, steady = _brightness(picture, marks)
    pad = max(3, height // 3)
    wider = (slice(max(0, y - pad), y + height + pad), slice(max(0, x - pad), x + width + pad))
    near = cv2.dilate(picture.strokes[wider].astype(np.uint8), np.ones((5, 5), np.uint8))
    around = near == 0
    if not around.any():
        around = ~picture.strokes[wider]
    grey = picture.mean[window]
    small = np.ones((3, 3), np.uint8)
    solid = cv2.erode(picture.strokes[window].astype(np.uint8), small, borderValue=0)
    steps = cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, small)[strokes & (solid == 0)]
    return Line(
        x=x, y=y, width=width, height=height,
        strokes=len(marks),
        contrast=contrast,
        evenness=evenness,
        level=level,
        steady=steady,
        behind=float(np.median(picture.film.spread[wider][around])) if around.any() else 0.0,
        sharpness=float(np.percentile(steps, 50)) / max(contrast, 1.0),
        flat=float(picture.empty[wider][around].mean()) if around.any() else 0.0,
        black=float((picture.film.top[wider][around] <= _BLACK).mean()) if around.any() else 0.0,
        uniform=float(np.median(np.repeat(marks[:, 3], marks[:, 2]))) / height,
        aligned=_aligned(marks),
        rim=x <= 1 or y <= 1 or x + width >= grey_width - 1 or y + height >= grey_height - 1,
    )  # fmt: skip


def _aligned(marks: NDArray[np.int32]) -> float:
    tall = marks[marks[:, 3] >= 0.5 * marks[:, 3].max()]
    near = max(1.5, 0.15 * float(np.median(tall[:, 3])))
    upper, lower = tall[:, 1], tall[:, 1] + tall[:, 3]
    weights = tall[:, 2] / tall[:, 2].sum()
    return max(
        float(weights[np.abs(edge - np.median(edge)) <= near].sum()) for edge in (upper, lower)
    )


def _brightness(picture: _Picture, marks: NDArray[np.int32]) -> tuple[float, float, float]:
    """Of the brightest parts of each mark: typical level, how far marks differ from it, and how
    much they change over time.
    """
    levels, spreads = [], []
    for x, y, width, height, _ in marks:
        one = (slice(y, y + height), slice(x, x + width))
        strokes, grey = picture.strokes[one], picture.mean[one]
        peak = np.percentile(grey[strokes], 90)
        levels.append(peak)
        spreads.append(np.median(picture.film.spread[one][strokes & (grey >= peak)]))
    weights = np.maximum(marks[:, 2], 1)
    repeated = np.repeat(levels, weights)
    level = float(np.median(repeated))
    return (
        level,
        float(np.percentile(np.abs(repeated - level), 70)),
        float(np.median(np.repeat(spreads, weights))),
    )


def _lengthened(picture: _Picture, line: Line) -> Line:
    """With what stands at its ends: digits that change (the brightest of all frames is as bright
    as the line, in thin strokes, and the mean is not), or more of the line over a background of
    about its own brightness (still, sharp edges).
    """
    rows = slice(line.y, line.y + line.height)
    film = picture.film
    lively = film.spread[rows] >= 0.1 * line.contrast
    digits = (picture.top_hat[rows] >= _CONTRAST) & (film.top[rows] >= line.level - 15) & lively
    steps = cv2.morphologyEx(picture.mean[rows], cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    edges = (steps >= 20) & (film.spread[rows] <= 2.5)
    share = np.maximum(digits.mean(axis=0), 0.8 * edges.mean(axis=0))
    step, most = max(4, line.height), max(4 * line.height, line.width)
    left, right = line.x, line.x + line.width
    while right < min(len(share), line.x + line.width + most):
        if share[right : right + step].mean() < 0.1:
            break
        right = min(right + step, len(share))
    while left > max(0, line.x - most):
        if share[max(0, left - step) : left].mean() < 0.1:
            break
        left = max(left - step, 0)
    return replace(line, x=left, width=right - left)


def _where(line: Line, shape: tuple[int, ...]) -> str:
    if line.flat >= _EMPTY:
        return "empty"
    height, width = shape
    x, y = (line.x + line.width / 2) / width, (line.y + line.height / 2) / height
    return "border" if min(x, y, 1 - x, 1 - y) < _BORDER else "inside"


def _verdict(line: Line, where: str, frames: int) -> Literal["text", "perhaps", "no"]:
    """The limits lie between planted text and the simulated anatomy of the benchmark."""
    long = line.width / line.height
    few = line.strokes < 3
    if line.rim and line.strokes == 1:
        return "no"  # the background of a stroke at the very edge is not known
    if where == "empty":
        plain = line.sharpness >= 0.3 and line.height >= 5 and long >= 0.3
        return "text" if plain and line.contrast >= (80 if few else 48) else "no"
    if line.sharpness < 0.4 or line.evenness > 16:
        return "no"
    if line.aligned < (0.5 if line.contrast >= 150 else 0.6):
        return "no"
    # In a film that stands still as a whole, its own grain stands still too: only contrast tells.
    alone = line.behind >= line.steady + 1.5
    least = 90 if few else 64 if not alone else 40 if frames >= _MANY_FRAMES else 72
    still = line.steady <= max(3.0, 0.5 * line.behind, 0.05 * line.contrast)
    sure = still and frames >= FEW_FRAMES and line.contrast >= least
    boxed = line.black >= 0.8 and line.contrast >= 150 and line.evenness <= 8
    if sure and boxed and line.strokes >= 2 and long >= 2:
        return "text"
    if where == "border":
        enough = not few or (line.strokes == 2 and long >= 1.2) or long >= 2
        if sure and enough and line.sharpness >= (0.5 if few or not alone else 0.4):
            return "text"
    elif sure and line.strokes >= 4 and long >= 2 and line.evenness <= 10:
        return "text" if line.sharpness >= 0.5 else "perhaps"
    return "no" if few or line.contrast < 48 else "perhaps"


def _padded(line: Line, shape: tuple[int, ...], where: str) -> Box:
    """Room for edges softened by a codec, and for the dots and dashes at a row's ends."""
    pad = max(3, round(0.35 * line.height))
    x, y = max(0, line.x - pad), max(0, line.y - pad)
    right = min(shape[1], line.x + line.width + pad)
    lower = min(shape[0], line.y + line.height + pad)
    return Box(x, y, right - x, lower - y, where)
