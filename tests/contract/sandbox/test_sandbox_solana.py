"""The sandbox's chain: what a Solana node says of its transactions, and the switches that change it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.patience import PATIENCE_S

if TYPE_CHECKING:
    from tests.contract.sandbox.wallet import Wallet

NOBODYS = "1" * 64


def rpc(wallet: Wallet, method: str, *params: Any, **more: Any) -> dict[str, Any]:
    """Ask the chain."""
    body = {"jsonrpc": "2.0", "id": 5, "method": method, "params": list(params), **more}
    answer = wallet.session.post(wallet.sandbox.solana_url, json=body, timeout=PATIENCE_S)
    assert answer.status_code == 200
    assert "ratelimit" not in answer.headers
    return dict(answer.json())


def statuses(wallet: Wallet, *signatures: str, searched: bool = True) -> list[Any]:
    """Return what the chain says of transactions."""
    config = {"searchTransactionHistory": True} if searched else {}
    return list(rpc(wallet, "getSignatureStatuses", list(signatures), config)["result"]["value"])


def settled(wallet: Wallet, amount: str = "1") -> str:
    """Withdraw, settle, and return the transaction id."""
    wallet.post(amount=amount)
    wallet.settle()
    return str(wallet.sandbox.control("GET", "/ledger")["debits"][-1]["transaction_id"])


def test_a_settled_withdrawal_is_finalized(wallet: Wallet) -> None:
    """At once and without an error; of another signature the chain knows nothing."""
    status, nothing = statuses(wallet, settled(wallet), NOBODYS)

    assert (status["err"], status["confirmations"], status["confirmationStatus"]) == (None, None, "finalized")
    assert status["status"] == {"Ok": None}
    assert nothing is None


def test_a_transaction_may_be_confirmed_for_a_while(wallet: Wallet) -> None:
    """By the exchange's clock, counted from the settlement."""
    wallet.options(finalized_after_s=13)
    transaction_id = settled(wallet)
    before = statuses(wallet, transaction_id)
    early = rpc(wallet, "getTransaction", transaction_id)["result"]
    confirmed = rpc(wallet, "getTransaction", transaction_id, {"commitment": "confirmed"})["result"]
    wallet.sandbox.control("POST", "/clock", {"offset_ms": 14_000})
    after = statuses(wallet, transaction_id)

    assert [row["confirmationStatus"] for row in (*before, *after)] == ["confirmed", "finalized"]
    assert early is None
    assert confirmed["transaction"]["signatures"] == [transaction_id]


@pytest.mark.parametrize(("chain", "expected"), [("failed", True), ("unknown", None)])
def test_the_chain_may_know_it_as_failed_or_not_at_all(wallet: Wallet, chain: str, expected: bool | None) -> None:
    """A switch for all of them, in both methods."""
    transaction_id = settled(wallet)
    wallet.options(chain=chain)
    (status,), transaction = statuses(wallet, transaction_id), rpc(wallet, "getTransaction", transaction_id)["result"]
    seen = [status and status["err"] is not None, transaction and transaction["meta"]["err"] is not None]

    assert seen == [expected, expected]


def test_a_replaced_transaction_has_failed(wallet: Wallet) -> None:
    """The history shows the other one, of the batches that were named alone."""
    kept, old = settled(wallet), settled(wallet, "2")
    (replaced,) = wallet.sandbox.control("POST", "/replace_transaction", {"batch_nonce": 43})["replaced"]
    new = replaced["transaction_id"]
    shown = [row["transaction_id"] for row in wallet.history()["data"]]
    errors = [status["err"] is not None for status in statuses(wallet, kept, old, new)]

    assert (shown, errors) == ([new, kept], [False, True, False])
    assert wallet.sandbox.control("POST", "/replace_transaction", {"symbol": "BTC"}) == {"replaced": []}


def test_a_pending_withdrawal_is_not_replaced(wallet: Wallet) -> None:
    """It has no transaction."""
    wallet.post()

    assert wallet.sandbox.control("POST", "/replace_transaction") == {"replaced": []}


def test_old_transactions_need_the_history(wallet: Wallet) -> None:
    """Without it a node knows the last minute only."""
    transaction_id = settled(wallet)
    young = statuses(wallet, transaction_id, searched=False)
    wallet.sandbox.control("POST", "/clock", {"offset_ms": 61_000})

    assert young != [None]
    assert statuses(wallet, transaction_id, searched=False) == [None]
    assert statuses(wallet, transaction_id) == young


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("getSignatureStatuses", [[NOBODYS] * 257], -32_602),
        ("getSignatureStatuses", [[NOBODYS, "oops"]], -32_602),
        ("getSignatureStatuses", [["z" * 88]], -32_602),
        ("getSignatureStatuses", [[7]], -32_602),
        ("getSignatureStatuses", [NOBODYS], -32_602),
        ("getSignatureStatuses", [], -32_602),
        ("getTransaction", [], -32_602),
        ("getTransaction", ["1" * 63], -32_602),
        ("sendTransaction", ["x"], -32_601),
    ],
)
def test_a_wrong_question_is_an_error(wallet: Wallet, method: str, params: list[Any], code: int) -> None:
    """With the code that a node gives, for the whole question."""
    answer = rpc(wallet, method, *params)

    assert (answer["error"]["code"], answer["id"], "result" in answer) == (code, 5, False)


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"", -32_700), (b"{", -32_700), (b"[]", -32_600), (b'{"method": "getTransaction"}', -32_600), (b"7", -32_600)],
)
def test_what_is_no_question_is_an_error(wallet: Wallet, body: bytes, code: int) -> None:
    """Status 200 all the same, as JSON-RPC has it."""
    answer = wallet.session.post(wallet.sandbox.solana_url, data=body, timeout=PATIENCE_S)

    assert (answer.status_code, answer.json()["error"]["code"], answer.json()["id"]) == (200, code, None)


def test_faults_meet_it_and_credits_do_not(wallet: Wallet) -> None:
    """It is another's server: it may break, and costs nothing at the exchange."""
    wallet.options(enforce_credits=True, quota=1)
    wallet.sandbox.control("POST", "/faults", {"route": "solana", "kind": "status", "status": 503})
    answer = wallet.session.post(wallet.sandbox.solana_url, data=b"{}", timeout=PATIENCE_S)
    asked = [statuses(wallet, NOBODYS) for _ in range(3)]

    assert (answer.status_code, asked) == (503, [[None]] * 3)
    assert wallet.sandbox.control("GET", "/ledger")["requests"]["solana"] == 4
