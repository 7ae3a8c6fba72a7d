"""A world without luck: one task, and whatever goes wrong is what a test has chosen."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, fields
from random import Random
from typing import TYPE_CHECKING

from pacifica_provider.withdrawals import crashpoints
from pacifica_provider.withdrawals.identity import RunIdentity
from tests.simulator.agenda import Agenda
from tests.simulator.checker import judge
from tests.simulator.chronicle import START_MS, Chronicle
from tests.simulator.exchange import Habits, SimulatedExchange
from tests.simulator.profiles import HOUR, MINUTE, Profile
from tests.simulator.runs import DagRun
from tests.simulator.setting import Setting
from tests.simulator.tasks import Payment
from tests.simulator.weather import Weather
from tests.simulator.worker import Fate, at_crash_point

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.simulator.exchange import Row
    from tests.simulator.tasks import Task
    from tests.simulator.weather import PostFault

QUIET = Profile(**{f.name: "quiet" if f.name == "name" else 0.0 for f in fields(Profile)})  # type: ignore[arg-type]  # by name
# Nothing goes on chain unless a test settles it.
NEVER_MS = (HOUR * 100_000, HOUR * 100_000)


@dataclass(slots=True)
class ChosenWeather(Weather):
    """What goes wrong is what was chosen, and only that."""

    chosen: list[PostFault | None] = field(default_factory=list)

    def post_fault(self) -> PostFault | None:
        """Return what was chosen for the next request; nothing, once that is used up."""
        return self.chosen.pop(0) if self.chosen else None


class Stage:
    """One DAG run with one task instance (more may be added), on an exchange with these habits."""

    def __init__(self, habits: Habits | None = None, *, fenced: bool = True, mapped: bool = False) -> None:
        crashpoints.install(at_crash_point)
        self.agenda, rng, ids = Agenda(START_MS), Random(0), itertools.count()  # noqa: S311 - latencies, alike each time
        self.chronicle = Chronicle(self.agenda)
        self.weather = ChosenWeather(QUIET, rng, self.chronicle.seen)
        habits = habits or Habits(settle_ms=NEVER_MS)
        self.exchange = SimulatedExchange(habits, self.agenda, rng, self.chronicle.seen)
        setting = Setting(self.agenda, rng, self.weather, self.exchange, self.chronicle, lambda: f"write-{next(ids)}")
        self.run = DagRun(setting, fenced, mapped, START_MS, 0, clears_left=0)
        self.task = self.add("invoice" if mapped else None)

    @staticmethod
    def close() -> None:
        """Leave the crash points as they were."""
        crashpoints.install(None)

    def add(self, reference: str | None) -> Task:
        """Add a task instance with a payment of its own."""
        owner = len(self.run.tasks)
        return self.run.add(Payment(owner, RunIdentity("account", "pay", "run-1", "withdraw", reference)))

    def attempt(self, *chosen: PostFault | None, task: Task | None = None, fate: Fate | None = None) -> str | None:
        """Run the next try until it ends or freezes; one that was frozen before is replaced by it."""
        task = task or self.task
        self.weather.chosen = list(chosen)
        frozen = self._frozen()
        task.start(fate or Fate())
        self.agenda.run(until=lambda: task.outcome is not None or self._frozen() > frozen)
        return task.outcome

    def clear(self, *, wiped: bool = False) -> None:
        """Clear the run, with its records kept or discarded."""
        self.run.clear_number += 1
        for task in self.run.tasks if wiped else ():
            task.shelf.wipe()
            self.chronicle.mark(task.number, "wiped")

    def pass_time(self, passed_ms: int) -> None:
        """Let time pass: late requests land, frozen tries thaw."""
        then_ms = self.agenda.now_ms + passed_ms
        self.agenda.at(then_ms, lambda: None)
        self.agenda.run(until=lambda: self.agenda.now_ms >= then_ms)

    def forget_keys(self) -> None:
        """Let the exchange forget every key it has known for ten minutes."""
        self.exchange.forgot_all_ms = self.agenda.now_ms - 10 * MINUTE

    def debits(self, owner: int = 0) -> Sequence[Row]:
        """Return what was in truth withdrawn for one payment."""
        return [row for row in self.exchange.rows if row.sender is not None and row.sender.owner == owner]

    def violations(self) -> list[str]:
        """Judge what has happened so far."""
        return judge(self.chronicle, self.exchange).violations

    def _frozen(self) -> int:
        return sum(count for what, count in self.chronicle.seen.items() if what.startswith("frozen at"))
