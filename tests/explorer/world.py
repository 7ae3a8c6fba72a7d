"""
The world of one schedule between two tries: clock, ledger, exchange, task instances, and the truth that is judged by.

Written independently of ``tests/simulator``. Every time is a whole second, calls take no time, and time passes only
where somebody waits, so that schedules which differ in nothing that matters meet in equal states.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from pacifica_provider.withdrawals.identity import Order, RunIdentity
from pacifica_provider.withdrawals.ledger import BIRTH_ENTRY, LedgerState, decision_entry, task_entry, withdrawal_entry

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

START_MS = 1_800_000_000_000
WINDOW_MS = 10_000
FEE = Decimal("0.1")
RETRIES = 3
RETRY_DELAY_MS = 60_000
HEARTBEAT_MS = 300_000
KEY_MEMORY_MS = 600_000
LIST_LAG_MS = 30_000
SETTLES_AFTER_MS = 300_000
TOLERANCE_MS = 6_000
# Longer than every time that anything is compared with: gaps between two times beyond it are all alike.
LONG_MS = 720_000

Kind = Literal["plain", "pair", "mapped"]


@dataclass(frozen=True, slots=True)
class Setting:
    """
    Which world it is.

    ``plain``: one task instance that withdraws under one reference. ``pair``: one ``@task`` that withdraws under two,
    one after the other. ``mapped``: two instances of a mapped task, a reference each. ``newborn``: the first try finds
    no ledger, so the ledger is younger than the run. ``sweeps``: the order is everything there is; once it is
    withdrawn there is something else.
    """

    kind: Kind = "plain"
    fenced: bool = True
    newborn: bool = False
    sweeps: bool = False

    @property
    def name(self) -> str:
        """As the command line names it."""
        fence = "fenced" if self.fenced else "unfenced"
        return f"{self.kind}-{fence}{'-newborn' if self.newborn else ''}{'-sweeps' if self.sweeps else ''}"


@dataclass(frozen=True, slots=True)
class Row:
    """A withdrawal that the exchange has accepted. ``hidden_until_ms`` is ``None`` until a list has been read."""

    nonce: int
    reference: str | None
    amount: Decimal
    created_ms: int
    hidden_until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A signed request. ``closed``: its try was told that it moved nothing or is known already."""

    number: int
    reference: str
    key: str
    amount: Decimal
    expires_ms: int
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """
    A task instance as Airflow sees it.

    ``tries`` since the last clear, ``fresh``: it has never run. ``ended``: how, or ``None`` while a try is due.
    """

    references: tuple[str, ...]
    instance: str | None
    due_ms: int
    tries: int = 0
    fresh: bool = True
    ended: str | None = None
    amount: Decimal = Decimal(5)
    holder: int = 0


@dataclass(frozen=True, slots=True)
class Sight:
    """What a person saw of a withdrawal some time ago: a decision taken on it may be stale by now."""

    fingerprint: str
    attempts: int
    rows: tuple[int, ...]
    restores: int
    moved: bool


class BrokenError(BaseException):
    """The promise was broken, or an edge of it was reached: the schedule ends here. ``edge`` names an admitted one."""

    def __init__(self, what: str, edge: str | None) -> None:
        super().__init__(what)
        self.what, self.edge = what, edge


