"""Ingest on a Ray cluster: workspace and recordings on storage that all machines share.

Ray is an optional extra. `ray.init()` joins the cluster that RAY_ADDRESS names or that runs on this
machine, else starts one of this machine alone. Every machine needs the same installation.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Self

from ..engines import Done, died
from ..errors import UsageError


class RayCluster:
    """One task a job, one core a task. A task whose worker dies is not tried again: it fails."""

    def __init__(self, work: Callable[[Any], Any], slots: int) -> None:
        """`slots` 0: as many as the cluster has cores. Raises UsageError without Ray."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves the clinic
        try:
            import ray
        except ImportError as error:
            raise UsageError(
                "--engine ray needs Ray, which is not installed",
                remedy="pip install 'vfss-distill[ray]', or leave --engine out.",
            ) from error
        self._ray = ray
        self._own = not ray.is_initialized()
        if self._own:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        self._task = ray.remote(max_retries=0, num_cpus=1)(work)
        self._under_way: dict[Any, int] = {}
        self.slots = slots or max(1, int(ray.cluster_resources().get("CPU", 1)))

    def submit(self, number: int, job: Any) -> None:
        self._under_way[self._task.remote(job)] = number

    def wait(self) -> Done:
        (reference, *_), _ = self._ray.wait(list(self._under_way), num_returns=1)
        number = self._under_way.pop(reference)
        try:
            return Done(number, self._ray.get(reference))
        except self._ray.exceptions.RayError as error:
            return Done(number, died(type(error).__name__))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for reference in self._under_way:
            self._ray.cancel(reference, force=False)  # as Ctrl-C: it takes its half study away
        if self._under_way:
            self._ray.wait(list(self._under_way), num_returns=len(self._under_way), timeout=10)
        if self._own:
            self._ray.shutdown()
