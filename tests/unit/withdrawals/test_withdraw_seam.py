"""
The whole protocol in memory: the complete example that ``withdrawals.withdraw`` promises to anybody's own harness.

No Airflow, no socket, no real clock: ``Exchange`` stands for Pacifica, a dictionary for the ledger, ``World`` for time.
"""

from __future__ import annotations

import inspect
import itertools
from dataclasses import dataclass, field, fields
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from pacifica_provider.api.client import Listing
from pacifica_provider.api.models import BridgeParameters, PendingWithdrawal, Receipt, SettledWithdrawal
from pacifica_provider.api.outcomes import Accepted, Duplicate, Outcome, Unknown
from pacifica_provider.exceptions import OutcomeUnknown, Unresolved
from pacifica_provider.withdrawals.identity import Order, RunIdentity
from pacifica_provider.withdrawals.ledger import Ledger, LedgerState
from pacifica_provider.withdrawals.withdraw import (
    Policy,
    ReadingExchange,
    Runtime,
    SigningExchange,
    TryContext,
    withdraw,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

FEE = Decimal("0.001")


class DictLedger:
    """A ledger: JSON objects by name."""

    fenced = True

    def __init__(self) -> None:
        self.entries: dict[str, Mapping[str, Any]] = {}

    def get(self, name: str, /) -> object | None:
        """Return the entry."""
        return self.entries.get(name)

    def set(self, name: str, value: Mapping[str, Any], /) -> None:
        """Write the entry."""
        self.entries[name] = value

    def delete(self, name: str, /) -> None:
        """Remove the entry."""
        self.entries.pop(name, None)


@dataclass
class Exchange:
    """Accepts, remembers keys and lists rows; ``lose_answers`` counts the answers that get lost on the way back."""

    world: World
    expiry_window_ms: int = 10_000
    lose_answers: int = 0
    keys: set[str] = field(default_factory=set)
    rows: list[PendingWithdrawal] = field(default_factory=list)
    sent: int = 0

    def pending_withdrawals(self) -> Listing[PendingWithdrawal]:
        """Return the rows, and the time in whole seconds, as a ``Date`` header has it."""
        return Listing(tuple(self.rows), self.world.now_ms // 1000 * 1000, None)

    def withdrawal_history(self, since_ms: int | None = None) -> Listing[SettledWithdrawal]:
        """Return nothing: here withdrawals stay pending."""
        return Listing((), self.world.now_ms, None)

    def bridge_parameters(self, symbol: str) -> BridgeParameters:
        """Return the fee."""
        return BridgeParameters(symbol, FEE, 8)

    def prepare_withdrawal(self, symbol: str, amount: Decimal, *, idempotency_key: str, timestamp_ms: int) -> Any:
        """Sign nothing: the request is its own content."""
        return symbol, amount, idempotency_key

    def send(self, withdrawal: Any, /) -> Outcome:
        """Accept what is new, refuse a known key, and lose the answer if told to."""
        (symbol, amount, key), self.sent = withdrawal, self.sent + 1
        if key in self.keys:
            return Duplicate("Duplicate idempotency key")
        self.keys.add(key)
        nonce = 41 + len(self.keys)
        self.rows.append(PendingWithdrawal(symbol, amount - FEE, amount, FEE, nonce, self.world.now_ms))
        if self.lose_answers:
            self.lose_answers -= 1
            return Unknown("the connection broke")
        return Accepted(Receipt(symbol, nonce, amount, FEE))


@dataclass
class World:
    """A clock that only sleeping moves, a ledger, an exchange, and tries of one task."""

    now_ms: int = 1_800_000_000_000
    ledger: Ledger = field(default_factory=DictLedger)
    policy: Policy = field(default_factory=Policy)
    tries: int = 0

    def __post_init__(self) -> None:
        self.exchange, self._ids = Exchange(self), itertools.count()

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now_ms += int(seconds * 1000)

    def unlock(self) -> Exchange:
        """Return what can sign and send."""
        return self.exchange

    def log(self, line: str) -> None:
        """Print what the protocol says of itself."""
        print(line)  # noqa: T201 - pytest shows it where a test fails

    def try_once(self, amount: str = "1.5", reference: str | None = None, **context: Any) -> Any:
        """Run one try of the task; ``context["sweeps"]`` makes the amount what a new record is begun with."""
        self.tries += 1
        order = Order.parse("SOL", amount)
        return withdraw(
            RunIdentity("account", "pay", "run-1", "withdraw", reference),
            (lambda recorded: recorded or order) if context.get("sweeps") else order,
            "https://exchange.invalid/api/v1",
            context=TryContext(**{"first_try": self.tries == 1, "run_after_ms": 1_800_000_000_000, **context}),
            ledger=self.ledger,
            exchange=self.exchange,
            make_signer=self.unlock,
            policy=self.policy,
            runtime=Runtime(lambda: self.now_ms, self.sleep, lambda: str(next(self._ids)), lambda: 0.5, self.log),
        )


def test_it_is_paid_once_and_a_retry_returns_the_receipt() -> None:
    """The first try posts; every later one returns the same receipt and sends nothing (F38, F53)."""
    world = World()
    receipt, again = world.try_once(), world.try_once()

    assert (receipt.batch_nonce, receipt.fee_amount, receipt.adopted) == (42, FEE, False)
    assert receipt == again
    assert (world.exchange.sent, len(world.exchange.rows)) == (1, 1)


def test_a_lost_answer_is_adopted() -> None:
    """Accepted, but the answer was lost: the key is posted again, answered 409, and the row in view is ours (F03)."""
    world = World()
    world.exchange.lose_answers = 1
    receipt = world.try_once()

    assert (receipt.batch_nonce, receipt.adopted) == (42, True)
    assert (world.exchange.sent, len(world.exchange.rows)) == (2, 1)


def test_a_key_that_may_be_forgotten_is_not_posted_again() -> None:
    """Ten minutes later the exchange may have forgotten the key: a person is asked, with the row in view (F55)."""
    world = World(policy=Policy(posts_per_try=1))
    world.exchange.lose_answers = 1
    with pytest.raises(Unresolved, match="MAY have moved"):
        world.try_once()
    world.sleep(600)
    world.exchange.keys.clear()
    with pytest.raises(OutcomeUnknown, match="batch_nonce 42"):
        world.try_once()

    assert (world.exchange.sent, len(world.exchange.rows)) == (1, 1)


def test_an_order_that_is_settled_late_is_settled_once() -> None:
    """Everything there is, say: a later try withdraws what the first one did, though there is another amount by now."""
    world = World(policy=Policy(posts_per_try=1))
    world.exchange.lose_answers = 1
    with pytest.raises(Unresolved, match="MAY have moved"):
        world.try_once("1.5", sweeps=True)
    receipt = world.try_once("0.7", sweeps=True)

    assert (receipt.batch_nonce, receipt.requested_amount, receipt.adopted) == (42, Decimal("1.5"), True)
    assert len(world.exchange.rows) == 1


def test_a_lost_record_of_such_an_order_may_have_had_any_amount() -> None:
    """So whatever is listed since may be its withdrawal; of a fixed amount only what has it (F87)."""
    world = World()
    world.try_once("1.5", sweeps=True)
    world.ledger = DictLedger()
    LedgerState(world.now_ms + 1, raised=True).write(world.ledger)
    world.exchange.keys.clear()
    with pytest.raises(OutcomeUnknown, match="an earlier record of this withdrawal may be lost"):
        world.try_once("0.7", sweeps=True)

    assert len(world.exchange.rows) == 1


@pytest.mark.parametrize("part", [Ledger, ReadingExchange, SigningExchange, Runtime, TryContext, Policy])
def test_each_part_of_the_seam_is_small(part: type) -> None:
    """At most six members each, so that an in-memory one is written in minutes (design.md)."""
    members = {name for name in (*part.__annotations__, *vars(part)) if not name.startswith("_")}

    assert 1 <= len(members) <= 6


def test_the_call_takes_what_the_design_names() -> None:
    """Identity, order and base URL, and everything of the world by keyword (design.md)."""
    parameters = inspect.signature(withdraw).parameters
    by_keyword = [name for name, each in parameters.items() if each.kind is inspect.Parameter.KEYWORD_ONLY]

    assert list(parameters)[:3] == ["identity", "order", "base_url"]
    assert by_keyword == ["context", "ledger", "exchange", "make_signer", "policy", "runtime"]
    assert [each.name for each in fields(Runtime)] == ["now_ms", "sleep_s", "new_id", "jitter", "log"]
