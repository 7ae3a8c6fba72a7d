"""The ledger is the judge: what must hold of the exchange, the error and every later try, whatever the fault was."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, TypeVar

import pytest

from pacifica_provider.exceptions import (
    ConfigurationError,
    OutcomeUnknown,
    PacificaError,
    ParameterMismatch,
    Throttled,
    Unreachable,
    Unresolved,
    WithdrawalRejected,
)

if TYPE_CHECKING:
    from pacifica_provider.withdrawals.record import StoredReceipt
    from tests.support.harness import ProtocolHarness

E = TypeVar("E", bound=PacificaError)

CLAIMS: dict[type[PacificaError], str] = {
    ConfigurationError: "Nothing was sent",
    WithdrawalRejected: "No money moved",
    ParameterMismatch: "this try sent nothing",
    OutcomeUnknown: "UNKNOWN",
    Throttled: "No money moved",
    Unreachable: "Nothing was sent",
    Unresolved: "MAY have moved money",
}
# These can be raised before a record was read or begun, so that there is nothing to carry.
BEFORE_A_RECORD = (ConfigurationError, Unreachable, Unresolved)


def refused(harness: ProtocolHarness, kind: type[E], claim: str | None = None) -> E:
    """Run one try, and return the error it must end with: its very class, its claim in words, key and order with it."""
    with pytest.raises(kind) as caught:
        harness.try_once()
    error = caught.value
    carried = (error.idempotency_key, error.symbol, error.amount)

    assert type(error) is kind
    assert (claim or CLAIMS[kind]) in str(error)
    if kind not in BEFORE_A_RECORD or "MAY have moved" in str(error) or error.idempotency_key is not None:
        assert carried == (harness.key, harness.symbol, format(Decimal(harness.amount).normalize(), "f"))
    return error


def assert_paid_once(harness: ProtocolHarness, receipt: StoredReceipt, *, adopted: bool | None = None) -> None:
    """Check the ledger against a receipt (I1, I2), and that a later try sends nothing (I5)."""
    posts = len(harness.posts())
    (debit,) = harness.debits()
    again = harness.try_once()

    assert (debit["batch_nonce"], debit["symbol"]) == (receipt.batch_nonce, harness.symbol)
    assert Decimal(debit["amount"]) == receipt.requested_amount == Decimal(harness.amount)
    assert adopted in {None, receipt.adopted}
    assert (again, len(harness.posts())) == (receipt, posts)


def assert_unknown(harness: ProtocolHarness, *, rows: list[int], because: str, debits: int) -> OutcomeUnknown:
    """Run one try that must end unknown, with these rows, and check that no later try sends anything by itself (I4)."""
    first = refused(harness, OutcomeUnknown)
    posts = len(harness.posts())
    harness.clock.sleep_s(3600)
    harness.clear()
    later = refused(harness, OutcomeUnknown)

    assert because in str(first)
    assert list(first.batch_nonces) == rows
    assert list(later.batch_nonces) == rows
    assert (len(harness.debits()), len(harness.posts())) == (debits, posts)
    return first


def nonces(harness: ProtocolHarness) -> list[int]:
    """Return the batch nonces that were debited under this task's key."""
    return [int(debit["batch_nonce"]) for debit in harness.debits()]


def statuses(harness: ProtocolHarness) -> list[int | None]:
    """Return what this task's requests were answered, ``None`` for those without an answer."""
    return [post["status"] for post in harness.posts()]
