"""
An order that was prepared for a withdrawal, and who approved it. Pure.

It lies in a ledger entry of its own, beside the withdrawal's record. What it says never changes: what a person was
shown is what is sent, or nothing is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from pacifica_provider.api.amounts import canonical_text
from pacifica_provider.exceptions import ConfigurationError, ParameterMismatch
from pacifica_provider.withdrawals.identity import Order, RunIdentity, fingerprint

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal

VERSION: Literal[1] = 1
APPROVE = "Approve"


@dataclass(frozen=True, slots=True)
class Prepared:
    """
    The order as a person is shown it: amounts as decimal text, ``fee_amount`` what it was then, if it was known.

    ``approved_by``: who approved it, once a withdrawal has begun on the strength of that.
    """

    key: str
    fingerprint: str
    account: str
    environment: str
    symbol: str
    amount: str
    fee_amount: str | None
    prepared_at_ms: int
    approved_by: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, identity: RunIdentity, order: Order, base_url: str, *, environment: str, fee: Decimal | None, now_ms: int
    ) -> Prepared:
        """Prepare an order."""
        return cls(
            key=identity.idempotency_key(),
            fingerprint=fingerprint(identity, base_url, order),
            account=identity.account,
            environment=environment,
            symbol=order.symbol,
            amount=order.amount_text,
            fee_amount=None if fee is None else canonical_text(fee),
            prepared_at_ms=now_ms,
        )

    @property
    def order(self) -> Order:
        """The order."""
        return Order.parse(self.symbol, self.amount)

    def to_json(self) -> dict[str, Any]:
        """Return the stored form: plain JSON, no secret."""
        return {"version": VERSION, **asdict(self), "approved_by": list(self.approved_by)}

    @classmethod
    def from_json(cls, data: object) -> Prepared:
        """Read the stored form; ``ConfigurationError`` if it is not one that this version writes."""
        try:
            prepared = msgspec.convert(data, cls)
            if prepared.to_json() != data or prepared.order.amount_text != prepared.amount:
                raise ValueError("it does not read back as it was written")
        except (ConfigurationError, msgspec.ValidationError, ValueError) as error:
            raise ConfigurationError(
                f"The order that was prepared cannot be read ({str(error)[:120]}). Nothing was sent by this try, and "
                "the entry was left as it is."
            ) from None
        return prepared

    def approved(self, approvals: Sequence[Approval]) -> Prepared:
        """
        Return it with who approved it: each time another person, after it was prepared.

        :raises ConfigurationError: if that is not so.
        """
        for each in approvals:
            if each.at_ms < self.prepared_at_ms:
                raise ConfigurationError(
                    f"{each.task_id!r} was answered before the order was prepared, so nobody has seen this order. Let "
                    "it wait for the task that prepares. Nothing was sent."
                )
        people = tuple(each.by for each in approvals)
        if len(set(people)) < len(people):
            raise ConfigurationError(
                f"{people[0]} approved more than once; each approval has to be another person's. Nothing was sent."
            )
        return replace(self, approved_by=people)

    def refuse_another(self, identity: RunIdentity, base_url: str, order: Order) -> None:
        """
        Refuse whatever is not exactly this order.

        :raises ParameterMismatch: naming both.
        """
        if fingerprint(identity, base_url, order) == self.fingerprint:
            return
        error = ParameterMismatch(
            f"Prepared for approval was {self.amount} {self.symbol} from account {self.account} on Pacifica "
            f"{self.environment}; now the task asks for {order}, or from another account or address. This try sent "
            "nothing. Give the task what was prepared, or start a new run for another order."
        )
        error.idempotency_key, error.symbol, error.amount = self.key, self.symbol, self.amount
        raise error


@dataclass(frozen=True, slots=True)
class Approval:
    """A person's yes: by whom, when, in which task."""

    task_id: str
    by: str
    at_ms: int


def read_approval(task_id: str, said: object) -> Approval:
    """
    Read what Airflow's ``ApprovalOperator`` returned.

    :raises ConfigurationError: unless a person chose Approve; a default that a time-out chose is no person.
    """
    answer: Mapping[str, Any] = said if isinstance(said, Mapping) else {}
    user, at = answer.get("responded_by_user"), answer.get("responded_at")
    if isinstance(at, str):
        try:
            at = datetime.fromisoformat(at)
        except ValueError:
            at = None
    person = str(user.get("name") or user.get("id") or "") if isinstance(user, Mapping) else ""
    if answer.get("chosen_options") != [APPROVE] or not person or not isinstance(at, datetime) or at.tzinfo is None:
        raise ConfigurationError(
            f"No person approved this in the task {task_id!r}: it has to be an ApprovalOperator, before this task, "
            "that somebody answered with Approve. Nothing was sent."
        )
    return Approval(task_id, person, int(at.timestamp() * 1000))
