"""
A person's decision on a withdrawal whose outcome is not known: ``adopt``, ``repost`` or ``void``. Pure.

It lies in a ledger entry of its own, so that it never races the record, and the next try applies it before anything
is compared or sent. ``adopt`` and ``repost`` are bound to what the person saw: if that has changed, the decision is
dropped with a line that says so, and the try goes on as if it had not been taken. ``void`` only stops, so it is bound
to nothing but the key::

    {"key": "…", "action": "adopt", "fingerprint": "…", "batch_nonce": 42, "created_at_ms": 1800000000000,
     "amount": "1.5", "by": "ana", "why": "seen on chain"}
    {"key": "…", "action": "repost", "fingerprint": "…", "attempts": 1, "rows": [41], "by": "ana", "why": "support …"}
    {"key": "…", "action": "void", "by": "ana", "why": "paid by hand"}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from pacifica_provider.api.amounts import canonical_text, parse_wire_amount
from pacifica_provider.api.models import parse_batch_nonce
from pacifica_provider.exceptions import ConfigurationError
from pacifica_provider.withdrawals.matching import ListedRow, receipt_of

if TYPE_CHECKING:
    from pacifica_provider.withdrawals.record import Record, Row

Action = Literal["adopt", "repost", "void"]
_COMMON = {"key", "action", "by", "why", "decision_id"}
_FIELDS: Mapping[Action, frozenset[str]] = {
    "adopt": frozenset(_COMMON | {"fingerprint", "batch_nonce", "created_at_ms", "amount"}),
    "repost": frozenset(_COMMON | {"fingerprint", "attempts", "rows"}),
    "void": frozenset(_COMMON),
}


@dataclass(frozen=True, slots=True)
class Decision:
    """
    What a person decided, who it was and why.

    ``adopt`` names one row, its ``amount`` as it was listed; ``repost`` the batch nonces that are somebody else's, and
    how many attempts there were.
    """

    key: str
    action: Action
    by: str
    why: str
    decision_id: str
    fingerprint: str = ""
    batch_nonce: int = 0
    created_at_ms: int = 0
    amount: Decimal = Decimal(0)
    attempts: int = 0
    rows: tuple[int, ...] = ()

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
        action = data.get("action")
        if action not in ("adopt", "repost", "void"):  # a tuple: what is no text need not be hashable
            raise _refused("action is not one of adopt, repost, void")
        wanted = _FIELDS[action]
        unknown, missing = sorted(set(data) - wanted), sorted(wanted - set(data) - {"decision_id"})
        if unknown or missing:
            raise _refused(f"{action} has unknown fields {unknown}" if unknown else f"{action} lacks {missing}")
        texts = wanted & {"key", "by", "why", "fingerprint"}
        wrong = [name for name in sorted(texts) if not isinstance(data[name], str) or not data[name].strip()]
        if wrong:
            raise _refused(f"{wrong[0]} is not text")
        try:
            read: dict[str, Any] = {
                name: read_field(data[name]) for name, read_field in _READERS.items() if name in wanted
            }
        except (ValueError, TypeError) as error:
            raise _refused(str(error)) from None
        digest = hashlib.sha256(json.dumps(dict(data), sort_keys=True).encode()).hexdigest()[:16]
        return cls(
            action=action,
            decision_id=str(data.get("decision_id") or digest),
            **{name: data[name] for name in texts},
            **read,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the stored form."""
        plain = {
            "key": self.key,
            "action": self.action,
            "by": self.by,
            "why": self.why,
            "decision_id": self.decision_id,
            "fingerprint": self.fingerprint,
            "batch_nonce": self.batch_nonce,
            "created_at_ms": self.created_at_ms,
            "amount": canonical_text(self.amount),
            "attempts": self.attempts,
            "rows": list(self.rows),
        }
        return {name: plain[name] for name in sorted(_FIELDS[self.action])}


class StaleDecisionError(Exception):
    """The decision does not fit the withdrawal as it stands now."""


def adopt(record: Record, row: Row, *, by: str, why: str, decision_id: str) -> Decision:
    """Return the decision that this listed row is the record's withdrawal."""
    return Decision(
        record.key,
        "adopt",
        by,
        why,
        decision_id,
        fingerprint=record.fingerprint,
        batch_nonce=row.batch_nonce,
        created_at_ms=row.created_at_ms,
        amount=row.amount,
    )


