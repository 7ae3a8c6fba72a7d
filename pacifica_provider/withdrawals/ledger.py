"""
The ledger: where the record of every withdrawal is kept, seen from the protocol.

Airflow's asset state store from 3.3 on, Airflow Variables before (``hooks/ledgers.py``). It keeps what Airflow's task
state throws away: an entry survives retries, clears and the deletion of its DAG run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from pacifica_provider.exceptions import ConfigurationError
from pacifica_provider.withdrawals.record import VERSION, Record


class LedgerUnavailableError(Exception):
    """The ledger could not be read or written; what it holds is not known."""


class Ledger(Protocol):
    """
    Keeps JSON objects by name, for ever. Every method raises ``LedgerUnavailableError`` when it cannot do what it says.

    ``fenced`` says that ``set`` fails for a try that Airflow has replaced. Without it, every write is checked by
    reading before and after.
    """

    fenced: bool

    def get(self, name: str, /) -> object | None:
        """Return the entry, ``None`` if there is none."""
        ...

    def set(self, name: str, value: Mapping[str, Any], /) -> None:
        """Write the entry whole; return only once it is kept."""
        ...

    def delete(self, name: str, /) -> None:
        """Remove the entry; nothing happens if there is none."""
        ...


def withdrawal_entry(dag_id: str, run_id: str, task_id: str, withdrawal_ref: str | None) -> str:
    """Return the name of a withdrawal's record: by run and reference, so that another account meets it as well."""
    return f"withdrawal_{_digest(dag_id, run_id, task_id, withdrawal_ref)}"


def decision_entry(dag_id: str, run_id: str, task_id: str, withdrawal_ref: str | None) -> str:
    """Return the name of the entry in which a person leaves a decision on that withdrawal."""
    return f"decision_{_digest(dag_id, run_id, task_id, withdrawal_ref)}"


def prepared_entry(dag_id: str, run_id: str, task_id: str, withdrawal_ref: str | None) -> str:
    """Return the name of the entry with the order that was prepared for that withdrawal."""
    return f"prepared_{_digest(dag_id, run_id, task_id, withdrawal_ref)}"


def task_entry(dag_id: str, run_id: str, task_id: str, instance: str) -> str:
    """Return the name of the entry that lists the references one task instance has withdrawn under."""
    return f"task_{_digest(dag_id, run_id, task_id, instance)}"


BIRTH_ENTRY = "ledger"
_STATE_FIELDS = {"complete_since_ms": int, "raised": bool, "restores": int}


@dataclass(frozen=True, slots=True)
class LedgerState:
    """
    What the ledger says of itself.

    An entry that is not there proves that nothing was sent for runs not older than ``complete_since_ms``: when it was
    born, or what was forgotten since. ``raised``: something was forgotten, so that a first try of an older run proves
    nothing any more. ``restores``: how often it came back from a backup; a record of an earlier count may be older than
    what happened.
    """

    complete_since_ms: int
    raised: bool = False
    restores: int = 0

    @classmethod
    def of(cls, ledger: Ledger, now_ms: int) -> LedgerState:
        """Read it; a ledger that does not say is born now, or by another task at the same moment."""
        stored = ledger.get(BIRTH_ENTRY)
        if stored is None:
            born = cls(now_ms)
            try:
                born.write(ledger)
            except LedgerUnavailableError:
                stored = ledger.get(BIRTH_ENTRY)
                if stored is None:
                    raise
            else:
                return born
        if isinstance(stored, Mapping) and stored.get("version") == VERSION:
            fields = {name: value for name, value in stored.items() if name != "version"}
            if {name: type(value) for name, value in fields.items()} == _STATE_FIELDS:
                return cls(**fields)
        raise ConfigurationError(
            f"The ledger's entry {BIRTH_ENTRY!r} cannot be read. Nothing was sent by this try, and the entry was left "
            "as it is. `airflow pacifica ledger restored` writes it anew."
        )

    def write(self, ledger: Ledger) -> None:
        """Write it."""
        ledger.set(BIRTH_ENTRY, {"version": VERSION, **asdict(self)})


class WholeLedger(Ledger, Protocol):
    """A ledger seen from outside of a task: its names can be listed."""

    def names(self) -> Sequence[str]:
        """Return the name of every entry."""
        ...


def restored(ledger: WholeLedger, now_ms: int) -> None:
    """
    Note that the ledger came back from a backup, so that it may lack, or hold in an older state, what happened since.

    Decisions that wait are dropped: they may have been applied after the backup was made.
    """
    for name in ledger.names():
        if name.startswith("decision_"):
            ledger.delete(name)
    try:
        restores = LedgerState.of(ledger, now_ms).restores
    except ConfigurationError:  # this is how an unreadable one is written anew
        restores = now_ms
    LedgerState(now_ms, raised=True, restores=restores + 1).write(ledger)


def prune(ledger: WholeLedger, before_ms: int, now_ms: int) -> tuple[int, list[str]]:
    """
    Forget the withdrawals that ended before, and what was decided on them.

    Return how many, and the names of entries that could not be read and stay. First the word, then the deed: a prune
    that is cut short makes runs ask that need not, and never pays twice.
    """
    state = LedgerState.of(ledger, now_ms)
    replace(state, complete_since_ms=max(state.complete_since_ms, before_ms), raised=True).write(ledger)
    forgotten, unreadable = 0, []
    for name in ledger.names():
        if name.startswith("withdrawal_"):
            try:
                record = Record.from_json(ledger.get(name))
            except ConfigurationError:
                unreadable.append(name)
                continue
            newest_ms = max([record.since_ms, *(attempt.signed_ms for attempt in record.attempts)])
            if record.state in {"accepted", "void", "rejected"} and newest_ms < before_ms:
                # One that was left after the end, and would be taken for one on the run that asks now.
                ledger.delete(name.replace("withdrawal_", "decision_", 1))
                ledger.delete(name.replace("withdrawal_", "prepared_", 1))
                ledger.delete(name)
                forgotten += 1
    return forgotten, unreadable


def _digest(*parts: str | None) -> str:
    return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode("ascii")).hexdigest()[:32]
