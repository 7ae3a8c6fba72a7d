"""N triggers that wait on one account: what a minute costs the triggerer and the account."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

from dev.bench.child import Child
from dev.bench.figures import Figure, Goal, Part

COUNTS = (1, 10, 100, 1000, 10_000)
# The sandbox answers 2,000 polls of 1,000 rows a minute; ten times as many polls of ten times as many rows it cannot.
PEER_COUNTS = COUNTS[:-1]
POLL_ONLY_COUNT = COUNTS[-1]
INTERVAL_S = 30.0
# One look a minute with push: a window of exactly that sees exactly one.
WINDOW_S = 60.0
PEER = "one poll per task"
# Two of the exchange's documented prices: a normal request, and a heavy GET without an API config key at its dearest.
PRICES = {"pending": 1, "history": 12}
CREDITS_GOAL, CPU_GOAL, BYTES_GOAL = 4.0, 5.0, 5.0
CHILD = "dev.bench.waiting_child"

Found = dict[int, dict[str, float]]


def run() -> Part:
    """Measure both, one after the other, each with every N at once."""
    ours = _measure("ours", COUNTS)
    polling = _measure("ours", (POLL_ONLY_COUNT,), push=False)
    theirs = _measure("peer", PEER_COUNTS)
    part = Part(
        notes=[
            f"Waiting: everything is measured over {WINDOW_S:.0f} s, from the moment all are waiting; tasks ask for a poll "
            f"every {INTERVAL_S:.0f} s. The exchange is another process. Bytes are what Python holds for the waiting "
            "(tracemalloc), the shared watcher, its connections and its subscription included, by N.",
            f"{PEER.capitalize()} was measured up to N = {PEER_COUNTS[-1]:,} and not extrapolated: beyond that the sandbox, "
            "which sends every task the whole pending list, would be what is measured. Pacifica's own quota without a key "
            "(100 credits a minute) refuses it from N = 51 on.",
        ]
    )
    for count in COUNTS:
        part.figures += _figures(f"N = {count:,}", ours[count], theirs.get(count))
    part.figures += _figures(f"N = {POLL_ONLY_COUNT:,}, WebSocket unreachable", polling[POLL_ONLY_COUNT], None)
    most = ours[COUNTS[-1]]
    part.goals = [
        Goal("10,000 waiting: credits a minute", "credits", CREDITS_GOAL, most["credits"]),
        Goal("10,000 waiting: share of one core", "%", CPU_GOAL, most["cpu_s"] / 60 * 100),
        Goal("10,000 waiting: memory each", "KB", BYTES_GOAL, most["bytes"] / 1000),
        Goal(
            "10,000 waiting, WebSocket unreachable: credits a minute",
            "credits",
            CREDITS_GOAL,
            polling[POLL_ONLY_COUNT]["credits"],
        ),
    ]
    stall = most["stall_s"] * 1000
    part.notes.append(
        f"One look for 10,000 keeps the event loop busy for {stall:.0f} ms at a stretch (Airflow warns from 200 ms on); the "
        f"process with 10,000 waiting is {most['resident'] / 1e6:.0f} MB larger than before them."
    )
    return part


def _figures(where: str, ours: dict[str, float], theirs: dict[str, float] | None) -> list[Figure]:
    rows = (
        ("requests", "a minute", "requests"),
        ("credits", "a minute", "credits"),
        ("cpu_s", "CPU s a minute", "CPU"),
        ("bytes", "bytes a trigger", "memory"),
    )
    note = "" if theirs else "not measured"
    return [
        Figure(f"{name}, {where}", unit, ours[key], PEER, theirs and theirs[key], n=1, note=note)
        for key, unit, name in rows
    ]


def _measure(kind: str, counts: tuple[int, ...], *, push: bool = True) -> Found:
    """Measure every N at once, each in a process and on an account of its own; they idle nearly all of the time."""
    with ExitStack() as stack:
        exchange = stack.enter_context(Child("dev.bench.exchange", {"rows": counts, "push": push}))
        ready = exchange.read()
        wishes = [
            {"exchange": {**ready, "accounts": []}, "account": account, "kind": kind, "interval": INTERVAL_S}
            for account in ready["accounts"]
        ]
        held = _held(wishes) if push else {}
        children = [stack.enter_context(Child(CHILD, {**wish, "seconds": WINDOW_S})) for wish in wishes]
        for child in children:
            child.read()
        before, begun = exchange.ask("tally"), time.monotonic()
        for child in children:
            child.tell("go")
        measured = [child.read() for child in children]
        after, minutes = exchange.ask("tally"), (time.monotonic() - begun) / 60
        found: Found = {}
        for wish, child, each in zip(wishes, children, measured, strict=True):
            account = wish["account"]["account"]
            routes = _less(after.get(account, {}), before.get(account, {}))
            found[each["count"]] = {
                "requests": sum(routes.values()) / minutes,
                "credits": sum(PRICES[route] * number for route, number in routes.items()) / minutes,
                "cpu_s": each["cpu_s_per_minute"],
                "bytes": held.get(each["count"], 0) / each["count"],
                "resident": each["resident_bytes"],
                "stall_s": child.read()["stall_s"] or 0.0,
            }
        return found


def _held(wishes: list[dict[str, Any]]) -> dict[int, float]:
    """Return how many bytes are held, by N."""
    with ExitStack() as stack:
        children = [stack.enter_context(Child(CHILD, wish)) for wish in wishes]
        answers = [child.read() for child in children]
        return {answer["count"]: answer["held_bytes"] for answer in answers}


def _less(after: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    return {route: number - before.get(route, 0) for route, number in after.items() if number > before.get(route, 0)}
