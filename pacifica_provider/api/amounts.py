"""Amounts: text to exact ``Decimal`` to canonical text. No float ever enters, nothing is ever rounded."""

from __future__ import annotations

import re
from decimal import Context, Decimal

from pacifica_provider.exceptions import ConfigurationError

_GRAMMAR = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?", re.ASCII)
# 18 digits before the point and 18 behind it: the default context of 28 digits would round a difference.
_EXACT = Context(prec=40)
# The longest amount has 37 characters, the shortest private key 43.
_LONGEST_SHOWN = 40


def parse_amount(value: object, name: str = "amount", *, zero: bool = False) -> Decimal:
    """
    Read the amount of an order, or of what is kept back from one.

    Text such as ``"1"`` or ``"1.50"``, an ``int`` or a ``Decimal`` is taken as it is; the result is greater than
    zero, unless ``zero`` is allowed, and has at most 18 digits on either side of the point.

    :param name: what the message calls it.
    :raises ConfigurationError: for a float, a boolean, an exponent, a sign, white space, too many digits, zero,
        or anything else whose exact value is not in plain sight.
    """
    if isinstance(value, (bool, float)):
        raise ConfigurationError(
            f"{name} must be a number in quotes such as '1.5', not the {type(value).__name__} {value!r}: "
            "a binary float does not hold a decimal amount exactly. Quote it in the DAG, and leave "
            "render_template_as_native_obj off for it. Nothing was sent."
        )
    if isinstance(value, Decimal):
        value = format(value, "f") if value.is_finite() else str(value)
    elif isinstance(value, int):
        value = str(value)
    if not isinstance(value, str) or not _GRAMMAR.fullmatch(value):
        raise ConfigurationError(
            f"{name} must be a number in plain digits such as '1.5' (at most 18 digits on either side of the point, no "
            f"sign, exponent or space), not {shown(value)}. Nothing was sent."
        )
    amount = Decimal(value)
    if amount == 0 and not zero:
        raise ConfigurationError(f"{name} must be greater than zero. Nothing was sent.")
    return amount


def parse_wire_amount(value: object) -> Decimal:
    """
    Read an amount that the exchange sent: decimal text, zero allowed.

    :raises ValueError: for anything but plain decimal text; a JSON number is refused, since its exact value is gone.
    """
    if not isinstance(value, str) or not _GRAMMAR.fullmatch(value):
        raise ValueError(f"not a number in plain digits and quotes: {shown(value)}")
    return Decimal(value)


def canonical_text(amount: Decimal) -> str:
    """
    Print an amount in its one canonical form: no exponent, no leading or trailing zeros (``"1.50"`` → ``"1.5"``).

    Plain fixed-point text survives the exchange's own parse and print, which it must: the text is signed.
    """
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def difference(amount: Decimal, fee: Decimal) -> Decimal:
    """Return ``amount - fee`` exactly."""
    return _EXACT.subtract(amount, fee)


def shown(value: object) -> str:
    """Show a wrong value in a message; nothing of a long one, which may be a key in the wrong place."""
    text = repr(value)
    if len(text) <= _LONGEST_SHOWN:
        return text
    return f"a text of {len(value)} characters" if isinstance(value, str) else f"a {type(value).__name__}"
