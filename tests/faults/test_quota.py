"""Many withdrawals on one account and one quota: F95, none of them is lost to throttling."""

from __future__ import annotations

import heapq
import random
import threading
from typing import TYPE_CHECKING

import pytest

from pacifica_provider.exceptions import Retryable
from pacifica_provider.operators.withdraw import RETRIES, RETRY_DELAY
from pacifica_provider.withdrawals import failpoints
from tests.support.harness import BenchClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pacifica_provider.sandbox import Sandbox
    from pacifica_provider.withdrawals.record import StoredReceipt
    from tests.support.harness import ProtocolHarness

PATIENCE_S = 30
MINUTE_S = 60


class Turns(BenchClock):
    """One clock for many threads, of which one runs at a time: the next to wake, to whose time the clock is skipped."""

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox)
        self._queue: list[tuple[float, int]] = []
        self._turns: list[threading.Semaphore] = []
        self._passed_on = threading.Semaphore(0)
        self._me = threading.local()

    def sleep_s(self, seconds: float) -> None:
        """Let the others have their turns until this one's time has come."""
        self._pass_on(self.slept_s + seconds)

    def run(self, jobs: list[Callable[[], None]]) -> None:
        """Run every job to its end."""
        threads = [threading.Thread(target=self._live, args=(job,), daemon=True) for job in jobs]
        for thread in threads:
            thread.start()
            assert self._passed_on.acquire(timeout=PATIENCE_S)
        while self._queue:
            wakes_s, number = heapq.heappop(self._queue)
            super().sleep_s(max(0.0, wakes_s - self.slept_s))
            self._turns[number].release()
            assert self._passed_on.acquire(timeout=PATIENCE_S)

    def _live(self, job: Callable[[], None]) -> None:
        self._me.number = len(self._turns)
        self._turns.append(threading.Semaphore(0))
        try:
            self._pass_on(0)
            job()
        finally:
            self._passed_on.release()

    def _pass_on(self, until_s: float) -> None:
        heapq.heappush(self._queue, (until_s, self._me.number))
        self._passed_on.release()
        assert self._turns[self._me.number].acquire(timeout=PATIENCE_S)


@pytest.fixture
def slow_workers() -> Iterator[Callable[[Turns, random.Random], None]]:
    """Yield a way to let tries begin and sign at different paces, so that looks and requests of many interleave."""

    def arm(clock: Turns, luck: random.Random) -> None:
        failpoints.install(lambda point: clock.sleep_s(luck.uniform(0, 2)) if point.startswith("before") else None)

    yield arm
    failpoints.install(None)


@pytest.mark.parametrize("seed", [1, 2])
def test_sixty_mapped_withdrawals_on_one_quota_all_succeed(
    harness: ProtocolHarness, slow_workers: Callable[[Turns, random.Random], None], seed: int
) -> None:
    """F95, F61: by the documented 100 credits a minute and the operator's retries, in about the time that takes."""
    harness.options(enforce_credits=True, quota=100)
    clock, luck = Turns(harness.sandbox), random.Random(seed)  # noqa: S311 - a schedule, no secret
    harness.clock = clock
    slow_workers(clock, luck)
    receipts: dict[str, StoredReceipt] = {}

    def job(one: ProtocolHarness) -> Callable[[], None]:
        def live() -> None:
            for _ in range(1 + RETRIES):
                try:
                    receipts[one.key] = one.try_once()
                    break
                except Retryable:
                    clock.sleep_s(RETRY_DELAY.total_seconds())

        return live

    mapped = {"adoption": "never", "store": harness.store, "jitter": luck.random}
    tasks = [harness.sibling(withdrawal_ref=f"invoice-{n}", instance=f"{n}/None", **mapped) for n in range(60)]

    clock.run([job(one) for one in tasks])
    debits = {debit["idempotency_key"]: debit["batch_nonce"] for debit in harness.ledger()["debits"]}

    assert debits == {key: receipt.batch_nonce for key, receipt in receipts.items()}
    assert (len(debits), len(harness.ledger()["debits"])) == (60, 60)
    assert {one.try_number for one in tasks} == {1}  # a 429 ends no try that has the time to wait for it
    # A look and a request each, and some looks made anew: what the first minute's credits do not buy, the second's do.
    assert MINUTE_S <= clock.slept_s < 1.75 * MINUTE_S
