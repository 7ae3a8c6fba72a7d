"""Sensor, trigger and operator as a DAG would make them, waiting for 1 SOL in batch 42 at a test's pace."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pacifica_provider.operators.withdraw import WithdrawSpotAssetOperator
from pacifica_provider.sensors.withdrawal import WithdrawalBatchSensor
from pacifica_provider.triggers.withdrawal import WithdrawalBatchTrigger

if TYPE_CHECKING:
    from tests.faults.airflow_bench import TaskBench

NO_CONTEXT: Any = {"ti": None}


def sensor(**fields: Any) -> WithdrawalBatchSensor:
    """Make the sensor."""
    given = {"task_id": "settled", "symbol": "SOL", "batch_nonce": 42, "amount": "1", "poke_interval": 0.05}
    return WithdrawalBatchSensor(**{**given, **fields})


def poke(one: WithdrawalBatchSensor) -> Any:
    """Let the sensor look once; return the row it is done with, ``None`` if it is not."""
    looked = one.poke(NO_CONTEXT)
    return looked.xcom_value if looked.is_done else None


def trigger(**fields: Any) -> WithdrawalBatchTrigger:
    """Make the trigger."""
    given: dict[str, Any] = {"pacifica_conn_id": "pacifica_default", "symbol": "SOL", "batch_nonce": 42, "amount": "1"}
    return WithdrawalBatchTrigger(**{**given, "end_time": time.time() + 20, "poll_interval": 0.02, **fields})


async def first_event(one: WithdrawalBatchTrigger) -> Any:
    """Run the trigger to its event, and return what that carries."""
    async for event in one.run():
        return event.payload
    return None


def operator(**fields: Any) -> WithdrawSpotAssetOperator:
    """Make the operator, waiting for the settlement."""
    given: dict[str, Any] = {"task_id": "withdraw", "symbol": "SOL", "amount": "1", "wait_for_settlement": True}
    return WithdrawSpotAssetOperator(**{**given, "poll_interval": 0.05, **fields})


def settle(task: TaskBench) -> str:
    """Settle the one pending withdrawal, and return its transaction id."""
    (row,) = task.harness.sandbox.control("POST", "/settle")["settled"]
    return str(row["transaction_id"])


def paid_once(task: TaskBench) -> bool:
    """Say whether nothing was sent beside the one withdrawal."""
    return task.posts() == len(task.debits()) == 1
