"""
A pytest plugin: the fixture ``pacifica_exchange`` is an exchange of one test's own, in a time that is skipped.

```python
def test_a_lost_answer_is_not_paid_twice(pacifica_exchange):
    pacifica_exchange.lost_answer()

    assert dag.test().state == "success"
    pacifica_exchange.assert_paid_once("1.5", "SOL")
```

pytest loads this module in every run, wherever the package is installed, so it imports nothing that costs.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping

    from time_machine import Traveller

    from pacifica_provider.hooks.settings import ConnectionLike, ConnectionSettings
    from pacifica_provider.operators.withdraw import WithdrawSpotAssetOperator
    from pacifica_provider.sandbox import Sandbox
    from pacifica_provider.sensors.withdrawal import WithdrawalBatchSensor
    from pacifica_provider.triggers.watcher import Watcher

DEFAULT_CONN_ID = "pacifica_default"
SETTLE_AFTER_S = 60.0
# Real time for what other threads and sockets have under way whenever time is skipped.
_BREATH_S = 0.001
# dag.test() looks again each second whether a retry is due.
_DAG_TEST, _DAG_TEST_STEP_S = "airflow.sdk.definitions.dag", 10.0
# What a 422 may be about, with its documented code.
REFUSALS: Mapping[str, tuple[int, str]] = {
    "insufficient balance": (62, "Insufficient spot balance"),
    "over withdrawal": (9, "Over withdrawal"),
    "amount too low": (29, "Withdraw amount too low"),
    "daily limit": (116, "Daily withdraw limit exceeded"),
    "withdrawals blocked": (32, "Withdrawal blocked"),
    "asset not active": (56, "Asset not active"),
    "bridge inactive": (92, "Spot bridge inactive"),
}


class PacificaExchange:
    """
    A sandbox exchange, and what a test does to it; its first account is the connection ``pacifica_default``.

    What is withdrawn settles a minute after it was accepted. Nobody waits for it in real time: where this test's thread
    sleeps, the clocks of provider, exchange and Airflow go on together. Each fault is met by the next request to
    withdraw, or by as many as ``times`` says.

    :ivar sandbox: the exchange itself; ``sandbox.control`` does what has no name here.
    """

    def __init__(self, sandbox: Sandbox, skipping: _Skipping, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sandbox = sandbox
        self._skipping = skipping
        self._monkeypatch = monkeypatch
        self.connect()

    # What happened.

    @property
    def debits(self) -> list[dict[str, Any]]:
        """Every withdrawal that was taken off a balance, oldest first; amounts are decimal text."""
        debits: list[dict[str, Any]] = self.sandbox.control("GET", "/ledger")["debits"]
        return debits

    @property
    def posts(self) -> list[dict[str, Any]]:
        """Every request to withdraw and its ``outcome``, oldest first."""
        posts: list[dict[str, Any]] = self.sandbox.control("GET", "/ledger")["posts"]
        return posts

    def assert_paid(self, *withdrawals: tuple[str, str]) -> None:
        """Assert that exactly these withdrawals were made, each ``(amount, symbol)``, in any order."""
        __tracebackhide__ = True
        paid = self._paid()
        wanted = sorted((Decimal(amount), symbol) for amount, symbol in withdrawals)
        if paid != wanted:
            raise AssertionError(f"Pacifica paid {_listed(paid)}, not {_listed(wanted)}; it was asked {self._asked()}")

    def assert_paid_once(self, amount: str | None = None, symbol: str | None = None) -> None:
        """Assert that one withdrawal was made and no other, of this amount and asset where they are given."""
        __tracebackhide__ = True
        paid = self._paid()
        if len(paid) != 1:
            raise AssertionError(f"Pacifica paid {_listed(paid)}, not once; it was asked {self._asked()}")
        ((paid_amount, paid_symbol),) = paid
        self.assert_paid((amount or str(paid_amount), symbol or paid_symbol))

    def assert_nothing_paid(self) -> None:
        """Assert that nothing was withdrawn."""
        __tracebackhide__ = True
        self.assert_paid()

    # What goes wrong.

    def lost_answer(self, times: int = 1) -> None:
        """Carry out the next request and reset the connection before its answer."""
        self._fault("after_commit", "reset", times)

    def lost_request(self, times: int = 1) -> None:
        """Reset the connection of the next request, which is never carried out."""
        self._fault("before_commit", "reset", times)

    def duplicate_key(self, times: int = 1) -> None:
        """Answer 409 to the next request, whose key nobody has used: what moved cannot be shown."""
        self._fault("before_commit", "duplicate_in_progress", times)

    def unavailable(self, times: int = 1) -> None:
        """Answer 503 to the next request, and do not carry it out."""
        self._fault("before_commit", "status", times, status=503)

    def throttled(self, times: int = 1) -> None:
        """Answer 429 to the next request."""
        self._fault("before_commit", "status", times, status=429)

    def refused(self, reason: str, times: int = 1) -> None:
        """
        Refuse the next request with a business code.

        :param reason: one of ``REFUSALS``, such as ``"insufficient balance"``.
        """
        if reason not in REFUSALS:
            raise ValueError(f"Pacifica knows no refusal {reason!r}, only {', '.join(REFUSALS)}.")
        code, error = REFUSALS[reason]
        body = {"success": False, "data": None, "error": error, "code": code}
        self._fault("before_commit", "status", times, status=422, body=body)

    def held_until_tomorrow(self) -> None:
        """Accept what is withdrawn from now on, but hold it until the day's limit begins anew, at midnight UTC."""
        self.sandbox.control("POST", "/options", {"daily_limit_usd": 0})

    def never_settled(self) -> None:
        """Leave what is accepted pending, until ``settle()``."""
        self.sandbox.control("POST", "/options", {"settle_after_s": None})

    def settle(self) -> None:
        """Settle now what is pending."""
        self.sandbox.control("POST", "/settle")

    # Where and when.

    def connect(
        self, conn_id: str = DEFAULT_CONN_ID, balances: Mapping[str, str] | None = None, **extra: object
    ) -> str:
        """
        Define an Airflow connection to this exchange for the test, and return its account.

        :param balances: open a new account with these, symbol to decimal text; without it is the first account.
        :param extra: more of the connection's extra fields, such as ``withdrawal_limits='{"SOL": "2"}'``.
        """
        opened = None if balances is None else self.sandbox.control("POST", "/accounts", {"balances": balances})
        fields = json.loads(self.sandbox.airflow_connection if opened is None else opened["airflow_connection"])
        fields["extra"] |= extra
        self._monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))
        account: str = fields["login"]
        return account

    @property
    def now(self) -> datetime:
        """The time, in UTC, as everything in this test has it."""
        return datetime.now(UTC)

    def skip(self, time_span: timedelta | float) -> None:
        """Let this much time pass at once, a ``timedelta`` or seconds."""
        self._skipping.skip(time_span.total_seconds() if isinstance(time_span, timedelta) else time_span)

    def _fault(self, when: str, kind: str, times: int, **more: object) -> None:
        self.sandbox.control("POST", "/faults", {"when": when, "kind": kind, "count": times, **more})

    def _paid(self) -> list[tuple[Decimal, str]]:
        return sorted((Decimal(debit["amount"]), debit["symbol"]) for debit in self.debits)

    def _asked(self) -> str:
        outcomes = [post["outcome"] for post in self.posts]
        times = {0: "never", 1: "once"}.get(len(outcomes), f"{len(outcomes)} times")
        return f"{times} ({', '.join(outcomes)})" if outcomes else times


