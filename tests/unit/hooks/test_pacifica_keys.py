"""The private key in the hook: masked in every form, checked against the connection, warned about."""

from __future__ import annotations

import base64
import json
import pickle
import re
from typing import TYPE_CHECKING, Any

import base58
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, redact

from pacifica_provider.api.signing import Signer
from pacifica_provider.exceptions import ConfigurationError, KeyMaterialError
from pacifica_provider.hooks.pacifica import PacificaHook

if TYPE_CHECKING:
    from tests.support.task_context import TaskContext

OTHER = "8S9vx1PxFeCw1QTQpKcYSSWYtLDAEiBBHU7wo4P72pXx"


def fresh_account(task_context: TaskContext) -> dict[str, str]:
    """Open an account whose keys no masker has met; every sandbox makes the same keys, from a seed."""
    while True:
        account = dict(task_context.sandbox.control("POST", "/accounts", {"balances": {"SOL": "100"}}))
        if all(redact(account[name]) == account[name] for name in ("account", "agent_private_key")):
            return account


def forms(secret: str) -> list[str]:
    """Return every text form of a key."""
    pair = base58.b58decode(secret)
    return [
        form
        for raw in (pair, pair[:32])
        for form in (
            base58.b58encode(raw).decode(),
            raw.hex(),
            raw.hex().upper(),
            base64.b64encode(raw).decode(),
            base64.b64encode(raw).decode().rstrip("="),
            json.dumps(list(raw)),
            ", ".join(map(str, raw)),
            ",".join(map(str, raw)),
            json.dumps(list(raw), separators=(",", ":")),
        )
    ]


def test_every_form_of_the_key_is_masked_in_logs(task_context: TaskContext) -> None:
    """Before the key is loaded Airflow's masker lets all of them pass, after it none (S01, S25)."""
    account = fresh_account(task_context)
    task_context.connect(login=account["account"], password=account["agent_private_key"])
    lines = [f"key={form}." for form in forms(account["agent_private_key"])]
    before = [redact(line) for line in lines]
    PacificaHook().withdraw_spot_asset("SOL", "1", context=task_context.context())
    after = [redact(line) for line in lines]

    assert before == lines
    # Airflow's masker may meet the seed inside the pair first; what is left is the public half then.
    public = base58.b58decode(Signer.from_base58(account["agent_private_key"]).public_key)
    left = {public.hex(), "".join(map(str, public)), ""}
    bare = {re.sub(r"[][=, ]+", "", str(line).lower().removeprefix("key=")) for line in after}
    assert bare <= {f"***{each}." for each in left}


def test_a_used_hook_pickles_as_the_id_of_its_connection(task_context: TaskContext) -> None:
    """So does an operator that used it: what was read of the connection stays in this process (S01)."""
    account = fresh_account(task_context)
    task_context.connect(login=account["account"], password=account["agent_private_key"])
    hook = PacificaHook()
    hook.withdraw_spot_asset("SOL", "1", context=task_context.context())
    pickled = pickle.dumps(hook)

    assert not any(form.encode() in pickled for form in forms(account["agent_private_key"]))
    assert account["account"].encode() not in pickled
    assert vars(pickle.loads(pickled)) == vars(PacificaHook())  # noqa: S301 - pickled just above


@pytest.mark.parametrize("where", ["account", "agent_wallet"])
def test_an_address_in_the_place_of_the_key_is_refused(task_context: TaskContext, where: str) -> None:
    """Its 32 bytes would do as a seed, of an account that nobody meant (S02)."""
    account = fresh_account(task_context)
    address = account["account"] if where == "account" else OTHER
    task_context.connect(login=account["account"], password=address, extra={"agent_wallet": OTHER})
    with pytest.raises(KeyMaterialError, match="holds an address in the place of the private key"):
        PacificaHook().withdraw_spot_asset("SOL", "1", context=task_context.context())

    assert PacificaHook().test_connection()[0] is False
    assert task_context.posts() == []


def test_the_public_half_is_not_masked(task_context: TaskContext) -> None:
    """Addresses stay readable in logs."""
    account = fresh_account(task_context)
    task_context.connect(login=account["account"], password=account["private_key"])
    PacificaHook().test_connection()

    assert redact(account["account"]) == account["account"]


