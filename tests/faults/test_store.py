"""The ledger that fails or lies: F44 to F47, and F48 and F50 in ``test_stored_records.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pacifica_provider.exceptions import OutcomeUnknown, Unresolved
from pacifica_provider.withdrawals import failpoints
from tests.faults.checks import assert_paid_once, assert_unknown, nonces, refused, statuses
from tests.support.harness import MemoryLedger

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from tests.support.harness import ProtocolHarness


@pytest.fixture
def at() -> Iterator[Callable[[str, Callable[[], None]], None]]:
    """Yield a way to do something when the protocol comes to a failpoint."""

    def arm(point: str, act: Callable[[], None]) -> None:
        failpoints.install(lambda reached: act() if reached == point else None)

    yield arm
    failpoints.install(None)


def test_a_store_that_is_down_at_the_start_sends_nothing(harness: ProtocolHarness) -> None:
    """F44: without the record nothing is read from the exchange or sent to it, and a later try pays."""
    harness.store.down = True

    error = refused(harness, Unresolved, "this try sent nothing")
    requests = harness.ledger()["requests"]
    harness.store.down = False
    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=False)

    assert ("ledger could not be used" in str(error), requests) == (True, {})


@pytest.mark.parametrize("entry", ["withdrawal", "task"])
@pytest.mark.parametrize("fenced", [True, False])
def test_an_attempt_that_cannot_be_written_is_not_sent(harness: ProtocolHarness, fenced: bool, entry: str) -> None:
    """F44: the write-ahead fails, so the signed request stays here; the next try, with the ledger back, pays."""
    harness.store = MemoryLedger(fenced=fenced)
    harness.store.fail_writes, harness.store.fail_on = 1, entry

    # A write that fails may be the fence of a newer try, so it is not said that no money moved.
    refused(harness, Unresolved, "the request was not sent")
    posts = harness.posts()
    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=False)

    assert posts == []


def test_a_store_that_is_down_after_a_lost_answer_says_so(harness: ProtocolHarness) -> None:
    """F44: a later try that cannot read the record sends nothing, and does not claim that nothing was ever sent."""
    harness.fault("reset", when="after_commit")
    harness.fault("status", route="pending", status=503, skip=1, count=3)
    refused(harness, Unresolved)
    harness.store.down = True

    error = refused(harness, Unresolved, "Whether an earlier one did stands in the record")
    harness.store.down = False
    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=True)

    assert "no money moved" not in str(error).lower()


@pytest.mark.parametrize("fenced", [True, False])
def test_a_receipt_that_cannot_be_written_is_returned_all_the_same(
    harness: ProtocolHarness, at: Callable[[str, Callable[[], None]], None], fenced: bool
) -> None:
    """F45: after a 200 nothing raises; a WARNING carries key and nonce, and a later try adopts the same row."""
    harness.store = MemoryLedger(fenced=fenced)
    at("after_post", lambda: setattr(harness.store, "down", True))

    receipt = harness.try_once()
    warnings = [line for line in harness.logs if "WARNING" in line]
    failpoints.install(None)
    harness.store.down = False
    later = harness.try_once()

    assert nonces(harness) == [receipt.batch_nonce] == [later.batch_nonce]
    assert (receipt.adopted, later.adopted, statuses(harness)) == (False, True, [200, 409])
    assert (len(warnings), all(harness.key in line for line in warnings)) == (3, True)
    assert f"batch_nonce {receipt.batch_nonce}" in warnings[0]


def test_a_receipt_write_that_fails_briefly_is_repeated(
    harness: ProtocolHarness, at: Callable[[str, Callable[[], None]], None]
) -> None:
    """F45: the write is repeated, so that two failures leave the receipt on record."""
    at("after_post", lambda: setattr(harness.store, "fail_writes", 2))

    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=False)

    assert harness.store.record()["state"] == "accepted"


def test_a_task_that_could_not_report_its_success_sends_nothing_again(harness: ProtocolHarness) -> None:
    """F46: the receipt is on record, so the try that Airflow runs again returns it without a request of any kind."""
    receipt = harness.try_once()
    before = harness.ledger()

    again = harness.try_once()

    assert (again, harness.ledger()) == (receipt, before)


ALL = range(1, 99)


class ForgetfulLedger(MemoryLedger):
    """Says that it has written a withdrawal's record, and has not, at some of the writes, counted from one."""

    def __init__(self, *, fenced: bool, forgets: Collection[int]) -> None:
        super().__init__(fenced=fenced)
        self.forgets = forgets
        self.writes = 0

    def set(self, name: str, value: Mapping[str, Any], /) -> None:
        """Accept the entry, and keep it unless it is to be forgotten."""
        self.writes += name.startswith("withdrawal")
        if not name.startswith("withdrawal") or self.writes not in self.forgets:
            super().set(name, value)


