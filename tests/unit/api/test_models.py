"""Records of the exchange: read strictly, or not at all."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacifica_provider.api import models

RECEIPT = {"symbol": "SOL", "batch_nonce": 42, "requested_amount": "1.00000000", "fee_amount": "0.00100000"}
PENDING = {
    "symbol": "SOL",
    "amount": "0.999",
    "amount_requested": "1",
    "fee_amount": "0.001",
    "batch_nonce": 42,
    "created_at": 1716200000000,
}
SETTLED = {"symbol": "SOL", "amount": "1", "batch_nonce": "42", "transaction_id": "5x", "created_at": 1716200000000}
BALANCE = {"symbol": "SOL", "amount": "5", "available_to_withdraw": "4", "pending_balance": "0"}
ASSET = {"symbol": "SOL", "active": True}
BRIDGE = {"symbol": "SOL", "withdrawal_fee": "0.001", "decimals": 9}

CASES: list[tuple[Any, dict[str, Any], Any]] = [
    (models.Receipt, RECEIPT, models.Receipt("SOL", 42, Decimal(1), Decimal("0.001"))),
    (
        models.PendingWithdrawal,
        PENDING,
        models.PendingWithdrawal("SOL", Decimal("0.999"), Decimal(1), Decimal("0.001"), 42, 1716200000000),
    ),
    (models.SettledWithdrawal, SETTLED, models.SettledWithdrawal("SOL", Decimal(1), 42, "5x", 1716200000000)),
    (models.SpotBalance, BALANCE, models.SpotBalance("SOL", Decimal(5), Decimal(4), Decimal(0))),
    (models.SpotAsset, ASSET, models.SpotAsset("SOL", active=True)),
    (models.BridgeParameters, BRIDGE, models.BridgeParameters("SOL", Decimal("0.001"), 9)),
]
KIND = pytest.mark.parametrize(("kind", "row", "expected"), CASES, ids=[case[0].__name__ for case in CASES])
WRONG: dict[str, list[Any]] = {
    "symbol": [None, "", 7, ["SOL"]],
    "batch_nonce": [None, -1, 1.0, True, "", "-1", "+1", " 1", "1.0", "x", "٣", 2**64, "9" * 21, [42]],
    "requested_amount": [None, 1, 1.5, "", "-1", "1e3", "NaN"],
    "fee_amount": [None, 0, "-0.001", "free"],
    "amount": [None, 1, "1e3"],
    "amount_requested": [None, 1, "1e3"],
    "available_to_withdraw": [None, 1, "-1"],
    "pending_balance": [None, 1, "-1"],
    "withdrawal_fee": [None, 1, "-1"],
    "created_at": [None, -1, 1.5, True, "1716200000000"],
    "transaction_id": [7, ["5x"], True],
    "active": [None, 1, "true"],
    "decimals": [None, -1, 19, True, "9", 9.0],
}
MUTATIONS = [
    pytest.param(kind, {**row, field: value}, id=f"{kind.__name__}-{field}-{value!r}")
    for kind, row, _ in CASES
    for field in row
    for value in WRONG[field]
]


@KIND
def test_a_documented_row_is_read_exactly(kind: Any, row: dict[str, Any], expected: object) -> None:
    """Each documented shape becomes its record, amounts exact."""
    assert expected == kind.from_json(row)


@KIND
def test_a_field_added_later_is_ignored(kind: Any, row: dict[str, Any], expected: object) -> None:
    """A new field of the exchange breaks nothing (S20)."""
    assert expected == kind.from_json({**row, "idempotency_key": "k", "status": None})


@pytest.mark.parametrize(("kind", "row"), MUTATIONS)
def test_a_mistyped_field_is_refused(kind: Any, row: dict[str, Any]) -> None:
    """A field of another type or range is a ValueError, never a default (S23)."""
    with pytest.raises(ValueError, match=r"\S"):
        kind.from_json(row)


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        pytest.param(kind, {name: value for name, value in row.items() if name != field}, id=f"{kind.__name__}-{field}")
        for kind, row, _ in CASES
        for field in row
        if field != "transaction_id"
    ],
)
def test_a_missing_field_is_refused(kind: Any, row: dict[str, Any]) -> None:
    """A row with a field left out is a ValueError; only a transaction id may still be missing (F82)."""
    with pytest.raises(ValueError, match=r"\S"):
        kind.from_json(row)


@KIND
@pytest.mark.parametrize("data", [None, [], "row", 7])
def test_what_is_no_object_is_refused(kind: Any, row: dict[str, Any], expected: object, data: object) -> None:
    """Anything but a JSON object is a ValueError."""
    with pytest.raises(ValueError, match="expected an object"):
        kind.from_json(data)


@KIND
def test_a_record_cannot_be_changed(kind: Any, row: dict[str, Any], expected: object) -> None:
    """What was read stays as it was read."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        kind.from_json(row).symbol = "BTC"


@pytest.mark.parametrize("absent", [None, ""])
def test_an_empty_transaction_id_is_none(absent: str | None) -> None:
    """A history row without an id is read, and does not count as on chain (F82)."""
    row = {**SETTLED, "transaction_id": absent}
    short = {name: value for name, value in row.items() if name != "transaction_id"}

    assert models.SettledWithdrawal.from_json(row).transaction_id is None
    assert models.SettledWithdrawal.from_json(short) == models.SettledWithdrawal.from_json(row)


@given(st.integers(0, 2**64 - 1))
def test_a_nonce_is_an_integer_or_its_digits(nonce: int) -> None:
    """Every 64-bit nonce is read alike as integer and as text."""
    assert nonce == models.parse_batch_nonce(nonce) == models.parse_batch_nonce(str(nonce))


@given(
    st.one_of(st.none(), st.booleans(), st.floats(), st.integers(max_value=-1), st.binary(), st.lists(st.integers()))
)
def test_nothing_else_is_a_nonce(value: Any) -> None:
    """None, booleans, floats, negatives, bytes and lists are refused (F81)."""
    with pytest.raises(ValueError, match="not a batch nonce"):
        models.parse_batch_nonce(value)


@pytest.mark.parametrize("value", ["x" * 500, "\n{{ ti.xcom_pull('w') }}\n" * 9])
def test_a_refused_nonce_is_quoted_short_and_on_one_line(value: str) -> None:
    """The message of a template gone wrong is one short line (S23)."""
    with pytest.raises(ValueError, match="not a batch nonce") as caught:
        models.parse_batch_nonce(value)

    assert len(str(caught.value)) < 120
    assert "\n" not in str(caught.value)
