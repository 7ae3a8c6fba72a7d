"""What a connection may hold: every field, good and bad, and no value that could be a secret in any message."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import pytest

from pacifica_provider.exceptions import ConfigurationError
from pacifica_provider.hooks.settings import EXTRAS, ConnectionSettings
from pacifica_provider.withdrawals.identity import Order

ACCOUNT = "FVen3X669xLzsi6N2V91DoiyzHzg1uAgqiT8jZ9nS96Z"
AGENT = "4fpDDiP4SnvV6KLY2WKvDxJ1FJ66p2jtp7TvpwcTNCcw"
SECRET = "49W385L4rePHy6PAaQUovbD2aacgN4HsKXSMeUzRg4fmwXszN91JuMFrQRj3vMDpZuRF3ZknQBuRBoWQJEfXstMw"


WRONG: dict[str, list[Any]] = {
    "expiry_window_ms": [999, 30_001, 0, -1, "soon", True, [1], float("nan"), 10**400],
    "timeout_s": [0, 0.5, 61, "NaN", "inf", "1e999", {}, False],
    "key_trust_minutes": [0, 1441, "9 min", [9]],
    "pf_api_key": ["clé", "line\nbreak", 7, ["k"]],
    "idempotency_scope": ["прод", "tab\t", 7, True],
    "solana_rpc_url": ["rpc.example", "http://rpc.example", "https://u:hush@rpc.example", "https://rpc.example#x", 7],
    "agent_wallet": [AGENT[:-4], "0OIl", 7, [AGENT]],
    "withdrawal_limits": [
        *("SOL=10", "[]", "{}", {}, [], 7, "null"),
        *('{"SOL": 1.5}', '{"SOL": "0"}', '{"SOL": "-1"}', '{"S L": "1"}'),
        *({"SOL": None}, {"SOL": True}, {"": "1"}),
    ],
}


RPC_URLS = [
    *("https://rpc.example", "https://rpc.example/", "https://rpc.example:8443/v2/0123456789abcdef"),
    *(
        "https://rpc.example/?api-key=0123456789abcdef",
        "http://127.0.0.1:8899",
        "http://[::1]:8899/x",
        "http://localhost",
    ),
]


@dataclass
class Connection:
    """The part of Airflow's connection that is read; reading the password would fail."""

    login: str | None = ACCOUNT
    host: str | None = None
    port: int | None = None
    schema: str | None = None
    extra: str = "{}"

    @property
    def extra_dejson(self) -> Any:
        """The extra, parsed."""
        return json.loads(self.extra)


def settings(connection: Connection | None = None, /, **extra: Any) -> ConnectionSettings:
    """Return the settings of a testnet connection with these extras."""
    text = json.dumps({"environment": "testnet", **extra})
    return ConnectionSettings.of_connection(replace(connection or Connection(), extra=text))


def test_the_defaults_are_the_documented_ones() -> None:
    """With only account and environment, every other setting has its documented default."""
    assert settings() == ConnectionSettings(
        account=ACCOUNT,
        environment="testnet",
        base_url="https://test-api.pacifica.fi/api/v1",
        ws_url="wss://test-ws.pacifica.fi/ws",
        agent_wallet=None,
        api_config_key=None,
        expiry_window_ms=10_000,
        timeout_s=10,
        withdrawal_limits=None,
        idempotency_scope="",
        key_trust_ms=540_000,
        solana_rpc_url=None,
    )


def test_mainnet_has_its_own_addresses() -> None:
    """Mainnet is asked for by name (S21)."""
    mainnet = settings(environment="mainnet")

    assert (mainnet.environment, mainnet.base_url) == ("mainnet", "https://api.pacifica.fi/api/v1")
    assert mainnet.ws_url == "wss://ws.pacifica.fi/ws"


def test_the_form_s_test_button_sends_a_port_that_is_none() -> None:
    """Airflow's page fills the port that it hides with 0."""
    assert settings(Connection(port=0)) == settings()


