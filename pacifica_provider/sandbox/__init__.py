"""A local, stateful stand-in for the Pacifica exchange: `python -m pacifica_provider.sandbox`.

In a test suite: `with Sandbox() as sandbox: ...`. See docs/sandbox.md.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import os
    from types import TracebackType
    from typing import Self

    from pacifica_provider.sandbox.exchange import Exchange
    from pacifica_provider.sandbox.server import Server

__all__ = ["Sandbox"]


class Sandbox:
    """A local stand-in for the Pacifica exchange, on a free loopback port while the `with` block runs.

    `settle_after_s` settles each withdrawal that many seconds after it was accepted; None leaves it to
    `control("POST", "/settle")`. A `seed` makes the same keys at each start. Credits are counted and
    enforced only on request, so that a fast test suite does not meet a 429 it did not ask for.
    With `ssl_certfile` the sandbox speaks TLS, and its addresses name `localhost`.
    """

    base_url: str
    ws_url: str
    control_url: str
    solana_url: str
    account: str
    private_key: str
    agent_private_key: str
    api_config_key: str
    airflow_connection: str
    ready_line: str

    def __init__(
        self,
        settle_after_s: float | None = None,
        *,
        seed: int | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        enforce_credits: bool = False,
        ssl_certfile: str | os.PathLike[str] | None = None,
        ssl_keyfile: str | os.PathLike[str] | None = None,
    ) -> None:
        # Imported here, so that `from pacifica_provider.sandbox import Sandbox` costs nothing.
        from pacifica_provider.sandbox.exchange import Exchange
        from pacifica_provider.sandbox.options import Options

        options = Options().updated({"settle_after_s": settle_after_s, "enforce_credits": enforce_credits}, "Sandbox")
        self.exchange: Exchange = Exchange(seed=seed, options=options)
        self._bind = (host, port)
        self._tls = (ssl_certfile, ssl_keyfile)
        self._server: Server | None = None

    def start(self) -> Self:
        """Listen, and return once requests are answered."""
        from pacifica_provider.sandbox.server import Server

        server = Server(self.exchange, *self._bind, *self._tls)
        server.start()
        self._server = server
        ready = {**server.where, **self.exchange.main.as_json(server.where["base_url"])}
        self.ready_line = json.dumps(ready)
        for name, value in ready.items():
            setattr(self, name, value)
        return self

    def stop(self) -> None:
        """Drop every connection and stop."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def control(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Make a call of the control interface; a wrong one raises ValueError that says what is wrong."""
        if self._server is None:
            raise RuntimeError("the sandbox is not running")
        return cast("dict[str, Any]", self._server.control(method, path, {} if body is None else body))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
