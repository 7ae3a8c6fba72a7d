"""The record that is corrupt, foreign or old: F48 and F50."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pacifica_provider.exceptions import ConfigurationError, WithdrawalRejected
from pacifica_provider.withdrawals.identity import Order, fingerprint
from tests.faults.checks import refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.harness import ProtocolHarness


ACCOUNT = "FVen3X669xLzsi6N2V91DoiyzHzg1uAgqiT8jZ9nS96Z"


# Written by release 0.1.0 and frozen: whatever comes later must read it as the same withdrawal under the same key.
OLD_KEY = "707c8f43-4f9e-5fd7-9463-d1c4d56dee14"
OLD_NAME = "withdrawal_de6f4b25095f726a824277e4de495e9e"


def _corrupt(record: dict[str, Any], change: str) -> object:
    changes: dict[str, Callable[[], object]] = {
        "older version": lambda: record.update(version=0),
        "newer version": lambda: record.update(version=2),
        "no version": lambda: record.pop("version"),
        "no write id": lambda: record.pop("write_id"),
        "another key": lambda: record.update(key=OLD_KEY),
        "another amount": lambda: record["order"].update(amount="2"),
        "an amount as a number": lambda: record["order"].update(amount=1),
        "an attempt less": lambda: record.update(attempts=record["attempts"][:-1], extra=1),
        "an unknown state": lambda: record.update(state="paid"),
        "no receipt": lambda: record.update(receipt=None),
        "a field more": lambda: record.update(burned=True),
        "a field less": lambda: record.pop("since_ms"),
        "maybe_sent as text": lambda: record.update(maybe_sent="no"),
        "restores as text": lambda: record.update(restores="none"),
    }
    if change in {"text", "a list", "null in a list"}:
        return {"text": "paid", "a list": [record], "null in a list": [None]}[change]
    changes[change]()
    return record


CORRUPTIONS = ["older version", "newer version", "no version", "no write id", "another key", "another amount"]
CORRUPTIONS += ["an amount as a number", "an attempt less", "an unknown state", "no receipt", "a field more"]
CORRUPTIONS += ["a field less", "maybe_sent as text", "restores as text", "text", "a list", "null in a list"]


@pytest.mark.parametrize("change", CORRUPTIONS)
def test_a_record_that_cannot_be_read_is_refused_and_left_alone(harness: ProtocolHarness, change: str) -> None:
    """F48, S28: corrupt, foreign or of another version, it is never guessed at, never overwritten, nothing is sent."""
    harness.try_once()
    name = next(name for name in harness.store.entries if name.startswith("withdrawal"))
    harness.store.entries[name] = json.dumps(_corrupt(harness.store.record(), change))
    entries, before = dict(harness.store.entries), harness.ledger()

    error = refused(harness, ConfigurationError, "Money may have moved")

    assert "Nothing was sent by this try" in str(error)
    assert (harness.store.entries, harness.ledger()) == (entries, before)


@pytest.mark.parametrize("entry", [{"version": 2, "references": [None]}, {"version": 1}, "paid", []])
def test_a_task_s_entry_that_cannot_be_read_is_refused_and_left_alone(harness: ProtocolHarness, entry: object) -> None:
    """F48, F101: what this task has asked for is not guessed at either, and nothing is sent."""
    harness.fault("status", status=422)
    refused(harness, WithdrawalRejected)
    name = next(name for name in harness.store.entries if name.startswith("task"))
    harness.store.entries[name] = json.dumps(entry)
    before = harness.ledger()

    error = refused(harness, ConfigurationError, "Money may have moved")

    assert "Nothing was sent by this try" in str(error)
    assert (harness.store.entries[name], harness.ledger()) == (json.dumps(entry), before)


def test_a_record_of_an_older_release_keeps_its_key_and_order(harness: ProtocolHarness) -> None:
    """F50: key, order and fingerprint of a frozen record are what this release computes, and it sends nothing."""
    frozen = _frozen()
    harness.store.entries[OLD_NAME] = json.dumps(frozen)
    harness.account, harness.base_url, harness.amount = ACCOUNT, "https://test-api.pacifica.fi/api/v1", "1.5"
    harness.run_id, harness.withdrawal_ref = "scheduled__2026-11-23T00:00:00+00:00", "invoice-7"
    harness.try_number = 1

    receipt = harness.try_once()

    assert (harness.key, fingerprint(harness.identity, harness.base_url, Order.parse("SOL", "1.5"))) == (
        frozen["key"],
        frozen["fingerprint"],
    )
    assert (receipt.batch_nonce, str(receipt.requested_amount)) == (42, "1.5")
    assert (harness.store.record(), harness.ledger()["requests"]) == (frozen, {})


def _frozen() -> dict[str, Any]:
    identity = {"account": ACCOUNT, "dag_id": "pay", "run_id": "scheduled__2026-11-23T00:00:00+00:00"}
    identity |= {"task_id": "withdraw", "withdrawal_ref": "invoice-7", "scope": ""}
    attempt = {"signed_ms": 1795399191728, "window_ms": 10000, "outcome": "answered", "status": 200, "code": None}
    receipt = {"batch_nonce": 42, "requested_amount": "1.5", "fee_amount": "0.001", "submitted_at_ms": 1795399191728}
    return {
        "version": 1,
        "write_id": "5f0c",
        "key": OLD_KEY,
        "identity": identity,
        "order": {"symbol": "SOL", "amount": "1.5"},
        "base_url": "https://test-api.pacifica.fi/api/v1",
        "fingerprint": "c9743b8abfff8a596793e09a2769c0e0d583c810d712ed613ccf6b79cc34d72c",
        "maybe_sent": False,
        "since_ms": 1795399191700,
        "before": [],
        "attempts": [{**attempt, "detail": "", "amount": None}],
        "state": "accepted",
        "receipt": {**receipt, "adopted": False},
        "reason": "",
        "decisions": [],
        "restores": 0,
    }
