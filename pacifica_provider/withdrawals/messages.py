"""
Every sentence said of a withdrawal: each error is a claim about the whole record, not about the last attempt.

Every message says whether money moved, may have moved or did not, and what to do next.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from pacifica_provider.exceptions import (
    ConfigurationError,
    OutcomeUnknown,
    PacificaError,
    ParameterMismatch,
    Throttled,
    Unreachable,
    Unresolved,
    WithdrawalRejected,
)
from pacifica_provider.withdrawals.ledger import decision_entry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pacifica_provider.withdrawals.matching import ListedRow
    from pacifica_provider.withdrawals.protocol import Asked, End, Trouble
    from pacifica_provider.withdrawals.record import Record

E = TypeVar("E", bound=PacificaError)


def utc_text(unix_ms: int) -> str:
    """Return a time as ISO text, such as ``2026-11-23T06:00:00.000+00:00``."""
    return datetime.fromtimestamp(unix_ms / 1000, tz=UTC).isoformat(timespec="milliseconds")


def rows_text(listed: Sequence[ListedRow], chain: Mapping[str, str] | None = None) -> str:
    """
    Return a line for each listed withdrawal: when it was made, what it is, and how well it fits.

    :param chain: what the chain says of each transaction, where it was asked.
    """
    words = {name: f"; chain: {word}" for name, word in (chain or {}).items()}
    return "\n".join(
        f"  - {utc_text(each.row.created_at_ms)}  {each}{words.get(each.row.transaction_id or '', '')}"
        for each in listed
    )


class Messages:
    """
    Writes the errors of one withdrawal.

    :param asked: what this try was asked to withdraw.
    :param case_command: the command line that shows this case to a person and takes the decision.
    """

    def __init__(self, asked: Asked, case_command: str) -> None:
        self._asked = asked
        self._case = f"See the case and decide with:\n{case_command}"
        mine = asked.identity
        self._decision = decision_entry(mine.dag_id, mine.run_id, mine.task_id, mine.withdrawal_ref)

    def of(self, end: End) -> PacificaError:
        """Return the error that a try ends with."""
        if end.kind == "mismatch":
            return self._mismatch(end.record)
        if end.kind == "voided":
            return self._voided(end.record)
        if end.kind == "rejected":
            return _rejected(end.record)
        if end.kind == "unknown":
            return self._unknown(end.record, end.why, end.listed)
        if end.kind == "misconfigured":
            return self.configuration(end.record, ConfigurationError(end.why, status=end.status))
        return self.unfinished(end.record, end.why, retry_after_s=end.retry_after_s)

    def configuration(self, record: Record, error: ConfigurationError) -> ConfigurationError:
        """Repeat a guard's refusal, saying first what may have moved before."""
        if not record.may_have_moved:
            return error
        repeated = type(error)(
            f"{_moved(record)} This try sent nothing: {error} Then clear the task: it looks before it sends."
        )
        repeated.status, repeated.code = error.status, error.code
        return _fill(repeated, record)

    def unfinished(self, record: Record, why: str, *, retry_after_s: float | None = None) -> PacificaError:
        """Say why this try ends without an outcome: the claim depends on what was ever maybe sent."""
        if record.may_have_moved:
            return _fill(
                Unresolved(
                    f"{why} {_moved(record)} {_sent(record)} The next try looks at Pacifica's lists before it sends "
                    "anything. With no retries left, clear the task; once the last attempt is older than the key "
                    f"trust it asks a person instead of posting. {self._case}"
                ),
                record,
            )
        if retry_after_s is not None:
            return _fill(
                Throttled(f"{why} No money moved. A later try is safe.", retry_after_s=retry_after_s, status=429),
                record,
            )
        return _fill(Unreachable(f"{why} Nothing was sent, so no money moved. A later try is safe."), record)

    def overtaken(self, record: Record, why: str) -> PacificaError:
        """Say that another try may have taken over: whatever this one knows, that one may have sent something since."""
        return _fill(
            Unresolved(
                f"{why} Another try of this task may have taken over; this one sends nothing more. The withdrawal of "
                f"{record.order} MAY have moved money. {_sent(record)} The other try, or the next one, settles it. "
                f"{self._case}"
            ),
            record,
        )

    def another_reference(self, others: Sequence[str]) -> ParameterMismatch:
        """Say that the task instance has already withdrawn under another reference."""
        asked = self._asked
        error = ParameterMismatch(
            f"This task instance has already withdrawn, or may have, under the withdrawal_ref {', '.join(others)}; now "
            f"it asks for {asked.order} under {asked.identity.withdrawal_ref!r}, which is not withdrawn. This try "
            "sent nothing. A task withdraws under one reference for ever: if it is a template, it must render to the "
            "same text at every try; if the list that the task is mapped over has changed, append to it, or start a "
            f"new run. {self._case}"
        )
        error.idempotency_key = asked.identity.idempotency_key()
        error.symbol, error.amount = asked.order.symbol, asked.order.amount_text
        return error

    def _unknown(self, record: Record, reason: str, listed: Sequence[ListedRow] | None) -> OutcomeUnknown:
        if listed is None:
            seen = "Pacifica's lists could not be read now."
        elif listed:
            symbol = record.order.symbol
            seen = f"Pacifica lists these withdrawals of {symbol} since the record began:\n{rows_text(listed)}"
        else:
            seen = f"Pacifica's lists showed no withdrawal of {record.order.symbol} since the record began."
        choices = ["void because it was settled elsewhere"]
        if not record.duplicate:  # a key that Pacifica knows stands for a withdrawal
            choices.insert(0, "repost because nothing moved")
        if listed is None or any(each.fit != "other" for each in listed):
            choices.insert(0, "adopt a listed withdrawal")
        message = (
            f"UNKNOWN whether {record.order} was withdrawn; money may have moved.\nWhy: {reason}.\n{seen}\n"
            f"{_sent(record)}\nNo try of this task will send anything until a person has decided: "
            f"{', or '.join(choices)}. While you do not know, decide nothing: lists may lag, and whenever the task is "
            f"cleared it looks again. {self._case}\n"
            f"Without a shell: leave it as entry {self._decision} in the state of the asset pacifica_withdrawals "
            f"(before Airflow 3.3: as the Variable pacifica_{self._decision})."
        )
        return _fill(OutcomeUnknown(message), record, listed or ())

    def _voided(self, record: Record) -> OutcomeUnknown:
        return _fill(
            OutcomeUnknown(
                f"A person voided this withdrawal of {record.order} ({record.reason}). This task sent nothing and "
                "will not; whether money moved was settled outside Airflow. A new withdrawal is a new run or a new "
                "withdrawal_ref."
            ),
            record,
        )

    def _mismatch(self, record: Record) -> ParameterMismatch:
        asked = self._asked
        moved = {
            "accepted": "The recorded one WAS accepted",
            "void": "The recorded one was voided by a person",
        }.get(
            record.state,
            "The recorded one may have moved money" if record.may_have_moved else "No money moved",
        )
        recorded = f"{record.order} for account {record.identity.account} at {record.base_url}"
        scope = f", scope {record.identity.scope!r}" if record.identity.scope != asked.identity.scope else ""
        return _fill(
            ParameterMismatch(
                f"This run already recorded a withdrawal of {recorded}{scope}; now the task asks for {asked.order} for "
                f"account {asked.identity.account} at {asked.base_url}. {moved}; this try sent nothing. One run "
                "withdraws one order: give the task the recorded order and connection again, or start a new run for "
                "the new one. Templates that change between tries (a price, now()) do this, and two mapped tasks with "
                f"one withdrawal_ref. {self._case}"
            ),
            record,
        )


