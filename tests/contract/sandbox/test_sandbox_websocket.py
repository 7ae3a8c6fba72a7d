"""The channel `account_transfers`."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from pacifica_provider.sandbox import Sandbox
from tests.support.patience import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.contract.sandbox.wallet import Wallet


@contextmanager
def dialled(sandbox: Sandbox) -> Iterator[ClientConnection]:
    """Open a socket that sends no pings of its own."""
    with connect(sandbox.ws_url, proxy=None, ping_interval=None, close_timeout=0.5) as socket:
        yield socket


def say(socket: ClientConnection, message: object) -> None:
    """Send JSON."""
    socket.send(json.dumps(message))


def hear(socket: ClientConnection) -> dict[str, Any]:
    """Receive JSON."""
    return dict(json.loads(socket.recv(timeout=PATIENCE_S)))


def subscribe(socket: ClientConnection, account: str, method: str = "subscribe") -> dict[str, Any]:
    """Subscribe, and return the acknowledgement."""
    say(socket, {"method": method, "params": {"source": "account_transfers", "account": account}})
    return hear(socket)


def silent(socket: ClientConnection) -> bool:
    """Whether nothing comes."""
    try:
        socket.recv(timeout=0.2)
    except TimeoutError:
        return True
    return False


def test_events(wallet: Wallet, sandbox: Sandbox) -> None:
    """A withdrawal is announced when accepted and when confirmed, with the documented short names."""
    with dialled(sandbox) as socket:
        acknowledged = subscribe(socket, wallet.account)
        wallet.post(amount="1.5")
        pending = hear(socket)
        wallet.settle()
        confirmed = hear(socket)

    common = {"u": wallet.account, "a": "SOL", "am": "1.49900000", "bn": 42, "ra": "1.50000000", "f": "0.00100000"}
    times = [pending["data"].pop("t"), confirmed["data"].pop("t")]
    assert acknowledged == {
        "channel": "subscribe",
        "data": {"source": "account_transfers", "account": wallet.account},
    }
    assert pending == {"channel": "account_transfers", "data": {**common, "e": "withdrawal_pending"}}
    assert confirmed == {
        "channel": "account_transfers",
        "data": {**common, "e": "withdrawal_confirmed", "tx": wallet.debits()[0]["transaction_id"]},
    }
    assert times == sorted(times)


def test_no_snapshot(wallet: Wallet, sandbox: Sandbox) -> None:
    """Subscribing tells nothing of what happened before."""
    wallet.post()
    with dialled(sandbox) as socket:
        subscribe(socket, wallet.account)

        assert silent(socket)


def test_only_what_was_subscribed(wallet: Wallet, sandbox: Sandbox) -> None:
    """Other accounts are not heard, nor one's own after unsubscribing."""
    with dialled(sandbox) as socket:
        subscribe(socket, "somebody else")
        subscribe(socket, wallet.account)
        subscribe(socket, wallet.account, "unsubscribe")
        wallet.post()

        assert silent(socket)


def test_confirmed_by_the_clock(wallet: Wallet, sandbox: Sandbox) -> None:
    """A settlement by settle_after_s is announced unasked, once its transaction id is visible."""
    wallet.options(settle_after_s=60, transaction_id_delay_s=60, ws_idle_timeout_s=3600)
    with dialled(sandbox) as socket:
        subscribe(socket, wallet.account)
        wallet.post()
        hear(socket)
        wallet.shift(61)
        early = silent(socket)
        wallet.shift(61)

        assert (early, hear(socket)["data"]["e"]) == (True, "withdrawal_confirmed")


def test_ping(sandbox: Sandbox) -> None:
    """A ping is a JSON message, and so is its pong."""
    with dialled(sandbox) as socket:
        say(socket, {"method": "ping"})

        assert hear(socket) == {"channel": "pong"}


@pytest.mark.parametrize(
    "message",
    [
        "no JSON",
        "[" * 100_000,
        "[]",
        '{"method":"subscribe"}',
        '{"method":"subscribe","params":{"source":"prices"}}',
        '{"method":"dance","params":{"source":"account_transfers","account":"x"}}',
    ],
)
def test_bad_messages(sandbox: Sandbox, message: str) -> None:
    """A message that means nothing is answered with an error, and the socket stays open."""
    with dialled(sandbox) as socket:
        socket.send(message)
        error = hear(socket)
        say(socket, {"method": "ping"})

        assert (error["channel"], error["code"], hear(socket)) == ("error", 400, {"channel": "pong"})