@dataclass(slots=True)
class World:
    """Everything that the next try depends on, and nothing else but the truth."""

    setting: Setting
    tasks: tuple[Task, ...]
    entries: dict[str, Any]
    now_ms: int = START_MS
    run_after_ms: int = START_MS - 60_000
    rows: tuple[Row, ...] = ()
    used_keys: dict[str, int] = field(default_factory=dict)
    flights: tuple[tuple[int, Request], ...] = ()
    requests: tuple[Request, ...] = ()
    unread_ms: tuple[int, ...] = ()
    processes: int = 0
    faults: int = 0
    causes: frozenset[str] = frozenset()
    said: dict[str, tuple[str, int]] = field(default_factory=dict)
    decisions: int = 0
    seen: dict[str, Sight] = field(default_factory=dict)
    writers: dict[str, int] = field(default_factory=dict)
    limit: int = 0
    per_step: int = 0
    backup: dict[str, Any] | None = None

    def copy(self) -> World:
        """Return one that can be gone on with apart; what is never changed in place is shared."""
        return replace(
            self,
            entries=dict(self.entries),
            used_keys=dict(self.used_keys),
            said=dict(self.said),
            seen=dict(self.seen),
            writers=dict(self.writers),
        )

    # -- names

    def identity(self, reference: str) -> RunIdentity:
        """Return the identity of the withdrawal under this reference."""
        return _IDENTITIES[reference]

    def record(self, reference: str) -> dict[str, Any] | None:
        """Return what the ledger holds of it."""
        entry: dict[str, Any] | None = self.entries.get(RECORDS[reference])
        return entry

    def unit(self, reference: str) -> tuple[str, ...]:
        """Return the references of which at most one may ever be paid."""
        return PLAIN_REFERENCES if self.setting.kind == "plain" else (reference,)

    # -- the exchange

    def debits(self, reference: str) -> list[Row]:
        """Return what was paid under this reference."""
        return [row for row in self.rows if row.reference == reference]

    def accept(self, request: Request) -> Row:
        """Pay it, and judge it: at most one debit a withdrawal."""
        row = Row(100 + len(self.rows), request.reference, request.amount, self.now_ms)
        self.rows = (*self.rows, row)
        paid = [r for r in self.rows if r.reference in self.unit(request.reference)]
        if len(paid) > 1:
            batches = " and ".join(str(r.nonce) for r in paid)
            self.broken(f"paid twice: batches {batches}", self.why_lost())
        return row

    def foreign(self, created_ms: int) -> None:
        """Let somebody else withdraw as much from the same account."""
        self.rows = (*self.rows, Row(100 + len(self.rows), None, self.tasks[0].amount, created_ms))

    def deliver(self, request: Request) -> Row | None:
        """Let the exchange process a request that nobody waits for."""
        if request.key in self.used_keys or request.expires_ms < self.now_ms:
            return None
        self.used_keys[request.key] = self.now_ms
        return self.accept(request)

    def advance(self, to_ms: int) -> None:
        """Let time pass; what is under way arrives when it is due."""
        for at_ms, request in sorted(self.flights, key=lambda flight: flight[0]):
            if at_ms <= to_ms:
                self.now_ms = max(self.now_ms, at_ms)
                self.flights = tuple(flight for flight in self.flights if flight != (at_ms, request))
                self.deliver(request)
        self.now_ms = max(self.now_ms, to_ms)

    def visible(self) -> list[Row]:
        """Return the rows that the lists show now."""
        return [row for row in self.rows if not row.hidden_until_ms or row.hidden_until_ms <= self.now_ms]

    # -- the judge

    def cause(self, name: str) -> None:
        """Note a cause by which the promise admits an edge."""
        self.causes |= {name}

    def broken(self, what: str, edge: str | None) -> None:
        """End the schedule: this must not happen, unless ``edge`` names why it may."""
        raise BrokenError(what, edge)

    def why_lost(self) -> str | None:
        """Say by which admitted cause the record may be wrong, or ``None``."""
        for name in ("A4 a person had it posted again although it had moved", "A4 a person adopted another's row"):
            if name in self.causes:
                return name
        for name in sorted(self.causes):
            if name.startswith(("A3", "A5")):
                return name
        return None

    def judge_send(self, request: Request, process: int) -> None:
        """Check a request that leaves: nothing after an ending, no second live signature."""
        for reference in self.unit(request.reference):
            kind, by = self.said.get(reference, ("", 0))
            if kind and process > by:
                self.broken(f"a request was sent after a try had ended with {kind}", self.why_lost())
        for other in self.requests:
            both_live = other.expires_ms >= self.now_ms and request.expires_ms >= self.now_ms
            if other.key == request.key and both_live and not other.closed:
                self.broken("two signatures of one withdrawal are live at once", self.why_lost())

    def judge_receipt(self, reference: str, nonce: int) -> None:
        """Check a success: it names the debit that was made for it."""
        own = self.debits(reference)
        if nonce in {row.nonce for row in own}:
            return
        edge = self.why_lost()
        if edge is None and not own and "burned" in self.causes and self._in_window(nonce):
            edge = "A6 the key was used up by a request that came to nothing, equal withdrawal in the window"
        self.broken(f"a receipt names batch {nonce}, which is not its own", edge)

    def judge_nothing_moved(self, reference: str, said: str) -> None:
        """Check a claim that nothing moved: of the whole record, now."""
        coming = [request for _, request in self.flights if request.reference == reference]
        coming = [request for request in coming if request.key not in self.used_keys]
        if self.debits(reference) or coming:
            moved = "has moved" if self.debits(reference) else "is about to move"
            self.broken(f"{said} says that nothing moved, but it {moved}", self.why_lost())

    def _in_window(self, nonce: int) -> bool:
        """Say whether the row was made by somebody else when a request of this run could be accepted."""
        signed = [a["signed_ms"] for r in RECORDS for a in (self.record(r) or {}).get("attempts", ())]
        return any(
            row.nonce == nonce
            and row.reference is None
            and at - TOLERANCE_MS <= row.created_ms <= at + WINDOW_MS + TOLERANCE_MS
            for row in self.rows
            for at in signed
        )

    # -- equal states

    def key(self) -> bytes:
        """Return what two worlds have in common if whatever can still happen is the same in both."""
        return hashlib.blake2b(repr(_normalised(self)).encode(), digest_size=16).digest()

    def exact(self) -> tuple[Hashable, ...]:
        """Return all that can change within a try, as it is."""
        return (
            self.now_ms,
            self.tasks,
            tuple(sorted((name, repr(entry)) for name, entry in self.entries.items())),
            self.rows,
            tuple(sorted(self.used_keys.items())),
            self.flights,
            self.requests,
            self.unread_ms,
            self.processes,
            self.causes,
            tuple(sorted(self.said.items())),
            tuple(sorted(self.writers.items())),
        )

    @property
    def rank(self) -> tuple[int, int, int]:
        """Grows with every step, and is the same in equal states: faults, tries, and whether it is over."""
        return (self.faults, sum(task.tries for task in self.tasks), sum(bool(task.ended) for task in self.tasks))


