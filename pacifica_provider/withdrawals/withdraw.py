"""
Withdraw once: the driver that performs the steps of the protocol. The only sender.

What is done next is decided by ``protocol.next_step``. Everything a withdrawal takes from the world is handed in, so
that the same code runs in Airflow, in the simulator and in anybody's own harness. A complete example::

    from pacifica_provider.withdrawals.identity import Order, RunIdentity
    from pacifica_provider.withdrawals.withdraw import TryContext, withdraw

    receipt = withdraw(
        RunIdentity(account, "pay", "run-1", "withdraw"),
        Order.parse("SOL", "1.5"),
        "https://exchange.invalid/api/v1",
        context=TryContext(first_try=True, run_after_ms=now_ms),
        ledger=my_ledger,            # get, set, delete: a dictionary will do
        exchange=my_exchange,        # pending_withdrawals, withdrawal_history, bridge_parameters
        make_signer=my_signer,       # returns what signs and sends: prepare_withdrawal, send, expiry_window_ms
        policy=Policy(),
        runtime=Runtime(clock, sleep, new_id, jitter, log),
    )

``tests/unit/withdrawals/test_seam.py`` is such a harness in full, and runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

from pacifica_provider.api.amounts import canonical_text
from pacifica_provider.api.outcomes import Outcome
from pacifica_provider.api.outcomes import Throttled as ThrottledOutcome
from pacifica_provider.exceptions import ConfigurationError, PacificaError, ParameterMismatch, Throttled, Unreachable
from pacifica_provider.withdrawals import failpoints
from pacifica_provider.withdrawals.decisions import Decision, read_decision
from pacifica_provider.withdrawals.ledger import (
    Ledger,
    LedgerState,
    LedgerUnavailableError,
    decision_entry,
    task_entry,
    withdrawal_entry,
)
from pacifica_provider.withdrawals.matching import Reading, Snapshot, history_since_ms
from pacifica_provider.withdrawals.messages import Messages, unread, unsettled, utc_text
from pacifica_provider.withdrawals.protocol import (
    DATE_RESOLUTION_MS,
    Asked,
    Drop,
    End,
    Evidence,
    Keep,
    Look,
    Pause,
    Policy,
    Post,
    Read,
    Return,
    Step,
    Trouble,
    TryContext,
    Unlock,
    Wait,
    answered,
    begin,
    is_fresh,
    next_step,
    pause_after,
    recall,
)
from pacifica_provider.withdrawals.record import VERSION, Attempt, Record, StoredReceipt

if TYPE_CHECKING:
    from decimal import Decimal

    from pacifica_provider.api.client import Listing, SignedWithdrawal
    from pacifica_provider.api.models import BridgeParameters, PendingWithdrawal, SettledWithdrawal
    from pacifica_provider.withdrawals.identity import Order, RunIdentity

__all__ = ["Policy", "Runtime", "TryContext", "withdraw"]

T = TypeVar("T")

_RECEIPT_WRITES = 3
_LOOKS = 3


class SettleOrder(Protocol):
    """Settles an order that depends on what there is, such as everything."""

    def __call__(self, recorded: Order | None, /) -> Order:
        """
        Return the order: the recorded one's amount, or a new one where none is on record or it was refused.

        :raises Throttled, Unreachable: it is asked again, within the try's time.
        """
        ...


class ReadingExchange(Protocol):
    """The exchange for reading; needs no key. ``api.client.PacificaClient`` is one."""

    def pending_withdrawals(self) -> Listing[PendingWithdrawal]:
        """Read the pending list."""
        ...

    def withdrawal_history(self, since_ms: int | None = None) -> Listing[SettledWithdrawal]:
        """Read the history, at least all since ``since_ms``."""
        ...

    def bridge_parameters(self, symbol: str) -> BridgeParameters:
        """Read the withdrawal fee."""
        ...


class SigningExchange(Protocol):
    """The exchange that can sign and send; ``expiry_window_ms`` is how long a signature lives."""

    expiry_window_ms: int

    def prepare_withdrawal(
        self, symbol: str, amount: Decimal, *, idempotency_key: str, timestamp_ms: int
    ) -> SignedWithdrawal:
        """Sign; nothing is sent."""
        ...

    def send(self, withdrawal: SignedWithdrawal, /) -> Outcome:
        """Send once."""
        ...


@dataclass(frozen=True, slots=True)
class Runtime:
    """
    Clock, sleep, ids, luck and log; tests and the simulator give their own.

    ``now_ms`` is wall-clock UTC: a monotonic clock stands still in a suspended machine, and a signature does not.
    ``new_id`` returns a text never returned before, in any process; ``jitter`` a number from 0 to 1.
    """

    now_ms: Callable[[], int]
    sleep_s: Callable[[float], None]
    new_id: Callable[[], str]
    jitter: Callable[[], float]
    log: Callable[[str], None]


def withdraw(
    identity: RunIdentity,
    order: Order | SettleOrder,
    base_url: str,
    *,
    context: TryContext,
    ledger: Ledger,
    exchange: ReadingExchange,
    make_signer: Callable[[], SigningExchange],
    policy: Policy,
    runtime: Runtime,
) -> StoredReceipt:
    """
    Return the receipt of this run's one withdrawal; post only if none can have been accepted.

    :param order: what to withdraw; or what settles it, where it depends on what there is. What it returned is fixed by
        the record before anything is sent, so a later try withdraws the same.
    :param make_signer: checks everything that can fail locally; it raises ``ConfigurationError``, and is called only
        once it is known that something is to be sent.
    :raises PacificaError: one of ``pacifica_provider.exceptions``, each a claim about the whole record.
    """
    entry = withdrawal_entry(identity.dag_id, identity.run_id, identity.task_id, identity.withdrawal_ref)
    failpoints.reach("before_record")
    try:
        stored = ledger.get(entry)
    except LedgerUnavailableError as error:
        raise unread(str(error)) from None
    record = None if stored is None else Record.from_json(stored)
    if callable(order):
        order = _settle_order(order, record, policy, runtime)
    attempt = _Try(
        Asked(identity, order, base_url),
        context,
        entry=entry,
        held=None if record is None else (record, stored["write_id"]),  # type: ignore[index]  # read as a record
        ledger=ledger,
        exchange=exchange,
        make_signer=make_signer,
        policy=policy,
        runtime=runtime,
    )
    return attempt.run()


def _settle_order(settle: SettleOrder, record: Record | None, policy: Policy, runtime: Runtime) -> Order:
    """Ask for the order, waiting as for any look where the exchange does not answer or asks for fewer requests."""
    recorded = None if record is None else record.kept_order
    started_ms, failures = runtime.now_ms(), 0
    while True:
        try:
            return settle(recorded)
        except Throttled as error:
            trouble = Trouble("throttled", str(error), error.retry_after_s)
        except Unreachable as error:
            trouble, failures = Trouble("unreachable", str(error)), failures + 1
        left_s = (policy.try_budget_ms - (runtime.now_ms() - started_ms)) / 1000
        pause = pause_after(trouble, failures, left_s)
        if pause is None:
            raise unsettled(trouble)
        runtime.log(f"waiting {pause.seconds:g} s: {trouble.text}")
        _sleep(pause, runtime)


def _sleep(pause: Pause, runtime: Runtime) -> None:
    runtime.sleep_s(pause.seconds * (1 + runtime.jitter() / 4 if pause.jitter else 1))


def withdrawal_fee(exchange: ReadingExchange, symbol: str) -> Decimal | None:
    """Return the asset's present fee; ``None`` if its bridge is gone: the lists are there all the same."""
    try:
        return exchange.bridge_parameters(symbol).withdrawal_fee
    except ConfigurationError:
        return None


