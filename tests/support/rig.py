"""
A withdrawal on a bench: the real protocol and client, a sandbox on a real socket, time that passes when asked.

``Rig.try_once`` is one try of a task. Sleeping moves the worker's clock and the sandbox's together: a test that waits
out a signature or the list lag takes milliseconds, while every byte still crosses a real socket.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pacifica_provider.api.client import Endpoints, PacificaClient
from pacifica_provider.api.signing import Signer
from pacifica_provider.api.transports import RequestsTransport
from pacifica_provider.withdrawals.conclusions import RunFacts
from pacifica_provider.withdrawals.identity import Order, RunIdentity
from pacifica_provider.withdrawals.intents import StoreUnavailableError
from pacifica_provider.withdrawals.look import Policy, Surroundings
from pacifica_provider.withdrawals.submit import Submission

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pacifica_provider.sandbox import Sandbox
    from pacifica_provider.withdrawals.records import StoredReceipt

_ids = itertools.count(1)


class MemoryStore:
    """
    One task instance's store in memory, holding JSON text as Airflow's stores do.

    ``down`` makes every call fail; ``fail_writes`` the next so many writes.
    """

    def __init__(self, *, fenced: bool = True) -> None:
        self.fenced = fenced
        self.entry: str | None = None
        self.decision: object | None = None
        self.down = False
        self.fail_writes = 0
        self.calls: list[str] = []

    def read(self) -> object | None:
        """Return the entry."""
        self._call("read")
        return None if self.entry is None else json.loads(self.entry)

    def write(self, entry: Mapping[str, Any], /) -> None:
        """Write the entry."""
        self._call("write")
        if self.fail_writes > 0:
            self.fail_writes -= 1
            raise StoreUnavailableError("this write fails")
        self.entry = json.dumps(entry)

    def read_decision(self) -> object | None:
        """Return the decision."""
        self._call("read_decision")
        return self.decision

    def delete_decision(self) -> None:
        """Remove the decision."""
        self._call("delete_decision")
        self.decision = None

    def wipe(self) -> None:
        """Forget everything, as a clear on Airflow 3.4 does."""
        self.entry = self.decision = None

    def record(self) -> dict[str, Any]:
        """Return the one stored record, as JSON."""
        assert self.entry is not None
        (record,) = json.loads(self.entry)["records"].values()
        return dict(record)

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.down:
            raise StoreUnavailableError("the store is down")


class BenchClock:
    """The worker's clock: real time plus what was slept. ``skew_ms`` sets it apart from the exchange's."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.offset_ms = int(sandbox.control("GET", "/clock")["offset_ms"])
        self.skew_ms = 0
        self.slept_s = 0.0

    def now_ms(self) -> int:
        """Return the worker's time."""
        return time.time_ns() // 1_000_000 + self.offset_ms + self.skew_ms

    def sleep_s(self, seconds: float) -> None:
        """Let time pass here and at the exchange."""
        self.slept_s += seconds
        self.offset_ms += int(seconds * 1000)
        self._sandbox.control("POST", "/clock", {"offset_ms": self.offset_ms})