def begin(setting: Setting, faults: int, per_step: int) -> World:
    """Return the world before the first try."""
    instances: tuple[tuple[tuple[str, ...], str | None], ...] = {
        "plain": ((("r1",), "-1"),),
        "pair": ((("a", "b"), None),),
        "mapped": ((("a",), "0"), (("b",), "1")),
    }[setting.kind]
    tasks = tuple(Task(references, instance, START_MS) for references, instance in instances)
    birth = {} if setting.newborn else {BIRTH_ENTRY: {"version": 1, **asdict(LedgerState(START_MS - 86_400_000))}}
    return World(setting, tasks, birth, limit=faults, per_step=per_step)


ORDER = Order("SOL", Decimal(5))
DRIFTED = Decimal(6)
BASE_URL = "https://exchange.invalid/api/v1"
PLAIN_REFERENCES = ("r1", "r2")
_REFERENCES = (*PLAIN_REFERENCES, "a", "b")
_RUN = ("pay", "run", "withdraw")
_IDENTITIES = {ref: RunIdentity("account", *_RUN, ref) for ref in _REFERENCES}
KEYS = {ref: _IDENTITIES[ref].idempotency_key() for ref in _REFERENCES}
RECORDS = {ref: withdrawal_entry(*_RUN, ref) for ref in _REFERENCES}
DECISIONS = {ref: decision_entry(*_RUN, ref) for ref in _REFERENCES}
TASKS = {instance: task_entry(*_RUN, instance) for instance in ("-1", "0", "1")}
# What is only said to people, or names who wrote last: no try is running when states are compared, so none holds it.
_SAID_ONLY = {"write_id", "reason", "detail", "code", "why", "by"}


