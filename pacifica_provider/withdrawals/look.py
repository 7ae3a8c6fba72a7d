"""
Looking at the exchange: its lists, and its clock by the ``Date`` header of the same answer.

Everything here is a GET, so it may be repeated. What is concluded from a look is decided in ``submit.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from pacifica_provider.exceptions import ConfigurationError, Unreachable
from pacifica_provider.withdrawals.candidates import Reading, history_since_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from decimal import Decimal

    from pacifica_provider.api.client import Listing, SignedWithdrawal
    from pacifica_provider.api.models import BridgeParameters, PendingWithdrawal, SettledWithdrawal
    from pacifica_provider.api.outcomes import Outcome
    from pacifica_provider.withdrawals.records import Record

T = TypeVar("T")

_READ_TRIES = 3
_DATE_RESOLUTION_MS = 1000


class Exchange(Protocol):
    """The part of ``api.client.PacificaClient`` that a withdrawal needs; the simulator has one of its own."""

    expiry_window_ms: int

    def pending_withdrawals(self) -> Listing[PendingWithdrawal]:
        """Read the pending list."""
        ...

    def withdrawal_history(self, since_ms: int | None = None) -> Listing[SettledWithdrawal]:
        """Read the history."""
        ...

    def bridge_parameters(self, symbol: str) -> BridgeParameters:
        """Read the withdrawal fee."""
        ...

    def prepare_withdrawal(
        self, symbol: str, amount: Decimal, *, idempotency_key: str, timestamp_ms: int
    ) -> SignedWithdrawal:
        """Sign; nothing is sent."""
        ...

    def send(self, withdrawal: SignedWithdrawal) -> Outcome:
        """Send once."""
        ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """
    Everything a withdrawal takes from the world besides exchange and store; tests and the simulator give their own.

    ``now_ms`` is wall-clock UTC: a monotonic clock stands still in a suspended machine, and a signature does not.
    ``jitter`` returns a number from 0 to 1, ``log`` takes one line.
    """

    now_ms: Callable[[], int]
    sleep_s: Callable[[float], None]
    new_id: Callable[[], str]
    jitter: Callable[[], float]
    log: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Policy:
    """The numbers of the protocol (docs/exactly-once.md): what is assumed of clocks, lists and keys."""

    key_trust_ms: int = 9 * 60_000
    skew_ms: int = 5_000
    list_lag_ms: int = 30_000
    posts_per_try: int = 2
    try_budget_ms: int = 180_000
    longest_throttle_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Look:
    """The pending list as of ``server_ms``, a lower bound of the exchange's clock; begun at ``began_ms`` by ours."""

    began_ms: int
    server_ms: int
    behind_ms: int
    pending: Sequence[PendingWithdrawal]


class Observer:
    """Reads the lists on behalf of one try, a few times where a GET fails, and waits on the exchange's clock."""

    def __init__(self, exchange: Exchange, policy: Policy, around: Surroundings) -> None:
        self._exchange = exchange
        self._policy = policy
        self._around = around

    def look(self) -> Look:
        """
        Read the pending list and the clock that goes with it.

        :raises ConfigurationError: if the worker's clock is off by more than the policy allows; nothing is re-dated.
        :raises Unreachable: if the list cannot be read, or the answer carries no usable ``Date``.
        :raises Throttled: if the quota is used up.
        """
        for _ in range(_READ_TRIES):
            began_ms = self._around.now_ms()
            listing = self._patiently(self._exchange.pending_withdrawals)
            ended_ms = self._around.now_ms()
            if listing.server_time_ms is None:
                raise Unreachable("Pacifica's answer carries no Date, so its clock is not known.")
            # The exchange's clock minus ours lies between these two: Date has a resolution of a second.
            least = listing.server_time_ms - ended_ms
            most = listing.server_time_ms + _DATE_RESOLUTION_MS - began_ms
            self._refuse_skew(least, most)
            tolerated = self._policy.skew_ms + _DATE_RESOLUTION_MS
            if began_ms <= ended_ms and -tolerated <= least and most <= tolerated:
                return Look(began_ms, listing.server_time_ms, least, listing.rows)
        raise Unreachable("Pacifica answered too slowly to compare its clock with this worker's.")

    def wait_until_past(self, server_ms: int, look: Look) -> None:
        """Sleep until the exchange's clock must be past ``server_ms``; the next look confirms it."""
        left_ms = server_ms - (self._around.now_ms() + look.behind_ms) + _DATE_RESOLUTION_MS
        self._around.sleep_s(max(left_ms, 250) / 1000)

    def reading(self, record: Record) -> Reading:
        """Read pending, then history as far back as the record needs it, then the fee."""
        return self._reading(record, self._patiently(self._exchange.pending_withdrawals).rows)

    def settled_readings(self, record: Record) -> list[Reading]:
        """
        Read both lists twice, the list-lag bound apart, the first time after the last signature has expired.

        This is what an outcome may be concluded from.
        """
        last_ms = max((attempt.expires_ms for attempt in record.sent_attempts), default=0)
        look = self.look()
        for _ in range(_READ_TRIES):
            if look.server_ms <= last_ms:
                self.wait_until_past(last_ms, look)
                look = self.look()
        if look.server_ms <= last_ms:
            raise Unreachable("Pacifica's clock does not move on past the last signature.")
        first = self._reading(record, look.pending)
        self._around.sleep_s(self._policy.list_lag_ms / 1000)
        return [first, self.reading(record)]

    def _reading(self, record: Record, pending: Sequence[PendingWithdrawal]) -> Reading:
        since_ms = history_since_ms(record, self._policy.skew_ms)
        history = self._patiently(lambda: self._exchange.withdrawal_history(since_ms))
        fee = self._patiently(lambda: self._exchange.bridge_parameters(record.order.symbol))
        return Reading(pending, history.rows, fee.withdrawal_fee)

    def _patiently(self, read: Callable[[], T]) -> T:
        """Repeat a failing read twice, 1 s and 2 s later; not one that was throttled."""
        for repeat in range(_READ_TRIES - 1):
            try:
                return read()
            except Unreachable as error:
                self._around.log(f"a read failed and is repeated: {error}")
                self._around.sleep_s(2**repeat)
        return read()

    def _refuse_skew(self, least: int, most: int) -> None:
        if least > self._policy.skew_ms or most < -self._policy.skew_ms:
            seconds = (least + most) / 2000
            raise ConfigurationError(
                f"This worker's clock is {abs(seconds):.1f} s {'behind' if seconds > 0 else 'ahead of'} Pacifica's; "
                f"at most {self._policy.skew_ms / 1000:g} s are safe, since a signature's life is counted in them. "
                "Nothing was sent by this try. Synchronise the worker's clock (NTP)."
            )
