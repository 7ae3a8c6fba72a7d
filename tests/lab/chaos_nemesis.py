"""The trouble that ``dev.chaos`` makes: for tasks, for parts of Airflow, for the exchange."""

from __future__ import annotations

import contextlib
import re
import signal
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import psutil

from pacifica_provider.withdrawals.failpoints import POINTS
from tests.lab import task_processes
from tests.lab.airflow_rest import FINAL_STATES, AirflowFailed
from tests.lab.local_redis import RedisFailed, task_instance_of
from tests.lab.runs import accident

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

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
DOWN_S = (0.0, 12.0)
# Tests speak to the first through REST; without the second no new DAG would be read, and nothing else would differ.
SPARED = ("api-server", "dag-processor")
# What lives on after its parent's SIGKILL is nobody's in these; a scheduler's or worker's tasks are orphans.
WITH_CHILDREN = ("triggerer", "triggerer-2", "postgres")
# Without these a part of Airflow may give up by itself, and somebody has to start it again.
NEEDED = ("postgres", "redis")
GIVES_UP_WITHIN_S = 120.0
TRY_ID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")


@dataclass(frozen=True)
class Strike:
    """What was done, when it began and ended, and to which tries; to none by name if it could concern anyone."""

    what: str
    begun: datetime
    ended: datetime
    tries: frozenset[str] | None


@dataclass(frozen=True)
class Temper:
    """How often each kind of trouble comes, one beside the other, and how many runs have an accident of their own."""

    accidents: float
    fault: int
    kill_task: int
    freeze_task: int
    clear: int
    switch: int
    cut_push: int
    kill_component: int
    freeze_component: int = 0
    deliver_twice: int = 0


