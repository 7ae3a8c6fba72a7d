"""
What a connection of type ``pacifica`` may hold, checked. Pure: text in, a frozen record or a clear error out.

Every problem is found before anything is sent, and no message repeats a value that could be a secret.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import SplitResult, parse_qsl, urlsplit

from pacifica_provider.api.amounts import canonical_text, parse_amount
from pacifica_provider.api.signing import check_address, looks_like_a_key
from pacifica_provider.exceptions import ConfigurationError
from pacifica_provider.get_provider_info import get_provider_info
from pacifica_provider.withdrawals.identity import Order

if TYPE_CHECKING:
    from decimal import Decimal

BASE_URLS = {
    "mainnet": "https://api.pacifica.fi/api/v1",
    "testnet": "https://test-api.pacifica.fi/api/v1",
}
_WS_URLS = {"mainnet": "wss://ws.pacifica.fi/ws", "testnet": "wss://test-ws.pacifica.fi/ws"}
# Strict, since another parser may read an odd host as another one.
_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOSTNAME = re.compile(rf"{_LABEL}(\.{_LABEL})*", re.ASCII)
_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)
_WORD = re.compile(r"[a-zA-Z_]{1,30}", re.ASCII)
EXTRAS = (
    "environment",
    "agent_wallet",
    "pf_api_key",
    "expiry_window_ms",
    "timeout_s",
    "withdrawal_limits",
    "idempotency_scope",
    "key_trust_minutes",
    "solana_rpc_url",
)
# What is shorter in the address of a Solana RPC is no token: a masker would take such words out of every log.
_LEAST_TOKEN = 12


class ConnectionLike(Protocol):
    """The part of Airflow's ``Connection`` that is read here."""

    login: str | None
    host: str | None
    port: int | None
    schema: str | None

    @property
    def extra(self) -> str | None:
        """The extra as text."""

    @property
    def extra_dejson(self) -> Any:
        """The extra as an object."""


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """
    A checked connection, without its private key.

    ``api_config_key`` is a secret and does not show, nor does ``solana_rpc_url``, which may hold one;
    ``withdrawal_limits`` is ``None`` where none are set.
    """

    account: str
    environment: str
    base_url: str
    ws_url: str
    agent_wallet: str | None = None
    api_config_key: str | None = field(default=None, repr=False)
    expiry_window_ms: int = 10_000
    timeout_s: float = 10.0
    withdrawal_limits: Mapping[str, Decimal] | None = None
    idempotency_scope: str = ""
    key_trust_ms: int = 9 * 60_000
    solana_rpc_url: str | None = field(default=None, repr=False)

    @classmethod
    def of_connection(cls, connection: ConnectionLike) -> ConnectionSettings:
        """
        Check an Airflow connection. The password is not read, so this is all the triggerer ever needs.

        :raises ConfigurationError: naming the field and what it may hold.
        """
        try:
            return cls._of(connection)
        except ConfigurationError as error:
            refusal = ConfigurationError(str(error))
        # A new error, raised where nothing is left to show: the old one's frames hold the connection, whose repr shows
        # the password, and whatever was written into a wrong field.
        del connection
        raise refusal

    @classmethod
    def _of(cls, connection: ConnectionLike) -> ConnectionSettings:
        try:
            extra = connection.extra_dejson
            if not extra and connection.extra:
                json.loads(connection.extra)  # Airflow takes what it cannot read for nothing
        except ValueError:
            raise _refused("extra is not JSON") from None
        if not isinstance(extra, Mapping):
            raise _refused("extra is not a JSON object")
        return cls.parse(
            login=connection.login,
            host=connection.host,
            port=connection.port,
            schema=connection.schema,
            extra=extra,
        )

    @classmethod
    def parse(
        cls,
        *,
        login: str | None,
        host: str | None,
        port: int | None,
        schema: str | None,
        extra: Mapping[str, object],
    ) -> ConnectionSettings:
        """
        Check the fields of a connection.

        :raises ConfigurationError: naming the field and what it may hold.
        """
        if port or schema:  # the form's Test button sends port 0
            raise _refused("port and schema are not used; write the whole address into Base URL (host)")
        given = {name: value for name, value in extra.items() if value not in (None, "")}
        _refuse_unknown(given)
        environment = given.get("environment")
        if environment not in (*BASE_URLS, "custom"):  # a tuple: what is no text need not be hashable
            raise _refused(
                f"{_named('environment')} must be mainnet, testnet or custom; it has no default, so that nothing "
                "reaches mainnet by omission"
            )
        base_url = _base_url(str(environment), host)
        agent_wallet = given.get("agent_wallet")
        window_ms = _number(given, "expiry_window_ms", 10_000, 1_000, 30_000)
        if window_ms != int(window_ms):
            raise _refused(f"{_named('expiry_window_ms')} must be a whole number of milliseconds")
        return cls(
            account=check_address(login, "The connection's Account (login)"),
            environment=str(environment),
            base_url=base_url,
            ws_url=_WS_URLS.get(str(environment)) or _custom_ws_url(base_url),
            agent_wallet=None if agent_wallet is None else check_address(agent_wallet, _named("agent_wallet")),
            api_config_key=_text(given, "pf_api_key"),
            expiry_window_ms=int(window_ms),
            timeout_s=_number(given, "timeout_s", 10, 1, 60),
            withdrawal_limits=_limits(given.get("withdrawal_limits")),
            idempotency_scope=_text(given, "idempotency_scope") or "",
            key_trust_ms=int(_number(given, "key_trust_minutes", 9, 1, 1440) * 60_000),
            solana_rpc_url=_rpc_url(given),
        )

    @property
    def secrets(self) -> tuple[str, ...]:
        """What a masker of logs must know: the API config key, the Solana RPC's address, and what may be its token."""
        url = self.solana_rpc_url or ""
        parts = urlsplit(url)
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        tokens = [target, *parts.path.split("/"), *(value for _, value in parse_qsl(parts.query))]
        long = (token for token in tokens if len(token) >= _LEAST_TOKEN)
        return tuple(dict.fromkeys(secret for secret in (self.api_config_key, url, *long) if secret))

    def check_limit(self, order: Order) -> None:
        """Refuse an order that the connection's ``withdrawal_limits`` do not allow."""
        if self.withdrawal_limits is None:
            return
        limit = self.withdrawal_limits.get(order.symbol)
        if limit is None:
            raise ConfigurationError(
                f"{order.symbol} is not among the connection's Withdrawal limits "
                f"({', '.join(sorted(self.withdrawal_limits))}), so it may not be withdrawn. Nothing was sent."
            )
        if order.amount > limit:
            raise ConfigurationError(
                f"{order} is more than the connection's Withdrawal limits allow for one withdrawal "
                f"({canonical_text(limit)} {order.symbol}). Nothing was sent."
            )


