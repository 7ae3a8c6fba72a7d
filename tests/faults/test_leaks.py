"""No form of the key and no signature leaves the process but in the request: I7, S01 to S04, S09, S14, S27."""

from __future__ import annotations

import copy
import json
import logging
import pickle
from functools import partial
from typing import TYPE_CHECKING, Any

import base58
import structlog
from airflow.sdk.execution_time.timeout import TimeoutPosix

from pacifica_provider.api.signing import Signer
from pacifica_provider.withdrawals.ledger import withdrawal_entry
from tests.faults.airflow_bench import TaskBench
from tests.faults.sweep import Sweep, forms
from tests.faults.wiretap import Wiretap, unused_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.harness import ProtocolHarness


def _signatures(tap: Wiretap) -> set[str]:
    return {str(body["signature"]) for body in tap.bodies}


FAULTS: dict[str, list[dict[str, Any]]] = {
    "paid": [],
    "rejected": [{"kind": "status", "status": 422}],
    "signature refused": [{"kind": "status", "status": 400, "body": "Verification failed"}],
    "rejected and listed": [{"kind": "status", "when": "after_commit", "status": 400}],
    "throttled": [{"kind": "status", "status": 429, "headers": {"retry-after": "900"}}],
    "unresolved": [{"kind": "status", "status": 503, "count": 2}],
    "reset": [{"kind": "reset_request", "bytes": 40, "count": 2}],
    "lost and adopted": [{"kind": "reset", "when": "after_commit"}],
    "unknown": [{"kind": "duplicate_in_progress"}],
    "echo": [{"kind": "echo", "amount": "2", "count": 2}],
    "html": [{"kind": "html", "count": 2}],
    "look refused": [{"kind": "status", "route": "pending", "status": 403}],
    "look unreachable": [{"kind": "reset", "route": "pending", "count": 3}],
    "look throttled": [{"kind": "status", "route": "pending", "status": 429}],
    "look malformed": [{"kind": "status", "route": "pending", "status": 200, "body": "{", "count": 3}],
    "no date": [{"kind": "no_date", "route": "pending", "count": 3}],
}


def test_no_failure_of_the_exchange_shows_key_or_signature(
    harness: ProtocolHarness, tap: Wiretap, connect: Callable[..., None]
) -> None:
    """I7, S01, S04, S14, S27: every answer there is, and neither log, exception, locals nor record shows a secret."""
    sweep, raised = Sweep(), {}
    for name, faults in FAULTS.items():
        task = TaskBench(harness, run_id=f"manual__{name.replace(' ', '_')}")
        for fault in faults:
            harness.sandbox.control("POST", "/faults", {"route": "withdraw", "count": 1, **fault})
        raised[name] = sweep.run(name, task.withdraw)
        sweep.run(f"{name}, again", task.withdraw)
        sweep.add(f"{name}: record", json.dumps(task.ledger.values))
        harness.sandbox.control("DELETE", "/faults")

    assert len({type(error).__name__ for error in raised.values()}) >= 7
    assert len(_signatures(tap)) > 12
    assert sweep.found(forms(harness.sandbox.agent_private_key)) == []
    assert sweep.found(_signatures(tap)) == []


def test_no_guard_shows_key_or_signature(harness: ProtocolHarness, tap: Wiretap, connect: Callable[..., None]) -> None:
    """I7, S04: floats, limits, backfills, drift, skew and broken stores end in errors that hold no secret."""
    sweep = Sweep()
    paid = TaskBench(harness)
    sweep.run("paid", paid.withdraw)
    sweep.run("mismatch", lambda: paid.withdraw("2"))
    sweep.run("float", lambda: TaskBench(harness).withdraw(1.5))
    sweep.run("backfill", lambda: TaskBench(harness, run_id="b", run_type="backfill").withdraw())
    sweep.run("mapped", lambda: TaskBench(harness, map_index=1).withdraw())
    corrupt = TaskBench(harness, run_id="c")
    corrupt.ledger.set(withdrawal_entry("pay", "c", "withdraw", None), {"version": 0})
    sweep.run("corrupt", corrupt.withdraw)
    connect(extra={"withdrawal_limits": {"SOL": "0.5"}})
    sweep.run("limit", lambda: TaskBench(harness, run_id="d").withdraw())
    connect(host=f"http://127.0.0.1:{unused_port()}/api/v1")
    sweep.run("closed", lambda: TaskBench(harness, run_id="e").withdraw())
    connect(extra={"agent_wallet": harness.account})
    sweep.run("pinned", lambda: TaskBench(harness, run_id="f").withdraw())
    connect()
    harness.clock.skew_ms = 60_000
    sweep.run("skew", lambda: TaskBench(harness, run_id="g").withdraw())

    assert sweep.found(forms(harness.sandbox.agent_private_key)) == []
    assert sweep.found(_signatures(tap)) == []


def test_a_time_limit_in_mid_request_shows_neither_key_nor_signature(
    harness: ProtocolHarness, tap: Wiretap, connect: Callable[..., None]
) -> None:
    """S04, S14: a BaseException out of the transport brings no frame along that holds the signed body."""
    sweep = Sweep()
    harness.fault("hang", seconds=0.8)

    def withdraw() -> None:
        with TimeoutPosix(0.4):
            TaskBench(harness).withdraw()

    raised = sweep.run("time limit", withdraw)

    assert type(raised).__name__ == "AirflowTaskTimeout"
    assert len(_signatures(tap)) == 1
    assert sweep.found(forms(harness.sandbox.agent_private_key)) == []
    assert sweep.found(_signatures(tap)) == []


def test_the_sweep_finds_what_is_there(harness: ProtocolHarness) -> None:
    """The check of these files: a key in a log line, a message, a local of a library or a record is found."""
    secret = harness.sandbox.agent_private_key
    sweep = Sweep()
    sweep.run("raised", lambda: json.loads(secret))
    sweep.run("logged", lambda: logging.getLogger("urllib3").debug("header %s", secret[:24]))
    sweep.run("told", lambda: structlog.get_logger("task").info("key", key=base58.b58decode(secret).hex()))
    sweep.add("record", f'{{"key": "{base58.b58decode(secret)[:32].hex()}"}}')
    found = sweep.found(forms(secret))

    assert {"raised: JSONDecodeError", "logged: log", "told: log", "record"} < set(found)
    assert "raised: JSONDecodeError, local s of decoder.py:decode" in found
    assert sweep.found(forms(secret), in_locals=False) == [where for where in found if "local" not in where]


def test_the_signer_gives_its_key_to_no_one(harness: ProtocolHarness) -> None:
    """S02: printed, formatted, pickled, copied or looked through, it shows its public half only."""
    signer = Signer.from_base58(harness.sandbox.agent_private_key)
    sweep = Sweep()
    for text in (str(signer), repr(signer), f"{signer!s:>9}", json.dumps(signer, default=str), str(dir(signer))):
        sweep.add("shown", text)
    ways: list[Callable[[Signer], object]] = [pickle.dumps, copy.copy, copy.deepcopy]
    refusals = [sweep.run("copied", partial(way, signer)) for way in ways]

    assert [type(error) for error in refusals] == [TypeError] * 3
    assert sweep.found(forms(harness.sandbox.agent_private_key)) == []
    assert not hasattr(signer, "__dict__")
