"""
The protocol of one withdrawal: what is done next, by what is on record and what has been seen. Pure and total.

``next_step`` is the only place where it is decided; ``withdraw.py`` performs the steps and is the only sender. No
clock, no network, no Airflow in here: the same function runs in a worker, in the simulator and in the explorer.

One record a withdrawal, written before the first byte. One live signature a key. A key is trusted for nine minutes,
then a person is asked. What cannot be shown is said, not guessed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from pacifica_provider.api.outcomes import Accepted, Duplicate, Outcome, Throttled, Unknown
from pacifica_provider.withdrawals.decisions import Decision, StaleDecisionError, Void, apply_decision
from pacifica_provider.withdrawals.identity import Order, RunIdentity, fingerprint
from pacifica_provider.withdrawals.ledger import LedgerState
from pacifica_provider.withdrawals.matching import (
    ListedRow,
    Reading,
    Snapshot,
    adoptable,
    candidates,
    listed_rows,
    look_alikes,
    receipt_of,
    refused_rows,
)
from pacifica_provider.withdrawals.record import Attempt, Record, Row, StoredReceipt

if TYPE_CHECKING:
    from collections.abc import Sequence

DATE_RESOLUTION_MS = 1000
_READ_TRIES = 3
_DEFAULT_THROTTLE_S = 5.0
_JITTERED = 1.25  # the longest that a pause becomes by jitter
_MOST_READINGS = 6


@dataclass(frozen=True, slots=True)
class Policy:
    """The numbers of the protocol (docs/exactly-once.md): what is assumed of clocks, lists and keys."""

    key_trust_ms: int = 9 * 60_000
    skew_ms: int = 5_000
    list_lag_ms: int = 30_000
    posts_per_try: int = 2
    try_budget_ms: int = 180_000

    @property
    def tolerance_ms(self) -> int:
        """How far a time of the exchange may be from one of the worker, in either direction."""
        return self.skew_ms + DATE_RESOLUTION_MS


@dataclass(frozen=True, slots=True)
class TryContext:
    """
    What a try knows of itself, besides which withdrawal it is.

    ``first_try``: the first try of a run that was never cleared, so that nothing can have been sent before it.
    ``run_after_ms``: no withdrawal of this run can be older.
    ``adoption``: what a 409 may be attributed to without a person: ``window``, the one row made in the window of an
    unanswered request; ``never``, since an equal withdrawal of the same task may stand beside it; ``amount``, the one
    row with this amount, which no other withdrawal has (a tagged one).
    ``instance``: names the task instance within its task (map index, loop iteration), if it withdraws under one
    reference only; ``None`` if each try may withdraw under several.
    ``case_command``: the command line that shows the case to a person.
    ``sweeps``: the amount is what there was when the record was begun; one that is lost may have had another.
    """

    first_try: bool
    run_after_ms: int
    adoption: Literal["window", "never", "amount"] = "window"
    instance: str | None = None
    case_command: str = ""
    sweeps: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """What this try was asked to withdraw."""

    identity: RunIdentity
    order: Order
    base_url: str

    @property
    def fingerprint(self) -> str:
        """What it is compared by."""
        return fingerprint(self.identity, self.base_url, self.order)


@dataclass(frozen=True, slots=True)
class Trouble:
    """The last read, or the last request, came to nothing. ``retry_after_s`` if the exchange asked for fewer."""

    kind: Literal["unreachable", "throttled", "misconfigured"]
    text: str
    retry_after_s: float | None = None
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """
    What this try has seen so far.

    ``window_ms``: the life of a signature, once the key has been unlocked. ``posts``: requests sent by this try,
    throttled ones not counted. ``readings``: of both lists, since the last request of this try.
    """

    asked: Asked
    context: TryContext
    started_ms: int
    now_ms: int
    decision: Decision | None = None
    window_ms: int | None = None
    snapshot: Snapshot | None = None
    readings: tuple[Reading, ...] = ()
    trouble: Trouble | None = None
    failures: int = 0
    posts: int = 0

    @property
    def server_ms(self) -> int | None:
        """A lower bound of the exchange's clock now; ``None`` before it was seen."""
        return None if self.snapshot is None else self.now_ms + self.snapshot.behind_ms


