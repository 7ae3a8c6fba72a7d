"""One world: drawn from its seed, run to its end, then calmed, so that what is still open must end; then judged."""

from __future__ import annotations

import itertools
from collections import Counter
from decimal import Decimal
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from pacifica_provider.withdrawals import crashpoints
from pacifica_provider.withdrawals.identity import RunIdentity
from tests.simulator.agenda import Agenda
from tests.simulator.checker import Findings, judge
from tests.simulator.chronicle import START_MS, Chronicle
from tests.simulator.exchange import FEE, SimulatedExchange
from tests.simulator.profiles import HOUR, MINUTE, PROFILES, Profile, draw_habits
from tests.simulator.reports import Totals, WorldReport
from tests.simulator.runs import CONCLUDED, DagRun
from tests.simulator.setting import Setting
from tests.simulator.tasks import Payment, Task
from tests.simulator.weather import Weather
from tests.simulator.worker import at_crash_point

if TYPE_CHECKING:
    from collections.abc import Iterable

ACCOUNT = "AccountOfThisWorld"


class World:
    """Everything that one seed leads to."""

    def __init__(self, seed: int, profile: Profile, *, tracing: bool = False) -> None:
        rng = Random(f"{profile.name} {seed}")  # noqa: S311 - the same world for the same seed is the point
        agenda = Agenda(START_MS)
        chronicle = Chronicle(agenda, tracing)
        weather = Weather(profile, rng, chronicle.seen)
        habits = draw_habits(rng, profile)
        exchange = SimulatedExchange(habits, agenda, rng, chronicle.seen)
        ids = itertools.count(1)
        self.setting = Setting(agenda, rng, weather, exchange, chronicle, lambda: f"write-{next(ids)}")
        self._owners = itertools.count()
        self._elsewhere = 0
        self._note_habits()
        if weather.strikes(profile.poor):
            exchange.balance = rng.choice((Decimal("0.5"), Decimal("1.5"), Decimal("2.5")))
        if weather.strikes(profile.refusing):
            self._refusing_for(rng.choice((MINUTE, 10 * MINUTE)))
        self.runs = self._draw_runs()
        for _ in range(3):
            if weather.strikes(profile.foreign):
                agenda.at(START_MS + rng.randint(0, 15 * MINUTE), self._foreign)

    def run(self) -> list[str]:
        """Run to the end; return what broke liveness (I8)."""
        setting = self.setting
        run = self.runs[0]
        kinds = f"{'fenced' if run.fenced else 'unfenced'} store, {'mapped' if run.mapped else 'unmapped'}"
        setting.chronicle.tell("world", f"{kinds}, {setting.exchange.habits}")
        for run in self.runs:
            setting.agenda.at(run.run_after_ms + setting.rng.randint(0, 3_000), run.start)
        setting.agenda.run()
        self._calm()
        stuck = self._finish()
        if setting.rng.random() < 0.5:
            self._clear_all_a_week_later()
            stuck += self._finish()
        return stuck

    def _draw_runs(self) -> list[DagRun]:
        rng, now_ms = self.setting.rng, self.setting.agenda.now_ms
        fenced, mapped = rng.random() < 0.6, rng.random() < 0.25
        payments = [self._payment("run-1", index, mapped=mapped) for index in range(rng.randint(2, 3) if mapped else 1)]
        first = DagRun(self.setting, fenced, mapped, now_ms, 0)
        if mapped:
            self.setting.seen["mapped, equal amounts"] += 1
            first.next_payment = lambda: self._payment("run-1", len(first.tasks), mapped=True)
        runs = [first]
        for payment in payments:
            first.add(payment)
        draw = rng.random()
        if draw < 0.05:
            self.setting.seen["two deployments"] += 1
            runs.append(self._another(payments, fenced=fenced, mapped=mapped))
        elif draw < 0.2:
            self.setting.seen["two runs of equal amounts"] += 1
            others = [self._payment("run-2", index, mapped=mapped) for index in range(len(payments))]
            runs.append(self._another(others, fenced=fenced, mapped=mapped))
        return runs

    def _another(self, payments: list[Payment], *, fenced: bool, mapped: bool) -> DagRun:
        delay_ms = self.setting.rng.choice((0, 3_000, 30_000, 10 * MINUTE))
        run = DagRun(self.setting, fenced, mapped, self.setting.agenda.now_ms + delay_ms, 1)
        for payment in payments:
            run.add(payment)
        return run

    def _payment(self, run_id: str, index: int, *, mapped: bool) -> Payment:
        owner = next(self._owners)
        reference = f"invoice-{index}" if mapped else None
        return Payment(owner, RunIdentity(ACCOUNT, "pay", run_id, "withdraw", reference))

    def _note_habits(self) -> None:
        habits, seen = self.setting.exchange.habits, self.setting.seen
        seen["history gross" if habits.history_gross else "history net"] += 1
        seen["nonces global" if habits.global_nonces else "nonces per asset"] += 1
        seen["keys kept for ever" if habits.key_retention_ms is None else "keys forgotten"] += 1
        flags = {
            "list lag": 0 < habits.list_lag_ms <= 30_000,
            "list lag beyond the bound": habits.list_lag_ms > 30_000,
            "keys forgotten early": (habits.key_retention_ms or HOUR) < 10 * MINUTE,
            "settle gap": habits.settle_gap_ms > 0,
            "balance before key": habits.balance_before_key,
            "expiry checked at arrival": habits.expiry_at_arrival,
            "history shows settlement time": habits.history_shows_settlement_time,
        }
        seen.update([name for name, holds in flags.items() if holds])

    def _foreign(self) -> None:
        rng = self.setting.rng
        self.setting.seen["foreign withdrawal"] += 1
        amount = rng.choice((Decimal(1), Decimal(1), Decimal(1) + FEE, Decimal(1) - FEE, Decimal(2)))
        symbol = rng.choice(("SOL", "SOL", "SOL", "BTC"))
        row = self.setting.exchange.withdraw_elsewhere(symbol, amount)
        self.setting.chronicle.tell("elsewhere", f"{amount} {symbol}, batch {row.batch_nonce}")

    def _refusing_for(self, duration_ms: int) -> None:
        self.setting.exchange.refusing = True
        self.setting.seen["exchange refuses for a while"] += 1

        def end() -> None:
            self.setting.exchange.refusing = False

        self.setting.agenda.at(START_MS + duration_ms, end)

    def _calm(self) -> None:
        """End all faults: liveness is asked of the protocol, not of the weather."""
        self.setting.weather.fair = True
        self.setting.exchange.balance += 1000
        self.setting.chronicle.tell("world", "fair weather from here on")

    def _finish(self) -> list[str]:
        """Give every task that has not ended for good a few clears, hours apart; return those that still have not."""
        agenda = self.setting.agenda
        for _ in range(4):
            open_tasks = [(run, task) for run in self.runs for task in run.tasks if task.outcome not in CONCLUDED]
            if not open_tasks:
                return []
            for run, task in open_tasks:
                task.shelf.decision = None
                agenda.at(agenda.now_ms + MINUTE, partial(run.clear, [task]))
            agenda.run()
        return [f"I8: task {task.number} does not end: {task.outcome}" for _, task in open_tasks]

    def _clear_all_a_week_later(self) -> None:
        agenda, exchange = self.setting.agenda, self.setting.exchange
        agenda.now_ms += 168 * HOUR
        exchange.forgot_all_ms = agenda.now_ms - HOUR
        self.setting.seen["all cleared a week later"] += 1
        self.setting.chronicle.tell("world", "a week later every key is forgotten, and everything is cleared")
        for run in self.runs:
            run.clear(list(run.tasks))
        agenda.run()


