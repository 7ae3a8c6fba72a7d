"""What a task's context says of who is withdrawing: the run's identity, and what a try knows of itself."""

from __future__ import annotations

import random
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pacifica_provider.case.options import case_command
from pacifica_provider.exceptions import ConfigurationError
from pacifica_provider.hooks.stores import store_for
from pacifica_provider.withdrawals.conclusions import RunFacts
from pacifica_provider.withdrawals.identity import RunIdentity
from pacifica_provider.withdrawals.look import Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pacifica_provider.withdrawals.intents import IntentStore


@dataclass(frozen=True, slots=True)
class TaskRun:
    """One try of one task instance, as Airflow describes it."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    clear_number: int
    run_after_ms: int
    run_type: str
    store: IntentStore

    @classmethod
    def from_context(cls, context: Mapping[str, Any]) -> TaskRun:
        """
        Read the context that Airflow hands to ``execute``.

        :raises ConfigurationError: outside a DAG run; there is no random fallback, ever.
        """
        try:
            ti, dag_run = context["ti"], context["dag_run"]
            identity = (str(ti.dag_id), str(ti.run_id), str(ti.task_id))
            map_index = -1 if ti.map_index is None else int(ti.map_index)
            return cls(
                *identity,
                map_index=map_index,
                try_number=int(ti.try_number),
                clear_number=int(getattr(dag_run, "clear_number", None) or 0),
                run_after_ms=int(dag_run.run_after.timestamp() * 1000),
                run_type=str(getattr(dag_run.run_type, "value", dag_run.run_type)),
                store=store_for(context, *identity, map_index),
            )
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            raise ConfigurationError(
                "A withdrawal needs the context of a running task: its identity is the DAG run's, and outside of "
                f"one there is none ({type(error).__name__}: {error}). Nothing was sent."
            ) from None

    def identity(self, account: str, scope: str, withdrawal_ref: str | None) -> RunIdentity:
        """
        Return the identity of this run's withdrawal.

        :raises ConfigurationError: for a mapped task without a reference: its index is no identity, since a
            re-ordered list moves it to another payment.
        """
        if self.map_index >= 0 and withdrawal_ref is None:
            raise ConfigurationError(
                "A mapped withdrawal needs a withdrawal_ref, unique in the run, such as an invoice number or the "
                "symbol: the map index is not an identity, since it changes when the list is re-ordered. Nothing "
                "was sent."
            )
        return RunIdentity(account, self.dag_id, self.run_id, self.task_id, withdrawal_ref, scope)

    def facts(self, withdrawal_ref: str | None) -> RunFacts:
        """Return what the protocol needs to know of this try."""
        return RunFacts(
            never_ran_before=self.never_ran_before,
            run_after_ms=self.run_after_ms,
            mapped=self.map_index >= 0,
            case_command=case_command(self.dag_id, self.run_id, self.task_id, self.map_index, withdrawal_ref),
            cleared=self.clear_number > 0,
        )

    @property
    def never_ran_before(self) -> bool:
        """Whether this is the first try of a run that was never cleared."""
        return self.try_number <= 1 and self.clear_number == 0

    def refuse_backfill(self, *, allow_backfill: bool) -> None:
        """Raise ``ConfigurationError`` where a backfill would pay without having been allowed to."""
        if self.run_type == "backfill" and not allow_backfill:
            raise ConfigurationError(
                "This run belongs to a backfill, and a backfill pays once for every date it creates. Nothing was "
                "sent. If that is meant, set allow_backfill=True."
            )

    @contextmanager
    def speaking_for_this_try(self) -> Iterator[None]:
        """Let what is refused before the record is read say that earlier tries are another matter."""
        try:
            yield
        except ConfigurationError as error:
            if self.never_ran_before:
                raise
            command = case_command(self.dag_id, self.run_id, self.task_id, self.map_index)
            raise type(error)(
                f"{error} That is said of this try alone: an earlier one may have sent the withdrawal. See what is on "
                f"record with:\n{command}"
            ) from None


def surroundings(log: Callable[[str], None]) -> Surroundings:
    """Return the real world: wall clock, sleep, random ids and jitter."""
    return Surroundings(
        now_ms=lambda: time.time_ns() // 1_000_000,
        sleep_s=time.sleep,
        new_id=lambda: uuid.uuid4().hex,
        jitter=random.random,
        log=log,
    )