@dataclass(frozen=True, slots=True)
class Unlock:
    """Check everything that can fail locally, and load the key."""


@dataclass(frozen=True, slots=True)
class Look:
    """Read the pending list, and the exchange's clock with it."""


@dataclass(frozen=True, slots=True)
class Read:
    """Read both lists."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait until the exchange's clock must be past ``server_ms``."""

    server_ms: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait for so long; with jitter where others wait for the same."""

    seconds: float
    jitter: bool = False


@dataclass(frozen=True, slots=True)
class Post:
    """Sign, write ``record`` ahead with the new attempt, send once."""

    record: Record


@dataclass(frozen=True, slots=True)
class Keep:
    """Write this record, and go on from it. ``decided``: it is what a person's decision made of it."""

    record: Record
    said: str
    decided: bool = False


@dataclass(frozen=True, slots=True)
class Drop:
    """Remove the decision that waits: it does not fit any more."""

    why: str


@dataclass(frozen=True, slots=True)
class Return:
    """Return the receipt; write ``record`` first if it is not what is stored."""

    record: Record
    receipt: StoredReceipt


@dataclass(frozen=True, slots=True)
class End:
    """
    Write ``record``, if it is not what is stored, and end the try with an error.

    ``listed``: the rows of the symbol, for a person; ``None`` if the lists could not be read.
    """

    kind: Literal["mismatch", "voided", "rejected", "unknown", "unfinished", "misconfigured"]
    record: Record
    why: str = ""
    listed: Sequence[ListedRow] | None = None
    retry_after_s: float | None = None
    status: int | None = None


Step = Unlock | Look | Read | Wait | Pause | Post | Keep | Drop | Return | End


def begin(asked: Asked, context: TryContext, *, now_ms: int, ledger: LedgerState, listed: bool) -> Record:
    """
    Return the record of a withdrawal of which the ledger holds none.

    Nothing can have been sent by a run for which the ledger is complete, nor before the first try of a run, unless the
    ledger has forgotten something since: the run may have been made anew.
    ``listed``: the task's entry says that there was a record, which is gone.
    """
    complete = context.run_after_ms >= ledger.complete_since_ms or (context.first_try and not ledger.raised)
    maybe_sent = listed or not complete
    return Record(
        identity=asked.identity,
        order=asked.order,
        base_url=asked.base_url,
        fingerprint=asked.fingerprint,
        maybe_sent=maybe_sent,
        since_ms=min(now_ms, context.run_after_ms) if maybe_sent else now_ms,
        restores=ledger.restores,
    )


def recall(record: Record, context: TryContext, ledger: LedgerState) -> Record:
    """Return a record as it may be relied on: one that is older than a restored ledger may lack what came after it."""
    if record.restores == ledger.restores or record.state in {"accepted", "void"}:
        return record
    return replace(
        record,
        maybe_sent=True,
        state="open" if record.state == "rejected" else record.state,
        since_ms=min(record.since_ms, context.run_after_ms),
        restores=ledger.restores,
    )


def next_step(record: Record, seen: Evidence, policy: Policy) -> Step:
    """Say what this try does next. Every state of a record and every evidence has an answer."""
    step = _wanted(record, seen, policy)
    if seen.trouble is None or not isinstance(step, (Look, Read, Post)):
        return step
    pause = _pause(seen.trouble, seen, policy)
    if pause is not None:
        return pause
    trouble = seen.trouble
    kind: Literal["misconfigured", "unfinished"] = "misconfigured" if trouble.kind == "misconfigured" else "unfinished"
    return End(kind, record, trouble.text, retry_after_s=trouble.retry_after_s, status=trouble.status)


def _wanted(record: Record, seen: Evidence, policy: Policy) -> Step:  # noqa: PLR0911 - one return a state
    """Say what comes next, were there no trouble with the network."""
    if seen.decision is not None:
        return _decided(record, seen.decision, seen, policy)
    if record.state == "rejected":
        return Keep(_reopened(record, seen), "ordered anew after a refusal")
    if record.fingerprint != seen.asked.fingerprint:
        return End("mismatch", record)
    if record.receipt is not None:
        return Return(record, record.receipt)
    if record.state == "void":
        return End("voided", record)
    if record.duplicate:
        return _settled(record, seen, policy)
    if record.state == "unknown":
        return _unknown(record, record.reason, seen, policy)
    if record.refused is not None:
        return _refused(record, record.refused, seen, policy)
    return _towards_a_post(record, seen, policy)


