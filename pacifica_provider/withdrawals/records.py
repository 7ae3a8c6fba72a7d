"""
The write-ahead record of one withdrawal, and the entry that holds the records of one task instance.

Plain JSON, no secret, amounts as text. What cannot be read back exactly as this version writes it is refused
(``ConfigurationError``), never guessed at and never overwritten. The layout is frozen by vectors in ``tests/vectors``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal
from typing import Any, Literal, get_args

from pacifica_provider.api.amounts import canonical_text, parse_wire_amount
from pacifica_provider.api.models import parse_batch_nonce
from pacifica_provider.exceptions import ConfigurationError
from pacifica_provider.withdrawals.identity import Order, RunIdentity, fingerprint

VERSION = 1

AttemptOutcome = Literal["unanswered", "unsent", "answered", "overruled"]
State = Literal["open", "accepted", "rejected", "unknown", "void"]
CLOSED_STATES = frozenset({"accepted", "rejected", "void"})


@dataclass(frozen=True, slots=True)
class Row:
    """A withdrawal the exchange lists: ``amount`` gross as far as known, ``net_amount`` where the list shows it."""

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

    ``unanswered`` is what is written before the first byte leaves; ``unsent`` is proven never to have left;
    ``overruled`` was unanswered until a person decided that it moved nothing.
    """

    signed_ms: int
    window_ms: int
    outcome: AttemptOutcome = "unanswered"
    status: int | None = None
    code: int | None = None
    detail: str = ""

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


@dataclass(frozen=True, slots=True)
class Record:
    """Everything remembered of one withdrawal, under its idempotency key."""

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
    candidates: tuple[Row, ...] = ()
    reason: str = ""
    reposted: bool = False
    decisions: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The idempotency key."""
        return self.identity.idempotency_key()

    @property
    def sent_attempts(self) -> tuple[Attempt, ...]:
        """The attempts that are not proven never to have left."""
        return tuple(a for a in self.attempts if a.outcome != "unsent")

    @property
    def unanswered(self) -> tuple[Attempt, ...]:
        """The attempts whose outcome is not known."""
        return tuple(a for a in self.attempts if a.outcome == "unanswered")

    @property
    def may_have_moved(self) -> bool:
        """Whether money may have moved, by anything known of this record and not only of its last attempt."""
        doubtful = any(a.outcome in {"unanswered", "overruled"} or a.status == 409 for a in self.attempts)
        return self.maybe_sent or doubtful or self.state in {"accepted", "unknown", "void"}

    @property
    def refused(self) -> Attempt | None:
        """The only attempt of a record of which nothing else was maybe sent, if the exchange refused it."""
        sent = self.sent_attempts
        if self.maybe_sent or len(sent) != 1 or sent[0].outcome != "answered" or sent[0].status in {409, 429}:
            return None
        return sent[0]

    def with_attempt(self, attempt: Attempt) -> Record:
        """Return the record with its last attempt replaced."""
        return replace(self, attempts=(*self.attempts[:-1], attempt))

    def to_json(self) -> dict[str, Any]:
        """Return the stored form."""
        plain: dict[str, Any] = _plain(asdict(self))
        return {"key": self.key, **plain}

    @classmethod
    def from_json(cls, data: object) -> Record:
        """Read the stored form; ``ConfigurationError`` if it is not exactly one this version writes."""
        try:
            record = _record(data)
            _check(record)
            if record.to_json() != data:
                raise ValueError("it does not read back as it was written")
        except (ConfigurationError, ValueError, TypeError, KeyError, AttributeError, ArithmeticError) as error:
            raise ConfigurationError(
                "The stored record of this withdrawal cannot be read "
                f"({type(error).__name__}: {str(error)[:120]}). Money may have moved. Nothing was sent by this try, "
                "and the record was left as it is. Look at it in Airflow's task state (or variable), compare it "
                "with Pacifica's lists."
            ) from None
        return record


@dataclass(frozen=True, slots=True)
class Entry:
    """What the store holds for one task instance. ``write_id`` changes at every write and shows who wrote last."""

    write_id: str
    records: Mapping[str, Record] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the stored form."""
        records = {key: record.to_json() for key, record in self.records.items()}
        return {"version": VERSION, "write_id": self.write_id, "records": records}

    @classmethod
    def from_json(cls, data: object) -> Entry:
        """Read the stored form; ``ConfigurationError`` if it is corrupt or of another version."""
        records = data.get("records") if isinstance(data, Mapping) else None
        if (
            not isinstance(data, Mapping)
            or data.get("version") != VERSION
            or not isinstance(data.get("write_id"), str)
            or not isinstance(records, Mapping)
        ):
            raise ConfigurationError(
                "The stored entry of this task's withdrawals is not one that this version of the provider writes. "
                "Money may have moved. Nothing was sent by this try, and the entry was left as it is."
            )
        read = {key: Record.from_json(value) for key, value in records.items()}
        if any(key != record.key for key, record in read.items()):
            raise ConfigurationError(
                "A stored record of this task lies under a key that is not its own. Money may have moved. Nothing "
                "was sent by this try, and the entry was left as it is."
            )
        return cls(str(data["write_id"]), read)


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
    times = [record.since_ms, *(row.created_at_ms for row in (*record.before, *record.candidates))]
    for attempt in record.attempts:
        times += [attempt.signed_ms, attempt.window_ms]
    checks = {
        "state": str(record.state) in get_args(State),
        "outcome": all(str(a.outcome) in get_args(AttemptOutcome) for a in record.attempts),
        "receipt": (record.state == "accepted") == (record.receipt is not None),
        "times": all(type(time) is int and time >= 0 for time in times),
        "flags": {type(record.maybe_sent), type(record.reposted)} == {bool},
        "fingerprint": record.fingerprint == fingerprint(record.identity, record.base_url, record.order),
    }
    wrong = [name for name, right in checks.items() if not right]
    if wrong:
        raise ValueError(f"its {wrong[0]} cannot be")


def _record(data: Any) -> Record:
    rest = {k: v for k, v in data.items() if k != "key"}
    receipt = rest["receipt"]
    return Record(
        **{
            **rest,
            "identity": RunIdentity(**rest["identity"]),
            "order": Order.parse(rest["order"]["symbol"], rest["order"]["amount"]),
            "before": tuple(_row(row) for row in rest["before"]),
            "attempts": tuple(Attempt(**attempt) for attempt in rest["attempts"]),
            "receipt": None if receipt is None else _receipt(receipt),
            "candidates": tuple(_row(row) for row in rest["candidates"]),
            "decisions": tuple(rest["decisions"]),
        }
    )


def _row(data: Mapping[str, Any]) -> Row:
    net = data["net_amount"]
    return Row(
        batch_nonce=parse_batch_nonce(data["batch_nonce"]),
        amount=parse_wire_amount(data["amount"]),
        net_amount=None if net is None else parse_wire_amount(net),
        created_at_ms=data["created_at_ms"],
        transaction_id=data["transaction_id"],
    )


def _receipt(data: Mapping[str, Any]) -> StoredReceipt:
    fee = data["fee_amount"]
    return StoredReceipt(
        **{
            **data,
            "batch_nonce": parse_batch_nonce(data["batch_nonce"]),
            "requested_amount": parse_wire_amount(data["requested_amount"]),
            "fee_amount": None if fee is None else parse_wire_amount(fee),
        }
    )
