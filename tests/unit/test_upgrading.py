"""What docs/upgrading.md says of runs from before, where a new Airflow begins a new ledger or an old one comes back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pacifica_provider.exceptions import OutcomeUnknown
from pacifica_provider.withdrawals import ledger
from tests.support.harness import MemoryLedger

if TYPE_CHECKING:
    from tests.support.harness import ProtocolHarness

HOUR_S = 3600.0


def hours_later(harness: ProtocolHarness) -> None:
    """Let so much time pass that the exchange has forgotten the key."""
    harness.clock.sleep_s(HOUR_S)
    harness.sandbox.control("POST", "/forget_keys")


def moved(harness: ProtocolHarness, *, tries: int) -> ProtocolHarness:
    """Return the same task instance on an Airflow whose ledger has just begun, after so many tries."""
    anew = replace(harness, store=MemoryLedger(fenced=True), try_number=tries)
    anew.clock, anew.run_after_ms = harness.clock, harness.run_after_ms
    return anew


def test_a_run_that_had_not_begun_pays_from_the_new_ledger(harness: ProtocolHarness) -> None:
    """Its first try proves that nothing was sent, however old the run."""
    hours_later(harness)
    moved(harness, tries=0).try_once()

    assert len(harness.debits()) == 1


def test_a_run_that_had_paid_asks_when_it_is_cleared(harness: ProtocolHarness) -> None:
    """The new ledger does not know the receipt, and the key may be forgotten: nothing is sent."""
    harness.try_once()
    hours_later(harness)
    harness.sandbox.control("POST", "/settle")
    with pytest.raises(OutcomeUnknown, match="an earlier record of this withdrawal may be lost"):
        moved(harness, tries=1).try_once()

    assert len(harness.debits()) == 1


def test_a_run_that_is_made_again_pays_again(harness: ProtocolHarness) -> None:
    """Its first try looks like any other's (A3), which is why the page forbids it."""
    harness.try_once()
    hours_later(harness)
    moved(harness, tries=0).try_once()

    assert len(harness.debits()) == 2


@pytest.mark.parametrize("told", [True, False])
def test_a_ledger_that_comes_back_has_to_be_told(harness: ProtocolHarness, *, told: bool) -> None:
    """After a downgrade it lacks what was paid since: a cleared run pays again, or asks after ``restored``."""
    old = MemoryLedger(fenced=False)
    old.be_born(harness.run_after_ms - 1000)
    harness.try_once()
    hours_later(harness)
    back = moved(harness, tries=1)
    back.store = old
    if told:
        ledger.restored(old, harness.clock.now_ms())
        with pytest.raises(OutcomeUnknown, match="may be lost"):
            back.try_once()
    else:
        back.try_once()

    assert len(harness.debits()) == (1 if told else 2)


def test_a_run_that_was_missed_asks_after_a_restore(harness: ProtocolHarness) -> None:
    """A schedule makes it later for a time before: at its first try a person is asked, and a younger run pays."""
    harness.store.be_born(harness.run_after_ms - 1000)
    harness.clock.sleep_s(HOUR_S)
    ledger.restored(harness.store, harness.clock.now_ms())
    with pytest.raises(OutcomeUnknown, match="may be lost"):
        harness.try_once()
    harness.clock.sleep_s(60)
    younger = harness.sibling(run_id="scheduled__later", store=harness.store)
    younger.run_after_ms = harness.clock.now_ms()
    younger.try_once()

    assert (len(harness.debits()), len(younger.debits())) == (0, 1)
