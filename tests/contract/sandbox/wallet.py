"""A client of the sandbox for its own tests: signs with PyNaCl, posts with requests, shares no provider code."""

from __future__ import annotations

import json
import socket
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import base58
import requests
from nacl.signing import SigningKey

from tests.support.patience import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pacifica_provider.sandbox import Sandbox

WITHDRAW = "/account/spot_asset/withdraw"


def new_key() -> str:
    """Return an idempotency key nobody has used."""
    return str(uuid.uuid4())


def address_of(secret: str) -> str:
    """Return the address of a base58 secret."""
    return base58.b58encode(base58.b58decode(secret)[32:]).decode()


def sign(secret: str, header: Mapping[str, object], data: Mapping[str, object]) -> str:
    """Sign the documented message."""
    text = json.dumps({**header, "type": "withdraw_spot_asset", "data": data}, sort_keys=True, separators=(",", ":"))
    return base58.b58encode(SigningKey(base58.b58decode(secret)[:32]).sign(text.encode()).signature).decode()


class Wallet:
    """The sandbox's first account, or another one that `opened` describes."""

    def __init__(self, sandbox: Sandbox, opened: Mapping[str, Any] | None = None) -> None:
        self.sandbox = sandbox
        self.base_url = sandbox.base_url
        self.account: str = opened["account"] if opened else sandbox.account
        self.owner_secret: str = opened["private_key"] if opened else sandbox.private_key
        self.agent_secret: str = opened["agent_private_key"] if opened else sandbox.agent_private_key
        self.session = requests.Session()
        self.session.trust_env = False

    @property
    def netloc(self) -> tuple[str, int]:
        """Host and port for raw sockets."""
        parts = urlsplit(self.base_url)
        return parts.hostname or "", parts.port or 0

    def order(
        self,
        symbol: str = "SOL",
        amount: str = "1",
        key: str | None = None,
        *,
        agent: bool = True,
        secret: str | None = None,
        expiry: int | None = 10_000,
        late_ms: int = 0,
    ) -> dict[str, Any]:
        """Return a signed body. `late_ms` dates it that much before the exchange's time."""
        signer = secret or (self.agent_secret if agent else self.owner_secret)
        now = self.sandbox.exchange.now_ms() - late_ms
        header = {"timestamp": now, "expiry_window": 30_000 if expiry is None else expiry}
        data = {"symbol": symbol, "amount": amount, **({"idempotency_key": key} if key else {})}
        body = {"account": self.account, "signature": sign(signer, header, data), **header, **data}
        if expiry is None:
            del body["expiry_window"]
        return {**body, "agent_wallet": address_of(signer)} if agent else body

    def post(
        self, body: Mapping[str, Any] | bytes | None = None, timeout: float = PATIENCE_S, **order: Any
    ) -> requests.Response:
        """Post a body, or an order of these fields."""
        content = body if isinstance(body, bytes) else json.dumps(body if body is not None else self.order(**order))
        return self.session.post(
            self.base_url + WITHDRAW,
            data=content,
            headers={"Content-Type": "application/json", "Connection": "close"},
            timeout=timeout,
            allow_redirects=False,
        )

    def get(self, path: str, headers: Mapping[str, str] | None = None, **query: Any) -> requests.Response:
        """Get a list of the account."""
        params = {"account": self.account, **query}
        return self.session.get(self.base_url + path, params=params, headers=headers, timeout=PATIENCE_S)

    def pending(self) -> list[dict[str, Any]]:
        """Return the pending rows."""
        return list(self.get(WITHDRAW + "/pending").json()["data"])

    def history(self, **query: Any) -> dict[str, Any]:
        """Return a page of the history with its envelope."""
        return dict(self.get(WITHDRAW + "/history", **query).json())

    def options(self, **switches: object) -> None:
        """Flip switches."""
        self.sandbox.control("POST", "/options", switches)

    def fault(self, kind: str, **more: object) -> None:
        """Arm a fault."""
        self.sandbox.control("POST", "/faults", {"route": "withdraw", "kind": kind, **more})

    def shift(self, seconds: float) -> None:
        """Move the exchange's clock on."""
        clock = self.sandbox.exchange.clock
        self.sandbox.control("POST", "/clock", {"offset_ms": clock.offset_ms + round(seconds * 1000)})

    def settle(self, **which: object) -> list[dict[str, Any]]:
        """Settle what is pending."""
        return list(self.sandbox.control("POST", "/settle", which)["settled"])

    def debits(self) -> list[dict[str, Any]]:
        """Return the debits of the ledger."""
        return list(self.sandbox.control("GET", "/ledger")["debits"])

    def posts(self) -> list[dict[str, Any]]:
        """Return the POSTs of the ledger."""
        return list(self.sandbox.control("GET", "/ledger")["posts"])


def head_of(body: bytes, path: str = "/api/v1" + WITHDRAW) -> bytes:
    """Return the head of a POST, by default a withdrawal."""
    length = f"Content-Length: {len(body)}"
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: sandbox", length, "Connection: close", "", ""]).encode()


def raw_post(wallet: Wallet, body: Mapping[str, Any]) -> tuple[bytes, str]:
    """Post on a raw socket; return every byte that came back, and how the stream ended."""
    content = json.dumps(body).encode()
    with socket.create_connection(wallet.netloc, timeout=PATIENCE_S) as sock:
        sock.sendall(head_of(content) + content)
        received = b""
        while True:
            try:
                piece = sock.recv(65_536)
            except ConnectionResetError:
                return received, "reset"
            if not piece:
                return received, "closed"
            received += piece