def repost(record: Record, rows: Sequence[int], *, by: str, why: str, decision_id: str) -> Decision:
    """Return the decision that nothing moved, and that the named batch nonces are somebody else's."""
    return Decision(
        record.key,
        "repost",
        by,
        why,
        decision_id,
        fingerprint=record.fingerprint,
        attempts=len(record.attempts),
        rows=tuple(rows),
    )


def apply_decision(record: Record, decision: Decision, listed: Sequence[ListedRow], *, tolerance_ms: int) -> Record:
    """
    Return the record as the person decided.

    ``listed`` are the rows of the symbol since the record began, as just read (not needed for ``void``). No request of
    the record may be live any more.

    :raises StaleDecisionError: if the withdrawal is not what the decision was taken on; the text says what changed.
    """
    if decision.key != record.key:
        raise StaleDecisionError(f"it is for key {decision.key}, this withdrawal has {record.key}")
    if record.state not in {"open", "unknown"}:
        raise StaleDecisionError(f"the withdrawal is {record.state}, so nothing is left to decide")
    if decision.action != "void" and decision.fingerprint != record.fingerprint:
        raise StaleDecisionError("it was taken on another order")
    said = f"{decision.action} by {decision.by}: {decision.why}"
    record = replace(record, decisions=(*record.decisions, decision.decision_id), reason=said)
    if decision.action == "void":
        return replace(record, state="void")
    if decision.action == "adopt":
        return _adopted(record, decision, listed, tolerance_ms)
    return _reposted(record, decision, listed)


def to_be_named(listed: Sequence[ListedRow]) -> list[int]:
    """Return the batch nonces that a repost has to name: of every row whose amount could be the order's."""
    return sorted({each.row.batch_nonce for each in listed if each.fit != "other"})


def _adopted(record: Record, decision: Decision, listed: Sequence[ListedRow], tolerance_ms: int) -> Record:
    named = (decision.batch_nonce, decision.created_at_ms)
    found = [
        each
        for each in listed
        if (each.row.batch_nonce, each.row.created_at_ms) == named and decision.amount in _amounts(record, each.row)
    ]
    if not found:
        raise StaleDecisionError(
            f"no withdrawal with batch_nonce {named[0]}, created_at {named[1]} and amount "
            f"{canonical_text(decision.amount)} is listed any more"
        )
    if found[0].fit == "other":
        raise StaleDecisionError(f"batch_nonce {named[0]} has another amount than this order")
    receipt = receipt_of(record, found[0].row, tolerance_ms=tolerance_ms)
    return replace(record, state="accepted", receipt=receipt)


def _amounts(record: Record, row: Row) -> set[Decimal | None]:
    """Return what the row may have been listed with when it was named: a pending row's gross becomes net."""
    return {row.amount, row.net_amount, record.order.amount}


def _reposted(record: Record, decision: Decision, listed: Sequence[ListedRow]) -> Record:
    if record.duplicate:
        raise StaleDecisionError(
            "Pacifica has answered 409 to this key, so posting it again is futile while the key is remembered and "
            "dangerous after; void it, and order anew with a new run or withdrawal_ref"
        )
    if decision.attempts != len(record.attempts):
        raise StaleDecisionError(
            f"it was taken after {decision.attempts} requests, now there are {len(record.attempts)}"
        )
    unnamed = sorted(set(to_be_named(listed)) - set(decision.rows))
    if unnamed:
        raise StaleDecisionError(f"batch_nonce {unnamed} is listed, which it does not name")
    # Whatever came of them, nothing moved by them, the person says.
    attempts = tuple(
        replace(a, outcome="overruled", amount=None) if a.outcome != "unsent" and a.status != 429 else a
        for a in record.attempts
    )
    others = tuple(each.row for each in listed if each.fit != "other")
    return replace(record, state="open", maybe_sent=False, before=(*record.before, *others), attempts=attempts)


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"not a whole number of at least 0: {str(value)[:40]!r}")
    return value


def _nonces(value: object) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise ValueError("rows is not a list of batch nonces")
    return tuple(parse_batch_nonce(row) for row in value)


_READERS: Mapping[str, Callable[[object], Any]] = {
    "batch_nonce": parse_batch_nonce,
    "created_at_ms": _count,
    "amount": parse_wire_amount,
    "attempts": _count,
    "rows": _nonces,
}


def _refused(why: str) -> ConfigurationError:
    return ConfigurationError(f"This is no decision on a withdrawal: {why}.")
