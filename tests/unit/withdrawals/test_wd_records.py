"""The stored record: frozen layout, exact round trip, and refusal of anything else."""

from __future__ import annotations

import copy
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacifica_provider.exceptions import ConfigurationError
from pacifica_provider.withdrawals.identity import Order, RunIdentity, fingerprint
from pacifica_provider.withdrawals.records import Attempt, Entry, Record, Row, StoredReceipt

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "records.json").read_text())["entries"]
VECTOR = pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
ENTRY: dict[str, Any] = next(vector["entry"] for vector in VECTORS if vector["name"] == "unknown")
URL = "https://api.pacifica.fi/api/v1"

TIMES = st.integers(0, 2**53)
AMOUNTS = st.builds(
    lambda whole, part: Decimal(f"{whole}.{part:018}"), st.integers(0, 10**18 - 1), st.integers(0, 10**18 - 1)
)
NONCES = st.integers(0, 2**64 - 1)
ROWS = st.builds(Row, NONCES, AMOUNTS, st.none() | AMOUNTS, TIMES, st.none() | st.text(min_size=1, max_size=90))
ATTEMPTS = st.builds(
    Attempt,
    TIMES,
    st.integers(1000, 200_000),
    st.sampled_from(["unanswered", "unsent", "answered", "overruled"]),
    st.none() | st.integers(100, 599),
    st.none() | st.integers(),
    st.text(max_size=20),
)
RECEIPTS = st.builds(StoredReceipt, NONCES, AMOUNTS, st.none() | AMOUNTS, TIMES, st.booleans())
NAMES = st.text(min_size=1, max_size=20)
IDENTITIES = st.builds(RunIdentity, NAMES, NAMES, NAMES, NAMES, st.sampled_from([None, "ref", "ref 2"]), st.text())


@st.composite
def records(draw: st.DrawFn) -> Record:
    """Return any record that this package could write."""
    identity, url = draw(IDENTITIES), draw(st.text(max_size=30))
    order = Order.parse(draw(st.sampled_from(["SOL", "kBONK"])), draw(AMOUNTS.filter(bool)))
    state = draw(st.sampled_from(["open", "accepted", "rejected", "unknown", "void"]))
    return Record(
        identity=identity,
        order=order,
        base_url=url,
        fingerprint=fingerprint(identity, url, order),
        maybe_sent=draw(st.booleans()),
        since_ms=draw(TIMES),
        before=tuple(draw(st.lists(ROWS, max_size=3))),
        attempts=tuple(draw(st.lists(ATTEMPTS, max_size=3))),
        state=state,  # type: ignore[arg-type]  # a text drawn from the literals
        receipt=draw(RECEIPTS) if state == "accepted" else None,
        candidates=tuple(draw(st.lists(ROWS, max_size=3))),
        reason=draw(st.text(max_size=30)),
        reposted=draw(st.booleans()),
        decisions=tuple(draw(st.lists(st.text(max_size=9), max_size=2))),
    )


def test_there_is_a_vector_for_each_state() -> None:
    """None of the five states goes without a frozen layout."""
    states = {record["state"] for vector in VECTORS for record in vector["entry"]["records"].values()}

    assert states == {"open", "accepted", "rejected", "unknown", "void"}


@VECTOR
def test_a_record_of_an_old_release_reads_back_unchanged(vector: dict[str, Any]) -> None:
    """Every stored layout is read and written back as it was (F50)."""
    stored = vector["entry"]

    assert stored == Entry.from_json(copy.deepcopy(stored)).to_json()


def test_a_record_of_an_old_release_means_what_it_meant() -> None:
    """Each field of the frozen *unknown* record arrives in its place, amounts exact (F50)."""
    (record,) = Entry.from_json(ENTRY).records.values()
    identity = RunIdentity(
        "FVen3X669xLzsi6N2V91DoiyzHzg1uAgqiT8jZ9nS96Z", "pay", "scheduled__2026-11-23T00:00:00+00:00", "withdraw"
    )
    order = Order("SOL", Decimal("1.5"))

    assert record == Record(
        identity=identity,
        order=order,
        base_url=URL,
        fingerprint=fingerprint(identity, URL, order),
        maybe_sent=False,
        since_ms=1716200000000,
        attempts=(
            Attempt(1716200001000, 10000),
            Attempt(1716200013000, 10000, "answered", 409, None, "Duplicate idempotency key"),
        ),
        state="unknown",
        candidates=(
            Row(42, Decimal("1.5"), Decimal("1.499"), 1716200003000, "5xTransaction"),
            Row(43, Decimal("1.5"), None, 1716200004000),
        ),
        reason="Pacifica knows the idempotency key (409) and lists 2 withdrawals that could be it",
    )