def closed(socket: ClientConnection) -> int | None:
    """Wait for the end, and return the close code; None for a connection that was cut."""
    with pytest.raises(ConnectionClosed) as caught:
        socket.recv(timeout=PATIENCE_S)
    return caught.value.rcvd.code if caught.value.rcvd else None


def test_idle(wallet: Wallet, sandbox: Sandbox) -> None:
    """A socket that says nothing for a minute is closed; one that pings is not."""
    with dialled(sandbox) as quiet, dialled(sandbox) as lively:
        wallet.shift(59)
        say(lively, {"method": "ping"})
        hear(lively)
        wallet.shift(2)

        assert closed(quiet) == 1001
        assert silent(lively)


def test_idle_timeout_in_real_time(wallet: Wallet, sandbox: Sandbox) -> None:
    """The minute is a switch."""
    wallet.options(ws_idle_timeout_s=0.1)
    with dialled(sandbox) as socket:
        assert closed(socket) == 1001


def test_a_day(wallet: Wallet, sandbox: Sandbox) -> None:
    """No socket lives longer than a day, however lively."""
    wallet.options(ws_idle_timeout_s=10**6)
    with dialled(sandbox) as socket:
        wallet.shift(86_401)

        assert closed(socket) == 1001


def test_cut(sandbox: Sandbox) -> None:
    """Every socket can be cut, without a close frame; new ones are welcome."""
    with dialled(sandbox) as socket:
        say(socket, {"method": "ping"})
        hear(socket)

        assert sandbox.control("POST", "/ws", {"action": "cut"})["cut"] == 1
        assert closed(socket) is None
    with dialled(sandbox) as socket:
        say(socket, {"method": "ping"})
        assert hear(socket) == {"channel": "pong"}


def test_refuse(sandbox: Sandbox) -> None:
    """The handshake can be refused, and accepted again."""
    sandbox.control("POST", "/ws", {"action": "refuse"})
    with pytest.raises(InvalidStatus) as caught, dialled(sandbox):
        pass
    sandbox.control("POST", "/ws", {"action": "accept"})

    with dialled(sandbox):
        assert caught.value.response.status_code == 403


def test_silence(wallet: Wallet, sandbox: Sandbox) -> None:
    """A silent exchange keeps the socket open and says nothing, not even pong."""
    with dialled(sandbox) as socket:
        subscribe(socket, wallet.account)
        sandbox.control("POST", "/ws", {"action": "silence"})
        wallet.post()
        say(socket, {"method": "ping"})

        assert silent(socket)
        assert sandbox.control("GET", "/ws") == {"mode": "silence", "connections": 1}


def test_stopping_closes_sockets() -> None:
    """A sandbox stops at once with sockets open, and says goodbye."""
    sandbox = Sandbox().start()
    with dialled(sandbox) as socket:
        say(socket, {"method": "ping"})
        hear(socket)
        sandbox.stop()

        assert closed(socket) == 1012


def test_a_connection_takes_twenty_subscriptions_to_a_channel(sandbox: Sandbox) -> None:
    """The next is an error, an unsubscribed one makes room, and one that stands may be asked for again."""
    with dialled(sandbox) as socket:
        told = [subscribe(socket, f"account {number}")["channel"] for number in range(21)]
        told.append(subscribe(socket, "account 3")["channel"])
        told.append(subscribe(socket, "account 3", "unsubscribe")["channel"])
        told.append(subscribe(socket, "account 20")["channel"])

    assert told == ["subscribe"] * 20 + ["error", "subscribe", "unsubscribe", "subscribe"]


def test_an_address_holds_so_many_connections(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those beyond are refused until one has ended."""
    monkeypatch.setattr("pacifica_provider.sandbox.websocket.MOST_CONNECTIONS", 2)
    with dialled(sandbox), dialled(sandbox) as second:
        subscribe(second, "an account")
        with pytest.raises(InvalidStatus), dialled(sandbox):
            pass
