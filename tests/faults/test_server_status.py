"""What the exchange answers, true or not: F15 to F22, a repeated key and a failing server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pacifica_provider.exceptions import OutcomeUnknown, Unresolved
from tests.faults.checks import assert_paid_once, assert_unknown, nonces, refused, statuses
from tests.support.patience import until

if TYPE_CHECKING:
    from tests.support.harness import ProtocolHarness

NOT_THERE = "yet lists no such withdrawal"


@pytest.mark.parametrize("tries", [1, 2], ids=["same-try", "next-try"])
@pytest.mark.parametrize("duplicate_body", ["envelope", "text", "empty"])
@pytest.mark.parametrize("history_amount", ["net", "gross"])
@pytest.mark.parametrize("settled", [False, True])
def test_a_409_after_a_committed_attempt_is_adopted(
    harness: ProtocolHarness, tries: int, duplicate_body: str, history_amount: str, settled: bool
) -> None:
    """F15: whatever the 409 says, wherever the row is and however it shows, the one row of our window is ours."""
    harness.options(duplicate_body=duplicate_body, history_amount=history_amount, settle_after_s=5 if settled else None)
    harness.fault("reset", when="after_commit")
    if tries == 2:
        harness.fault("status", route="pending", status=503, skip=1, count=3)  # the first try cannot look again
        refused(harness, Unresolved)

    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=True)

    assert statuses(harness) == [None, 409]


@pytest.mark.parametrize("switch", [{"nonce_scope": "global"}, {"nonce_as_text": True}, {"history_time": "settled"}])
def test_a_409_is_adopted_however_nonces_and_times_are_shown(
    harness: ProtocolHarness, switch: dict[str, object]
) -> None:
    """F15: nonces counted globally or as text, history dated at acceptance or settlement: the same row is found."""
    harness.options(settle_after_s=5, **switch)
    harness.fault("close", when="after_commit")

    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=True)


@pytest.mark.parametrize("listed", [True, False])
def test_a_409_on_the_first_post_is_unknown(harness: ProtocolHarness, listed: bool) -> None:
    """F16: a key that is known at the record's first request was used by another, whose row is shown, never adopted."""
    other = harness.sibling()
    harness.options(list_lag_s=0 if listed else 10_000)
    other.try_once()

    assert_unknown(harness, rows=[42] if listed else [], because="at the first request", debits=1)


@pytest.mark.parametrize("lag_s", [5, 25, 29])
def test_lists_that_lag_within_the_bound_are_waited_for(harness: ProtocolHarness, lag_s: float) -> None:
    """F17: a row that appears within the list-lag bound of 30 s is found and adopted."""
    harness.options(list_lag_s=lag_s)
    harness.fault("reset", when="after_commit")

    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=True)


def test_lists_that_lag_beyond_the_bound_are_unknown(harness: ProtocolHarness) -> None:
    """F17: a row that is not there after the list-lag bound leaves it unknown; cleared once it shows, it is adopted."""
    harness.options(list_lag_s=120)
    harness.fault("reset", when="after_commit")

    first = refused(harness, OutcomeUnknown)
    harness.clock.sleep_s(120)
    harness.clear()
    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=True)

    assert (first.batch_nonces, statuses(harness)) == ((), [None, 409])
    assert NOT_THERE in str(first)


@pytest.mark.parametrize("status", [422, 500, 503])
def test_a_key_burned_by_a_failed_attempt_is_unknown(harness: ProtocolHarness, status: int) -> None:
    """F18: a key used up by a failure inside has no row; a person voids it, and a new reference orders anew."""
    harness.options(burn_keys=True)
    harness.fault("status", status=500 if status == 422 else status)
    assert_unknown(harness, rows=[], because=NOT_THERE, debits=0)

    harness.decide("void")
    voided = refused(harness, OutcomeUnknown, "A person voided")
    anew = harness.sibling(withdrawal_ref="again")
    receipt = anew.try_once()

    assert (harness.debits(), nonces(anew)) == ([], [receipt.batch_nonce])
    assert voided.idempotency_key != anew.key