def test_a_try_that_reads_back_less_than_it_wrote_sends_nothing(harness: ProtocolHarness) -> None:
    """F47: without a fence a write that is acknowledged and lost is noticed by the check before the send."""
    harness.store = ForgetfulLedger(fenced=False, forgets=ALL)

    error = refused(harness, Unresolved, "this one sends nothing more")

    assert (harness.posts(), error.idempotency_key) == ([], harness.key)


@pytest.mark.parametrize("fenced", [True, False])
def test_a_receipt_whose_write_is_lost_is_found_again(harness: ProtocolHarness, fenced: bool) -> None:
    """F47: with the attempt on record and the receipt lost, a cleared task meets 409 and adopts its own row."""
    harness.store = ForgetfulLedger(fenced=fenced, forgets=[2])
    receipt = harness.try_once()
    harness.clear()

    again = harness.try_once()

    assert nonces(harness) == [receipt.batch_nonce] == [again.batch_nonce]
    assert (receipt.adopted, again.adopted, statuses(harness)) == (False, True, [200, 409])


def test_a_ledger_that_loses_the_record_and_keeps_the_task_s_entry_never_pays_twice(harness: ProtocolHarness) -> None:
    """F47: with every write of the record lost, the task's entry still says that it was begun: unknown, paid once."""
    harness.store = ForgetfulLedger(fenced=True, forgets=ALL)
    harness.store.be_born(0)
    harness.try_once()
    harness.clear()

    assert_unknown(harness, rows=[42], because="an earlier record of this withdrawal may be lost", debits=1)


LOSSES = [
    pytest.param(("withdrawal",), 0, id="the-record-alone"),
    pytest.param(("withdrawal", "task"), 1, id="record-and-task-entry-of-a-younger-ledger"),
    pytest.param((), 0, id="the-whole-ledger"),
]


@pytest.mark.parametrize("fault", [None, "reset"], ids=["answered", "lost"])
@pytest.mark.parametrize(("lost", "younger"), LOSSES)
def test_a_record_that_was_lost_after_the_request_is_never_paid_again(
    harness: ProtocolHarness, lost: tuple[str, ...], younger: bool, fault: str | None
) -> None:
    """F47: by the task's entry, or a ledger younger than the run, the row there is unknown, and one step adopts it."""
    harness.store.be_born(harness.run_after_ms + 1 if younger else 0)
    if fault:
        harness.fault(fault, when="after_commit")
        harness.fault("status", route="pending", status=503, skip=1, count=3)
        refused(harness, Unresolved)
    else:
        harness.try_once()
    harness.store.lose(*lost)

    error = refused(harness, OutcomeUnknown)
    harness.decide("adopt", batch_nonce=error.batch_nonces[0])
    harness.clock.sleep_s(20)
    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=True)

    assert len(harness.posts()) == 1


def test_a_record_and_a_task_entry_that_vanish_from_a_complete_ledger_meet_409(harness: ProtocolHarness) -> None:
    """F47: the admitted edge: a ledger that lost both and says it is complete posts; while the key is known, a 409."""
    harness.store.be_born(0)
    receipt = harness.try_once()
    harness.store.lose("withdrawal", "task")

    error = refused(harness, OutcomeUnknown)

    assert "at the first request" in str(error)
    assert (nonces(harness), statuses(harness)) == ([receipt.batch_nonce], [200, 409])


def test_an_unknown_that_cannot_be_written_is_not_called_final(
    harness: ProtocolHarness, at: Callable[[str, Callable[[], None]], None]
) -> None:
    """F45, I4: what is not stored is not final, so it is Unresolved; the next try concludes it again."""
    harness.adoption = "never"
    harness.fault("reset", when="after_commit")
    reached: list[None] = []

    def break_at_the_409() -> None:
        reached.append(None)
        harness.store.fail_writes = 100 if len(reached) == 2 else 0

    at("after_post", break_at_the_409)
    error = refused(harness, Unresolved)
    failpoints.install(None)
    harness.store.fail_writes = 0
    refused(harness, OutcomeUnknown)

    assert "could not be written" in str(error)
    assert len(harness.debits()) == 1
