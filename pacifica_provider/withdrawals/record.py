"""
The write-ahead record of one withdrawal: what is remembered, and its stored form.

Plain JSON, no secret, amounts as text. What cannot be read back exactly as this version writes it is refused
(``ConfigurationError``), never guessed at and never overwritten. The layout is frozen by vectors in ``tests/vectors``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from typing import Any, Literal

import msgspec

from pacifica_provider.api.amounts import canonical_text, difference, parse_wire_amount
from pacifica_provider.api.models import parse_batch_nonce
from pacifica_provider.exceptions import ConfigurationError
from pacifica_provider.withdrawals.identity import Order, RunIdentity, fingerprint

VERSION: Literal[1] = 1

AttemptOutcome = Literal["unanswered", "unsent", "answered", "refused", "overruled"]
State = Literal["open", "accepted", "rejected", "unknown", "void"]


@dataclass(frozen=True, slots=True)
class Row:
    """
    A withdrawal as the exchange lists it.

    ``amount`` is gross for a pending row; for a settled one it is what the history shows, net or gross. ``net_amount``
    is there where the list shows it.
    """

    batch_nonce: int
    amount: Decimal
    net_amount: Decimal | None
    created_at_ms: int
    transaction_id: str | None = None

    def __str__(self) -> str:
        where = f"on chain as {self.transaction_id}" if self.transaction_id else "pending"
        amount = canonical_text(self.amount)
        return f"batch_nonce {self.batch_nonce}, amount {amount}, created_at {self.created_at_ms}, {where}"


@dataclass(frozen=True, slots=True)
class Attempt:
    """
    One signed request: when it was signed, how long it lives, and what came of it.

    ``unanswered`` is written before the first byte leaves; ``unsent`` is proven never to have left; ``refused`` was
    refused, and the lists showed that nothing else came of it; ``overruled`` was unanswered until a person decided
    that it moved nothing. ``amount`` is there for a refused one: the order may have changed since.
    """

    signed_ms: int
    window_ms: int
    outcome: AttemptOutcome = "unanswered"
    status: int | None = None
    code: int | None = None
    detail: str = ""
    amount: Decimal | None = None

    @property
    def expires_ms(self) -> int:
        """The last moment, on the exchange's clock, at which this request can still be accepted."""
        return self.signed_ms + self.window_ms


@dataclass(frozen=True, slots=True)
class StoredReceipt:
    """What is known of the accepted withdrawal. An adopted one may lack the fee: a history row need not show it."""

    batch_nonce: int
    requested_amount: Decimal
    fee_amount: Decimal | None
    submitted_at_ms: int
    adopted: bool

    @property
    def net_amount(self) -> Decimal | None:
        """What arrives; ``None`` where the fee is not known."""
        return None if self.fee_amount is None else difference(self.requested_amount, self.fee_amount)