def unread(why: str) -> PacificaError:
    """Say that the ledger could not be read, so that what is on record of this withdrawal is not known."""
    return Unresolved(
        f"Airflow's ledger could not be used ({why}); this try sent nothing. Whether an earlier one did stands "
        "in the record that could not be read; the next try reads it first."
    )


def unsettled(trouble: Trouble) -> PacificaError:
    """Say that how much there is to withdraw could not be read; of earlier tries nothing is claimed."""
    return Unresolved(
        f"How much there is to withdraw could not be read: {trouble.text} This try sent nothing; the next one looks "
        "first at what is on record."
    )


def _rejected(record: Record) -> WithdrawalRejected:
    attempt = record.attempts[-1]
    code = "" if attempt.code is None else f", code {attempt.code}"
    said = attempt.detail.rstrip(".") or "(no text)"
    error = WithdrawalRejected(
        f"Pacifica refused to withdraw {record.order}: HTTP {attempt.status}{code}: {said}. No money moved: it was the "
        "only request, and no such withdrawal is listed. Mend what the text names, then clear the task."
    )
    error.status, error.code = attempt.status, attempt.code
    return _fill(error, record)


def _moved(record: Record) -> str:
    if record.receipt is not None:
        return f"The withdrawal of {record.order} WAS accepted (batch_nonce {record.receipt.batch_nonce})."
    return f"The withdrawal of {record.order} MAY have moved money."


def _sent(record: Record) -> str:
    times = ", ".join(utc_text(attempt.signed_ms) for attempt in record.sent)
    attempts = f"Attempts signed at {times}." if times else "No attempt is on record."
    if record.maybe_sent:
        attempts += " An earlier record may be lost, so an earlier try may have sent it."
    return f"{attempts} Idempotency key {record.key}."


def _fill(error: E, record: Record, listed: Sequence[ListedRow] = ()) -> E:
    error.idempotency_key = record.key
    error.symbol, error.amount = record.order.symbol, record.order.amount_text
    error.submitted_at_ms = tuple(attempt.signed_ms for attempt in record.sent)
    if record.receipt is not None:
        error.batch_nonces = (record.receipt.batch_nonce,)
    else:
        error.batch_nonces = tuple(each.row.batch_nonce for each in listed if each.fit != "other")
    return error