def test_the_api_config_key_is_masked_as_soon_as_it_is_read(task_context: TaskContext) -> None:
    """Reading is enough: it is a secret of every request (S01)."""
    key = fresh_account(task_context)["api_config_key"]
    task_context.connect(extra={"pf_api_key": key})
    PacificaHook().spot_balances()

    assert redact(f"PF-API-KEY: {key}") == "PF-API-KEY: ***"


@pytest.mark.parametrize("key", ["agent_private_key", "private_key"])
def test_owner_and_agent_withdraw_for_the_same_account(task_context: TaskContext, key: str) -> None:
    """A key that is not the account's is an agent's and named as one; either way the account is debited (F69)."""
    task_context.connect(password=getattr(task_context.sandbox, key))
    receipt = PacificaHook().withdraw_spot_asset("SOL", "1", context=task_context.context())
    (debit,) = task_context.debits()

    assert debit["account"] == receipt["account"] == task_context.sandbox.account
    assert debit["idempotency_key"] == receipt["idempotency_key"]


def test_a_rotated_agent_key_is_the_same_withdrawal(task_context: TaskContext) -> None:
    """Another agent between two tries changes no key: the receipt is recalled, nothing is sent (F69)."""
    first = PacificaHook().withdraw_spot_asset("SOL", "1", context=task_context.context())
    agent = task_context.sandbox.control("POST", "/agents", {"account": task_context.sandbox.account})
    task_context.connect(password=agent["agent_private_key"])
    task_context.try_number = 2
    second = PacificaHook().withdraw_spot_asset("SOL", "1", context=task_context.context())

    assert first == second
    assert len(task_context.posts()) == 1


def test_the_account_s_own_key_is_warned_about_once(
    task_context: TaskContext, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever reads it owns the wallet; an agent key is no reason for a warning."""
    PacificaHook().withdraw_spot_asset("SOL", "1", context=task_context.context(), withdrawal_ref="a")
    quiet = capsys.readouterr().out
    task_context.connect(password=task_context.sandbox.private_key)
    PacificaHook().withdraw_spot_asset("SOL", "1", context=task_context.context(), withdrawal_ref="b")
    loud = capsys.readouterr().out

    assert quiet.count("warning") == 0
    assert loud.count("owns the wallet that withdrawals land in") == loud.count("[warning") == 1


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        ({"password": None}, KeyMaterialError, "holds no private key .password.: it can read, but not withdraw"),
        ({"password": ""}, KeyMaterialError, "holds no private key"),
        ({"password": "damaged"}, KeyMaterialError, "private key cannot be used"),
        (
            {"extra": {"agent_wallet": OTHER}},
            KeyMaterialError,
            "pins another agent wallet than that of its private key",
        ),
        ({"extra": {"withdrawal_limits": {"SOL": "0.5"}}}, ConfigurationError, "more than the connection's"),
        ({"extra": {"withdrawal_limits": {"BTC": "9"}}}, ConfigurationError, "SOL is not among"),
    ],
)
def test_what_fails_locally_fails_before_the_post(
    task_context: TaskContext, changes: dict[str, Any], kind: type[ConfigurationError], says: str
) -> None:
    """Key and limits are checked before anything is sent, and no retry helps (S15, S19)."""
    task_context.connect(**changes)
    with pytest.raises(kind, match=says) as caught:
        PacificaHook().withdraw_spot_asset("SOL", "1", context=task_context.context())

    assert isinstance(caught.value, AirflowFailException)
    assert "Nothing was sent" in str(caught.value)
    assert task_context.posts() == []


def test_an_agent_that_is_not_bound_is_rejected(task_context: TaskContext) -> None:
    """Only the exchange knows whether an agent is bound: its refusal fails the task, nothing moved (F26)."""
    task_context.sandbox.control(
        "POST",
        "/agents",
        {"account": task_context.sandbox.account, "agent_wallet": task_context.agent_wallet, "bound": False},
    )
    with pytest.raises(AirflowFailException, match="Agent not authorized"):
        PacificaHook().withdraw_spot_asset("SOL", "1", context=task_context.context())

    assert task_context.debits() == []
