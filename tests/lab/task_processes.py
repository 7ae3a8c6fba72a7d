"""Find the processes of one running task instance."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

import psutil

from tests.lab import processes

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path


class TaskProcesses(NamedTuple):
    """The two processes of a running task: the one with the user's code, and the worker watching over it."""

    task: psutil.Process
    supervisor: psutil.Process


def busy(home: Path, task_instance_ids: Collection[str]) -> bool:
    """Tell whether a process works on one of these tries."""
    return bool(_titled(home, task_instance_ids))


def find(home: Path, task_instance_ids: Collection[str]) -> list[TaskProcesses]:
    """Return the pairs that work on these tries; two for one only if an orphan lives on beside its successor.

    Both processes carry the id in their titles: "… LocalExecutor: ID", or "airflow supervisor: ID" with Celery, and
    its child, which is called "airflow worker -- ID" once it has its orders, and like its parent until then.
    """
    titled = _titled(home, task_instance_ids)
    pairs = []
    for process in titled.values():
        with contextlib.suppress(psutil.Error):
            parent = titled.get(process.ppid())
            # A child that the user's code forks has the title too, hence the look at the grandparent.
            if parent is not None and parent.ppid() not in titled:
                pairs.append(TaskProcesses(task=process, supervisor=parent))
    return pairs


def _titled(home: Path, task_instance_ids: Collection[str]) -> dict[int, psutil.Process]:
    """Return the processes in whose title one of the ids stands."""
    titled = {}
    for process in processes.inside(home):
        with contextlib.suppress(psutil.Error):
            title = " ".join(process.cmdline())
            if any(each in title for each in task_instance_ids):
                titled[process.pid] = process
    return titled
