"""The commands: what a case shows, which decisions it takes, what the next try makes of them, and the ledger's care."""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pacifica_provider import cli
from pacifica_provider.exceptions import OutcomeUnknown, Retryable
from pacifica_provider.get_provider_info import get_provider_info
from pacifica_provider.hooks import ledgers
from pacifica_provider.hooks.task_context import _has_provider_commands, case_command
from pacifica_provider.withdrawals.ledger import LedgerState, decision_entry

if TYPE_CHECKING:
    from airflow.cli.cli_config import ActionCommand

    from tests.support.harness import ProtocolHarness

DAY_MS = 24 * 3_600_000


class Terminal:
    """A shell on the machine that Airflow runs on: the commands, and what they print."""

    def __init__(
        self, harness: ProtocolHarness, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(ledgers, "ledger_from_outside", lambda: harness.store)
        monkeypatch.setattr(cli, "_now_ms", harness.clock.now_ms)
        self.harness = harness
        self._capsys = capsys
        self.text = ""

    def run(self, *words: str) -> int:
        """Run a command; ``text`` is what it printed."""
        self._capsys.readouterr()
        status = cli.main(words)
        self.text = self._capsys.readouterr().out
        return status

    def case(self, *words: str) -> int:
        """Run the case command on the harness's task."""
        harness = self.harness
        return self.run(
            "case", "--dag-id", harness.dag_id, "--run-id", harness.run_id, "--task-id", harness.task_id, *words
        )

    @property
    def decision(self) -> dict[str, Any] | None:
        """The decision that waits."""
        harness = self.harness
        text = harness.store.entries.get(
            decision_entry(harness.dag_id, harness.run_id, harness.task_id, harness.withdrawal_ref)
        )
        return None if text is None else dict(json.loads(text))


@pytest.fixture
def terminal(harness: ProtocolHarness, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """Return a shell beside the bench."""
    return Terminal(harness, monkeypatch, capsys)


def make_unknown(harness: ProtocolHarness, when: str) -> int:
    """Leave a withdrawal whose one request was lost, before or after the commit, and whose key is too old to trust."""
    harness.fault("reset", when=when, count=2)
    harness.policy = type(harness.policy)(posts_per_try=1)
    with pytest.raises(Retryable, match="MAY have moved"):
        harness.try_once()
    harness.clock.sleep_s(10 * 60)
    with pytest.raises(OutcomeUnknown):
        harness.try_once()
    harness.sandbox.control("DELETE", "/faults")
    return int(harness.debits()[0]["batch_nonce"]) if harness.debits() else 0


# -- the case


def test_an_unknown_case_is_shown_with_its_rows_and_the_commands_that_decide_it(
    harness: ProtocolHarness, terminal: Terminal
) -> None:
    """Order, key, attempt, the row that could be it, and one ready command for each decision."""
    nonce = make_unknown(harness, "after_commit")
    status = terminal.case()
    created_at = harness.client().pending_withdrawals().rows[0].created_at_ms
    commands = [line.strip() for line in terminal.text.splitlines() if "--decide" in line]
    begin = case_command(harness.dag_id, harness.run_id, harness.task_id)

    assert status == cli.DONE
    assert all(text in terminal.text for text in ("Withdrawal of 1 SOL", harness.key, "UNKNOWN", "unanswered"))
    assert commands == [
        f"{begin} --decide adopt --batch-nonce {nonce} --created-at {created_at} --why '…'",
        f"{begin} --decide repost --rows {nonce} --why 'nothing moved, because …'",
        f"{begin} --decide void --why 'settled elsewhere: …'",
    ]


def test_every_row_of_the_symbol_is_shown_with_its_fit(harness: ProtocolHarness, terminal: Terminal) -> None:
    """A changed fee, another time or another amount hides no row; what cannot be it is not offered (F93)."""
    nonce = make_unknown(harness, "after_commit")
    harness.sandbox.control("POST", "/settle")
    other = harness.foreign("3")["batch_nonce"]
    harness.sandbox.control("POST", "/assets", {"symbol": "SOL", "fee": "0.002"})
    terminal.case()
    rows = [line for line in terminal.text.splitlines() if line.startswith("  - ")]

    assert len(rows) == 2
    assert f"batch_nonce {nonce}, amount 0.999" in rows[0]
    assert "amount fits with another fee, or rounded; made while a request of this run was valid" in rows[0]
    assert f"batch_nonce {other}, amount 3" in rows[1]
    assert "(other amount; made at another time)" in rows[1]
    assert f"adopt --batch-nonce {nonce} " in terminal.text
    assert f"adopt --batch-nonce {other} " not in terminal.text
    assert f"--rows {nonce} " in terminal.text


def name_rpc(harness: ProtocolHarness, monkeypatch: pytest.MonkeyPatch, conn_id: str, **changes: Any) -> None:
    """Define a connection to the sandbox that names its chain."""
    connection = json.loads(harness.sandbox.airflow_connection)
    connection["extra"] |= {"solana_rpc_url": changes.pop("url", harness.sandbox.solana_url)}
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps({**connection, **changes}))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({}, "finalized"),
        ({"finalized_after_s": None}, "confirmed"),
        ({"chain": "failed"}, "failed"),
        ({"chain": "unknown"}, "not found"),
    ],
)
def test_the_chain_s_word_stands_beside_each_transaction(
    harness: ProtocolHarness,
    terminal: Terminal,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    word: str,
) -> None:
    """Where the connection has a Solana RPC; a row that is still pending has none."""
    make_unknown(harness, "after_commit")
    harness.sandbox.control("POST", "/settle")
    harness.foreign("3")
    harness.sandbox.control("POST", "/options", options)
    without = terminal.case(), terminal.text
    name_rpc(harness, monkeypatch, "pacifica_other")
    with_rpc = terminal.case("--conn-id", "pacifica_other"), terminal.text
    settled, pending = [line for line in terminal.text.splitlines() if line.startswith("  - ")]

    assert (without[0], with_rpc[0]) == (cli.DONE, cli.DONE)
    assert "chain" not in without[1].replace("on chain", "")
    assert settled.endswith(f"; chain: {word}")
    assert with_rpc[1] == without[1].replace(settled.removesuffix(f"; chain: {word}"), settled)
    assert "chain" not in pending


