"""One world: drawn from its seed, run to its end, then calmed, so that what is still open must end; then judged."""

from __future__ import annotations

import itertools
from collections import Counter
from decimal import Decimal
from functools import lru_cache, partial
from random import Random
from typing import TYPE_CHECKING

from pacifica_provider.withdrawals import failpoints
from pacifica_provider.withdrawals.identity import Order, RunIdentity, tagged
from tests.simulator.checker import Findings, check_world
from tests.simulator.elsewhere import Elsewhere
from tests.simulator.exchange import FEE, SimulatedExchange
from tests.simulator.fault_injector import FaultInjector
from tests.simulator.history import LOST, START_MS, History
from tests.simulator.ledgers import LedgerTable
from tests.simulator.people import decide_rightly, leave
from tests.simulator.profiles import HOUR, MINUTE, PROFILES, Profile, draw_habits, draw_window_ms
from tests.simulator.reports import Totals, WorldReport
from tests.simulator.runs import CONCLUDED, DagRun, Deployment
from tests.simulator.scheduler import Scheduler
from tests.simulator.setting import Setting
from tests.simulator.tasks import (
    HOOK,
    HOOK_REFERENCES,
    MAPPED,
    OPERATOR,
    SYMBOL,
    TAGGED,
    TAGGED_MAPPED,
    Kind,
    Payment,
    Task,
)
from tests.simulator.worker import at_failpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ACCOUNT = "AccountOfThisWorld"
DAY = 24 * HOUR
KINDS = (OPERATOR, MAPPED, HOOK, HOOK_REFERENCES, TAGGED, TAGGED_MAPPED)
_WEIGHTS = (40, 20, 10, 20, 5, 5)


