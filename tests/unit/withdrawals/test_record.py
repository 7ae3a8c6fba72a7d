"""The record: what it allows to be said, its frozen layout, exact round trip, and refusal of anything else."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacifica_provider.exceptions import ConfigurationError
from pacifica_provider.withdrawals.identity import Order, RunIdentity, fingerprint
from pacifica_provider.withdrawals.record import Attempt, AttemptOutcome, Record, Row, State, StoredReceipt

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "records.json").read_text())["entries"]
VECTOR = pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
ENTRY: dict[str, Any] = next(vector["entry"] for vector in VECTORS if vector["name"] == "unknown")
BUSY: dict[str, Any] = next(vector["entry"] for vector in VECTORS if vector["entry"]["before"])
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
    st.sampled_from(["unanswered", "unsent", "answered", "refused", "overruled"]),
    st.none() | st.integers(100, 599),
    st.none() | st.integers(),
    st.text(max_size=20),
    st.none() | AMOUNTS,
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
        reason=draw(st.text(max_size=30)),
        decisions=tuple(draw(st.lists(st.text(max_size=9), max_size=2))),
        restores=draw(st.integers(0, 2**53)),
    )


def test_there_is_a_vector_for_each_state_and_outcome() -> None:
    """None of the five states, and no outcome of an attempt, goes without a frozen layout."""
    states = {vector["entry"]["state"] for vector in VECTORS}

    outcomes = {attempt["outcome"] for vector in VECTORS for attempt in vector["entry"]["attempts"]}

    assert states == set(get_args(State))
    assert outcomes == set(get_args(AttemptOutcome))


@VECTOR
def test_a_record_of_an_old_release_reads_back_unchanged(vector: dict[str, Any]) -> None:
    """Every stored layout is read and written back as it was (F50)."""
    stored = vector["entry"]

    assert stored == Record.from_json(copy.deepcopy(stored)).to_json(stored["write_id"])


def test_a_record_of_an_old_release_means_what_it_meant() -> None:
    """Each field of the frozen *unknown* record arrives in its place, amounts exact (F50)."""
    record = Record.from_json(ENTRY)
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
        reason="Pacifica knows the idempotency key (409) and lists 2 withdrawals that could be it",
    )


@given(records(), st.text(max_size=9))
def test_any_record_survives_the_store(record: Record, write_id: str) -> None:
    """Through JSON text and back, a record is the same record, and its JSON holds no number with a point."""
    text = json.dumps(record.to_json(write_id))

    assert record == Record.from_json(json.loads(text, parse_float=pytest.fail))


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
    (["key"], "93178725-7fb9-57ea-9c3c-000000000000"),
    (["identity"], None),
    (["identity", "run_id"], "another"),
    (["identity", "run_id"], ""),
    (["identity", "try_number"], 1),
    (["order", "amount"], "1.6"),
    (["order", "amount"], "1.50"),
    (["order", "amount"], 1.5),
    (["order", "symbol"], "BTC"),
    (["base_url"], "https://elsewhere"),
    (["fingerprint"], "0" * 64),
    (["maybe_sent"], 0),
    (["maybe_sent"], None),
    (["restores"], "0"),
    (["restores"], -1),
    (["restores"], True),
    (["since_ms"], "1716200000000"),
    (["since_ms"], 1716200000000.0),
    (["since_ms"], -1),
    (["state"], "done"),
    (["state"], "accepted"),
    (["state"], None),
    (["receipt"], {"batch_nonce": 42}),
    (["before"], None),
    (["attempts"], {}),
    (["attempts", 0, "outcome"], "lost"),
    (["attempts", 0, "signed_ms"], True),
    (["attempts", 0, "window_ms"], 1.5),
    (["attempts", 0, "extra"], 1),
    (["attempts", 0], None),
    (["attempts", 0, "amount"], 1.5),
    (["attempts", 0, "amount"], "1.50"),
    (["before", 0, "batch_nonce"], "42"),
    (["before", 0, "batch_nonce"], -1),
    (["before", 0, "amount"], "1e3"),
    (["before", 0, "amount"], 1.5),
    (["before", 0, "net_amount"], "01"),
    (["before", 0, "created_at_ms"], None),
    (["decisions"], "abc"),
    (["unknown_field"], 1),
]


@pytest.mark.parametrize(("path", "value"), PATHS, ids=[f"{path}={value!r}" for path, value in PATHS])
def test_a_record_that_is_not_exactly_ours_is_refused(path: list[Any], value: Any) -> None:
    """Corrupt, of another version, or foreign: refused, said to be left alone, and money may have moved (F48, S28)."""
    data = copy.deepcopy(BUSY)
    if path:
        place: Any = data
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
    else:
        data = value

    with pytest.raises(ConfigurationError, match=r"Money may have moved.*left as it is"):
        Record.from_json(data)


@pytest.mark.parametrize("name", sorted(ENTRY))
def test_a_record_with_a_field_missing_is_refused(name: str) -> None:
    """No field of a record has a default when it is read (F48)."""
    data = copy.deepcopy(ENTRY)
    del data[name]

    with pytest.raises(ConfigurationError, match="Money may have moved"):
        Record.from_json(data)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*ENTRY, "x"]), inner),
    )
)
def test_random_json_is_never_a_record_by_accident(data: Any) -> None:
    """Reading the store raises nothing but ConfigurationError (F48, S28)."""
    try:
        record = Record.from_json(data)
    except ConfigurationError:
        return

    assert record.to_json(data["write_id"]) == data


def test_the_record_holds_no_secret() -> None:
    """The store is shown in Airflow's page: what it holds is named here, field by field (S27)."""
    record = Record.from_json(BUSY).to_json("w")

    assert set(record) == {
        *("version", "write_id", "key", "identity", "order", "base_url", "fingerprint", "maybe_sent", "since_ms"),
        *("before", "attempts", "state", "receipt", "reason", "decisions", "restores"),
    }
    assert set(record["attempts"][0]) == {"signed_ms", "window_ms", "outcome", "status", "code", "detail", "amount"}
    assert set(record["before"][0]) == {"batch_nonce", "amount", "net_amount", "created_at_ms", "transaction_id"}


