"""What a task's context says of who is withdrawing: the run's identity, and what a try knows of itself."""

from __future__ import annotations

import random
import shlex
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from pacifica_provider.exceptions import ConfigurationError
from pacifica_provider.hooks.arguments import check_withdrawal_ref
from pacifica_provider.withdrawals.identity import RunIdentity
from pacifica_provider.withdrawals.withdraw import Runtime, TryContext

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Literal

    from pacifica_provider.hooks.requests import WithdrawalRequest


@dataclass(frozen=True, slots=True)
class TaskRun:
    """One try of one task instance, as Airflow describes it. ``loop_index`` is the iteration of a task loop (3.4)."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    loop_index: int | None
    try_number: int
    clear_number: int
    run_after_ms: int
    run_type: str

    @classmethod
    def from_context(cls, context: Mapping[str, Any]) -> TaskRun:
        """
        Read the context that Airflow hands to ``execute``.

        :raises ConfigurationError: outside a DAG run; there is no random fallback, ever.
        """
        try:
            ti, dag_run, loop = context["ti"], context["dag_run"], context.get("loop")
            return cls(
                str(ti.dag_id),
                str(ti.run_id),
                str(ti.task_id),
                map_index=-1 if ti.map_index is None else int(ti.map_index),
                loop_index=None if loop is None else int(loop.index),
                try_number=int(ti.try_number),
                clear_number=int(getattr(dag_run, "clear_number", None) or 0),
                run_after_ms=int(dag_run.run_after.timestamp() * 1000),
                run_type=str(getattr(dag_run.run_type, "value", dag_run.run_type)),
            )
        except (KeyError, AttributeError, TypeError, ValueError):
            raise ConfigurationError(
                "A withdrawal needs the context of a running task, as Airflow hands it to execute: its identity is the "
                "DAG run's, and outside of one there is none. Nothing was sent."
            ) from None

    def identity(self, account: str, scope: str, withdrawal_ref: str | None) -> RunIdentity:
        """
        Return the identity of this run's withdrawal.

        :raises ConfigurationError: for a mapped task or a task in a loop without a reference: neither its index nor its
            iteration is an identity, since a re-ordered list or a cleared loop moves it to another payment. Also for
            a reference that would be the same for every payment.
        """
        if self.is_repeated and withdrawal_ref is None:
            kind = "mapped withdrawal" if self.map_index >= 0 else "withdrawal in a loop"
            raise ConfigurationError(
                f"A {kind} needs a withdrawal_ref, unique in the run, such as an invoice number, the symbol or "
                "'round-{{ loop.index }}': the index alone is not an identity, since it changes when the list is "
                "re-ordered. Nothing was sent."
            )
        if withdrawal_ref is not None:
            check_withdrawal_ref(withdrawal_ref)
        return RunIdentity(account, self.dag_id, self.run_id, self.task_id, withdrawal_ref, scope)

    def try_context(self, request: WithdrawalRequest) -> TryContext:
        """Return what the protocol needs to know of this try."""
        reference, one = request.withdrawal_ref, request.one_reference
        adoption: Literal["window", "never", "amount"] = "window"
        if request.tag_amount:
            adoption = "amount"
        elif self.is_repeated or (reference is not None and not one):
            adoption = "never"
        return TryContext(
            first_try=self.first_try,
            run_after_ms=self.run_after_ms,
            adoption=adoption,
            instance=f"{self.map_index}/{self.loop_index}" if one else None,
            sweeps=request.sweeps,
            case_command=case_command(self.dag_id, self.run_id, self.task_id, reference),
        )

    @property
    def is_repeated(self) -> bool:
        """Whether the task runs several times in its run: mapped, or in a loop."""
        return self.map_index >= 0 or self.loop_index is not None

    @property
    def first_try(self) -> bool:
        """Whether this is the first try of a run that was never cleared."""
        return self.try_number <= 1 and self.clear_number == 0

    def refuse_second_call(self, withdrawal_ref: str | None) -> None:
        """
        Refuse a second withdrawal under one reference in one try: it would get the receipt of the first (F103).

        A try is a process of its own, so what this process has withdrawn is all that there is to remember.
        """
        if self._call(withdrawal_ref) in _withdrawn:
            raise ConfigurationError(
                f"This try has already withdrawn under the withdrawal_ref {withdrawal_ref!r}. Several withdrawals in "
                "one task need a withdrawal_ref each. This call sent nothing; what the earlier one sent stands."
            )

    def note_withdrawn(self, withdrawal_ref: str | None) -> None:
        """Remember that this try has withdrawn under this reference."""
        _withdrawn.add(self._call(withdrawal_ref))

    def _call(self, withdrawal_ref: str | None) -> tuple[object, ...]:
        names = (self.dag_id, self.run_id, self.task_id, self.map_index, self.loop_index)
        return (*names, self.try_number, withdrawal_ref)

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
            if self.first_try:
                raise
            command = case_command(self.dag_id, self.run_id, self.task_id)
            raise type(error)(
                f"{error} That is said of this try alone: an earlier one may have sent the withdrawal. See what is on "
                f"record with:\n{command}"
            ) from None


_withdrawn: set[tuple[object, ...]] = set()


def case_command(dag_id: str, run_id: str, task_id: str, withdrawal_ref: str | None = None) -> str:
    """Return the command line that shows a case, ready to paste where Airflow runs."""
    words = ["airflow", "pacifica"] if _has_provider_commands() else ["python", "-m", "pacifica_provider.cli"]
    words += ["case", "--dag-id", dag_id, "--run-id", run_id, "--task-id", task_id]
    if withdrawal_ref is not None:
        words += ["--withdrawal-ref", withdrawal_ref]
    return shlex.join(words)


def _has_provider_commands() -> bool:
    """Say whether this Airflow reads a provider's ``cli`` section, as 3.2 and later do."""
    major, minor = metadata.version("apache-airflow-core").split(".")[:2]
    return (int(major), int(minor)) >= (3, 2)


def runtime(log: Callable[[str], None]) -> Runtime:
    """Return the real world: wall clock, sleep, random ids and jitter."""
    return Runtime(
        now_ms=lambda: time.time_ns() // 1_000_000,
        sleep_s=time.sleep,
        new_id=lambda: uuid.uuid4().hex,
        jitter=random.random,
        log=log,
    )
