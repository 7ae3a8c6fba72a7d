"""A record that the ledger lost after its order was paid, and an order that has drifted since."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pacifica_provider.exceptions import OutcomeUnknown
from tests.faults.checks import refused, statuses

if TYPE_CHECKING:
    from tests.support.harness import ProtocolHarness

TEN_MINUTES_S = 600


def pay_lose_and_drift(harness: ProtocolHarness) -> None:
    """Pay 1 SOL, lose the ledger, outlive the key, and ask for 2 SOL."""
    harness.try_once()
    harness.store.lose()
    harness.clear()
    harness.clock.sleep_s(TEN_MINUTES_S)
    harness.sandbox.control("POST", "/forget_keys")
    harness.amount = "2"


@pytest.mark.parametrize("settled", [False, True])
def test_a_lost_record_and_a_drifted_amount_are_unknown_not_a_second_payment(
    harness: ProtocolHarness, *, settled: bool
) -> None:
    """F54 with F56 and F87, the key forgotten: the other amount is shown to a person, and nothing is posted."""
    pay_lose_and_drift(harness)
    if settled:
        harness.sandbox.control("POST", "/settle", {})

    error = refused(harness, OutcomeUnknown)

    assert "may have forgotten its idempotency key" in str(error)
    assert "batch_nonce 42" in str(error)
    assert (len(harness.debits()), statuses(harness)) == (1, [200])


@pytest.mark.parametrize("settled", [False, True])
def test_a_person_can_go_on_from_there(harness: ProtocolHarness, *, settled: bool) -> None:
    """F54: a repost after that unknown pays the new order once, and its lost record does not stop it a second time."""
    pay_lose_and_drift(harness)
    if settled:
        harness.sandbox.control("POST", "/settle", {})
    error = refused(harness, OutcomeUnknown)
    harness.decide("repost", rows=list(error.batch_nonces))

    receipt = harness.try_once()

    # Settled, what is listed as 0.999 could be 2 SOL less some fee, so a person has to have named it.
    assert list(error.batch_nonces) == ([42] if settled else [])
    assert (int(receipt.requested_amount), len(harness.debits())) == (2, 2)


def test_within_the_key_s_life_the_exchange_itself_refuses_the_other_amount(harness: ProtocolHarness) -> None:
    """F54: soon after, the key is still known, so the drifted order meets a 409 and ends unknown."""
    harness.try_once()
    harness.store.lose()
    harness.clear()
    harness.amount = "2"

    error = refused(harness, OutcomeUnknown)

    assert "409" in str(error)
    assert len(harness.debits()) == 1


def test_withdrawals_of_other_assets_do_not_stop_a_run_whose_record_may_be_lost(harness: ProtocolHarness) -> None:
    """F54: only the order's own symbol counts."""
    harness.sibling(symbol="BTC", task_id="other", amount="0.01").try_once()
    harness.try_number = 1
    harness.clear()

    receipt = harness.try_once()

    assert [debit["batch_nonce"] for debit in harness.debits()] == [receipt.batch_nonce]
