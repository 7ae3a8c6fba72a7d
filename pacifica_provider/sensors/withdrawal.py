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

from pacifica_provider.exceptions import ConfigurationError, SettlementTimeout
from pacifica_provider.links import PortfolioLink, SolanaTransactionLink

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context, XComArg

    from pacifica_provider.hooks.pacifica import PacificaHook
    from pacifica_provider.withdrawals.settlement import Awaited, Waiting


_WAIT_ON = (
    "Nothing was sent, and a withdrawal that was accepted has not failed: do not make it again. Airflow does not retry "
    "a sensor's timeout; clear this task to wait on. Whether it was accepted shows the withdrawing task's receipt."
)
_CHECK = (
    "Check symbol, batch_nonce and amount against the withdrawing task's receipt, which shows whether it was accepted "
    "at all. Nothing was sent."
)


_ARGUMENTS = ("pacifica_conn_id", "deferrable", "symbol", "batch_nonce", "amount")


class WithdrawalBatchSensor(BaseSensorOperator):
    """
    Wait until a withdrawal is on chain, and return its row of Pacifica's history.

    It is done only when the history holds a row of this symbol, nonce and amount with a transaction id. Absent from
    the pending list is not done. Where the connection has a Solana RPC, that transaction must be finalized there too. A
    failing look is no failing sensor, nor is a connection that Pacifica refuses: it looks again at the next interval
    until ``timeout``, and the timeout says what was last seen. A connection without a private key is enough.

    With ``mode="poke"`` or ``deferrable=True`` a withdrawal that is in neither list for 30 minutes fails the sensor,
    since a nonce that Pacifica does not know never settles. ``soft_fail`` skips for the timeout alone. Airflow never
    retries a sensor's timeout; cleared, the sensor waits on.

    What can be known when the DAG is parsed is refused then, with ``ConfigurationError``.

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
    operator_extra_links = (SolanaTransactionLink(), PortfolioLink())
    returned: dict[str, Any] | None = None
    """The settled row once there is one, for the link."""

    def __init__(
        self,
        *,
        symbol: str | XComArg,
        batch_nonce: int | str | XComArg,
        amount: str | XComArg | None = None,
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
        self._waiting: Waiting | None = None
        self._not_rendered: ConfigurationError | None = None
        self._refuse_wrong()

    @cached_property
    def hook(self) -> PacificaHook:
        """The hook of this sensor's connection."""
        from pacifica_provider.hooks.pacifica import PacificaHook

        return PacificaHook(self.pacifica_conn_id)

    def execute(self, context: Context) -> Any:
        """Look once, then wait as the mode says."""
        from pacifica_provider.hooks.failures import failing_without_retry

        if self._not_rendered is not None:
            raise self._not_rendered
        end_time = time.time() + self.timeout
        awaited = self._awaited()
        with failing_without_retry():
            _ = self.hook.settings  # what cannot be used is said at once
        try:
            if not self.deferrable:
                return super().execute(context)
            found = self.poke(context)
        except AirflowSensorTimeout as error:
            raise self._failed(SensorSettlementTimeout, f"{error} {self._time_is_up(awaited)}") from None
        except AirflowSkipException as error:
            raise AirflowSkipException(f"{error} {self._time_is_up(awaited)}") from None
        if found.is_done:
            return found.xcom_value
        return self._defer(awaited, end_time)

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once; neither the network nor the exchange can fail it, only the grace of what is in neither list."""
        from pacifica_provider.triggers.events import NotListed, settled_json
        from pacifica_provider.withdrawals.settlement import Expired, Settled, Waiting, log_level

        awaited = self._awaited()
        seen = self.hook.look_for(awaited, self._waiting or Waiting())
        if isinstance(seen, Settled):
            self.log.info("%s: settled in transaction %s", awaited, seen.row.transaction_id)
            self.returned = settled_json(seen.row)
            return PokeReturnValue(is_done=True, xcom_value=self.returned)
        if isinstance(seen, Expired):
            raise self._failed(NotListed, f"{seen.text} {_CHECK}")
        self.log.log(log_level(seen), "%s: %s", awaited, seen.last_seen)
        self._waiting = seen
        return PokeReturnValue(is_done=False)

    def execute_complete(self, context: Context, event: Mapping[str, Any] | None) -> dict[str, Any]:
        """Finish after the deferral, by the event alone."""
        from pacifica_provider.triggers.events import NotListed, settled_row

        try:
            self.returned = settled_row(event)
        except NotListed as error:
            raise self._failed(NotListed, f"{error} {_CHECK}") from None
        except SettlementTimeout as error:
            raise self._failed(SensorSettlementTimeout, f"{error} {_WAIT_ON}") from None
        return self.returned

    def _refuse_wrong(self, *, rendered: bool = False) -> None:
        """Refuse what is known to be wrong of the arguments; once they are rendered, a template is wrong too."""
        from pacifica_provider.hooks.arguments import refuse_wrong, templates_of

        given = {name: getattr(self, name) for name in _ARGUMENTS}
        if self.amount is None:
            del given["amount"]
        refuse_wrong(type(self).__name__, given, rendered=rendered, templates=templates_of(self))

    def _do_render_template_fields(self, parent: Any, template_fields: Iterable[str], *how: Any, **named: Any) -> None:
        """Render as Airflow does, field by field; ``execute`` raises what is wrong with one."""
        from pacifica_provider.hooks.arguments import render_each

        render = super()._do_render_template_fields
        owner = type(self).__name__
        error = render_each(owner, parent, template_fields, lambda name: render(parent, (name,), *how, **named))
        self._not_rendered = self._not_rendered or error

    def _awaited(self) -> Awaited:
        from pacifica_provider.api.models import parse_batch_nonce
        from pacifica_provider.withdrawals.identity import Order
        from pacifica_provider.withdrawals.settlement import Awaited

        self._refuse_wrong(rendered=True)
        order = Order.parse(self.symbol, "1" if self.amount is None else self.amount)
        return Awaited(order.symbol, parse_batch_nonce(self.batch_nonce), None if self.amount is None else order.amount)

    def _defer(self, awaited: Awaited, end_time: float) -> None:
        from pacifica_provider.api.amounts import canonical_text
        from pacifica_provider.triggers.withdrawal import WithdrawalBatchTrigger

        self.defer(
            trigger=WithdrawalBatchTrigger(
                pacifica_conn_id=self.pacifica_conn_id,
                symbol=awaited.symbol,
                batch_nonce=awaited.batch_nonce,
                amount=None if awaited.amount is None else canonical_text(awaited.amount),
                end_time=end_time,
                poll_interval=self.poke_interval,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout + 2 * self.poke_interval + 60),
        )

    def _time_is_up(self, awaited: Awaited) -> str:
        from pacifica_provider.withdrawals.settlement import Waiting, timed_out

        return f"{timed_out(awaited, self._waiting or Waiting()).text} {_WAIT_ON}"

    def _failed(self, kind: type[SettlementTimeout], text: str) -> SettlementTimeout:
        """Return the error with what is waited for."""
        nonce = str(self.batch_nonce)
        return kind(
            text,
            symbol=str(self.symbol),
            amount=None if self.amount is None else str(self.amount),
            batch_nonces=(int(nonce),) if nonce.isdecimal() else (),
        )


class SensorSettlementTimeout(SettlementTimeout, AirflowSensorTimeout):
    """The sensor's time is up: a ``SettlementTimeout`` that Airflow's sensor options understand."""
