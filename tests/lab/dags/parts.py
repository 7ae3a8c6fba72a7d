"""The real operator and sensor, told by their run's conf which connection to use and what is to befall them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pacifica_provider.operators.withdraw import WithdrawSpotAssetOperator
from pacifica_provider.sensors.withdrawal import WithdrawalBatchSensor
from tests.lab.dags import accidents

if TYPE_CHECKING:
    from airflow.sdk import Context

    from pacifica_provider.hooks.receipts import Receipt

RETRYING = {"retries": 3, "retry_delay": timedelta(seconds=1)}
ORDER: dict[str, Any] = {"symbol": "{{ dag_run.conf.symbol }}", "amount": "{{ dag_run.conf.amount }}"}


def orders(context: Any) -> dict[str, Any]:
    """Return what the run's conf says."""
    return dict(context["dag_run"].conf)


def receipt_of(paid: WithdrawSpotAssetOperator) -> dict[str, Any]:
    """Return what a sensor is told of a withdrawal, field by field."""
    fields = {"symbol": "symbol", "batch_nonce": "batch_nonce", "amount": "requested_amount"}
    return {name: paid.output[field] for name, field in fields.items()}


class Pay(WithdrawSpotAssetOperator):
    """The operator; its connection is in the conf, by its reference or one for all, since that is no template."""

    def pre_execute(self, context: Any) -> None:
        """Limit the first try's time, if the conf says so."""
        limit = orders(context).get("first_try_s")
        if limit is not None and accidents.this_try(context) == 1:
            self.execution_timeout = timedelta(seconds=limit)

    def execute(self, context: Context) -> Receipt:
        """Plan the accident, then withdraw."""
        conf = orders(context)
        self.pacifica_conn_id = conf.get("conns", {}).get(self.withdrawal_ref, conf["conn"])
        accidents.plan(context)
        return super().execute(context)


class Wait(WithdrawalBatchSensor):
    """The sensor; its connection is in the conf."""

    def execute(self, context: Context) -> Any:
        """Wait."""
        self.pacifica_conn_id = orders(context)["conn"]
        return super().execute(context)
