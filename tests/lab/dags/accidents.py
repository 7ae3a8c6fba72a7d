"""What befalls a task of these DAGs: by its run's conf it is killed, or frozen, at a named point of the protocol."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pacifica_provider.withdrawals import failpoints

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST_FREEZE_S = 150


def plan(context: Mapping[str, Any]) -> None:
    """
    Install what the run's conf asks for: ``{"accident": {"point": "after_post", "kind": "kill", "try": 1}}``.

    kill and term signal the task's own process, supervisor the one that watches over it; freeze waits at the point,
    once, until ``thaw`` is called for this task; timeout lets the task's execution_timeout end two seconds later.
    """
    accident = context["dag_run"].conf.get("accident") or {}
    if this_try(context) == accident.get("try", 1) and "point" in accident:
        failpoints.install(partial(_strike, accident, signs(context["ti"].run_id)))
    else:
        failpoints.install(None)


def this_try(context: Mapping[str, Any]) -> int:
    """Return the how-many-eth try of the task this process is; Airflow's own count may begin at two (seen on 3.3.2)."""
    begun = signs(context["ti"].run_id) / f"begun-{context['ti'].map_index}"
    before = begun.read_text().split() if begun.exists() else []
    if str(os.getpid()) not in before:
        before.append(str(os.getpid()))
        begun.write_text(" ".join(before))
    return before.index(str(os.getpid())) + 1


def signs(run_id: str) -> Path:
    """Return the folder through which a frozen task of this run and a test talk."""
    folder = Path(os.environ["ACCIDENTS_FOLDER"]) / run_id
    folder.mkdir(exist_ok=True)
    return folder


def _strike(accident: Mapping[str, Any], folder: Path, point: str) -> None:
    if point != accident["point"]:
        return
    failpoints.install(None)
    (folder / "reached").write_text(f"{os.getpid()} {os.getppid()}")
    kind = accident["kind"]
    if kind == "freeze":
        deadline = time.monotonic() + LONGEST_FREEZE_S
        while not (folder / "thaw").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
    elif kind == "timeout":
        signal.setitimer(signal.ITIMER_REAL, 2)  # the timer that Airflow itself has set for it
    elif kind == "supervisor":
        os.kill(os.getppid(), signal.SIGKILL)
    else:
        os.kill(os.getpid(), signal.SIGKILL if kind == "kill" else signal.SIGTERM)