@dataclass(frozen=True, slots=True)
class Record:
    """
    Everything remembered of one withdrawal.

    ``maybe_sent``: an earlier record of it may be lost, so that a request may have been sent that is not in
    ``attempts``. ``since_ms``: no request of it can be older. ``before``: the look-alikes that were pending before the
    first request. ``decisions``: the ids of the decisions that were applied. ``restores``: how often the ledger had
    come back from a backup when this was written.
    """

    identity: RunIdentity
    order: Order
    base_url: str
    fingerprint: str
    maybe_sent: bool
    since_ms: int
    before: tuple[Row, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    state: State = "open"
    receipt: StoredReceipt | None = None
    reason: str = ""
    decisions: tuple[str, ...] = ()
    restores: int = 0

    @property
    def key(self) -> str:
        """The idempotency key."""
        return self.identity.idempotency_key()

    @property
    def kept_order(self) -> Order | None:
        """The order that later tries have to keep; none once it was refused, since they may make another one."""
        return None if self.state == "rejected" else self.order

    @property
    def sent(self) -> tuple[Attempt, ...]:
        """The attempts that may still count: neither unsent, nor throttled (not processed), nor refused for good."""
        return tuple(a for a in self.attempts if a.outcome not in {"unsent", "refused"} and a.status != 429)

    @property
    def unanswered(self) -> tuple[Attempt, ...]:
        """The attempts whose outcome is not known."""
        return tuple(a for a in self.attempts if a.outcome == "unanswered")

    @property
    def refusals(self) -> tuple[Attempt, ...]:
        """The attempts that were refused before this order was made anew."""
        return tuple(a for a in self.attempts if a.outcome == "refused")

    @property
    def duplicate(self) -> bool:
        """Whether the exchange has said that it knows the key."""
        return any(a.status == 409 for a in self.sent)

    @property
    def refused(self) -> Attempt | None:
        """The only attempt of a record of which nothing else was maybe sent, if the exchange refused it."""
        if self.maybe_sent or self.decisions or len(self.sent) != 1 or self.duplicate:
            return None
        if self.sent[0].outcome != "answered":
            return None
        return self.sent[0]

    @property
    def live_until_ms(self) -> int:
        """The last moment at which any request of this record can still be accepted; 0 if none was sent."""
        return max((a.expires_ms for a in self.sent), default=0)

    @property
    def may_have_moved(self) -> bool:
        """Whether money may have moved, by anything known of this record and not only of its last attempt."""
        said = bool(self.decisions)  # a person's word is no proof
        return self.maybe_sent or bool(self.sent) or said or self.state in {"accepted", "unknown", "void"}

    def with_attempt(self, attempt: Attempt) -> Record:
        """Return the record with its last attempt replaced."""
        return replace(self, attempts=(*self.attempts[:-1], attempt))

    def to_json(self, write_id: str) -> dict[str, Any]:
        """Return the stored form. ``write_id`` shows who wrote last."""
        plain: dict[str, Any] = _plain(asdict(self))
        return {"version": VERSION, "write_id": write_id, "key": self.key, **plain}

    @classmethod
    def from_json(cls, data: object) -> Record:
        """Read the stored form; ``ConfigurationError`` if it is not exactly one that this version writes."""
        try:
            record = msgspec.convert(data, cls)
            _check(record)
            # What is too much, or written in another form, does not come back.
            if record.to_json(msgspec.convert(data, _Written).write_id) != data:
                raise ValueError("it does not read back as it was written")
        except (ConfigurationError, msgspec.ValidationError, ValueError, ArithmeticError) as error:
            raise ConfigurationError(
                "The stored record of this withdrawal cannot be read "
                f"({type(error).__name__}: {str(error)[:120]}). Money may have moved. Nothing was sent by this try, "
                "and the record was left as it is. Look at it in Airflow (state of the asset pacifica_withdrawals, or "
                "variable), and compare it with Pacifica's lists."
            ) from None
        return record


@dataclass(frozen=True, slots=True)
class _Written:
    """What stands beside the record's fields in its stored form."""

    version: Literal[1]
    write_id: str


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return canonical_text(value)
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


def _check(record: Record) -> None:
    """Raise ``ValueError`` for a record that reads back but was never written by this package."""
    rows, receipt = record.before, () if record.receipt is None else (record.receipt,)
    counts = [record.since_ms, record.restores, *(row.created_at_ms for row in rows)]
    counts += [count for attempt in record.attempts for count in (attempt.signed_ms, attempt.window_ms)]
    amounts = [amount for row in rows for amount in (row.amount, row.net_amount)]
    amounts += [amount for got in receipt for amount in (got.requested_amount, got.fee_amount)]
    amounts += [attempt.amount for attempt in record.attempts]
    nonces = [*(row.batch_nonce for row in rows), *(got.batch_nonce for got in receipt)]
    checks = {
        "receipt": (record.state == "accepted") == (record.receipt is not None),
        "times": all(count >= 0 for count in counts),
        "amounts": all(parse_wire_amount(canonical_text(amount)) == amount for amount in amounts if amount is not None),
        "batches": all(parse_batch_nonce(nonce) == nonce for nonce in nonces),
        "order": record.order == Order.parse(record.order.symbol, record.order.amount),
        "fingerprint": record.fingerprint == fingerprint(record.identity, record.base_url, record.order),
    }
    wrong = [name for name, right in checks.items() if not right]
    if wrong:
        raise ValueError(f"its {wrong[0]} cannot be")
