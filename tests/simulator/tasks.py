"""Airflow, as far as it matters to a withdrawal: tries, retries, replaced tries, and what each try is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from pacifica_provider.exceptions import ConfigurationError, PacificaError, Retryable
from pacifica_provider.withdrawals.conclusions import RunFacts
from pacifica_provider.withdrawals.identity import Order, RunIdentity
from pacifica_provider.withdrawals.look import Policy, Surroundings
from pacifica_provider.withdrawals.submit import Submission
from tests.simulator.chronicle import Claim, Try
from tests.simulator.exchange import Sender
from tests.simulator.fates import draw_fate
from tests.simulator.network import BASE_URL, SimulatedClient
from tests.simulator.stores import Shelf, SimulatedStore
from tests.simulator.worker import Worker

if TYPE_CHECKING:
    from tests.simulator.runs import DagRun
    from tests.simulator.setting import Setting
    from tests.simulator.worker import Fate

SYMBOL = "SOL"


@dataclass(slots=True)
class Payment:
    """One withdrawal that somebody wants made once: who it is for the checker, and what it is."""

    owner: int
    identity: RunIdentity
    amount: str = "1"


@dataclass(slots=True)
class Task:
    """One task instance. ``outcome`` is what its last try ended with, as Airflow shows it; ``None`` while it runs."""

    setting: Setting
    run: DagRun
    number: int
    payment: Payment
    shelf: Shelf
    mapped: bool
    retries: int = 0
    try_number: int = 0
    current: int = -1
    outcome: str | None = "none yet"
    last: Claim | None = None
    uncounted: bool = False
    live: set[int] = field(default_factory=set)

    def start(self, fate: Fate | None = None) -> None:
        """Start the next try; one that still runs is a zombie from now on."""
        world = self.setting
        self.try_number += 1
        self.current = len(world.chronicle.tries)
        self.outcome = None
        self.live.add(self.current)
        sender = Sender(self.payment.owner, self.number, self.current)
        if len(self.live) > 1:
            world.seen["tries overlap"] += 1
        world.chronicle.tries.append(Try(sender, world.agenda.now_ms, self.uncounted, self.shelf.fenced, self.mapped))
        worker = Worker(
            agenda=world.agenda,
            rng=world.rng,
            fate=fate or draw_fate(world.weather),
            sender=sender,
            seen=world.seen,
            tell=partial(world.chronicle.tell, f"t{self.number}#{self.try_number}"),
            frozen=partial(self._frozen, self.current),
        )
        worker.tell(f"begins (skew {worker.fate.skew_ms} ms, clears {self.run.clear_number})")
        world.agenda.spawn(lambda: self._run(worker))
        if world.weather.strikes(world.weather.profile.overlap):
            wait_ms = world.rng.choice((200, 5_000, 30_000))
            world.agenda.at(world.agenda.now_ms + wait_ms, partial(self.replace, self.current))

    def replace(self, attempt: int) -> None:
        """Give up on a try whose heartbeat is missing, and start the next one beside it."""
        if attempt == self.current and self.outcome is None and self.retries > 0:
            self.retries -= 1
            self.setting.seen["replaced while running"] += 1
            self.start()

    def _frozen(self, attempt: int, duration_ms: int) -> None:
        agenda, rng = self.setting.agenda, self.setting.rng
        if duration_ms > 10_000 and not self.setting.weather.fair:
            agenda.at(agenda.now_ms + rng.randint(5_000, 300_000), partial(self.replace, attempt))

    def _run(self, worker: Worker) -> None:
        claims: list[Claim] = []
        worker.work(lambda: self._try(worker, claims))
        attempt = worker.sender.attempt
        self.live.discard(attempt)
        if attempt != self.current:
            self.setting.seen["zombie ended"] += 1
        else:
            self._ended(claims[0] if claims else None)

    def _try(self, worker: Worker, claims: list[Claim]) -> None:
        world, payment = self.setting, self.payment
        store = SimulatedStore(
            self.shelf,
            worker,
            world.weather,
            replaced=lambda: worker.sender.attempt != self.current,
            note=partial(world.chronicle.mark, self.number),
        )
        client = SimulatedClient(world.exchange, worker, world.weather, world.chronicle)
        profile = world.weather.profile
        drifts, guarded = world.weather.strikes(profile.drift), world.weather.strikes(profile.guard)

        def unlock() -> SimulatedClient:
            if guarded:
                world.seen["guard refused"] += 1
                raise ConfigurationError("The withdrawal limit of this connection is lower. Nothing was sent.")
            return client

        if drifts:
            world.seen["order drifted"] += 1
        order = Order.parse(SYMBOL, "2" if drifts else payment.amount)
        submission = Submission(
            run=RunFacts(
                never_ran_before=self.try_number <= 1 and self.run.clear_number == 0,
                run_after_ms=self.run.run_after_ms,
                mapped=self.mapped,
                case_command="the command line that shows the case",
                cleared=self.run.clear_number > 0,
            ),
            store=store,
            reader=client,
            unlock=unlock,
            policy=Policy(),
            around=Surroundings(
                now_ms=worker.now_ms,
                sleep_s=worker.sleep_s,
                new_id=world.new_id,
                jitter=world.rng.random,
                log=worker.tell if world.chronicle.tracing else _unheard,
            ),
        )
        receipt, error = None, None
        try:
            receipt = submission.run(payment.identity, order, BASE_URL)
        except PacificaError as raised:
            error = raised
        text = "" if error is None else str(error)
        kind = "success" if error is None else "Voided" if "voided this withdrawal" in text else type(error).__name__
        named = error is None or (error.idempotency_key or "-") in text
        claim = Claim(
            sender=worker.sender,
            at_ms=world.agenda.now_ms,
            kind=kind,
            current=worker.sender.attempt == self.current,
            heard=worker.store_faults == 0,
            nonce=receipt.batch_nonce if receipt else None,
            adopted=receipt is not None and receipt.adopted,
            nonces=() if error is None else error.batch_nonces,
            text=text,
            names_the_case=named and (error is None or bool(error.symbol and error.amount)),
            asked=order.amount,
        )
        world.chronicle.claims.append(claim)
        worker.tell(f"ends: {kind} {claim.nonce if error is None else text}")
        worker.step("returned")
        claims.append(claim)

    def _ended(self, claim: Claim | None) -> None:
        """Do what Airflow does when a try is over: retry if that may help, else leave it to people."""
        world = self.setting
        self.last = claim
        may_retry = claim is None or claim.kind in _RETRYABLE
        if may_retry and self.retries > 0:
            self.retries -= 1
            missed_ms = 0 if claim else world.rng.choice((1_000, 30_000, 300_000))
            wait_ms = missed_ms + world.rng.choice((2_000, 60_000, 300_000))
            attempt = self.current
            world.agenda.at(world.agenda.now_ms + wait_ms, lambda: self._retry(attempt))
            return
        self.outcome = "killed" if claim is None else claim.kind
        self.run.task_ended()

    def _retry(self, attempt: int) -> None:
        if attempt == self.current and self.outcome is None:
            self.start()


_RETRYABLE = frozenset({Retryable.__name__, *(kind.__name__ for kind in Retryable.__subclasses__())})


def _unheard(line: str) -> None:
    """Log nothing: formatting is all that is wanted of it."""
