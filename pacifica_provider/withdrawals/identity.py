"""
Which withdrawal is meant: the run's identity, the order, the idempotency key and the fingerprint.

The key is a function of what the run *is*, never of how an attempt came about: no try number, no time, no amount.
With the amount in it, a template that drifts between tries would mint a new key and pay a second time; left out,
drift is a mismatch that can be seen and refused. A change to anything in this module is a breaking change.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from dataclasses import dataclass, replace
from decimal import Decimal

from pacifica_provider.api.amounts import canonical_text, difference, parse_amount, shown
from pacifica_provider.exceptions import ConfigurationError

# Frozen for ever: another namespace is another key for every run there is.
NS_V1 = uuid.UUID("9c1f6a52-7c0b-4d5e-9a3b-5d0e6f2b8a41")

# A number alone is an amount in the wrong place.
_SYMBOL = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9][A-Za-z0-9._-]{0,31}", re.ASCII)
_REFERENCE = re.compile(r"[ -~]{1,128}", re.ASCII)
# What a template renders to from a value that is not there, in Python, JSON, pandas and numpy.
MISSING = ("", "None", "null", "nan", "NaN", "NaT", "<NA>")


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """
    What one withdrawal is identified by, within one deployment and one account.

    ``withdrawal_ref`` tells apart several withdrawals of one task (mapped tasks need one); ``scope`` tells apart
    deployments that share an account on purpose. The agent wallet is not part of it: rotating it changes no key.

    :raises ConfigurationError: if a part is missing, or ``check_reference`` refuses the reference.
    """

    account: str
    dag_id: str
    run_id: str
    task_id: str
    withdrawal_ref: str | None = None
    scope: str = ""

    def __post_init__(self) -> None:
        for name in ("account", "dag_id", "run_id", "task_id"):
            value: object = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise ConfigurationError(
                    f"A withdrawal needs a {name}, and there is none: outside a DAG run there is no identity, and "
                    "without one nothing is sent."
                )
        if self.withdrawal_ref is not None:
            check_reference(self.withdrawal_ref)

    def idempotency_key(self) -> str:
        """Return the key as lower-case UUID text (version 5), the same for every try, clear and backfill."""
        parts = [self.account, self.dag_id, self.run_id, self.task_id, self.withdrawal_ref or ""]
        return str(uuid.uuid5(NS_V1, _compact(["v1", self.scope, *parts])))


@dataclass(frozen=True, slots=True)
class Order:
    """What to withdraw: symbol as the exchange writes it, exact gross amount. Equal amounts are equal orders."""

    symbol: str
    amount: Decimal

    @classmethod
    def parse(cls, symbol: object, amount: object) -> Order:
        """
        Read an order from what a template rendered to.

        :raises ConfigurationError: if the symbol has other characters than a symbol can have, or the amount is not
            plain decimal text. Symbols are case sensitive (``kBONK``) and passed on as they are.
        """
        if not isinstance(symbol, str) or not _SYMBOL.fullmatch(symbol) or symbol in MISSING:
            raise ConfigurationError(
                "symbol must be 1 to 32 ASCII letters, digits, dots, dashes or underscores, such as 'SOL', not "
                f"{shown(symbol)}. Nothing was sent."
            )
        return cls(symbol, parse_amount(amount))

    @property
    def amount_text(self) -> str:
        """The amount in its canonical text, as it is signed."""
        return canonical_text(self.amount)

    def __str__(self) -> str:
        return f"{self.amount_text} {self.symbol}"


def tagged(order: Order, key: str) -> Order:
    """
    Return the order with up to 9,999 units of the eighth decimal place taken off, derived from the key.

    So a withdrawal can be recognised in any list by its amount alone. Two equal orders get the same amount once in
    9,999 times.

    :raises ConfigurationError: if the amount is too small for it.
    """
    units = 1 + int(hashlib.sha256(key.encode("ascii")).hexdigest(), 16) % 9_999
    amount = difference(order.amount, Decimal(units).scaleb(-8))
    if amount <= 0:
        raise ConfigurationError(
            f"{order} is too small for tag_amount, which takes up to 0.00009999 off. Nothing was sent."
        )
    return replace(order, amount=amount)


def fingerprint(identity: RunIdentity, base_url: str, order: Order) -> str:
    """
    Return SHA-256 hex of identity, base URL, account, symbol and exact amount.

    Two tries with one key and two fingerprints mean that the order drifted between them.
    """
    parts = ["v1", identity.idempotency_key(), base_url, identity.account, order.symbol, order.amount_text]
    return hashlib.sha256(_compact(parts).encode("ascii")).hexdigest()


def check_reference(value: object) -> None:
    """
    Refuse a reference that is not 1 to 128 printable ASCII characters, or that is blank or ``"None"``.

    :raises ConfigurationError: saying so; it is not repeated.
    """
    if not isinstance(value, str) or not _REFERENCE.fullmatch(value) or value.strip() in {"", "None"}:
        raise ConfigurationError(
            "withdrawal_ref must be 1 to 128 printable ASCII characters, not blank and not 'None' or 'nan', or left "
            "out; if it is a template, it rendered to something else. Nothing was sent."
        )


def _compact(value: list[str]) -> str:
    """JSON framing, so that ("a_b", "c") and ("a", "b_c") never meet; ASCII, so that bytes are unambiguous."""
    return json.dumps(value, separators=(",", ":"))
