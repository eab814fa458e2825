"""The review page: what every study looks like after blanking, for a person to confirm.

reports/review-<nnn>/index.html, page-2.html, ...    each complete in itself
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..pages import page_environment
from ..provenance import RESEARCH_USE_ONLY, provenance
from ..workspace import Workspace, atomic_folder
from .boxes import FURNITURE, GIVEN, INSET, Box
from .study import Study, list_studies_readable

STUDIES_A_PAGE = 40
WHERE = {
    "empty": "outside the picture",
    "border": "over the picture, near its edge",
    "inside": "over the picture",
    FURNITURE: "drawn around the X-ray picture",
    INSET: "a second moving picture",
    GIVEN: "named in --blank-boxes",
}
_BRIGHTEST_OF = 24  # frames; text that shows only now and then is seen in none of the three
_WIDEST = 720
_BLANKED, _SUSPECT = (60, 60, 230), (40, 190, 250)  # blue, green, red


@dataclass(frozen=True)
class Picture:
    """`title`, and a JPEG as a data URI."""

    title: str
    data: str


@dataclass(frozen=True)
class Entry:
    """One study on the page. `error` in place of pictures when its frames cannot be read."""

    study: Study
    pictures: tuple[Picture, ...] = ()
    error: str = ""


def write_review(
    workspace: Workspace, *, tick: Callable[[int, int, str], None]
) -> tuple[Path, list[dict[str, str]]]:
    """Write the next reports/review-NNN over all studies; return its first page, and studies whose
    record or frames cannot be read, `[{"input", "error"}]`: the page names them.

    Raises DataError when there are no studies, StorageError.
    """
    studies, damaged = list_studies_readable(workspace)
    if not studies:
        first = damaged[0] if damaged else None
        raise DataError(
            "there are no studies to review" if first is None else first["error"],
            file=None if first is None else first["input"],
            remedy="Run `vfss ingest` on films." if first is None else "",
        )
    target = workspace.reports / workspace.next_report("review")
    template = page_environment(__file__).get_template("review.html.j2")
    starts = range(0, len(studies), STUDIES_A_PAGE)
    unread: list[dict[str, str]] = []
    names = ["index.html", *(f"page-{n}.html" for n in range(2, len(starts) + 1))]
    with atomic_folder(target, replace=False) as folder:
        for name, start in zip(names, starts, strict=True):
            entries = []
            for done, study in enumerate(studies[start : start + STUDIES_A_PAGE], start):
                tick(done, len(studies), study.id)
                entries.append(entry := _entry(study))
                if entry.error:
                    unread.append({"input": f"studies/{study.id}", "error": entry.error})
            text = template.render(
                name=target.name,
                entries=entries,
                total=len(studies),
                damaged=damaged,
                kept=sum(study.record.burned_in != "blanked" for study in studies),
                pages=names,
                here=name,
                notice=RESEARCH_USE_ONLY,
                provenance=provenance(),
                where=WHERE,
            )
            (folder / name).write_text(text, encoding="utf-8")
    return target / "index.html", [*damaged, *unread]


def _entry(study: Study) -> Entry:
    last = study.record.frames - 1
    places = dict.fromkeys((0, last // 2, last))
    names = dict(zip(places, ("first", "middle", "last"), strict=False))
    try:
        pictures = [
            Picture(f"{names[index]} frame ({index})", _jpeg(study.read_frame(index), study))
            for index in places
        ]
        brightest, count = _brightest(study)
    except DataError as error:
        return Entry(study, error=str(error))
    title = f"brightest of {count} frames"
    return Entry(study, (*pictures, Picture(title, _jpeg(brightest, study))))


def _brightest(study: Study) -> tuple[NDArray[np.uint8], int]:
    """The brightest value of each pixel over frames spread evenly, and their count."""
    spread = np.linspace(0, study.record.frames - 1, _BRIGHTEST_OF).round().astype(int)
    indices = sorted({int(index) for index in spread})
    top = study.read_frame(indices[0])
    for index in indices[1:]:
        top = np.maximum(top, study.read_frame(index))
    return top, len(indices)


def _jpeg(grey: NDArray[np.uint8], study: Study) -> str:
    """The frame with the boxes outlined, no wider than the page shows it."""
    height, width = grey.shape
    scale = min(1.0, _WIDEST / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    colour = cv2.cvtColor(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), cv2.COLOR_GRAY2BGR)
    outlined: list[tuple[Box, tuple[int, int, int]]] = [
        *((box, _BLANKED) for box in study.record.blanked),
        *((box, _SUSPECT) for box in study.record.suspect),
    ]
    for box, ink in outlined:
        corner = round(box.x * scale), round(box.y * scale)
        other = round((box.x + box.width) * scale) - 1, round((box.y + box.height) * scale) - 1
        cv2.rectangle(colour, corner, other, ink, 1)
    _, data = cv2.imencode(".jpg", colour, [cv2.IMWRITE_JPEG_QUALITY, 82])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
