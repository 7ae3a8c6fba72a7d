"""The receipt as Airflow keeps it in XCom: plain JSON, amounts as decimal text."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, TypedDict

from pacifica_provider.api.amounts import canonical_text, difference

if TYPE_CHECKING:
    from pacifica_provider.hooks.settings import ConnectionSettings
    from pacifica_provider.withdrawals.identity import Order
    from pacifica_provider.withdrawals.prepared import Prepared
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
    """
    What a withdrawal returns: amounts as decimal text, times in Unix milliseconds.

    ``transaction_id`` and ``seen_settled_at_ms`` are there once it settled, ``approved_by`` if it needed an approval.
    """

    transaction_id: str
    seen_settled_at_ms: int
    approved_by: list[str]


class PreparedOrder(TypedDict):
    """
    What was prepared for approval, as a person is to be shown it: ``text`` in a sentence, and its parts.

    ``fee_amount`` and ``net_amount`` are as they were then, ``None`` if the fee was not known.
    """

    text: str
    account: str
    environment: str
    symbol: str
    requested_amount: str
    fee_amount: str | None
    net_amount: str | None
    idempotency_key: str
    prepared_at_ms: int


def prepared_json(prepared: Prepared) -> PreparedOrder:
    """Return what a person is shown."""
    fee = prepared.fee_amount
    net = None if fee is None else canonical_text(difference(prepared.order.amount, Decimal(fee)))
    cost = "" if fee is None else f" (fee {fee}, so that {net} arrives)"
    return {
        "text": (
            f"Withdraw {prepared.order}{cost} from account {prepared.account} on Pacifica {prepared.environment}, to "
            f"its own wallet. Idempotency key {prepared.key}."
        ),
        "account": prepared.account,
        "environment": prepared.environment,
        "symbol": prepared.symbol,
        "requested_amount": prepared.amount,
        "fee_amount": fee,
        "net_amount": net,
        "idempotency_key": prepared.key,
        "prepared_at_ms": prepared.prepared_at_ms,
    }


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
