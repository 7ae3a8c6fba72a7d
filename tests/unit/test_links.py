"""The links from a task: its transaction once there is one, Pacifica's page of the account, and the ledger."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from airflow.sdk import DAG

from pacifica_provider.get_provider_info import get_provider_info
from pacifica_provider.hooks import ledgers
from pacifica_provider.links import PortfolioLink, RecordsLink, RunbookLink, SolanaTransactionLink
from pacifica_provider.operators.withdraw import WithdrawSpotAssetOperator
from pacifica_provider.sensors.withdrawal import WithdrawalBatchSensor

if TYPE_CHECKING:
    from tests.support.task_context import TaskContext


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


def test_a_task_that_withdrew_and_one_that_waited_know_their_transaction(task_context: TaskContext) -> None:
    """Neither asks anybody for it: it is what they returned."""
    task_context.sandbox.control("POST", "/options", {"settle_after_s": 0})
    withdraw = WithdrawSpotAssetOperator(
        task_id="withdraw", symbol="SOL", amount="1", wait_for_settlement=True, poll_interval=0.05
    )
    receipt = withdraw.execute(task_context.context())
    sensor = WithdrawalBatchSensor(task_id="wait", symbol="SOL", batch_nonce=receipt["batch_nonce"], amount="1")
    row = sensor.execute(task_context.context())
    resumed = WithdrawalBatchSensor(task_id="wait", symbol="SOL", batch_nonce=receipt["batch_nonce"])
    resumed.execute_complete(task_context.context(), {"status": "settled", "row": row})

    assert withdraw.returned == receipt
    assert list(withdraw.operator_extra_links) == []  # Airflow makes no round trip for what leads nowhere
    assert sensor.returned == resumed.returned == row
    assert row["transaction_id"] == receipt["transaction_id"]
    assert [link(each) for each in (withdraw, sensor, resumed)] == [""] * 3  # the sandbox is on no chain


def test_a_connection_that_is_gone_when_a_sensor_resumes_costs_the_link_alone(task_context: TaskContext) -> None:
    """What it waited for has come."""
    row = {"symbol": "SOL", "batch_nonce": 7, "amount": "1", "transaction_id": "5x", "created_at_ms": 1716200000000}
    sensor = WithdrawalBatchSensor(task_id="wait", symbol="SOL", batch_nonce=7, pacifica_conn_id="nowhere")

    assert sensor.execute_complete(task_context.context(), {"status": "settled", "row": row}) == row
    assert link(sensor) == ""


def test_airflow_is_told_of_it_by_provider_info_and_by_both_operators() -> None:
    """A mapped one has it too."""
    with DAG("pay", schedule=None):
        mapped = WithdrawSpotAssetOperator.partial(task_id="a", symbol="SOL").expand_kwargs(
            [{"amount": "1", "withdrawal_ref": "a"}]
        )

    links = [mapped.operator_extra_links, WithdrawalBatchSensor.operator_extra_links]
    names = ["Transaction on Solana", "Pacifica portfolio", "Withdrawals on record", "Runbook"]
    known = (f"{type(each).__module__}.{type(each).__qualname__}" for each in mapped.operator_extra_links)
    assert [[each.name for each in some] for some in links] == [names, names[:2]]
    assert get_provider_info()["extra-links"] == [*known]


def test_a_mapped_task_that_ended_before_it_was_made_has_no_link() -> None:
    """Airflow asks the links of what it has then: the operator with nothing filled in (seen where a worker died)."""
    with DAG("pay", schedule=None):
        mapped = WithdrawSpotAssetOperator.partial(task_id="a", symbol="SOL").expand_kwargs([])

    links = (SolanaTransactionLink(), PortfolioLink())
    assert [each.get_link(getattr(mapped, "operator", mapped), ti_key=cast("Any", None)) for each in links] == ["", ""]


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        ("mainnet", "https://app.pacifica.fi/portfolio"),
        ("testnet", "https://test-app.pacifica.fi/portfolio"),
        ("custom", ""),
    ],
)
def test_the_portfolio_is_that_of_the_connection_s_environment(environment: str, address: str) -> None:
    """A sandbox has no page."""
    failed = SimpleNamespace(returned=None, hook=SimpleNamespace(settings=SimpleNamespace(environment=environment)))
    paid = SimpleNamespace(returned={"environment": environment})

    assert [PortfolioLink().get_link(task, ti_key=cast("Any", None)) for task in (failed, paid)] == [address] * 2


@pytest.mark.parametrize(
    ("base_url", "begins"), [("https://airflow.example/team/", "https://airflow.example/team"), ("", "")]
)
@pytest.mark.parametrize(
    ("asset_state", "place"), [(True, "assets?name_pattern=pacifica_withdrawals"), (False, "variables")]
)
def test_records_and_runbook_are_on_airflow_s_own_pages(
    monkeypatch: pytest.MonkeyPatch, base_url: str, begins: str, *, asset_state: bool, place: str
) -> None:
    """Under whatever address Airflow is told that it has, told none, beside the task's page; Variables before 3.3."""
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base_url)
    monkeypatch.setattr(ledgers, "keeps_asset_state", lambda: asset_state)
    shown = [each.get_link(None, ti_key=cast("Any", None)) for each in (RecordsLink(), RunbookLink())]

    assert shown == [f"{begins}/{place}", f"{begins}/pacifica/docs/unknown.md"]
