"""
A withdrawal on a bench: the real protocol and client, a sandbox on a real socket, time that passes when asked.

``ProtocolHarness.try_once`` is one try of a task. Sleeping moves the worker's clock and the sandbox's together: a test
that waits out a signature or the list lag takes milliseconds, while every byte still crosses a real socket.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from pacifica_provider.api.client import Endpoints, PacificaClient
from pacifica_provider.api.signing import Signer
from pacifica_provider.api.transports import RequestsTransport
from pacifica_provider.withdrawals.identity import Order, RunIdentity
from pacifica_provider.withdrawals.ledger import (
    LedgerState,
    LedgerUnavailableError,
    decision_entry,
    withdrawal_entry,
)
from pacifica_provider.withdrawals.withdraw import Policy, Runtime, TryContext, withdraw
from tests.support.patience import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pacifica_provider.api.outcomes import Answer, TransportFailure
    from pacifica_provider.api.transports import HttpRequest
    from pacifica_provider.sandbox import Sandbox
    from pacifica_provider.withdrawals.record import StoredReceipt

_ids = itertools.count(1)


class MemoryLedger:
    """
    A ledger in memory, holding JSON text as Airflow's do.

    ``down`` makes every call fail; ``fail_writes`` the next so many writes of names that begin with ``fail_on``.
    """

    def __init__(self, *, fenced: bool = True) -> None:
        self.fenced = fenced
        self.entries: dict[str, str] = {}
        self.down = False
        self.fail_writes = 0
        self.fail_on = ""
        self.calls: list[str] = []

    def get(self, name: str, /) -> object | None:
        """Return the entry."""
        self._call(f"get {name.partition('_')[0]}")
        return json.loads(self.entries[name]) if name in self.entries else None

    def set(self, name: str, value: Mapping[str, Any], /) -> None:
        """Write the entry."""
        self._call(f"set {name.partition('_')[0]}")
        if self.fail_writes > 0 and name.startswith(self.fail_on):
            self.fail_writes -= 1
            raise LedgerUnavailableError("this write fails")
        self.entries[name] = json.dumps(value)

    def delete(self, name: str, /) -> None:
        """Remove the entry."""
        self._call(f"delete {name.partition('_')[0]}")
        self.entries.pop(name, None)

    def names(self) -> list[str]:
        """Return the name of every entry, as a ledger seen from outside of a task does."""
        return sorted(self.entries)

    def lose(self, *prefixes: str) -> None:
        """
        Lose the entries whose names begin so, as when somebody deletes them by hand.

        Without a prefix all of them, as a database that came back from an old backup has; then it is born anew.
        """
        for name in [name for name in self.entries if name.startswith(prefixes or "")]:
            del self.entries[name]

    def be_born(self, at_ms: int) -> None:
        """Let the ledger be complete since this time."""
        LedgerState(at_ms).write(self)

    def record(self) -> dict[str, Any]:
        """Return the one stored record, as JSON."""
        (record,) = [json.loads(text) for name, text in self.entries.items() if name.startswith("withdrawal_")]
        return dict(record)

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.down:
            raise LedgerUnavailableError("the ledger is down")


def bound_decision(record: Mapping[str, Any], action: str, /, **fields: Any) -> dict[str, Any]:
    """Return a decision on a record as it stands; ``fields`` name the row or rows, or make it another decision."""
    bound: dict[str, dict[str, Any]] = {
        "adopt": {"fingerprint": record.get("fingerprint")},
        "repost": {
            "fingerprint": record.get("fingerprint"),
            "attempts": len(record.get("attempts", ())),
            "rows": [],
            "restores": record.get("restores", 0),
        },
        "void": {},
    }
    return {"key": record["key"], "action": action, "by": "ana", "why": "looked", **bound[action], **fields}


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
class ProtocolHarness:
    """One task instance, its store, and the exchange; change the fields between tries to make the tries differ."""

    sandbox: Sandbox
    symbol: str = "SOL"
    amount: str = "1"
    withdrawal_ref: str | None = None
    scope: str = ""
    dag_id: str = "pay"
    run_id: str = "scheduled__2026-11-23"
    task_id: str = "withdraw"
    adoption: Literal["window", "never", "amount"] = "window"
    instance: str | None = "-1"
    try_number: int = 0
    clear_number: int = 0
    timeout_s: float = PATIENCE_S
    gives_up_s: float | None = None
    window_ms: int = 10_000
    policy: Policy = field(default_factory=Policy)
    store: MemoryLedger = field(default_factory=MemoryLedger)
    base_url: str = ""
    account: str = ""
    private_key: str = field(default="", repr=False)
    ca_file: str | None = None
    unlock_error: Exception | None = None
    jitter: Callable[[], float] = lambda: 0.5
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
            self._send,
            signer=signer,
            expiry_window_ms=self.window_ms,
        )

    def _send(self, request: HttpRequest, /) -> Answer | TransportFailure:
        """Send with the workers' transport; the next POST is given up after ``gives_up_s``, if that is set."""
        within_s = self.timeout_s
        if request.method == "POST" and self.gives_up_s is not None:
            within_s, self.gives_up_s = self.gives_up_s, None
        return RequestsTransport(timeout_s=within_s, ca_file=self.ca_file)(request)

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

    def try_once(self, sleep_s: Callable[[float], None] | None = None) -> StoredReceipt:
        """Run one try of the task; ``sleep_s`` stands in for the clock's."""
        self.try_number += 1
        return withdraw(
            self.identity,
            Order.parse(self.symbol, self.amount),
            self.base_url,
            context=TryContext(
                first_try=self.try_number == 1 and self.clear_number == 0,
                run_after_ms=self.run_after_ms,
                adoption=self.adoption,
                instance=self.instance,
                case_command="python -m pacifica_provider.cli case --dag-id pay",
            ),
            ledger=self.store,
            exchange=self.client(),
            make_signer=self.unlock,
            policy=self.policy,
            runtime=Runtime(
                now_ms=self.clock.now_ms,
                sleep_s=sleep_s or self.clock.sleep_s,
                new_id=lambda: f"write-{os.getpid()}-{next(_ids)}",
                jitter=self.jitter,
                log=self.logs.append,
            ),
        )

    def clear(self) -> None:
        """Clear the task; the ledger keeps its record."""
        self.clear_number += 1

    def sibling(self, **changes: Any) -> ProtocolHarness:
        """Return another task on the same exchange, in a deployment of its own unless it is given this one's ledger."""
        fresh: dict[str, Any] = {"store": MemoryLedger(fenced=self.store.fenced), "try_number": 0}
        other = replace(self, **{**fresh, **changes})
        other.clock = self.clock
        return other

    def decide(self, action: str, /, **fields: Any) -> None:
        """
        Leave a person's decision in the ledger, bound to the record as it stands.

        A row to adopt is named by its ``batch_nonce``; the rest of it is as it is listed now.
        """
        identity = self.identity
        names = (identity.dag_id, identity.run_id, identity.task_id, identity.withdrawal_ref)
        record = json.loads(self.store.entries.get(withdrawal_entry(*names), "{}"))
        if action == "adopt" and "created_at_ms" not in fields:
            fields |= self.named(fields["batch_nonce"])
        self.store.set(decision_entry(*names), bound_decision({"key": self.key, **record}, action, **fields))

    def named(self, batch_nonce: int) -> dict[str, Any]:
        """Return what an adoption names of a row: its time and amount, as the exchange lists it now."""
        reader = self.client()
        rows = {row.batch_nonce: (row.created_at_ms, row.amount) for row in reader.withdrawal_history().rows}
        pending = reader.pending_withdrawals().rows
        rows |= {row.batch_nonce: (row.created_at_ms, row.amount_requested) for row in pending}
        created_at_ms, amount = rows[batch_nonce]
        return {"batch_nonce": batch_nonce, "created_at_ms": created_at_ms, "amount": str(amount)}

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