@pytest.mark.parametrize(
    ("changes", "beside"),
    [
        ({"url": "http://127.0.0.1:9/hush-0123456789"}, "; chain: no answer (connection refused)"),
        ({"host": "http://127.0.0.1:9/api/v1"}, "; chain: not asked"),
        ({"url": "ftp://hush-0123456789"}, ""),
        ({"extra": "nonsense"}, ""),
    ],
)
def test_a_case_is_shown_whatever_the_chain_does(
    harness: ProtocolHarness,
    terminal: Terminal,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    beside: str,
) -> None:
    """An RPC that is down, one of another exchange, or a connection that cannot be used: the rows are shown."""
    make_unknown(harness, "after_commit")
    harness.sandbox.control("POST", "/settle")
    name_rpc(harness, monkeypatch, "pacifica_default", **changes)
    status = terminal.case()
    (row,) = [line for line in terminal.text.splitlines() if line.startswith("  - ")]

    assert status == cli.DONE
    assert row.partition("; chain:")[1:] == beside.partition("; chain:")[1:]
    assert "hush" not in terminal.text


def test_the_rows_are_shown_best_fit_first(harness: ProtocolHarness, terminal: Terminal) -> None:
    """Ours, what another fee would make ours, another amount; rows of other assets are not shown (F93)."""
    nonce = make_unknown(harness, "after_commit")
    nonces = [nonce, harness.foreign("0.9")["batch_nonce"], harness.foreign("2")["batch_nonce"]]
    harness.sandbox.control("POST", "/settle")
    harness.sandbox.control("POST", "/foreign_withdrawal", {"symbol": "BTC", "amount": "1"})
    terminal.case()
    rows = [line for line in terminal.text.splitlines() if line.startswith("  - ")]
    offered = [line for line in terminal.text.splitlines() if "--decide adopt" in line]

    assert [f"batch_nonce {each}," in row for each, row in zip(nonces, rows, strict=True)] == [True] * 3
    assert [row.partition("(")[2].partition(";")[0] for row in rows] == [
        "amount fits",
        "amount fits with another fee, or rounded",
        "other amount",
    ]
    assert [f"--batch-nonce {each} " in line for each, line in zip(nonces, offered, strict=False)] == [True] * 2


def test_the_record_is_shown_although_the_exchange_fails(harness: ProtocolHarness, terminal: Terminal) -> None:
    """What is on record comes first, then what failed; no decision is offered without the lists."""
    make_unknown(harness, "before_commit")
    harness.fault("status", route="history", status=503, count=9)

    assert terminal.case() == cli.REFUSED
    assert "Withdrawal of 1 SOL" in terminal.text
    assert "--decide" not in terminal.text


def test_a_case_without_rows_says_so(harness: ProtocolHarness, terminal: Terminal) -> None:
    """Nothing to adopt, and a repost has nothing to name (F18)."""
    make_unknown(harness, "before_commit")
    terminal.case()

    assert "Pacifica's lists show no withdrawal of SOL since the record began." in terminal.text
    assert "--decide adopt" not in terminal.text
    assert "--decide repost --why" in terminal.text


def test_a_bridge_that_is_gone_hides_no_row(harness: ProtocolHarness, terminal: Terminal) -> None:
    """The asset was taken off: the fee cannot be had, and the row is shown all the same (F93)."""
    nonce = make_unknown(harness, "after_commit")
    harness.sandbox.control("POST", "/assets", {"symbol": "SOL", "bridge": "missing"})

    assert terminal.case() == cli.DONE
    assert f"batch_nonce {nonce}, amount 1," in terminal.text


