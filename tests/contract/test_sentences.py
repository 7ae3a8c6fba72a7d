"""The sentences that people read: fields by the names that the form gives them, common words, one full stop."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pacifica_provider.api import client
from pacifica_provider.api.amounts import parse_amount
from pacifica_provider.api.outcomes import Answer, TransportFailure
from pacifica_provider.exceptions import PacificaError
from pacifica_provider.get_provider_info import get_provider_info
from pacifica_provider.hooks.settings import ConnectionSettings
from pacifica_provider.withdrawals.identity import Order
from pacifica_provider.withdrawals.messages import Messages
from pacifica_provider.withdrawals.protocol import Asked, End
from pacifica_provider.withdrawals.settlement import Awaited, Waiting, timed_out
from tests.support.listed import IDENTITY, LOST, ORDER, RECORD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PACKAGE = Path(__file__).parents[2] / "pacifica_provider"
ACCOUNT = "FVen3X669xLzsi6N2V91DoiyzHzg1uAgqiT8jZ9nS96Z"
JARGON = re.compile(r"\b(decimal text|wire|pars(e|ed|er|ing)|canonical|regex|serialize)\b", re.IGNORECASE)
HOST = re.compile(r"\bhost\b(?! name)", re.IGNORECASE)
(DECLARED,) = get_provider_info()["connection-types"]
LABELS: dict[str, str] = {f"extra '{name}'": field["label"] for name, field in DECLARED["conn-fields"].items()}
LABELS |= {name: DECLARED["ui-field-behaviour"]["relabeling"][name] for name in ("login", "host")}
WRONG: dict[str, list[dict[str, Any]]] = {
    "login": [{"login": None}, {"login": "x y"}, {"login": "[1]"}, {"login": "11"}],
    "host": [
        {"host": "https://exchange.example"},
        *(
            {"host": host, "environment": "custom"}
            for host in (None, "x", "https://[", "http://x.example", "https://a b")
        ),
    ],
    "extra 'environment'": [{"environment": None}, {"environment": "prod"}],
    "extra 'agent_wallet'": [{"agent_wallet": "0"}],
    "extra 'pf_api_key'": [{"pf_api_key": "é"}],
    "extra 'expiry_window_ms'": [{"expiry_window_ms": 1}],
    "extra 'timeout_s'": [{"timeout_s": "soon"}],
    "extra 'withdrawal_limits'": [{"withdrawal_limits": "x"}, {"withdrawal_limits": {"SOL": 1.5}}],
    "extra 'idempotency_scope'": [{"idempotency_scope": 7}],
    "extra 'key_trust_minutes'": [{"key_trust_minutes": 0}],
    "extra 'solana_rpc_url'": [
        {"solana_rpc_url": url} for url in ("x", "https://[", "http://x.example", "https://a b", 7)
    ],
}


def connect(**fields: Any) -> ConnectionSettings:
    """Check a connection that is right but for these fields."""
    standard = {name: fields.pop(name, good) for name, good in {"login": ACCOUNT, "host": None, "port": None}.items()}
    return ConnectionSettings.parse(**standard, schema=None, extra={"environment": "testnet", **fields})


def refusal(act: Callable[[], object]) -> str:
    """Return what is said when it is refused."""
    with pytest.raises(PacificaError) as caught:
        act()
    return str(caught.value)


def endings() -> Iterator[tuple[str, Callable[[], object]]]:
    """Return what ends in a sentence that is put together from others, some with a full stop of their own."""
    answer = partial(Answer, headers={}, body=b'{"error": "Insufficient balance."}')
    for status in (400, 401, 404, 429, 500):
        yield f"HTTP {status}", partial(client._usable, answer(status), "/x")
    yield "no answer", partial(client._usable, TransportFailure("the deadline passed while connecting"), "/x")
    yield "an odd row", partial(client._rows, answer(200), {"data": ["7" * 99]}, parse_amount)
    yield "a long amount", partial(parse_amount, "7" * 99)
    yield "a port", partial(connect, port=443)
    yield "an unknown extra", partial(connect, retries=3)
    yield "a key in an extra", partial(connect, private_key="x")
    limited = connect(withdrawal_limits={"SOL": "1"})
    yield "a limit", partial(limited.check_limit, Order.parse("SOL", "2"))
    yield "no limit", partial(limited.check_limit, Order.parse("BTC", "2"))
    say = Messages(Asked(IDENTITY, ORDER, "https://x"), "airflow pacifica case")
    refused = replace(RECORD, attempts=(replace(LOST, outcome="answered", status=422, detail="Insufficient balance."),))
    never = replace(RECORD, attempts=())
    for kind, record, why in (
        ("rejected", refused, ""),
        ("mismatch", RECORD, ""),
        ("voided", replace(RECORD, state="void", reason="void by ana: paid."), ""),
        ("unknown", RECORD, "a request was never answered"),
        ("unfinished", RECORD, "Down."),
        ("unfinished", never, "Down."),
        ("misconfigured", RECORD, "No such path."),
    ):
        yield f"{kind} {why}", partial(_raise, say.of(End(kind, record, why)))  # type: ignore[arg-type]  # a literal


def _raise(error: PacificaError) -> None:
    raise error


def literals(path: Path) -> Iterator[str]:
    """Return the texts of a module that have the length of a sentence; docstrings are for those who read the code."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    left_out = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    left_out |= {
        id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in ast.walk(node) if part != node
    }
    for node in nodes:
        text = ""
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        if id(node) not in left_out and text.count(" ") >= 2:
            yield text


