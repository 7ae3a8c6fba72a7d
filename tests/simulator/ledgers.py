"""One deployment's ledger, as Airflow keeps it: fenced (3.3 on) or not (3.1 and 3.2); and what may happen to it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pacifica_provider.withdrawals.ledger import BIRTH_ENTRY, LedgerState, LedgerUnavailableError, prune, restored

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.simulator.fault_injector import FaultInjector
    from tests.simulator.history import History
    from tests.simulator.scheduler import Scheduler
    from tests.simulator.worker import Worker


@dataclass(slots=True)
class LedgerTable:
    """
    What lies in one deployment's database, as JSON text by name, and everything that was ever written to it.

    ``loses`` counts down: the write that brings it to zero is acknowledged and never seen again.
    """

    deployment: int
    fenced: bool
    scheduler: Scheduler
    history: History
    entries: dict[str, str] = field(default_factory=dict)
    log: list[tuple[int, str, str | None]] = field(default_factory=list)
    loses: int = 0

    def born(self, at_ms: int) -> None:
        """Let it have begun long ago, as in a deployment that has withdrawn before."""
        LedgerState(at_ms).write(self)
        self.log = [(at_ms, BIRTH_ENTRY, self.entries[BIRTH_ENTRY])]

    # -- as a person's commands see it

    def get(self, name: str, /) -> object | None:
        """Return an entry."""
        value: object = self.json(name)
        return value

    def set(self, name: str, value: Mapping[str, Any], /) -> None:
        """Write an entry."""
        self.put(name, json.dumps(value))

    def delete(self, name: str, /) -> None:
        """Remove an entry."""
        if self.entries.pop(name, None) is not None:
            self.log.append((self.scheduler.now_ms, name, None))

    def names(self) -> list[str]:
        """Return the name of every entry."""
        return sorted(self.entries)

    # -- as a database sees it

    def put(self, name: str, text: str) -> None:
        """Write an entry's text."""
        self.entries[name] = text
        self.log.append((self.scheduler.now_ms, name, text))

    def json(self, name: str) -> Any:
        """Return an entry, read; ``None`` if there is none."""
        return json.loads(self.entries[name]) if name in self.entries else None

    # -- what may happen to it

    def lose(self, name: str, what: str) -> None:
        """Let an entry be gone without a word: ``what`` says how."""
        self.history.mark(self.deployment, "entry lost", names={name})
        self.history.seen[what] += 1
        self.delete(name)

    def restore(self, to_ms: int, *, said: bool) -> None:
        """Come back from a backup; ``airflow pacifica ledger restored`` is said before any task runs, or it is not."""
        lost = {name for at_ms, name, _ in self.log if at_ms > to_ms}
        self.history.mark(self.deployment, "restored, said" if said else "restored, not said", names=lost)
        then: dict[str, str] = {}
        for at_ms, name, text in self.log:
            if at_ms <= to_ms and text is not None:
                then[name] = text
            elif at_ms <= to_ms:
                then.pop(name, None)
        for name in set(self.entries) - set(then):
            self.delete(name)
        for name, text in then.items():
            self.put(name, text)
        if said:
            restored(self, self.scheduler.now_ms)

    def prune(self, before_ms: int) -> None:
        """Forget what ended before, as ``airflow pacifica ledger prune`` does."""
        before = set(self.entries)
        prune(self, before_ms, self.scheduler.now_ms)
        self.history.mark(self.deployment, "pruned", names=before - set(self.entries))


@dataclass(slots=True)
class SimulatedLedger:
    """
    One try's access to the table. ``replaced`` says whether Airflow has replaced this try.

    A fenced ledger then refuses to write, and still answers, as measured on Airflow 3.3.
    """

    table: LedgerTable
    worker: Worker
    injector: FaultInjector
    replaced: Callable[[], bool]
    fenced: bool = field(init=False)
    _known: dict[str, str | None] = field(default_factory=dict)
    _read_last: str = ""

    def __post_init__(self) -> None:
        self.fenced = self.table.fenced

    def get(self, name: str, /) -> object | None:
        """Return the entry."""
        self._call(f"get {_kind(name)}")
        stored = self._known[name] = self.table.entries.get(name)
        self._read_last = name
        self._answer(f"get {_kind(name)}, unanswered")
        value: object = None if stored is None else json.loads(stored)
        return value

    def set(self, name: str, value: Mapping[str, Any], /) -> None:
        """Write the entry whole."""
        self._call(f"set {_kind(name)}")
        self._fence()
        self._put(name, json.dumps(value))
        if name.startswith("withdrawal_"):
            self.table.history.applied.update(value["decisions"])
        self._answer(f"set {_kind(name)}, unanswered")

    def delete(self, name: str, /) -> None:
        """Remove the entry."""
        self._call(f"delete {_kind(name)}")
        self._fence()
        self.table.delete(name)
        self._answer(f"delete {_kind(name)}, unanswered")

    def _put(self, name: str, text: str) -> None:
        table = self.table
        if name != BIRTH_ENTRY:
            table.loses -= 1
            if table.loses == 0:
                self.worker.tell(f"this write of {name} will be lost")
                self.injector.seen["write lost"] += 1
                table.history.mark(table.deployment, "entry lost", names={name})
                return
        known = self._known.get(name)
        # A fence stands between the tries of one task, not between two mapped tasks that ask for one reference. A list
        # of references is looked at right before it is written: a write that was not is no bad luck.
        checked = name.startswith("withdrawal_") or (name.startswith("task_") and self._read_last == name)
        if checked and table.entries.get(name) != known:
            self.worker.tell("this write goes over what another try has written")
            table.history.mark(table.deployment, "overwritten", names={name})
        table.put(name, text)
        self._known[name] = text

    def _fence(self) -> None:
        if self.fenced and self.replaced():
            self.injector.seen["fenced off"] += 1
            raise LedgerUnavailableError("this try has been replaced")

    def _call(self, what: str) -> None:
        self.worker.step(what)
        self.worker.scheduler.wait(self.worker.rng.random() * 20)
        if self.worker.process_faults.ledger_down or self.injector.strikes(self.injector.profile.ledger_trouble):
            self._fail(what)

    def _answer(self, what: str) -> None:
        self.worker.step(what)
        if self.injector.strikes(self.injector.profile.ledger_trouble / 3):
            self._fail(f"the answer to {what}")

    def _fail(self, what: str) -> None:
        self.worker.ledger_faults += 1
        self.injector.seen["ledger failed"] += 1
        self.worker.tell(f"{what} fails")
        raise LedgerUnavailableError(f"{what} failed")


def _kind(name: str) -> str:
    return name.partition("_")[0]
