"""
Wrong inputs, one a row: where each goes in, when it is refused, and what is said.

A row's moment is the earliest at which it can be known to be wrong: ``parse``, when the DAG file makes the object;
``connection``, when the connection is read, by a run or by the form's Test button; ``run``, when the templates are
rendered or the task executes. Each is refused before anything is sent, in a sentence or two that name the field, and
Airflow does not retry it.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import DAG, task, task_group

from pacifica_provider.exceptions import ConfigurationError, KeyMaterialError, PacificaError, ParameterMismatch
from pacifica_provider.hooks.pacifica import PacificaHook
from pacifica_provider.operators.withdraw import WithdrawSpotAssetOperator
from pacifica_provider.sensors.withdrawal import WithdrawalBatchSensor
from pacifica_provider.triggers.assets import SettledWithdrawalsTrigger
from tests.support.task_context import TaskContext

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pacifica_provider.sandbox import Sandbox

# A keypair, and a seed alone; neither belongs to any account.
PAIR = "49W385L4rePHy6PAaQUovbD2aacgN4HsKXSMeUzRg4fmwXszN91JuMFrQRj3vMDpZuRF3ZknQBuRBoWQJEfXstMw"
SEED = "4fpDDiP4SnvV6KLY2WKvDxJ1FJ66p2jtp7TvpwcTNCcw"
ADDRESS = "8S9vx1PxFeCw1QTQpKcYSSWYtLDAEiBBHU7wo4P72pXx"
# Words of a parser, a library or the interpreter, which say nothing to whoever filled in the field.
JARGON = re.compile(
    r"Traceback|object at 0x|jinja|Undefined|NoneType|KeyError|AttributeError|ValueError|has no attribute|"
    r"InvalidOperation|Expecting|JSONDecode|line \d+ column|__\w+__|\.\.$"
)
SENTENCES = 4
"""Three, and in a message of the key or of a backfill one more; the last says that nothing was sent."""

Step = tuple[str, "Callable[[], object]"]


@dataclass(frozen=True)
class Row:
    """
    One wrong input.

    :param place: where it goes in; ``PLACES`` knows how.
    :param field: which field it is.
    :param value: what is wrong there.
    :param moment: when it is refused.
    :param says: what the message says was expected, or is wrong.
    :param names: how the message names the field, if otherwise.
    """

    place: str
    field: str
    value: Any
    moment: str
    says: str
    names: str = ""
    kind: type[PacificaError] = ConfigurationError

    def __str__(self) -> str:
        return f"{self.place}-{self.field}-{str(self.value)[:24]!a}"


def all_say(says: str, *values: Any) -> list[tuple[Any, str]]:
    """Return values that are refused in the same words."""
    return [(value, says) for value in values]


# -- the connection form


def connection_rows() -> Iterator[Row]:
    """Yield what may be wrong in the connection form."""
    fields: list[tuple[str, str, list[tuple[Any, str]]]] = [
        (
            "login",
            "Account (login)",
            [
                (None, "it is empty"),
                ("", "it is empty"),
                ("  ", "begins or ends with white space"),
                (f" {ADDRESS}", "begins or ends with white space"),
                (f"{ADDRESS}\n", "begins or ends with white space"),
                (ADDRESS[:-4], "not a Solana address"),
                ("0x52908400098527886E0F7030069857D2E4169EE7", "it is not base58"),
                ("treasury@example.org", "it is not base58"),
                (PAIR, "64 bytes, not 32"),
                ("[1, 2, 3]", "give it as base58 text"),
            ],
        ),
        (
            "host",
            "host",
            [
                (None, "needs a Base URL (host)"),
                ("", "needs a Base URL (host)"),
                ("   ", "must be a plain URL"),
                ("api.pacifica.fi", "beginning with https://"),
                ("http://api.pacifica.fi/api/v1", "must begin with https://"),
                ("ftp://127.0.0.1/", "beginning with https://"),
                ("https://user:pass@host/api/v1", "no space, user, password"),
                ("https://host/api/v1?key=1", "no space, user, password, query"),
                ("https://host name/api", "no space"),
                ("https://höst/api", "in ASCII"),
                ("https://host:port/api", "Base URL (host) is not a URL"),
                (PAIR, "beginning with https://"),
            ],
        ),
        ("port", "port", [(443, "port and schema are not used"), (-1, "port and schema are not used")]),
        (
            "schema",
            "schema",
            [("https", "not used"), ("  ", "not used"), ("mainnet", "not used"), (PAIR, "not used")],
        ),
    ]
    for field, names, values in fields:
        for value, says in values:
            yield Row("connection", field, value, "connection", says, names)


def extra_rows() -> Iterator[Row]:
    """Yield what may be wrong among the extras."""
    text = "printable ASCII text without white space at its ends"
    key = "looks like a private key, which belongs into Private key (password)"
    milliseconds, seconds, minutes = "from 1000 to 30000", "from 1 to 60", "from 1 to 1440"
    limits, positive = 'a JSON object such as {"SOL": "10"}', "each symbol a positive amount in quotes"
    environment = "must be mainnet, testnet or custom"
    values: dict[str, list[tuple[Any, str]]] = {
        "environment": [
            *all_say(environment, None, "", " ", "Mainnet", "prod", "mainnet ", "None", 1, True),
            *all_say(environment, ["mainnet"], {"name": "mainnet"}, PAIR, "https://api.pacifica.fi"),
        ],
        "agent_wallet": [
            *(("  ", "white space"), (f"{ADDRESS} ", "white space"), ("0OIl", "not base58"), (7, "not text")),
            *((PAIR, "64 bytes, not 32"), ([ADDRESS], "not text"), ("none", "not 32")),
        ],
        "pf_api_key": [
            *all_say(text, "  ", " abcd1234_key", "abcd1234_key\n", "clé", "line\nbreak", 7, True),
            *all_say(text, ["k"], {"key": "k"}),
            (PAIR, key),
            (SEED, key),
        ],
        "idempotency_scope": [
            *all_say(text, "  ", " staging", "staging ", "tab\t", "прод", 7, False, ["staging"]),
            (PAIR, key),
            (SEED, key),
        ],
        "expiry_window_ms": [
            *all_say(milliseconds, 999, 30_001, 0, -1, "-1", "10 s", "ten", " 10000", "1e4", "1_0000"),
            *all_say(milliseconds, True, [10_000], {}, float("nan"), float("inf"), PAIR, 10**400),
            (1000.5, "a whole number of milliseconds"),
            ("1000.5", "a whole number of milliseconds"),
        ],
        "timeout_s": [
            *all_say(seconds, 0, 0.5, 61, -10, "NaN", "inf", "1e1", "10s", " 10", "1_0", "+10"),
            *all_say(seconds, True, [10], {"s": 10}, PAIR),
        ],
        "solana_rpc_url": [
            *all_say("a whole URL beginning with https://", "rpc.example", "ftp://rpc.example", "https:", 7, True),
            *all_say("a whole URL beginning with https://", ["https://rpc.example"], {"url": "x"}, PAIR, SEED),
            *all_say("must begin with https://", "http://rpc.example", "http://10.0.0.1/", "http://localhost.example"),
            *all_say("no space, user, password or fragment", "https://u:p@rpc.example", "https://rpc.example#x"),
            *all_say("no space, user, password or fragment", " https://rpc.example", "https://rpc.example/é", "  "),
            *all_say("is not a URL", "https://[::1", "https://rpc.example:99999"),
        ],
        "key_trust_minutes": [
            *all_say(minutes, 0, 1441, -9, "9 min", "9,5", "nan", " ", True, [9], PAIR),
        ],
        "withdrawal_limits": [
            *all_say(limits, " ", "SOL=10", "SOL: 10", "{'SOL': '10'}", "[]", "{}", {}, [], 7, "null"),
            *all_say(limits, True, '{"SOL": "10"', "10", PAIR, '["SOL"]'),
            *(
                ({"SOL": amount}, positive)
                for amount in (1.5, "0", "-1", "1e3", "1,5", " 1", "", None, True, ["1"], PAIR)
            ),
            *(({symbol: "1"}, positive) for symbol in ("", "S L", " SOL", "SÖL", PAIR)),
            ('{"SOL": "1", "SOL": "100"}', "names a symbol twice"),
        ],
    }
    for field, wrong in values.items():
        for value, says in wrong:
            if value != "" or field == "environment":  # elsewhere an empty field is one left out
                yield Row("extra", field, value, "connection", says, f"'{field}'")
    for field in ("Environment", "enviroment", "api_config_key", "verify", "proxy", "solana_rpc", "limits"):
        yield Row("extra", field, "value-of-it", "connection", "unknown extra", field)
    for field in ("private_key", "secret", "seed", "mnemonic"):
        yield Row("extra", field, PAIR, "connection", "Private key (password)", field)
    yield Row("extra", PAIR, "x", "connection", "unknown extra", "a name that is not repeated")
    for text in ("[]", '"x"', "7", "null"):
        yield Row("whole extra", "extra", text, "connection", "not a JSON object")
    for text in ("environment=testnet", "{'environment': 'testnet'}", "{", PAIR):
        yield Row("whole extra", "extra", text, "connection", "extra is not JSON")
    for environment in ("mainnet", "testnet"):
        yield Row("host beside", "host", environment, "connection", "only for Environment custom")


def key_rows() -> Iterator[Row]:
    """Yield what may be wrong with the private key, which only a withdrawal and the Test button read."""
    for value, says in [
        ("   ", "begins or ends with white space"),
        (f"{PAIR}\n", "begins or ends with white space"),
        ("not a key at all", "it is not base58"),
        ("ab" * 64, "a keypair has 64, a seed 32"),
        ("[12, 34, 56]", "give it as base58 text"),
        (PAIR[:-6], "a keypair has 64, a seed 32"),
        (f"{PAIR[:-1]}x", "its two halves do not belong together"),
        ("abcd1234_key", "it is not base58"),
        ("0x" + "ab" * 32, "it is not base58"),
    ]:
        yield Row("key", "password", value, "connection", says, "private key", KeyMaterialError)
    yield Row("key", "password", "the account's", "connection", "holds an address", "private key", KeyMaterialError)
    for value in (ADDRESS, SEED):
        says = "pins another agent wallet"
        yield Row("pin", "agent_wallet", value, "connection", says, "agent wallet", KeyMaterialError)
    for nothing in (None, ""):
        says = "it can read, but not withdraw"
        yield Row("no key", "password", nothing, "connection", says, "private key", KeyMaterialError)
    yield Row("no connection", "pacifica_conn_id", "nowhere", "connection", "knows no connection 'nowhere'")
    for text in ("{bad json", "pacifica://a:b@host:port", '{"port": "abc"}', '{"unknown": 1}'):
        yield Row("unreadable", "pacifica_conn_id", text, "connection", "knows no connection 'pacifica_default' that")


# -- arguments whose value stands in the DAG file

SYMBOL = "1 to 32 ASCII letters, digits, dots, dashes or underscores, such as 'SOL', not"
AMOUNT = "must be a number in plain digits such as '1.5'"
FLOAT = "must be a number in quotes such as '1.5', not the"
REFERENCE = "must be 1 to 128 printable ASCII characters, not blank and not 'None'"
NONCE = "must be the receipt's non-negative integer, not"
SYMBOLS = [
    "",
    " ",
    "None",
    "nan",
    "null",
    "1.5",
    "100",
    "S L",
    " SOL",
    "SOL ",
    "SÖL",
    "-1",
    "1,5",
    "SOL/USDC",
    "A" * 33,
]
AMOUNTS = ["", " ", "None", "nan", "inf", "1e3", "1,5", " 1.5", "1.5 ", "-1", "+1", "1_0", ".5", "1.", "0x1", "1 SOL"]
REFERENCES = ["", "   ", "None", " None ", "nan", "NaT", "null", "é", "a\nb", "x" * 129]
NONCES = ["", " ", "None", "nan", "1e3", "1,5", " 1", "1.5", "-1", "0x1", "x", 2**64, str(2**64)]
SYNTAX = "a template with a mistake in its syntax"


def literal_rows() -> Iterator[Row]:
    """Yield the literals of operator, sensor, hook and triggers."""
    wrong: dict[str, list[tuple[str, list[Any]]]] = {
        "symbol": [(SYMBOL, [*SYMBOLS, None, 7, ["SOL"], {"SOL": "1"}, b"SOL", Path("SOL"), PAIR])],
        "amount": [
            (AMOUNT, [*AMOUNTS, "1" * 19, "0." + "1" * 19, -1, ["1"], {"SOL": "1"}, b"1", Path("1"), PAIR, SEED]),
            (AMOUNT, [Decimal("NaN"), Decimal(-1), Decimal("Infinity")]),
            (FLOAT, [1.5, True, float("nan")]),
            ("must be greater than zero", ["0", "0.0", 0, Decimal(0)]),
        ],
        "withdrawal_ref": [(REFERENCE, [*REFERENCES, 7, 1.5, True, ["a"], {"a": "b"}, b"a"])],
        "batch_nonce": [(NONCE, [*NONCES, None, -1, 1.5, True, [7], {"n": 7}, b"7", PAIR, SEED])],
    }
    fields = {"operator": ("symbol", "amount", "withdrawal_ref"), "sensor": ("symbol", "amount", "batch_nonce")}
    for place, names in fields.items():
        for field in names:
            for says, values in wrong[field]:
                yield from (Row(place, field, value, "parse", says) for value in values)
            for template in ("{{ dag_run.conf.x }", "{{ }}", "{% if %}", "{{ x | nofilter("):
                yield Row(place, field, template, "parse", SYNTAX)
    yield Row("operator", "amount", None, "parse", AMOUNT)
    for says, values in wrong["symbol"]:
        yield from (Row("asset trigger", "symbol", value, "parse", says) for value in values if value is not None)
    yield from setting_rows()


def setting_rows() -> Iterator[Row]:
    """Yield the arguments that are never templates."""
    ids = [None, "", " ", 7, ["c"], " pacifica", "my pacifica", "{{ var.value.conn }}", "c" * 251, PAIR, SEED]
    for place in ("operator", "sensor", "hook", "asset trigger"):
        yield from (Row(place, "pacifica_conn_id", each, "parse", "must be the id of a connection") for each in ids)
    flags = {
        "operator": ("wait_for_settlement", "deferrable", "allow_backfill", "tag_amount"),
        "sensor": ("deferrable",),
    }
    for place, names in flags.items():
        for name in names:
            for flag in ("false", "no", 0, 1, None, "{{ params.flag }}", PAIR):
                yield Row(place, name, flag, "parse", "must be True or False")
    a_day: Any = datetime(2026, 1, 1, tzinfo=UTC)
    number, whole = "must be a positive number of seconds", "must be whole Unix milliseconds"
    wrong: dict[tuple[str, str, str], list[Any]] = {
        ("operator", "poll_interval", number): [0, -1, "30", "30 s", None, True, timedelta(seconds=30), PAIR],
        ("asset trigger", "poll_interval", number): [0, -1, "30", None, True, float("nan"), float("inf"), 1e300],
        ("operator", "settlement_timeout", "must be a timedelta of at most 366 days"): [
            *(3600, "1h", None, timedelta(-1), timedelta.max, timedelta(days=367)),
        ],
        ("asset trigger", "since", whole): [-1, "1716200000000", 1.5, True, 1_716_200_000, a_day],
    }
    for (place, name, says), values in wrong.items():
        yield from (Row(place, name, value, "parse", says) for value in values)
    yield Row("receipt", "transaction", None, "parse", "only account, environment, symbol", "no field 'transaction'")


def mapped_rows() -> Iterator[Row]:
    """Yield what a mapped task is given: in ``partial``, and by the task before, which is known when it runs only."""
    missing = "is missing: a mapped withdrawal needs one, unique in the run"
    for field, value, says in [
        ("symbol", "S L", SYMBOL),
        ("amount", "1e3", AMOUNT),
        ("withdrawal_ref", "None", REFERENCE),
        ("poll_interval", 0, "must be a positive number of seconds"),
        ("allow_backfill", "false", "must be True or False"),
        ("pacifica_conn_id", "", "must be the id of a connection"),
    ]:
        yield Row("partial", field, value, "parse", says)
    yield Row("mapped group", "withdrawal_ref", None, "parse", missing)
    for field, value, says in [
        *(("symbol", "S L", SYMBOL), ("symbol", None, SYMBOL), ("amount", "1e3", AMOUNT), ("amount", 1.5, FLOAT)),
        *(("withdrawal_ref", "None", REFERENCE), ("withdrawal_ref", 7, REFERENCE)),
    ]:
        yield Row("listed by a task", field, value, "run", says)


# -- templates, which are text until the task runs


def template_rows() -> Iterator[Row]:
    """Yield what templates render to, and those that cannot be rendered."""
    rendered: dict[str, tuple[str, list[Any]]] = {
        "symbol": (SYMBOL, [*SYMBOLS, None, ["SOL"], {"a": 1}, "{{ x }}", PAIR]),
        "amount": (AMOUNT, [*AMOUNTS, None, ["1"], {"a": 1}, "{{ x }}", PAIR, SEED, "1e-7", float("nan"), True]),
        "withdrawal_ref": (REFERENCE, [*REFERENCES, None, "é" * 40]),
        "batch_nonce": (NONCE, [*NONCES, None, ["7"], {"a": 1}, "{{ x }}", PAIR, 1.5]),
    }
    native: dict[str, tuple[str, list[Any]]] = {
        "symbol": (SYMBOL, [7, ["SOL"], {"a": 1}]),
        "amount": (FLOAT, [1.5, True]),
        "withdrawal_ref": (REFERENCE, [7, 1.5, ["a"], {"a": 1}]),
        "batch_nonce": (NONCE, [1.5, True, ["7"]]),
    }
    fields = {"operator": ("symbol", "amount", "withdrawal_ref"), "sensor": ("symbol", "amount", "batch_nonce")}
    for place, names in fields.items():
        for field in names:
            says, values = rendered[field]
            yield from (Row(f"{place} template", field, value, "run", says) for value in values)
            says, values = native[field]
            yield from (Row(f"{place} native template", field, value, "run", says) for value in values)
            for template, what in [
                ("{{ dag_run.conf.absent }}", "asks for 'absent', which is not there"),
                ("{{ dag_run.conf['absent'] }}", "asks for 'absent', which is not there"),
                ("{{ dag_run.conf.absent.deeper }}", "asks for 'absent', which is not there"),
                ("{{ absent }}", "asks for 'absent', which is not there"),
                ("{{ nothing['batch_nonce'] }}", "asks for 'batch_nonce', which is not there"),
                ("{{ dag_run.conf.empty[3] }}", "asks for a value that is not there"),
                ("{{ dag_run.conf.empty + 1 }}", "cannot be rendered (TypeError): look at what it calculates"),
                ("{{ 1 / 0 }}", "cannot be rendered (ZeroDivisionError): look at what it calculates"),
                ("{{ dag_run.conf.empty | nofilter }}", SYNTAX),
            ]:
                yield Row(f"{place} source", field, template, "run", what)
        yield Row(f"{place} template", "amount", "0", "run", "must be greater than zero")
    for field in ("amount", "withdrawal_ref", "symbol"):
        yield Row("operator native template", field, None, "run", "is given, and has become None")
    for field in ("amount", "batch_nonce", "symbol"):
        yield Row("sensor native template", field, None, "run", "is given, and has become None")
    says = "a template that was not rendered"
    yield Row("operator template", "withdrawal_ref", "{{ params.invoice }}", "run", says)
    for field in ("amount", "withdrawal_ref"):
        yield Row("mapped source", field, "{{ dag_run.conf.absent }}", "run", "asks for 'absent', which is not there")


# -- guards, and the hook inside of a task of one's own


def guard_rows() -> Iterator[Row]:
    """Yield what only a run can see."""
    limit, named = "Withdrawal limits allow for one withdrawal (0.5 SOL)", "Withdrawal limits"
    yield Row("limited", "withdrawal_limits", {"SOL": "0.5"}, "run", limit, named)
    yield Row(
        "limited", "withdrawal_limits", '{"SOL": "0.99999999"}', "run", "Withdrawal limits allow", "Withdrawal limits"
    )
    yield Row(
        "limited", "withdrawal_limits", {"BTC": "9"}, "run", "SOL is not among the connection's", "Withdrawal limits"
    )
    yield Row(
        "limited", "withdrawal_limits", {"sol": "9"}, "run", "SOL is not among the connection's", "Withdrawal limits"
    )
    yield Row("guard", "allow_backfill", {"run_type": "backfill"}, "run", "a backfill pays once for every date")
    yield Row("guard", "withdrawal_ref", {"map_index": 0}, "run", "A mapped withdrawal needs a withdrawal_ref")
    loop = SimpleNamespace(index=0)
    yield Row("guard", "withdrawal_ref", {"loop": loop}, "run", "A withdrawal in a loop needs a withdrawal_ref")
    yield Row("too small to tag", "tag_amount", "0.00000001", "run", "is too small for tag_amount")
    for field, value, says in [
        ("symbol", "S L", SYMBOL),
        ("symbol", "None", SYMBOL),
        ("symbol", "{{ params.symbol }}", SYMBOL),
        ("symbol", PAIR, SYMBOL),
        ("amount", 1.5, FLOAT),
        ("amount", "1e3", AMOUNT),
        ("amount", None, AMOUNT),
        ("amount", "{{ params.amount }}", AMOUNT),
        ("amount", SEED, AMOUNT),
        ("withdrawal_ref", "", REFERENCE),
        ("withdrawal_ref", 7, REFERENCE),
        ("withdrawal_ref", "{{ params.invoice }}", "a template that was not rendered"),
        ("withdrawal_ref", "{% if x %}a{% endif %}", "a template that was not rendered"),
        ("allow_backfill", "false", "must be True or False"),
        ("allow_backfill", None, "must be True or False"),
        ("context", {}, "needs the context of a running task"),
        ("context", {"ti": None, "dag_run": None}, "needs the context of a running task"),
    ]:
        yield Row("hook call", field, value, "run", says)
    yield Row("hook twice", "withdrawal_ref", "a", "run", "Several withdrawals in one task need a withdrawal_ref each")
    yield Row("hook twice", "withdrawal_ref", None, "run", "Several withdrawals in one task need a withdrawal_ref each")
    says = "two mapped tasks with one withdrawal_ref"
    yield Row("mapped twice", "withdrawal_ref", "a", "run", says, kind=ParameterMismatch)


# -- how each goes in


def made(place: str, wrong: dict[str, Any], **of_dag: Any) -> Any:
    """Make the operator or the sensor as a DAG file does."""
    with DAG("pay", schedule=None, **of_dag):
        if place == "operator":
            return WithdrawSpotAssetOperator(**{"task_id": "withdraw", "symbol": "SOL", "amount": "1", **wrong})
        defaults = {"task_id": "wait", "symbol": "SOL", "batch_nonce": 7, "amount": "1", "timeout": 0.1}
        return WithdrawalBatchSensor(**{**defaults, "poke_interval": 0.05, **wrong})


def ran(task_context: TaskContext, task: Any, conf: Any = None) -> Any:
    """Render and execute a task, as Airflow does."""
    context = task_context.context()
    context["dag_run"].conf = {"empty": [], **(conf or {})}
    context |= {"nothing": None, "task": task, "dag": task.dag, "params": {}}
    task.render_template_fields(context)
    return context["task"].execute(context)


def of_connection(task_context: TaskContext, row: Row) -> Iterator[Step]:
    """Read the connection, ask the Test button, and withdraw."""
    if row.place == "extra":
        task_context.connect(extra={row.field: row.value})
    elif row.place == "whole extra":
        task_context.connect(extra=row.value)
    elif row.place == "host beside":
        task_context.connect(extra={"environment": row.value})
    else:
        task_context.connect(**{row.field: row.value})
    reads: tuple[Callable[[PacificaHook], object], ...] = (
        lambda hook: hook.settings,
        lambda hook: hook.get_conn(),
        lambda hook: hook.spot_balances(),
    )
    for read in reads:
        with pytest.raises(ConfigurationError) as caught:
            read(PacificaHook())
        assert isinstance(caught.value, AirflowFailException)
        assert PacificaHook().test_connection() == (False, str(caught.value))
    yield "connection", lambda: ran(task_context, made("operator", {}))


def of_key(task_context: TaskContext, row: Row) -> Iterator[Step]:
    """Ask the Test button, and withdraw."""
    if row.place == "pin":
        task_context.connect(extra={"agent_wallet": row.value})
    elif row.place == "unreadable":
        task_context.monkeypatch.setenv("AIRFLOW_CONN_PACIFICA_DEFAULT", row.value)
    elif row.place != "no connection":
        task_context.connect(password=task_context.sandbox.account if row.value == "the account's" else row.value)
    conn_id = row.value if row.place == "no connection" else "pacifica_default"
    ok, text = PacificaHook(conn_id).test_connection()
    assert ok is (row.place == "no key")
    assert ("can read, but not withdraw" if ok else row.says) in text
    yield "connection", lambda: ran(task_context, made("operator", {"pacifica_conn_id": conn_id}))


def of_literal(task_context: TaskContext, row: Row) -> Iterator[Step]:
    """Make the object; what is not refused then runs."""
    wrong = {row.field: row.value}
    if row.place in {"operator", "sensor"}:
        tasks: list[Any] = []
        yield "parse", lambda: tasks.append(made(row.place, wrong))
        yield "run", lambda: ran(task_context, tasks[0])
    elif row.place == "hook":
        yield "parse", lambda: PacificaHook(**wrong)
    elif row.place == "asset trigger":
        yield "parse", lambda: SettledWithdrawalsTrigger(**wrong)
    else:
        yield "parse", lambda: made("operator", {}).output[row.field]


def of_mapping(_: TaskContext, row: Row) -> Iterator[Step]:
    """Make a mapped task."""
    good: dict[str, Any] = {"symbol": "SOL", "amount": "1", "withdrawal_ref": "a"}

    def expanded() -> None:
        with DAG("pay", schedule=None):
            if row.place == "partial":
                listed = "withdrawal_ref" if row.field != "withdrawal_ref" else "amount"
                partial = WithdrawSpotAssetOperator.partial(task_id="w", **{**good, row.field: row.value})
                partial.kwargs.pop(listed)
                partial.expand(**{listed: [good[listed]]})
            else:
                group()

    def group() -> None:
        @task_group
        def each(amount: str) -> None:
            WithdrawSpotAssetOperator(task_id="w", symbol="SOL", amount=amount)

        each.expand(amount=["1", "2"])

    yield "parse", expanded


def of_listed(_: TaskContext, row: Row) -> Iterator[Step]:
    """Make a mapped task whose arguments another task returns, and with these the task of one place in the list."""
    good: dict[str, Any] = {"symbol": "SOL", "amount": "1", "withdrawal_ref": "a"}
    tasks: list[Any] = []

    def mapped() -> None:
        @task
        def orders() -> list[dict[str, Any]]:
            return []

        with DAG("pay", schedule=None):
            listed: Any = orders()
            tasks.append(WithdrawSpotAssetOperator.partial(task_id="withdraw").expand_kwargs(listed))

    yield "parse", mapped
    yield "run", lambda: tasks[0].unmap({**good, row.field: row.value})


def of_template(task_context: TaskContext, row: Row) -> Iterator[Step]:
    """Make a task with a template, and run it."""
    place, _, how = row.place.partition(" ")
    template = row.value if how == "source" else "{{ dag_run.conf.given }}"
    tasks: list[Any] = []

    def make() -> None:
        if place == "mapped":
            good = {"symbol": "SOL", "amount": "{{ '1' }}", "withdrawal_ref": "{{ 'a' }}", row.field: template}
            with DAG("pay", schedule=None):
                tasks.append(WithdrawSpotAssetOperator.partial(task_id="withdraw").expand_kwargs([good]))
            task_context.map_index = 0
        else:
            native = how == "native template"
            tasks.append(made(place, {row.field: template}, render_template_as_native_obj=native))

    yield "parse", make
    yield "run", lambda: ran(task_context, tasks[0], {"given": row.value})


def of_guard(task_context: TaskContext, row: Row) -> Iterator[Step]:
    """Run a task that is right in itself."""
    wrong: dict[str, Any] = {}
    if row.place == "limited":
        task_context.connect(extra={row.field: row.value})
    elif row.place == "too small to tag":
        wrong = {"tag_amount": True, "amount": row.value}
    else:
        for name, value in row.value.items():
            setattr(task_context, name, value)
    tasks: list[Any] = []
    yield "parse", lambda: tasks.append(made("operator", wrong))
    yield "run", lambda: ran(task_context, tasks[0])


def of_call(task_context: TaskContext, row: Row) -> Iterator[Step]:
    """Call the hook's withdrawing method, as a task of one's own does."""
    context, good = task_context.context(), {"symbol": "SOL", "amount": "1"}

    def call(**given: Any) -> None:
        given = {**good, "context": context, **given}
        PacificaHook().withdraw_spot_asset(given.pop("symbol"), given.pop("amount"), **given)

    if row.place == "hook twice":
        call(withdrawal_ref=row.value)
    yield "run", lambda: call(**{row.field: row.value})


def of_equal_references(task_context: TaskContext, row: Row) -> Iterator[Step]:
    """Run two mapped tasks whose references a task before has made equal."""
    for index, amount in enumerate(("1", "2")):
        task_context.map_index = index
        task = made("operator", {row.field: row.value, "amount": amount})
        if index:
            yield "run", lambda: ran(task_context, task)  # noqa: B023 - it is run before the loop goes on
        else:
            ran(task_context, task)


PLACES: dict[str, Callable[[TaskContext, Row], Iterator[Step]]] = {
    **dict.fromkeys(("connection", "extra", "whole extra", "host beside"), of_connection),
    **dict.fromkeys(("key", "pin", "no key", "no connection", "unreadable"), of_key),
    **dict.fromkeys(("operator", "sensor", "hook", "asset trigger", "receipt"), of_literal),
    **dict.fromkeys(("partial", "mapped group"), of_mapping),
    **dict.fromkeys(("operator template", "operator native template", "operator source"), of_template),
    **dict.fromkeys(("sensor template", "sensor native template", "sensor source", "mapped source"), of_template),
    **dict.fromkeys(("limited", "guard", "too small to tag"), of_guard),
    **dict.fromkeys(("hook call", "hook twice"), of_call),
    "listed by a task": of_listed,
    "mapped twice": of_equal_references,
}
ROWS = [
    *(*connection_rows(), *extra_rows(), *key_rows()),
    *(*literal_rows(), *mapped_rows()),
    *(*template_rows(), *guard_rows()),
]
# In these places a withdrawal is made first, which is right.
PAYS_FIRST = {"hook twice": 1, "mapped twice": 1}


def refusal(steps: Iterator[Step]) -> tuple[str, PacificaError]:
    """Return when the input is refused, and with what."""
    for moment, step in steps:
        try:
            step()
        except PacificaError as error:
            return moment, error
    pytest.fail("it was accepted")


@pytest.fixture(scope="module")
def exchange() -> Iterator[Sandbox]:
    """Yield a sandbox for all rows: hardly any of them reaches it."""
    from pacifica_provider.sandbox import Sandbox

    with Sandbox(seed=7) as running:
        running.control("POST", "/options", {"enforce_credits": False})
        yield running


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_wrong_input_is_refused_as_early_as_it_can_be_known(
    exchange: Sandbox, monkeypatch: pytest.MonkeyPatch, row: Row, request: pytest.FixtureRequest
) -> None:
    """In its moment, by the name of its field, without a retry, a request or an echo of a secret."""
    task_context = TaskContext(exchange, monkeypatch, run_id=f"manual__{request.node.name}")
    task_context.connect()
    before = len(task_context.posts())
    moment, error = refusal(PLACES[row.place](task_context, row))
    text = str(error)

    assert (row.moment, row.kind) == (moment, type(error).__mro__[1] if type(error) is not row.kind else row.kind), text
    assert isinstance(error, row.kind)
    assert isinstance(error, AirflowFailException) or moment == "parse"
    assert len(task_context.posts()) - before == PAYS_FIRST.get(row.place, 0)
    for secret in (PAIR, SEED, exchange.private_key, exchange.agent_private_key):
        assert not any(secret[at : at + 8] in text for at in range(len(secret) - 8))
    assert row.says in text
    assert (row.names or row.field) in text
    assert re.search(r"[Nn]othing was sent|[Tt]his (call|try) sent nothing", text) or moment == "parse"
    if row.kind is ParameterMismatch:  # it goes on with a command that shows the record
        return
    assert text.endswith(".")
    assert "\n" not in text
    assert not JARGON.search(text)
    assert len(re.findall(r"\.(?= [A-Z]|$)", text)) <= SENTENCES


@pytest.mark.parametrize("place", ["operator", "sensor"])
def test_a_template_that_is_gone_does_not_fail_a_task_that_resumes(
    exchange: Sandbox, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Airflow renders again what was deferred, but it ends by the event: the withdrawal is on chain."""
    task_context = TaskContext(exchange, monkeypatch)
    waiting = made(place, {"amount": "{{ dag_run.conf.absent }}"})
    row = {"symbol": "SOL", "batch_nonce": 7, "amount": "1", "transaction_id": "5x", "created_at_ms": 1716200000000}
    row["seen_settled_at_ms"] = 1716200000001
    receipt = {"symbol": "SOL", "batch_nonce": 7, "requested_amount": "1", "submitted_at_ms": 1716100000000}
    context = task_context.context()
    context["dag_run"].conf = {}
    waiting.render_template_fields(context)
    known = {"receipt": receipt} if place == "operator" else {}
    done = waiting.execute_complete(context, {"status": "settled", "row": row}, **known)

    assert done["transaction_id"] == "5x"


def test_the_rows_are_many_and_of_each_moment() -> None:
    """A place that yields nothing would prove nothing; an outside review tried 113 by hand."""
    moments = Counter(row.moment for row in ROWS)

    assert len(ROWS) >= 113
    assert {row.place for row in ROWS} == set(PLACES)
    assert set(moments) == {"parse", "connection", "run"}
    assert min(moments.values()) >= 50
