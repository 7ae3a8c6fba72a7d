"""How much a sweep takes, and what the exchange would certainly refuse."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacifica_provider.api.models import BridgeParameters, SpotAsset, SpotBalance
from pacifica_provider.exceptions import ConfigurationError
from pacifica_provider.withdrawals.identity import Order
from pacifica_provider.withdrawals.sweep import Available, Sweep, refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

BRIDGE = BridgeParameters("SOL", Decimal("0.001"), 9)


def available(
    there: str | None = "10", *, bridge: BridgeParameters | None = BRIDGE, active: bool | None = True
) -> Available:
    """Return what an account of 100 SOL has of which so much may be withdrawn; ``None``: it lists no SOL."""
    balances: Sequence[SpotBalance] = ()
    if there is not None:
        balances = (SpotBalance("SOL", Decimal(100), Decimal(there), Decimal(0)),)
    return Available(balances, () if active is None else (SpotAsset("SOL", active),), bridge)


@pytest.mark.parametrize(
    ("there", "sweep", "amount"),
    [
        ("10", {}, "10"),
        ("10", {"reserve": "2.5"}, "7.5"),
        ("10", {"reserve": "2.5", "minimum": "7.5"}, "7.5"),
        ("10", {"reserve": "2.5", "minimum": "7.50000001"}, None),
        ("10", {"reserve": "10"}, None),
        ("10", {"reserve": "11"}, None),
        ("0", {}, None),
        (None, {}, None),
        ("0.001", {}, None),
        ("0.0011", {}, "0.0011"),
        ("1.234567899", {}, "1.23456789"),
        ("999999999999999999.123456789123456789", {}, "999999999999999999.12345678"),
    ],
    ids=str,
)
def test_a_sweep_takes_what_there_is_but_for_the_reserve(there: str, sweep: dict[str, Any], amount: str | None) -> None:
    """Rounded down, never up; nothing where it is under the minimum, or no more than the fee."""
    order = Sweep.parse("SOL", sweep.get("reserve"), sweep.get("minimum")).order(available(there))

    assert order == (None if amount is None else Order("SOL", Decimal(amount)))


def test_a_sweep_has_no_more_places_than_the_asset() -> None:
    """On chain there is nothing smaller."""
    bridge = BridgeParameters("SOL", Decimal("0.001"), 2)

    assert Sweep("SOL").order(available("1.999", bridge=bridge)) == Order("SOL", Decimal("1.99"))


@given(
    there=st.decimals(0, 10**9, places=12),
    reserve=st.decimals(0, 10**9, places=12),
    minimum=st.decimals(0, 10**9, places=8),
)
def test_a_sweep_never_takes_more_than_there_is(there: Decimal, reserve: Decimal, minimum: Decimal) -> None:
    """Nor of the reserve, nor less than the minimum."""
    order = Sweep("SOL", reserve, minimum).order(available(format(there, "f")))

    assert order is None or minimum <= order.amount <= there - reserve


@pytest.mark.parametrize(("name", "wrong"), [("reserve", "-1"), ("minimum", "1e3"), ("reserve", 0.5), ("minimum", "x")])
def test_a_part_that_is_no_amount_is_refused_by_its_name(name: str, wrong: object) -> None:
    """Zero is one, and so is none."""
    with pytest.raises(ConfigurationError, match=f"^{name} must be a number in quotes|^{name} must be a number in pl"):
        Sweep.parse("SOL", **{"reserve": "0", "minimum": 0, name: wrong})

    assert Sweep.parse("SOL", "0.0", None) == Sweep("SOL")


@pytest.mark.parametrize(
    ("amount", "seen", "why"),
    [
        ("10", available(), None),
        ("10.00000001", available(), "only 10 SOL may be withdrawn now"),
        ("10", available(None), None),
        ("0.001", available(), "the fee is 0.001 SOL"),
        ("10", available(bridge=None), "SOL has no active bridge"),
        ("10", available(active=False), "SOL is not active"),
        ("10", available(active=None), None),
    ],
)
def test_only_what_is_certain_refuses(amount: str, seen: Available, why: str | None) -> None:
    """An asset that no list shows is a doubt."""
    assert refusal(Order("SOL", Decimal(amount)), seen) == why


def test_a_sweep_says_what_it_is() -> None:
    """For the log's first line."""
    assert str(Sweep.parse("SOL", "2.50", "1")) == "all SOL but for 2.5, at least 1"
    assert str(Sweep("SOL")) == "all SOL"
