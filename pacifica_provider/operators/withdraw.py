"""The operator that withdraws a spot asset once for a DAG run."""

from __future__ import annotations

import time
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator, conf

from pacifica_provider.exceptions import ConfigurationError, Retryable, SettlementTimeout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context

    from pacifica_provider.hooks.pacifica import PacificaHook

LONGEST_WAIT = timedelta(days=366)


class WithdrawSpotAssetOperator(BaseOperator):
    """
    Withdraw a spot asset from Pacifica, at most once for a DAG run, and return the receipt.

    The idempotency key derives from account, DAG, run, task and ``withdrawal_ref``, never from the try, the amount
    or a time. So a retry, a kill, a clear or a backfill of the same run recalls the first withdrawal instead of
    making a second:

        a run of 2026-11-23 posts 1 SOL and its worker dies before the answer arrives; the retry looks at Pacifica's
        lists, posts again under the same key, is answered 409, finds the row of the first request and returns its
        receipt.

    Where the outcome cannot be shown the task fails with ``OutcomeUnknown``, without retry, and waits for a person;
    the error says what to look at. A cleared task whose withdrawal was accepted returns the receipt and sends nothing.

    :param symbol: spot asset as Pacifica writes it, case sensitive. (templated)
    :param amount: gross amount as decimal text, such as ``"1.5"``; the fee is taken out of it. (templated)
    :param withdrawal_ref: tells several withdrawals of one task apart; required when the task is mapped, unique in
        the run. (templated)
    :param pacifica_conn_id: the connection, of type ``pacifica``.
    :param wait_for_settlement: wait until the withdrawal is on chain, and add ``transaction_id`` and
        ``settled_at_ms`` to the receipt.
    :param deferrable: wait in the triggerer, without a worker slot.
    :param poll_interval: seconds between looks while waiting.
    :param settlement_timeout: how long one try waits; then ``SettlementTimeout``, and a retry waits again without
        posting.
    :param allow_backfill: let a run that a backfill created pay.
    :return: the receipt: ``account, environment, symbol, batch_nonce, requested_amount, fee_amount, net_amount,
        idempotency_key, submitted_at_ms, adopted``; amounts as decimal text. ``fee_amount`` and ``net_amount`` are
        ``None`` for an adopted withdrawal whose row does not show them.
    """

    template_fields: Sequence[str] = ("symbol", "amount", "withdrawal_ref")
    ui_color = "#d9eef7"

    def __init__(
        self,
        *,
        symbol: str,
        amount: str,
        withdrawal_ref: str | None = None,
        pacifica_conn_id: str = "pacifica_default",
        wait_for_settlement: bool = False,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float = 30,
        settlement_timeout: timedelta = timedelta(hours=24),
        allow_backfill: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.symbol = symbol
        self.amount = amount
        self.withdrawal_ref = withdrawal_ref
        self.pacifica_conn_id = pacifica_conn_id
        self.wait_for_settlement = wait_for_settlement
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.settlement_timeout = settlement_timeout
        self.allow_backfill = allow_backfill

    @cached_property
    def hook(self) -> PacificaHook:
        """The hook of this operator's connection."""
        from pacifica_provider.hooks.pacifica import PacificaHook

        return PacificaHook(self.pacifica_conn_id)

    def execute(self, context: Context) -> dict[str, Any]:
        """Withdraw, or recall the withdrawal of this run; then wait for it if asked to."""
        self._check_waiting()
        receipt = self.hook.withdraw_spot_asset(
            self.symbol,
            self.amount,
            context=context,
            withdrawal_ref=self.withdrawal_ref,
            allow_backfill=self.allow_backfill,
        )
        if not self.wait_for_settlement:
            return self._published(context, receipt)
        end_time = time.time() + self.settlement_timeout.total_seconds()
        if self.deferrable:
            self._defer(receipt, end_time)
        return self._published(context, self._wait(receipt, end_time))

    def execute_complete(
        self, context: Context, event: Mapping[str, Any] | None, receipt: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """
        Finish after the deferral, by the event and the receipt alone.

        Templates are rendered again on resume, maybe to something else.
        """
        from pacifica_provider.triggers.events import settled_row

        row = settled_row(event)
        if receipt is None:  # dag.test() loses what was deferred with
            receipt = self.hook.recorded_receipt(context, row["symbol"], row["batch_nonce"])
        return self._published(context, _settled(receipt, row))

    def on_kill(self) -> None:
        """Do nothing: a withdrawal cannot be recalled, and the next try settles what this one left."""
        self.log.warning(
            "Killed. A withdrawal that was sent cannot be recalled; the next try settles it, and pays once."
        )

    def _check_waiting(self) -> None:
        """Refuse what would only fail after the money has moved."""
        timeout: object = self.settlement_timeout
        interval: object = self.poll_interval
        fits = isinstance(timeout, timedelta) and timedelta(0) <= timeout <= LONGEST_WAIT
        fits = fits and isinstance(interval, (int, float)) and not isinstance(interval, bool)
        fits = fits and 0 < interval <= LONGEST_WAIT.total_seconds()  # type: ignore[operator]  # just seen to be a number
        if self.wait_for_settlement and not fits:
            from pacifica_provider.hooks.failures import failing_without_retry

            with failing_without_retry():
                raise ConfigurationError(
                    f"settlement_timeout must be a timedelta of at most {LONGEST_WAIT.days} days, and poll_interval a "
                    "positive number of seconds. Nothing was sent by this try."
                )

    def _published(self, context: Context, receipt: dict[str, Any]) -> dict[str, Any]:
        """Put the receipt into the event of every asset among the outlets; an alias names none, so it gets nothing."""
        outlet_events = context.get("outlet_events")
        if self.outlets and outlet_events is not None:
            from airflow.providers.common.compat.sdk import Asset

            for outlet in self.outlets:
                if isinstance(outlet, Asset):
                    outlet_events[outlet].extra.update(receipt)
        return receipt

    def _defer(self, receipt: dict[str, Any], end_time: float) -> None:
        from pacifica_provider.triggers.withdrawal import WithdrawalBatchTrigger

        self.defer(
            trigger=WithdrawalBatchTrigger(
                pacifica_conn_id=self.pacifica_conn_id,
                symbol=receipt["symbol"],
                batch_nonce=receipt["batch_nonce"],
                amount=receipt["requested_amount"],
                end_time=end_time,
                poll_interval=self.poll_interval,
                fee_amount=receipt["fee_amount"],
                submitted_at_ms=receipt["submitted_at_ms"],
            ),
            method_name="execute_complete",
            kwargs={"receipt": receipt},
            timeout=self.settlement_timeout + timedelta(seconds=2 * self.poll_interval + 60),
        )

    def _wait(self, receipt: dict[str, Any], end_time: float) -> dict[str, Any]:
        from pacifica_provider.api.amounts import parse_wire_amount
        from pacifica_provider.triggers.events import row_json
        from pacifica_provider.withdrawals.tracking import Tracked

        tracked = Tracked(receipt["symbol"], receipt["batch_nonce"], parse_wire_amount(receipt["requested_amount"]))
        fee = None if receipt["fee_amount"] is None else parse_wire_amount(receipt["fee_amount"])
        seen = "not looked yet"
        while True:
            try:
                sighting = self.hook.sight(tracked, fee)
                if sighting.row is not None:
                    return _settled(receipt, row_json(sighting.row))
                seen = str(sighting)
            except (Retryable, ConfigurationError) as error:  # whatever a look comes to, the withdrawal was accepted
                seen = str(error)
            self.log.info("%s: %s", tracked, seen)
            if time.time() >= end_time:
                raise SettlementTimeout(
                    f"The withdrawal of {tracked} WAS accepted but is not on chain after {self.settlement_timeout}; "
                    f"last seen: {seen}. It has not failed and must not be made again: a retry, or clearing this "
                    "task, waits on and sends "
                    "nothing.",
                    idempotency_key=receipt["idempotency_key"],
                    symbol=receipt["symbol"],
                    amount=receipt["requested_amount"],
                    batch_nonces=(receipt["batch_nonce"],),
                    submitted_at_ms=(receipt["submitted_at_ms"],),
                )
            time.sleep(max(0.0, min(self.poll_interval, end_time - time.time())))


def _settled(receipt: dict[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    return {**receipt, "transaction_id": row["transaction_id"], "settled_at_ms": row["created_at_ms"]}
