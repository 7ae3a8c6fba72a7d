"""The description that the sandbox serves is true of it, whatever is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from pacifica_provider.sandbox import Sandbox
from pacifica_provider.sandbox.control import description
from tests.contract.sandbox.wallet import Wallet
from tests.support.patience import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schemathesis import Case
    from schemathesis.core.transport import Response

SCHEMA = schemathesis.openapi.from_dict(description())
# That phase makes a thousand requests for the faults alone. The examples below are bounded.
SCHEMA.config.phases.coverage.enabled = False

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
# Why a body that fits its schema may be refused: for the state of the exchange, for what JSON schema cannot say of
# headers, and because 1.0 is an integer to JSON schema and is not one here.
REASONS = (
    "must be an account of this sandbox",
    "the exchange refuses it",
    "which one is to be unbound",
    "'headers' must be",
    "must be whole",
    "must be a whole number",
    "must be a number of bytes",
    "must be a status",
)


@pytest.fixture(scope="module")
def shared() -> Iterator[Wallet]:
    """Yield the wallet of a sandbox that all examples share."""
    with Sandbox(seed=7) as sandbox:
        wallet = Wallet(sandbox)
        with wallet.session:
            yield wallet


def answer(case: Case[Any], sandbox: Sandbox) -> Response:
    """Send the request, check the answer against the description, and put back what would meet the next one."""
    before = sandbox.control("GET", "/options")["options"]
    try:
        response = case.call(base_url=sandbox.base_url.removesuffix("/api/v1"), timeout=PATIENCE_S)
    finally:
        sandbox.control("DELETE", "/faults")
        sandbox.control("POST", "/options", before)
    case.validate_response(response, checks=CHECKS)
    return response


@SCHEMA.include(method="GET").parametrize()
@settings(max_examples=20)
def test_reads(case: Case[Any], shared: Wallet) -> None:
    """Every GET, of the exchange and of the control interface, answers as described."""
    answer(case, shared.sandbox)


@SCHEMA.include(path_regex="^/control").exclude(method="GET").parametrize()
@settings(max_examples=30)
def test_control_calls(case: Case[Any], shared: Wallet) -> None:
    """Every call is carried out, or refused for a reason that its schema cannot say; and the exchange works on."""
    response = answer(case, shared.sandbox)

    assert case.meta is not None
    if case.meta.generation.mode.is_positive and response.status_code != 200:
        assert any(reason in response.text for reason in REASONS), response.text
    assert shared.get("/account").status_code == 200


@SCHEMA.include(operation_id="withdraw").parametrize()
@settings(max_examples=50)
def test_unsigned_withdrawals(case: Case[Any], shared: Wallet) -> None:
    """What nobody signed is refused as described, and debits nothing."""
    response = answer(case, shared.sandbox)

    assert response.status_code == 400
    assert not [debit for debit in shared.debits() if debit["idempotency_key"]]


def test_it_is_served(sandbox: Sandbox) -> None:
    """It is a call of the control interface like any other, and has every other one in it."""
    served = sandbox.control("GET", "/openapi.json")
    with pytest.raises(ValueError, match="there are ") as caught:
        sandbox.control("GET", "/nothing")

    calls = [call.split() for call in str(caught.value).partition("there are ")[2].split(", ")]
    assert served == description()
    assert all(method.lower() in served["paths"][f"/control{path}"] for method, path in calls)