class _Skipping:
    """
    Skips whatever the test's thread would wait for.

    ``time.sleep`` lets exactly so much time pass. The three that look at Pacifica's lists again and again are told to
    wait until the lists can have changed: a day of looks would take longer than a test may.
    """

    def __init__(self, traveller: Traveller) -> None:
        self.exchange: PacificaExchange
        self._traveller = traveller
        self._monotonic, self._monotonic_ns, self._sleep = time.monotonic, time.monotonic_ns, time.sleep
        self._skipped_s = 0.0
        self._thread = threading.get_ident()
        self._ends: list[float] = []
        self._looks = 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put it in the place of what sleeps."""
        from pacifica_provider.operators.withdraw import WithdrawSpotAssetOperator as Operator
        from pacifica_provider.sensors.withdrawal import WithdrawalBatchSensor as Sensor
        from pacifica_provider.triggers import watcher

        for name, clock in (("sleep", self.sleep), ("monotonic", self.monotonic), ("monotonic_ns", self.monotonic_ns)):
            monkeypatch.setattr(time, name, clock)
        for owner, name, replaced in (
            (Operator, "_pause_s", self.operator_pause),
            (Sensor, "_get_next_poke_interval", self.sensor_pause),
            (watcher.Watcher, "wait", self.watcher_wait),
        ):
            monkeypatch.setattr(owner, name, replaced(getattr(owner, name)))
        monkeypatch.setattr(watcher, "sleep_until", self.sleep_until)

    def skip(self, time_span_s: float) -> None:
        """Let so much time pass, and a moment for what sockets and other threads have under way."""
        self._traveller.shift(float(time_span_s))
        self._skipped_s += time_span_s
        self._sleep(_BREATH_S)

    def monotonic(self) -> float:
        """Return ``time.monotonic`` and what was skipped: time-machine leaves it alone."""
        return self._monotonic() + self._skipped_s

    def monotonic_ns(self) -> int:
        """Return the same in nanoseconds."""
        return self._monotonic_ns() + round(self._skipped_s * 1e9)

    def sleep(self, seconds: float, /) -> None:
        """Let the time pass at once; another thread, such as the exchange's, really sleeps."""
        if threading.get_ident() != self._thread:
            self._sleep(seconds)
        elif sys._getframe(1).f_globals.get("__name__") == _DAG_TEST:  # noqa: SLF001 - documented, whatever its name
            self.skip(_DAG_TEST_STEP_S)
        else:
            self.skip(seconds)

    def quiet_for_s(self, end_time: float) -> float:
        """
        Return how long Pacifica's lists will stay as they are, but not past ``end_time``, Unix seconds.

        Zero if nobody has looked since it was asked last: then they may have changed already.
        """
        exchange = self.exchange.sandbox.exchange
        looks = exchange.requests.total()
        if looks == self._looks:
            return 0.0
        self._looks = looks
        next_ms = exchange.next_event_ms()
        return max(0.0, (end_time if next_ms is None else min(next_ms / 1000, end_time)) - time.time())

    def operator_pause(self, pause_s: Callable[[WithdrawSpotAssetOperator, float], float]) -> Callable[..., float]:
        """Return how the operator waits between two looks."""

        def pause(task: WithdrawSpotAssetOperator, end_time: float) -> float:
            """Wait longer, but not past the end."""
            return max(pause_s(task, end_time), self.quiet_for_s(end_time))

        return pause

    def sensor_pause(self, interval_s: Callable[..., float]) -> Callable[..., float]:
        """Return how the sensor waits between two looks."""

        def pause(task: WithdrawalBatchSensor, started_at: Any, run_duration: Callable[[], float], count: int) -> float:
            """Wait longer, but not past the timeout."""
            end_time = time.time() + task.timeout - run_duration()
            return max(interval_s(task, started_at, run_duration, count), self.quiet_for_s(end_time))

        return pause

    def watcher_wait(self, wait: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
        """Return how a trigger waits, with its end noted."""

        async def noted(shared: Watcher, awaited: object, *, end_time: float, **rest: Any) -> Any:
            """Wait as ever."""
            self._ends.append(end_time)
            try:
                return await wait(shared, awaited, end_time=end_time, **rest)
            finally:
                self._ends.remove(end_time)

        return noted

    async def sleep_until(self, due: float, wake: asyncio.Event) -> None:
        """Let the watcher's time pass at once, unless something comes in or a look is under way (no time is due)."""
        if due == float("inf"):
            await wake.wait()
        await asyncio.sleep(_BREATH_S)
        if not wake.is_set() and due > time.monotonic():
            self.skip(max(due - time.monotonic(), self.quiet_for_s(min(self._ends, default=0.0))))


@pytest.fixture
def pacifica_exchange(monkeypatch: pytest.MonkeyPatch) -> Iterator[PacificaExchange]:
    """Yield an exchange for this test, in a time that is skipped instead of waited for."""
    try:
        import time_machine
    except ImportError:
        pytest.fail(
            "pacifica_exchange needs time-machine: pip install 'airflow-provider-pacifica[pytest]'", pytrace=False
        )
    from pacifica_provider.sandbox import Sandbox

    _require_database()
    with time_machine.travel(time.time()) as traveller, monkeypatch.context() as patched:
        skipping = _Skipping(traveller)
        skipping.install(patched)
        # The exchange ends before the clocks go back.
        with Sandbox(SETTLE_AFTER_S) as sandbox:
            _refuse_other_exchanges(sandbox.base_url, patched)
            skipping.exchange = PacificaExchange(sandbox, skipping, patched)
            yield skipping.exchange


def _refuse_other_exchanges(base_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test reach a real exchange: a secrets backend of Airflow is asked before what ``connect`` defines."""
    from pacifica_provider.exceptions import ConfigurationError
    from pacifica_provider.hooks.settings import ConnectionSettings

    read = ConnectionSettings.of_connection

    def checked(connection: ConnectionLike) -> ConnectionSettings:
        """Read it, and refuse it if it leads elsewhere."""
        settings = read(connection)
        if settings.base_url != base_url:
            raise ConfigurationError(
                f"This connection leads to {settings.base_url} and not to the test's exchange: define it with "
                "pacifica_exchange.connect(conn_id), and let no secrets backend of Airflow hold it. Nothing was sent."
            )
        return settings

    monkeypatch.setattr(ConnectionSettings, "of_connection", checked)


def _require_database() -> None:
    """Say in a sentence what ``dag.test()`` would end with otherwise."""
    from airflow import settings
    from sqlalchemy import inspect

    if settings.engine is not None and not inspect(settings.engine).has_table("dag_run"):
        where = settings.engine.url.render_as_string(hide_password=True)
        pytest.fail(f"Airflow's database {where} is empty: run 'airflow db migrate' once", pytrace=False)


def _listed(withdrawals: list[tuple[Decimal, str]]) -> str:
    return " and ".join(f"{amount.normalize():f} {symbol}" for amount, symbol in withdrawals) or "nothing"