def answered(record: Record, outcome: Outcome) -> Record:
    """Return the record with what its last attempt came to; accepted only by a receipt that echoes the order."""
    attempt = record.attempts[-1]
    if isinstance(outcome, Accepted):
        echo, order = outcome.receipt, record.order
        if (echo.symbol, echo.requested_amount) != (order.symbol, order.amount) or echo.fee_amount > order.amount:
            return record.with_attempt(replace(attempt, detail="HTTP 200 that echoes another order"))
        receipt = StoredReceipt(
            echo.batch_nonce, echo.requested_amount, echo.fee_amount, attempt.signed_ms, adopted=False
        )
        accepted = record.with_attempt(replace(attempt, outcome="answered", status=200))
        return replace(accepted, state="accepted", receipt=receipt)
    if isinstance(outcome, Unknown):
        return record.with_attempt(replace(attempt, status=outcome.status, detail=outcome.detail))
    if isinstance(outcome, Throttled):
        return record.with_attempt(replace(attempt, outcome="answered", status=429))
    status, code = (409, None) if isinstance(outcome, Duplicate) else (outcome.status, outcome.code)
    return record.with_attempt(replace(attempt, outcome="answered", status=status, code=code, detail=outcome.detail))


def _decided(record: Record, decision: Decision, seen: Evidence, policy: Policy) -> Step:
    """Apply a person's decision, once no request can be accepted any more and the lists have been read."""
    if decision.decision_id in record.decisions:
        return Drop("it has been applied")
    if type(decision) is not Void and decision.key == record.key and record.state in {"open", "unknown"}:
        step = _read_past(record.live_until_ms, seen)
        if step is not None:
            return step
    listed = _listed(record, seen, policy) or ()
    try:
        applied = apply_decision(record, decision, listed, tolerance_ms=policy.tolerance_ms)
    except StaleDecisionError as error:
        return Drop(str(error))
    return Keep(applied, applied.reason, decided=True)


def _reopened(record: Record, seen: Evidence) -> Record:
    """Return the record of a new order after a refusal, which is remembered."""
    asked = seen.asked
    complete = LedgerState(0, restores=record.restores)
    again = begin(asked, seen.context, now_ms=seen.now_ms, ledger=complete, listed=False)
    if (record.identity, record.base_url) != (asked.identity, asked.base_url):
        return again
    return replace(
        again,
        since_ms=record.since_ms,
        before=record.before,
        attempts=record.attempts,
        decisions=record.decisions,
    )


def _pause(trouble: Trouble, seen: Evidence, policy: Policy) -> Pause | None:
    left_s = (policy.try_budget_ms - (seen.now_ms - seen.started_ms)) / 1000
    return pause_after(trouble, seen.failures, left_s)


def pause_after(trouble: Trouble, failures: int, left_s: float) -> Pause | None:
    """
    Say how long to wait before what came to nothing is repeated; ``None`` if this try may not any more.

    :param failures: how often in a row the exchange did not answer.
    :param left_s: what is left of the try's time.
    """
    if trouble.kind == "throttled":
        wait_s = max(1.0, _DEFAULT_THROTTLE_S if trouble.retry_after_s is None else trouble.retry_after_s)
        return Pause(wait_s, jitter=True) if wait_s * _JITTERED <= left_s else None
    if trouble.kind == "unreachable" and failures < _READ_TRIES and left_s > 0:
        return Pause(2.0 ** (failures - 1))
    return None


def _towards_a_post(record: Record, seen: Evidence, policy: Policy) -> Step:
    """Send the recorded order, if nothing that was sent before can have been accepted without being seen."""
    if seen.window_ms is None:
        return Unlock()
    doubt = _doubt(record, seen, policy)
    if doubt is not None:
        return doubt
    left_ms = policy.try_budget_ms - (seen.now_ms - seen.started_ms)
    if seen.posts >= policy.posts_per_try or not 0 <= left_ms <= policy.try_budget_ms:
        return End("unfinished", record, "This try has used its time and requests.")
    if seen.snapshot is None or not is_fresh(seen.snapshot.began_ms, seen.now_ms, seen.window_ms):
        return Look()
    return _post_or_wait(record, seen.snapshot, seen.window_ms, seen, policy, left_ms=left_ms)


