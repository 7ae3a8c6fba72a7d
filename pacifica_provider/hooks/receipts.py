"""The receipt as Airflow keeps it in XCom: plain JSON, amounts as decimal text."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from pacifica_provider.api.amounts import canonical_text, difference

if TYPE_CHECKING:
    from decimal import Decimal

    from pacifica_provider.hooks.settings import ConnectionSettings
    from pacifica_provider.withdrawals.identity import Order
    from pacifica_provider.withdrawals.record import StoredReceipt


class _Accepted(TypedDict):
    account: str
    environment: str
    symbol: str
    batch_nonce: int
    requested_amount: str
    fee_amount: str | None
    net_amount: str | None
    idempotency_key: str
    submitted_at_ms: int
    adopted: bool


class Receipt(_Accepted, total=False):
    """What a withdrawal returns: amounts as decimal text, times in Unix milliseconds; the last two once it settled."""

    transaction_id: str
    seen_settled_at_ms: int


class Rehearsal(TypedDict):
    """
    What a dry run returns: a receipt but for what only a withdrawal has, of which ``batch_nonce`` is ``None``.

    ``fee_amount`` is the present one, ``None`` if it is not known. ``recorded`` is the state of this run's record.
    """

    account: str
    environment: str
    symbol: str
    batch_nonce: None
    requested_amount: str
    fee_amount: str | None
    net_amount: str | None
    idempotency_key: str
    dry_run: bool
    recorded: str


def rehearsal(order: Order, fee: Decimal | None, settings: ConnectionSettings, key: str, recorded: str) -> Rehearsal:
    """Return what a dry run found."""
    return {
        "account": settings.account,
        "environment": settings.environment,
        "symbol": order.symbol,
        "batch_nonce": None,
        "requested_amount": order.amount_text,
        "fee_amount": None if fee is None else canonical_text(fee),
        "net_amount": None if fee is None else canonical_text(difference(order.amount, fee)),
        "idempotency_key": key,
        "dry_run": True,
        "recorded": recorded,
    }


def receipt_json(receipt: StoredReceipt, settings: ConnectionSettings, symbol: str, key: str) -> Receipt:
    """Return the receipt; fee and net amount are ``None`` where an adopted row does not show them."""
    fee, net = receipt.fee_amount, receipt.net_amount
    return {
        "account": settings.account,
        "environment": settings.environment,
        "symbol": symbol,
        "batch_nonce": receipt.batch_nonce,
        "requested_amount": canonical_text(receipt.requested_amount),
        "fee_amount": None if fee is None else canonical_text(fee),
        "net_amount": None if net is None else canonical_text(net),
        "idempotency_key": key,
        "submitted_at_ms": receipt.submitted_at_ms,
        "adopted": receipt.adopted,
    }
