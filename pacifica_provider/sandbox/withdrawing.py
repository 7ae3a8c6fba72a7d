"""The withdraw POST, and where in its course a fault strikes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from pacifica_provider.sandbox.answers import Answer, accepted, error_envelope, refusal
from pacifica_provider.sandbox.delivery import Closing, replaced
from pacifica_provider.sandbox.errors import UNPROCESSABLE, Refused, duplicate
from pacifica_provider.sandbox.inflight import Claim, Inflight
from pacifica_provider.sandbox.orders import read_json

if TYPE_CHECKING:
    from pacifica_provider.sandbox.exchange import Exchange
    from pacifica_provider.sandbox.faults import Fault

OUTCOMES = {409: "duplicate", 422: "rejected", 400: "refused"}
# Nothing of the answer reaches the client as an HTTP status.
STATUSLESS = ("reset", "reset_request", "close")
SERVER_ERROR = 500
FORGED_NONCE = 999_999_999


class Withdrawing:
    """Runs withdraw requests against the exchange."""

    def __init__(self, exchange: Exchange, closing: Closing) -> None:
        self._exchange = exchange
        self._closing = closing
        self._inflight = Inflight()

    async def answer(self, body: bytes, fault: Fault | None) -> Answer:
        """Process one POST and write down what became of it."""
        received_at = self._exchange.now_ms()
        number = self._exchange.ledger.open_post(body, received_at=received_at)
        outcome, answer = "abandoned", None
        try:
            outcome, answer = await self._process(body, fault, received_at)
        finally:
            lost = answer is None or (fault is not None and fault.kind in STATUSLESS)
            self._exchange.ledger.close_post(
                number,
                outcome=outcome,
                status=None if lost or answer is None else answer.status,
                fault=None if fault is None else fault.label,
            )
        return answer

    async def _process(self, body: bytes, fault: Fault | None, received_at: int) -> tuple[str, Answer]:
        claim = self._claim(body, received_at)
        if claim in self._inflight:
            if self._exchange.options.conflict_in_progress:
                return "duplicate", refusal(duplicate(self._exchange.options.duplicate_body))
            await self._inflight.wait(claim)
        before = fault is not None and fault.when == "before_commit"
        if fault is not None and before and fault.kind == "hang":
            async with self._inflight.hold(claim):
                await self._closing.pause(fault.number("seconds"))
                return self._execute(body, received_at)
        if fault is not None and before and fault.kind != "no_date":
            return "not_executed", self._not_executed(body, fault, received_at)
        outcome, answer = self._execute(body, received_at)
        if fault is not None and fault.kind == "hang":
            await self._closing.pause(fault.number("seconds"))
        return outcome, answer if fault is None else self._distorted(answer, fault)

    def _claim(self, body: bytes, received_at: int) -> Claim | None:
        """Return what a held request keeps others from: nothing, unless it is in order and has a key."""
        try:
            order = self._exchange.authenticate(body, received_at=received_at)
        except Refused:
            return None
        return None if order.idempotency_key is None else (order.account, order.idempotency_key)

    def _execute(self, body: bytes, received_at: int) -> tuple[str, Answer]:
        try:
            return "accepted", accepted(self._exchange.withdraw(body, received_at=received_at))
        except Refused as refused:
            return OUTCOMES[refused.status], refusal(refused)

    def _not_executed(self, body: bytes, fault: Fault, received_at: int) -> Answer:
        """Return what the client sees of a request that the exchange never carried out."""
        if fault.kind == "echo":
            return self._distorted(_forged(body), fault)
        answer = self._distorted(error_envelope(503, "Service unavailable"), fault)
        if answer.status >= SERVER_ERROR or answer.status == UNPROCESSABLE:
            self._burn(body, received_at)
        return answer

    def _burn(self, body: bytes, received_at: int) -> None:
        try:
            self._exchange.burn(self._exchange.authenticate(body, received_at=received_at))
        except Refused:
            return  # a request that is not in order has no key to burn

    def _distorted(self, answer: Answer, fault: Fault) -> Answer:
        if fault.kind == "duplicate_in_progress":
            return refusal(duplicate(self._exchange.options.duplicate_body))
        if fault.kind == "echo":
            return _echo(answer, fault)
        return replaced(answer, fault)


def _forged(body: bytes) -> Answer:
    """Return a receipt for a withdrawal that never was."""
    try:
        seen = read_json(body)
    except Refused as refused:
        return refusal(refused)
    receipt = {"symbol": seen.get("symbol"), "requested_amount": seen.get("amount")}
    return accepted({**receipt, "batch_nonce": FORGED_NONCE, "fee_amount": "0.00100000"})


def _echo(answer: Answer, fault: Fault) -> Answer:
    """Return a receipt for something else; a refusal has nothing to echo."""
    content = json.loads(answer.body) if answer.status == 200 else None
    if content is None:
        return answer
    renamed = {"amount": "requested_amount"}
    content["data"].update({renamed.get(name, name): value for name, value in fault.parameters.items()})
    return replace(answer, body=json.dumps(content, separators=(",", ":")).encode())