class Nemesis:
    """Makes trouble at random, and notes it: ``done`` counts, ``strikes`` says whom it befell."""

    def __init__(self, cluster: TestCluster, chance: random.Random, temper: Temper) -> None:
        self._cluster = cluster
        self._random = chance
        self._temper = temper
        self._frozen: list[tuple[float, list[psutil.Process]]] = []
        self._down: dict[str, float] = {}
        self._needed_at = -GIVES_UP_WITHIN_S
        self._messages: list[str] = []
        self.done: Counter[str] = Counter()
        self.strikes: list[Strike] = []
        self._acts: list[tuple[int, Callable[[list[Run]], None]]] = [
            (temper.fault, self._fault),
            (temper.kill_task, self._kill_task),
            (temper.freeze_task, self._freeze_task),
            (temper.clear, self._clear),
            (temper.switch, self._switch),
            (temper.kill_component, self._kill_component),
            (temper.cut_push, self._cut_push),
            (temper.freeze_component, self._freeze_component),
            (temper.deliver_twice, self._deliver_twice),
        ]

    def accident(self) -> dict[str, object]:
        """Return, for some runs, an accident at a named point of the first try or the second."""
        if self._random.random() > self._temper.accidents:
            return {}
        point, kind = self._random.choice(POINTS), self._random.choice(["kill", "kill", "supervisor", "term"])
        self.done[f"{kind} at {point}"] += 1
        return {"accident": accident(point, kind, self._random.choice([1, 1, 2]))}

    def strike(self, runs: list[Run]) -> None:
        """Do one thing, and end what has lasted long enough."""
        self._wake(time.monotonic())
        self.tend()
        if self._random.random() < 0.7:
            weights = [weight for weight, _ in self._acts]
            (act,) = self._random.choices([act for _, act in self._acts], weights)
            self.guarded(lambda: act(runs))

    def guarded(self, act: Callable[[], None]) -> None:
        """Do it; a part of Airflow that is down at the moment is no reason to stop."""
        try:
            act()
        except (AirflowFailed, RedisFailed, httpx.HTTPError):
            self.tend()
            self.done["refused by an Airflow in trouble"] += 1

    def tend(self) -> None:
        """Start again what gave up because its database or broker was away; anything else that ended is a failure."""
        airflow, since_s = self._cluster.airflow, time.monotonic() - self._needed_at
        if since_s < 0:  # it would give up again
            return
        if since_s > GIVES_UP_WITHIN_S:
            airflow.check_alive()
        for name in airflow.ended():
            self.done[f"{_kind(name)} gave up"] += 1
            airflow.start(name)

    def relent(self) -> None:
        """Undo everything: faults, switches, frozen processes, dead components."""
        self._wake(float("inf"))
        self._control("DELETE", "/faults")
        self._control("POST", "/options", CALM)
        self.guarded(self._cluster.airflow.wait_execution_api)
        self.guarded(self._cluster.airflow.wait_healthy)

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
                tries = _tries(pair)
                (pair.task if what == "task" else pair.supervisor).kill()
                self._note(f"{what} killed", tries=tries)

    def _freeze_task(self, _runs: list[Run]) -> None:
        pair = self._some_task()
        if pair is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                tries = _tries(pair)
                pair.task.suspend()
                self._note("task frozen", self._thawing([pair.task]), tries)

    def _clear(self, runs: list[Run]) -> None:
        if not runs:
            return
        run = self._random.choice(runs)
        if self._cluster.airflow.rest("GET", f"/dags/{run.dag_id}/dagRuns/{run.run_id}")["state"] not in FINAL_STATES:
            return
        self._cluster.airflow.clear(run.dag_id, run.run_id)
        self.done["run cleared"] += 1

    def _kill_component(self, _runs: list[Run]) -> None:
        name = self._some_component()
        if name is None:
            return
        # A worker's tasks live on as orphans, or are gone with its machine. A scheduler's always live on.
        tree = name in WITH_CHILDREN or (name.startswith("worker") and self._random.random() < 0.5)
        lasts_s = self._random.uniform(*DOWN_S)
        tries = _tries(self._processes(name))
        self._cluster.airflow.kill(name, signal.SIGKILL, tree=tree)
        self._down[name] = time.monotonic() + lasts_s
        self._note_component(name, "killed with its tasks" if tree and tries else "killed", lasts_s, tries)

    def _freeze_component(self, _runs: list[Run]) -> None:
        name = self._some_component()
        if name is None:
            return
        processes = self._processes(name)
        tries = _tries(processes)
        for each in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.suspend()
        self._note_component(name, "frozen", self._thawing(processes), tries)

    def _deliver_twice(self, _runs: list[Run]) -> None:
        """Put a message into the queue again that a worker has or will have; or one from earlier, which had an end."""
        redis = self._cluster.airflow.redis
        if redis is None:
            return
        there = redis.messages()
        chosen = self._random.choice(there) if there else None
        if self._messages and (chosen is None or self._random.random() < 0.3):
            chosen = self._random.choice(self._messages[-20:])
        if chosen is not None:
            redis.publish(chosen)
            self._messages.append(chosen)
            self._note("message published again", tries={task_instance_of(chosen)})

    def _some_component(self) -> str | None:
        """Return one of what may be struck, unless another is still down."""
        airflow = self._cluster.airflow
        spared = SPARED if airflow.redis is not None else (*SPARED, *NEEDED)
        names = [name for name in airflow.running if name not in spared]
        return self._random.choice(names) if names and not self._down else None

    def _processes(self, name: str) -> list[psutil.Process]:
        found = []
        for pid in self._cluster.airflow.pids(name):
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(pid))
        return found

    def _thawing(self, processes: list[psutil.Process]) -> float:
        lasts_s = self._random.uniform(*FREEZE_S)
        self._frozen.append((time.monotonic() + lasts_s, processes))
        return lasts_s

    def _note_component(self, name: str, what: str, lasts_s: float, tries: set[str]) -> None:
        if name in NEEDED:
            self._needed_at = time.monotonic() + lasts_s
        runs_tasks = name.startswith("worker") or (name == "scheduler" and self._cluster.airflow.redis is None)
        self._note(f"{_kind(name)} {what}", lasts_s, tries if runs_tasks else None)

    def _note(self, what: str, lasts_s: float = 0, tries: set[str] | None = None) -> None:
        now = time.time()
        begun, ended = (datetime.fromtimestamp(each, tz=UTC) for each in (now, now + lasts_s))
        self.done[what] += 1
        self.strikes.append(Strike(what, begun, ended, None if tries is None else frozenset(tries)))

    def _wake(self, now: float) -> None:
        for frozen in [each for each in self._frozen if each[0] <= now]:
            for process in frozen[1]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()
            self._frozen.remove(frozen)
        for name in [each for each, until in self._down.items() if until <= now]:
            self._cluster.airflow.start(name)
            del self._down[name]

    def _some_task(self) -> task_processes.TaskProcesses | None:
        airflow = self._cluster.airflow
        running = airflow.rest("GET", "/dags/~/dagRuns/~/taskInstances", state="running", limit=50)["task_instances"]
        pairs = task_processes.find(airflow.home, [each["id"] for each in running])
        return self._random.choice(pairs) if pairs else None

    def _control(self, method: str, path: str, body: object = None) -> Any:
        return self._cluster.default.exchange.control(method, path, body)


def _tries(processes: Iterable[psutil.Process]) -> set[str]:
    """Return the ids of the tries that stand in the titles of these processes."""
    found: set[str] = set()
    for process in processes:
        with contextlib.suppress(psutil.Error):
            found.update(TRY_ID.findall(" ".join(process.cmdline())))
    return found


def _kind(component: str) -> str:
    """Return the component's name without its number."""
    return component.removesuffix("-2")
