"""How many cores this process may use, which on a shared machine are fewer than it has."""

from __future__ import annotations

import math
import os
from pathlib import Path


def usable_cores() -> int:
    """Its CPU affinity and, in a container, its quota; at least 1."""
    quota = cgroup_quota()
    return max(1, min(cores_allowed(), math.ceil(quota))) if quota else cores_allowed()


def cores_allowed() -> int:
    """By CPU affinity alone."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cgroup_quota() -> float | None:
    """How many cores' worth of time the container may use; None without such a limit."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return int(limit) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # no quota, or no such system
        return None