@pytest.mark.parametrize(
    ("field", "fields"), [(field, fields) for field, cases in WRONG.items() for fields in cases], ids=str
)
def test_a_refused_field_is_named_as_the_form_names_it(field: str, fields: dict[str, Any]) -> None:
    """By its label, and by where it lies in the connection's JSON."""
    said = refusal(partial(connect, **fields))

    assert f"{LABELS[field]} ({field})" in said
    assert said.endswith(". Nothing was sent.")
    assert ".." not in said


def test_no_field_of_the_form_is_left_out() -> None:
    """Each field that can be wrong is wrong once above; the private key is the hook's to check."""
    assert set(WRONG) == set(LABELS)


@pytest.mark.parametrize(("name", "act"), list(endings()), ids=lambda each: each if isinstance(each, str) else "")
def test_a_sentence_ends_with_one_full_stop(name: str, act: Callable[[], object]) -> None:
    """Wherever its parts come from, and in words that a reader can know."""
    said = refusal(act)

    assert ".." not in said
    assert JARGON.search(said) is None
    assert "fingerprint" not in said


def test_a_timeout_that_quotes_a_failed_look_ends_with_one_full_stop() -> None:
    """What was last seen may be a sentence itself."""
    said = timed_out(Awaited("SOL", 7, None), Waiting("Pacifica did not answer GET /x: timeout.")).text

    assert said.endswith("timeout.")
    assert ".." not in said


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(PACKAGE.rglob("*.py")) if "sandbox" not in path.parts],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_the_package_speaks_in_common_words(path: Path) -> None:
    """No word of those who write parsers; the field is called Base URL, and ``host`` only says where it lies."""
    texts = [text.replace("Base URL (host)", "Base URL") for text in literals(path)]

    assert [text for text in texts if JARGON.search(text) or HOST.search(text) or ".. " in text] == []


def test_the_test_reads_messages_and_no_docstrings(tmp_path: Path) -> None:
    """A text in an f-string is found as one, a docstring is not."""
    file = tmp_path / "some.py"
    file.write_text('def f(x):\n    """Parse the text here."""\n    raise ValueError(f"cannot parse the {x} of it")\n')

    assert list(literals(file)) == ["cannot parse the … of it"]
