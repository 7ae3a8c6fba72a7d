"""A case in words, for the person who has to decide. Pure: a record and rows in, text out."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pacifica_provider.withdrawals.records import Attempt, Record, Row

_STATES = {
    "open": "not finished: the next try goes on with it",
    "accepted": "accepted: no try will ever send it again",
    "rejected": "rejected: nothing moved; the next try begins anew",
    "unknown": "UNKNOWN: whether money moved cannot be shown; no try sends anything before you decide",
    "void": "voided by a person: no try will ever send it again",
}


def describe(record: Record) -> str:
    """Return what is on record of one withdrawal."""
    lines = [
        f"Withdrawal of {record.order}",
        f"  account          {record.identity.account} at {record.base_url}",
        f"  idempotency key  {record.key}",
        f"  reference        {record.identity.withdrawal_ref or '(none)'}",
        f"  state            {_STATES[record.state]}",
    ]
    if record.reason:
        lines.append(f"  reason           {record.reason}")
    if record.receipt is not None:
        how = ", adopted from Pacifica's lists" if record.receipt.adopted else ""
        lines.append(f"  receipt          batch_nonce {record.receipt.batch_nonce}{how}")
    if record.maybe_sent:
        lines.append("  earlier tries    Airflow's record of them was wiped; one may have sent it")
    lines += [f"  attempt {number}        {_attempt(a)}" for number, a in enumerate(record.attempts, 1)]
    return "\n".join(lines)


def describe_rows(rows: Sequence[Row]) -> str:
    """Return the withdrawals that could be it, as Pacifica lists them now."""
    if not rows:
        return "Pacifica's lists show no withdrawal that could be it."
    listed = "\n".join(f"  - {row} ({_time(row.created_at_ms)})" for row in rows)
    return f"Pacifica lists these withdrawals that could be it:\n{listed}"


def describe_choices(record: Record, rows: Sequence[Row], command: str) -> str:
    """Return the decisions that can be taken, as command lines."""
    if record.state in {"accepted", "void"}:
        return "Nothing is left to decide."
    lines = ["Decide with one of these, then clear the task:"]
    lines += [f"  {command} --decide adopt --batch-nonce {row.batch_nonce} --why '…'" for row in rows]
    if any(attempt.status == 409 for attempt in record.attempts):
        lines.append("  (repost is not possible: Pacifica has answered 409 to this idempotency key)")
    else:
        named = ",".join(str(row.batch_nonce) for row in rows)
        rows_option = f" --rows {named}" if named else ""
        lines.append(f"  {command} --decide repost{rows_option} --why 'nothing moved, because …'")
    lines.append(f"  {command} --decide void --why 'settled elsewhere: …'")
    lines.append(
        "adopt: the row is this withdrawal. repost: nothing moved, and the rows named are somebody else's. void: "
        "this run never withdraws; a new one is a new run or a new withdrawal_ref."
    )
    return "\n".join(lines)


def _attempt(attempt: Attempt) -> str:
    status = "" if attempt.status is None else f" HTTP {attempt.status}"
    detail = f" ({attempt.detail})" if attempt.detail else ""
    return f"signed {_time(attempt.signed_ms)}: {attempt.outcome}{status}{detail}"


def _time(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, tz=timezone.utc).isoformat(timespec="milliseconds")
