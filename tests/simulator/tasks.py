"""Airflow, as far as it matters to a withdrawal: tries, retries, replaced tries, and what each try is told."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from pacifica_provider.exceptions import ConfigurationError, PacificaError, Retryable
from pacifica_provider.withdrawals.identity import Order, RunIdentity, tagged
from pacifica_provider.withdrawals.ledger import task_entry, withdrawal_entry
from pacifica_provider.withdrawals.withdraw import Policy, Runtime, TryContext, withdraw
from tests.simulator.exchange import Sender
from tests.simulator.history import Claim, Try
from tests.simulator.ledgers import SimulatedLedger
from tests.simulator.network import BASE_URL, SimulatedClient
from tests.simulator.process_faults import draw_process_faults
from tests.simulator.worker import Worker

if TYPE_CHECKING:
    from pacifica_provider.withdrawals.record import StoredReceipt
    from tests.simulator.runs import DagRun
    from tests.simulator.setting import Setting
    from tests.simulator.worker import ProcessFaults

SYMBOL = "SOL"
MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Kind:
    """How a task withdraws: by the operator or by calls of the hook, mapped or not, with tagged amounts or not."""

    name: str
    adoption: Literal["window", "never", "amount"] = "window"
    one_reference: bool = True
    mapped: bool = False


OPERATOR = Kind("operator")
MAPPED = Kind("mapped operator", "never", mapped=True)
TAGGED = Kind("tagged operator", "amount")
TAGGED_MAPPED = Kind("tagged mapped operator", "amount", mapped=True)
HOOK = Kind("hook", one_reference=False)
HOOK_REFERENCES = Kind("hook, several references", "never", one_reference=False)


@dataclass(slots=True)
class Payment:
    """One withdrawal that somebody wants made once: who it is for the checker, and what it is."""

    owner: int
    identity: RunIdentity
    amount: str = "1"


@dataclass(slots=True)
class Task:
    """
    One task instance. ``outcome`` is what its last try ended with, as Airflow shows it; ``None`` while it runs.

    ``payments`` are made one after the other in one try: one, but for several calls of the hook. ``history`` holds
    when it came to which outcome, for a database that comes back from a backup.
    """

    setting: Setting
    run: DagRun
    number: int
    index: int
    payments: list[Payment]
    retries: int = 0
    current: int = -1
    outcome: str | None = "none yet"
    last: Claim | None = None
    began: list[int] = field(default_factory=list)
    history: list[tuple[int, str | None]] = field(default_factory=list)
    live: set[int] = field(default_factory=set)

    @property
    def payment(self) -> Payment:
        """The payment that its last word was about; the first, if there is none."""
        said_of = self.last.sender.owner if self.last else None
        return next((payment for payment in self.payments if payment.owner == said_of), self.payments[0])

    @property
    def instance(self) -> str:
        """Its name within its task, as the hook's adapter builds it."""
        return f"{self.index if self.run.kind.mapped else -1}/None"

    @property
    def _named_for_ever(self) -> str | None:
        run_id = self.payments[0].identity.run_id
        return f"{run_id}/{self.index}" if self.run.kind.one_reference else None

    def start(self, process_faults: ProcessFaults | None = None) -> None:
        """Start the next try; one that still runs is a zombie from now on."""
        world, run = self.setting, self.run
        self.began.append(world.scheduler.now_ms)
        self.current = len(world.history.tries)
        self._becomes(None)
        self.live.add(self.current)
        if len(self.live) > 1:
            world.seen["tries overlap"] += 1
        table = run.deployment.table
        world.history.tries.append(
            Try(
                self.number,
                self._named_for_ever,
                table.deployment,
                world.scheduler.now_ms,
                table.fenced,
                run.kind.adoption,
            )
        )
        worker = Worker(
            scheduler=world.scheduler,
            rng=world.rng,
            process_faults=process_faults or draw_process_faults(world.injector),
            attempt=self.current,
            seen=world.seen,
            tell=partial(world.history.tell, f"t{self.number}#{len(self.began)}"),
            frozen=partial(self._frozen, self.current),
        )
        worker.tell(f"begins (skew {worker.process_faults.skew_ms} ms, clears {run.clear_number})")
        world.scheduler.spawn(lambda: self._run(worker))
        if world.injector.strikes(world.injector.profile.overlap):
            wait_ms = world.rng.choice((200, 5_000, 30_000))
            world.scheduler.at(world.scheduler.now_ms + wait_ms, partial(self.replace, self.current))

    def replace(self, attempt: int) -> None:
        """Give up on a try whose heartbeat is missing, and start the next one beside it."""
        if attempt == self.current and self.outcome is None and self.retries > 0:
            self.retries -= 1
            self.setting.seen["replaced while running"] += 1
            self.start()

    def abandon(self) -> None:
        """Let whatever still runs of it be a zombie, whose end nobody hears of."""
        self.current = -1

    def restore(self, to_ms: int) -> None:
        """Be again as the database had it then."""
        self.abandon()
        self.began = [at_ms for at_ms in self.began if at_ms <= to_ms]
        self.history = [(at_ms, outcome) for at_ms, outcome in self.history if at_ms <= to_ms]
        self.outcome = self.history[-1][1] if self.history else None

    def _becomes(self, outcome: str | None) -> None:
        self.outcome = outcome
        self.history.append((self.setting.scheduler.now_ms, outcome))

    def _frozen(self, attempt: int, duration_ms: int) -> None:
        scheduler, rng = self.setting.scheduler, self.setting.rng
        if duration_ms > 10_000 and not self.setting.injector.fair:
            scheduler.at(scheduler.now_ms + rng.randint(5_000, 300_000), partial(self.replace, attempt))

    def _run(self, worker: Worker) -> None:
        claims: list[Claim] = []
        worker.work(lambda: self._try(worker, claims))
        self.live.discard(worker.attempt)
        if worker.attempt != self.current:
            self.setting.seen["zombie ended"] += 1
        else:
            self._ended(claims[-1] if claims else None)

    def _try(self, worker: Worker, claims: list[Claim]) -> None:
        """Do what the task does: withdraw once, or several times until something is wrong."""
        world = self.setting
        if world.injector.strikes(world.injector.profile.early):
            world.seen["failed before the withdrawal"] += 1
            claims.append(self._claim(worker, self.payments[0], "FailedBefore", worker.ledger_faults))
            return
        table = self.run.deployment.table
        ledger = SimulatedLedger(table, worker, world.injector, lambda: worker.attempt != self.current)
        said: list[Claim] = []
        for payment in list(self.payments):
            said.append(self._withdraw(worker, ledger, payment))
            if said[-1].kind != "success":
                break
        worker.step("returned")
        claims += said

    def _withdraw(self, worker: Worker, ledger: SimulatedLedger, payment: Payment) -> Claim:
        world, run = self.setting, self.run
        identity, order = self._rendered(payment)
        names = (identity.dag_id, identity.run_id, identity.task_id)
        entries = world.history.names[payment.owner]
        entries.add(withdrawal_entry(*names, identity.withdrawal_ref))
        instance = self.instance if run.kind.one_reference else None
        if instance is not None:
            entries.add(task_entry(*names, instance))
        sender = Sender(payment.owner, self.number, worker.attempt)
        client = SimulatedClient(
            world.exchange,
            worker,
            world.injector,
            world.history,
            sender,
            world.elsewhere,
            world.exchange.window_ms,
        )
        guarded = world.injector.strikes(world.injector.profile.guard)

        def make_signer() -> SimulatedClient:
            if guarded:
                world.seen["guard refused"] += 1
                raise ConfigurationError("The withdrawal limit of this connection is lower. Nothing was sent.")
            return client

        faults, receipt, error = worker.ledger_faults, None, None
        try:
            receipt = withdraw(
                identity,
                order,
                BASE_URL,
                context=TryContext(
                    first_try=len(self.began) <= 1 and run.clear_number == 0,
                    run_after_ms=run.run_after_ms,
                    adoption=run.kind.adoption,
                    instance=instance,
                    case_command="the command line that shows the case",
                ),
                ledger=ledger,
                exchange=client,
                make_signer=make_signer,
                policy=Policy(),
                runtime=Runtime(
                    now_ms=worker.now_ms,
                    sleep_s=worker.sleep_s,
                    new_id=world.new_id,
                    jitter=world.rng.random,
                    log=worker.tell if world.history.tracing else _unheard,
                ),
            )
        except PacificaError as raised:
            error = raised
        claim = self._claim(
            worker, payment, "success", worker.ledger_faults - faults, key=identity.idempotency_key(), order=order
        )
        claim = _filled(claim, receipt, error)
        world.history.claims.append(claim)
        worker.tell(f"ends: {claim.kind} {claim.nonce if error is None else claim.text}")
        return claim

    def _rendered(self, payment: Payment) -> tuple[RunIdentity, Order]:
        """Render the task's templates, maybe to something else than last time."""
        world, profile, kind = self.setting, self.setting.injector.profile, self.run.kind
        identity, amount = payment.identity, payment.amount
        if world.injector.strikes(profile.drift):
            world.seen["order drifted"] += 1
            amount = "2"
        if kind.one_reference and world.injector.strikes(profile.reference_drift):
            world.seen["reference drifted"] += 1
            identity = replace(identity, withdrawal_ref=f"daily-{self.current}")
        order = Order.parse(SYMBOL, amount)
        return identity, tagged(order, identity.idempotency_key()) if kind.adoption == "amount" else order

    def _claim(
        self, worker: Worker, payment: Payment, kind: str, faults: int, *, key: str = "", order: Order | None = None
    ) -> Claim:
        return Claim(
            sender=Sender(payment.owner, self.number, worker.attempt),
            deployment=self.run.deployment.table.deployment,
            key=key,
            at_ms=self.setting.scheduler.now_ms,
            kind=kind,
            current=worker.attempt == self.current,
            heard=faults == 0,
            asked=order.amount if order else Order.parse(SYMBOL, payment.amount).amount,
        )

    def _ended(self, claim: Claim | None) -> None:
        """Do what Airflow does when a try is over: retry if that may help, else leave it to people."""
        world = self.setting
        self.last = claim
        may_retry = claim is None or claim.kind in _RETRYABLE
        if may_retry and self.retries > 0:
            self.retries -= 1
            missed_ms = 0 if claim else world.rng.choice((1_000, 30_000, 300_000))
            hasty = world.injector.strikes(world.injector.profile.hasty)
            wait_ms = missed_ms + (world.rng.choice((2_000, 300_000)) if hasty else MINUTE_MS)
            attempt = self.current
            world.scheduler.at(world.scheduler.now_ms + wait_ms, lambda: self._retry(attempt))
            return
        self._becomes("killed" if claim is None else claim.kind)
        self.run.task_ended()

    def _retry(self, attempt: int) -> None:
        if attempt == self.current and self.outcome is None:
            self.start()


def _filled(claim: Claim, receipt: StoredReceipt | None, error: PacificaError | None) -> Claim:
    if receipt is not None:
        return replace(claim, nonce=receipt.batch_nonce, adopted=receipt.adopted)
    assert error is not None
    text = str(error)
    return replace(
        claim,
        kind="Voided" if "voided this withdrawal" in text else type(error).__name__,
        nonces=error.batch_nonces,
        text=text,
        names_the_case=(error.idempotency_key or "-") in text and bool(error.symbol and error.amount),
    )


_RETRYABLE = frozenset({"FailedBefore", Retryable.__name__, *(kind.__name__ for kind in Retryable.__subclasses__())})


def _unheard(line: str) -> None:
    """Log nothing: formatting is all that is wanted of it."""