def _refuse_unknown(given: Mapping[str, object]) -> None:
    unknown = sorted(name for name in given if name not in EXTRAS)
    if not unknown:
        return
    hint = ""
    if any(word in name.lower() for name in unknown for word in ("key", "seed", "pair", "mnemonic", "secret")):
        hint = ". A private key belongs into the field Private key (password), where Airflow masks it"
    # What is no plain word may be a key that was written into the wrong place.
    shown = [name if _WORD.fullmatch(name) else "(a name that is not repeated)" for name in unknown]
    raise _refused(f"unknown extra {', '.join(shown)}; known are {', '.join(EXTRAS)}{hint}")


def _base_url(environment: str, host: str | None) -> str:
    if environment != "custom":
        if host:
            raise _refused(f"Base URL (host) is only for Environment custom; {environment} has its own address")
        return BASE_URLS[environment]
    if not host:
        raise _refused("Environment custom needs a Base URL (host), such as http://127.0.0.1:8000/api/v1")
    path = _checked_url("Base URL (host)", host, "?").path
    return host.rstrip("/") if path.strip("/") else f"{host.rstrip('/')}/api/v1"


def _rpc_url(given: Mapping[str, object]) -> str | None:
    """Return the address of the Solana RPC; as a secret it is repeated nowhere, and a token in it stays as it is."""
    url = given.get("solana_rpc_url")
    if url is None:
        return None
    if not isinstance(url, str):
        raise _refused(f"{_named('solana_rpc_url')} must be a whole URL beginning with https://")
    _checked_url(_named("solana_rpc_url"), url, "")
    return url