class World:
    """
    Everything that one seed leads to.

    ``tagged``: every order is made by the operator and tagged, or every one is not; ``None`` leaves it to the seed. A
    world with it and the same world without it begin alike.
    """

    def __init__(self, seed: int, profile: Profile, *, tagged: bool | None = None, tracing: bool = False) -> None:
        rng = Random(f"{profile.name} {seed}")  # noqa: S311 - the same world for the same seed is the point
        scheduler = Scheduler(START_MS)
        history = History(scheduler, tracing)
        injector = FaultInjector(profile, rng, history.seen)
        options = draw_habits(rng, profile)
        exchange = SimulatedExchange(options, scheduler, rng, history.seen)
        ids = itertools.count(1)
        tagging = Random(f"tags {profile.name} {seed}") if tagged else None  # noqa: S311 - luck, not a secret
        elsewhere = Elsewhere(exchange, tagging, equal_tags=profile.equal_tags)
        self.setting = Setting(scheduler, rng, injector, exchange, history, lambda: f"write-{next(ids)}", elsewhere)
        self._owners = itertools.count()
        self._kind: Kind = rng.choices(KINDS, _WEIGHTS)[0]
        # Keys, and so tags, are new in each world.
        self._dag_id = "pay"
        if tagged is not None:
            self._kind = _of_the_operator(self._kind, tagged=tagged)
            self._dag_id = "pay" if profile.equal_tags else f"pay-{seed}"
        self._note_habits()
        if injector.strikes(profile.poor):
            exchange.balance = rng.choice((Decimal("0.5"), Decimal("1.5"), Decimal("2.5")))
        if injector.strikes(profile.refusing):
            self._refusing_for(rng.choice((MINUTE, 10 * MINUTE)))
        exchange.window_ms = draw_window_ms(rng, unlucky=injector.strikes(profile.odd_window))
        history.seen[f"window of {exchange.window_ms / 1000:g} s"] += 1
        fenced = rng.random() < 0.6
        self.deployments = [self._deployment(0, fenced=fenced)]
        self.runs = self._draw_runs()
        self._happenings()

    def _deployment(self, number: int, *, fenced: bool) -> Deployment:
        setting, profile, rng = self.setting, self.setting.injector.profile, self.setting.rng
        table = LedgerTable(number, fenced, setting.scheduler, setting.history)
        setting.seen["fenced ledger" if fenced else "ledger without a fence"] += 1
        if setting.injector.strikes(profile.unborn):
            setting.seen["ledger begins"] += 1
        else:
            table.born(START_MS - 30 * DAY)
        if setting.injector.strikes(profile.write_lost):
            table.loses = rng.randint(1, 6)
        return Deployment(setting, table)

    def _happenings(self) -> None:
        """Draw what will happen around the runs."""
        profile, rng, injector = self.setting.injector.profile, self.setting.rng, self.setting.injector
        first = self.deployments[0]

        def soon(what: Callable[[], object], most_ms: int = 15 * MINUTE) -> None:
            self.setting.scheduler.at(START_MS + rng.randint(0, most_ms), what)

        for _ in range(3):
            if injector.strikes(profile.foreign):
                soon(self._foreign)
        if injector.strikes(profile.fee_change):
            soon(self._fee_changes)
        if injector.strikes(profile.bridge_gone):
            soon(self._bridge_goes)
        if injector.strikes(profile.restore):
            soon(partial(self._restored, first), rng.choice((2 * MINUTE, 30 * MINUTE, 3 * HOUR)))
        if injector.strikes(profile.entry_deleted):
            soon(partial(self._entry_deleted, first), 30 * MINUTE)

    def run(self) -> list[str]:
        """Run to the end; return what broke liveness (I8)."""
        setting = self.setting
        kinds = f"{'fenced' if self.deployments[0].table.fenced else 'unfenced'} ledger, {self._kind.name}"
        setting.history.tell("world", f"{kinds}, {setting.exchange.options}")
        for run in self.runs:
            setting.scheduler.at(run.run_after_ms + setting.rng.randint(0, 3_000), run.start)
        setting.scheduler.run()
        self._calm()
        stuck = self._finish()
        if setting.rng.random() < 0.5:
            self._much_later()
            stuck += self._finish()
        return stuck + self._conclude()

    def _draw_runs(self) -> list[DagRun]:
        rng, now_ms, kind, first = self.setting.rng, self.setting.scheduler.now_ms, self._kind, self.deployments[0]
        self.setting.seen[kind.name] += 1
        several = rng.randint(2, 3) if kind.mapped or kind is HOOK_REFERENCES else 1
        payments = [self._payment("run-1", index) for index in range(several)]
        if kind.mapped and self.setting.injector.strikes(self.setting.injector.profile.duplicate_reference):
            self.setting.seen["duplicate reference"] += 1
            payments[1] = payments[0]
        run = self._run(first, payments, now_ms)
        if kind.mapped:
            run.next_payment = lambda: self._payment("run-1", len(run.tasks))
        if self.setting.injector.strikes(self.setting.injector.profile.two_deployments):
            self.setting.seen["two deployments"] += 1
            self.deployments.append(self._deployment(1, fenced=first.table.fenced))
            return [run, self._run(self.deployments[1], payments, now_ms + self._delay_ms())]
        if rng.random() < 0.15:
            self.setting.seen["two runs of equal amounts"] += 1
            others = [self._payment("run-2", index) for index in range(len(payments))]
            return [run, self._run(first, others, now_ms + self._delay_ms())]
        return [run]

    def _delay_ms(self) -> int:
        return self.setting.rng.choice((0, 3_000, 30_000, 10 * MINUTE))

    def _run(self, deployment: Deployment, payments: list[Payment], run_after_ms: int) -> DagRun:
        run = DagRun(self.setting, deployment, self._kind, run_after_ms)
        deployment.runs.append(run)
        for made_together in [[payment] for payment in payments] if self._kind.mapped else [payments]:
            run.add(*made_together)
        return run

    def _payment(self, run_id: str, index: int) -> Payment:
        owner = next(self._owners)
        named = self._kind.mapped or self._kind is HOOK_REFERENCES
        reference = f"invoice-{index}" if named else None
        if self.setting.injector.profile.equal_tags:
            reference = reference_of_equal_tag(run_id, index)
        return Payment(owner, self._identity(run_id, reference))

    def _identity(self, run_id: str, reference: str | None) -> RunIdentity:
        return RunIdentity(ACCOUNT, self._dag_id, run_id, "withdraw", reference)

    def _note_habits(self) -> None:
        options, seen = self.setting.exchange.options, self.setting.seen
        seen["history gross" if options.history_gross else "history net"] += 1
        seen["nonces global" if options.global_nonces else "nonces per asset"] += 1
        seen["keys kept for ever" if options.key_retention_ms is None else "keys forgotten"] += 1
        flags = {
            "list lag": 0 < options.list_lag_ms <= 30_000,
            "list lag beyond the bound": options.list_lag_ms > 30_000,
            "keys forgotten early": (options.key_retention_ms or HOUR) < 10 * MINUTE,
            "settle gap": options.settle_gap_ms > 0,
            "balance before key": options.balance_before_key,
            "expiry checked at arrival": options.expiry_at_arrival,
            "history shows settlement time": options.history_shows_settlement_time,
        }
        seen.update([name for name, holds in flags.items() if holds])

    def _foreign(self) -> None:
        rng = self.setting.rng
        self.setting.seen["foreign withdrawal"] += 1
        amount = rng.choice((Decimal(1), Decimal(1), Decimal(1) + FEE, Decimal(1) - FEE, Decimal(2)))
        symbol = rng.choice(("SOL", "SOL", "SOL", "BTC"))
        our_key = self.runs[0].tasks[0].payments[0].identity.idempotency_key()
        row = self.setting.elsewhere.withdraw(symbol, amount, our_key)
        self.setting.history.tell("elsewhere", f"{row.amount} {symbol}, batch {row.batch_nonce}")

    def _fee_changes(self) -> None:
        self.setting.seen["fee changed"] += 1
        self.setting.exchange.charge(FEE * 2)

    def _bridge_goes(self) -> None:
        exchange, scheduler = self.setting.exchange, self.setting.scheduler
        exchange.bridge_gone = True

        def back() -> None:
            exchange.bridge_gone = False

        scheduler.at(scheduler.now_ms + self.setting.rng.choice((MINUTE, 10 * MINUTE, 2 * HOUR)), back)

    def _restored(self, deployment: Deployment) -> None:
        """Let the database come back from a backup made up to an hour, or a third of the time since, ago."""
        rng, now_ms = self.setting.rng, self.setting.scheduler.now_ms
        to_ms = now_ms - rng.randint(0, min(HOUR, max(MINUTE, now_ms - START_MS)))
        said = rng.random() >= self.setting.injector.profile.restore_unsaid
        deployment.restore(to_ms, said=said)

    def _entry_deleted(self, deployment: Deployment) -> None:
        names = [name for name in deployment.table.names() if name.startswith(("withdrawal_", "task_"))]
        if names:
            deployment.table.lose(self.setting.rng.choice(names), "entry deleted by hand")

    def _refusing_for(self, duration_ms: int) -> None:
        self.setting.exchange.refusing = True
        self.setting.seen["exchange refuses for a while"] += 1

        def end() -> None:
            self.setting.exchange.refusing = False

        self.setting.scheduler.at(START_MS + duration_ms, end)

    def _calm(self) -> None:
        """End all faults: liveness is asked of the protocol, not of the weather."""
        self.setting.injector.fair = True
        self.setting.exchange.balance += 1000
        self.setting.exchange.bridge_gone = False
        for deployment in self.deployments:
            deployment.table.loses = 0
        self.setting.history.tell("world", "fair weather from here on")

    def _finish(self) -> list[str]:
        """Give every task that has not ended for good a few clears, hours apart; return those that still have not."""
        scheduler = self.setting.scheduler
        for _ in range(4):
            open_tasks = [(run, task) for run in self.runs for task in run.tasks if task.outcome not in CONCLUDED]
            if not open_tasks:
                return []
            for run, task in open_tasks:
                scheduler.at(scheduler.now_ms + MINUTE, partial(run.clear, [task]))
            scheduler.run()
        return [f"I8: task {task.number} does not end: {task.outcome}" for _, task in open_tasks]

    def _much_later(self) -> None:
        """Let weeks pass: keys are forgotten; the ledger may be pruned, or come back from a backup; all is cleared."""
        scheduler, rng, profile = self.setting.scheduler, self.setting.rng, self.setting.injector.profile
        began_ms, ended_ms = START_MS, scheduler.now_ms
        scheduler.now_ms += 40 * DAY
        self.setting.exchange.forgot_all_ms = scheduler.now_ms - HOUR
        self.setting.seen["all cleared weeks later"] += 1
        self.setting.history.tell("world", "weeks later every key is forgotten, and everything is cleared")
        for deployment in self.deployments:
            if rng.random() < profile.prune:
                deployment.table.prune(scheduler.now_ms - 30 * DAY)
            if rng.random() < profile.restore:
                said = rng.random() >= profile.restore_unsaid
                deployment.restore(rng.randint(began_ms, ended_ms), said=said)
        for run in self.runs:
            if rng.random() < profile.recreate:
                run.recreate()
                run.start()
            else:
                run.clear(list(run.tasks))
        scheduler.run()

    def _conclude(self) -> list[str]:
        """
        Let somebody who knows decide each case that is still open: a right decision ends it (I8).

        What is posted again may be refused, or meet a used-up key; then it is voided, and that ends it.
        """
        stuck = []
        for run in self.runs:
            for task in list(run.tasks):
                for _ in task.payments:
                    stuck += self._decide_until_it_ends(run, task)
        return stuck

    def _decide_until_it_ends(self, run: DagRun, task: Task) -> list[str]:
        scheduler, history, payment = self.setting.scheduler, self.setting.history, task.payment
        while task.outcome == "OutcomeUnknown" and task.payment is payment:
            scheduler.now_ms += DAY
            posts, decision = len(history.posts), decide_rightly(task)
            if decision is None:  # no list shows it, or no ledger
                return []
            leave(task, decision)
            scheduler.at(scheduler.now_ms + 1000, partial(run.clear, [task]))
            scheduler.run()
            goes_on = decision["action"] == "repost" and len(history.posts) > posts
            if task.outcome == "OutcomeUnknown" and task.payment is payment and not goes_on:
                return [f"I8: {decision['action']}, rightly, does not end it: task {task.number}"]
        return []


