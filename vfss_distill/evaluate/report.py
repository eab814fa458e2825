"""`vfss report`: gather results and truth, compute, and write one folder per report.

reports/<name>/  index.html  report.json  dice.csv
"""

from __future__ import annotations

import csv
import io
import re

from ..errors import DataError, UsageError
from ..provenance import document
from ..workspace import (
    Workspace,
    atomic_folder,
    spreadsheet_cell,
    write_json,
    write_text,
)
from .cases import gather
from .page import render
from .scoring import Report, ReportOptions, Tick, score_group

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
CSV_COLUMNS = (
    *("model", "study", "patient", "split", "seen_in_training", "frame", "task"),
    *("dice", "hd95_px", "truth_px", "predicted_px", "counted", "reason"),
)


def write_report(
    workspace: Workspace,
    options: ReportOptions | None = None,
    *,
    tick: Tick = lambda done, total, words: None,
) -> Report:
    """Compute and write a report of the results in `workspace`.

    Raises UsageError when the name is taken (without force) or no name at all, WorkspaceError
    when there are no results, DataError when none of them can be read, StorageError.
    """
    options = options or ReportOptions()
    name = report_name(workspace, options)
    groups, failed = gather(workspace, split=options.split, model=options.model)
    workspace.check_output(workspace.reports / name)
    models = tuple(score_group(group, options, failed, tick) for group in groups)
    if not models:
        first = failed[0]  # whose error ends with what to do
        raise DataError(f"no result can be read: {first['input']}: {first['error']}")
    name = report_name(workspace, options)  # another report may have taken the first one meanwhile
    report = Report(name, workspace.reports / name, models, tuple(failed), options)
    page = render(report)
    body = report.to_dict(workspace)
    facts = {
        "models": [{"name": m.group.name, "sha256": m.group.sha256} for m in models],
        "bootstrap_resamples": options.resamples,
        "seed": options.seed,
    }
    with atomic_folder(report.folder, replace=options.replaces) as folder:
        write_text(folder / "index.html", page)
        write_json(folder / "report.json", document(body, **facts))
        write_text(folder / "dice.csv", dice_csv(report))
    return report


def dice_csv(report: Report) -> str:
    """One line per model, study, frame (0-based) and task that has truth."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for model in report.models:
        cases = {case.id: case for case in model.group.scored}
        for row in model.rows:
            case, found = cases[row.study], row.score
            names = map(spreadsheet_cell, (model.group.name, row.study, row.patient))
            writer.writerow(
                [
                    *(*names, case.part or ""),
                    *("" if case.perhaps_seen else int(case.seen), row.frame, row.task),
                    *(_cell(found.dice), _cell(found.hd95_px, 3)),
                    *(found.truth_px, found.predicted_px, int(found.counted), found.reason),
                ]
            )
    return stream.getvalue()


def report_name(workspace: Workspace, options: ReportOptions) -> str:
    """The name asked for, or the next free one. Raises UsageError: no name, or taken."""
    if options.name is None:
        return workspace.next_report("report")
    if not _NAME.fullmatch(options.name):
        raise UsageError(
            f"{options.name!r} cannot name a report",
            remedy="Use letters, digits, dots, dashes and underscores, at most 64.",
        )
    if (workspace.reports / options.name).exists() and not options.force:
        raise UsageError(
            "there is a report of that name",
            file=options.name,
            remedy="Choose another --name, or --force to replace it.",
        )
    return options.name


def _cell(value: float | None, digits: int = 6) -> str:
    return "" if value is None else f"{value:.{digits}f}"
