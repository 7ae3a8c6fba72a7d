"""Find the processes of one running task instance."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

import psutil

from dev import processes

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path


class TaskProcesses(NamedTuple):
    """The two processes of a running task: the one with the user's code, and the worker watching over it."""

    task: psutil.Process
    supervisor: psutil.Process


def busy(home: Path, task_instance_ids: Collection[str]) -> bool:
    """Tell whether a process works on one of these tries."""
    for process in processes.inside(home):
        with contextlib.suppress(psutil.Error):
            if any(word in task_instance_ids for word in " ".join(process.cmdline()).split()):
                return True
    return False


def find(home: Path, task_instance_id: str) -> list[TaskProcesses]:
    """Return the pairs that work on this try; more than one only if an orphan lives on beside its successor.

    Both processes carry the id in their titles: "… LocalExecutor: ID" and its child, which is called
    "airflow worker -- ID" once it has its orders, and like its parent until then.
    """
    titled = {}
    for process in processes.inside(home):
        with contextlib.suppress(psutil.Error):
            if task_instance_id in " ".join(process.cmdline()):
                titled[process.pid] = process
    pairs = []
    for process in titled.values():
        with contextlib.suppress(psutil.Error):
            parent = titled.get(process.ppid())
            # A child that the user's code forks has the title too, hence the look at the grandparent.
            if parent is not None and parent.ppid() not in titled:
                pairs.append(TaskProcesses(task=process, supervisor=parent))
    return pairs
