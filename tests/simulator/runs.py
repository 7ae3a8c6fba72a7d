"""One DAG run: its task instances, and how people clear, re-order, wipe and recreate it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from tests.simulator.people import act_on
from tests.simulator.profiles import HOUR, MINUTE
from tests.simulator.stores import Shelf
from tests.simulator.tasks import Payment, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulator.setting import Setting

# What no retry and no clear can get past without a person: where a run may rest.
CONCLUDED = frozenset({"success", "OutcomeUnknown", "Voided", "ParameterMismatch", "WithdrawalRejected"})


@dataclass(slots=True)
class DagRun:
    """A DAG run with one withdrawing task, mapped or not. ``clear_number`` is the run's, as in Airflow."""

    setting: Setting
    fenced: bool
    mapped: bool
    run_after_ms: int
    serial: int
    tasks: list[Task] = field(default_factory=list)
    clear_number: int = 0
    clears_left: int = 4
    next_payment: Callable[[], Payment] | None = None

    def add(self, payment: Payment) -> Task:
        """Add a task instance with an empty store."""
        rng, weather = self.setting.rng, self.setting.weather
        shelf = Shelf(self.fenced)
        if weather.strikes(weather.profile.write_lost):
            shelf.loses = rng.randint(1, 6)
        self.setting.seen["fenced store" if self.fenced else "store without a fence"] += 1
        task = Task(
            self.setting, self, self.setting.chronicle.next_task(self.serial), payment, shelf, mapped=self.mapped
        )
        self.tasks.append(task)
        return task

    def start(self) -> None:
        """Start every task instance that has not succeeded."""
        for task in self.tasks:
            self._begin(task)

    def _begin(self, task: Task) -> None:
        task.retries = self.setting.rng.choice((0, 1, 2, 3))
        task.outcome = None
        delay_ms = self.setting.rng.choice((0, 100, 2_000, 60_000)) if self.mapped else 0
        self.setting.agenda.at(self.setting.agenda.now_ms + delay_ms, task.start)

    def task_ended(self) -> None:
        """See whether the whole run has ended, and what people make of it."""
        if any(task.outcome is None for task in self.tasks):
            return
        weather, rng, agenda = self.setting.weather, self.setting.rng, self.setting.agenda
        if weather.fair or self.clears_left <= 0:
            return
        self.clears_left -= 1
        acted = [task for task in self.tasks if act_on(task)]
        if acted:
            wait_ms = rng.choice((0, 1_000, MINUTE, HOUR))
            agenda.at(agenda.now_ms + wait_ms, partial(self.clear, acted))
        elif weather.strikes(weather.profile.clear):
            wait_ms = rng.choice(
                (1_000, rng.randint(5_000, MINUTE), rng.randint(MINUTE, HOUR), rng.randint(HOUR, 72 * HOUR))
            )
            agenda.at(agenda.now_ms + wait_ms, self._clear_somehow)

    def clear(self, tasks: list[Task], *, counted: bool = True) -> None:
        """Clear these task instances and run them again."""
        self.setting.seen["cleared"] += 1
        if counted:
            self.clear_number += 1
        for task in tasks:
            task.uncounted |= not counted
            self._begin(task)

    def _clear_somehow(self) -> None:
        weather, rng = self.setting.weather, self.setting.rng
        counted = not (self.fenced and weather.strikes(weather.profile.wipe / 8))
        if not counted:
            self.setting.seen["cleared uncounted"] += 1
        if self.mapped and rng.random() < 0.4:
            self._reorder()
        if weather.strikes(weather.profile.wipe if self.fenced else weather.profile.wipe / 10):
            for task in self.tasks:
                task.shelf.wipe()
                self.setting.chronicle.mark(task.number, "wiped")
        if rng.random() < 0.04:
            self._recreate()
            self.start()
            return
        self.clear(self.tasks, counted=counted)

    def _reorder(self) -> None:
        """Let the list that the task is mapped over change: the payments move to other indexes, one may be new."""
        payments = [task.payment for task in self.tasks]
        if self.next_payment is not None and self.setting.rng.random() < 0.3:
            self.setting.seen["mapping grown"] += 1
            payments.insert(0, self.next_payment())
            self.add(payments[-1])
        else:
            self.setting.rng.shuffle(payments)
        self.setting.seen["mapping re-ordered"] += 1
        for task, payment in zip(self.tasks, payments, strict=True):
            task.payment = payment

    def _recreate(self) -> None:
        """Delete the run and create it again under the same id: every record is gone, and nothing says so."""
        self.setting.seen["run recreated"] += 1
        payments = [task.payment for task in self.tasks]
        self.tasks, self.clear_number, self.serial = [], 0, self.serial + 100
        for payment in payments:
            self.add(payment)
