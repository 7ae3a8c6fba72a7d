"""The link from a task to its transaction: there once it is known, where there is a chain to look at."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from airflow.sdk import DAG

from pacifica_provider.exceptions import ConfigurationError
from pacifica_provider.get_provider_info import get_provider_info
from pacifica_provider.links import SolanaTransactionLink
from pacifica_provider.operators.withdraw import WithdrawSpotAssetOperator
from pacifica_provider.sensors.withdrawal import WithdrawalBatchSensor

if TYPE_CHECKING:
    from tests.support.desk import Desk


def link(task: object) -> str:
    """Return what Airflow is given for a task that has ended."""
    return SolanaTransactionLink().get_link(task, ti_key=cast("Any", None))


@pytest.mark.parametrize(
    ("environment", "transaction_id", "address"),
    [
        ("mainnet", None, ""),
        ("custom", "5x", ""),
        ("mainnet", "5x", "https://explorer.solana.com/tx/5x"),
        ("testnet", "5x", "https://explorer.solana.com/tx/5x?cluster=devnet"),
    ],
)
def test_it_leads_to_the_transaction_on_the_environment_s_cluster(
    environment: str, transaction_id: str | None, address: str
) -> None:
    """A receipt names the environment, a row does not, so the connection is asked. Nothing to show is no link."""
    hook = SimpleNamespace(settings=SimpleNamespace(environment=environment))
    receipt = SimpleNamespace(returned={"environment": environment, "transaction_id": transaction_id})
    row = SimpleNamespace(returned={"transaction_id": transaction_id}, hook=hook)
    nothing = SimpleNamespace(returned=None)

    assert [link(each) for each in (receipt, row, nothing)] == [address, address, ""]


def test_a_task_that_withdrew_and_one_that_waited_know_their_transaction(desk: Desk) -> None:
    """Neither asks anybody for it: it is what they returned."""
    desk.sandbox.control("POST", "/options", {"settle_after_s": 0})
    withdraw = WithdrawSpotAssetOperator(
        task_id="withdraw", symbol="SOL", amount="1", wait_for_settlement=True, poll_interval=0.05
    )
    receipt = withdraw.execute(desk.context())
    sensor = WithdrawalBatchSensor(task_id="wait", symbol="SOL", batch_nonce=receipt["batch_nonce"], amount="1")
    row = sensor.execute(desk.context())
    resumed = WithdrawalBatchSensor(task_id="wait", symbol="SOL", batch_nonce=receipt["batch_nonce"])
    resumed.execute_complete(desk.context(), {"status": "settled", "row": row})

    assert withdraw.returned == receipt
    assert sensor.returned == resumed.returned == row
    assert row["transaction_id"] == receipt["transaction_id"]
    assert [link(each) for each in (withdraw, sensor, resumed)] == [""] * 3  # the sandbox is on no chain


def test_a_connection_that_is_gone_when_a_sensor_resumes_costs_the_link_alone(desk: Desk) -> None:
    """What it waited for has come."""
    row = {"symbol": "SOL", "batch_nonce": 7, "amount": "1", "transaction_id": "5x", "created_at_ms": 1716200000000}
    sensor = WithdrawalBatchSensor(task_id="wait", symbol="SOL", batch_nonce=7, pacifica_conn_id="nowhere")

    assert sensor.execute_complete(desk.context(), {"status": "settled", "row": row}) == row
    with pytest.raises(ConfigurationError, match="nowhere"):  # which Airflow logs
        link(sensor)


def test_airflow_is_told_of_it_by_provider_info_and_by_both_operators() -> None:
    """A mapped one has it too."""
    with DAG("pay", schedule=None):
        mapped = WithdrawSpotAssetOperator.partial(task_id="a", symbol="SOL").expand_kwargs(
            [{"amount": "1", "withdrawal_ref": "a"}]
        )

    links = [mapped.operator_extra_links, WithdrawalBatchSensor.operator_extra_links]
    assert [[each.name for each in some] for some in links] == [["Transaction on Solana"]] * 2
    assert get_provider_info()["extra-links"] == ["pacifica_provider.links.SolanaTransactionLink"]
