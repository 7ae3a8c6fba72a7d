"""
The cases that the promise leaves out (docs/exactly-once.md), each by its letter, recognised by what the world did.

Each rule asks for the very cause that the documentation names, at the time when it mattered; a world in which such a
thing also happened somewhere is not excused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulator.exchange import Row, SimulatedExchange
    from tests.simulator.history import Claim, History, LedgerMark

TEN_MINUTES_MS = 600_000
LIST_LAG_MS = 30_000
TOLERANCE_MS = 6_000

A1 = "A1 key forgotten within ten minutes"
A2 = "A2 two deployments, key forgotten"
A3 = "A3 the ledger lost an entry and does not say so"
A4_REPOST = "A4 a person had it posted again although it had moved"
A4_ADOPT = "A4 a person adopted another's row"
A5 = "A5 no fence, or not between two tasks with one reference: a try frozen between check and write"
A5_SIBLING = "A5 two mapped tasks with one reference, one frozen between reading and saying"
A6_BURNED = "A6 burned key, equal withdrawal in the window"
A6_DIED = "A6 409 for a request in progress that came to nothing, equal withdrawal in the window"
A6_OTHER = "A6 key used by another deployment, equal withdrawal in the window"
A7 = "A7 the lists did not show within 30 s what was accepted"
A8 = "A8 executed after its signature had expired"
A9 = "A9 another withdrawal has the same tagged amount"

UNSAID: frozenset[LedgerMark] = frozenset({"entry lost", "restored, not said"})
OVERWRITTEN: frozenset[LedgerMark] = frozenset({"overwritten"})


def damaged(history: History, owner: int, deployment: int, *, until_ms: int, since_ms: int = 0) -> str | None:
    """Say what happened, without a word, to an entry that knows of the owner's withdrawals; ``None`` if nothing did."""
    for letter, kinds in ((A3, UNSAID), (A5, OVERWRITTEN)):
        if history.lost(owner, deployment, kinds, since_ms=since_ms, until_ms=until_ms):
            return letter
    return None


def admitted_double(history: History, first: Row, second: Row) -> str | None:
    """Say why a second debit of one payment is outside the promise, or ``None``."""
    assert first.sender is not None
    assert second.sender is not None
    old, new = (history.tries[row.sender.attempt] for row in (first, second) if row.sender)
    if first.key == second.key and second.created_ms - first.created_ms < TEN_MINUTES_MS:
        return A1
    if old.deployment != new.deployment:
        return A2 if first.key == second.key else None
    if reposted_although_moved(history, first, second.created_ms):
        return A4_REPOST
    # A refusal that was none was concluded in between, so the order was made anew.
    for claim in history.claims:
        of_this = claim.kind == "WithdrawalRejected" and claim.sender.owner == first.sender.owner
        if of_this and first.created_ms <= claim.at_ms <= second.created_ms:
            letter = late_or_unlisted([first], claim.at_ms)
            if letter is not None:
                return letter
    # What was lost before the first try of either began knew nothing of it.
    began_ms = min(
        history.tries[post.request.sender.attempt].began_ms
        for post in history.posts
        if post.request.key in {first.key, second.key} and post.deployment == old.deployment
    )
    return damaged(history, first.sender.owner, new.deployment, since_ms=began_ms, until_ms=second.created_ms)


def made_meanwhile_by_a_sibling(history: History, claim: Claim, row: Row) -> bool:
    """Whether another task with the same reference had this row made after the try had begun that speaks of it."""
    speaks = history.tries[claim.sender.attempt]
    made = None if row.sender is None else history.tries[row.sender.attempt]
    return made is not None and made.task != speaks.task and row.created_ms > speaks.began_ms


