"""A world without luck: one task, and whatever goes wrong is what a test has chosen."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, fields
from random import Random
from typing import TYPE_CHECKING, Any

from pacifica_provider.withdrawals import failpoints
from pacifica_provider.withdrawals.identity import RunIdentity
from tests.simulator.checker import check_world
from tests.simulator.elsewhere import Elsewhere
from tests.simulator.exchange import ExchangeOptions, SimulatedExchange
from tests.simulator.fault_injector import FaultInjector
from tests.simulator.history import START_MS, History
from tests.simulator.ledgers import LedgerTable
from tests.simulator.people import record_of
from tests.simulator.profiles import HOUR, MINUTE, Profile
from tests.simulator.runs import DagRun, Deployment
from tests.simulator.scheduler import Scheduler
from tests.simulator.setting import Setting
from tests.simulator.tasks import OPERATOR, Kind, Payment
from tests.simulator.worker import ProcessFaults, at_failpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.simulator.exchange import Row
    from tests.simulator.fault_injector import PostFault
    from tests.simulator.tasks import Task

QUIET = Profile(**{f.name: "quiet" if f.name == "name" else 0.0 for f in fields(Profile)})  # type: ignore[arg-type]  # by name
# Nothing goes on chain unless a test settles it.
NEVER_MS = (HOUR * 100_000, HOUR * 100_000)


@dataclass(slots=True)
class ChosenFaults(FaultInjector):
    """What goes wrong is what was chosen, and only that."""

    chosen: list[PostFault | None] = field(default_factory=list)

    def post_fault(self) -> PostFault | None:
        """Return what was chosen for the next request; nothing, once that is used up."""
        return self.chosen.pop(0) if self.chosen else None


class ScriptedWorld:
    """
    One DAG run with one task instance (more may be added), on an exchange with these options.

    The ledger began long before, unless ``born_ms`` says otherwise.
    """

    def __init__(
        self,
        options: ExchangeOptions | None = None,
        *,
        fenced: bool = True,
        kind: Kind = OPERATOR,
        references: Sequence[str | None] | None = None,
        born_ms: int = START_MS - HOUR,
    ) -> None:
        failpoints.install(at_failpoint)
        self.scheduler, rng, ids = Scheduler(START_MS), Random(0), itertools.count()  # noqa: S311 - latencies, alike each time
        self.history = History(self.scheduler)
        self.injector = ChosenFaults(QUIET, rng, self.history.seen)
        options = options or ExchangeOptions(settle_ms=NEVER_MS)
        self.exchange = SimulatedExchange(options, self.scheduler, rng, self.history.seen)
        setting = Setting(
            self.scheduler,
            rng,
            self.injector,
            self.exchange,
            self.history,
            lambda: f"write-{next(ids)}",
            Elsewhere(self.exchange),
        )
        self._owners = itertools.count()
        self.ledger = LedgerTable(0, fenced, self.scheduler, self.history)
        self.ledger.born(born_ms)
        self.deployment = Deployment(setting, self.ledger)
        self.run = DagRun(setting, self.deployment, kind, START_MS, clears_left=0)
        self.deployment.runs.append(self.run)
        if references is None:
            references = ["invoice"] if kind.mapped else [None]
        self.task = self.run.add(*map(self.payment, references))

    @staticmethod
    def close() -> None:
        """Leave the failpoints as they were."""
        failpoints.install(None)

    def payment(self, reference: str | None) -> Payment:
        """Return another payment, under this reference."""
        return Payment(next(self._owners), RunIdentity("account", "pay", "run-1", "withdraw", reference))

    def add(self, reference: str | None) -> Task:
        """Add a task instance with a payment of its own."""
        return self.run.add(self.payment(reference))

    def attempt(
        self, *chosen: PostFault | None, task: Task | None = None, process_faults: ProcessFaults | None = None
    ) -> str | None:
        """Run the next try until it ends or freezes; one that was frozen before is replaced by it."""
        task = task or self.task
        self.injector.chosen = list(chosen)
        frozen = self._frozen()
        task.start(process_faults or ProcessFaults())
        self.scheduler.run(until=lambda: task.outcome is not None or self._frozen() > frozen)
        return task.outcome

    def clear(self) -> None:
        """Clear the run; the ledger stays."""
        self.run.clears.append(self.scheduler.now_ms)

    def restore(self, to_ms: int) -> None:
        """Let Airflow's database come back from a backup made then, and say so; nothing is run again by itself."""
        self.ledger.restore(to_ms, said=True)
        self.run.restore(to_ms)

    def record(self, task: Task | None = None) -> dict[str, Any]:
        """Return what the ledger holds of the task's withdrawal."""
        record = record_of(task or self.task)
        assert record is not None
        return record

    def pass_time(self, passed_ms: int) -> None:
        """Let time pass: late requests land, frozen tries thaw."""
        then_ms = self.scheduler.now_ms + passed_ms
        self.scheduler.at(then_ms, lambda: None)
        self.scheduler.run(until=lambda: self.scheduler.now_ms >= then_ms)

    def forget_keys(self) -> None:
        """Let the exchange forget every key it has known for ten minutes."""
        self.exchange.forgot_all_ms = self.scheduler.now_ms - 10 * MINUTE

    def debits(self, owner: int = 0) -> Sequence[Row]:
        """Return what was in truth withdrawn for one payment."""
        return [row for row in self.exchange.rows if row.sender is not None and row.sender.owner == owner]

    def violations(self) -> list[str]:
        """Check what has happened so far."""
        return check_world(self.history, self.exchange).violations

    def _frozen(self) -> int:
        return sum(count for what, count in self.history.seen.items() if what.startswith("frozen at"))
