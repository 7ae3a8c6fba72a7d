"""Looks, events and deferrals that go wrong: F43, F49 and F79 to F81."""

from __future__ import annotations

import asyncio
import json
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from pacifica_provider.exceptions import ConfigurationError, Throttled, Unreachable
from pacifica_provider.hooks.pacifica import PacificaHook
from pacifica_provider.triggers.events import AlienEventError
from pacifica_provider.withdrawals.settlement import Awaited, Waiting
from tests.faults.waiting import (
    NO_CONTEXT,
    first_event,
    operator,
    paid_once,
    poke,
    sensor,
    settle,
    trigger,
)

if TYPE_CHECKING:
    from tests.faults.airflow_bench import TaskBench

BAD_READS = [
    {"kind": "status", "status": 429, "headers": {"retry-after": "1"}},
    {"kind": "status", "status": 503},
    {"kind": "status", "status": 504, "body": "<html>"},
    {"kind": "status", "status": 200, "body": "{"},
    {"kind": "status", "status": 200, "body": {"success": True, "data": [{"symbol": "SOL"}]}},
    {"kind": "html"},
    {"kind": "reset"},
    {"kind": "truncate", "bytes": 9},
]


@pytest.mark.parametrize("route", ["pending", "history"])
@pytest.mark.parametrize("fault", BAD_READS, ids=[str(index) for index in range(len(BAD_READS))])
def test_a_failing_look_is_looked_again(paid: TaskBench, fault: dict[str, Any], route: str) -> None:
    """F79: throttled, broken or malformed reads are transient, and nothing is concluded from them."""
    transaction_id = settle(paid)
    waiting = sensor()
    paid.harness.fault(route=route, when="after_commit", **{**fault, "count": 3})

    pokes = [poke(waiting) for _ in range(4)]

    assert pokes[:3] == [None] * 3
    assert pokes[3]["transaction_id"] == transaction_id
    assert paid_once(paid)


def test_a_trigger_looks_again_after_a_failing_look(paid: TaskBench) -> None:
    """F79: the trigger backs off and goes on, and its event is that of the look that succeeded."""
    transaction_id = settle(paid)
    paid.harness.fault("status", route="pending", status=503)

    event = asyncio.run(first_event(trigger(end_time=time.time() + 2)))

    assert (event["status"], event["row"]["transaction_id"]) == ("settled", transaction_id)
    assert paid_once(paid)


@pytest.mark.parametrize(("status", "kind"), [(429, Throttled), (500, Unreachable), (404, ConfigurationError)])
def test_a_failing_look_through_the_hook_says_what_it_is(paid: TaskBench, status: int, kind: type[Exception]) -> None:
    """F79: the hook itself raises, so that a DAG's own code can tell throttled from unreachable from misconfigured."""
    paid.harness.fault("status", route="pending", status=status)

    with pytest.raises(kind) as caught:
        PacificaHook().settlement(Awaited("SOL", 42, Decimal(1)), Waiting())

    assert isinstance(caught.value, AirflowFailException) is (kind is ConfigurationError)


ALIEN_EVENTS = [None, {}, {"status": "done"}, {"status": None}, {"status": "settled"}, {"status": "settled", "row": {}}]


ALIEN_EVENTS += [{"status": "settled", "row": {"transaction_id": None}}, {"status": "error", "message": "x"}]


@pytest.mark.parametrize("event", ALIEN_EVENTS)
def test_an_event_that_is_not_understood_raises(paid: TaskBench, event: dict[str, Any] | None) -> None:
    """F80: an empty or unknown event never falls through to success, in sensor or operator."""
    with pytest.raises(AlienEventError):
        sensor(deferrable=True).execute_complete(NO_CONTEXT, event)
    receipt: Any = {"batch_nonce": 42}
    with pytest.raises(AlienEventError):
        operator(deferrable=True).execute_complete(NO_CONTEXT, event, receipt=receipt)

    assert paid_once(paid)


@pytest.mark.parametrize("nonce", [None, "None", "", "-1", -1, True, False, 1.0, "1.0", " 42", "42\n", 2**64, [42]])
@pytest.mark.parametrize("deferrable", [False, True])
def test_a_nonce_that_is_none_is_refused_before_any_look(paid: TaskBench, nonce: Any, deferrable: bool) -> None:
    """F81: an XCom that is None, text, boolean, negative or a float is a ConfigurationError, and nothing is read."""
    before = paid.harness.ledger()["requests"]

    with pytest.raises(ConfigurationError, match="non-negative integer") as caught:
        sensor(batch_nonce=nonce, deferrable=deferrable, timeout=1).execute(NO_CONTEXT)

    assert isinstance(caught.value, AirflowFailException)
    assert paid.harness.ledger()["requests"] == before


@pytest.mark.parametrize("nonce", [42, "42", "042"])
def test_a_nonce_in_digits_is_the_same_nonce(paid: TaskBench, nonce: Any) -> None:
    """F81: a template renders text, and digits are fine."""
    settle(paid)

    assert poke(sensor(batch_nonce=nonce)) is not None


def test_two_triggers_of_one_withdrawal_yield_the_same_event_and_send_nothing(paid: TaskBench) -> None:
    """F43: a trigger that runs twice, or is killed and started again, only reads; either event is the same."""

    async def scenario() -> list[dict[str, Any]]:
        """Kill one trigger, and let two more meet the settlement."""
        killed = asyncio.ensure_future(first_event(trigger()))
        await asyncio.sleep(0.1)
        killed.cancel()
        await asyncio.gather(killed, return_exceptions=True)
        both = [asyncio.ensure_future(first_event(trigger())) for _ in range(2)]
        await asyncio.sleep(0.1)
        paid.harness.sandbox.control("POST", "/settle")
        return list(await asyncio.gather(*both))

    first, second = asyncio.run(scenario())

    assert first == second
    assert (first["status"], first["row"]["batch_nonce"]) == ("settled", 42)
    assert paid_once(paid)


@pytest.mark.parametrize(
    "fields", [{"poll_interval": 0}, {"poll_interval": None}, {"poll_interval": "30"}, {"settlement_timeout": 60}]
)
def test_what_the_trigger_could_not_carry_is_refused_before_the_request(
    paid: TaskBench, fields: dict[str, Any]
) -> None:
    """F49: nothing that only the deferral would trip over gets as far as a withdrawal."""
    other = paid.other(run_id="manual__1")

    with pytest.raises(ConfigurationError):
        operator(deferrable=True, **fields).execute(other.context())

    assert paid_once(paid)


def test_the_deferral_carries_nothing_but_plain_json(paid: TaskBench) -> None:
    """F49, S06: trigger and arguments survive JSON, so that the deferral cannot fail once the money has moved."""
    with pytest.raises(TaskDeferred) as deferred:
        operator(deferrable=True).execute(paid.context())
    path, arguments = deferred.value.trigger.serialize()

    assert json.loads(json.dumps([arguments, deferred.value.kwargs])) == [arguments, deferred.value.kwargs]
    assert path.endswith("WithdrawalBatchTrigger")
    assert paid_once(paid)