def reposted_although_moved(history: History, row: Row, until_ms: int) -> bool:
    """Whether somebody who could have known of the request that made this row had it posted again, and was heard."""
    sent_ms = _sent_ms(history, row)
    return any(
        decided.action == "repost"
        and row.sender is not None
        and decided.owner == row.sender.owner
        and decided.decision_id in history.applied
        and sent_ms <= decided.looked_ms <= until_ms
        for decided in history.decided
    )


def admitted_receipt(  # noqa: PLR0911 - one return a case
    history: History, exchange: SimulatedExchange, claim: Claim, own: list[Row]
) -> str | None:
    """Say why a receipt that names another's batch is outside the promise, or ``None``."""
    for decided in history.decided:
        adopted = decided.owner == claim.sender.owner and decided.action == "adopt" and decided.nonce == claim.nonce
        if adopted and decided.decision_id in history.applied:
            return A4_ADOPT
    if _has_our_tag(history, exchange, claim):
        return A9
    if not _look_alike_in_window(history, exchange, claim):
        return None
    if any(reposted_although_moved(history, row, claim.at_ms) for row in own):
        return A4_REPOST
    used = [row for row in own if row.created_ms <= claim.at_ms and row.key == claim.key]
    if not used and exchange.burned.get(claim.key, claim.at_ms) < claim.at_ms:
        return A6_BURNED
    if not used and claim.key in exchange.conflicts:
        return A6_DIED
    if any(row.sender and history.tries[row.sender.attempt].deployment != claim.deployment for row in used):
        return A6_OTHER
    return late_or_unlisted(used, claim.at_ms) or damaged(
        history, claim.sender.owner, claim.deployment, until_ms=claim.at_ms
    )


def late_or_unlisted(rows: list[Row], at_ms: int) -> str | None:
    """Say whether these rows were executed too late, or not to be seen when they should have been."""
    if any(row.created_ms > _expires_ms(row) for row in rows):
        return A8
    if any(_was_hidden(row, row.created_ms + LIST_LAG_MS, at_ms) for row in rows):
        return A7
    return None


def _sent_ms(history: History, row: Row) -> int:
    """Return when the request that made this row left."""
    return next(post.sent_ms for post in history.posts if post.request == row.request)


def _expires_ms(row: Row) -> int:
    """Return when the request that made this row expired."""
    assert row.request is not None
    return row.request.signed_ms + row.request.window_ms


def _was_hidden(row: Row, from_ms: int, to_ms: int) -> bool:
    """Whether neither list showed the row at some time in between."""
    listed_late = from_ms < min(to_ms, row.listed_ms)
    in_the_gap = max(from_ms, row.settles_ms) < min(to_ms, row.in_history_ms)
    return listed_late or in_the_gap


def _has_our_tag(history: History, exchange: SimulatedExchange, claim: Claim) -> bool:
    """Whether a tagged withdrawal was taken for the one of that batch, made by somebody else with the very amount."""
    ours = {claim.asked, *(request.amount for request in history.signed if request.key == claim.key)}
    return history.tries[claim.sender.attempt].adoption == "amount" and any(
        row.batch_nonce == claim.nonce and row.key != claim.key and row.amount in ours for row in exchange.rows
    )


def _look_alike_in_window(history: History, exchange: SimulatedExchange, claim: Claim) -> bool:
    """Whether a row of that batch, made by somebody else, looks as if a request that this payment signed had."""
    requests = [request for request in history.signed if request.key == claim.key]
    for row in exchange.rows:
        if row.batch_nonce != claim.nonce or row.key == claim.key:
            continue
        amounts, times = {row.amount, exchange.shown_amount(row)}, (row.created_ms, exchange.shown_ms(row))
        for request in requests:
            net = {request.amount - fee for fee in exchange.fees}
            alike = row.symbol == request.symbol and bool(amounts & {request.amount, *net})
            least_ms, most_ms = request.signed_ms - TOLERANCE_MS, request.signed_ms + request.window_ms + TOLERANCE_MS
            if alike and any(least_ms <= at_ms <= most_ms for at_ms in times):
                return True
    return False
