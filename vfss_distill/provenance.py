"""Where a result came from: digests, versions and the notice every output carries."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from . import __version__

SCHEMA_VERSION = 1

RESEARCH_USE_ONLY = (
    "Research use only. Not a medical device. Not for diagnosis or treatment decisions. "
    "A qualified clinician must review every result."
)

# Distributions whose version can change a number we print.
_RECORDED = ("numpy", "av", "pydicom", "opencv-python", "onnxruntime-gpu", "onnxruntime", "torch")


def sha256_file(path: Path) -> str:
    """Hex digest of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def sha256_files(paths: Iterable[Path]) -> str:
    """Hex digest of several files' bytes in the order given; names do not count."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(bytes.fromhex(sha256_file(path)))
    return digest.hexdigest()


def digest_json(value: Any) -> str:
    """Hex digest of a JSON-ready value; the order of keys does not count."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def one_is_named(digests: Iterable[str], named: Iterable[str]) -> bool:
    """Is one of these recordings among those `named` by the first 16 digits of their digests? Of
    `digests`, too, the first digits are enough."""
    beginnings = tuple(digest[:16] for digest in digests)
    return any(one.startswith(beginnings) for one in named)


def provenance(*, created: bool = True, **facts: Any) -> dict[str, Any]:
    """The `provenance` block of a written JSON file.

    `facts` are what the caller knows (model={"name", "sha256"}, config_sha256, provider, seed);
    None is left out. `created=False` leaves the time out, where same input must give same bytes.
    """
    block: dict[str, Any] = {
        "vfss_distill": __version__,
        "python": platform.python_version(),
        "packages": dict(_versions()),
    }
    if created:
        block["created_utc"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    block.update({key: value for key, value in facts.items() if value is not None})
    block["notice"] = RESEARCH_USE_ONLY
    return block


def document(body: Mapping[str, Any], **facts: Any) -> dict[str, Any]:
    """`body` between `schema_version` and `provenance`: the form of the JSON files we write."""
    return {"schema_version": SCHEMA_VERSION, **body, "provenance": provenance(**facts)}


@cache
def _versions() -> dict[str, str]:
    from importlib import metadata  # here, so that `vfss --help` does not pay for it

    versions = {}
    for name in _RECORDED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