@pytest.mark.parametrize("environment", [None, "", "Mainnet", "prod", "mainnet ", 1, True, ["mainnet"], {"a": 1}])
def test_an_environment_that_is_not_named_is_refused(environment: Any) -> None:
    """There is no default, so that nothing reaches mainnet by omission (S21)."""
    with pytest.raises(
        ConfigurationError, match=r"Environment \(extra 'environment'\) must be mainnet, testnet or custom"
    ):
        settings(environment=environment)


@pytest.mark.parametrize(
    ("extra", "field", "expected"),
    [
        ({"agent_wallet": AGENT}, "agent_wallet", AGENT),
        ({"pf_api_key": "abcd1234_key"}, "api_config_key", "abcd1234_key"),
        ({"expiry_window_ms": 1000}, "expiry_window_ms", 1000),
        ({"expiry_window_ms": "30000"}, "expiry_window_ms", 30000),
        ({"expiry_window_ms": 30000}, "expiry_window_ms", 30000),
        ({"timeout_s": 1}, "timeout_s", 1.0),
        ({"timeout_s": "2.5"}, "timeout_s", 2.5),
        ({"key_trust_minutes": 1440}, "key_trust_ms", 86_400_000),
        ({"key_trust_minutes": 1.5}, "key_trust_ms", 90_000),
        ({"idempotency_scope": "staging"}, "idempotency_scope", "staging"),
        ({"withdrawal_limits": '{"SOL": "10", "kBONK": 5}'}, "withdrawal_limits", {"SOL": 10, "kBONK": 5}),
        ({"withdrawal_limits": {"SOL": "0.5"}}, "withdrawal_limits", {"SOL": Decimal("0.5")}),
        *(
            ({name: empty}, field, None)
            for name, field in {
                "agent_wallet": "agent_wallet",
                "pf_api_key": "api_config_key",
                "withdrawal_limits": "withdrawal_limits",
            }.items()
            for empty in (None, "")
        ),
        *(({"solana_rpc_url": url}, "solana_rpc_url", url) for url in RPC_URLS),
        *(({"solana_rpc_url": empty}, "solana_rpc_url", None) for empty in (None, "")),
        ({"expiry_window_ms": None}, "expiry_window_ms", 10000),
        ({"timeout_s": ""}, "timeout_s", 10),
        ({"idempotency_scope": None}, "idempotency_scope", ""),
    ],
)
def test_a_field_is_read(extra: dict[str, Any], field: str, expected: Any) -> None:
    """Numbers as numbers or text, as Airflow's forms store them; an empty field is one left out."""
    assert expected == getattr(settings(**extra), field)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_field_out_of_its_range_is_refused_by_name(name: str, value: Any) -> None:
    """The field is named and what it may hold; nothing was sent."""
    with pytest.raises(ConfigurationError, match=rf"(?i)extra '{name}'.*Nothing was sent"):
        settings(**{name: value})


@pytest.mark.parametrize(
    ("connection", "says"),
    [
        (Connection(login=None), "Account"),
        (Connection(login=""), "Account"),
        (Connection(login=ACCOUNT[:-4]), "Account"),
        (Connection(login=f"{ACCOUNT} "), "white space"),
        (Connection(login=SECRET), "64 bytes, not 32"),
        (Connection(port=443), "port and schema are not used"),
        (Connection(schema="https"), "port and schema are not used"),
        (Connection(host="https://test-api.pacifica.fi"), "is only for Environment custom"),
    ],
)
def test_a_standard_field_out_of_place_is_refused(connection: Connection, says: str) -> None:
    """Account, port, schema and host are checked too, and a key pasted as account is not repeated (S19, S03)."""
    with pytest.raises(ConfigurationError, match=says) as caught:
        settings(connection)

    assert SECRET[:12] not in str(caught.value)


@pytest.mark.parametrize("text", ["[]", '"x"', "7", "null"])
def test_an_extra_that_is_no_object_is_refused(text: str) -> None:
    """The extra is a JSON object or nothing."""
    with pytest.raises(ConfigurationError, match="extra is not a JSON object"):
        ConnectionSettings.of_connection(Connection(extra=text))


def test_an_extra_that_is_no_json_is_refused_without_an_echo() -> None:
    """A key pasted as extra is not repeated (S03)."""
    with pytest.raises(ConfigurationError, match="extra is not JSON") as caught:
        ConnectionSettings.of_connection(Connection(extra=SECRET))

    assert SECRET[:8] not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("name", ["privateKey", "seed", "keypair", "signing_key", "mnemonic", "private_key", "secret"])