@given(st.lists(records(), max_size=2), st.text(max_size=9))
def test_any_record_survives_the_store(drawn: list[Record], write_id: str) -> None:
    """Through JSON text and back, a record is the same record, and its JSON holds no number with a point."""
    entry = Entry(write_id, {record.key: record for record in drawn})
    text = json.dumps(entry.to_json())

    assert entry == Entry.from_json(json.loads(text, parse_float=pytest.fail))


PATHS: list[tuple[list[Any], Any]] = [
    ([], None),
    ([], []),
    ([], "text"),
    (["version"], 0),
    (["version"], 2),
    (["version"], "1"),
    (["version"], None),
    (["write_id"], None),
    (["write_id"], 7),
    (["records"], None),
    (["records"], []),
    (["r"], None),
    (["r"], "text"),
    (["r", "key"], "93178725-7fb9-57ea-9c3c-000000000000"),
    (["r", "identity"], None),
    (["r", "identity", "run_id"], "another"),
    (["r", "identity", "run_id"], ""),
    (["r", "identity", "try_number"], 1),
    (["r", "order", "amount"], "1.6"),
    (["r", "order", "amount"], "1.50"),
    (["r", "order", "amount"], 1.5),
    (["r", "order", "symbol"], "BTC"),
    (["r", "base_url"], "https://elsewhere"),
    (["r", "fingerprint"], "0" * 64),
    (["r", "maybe_sent"], 0),
    (["r", "maybe_sent"], None),
    (["r", "reposted"], "false"),
    (["r", "since_ms"], "1716200000000"),
    (["r", "since_ms"], 1716200000000.0),
    (["r", "since_ms"], -1),
    (["r", "state"], "done"),
    (["r", "state"], "accepted"),
    (["r", "state"], None),
    (["r", "receipt"], {"batch_nonce": 42}),
    (["r", "before"], None),
    (["r", "attempts"], {}),
    (["r", "attempts", 0, "outcome"], "lost"),
    (["r", "attempts", 0, "signed_ms"], True),
    (["r", "attempts", 0, "window_ms"], 1.5),
    (["r", "attempts", 0, "extra"], 1),
    (["r", "attempts", 0], None),
    (["r", "candidates", 0, "batch_nonce"], "42"),
    (["r", "candidates", 0, "batch_nonce"], -1),
    (["r", "candidates", 0, "amount"], "1e3"),
    (["r", "candidates", 0, "amount"], 1.5),
    (["r", "candidates", 0, "created_at_ms"], None),
    (["r", "decisions"], "abc"),
    (["r", "unknown_field"], 1),
]


@pytest.mark.parametrize(("path", "value"), PATHS, ids=[f"{path}={value!r}" for path, value in PATHS])
def test_a_record_that_is_not_exactly_ours_is_refused(path: list[Any], value: Any) -> None:
    """Corrupt, of another version, or foreign: refused, said to be left alone, and money may have moved (F48, S28)."""
    data = copy.deepcopy(ENTRY)
    (key,) = data["records"]
    steps = ["records", key, *path[1:]] if path[:1] == ["r"] else path
    if steps:
        place: Any = data
        for step in steps[:-1]:
            place = place[step]
        place[steps[-1]] = value
    else:
        data = value

    with pytest.raises(ConfigurationError, match=r"Money may have moved.*left as it is"):
        Entry.from_json(data)


@pytest.mark.parametrize("name", sorted(next(iter(ENTRY["records"].values()))))
def test_a_record_with_a_field_missing_is_refused(name: str) -> None:
    """No field of a record has a default when it is read (F48)."""
    data = copy.deepcopy(ENTRY)
    (record,) = data["records"].values()
    del record[name]

    with pytest.raises(ConfigurationError, match="Money may have moved"):
        Entry.from_json(data)


def test_a_record_under_a_foreign_key_is_refused() -> None:
    """A record moved to another key is nobody's (F48)."""
    data = copy.deepcopy(ENTRY)
    data["records"] = {"93178725-0000-57ea-9c3c-36b68a9fc0e4": next(iter(data["records"].values()))}

    with pytest.raises(ConfigurationError, match="under a key that is not its own"):
        Entry.from_json(data)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*ENTRY, "x"]), inner),
    )
)
def test_random_json_is_never_an_entry_by_accident(data: Any) -> None:
    """Reading the store raises nothing but ConfigurationError (F48, S28)."""
    try:
        entry = Entry.from_json(data)
    except ConfigurationError:
        return

    assert entry.to_json() == data


def test_the_record_holds_no_secret() -> None:
    """The store is shown in Airflow's page: what it holds is named here, field by field (S27)."""
    (record,) = Entry.from_json(ENTRY).to_json()["records"].values()

    assert set(record) == {
        *("key", "identity", "order", "base_url", "fingerprint", "maybe_sent", "since_ms", "before", "attempts"),
        *("state", "receipt", "candidates", "reason", "reposted", "decisions"),
    }
    assert set(record["attempts"][0]) == {"signed_ms", "window_ms", "outcome", "status", "code", "detail"}
