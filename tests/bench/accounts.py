"""Many accounts on one event loop, ten triggers on each: what idling costs, and how soon a settlement is told."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from pacifica_provider.triggers.push import MOST_ACCOUNTS
from pacifica_provider.triggers.rate_limit import IDLE_SHARE
from tests.bench.child import Child
from tests.bench.figures import Figure, Goal, Part, median, percentile

COUNTS = (1, 10, 100, 1000)
PEER_COUNTS = (1, 10)
EACH = 10
INTERVAL_S = 30.0
WINDOW_S = SETTLING_S = 60.0
GRACE_S = 10.0
PEER = "one poll per task"
# Documented: credits a minute of an address, and connections of an address.
QUOTA, MOST_SOCKETS = 100, 300
SOCKETS_GOAL, CREDITS_GOAL, P99_GOAL_MS, CPU_GOAL = 50.0, QUOTA / 2, 2000.0, 15.0
CHILD = "tests.bench.accounts_child"


def run() -> Part:
    """Measure the few side by side, and the many with the machine to themselves."""
    few = [_Crew(count, with_key=with_key) for count in COUNTS[:-1] for with_key in (False, True)]
    peers = [_Crew(count, kind="peer") for count in PEER_COUNTS]
    many = [_Crew(COUNTS[-1], with_key=with_key) for with_key in (False, True)]
    for cluster in ([*few, *peers], *([crew] for crew in many)):
        _run_together(cluster)
    return _part([*few, *many], {crew.count: crew.found for crew in peers})


@dataclass
class _Found:
    """What was measured of one crew; credits and requests a minute."""

    sockets: int = 0
    credits: float = 0.0
    dearest: float = 0.0
    requests: float = 0.0
    idle_cpu_s: float = 0.0
    resident: int = 0
    start_s: float = 0.0
    start_cpu_s: float = 0.0
    stall_s: float = 0.0
    gave_up_s: float | None = None
    late_ms: list[float] = field(default_factory=list)
    told: int = 0
    settling_cpu_s: float = 0.0
    cpu_ms_an_event: float = 0.0
    settling_credits: float = 0.0
    behind_s: float = 0.0
    refused: int = 0


class _Crew:
    """So many accounts with their triggers in one process, and an exchange of their own in another."""

    def __init__(self, count: int, *, with_key: bool = True, kind: str = "ours") -> None:
        self.count, self.with_key, self.kind = count, with_key, kind
        self.found = _Found()
        self._exchange: Child
        self._child: Child
        self._before: dict[str, Any] = {}
        self._begun = 0.0

    @property
    def settles(self) -> bool:
        """Whether its withdrawals are settled."""
        return self.kind == "ours"

    def begin(self, stack: ExitStack) -> None:
        """Open the accounts and start the triggers."""
        options = {"enforce_credits": self.kind == "ours"}
        wish = {"rows": [EACH] * self.count, "indexed": True, "options": options}
        self._exchange = stack.enter_context(Child("tests.bench.exchange", wish))
        ready = self._exchange.read()
        exchange = {"base_url": ready["base_url"], "identified": self.with_key}
        wish = {"exchange": exchange, "kind": self.kind, "interval": INTERVAL_S, "seconds": WINDOW_S}
        self._child = stack.enter_context(Child(CHILD, wish))
        # Not as its argument: a thousand accounts are too long for one.
        self._child.tell(ready["accounts"])

    def wait(self) -> None:
        """Return when all are waiting and subscribed, or when this has taken too long."""
        started = self._child.read()
        self.found.gave_up_s = started.get("gave_up")
        if self.found.gave_up_s is not None:
            return
        self.found.start_s, self.found.start_cpu_s = started["start_s"], started["start_cpu_s"]
        self.found.stall_s = started["stall_s"]
        self.found.resident = started["resident_bytes"]

    def idle(self) -> None:
        """Begin to measure."""
        self._before, self._begun = self._exchange.ask("meter"), time.monotonic()
        self._child.tell("go")

    def idled(self) -> None:
        """Take down what idling cost."""
        self.found.idle_cpu_s = self._child.read()["cpu_s_per_minute"]
        after, minutes = self._exchange.ask("meter"), (time.monotonic() - self._begun) / 60
        paid = _paid(after, self._before)
        self.found.sockets = after["sockets"]
        self.found.credits, self.found.dearest = sum(paid) / minutes, max(paid, default=0.0) / minutes
        self.found.requests = (after["requests"] - self._before["requests"]) / minutes

    def settle(self) -> None:
        """Begin to settle."""
        self._before = self._exchange.ask("meter")
        self._child.tell("settle")
        self._exchange.tell({"settle_s": SETTLING_S})

    def settled(self) -> None:
        """Take down who was told, and how soon."""
        settled = self._exchange.read()
        self._child.tell(GRACE_S)
        heard = self._child.read()
        found, after = self.found, self._exchange.ask("meter")
        found.told, found.behind_s, found.refused = len(heard["heard_ms"]), settled["behind_s"], after["refused"]
        # Whoever was not told has waited at least until now.
        found.late_ms = [
            heard["heard_ms"].get(nonce, heard["end_ms"]) - at_ms for nonce, at_ms in settled["settled_ms"].items()
        ]
        found.settling_cpu_s = heard["cpu_s_per_minute"]
        found.cpu_ms_an_event = heard["cpu_s"] * 1000 / max(1, found.told)
        found.settling_credits = sum(_paid(after, self._before))


def _run_together(crews: list[_Crew]) -> None:
    """Let ours idle and then settle; the peers, who take an interval to spread out, idle meanwhile."""
    ours, peers = ([crew for crew in crews if crew.settles is wanted] for wanted in (True, False))
    with ExitStack() as stack:
        for crew in crews:
            crew.begin(stack)
        for group in (ours, peers):
            for crew in list(group):
                crew.wait()
                if crew.found.gave_up_s is not None:
                    group.remove(crew)
            for crew in group:
                crew.idle()
        for crew in ours:
            crew.idled()
        for crew in ours:
            crew.settle()
        for crew in peers:
            crew.idled()
        for crew in ours:
            crew.settled()


def _paid(after: dict[str, Any], before: dict[str, Any]) -> list[float]:
    """Return what each that pays was charged between the two."""
    return [paid - before["paid"].get(who, 0.0) for who, paid in after["paid"].items()]


def _part(crews: list[_Crew], peers: dict[int, _Found]) -> Part:
    part = Part()
    measured = [crew for crew in crews if crew.found.gave_up_s is None]
    for crew in measured:
        part.figures += _figures(crew, peers.get(crew.count))
    most, keyed = (crew.found for crew in crews[-2:])
    where = f"{COUNTS[-1]:,} accounts without a key"
    part.goals = [
        Goal(f"{where}: WebSockets", "sockets", SOCKETS_GOAL, most.sockets),
        Goal(f"{where}, idle: credits a minute", "credits", CREDITS_GOAL, most.credits),
        Goal(f"{where}: settlement to event, p99", "ms", P99_GOAL_MS, percentile(most.late_ms, 0.99)),
        Goal(f"{where}, idle: share of one core", "%", CPU_GOAL, most.idle_cpu_s / 60 * 100),
    ]
    part.notes = [_how(measured), _start(most, keyed), _limits(most)]
    return part


def _figures(crew: _Crew, peer: _Found | None) -> list[Figure]:
    found, n = crew.found, len(crew.found.late_ms)
    where = f"{crew.count:,} x {EACH} waiting, {'a key each' if crew.with_key else 'no key'}"
    rows: list[tuple[str, str, float, float | None, int]] = [
        ("idle", "WebSockets", found.sockets, None, 1),
        ("idle", "requests a minute", found.requests, peer.requests if peer else None, 1),
        ("idle", "credits a minute", found.credits, peer.credits if peer else None, 1),
        ("idle", "credits a minute of whoever pays most", found.dearest, peer.dearest if peer else None, 1),
        ("idle", "CPU seconds a minute", found.idle_cpu_s, peer.idle_cpu_s if peer else None, 1),
        ("idle", "resident bytes a trigger", found.resident / n, peer.resident / n if peer else None, 1),
        ("settling, p50", "ms", median(found.late_ms), None, n),
        ("settling, p99", "ms", percentile(found.late_ms, 0.99), None, n),
        ("settling, told in time", "%", found.told / n * 100, None, n),
        ("settling", "CPU seconds a minute", found.settling_cpu_s, None, 1),
        ("settling", "credits", found.settling_credits, None, 1),
        ("from start to end", "answers 429", found.refused, None, 1),
    ]
    return [
        Figure(
            f"accounts, {where}, {what}", unit, ours, PEER, theirs, samples, "not measured" if theirs is None else ""
        )
        for what, unit, ours, theirs, samples in rows
    ]


def _how(crews: list[_Crew]) -> str:
    behind_ms = max(crew.found.behind_s for crew in crews) * 1000
    untold = sum(len(crew.found.late_ms) - crew.found.told for crew in crews)
    return (
        "Accounts: each crew is one process with one event loop and has an exchange of its own; those of up to "
        f"{COUNTS[-2]} accounts and the peers ran at once, those of {COUNTS[-1]:,} by themselves. The exchange "
        "enforces the quota, of the address without a key and of each account with one, except on the peer, which it "
        f"would refuse. Idle: {WINDOW_S:.0f} s from the moment all are subscribed. Then every withdrawal is settled, "
        f"one by one, each its own batch, at random moments of {SETTLING_S:.0f} s; for that the bench's exchange finds "
        f"a batch by an index, and it was at most {behind_ms:.0f} ms behind. Told in time: within {GRACE_S:.0f} s of "
        f"the last settlement; {untold} were not, and count as told at the end. From the exchange's settlement time to "
        "the event, on one machine. Resident memory is the process's growth, allocator and connections included."
    )


def _start(most: _Found, keyed: _Found) -> str:
    without, with_key = (_started(found) for found in (most, keyed))
    return (
        f"Accounts, start: all {COUNTS[-1] * EACH:,} triggers began at once. Without a key {without} With a key each "
        f"{with_key} The bench itself sleeps for three of the seconds."
    )


def _started(found: _Found) -> str:
    if found.gave_up_s is not None:
        return f"not all accounts were subscribed after {found.gave_up_s:.0f} s, so nothing was measured."
    return (
        f"all accounts were subscribed after {found.start_s:.1f} s and {found.start_cpu_s:.1f} s of CPU, "
        f"{found.stall_s * 1000:,.0f} ms of it at one stretch, in which the event loop did nothing else."
    )


def _limits(most: _Found) -> str:
    looked_s = COUNTS[-1] * 60 / (IDLE_SHARE * QUOTA)
    an_event = most.cpu_ms_an_event
    return (
        f"Accounts, what limits beyond {COUNTS[-1]:,}: (1) credits. Accounts without a key share their address's, and "
        f"an idle one is looked at every accounts x 60 / ({IDLE_SHARE} x quota) seconds, {looked_s:,.0f} s for "
        f"{COUNTS[-1]:,}; only a push that was lost waits so long. With a key each they do not share. (2) Sockets. "
        f"{MOST_ACCOUNTS} accounts a connection and {MOST_SOCKETS} connections an address make "
        f"{MOST_ACCOUNTS * MOST_SOCKETS:,} accounts. (3) The loop's CPU: {an_event:.2f} ms an event, everything else "
        f"that it does meanwhile included, so a core is full at {1000 / an_event:,.0f} settlements a second."
    )
