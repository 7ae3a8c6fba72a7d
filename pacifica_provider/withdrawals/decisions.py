"""
A person's decision on a withdrawal whose outcome is not known: ``adopt``, ``repost`` or ``void``.

It lies in a store entry of its own, so that it never races the record, names the key it is for, and is applied by
the next try before anything is compared or sent::

    {"key": "…", "action": "adopt", "batch_nonce": 42, "outside_window": false, "by": "ana", "why": "seen on chain"}
    {"key": "…", "action": "repost", "rows": [41, 43], "by": "ana", "why": "support confirmed: nothing arrived"}
    {"key": "…", "action": "void", "by": "ana", "why": "paid by hand"}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pacifica_provider.api.amounts import difference
from pacifica_provider.api.models import parse_batch_nonce
from pacifica_provider.exceptions import ConfigurationError
from pacifica_provider.withdrawals.candidates import attempt_of
from pacifica_provider.withdrawals.records import Record, Row, StoredReceipt

Action = Literal["adopt", "repost", "void"]
_FIELDS = {"key", "action", "batch_nonce", "rows", "outside_window", "by", "why", "decision_id"}


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person decided, who it was and why. ``rows`` are the batch nonces known to be somebody else's."""

    key: str
    action: Action
    by: str
    why: str
    batch_nonce: int | None = None
    rows: tuple[int, ...] = ()
    outside_window: bool = False
    decision_id: str = ""

    @classmethod
    def from_json(cls, data: object) -> Decision:
        """Read a decision; ``ConfigurationError`` naming what is wrong with it."""
        if isinstance(data, str):
            try:
                data = json.loads(data)
            except ValueError:
                raise _refused("it is not JSON") from None
        if not isinstance(data, Mapping):
            raise _refused("it is not an object")
        unknown = sorted(set(data) - _FIELDS)
        if unknown:
            raise _refused(f"unknown fields {unknown}")
        action = data.get("action")
        if action not in ("adopt", "repost", "void"):  # a tuple: what is no text need not be hashable
            raise _refused("action is not one of adopt, repost, void")
        for name in ("key", "by", "why"):
            if not isinstance(data.get(name), str) or not data[name]:
                raise _refused(f"{name} is missing")
        if not isinstance(data.get("rows") or [], list):
            raise _refused("rows is not a list of batch nonces")
        try:
            nonce = parse_batch_nonce(data.get("batch_nonce")) if action == "adopt" else None
            rows = tuple(parse_batch_nonce(row) for row in data.get("rows") or ())
        except (ValueError, TypeError) as error:
            raise _refused(str(error)) from None
        digest = hashlib.sha256(json.dumps(dict(data), sort_keys=True).encode()).hexdigest()[:16]
        return cls(
            key=data["key"],
            action=action,
            by=data["by"],
            why=data["why"],
            batch_nonce=nonce,
            rows=rows,
            outside_window=data.get("outside_window") is True,
            decision_id=str(data.get("decision_id") or digest),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the stored form."""
        plain: dict[str, Any] = {
            "key": self.key,
            "action": self.action,
            "by": self.by,
            "why": self.why,
            "decision_id": self.decision_id,
        }
        if self.action == "adopt":
            plain |= {"batch_nonce": self.batch_nonce, "outside_window": self.outside_window}
        if self.action == "repost":
            plain["rows"] = list(self.rows)
        return plain


def apply_decision(record: Record, decision: Decision, rows: Sequence[Row], *, now_ms: int, skew_ms: int) -> Record:
    """
    Return the record as the person decided. Pure.

    ``rows`` are the candidates of the record as just read (not needed for ``void``).

    :raises ConfigurationError: if the decision names a row that is not there, leaves a candidate unnamed, would repost
        what was answered 409, or comes while a signature may still be accepted. It stays in the store then.
    """
    live_ms = max((a.expires_ms + skew_ms for a in record.sent_attempts), default=0) - now_ms
    if live_ms > 0:
        raise _refused(f"a signed request may still be accepted; clear the task again in {live_ms // 1000 + 1} s")
    record = replace(record, decisions=(*record.decisions, decision.decision_id))
    said = f"{decision.action} by {decision.by}: {decision.why}"
    if decision.action == "void":
        return replace(record, state="void", reason=said)
    if decision.action == "adopt":
        return _adopted(record, decision, rows, said, skew_ms)
    return _reposted(record, decision, rows, said)


def receipt_of(record: Record, row: Row, *, skew_ms: int) -> StoredReceipt:
    """Return the receipt of a withdrawal that was found in the lists instead of answered."""
    attempt = attempt_of(row, record.attempts, skew_ms=skew_ms)
    return StoredReceipt(
        batch_nonce=row.batch_nonce,
        requested_amount=record.order.amount,
        fee_amount=None if row.net_amount is None else difference(row.amount, row.net_amount),
        submitted_at_ms=attempt.signed_ms if attempt else row.created_at_ms,
        adopted=True,
    )


def _adopted(record: Record, decision: Decision, rows: Sequence[Row], said: str, skew_ms: int) -> Record:
    row = next((row for row in rows if row.batch_nonce == decision.batch_nonce), None)
    if row is None:
        raise _refused(
            f"no listed withdrawal with batch_nonce {decision.batch_nonce} and the amount of this order could be it"
        )
    inside = not record.sent_attempts or attempt_of(row, record.sent_attempts, skew_ms=skew_ms)
    if not inside and not decision.outside_window:
        raise _refused(
            f"batch_nonce {decision.batch_nonce} was created at {row.created_at_ms}, when no request of this record "
            "was valid; if it is the one all the same, say so with outside_window"
        )
    return replace(
        record, state="accepted", receipt=receipt_of(record, row, skew_ms=skew_ms), reason=said, candidates=()
    )


def _reposted(record: Record, decision: Decision, rows: Sequence[Row], said: str) -> Record:
    if any(attempt.status == 409 for attempt in record.attempts):
        raise _refused(
            "Pacifica has answered 409 to this key, so posting it again is futile while the key is remembered and "
            "dangerous after; void it, and order anew with a new run or withdrawal_ref"
        )
    there = {row.batch_nonce for row in rows}
    missing, unnamed = sorted(set(decision.rows) - there), sorted(there - set(decision.rows))
    if missing:
        raise _refused(f"it names batch_nonce {missing}, which is not a candidate")
    if unnamed:
        raise _refused(
            f"it does not name batch_nonce {unnamed}; a repost must name every listed row that is not this one"
        )
    attempts = tuple(replace(a, outcome="overruled") if a.outcome == "unanswered" else a for a in record.attempts)
    return replace(
        record,
        state="open",
        reposted=True,
        before=(*record.before, *rows),
        attempts=attempts,
        candidates=(),
        reason=said,
    )


def _refused(why: str) -> ConfigurationError:
    return ConfigurationError(f"The decision on this withdrawal cannot be applied: {why}.")
