"""
One try as a process of its own, and everything that it asks the world for: each asking is a place for faults.

A process is a greenlet, so that it can be frozen at any place, while the real code of ``withdraw`` is on its stack, and
thawed beside the next try. Faults at every place: the process is killed, is frozen with the next try beginning at once
(an overlapping try) or once Airflow has missed its heartbeats, and whatever can go wrong with the call itself.
"""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent, greenlet  # type: ignore[import-untyped]  # no stubs in constraints/

from pacifica_provider.api.client import Listing, SignedWithdrawal
from pacifica_provider.api.models import BridgeParameters, PendingWithdrawal, Receipt, SettledWithdrawal
from pacifica_provider.api.outcomes import Accepted, Duplicate, Outcome, Rejected
from pacifica_provider.api.outcomes import Throttled as ThrottledOutcome
from pacifica_provider.api.outcomes import Unknown as UnknownOutcome
from pacifica_provider.api.transports import HttpRequest
from pacifica_provider.exceptions import OutcomeUnknown, PacificaError, Retryable, Throttled, Unreachable
from pacifica_provider.withdrawals import failpoints
from pacifica_provider.withdrawals.identity import Order
from pacifica_provider.withdrawals.ledger import LedgerUnavailableError
from pacifica_provider.withdrawals.withdraw import Policy, Runtime, TryContext, withdraw
from tests.explorer.world import (
    BASE_URL,
    DECISIONS,
    FEE,
    HEARTBEAT_MS,
    KEY_MEMORY_MS,
    LIST_LAG_MS,
    RETRIES,
    RETRY_DELAY_MS,
    SETTLES_AFTER_MS,
    WINDOW_MS,
    Request,
    Row,
)

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from pacifica_provider.withdrawals.record import StoredReceipt
    from tests.explorer.choices import Chooser
    from tests.explorer.world import Task, World

_POLICY = Policy()
_NOTHING_MOVED = ("WithdrawalRejected", "Unreachable", "Throttled")
_THROTTLED_S = 5.0
_SHORT_S = 5.0
# The other named points lie right before or right after a call, with no clock read in between.
_PLACES = {"before_post", "after_receipt"}
_GET_FAULTS = ("refused", "ledger down from here on")
_SET_FAULTS = ("refused", "refused though written", "acknowledged but lost", "ledger down from here on")
_READ_FAULTS = ("unreachable", "exchange down from here on", "throttled", "throttled from here on")
_POST_FAULTS = (
    "request lost",
    "exchange down from here on",
    "answer lost",
    "delivered 5 s late",
    "delivered at the last moment",
    "delivered twice, 409",
    "delivered twice, 422",
    "409 in progress, accepted 5 s later",
    "409 in progress, came to nothing",
    "422",
    "422, key used up",
    "500, nothing done",
    "500, key used up",
    "500, accepted",
    "429",
    "429 from here on",
)


class KilledError(BaseException):
    """The process is no more."""


