"""Credits and the clock in the headers."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import pytest

from pacifica_provider.sandbox import Sandbox
from tests.contract.sandbox.wallet import WITHDRAW, Wallet

if TYPE_CHECKING:
    from collections.abc import Iterator

HISTORY = WITHDRAW + "/history"


@pytest.fixture
def metered() -> Iterator[Wallet]:
    """Yield a wallet whose exchange enforces credits, as the command does."""
    with Sandbox(enforce_credits=True) as sandbox:
        wallet = Wallet(sandbox)
        with wallet.session:
            yield wallet


def test_costs_and_headers(metered: Wallet) -> None:
    """A request costs one credit and history twelve; the headers show ten times that."""
    first, second = metered.get("/account").headers, metered.get(HISTORY).headers

    assert first["ratelimit"] in ('"credits";r=990;t=60', '"credits";r=990;t=59')
    assert first["ratelimit-policy"] == '"credits";q=1000;w=60'
    assert second["ratelimit"].startswith('"credits";r=870;t=')


def test_api_key(metered: Wallet) -> None:
    """A known API config key has its own, larger quota and cheaper history; an unknown one has neither."""
    key = {"PF-API-KEY": metered.sandbox.api_config_key}
    stranger = {"PF-API-KEY": "12345678_unknown"}

    assert metered.get(HISTORY, headers=key).headers["ratelimit"].startswith('"credits";r=2960;')
    assert metered.get(HISTORY, headers=stranger).headers["ratelimit"].startswith('"credits";r=880;')


def test_subaccounts_share(metered: Wallet) -> None:
    """A main account and its subaccounts spend from one quota."""
    opened = metered.sandbox.control("POST", "/accounts", {"subaccount_of": metered.account})
    metered.get("/account", headers={"PF-API-KEY": metered.sandbox.api_config_key})

    response = metered.get("/account", headers={"PF-API-KEY": opened["api_config_key"]})

    assert response.headers["ratelimit"].startswith('"credits";r=2980;')


def test_429(metered: Wallet) -> None:
    """A spent quota answers 429 in the envelope, costs nothing more, and comes back after a minute."""
    metered.options(quota=5)
    statuses = [metered.get("/account").status_code for _ in range(7)]
    refused = metered.post()
    metered.shift(61)

    assert statuses == [200] * 5 + [429] * 2
    assert (refused.status_code, refused.json()["code"]) == (429, 429)
    assert refused.headers["ratelimit"].startswith('"credits";r=0;t=')
    assert metered.post().status_code == 200
    assert len(metered.posts()) == 1


def test_rolling(metered: Wallet) -> None:
    """The minute rolls: each credit comes back by itself."""
    metered.options(quota=2)
    metered.get("/account")
    metered.shift(40)
    metered.get("/account")
    metered.shift(21)

    assert [metered.get("/account").status_code for _ in range(2)] == [200, 429]


def test_history_cost(metered: Wallet) -> None:
    """What history costs is a switch."""
    metered.options(history_cost=1)

    assert metered.get(HISTORY).headers["ratelimit"].startswith('"credits";r=990;')


def test_clock_turned_back_refunds(metered: Wallet) -> None:
    """Turning the clock back cannot lock a client out."""
    metered.options(quota=1)
    metered.get("/account")
    metered.shift(-3600)

    assert metered.get("/account").status_code == 200


def test_not_enforced(wallet: Wallet) -> None:
    """The library does not enforce credits unless asked, and its headers always show a full quota."""
    responses = [wallet.get(HISTORY) for _ in range(20)]

    assert {response.status_code for response in responses} == {200}
    assert responses[-1].headers["ratelimit"] == '"credits";r=1000;t=60'


@pytest.mark.parametrize("offset", [0, 86_400, -86_400])
def test_date(wallet: Wallet, offset: int) -> None:
    """Every answer is dated by the exchange's clock, wherever that has been shifted."""
    wallet.shift(offset)

    seen = [
        parsedate_to_datetime(response.headers["date"]).timestamp() - time.time()
        for response in (wallet.get("/account"), wallet.post(), wallet.get("/nowhere"))
    ]

    assert all(abs(each - offset) < 3 for each in seen)
