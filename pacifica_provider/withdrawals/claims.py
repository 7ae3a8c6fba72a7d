"""
What may be said of a withdrawal, in words: each error is a claim about the whole record, not about the last attempt.

Every message says whether money moved, may have moved or did not, and what to do next.
"""

from __future__ import annotations

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

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pacifica_provider.withdrawals.identity import Order
    from pacifica_provider.withdrawals.records import Attempt, Record, Row

E = TypeVar("E", bound=PacificaError)


class Claims:
    """
    Writes the errors of one withdrawal.

    :param case_command: the command line that shows this case to a person and takes the decision.
    """

    def __init__(self, case_command: str) -> None:
        self._case_command = case_command

    def unknown(self, record: Record, reason: str, rows: Sequence[Row]) -> OutcomeUnknown:
        """Say that it cannot be shown whether money moved."""
        listed = "\n".join(f"  - {row}" for row in rows)
        seen = (
            f"Pacifica lists these withdrawals that could be it:\n{listed}"
            if rows
            else "Pacifica's lists showed no withdrawal that could be it"
        )
        message = (
            f"It is UNKNOWN whether {record.order} was withdrawn: {reason}. Money may have moved.\n{seen}\n"
            f"{_sent(record)}\nNo try of this task will send anything until a person has decided: adopt a listed "
            f"withdrawal, repost because nothing moved, or void because it was settled elsewhere. {self._case()}"
        )
        return _fill(OutcomeUnknown(message), record, rows)

    def voided(self, record: Record) -> OutcomeUnknown:
        """Say that a person has decided that this run never posts again."""
        return _fill(
            OutcomeUnknown(
                f"A person voided this withdrawal of {record.order} ({record.reason}). This task sent nothing and "
                "will not; whether money moved was settled outside Airflow. A new withdrawal is a new run or a new "
                f"withdrawal_ref. {self._case()}"
            ),
            record,
        )

    def rejected(self, record: Record, attempt: Attempt) -> WithdrawalRejected:
        """Say that Pacifica refused the only request of the record."""
        code = "" if attempt.code is None else f", code {attempt.code}"
        error = WithdrawalRejected(
            f"Pacifica refused to withdraw {record.order}: HTTP {attempt.status}{code}: "
            f"{attempt.detail or '(no text)'}. No money moved: it was the only request, and no such withdrawal is "
            "listed. Mend what the text names, then clear the task."
        )
        error.status, error.code = attempt.status, attempt.code
        return _fill(error, record)

    def mismatch(self, record: Record, order: Order, base_url: str) -> ParameterMismatch:
        """Say that this run's record holds another order."""
        moved = {
            "accepted": "The recorded one WAS accepted",
            "void": "The recorded one was voided by a person",
        }.get(
            record.state,
            "The recorded one may have moved money" if record.may_have_moved else "No money moved",
        )
        return _fill(
            ParameterMismatch(
                f"This run already recorded a withdrawal of {record.order} at {record.base_url}; now the task asks "
                f"for {order} at {base_url}. {moved}; this try sent nothing. One run withdraws one order: give the "
                "task the recorded order again, or start a new run for the new one. Templates that change between "
                f"tries (a price, now()) do this. {self._case()}"
            ),
            record,
        )

    def other_record(self, other: Record) -> ParameterMismatch:
        """Say that the task instance holds the record of a withdrawal that this one may not stand beside."""
        return _fill(
            ParameterMismatch(
                f"This task instance already holds the record of another withdrawal ({other.order} for account "
                f"{other.identity.account}, reference {other.identity.withdrawal_ref!r}, state {other.state}). "
                f"{_moved(other)} This try sent nothing. The connection was re-pointed or the mapping "
                f"re-ordered between tries: restore it, or start a new run. {self._case()}"
            ),
            other,
        )

    def configuration(self, record: Record | None, error: ConfigurationError) -> ConfigurationError:
        """Repeat a guard's refusal, saying first what may have moved before."""
        if record is None or not record.may_have_moved:
            return error
        repeated = type(error)(
            f"{_moved(record)} This try sent nothing: {error} Then clear the task: it looks before it sends."
        )
        return _fill(repeated, record)

    def unfinished(self, record: Record | None, why: str, *, retry_after_s: float | None = None) -> PacificaError:
        """Say why this try ends without an outcome: the claim depends on what was ever maybe sent."""
        if record is not None and record.may_have_moved:
            return _fill(
                Unresolved(
                    f"{why} {_moved(record)} {_sent(record)} The next try looks at Pacifica's lists before it sends "
                    "anything. With no retries left, clear the task; once the last attempt is older than the key "
                    f"trust it asks a person instead of posting. {self._case()}"
                ),
                record,
            )
        if retry_after_s is not None:
            return _fill(
                Throttled(f"{why} No money moved. A later try is safe.", retry_after_s=retry_after_s, status=429),
                record,
            )
        return _fill(Unreachable(f"{why} Nothing was sent, so no money moved. A later try is safe."), record)

    def overtaken(self, record: Record) -> PacificaError:
        """Say that another try has taken over: whatever this one knows, that one may have sent something since."""
        return _fill(
            Unresolved(
                "Another try of this task has taken over; this one sent nothing more. The withdrawal of "
                f"{record.order} MAY have moved money. {_sent(record)} The other try, or the next one, settles it. "
                f"{self._case()}"
            ),
            record,
        )

    def _case(self) -> str:
        return f"See the case and decide with:\n{self._case_command}"


def _moved(record: Record) -> str:
    if record.state == "accepted" and record.receipt is not None:
        return f"The withdrawal of {record.order} WAS accepted (batch_nonce {record.receipt.batch_nonce})."
    if record.may_have_moved:
        return f"The withdrawal of {record.order} MAY have moved money."
    return "No money moved."


def _sent(record: Record) -> str:
    times = ", ".join(str(attempt.signed_ms) for attempt in record.sent_attempts)
    attempts = f"Attempts signed at (Unix ms): {times}." if times else "No attempt is on record."
    if record.maybe_sent:
        attempts += " Airflow's record of earlier tries was wiped, so one of them may have sent it."
    return f"{attempts} Idempotency key {record.key}, fingerprint {record.fingerprint[:12]}."


def _fill(error: E, record: Record | None, rows: Sequence[Row] = ()) -> E:
    if record is not None:
        error.idempotency_key = record.key
        error.symbol, error.amount = record.order.symbol, record.order.amount_text
        error.submitted_at_ms = tuple(attempt.signed_ms for attempt in record.sent_attempts)
        if record.receipt is not None:
            error.batch_nonces = (record.receipt.batch_nonce,)
        else:
            error.batch_nonces = tuple(row.batch_nonce for row in rows)
    return error