class Process:
    """
    One try of one task instance.

    ``result`` is how it ended: ``success``, ``killed`` or the name of an error; ``None`` while it is frozen.
    """

    def __init__(self, runner: Runner, at: int) -> None:
        world = runner.world
        world.processes += 1
        self.number = world.processes
        self.runner, self.world, self.choose = runner, world, runner.chooser
        self.at = at
        task = world.tasks[at]
        self.context = {"first_try": task.fresh}
        world.tasks = _changed(world.tasks, at, fresh=False, tries=task.tries + 1, holder=self.number)
        self.task = task
        self.result: str | None = None
        self.retryable = False
        self.frozen = ""
        self.thawed = False
        self.wakes_ms = 0
        self.armed = False
        self._did = "change"
        self.down: set[str] = set()
        self.posts = 0
        self._ids = 0
        self._told: Hashable = (self.number, at, task)
        self._clock_ms = -1
        self._greenlet = greenlet(self._body)

    def run(self) -> None:
        """Run, or go on, until it ends or is frozen."""
        self.frozen = ""
        self._greenlet.parent = getcurrent()
        self._greenlet.switch()

    def _body(self) -> None:
        failpoints.install(self._failpoint)
        try:
            for reference in self.task.references:
                self._withdraw(reference)
            self.result = "success"
        except KilledError:
            self.result, self.retryable = "killed", True
        except PacificaError as error:
            self.result, self.retryable = type(error).__name__, isinstance(error, Retryable)

    def _withdraw(self, reference: str) -> None:
        world = self.world
        self.posts = 0
        try:
            receipt = withdraw(
                world.identity(reference),
                self._everything if world.setting.sweeps else Order("SOL", self.task.amount),
                BASE_URL,
                context=TryContext(
                    first_try=self.context["first_try"],
                    run_after_ms=world.run_after_ms,
                    adoption="window" if world.setting.kind == "plain" else "never",
                    instance=self.task.instance,
                    sweeps=world.setting.sweeps,
                ),
                ledger=_Ledger(self),
                exchange=_Exchange(self),
                make_signer=lambda: _Exchange(self),
                policy=_POLICY,
                runtime=Runtime(self._now_ms, self._sleep, self._new_id, lambda: 0.0, self._log),
            )
        except PacificaError as error:
            self.say(f"ends with {type(error).__name__}: {str(error).splitlines()[0][:150]}")
            self._judge_error(reference, error)
            raise
        self.say(f"returns the receipt of batch {receipt.batch_nonce}{', adopted' if receipt.adopted else ''}")
        self._judge_receipt(reference, receipt)

    def _everything(self, recorded: Order | None) -> Order:
        """Return what there is: the task's amount, and after each withdrawal of it a little less."""
        ours = sum(row.reference is not None for row in self.world.rows)
        return recorded or Order("SOL", self.task.amount - ours)

    def _judge_receipt(self, reference: str, receipt: StoredReceipt) -> None:
        self.world.judge_receipt(reference, receipt.batch_nonce)
        if (self.world.record(reference) or {}).get("state") == "accepted":
            self.world.said[reference] = ("success", self.world.processes)

    def _judge_error(self, reference: str, error: PacificaError) -> None:
        world, name, text = self.world, type(error).__name__, str(error)
        if name in _NOTHING_MOVED or "o money moved" in text:
            world.judge_nothing_moved(reference, name)
        if self.posts and "this try sent nothing" in text:
            world.broken(f"{name} says that this try sent nothing, but it did", None)
        if isinstance(error, OutcomeUnknown):
            voided = "voided" in text
            world.said[reference] = ("Voided" if voided else "OutcomeUnknown", world.processes)

    # -- what it knows

    def tell(self, *what: Hashable) -> None:
        """Note what the process was told: with how it began, this is all that its further course depends on."""
        self._told = self.runner.named((self._told, what))

    @property
    def state(self) -> Hashable:
        """All that the rest of this process depends on, besides the world: the code is deterministic."""
        return (self._told, self.thawed, self.frozen, self.wakes_ms > self.world.now_ms and self.wakes_ms)

    def may_change(self, what: str) -> bool:
        """Say whether this process, which has been replaced, can change what another reads."""
        if (
            self.wakes_ms
            or not self.world.setting.fenced
            or any(name in self.world.entries for name in DECISIONS.values())
        ):
            return True
        return self.armed and what in {"look", "wait"}  # it has written an attempt that it may not have sent yet

    def _now_ms(self) -> int:
        if self._clock_ms != self.world.now_ms:
            self._clock_ms = self.world.now_ms
            self.tell("clock", self._clock_ms)
        return self._clock_ms

    # -- places

    def place(self, name: str, faults: Sequence[str] = (), *, what: str = "", freeze_only: bool = False) -> str:
        """
        Come to a place: maybe another process runs here, maybe this one ends or stops; then say what goes wrong.

        ``what`` is done next: ``change`` something that others see, ``read`` the ledger, ``look`` at the exchange, or
        ``wait``. A frozen process is offered here only if it matters whether it runs before or after what was done
        last: where neither changes anything that the other reads, both orders give the same.
        """
        self.tell(name)
        while True:
            free = () if self.thawed else self.runner.thawable(self._did)
            standing = ("frozen again",) if self.thawed else ("frozen, next try at once", "frozen, heartbeats missed")
            # One that is killed once thawed is one that is frozen again for ever.
            kill = () if freeze_only or self.thawed else ("killed",)
            chosen = self.choose.choose(
                free=free, faults=(*kill, *standing, *faults), state=lambda: self.runner.state(self)
            )
            if not chosen:
                self._did = what
                return ""
            if chosen in free:
                self._did = "change"
                self.say(f"before {name}: another try is thawed")
                self.runner.thaw(chosen, self)
                failpoints.install(self._failpoint)
                continue
            self.world.faults += 1
            self.say(f"{name}: FAULT: {chosen}")
            if chosen == "killed":
                raise KilledError
            if chosen in standing:
                self._stop(chosen)
                self.say("is thawed")
                continue
            self.tell(chosen)
            self._did = what
            return chosen

    def say(self, what: str) -> None:
        """Tell a reader."""
        if self.choose.telling:
            self.choose.say(f"{(self.world.now_ms - 1_800_000_000_000) / 1000:9.0f} s  try {self.number}: {what}")

    def _failpoint(self, name: str) -> None:
        if name in _PLACES:
            self.place(name)

    def _sleep(self, seconds: float) -> None:
        """Let time pass; a thawed process leaves that to the later try, whose turn it is while this one waits."""
        self.place("wait", what="wait")
        self.wakes_ms = self.world.now_ms + round(seconds * 1000)
        if self.thawed and seconds < _SHORT_S:
            self.wakes_ms = 0
        elif self.thawed:
            self._stop("asleep")
        else:
            self.world.advance(self.wakes_ms)
            self.runner.changed()
        self.say(f"has waited {seconds:g} s")

    def _stop(self, how: str) -> None:
        self.frozen = how
        self._greenlet.parent.switch()
        failpoints.install(self._failpoint)

    def _new_id(self) -> str:
        self._ids += 1
        return f"{self.number}-{self._ids}"

    def _log(self, line: str) -> None:
        if self.choose.telling:
            self.say("log: " + line.split("): ", 1)[-1])


