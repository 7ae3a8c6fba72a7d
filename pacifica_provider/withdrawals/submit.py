"""
Withdraw once: recall, guards, look, post, settle, receipt. The protocol of docs/exactly-once.md, one try at a time.

One record a key, written before the first byte. One live signature a key. The key is trusted for nine minutes, then a
person is asked. What cannot be shown is said, not guessed. No Airflow, clock or randomness in here: all of that is
handed in, so the same code runs under the simulator.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pacifica_provider.api.outcomes import Accepted, Duplicate, Outcome, Rejected, Throttled
from pacifica_provider.exceptions import ConfigurationError
from pacifica_provider.withdrawals import crashpoints
from pacifica_provider.withdrawals.candidates import pending_rows
from pacifica_provider.withdrawals.conclusions import Conclusions, RunFacts
from pacifica_provider.withdrawals.intents import (
    IntentStore,
    Journal,
    OvertakenError,
    StoreUnavailableError,
)
from pacifica_provider.withdrawals.look import Exchange, Look, Observer, Policy, Surroundings
from pacifica_provider.withdrawals.recall import Recall
from pacifica_provider.withdrawals.records import Attempt, Record, StoredReceipt

if TYPE_CHECKING:
    from collections.abc import Callable

    from pacifica_provider.withdrawals.identity import Order, RunIdentity

_DEFAULT_THROTTLE_S = 5.0


class Submission:
    """
    One try of one withdrawal.

    :param run: what this try knows of itself.
    :param store: where the record is kept.
    :param reader: the exchange for reading; needs no key.
    :param unlock: checks everything that can fail locally and returns the exchange that can sign; it raises
        ``ConfigurationError``, and is called only once it is known that something is to be sent.
    """

    def __init__(
        self,
        *,
        run: RunFacts,
        store: IntentStore,
        reader: Exchange,
        unlock: Callable[[], Exchange],
        policy: Policy,
        around: Surroundings,
    ) -> None:
        self._unlock = unlock
        self._policy = policy
        self._around = around
        self._journal = Journal(store, around.new_id)
        self._observer = Observer(reader, policy, around)
        self._conclude = Conclusions(self._journal, self._observer, run, policy, around)
        self._recall = Recall(self._journal, self._conclude, run, policy, around)
        self._throttled_s: float | None = None

    def run(self, identity: RunIdentity, order: Order, base_url: str) -> StoredReceipt:
        """
        Return the receipt of this run's one withdrawal; post only if none can have been accepted.

        :raises PacificaError: one of ``pacifica_provider.exceptions``, each a claim about the whole record.
        """
        crashpoints.reach("before_record")
        record = self._recall.record(identity, order, base_url)
        if record.receipt is not None:
            self._conclude.log(record, f"already withdrawn, batch_nonce {record.receipt.batch_nonce}; nothing is sent")
            return record.receipt
        if record.state == "void":
            raise self._conclude.claims.voided(record)
        if record.state == "unknown":
            raise self._conclude.claims.unknown(record, record.reason, self._conclude.refreshed(record))
        try:
            exchange = self._unlock()
        except ConfigurationError as error:
            raise self._conclude.claims.configuration(record, error) from None
        return self._submit(record, exchange)

    def _submit(self, record: Record, exchange: Exchange) -> StoredReceipt:
        started_ms, posts = self._around.now_ms(), 0
        while True:
            if any(attempt.status == 409 for attempt in record.sent_attempts):
                return self._conclude.settle(record)
            look = self._conclude.claimed(record, self._observer.look)
            self._end_if_concluded(record, look)
            spent_ms = self._around.now_ms() - started_ms
            if self._waited(record, look, self._policy.try_budget_ms - spent_ms):
                continue
            if posts >= self._policy.posts_per_try or not 0 <= spent_ms < self._policy.try_budget_ms:
                raise self._conclude.claims.unfinished(
                    record, "This try has used its time and requests.", retry_after_s=self._throttled_s
                )
            if not self._fresh(look.began_ms, exchange):
                continue
            record, outcome = self._post(record, look, exchange)
            if record.receipt is not None:
                return record.receipt
            posts += outcome is not None
            self._after_post(record, outcome, last=posts >= self._policy.posts_per_try)

    def _end_if_concluded(self, record: Record, look: Look) -> None:
        """End the try where this look is all it takes: a refusal, a wiped record, a key too old to trust."""
        if record.refused is not None:
            raise self._conclude.refused(record, look)
        if record.maybe_sent:
            ended = self._conclude.wiped(record)
            if ended is not None:
                raise ended
        oldest_ms = min((attempt.signed_ms for attempt in record.unanswered), default=look.server_ms)
        if look.server_ms - oldest_ms > self._policy.key_trust_ms:
            raise self._conclude.unknown(
                record,
                "a request was never answered, and it is so old that Pacifica may have forgotten its idempotency key",
            )

    def _waited(self, record: Record, look: Look, left_ms: int) -> bool:
        """
        Wait while a request may still be accepted; return whether that took time, and so another look.

        No request ever follows another before its signature has expired on the exchange's clock.
        """
        live_ms = max((attempt.expires_ms for attempt in record.sent_attempts), default=0)
        if look.server_ms > live_ms:
            if record.reposted and record.unanswered:
                raise self._conclude.unknown(
                    record, "the answer was lost a second time, after a person had it posted again"
                )
            return False
        if live_ms - look.server_ms > left_ms:
            raise self._conclude.claims.unfinished(
                record, "A signed request can still be accepted for longer than this try may wait."
            )
        self._observer.wait_until_past(live_ms, look)
        return True

    def _post(self, record: Record, look: Look, exchange: Exchange) -> tuple[Record, Outcome | None]:
        """Write the attempt, send it once, and note what came of it; no outcome if it was too late to send."""
        attempt = Attempt(self._around.now_ms(), exchange.expiry_window_ms)
        signed = exchange.prepare_withdrawal(
            record.order.symbol,
            record.order.amount,
            idempotency_key=record.key,
            timestamp_ms=attempt.signed_ms,
        )
        written = replace(record, attempts=(*record.attempts, attempt))
        if not record.attempts and not record.maybe_sent:
            written = replace(written, before=pending_rows(record.order.symbol, look.pending))
        try:
            self._journal.write_ahead(written)
        except StoreUnavailableError as error:
            why = f"Airflow's store could not be used ({error}); the request was not sent."
            raise self._conclude.claims.unfinished(record, why) from None
        except OvertakenError:
            raise self._conclude.claims.overtaken(record) from None
        crashpoints.reach("before_post")
        if not self._fresh(attempt.signed_ms, exchange):
            return self._conclude.noted(written, replace(attempt, outcome="unsent")), None
        self._conclude.log(written, f"posting, attempt {len(written.sent_attempts)}, signed at {attempt.signed_ms}")
        outcome = exchange.send(signed)
        crashpoints.reach("after_post")
        return self._conclude.received(written, attempt, outcome), outcome

    def _after_post(self, record: Record, outcome: Outcome | None, *, last: bool) -> None:
        """Go on to the next look, or end the try, after a request that brought no receipt."""
        if outcome is None or isinstance(outcome, Duplicate) or record.refused is not None:
            return
        if isinstance(outcome, Rejected):
            raise self._conclude.unknown(record, f"after an earlier request, Pacifica answered HTTP {outcome.status}")
        self._throttled_s = None
        if isinstance(outcome, Throttled):
            asked_s = outcome.retry_after_s
            self._throttled_s = _DEFAULT_THROTTLE_S if asked_s is None else asked_s
            if not last and self._throttled_s <= self._policy.longest_throttle_s:
                self._around.sleep_s(self._throttled_s * (1 + self._around.jitter() / 4))
                return
        if last or isinstance(outcome, Throttled):
            what = (
                "asked for fewer requests (429)"
                if isinstance(outcome, Throttled)
                else "gave no answer that shows the outcome"
            )
            raise self._conclude.claims.unfinished(record, f"Pacifica {what}.", retry_after_s=self._throttled_s)
        if isinstance(outcome, Accepted):
            self._conclude.log(record, "the answer echoes another order and is not trusted")

    def _fresh(self, since_ms: int, exchange: Exchange) -> bool:
        """
        Say whether what was read or signed then may still be acted on: within a third of the signature's window.

        By wall clock, since a process may be frozen and thawed between any two lines.
        """
        return 0 <= self._around.now_ms() - since_ms <= exchange.expiry_window_ms / 3