def _post_or_wait(
    record: Record, snapshot: Snapshot, window_ms: int, seen: Evidence, policy: Policy, *, left_ms: int
) -> Step:
    """Send it now, with a fresh look at the exchange; wait while an earlier request may still be accepted."""
    server_ms = snapshot.server_ms
    oldest_ms = min((a.signed_ms for a in record.unanswered), default=server_ms)
    # The next request has to be dead before the key may be forgotten.
    if record.unanswered and server_ms - oldest_ms > policy.key_trust_ms - window_ms:
        why = "a request was never answered, and it is so old that Pacifica may have forgotten its idempotency key"
        return _unknown(record, why, seen, policy)
    if server_ms <= record.live_until_ms:
        if record.live_until_ms - server_ms > left_ms:
            why = "A signed request can still be accepted for longer than this try may wait."
            return End("unfinished", record, why)
        return Wait(record.live_until_ms)
    if not record.sent and not record.maybe_sent and not record.decisions:
        record = replace(record, before=look_alikes(record.order, snapshot.pending))
    return Post(record)


def _doubt(record: Record, seen: Evidence, policy: Policy) -> Step | None:
    """Say what has to be seen, or concluded, before anything may be sent; ``None`` if nothing stands against it."""
    refusal = next((a for a in record.sent if a.outcome == "answered"), None)
    if refusal is not None:
        return _unknown(record, f"after an earlier request, Pacifica answered HTTP {refusal.status}", seen, policy)
    if not record.maybe_sent and not record.refusals:
        return None
    if not seen.readings:
        return Read()
    return _lost_or_refused(record, seen.readings[-1], seen, policy)


def _lost_or_refused(record: Record, reading: Reading, seen: Evidence, policy: Policy) -> Step | None:
    """Read both lists before anything is sent: for a record that may be lost, and for an order made anew."""
    if refused_rows(record, record.refusals, [reading], tolerance_ms=policy.tolerance_ms):
        why = "a request was refused, yet such a withdrawal is listed that was made while it could be accepted"
        return _unknown(record, why, seen, policy)
    if not record.maybe_sent:
        return None
    lost = "an earlier record of this withdrawal may be lost, so that an earlier try may have sent it"
    rows: Sequence[object] = candidates(record, [reading], tolerance_ms=policy.tolerance_ms)
    if seen.context.sweeps:  # what an earlier try withdrew may have been another amount
        rows = listed_rows(record, reading, tolerance_ms=policy.tolerance_ms)
    # Once a request of this record is unanswered, the row may be its own, which a 409 will tell.
    if rows and not record.unanswered:
        return _unknown(record, lost, seen, policy)
    # What a restored ledger has lost may have been sent under another reference, which another key would not stop.
    if record.restores or seen.now_ms - record.since_ms > policy.key_trust_ms - (seen.window_ms or 0):
        return _unknown(record, f"{lost}, and Pacifica may have forgotten its idempotency key since", seen, policy)
    return None


def _refused(record: Record, attempt: Attempt, seen: Evidence, policy: Policy) -> Step:
    """Conclude a refusal once the lists show that nothing else came of the request."""
    step = _read_twice(record, seen, policy)
    if step is not None:
        return step
    if refused_rows(record, [attempt], seen.readings, tolerance_ms=policy.tolerance_ms):
        why = f"Pacifica answered HTTP {attempt.status}, yet lists such a withdrawal"
        return _unknown(record, why, seen, policy)
    concluded = replace(attempt, outcome="refused", amount=record.order.amount)
    refused = tuple(concluded if a == attempt else a for a in record.attempts)
    return End("rejected", replace(record, state="rejected", attempts=refused))


