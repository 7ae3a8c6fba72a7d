"""
How a try ends: what is concluded from an answer or a look, saved to the journal, and said.

Each method that ends the try returns the error to raise, after the record of it has been saved as far as the store
allows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from pacifica_provider.api.outcomes import Accepted, Duplicate, Outcome, Rejected, Throttled
from pacifica_provider.exceptions import ConfigurationError, PacificaError, Unreachable
from pacifica_provider.exceptions import Throttled as ThrottledError
from pacifica_provider.withdrawals import crashpoints
from pacifica_provider.withdrawals.candidates import Reading, adoptable, candidates, other_amounts
from pacifica_provider.withdrawals.claims import Claims
from pacifica_provider.withdrawals.decisions import receipt_of
from pacifica_provider.withdrawals.intents import Journal, OvertakenError, StoreUnavailableError
from pacifica_provider.withdrawals.records import Attempt, Record, Row, StoredReceipt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pacifica_provider.withdrawals.look import Look, Observer, Policy, Surroundings

T = TypeVar("T")

_RECEIPT_WRITES = 3
_SHOWN_ROWS = 5


@dataclass(frozen=True, slots=True)
class RunFacts:
    """
    What a try knows of itself, besides who it is.

    ``never_ran_before``: the first try of a run never cleared, so that an empty store proves nothing was sent.
    ``run_after_ms``: no withdrawal of this run can be older. ``mapped``: equal withdrawals may stand beside this
    one, so nothing is adopted without a person. ``case_command``: what to paste into a shell to see the case.
    ``cleared``: the run was cleared, so that a mapping may have been re-ordered.
    """

    never_ran_before: bool
    run_after_ms: int
    mapped: bool
    case_command: str
    cleared: bool = False


class Conclusions:
    """The shared hands of one try: journal, observer and claims, and the endings that need all three."""

    def __init__(
        self, journal: Journal, observer: Observer, run: RunFacts, policy: Policy, around: Surroundings
    ) -> None:
        self.claims = Claims(run.case_command)
        self._journal = journal
        self._observer = observer
        self._run = run
        self._policy = policy
        self._around = around

    def received(self, record: Record, attempt: Attempt, outcome: Outcome) -> Record:
        """Note what the last attempt came to; an accepted one gets its receipt."""
        self.log(record, f"answer: {type(outcome).__name__} {getattr(outcome, 'detail', '')}".rstrip())
        if isinstance(outcome, Accepted):
            echo, order = outcome.receipt, record.order
            if (echo.symbol, echo.requested_amount) != (
                order.symbol,
                order.amount,
            ) or echo.fee_amount > order.amount:
                return self.noted(record, replace(attempt, detail="HTTP 200 that echoes another order"))
            receipt = StoredReceipt(
                echo.batch_nonce, echo.requested_amount, echo.fee_amount, attempt.signed_ms, adopted=False
            )
            return self.accepted(record.with_attempt(replace(attempt, outcome="answered", status=200)), receipt)
        if isinstance(outcome, Duplicate):
            attempt = replace(attempt, outcome="answered", status=409, detail=outcome.detail)
        elif isinstance(outcome, Rejected):
            attempt = replace(
                attempt, outcome="answered", status=outcome.status, code=outcome.code, detail=outcome.detail
            )
        elif isinstance(outcome, Throttled):
            attempt = replace(attempt, outcome="answered", status=429)
        else:
            attempt = replace(attempt, detail=outcome.detail)
        return self.noted(record, attempt)

    def noted(self, record: Record, attempt: Attempt) -> Record:
        """Replace the last attempt and save."""
        return self._saved(record.with_attempt(attempt))

    def accepted(self, record: Record, receipt: StoredReceipt) -> Record:
        """
        Save the receipt, a few times if the store is down, then go on without it.

        After a 200 nothing may raise: the caller has the receipt, and Airflow's XCom takes it.
        """
        record = replace(record, state="accepted", receipt=receipt)
        for repeat in range(_RECEIPT_WRITES):
            try:
                self._journal.save_receipt(record)
                break
            except (StoreUnavailableError, ConfigurationError) as error:
                self.log(
                    record,
                    f"WARNING: batch_nonce {receipt.batch_nonce} not written to Airflow's store: {error}",
                )
                self._around.sleep_s(0.5 * (repeat + 1))
        self.log(record, f"accepted, batch_nonce {receipt.batch_nonce}{', adopted' if receipt.adopted else ''}")
        crashpoints.reach("after_receipt")
        return record

    def refused(self, record: Record, look: Look) -> PacificaError:
        """End a record whose only request was refused: rejected, unless such a withdrawal is listed all the same."""
        rows = candidates(record, [Reading(look.pending)], skew_ms=self._policy.skew_ms)
        status = record.attempts[-1].status
        if rows:
            return self._remembered(record, f"Pacifica answered HTTP {status}, yet lists such a withdrawal", rows)
        record = self._saved(replace(record, state="rejected"))
        self.log(record, "rejected")
        return self.claims.rejected(record, record.attempts[-1])

    def wiped(self, record: Record) -> PacificaError | None:
        """
        End a try whose record was wiped, if the lists show what an earlier try may have ordered; else ``None``.

        While the key is remembered, the exchange itself refuses another order under it. After that, an amount that has
        drifted since would be paid beside the first, so any amount counts.
        """
        wiped = "Airflow's record of earlier tries was wiped"
        reading = self.claimed(record, lambda: self._observer.reading(record))
        rows = candidates(record, [reading], skew_ms=self._policy.skew_ms)
        if rows and not record.unanswered:  # else it may be this record's own, which a 409 will tell
            return self._remembered(record, wiped, rows)
        if record.reposted or self._around.now_ms() - record.since_ms <= self._policy.key_trust_ms:
            return None
        others = other_amounts(record, reading, skew_ms=self._policy.skew_ms)
        if not others:
            return None
        listed = "; ".join(str(row) for row in others[:_SHOWN_ROWS])
        return self._remembered(
            record,
            f"{wiped}, and since the run began other amounts of {record.order.symbol} were withdrawn, one of which may "
            f"be what an earlier try ordered ({listed})",
            (),
        )

    def unknown(self, record: Record, reason: str) -> PacificaError:
        """Remember that the outcome is unknown, with the rows as far as they can be read now."""
        return self._remembered(record, reason, self.refreshed(record))

    def settle(self, record: Record) -> StoredReceipt:
        """Conclude from a 409: adopt the one withdrawal that must be ours, else say that it is unknown."""
        if not record.maybe_sent and all(attempt.status == 409 for attempt in record.sent_attempts):
            raise self.unknown(
                record,
                "Pacifica already knew this idempotency key at the first request, so another task or deployment used "
                "it, or an earlier refusal used it up",
            )
        readings = self.claimed(record, lambda: self._observer.settled_readings(record))
        rows = candidates(record, readings, skew_ms=self._policy.skew_ms)
        row = adoptable(record, rows, readings, skew_ms=self._policy.skew_ms)
        if row is None or self._run.mapped:
            raise self._remembered(record, _why_not_adopted(rows, mapped=self._run.mapped), rows)
        receipt = receipt_of(record, row, skew_ms=self._policy.skew_ms)
        self.accepted(record, receipt)
        return receipt

    def refreshed(self, record: Record) -> Sequence[Row]:
        """Return the candidates as listed now; the stored ones if the lists cannot be read."""
        try:
            return self.rows_now(record)
        except PacificaError as error:
            self.log(record, f"the lists could not be read: {error}")
            return record.candidates

    def rows_now(self, record: Record) -> Sequence[Row]:
        """Return the candidates as listed now."""
        return candidates(record, [self._observer.reading(record)], skew_ms=self._policy.skew_ms)

    def claimed(self, record: Record, read: Callable[[], T]) -> T:
        """Read; if that fails, raise what may be claimed of the whole record."""
        try:
            return read()
        except ThrottledError as error:
            raise self.claims.unfinished(record, str(error), retry_after_s=error.retry_after_s) from None
        except Unreachable as error:
            raise self.claims.unfinished(record, str(error)) from None
        except ConfigurationError as error:
            raise self.claims.configuration(record, error) from None

    def log(self, record: Record, what: str) -> None:
        """Write one line: key, order, fingerprint and what happened; enough to reconstruct a case, nothing to steal."""
        self._around.log(f"withdrawal {record.key} ({record.order}, fingerprint {record.fingerprint[:12]}): {what}")

    def _remembered(self, record: Record, reason: str, rows: Sequence[Row]) -> PacificaError:
        record = self._saved(replace(record, state="unknown", reason=reason, candidates=tuple(rows)))
        self.log(record, f"unknown: {reason}")
        return self.claims.unknown(record, reason, rows)

    def _saved(self, record: Record) -> Record:
        """
        Save; if the store is down, go on without: the attempt is on record as unanswered, the careful reading.

        :raises PacificaError: if another try has taken over, whose record must not be overwritten.
        """
        try:
            self._journal.save(record)
        except StoreUnavailableError as error:
            self.log(record, f"WARNING: state {record.state} not written to Airflow's store: {error}")
        except OvertakenError:
            raise self.claims.overtaken(record) from None
        return record


def _why_not_adopted(rows: Sequence[Row], *, mapped: bool) -> str:
    known = "Pacifica knows the idempotency key (409)"
    if not rows:
        return f"{known}, yet lists no such withdrawal"
    if len(rows) > 1:
        return f"{known} and lists {len(rows)} withdrawals that could be it"
    if mapped:
        return f"{known}; a mapped task may stand beside an equal one, so a person has to say which is its own"
    return f"{known}, but the listed withdrawal was not made by an unanswered request of this run"
