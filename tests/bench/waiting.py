"""N triggers that wait on one account: what a minute costs the triggerer and the account."""

from __future__ import annotations

import time
from contextlib import ExitStack

from tests.bench.child import Child
from tests.bench.figures import Figure, Goal, Part

COUNTS = (1, 10, 100, 1000, 10_000)
# The sandbox can send 1,000 rows 2,000 times a minute; ten times as many ten times as often it cannot.
PEER_COUNTS = COUNTS[:-1]
INTERVAL_S = 30.0
WINDOW_S = 60.0
PEER = "one poll per task"
# Two of the exchange's documented prices: a normal request, and a heavy GET without an API config key at its dearest.
PRICES = {"pending": 1, "history": 12}
CREDITS_GOAL, CPU_GOAL, BYTES_GOAL = 4.0, 5.0, 5.0
CHILD = "tests.bench.waiting_child"

Found = dict[int, dict[str, float]]


def run() -> Part:
    """Measure ours and the peer side by side, each N in a process and on an account of its own."""
    with ExitStack() as stack:
        pushing = _Side(stack, "ours", COUNTS)
        polling = _Side(stack, "ours", (COUNTS[-1],), push=False)
        peers = _Side(stack, "peer", PEER_COUNTS)
        held = {side: side.held() for side in (pushing, peers)}
        for side in (pushing, polling, peers):
            side.begin(stack)
        for side in (pushing, polling, peers):
            side.go()
        ours, unpushed, theirs = (side.found() for side in (pushing, polling, peers))
    for side, found in ((pushing, ours), (peers, theirs)):
        for count, each in found.items():
            each["bytes"] = held[side][count] / count
    return _part(ours, unpushed[COUNTS[-1]], theirs)


class _Side:
    """One way of waiting, for every N, against an exchange of its own."""

    def __init__(self, stack: ExitStack, kind: str, counts: tuple[int, ...], *, push: bool = True) -> None:
        self._exchange = stack.enter_context(
            Child("tests.bench.exchange", {"rows": counts, "push": push, "frozen": True})
        )
        ready = self._exchange.read()
        exchange = {name: value for name, value in ready.items() if name != "accounts"}
        self._wishes = [
            {"exchange": exchange, "account": account, "kind": kind, "interval": INTERVAL_S}
            for account in ready["accounts"]
        ]
        self._children: list[Child] = []
        self._before: dict[str, dict[str, int]] = {}
        self._begun = 0.0

    def held(self) -> dict[int, float]:
        """Return how many bytes the waiting holds, by N."""
        with ExitStack() as stack:
            children = [stack.enter_context(Child(CHILD, wish)) for wish in self._wishes]
            return {answer["count"]: answer["held_bytes"] for answer in (child.read() for child in children)}

    def begin(self, stack: ExitStack) -> None:
        """Start the triggers."""
        self._children = [stack.enter_context(Child(CHILD, {**wish, "seconds": WINDOW_S})) for wish in self._wishes]

    def go(self) -> None:
        """Wait until all are waiting, and begin to measure."""
        for child in self._children:
            child.read()
        self._before, self._begun = self._exchange.ask("tally"), time.monotonic()
        for child in self._children:
            child.tell("go")

    def found(self) -> Found:
        """Return what a minute cost, by N."""
        measured = [child.read() for child in self._children]
        after = self._exchange.ask("tally")
        minutes = (time.monotonic() - self._begun) / 60
        found: Found = {}
        for wish, child, each in zip(self._wishes, self._children, measured, strict=True):
            account = wish["account"]["account"]
            routes = _less(after.get(account, {}), self._before.get(account, {}))
            found[each["count"]] = {
                "requests": sum(routes.values()) / minutes,
                "credits": sum(PRICES[route] * number for route, number in routes.items()) / minutes,
                "cpu_s": each["cpu_s_per_minute"],
                "resident": each["resident_bytes"],
                "stall_s": child.read()["stall_s"] or 0.0,
            }
        return found


def _less(after: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    return {route: number - before.get(route, 0) for route, number in after.items() if number > before.get(route, 0)}


def _part(ours: Found, unpushed: dict[str, float], theirs: Found) -> Part:
    part = Part()
    for count in COUNTS:
        part.figures += _figures(f"N = {count:,}", ours[count], theirs.get(count))
    part.figures += _figures(f"N = {COUNTS[-1]:,}, WebSocket unreachable", unpushed, None)
    most = ours[COUNTS[-1]]
    part.goals = [
        Goal("10,000 waiting: credits a minute", "credits", CREDITS_GOAL, most["credits"]),
        Goal("10,000 waiting, WebSocket unreachable: credits a minute", "credits", CREDITS_GOAL, unpushed["credits"]),
        Goal("10,000 waiting: share of one core", "%", CPU_GOAL, most["cpu_s"] / 60 * 100),
        Goal("10,000 waiting: memory each", "KB", BYTES_GOAL, most["bytes"] / 1000),
    ]
    stall_ms, grown_mb = most["stall_s"] * 1000, most["resident"] / 1e6
    part.notes = [
        (
            f"Waiting: all at once, for {WINDOW_S:.0f} s from the moment all are waiting; tasks ask for a poll every "
            f"{INTERVAL_S:.0f} s. The exchange is another process. Memory is what Python holds for the waiting "
            "(tracemalloc), the shared watcher, its connections and its subscription included, divided by N. Credits "
            "at Pacifica's documented prices without an API config key, the dearest where there is a range. With push "
            "a watcher looks once a minute, so a minute sees one look or, at its edges, two."
        ),
        (
            f"{PEER.capitalize()}: measured up to N = {PEER_COUNTS[-1]:,} and not extrapolated; beyond, the sandbox, "
            "which sends every task the whole pending list, would be what is measured. The real quota, 100 credits a "
            "minute, refuses the peer from N = 51 on. Fewer than two requests a minute for each of its tasks say that "
            "machine or sandbox could not keep up; its memory then holds requests under way."
        ),
        (
            f"One look for 10,000 keeps the event loop busy for {stall_ms:.0f} ms of CPU at a stretch (Airflow warns "
            f"from 200 ms on). With 10,000 waiting the process is {grown_mb:.0f} MB larger than before."
        ),
    ]
    return part


def _figures(where: str, ours: dict[str, float], theirs: dict[str, float] | None) -> list[Figure]:
    rows = (
        ("requests", "requests a minute"),
        ("credits", "credits a minute"),
        ("cpu_s", "CPU seconds a minute"),
        ("bytes", "bytes a trigger"),
    )
    note = "" if theirs else "not measured"
    return [
        Figure(f"waiting, {where}", unit, ours[key], PEER, theirs[key] if theirs else None, n=1, note=note)
        for key, unit in rows
        if key in ours
    ]