class Runner:
    """Runs one step of a world: one try, and with it those that were frozen beside it."""

    def __init__(self, world: World, chooser: Chooser, names: dict[Hashable, int] | None = None) -> None:
        self.world, self.chooser = world, chooser
        self._names: dict[Hashable, int] = {} if names is None else names
        self._above: Process | None = None
        self.frozen: list[Process] = []
        self._now: Hashable = None

    # -- what can be recognised within a try

    def named(self, what: Hashable) -> int:
        """Return a number for this, the same for equal ones."""
        return self._names.setdefault(what, len(self._names))

    def changed(self) -> None:
        """Note that the world may have changed."""
        self._now = None

    def state(self, running: Process) -> Hashable:
        """Return all that the rest of this try depends on: the world, and what each living process was told."""
        if self._now is None:
            self._now = self.named(self.world.exact())
        above = None if self._above is None else self._above.state
        return (self._now, running.state, above, tuple(p.state for p in self.frozen))

    def run_try(self) -> None:
        """Run the try that is due; if it is frozen, the next one, with the frozen one thawed at any of its places."""
        world = self.world
        at = min(range(len(world.tasks)), key=lambda i: (bool(world.tasks[i].ended), world.tasks[i].due_ms))
        world.advance(world.tasks[at].due_ms)
        while True:
            process = Process(self, at)
            self.changed()
            process.run()
            if not process.frozen:
                break
            if process.frozen == "frozen, heartbeats missed":
                world.advance(world.now_ms + HEARTBEAT_MS + RETRY_DELAY_MS)
            self.frozen.append(process)
        while self.frozen:
            chosen = self.chooser.choose(free=tuple(f"thaw try {p.number}" for p in self.frozen))
            if not chosen:
                break
            self.thaw(chosen, None)
        self._ended(process)

    def thawable(self, did: str) -> tuple[str, ...]:
        """Name the frozen processes that can go on now, and for which it matters that this was done before."""
        if not self.frozen or not did:
            return ()
        return tuple(
            f"thaw try {p.number}"
            for p in self.frozen
            if p.wakes_ms <= self.world.now_ms and (did == "change" or p.may_change(did))
        )

    def thaw(self, name: str, above: Process | None) -> None:
        """Let a frozen process go on; frozen again, it waits for another place, or is never seen again."""
        process = next(p for p in self.frozen if f"thaw try {p.number}" == name)
        self.frozen.remove(process)
        process.thawed = True
        self._above = above
        if above is None:  # nobody else lets time pass
            self.world.advance(process.wakes_ms)
        process.run()
        self._above = None
        if process.frozen:
            self.frozen.append(process)

    def _ended(self, process: Process) -> None:
        world, at = self.world, process.at
        tries = world.tasks[at].tries
        if process.retryable and tries <= RETRIES:
            world.tasks = _changed(world.tasks, at, due_ms=world.now_ms + RETRY_DELAY_MS)
        else:
            world.tasks = _changed(world.tasks, at, ended=process.result)
        world.writers.clear()


def _changed(tasks: tuple[Task, ...], at: int, **changes: Any) -> tuple[Task, ...]:
    return (*tasks[:at], replace(tasks[at], **changes), *tasks[at + 1 :])


