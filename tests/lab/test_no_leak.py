"""After all that: no key and no signature is anywhere in what Airflow has stored or logged."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from pacifica_provider.api.client import OPERATION_TYPE, Endpoints
from pacifica_provider.api.signing import Signer, canonical_message
from tests.faults.sweep import TELLING, forms
from tests.lab.airflow_rest import KEEPS_ASSET_STATE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tests.lab.cluster import TestCluster
    from tests.lab.runs import Payer


def database(cluster: TestCluster) -> Iterator[tuple[str, str]]:
    """Yield every row of Airflow's database as text, what is compressed also unpacked."""
    query = cluster.airflow.database.query
    for (table,) in query("select tablename from pg_tables where schemaname = 'public'"):
        for row in query(f'select * from "{table}"'):  # noqa: S608 - a name that the database has just told
            yield table, " ".join(plain(value) for value in row)


def plain(value: object) -> str:
    """Return a column's value as text."""
    if not isinstance(value, memoryview):
        return str(value)
    value = bytes(value)
    try:
        value = zlib.decompress(value)
    except zlib.error:
        return value.decode("latin-1")
    return value.decode("latin-1")


def logs(home: Path) -> Iterator[tuple[str, str]]:
    """Yield every log of tasks, triggers and components."""
    for path in sorted(home.rglob("*.log")):
        yield str(path.relative_to(home)), path.read_text(errors="replace")


def secrets_of(cluster: TestCluster) -> dict[str, str]:
    """Return the first part of every text that must not occur, and what it is: keys in all forms, signatures."""
    found: dict[str, str] = {}
    for payer in cluster.payers:
        for name, secret in payer.secrets.items():
            texts = {secret} if name == "api_config_key" else forms(secret)
            found |= {text[:TELLING]: f"{name} of {payer.conn_id}" for text in texts}
        found |= {text[:TELLING]: f"a signature of {payer.conn_id}" for text in signatures(payer)}
    return found


def signatures(payer: Payer) -> set[str]:
    """Sign once more what the exchange has seen: the same key and message give the same signature."""
    signers = [Signer.from_base58(secret) for name, secret in payer.secrets.items() if "agent" in name]
    messages = [
        canonical_message(
            OPERATION_TYPE,
            {"symbol": post["symbol"], "amount": post["amount"], "idempotency_key": post["key"]},
            timestamp_ms=post["timestamp"],
            expiry_window_ms=payer.window_ms,
        )
        for post in payer.posts()
    ]
    return {signer.sign(message) for signer in signers for message in messages}


def test_airflow_shows_no_api_config_key_with_a_connection(cluster: TestCluster) -> None:
    """Who may read connections reads the extra; Airflow masks in it what its name says is a secret (S09)."""
    payer = cluster.payer(pf_api_key="hush-0815")
    shown = cluster.airflow.rest("GET", f"/connections/{payer.conn_id}")

    assert json.loads(shown["extra"])["pf_api_key"] == "***"
    assert "hush" not in json.dumps(shown)


def leaks(texts: Iterable[tuple[str, str]], secrets: dict[str, str]) -> list[str]:
    """Return where a secret occurs, and which; never the secret."""
    assert {len(each) for each in secrets} == {TELLING}
    return [
        f"{secrets[text[at : at + TELLING]]} in {where}"
        for where, text in texts
        for at in range(len(text) - TELLING + 1)
        if text[at : at + TELLING] in secrets
    ]


def test_no_key_and_no_signature_is_in_the_database_or_any_log(cluster: TestCluster) -> None:
    """Connections are there, encrypted; keys in any form and signatures are nowhere (I7, S01, S05, S06, S07, S27)."""
    secrets, home = secrets_of(cluster), cluster.airflow.home
    rows, lines = list(database(cluster)), list(logs(home))

    stored = Counter(table for table, _ in rows)
    assert leaks(rows, secrets) == []
    assert leaks(lines, secrets) == []
    # What was searched is what was meant to be searched.
    assert stored["connection"] >= len(cluster.payers) - 1
    ledger = "asset_state_store" if KEEPS_ASSET_STATE else "variable"
    assert min(stored[table] for table in (ledger, "xcom", "task_instance", "rendered_task_instance_fields"))
    assert any("posting, attempt 1" in text for _, text in lines)
    assert sum("a signature of" in what for what in secrets.values()) > len(cluster.payers) / 2


@pytest.mark.parametrize("what", ["agent_private_key of", "a signature of", "private_key of"])
def test_the_search_finds_what_it_looks_for(cluster: TestCluster, what: str) -> None:
    """The check of the check: one secret of each kind, put into a log line and a JSON column, is found (I7)."""
    secrets = secrets_of(cluster)
    planted, name = next((text, name) for text, name in secrets.items() if name.startswith(what))

    found = leaks([("a log", f"posting {planted}…"), ("a row", f'{{"x": "{planted}"}}')], secrets)

    assert found == [f"{name} in a log", f"{name} in a row"]


def test_the_signatures_looked_for_are_those_that_were_sent(cluster: TestCluster) -> None:
    """The check of the check: rebuilt from the ledger, a signature is the one the client builds."""
    payer = next(each for each in cluster.payers if each.posts() and "second agent_private_key" not in each.secrets)
    post = payer.posts()[0]
    signer = Signer.from_base58(payer.secrets["agent_private_key"])
    endpoints = Endpoints("http://127.0.0.1:1/api/v1", payer.account)

    sent = endpoints.withdrawal(
        signer,
        post["symbol"],
        Decimal(post["amount"]),
        idempotency_key=post["key"],
        timestamp_ms=post["timestamp"],
        expiry_window_ms=payer.window_ms,
    )

    assert json.loads(sent.request.body or b"{}")["signature"] in signatures(payer)
