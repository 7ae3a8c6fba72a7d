"""What a task asks to withdraw, and the order that comes of it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException

from pacifica_provider.api.amounts import canonical_text
from pacifica_provider.exceptions import ConfigurationError, Retryable, WithdrawalRejected
from pacifica_provider.withdrawals.identity import Order, tagged
from pacifica_provider.withdrawals.sweep import ALL, Available, Sweep, refusal

if TYPE_CHECKING:
    from pacifica_provider.api.client import PacificaClient
    from pacifica_provider.api.models import BridgeParameters


@dataclass(frozen=True, slots=True)
class WithdrawalRequest:
    """
    The arguments of one withdrawal, as a task gave them.

    ``amount`` may be ``"all"``; ``reserve`` and ``minimum`` belong to that alone. ``one_reference``: the task withdraws
    under one reference for ever, as the operator does. ``approvals``: the tasks in which a person must have approved
    the order that was prepared.
    """

    symbol: object
    amount: object
    withdrawal_ref: str | None = None
    reserve: object = None
    minimum: object = None
    allow_backfill: bool = False
    tag_amount: bool = False
    preflight: bool = False
    one_reference: bool = False
    approvals: tuple[str, ...] = ()

    @classmethod
    def of_task(cls, task: Any, *, preflight: bool, approvals: tuple[str, ...] = ()) -> WithdrawalRequest:
        """Return what an operator asks for, its templates rendered."""
        return cls(
            task.symbol,
            task.amount,
            task.withdrawal_ref,
            reserve=task.reserve,
            minimum=task.minimum,
            allow_backfill=task.allow_backfill,
            tag_amount=task.tag_amount,
            preflight=preflight,
            one_reference=True,
            approvals=approvals,
        )

    @property
    def sweeps(self) -> bool:
        """Whether the amount is what there is when the record is begun."""
        return self.amount == ALL and not self.approvals

    def wanted(self) -> Order | Sweep:
        """
        Return what is asked for.

        :raises ConfigurationError: if an argument cannot be what it is.
        """
        if self.amount == ALL:
            return Sweep.parse(self.symbol, self.reserve, self.minimum)
        if (self.reserve, self.minimum) != (None, None):
            raise ConfigurationError("reserve and minimum can only be given with amount='all'. Nothing was sent.")
        return Order.parse(self.symbol, self.amount)


class OrderSettler:
    """
    Settles the order of one try, by the record if there is one, else by what may be withdrawn now.

    :param wanted: what is asked for.
    :param key: the idempotency key, whose tag is taken off the amount if that is asked for.
    :param exchange: what may be withdrawn is read from it.
    """

    def __init__(
        self, wanted: Order | Sweep, request: WithdrawalRequest, *, key: str, exchange: PacificaClient
    ) -> None:
        self._wanted = wanted
        self._request = request
        self._key = key
        self._exchange = exchange
        self._order: Order | None = None
        self.prepared: Order | None = None
        """What was prepared, for a withdrawal that needs an approval."""

    @property
    def reads(self) -> bool:
        """Whether what may be withdrawn is read before there is an order."""
        return self._request.sweeps or self._request.preflight

    @property
    def symbol(self) -> str:
        """The asset that is asked for."""
        return self._wanted.symbol

    @property
    def settled(self) -> Order:
        """The order, once it is settled."""
        if self._order is None:
            raise RuntimeError("the order has not been settled yet")
        return self._order

    def __call__(self, recorded: Order | None, /) -> Order:
        """Return the order; nothing is read where the record or the task says it."""
        wanted = self._wanted
        known = recorded or self.prepared
        if isinstance(wanted, Sweep):
            self._order = self._swept(wanted) if known is None else Order(wanted.symbol, known.amount)
        else:
            self._order = self._tagged(wanted)
            if recorded is None and self._request.preflight:
                with suppress(Retryable, ConfigurationError):  # what cannot be read refuses nothing
                    self._refuse(self._order, self._available(wanted.symbol))
        return self._order

    def _swept(self, sweep: Sweep) -> Order:
        available = self._available(sweep.symbol)
        order = sweep.order(available)
        if order is None:
            there = available.of(sweep.symbol)
            amount = "nothing" if there is None else f"{canonical_text(there)} {sweep.symbol}"
            raise AirflowSkipException(
                f"Of {sweep}: {amount} may be withdrawn now, which is too little. Nothing was sent by this try."
            )
        order = self._tagged(order)
        self._refuse(order, available)
        return order

    def _tagged(self, order: Order) -> Order:
        return tagged(order, self._key) if self._request.tag_amount else order

    def _available(self, symbol: str) -> Available:
        exchange = self._exchange
        try:
            balances, assets = exchange.spot_balances(), exchange.spot_assets()
            bridge = None if any(row.symbol == symbol and not row.active for row in assets) else self._bridge(symbol)
        except ConfigurationError as error:
            raise ConfigurationError(f"{error} Nothing was sent by this try.") from None
        return Available(balances, assets, bridge)

    def _bridge(self, symbol: str) -> BridgeParameters | None:
        """Read the asset's bridge; it has none if exactly that is not found (documented)."""
        try:
            return self._exchange.bridge_parameters(symbol)
        except ConfigurationError as error:
            if error.status == 404:
                return None
            raise

    def _refuse(self, order: Order, available: Available) -> None:
        why = refusal(order, available)
        if why is not None:
            raise WithdrawalRejected(f"Pacifica would refuse to withdraw {order}: {why}. Nothing was sent by this try.")