class _Ledger:
    """The ledger as one process sees it; with a fence, ``set`` fails for a process that has been replaced."""

    def __init__(self, process: Process) -> None:
        self._process, self._world = process, process.world
        self.fenced = self._world.setting.fenced

    def get(self, name: str, /) -> object | None:
        self._call("get", name, _GET_FAULTS)
        entry: object | None = self._world.entries.get(name)
        self._process.tell(repr(entry))
        return entry

    def set(self, name: str, value: Mapping[str, Any], /) -> None:
        process, world = self._process, self._world
        fault = self._call("set", name, _SET_FAULTS)
        process.runner.changed()
        if self.fenced and world.tasks[process.at].holder != process.number:
            process.say("the fence refuses the write")
            process.tell("fenced off")
            raise LedgerUnavailableError("this try has been replaced")
        if fault == "acknowledged but lost":
            world.cause("A3 the ledger lost an acknowledged write")
            return
        if world.writers.get(name, 0) > process.number and value.get("state") != "accepted":
            world.cause("A5 no fence: a frozen try overwrote what a later one wrote")
        world.entries[name] = {k: list(v) if isinstance(v, list) else v for k, v in value.items()}
        world.writers[name] = process.number
        process.armed = True
        if fault:
            raise LedgerUnavailableError("no answer")

    def delete(self, name: str, /) -> None:
        fault = self._call("delete", name, _SET_FAULTS[:2])
        self._world.entries.pop(name, None)
        self._process.runner.changed()
        if fault:
            raise LedgerUnavailableError("no answer")

    def _call(self, what: str, name: str, faults: Sequence[str]) -> str:
        process = self._process
        place = f"{what} {name.partition('_')[0]}"
        kind = "read" if what == "get" else "change"
        fault = process.place(place, () if "ledger" in process.down else faults, what=kind)
        if fault == "ledger down from here on":
            process.down.add("ledger")
        if "ledger" in process.down or fault == "refused":
            raise LedgerUnavailableError("the ledger is down")
        process.say(place)
        return fault