def _checked_url(name: str, text: str, marks: str) -> SplitResult:
    """Return the parts of an address that may be asked: https, or http on a loopback address; ``marks`` are refused."""
    if not text.isascii() or not text.isprintable() or any(mark in text for mark in f" \\@#{marks}"):
        parts = "password, query or fragment" if marks else "password or fragment"
        raise _refused(f"{name} must be a plain URL in ASCII: no space, user, {parts}")
    try:
        url = urlsplit(text)
        hostname, _ = url.hostname, url.port
    except ValueError:
        raise _refused(f"{name} is not a URL") from None
    if url.scheme not in {"http", "https"} or not hostname or not (_address(hostname) or _HOSTNAME.fullmatch(hostname)):
        raise _refused(f"{name} must be a whole URL beginning with https://")
    if url.scheme == "http" and not _is_loopback(hostname):
        raise _refused(f"{name} must begin with https://; http is only for a loopback address such as 127.0.0.1")
    return url


def _is_loopback(hostname: str) -> bool:
    address = _address(hostname)
    return hostname == "localhost" if address is None else address.is_loopback


def _address(hostname: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(hostname)
    except ValueError:
        return None


def _custom_ws_url(base_url: str) -> str:
    """Pacifica's WebSocket of another host is expected at /ws, where the sandbox has it."""
    url = urlsplit(base_url)
    return f"{'wss' if url.scheme == 'https' else 'ws'}://{url.netloc}/ws"


def _text(given: Mapping[str, object], name: str) -> str | None:
    value = given.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or value != value.strip():
        raise _refused(f"{_named(name)} must be printable ASCII text without white space at its ends")
    if looks_like_a_key(value):
        raise _refused(f"{_named(name)} looks like a private key, which belongs into Private key (password)")
    return value


def _number(given: Mapping[str, object], name: str, default: float, least: float, most: float) -> float:
    value = given.get(name, default)
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise _refused(f"{_named(name)} must be a number from {least:g} to {most:g}")
    return value


def _limits(value: object) -> dict[str, Decimal] | None:
    if value is None:
        return None
    try:
        table = json.loads(value, object_pairs_hook=_without_repetition) if isinstance(value, str) else value
    except ValueError:
        table = None
    if not isinstance(table, Mapping) or not table:
        raise _refused(f'{_named("withdrawal_limits")} must be a JSON object such as {{"SOL": "10"}}')
    limits: dict[str, Decimal] = {}
    for symbol, amount in table.items():
        try:
            limits[Order.parse(symbol, "1").symbol] = parse_amount(amount)
        except ConfigurationError:  # whose text may repeat what was written
            raise _refused(
                f'{_named("withdrawal_limits")} must give each symbol a positive amount in quotes: {{"SOL": "10"}}'
            ) from None
    return limits


def _named(extra: str) -> str:
    """Return what the connection form calls an extra, with its name in the connection's JSON."""
    label = get_provider_info()["connection-types"][0]["conn-fields"][extra]["label"]
    return f"{label} (extra '{extra}')"


def _without_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return the object, which would hold the last of two limits for one symbol without a word."""
    table = dict(pairs)
    if len(table) < len(pairs):
        raise _refused(f"{_named('withdrawal_limits')} names a symbol twice")
    return table


def _refused(why: str) -> ConfigurationError:
    return ConfigurationError(f"The Pacifica connection cannot be used: {why}. Nothing was sent.")