@pytest.mark.parametrize("late", [False, True], ids=["done-in-time", "done-after-its-window"])
def test_a_409_while_the_first_is_in_progress_waits_for_its_row(harness: ProtocolHarness, late: bool) -> None:
    """F19: after a 409 that means "still in progress" the row is adopted if it comes in time, else left to a person."""
    harness.options(conflict_in_progress=True, expiry_checked="arrival")
    harness.gives_up_s = 0.25
    harness.fault("hang", seconds=3)

    def wait(seconds: float) -> None:
        if 409 in statuses(harness) and (seconds >= 30 or not late):
            until(harness.debits)
        harness.clock.sleep_s(seconds)

    if late:
        with pytest.raises(OutcomeUnknown, match="was not made by an unanswered request"):
            harness.try_once(wait)
    else:
        assert_paid_once(harness, harness.try_once(wait), adopted=True)

    assert (len(nonces(harness)), sorted(statuses(harness), key=str)) == (1, [200, 409])


def test_a_409_that_claims_progress_of_nothing_is_unknown(harness: ProtocolHarness) -> None:
    """F16, F19: a 409 to the very first request is unknown even if nothing was ever made under the key."""
    harness.fault("duplicate_in_progress")

    assert_unknown(harness, rows=[], because="at the first request", debits=0)


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("shared_batches", [False, True])
def test_two_equal_rows_in_the_window_are_unknown_with_both_nonces(
    harness: ProtocolHarness, shared_batches: bool, settled: bool
) -> None:
    """F20: an equal withdrawal made elsewhere meanwhile, in another batch or the same, leaves two rows and no guess."""
    harness.options(shared_batches=shared_batches, settle_after_s=12 if settled else None)
    harness.fault("reset", when="after_commit")
    made: list[int] = []

    def wait(seconds: float) -> None:
        if not made:
            made.append(harness.foreign()["batch_nonce"])
        harness.clock.sleep_s(seconds)

    with pytest.raises(OutcomeUnknown) as caught:
        harness.try_once(wait)
    (own,) = nonces(harness)

    assert list(caught.value.batch_nonces) == [own, *made]
    assert_unknown(harness, rows=[own, *made], because="lists 2 withdrawals", debits=1)


@pytest.mark.parametrize("when", ["before the first attempt", "after the window", "with another amount"])
def test_a_foreign_row_that_cannot_be_ours_does_not_hinder(harness: ProtocolHarness, when: str) -> None:
    """F20: an equal withdrawal that was there before, or one of another amount in the window, is told apart."""
    foreign: list[int] = []
    if when == "before the first attempt":
        foreign.append(harness.foreign()["batch_nonce"])
    harness.fault("reset", when="after_commit")

    def wait(seconds: float) -> None:
        harness.clock.sleep_s(seconds)
        if not foreign and when != "before the first attempt":
            foreign.append(harness.foreign("3" if when == "with another amount" else None)["batch_nonce"])

    if when == "after the window":
        with pytest.raises(OutcomeUnknown):  # two rows, and no guess, though the times speak for one of them
            harness.try_once(wait)
    else:
        receipt = harness.try_once(wait)
        assert_paid_once(harness, receipt, adopted=True)

    assert len(foreign) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_error_before_the_commit_is_posted_again(harness: ProtocolHarness, status: int) -> None:
    """F21: a 5xx proves nothing; after the window the same order is posted under the same key and paid once."""
    harness.fault("status", status=status)

    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=False)

    assert statuses(harness) == [status, 200]


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_error_after_the_commit_is_adopted(harness: ProtocolHarness, status: int) -> None:
    """F22: a 5xx in place of the receipt is met again as a 409, and adopted."""
    harness.fault("status", when="after_commit", status=status)

    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=True)

    assert statuses(harness) == [status, 409]


@pytest.mark.parametrize("when", ["before_commit", "after_commit"])
def test_a_server_that_keeps_failing_leaves_it_unresolved(harness: ProtocolHarness, when: str) -> None:
    """F21, F22: two failing requests are all that one try sends; the next try settles it."""
    harness.fault("status", when=when, status=503, count=2)

    refused(harness, Unresolved)
    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=when == "after_commit")

    assert len(statuses(harness)) == 3