def simulate(seed: int, profile: str = "harsh", *, trace: bool = False) -> WorldReport:
    """Run one world and judge it."""
    crashpoints.install(at_crash_point)
    try:
        world = World(seed, PROFILES[profile], tracing=trace)
        stuck = world.run()
    finally:
        crashpoints.install(None)
    findings = judge(world.setting.chronicle, world.setting.exchange)
    return _report(world, seed, profile, findings, stuck)


def run_worlds(seeds: Iterable[int], profile: str = "harsh") -> Totals:
    """Run many worlds, one after the other."""
    totals = Totals()
    for seed in seeds:
        totals.add(simulate(seed, profile))
    return totals


def _report(world: World, seed: int, profile: str, findings: Findings, stuck: list[str]) -> WorldReport:
    chronicle, rows = world.setting.chronicle, world.setting.exchange.rows
    tasks: list[Task] = [task for run in world.runs for task in run.tasks]
    ends = Counter(task.outcome for task in tasks)
    return WorldReport(
        seed=seed,
        profile=profile,
        tries=len(chronicle.tries),
        posts=len(chronicle.posts),
        debits=sum(row.sender is not None for row in rows),
        identities=len({task.payment.owner for task in tasks}),
        successes=ends["success"],
        adopted=sum(task.last is not None and task.last.adopted for task in tasks),
        double_payments=findings.double_payments,
        false_receipts=findings.false_receipts,
        mismatches=ends["ParameterMismatch"],
        rejected=ends["WithdrawalRejected"],
        voided=ends["Voided"],
        violations=(*findings.violations, *stuck),
        unknowns=Counter(_cause(task) for task in tasks if task.outcome == "OutcomeUnknown"),
        admitted=findings.admitted,
        seen=chronicle.seen,
        trace=tuple(chronicle.trace),
    )


def _cause(task: Task) -> str:
    text = task.last.text if task.last else ""
    reason = text.partition(" was withdrawn: ")[2].partition(". Money may have moved")[0]
    return "".join("n" if c.isdigit() else c for c in reason)[:110]
