"""The sensor that waits until a withdrawal is on chain."""

from __future__ import annotations

import time
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from pacifica_provider.exceptions import ConfigurationError, Retryable, SettlementTimeout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context

    from pacifica_provider.hooks.pacifica import PacificaHook
    from pacifica_provider.withdrawals.tracking import Tracked

NOT_SEEN_GRACE_S = 30 * 60


class WithdrawalBatchSensor(BaseSensorOperator):
    """
    Wait until a withdrawal is on chain, and return its row of Pacifica's history.

    It is done only when the history holds a row of this symbol, nonce and amount with a transaction id. Absent from
    the pending list is not done. A failing look is no failing sensor: it looks again at the next interval until
    ``timeout``, and the timeout says what was last seen. A connection without a private key is enough.

    With ``mode="poke"`` or ``deferrable=True`` a withdrawal that is in neither list for 30 minutes fails the sensor,
    since a nonce that Pacifica does not know never settles.

    :param symbol: spot asset of the withdrawal. (templated)
    :param batch_nonce: the receipt's ``batch_nonce``; digits as text are fine. (templated)
    :param amount: the receipt's ``requested_amount``. A batch may hold several withdrawals of one account, so give it
        wherever it is known. (templated)
    :param pacifica_conn_id: the connection, of type ``pacifica``.
    :param deferrable: wait in the triggerer, without a worker slot.
    :return: ``symbol, batch_nonce, amount, transaction_id, created_at_ms``; the amount as the history shows it.
    """

    template_fields: Sequence[str] = ("symbol", "batch_nonce", "amount")
    ui_color = "#d9eef7"

    def __init__(
        self,
        *,
        symbol: str,
        batch_nonce: int | str,
        amount: str | None = None,
        pacifica_conn_id: str = "pacifica_default",
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.symbol = symbol
        self.batch_nonce = batch_nonce
        self.amount = amount
        self.pacifica_conn_id = pacifica_conn_id
        self.deferrable = deferrable
        self._last_seen = "not looked yet"
        self._not_seen_since: float | None = None

    @cached_property
    def hook(self) -> PacificaHook:
        """The hook of this sensor's connection."""
        from pacifica_provider.hooks.pacifica import PacificaHook

        return PacificaHook(self.pacifica_conn_id)

    def execute(self, context: Context) -> Any:
        """Look once, then wait as the mode says."""
        end_time = time.time() + self.timeout
        try:
            if not self.deferrable:
                return super().execute(context)
            found = self.poke(context)
        except SensorSettlementTimeout:
            raise
        except AirflowSensorTimeout as error:
            raise SensorSettlementTimeout(self._timeout_text(str(error))) from None
        except AirflowSkipException as error:
            raise AirflowSkipException(self._timeout_text(str(error))) from None
        if found.is_done:
            return found.xcom_value
        return self._defer(self._tracked(), end_time)

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once; what the network did is no reason to fail, what cannot be right is."""
        from pacifica_provider.triggers.events import row_json

        tracked = self._tracked()
        try:
            sighting = self.hook.sight(tracked)
        except Retryable as error:
            self._last_seen = str(error)
            self.log.warning("%s: could not look, will look again: %s", tracked, error)
            return PokeReturnValue(is_done=False)
        self._last_seen = str(sighting)
        self.log.info("%s: %s", tracked, sighting)
        if sighting.row is not None:
            return PokeReturnValue(is_done=True, xcom_value=row_json(sighting.row))
        self._check_grace(tracked, seen=sighting.state != "NOT_SEEN" or sighting.unproven)
        return PokeReturnValue(is_done=False)

    def execute_complete(self, context: Context, event: Mapping[str, Any] | None) -> dict[str, Any]:
        """Finish after the deferral, by the event alone."""
        from pacifica_provider.triggers.events import settled_row

        try:
            return settled_row(event)
        except SettlementTimeout as error:
            raise SensorSettlementTimeout(str(error)) from None

    def _tracked(self) -> Tracked:
        from pacifica_provider.api.models import parse_batch_nonce
        from pacifica_provider.hooks.failures import failing_without_retry
        from pacifica_provider.withdrawals.identity import Order
        from pacifica_provider.withdrawals.tracking import Tracked

        with failing_without_retry():
            order = Order.parse(self.symbol, "1" if self.amount is None else self.amount)
            try:
                nonce = parse_batch_nonce(self.batch_nonce)
            except ValueError as error:
                raise ConfigurationError(
                    f"batch_nonce must be the receipt's non-negative integer: {error}. Nothing was looked up. If it "
                    "is a template, the withdrawing task returned no receipt."
                ) from None
            return Tracked(order.symbol, nonce, None if self.amount is None else order.amount)

    def _check_grace(self, tracked: Tracked, *, seen: bool) -> None:
        now = time.monotonic()
        self._not_seen_since = None if seen else (self._not_seen_since or now)
        if self._not_seen_since is not None and now - self._not_seen_since > NOT_SEEN_GRACE_S:
            raise SensorSettlementTimeout(not_seen_text(tracked))

    def _defer(self, tracked: Tracked, end_time: float) -> None:
        from pacifica_provider.api.amounts import canonical_text
        from pacifica_provider.triggers.withdrawal import WithdrawalBatchTrigger

        self.defer(
            trigger=WithdrawalBatchTrigger(
                pacifica_conn_id=self.pacifica_conn_id,
                symbol=tracked.symbol,
                batch_nonce=tracked.batch_nonce,
                amount=None if tracked.amount is None else canonical_text(tracked.amount),
                end_time=end_time,
                poll_interval=self.poke_interval,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout + 2 * self.poke_interval + 60),
        )

    def _timeout_text(self, text: str) -> str:
        return (
            f"{text} Last seen: {self._last_seen}. The withdrawal itself has not failed, and nothing makes it "
            "again; clear this sensor to wait on."
        )


class SensorSettlementTimeout(SettlementTimeout, AirflowSensorTimeout):
    """The sensor's time is up: a ``SettlementTimeout`` that Airflow's sensor options understand."""


def not_seen_text(tracked: Tracked) -> str:
    """Say that a withdrawal was in neither list for longer than a batch in transit can explain."""
    return (
        f"{tracked} has been in neither of Pacifica's lists for {NOT_SEEN_GRACE_S // 60} minutes. Whether it was "
        "ever accepted shows the withdrawing task's receipt; check symbol, batch_nonce and amount against it. "
        "Nothing was sent."
    )
