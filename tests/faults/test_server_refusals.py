"""What the exchange refuses, or seems to: F23 to F28, throttling, refusals and statuses that mean nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pacifica_provider.api.signing import Signer
from pacifica_provider.exceptions import (
    ConfigurationError,
    OutcomeUnknown,
    WithdrawalRejected,
)
from tests.faults.checks import assert_paid_once, assert_unknown, nonces, refused, statuses

if TYPE_CHECKING:
    from tests.support.harness import ProtocolHarness


LIST_LAG_S = 30
REFUSALS = [
    pytest.param({"amount": "999999999"}, 422, 62, id="more-than-the-balance"),
    pytest.param({"amount": "0.000000001"}, 422, 29, id="less-than-the-fee"),
    pytest.param({"symbol": "NOSUCH"}, 422, 55, id="no-such-asset"),
]


@pytest.mark.parametrize("balance_before_key", [False, True])
@pytest.mark.parametrize(("order", "status", "code"), REFUSALS)
def test_a_refused_only_request_is_rejected(
    harness: ProtocolHarness, order: dict[str, str], status: int, code: int, balance_before_key: bool
) -> None:
    """F24: a business refusal of the only request is Rejected, with code and text, after two readings of the lists."""
    harness.options(balance_before_key=balance_before_key)
    for name, value in order.items():
        setattr(harness, name, value)

    error = refused(harness, WithdrawalRejected)

    assert (error.status, error.code, harness.debits()) == (status, code, [])
    assert "{" not in str(error)
    assert harness.ledger()["requests"] == {"pending": 3, "history": 2, "bridge_parameters": 2, "withdraw": 1}
    assert harness.clock.slept_s > harness.window_ms / 1000 + LIST_LAG_S


def test_a_cleared_task_may_order_anew_after_a_rejection(harness: ProtocolHarness) -> None:
    """F24: nothing moved, so the next try starts a fresh record, even of another amount, under the same key."""
    harness.amount = "999999999"
    refused(harness, WithdrawalRejected)
    harness.amount = "2"
    harness.clear()

    receipt = harness.try_once()
    assert_paid_once(harness, receipt, adopted=False)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_refusal_that_lists_such_a_withdrawal_is_unknown(harness: ProtocolHarness, status: int) -> None:
    """F24, F26: a refusal in place of a committed request's receipt shows in pending, and is not called rejected."""
    harness.fault("status", when="after_commit", status=status)

    assert_unknown(harness, rows=[42], because="yet lists such a withdrawal", debits=1)


@pytest.mark.parametrize("moved", [True, False])
@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(422, {"success": False, "error": "Insufficient balance", "code": 62}, id="F25-balance"),
        pytest.param(400, "Verification failed", id="F26-signature"),
        pytest.param(401, {"success": False, "error": "Unauthorized", "code": 401}, id="F26-401"),
        pytest.param(403, "<html>The request could not be satisfied</html>", id="F26-403"),
    ],
)
def test_a_refusal_after_something_was_maybe_sent_is_unknown(
    harness: ProtocolHarness, status: int, body: object, moved: bool
) -> None:
    """F25, F26: after an unanswered request a refusal is neither Rejected nor adopted, with or without a row there."""
    harness.fault("reset", when="after_commit" if moved else "before_commit")
    harness.fault("status", status=status, body=body)

    assert_unknown(
        harness, rows=[42] if moved else [], because=f"Pacifica answered HTTP {status}", debits=1 if moved else 0
    )


@pytest.mark.parametrize("rival", ["pending", "settled"])
def test_a_balance_spent_by_the_lost_request_is_not_called_insufficient(harness: ProtocolHarness, rival: str) -> None:
    """F25: the exchange checks the balance first and our lost request spent it; its row is offered, not adopted."""
    harness.options(balance_before_key=True, settle_after_s=1 if rival == "settled" else None)
    harness.amount = "600000"
    harness.fault("reset", when="after_commit")

    error = assert_unknown(harness, rows=[42], because="Pacifica answered HTTP 422", debits=1)

    assert statuses(harness) == [None, 422]
    assert nonces(harness) == list(error.batch_nonces)


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (400, "Verification failed", "Verification failed"),
        (400, "Invalid message", "Invalid message"),
        (401, {"success": False, "error": "Unauthorized", "code": 401}, "Unauthorized"),
        (403, "Beta access required", "Beta access required"),
    ],
)
def test_a_refused_signature_on_the_only_request_is_rejected(
    harness: ProtocolHarness, status: int, body: object, text: str
) -> None:
    """F26: bare text or envelope, a refused signature of the only request is Rejected with what it says."""
    harness.fault("status", status=status, body=body)

    error = refused(harness, WithdrawalRejected)

    assert (error.status, text in str(error), harness.debits()) == (status, True, [])


