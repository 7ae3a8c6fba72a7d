"""Faults that break the connection, as a client on a real socket meets them."""

from __future__ import annotations

import http.client
import json
import socket
import time

import pytest
import requests

from pacifica_provider.sandbox.faults import KINDS
from tests.contract.sandbox.wallet import WITHDRAW, Wallet, head_of, raw_post
from tests.support.patience import PATIENCE_S

BOTH = pytest.mark.parametrize(("when", "debits"), [("before_commit", 0), ("after_commit", 1)])


@BOTH
@pytest.mark.parametrize("size", [0, 1, 30, 200])
def test_reset(wallet: Wallet, when: str, debits: int, size: int) -> None:
    """`reset` sends so many bytes of the answer and then a true TCP RST."""
    wallet.fault("reset", when=when, bytes=size)

    received, end = raw_post(wallet, wallet.order())

    assert (len(received), end, len(wallet.debits())) == (size, "reset", debits)
    assert received == b"HTTP/1.1 "[: len(received)] + received[9:]
    assert wallet.posts()[0]["fault"] == f"reset/{when}"
    assert (wallet.posts()[0]["outcome"], wallet.posts()[0]["status"]) == (
        "accepted" if debits else "not_executed",
        None,
    )


@BOTH
def test_close(wallet: Wallet, when: str, debits: int) -> None:
    """`close` ends the connection properly, with no answer at all."""
    wallet.fault("close", when=when)

    assert (raw_post(wallet, wallet.order()), len(wallet.debits())) == ((b"", "closed"), debits)


def test_requests_sees_reset_and_close(wallet: Wallet) -> None:
    """Both are connection errors to a client library."""
    for kind in ("reset", "close"):
        wallet.fault(kind)
        with pytest.raises(requests.ConnectionError):
            wallet.post()


@pytest.mark.parametrize("size", [0, 1, 10_000])
def test_reset_request(wallet: Wallet, size: int) -> None:
    """`reset_request` sends RST once so much of the body has come in, while the client is still sending."""
    wallet.fault("reset_request", bytes=size)
    body = b" " * 1_000_000 + json.dumps(wallet.order()).encode()
    with socket.create_connection(wallet.netloc, timeout=PATIENCE_S) as sock:
        sock.sendall(head_of(body) + body[: max(0, size - 1)])
        if size:
            time.sleep(0.05)
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):  # one byte too few: nothing has happened
                sock.recv(1)
            sock.settimeout(10)
            sock.sendall(b" ")

        with pytest.raises(ConnectionResetError):
            sock.recv(1)

    assert (wallet.posts(), wallet.debits()) == ([], [])
    assert wallet.sandbox.control("GET", "/ledger")["requests"] == {"withdraw": 1}


def test_reset_request_beyond_the_end(wallet: Wallet) -> None:
    """A body that ends before so much has come in is reset at its end."""
    wallet.fault("reset_request", bytes=10**6)

    assert raw_post(wallet, wallet.order()) == (b"", "reset")
    assert wallet.debits() == []


@pytest.mark.parametrize("path", ["/api/v1" + WITHDRAW, "/control/settle"])
def test_a_client_that_leaves_while_sending(wallet: Wallet, path: str) -> None:
    """Half a request is no request."""
    with socket.create_connection(wallet.netloc, timeout=PATIENCE_S) as sock:
        sock.sendall(head_of(b"x" * 100, path) + b"{")
        time.sleep(0.05)
    time.sleep(0.05)

    assert (wallet.posts(), wallet.post().status_code) == ([], 200)


@BOTH
def test_truncate(wallet: Wallet, when: str, debits: int) -> None:
    """`truncate` promises the full length, sends less, and closes: a careful reader notices."""
    wallet.fault("truncate", when=when, bytes=10)
    connection = http.client.HTTPConnection(*wallet.netloc, timeout=PATIENCE_S)
    connection.request("POST", "/api/v1" + WITHDRAW, json.dumps(wallet.order()))
    response = connection.getresponse()

    with pytest.raises(http.client.IncompleteRead) as caught:
        response.read()

    connection.close()
    assert (len(caught.value.partial), len(wallet.debits())) == (10, debits)
    assert response.status == (200 if debits else 503)


def test_truncate_at_every_offset(wallet: Wallet) -> None:
    """The body can be cut anywhere."""
    whole, _ = raw_post(wallet, wallet.order())
    body = whole.partition(b"\r\n\r\n")[2]

    for size in range(len(body)):
        wallet.fault("truncate", when="after_commit", bytes=size)
        cut, end = raw_post(wallet, wallet.order())

        assert (len(cut.partition(b"\r\n\r\n")[2]), end) == (size, "closed")


@BOTH
def test_drip(wallet: Wallet, when: str, debits: int) -> None:
    """`drip` sends the answer byte by byte: each read succeeds, and the whole takes as long as it takes."""
    wallet.fault("drip", when=when, seconds=0.001)
    started = time.monotonic()

    received, end = raw_post(wallet, wallet.order())

    assert (end, len(wallet.debits())) == ("closed", debits)
    assert json.loads(received.partition(b"\r\n\r\n")[2])["success"] is bool(debits)
    assert time.monotonic() - started > 0.001 * len(received)


def test_drip_ends_with_the_client(wallet: Wallet) -> None:
    """A drip stops when nobody listens any more, and the sandbox goes on."""
    wallet.fault("drip", seconds=0.05)
    with pytest.raises(requests.RequestException):
        wallet.post(timeout=0.01)
    time.sleep(0.2)

    assert wallet.post().status_code == 200


@pytest.mark.parametrize("route", ["pending", "history", "account", "spot_assets", "bridge_info", "bridge_parameters"])
@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"echo", "duplicate_in_progress"}))
def test_reads_fail_too(wallet: Wallet, route: str, kind: str) -> None:
    """Every GET route meets every kind of fault that does not need an order, and then works again."""
    paths = {
        "pending": WITHDRAW + "/pending",
        "history": WITHDRAW + "/history",
        "account": "/account",
        "spot_assets": "/spot_assets",
        "bridge_info": "/spot_assets/bridge/info",
        "bridge_parameters": "/spot_assets/bridge/parameters/SOL",
    }
    sample = {"seconds": 0.0, "bytes": 5, "status": 503, "location": "/x"}
    wallet.fault(kind, route=route, **{name: sample[name] for name in KINDS[kind].needs})
    try:
        first: object = wallet.session.get(
            wallet.base_url + paths[route],
            params={"account": wallet.account},
            timeout=PATIENCE_S,
            allow_redirects=False,
        ).status_code
    except requests.RequestException:
        first = "broken"

    expected = {"html": 200, "hang": 200, "drip": 200, "huge": 200, "no_date": 200, "redirect": 307, "status": 503}
    assert first == expected.get(kind, "broken")
    assert wallet.get(paths[route]).status_code == 200
