"""Paging through the history, and the lists of assets and bridges."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.contract.sandbox.wallet import WITHDRAW, Wallet

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pacifica_provider.sandbox import Sandbox


@pytest.mark.parametrize("shown", ["accepted", "settled"])
def test_history_pages(wallet: Wallet, shown: str) -> None:
    """Following the cursor meets every row once, newest first, even while new rows arrive."""
    wallet.options(history_time=shown)
    for number in range(1, 8):
        wallet.post(amount=str(number))
        wallet.settle()
    pages, cursor = [wallet.history(limit=3)], None
    wallet.post(amount="99")
    wallet.settle()
    while pages[-1]["has_more"]:
        cursor = pages[-1]["next_cursor"]
        pages.append(wallet.history(limit=3, cursor=cursor))

    nonces = [[row["batch_nonce"] for row in page["data"]] for page in pages]

    assert nonces == [[48, 47, 46], [45, 44, 43], [42]]
    assert pages[-1]["next_cursor"] is None


def test_history_page_size(wallet: Wallet) -> None:
    """The exchange's page size is the default, and the most a limit can ask for."""
    wallet.options(history_page_size=2)
    for _ in range(3):
        wallet.post()
    wallet.settle()

    sizes = [len(wallet.history(**query)["data"]) for query in ({}, {"limit": 1}, {"limit": 50})]

    assert sizes == [2, 1, 2]


@pytest.mark.parametrize(
    "query", [{"limit": "0"}, {"limit": "-1"}, {"limit": "x"}, {"limit": "9" * 20}, {"cursor": "x"}, {"account": ""}]
)
def test_bad_queries(wallet: Wallet, query: Mapping[str, str]) -> None:
    """A query that cannot be read is a 400 in the envelope."""
    assert wallet.history(**query)["code"] == 400


def test_assets_and_bridges(wallet: Wallet, sandbox: Sandbox) -> None:
    """Assets, bridges and the parameters of one bridge have the documented fields."""
    sandbox.control("POST", "/assets", {"symbol": "BTC", "bridge": "inactive"})
    sandbox.control("POST", "/assets", {"symbol": "OLD", "active": False, "decimals": 2, "fee": "1"})
    assets = wallet.get("/spot_assets").json()["data"]
    everything = wallet.get("/spot_assets", include_inactive="true").json()["data"]
    bridges = wallet.get("/spot_assets/bridge/info").json()["data"]
    bridge = wallet.get("/spot_assets/bridge/parameters/SOL").json()["data"]

    assert [asset["symbol"] for asset in assets] == ["SOL", "BTC", "kBONK"]
    assert [asset["symbol"] for asset in everything] == ["SOL", "BTC", "kBONK", "OLD"]
    assert [each["symbol"] for each in bridges] == ["SOL", "kBONK", "OLD"]
    assert (bridge["withdrawal_fee"], bridge["decimals"], bridge["mint"]) == ("0.001", 9, None)
    assert wallet.get("/spot_assets/bridge/parameters/BTC").status_code == 404
    assert wallet.get(WITHDRAW + "/pending").headers["content-type"] == "application/json"