class _Exchange:
    """The exchange as one process sees it, for reading and for sending."""

    def __init__(self, process: Process) -> None:
        self._process, self._world = process, process.world
        self.expiry_window_ms = WINDOW_MS

    # -- reading

    def pending_withdrawals(self) -> Listing[PendingWithdrawal]:
        world = self._world
        young = any(r.hidden_until_ms is None and world.now_ms - r.created_ms < LIST_LAG_MS for r in world.rows)
        extra = ["the newest rows are not shown for 30 s"] if young else []
        if world.unread_ms:
            extra.append("an equal withdrawal was made elsewhere in the window")
        fault = self._read("read the pending list", (*_READ_FAULTS, *extra))
        if fault == "an equal withdrawal was made elsewhere in the window":
            world.foreign(min(world.now_ms, world.unread_ms[-1] + 2_000))
        hidden = fault == "the newest rows are not shown for 30 s"
        world.rows = tuple(_decided(row, world.now_ms, hidden=hidden) for row in world.rows)
        world.unread_ms = ()
        self._process.runner.changed()
        rows = [_pending(row) for row in world.visible() if not _is_settled(row, world.now_ms)]
        listing = Listing(tuple(rows), world.now_ms, None)
        self._process.tell(listing)
        self._process.place("after the pending list was read", freeze_only=True)
        return listing

    def withdrawal_history(self, since_ms: int | None = None) -> Listing[SettledWithdrawal]:
        self._read("read the history", ("unreachable",))
        world = self._world
        rows = [_settled(row) for row in world.visible() if _is_settled(row, world.now_ms)]
        listing = Listing(tuple(row for row in rows if row.created_at_ms >= (since_ms or 0)), world.now_ms, None)
        self._process.tell(listing)
        return listing

    def bridge_parameters(self, symbol: str) -> BridgeParameters:
        return BridgeParameters(symbol, FEE, 8)

    def _read(self, what: str, faults: Sequence[str]) -> str:
        process = self._process
        fault = process.place(what, () if process.down & {"exchange", "throttled"} else faults, what="look")
        if fault.endswith("from here on"):
            process.down.add(fault.split()[0])
        if "exchange" in process.down or fault == "unreachable":
            raise Unreachable("no answer")
        if "throttled" in process.down or fault == "throttled":
            raise Throttled("fewer requests", retry_after_s=_THROTTLED_S, status=429)
        process.say(what)
        return fault

    # -- sending

    def prepare_withdrawal(
        self, symbol: str, amount: Decimal, *, idempotency_key: str, timestamp_ms: int
    ) -> SignedWithdrawal:
        body = json.dumps({"key": idempotency_key, "amount": str(amount)}).encode()
        return SignedWithdrawal(timestamp_ms, HttpRequest("POST", BASE_URL, {}, body))

    def send(self, withdrawal: SignedWithdrawal, /) -> Outcome:
        process, world = self._process, self._world
        down = process.down & {"exchange", "throttled"}
        fault = process.place("send", () if down else _POST_FAULTS, what="change")
        if fault.endswith("down from here on"):
            process.down.add("exchange")
        if fault.startswith("429 from"):
            process.down.add("throttled")
        request = self._request(withdrawal)
        process.say(
            f"sends {request.amount} for {request.reference}, valid until {request.expires_ms - 1_800_000_000_000}"
        )
        world.judge_send(request, process.number)
        world.requests = (*world.requests, request)
        world.unread_ms = (*world.unread_ms, withdrawal.timestamp_ms)
        process.posts += 1
        process.armed = False
        outcome = self._outcome(fault, request)
        if not isinstance(outcome, UnknownOutcome):
            world.requests = (*world.requests[:-1], replace(request, closed=True))
        process.tell(outcome)
        process.runner.changed()
        process.say(f"is answered {type(outcome).__name__}")
        process.place("after the answer", freeze_only=True)
        return outcome

    def _request(self, withdrawal: SignedWithdrawal) -> Request:
        body = json.loads(withdrawal.request.body or b"")
        world = self._world
        reference = next(r for r in self._process.task.references if world.identity(r).idempotency_key() == body["key"])
        number = len(world.requests) + 1
        return Request(number, reference, body["key"], Decimal(body["amount"]), withdrawal.timestamp_ms + WINDOW_MS)

    def _outcome(self, fault: str, request: Request) -> Outcome:  # noqa: C901, PLR0911 - one return a fault
        world, key = self._world, request.key
        signed_ms = request.expires_ms - WINDOW_MS
        if "throttled" in self._process.down or fault == "429":
            return ThrottledOutcome(_THROTTLED_S)
        if "exchange" in self._process.down or fault in {"request lost", "500, nothing done"}:
            return UnknownOutcome("no whole answer")
        if fault.startswith("delivered") and fault.endswith(("late", "moment")):
            at_ms = signed_ms + 5_000 if fault.endswith("late") else request.expires_ms
            world.flights = (*world.flights, (at_ms, request))
            return UnknownOutcome("no whole answer")
        if fault == "409 in progress, accepted 5 s later":
            world.flights = (*world.flights, (signed_ms + 5_000, request))
            return Duplicate("in progress")
        if fault in {"422, key used up", "500, key used up", "409 in progress, came to nothing"}:
            world.used_keys.setdefault(key, world.now_ms)
            world.cause("burned")
        if fault == "409 in progress, came to nothing":
            return Duplicate("in progress")
        if fault.startswith("422"):
            return Rejected(422, None, "refused")
        if fault == "500, key used up":
            return UnknownOutcome("HTTP 500", 500)
        outcome = self._processed(request)
        if fault in {"answer lost", "500, accepted"}:
            return UnknownOutcome("no whole answer")
        if fault.startswith("delivered twice"):
            return Duplicate("known") if fault.endswith("409") else Rejected(422, None, "refused")
        return outcome

    def _processed(self, request: Request) -> Outcome:
        """Do what the exchange does with a request that arrives whole."""
        world = self._world
        if request.expires_ms < world.now_ms:
            return Rejected(422, None, "expired")
        used_ms = world.used_keys.get(request.key)
        old = used_ms is not None and world.now_ms - used_ms >= KEY_MEMORY_MS
        # No fault: how long a key is remembered beyond ten minutes is not known, so it may be either way.
        if old and self._process.choose.choose(free=("key forgotten",)):
            self._process.say("the key is forgotten")
            used_ms = None
        if used_ms is not None:
            return Duplicate("known")
        world.used_keys[request.key] = world.now_ms
        row = world.accept(request)
        return Accepted(Receipt("SOL", row.nonce, row.amount, FEE))


def _decided(row: Row, now_ms: int, *, hidden: bool) -> Row:
    if row.hidden_until_ms is not None:
        return row
    young = now_ms - row.created_ms < LIST_LAG_MS
    return replace(row, hidden_until_ms=row.created_ms + LIST_LAG_MS if hidden and young else 0)


def _is_settled(row: Row, now_ms: int) -> bool:
    return now_ms - row.created_ms >= SETTLES_AFTER_MS


def _pending(row: Row) -> PendingWithdrawal:
    return PendingWithdrawal("SOL", row.amount - FEE, row.amount, FEE, row.nonce, row.created_ms)


def _settled(row: Row) -> SettledWithdrawal:
    return SettledWithdrawal("SOL", row.amount - FEE, row.nonce, f"tx{row.nonce}", row.created_ms)
