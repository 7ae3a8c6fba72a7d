"""Which request a fault meets, and what happens around a hang."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import requests

from pacifica_provider.sandbox import Sandbox
from pacifica_provider.sandbox.faults import KINDS
from tests.contract.sandbox.wallet import WITHDRAW, Wallet, new_key
from tests.support.patience import until

if TYPE_CHECKING:
    from collections.abc import Mapping


def statuses(wallet: Wallet, count: int) -> list[int]:
    """Post so often."""
    return [wallet.post().status_code for _ in range(count)]


def test_count_and_skip(wallet: Wallet) -> None:
    """A fault lets `skip` requests pass and hits the next `count`."""
    wallet.fault("status", status=503, skip=1, count=2)

    assert statuses(wallet, 4) == [200, 503, 503, 200]
    (fault,) = wallet.sandbox.control("GET", "/faults")["faults"]
    assert (fault["hits"], fault["spent"]) == (2, True)


def test_count_null(wallet: Wallet, sandbox: Sandbox) -> None:
    """`count` null lasts until the faults are deleted."""
    wallet.fault("status", status=503, count=None)
    before = statuses(wallet, 3)
    sandbox.control("DELETE", "/faults")

    assert (before, statuses(wallet, 1)) == ([503] * 3, [200])


def test_one_fault_a_request(wallet: Wallet) -> None:
    """Faults are met in the order they were armed, one a request."""
    wallet.fault("status", status=500)
    wallet.fault("status", status=502)

    assert statuses(wallet, 3) == [500, 502, 200]


def test_routes(wallet: Wallet) -> None:
    """A fault meets its own route only; `*` meets any."""
    wallet.fault("status", status=503, route="pending")
    withdraw = wallet.post().status_code
    pending = wallet.get(WITHDRAW + "/pending").status_code
    wallet.fault("status", status=504, route="*", count=2)

    assert (withdraw, pending) == (200, 503)
    assert (wallet.get("/account").status_code, wallet.post().status_code) == (504, 504)


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        ({}, "'kind' must be one of reset, "),
        ({"kind": "explode"}, "'kind' must be one of reset, "),
        ({"kind": ["reset"]}, "'kind' must be"),
        ({"kind": "reset", "route": "deposit"}, "'route' must be one of withdraw, "),
        ({"kind": "reset", "when": "during"}, "'when' must be one of before_commit, after_commit"),
        ({"kind": "reset", "count": 0}, "'count' must be"),
        ({"kind": "reset", "count": True}, "'count' must be"),
        ({"kind": "reset", "skip": -1}, "'skip' must be"),
        ({"kind": "reset", "bytes": "all"}, "'bytes' must be a number of bytes"),
        ({"kind": "reset", "body": "x"}, "takes no 'body'; it takes route, when, kind, count, skip, bytes"),
        ({"kind": "hang", "seconds": -1}, "'seconds' must be"),
        ({"kind": "status", "status": 100}, "'status' must be a status from 200 to 599"),
        ({"kind": "status", "status": 503, "headers": {"Content-Length": "1"}}, "'headers' must be"),
        ({"kind": "status", "status": 503, "headers": {"X": "a\r\nb"}}, "'headers' must be"),
        ({"kind": "status", "status": 503, "body": 7}, "'body' must be"),
        ({"kind": "redirect", "location": "x", "status": 200}, "'status' must be a status from 300 to 399"),
        ({"kind": "echo", "route": "pending"}, "'route' must be withdraw"),
    ],
)
def test_bad_faults(sandbox: Sandbox, wish: Mapping[str, object], says: str) -> None:
    """A fault that cannot be armed is refused in words, and arms nothing."""
    with pytest.raises(ValueError, match=r"^POST /faults") as caught:
        sandbox.control("POST", "/faults", dict(wish))

    assert says in str(caught.value)
    assert sandbox.control("GET", "/faults") == {"faults": []}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_one_body_fits_every_kind(sandbox: Sandbox, kind: str) -> None:
    """What a kind has no use for is ignored, and what it needs has a default, so that bodies can be made by a loop."""
    union = {} if kind == "redirect" else {"status": 503}

    sandbox.control("POST", "/faults", {"kind": kind, **union, "seconds": 2, "bytes": 10})
    sandbox.control("POST", "/faults", {"kind": kind})

    armed = [fault["kind"] for fault in sandbox.control("GET", "/faults")["faults"]]
    assert armed == [kind, kind]


def test_hang_before_commit_lands_later(wallet: Wallet) -> None:
    """A request that is held before its commit lands after the hold, although its client has long gone."""
    wallet.fault("hang", when="before_commit", seconds=2)
    with pytest.raises(requests.Timeout):
        wallet.post(timeout=0.1)
    while_held = (len(wallet.debits()), wallet.posts()[0]["outcome"])
    until(wallet.debits)

    assert while_held == (0, "in_progress")
    assert (len(wallet.debits()), wallet.posts()[0]["outcome"]) == (1, "accepted")


def test_hang_before_commit_answers(wallet: Wallet) -> None:
    """A client that waits gets its receipt."""
    wallet.fault("hang", when="before_commit", seconds=0.1)
    started = time.monotonic()

    assert (wallet.post().status_code, time.monotonic() - started >= 0.1) == (200, True)


def test_hang_after_commit(wallet: Wallet) -> None:
    """A request that is held after its commit is debited at once."""
    key = new_key()
    wallet.fault("hang", when="after_commit", seconds=3600)
    with pytest.raises(requests.Timeout):
        wallet.post(timeout=0.2, key=key)

    assert (len(wallet.debits()), wallet.post(key=key).status_code) == (1, 409)


def test_a_held_request_without_key_holds_nobody_up(wallet: Wallet) -> None:
    """Only requests with the same key wait for each other."""
    wallet.fault("hang", seconds=3600)
    with pytest.raises(requests.Timeout):
        wallet.post(timeout=0.05)

    assert wallet.post().status_code == 200


@pytest.mark.parametrize("fault", [{"kind": "hang", "seconds": 3600}, {"kind": "drip", "seconds": 3600}])
def test_stopping_does_not_wait(fault: dict[str, object]) -> None:
    """A sandbox stops at once, whatever it holds, and what it held never commits."""
    sandbox = Sandbox().start()
    wallet = Wallet(sandbox)
    sandbox.control("POST", "/faults", fault)
    with wallet.session, pytest.raises(requests.RequestException):
        wallet.post(timeout=0.1)
    sandbox.stop()

    assert not sandbox.exchange.book.rows


def test_faults_cost_credits_but_429_costs_no_fault(wallet: Wallet) -> None:
    """A request that the quota refuses meets no fault."""
    wallet.options(enforce_credits=True, quota=1)
    wallet.fault("status", status=503, count=2)

    assert [response.status_code for response in (wallet.get("/account"), wallet.post())] == [200, 429]
    assert wallet.sandbox.control("GET", "/faults")["faults"][0]["hits"] == 0