def test_an_unbound_agent_is_rejected(harness: ProtocolHarness) -> None:
    """F26: the sandbox's own signature checks refuse an agent that is not bound to the account."""
    wallet = Signer.from_base58(harness.private_key).public_key
    harness.sandbox.control("POST", "/agents", {"account": harness.account, "agent_wallet": wallet, "bound": False})

    error = refused(harness, WithdrawalRejected)

    assert (error.status, "not authorized" in str(error)) == (400, True)


@pytest.mark.parametrize("path", ["/api/v2", "/", "/api/v1/account"])
def test_a_wrong_base_path_is_a_configuration_error(harness: ProtocolHarness, path: str) -> None:
    """F27: 404 at the look names the connection's fields, and nothing is sent."""
    harness.base_url = harness.sandbox.base_url.replace("/api/v1", path.rstrip("/"))

    error = refused(harness, ConfigurationError, "Check the connection: Environment, Base URL and Account")

    assert (error.status, harness.posts()) == (404, [])


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_refused_look_is_a_configuration_error(harness: ProtocolHarness, status: int) -> None:
    """F27: an HTML page or an error at the look's address is the connection's fault, and nothing is sent."""
    harness.fault("html", route="pending", status=status)

    error = refused(harness, ConfigurationError, "Check the connection")

    assert (error.status, "(HTML page)" in str(error), harness.posts()) == (status, True, [])


def test_a_refused_look_after_a_lost_answer_says_first_that_money_may_have_moved(harness: ProtocolHarness) -> None:
    """F27: the connection's fault is named behind what the record says of the money."""
    harness.fault("reset", when="after_commit")
    harness.fault("status", route="pending", status=403, skip=1)

    error = refused(harness, ConfigurationError, "MAY have moved money")

    assert (error.idempotency_key, error.symbol, error.amount) == (harness.key, "SOL", "1")


UNDOCUMENTED = [201, 202, 204, 206, 226, 299, 300, 304, 399, 402, 405, 406, 408, 410, 418, 425, 451, 499, 501, 511, 599]


@pytest.mark.parametrize("when", ["before_commit", "after_commit"])
def test_an_undocumented_status_is_never_a_success(harness: ProtocolHarness, when: str) -> None:
    """F28: any status that the page does not list proves nothing, whatever receipt its body holds."""
    body = {"success": True, "data": {"symbol": "SOL", "batch_nonce": 1, "requested_amount": "1", "fee_amount": "0"}}
    for status in UNDOCUMENTED:
        one = harness.sibling(run_id=f"manual__{status}")
        one.fault("status", when=when, status=status, body=body)
        receipt = one.try_once()
        assert_paid_once(one, receipt, adopted=when == "after_commit")
        harness.sandbox.control("POST", "/settle")

        assert statuses(one)[0] == status


@pytest.mark.parametrize("code", [9999, -1, 0, "62", None, 1e30, True])
def test_an_unknown_business_code_is_rejected_with_its_text(harness: ProtocolHarness, code: object) -> None:
    """F28: codes moved once already, so an unknown one changes nothing in the reading of a documented status."""
    harness.fault("status", status=422, body={"success": False, "error": "Something new", "code": code})

    error = refused(harness, WithdrawalRejected)

    assert error.code == (code if type(code) is int else None)
    assert "Something new" in str(error)


def test_an_error_text_cannot_forge_a_log_line(harness: ProtocolHarness) -> None:
    """F28, S23: line breaks and control characters of the exchange's text reach neither log nor message."""
    harness.fault(
        "status", status=422, body={"success": False, "error": "no\n[INFO] paid\x1b[31m" + "x" * 900, "code": 9}
    )

    error = refused(harness, WithdrawalRejected)

    assert all(line.isprintable() for line in [str(error), *harness.logs])
    assert max(len(line) for line in harness.logs) < 500


def test_an_unknown_outcome_is_not_hidden_by_a_dead_exchange(harness: ProtocolHarness) -> None:
    """F28, I4: a try of an unknown record that cannot read the lists says so, and sends nothing."""
    harness.fault("status", when="after_commit", status=400)
    refused(harness, OutcomeUnknown)
    harness.fault("status", route="*", status=503, count=9)

    error = refused(harness, OutcomeUnknown)

    assert "lists could not be read now" in str(error)
    assert (error.batch_nonces, len(harness.posts())) == ((), 1)