class _OvertakenError(Exception):
    """The ledger no longer holds what this try last saw: another try has taken over."""


class _Try:
    """One try of one withdrawal: its hold on the record, and the hands that perform the steps."""

    def __init__(
        self,
        asked: Asked,
        context: TryContext,
        *,
        entry: str,
        held: tuple[Record, str] | None,
        ledger: Ledger,
        exchange: ReadingExchange,
        make_signer: Callable[[], SigningExchange],
        policy: Policy,
        runtime: Runtime,
    ) -> None:
        identity = asked.identity
        names = (identity.dag_id, identity.run_id, identity.task_id)
        self._asked = asked
        self._context = context
        self._ledger = ledger
        self._exchange = exchange
        self._make_signer = make_signer
        self._policy = policy
        self._runtime = runtime
        self._say = Messages(asked, context.case_command)
        self._entry = entry
        self._decision = decision_entry(*names, identity.withdrawal_ref)
        self._task = None if context.instance is None else task_entry(*names, context.instance)
        self._stored: Record | None = None if held is None else held[0]
        self._write_id: str | None = None if held is None else held[1]
        self._references: list[str | None] = []
        self._unwritten = ""
        self._signer: SigningExchange | None = None

    def run(self) -> StoredReceipt:
        try:
            record, decision = self._load()
        except LedgerUnavailableError as error:
            raise unread(str(error)) from None
        now_ms = self._runtime.now_ms()
        seen = Evidence(self._asked, self._context, now_ms, now_ms, decision)
        while True:
            step = next_step(record, replace(seen, now_ms=self._runtime.now_ms()), self._policy)
            if isinstance(step, Return):
                return self._returned(step)
            if isinstance(step, End):
                raise self._ended(step)
            record, seen = self._perform(step, record, seen)

    # -- the record

    def _load(self) -> tuple[Record, Decision | None]:
        """Go on from what is on record, or begin it; refuse a reference that this task instance may not ask for."""
        if self._stored is not None and self._stored.state in {"accepted", "void"}:
            return self._stored, None
        if self._task is not None:
            self._references = _references(self._ledger.get(self._task))
        now_ms = self._runtime.now_ms()
        state = LedgerState.of(self._ledger, now_ms)
        if self._stored is None:
            listed = self._asked.identity.withdrawal_ref in self._references
            record = begin(self._asked, self._context, now_ms=now_ms, ledger=state, listed=listed)
        else:
            record = recall(self._stored, self._context, state)
        if record.state != "unknown":
            self._refuse_another_reference(state)
        # A decision can wait for a record that is lost, where a person was asked before it was ever written.
        waits = record.maybe_sent if self._stored is None else record.state != "rejected"
        return record, self._read_decision() if waits else None

    def _refuse_another_reference(self, state: LedgerState) -> None:
        """Refuse to pay under this reference, if this task instance may have paid under another one (F101)."""
        mine = self._asked.identity
        paid = []
        for other in self._references:
            if other != mine.withdrawal_ref:
                stored = self._ledger.get(withdrawal_entry(mine.dag_id, mine.run_id, mine.task_id, other))
                if stored is None or recall(Record.from_json(stored), self._context, state).may_have_moved:
                    paid.append(repr(other))
        if paid:
            raise self._say.another_reference(paid)

    def _check_other_references(self, written: Record) -> None:
        """See that no other try has paid under another reference since this one began; else this one sends nothing."""
        try:
            self._refuse_another_reference(LedgerState.of(self._ledger, self._runtime.now_ms()))
        except ParameterMismatch:
            self._save(written.with_attempt(replace(written.attempts[-1], outcome="unsent")))
            raise _OvertakenError from None

    def _read_decision(self) -> Decision | None:
        stored = self._ledger.get(self._decision)
        if stored is None:
            return None
        try:
            return read_decision(stored)
        except ConfigurationError as error:
            self._runtime.log(f"WARNING: a waiting decision is dropped: {error}")
            self._ledger.delete(self._decision)
            return None

    def _write(self, record: Record, *, check: bool) -> None:
        """
        Write the record, never over what another try has written since if ``check``.

        :raises _OvertakenError: if another try has; a replaced try of a fenced ledger gets the write's own error.
        """
        if check:
            self._check_hold()
            if not self._ledger.fenced:
                self._check_references()
        write_id = self._runtime.new_id()
        self._ledger.set(self._entry, record.to_json(write_id))
        self._stored, self._write_id, self._unwritten = record, write_id, ""

    def _check_hold(self) -> None:
        stored = self._ledger.get(self._entry)
        held = stored.get("write_id") if isinstance(stored, Mapping) else None
        if held != self._write_id:
            raise _OvertakenError

    def _check_references(self) -> None:
        """See that no other try of this task instance has begun to pay under another reference meanwhile."""
        if self._task is not None and _references(self._ledger.get(self._task)) != self._references:
            raise _OvertakenError

    def _save(self, record: Record) -> Record:
        """
        Write what was learned; if the ledger is down, go on without: what is stored is the more careful reading.

        :raises PacificaError: if another try has taken over, whose record must not be overwritten.
        """
        try:
            self._write(record, check=True)
        except LedgerUnavailableError as error:
            self._unwritten = f"Airflow's ledger could not be written ({error})."
            self._log(record, f"WARNING: {self._unwritten}")
        except _OvertakenError:
            raise self._say.overtaken(record, "The record was written by another try.") from None
        return record

    # -- the steps

    def _perform(  # noqa: PLR0911 - one return a step
        self, step: Step, record: Record, seen: Evidence
    ) -> tuple[Record, Evidence]:
        if isinstance(step, (Look, Read)):
            return record, self._read(step, record, seen)
        if isinstance(step, Post):
            return self._post(step.record, seen)
        if isinstance(step, Keep):
            return self._keep(step, seen)
        if isinstance(step, Drop):
            self._log(record, f"WARNING: the waiting decision is dropped: {step.why}")
            self._forget_decision(record)
            return record, replace(seen, decision=None)
        if isinstance(step, Unlock):
            return record, replace(seen, window_ms=self._unlocked(record).expiry_window_ms)
        if isinstance(step, Wait):
            behind_ms = seen.snapshot.behind_ms if seen.snapshot else 0
            left_ms = step.server_ms - (self._runtime.now_ms() + behind_ms) + DATE_RESOLUTION_MS
            self._runtime.sleep_s(max(left_ms, 250) / 1000)
            return record, seen
        if isinstance(step, Pause):
            return record, self._pause(step, record, seen)
        raise TypeError(step)  # Return and End are not performed

    def _pause(self, step: Pause, record: Record, seen: Evidence) -> Evidence:
        self._log(record, f"waiting {step.seconds:g} s: {seen.trouble.text if seen.trouble else ''}")
        _sleep(step, self._runtime)
        return replace(seen, trouble=None)

    def _unlocked(self, record: Record) -> SigningExchange:
        if self._signer is None:
            try:
                self._signer = self._make_signer()
            except ConfigurationError as error:
                self._confirm_claim(record)
                raise self._say.configuration(record, error) from None
        return self._signer

    def _read(self, step: Look | Read, record: Record, seen: Evidence) -> Evidence:
        try:
            snapshot = self._snapshot()
            if isinstance(step, Look):
                return replace(seen, snapshot=snapshot, trouble=None, failures=0)
            since_ms = history_since_ms(record, self._policy.tolerance_ms)
            history = self._exchange.withdrawal_history(since_ms).rows
            reading = Reading(snapshot, history, withdrawal_fee(self._exchange, record.order.symbol))
        except Throttled as error:
            return replace(seen, trouble=Trouble("throttled", str(error), error.retry_after_s))
        except Unreachable as error:
            return replace(seen, trouble=Trouble("unreachable", str(error)), failures=seen.failures + 1)
        except ConfigurationError as error:
            return replace(seen, trouble=Trouble("misconfigured", str(error), status=error.status))
        readings = (*seen.readings, reading)
        return replace(seen, snapshot=snapshot, readings=readings, trouble=None, failures=0)

    def _snapshot(self) -> Snapshot:
        """
        Read the pending list and the clock that goes with it.

        :raises ConfigurationError: if the worker's clock is off by more than the policy allows; nothing is re-dated.
        :raises Unreachable: if the list cannot be read, or the answer carries no usable ``Date``.
        """
        skew_ms, tolerance_ms = self._policy.skew_ms, self._policy.tolerance_ms
        for _ in range(_LOOKS):
            began_ms = self._runtime.now_ms()
            listing = self._exchange.pending_withdrawals()
            ended_ms = self._runtime.now_ms()
            if listing.server_time_ms is None:
                raise Unreachable("Pacifica's answer carries no Date, so its clock is not known.")
            # The exchange's clock minus ours lies between these two: Date has a resolution of a second.
            least = listing.server_time_ms - ended_ms
            most = listing.server_time_ms + DATE_RESOLUTION_MS - began_ms
            if least > skew_ms or most < -skew_ms:
                raise ConfigurationError(_clock_is_off((least + most) / 2000, skew_ms / 1000))
            if began_ms <= ended_ms and -tolerance_ms <= least and most <= tolerance_ms:
                return Snapshot(began_ms, listing.server_time_ms, least, listing.rows)
        raise Unreachable("Pacifica answered too slowly to compare its clock with this worker's.")

    def _post(self, record: Record, seen: Evidence) -> tuple[Record, Evidence]:
        """Write the attempt, send it once, and note what came of it; nothing is sent if it took too long to write."""
        signer = self._unlocked(record)
        attempt = Attempt(self._runtime.now_ms(), signer.expiry_window_ms)
        order = record.order
        signed = signer.prepare_withdrawal(
            order.symbol, order.amount, idempotency_key=record.key, timestamp_ms=attempt.signed_ms
        )
        written = replace(record, attempts=(*record.attempts, attempt))
        self._write_ahead(record, written)
        failpoints.reach("before_post")
        seen = replace(seen, readings=())
        if not is_fresh(attempt.signed_ms, self._runtime.now_ms(), attempt.window_ms):
            return self._save(written.with_attempt(replace(attempt, outcome="unsent"))), seen
        self._log(written, f"posting, attempt {len(written.sent)}, signed at {utc_text(attempt.signed_ms)}")
        outcome = signer.send(signed)
        failpoints.reach("after_post")
        self._log(written, f"answer: {type(outcome).__name__} {getattr(outcome, 'detail', '')}".rstrip())
        record = answered(written, outcome)
        if record.receipt is not None:
            return record, seen  # the next step writes and returns it
        if isinstance(outcome, ThrottledOutcome):
            trouble = Trouble("throttled", "Pacifica asked for fewer requests (429).", outcome.retry_after_s)
            return self._save(record), replace(seen, trouble=trouble)
        return self._save(record) if record != written else record, replace(seen, posts=seen.posts + 1)

    def _write_ahead(self, record: Record, written: Record) -> None:
        """
        Write the attempt right before its request leaves, only if this try still holds the record.

        With a fence the write itself fails for a replaced try; without one the record is read before and after it. A
        fence tells the tries of one task instance apart; a mapped task may ask for one reference twice.
        """
        fenced = self._ledger.fenced
        with self._holding(record, "the request was not sent"):
            self._write(written, check=not fenced or self._context.adoption != "window")
            if not fenced:
                self._check_hold()
            failpoints.reach("after_attempt")
            reference = self._asked.identity.withdrawal_ref
            if self._task is not None and reference not in self._references:
                self._note_reference(self._task, reference)
            if not fenced and set(self._references) - {reference}:
                self._check_other_references(written)

    def _note_reference(self, entry: str, reference: str | None) -> None:
        """List the reference with the task instance; without a fence the list is read before and after."""
        noted = [*self._references, reference]
        if not self._ledger.fenced and _references(self._ledger.get(entry)) not in (self._references, noted):
            raise _OvertakenError
        self._references = noted
        self._ledger.set(entry, {"version": VERSION, "references": noted})
        if not self._ledger.fenced:
            self._check_references()

    @contextmanager
    def _holding(self, record: Record, sent: str) -> Iterator[None]:
        """End the try if it turns out not to hold the record, or if that cannot be told."""
        try:
            yield
        except LedgerUnavailableError as error:
            # A write that fails after a good read may be the fence: then the other try may have sent something.
            raise self._say.overtaken(record, f"Airflow's ledger could not be used ({error}); {sent}.") from None
        except _OvertakenError:
            raise self._say.overtaken(record, "The record was written by another try.") from None

    def _keep(self, step: Keep, seen: Evidence) -> tuple[Record, Evidence]:
        """Write a record that the rest of this try depends on."""
        with self._holding(step.record, "this try sent nothing"):
            if step.decided and step.record.state == "open":
                self._refuse_another_reference(LedgerState.of(self._ledger, self._runtime.now_ms()))
            self._write(step.record, check=True)
        self._log(step.record, step.said)
        if step.decided:
            self._forget_decision(step.record)
            seen = replace(seen, decision=None)
        return step.record, seen

    def _forget_decision(self, record: Record) -> None:
        try:
            self._ledger.delete(self._decision)
        except LedgerUnavailableError as error:  # it is on record that it was applied, or it is dropped again
            self._log(record, f"WARNING: the decision could not be removed from Airflow's ledger: {error}")

    # -- the end

    def _returned(self, step: Return) -> StoredReceipt:
        """
        Write the receipt, a few times if the ledger is down, then return it without.

        After a 200 nothing may raise: the caller has the receipt, and Airflow's XCom takes it. It is true for every
        try, so it is written whoever wrote last.
        """
        record, receipt = step.record, step.receipt
        if record == self._stored:
            self._log(record, f"already withdrawn in batch {receipt.batch_nonce}; nothing is sent")
            self._warn_of_another_instance(record)
            return receipt
        for repeat in range(_RECEIPT_WRITES):
            try:
                self._write(record, check=False)
                break
            except LedgerUnavailableError as error:
                self._log(
                    record, f"WARNING: batch_nonce {receipt.batch_nonce} not written to Airflow's ledger: {error}"
                )
                self._runtime.sleep_s(0.5 * (repeat + 1))
        how = "adopted" if receipt.adopted else "accepted"
        self._log(record, f"{how} in batch {receipt.batch_nonce}{_net(receipt)}")
        failpoints.reach("after_receipt")
        return receipt

    def _warn_of_another_instance(self, record: Record) -> None:
        """
        Say that another instance of the task has withdrawn this, as where a list names one reference twice.

        It may as well be a list that was re-ordered, so it is no error.
        """
        if self._task is None or self._context.adoption == "window":  # there are no others
            return
        with suppress(LedgerUnavailableError, ConfigurationError):  # the receipt is there, whatever the list says
            if self._asked.identity.withdrawal_ref not in _references(self._ledger.get(self._task)):
                self._log(
                    record,
                    "WARNING: another instance of this task has withdrawn it. If two of them are meant to withdraw, "
                    "they need a withdrawal_ref each: this one has withdrawn nothing",
                )

    def _ended(self, end: End) -> PacificaError:
        """Write what the try ends with, and return the error: what nothing moved is said of has to be held still."""
        record = end.record
        if record != self._stored and (self._stored is not None or record.state != "open"):
            self._save(record)
        if end.kind == "unknown" and self._unwritten:  # what is not stored is not final: the next try concludes again
            return self._say.unfinished(record, f"{self._unwritten} {end.why}.")
        self._confirm_claim(record)
        error = self._say.of(end)
        self._log(record, f"ends: {type(error).__name__} {end.why}".rstrip())
        return error

    def _confirm_claim(self, record: Record) -> None:
        """Before it is said that nothing moved: see that no other try has taken over meanwhile (F92)."""
        if record.may_have_moved:
            return
        why = self._unwritten
        if not why:
            try:
                self._check_hold()
            except LedgerUnavailableError as error:
                why = f"Airflow's ledger could not be read ({error})."
            except _OvertakenError:
                why = "The record was written by another try."
        if why:
            raise self._say.overtaken(record, why)

    def _log(self, record: Record, what: str) -> None:
        """Write one line: order, what happened, key, fingerprint; enough to reconstruct a case, nothing to steal."""
        ids = f"idempotency key {record.key}, fingerprint {record.fingerprint[:12]}"
        self._runtime.log(f"{record.order}: {what} ({ids})")


def _net(receipt: StoredReceipt) -> str:
    """Return what is deducted and what arrives, as far as it is known."""
    if receipt.fee_amount is None or receipt.net_amount is None:
        return ""
    return f", fee {canonical_text(receipt.fee_amount)}, net {canonical_text(receipt.net_amount)}"


def _references(stored: object) -> list[str | None]:
    """Read a task instance's entry; ``ConfigurationError`` if it is not one that this version writes."""
    if stored is None:
        return []
    if isinstance(stored, Mapping) and stored.get("version") == VERSION and isinstance(stored.get("references"), list):
        return list(stored["references"])
    raise ConfigurationError(
        "The stored entry of this task's references cannot be read. Money may have moved. Nothing was sent by this "
        "try, and the entry was left as it is."
    )


def _clock_is_off(seconds: float, most_s: float) -> str:
    return (
        f"This worker's clock is {abs(seconds):.1f} s {'behind' if seconds > 0 else 'ahead of'} Pacifica's; at most "
        f"{most_s:g} s are safe, since a signature's life is counted in them. Nothing was sent by this try. "
        "Synchronise the worker's clock (NTP)."
    )
