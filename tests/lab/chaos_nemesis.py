"""The trouble that ``dev.chaos`` makes: for tasks, for parts of Airflow, for the exchange."""

from __future__ import annotations

import contextlib
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx
import psutil

from pacifica_provider.withdrawals.failpoints import POINTS
from tests.lab import task_processes
from tests.lab.airflow_rest import FINAL_STATES, AirflowFailed
from tests.lab.runs import accident

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from tests.lab.cluster import TestCluster
    from tests.lab.runs import Run

FAULTS: tuple[dict[str, object], ...] = (
    {"kind": "reset"},
    {"kind": "reset", "bytes": 40},
    {"kind": "reset_request", "bytes": 30},
    {"kind": "close"},
    {"kind": "hang", "seconds": 2},
    {"kind": "hang", "seconds": 12},
    {"kind": "truncate", "bytes": 10},
    {"kind": "drip", "seconds": 0.05},
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 503},
    {"kind": "status", "status": 504},
    {"kind": "status", "status": 429, "headers": {"retry-after": "2"}},
    {"kind": "html"},
)
SWITCHES: dict[str, tuple[object, ...]] = {
    "list_lag_s": (0, 0, 2, 8),
    "settle_gap_s": (0, 0, 3),
    "conflict_in_progress": (False, True),
    "duplicate_body": ("envelope", "text", "empty"),
    "history_amount": ("net", "gross"),
    "shared_batches": (False, True),
}
CALM = {name: values[0] for name, values in SWITCHES.items()}
FREEZE_S = (4.0, 25.0)


class Nemesis:
    """Makes trouble at random, and counts it."""

    def __init__(self, cluster: TestCluster, chance: random.Random) -> None:
        self._cluster = cluster
        self._random = chance
        self._frozen: list[tuple[float, psutil.Process]] = []
        self._down: dict[str, float] = {}
        self.done: Counter[str] = Counter()
        self._acts: list[tuple[float, Callable[[list[Run]], None]]] = [
            (12, self._fault),
            (5, self._kill_task),
            (4, self._freeze_task),
            (3, self._clear),
            (2, self._switch),
            (1, self._kill_component),
            (1, self._cut_push),
        ]

    def accident(self) -> dict[str, object]:
        """Return, for some runs, an accident at a named point of the first try or the second."""
        if self._random.random() > 0.4:
            return {}
        point, kind = self._random.choice(POINTS), self._random.choice(["kill", "kill", "supervisor", "term"])
        self.done[f"{kind} at {point}"] += 1
        return {"accident": accident(point, kind, self._random.choice([1, 1, 2]))}

    def strike(self, runs: list[Run]) -> None:
        """Do one thing, and end what has lasted long enough."""
        self._wake(time.monotonic())
        if self._random.random() < 0.7:
            weights = [weight for weight, _ in self._acts]
            (act,) = self._random.choices([act for _, act in self._acts], weights)
            self.guarded(lambda: act(runs))

    def guarded(self, act: Callable[[], None]) -> None:
        """Do it; a part of Airflow that is down at the moment is no reason to stop."""
        try:
            act()
        except (AirflowFailed, httpx.HTTPError):
            self._cluster.airflow.check_alive()
            self.done["refused by an Airflow in trouble"] += 1

    def relent(self) -> None:
        """Undo everything: faults, switches, frozen processes, dead components."""
        self._wake(float("inf"))
        self._control("DELETE", "/faults")
        self._control("POST", "/options", CALM)
        self._cluster.airflow.wait_execution_api()
        self._cluster.airflow.wait_healthy()

    def _fault(self, _runs: list[Run]) -> None:
        fault = dict(self._random.choice(FAULTS))
        fault["route"] = self._random.choice(["withdraw"] * 4 + ["pending", "history", "bridge_parameters"])
        fault["when"] = self._random.choice(["before_commit", "after_commit"])
        fault["count"] = self._random.choice([1, 1, 1, 2, 4])
        self._control("POST", "/faults", fault)
        self.done[f"fault {fault['kind']}"] += 1

    def _switch(self, _runs: list[Run]) -> None:
        name = self._random.choice(sorted(SWITCHES))
        self._control("POST", "/options", {name: self._random.choice(SWITCHES[name])})
        self.done["switch of the exchange"] += 1

    def _cut_push(self, _runs: list[Run]) -> None:
        self._control("POST", "/ws", {"action": "cut"})
        self.done["push cut"] += 1

    def _kill_task(self, _runs: list[Run]) -> None:
        pair = self._some_task()
        if pair is not None:
            what = self._random.choice(["task", "supervisor"])
            with contextlib.suppress(psutil.NoSuchProcess):
                (pair.task if what == "task" else pair.supervisor).kill()
                self.done[f"{what} killed"] += 1

    def _freeze_task(self, _runs: list[Run]) -> None:
        pair = self._some_task()
        if pair is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                pair.task.suspend()
                self._frozen.append((time.monotonic() + self._random.uniform(*FREEZE_S), pair.task))
                self.done["task frozen"] += 1

    def _clear(self, runs: list[Run]) -> None:
        if not runs:
            return
        run = self._random.choice(runs)
        if self._cluster.airflow.rest("GET", f"/dags/{run.dag_id}/dagRuns/{run.run_id}")["state"] not in FINAL_STATES:
            return
        self._cluster.airflow.clear(run.dag_id, run.run_id)
        self.done["run cleared"] += 1

    def _kill_component(self, _runs: list[Run]) -> None:
        name = self._random.choice(["triggerer", "scheduler", "execution-api"])
        if self._down:
            return
        # The scheduler's tasks live on as orphans, as they do where it is killed for want of memory.
        self._cluster.airflow.kill(name, signal.SIGKILL, tree=name == "triggerer")
        self._down[name] = time.monotonic() + self._random.uniform(0, 12)
        self.done[f"{name} killed"] += 1

    def _wake(self, now: float) -> None:
        for until, process in [each for each in self._frozen if each[0] <= now]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
            self._frozen.remove((until, process))
        for name in [each for each, until in self._down.items() if until <= now]:
            self._cluster.airflow.start(name)
            del self._down[name]

    def _some_task(self) -> task_processes.TaskProcesses | None:
        airflow = self._cluster.airflow
        running = airflow.rest("GET", "/dags/~/dagRuns/~/taskInstances", state="running", limit=50)["task_instances"]
        pairs = [pair for each in running for pair in task_processes.find(airflow.home, each["id"])]
        return self._random.choice(pairs) if pairs else None

    def _control(self, method: str, path: str, body: object = None) -> Any:
        return self._cluster.default.exchange.control(method, path, body)
