"""The command, and the library's promises about processes."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import requests
from websockets.sync.client import connect

from pacifica_provider.sandbox import Sandbox
from pacifica_provider.sandbox.__main__ import main
from pacifica_provider.sandbox.server import _Uvicorn
from tests.contract.sandbox.wallet import WITHDRAW, Wallet, address_of
from tests.support.patience import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator

KEYS = {
    "base_url",
    "ws_url",
    "control_url",
    "solana_url",
    "account",
    "private_key",
    "agent_private_key",
    "api_config_key",
    "airflow_connection",
}
COMMAND = [sys.executable, "-W", "error", "-m", "pacifica_provider.sandbox"]


@contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """Start the command, and yield it with the line it printed."""
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def ended(process: subprocess.Popen[str], number: int) -> tuple[int, str, str]:
    """Send a signal; return the exit status, and what else was printed."""
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_line_and_a_clean_end(number: int) -> None:
    """It prints one line of JSON and nothing else, answers at once, and ends with status 0."""
    with running() as (process, ready):
        response = requests.get(
            ready["base_url"] + "/account", params={"account": ready["account"]}, timeout=PATIENCE_S
        )

        assert set(ready) == KEYS
        assert ready["base_url"].endswith("/api/v1")
        assert (response.status_code, response.headers["ratelimit"][:17]) == (200, '"credits";r=990;t')
        assert ended(process, number) == (0, "", "")


def test_it_ends_with_everything_open() -> None:
    """Open WebSockets, idle connections and hanging requests do not hold SIGTERM up."""
    with running() as (process, ready), requests.Session() as session:
        session.get(ready["base_url"] + "/spot_assets", timeout=PATIENCE_S)
        requests.post(
            ready["control_url"] + "/faults",
            json={"route": "pending", "kind": "hang", "seconds": 3600},
            timeout=PATIENCE_S,
        )
        host, port = ready["base_url"].split("/")[2].split(":")
        with socket.create_connection((host, int(port))) as held, connect(ready["ws_url"], proxy=None):
            held.sendall(f"GET /api/v1{WITHDRAW}/pending?account=x HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            time.sleep(0.1)

            assert ended(process, signal.SIGTERM) == (0, "", "")


def test_arguments() -> None:
    """Seed, port and settlement are arguments, and the connection it prints is one Airflow can read."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with running("--seed", "7", "--port", str(port), "--settle-after", "0") as (_process, ready):
        options = requests.get(ready["control_url"] + "/options", timeout=PATIENCE_S).json()["options"]
        connection = json.loads(ready["airflow_connection"])

    with Sandbox(seed=7) as again:
        assert (again.account, again.private_key) == (ready["account"], ready["private_key"])
    assert ready["base_url"] == f"http://127.0.0.1:{port}/api/v1"
    assert (options["settle_after_s"], options["enforce_credits"]) == (0, True)
    assert connection == {
        "conn_type": "pacifica",
        "login": ready["account"],
        "password": ready["agent_private_key"],
        "host": ready["base_url"],
        "extra": {"environment": "custom"},
    }
    assert address_of(ready["private_key"]) == ready["account"] != address_of(ready["agent_private_key"])


@pytest.mark.parametrize("arguments", [["--port", "99999"], ["--settle-after", "-1"], ["--settle-after", "nan"]])
def test_it_says_why_it_cannot_start(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that fails is status 1 and one line on stderr."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # this process keeps its own handlers

    assert main(arguments) == 1
    assert capsys.readouterr().err.startswith("the sandbox cannot start: ")


def test_main_runs_until_the_signal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The handler that `main` installs ends it, with the line printed and status 0."""
    monkeypatch.setattr(signal, "signal", lambda _number, handler: handler())

    assert main([]) == 0
    assert set(json.loads(capsys.readouterr().out)) == KEYS


def test_stopping_with_idle_and_half_sent_requests(sandbox: Sandbox) -> None:
    """Connections that have said nothing yet, or not enough, are dropped when the sandbox stops."""
    wallet = Wallet(sandbox)
    with (
        wallet.session,
        socket.create_connection(wallet.netloc) as idle,
        socket.create_connection(wallet.netloc) as half,
    ):
        wallet.get("/account")
        half.sendall(b"POST /api/v1" + WITHDRAW.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        time.sleep(0.05)
        sandbox.stop()

        assert (idle.recv(1), half.recv(1)) == (b"", b"")


def test_a_start_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox that does not come up in time says so."""

    async def never(server: _Uvicorn, sockets: object = None) -> None:
        """Wait for the end instead of starting."""
        server.servers = []
        await server.exit.wait()

    monkeypatch.setattr(_Uvicorn, "startup", never)
    monkeypatch.setattr("pacifica_provider.sandbox.server.START_TIMEOUT_S", 0.05)

    with pytest.raises(RuntimeError, match="did not start"):
        Sandbox().start()


def test_a_taken_port() -> None:
    """A port that is taken is an error at once, in the library too."""
    with Sandbox() as first, pytest.raises(OSError, match="in use"):
        Sandbox(port=int(first.base_url.split(":")[2].split("/")[0])).start()


def test_keys_differ_without_a_seed() -> None:
    """Without a seed two sandboxes have nothing in common, and both run at once."""
    with Sandbox() as one, Sandbox() as other:
        assert not {one.account, one.private_key, one.base_url} & {other.account, other.private_key, other.base_url}


def test_cheap_import() -> None:
    """Importing the class imports neither web server nor cryptography; running it imports no Airflow, no provider."""
    script = """
import sys
from pacifica_provider.sandbox import Sandbox
heavy = {"uvicorn", "starlette", "pydantic", "nacl", "websockets", "base58"} & set(sys.modules)
with Sandbox() as sandbox:
    pass
own = {name for name in sys.modules if name.startswith("pacifica_provider.")}
print(heavy, "airflow" in sys.modules, {name for name in own if not name.startswith("pacifica_provider.sandbox")})
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )

    assert done.stdout == "set() False set()\n"


def test_ipv6() -> None:
    """It can listen on IPv6's loopback."""
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    try:
        sandbox = Sandbox(host="::1").start()
    except OSError:
        pytest.skip("no IPv6 loopback on this machine")
    wallet = Wallet(sandbox)
    try:
        with wallet.session:
            assert "[::1]" in sandbox.base_url
            assert wallet.post().status_code == 200
    finally:
        sandbox.stop()