def _settled(record: Record, seen: Evidence, policy: Policy) -> Step:
    """Conclude from a 409, this try's or a stored one: adopt the withdrawal that must be ours, else it is unknown."""
    if not record.maybe_sent and all(a.status == 409 for a in record.sent):
        why = (
            "Pacifica already knew this idempotency key at the first request, so another task or deployment used it, "
            "or an earlier refusal used it up"
        )
        # What used it may be older than this record.
        since_ms = min(record.since_ms, seen.context.run_after_ms)
        return _unknown(replace(record, since_ms=since_ms), why, seen, policy)
    step = _read_twice(record, seen, policy)
    if step is not None:
        return step
    rows = candidates(record, seen.readings, tolerance_ms=policy.tolerance_ms)
    row = adoptable(record, rows, seen.readings, tolerance_ms=policy.tolerance_ms)
    if row is None or seen.context.adoption == "never":
        return _unknown(record, _why_not_adopted(len(rows), seen.context), seen, policy)
    return _adopted(record, row, policy)


def _adopted(record: Record, row: Row, policy: Policy) -> Return:
    receipt = receipt_of(record, row, tolerance_ms=policy.tolerance_ms)
    return Return(replace(record, state="accepted", receipt=receipt), receipt)


def _why_not_adopted(rows: int, context: TryContext) -> str:
    known = "Pacifica knows the idempotency key (409)"
    if rows == 0:
        return f"{known}, yet lists no such withdrawal"
    if rows > 1:
        return f"{known} and lists {rows} withdrawals that could be it"
    if context.adoption == "never":
        return f"{known}; another withdrawal of the same task may be equal, so a person has to say which is this one"
    return f"{known}, but the listed withdrawal was not made by an unanswered request of this run"


def _unknown(record: Record, why: str, seen: Evidence, policy: Policy) -> Step:
    """End as unknown, with the lists in view if they can be read; a tagged amount is recognised in them first."""
    if seen.context.adoption == "amount":
        step = _read_twice(record, seen, policy)
        if step is not None:
            return step
        rows = candidates(record, seen.readings, tolerance_ms=policy.tolerance_ms)
        row = adoptable(record, rows, seen.readings, tolerance_ms=policy.tolerance_ms, by_amount=True)
        if row is not None:
            return _adopted(record, row, policy)
    elif not seen.readings and (seen.trouble is None or _pause(seen.trouble, seen, policy)):
        return Read()
    return End("unknown", replace(record, state="unknown", reason=why), why, _listed(record, seen, policy))


def _listed(record: Record, seen: Evidence, policy: Policy) -> Sequence[ListedRow] | None:
    if not seen.readings:
        return None
    return listed_rows(record, seen.readings[-1], tolerance_ms=policy.tolerance_ms)


def _read_past(server_ms: int, seen: Evidence) -> Step | None:
    """Ask for a reading made when the exchange's clock was past this; ``None`` if there is one."""
    if any(reading.snapshot.server_ms > server_ms for reading in seen.readings):
        return None
    if seen.server_ms is not None and seen.server_ms <= server_ms:
        return Wait(server_ms)
    return Read()


def _read_twice(record: Record, seen: Evidence, policy: Policy) -> Step | None:
    """
    Ask for two readings, the list-lag bound apart, the first after the last signature has expired.

    This is what an outcome may be concluded from: ``None`` once both are there.
    """
    step = _read_past(record.live_until_ms, seen)
    if step is not None:
        return _unless_endless(record, step, seen)
    first_ms = next(r.snapshot.server_ms for r in seen.readings if r.snapshot.server_ms > record.live_until_ms)
    step = _read_past(first_ms + policy.list_lag_ms + DATE_RESOLUTION_MS - 1, seen)
    return None if step is None else _unless_endless(record, step, seen)


def _unless_endless(record: Record, step: Step, seen: Evidence) -> Step:
    if len(seen.readings) < _MOST_READINGS:
        return step
    return End("unfinished", record, "Pacifica's clock does not move on past the last signature.")


def is_fresh(since_ms: int, now_ms: int, window_ms: int) -> bool:
    """
    Say whether what was read or signed then may still be acted on now: within a third of the signature's window.

    By wall clock, since a process may be frozen and thawed between any two steps.
    """
    return 0 <= now_ms - since_ms <= window_ms / 3