@dataclass
class Rig:
    """One task instance, its store, and the exchange; change the fields between tries to make the tries differ."""

    sandbox: Sandbox
    symbol: str = "SOL"
    amount: str = "1"
    withdrawal_ref: str | None = None
    scope: str = ""
    dag_id: str = "pay"
    run_id: str = "scheduled__2026-11-23"
    task_id: str = "withdraw"
    mapped: bool = False
    try_number: int = 0
    clear_number: int = 0
    timeout_s: float = 2.0
    window_ms: int = 10_000
    policy: Policy = field(default_factory=Policy)
    store: MemoryStore = field(default_factory=MemoryStore)
    base_url: str = ""
    account: str = ""
    private_key: str = field(default="", repr=False)
    ca_file: str | None = None
    unlock_error: Exception | None = None
    logs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.base_url = self.base_url or self.sandbox.base_url
        self.account = self.account or self.sandbox.account
        self.private_key = self.private_key or self.sandbox.agent_private_key
        self.clock = BenchClock(self.sandbox)
        self.run_after_ms = self.clock.now_ms() - 1000

    def client(self, signer: Signer | None = None) -> PacificaClient:
        """Return a client of the real transport."""
        return PacificaClient(
            Endpoints(self.base_url, self.account),
            RequestsTransport(timeout_s=self.timeout_s, ca_file=self.ca_file),
            signer=signer,
            expiry_window_ms=self.window_ms,
        )

    @property
    def identity(self) -> RunIdentity:
        """The identity of this task's withdrawal."""
        return RunIdentity(self.account, self.dag_id, self.run_id, self.task_id, self.withdrawal_ref, self.scope)

    @property
    def key(self) -> str:
        """Its idempotency key."""
        return self.identity.idempotency_key()

    def unlock(self) -> PacificaClient:
        """Return the client that can sign, or fail as a guard does."""
        if self.unlock_error is not None:
            raise self.unlock_error
        return self.client(Signer.from_base58(self.private_key))

    def submission(self, sleep_s: Callable[[float], None] | None = None) -> Submission:
        """Build the next try without running it."""
        self.try_number += 1
        return Submission(
            run=RunFacts(
                never_ran_before=self.try_number == 1 and self.clear_number == 0,
                run_after_ms=self.run_after_ms,
                mapped=self.mapped,
                case_command="python -m pacifica_provider.case --dag-id pay",
                cleared=self.clear_number > 0,
            ),
            store=self.store,
            reader=self.client(),
            unlock=self.unlock,
            policy=self.policy,
            around=Surroundings(
                now_ms=self.clock.now_ms,
                sleep_s=sleep_s or self.clock.sleep_s,
                new_id=lambda: f"write-{os.getpid()}-{next(_ids)}",
                jitter=lambda: 0.5,
                log=self.logs.append,
            ),
        )

    def try_once(self, sleep_s: Callable[[float], None] | None = None) -> StoredReceipt:
        """Run one try of the task; ``sleep_s`` stands in for the clock's."""
        return self.submission(sleep_s).run(self.identity, Order.parse(self.symbol, self.amount), self.base_url)

    def clear(self) -> None:
        """Clear the task as Airflow 3.3 does: the record stays."""
        self.clear_number += 1

    def sibling(self, **changes: Any) -> Rig:
        """Return another task instance on the same exchange, with a store of its own."""
        fresh: dict[str, Any] = {"store": MemoryStore(fenced=self.store.fenced), "try_number": 0}
        other = replace(self, **{**fresh, **changes})
        other.clock = self.clock
        return other

    def decide(self, action: str, **fields: Any) -> None:
        """Leave a person's decision in the store."""
        self.store.decision = {"key": self.key, "action": action, "by": "ana", "why": "looked", **fields}

    def fault(self, kind: str, *, route: str = "withdraw", when: str = "before_commit", **fields: Any) -> None:
        """Inject a fault into the next matching request."""
        self.sandbox.control("POST", "/faults", {"route": route, "when": when, "kind": kind, "count": 1, **fields})

    def options(self, **options: Any) -> None:
        """Flip switches of the sandbox."""
        self.sandbox.control("POST", "/options", options)

    def foreign(self, amount: str | None = None) -> dict[str, Any]:
        """Withdraw the same asset of the same account elsewhere."""
        body = {"symbol": self.symbol, "amount": amount or self.amount}
        return dict(self.sandbox.control("POST", "/foreign_withdrawal", body))

    def ledger(self) -> dict[str, Any]:
        """Return the sandbox's ledger."""
        return dict(self.sandbox.control("GET", "/ledger"))

    def debits(self) -> list[dict[str, Any]]:
        """Return the debits made under this task's key."""
        return [debit for debit in self.ledger()["debits"] if debit["idempotency_key"] == self.key]

    def posts(self) -> list[dict[str, Any]]:
        """Return the withdraw requests the exchange saw with this task's key."""
        return [post for post in self.ledger()["posts"] if post["key"] == self.key]