def test_a_key_answered_409_offers_no_repost(harness: ProtocolHarness, terminal: Terminal) -> None:
    """It would be futile while the key is remembered, and dangerous after (F16)."""
    harness.fault("duplicate_in_progress")
    with pytest.raises(OutcomeUnknown):
        harness.try_once()
    shown = terminal.case()
    page = terminal.text
    refused = terminal.case("--decide", "repost", "--why", "looked")

    assert (shown, refused) == (cli.DONE, cli.REFUSED)
    assert "repost is not possible" in page
    assert "--decide repost" not in page
    assert "answered 409" in terminal.text
    assert terminal.decision is None


@pytest.mark.parametrize("state", ["accepted", "void"])
def test_an_ended_case_leaves_nothing_to_decide(harness: ProtocolHarness, terminal: Terminal, state: str) -> None:
    """The receipt or the decision is shown, and the lists are not even read."""
    if state == "accepted":
        expected = f"batch_nonce {harness.try_once().batch_nonce}"
    else:
        make_unknown(harness, "before_commit")
        harness.decide("void", why="paid by hand")
        with pytest.raises(OutcomeUnknown):
            harness.try_once()
        expected = "void by ana: paid by hand"
    requests = harness.ledger()["requests"]
    status = terminal.case()

    assert status == cli.DONE
    assert expected in terminal.text
    assert "Nothing is left to decide." in terminal.text
    assert harness.ledger()["requests"] == requests
    assert terminal.case("--decide", "adopt", "--batch-nonce", "1", "--why", "x") == cli.REFUSED


def test_what_is_known_of_an_adopted_or_lost_record_is_shown(harness: ProtocolHarness, terminal: Terminal) -> None:
    """How the receipt was come by, and that earlier tries may be lost (F54)."""
    harness.fault("reset", when="after_commit")
    harness.try_once()
    terminal.case()
    adopted = terminal.text
    record = harness.store.record()
    lost = harness.sibling(run_id="manual__2", store=harness.store)
    lost.store.be_born(harness.clock.now_ms() + DAY_MS)
    lost.try_number = 1
    lost.foreign()
    with pytest.raises(OutcomeUnknown):
        lost.try_once()
    terminal.harness = lost
    terminal.case()

    assert record["receipt"]["adopted"]
    assert ", adopted from Pacifica's lists" in adopted
    assert "HTTP 409 (Duplicate idempotency key" in adopted
    assert "a record of them may be lost" in terminal.text


def test_a_task_without_a_record_names_the_references_it_has(harness: ProtocolHarness, terminal: Terminal) -> None:
    """Exit status 1, where else to look, and under which references the task has withdrawn."""
    nothing = terminal.case()
    without = terminal.text
    harness.store.be_born(0)
    for reference in ("inv 7", "inv 8"):
        harness.withdrawal_ref = reference
        harness.instance = reference
        harness.try_once()
    harness.sibling(run_id="another", store=harness.store, withdrawal_ref="inv 9").try_once()
    harness.sibling(dag_id="another", store=harness.store, withdrawal_ref="inv 10").try_once()
    harness.sibling(task_id="another", store=harness.store, withdrawal_ref="inv 11").try_once()
    missed = terminal.case()

    assert (nothing, missed) == (cli.NOT_FOUND, cli.NOT_FOUND)
    assert "This task has no record at all." in without
    assert "Pacifica's withdrawal history" in without
    assert [line for line in terminal.text.splitlines() if line.startswith("  ")] == [
        "  --withdrawal-ref 'inv 7'",
        "  --withdrawal-ref 'inv 8'",
    ]
    assert terminal.case("--withdrawal-ref", "inv 7") == cli.DONE
    assert "reference        inv 7" in terminal.text


def test_a_wrong_reference_is_told_of_the_withdrawal_without_one(harness: ProtocolHarness, terminal: Terminal) -> None:
    """A record under no reference is listed as such."""
    harness.try_once()

    assert terminal.case("--withdrawal-ref", "x") == cli.NOT_FOUND
    assert terminal.text.endswith("This task has records under:\n  (none)\n")


def test_an_unreadable_record_of_another_hides_no_reference(harness: ProtocolHarness, terminal: Terminal) -> None:
    """What cannot be read is passed over when the references of the task are listed (F48)."""
    harness.try_once()
    harness.store.entries["withdrawal_0123"] = '{"version": 99}'

    assert terminal.case("--withdrawal-ref", "x") == cli.NOT_FOUND
    assert terminal.text.endswith("This task has records under:\n  (none)\n")


def test_a_record_that_cannot_be_read_is_refused(harness: ProtocolHarness, terminal: Terminal) -> None:
    """Nothing is decided on what is not understood (F48)."""
    harness.try_once()
    (name,) = [name for name in harness.store.entries if name.startswith("withdrawal_")]
    harness.store.entries[name] = '{"version": 99}'

    assert terminal.case() == cli.REFUSED
    assert "cannot be read" in terminal.text