IDENTITY = RunIdentity("acc", "pay", "run", "withdraw")
ORDER = Order("SOL", Decimal("1.5"))
OPEN = Record(IDENTITY, ORDER, "https://x", fingerprint(IDENTITY, "https://x", ORDER), maybe_sent=False, since_ms=1)
RECEIPT = StoredReceipt(7, Decimal("1.5"), None, 1, adopted=True)
LOST = Attempt(1, 10)
UNSENT = Attempt(1, 10, "unsent")
OVERRULED = Attempt(1, 10, "overruled")
REFUSED = Attempt(1, 10, "refused", 422, amount=Decimal("1.5"))
OK = Attempt(1, 10, "answered", 200)


def answered(status: int) -> Attempt:
    """Return an attempt that was answered with this status."""
    return Attempt(1, 10, "answered", status)


@pytest.mark.parametrize(
    ("record", "moved"),
    [
        (OPEN, False),
        (replace(OPEN, attempts=(UNSENT,)), False),
        (replace(OPEN, attempts=(answered(422),)), True),
        (replace(OPEN, attempts=(answered(429), UNSENT)), False),
        (replace(OPEN, attempts=(REFUSED,)), False),
        (replace(OPEN, attempts=(REFUSED, LOST)), True),
        (replace(OPEN, attempts=(REFUSED,), state="rejected"), False),
        (replace(OPEN, maybe_sent=True), True),
        (replace(OPEN, attempts=(LOST,)), True),
        (replace(OPEN, attempts=(LOST, answered(422))), True),
        (replace(OPEN, attempts=(OVERRULED,)), True),
        (replace(OPEN, attempts=(answered(409),)), True),
        (replace(OPEN, state="unknown"), True),
        (replace(OPEN, state="void"), True),
        (replace(OPEN, attempts=(OK,), state="accepted", receipt=RECEIPT), True),
    ],
)
def test_money_may_have_moved_by_anything_on_record(record: Record, moved: bool) -> None:
    """One request in doubt is enough; a refusal is in doubt until it was concluded (I3, F25, F90)."""
    assert moved == record.may_have_moved


@pytest.mark.parametrize(
    ("attempts", "maybe_sent", "refused"),
    [
        ((answered(422),), False, True),
        ((answered(400),), False, True),
        ((UNSENT, answered(401)), False, True),
        ((), False, False),
        ((UNSENT,), False, False),
        ((LOST,), False, False),
        ((answered(409),), False, False),
        ((answered(429),), False, False),
        ((answered(422),), True, False),
        ((LOST, answered(422)), False, False),
        ((answered(429), answered(422)), False, True),
        ((REFUSED, answered(422)), False, True),
        ((REFUSED,), False, False),
        ((OVERRULED, answered(422)), False, False),
        ((answered(422), answered(422)), False, False),
    ],
)
def test_a_refusal_counts_only_alone(attempts: tuple[Attempt, ...], maybe_sent: bool, refused: bool) -> None:
    """Rejected is said of the only attempt that was sent, if nothing was maybe sent besides (F24, F25, F26, F95)."""
    record = replace(OPEN, attempts=attempts, maybe_sent=maybe_sent)

    assert refused == (record.refused is not None)
    assert record.refused in {None, attempts[-1] if attempts else None}


def test_only_what_may_still_count_is_sent() -> None:
    """Unsent, throttled and finally refused requests do not count; unanswered is what nobody answered (F90, F95)."""
    record = replace(OPEN, attempts=(UNSENT, LOST, answered(429), REFUSED, answered(409), OVERRULED))

    assert record.sent == (LOST, answered(409), OVERRULED)
    assert record.unanswered == (LOST,)
    assert record.refusals == (REFUSED,)
    assert record.duplicate


@pytest.mark.parametrize(
    ("attempts", "until_ms"),
    [((), 0), ((LOST,), 11), ((LOST, Attempt(5, 10, "answered", 409)), 15), ((LOST, Attempt(5, 10, "unsent")), 11)],
)
def test_a_record_is_live_until_its_last_sent_request_expires(attempts: tuple[Attempt, ...], until_ms: int) -> None:
    """What never left holds nothing up (F04, F30)."""
    assert until_ms == replace(OPEN, attempts=attempts).live_until_ms


def test_an_attempt_lives_until_its_window_ends() -> None:
    """The last moment is the signing time plus the window (F30)."""
    assert Attempt(1_000, 10_000).expires_ms == 11_000


def test_only_the_last_attempt_is_replaced() -> None:
    """What became of an attempt is noted in its own place."""
    record = replace(OPEN, attempts=(UNSENT, LOST))

    assert record.with_attempt(answered(409)).attempts == (UNSENT, answered(409))


def test_a_row_prints_what_a_person_needs() -> None:
    """Nonce, amount, time and where it stands."""
    pending = Row(7, Decimal("1.50"), None, 1716200000000)
    settled = replace(pending, transaction_id="5x")

    assert str(pending) == "batch_nonce 7, amount 1.5, created_at 1716200000000, pending"
    assert str(settled) == "batch_nonce 7, amount 1.5, created_at 1716200000000, on chain as 5x"
