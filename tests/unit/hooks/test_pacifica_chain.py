"""The hook with a Solana RPC: a settlement needs its word too, the Test button asks it, and its address is a secret."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from pacifica_provider.hooks.pacifica import PacificaHook
from pacifica_provider.withdrawals.settlement import Awaited, Settled, Waiting

if TYPE_CHECKING:
    from tests.support.task_context import TaskContext

ADDRESS = "http://127.0.0.1:9/v2/hush-abcdefghij?api-key=hush-jihgfedcba"


def ask(task_context: TaskContext, url: str | None = None) -> PacificaHook:
    """Return the hook of a connection that names the sandbox's chain, or another RPC."""
    task_context.connect(extra={"solana_rpc_url": url or task_context.sandbox.solana_url})
    return PacificaHook()


def settled(task_context: TaskContext, **options: Any) -> Awaited:
    """Withdraw 2 SOL elsewhere, on such a chain, and return what to wait for."""
    control = task_context.sandbox.control
    control("POST", "/options", options)
    nonce = control("POST", "/foreign_withdrawal", {"symbol": "SOL", "amount": "2"})["batch_nonce"]
    control("POST", "/settle")
    return Awaited("SOL", int(nonce), Decimal(2))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({}, None),
        ({"finalized_after_s": None}, "confirmed"),
        ({"chain": "failed"}, "failed"),
        ({"chain": "unknown"}, "not found"),
    ],
)
def test_a_settlement_needs_the_chain_s_word(
    task_context: TaskContext, options: dict[str, Any], word: str | None
) -> None:
    """Whatever is not finalized is waited for, and counts as seen in a list: it has not gone missing."""
    hook, awaited = ask(task_context), settled(task_context, **options)
    seen = hook.settlement(awaited, Waiting())

    assert (seen.chain if isinstance(seen, Waiting) else None) == word
    assert isinstance(seen, Settled) == (word is None)
    assert not isinstance(seen, Waiting) or seen.missing_since_ms is not None


def test_who_merely_looks_never_fails(task_context: TaskContext) -> None:
    """An RPC that is not there is a reason to wait."""
    seen = ask(task_context, ADDRESS).look_for(settled(task_context), Waiting())

    assert isinstance(seen, Waiting)
    assert seen.last_seen.endswith("but the Solana RPC gives no answer (connection refused)")


def test_an_address_may_be_corrected_while_somebody_waits(task_context: TaskContext) -> None:
    """The connection is read again at the next look."""
    hook, awaited = ask(task_context, ADDRESS), settled(task_context)
    first = hook.look_for(awaited, Waiting())
    ask(task_context)

    assert [type(first), type(hook.look_for(awaited, Waiting()))] == [Waiting, Settled]


def test_the_test_button_says_that_the_rpc_answers(task_context: TaskContext) -> None:
    """After everything else, and only where there is one."""
    without = PacificaHook().test_connection()
    good, sentence = ask(task_context).test_connection()

    assert (good, sentence) == (True, f"{without[1]} The Solana RPC answers.")


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ({"kind": "status", "status": 401}, "HTTP 401"),
        ({"kind": "html"}, "its answer is not JSON"),
        ({"kind": "reset"}, "connection"),
    ],
)
def test_the_test_button_fails_where_the_rpc_does_not(
    task_context: TaskContext, fault: dict[str, Any], why: str
) -> None:
    """A wait for settlement would never end, so it must not look green."""
    task_context.fault(route="solana", **fault)
    good, sentence = ask(task_context).test_connection()

    assert not good
    assert f"The Solana RPC gives no answer ({why}" in sentence
    assert sentence.endswith("): no wait for settlement would end.")
    assert f"knows account {task_context.sandbox.account}" in sentence


def test_the_address_is_masked_as_soon_as_it_is_read(task_context: TaskContext) -> None:
    """Whole, and each part that may be a token: urllib3 logs the path of each request at DEBUG (S01)."""
    from airflow.providers.common.compat.sdk import redact

    _ = ask(task_context, ADDRESS).settings

    assert redact(f"at {ADDRESS}.") == "at ***."
    assert redact('"POST /v2/hush-abcdefghij?api-key=hush-jihgfedcba HTTP/1.1" 200') == '"POST *** HTTP/1.1" 200'
    assert redact("hush-abcdefghij, hush-jihgfedcba") == "***, ***"


def test_neither_hook_nor_settings_show_it(task_context: TaskContext) -> None:
    """By no repr, and in no sentence of the Test button (S09)."""
    hook = ask(task_context, ADDRESS)
    good, sentence = hook.test_connection()

    assert not good
    assert "hush" not in f"{sentence} {hook!r} {hook.settings!r} {hook.shown_settings('SOL')}"
