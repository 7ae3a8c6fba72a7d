"""The verdict on a chaos run can fail: each way of breaking the promise is seen, and what keeps it is not."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from pacifica_provider.sandbox.exchange import Post
from tests.lab.chaos_nemesis import Strike
from tests.lab.chaos_verdict import Judge, Seen, Told, Try

if TYPE_CHECKING:
    from pacifica_provider.sandbox.withdrawals import Debit

KEY = "11111111-1111-5111-8111-111111111111"
AT = datetime(2026, 11, 28, 12, tzinfo=UTC)
RECEIPT = {
    "account": "payer",
    "symbol": "SOL",
    "requested_amount": "1.25",
    "batch_nonce": 42,
    "idempotency_key": KEY,
    "adopted": False,
}
DEBIT: Debit = {
    "account": "payer",
    "symbol": "SOL",
    "amount": "1.25000000",
    "fee_amount": "0.00100000",
    "created_at": 1,
    "batch_nonce": 42,
    "idempotency_key": KEY,
    "transaction_id": None,
}
POST = asdict(Post(key=KEY, timestamp=1, account="payer", symbol="SOL", amount="1.25", received_at=1))
UNKNOWN = "OutcomeUnknown: UNKNOWN whether 1.25 SOL was withdrawn; money may have moved.\\nWhy: nobody knows.\\n"
REJECTED = "WithdrawalRejected: Pacifica refused to withdraw 1.25 SOL: HTTP 422. No money moved."


@dataclass
class World:
    """One withdrawal that was paid, found in order; a test breaks a part of it."""

    seen: Seen = field(
        default_factory=lambda: Seen(
            name="pay run-1 withdraw",
            account="payer",
            keys=(KEY,),
            state="success",
            tries=(Try("first", AT, AT + timedelta(seconds=5)),),
            receipt=RECEIPT,
        )
    )
    debits: list[Debit] = field(default_factory=lambda: [DEBIT])
    posts: list[dict[str, Any]] = field(default_factory=lambda: [POST])
    record: dict[str, Any] | None = field(
        default_factory=lambda: {"state": "accepted", "attempts": [{}], "receipt": {"batch_nonce": 42}}
    )
    strikes: list[Strike] = field(default_factory=list)

    def failed(self, claim: str, record: str, *debits: Debit) -> World:
        """Let it have failed with this claim, its record in this state."""
        self.seen = replace(self.seen, state="failed", receipt=None, claim=claim)
        self.record = {"state": record, "attempts": [{}]}
        self.debits = [*debits]
        return self

    def verdict(self) -> dict[str, Any]:
        """Judge it."""
        records = {} if self.record is None else {KEY: self.record}
        return Judge(Told(self.debits, self.posts, records, self.strikes)).verdict([self.seen])


def strike(what: str, at_s: float, tries: set[str] | None, lasts_s: float = 0) -> Strike:
    """Return a strike so long after the try began."""
    begun = AT + timedelta(seconds=at_s)
    return Strike(what, begun, begun + timedelta(seconds=lasts_s), None if tries is None else frozenset(tries))


def test_a_withdrawal_in_order_breaks_nothing() -> None:
    """One success, its debit and its record: the figures say so, and no violation."""
    verdict = World().verdict()

    assert verdict["violations"] == []
    assert (verdict["withdrawals_asked"], verdict["debits"], verdict["adopted"]) == (1, 1, 0)
    assert verdict["outcomes"] == {"success": 1}


def test_an_adopted_one_is_counted() -> None:
    """The receipt says that it was adopted."""
    world = World()
    world.seen = replace(world.seen, receipt={**RECEIPT, "adopted": True})

    verdict = world.verdict()

    assert (verdict["violations"], verdict["adopted"]) == ([], 1)


def test_a_random_key_and_no_record_turn_it_red() -> None:
    """The protocol broken on purpose: every try makes a key of its own and remembers nothing, so a retry pays again."""
    keys = [str(uuid4()), str(uuid4())]
    world = World(debits=[{**DEBIT, "idempotency_key": key} for key in keys], record=None)
    world.seen = replace(world.seen, receipt={**RECEIPT, "idempotency_key": keys[1]})

    found = world.verdict()["violations"]

    assert [each for each in found if "belongs to no run" in each] == [f"key {key} belongs to no run" for key in keys]
    assert f"pay run-1 withdraw succeeded with 1 debits under {keys[1]}" in found


@pytest.mark.parametrize(
    ("told", "broken"),
    [
        ("has 2 debits", {"debits": [DEBIT, {**DEBIT, "batch_nonce": 43}]}),
        ("succeeded with 0 debits", {"debits": []}),
        ("no request of it is on record", {"record": None}),
        ("no request of it is on record", {"record": {"state": "open", "attempts": []}}),
        ("its record is unknown", {"record": {"state": "unknown", "attempts": [{}]}}),
        ("its debit is", {"debits": [{**DEBIT, "batch_nonce": 43}]}),
        ("its debit is", {"debits": [{**DEBIT, "amount": "1.26"}]}),
        ("its debit is", {"debits": [{**DEBIT, "account": "another"}]}),
        ("belongs to no run", {"debits": [DEBIT, {**DEBIT, "idempotency_key": "another"}]}),
    ],
)
def test_a_success_that_is_not_so_is_seen(told: str, broken: dict[str, Any]) -> None:
    """A second debit, none, another's, or one that nothing on record announces."""
    assert any(told in each for each in World(**broken).verdict()["violations"])


