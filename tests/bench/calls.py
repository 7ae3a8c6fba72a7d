"""What one withdrawal asks for in fair weather, and how long the protocol takes beside a bare post."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from tests.bench.child import Child
from tests.bench.figures import Figure, Part, median

PAIRS = 100
PEER = "bare post"


def run() -> Part:
    """Withdraw both ways in turn, so that both meet the same load."""
    with ExitStack() as stack:
        exchange = stack.enter_context(Child("tests.bench.exchange", {"rows": [0]}))
        ready = exchange.read()
        wish = {"exchange": ready, "account": ready["accounts"][0], "pairs": PAIRS}
        child = stack.enter_context(Child("tests.bench.calls_child", wish))
        child.read()
        before = _routes(exchange.ask("tally"))
        found = child.read()
        after = _routes(exchange.ask("tally"))
    asked = {route: after.get(route, 0) - before.get(route, 0) for route in after}
    posts = asked.pop("withdraw") - PAIRS  # the bare ones
    gets = sum(asked.values())
    ours, bare = median(found["withdraw"]), median(found["post"])
    store = found["store_calls"]
    figures = [
        Figure("HTTP requests a withdrawal", "requests", (gets + posts) / PAIRS, PEER, 1.0, PAIRS),
        Figure("store calls a withdrawal", "calls", sum(store.values()) / PAIRS, PEER, 0.0, PAIRS),
        Figure("a withdrawal, the store in memory", "ms", ours, PEER, bare, PAIRS),
    ]
    note = (
        f"A withdrawal in fair weather: {posts / PAIRS:g} POST, "
        + ", ".join(f"{number / PAIRS:g} GET {route}" for route, number in asked.items() if number)
        + "; store: "
        + ", ".join(f"{number / PAIRS:g} {name}" for name, number in sorted(store.items()))
        + f". The protocol, its GET included, is {(ours - bare) / ours:.0%} of the time from connection to "
        "receipt; for its share of a task see the tasks in a real Airflow."
    )
    return Part(figures=figures, notes=[note])


def _routes(tally: dict[str, dict[str, int]]) -> dict[str, int]:
    routes: dict[str, Any] = {}
    for each in tally.values():
        for route, number in each.items():
            routes[route] = routes.get(route, 0) + number
    return routes
