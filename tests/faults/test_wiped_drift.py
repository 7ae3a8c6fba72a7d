"""A record that was wiped after its order was paid, and an order that has drifted since."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pacifica_provider.exceptions import OutcomeUnknown

if TYPE_CHECKING:
    from tests.support.rig import Rig

TEN_MINUTES_S = 600


def pay_wipe_and_drift(rig: Rig) -> None:
    """Pay 1 SOL, lose the record as a clear on Airflow 3.4 does, outlive the key, and ask for 2 SOL."""
    rig.try_once()
    rig.store.wipe()
    rig.clear()
    rig.clock.sleep_s(TEN_MINUTES_S)
    rig.sandbox.control("POST", "/forget_keys")
    rig.amount = "2"


@pytest.mark.parametrize("settled", [False, True])
def test_a_wiped_record_and_a_drifted_amount_are_unknown_not_a_second_payment(rig: Rig, *, settled: bool) -> None:
    """F54 with F56 after the key is forgotten: the other amount of the symbol is named, and nothing is posted."""
    pay_wipe_and_drift(rig)
    if settled:
        rig.sandbox.control("POST", "/settle", {})

    with pytest.raises(OutcomeUnknown, match="other amounts of SOL"):
        rig.try_once()

    assert len(rig.debits()) == 1
    assert len(rig.posts()) == 1


def test_a_person_can_go_on_from_there(rig: Rig) -> None:
    """F54: a repost after that unknown pays the new order once, and the rule does not stop it a second time."""
    pay_wipe_and_drift(rig)
    with pytest.raises(OutcomeUnknown):
        rig.try_once()
    rig.decide("repost")

    receipt = rig.try_once()

    assert (int(receipt.requested_amount), len(rig.debits())) == (2, 2)


def test_within_the_keys_life_the_exchange_itself_refuses_the_other_amount(rig: Rig) -> None:
    """F54: soon after, the key is still known, so the drifted order meets a 409 and ends unknown."""
    rig.try_once()
    rig.store.wipe()
    rig.clear()
    rig.amount = "2"

    with pytest.raises(OutcomeUnknown, match="409"):
        rig.try_once()

    assert len(rig.debits()) == 1


def test_withdrawals_of_other_assets_do_not_stop_a_wiped_run(rig: Rig) -> None:
    """F54: only the order's own symbol counts."""
    rig.sibling(symbol="BTC", task_id="other", amount="0.01").try_once()
    rig.try_number = 1
    rig.clear()
    rig.clock.sleep_s(TEN_MINUTES_S)

    receipt = rig.try_once()

    assert [debit["batch_nonce"] for debit in rig.debits()] == [receipt.batch_nonce]
