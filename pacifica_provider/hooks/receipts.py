"""The receipt as Airflow keeps it in XCom: plain JSON, amounts as decimal text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pacifica_provider.api.amounts import canonical_text, difference

if TYPE_CHECKING:
    from pacifica_provider.hooks.settings import ConnectionSettings
    from pacifica_provider.withdrawals.record import StoredReceipt


def receipt_json(receipt: StoredReceipt, settings: ConnectionSettings, symbol: str, key: str) -> dict[str, Any]:
    """Return the receipt; fee and net amount are ``None`` where an adopted row does not show them."""
    fee, gross = receipt.fee_amount, receipt.requested_amount
    return {
        "account": settings.account,
        "environment": settings.environment,
        "symbol": symbol,
        "batch_nonce": receipt.batch_nonce,
        "requested_amount": canonical_text(gross),
        "fee_amount": None if fee is None else canonical_text(fee),
        "net_amount": None if fee is None else canonical_text(difference(gross, fee)),
        "idempotency_key": key,
        "submitted_at_ms": receipt.submitted_at_ms,
        "adopted": receipt.adopted,
    }
