"""Measures of results that lie in the workspace: which ones, where they are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import StorageError, UsageError, VfssError
from ..inference.record import MEASURES
from ..intake.study import Study, list_studies_readable
from ..workspace import Workspace
from .film import Film
from .measures import Measures, measure_result
from .measures_file import write_measures
from .results import Result, list_results

Tick = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Measured:
    """One result's measures. `kept_file`: measures.csv held other values and was left alone."""

    study: str
    patient: str | None
    model: str
    model_sha256: str
    measures_csv: str
    simulated: bool
    kept_file: bool
    measures: Measures

    def to_dict(self) -> dict[str, object]:
        return {
            "study": self.study,
            "patient": self.patient,
            "model": {"name": self.model, "sha256": self.model_sha256},
            "simulated": self.simulated,
            "measures_csv": self.measures_csv,
            "measures": [measure.to_dict() for measure in self.measures.measured],
            "not_measured": [
                {"measure": name, "reason": why} for name, why in self.measures.missing.items()
            ],
        }


def measure_stored(
    workspace: Workspace,
    inputs: Sequence[str],
    *,
    force: bool = False,
    tick: Tick = lambda done, total, words: None,
) -> tuple[list[Measured], list[dict[str, str]]]:
    """Measure the named results (all without names) and write each measures.csv.

    A measures.csv with other values is replaced only with `force`. Failures are returned as
    `[{"input", "error"}]`. Raises WorkspaceError without results, UsageError for an unknown name,
    StorageError.
    """
    results, failed = list_results(workspace)
    known, damaged = list_studies_readable(workspace)
    # By source: a result made from a raw film finds the study ingested later.
    studies = {study.record.source_sha256: study for study in known}
    if inputs:
        keys = {result.key for result in results} | {one["input"] for one in failed}
        named = {x: {key for key in keys if _means(workspace, x, key)} for x in inputs}
        if unknown := [x for x in inputs if not named[x]]:
            raise UsageError(
                "no such study or result",
                file=unknown[0],
                remedy="Name a study id, STUDY/MODEL, or a folder in results/ (ls results).",
            )
        chosen = {key for some in named.values() for key in some}
        results = [result for result in results if result.key in chosen]
        failed = [one for one in failed if one["input"] in chosen]
    else:
        results = _of_each_film(results, studies)
    failed += damaged
    measured = []
    for number, result in enumerate(results):
        tick(number, len(results), result.study)
        try:
            study = studies.get(result.source_sha256)
            measured.append(_measure(workspace, result, study, force=force))
        except StorageError:  # a full disk is no fault of this result, and meets the next one too
            raise
        except VfssError as error:
            failed.append({"input": result.key, "error": str(error)})
    tick(len(results), len(results), "")
    return measured, failed


def _of_each_film(results: Sequence[Result], studies: Mapping[str, Study]) -> list[Result]:
    """Without those of a film before its ingest which the same model has segmented again since."""

    def is_own(result: Result) -> bool:
        study = studies.get(result.source_sha256)
        return study is not None and study.id == result.study

    again = {(own.source_sha256, own.model_sha256) for own in results if is_own(own)}
    return [
        one for one in results if is_own(one) or (one.source_sha256, one.model_sha256) not in again
    ]


def _measure(workspace: Workspace, result: Result, study: Study | None, *, force: bool) -> Measured:
    record = study.record if study else None
    if record:
        result.check_frames_of(record)
    film = Film.of(result, record)
    measures = measure_result(result, film)
    target = result.folder / MEASURES
    text = measures.to_csv()
    # As bytes: a spreadsheet saves it again in an encoding of its own.
    kept = not force and target.exists() and target.read_bytes() != text.encode()
    if not kept:
        write_measures(result.folder, text, film.times_s, film.repeats)
    return Measured(
        study=result.study,
        patient=record.patient if record else result.patient,
        model=result.model,
        model_sha256=result.model_sha256,
        measures_csv=workspace.relative(target),
        simulated=bool(record.simulated if record else result.run.get("simulated", False)),
        kept_file=kept,
        measures=measures,
    )


def _means(workspace: Workspace, word: str, key: str) -> bool:
    """Does `word` name the result of this key: study id, STUDY/MODEL, or a folder?"""
    if word.rstrip("/") in (key, key.partition("/")[0]):
        return True
    folder = (workspace.results / key).resolve()
    return any(
        path.resolve() in (folder, folder.parent) for path in (Path(word), workspace.root / word)
    )