def test_a_success_without_a_receipt_is_seen() -> None:
    """A green task that returned nothing."""
    world = World()
    world.seen = replace(world.seen, receipt=None)

    assert world.verdict()["violations"] == ["pay run-1 withdraw succeeded without a receipt"]


def test_a_settlement_that_is_not_on_chain_is_seen() -> None:
    """The receipt names a transaction that the exchange does not."""
    world = World()
    world.seen = replace(world.seen, receipt={**RECEIPT, "transaction_id": "abc"})

    assert "settled as abc" in world.verdict()["violations"][0]


@pytest.mark.parametrize("claim", [REJECTED, REJECTED.replace("WithdrawalRejected", "ParameterMismatch")])
def test_nothing_moved_beside_a_debit_is_seen(claim: str) -> None:
    """A false "no money moved" is worse than an open question."""
    world = World(strikes=[strike("task killed", 1, {"first"})]).failed(claim, "rejected", DEBIT)

    assert any("moved nothing, but there is a debit" in each for each in world.verdict()["violations"])


@pytest.mark.parametrize("claim", [UNKNOWN, REJECTED])
@pytest.mark.parametrize(
    ("strikes", "posts", "accident"),
    [
        ([strike("task killed", 1, {"first"})], [POST], False),
        ([strike("postgres frozen", -20, None, 15)], [POST], False),
        ([], [{**POST, "fault": "reset/after_commit"}], False),
        ([], [POST], True),
    ],
)
def test_what_befell_it_is_a_cause(
    claim: str, strikes: list[Strike], posts: list[dict[str, Any]], *, accident: bool
) -> None:
    """A try that was struck by name, an outage while one ran, an answer that was lost, an accident that was planned."""
    world = World(strikes=strikes, posts=posts).failed(claim, "unknown" if claim == UNKNOWN else "rejected")
    world.seen = replace(world.seen, accident=accident)

    verdict = world.verdict()

    assert verdict["violations"] == []
    assert verdict["unknown_with_cause"] + verdict["failed_with_cause"] == 1


@pytest.mark.parametrize("claim", [UNKNOWN, REJECTED])
@pytest.mark.parametrize(
    "strikes",
    [
        [],
        [strike("task killed", 1, {"another"})],
        [strike("postgres frozen", -60, None, 15)],
        [strike("postgres frozen", 6, None)],
    ],
)
def test_what_befell_others_is_none(claim: str, strikes: list[Strike]) -> None:
    """Another's try, or an outage that was over long before, or began after."""
    world = World(strikes=strikes).failed(claim, "unknown" if claim == UNKNOWN else "rejected")

    assert any("nothing befell it" in each for each in world.verdict()["violations"])


def test_an_unknown_that_is_not_remembered_is_seen() -> None:
    """Otherwise the next clear could send it again."""
    world = World(strikes=[strike("task killed", 1, {"first"})]).failed(UNKNOWN, "open", DEBIT)

    assert any("is unknown, and its record is not" in each for each in world.verdict()["violations"])


@pytest.mark.parametrize(
    ("claim", "told"),
    [
        ("Unresolved: something may have been sent", "did not end although the trouble did"),
        ("no error is logged by try 3", "did not end although the trouble did"),
        ("ConfigurationError: no such connection", "blames the connection"),
        ("ParameterMismatch: now the task asks for 2 SOL", "saw another order"),
    ],
)
def test_an_end_that_is_none_is_seen(claim: str, told: str) -> None:
    """Whatever befell it, another try has to settle it; and nobody has touched connection or order."""
    world = World(strikes=[strike("task killed", 1, {"first"})]).failed(claim, "open")

    assert any(told in each for each in world.verdict()["violations"])


def test_only_a_template_that_drifts_is_asked_for_two_orders() -> None:
    """The DAG that asks for another amount at every try meets its own record."""
    world = World().failed("ParameterMismatch: now the task asks for 2 SOL", "accepted", DEBIT)
    world.seen = replace(world.seen, drifting=True)

    assert world.verdict()["violations"] == []


@pytest.mark.parametrize("state", ["running", "queued", "deferred", "up_for_retry", "None"])
def test_a_task_that_never_ends_is_seen(state: str) -> None:
    """Nobody may be stuck once the trouble has ended."""
    world = World()
    world.seen = replace(world.seen, state=state, receipt=None)

    assert world.verdict()["violations"] == [f"pay run-1 withdraw never ended: it is {state}"]