def test_a_secret_under_another_name_is_refused_by_name_never_by_value(name: str) -> None:
    """Airflow would not mask it: the name is told with where it belongs, the value is not (S03)."""
    with pytest.raises(
        ConfigurationError, match=f"unknown extra {name}; .*belongs into the field Private key"
    ) as caught:
        settings(None, **{name: SECRET})

    assert SECRET[:12] not in str(caught.value)


@pytest.mark.parametrize("name", ["Environment", "verify", "proxy", "allow_custom_host", "extra__pacifica__timeout_s"])
def test_an_unknown_extra_is_refused_with_the_known_ones(name: str) -> None:
    """A typing error is not silently a default (S03)."""
    with pytest.raises(ConfigurationError, match=f"unknown extra {name}; known are {', '.join(EXTRAS)}") as caught:
        settings(None, **{name: "value-of-it"})

    assert "value-of-it" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {SECRET: "x"},
        {"agent_wallet": SECRET},
        {"withdrawal_limits": {SECRET: "1"}},
        {"withdrawal_limits": {"SOL": SECRET}},
        {"withdrawal_limits": SECRET},
        {"environment": SECRET},
        {"timeout_s": SECRET},
        {"expiry_window_ms": SECRET},
        {"idempotency_scope": f"é{SECRET}"},
    ],
    ids=lambda each: next(iter(each))[:12],
)
def test_a_key_in_the_wrong_place_is_never_repeated(wrong: dict[str, Any]) -> None:
    """As an extra's name, as a limit, as an address or a number: the field is named, what was written is not (S03)."""
    with pytest.raises(ConfigurationError) as caught:
        settings(None, **wrong)

    assert not any(SECRET[at : at + 8] in str(caught.value) for at in range(len(SECRET) - 8))


def test_no_secret_shows() -> None:
    """The settings print without the API config key, and hold no private key at all."""
    shown = repr(settings(pf_api_key="abcd1234_key"))

    assert "abcd1234" not in shown
    assert "private" not in shown


@pytest.mark.parametrize(
    ("limits", "order", "says"),
    [
        (None, "999999 SOL", None),
        ({"SOL": "10"}, "10 SOL", None),
        ({"SOL": "10"}, "10.00000000 SOL", None),
        ({"SOL": "10"}, "10.00000001 SOL", "more than the connection's Withdrawal limits"),
        ({"SOL": "10"}, "1 BTC", "BTC is not among"),
        ({"SOL": "10"}, "1 sol", "sol is not among"),
    ],
)
def test_limits_set_in_the_connection_hold(limits: dict[str, str] | None, order: str, says: str | None) -> None:
    """The largest amount is allowed, one more place is not, and other symbols are refused (S15)."""
    amount, symbol = order.split()
    checked = settings(withdrawal_limits=limits)
    if says is None:
        assert checked.check_limit(Order.parse(symbol, amount)) is None  # type: ignore[func-returns-value]  # it passes
        return

    with pytest.raises(ConfigurationError, match=f"{says}.*Nothing was sent"):
        checked.check_limit(Order.parse(symbol, amount))


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        ("https://rpc.example", []),
        ("https://rpc.example/solana", []),
        ("https://rpc.example/v2/0123456789abcdef", ["/v2/0123456789abcdef", "0123456789abcdef"]),
        ("https://rpc.example/?api-key=0123456789abcdef", ["/?api-key=0123456789abcdef", "0123456789abcdef"]),
    ],
)
def test_an_rpc_s_address_is_a_secret_with_all_that_may_be_a_token(url: str, secrets: list[str]) -> None:
    """Its words alone are none: a masker would take them out of every log. Nothing of it shows by itself."""
    read = settings(solana_rpc_url=url, pf_api_key="abcd1234_key")

    assert list(read.secrets) == ["abcd1234_key", url, *secrets]
    assert "rpc.example" not in repr(read)


def test_without_secrets_there_are_none() -> None:
    """An empty text would mask every place between two letters."""
    assert settings().secrets == ()