@pytest.mark.parametrize("words", [["case"], ["ledger", "prune", "--before", "2020-01-01"], ["ledger", "restored"]])
def test_a_ledger_that_is_down_is_said_to_be(harness: ProtocolHarness, terminal: Terminal, words: list[str]) -> None:
    """One line instead of a traceback, and nothing was done (F44)."""
    harness.store.down = True
    status = terminal.case() if words == ["case"] else terminal.run(*words)

    assert status == cli.REFUSED
    assert "the ledger is down" in terminal.text


# -- a decision


def test_an_adopted_row_becomes_the_receipt_of_the_next_try(harness: ProtocolHarness, terminal: Terminal) -> None:
    """By its batch nonce; after the clear the task succeeds with it and posts nothing."""
    nonce = make_unknown(harness, "after_commit")
    posts = len(harness.posts())
    status = terminal.case("--decide", "adopt", "--batch-nonce", str(nonce), "--by", "ana", "--why", "on chain")
    taken = terminal.text
    waits = terminal.case()
    receipt = harness.try_once()

    assert (status, waits) == (cli.DONE, cli.DONE)
    assert taken.startswith("Taken: adopt 1 SOL by ana.")
    assert "A decision waits for the next try." in terminal.text
    assert (receipt.batch_nonce, receipt.adopted) == (nonce, True)
    assert len(harness.posts()) == posts
    assert harness.store.record()["reason"] == "adopt by ana: on chain"
    assert terminal.decision is None


def test_a_row_that_shares_its_batch_is_named_with_its_time(harness: ProtocolHarness, terminal: Terminal) -> None:
    """Two rows of one batch nonce: without ``--created-at`` nothing is decided (F20, F98)."""
    harness.options(shared_batches=True)
    nonce = make_unknown(harness, "after_commit")
    first = harness.client().pending_withdrawals().rows[0].created_at_ms
    harness.foreign()
    rows = harness.client().pending_withdrawals().rows
    assert [row.batch_nonce for row in rows] == [nonce, nonce]
    words = ["--decide", "adopt", "--batch-nonce", str(nonce), "--why", "on chain"]
    ambiguous = terminal.case(*words)
    said = terminal.text
    status = terminal.case(*words, "--created-at", str(first))

    assert (ambiguous, status) == (cli.REFUSED, cli.DONE)
    assert f"2 listed withdrawals have batch_nonce {nonce}; name one with --batch-nonce and --created-at" in said
    assert terminal.decision is not None
    assert (terminal.decision["batch_nonce"], terminal.decision["created_at_ms"]) == (nonce, first)
    assert harness.try_once().batch_nonce == nonce


def test_a_repost_pays_once_where_nothing_moved(harness: ProtocolHarness, terminal: Terminal) -> None:
    """After repost and clear the same key is posted again, and there is one debit."""
    make_unknown(harness, "before_commit")
    status = terminal.case("--decide", "repost", "--by", "ana", "--why", "nothing arrived")
    receipt = harness.try_once()

    assert status == cli.DONE
    assert [debit["batch_nonce"] for debit in harness.debits()] == [receipt.batch_nonce]


def test_a_repost_names_the_rows_that_are_somebody_else_s(harness: ProtocolHarness, terminal: Terminal) -> None:
    """Each of them, comma separated; rows of another amount need not be named (F93)."""
    make_unknown(harness, "before_commit")
    nonces = [str(harness.foreign(amount)["batch_nonce"]) for amount in ("1", "1", "5")]
    one = terminal.case("--decide", "repost", "--why", "looked", "--rows", nonces[0])
    said = terminal.text
    both = terminal.case("--decide", "repost", "--why", "looked", "--rows", f"{nonces[0]}, {nonces[1]}")

    assert (one, both) == (cli.REFUSED, cli.DONE)
    assert f"batch_nonce [{nonces[1]}] is listed, which it does not name. Nothing was decided." in said
    assert harness.try_once().batch_nonce not in {int(nonce) for nonce in nonces}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["--decide", "adopt", "--batch-nonce", "999999", "--why", "x"],
            "0 listed withdrawals have batch_nonce 999999",
        ),
        (["--decide", "adopt", "--why", "x"], "0 listed withdrawals have batch_nonce None"),
        (["--decide", "repost", "--why", "x"], "is listed, which it does not name"),
        (["--decide", "repost", "--rows", "all", "--why", "x"], "is listed, which it does not name"),
        (["--decide", "void"], "--why is missing"),
        (["--decide", "void", "--why", ""], "--why is missing"),
        (["--decide", "void", "--why", "  "], "--why is missing"),
        (["--decide", "void", "--why", "settled elsewhere: …"], "--why is missing"),
        (["--decide", "repost", "--why", "nothing moved, because …"], "--why is missing"),
    ],
)
def test_a_decision_the_next_try_would_drop_is_refused_at_once(
    harness: ProtocolHarness, terminal: Terminal, words: list[str], says: str
) -> None:
    """The command says why, the placeholder of the ready command is no reason, and no decision is left."""
    make_unknown(harness, "after_commit")
    status = terminal.case("--by", "ana", *words)

    assert status == cli.REFUSED
    assert says in terminal.text
    assert "Nothing was decided." in terminal.text
    assert terminal.decision is None


