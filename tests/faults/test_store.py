"""The record that fails, lies or is old: F44 to F50."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pacifica_provider.exceptions import OutcomeUnknown, Unreachable, Unresolved
from pacifica_provider.withdrawals import crashpoints
from tests.faults.judge import assert_paid_once, nonces, refused, statuses
from tests.support.rig import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.support.rig import Rig


@pytest.fixture
def at() -> Iterator[Callable[[str, Callable[[], None]], None]]:
    """Yield a way to do something when the protocol comes to a crash point."""

    def arm(point: str, act: Callable[[], None]) -> None:
        crashpoints.install(lambda reached: act() if reached == point else None)

    yield arm
    crashpoints.install(None)


def test_a_store_that_is_down_at_the_start_sends_nothing(rig: Rig) -> None:
    """F44: without the record nothing is read from the exchange or sent to it, and a later try pays."""
    rig.store.down = True

    error = refused(rig, Unreachable, "this try sent nothing")
    requests = rig.ledger()["requests"]
    rig.store.down = False
    receipt = rig.try_once()
    assert_paid_once(rig, receipt, adopted=False)

    assert ("store could not be used" in str(error), requests) == (True, {})


@pytest.mark.parametrize("fenced", [True, False])
def test_an_attempt_that_cannot_be_written_is_not_sent(
    rig: Rig, at: Callable[[str, Callable[[], None]], None], fenced: bool
) -> None:
    """F44: the write-ahead fails, so the signed request stays here; the next try, with the store back, pays."""
    rig.store = MemoryStore(fenced=fenced)
    at("after_marker", lambda: setattr(rig.store, "fail_writes", 1))

    refused(rig, Unreachable, "the request was not sent")
    posts = rig.posts()
    receipt = rig.try_once()
    assert_paid_once(rig, receipt, adopted=False)

    assert posts == []


def test_a_store_that_is_down_after_a_lost_answer_says_so(rig: Rig) -> None:
    """F44: a later try that cannot read the record sends nothing, and does not claim that nothing was ever sent."""
    rig.fault("reset", when="after_commit")
    rig.fault("status", route="pending", status=503, skip=1, count=3)
    refused(rig, Unresolved)
    rig.store.down = True

    error = refused(rig, Unresolved, "Whether an earlier try did stands in the record")
    rig.store.down = False
    receipt = rig.try_once()
    assert_paid_once(rig, receipt, adopted=True)

    assert "no money moved" not in str(error).lower()


@pytest.mark.parametrize("fenced", [True, False])
def test_a_receipt_that_cannot_be_written_is_returned_all_the_same(
    rig: Rig, at: Callable[[str, Callable[[], None]], None], fenced: bool
) -> None:
    """F45: after a 200 nothing raises; a WARNING carries key and nonce, and a later try adopts the same row."""
    rig.store = MemoryStore(fenced=fenced)
    at("after_post", lambda: setattr(rig.store, "down", True))

    receipt = rig.try_once()
    warnings = [line for line in rig.logs if "WARNING" in line]
    crashpoints.install(None)
    rig.store.down = False
    later = rig.try_once()

    assert nonces(rig) == [receipt.batch_nonce] == [later.batch_nonce]
    assert (receipt.adopted, later.adopted, statuses(rig)) == (False, True, [200, 409])
    assert (len(warnings), all(rig.key in line for line in warnings)) == (3, True)
    assert f"batch_nonce {receipt.batch_nonce}" in warnings[0]


def test_a_receipt_write_that_fails_briefly_is_repeated(
    rig: Rig, at: Callable[[str, Callable[[], None]], None]
) -> None:
    """F45: the write is repeated, so that two failures leave the receipt on record."""
    at("after_post", lambda: setattr(rig.store, "fail_writes", 2))

    receipt = rig.try_once()
    assert_paid_once(rig, receipt, adopted=False)

    assert rig.store.record()["state"] == "accepted"


def test_a_task_that_could_not_report_its_success_sends_nothing_again(rig: Rig) -> None:
    """F46: the receipt is on record, so the try that Airflow runs again returns it without a request of any kind."""
    receipt = rig.try_once()
    before = rig.ledger()

    again = rig.try_once()

    assert (again, rig.ledger()) == (receipt, before)


class ForgetfulStore(MemoryStore):
    """Says that it has written, and has not, from some write on."""

    def __init__(self, *, fenced: bool, keeps: int) -> None:
        super().__init__(fenced=fenced)
        self.keeps = keeps

    def write(self, entry: Mapping[str, Any], /) -> None:
        """Accept the entry, and forget it unless it is one of the first."""
        self.keeps -= 1
        if self.keeps >= 0:
            super().write(entry)


@pytest.mark.parametrize(("fenced", "keeps"), [(True, 0), (False, 0), (False, 1)])
def test_a_try_that_reads_back_less_than_it_wrote_sends_nothing(rig: Rig, fenced: bool, keeps: int) -> None:
    """F47: a write that is acknowledged and lost is noticed by the check before the send."""
    rig.store = ForgetfulStore(fenced=fenced, keeps=keeps)

    error = refused(rig, Unresolved, "Another try")

    assert (rig.posts(), error.idempotency_key) == ([], rig.key)


def test_a_store_that_keeps_its_marker_and_loses_the_rest_never_pays_twice(rig: Rig) -> None:
    """F47: with attempt and receipt lost, a cleared task meets 409 at its first request and is unknown, paid once."""
    rig.store = ForgetfulStore(fenced=True, keeps=1)
    receipt = rig.try_once()
    rig.clear()

    error = refused(rig, OutcomeUnknown)

    assert "at the first request" in str(error)
    assert nonces(rig) == [receipt.batch_nonce]


@pytest.mark.parametrize("fault", [None, "reset"], ids=["answered", "lost"])
def test_a_record_that_was_lost_after_the_request_is_taken_as_wiped(rig: Rig, fault: str | None) -> None:
    """F47: the try number says that something ran before, so the row there is unknown, and one step adopts it."""
    if fault:
        rig.fault(fault, when="after_commit")
        rig.fault("status", route="pending", status=503, skip=1, count=3)
        refused(rig, Unresolved)
    else:
        rig.try_once()
    rig.store.wipe()

    error = refused(rig, OutcomeUnknown)
    rig.decide("adopt", batch_nonce=error.batch_nonces[0])
    rig.clock.sleep_s(20)
    receipt = rig.try_once()
    assert_paid_once(rig, receipt, adopted=True)

    assert len(rig.posts()) == 1