def _of_the_operator(kind: Kind, *, tagged: bool) -> Kind:
    """Return the operator that pays as often in a try or a run; only the operator tags."""
    if kind.mapped or kind is HOOK_REFERENCES:
        return TAGGED_MAPPED if tagged else MAPPED
    return TAGGED if tagged else OPERATOR


@lru_cache
def reference_of_equal_tag(run_id: str, index: int) -> str:
    """Return a reference whose key leads to the same tag in every run and at every index."""

    def tag(run_id: str, reference: str) -> Decimal:
        key = RunIdentity(ACCOUNT, "pay", run_id, "withdraw", reference).idempotency_key()
        return tagged(Order(SYMBOL, Decimal(1)), key).amount

    wanted = tag("run-1", "invoice-0-0")
    numbers = (f"invoice-{index}-{number}" for number in itertools.count())
    return next(reference for reference in numbers if tag(run_id, reference) == wanted)


def simulate(seed: int, profile: str = "harsh", *, tagged: bool | None = None, trace: bool = False) -> WorldReport:
    """Run one world and judge it; ``tagged`` as ``World`` has it."""
    failpoints.install(at_failpoint)
    try:
        world = World(seed, PROFILES[profile], tagged=tagged, tracing=trace)
        stuck = world.run()
    finally:
        failpoints.install(None)
    findings = check_world(world.setting.history, world.setting.exchange)
    return _report(world, seed, profile, findings, stuck)


