"""The journal: what is written before a byte leaves, and how an overtaken try finds out."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from pacifica_provider.exceptions import ConfigurationError
from pacifica_provider.withdrawals.identity import Order, RunIdentity, fingerprint
from pacifica_provider.withdrawals.intents import Journal, OvertakenError, StoreUnavailableError
from pacifica_provider.withdrawals.records import Entry, Record, StoredReceipt
from tests.support.rig import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable

ORDER = Order("SOL", Decimal("1.5"))
FENCED = pytest.mark.parametrize("fenced", [True, False], ids=["fenced", "no fence"])


def record(reference: str | None = None) -> Record:
    """Return an open record."""
    identity = RunIdentity("acc", "pay", "run", "withdraw", reference)
    return Record(identity, ORDER, "https://x", fingerprint(identity, "https://x", ORDER), maybe_sent=False, since_ms=1)


class Tries:
    """Two or more tries of one task on one store."""

    def __init__(self, *, fenced: bool) -> None:
        self.store = MemoryStore(fenced=fenced)
        self._ids = itertools.count(1)

    def another(self) -> Journal:
        """Return a new try that has read the store."""
        journal = Journal(self.store, lambda: f"w{next(self._ids)}")
        journal.recall()
        return journal

    def stored(self) -> dict[str, Any]:
        """Return what is in the store."""
        assert self.store.entry is not None
        return dict(json.loads(self.store.entry))


@FENCED
def test_nothing_stored_is_nothing_recalled(fenced: bool) -> None:
    """An empty store is no entry, and reading it writes nothing."""
    tries = Tries(fenced=fenced)

    assert tries.another().entry is None
    assert tries.store.calls == ["read"]


@FENCED
def test_a_mark_is_an_entry_without_records(fenced: bool) -> None:
    """Its presence proves that nothing was wiped (F47, F54)."""
    tries = Tries(fenced=fenced)
    tries.another().mark()

    assert tries.stored() == {"version": 1, "write_id": "w1", "records": {}}
    assert tries.another().entry == Entry("w1", {})


@FENCED
def test_every_write_has_an_id_of_its_own(fenced: bool) -> None:
    """Mark, write-ahead, save and receipt each leave another write id, by which the next check sees who wrote."""
    tries = Tries(fenced=fenced)
    journal, seen = tries.another(), []
    for write in (
        journal.mark,
        lambda: journal.write_ahead(record()),
        lambda: journal.save(record()),
        lambda: journal.save_receipt(record()),
    ):
        write()
        seen.append(tries.stored()["write_id"])

    assert seen == ["w1", "w2", "w3", "w4"]


@FENCED
def test_a_write_ahead_after_another_try_wrote_is_refused(fenced: bool) -> None:
    """A try that read before another wrote must send nothing, and overwrites nothing (F41)."""
    tries = Tries(fenced=fenced)
    older, newer = tries.another(), tries.another()
    newer.write_ahead(record())
    left = tries.stored()

    with pytest.raises(OvertakenError):
        older.write_ahead(record())
    assert left == tries.stored()


def test_without_a_fence_the_entry_is_read_once_more_after_the_write() -> None:
    """A try that wrote between our check and our write is seen by the second check (F41)."""
    tries = Tries(fenced=False)
    journal, other = tries.another(), tries.another()
    write = tries.store.write
    raced: list[bool] = []

    def racing(entry: Any) -> None:
        write(entry)
        if not raced:
            raced.append(True)
            write(Entry("other", {}).to_json())

    tries.store.write = racing  # type: ignore[method-assign]  # the race is injected here

    with pytest.raises(OvertakenError):
        journal.write_ahead(record())
    assert other.entry is None


def test_with_a_fence_one_check_is_enough() -> None:
    """There the write itself fails for a replaced try, so a fair-weather write-ahead costs one read and one write."""
    tries = Tries(fenced=True)
    journal = tries.another()
    tries.store.calls.clear()
    journal.write_ahead(record())

    assert tries.store.calls == ["read", "write"]


def test_an_outcome_is_never_saved_over_another_try_without_a_fence() -> None:
    """What another try has written since is newer than what this one knows (F41)."""
    tries = Tries(fenced=False)
    older, newer = tries.another(), tries.another()
    newer.mark()
    left = tries.stored()

    with pytest.raises(OvertakenError):
        older.save(record())
    assert left == tries.stored()


@FENCED
def test_a_receipt_is_saved_whoever_wrote_last(fenced: bool) -> None:
    """An accepted withdrawal is true for every try (F41, F45)."""
    tries = Tries(fenced=fenced)
    older = tries.another()
    older.mark()
    if not fenced:  # with a fence a replaced try cannot write at all
        tries.another().write_ahead(record("another reference"))
    receipt = StoredReceipt(7, Decimal("1.5"), None, 1, adopted=False)
    accepted = replace(record(), state="accepted", receipt=receipt)
    older.save_receipt(accepted)

    assert Entry.from_json(tries.stored()).records[accepted.key] == accepted
    assert len(tries.stored()["records"]) == (1 if fenced else 2)


@FENCED
def test_the_records_of_other_references_are_kept(fenced: bool) -> None:
    """Several withdrawals of one task stand side by side, each under its own key."""
    tries = Tries(fenced=fenced)
    journal = tries.another()
    journal.write_ahead(record("a"))
    journal.save(record("a"))
    tries.another().write_ahead(record("b"))

    assert set(tries.stored()["records"]) == {record("a").key, record("b").key}


@FENCED
def test_an_entry_that_cannot_be_read_is_never_overwritten(fenced: bool) -> None:
    """Corrupt or of another version: every read refuses, and the write-ahead reads first (F48)."""
    tries = Tries(fenced=fenced)
    journal = tries.another()
    tries.store.entry = alien = '{"version": 2, "mine": true}'
    writes: list[Callable[[], object]] = [journal.recall, lambda: journal.write_ahead(record())]
    writes += [] if fenced else [lambda: journal.save(record()), lambda: journal.save_receipt(record())]

    for write in writes:
        with pytest.raises(ConfigurationError, match="left as it is"):
            write()
    assert tries.store.entry == alien


@FENCED
def test_a_store_that_is_down_is_said_to_be(fenced: bool) -> None:
    """Nothing is concluded from a store that cannot be read or written (F44)."""
    tries = Tries(fenced=fenced)
    journal = tries.another()
    tries.store.down = True

    for call in (journal.recall, journal.mark, lambda: journal.write_ahead(record()), lambda: journal.save(record())):
        with pytest.raises(StoreUnavailableError):
            call()


def test_a_failed_write_is_not_taken_for_written() -> None:
    """After a write that failed, the journal still holds what the store holds (F44, F47)."""
    tries = Tries(fenced=True)
    journal = tries.another()
    journal.mark()
    tries.store.fail_writes = 1

    with pytest.raises(StoreUnavailableError):
        journal.save(record())
    journal.write_ahead(record())
    assert list(tries.stored()["records"]) == [record().key]


def test_a_decision_is_read_and_removed() -> None:
    """It lies beside the entry, so it never races the record."""
    tries = Tries(fenced=True)
    journal = tries.another()
    tries.store.decision = {"action": "void"}

    assert journal.read_decision() == {"action": "void"}
    journal.delete_decision()
    assert journal.read_decision() is None
    assert tries.store.entry is None
