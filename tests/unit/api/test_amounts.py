"""Amounts: exact from text to signature, or refused."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacifica_provider.api.amounts import canonical_text, difference, parse_amount, parse_wire_amount
from pacifica_provider.exceptions import ConfigurationError

DIGITS = st.text("0123456789", min_size=1, max_size=18)
PLAIN = st.one_of(DIGITS, st.builds("{}.{}".format, DIGITS, DIGITS))
POSITIVE = PLAIN.filter(lambda text: Decimal(text) > 0)


@pytest.mark.parametrize(
    "value",
    [
        "0",
        "0.000",
        0,
        Decimal(0),
        "-1",
        -1,
        Decimal(-1),
        "+1",
        "1e3",
        "1E-7",
        "1e-7",
        "NaN",
        "nan",
        Decimal("NaN"),
        "Infinity",
        Decimal("Infinity"),
        "inf",
        1.0,
        0.1,
        float("nan"),
        True,
        False,
        None,
        "",
        " 1",
        "1 ",
        "1\n",
        "1 000",
        "1_000",
        "1,5",
        "1.",
        ".5",
        "1.5.0",
        "0x10",
        "٣",
        "\uff11",
        "1234567890123456789",
        "1.1234567890123456789",
        Decimal("1E+18"),
        Decimal("1E-19"),
        10**18,
        b"1",
        ["1"],
        {"amount": "1"},
        "{{ params.amount }}",
        "all",
    ],
)
def test_an_amount_that_is_not_in_plain_sight_is_refused(value: Any) -> None:
    """Everything but a positive plain decimal is a ConfigurationError that says nothing was sent (F52)."""
    with pytest.raises(ConfigurationError) as caught:
        parse_amount(value)

    assert str(caught.value).startswith("amount must be ")
    assert "Nothing was sent." in str(caught.value)


@pytest.mark.parametrize("value", [0.5, 1e-7, 3.0])
def test_a_float_is_refused_with_the_reason_and_the_way_out(value: float) -> None:
    """A float names its own type and render_template_as_native_obj, which makes floats of templates (F52)."""
    with pytest.raises(ConfigurationError, match=r"not the float .*render_template_as_native_obj"):
        parse_amount(value)


@pytest.mark.parametrize("text", ["x" * 500, "9" * 500, "\n" * 500])
def test_a_refusal_quotes_at_most_sixty_characters(text: str) -> None:
    """A long wrong amount is cut in the message, line breaks escaped (S23)."""
    with pytest.raises(ConfigurationError) as caught:
        parse_amount(text)

    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1", "1"),
        ("1.50", "1.5"),
        ("1.00000000", "1"),
        ("010.10", "10.1"),
        ("100", "100"),
        ("0.00000001", "0.00000001"),
        ("0.000000000000000001", "0.000000000000000001"),
        ("999999999999999999.999999999999999999", "999999999999999999.999999999999999999"),
        (7, "7"),
        (Decimal("1.5"), "1.5"),
        (Decimal("1E+3"), "1000"),
        (Decimal("1E-7"), "0.0000001"),
    ],
)
def test_an_amount_has_one_canonical_text(value: Any, expected: str) -> None:
    """Text, int and Decimal keep their exact value; the text has no exponent and no spare zeros (F52)."""
    assert expected == canonical_text(parse_amount(value))


@given(POSITIVE)
def test_parse_and_print_keep_every_digit(text: str) -> None:
    """Any grammatical amount survives parse and print exactly, in plain fixed-point text (F52)."""
    amount = parse_amount(text)
    printed = canonical_text(amount)

    assert type(amount) is Decimal
    assert Decimal(text) == amount == parse_amount(printed)
    assert set(printed) <= set("0123456789.")
    assert printed == canonical_text(parse_amount(printed))
    assert not (printed.endswith("0") and "." in printed)


@given(POSITIVE)
def test_equal_amounts_print_equally(text: str) -> None:
    """Trailing zeros do not make another amount (F14: ``1`` equals ``1.00000000``)."""
    padded = f"{text}.0" if "." not in text else f"{text}0"[: len(text.split(".", maxsplit=1)[0]) + 19]

    assert canonical_text(parse_amount(text)) == canonical_text(parse_amount(padded))


@given(st.floats())
def test_no_float_is_ever_an_amount(value: float) -> None:
    """Not even a whole float is taken (F52)."""
    with pytest.raises(ConfigurationError):
        parse_amount(value)


@given(st.text())
def test_any_text_is_an_exact_amount_or_refused(text: str) -> None:
    """There is no third way: what parses has the value that ``Decimal`` reads, what does not raises (F52)."""
    try:
        amount = parse_amount(text)
    except ConfigurationError:
        return

    assert Decimal(text) == amount


@given(PLAIN, PLAIN)
def test_a_difference_is_never_rounded(left: str, right: str) -> None:
    """Net plus fee is the gross amount again, to the last of 36 digits."""
    assert Fraction(left) - Fraction(right) == Fraction(difference(Decimal(left), Decimal(right)))


@pytest.mark.parametrize("value", [1, 1.5, None, True, "", "-1", "1e3", "NaN", " 1", "1.", "9" * 19, ["1"]])
def test_an_amount_of_the_exchange_is_plain_decimal_text(value: Any) -> None:
    """A JSON number has lost its exact value before anyone sees it, so it is a ValueError (F14, S23)."""
    with pytest.raises(ValueError, match="not a number in plain digits and quotes"):
        parse_wire_amount(value)


@pytest.mark.parametrize(("value", "expected"), [("0", Decimal(0)), ("0.00100000", Decimal("0.001"))])
def test_the_exchange_may_say_zero(value: str, expected: Decimal) -> None:
    """A fee of nothing is a fee."""
    assert expected == parse_wire_amount(value)
