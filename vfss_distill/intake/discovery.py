"""Which recordings an ingest takes on, and what is known of each before it is opened."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path, PurePath

from ..errors import InputError, VfssError
from ..workspace import Workspace, read_json
from .ingest_report import Failure, IngestOptions, IngestReport, Skipped
from .names import display
from .source import Found, LeftOut, content_sha256
from .walk import walk


def discover(
    inputs: Sequence[Path], options: IngestOptions, report: IngestReport
) -> tuple[list[Found], list[Found]]:
    """Recordings under `inputs`, and folders named as those of masks are; inputs that do not exist
    go to the report."""
    there = [path for path in inputs if path.exists()]
    for path in inputs:
        if not path.exists():
            line = "no such file or folder. Check the path."
            report.failed.append(Failure(display(Found(path, path)), line))
    labels = options.labels
    # Labels given as the input itself lie beside their recordings: nothing to leave out.
    apart = labels is not None and not any(
        path.resolve().is_relative_to(labels.resolve()) for path in there
    )
    exclude = [labels] if labels is not None and apart else []
    left_out: list[LeftOut] = []
    mask_folders: list[Found] = []
    found = walk(there, exclude=exclude, left_out=left_out, mask_folders=mask_folders)
    if exclude:
        left_out += _beside_labels(exclude[0], there)
    report.skipped += [Skipped(display(item.found), "", item.why) for item in left_out]
    return found, mask_folders


def _beside_labels(labels: Path, inputs: Sequence[Path]) -> list[LeftOut]:
    """Films in a folder of labels that lies in an input: they are not taken, and may be meant."""
    if not any(labels.resolve().is_relative_to(path.resolve()) for path in inputs):
        return []
    films = [item for item in walk([labels], images=False) if item.path.is_file()]
    return [LeftOut(film, "lies in the folder of --labels") for film in films]


def digests(
    found: Sequence[Found], slots: int, stack: ExitStack
) -> Iterator[tuple[Found, Future[str]]]:
    """Each recording with the digest of its content, read ahead so that no worker waits for it."""
    threads = stack.enter_context(ThreadPoolExecutor(min(slots, 8), "vfss-digest"))
    stack.callback(threads.shutdown, wait=False, cancel_futures=True)
    ahead: deque[tuple[Found, Future[str]]] = deque()
    for item in found:
        ahead.append((item, threads.submit(content_sha256, item.path)))
        if len(ahead) > slots:
            yield ahead.popleft()
    yield from ahead


def is_simulated(path: Path) -> bool:
    truth = path.with_name(f"{path.name if path.is_dir() else path.stem}_truth.json")
    try:
        return truth.is_file() and read_json(truth).get("simulated") is True
    except (VfssError, OSError):  # OSError: the name with `_truth` behind it is too long
        return False


def check_option_folder(labels: Path | None) -> None:
    if labels is not None and not labels.is_dir():
        raise InputError("no such folder of labels", file=labels, remedy="Check --labels.")


def error_line(error: VfssError, found: Found) -> str:
    """The error without the recording's own name, which stands beside it; a mask is named."""
    if error.file is None or Path(error.file).absolute() == found.path.absolute():
        return error.without_file
    path = Path(error.file)
    return f"{'/'.join(path.parts[-3:]).lstrip('/')}: {error.without_file}"


def relative_to_workspace(workspace: Workspace, path: Path) -> str:
    """`path` relative to the workspace, for identities.csv: both can be moved together."""
    return way(workspace.root.resolve(), path.resolve())


def way(start: PurePath, end: PurePath) -> str:
    """From one absolute path to another, with forward slashes; `end` itself on another drive."""
    up = 0
    while not end.is_relative_to(start):
        if start.parent == start:
            return end.as_posix()
        start, up = start.parent, up + 1
    return "/".join([*[".."] * up, *end.relative_to(start).parts])