@pytest.mark.parametrize(
    "why", [[], ["--why", ""], ["--why", " "], ["--why", "…"]], ids=["none", "empty", "blank", "…"]
)
@pytest.mark.parametrize("words", [["adopt", "--batch-nonce"], ["repost", "--rows"], ["void", "--batch-nonce"]])
def test_a_decision_without_a_reason_is_refused(
    harness: ProtocolHarness, terminal: Terminal, words: list[str], why: list[str]
) -> None:
    """A decision that would be taken with a reason is refused without one, whichever it is."""
    harness.fault("reset", when="after_commit")
    harness.policy = type(harness.policy)(posts_per_try=1)
    with pytest.raises(Retryable):
        harness.try_once()
    named = ["--decide", *words, str(harness.debits()[0]["batch_nonce"])]
    refused = terminal.case(*named, *why)
    said, left = terminal.text, terminal.decision

    assert (refused, left) == (cli.REFUSED, None)
    assert "--why is missing" in said
    assert terminal.case(*named, "--why", "looked") == cli.DONE


def test_the_ready_commands_are_refused_as_they_stand(harness: ProtocolHarness, terminal: Terminal) -> None:
    """Whoever pastes one without writing a reason has decided nothing."""
    make_unknown(harness, "after_commit")
    terminal.case()
    lines = [shlex.split(line) for line in terminal.text.splitlines() if "--decide" in line]
    statuses = [terminal.run(*words[words.index("case") :]) for words in lines]

    assert statuses == [cli.REFUSED] * 3
    assert terminal.decision is None


def test_a_row_of_another_amount_cannot_be_adopted(harness: ProtocolHarness, terminal: Terminal) -> None:
    """It is listed, but the next try would drop the decision (F98)."""
    make_unknown(harness, "before_commit")
    nonce = harness.foreign("2")["batch_nonce"]

    assert terminal.case("--decide", "adopt", "--batch-nonce", str(nonce), "--why", "looked") == cli.REFUSED
    assert "has another amount than this order. Nothing was decided." in terminal.text
    assert terminal.decision is None


@pytest.mark.parametrize("words", [["adopt", "--batch-nonce"], ["repost", "--rows"], ["void", "--batch-nonce"]])
def test_an_accepted_withdrawal_cannot_be_decided(
    harness: ProtocolHarness, terminal: Terminal, words: list[str]
) -> None:
    """Whatever was decided would be dropped by the next try (F98)."""
    nonce = harness.try_once().batch_nonce

    assert terminal.case("--decide", *words, str(nonce), "--why", "looked") == cli.REFUSED
    assert "the withdrawal is accepted, so nothing is left to decide" in terminal.text
    assert terminal.decision is None


def test_a_decision_is_taken_while_a_request_may_still_be_accepted(
    harness: ProtocolHarness, terminal: Terminal
) -> None:
    """It is the next try that waits until none can be any more, and then applies it (F98)."""
    harness.fault("reset", when="before_commit")
    harness.policy = type(harness.policy)(posts_per_try=1)
    with pytest.raises(Retryable):
        harness.try_once()
    status = terminal.case("--decide", "repost", "--why", "nothing arrived")
    slept_s = harness.clock.slept_s
    harness.try_once()

    assert status == cli.DONE
    assert harness.clock.slept_s - slept_s >= harness.window_ms / 1000
    assert len(harness.debits()) == 1


def test_a_void_needs_no_exchange(harness: ProtocolHarness, terminal: Terminal) -> None:
    """It only stops, so it is taken while Pacifica cannot be reached."""
    make_unknown(harness, "before_commit")
    harness.fault("reset", route="*", count=99)
    requests = harness.ledger()["requests"]

    assert terminal.case("--decide", "void", "--why", "paid by hand") == cli.DONE
    assert requests == harness.ledger()["requests"]


