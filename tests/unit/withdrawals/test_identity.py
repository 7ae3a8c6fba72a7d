"""The idempotency key and the fingerprint: frozen, and made of what the run is."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pacifica_provider.exceptions import ConfigurationError
from pacifica_provider.withdrawals.identity import NS_V1, Order, RunIdentity, fingerprint, tagged

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "keys.json").read_text(encoding="utf-8"))
KEYS = pytest.mark.parametrize("vector", VECTORS["keys"], ids=lambda vector: vector["name"])
BASE = RunIdentity(**VECTORS["keys"][0]["identity"])
MAINNET = "https://api.pacifica.fi/api/v1"
NAME = st.text(min_size=1, max_size=30)
PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=30)
REFERENCE = st.none() | PRINTABLE.filter(lambda text: text.strip() not in {"", "None"})
IDENTITIES = st.builds(RunIdentity, NAME, NAME, NAME, NAME, REFERENCE, st.text(max_size=10))


def test_the_namespace_is_frozen() -> None:
    """Another namespace would be another key for every run there is."""
    assert VECTORS["namespace"] == str(NS_V1)


@KEYS
def test_the_key_equals_its_vector(vector: dict[str, Any]) -> None:
    """A change to any of these is a breaking change: it pays again what was paid (F50, F63, F64)."""
    assert vector["key"] == RunIdentity(**vector["identity"]).idempotency_key()


@KEYS
def test_the_key_is_a_uuid5_over_compact_json(vector: dict[str, Any]) -> None:
    """The derivation of the specification, written out by hand, gives the same key."""
    who = vector["identity"]
    parts = ["v1", who["scope"], who["account"], who["dag_id"], who["run_id"], who["task_id"]]
    framed = json.dumps([*parts, who["withdrawal_ref"] or ""], separators=(",", ":"))
    digest = hashlib.sha1(uuid.UUID(VECTORS["namespace"]).bytes + framed.encode()).digest()  # noqa: S324 - RFC 9562
    key = uuid.UUID(bytes=digest[:16], version=5)

    assert vector["key"] == str(key) == vector["key"].lower()


@KEYS
def test_the_fingerprint_equals_its_vector(vector: dict[str, Any]) -> None:
    """A change makes a mismatch of every order on record (F50)."""
    made = fingerprint(RunIdentity(**vector["identity"]), MAINNET, Order("SOL", Decimal(1)))

    assert vector["fingerprint_of_1_SOL_on_mainnet"] == made


def test_every_vector_has_a_key_of_its_own() -> None:
    """Account, DAG, run, task, reference, scope and framing each tell two runs apart (F61, F63, F64, F67)."""
    keys = [vector["key"] for vector in VECTORS["keys"]]

    assert len(keys) == len(set(keys)) == 13


@pytest.mark.parametrize("vector", VECTORS["fingerprints_of_the_first"], ids=lambda vector: vector["amount"])
def test_the_fingerprint_of_an_order_equals_its_vector(vector: dict[str, Any]) -> None:
    """Base URL, symbol and exact amount are in it (F51, F71)."""
    order = Order.parse(vector["symbol"], vector["amount"])

    assert vector["fingerprint"] == fingerprint(BASE, vector["base_url"], order)


def test_equal_amounts_have_one_fingerprint() -> None:
    """``1``, ``1.0`` and ``01.00000000`` are one order; the other four of the vectors are four more (F14)."""
    prints = [vector["fingerprint"] for vector in VECTORS["fingerprints_of_the_first"]]

    assert len(set(prints[:3])) == 1
    assert len(set(prints)) == 5


@given(IDENTITIES, IDENTITIES)
def test_two_keys_are_equal_only_for_equal_parts(one: RunIdentity, other: RunIdentity) -> None:
    """No two different identities share a key, however their parts are cut; no reference is the empty one."""
    assert (one == other) == (one.idempotency_key() == other.idempotency_key())


@given(IDENTITIES, st.sampled_from(["account", "dag_id", "run_id", "task_id", "withdrawal_ref", "scope"]), NAME)
def test_every_part_is_in_the_key(identity: RunIdentity, part: str, value: str) -> None:
    """Changing any one part changes the key (F63, F64, F67)."""
    assume(getattr(identity, part) != value)
    assume(part != "withdrawal_ref" or (value.isascii() and value.isprintable() and value.strip() not in {"", "None"}))

    assert identity.idempotency_key() != dataclasses.replace(identity, **{part: value}).idempotency_key()


@given(st.lists(NAME, min_size=4, max_size=4), st.integers(0, 2), st.integers(1, 5))
def test_the_parts_are_framed(parts: list[str], at: int, shift: int) -> None:
    """Moving characters from one part to its neighbour is another identity and another key: ("a_b", "c")."""
    joined = parts[at] + parts[at + 1]
    cut = (len(parts[at]) + shift) % len(joined)
    assume(cut not in {0, len(parts[at])})
    moved = [*parts[:at], joined[:cut], joined[cut:], *parts[at + 2 :]]

    assert RunIdentity(*parts).idempotency_key() != RunIdentity(*moved).idempotency_key()


def test_nothing_of_the_attempt_is_in_the_identity() -> None:
    """There is no room for a try number, a time, an amount, an agent wallet, a map index or a base URL."""
    fields = {field.name for field in dataclasses.fields(RunIdentity)}

    assert fields == {"account", "dag_id", "run_id", "task_id", "withdrawal_ref", "scope"}
    assert list(inspect.signature(RunIdentity.idempotency_key).parameters) == ["self"]


@pytest.mark.parametrize("name", ["account", "dag_id", "run_id", "task_id"])
@pytest.mark.parametrize("value", ["", None, 7, b"x"])
def test_an_identity_with_a_part_missing_is_refused(name: str, value: Any) -> None:
    """Outside a DAG run there is no identity, and never a random one (F72)."""
    with pytest.raises(ConfigurationError, match=f"needs a {name}, and there is none"):
        dataclasses.replace(BASE, **{name: value})


@pytest.mark.parametrize("reference", ["", "x" * 129, "tab\there", "line\n", "é", "\x7f", 7, ["a"], b"a", True])
def test_a_reference_that_is_not_short_printable_ascii_is_refused(reference: Any) -> None:
    """A template that rendered to something else is no reference (S17)."""
    with pytest.raises(ConfigurationError, match="withdrawal_ref must be 1 to 128 printable ASCII") as caught:
        dataclasses.replace(BASE, withdrawal_ref=reference)

    assert str(reference)[:20] not in str(caught.value) or len(str(reference)) < 5


@pytest.mark.parametrize("reference", ["None", " None ", " ", "   "])
def test_a_reference_that_a_missing_value_renders_to_is_refused(reference: str) -> None:
    """``None`` and blanks are what a template makes of a value that is not there; "None-1" is a name (F102)."""
    with pytest.raises(ConfigurationError, match="not blank and not 'None'"):
        dataclasses.replace(BASE, withdrawal_ref=reference)

    assert [dataclasses.replace(BASE, withdrawal_ref=name).withdrawal_ref for name in ("none", "None-1")]


@pytest.mark.parametrize("symbol", ["SOL", "kBONK", "sol", "a.b-c_D9", "x" * 32])
def test_a_symbol_is_passed_through_as_it_is(symbol: str) -> None:
    """Symbols are case sensitive: ``kBONK`` is not ``KBONK``."""
    assert symbol == Order.parse(symbol, "1").symbol


@pytest.mark.parametrize(
    "symbol",
    [
        "",
        " SOL",
        "SOL ",
        "SOL\n",
        "S L",
        "\uff33\uff2f\uff2c",
        "SÖL",
        "SOL/USDC",
        "../x",
        ".",
        "-x",
        "x" * 33,
        None,
        7,
        b"SOL",
    ],
)
def test_a_symbol_of_other_characters_is_refused(symbol: Any) -> None:
    """Empty, spaced, non-ASCII, or anything a symbol cannot be, is refused before anything is sent (S17)."""
    with pytest.raises(ConfigurationError, match=r"symbol must be 1 to 32 ASCII .*Nothing was sent"):
        Order.parse(symbol, "1")


def test_an_order_prints_as_it_is_signed() -> None:
    """Its text is the canonical amount and the symbol."""
    assert str(Order.parse("SOL", "1.50")) == "1.5 SOL"


@given(IDENTITIES, st.decimals("0.0001", "1000000", places=8))
def test_a_tag_takes_a_little_off_the_amount(identity: RunIdentity, amount: Decimal) -> None:
    """One to 9,999 units of the eighth place, the same for every try, and never more than was asked for (5.3)."""
    order, key = Order("SOL", amount), identity.idempotency_key()
    units = (amount - tagged(order, key).amount) * 10**8

    assert tagged(order, key) == tagged(order, key)
    assert units == int(units)
    assert 1 <= units <= 9_999


def test_two_references_have_two_tags() -> None:
    """The tag follows the key, so two equal orders of one run can be told apart by amount."""
    keys = [dataclasses.replace(BASE, withdrawal_ref=name).idempotency_key() for name in ("a", "b", "c")]

    assert len({tagged(Order("SOL", Decimal(1)), key).amount for key in keys}) == 3


def test_an_amount_too_small_for_a_tag_is_refused() -> None:
    """What is left must be more than nothing."""
    with pytest.raises(ConfigurationError, match=r"too small for tag_amount.*Nothing was sent"):
        tagged(Order("SOL", Decimal("0.00000001")), BASE.idempotency_key())
