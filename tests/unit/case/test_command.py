"""The case command: what it shows, which decisions it takes, and what the next try makes of them."""

from __future__ import annotations

import argparse
import json
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from pacifica_provider.case import book, command
from pacifica_provider.case.options import OPTIONS, case_command
from pacifica_provider.exceptions import OutcomeUnknown
from pacifica_provider.hooks.stores import DECISION_KEY, ENTRY_KEY

if TYPE_CHECKING:
    from tests.support.rig import Rig


class RigBackend:
    """Airflow's state backend, with the bench's store behind it; tests/system runs the command on the real one."""

    def __init__(self, rig: Rig) -> None:
        self._store = rig.store

    def get(self, scope: tuple[object, ...], key: str) -> str | None:
        """Return the stored text."""
        if key == ENTRY_KEY:
            return self._store.entry
        return None if self._store.decision is None else json.dumps(self._store.decision)

    def set(self, scope: tuple[object, ...], key: str, value: str) -> None:
        """Keep the decision."""
        assert key == DECISION_KEY
        self._store.decision = json.loads(value)


def run(rig: Rig, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run the command on the rig's task instance."""
    monkeypatch.setattr(book, "_state_store", lambda: (RigBackend(rig), lambda *parts: parts))
    monkeypatch.setattr(command, "_now_ms", rig.clock.now_ms)
    parser = argparse.ArgumentParser()
    for flag, settings in OPTIONS:
        parser.add_argument(flag, **settings)
    identity = ["--dag-id", rig.dag_id, "--run-id", rig.run_id, "--task-id", rig.task_id]
    return command.run(parser.parse_args([*identity, *words]))


def make_unknown(rig: Rig, when: str) -> None:
    """Leave a withdrawal whose one request was lost, before or after the commit, and whose key is too old to trust."""
    rig.fault("reset", when=when, count=2)
    rig.policy = type(rig.policy)(posts_per_try=1)
    with pytest.raises(Exception, match="MAY have moved"):
        rig.try_once()
    rig.clock.sleep_s(10 * 60)
    with pytest.raises(OutcomeUnknown):
        rig.try_once()
    rig.sandbox.control("DELETE", "/faults")


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    """Return what was printed since the last look."""
    return capsys.readouterr().out


def test_an_unknown_case_is_shown_with_its_rows_and_the_commands_that_decide_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page names order, key, attempt, the candidate row, and one ready command for each decision."""
    make_unknown(rig, "after_commit")
    nonce = rig.debits()[0]["batch_nonce"]

    status = run(rig, monkeypatch)

    text = shown(capsys)
    assert status == command.DONE
    assert "Withdrawal of 1 SOL" in text
    assert rig.key in text
    assert f"batch_nonce {nonce}" in text
    assert f"--decide adopt --batch-nonce {nonce}" in text
    assert f"--decide repost --rows {nonce}" in text
    assert "--decide void" in text


def test_an_adopted_row_becomes_the_receipt_of_the_next_try(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After adopt and clear the task succeeds with that row's nonce and posts nothing."""
    make_unknown(rig, "after_commit")
    nonce = rig.debits()[0]["batch_nonce"]
    posts = len(rig.posts())

    status = run(rig, monkeypatch, "--decide", "adopt", "--batch-nonce", str(nonce), "--by", "ana", "--why", "on chain")
    receipt = rig.try_once()

    assert status == command.DONE
    assert (receipt.batch_nonce, receipt.adopted) == (nonce, True)
    assert len(rig.posts()) == posts
    assert rig.store.record()["reason"] == "adopt by ana: on chain"
    assert rig.store.decision is None
    assert "clear the task" in shown(capsys)


def test_a_repost_pays_once_where_nothing_moved(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After repost and clear the same key is posted again, and there is one debit."""
    make_unknown(rig, "before_commit")

    status = run(rig, monkeypatch, "--decide", "repost", "--by", "ana", "--why", "nothing arrived")
    receipt = rig.try_once()

    assert status == command.DONE
    assert [debit["batch_nonce"] for debit in rig.debits()] == [receipt.batch_nonce]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--decide", "adopt", "--batch-nonce", "999999", "--why", "x"], "no listed withdrawal"),
        (["--decide", "adopt", "--why", "x"], "not a batch nonce"),
        (["--decide", "repost", "--why", "x"], "does not name batch_nonce"),
        (["--decide", "void"], "why is missing"),
    ],
)
def test_a_decision_the_next_try_would_refuse_is_refused_at_once(
    rig: Rig,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    why: str,
) -> None:
    """The command says why and leaves no decision."""
    make_unknown(rig, "after_commit")

    status = run(rig, monkeypatch, "--by", "ana", *words)

    assert status == command.REFUSED
    assert why in shown(capsys)
    assert rig.store.decision is None


def test_a_void_is_final(rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """After void every try fails without posting, and nothing is left to decide."""
    make_unknown(rig, "before_commit")

    taken = run(rig, monkeypatch, "--decide", "void", "--by", "ana", "--why", "paid by hand")
    with pytest.raises(OutcomeUnknown, match="voided"):
        rig.try_once()
    again = run(rig, monkeypatch, "--decide", "adopt", "--batch-nonce", "1", "--by", "ana", "--why", "x")

    assert (taken, again) == (command.DONE, command.REFUSED)
    assert rig.debits() == []


def test_an_accepted_case_leaves_nothing_to_decide(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The receipt is shown, and the lists are not even read."""
    receipt = rig.try_once()
    requests = rig.ledger()["requests"]

    status = run(rig, monkeypatch)

    text = shown(capsys)
    assert status == command.DONE
    assert f"batch_nonce {receipt.batch_nonce}" in text
    assert "Nothing is left to decide." in text
    assert rig.ledger()["requests"] == requests


def test_a_task_without_a_record_is_said_so(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No entry: exit status 1, and where else to look."""
    status = run(rig, monkeypatch)

    assert status == command.NOT_FOUND
    assert "no record" in shown(capsys)


@pytest.mark.parametrize("map_index", [-1, 3])
def test_the_command_line_in_an_error_parses_back_to_the_case(map_index: int) -> None:
    """Ids with blanks and quotes survive a shell."""
    line = case_command("pay day", "manual__2026-11-23T00:00:00+00:00", "it's", map_index, "inv 7")

    parser = argparse.ArgumentParser()
    for flag, settings in OPTIONS:
        parser.add_argument(flag, **settings)
    words = shlex.split(line)
    args: dict[str, Any] = vars(parser.parse_args(words[words.index("case") + 1 :]))

    assert args["dag_id"] == "pay day"
    assert args["task_id"] == "it's"
    assert args["map_index"] == map_index
    assert args["withdrawal_ref"] == "inv 7"
