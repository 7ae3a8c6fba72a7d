"""
The cases that the promise leaves out (docs/exactly-once.md), recognised by what the world did.

Each rule asks for the very cause that the documentation names, at the time when it mattered; a world in which such a
thing also happened somewhere is not excused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulator.exchange import FEE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    from tests.simulator.chronicle import Chronicle, Claim, MarkKind
    from tests.simulator.exchange import Row, Sender, SimulatedExchange

TEN_MINUTES_MS = 600_000
LIST_LAG_MS = 30_000
SKEW_MS = 5_000

UNFENCED = "store without a fence, a thawed try overwrote a later one's record"
# What destroys a record without leaving it empty. Neither can be seen from within.
DAMAGE: Mapping[str, AbstractSet[MarkKind]] = {
    UNFENCED: {"overwritten"},
    "store lost an acknowledged write and kept an older one": {"write lost"},
}


def admitted_double(chronicle: Chronicle, first: Row, second: Row) -> str | None:
    """Say why a second debit is outside the promise, or ``None``."""
    assert first.sender is not None
    assert second.sender is not None
    if first.key != second.key:
        return None
    if second.created_ms - first.created_ms < TEN_MINUTES_MS:
        return "key forgotten within ten minutes"
    task, now_ms = second.sender.task, second.created_ms
    excuse = _person(chronicle, first, task, now_ms) or _moved(chronicle, first, first.sender, second.sender)
    if excuse:
        return excuse
    for kind, marks in DAMAGE.items():
        if chronicle.marked(task, marks, until_ms=now_ms):
            return kind
    return _wiped(chronicle, first, second, second.sender)


def _person(chronicle: Chronicle, first: Row, task: int, now_ms: int) -> str | None:
    """Say what a person decided wrongly, or too early."""
    if any(m.kind == "repost" and not m.right and m.task == task and m.at_ms <= now_ms for m in chronicle.marks):
        return "a person had it posted again although it had moved"
    sent_ms = min(post.sent_ms for post in chronicle.posts if post.request.sender == first.sender)
    if chronicle.marked(task, {"repost read"}, since_ms=sent_ms, until_ms=now_ms):
        return "a person's repost, decided before it was sent, was applied after"
    return None


def _moved(chronicle: Chronicle, first: Row, old: Sender, new: Sender) -> str | None:
    """Say why a debit made by another task instance could not be known of."""
    if old.task == new.task:
        return None
    if chronicle.runs[old.task] != chronicle.runs[new.task]:
        return "two deployments or a recreated run, key forgotten"
    if chronicle.tries[new.attempt].uncounted:
        return "a re-ordered mapping cleared without a clear_number, key forgotten"
    was_here = (t for t in chronicle.tries if (t.sender.task, t.sender.owner) == (new.task, old.owner))
    if any(t.began_ms < first.created_ms for t in was_here):
        return "a mapping re-ordered away and back, key forgotten"
    return None


def _wiped(chronicle: Chronicle, first: Row, second: Row, new: Sender) -> str | None:
    """Say why the lists could not tell what a missing record did not."""
    wiped = chronicle.marked(new.task, {"wiped"}, until_ms=second.created_ms)
    looked_ms = max(first.created_ms + LIST_LAG_MS, chronicle.tries[new.attempt].began_ms - TEN_MINUTES_MS)
    if wiped and _was_hidden(first, looked_ms, second.created_ms):
        return "record wiped, and the lists did not show what was accepted 30 s before"
    return None


def admitted_receipt(  # noqa: PLR0911 - one return a cause
    chronicle: Chronicle, exchange: SimulatedExchange, claim: Claim, own: list[Row]
) -> str | None:
    """Say why a receipt that names another's batch is outside the promise, or ``None``."""
    for mark in chronicle.marks:
        if mark.task == claim.sender.task and mark.kind == "adopt" and mark.nonce == claim.nonce:
            return "a person adopted another's row"
    if not _look_alike_in_window(chronicle, exchange, claim):
        return None
    keys = {post.request.key for post in chronicle.posts if post.request.sender.owner == claim.sender.owner}
    used = [row for row in own if row.created_ms <= claim.at_ms]
    if not used and any(exchange.burned.get(key, claim.at_ms) < claim.at_ms for key in keys):
        return "burned key, equal withdrawal in the window"
    if not used and keys & exchange.conflicts:
        return "409 for a request that came to nothing, or too late, equal withdrawal in the window"
    if any(row.sender and chronicle.runs[row.sender.task] != chronicle.runs[claim.sender.task] for row in used):
        return "key used by another deployment, equal withdrawal in the window"
    wiped = chronicle.marked(claim.sender.task, {"wiped"}, until_ms=claim.at_ms)
    if wiped and any(row.amount != claim.asked for row in used):
        return "key used by another order, whose record was wiped, equal withdrawal in the window"
    expiry_ms = {
        post.request.sender.attempt: post.request.signed_ms + post.request.window_ms for post in chronicle.posts
    }
    if any(row.sender and row.created_ms > expiry_ms[row.sender.attempt] for row in used):
        return "accepted after its signature had expired, equal withdrawal in the window"
    if any(_was_hidden(row, row.created_ms + LIST_LAG_MS, claim.at_ms) for row in used):
        return "lists did not show it, equal withdrawal in the window"
    return None


def _was_hidden(row: Row, from_ms: int, to_ms: int) -> bool:
    """Whether neither list showed the row at some time in between."""
    listed_late = from_ms < min(to_ms, row.listed_ms)
    in_the_gap = max(from_ms, row.settles_ms) < min(to_ms, row.in_history_ms)
    return listed_late or in_the_gap


def _look_alike_in_window(chronicle: Chronicle, exchange: SimulatedExchange, claim: Claim) -> bool:
    """Whether a row of that batch, made by somebody else, looks as if a request that this identity signed had."""
    requests = [request for request in chronicle.signed if request.sender.owner == claim.sender.owner]
    for row in exchange.rows:
        if row.batch_nonce != claim.nonce or (row.sender and row.sender.owner == claim.sender.owner):
            continue
        amounts, times = {row.amount, exchange.shown_amount(row)}, (row.created_ms, exchange.shown_ms(row))
        for request in requests:
            alike = row.symbol == request.symbol and bool(amounts & {request.amount, request.amount - FEE})
            least_ms, most_ms = request.signed_ms - SKEW_MS, request.signed_ms + request.window_ms + SKEW_MS
            if alike and any(least_ms <= at_ms <= most_ms for at_ms in times):
                return True
    return False