def _normalised(world: World) -> tuple[Any, ...]:
    """
    Return the state without what cannot matter any more.

    Times are replaced by their distances to now, with every gap between neighbours longer than ``LONG_MS`` shortened to
    it. That is sound: the protocol and this world only ever compare a difference of two times with a constant, every
    constant is smaller than ``LONG_MS``, and a gap that is long stays long when time passes; which side of each
    constant a difference lies on is therefore the same in both worlds, now and at every later moment. Texts that are
    only said to people are left out, and so are requests that have expired and the names of writers: nobody runs
    between two tries.
    What only a further fault looks at (what a person saw, a backup) is left out once no fault is left.
    Statuses of unanswered requests are only said. Batch nonces need no renaming, since they number the rows.
    """
    times: set[int] = {world.now_ms}
    marked = _marked(world, times)
    ordered = sorted(times)
    place = {ordered[0]: 0}
    for before, after in itertools.pairwise(ordered):
        place[after] = place[before] + min(after - before, LONG_MS)
    zero = place[world.now_ms]
    state: tuple[Any, ...] = _placed(marked, {at: where - zero for at, where in place.items()})
    return state


class _At(int):
    """A time within the state."""


def _placed(value: Any, place: dict[int, int]) -> Any:
    if isinstance(value, _At):
        return place[value]
    if isinstance(value, tuple):
        return tuple(_placed(each, place) for each in value)
    return value


def _marked(world: World, times: set[int]) -> tuple[Any, ...]:
    def at(value: int) -> _At:
        times.add(value)
        return _At(value)

    def plain(value: Any, name: str = "") -> Any:
        if name.endswith("_ms") and name != "window_ms":
            return at(value)
        if isinstance(value, dict):
            items: Iterable[tuple[str, Any]] = value.items()
            if value.get("outcome") == "unanswered":
                items = ((k, v) for k, v in items if k != "status")
            return tuple((k, plain(v, k)) for k, v in items if k not in _SAID_ONLY)
        if isinstance(value, (list, tuple)):
            return tuple(plain(each) for each in value)
        return value

    def lag(row: Row) -> Any:
        if row.hidden_until_ms is None:
            return "undecided" if more and world.now_ms - row.created_ms < LIST_LAG_MS else "shown"
        return at(row.hidden_until_ms) if row.hidden_until_ms > world.now_ms else "shown"

    more = world.faults < world.limit

    live = [r for r in world.requests if r.expires_ms >= world.now_ms]
    return (
        world.setting.name,
        world.faults,
        world.limit,
        tuple((*plain((t.references, t.tries, t.fresh, t.ended, t.amount)), at(t.due_ms)) for t in world.tasks),
        tuple((name, plain(entry)) for name, entry in sorted(world.entries.items())),
        at(world.run_after_ms),
        tuple((r.reference, r.amount, at(r.created_ms), lag(r)) for r in world.rows),
        tuple((key, at(used_ms)) for key, used_ms in sorted(world.used_keys.items())),
        tuple((at(due_ms), r.key, r.amount, at(r.expires_ms)) for due_ms, r in world.flights),
        tuple((r.key, at(r.expires_ms), r.closed) for r in live),
        tuple(at(signed_ms) for signed_ms in world.unread_ms[-1:]) if more else (),
        tuple(sorted(world.causes)),
        tuple((name, kind) for name, (kind, _) in sorted(world.said.items())),
        world.decisions,
        tuple(sorted((name, repr(sight)) for name, sight in world.seen.items())) if more else (),
        plain(world.backup) if more else (),
    )
