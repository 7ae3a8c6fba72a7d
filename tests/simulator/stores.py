"""Where one task instance's record is kept, as Airflow keeps it: fenced (3.3 on) or not (3.1 and 3.2)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pacifica_provider.withdrawals.intents import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.simulator.chronicle import MarkKind
    from tests.simulator.weather import Weather
    from tests.simulator.worker import Worker


@dataclass(slots=True)
class Shelf:
    """
    What lies in Airflow's database for one task instance, as JSON text.

    ``loses`` counts down: the write that brings it to zero is acknowledged and never seen again.
    """

    fenced: bool
    entry: str | None = None
    decision: object | None = None
    loses: int = 0
    writes: int = 0

    def wipe(self) -> None:
        """Discard everything, as a clear on Airflow 3.4 does."""
        self.entry = self.decision = None


@dataclass(slots=True)
class SimulatedStore:
    """
    One try's access to the shelf. ``replaced`` says whether Airflow has replaced this try.

    A fenced store then refuses to write and answers as if nothing were there, as measured on Airflow 3.3.
    """

    shelf: Shelf
    worker: Worker
    weather: Weather
    replaced: Callable[[], bool]
    note: Callable[[MarkKind], None]
    fenced: bool = field(init=False)
    _known: str | None = None

    def __post_init__(self) -> None:
        self.fenced = self.shelf.fenced

    def read(self) -> object | None:
        """Return the entry."""
        self._call("store read")
        stored = self._known = None if self._shut() else self.shelf.entry
        self._answer("store read, unanswered")
        value: object = None if stored is None else json.loads(stored)
        return value

    def write(self, entry: Mapping[str, Any], /) -> None:
        """Write the entry whole."""
        self._call("store write")
        if self._shut():
            raise StoreUnavailableError("this try has been replaced")
        self._put(json.dumps(entry))
        self._answer("store write, unanswered")

    def read_decision(self) -> object | None:
        """Return the decision."""
        self._call("decision read")
        decision = None if self._shut() else self.shelf.decision
        if isinstance(decision, dict) and decision["action"] == "repost":
            self.note("repost read")
        return decision

    def delete_decision(self) -> None:
        """Remove the decision."""
        self._call("decision delete")
        if self._shut():
            raise StoreUnavailableError("this try has been replaced")
        self.shelf.decision = None
        self._answer("decision delete, unanswered")

    def _put(self, text: str) -> None:
        shelf = self.shelf
        shelf.writes += 1
        shelf.loses -= 1
        if shelf.loses == 0:
            self.weather.seen["write lost"] += 1
            self.worker.tell("this write will be lost")
            self.note("write lost")
            return
        if not self.fenced and shelf.entry != self._known:
            self.worker.tell("this write destroys what another try has written")
            self.note("overwritten")
        shelf.entry = self._known = text

    def _shut(self) -> bool:
        shut = self.fenced and self.replaced()
        if shut:
            self.weather.seen["fenced off"] += 1
        return shut

    def _call(self, what: str) -> None:
        self.worker.step(what)
        self.worker.agenda.wait(self.worker.rng.random() * 20)
        if self.worker.fate.store_down or self.weather.strikes(self.weather.profile.store_trouble):
            self._fail(what)

    def _answer(self, what: str) -> None:
        self.worker.step(what)
        if self.weather.strikes(self.weather.profile.store_trouble / 3):
            self._fail(f"the answer to {what}")

    def _fail(self, what: str) -> None:
        self.worker.store_faults += 1
        self.weather.seen["store failed"] += 1
        self.worker.tell(f"{what} fails")
        raise StoreUnavailableError(f"{what} failed")
