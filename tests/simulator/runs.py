"""Deployments and DAG runs: task instances, and how people clear, re-order, recreate and restore them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from tests.simulator.people import act_on
from tests.simulator.profiles import HOUR, MINUTE
from tests.simulator.tasks import Kind, Payment, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.simulator.ledgers import LedgerTable
    from tests.simulator.setting import Setting

# What no retry and no clear can get past without a person: where a run may rest.
CONCLUDED = frozenset({"success", "OutcomeUnknown", "Voided", "ParameterMismatch", "WithdrawalRejected"})


@dataclass(slots=True)
class Deployment:
    """One Airflow: its ledger and its runs, in one database."""

    setting: Setting
    table: LedgerTable
    runs: list[DagRun] = field(default_factory=list)

    def restore(self, to_ms: int, *, said: bool) -> None:
        """Come back from a backup: the ledger, and what is known of every run."""
        self.table.restore(to_ms, said=said)
        for run in self.runs:
            for task in run.restore(to_ms):
                run.begin(task)


@dataclass(slots=True)
class DagRun:
    """A DAG run with one withdrawing task, mapped or not. ``clears`` says when it was cleared, or a task beside it."""

    setting: Setting
    deployment: Deployment
    kind: Kind
    run_after_ms: int
    tasks: list[Task] = field(default_factory=list)
    clears: list[int] = field(default_factory=list)
    clears_left: int = 4
    next_payment: Callable[[], Payment] | None = None

    @property
    def clear_number(self) -> int:
        """How often the run was cleared, as Airflow counts it."""
        return len(self.clears)

    def add(self, *payments: Payment) -> Task:
        """Add a task instance that makes these payments."""
        history = self.setting.history
        task = Task(self.setting, self, history.next_task(), len(self.tasks), list(payments))
        self.tasks.append(task)
        return task

    def start(self) -> None:
        """Start every task instance; another task of the run may have been cleared before (F96)."""
        injector, scheduler = self.setting.injector, self.setting.scheduler
        if injector.strikes(injector.profile.clear_beside):
            self.setting.seen["cleared beside"] += 1
            scheduler.at(scheduler.now_ms + self.setting.rng.choice((0, 0, 1_000, 5 * MINUTE)), self._cleared_beside)
        for task in self.tasks:
            self.begin(task)

    def _cleared_beside(self) -> None:
        self.clears.append(self.setting.scheduler.now_ms)

    def begin(self, task: Task) -> None:
        """Run a task instance, with its retries."""
        hasty = self.setting.injector.strikes(self.setting.injector.profile.hasty)
        task.retries = self.setting.rng.choice((0, 1, 2)) if hasty else 3
        task.outcome = None
        delay_ms = self.setting.rng.choice((0, 100, 2_000, 60_000)) if self.kind.mapped else 0
        self.setting.scheduler.at(self.setting.scheduler.now_ms + delay_ms, task.start)

    def task_ended(self) -> None:
        """See whether the whole run has ended, and what people make of it."""
        if any(task.outcome is None for task in self.tasks):
            return
        injector, rng, scheduler = self.setting.injector, self.setting.rng, self.setting.scheduler
        if injector.fair or self.clears_left <= 0:
            return
        self.clears_left -= 1
        acted = [task for task in self.tasks if act_on(task)]
        if acted:
            wait_ms = rng.choice((0, 1_000, MINUTE, HOUR))
            scheduler.at(scheduler.now_ms + wait_ms, partial(self.clear, acted))
        elif injector.strikes(injector.profile.clear):
            wait_ms = rng.choice(
                (1_000, rng.randint(5_000, MINUTE), rng.randint(MINUTE, HOUR), rng.randint(HOUR, 72 * HOUR))
            )
            scheduler.at(scheduler.now_ms + wait_ms, self._clear_somehow)

    def clear(self, tasks: Sequence[Task]) -> None:
        """Clear these task instances and run them again."""
        self.setting.seen["cleared"] += 1
        self.clears.append(self.setting.scheduler.now_ms)
        for task in tasks:
            if task in self.tasks:
                self.begin(task)

    def recreate(self) -> None:
        """Delete the run and make it again under the same id; the ledger stays."""
        self.setting.seen["run recreated"] += 1
        before, self.tasks, self.clears = self.tasks, [], []
        for task in before:
            task.abandon()
            self.add(*task.payments)

    def restore(self, to_ms: int) -> list[Task]:
        """Be again as the database had it then; return what ran then, or had not begun, and is to be run again."""
        self.clears = [at_ms for at_ms in self.clears if at_ms <= to_ms]
        begun = [task for task in self.tasks if task.began]
        for task in self.tasks:
            task.restore(to_ms)
        return [task for task in begun if task.outcome is None]

    def _clear_somehow(self) -> None:
        injector, rng = self.setting.injector, self.setting.rng
        if self.kind.mapped and rng.random() < 0.4:
            self._reorder()
        if injector.strikes(injector.profile.recreate):
            self.recreate()
            self.start()
            return
        some = [task for task in self.tasks if rng.random() < 0.5] if rng.random() < 0.2 else []
        self.clear(some or self.tasks)

    def _reorder(self) -> None:
        """Let the list that the task is mapped over change: the payments move to other indexes, one may be new."""
        payments = [task.payments for task in self.tasks]
        if self.next_payment is not None and self.setting.rng.random() < 0.3:
            self.setting.seen["mapping grown"] += 1
            payments.insert(0, [self.next_payment()])
            self.add(*payments[-1])
        else:
            self.setting.rng.shuffle(payments)
        self.setting.seen["mapping re-ordered"] += 1
        for task, moved in zip(self.tasks, payments, strict=True):
            task.payments = moved