def test_who_decides_is_the_user_of_the_machine_unless_said(
    harness: ProtocolHarness, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record keeps the name and the reason."""
    make_unknown(harness, "before_commit")
    monkeypatch.setenv("LOGNAME", "bea")
    terminal.case("--decide", "void", "--why", "paid by hand")

    assert terminal.decision is not None
    assert (terminal.decision["by"], terminal.decision["why"]) == ("bea", "paid by hand")


def test_a_decision_that_the_ledger_does_not_keep_is_not_taken(harness: ProtocolHarness, terminal: Terminal) -> None:
    """The ledger's own words and status 2; it is not said to be taken (F44)."""
    make_unknown(harness, "before_commit")
    harness.store.fail_writes = 1

    assert terminal.case("--decide", "void", "--why", "paid by hand") == cli.REFUSED
    assert terminal.text == "this write fails\n"


def test_a_void_is_final(harness: ProtocolHarness, terminal: Terminal) -> None:
    """After void every try fails without posting; whoever did not say is named by the user."""
    make_unknown(harness, "before_commit")
    taken = terminal.case("--decide", "void", "--why", "paid by hand")
    decision = terminal.decision
    with pytest.raises(OutcomeUnknown, match="voided"):
        harness.try_once()

    assert taken == cli.DONE
    assert decision is not None
    assert decision["by"]
    assert harness.debits() == []


def test_the_clear_that_is_printed_names_the_run(harness: ProtocolHarness, terminal: Terminal) -> None:
    """``airflow tasks clear`` takes a time range and may clear others: one call of the REST API names the run."""
    harness.run_id = "manual__2026-11-23T00:00:00+00:00"
    make_unknown(harness, "before_commit")
    terminal.case("--decide", "void", "--why", "paid by hand")
    call, body = terminal.text.splitlines()[-2:]

    assert call == "POST /api/v2/dags/pay/clearTaskInstances"
    assert json.loads(body) == {
        "dry_run": False,
        "dag_run_id": harness.run_id,
        "task_ids": ["withdraw"],
        "only_failed": True,
    }


# -- the ledger's care


def test_a_prune_forgets_what_ended_and_lets_older_runs_ask(harness: ProtocolHarness, terminal: Terminal) -> None:
    """The run whose record was forgotten asks a person when it is cleared, instead of paying again (F87)."""
    harness.try_once()
    harness.sandbox.control("POST", "/settle")
    harness.store.set("withdrawal_alien", {"version": 9})
    harness.clock.sleep_s(32 * DAY_MS / 1000)
    before_ms = harness.clock.now_ms() - 31 * DAY_MS
    status = terminal.run("ledger", "prune", "--before", iso(before_ms))
    harness.clear()
    harness.sandbox.control("POST", "/forget_keys")
    with pytest.raises(OutcomeUnknown, match="may be lost"):
        harness.try_once()

    assert status == cli.DONE
    assert terminal.text.startswith("Withdrawals forgotten: 1.")
    assert "cannot be read and were left as they are: withdrawal_alien." in terminal.text
    assert LedgerState.of(harness.store, 0) == LedgerState(before_ms // 1000 * 1000, raised=True)
    assert len(harness.debits()) == 1


def test_a_prune_raises_the_ledger_before_it_deletes(
    harness: ProtocolHarness, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut short, it makes runs ask that need not, and never pays twice (5.2)."""
    harness.try_once()
    harness.clock.sleep_s(32 * DAY_MS / 1000)
    states: list[LedgerState] = []

    def cut_short(name: str) -> None:
        states.append(LedgerState.of(harness.store, 0))
        raise KeyboardInterrupt

    monkeypatch.setattr(harness.store, "delete", cut_short)
    with pytest.raises(KeyboardInterrupt):
        terminal.run("ledger", "prune", "--before", iso(harness.clock.now_ms() - 31 * DAY_MS))

    assert [state.raised for state in states] == [True]


@pytest.mark.parametrize(
    ("before", "says"),
    [
        ("yesterday", "is no ISO time"),
        ("", "is no ISO time"),
        ("2026-13-01", "is no ISO time"),
        ("29 days ago", "last 30 days are kept"),
        ("9999-12-31", "last 30 days are kept"),
    ],
)
def test_a_prune_refuses_what_may_still_be_cleared(
    harness: ProtocolHarness, terminal: Terminal, before: str, says: str
) -> None:
    """Nothing of the last thirty days, and nothing without a time, is forgotten."""
    harness.try_once()
    stored = dict(harness.store.entries)
    text = iso(harness.clock.now_ms() - 29 * DAY_MS) if before == "29 days ago" else before

    assert terminal.run("ledger", "prune", "--before", text) == cli.REFUSED
    assert says in terminal.text
    assert terminal.text.endswith("Nothing was done.\n")
    assert stored == harness.store.entries


def test_a_prune_never_lets_the_ledger_claim_more(harness: ProtocolHarness, terminal: Terminal) -> None:
    """A ledger that is complete since later stays so, and says that something may have been forgotten (5.2)."""
    harness.store.be_born(harness.clock.now_ms())
    born = LedgerState.of(harness.store, 0)

    assert terminal.run("ledger", "prune", "--before", iso(harness.clock.now_ms() - 90 * DAY_MS)) == cli.DONE
    assert LedgerState.of(harness.store, 0) == LedgerState(born.complete_since_ms, raised=True)


def test_a_prune_of_a_ledger_that_lost_everything_lets_it_be_born_now(
    harness: ProtocolHarness, terminal: Terminal
) -> None:
    """A run that paid before the loss asks when it is cleared, although it is younger than the prune's time (5.2)."""
    harness.try_once()
    harness.store.lose()
    harness.clock.sleep_s(900)
    harness.sandbox.control("POST", "/forget_keys")
    now_ms = harness.clock.now_ms()
    terminal.run("ledger", "prune", "--before", "2020-01-01")
    harness.clear()
    with pytest.raises(OutcomeUnknown):
        harness.try_once()

    assert LedgerState.of(harness.store, 0).complete_since_ms >= now_ms
    assert len(harness.debits()) == 1


def test_a_prune_keeps_what_is_younger(harness: ProtocolHarness, terminal: Terminal) -> None:
    """An accepted withdrawal whose last request was made after the time stays."""
    harness.try_once()
    harness.clock.sleep_s(30.5 * DAY_MS / 1000)
    record = harness.store.record()

    assert terminal.run("ledger", "prune", "--before", iso(harness.clock.now_ms() - 31 * DAY_MS)) == cli.DONE
    assert terminal.text.startswith("Withdrawals forgotten: 0.")
    assert record == harness.store.record()


@pytest.mark.parametrize("ended", [False, True])
def test_a_prune_keeps_what_has_not_ended(harness: ProtocolHarness, terminal: Terminal, *, ended: bool) -> None:
    """An unknown withdrawal stays however old it is, and so does the decision on it; once voided it is forgotten."""
    make_unknown(harness, "before_commit")
    terminal.case("--decide", "void", "--why", "paid by hand")
    if ended:
        with pytest.raises(OutcomeUnknown):
            harness.try_once()
    harness.clock.sleep_s(400 * DAY_MS / 1000)
    terminal.run("ledger", "prune", "--before", iso(harness.clock.now_ms() - 31 * DAY_MS))
    records = [name for name in harness.store.entries if name.startswith("withdrawal_")]

    assert terminal.text.startswith(f"Withdrawals forgotten: {int(ended)}.")
    assert len(records) == int(not ended)
    assert (terminal.decision is None) == ended


def test_the_time_of_a_prune_is_utc_unless_it_says_otherwise(harness: ProtocolHarness, terminal: Terminal) -> None:
    """A date alone is midnight UTC, whatever the machine's zone."""
    since = []
    for text in ("2020-01-01", "2020-01-01T02:00:00+02:00", "2020-01-01T00:00:00Z"):
        harness.store.be_born(0)
        assert terminal.run("ledger", "prune", "--before", text) == cli.DONE
        since.append(LedgerState.of(harness.store, 0).complete_since_ms)

    assert since == [1_577_836_800_000] * 3


def test_a_ledger_that_came_back_from_a_backup_asks(harness: ProtocolHarness, terminal: Terminal) -> None:
    """The run that paid after the backup was made has no record, and asks even at its first try (5.2)."""
    harness.try_once()
    harness.store.lose()
    harness.clock.sleep_s(900)
    harness.sandbox.control("POST", "/forget_keys")
    status = terminal.run("ledger", "restored")
    harness.try_number = 0
    with pytest.raises(OutcomeUnknown):
        harness.try_once()

    assert status == cli.DONE
    assert terminal.text.startswith("Noted. A run from before now")
    assert LedgerState.of(harness.store, 0).restores == 1
    assert len(harness.debits()) == 1


def test_a_restored_ledger_drops_what_waits_and_counts(harness: ProtocolHarness, terminal: Terminal) -> None:
    """A waiting decision may have been applied after the backup was made; the record stays, and each call counts."""
    make_unknown(harness, "before_commit")
    terminal.case("--decide", "repost", "--why", "nothing arrived")
    record = harness.store.record()
    now_ms = harness.clock.now_ms()
    terminal.run("ledger", "restored")
    first = LedgerState.of(harness.store, 0)
    terminal.run("ledger", "restored")

    assert terminal.decision is None
    assert record == harness.store.record()
    assert (first.raised, first.restores) == (True, 1)
    assert first.complete_since_ms >= now_ms
    assert LedgerState.of(harness.store, 0).restores == 2


def test_a_ledger_that_does_not_know_itself_is_written_anew(harness: ProtocolHarness, terminal: Terminal) -> None:
    """This command is what the error about it names as the way out."""
    harness.store.entries["ledger"] = '{"version": 1, "complete_since_ms": "x"}'

    assert terminal.run("ledger", "restored") == cli.DONE
    assert LedgerState.of(harness.store, 0).raised


def iso(unix_ms: int) -> str:
    """Return the time as a person writes it."""
    return datetime.fromtimestamp(unix_ms // 1000, tz=UTC).isoformat()


# -- the command lines


def commands() -> dict[str, ActionCommand]:
    """Return Airflow's command objects by their words."""
    (group,) = cli.get_pacifica_cli_commands()
    found: dict[str, ActionCommand] = {}

    def walk(words: str, command: Any) -> None:
        for each in getattr(command, "subcommands", ()):
            walk(f"{words} {each.name}", each)
        if not hasattr(command, "subcommands"):
            found[words] = command

    walk(group.name, group)
    return found


@pytest.mark.parametrize(
    ("words", "run", "given"),
    [
        ("pacifica case", "case", "--dag-id d --run-id r --task-id t --decide adopt --batch-nonce 7 --created-at 9"),
        ("pacifica ledger prune", "prune", "--before 2020-01-01"),
        ("pacifica ledger restored", "restored", ""),
    ],
)
def test_airflow_s_own_command_line_has_the_same_commands(
    words: str, run: str, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same options, the same function, and its status is the exit status."""
    called: list[dict[str, Any]] = []
    command = commands()[words]
    parser = argparse.ArgumentParser()
    for arg in command.args:
        arg.add_to_parser(parser)

    def seven(args: argparse.Namespace) -> int:
        called.append(dict(vars(args)))
        return 7

    monkeypatch.setattr(cli, run, seven)
    with pytest.raises(SystemExit) as caught:
        command.func(parser.parse_args(given.split()))
    status = cli.main([*words.split()[1:], *given.split()])

    assert list(commands()) == ["pacifica case", "pacifica ledger prune", "pacifica ledger restored"]
    assert (caught.value.code, status) == (7, 7)
    assert called[0] == {name: value for name, value in called[1].items() if name != "run"}


@pytest.mark.skipif(not _has_provider_commands(), reason="Airflow 3.1 reads no commands of a provider")
@pytest.mark.parametrize(
    ("words", "run", "given"),
    [
        (
            "case --dag-id d --run-id r --task-id t --withdrawal-ref x --decide repost --rows 1,2 --why y --by ana",
            "case",
            {"dag_id": "d", "run_id": "r", "task_id": "t", "withdrawal_ref": "x", "decide": "repost", "rows": "1,2"}
            | {"batch_nonce": None, "created_at": None, "why": "y", "by": "ana", "conn_id": "pacifica_default"},
        ),
        ("ledger prune --before 2020-01-01", "prune", {"before": "2020-01-01"}),
        ("ledger restored", "restored", {}),
    ],
)
def test_airflow_reads_the_commands_of_the_installed_provider(
    words: str, run: str, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``airflow pacifica …`` as a whole: found, read by Airflow's own parser, run, its status the exit status."""
    from airflow.cli import cli_parser

    called: list[dict[str, Any]] = []

    def seven(args: argparse.Namespace) -> int:
        called.append({name: value for name, value in vars(args).items() if name not in {"func", "subcommand"}})
        return 7

    monkeypatch.setattr(cli, run, seven)
    args = cli_parser.get_parser().parse_args(["pacifica", *words.split()])
    with pytest.raises(SystemExit) as caught:
        args.func(args)

    assert caught.value.code == 7
    assert called == [given]


def test_the_commands_are_listed_without_a_heavy_import() -> None:
    """Airflow loads the module at every call of ``airflow``, so it loads neither Airflow nor a client for its help."""
    program = (
        "import sys\n"
        "from pacifica_provider import cli\n"
        "try:\n"
        "    cli.main(['case', '--help'])\n"
        "except SystemExit:\n"
        "    print(sorted({'airflow', 'requests', 'pacifica_provider.hooks'} & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", program]
    folder = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout.splitlines()[-1] == "[]"


def test_airflow_finds_the_commands_in_the_provider_info() -> None:
    """The path that Airflow imports at every start."""
    (path,) = get_provider_info()["cli"]

    assert path == f"{cli.__name__}.{cli.get_pacifica_cli_commands.__name__}"


@pytest.mark.parametrize("words", [[], ["ledger"], ["case"], ["nonsense"], ["ledger", "prune"]])
def test_a_command_line_that_says_too_little_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """With a usage line and status 2, as every command."""
    with pytest.raises(SystemExit) as caught:
        cli.main(words)

    assert caught.value.code == 2
    assert "usage: python -m pacifica_provider.cli" in capsys.readouterr().err


def test_the_module_is_a_command() -> None:
    """``python -m pacifica_provider.cli`` works on every Airflow."""
    command = [sys.executable, "-m", "pacifica_provider.cli", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert "case" in done.stdout


def test_the_command_line_in_an_error_parses_back_to_the_case() -> None:
    """Ids with blanks and quotes survive a shell."""
    line = case_command("pay day", "manual__2026-11-23T00:00:00+00:00", "it's", "inv 7")
    parser = argparse.ArgumentParser()
    for flag, settings in cli.CASE:
        parser.add_argument(flag, **settings)
    words = shlex.split(line)
    args = vars(parser.parse_args(words[words.index("case") + 1 :]))

    assert (args["dag_id"], args["task_id"], args["withdrawal_ref"]) == ("pay day", "it's", "inv 7")
    assert args["run_id"] == "manual__2026-11-23T00:00:00+00:00"
