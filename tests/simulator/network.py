"""The way between one worker and the exchange: latency, losses, late landings, and answers that say nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from pacifica_provider.api.amounts import canonical_text
from pacifica_provider.api.client import Listing, SignedWithdrawal
from pacifica_provider.api.models import BridgeParameters, PendingWithdrawal, Receipt, SettledWithdrawal
from pacifica_provider.api.outcomes import (
    Accepted,
    Answer,
    Outcome,
    Rejected,
    Throttled,
    TransportFailure,
    classify,
)
from pacifica_provider.api.transports import HttpRequest
from pacifica_provider.exceptions import ConfigurationError, Unreachable
from pacifica_provider.exceptions import Throttled as ThrottledError
from tests.simulator.exchange import Request, Sender

if TYPE_CHECKING:
    from tests.simulator.elsewhere import Elsewhere
    from tests.simulator.exchange import SimulatedExchange
    from tests.simulator.fault_injector import FaultInjector, PostFault
    from tests.simulator.history import History
    from tests.simulator.worker import Worker

TIMEOUT_MS = 10_000
BASE_URL = "https://simulated.invalid/api/v1"


@dataclass(slots=True)
class SimulatedClient:
    """What ``withdrawals`` takes for the exchange, as one worker reaches it."""

    exchange: SimulatedExchange
    worker: Worker
    injector: FaultInjector
    history: History
    sender: Sender
    elsewhere: Elsewhere
    expiry_window_ms: int = 10_000

    def pending_withdrawals(self) -> Listing[PendingWithdrawal]:
        """Read the pending list, and the exchange's clock by its ``Date``."""
        self._get("GET pending")
        rows, now_ms = self.exchange.pending(), self.exchange.scheduler.now_ms
        dated = not self.injector.strikes(self.injector.profile.get_trouble / 10)
        self._pass()
        return Listing(rows, now_ms // 1000 * 1000 if dated else None, None)

    def withdrawal_history(self, since_ms: int | None = None) -> Listing[SettledWithdrawal]:
        """Read the history."""
        self._get("GET history")
        rows, now_ms = self.exchange.history(since_ms or 0), self.exchange.scheduler.now_ms
        self._pass()
        return Listing(rows, now_ms // 1000 * 1000, None)

    def bridge_parameters(self, symbol: str) -> BridgeParameters:
        """Read the fee; a bridge that is gone is answered 404."""
        self._get("GET fee")
        self._pass()
        if self.exchange.bridge_gone:
            self.injector.seen["bridge gone"] += 1
            raise ConfigurationError("Pacifica answered HTTP 404. Nothing was sent.")
        return BridgeParameters(symbol, self.exchange.fee, 9)

    def prepare_withdrawal(
        self, symbol: str, amount: Decimal, *, idempotency_key: str, timestamp_ms: int
    ) -> SignedWithdrawal:
        """Sign: the bytes name everything that is checked."""
        signed = {
            "symbol": symbol,
            "amount": canonical_text(amount),
            "idempotency_key": idempotency_key,
            "timestamp": timestamp_ms,
            "expiry_window": self.expiry_window_ms,
        }
        withdrawal = SignedWithdrawal(timestamp_ms, HttpRequest("POST", BASE_URL, {}, json.dumps(signed).encode()))
        self.history.signed.append(self._delivered(withdrawal))
        return withdrawal

    def send(self, withdrawal: SignedWithdrawal) -> Outcome:
        """Send it once, and see what comes of it."""
        self.worker.step("POST, nothing sent")
        request = self._delivered(withdrawal)
        self.history.posted(request)
        fault = self.injector.post_fault()
        if self.injector.strikes(self.injector.profile.foreign_in_window):
            self.injector.seen["foreign withdrawal in the window"] += 1
            scheduler = self.exchange.scheduler
            scheduler.at(
                scheduler.now_ms + self.worker.rng.randint(0, 9_000), lambda: self.elsewhere.withdraw_like(request)
            )
        self.worker.tell(f"POST {request.key[:8]} signed {request.signed_ms}: {fault or 'no fault'}")
        self._pass()
        outcome = self._executed(request, fault)
        self.worker.step("POST, nothing answered")
        self._pass()
        if isinstance(outcome, (Rejected, Throttled)):
            self.history.answered_no(request)
        self.worker.tell(f"answer: {outcome}")
        return outcome

    def _executed(self, request: Request, fault: PostFault | None) -> Outcome:
        """Let the request come to the exchange now, later, or never."""
        now_ms, rng = self.exchange.scheduler.now_ms, self.worker.rng
        if fault == "held inside":
            return self._held(request, now_ms + rng.randint(500, 60_000))
        if fault in {"lands late", "replayed"}:
            self.exchange.scheduler.at(now_ms + rng.randint(100, 25_000), lambda: self.exchange.receive(request))
        if fault in {None, "replayed"}:
            return self.exchange.receive(request)
        if fault == "delivered twice":
            self.exchange.receive(request)
            if rng.random() < 0.7:
                return self.exchange.receive(request)
            return self.exchange.refuse(request, "refused the second time")
        if fault in {"lands late", "lost before commit"}:
            return self._no_answer()
        return self._distorted(request, fault)

    def _distorted(self, request: Request, fault: PostFault | None) -> Outcome:
        """Answer something else than what the exchange would say, before or after it has executed the request."""
        rng = self.worker.rng
        if fault == "refused":
            return classify(Answer(rng.choice((400, 401, 403)), {}, b"no access"))
        if fault == "429":
            return Throttled(rng.choice((None, 0.0, 5.0, 40.0, 300.0, 86_400.0)))
        if fault == "5xx before commit":
            self.exchange.fail(request)
            return classify(Answer(503, {}, b""))
        if fault == "odd echo before commit":
            return self._odd(Accepted(Receipt(request.symbol, 999_999_999, request.amount, self.exchange.fee)))
        outcome = self.exchange.receive(request)
        if fault == "odd echo after commit":
            return self._odd(outcome)
        return classify(Answer(504, {}, b"")) if fault == "5xx after commit" else self._no_answer()

    def _held(self, request: Request, done_ms: int) -> Outcome:
        """Take time inside the exchange; meanwhile the key may or may not count as used."""
        exchange = self.exchange
        refused = exchange.signature_refused(request)
        if refused is not None:
            return refused
        arrived_ms = exchange.scheduler.now_ms
        if exchange.options.conflict_in_progress and not exchange.remembers(request.key):
            exchange.in_progress.add(request.key)

        def execute() -> Outcome:
            exchange.in_progress.discard(request.key)
            return exchange.receive(request, arrived_ms=arrived_ms)

        if done_ms - arrived_ms < TIMEOUT_MS:
            exchange.scheduler.wait_until(done_ms)
            return execute()
        exchange.scheduler.at(done_ms, execute)
        return self._no_answer()

    def _no_answer(self) -> Outcome:
        self.exchange.scheduler.wait(self.worker.rng.choice((50, 2_000, TIMEOUT_MS)))
        return classify(TransportFailure("ReadTimeout"))

    def _odd(self, outcome: Outcome) -> Outcome:
        if not isinstance(outcome, Accepted):
            return outcome
        receipt = outcome.receipt
        return Accepted(
            replace(receipt, symbol="ETH")
            if self.worker.rng.random() < 0.5
            else replace(receipt, requested_amount=receipt.requested_amount + 1)
        )

    def _delivered(self, withdrawal: SignedWithdrawal) -> Request:
        body = json.loads(withdrawal.request.body or b"")
        return Request(
            self.sender,
            body["idempotency_key"],
            body["symbol"],
            Decimal(body["amount"]),
            body["timestamp"],
            body["expiry_window"],
        )

    def _get(self, what: str) -> None:
        self.worker.step(what)
        self._pass()
        trouble = self.injector.profile.get_trouble
        if self.injector.strikes(trouble):
            self.injector.seen["GET failed"] += 1
            self.exchange.scheduler.wait(self.worker.rng.choice((50, TIMEOUT_MS)))
            raise Unreachable(f"{what} failed.")
        if self.injector.strikes(trouble / 4):
            self.injector.seen["GET throttled"] += 1
            retry_after_s = self.worker.rng.choice((1.0, 20.0, 60.0, 300.0))
            raise ThrottledError(f"{what}: too many requests.", retry_after_s=retry_after_s, status=429)

    def _pass(self) -> None:
        """Let one way through the network pass: mostly quick, sometimes seconds."""
        slow = self.injector.strikes(self.injector.profile.get_trouble / 4)
        self.exchange.scheduler.wait(self.worker.rng.random() * (4_000 if slow else 120))
