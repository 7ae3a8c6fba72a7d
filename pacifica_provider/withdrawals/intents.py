"""
The write-ahead journal: what a try reads, checks and writes before the first byte leaves.

Where the entry is kept is the store's business: Airflow's task state store from 3.3 on, an Airflow Variable before
(``hooks/stores.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from pacifica_provider.withdrawals.records import Entry, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class StoreUnavailableError(Exception):
    """The store could not be read or written; what it holds is not known."""


class OvertakenError(Exception):
    """The store no longer holds what this try last saw: another try of the same task has taken over."""


class IntentStore(Protocol):
    """
    Keeps one JSON entry a task instance, and beside it at most one decision of a person.

    Every method raises ``StoreUnavailableError`` when it cannot do what it says. ``fenced`` says whether ``write``
    fails for a try that Airflow has replaced.
    """

    fenced: bool

    def read(self) -> object | None:
        """Return the entry, ``None`` if there is none."""
        ...

    def write(self, entry: Mapping[str, Any], /) -> None:
        """Write the entry whole."""
        ...

    def read_decision(self) -> object | None:
        """Return the decision that waits to be applied, ``None`` if there is none."""
        ...

    def delete_decision(self) -> None:
        """Remove it."""
        ...


class Journal:
    """
    One try's view of the entry. Every write gets a new ``write_id``, by which a later check sees who wrote last.

    :param store: where the entry is kept.
    :param new_id: returns a text never returned before, in any process.
    """

    def __init__(self, store: IntentStore, new_id: Callable[[], str]) -> None:
        self._store = store
        self._new_id = new_id
        self.entry: Entry | None = None

    def recall(self) -> Entry | None:
        """Read the entry; ``ConfigurationError`` if it cannot be understood."""
        stored = self._store.read()
        self.entry = None if stored is None else Entry.from_json(stored)
        return self.entry

    def mark(self) -> None:
        """Write an entry without records: from now on its presence proves that nothing was wiped."""
        self._write(Entry(self._new_id()))

    def write_ahead(self, record: Record) -> None:
        """
        Write the record right before a request leaves, only if this try still holds the entry.

        With a fence the write itself fails for a replaced try; without one the entry is read once more after it.

        :raises OvertakenError: if another try wrote in between; this one must send nothing.
        """
        self._check()
        self._put(record)
        if not self._store.fenced:
            self._check()

    def save(self, record: Record) -> None:
        """
        Write what became of an attempt, never over what another try has written since.

        :raises OvertakenError: if another try has; a replaced try of a store with a fence gets the write's own error.
        """
        if not self._store.fenced:
            self._check()
        self._put(record)

    def save_receipt(self, record: Record) -> None:
        """Write an accepted record, whoever wrote last: a receipt is true for every try. Other records are kept."""
        if not self._store.fenced:
            self.recall()
        self._put(record)

    def _put(self, record: Record) -> None:
        records = dict(self.entry.records) if self.entry else {}
        self._write(Entry(self._new_id(), {**records, record.key: record}))

    def read_decision(self) -> object | None:
        """Return the decision that waits, if any."""
        return self._store.read_decision()

    def delete_decision(self) -> None:
        """Remove the decision."""
        self._store.delete_decision()

    def _write(self, entry: Entry) -> None:
        self._store.write(entry.to_json())
        self.entry = entry

    def _check(self) -> None:
        stored = self._store.read()
        held = None if stored is None else Entry.from_json(stored).write_id
        if held != (self.entry.write_id if self.entry else None):
            raise OvertakenError
