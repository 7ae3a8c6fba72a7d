"""
The event that crosses the database from the triggerer to the worker; what is not understood raises.

``{"status": "settled", "row": {...}}`` with the row of ``settled_json``, or
``{"status": "expired", "reason": "timeout", "text": "..."}`` with the reasons of ``withdrawals/settlement.py``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pacifica_provider.exceptions import PacificaError, SettlementTimeout

if TYPE_CHECKING:
    from pacifica_provider.api.models import SettledWithdrawal
    from pacifica_provider.withdrawals.settlement import Expired


class AlienEventError(PacificaError):
    """The trigger's event is empty or unknown; nothing is concluded from it."""


class NotListed(SettlementTimeout):
    """It was in neither of Pacifica's lists for so long that its nonce or amount is probably wrong."""


def row_json(row: SettledWithdrawal) -> dict[str, Any]:
    """Return a settled row as plain JSON, the amount as decimal text."""
    from pacifica_provider.api.amounts import canonical_text

    return {
        "symbol": row.symbol,
        "batch_nonce": row.batch_nonce,
        "amount": canonical_text(row.amount),
        "transaction_id": row.transaction_id,
        "created_at_ms": row.created_at_ms,
    }


def settled_json(row: SettledWithdrawal) -> dict[str, Any]:
    """
    Return the row of a withdrawal that was just seen to be on chain, and when that was, Unix milliseconds.

    Whether ``created_at_ms`` is the time of the request or of the settlement is not documented.
    """
    return {**row_json(row), "seen_settled_at_ms": time.time_ns() // 1_000_000}


def settled_event(row: SettledWithdrawal) -> dict[str, Any]:
    """Return the event of a withdrawal that is on chain."""
    return {"status": "settled", "row": settled_json(row)}


def expired_event(expired: Expired) -> dict[str, Any]:
    """Return the event of a wait that is over without a settlement."""
    return {"status": "expired", "reason": expired.reason, "text": expired.text}


def settled_row(event: Mapping[str, Any] | None) -> dict[str, Any]:
    """
    Return the settled row of an event.

    :raises SettlementTimeout: if the time was up.
    :raises NotListed: if the withdrawal was in neither list for too long.
    :raises AlienEventError: if the event is empty, of unknown status, or says settled without a transaction id.
    """
    status = event.get("status") if isinstance(event, Mapping) else None
    if event is not None and status == "expired" and event.get("text"):
        kind = NotListed if event.get("reason") == "not_seen" else SettlementTimeout
        raise kind(str(event["text"]))
    row = event.get("row") if event is not None and status == "settled" else None
    if not isinstance(row, Mapping) or not row.get("transaction_id"):
        raise AlienEventError(
            f"The trigger's event (status {str(status)[:40]!r}) does not show where the withdrawal stands. It may "
            "be on chain or not; nothing was sent. Clear the task: it looks again."
        )
    return dict(row)