def run_worlds(seeds: Iterable[int], profile: str = "harsh", *, tagged: bool | None = None) -> Totals:
    """Run many worlds, one after the other; ``tagged`` as ``World`` has it."""
    totals = Totals()
    for seed in seeds:
        totals.add(simulate(seed, profile, tagged=tagged))
    return totals


def _report(world: World, seed: int, profile: str, findings: Findings, stuck: list[str]) -> WorldReport:
    history, rows = world.setting.history, world.setting.exchange.rows
    tasks: list[Task] = [task for run in world.runs for task in run.tasks]
    ends = Counter(task.outcome for task in tasks)
    causes: Counter[str] = Counter()
    asked: set[int] = set()
    as_forgotten: set[int] = set()
    failed: set[int] = set()
    for claim in history.claims:
        if claim.current and claim.kind == "OutcomeUnknown":
            forgotten = any(
                mark.deployment == claim.deployment and mark.kind in {"pruned", "restored, said"}
                for mark in history.marks
                if mark.at_ms <= claim.at_ms
            )
            if claim.sender.owner not in asked | as_forgotten:
                causes[("as forgotten: " if forgotten else "") + _cause(claim.text)] += 1
                (as_forgotten if forgotten else asked).add(claim.sender.owner)
        if claim.current and claim.kind in {"ParameterMismatch", "WithdrawalRejected", "ConfigurationError"}:
            failed.add(claim.sender.owner)
    successes = {claim.sender.owner for claim in history.claims if claim.current and claim.kind == "success"}
    return WorldReport(
        seed=seed,
        profile=profile,
        tries=len(history.tries),
        posts=len(history.posts),
        debits=sum(row.sender is not None for row in rows),
        identities=len({payment.owner for task in tasks for payment in task.payments}),
        successes=len(successes),
        adopted=len({claim.sender.owner for claim in history.claims if claim.adopted}),
        double_payments=findings.double_payments,
        false_receipts=findings.false_receipts,
        false_nothing_moved=findings.false_nothing_moved,
        stuck=len(stuck),
        asked=len(asked),
        asked_as_forgotten=len(as_forgotten),
        asked_or_failed=len(failed | asked),
        mismatches=ends["ParameterMismatch"],
        rejected=ends["WithdrawalRejected"],
        voided=ends["Voided"],
        violations=(*findings.violations, *stuck),
        unknowns=causes,
        admitted=findings.admitted,
        seen=history.seen,
        groups=_groups(
            world,
            {
                "asked": asked | as_forgotten,
                "succeeded": successes,
                "paid twice": findings.paid_twice,
                "false receipt": findings.misled,
            },
        ),
        trace=tuple(history.trace),
    )


def _groups(world: World, owners: dict[str, set[int]]) -> Counter[tuple[str, bool, str]]:
    """Count these by whether the task is mapped, and whether the ledger lost an entry of theirs at any time."""
    history, counts = world.setting.history, Counter[tuple[str, bool, str]]()
    name = "mapped" if world.runs[0].kind.mapped else "plain"
    for owner in {payment.owner for run in world.runs for task in run.tasks for payment in task.payments}:
        lost = any(
            history.lost(owner, number, LOST - {"overwritten"}, until_ms=world.setting.scheduler.now_ms)
            for number in range(len(world.deployments))
        )
        counts.update((name, lost, what) for what, having in owners.items() if owner in having)
        counts[name, lost, "identities"] += 1
    return counts


def _cause(text: str) -> str:
    reason = text.partition(" was withdrawn: ")[2].partition(". Money may have moved")[0]
    return "".join("n" if c.isdigit() else c for c in reason)[:110]
