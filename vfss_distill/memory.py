"""How much memory this process may still take: in a container less than the machine has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

# Of a container's limits version 2 and version 1 of the kernel's control groups: the limit, what
# counts against it, and in memory.stat the part of that which is but files kept in case.
_GROUPS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)


def free_memory(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes: of the machine, or of the container where that has less left."""
    return min([int(psutil.virtual_memory().available), *_of_container(cgroup)])


def _of_container(cgroup: Path) -> Iterator[int]:
    for limit, used, kept in _GROUPS:
        try:
            most, taken = (int((cgroup / name).read_text()) for name in (limit, used))
            stat = (cgroup / limit).with_name("memory.stat").read_text().split()
        except (OSError, ValueError):  # "max": no limit
            continue
        files = int(stat[stat.index(kept) + 1]) if kept in stat else 0
        yield max(0, most - taken + files)
