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
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from pacifica_provider.api.amounts import canonical_text, parse_wire_amount
from pacifica_provider.exceptions import ConfigurationError
from pacifica_provider.withdrawals.matching import ListedRow, receipt_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pacifica_provider.withdrawals.record import Record, Row

_Text = Annotated[str, Meta(pattern=r"\S")]
_Count = Annotated[int, Meta(ge=0)]


class Void(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="action", tag="void"):
    """This run never withdraws. ``decision_id`` tells whether it was applied already."""

    key: _Text
    by: _Text
    why: _Text
    decision_id: str = ""


class Adopt(Void, frozen=True, kw_only=True, tag="adopt"):
    """The named row is this withdrawal; ``amount`` as it was listed."""

    fingerprint: _Text
    batch_nonce: _Count
    created_at_ms: _Count
    amount: str


class Repost(Void, frozen=True, kw_only=True, omit_defaults=True, tag="repost"):
    """
    Nothing moved by so many attempts, and the batch nonces in ``rows`` are somebody else's.

    ``restores``: how often the ledger had come back from a backup; after another time the attempts may be others.
    """

    fingerprint: _Text
    attempts: _Count
    rows: tuple[_Count, ...]
    restores: _Count = 0


Decision = Adopt | Repost | Void


def read_decision(data: object) -> Decision:
    """Read a decision, an object or its JSON text; ``ConfigurationError`` naming what is wrong with it."""
    try:
        if isinstance(data, str):
            data = msgspec.json.decode(data)
        decision: Decision = msgspec.convert(data, Decision)
        if isinstance(decision, Adopt):
            parse_wire_amount(decision.amount)
    except (msgspec.DecodeError, ValueError) as error:
        raise ConfigurationError(f"This is no decision on a withdrawal (adopt, repost or void): {error}.") from None
    if decision.decision_id:
        return decision
    digest = hashlib.sha256(json.dumps(stored_form(decision), sort_keys=True).encode()).hexdigest()[:16]
    return msgspec.structs.replace(decision, decision_id=digest)


def stored_form(decision: Decision) -> dict[str, Any]:
    """Return it as plain JSON."""
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(decision))
    return plain


class StaleDecisionError(Exception):
    """The decision does not fit the withdrawal as it stands now."""


def adopt(record: Record, row: Row, *, by: str, why: str, decision_id: str) -> Adopt:
    """Return the decision that this listed row is the record's withdrawal."""
    return Adopt(
        record.key,
        by,
        why,
        decision_id,
        fingerprint=record.fingerprint,
        batch_nonce=row.batch_nonce,
        created_at_ms=row.created_at_ms,
        amount=canonical_text(row.amount),
    )


def repost(record: Record, rows: Sequence[int], *, by: str, why: str, decision_id: str) -> Repost:
    """Return the decision that nothing moved, and that the named batch nonces are somebody else's."""
    return Repost(
        record.key,
        by,
        why,
        decision_id,
        fingerprint=record.fingerprint,
        attempts=len(record.attempts),
        rows=tuple(rows),
        restores=record.restores,
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
    if isinstance(decision, (Adopt, Repost)) and decision.fingerprint != record.fingerprint:
        raise StaleDecisionError("it was taken on another order")
    said = f"{action(decision)} by {decision.by}: {decision.why}"
    record = replace(record, decisions=(*record.decisions, decision.decision_id), reason=said)
    if isinstance(decision, Adopt):
        return _adopted(record, decision, listed, tolerance_ms)
    if isinstance(decision, Repost):
        return _reposted(record, decision, listed)
    return replace(record, state="void")


def action(decision: Decision) -> str:
    """Return the word for it: adopt, repost or void."""
    return str(type(decision).__struct_config__.tag)


def to_be_named(listed: Sequence[ListedRow]) -> list[int]:
    """Return the batch nonces that a repost has to name: of every row whose amount could be the order's."""
    return sorted({each.row.batch_nonce for each in listed if each.fit != "other"})


def _adopted(record: Record, decision: Adopt, listed: Sequence[ListedRow], tolerance_ms: int) -> Record:
    named, amount = (decision.batch_nonce, decision.created_at_ms), Decimal(decision.amount)
    found = [
        each
        for each in listed
        if (each.row.batch_nonce, each.row.created_at_ms) == named and amount in _amounts(record, each.row)
    ]
    if not found:
        raise StaleDecisionError(
            f"no withdrawal with batch_nonce {named[0]}, created_at {named[1]} and amount {decision.amount} is listed "
            "any more"
        )
    if found[0].fit == "other":
        raise StaleDecisionError(f"batch_nonce {named[0]} has another amount than this order")
    receipt = receipt_of(record, found[0].row, tolerance_ms=tolerance_ms)
    return replace(record, state="accepted", receipt=receipt)


def _amounts(record: Record, row: Row) -> set[Decimal | None]:
    """Return what the row may have been listed with when it was named: a pending row's gross becomes net."""
    return {row.amount, row.net_amount, record.order.amount}


def _reposted(record: Record, decision: Repost, listed: Sequence[ListedRow]) -> Record:
    if record.duplicate:
        raise StaleDecisionError(
            "Pacifica has answered 409 to this key, so posting it again is futile while the key is remembered and "
            "dangerous after; void it, and order anew with a new run or withdrawal_ref"
        )
    if decision.restores != record.restores:
        raise StaleDecisionError(
            f"it was taken when the ledger had come back from a backup {decision.restores} times, now it has "
            f"{record.restores} times (restores)"
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
