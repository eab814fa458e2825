"""The page of `vfss labels check`: one file, with the frames that were found."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..errors import DataError, UsageError
from ..pages import page_environment
from ..provenance import RESEARCH_USE_ONLY, provenance
from ..workspace import Workspace, write_text
from .label_checks import KINDS, CheckReport, Finding
from .study import Study

_PICTURES = 60  # a page of thousands helps nobody; the table has them all
_PER_KIND = 20
_WIDTH = 360

MEANINGS = {
    "file": "Masks or records that are missing or damaged; masks of another size or in no record.",
    "order": "Vertebrae whose centres do not follow each other down the spine.",
    "leak": "Nearly the same frame in two splits, or one recording under two patients.",
    "blank": "Blank between frames that show the structure, or blank where it never is absent.",
    "area": "The area jumps between neighbouring labelled frames.",
    "overlap": "Structures lie on one another that the task set says do not (may_overlap).",
}


@dataclass(frozen=True)
class _Shown:
    finding: Finding
    pictures: tuple[tuple[str, str], ...]  # caption, data URL


def write_page(workspace: Workspace, report: CheckReport, name: str | None, force: bool) -> Path:
    """Write reports/<name>/index.html and return it. Raises UsageError for a name that is taken."""
    # A colon: on Windows `C:here` lies in another folder than reports/.
    if name is not None and (not name or name.startswith(".") or any(c in name for c in "/\\:")):
        raise UsageError(f"{name!r} cannot be a report's name", remedy="Use letters and digits.")
    target = workspace.reports / (name or workspace.next_report("labels")) / "index.html"
    if target.parent.exists() and not force:
        raise UsageError(
            f"report {target.parent.name} is there already", remedy="--force replaces its page."
        )
    write_text(target, render(report))
    return target


def render(report: CheckReport) -> str:
    """The page as HTML with everything inside."""
    environment = page_environment(__file__)
    shown = list(_shown(report))
    context: dict[str, Any] = {
        "report": report,
        "counts": report.counts(),
        "meanings": MEANINGS,
        "grades": KINDS,
        "shown": shown,
        "notice": RESEARCH_USE_ONLY,
        "provenance": provenance(),
        "simulated": any(s.record.simulated for s in report.studies_by_id.values()),
    }
    return environment.get_template("label_checks.html.j2").render(context)


def _shown(report: CheckReport) -> Iterator[_Shown]:
    """The findings that have a frame to show, some of each kind."""
    used = dict.fromkeys(KINDS, 0)
    for finding in report.findings:
        if sum(used.values()) >= _PICTURES:
            return
        if finding.frame is None or used[finding.kind] >= _PER_KIND:
            continue
        pictures = tuple(_pictures(report, finding))
        if pictures:
            used[finding.kind] += 1
            yield _Shown(finding, pictures)


def _pictures(report: CheckReport, finding: Finding) -> Iterator[tuple[str, str]]:
    places = [(finding.study, finding.frame)]
    if finding.kind in ("blank", "area") and finding.task and finding.frame:
        frames = report.studies_by_id[finding.study].labelled_frames(finding.task)
        earlier = [frame for frame in frames if frame < finding.frame]
        if earlier:
            places.insert(0, (finding.study, max(earlier)))
    if finding.other is not None and finding.other_frame is not None:
        places.append((finding.other, finding.other_frame))
    for study, frame in places:
        url = _picture(report, report.studies_by_id[study], frame or 0, finding)
        if url:
            yield f"{study} · frame {frame}", url


def _picture(report: CheckReport, study: Study, frame: int, finding: Finding) -> str:
    """The frame with the outlines in question, as a data URL; empty when it cannot be read."""
    try:
        grey = study.read_frame(frame)
    except DataError:
        return ""
    scale = _WIDTH / grey.shape[1]
    colour = cv2.cvtColor(cv2.resize(grey, None, fx=scale, fy=scale), cv2.COLOR_GRAY2BGR)
    for task in report.tasks:
        named = (finding.task, finding.other_task)
        if not (task.id.startswith("c") if finding.kind == "order" else task.id in named):
            continue
        try:
            mask = study.read_mask(task.id, frame)
        except DataError:
            continue
        if mask is None or not mask.any():
            continue
        big = cv2.resize(
            mask.astype(np.uint8), colour.shape[1::-1], interpolation=cv2.INTER_NEAREST
        )
        lines, _ = cv2.findContours(big, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(colour, lines, -1, task.colour[::-1], 2)
        if finding.kind == "order":
            y, x = (int(v) for v in np.argwhere(big).mean(0))
            font = cv2.FONT_HERSHEY_SIMPLEX
            cv2.putText(colour, task.id, (x - 8, y + 4), font, 0.4, (255, 255, 255), 1, cv2.LINE_AA)
    done, data = cv2.imencode(".jpg", colour, [cv2.IMWRITE_JPEG_QUALITY, 80])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}" if done else ""
