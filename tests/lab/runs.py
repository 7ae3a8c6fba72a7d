"""What a test holds in its hands: who pays, and one DAG run."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pacifica_provider.withdrawals.identity import RunIdentity
from pacifica_provider.withdrawals.ledger import decision_entry, withdrawal_entry

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.local_airflow import LocalAirflow

WAIT_S = 600  # of a machine that is busy with other things


class Exchange(Protocol):
    """A sandbox, in a process of its own or in this one."""

    def control(self, method: str, path: str, body: object = None) -> Any:
        """Call its control interface."""
        ...


@dataclass
class Payer:
    """An account of one exchange, and the Airflow connection that pays from it."""

    exchange: Exchange
    conn_id: str
    account: str
    secrets: dict[str, str] = field(repr=False)
    connection: dict[str, Any] = field(repr=False, default_factory=dict)
    window_ms: int = 10_000
    last_posts: list[dict[str, Any]] | None = field(repr=False, default=None)

    def debits(self) -> list[dict[str, Any]]:
        """Return every withdrawal that took money from this account."""
        return [each for each in self.ledger()["debits"] if each["account"] == self.account]

    def posts(self) -> list[dict[str, Any]]:
        """Return every withdraw request that named this account; they outlive the exchange."""
        if self.last_posts is not None:
            return self.last_posts
        return [each for each in self.ledger()["posts"] if each["account"] == self.account]

    def ledger(self) -> dict[str, Any]:
        """Return the exchange's whole ledger."""
        return dict(self.exchange.control("GET", "/ledger"))

    def settle(self) -> None:
        """Put this account's pending withdrawals on chain."""
        for debit in self.debits():
            if debit["transaction_id"] is None:
                batch = {name: debit[name] for name in ("symbol", "batch_nonce")}
                self.exchange.control("POST", "/settle", batch)

    def wait_debit(self, key: str, airflow: LocalAirflow) -> None:
        """Wait until the exchange has accepted the withdrawal under this key."""
        airflow.wait_until(
            lambda: any(each["idempotency_key"] == key for each in self.debits()), WAIT_S, f"a debit under {key}"
        )

    def fault(self, kind: str, *, when: str = "before_commit", **fields: Any) -> None:
        """Let the next withdraw request meet a fault."""
        self.exchange.control("POST", "/faults", {"kind": kind, "when": when, "count": 1, **fields})


@dataclass
class Run:
    """One DAG run, and its withdrawing task."""

    airflow: LocalAirflow
    payer: Payer
    dag_id: str
    run_id: str
    folder: Path
    task_id: str = "withdraw"

    @property
    def task(self) -> tuple[str, str, str]:
        """What names the task instance."""
        return self.dag_id, self.run_id, self.task_id

    def key(self, reference: str | None = None) -> str:
        """Return the withdrawal's idempotency key."""
        return RunIdentity(self.payer.account, *self.task, reference).idempotency_key()

    def wait(self, timeout_s: float = WAIT_S) -> str:
        """Wait for the run's end and return its state."""
        return self.airflow.wait_run(self.dag_id, self.run_id, timeout_s)

    def wait_task(self, *states: str) -> str:
        """Wait until the task is in one of the states."""
        return self.airflow.wait_task_state(*self.task, states, timeout_s=WAIT_S)

    def again(self, task_ids: list[str] | None = None, **options: bool) -> str:
        """Clear the task, or those named, and return the state the run ends in this time."""
        self.airflow.clear(self.dag_id, self.run_id, task_ids or [self.task_id], **options)
        return self.wait()

    def receipt(self, task_id: str = "", map_index: int = -1) -> Any:
        """Return what the task returned."""
        return self.airflow.xcom(self.dag_id, self.run_id, task_id or self.task_id, map_index=map_index)

    def wait_deferred(self) -> None:
        """Wait until the task is deferred and may be resumed."""
        self.wait_task("deferred")
        self.wait_scheduler_knows()

    def wait_scheduler_knows(self) -> None:
        """Wait until a task of the run may be resumed."""
        self.airflow.wait_scheduler_knows(self.dag_id, self.run_id, WAIT_S)

    def wait_next_try(self) -> None:
        """Wait until a second try has begun."""
        self.airflow.wait_until(
            lambda: self.tries() > 1 and self.airflow.task_tries(*self.task)[-1]["state"] in ("running", "success"),
            WAIT_S,
            f"a second try of {self.run_id}",
        )

    def tries(self, map_index: int = -1) -> int:
        """Return how often the task was tried."""
        return len(self.airflow.task_tries(*self.task, map_index))

    def logs(self, map_index: int = -1) -> list[str]:
        """Return the log of every try that has begun; a task that waits for its first is listed as try 0."""
        return [self.airflow.task_log(*self.task, number, map_index) for number in self._begun(map_index)]

    def log(self, map_index: int = -1) -> str:
        """Return the log of the last try."""
        return self.airflow.task_log(*self.task, self._begun(map_index)[-1], map_index)

    def _begun(self, map_index: int) -> list[int]:
        numbers = (int(each["try_number"]) for each in self.airflow.task_tries(*self.task, map_index))
        return [number for number in numbers if number > 0]

    def story(self) -> str:
        """Return what there is to know of the run: each task, the log of each of its tries, the scheduler's words."""
        told = [f"=== {self.dag_id} {self.run_id}"]
        for task in self.airflow.task_instances(self.dag_id, self.run_id):
            name, index = task["task_id"], task["map_index"]
            for each in self.airflow.task_tries(self.dag_id, self.run_id, name, index):
                if not each["try_number"]:
                    continue
                told.append(f"--- {name}[{index}] try {each['try_number']}: {each['state']}")
                told.append(self.airflow.task_log(self.dag_id, self.run_id, name, each["try_number"], index))
        ours = re.compile(rf"\b{re.escape(self.run_id)}\b")
        told += ["--- scheduler", *(line for line in self.airflow.log("scheduler").splitlines() if ours.search(line))]
        return "\n".join(told)

    def record(self, reference: str | None = None) -> Any:
        """Return what the ledger holds of the withdrawal, None if nothing."""
        return self.airflow.entry(withdrawal_entry(*self.task, reference))

    def decision(self, reference: str | None = None) -> Any:
        """Return the decision that waits, None if there is none."""
        return self.airflow.entry(decision_entry(*self.task, reference))

    def decide(self, decision: object, reference: str | None = None) -> None:
        """Leave a decision through Airflow's REST API, as a person without a shell does."""
        self.airflow.put_entry(decision_entry(*self.task, reference), decision)

    def lose_record(self, reference: str | None = None) -> None:
        """Lose the record, but not what the ledger knows of the task."""
        self.airflow.delete_entry(withdrawal_entry(*self.task, reference))

    def wait_struck(self) -> None:
        """Wait until the planned accident has befallen the task."""
        reached = self.folder / "reached"
        self.airflow.wait_until(reached.exists, WAIT_S, f"{self.dag_id} {self.run_id} to reach its accident")

    def thaw(self) -> None:
        """Let a frozen task go on."""
        self.folder.mkdir(exist_ok=True)
        (self.folder / "thaw").touch()

    def only_debit(self) -> dict[str, Any]:
        """Return the one debit of the account; a failed check if there are none or several."""
        debits = self.payer.debits()
        assert len(debits) == 1, debits
        return debits[0]


def accident(point: str, kind: str = "kill", at_try: int = 1) -> dict[str, object]:
    """Return the conf of an accident; see tests/lab/dags/accidents.py."""
    return {"point": point, "kind": kind, "try": at_try}
