"""A connection that is wrong shows no key: S01, S03, S04, S09."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import base58
import pytest

from pacifica_provider.hooks.pacifica import PacificaHook
from pacifica_provider.triggers.withdrawal import WithdrawalBatchTrigger
from tests.faults.airflow_bench import TaskBench
from tests.faults.sweep import Sweep, forms

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.harness import ProtocolHarness


def _damaged(secret: str) -> dict[str, str]:
    raw = base58.b58decode(secret)
    return {
        "one character off": secret[:-1] + ("2" if secret[-1] != "2" else "3"),
        "one character short": secret[:-1],
        "no base58": secret[:30] + "0OIl" + secret[30:],
        "a space": f"{secret} ",
        "a byte list": json.dumps(list(raw)),
        "hex": raw.hex(),
        "halves of two keys": base58.b58encode(raw[:32] + bytes(32)).decode(),
        "twice": secret + secret,
        "non-ASCII": f"{secret}é",
    }


def test_a_key_that_cannot_be_used_is_not_repeated(harness: ProtocolHarness, connect: Callable[..., None]) -> None:
    """S01, S04: whatever is wrong with the key, no part of it is in the error, its locals or the log."""
    secret = harness.sandbox.agent_private_key
    sweep, raised = Sweep(), []
    for name, text in _damaged(secret).items():
        connect(password=text)
        raised.append(sweep.run(name, TaskBench(harness, run_id=name).withdraw))
        sweep.run(f"{name}, tested", lambda: sweep.add("said", str(PacificaHook().test_connection())))

    assert {type(error).__name__ for error in raised} == {"KeyMaterialError"}
    assert sweep.found(forms(secret) | set(_damaged(secret).values())) == []


def _misplaced(secret: str) -> dict[str, dict[str, Any]]:
    return {
        "privateKey": {"extra": {"privateKey": secret}},
        "seed": {"extra": {"seed": secret}},
        "agent wallet": {"extra": {"agent_wallet": secret}},
        "window": {"extra": {"expiry_window_ms": secret}},
        "limits": {"extra": {"withdrawal_limits": {secret: "1"}}},
        "environment": {"extra": {"environment": secret}},
        "login": {"login": secret},
        "host": {"host": f"https://{secret}@exchange.invalid"},
        "no JSON": {"extra": f"private_key={secret}"},
        "a list": {"extra": json.dumps([secret])},
    }


def _swept(harness: ProtocolHarness, connect: Callable[..., None], mistakes: dict[str, dict[str, Any]]) -> Sweep:
    """Meet each mistake in the connection in a task, in the connection's test, and in a trigger."""
    sweep = Sweep()
    for name, fields in mistakes.items():
        connect(**fields)
        raised = sweep.run(name, TaskBench(harness, run_id=name).withdraw)
        sweep.run(f"{name}, tested", lambda: sweep.add("said", str(PacificaHook().test_connection())))
        sweep.run(f"{name}, trigger", lambda: asyncio.run(_first_event()))

        assert type(raised).__name__ == "ConfigurationError"
    return sweep


def test_a_key_in_the_wrong_field_is_not_repeated(harness: ProtocolHarness, connect: Callable[..., None]) -> None:
    """S03, S09: in an extra, in the login, in the host, or in an extra that is no JSON, it is refused by name only."""
    secret = harness.sandbox.agent_private_key

    sweep = _swept(harness, connect, _misplaced(secret))

    assert sweep.found(forms(secret), in_locals=False) == []


MISTAKES: dict[str, dict[str, Any]] = {
    "no environment": {"extra": {"environment": None}},
    "unknown extra": {"extra": {"retries": 3}},
    "wrong account": {"login": "somebody"},
    "port": {"port": 443},
    "http": {"host": "http://exchange.invalid"},
    "window": {"extra": {"expiry_window_ms": 5}},
}


@pytest.mark.parametrize("mistake", [*MISTAKES, *_misplaced("")])
def test_a_mistake_in_the_connection_leaves_no_key_in_the_locals(
    harness: ProtocolHarness, connect: Callable[..., None], mistake: str
) -> None:
    """S04: a reporter that prints locals finds no key in any frame of the error, whatever field is wrong."""
    secret = harness.sandbox.agent_private_key

    sweep = _swept(harness, connect, {mistake: {**MISTAKES, **_misplaced(secret)}[mistake]})

    assert sweep.found(forms(secret)) == []


async def _first_event() -> object:
    trigger = WithdrawalBatchTrigger(
        pacifica_conn_id="pacifica_default", symbol="SOL", batch_nonce=1, amount="1", end_time=time.time()
    )
    async for event in trigger.run():
        return event
    return None
