"""From settlement at the exchange to the trigger's event: with push, by polling only, and one poll per task."""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from typing import Any

import httpx

from tests.bench.child import Child
from tests.bench.exchange import SYMBOL
from tests.bench.figures import Figure, Goal, Part, median, percentile

PUSHED, POLLED, TOGETHER = 200, 60, 100
# For those that poll; the sooner they do, the sooner they know, so this is no figure of merit.
INTERVAL_S = 10.0
SETTLING_S = 40.0
PEER = "one poll per task"
GOAL_MS = 1000.0
CHILD = "tests.bench.latency_child"
SEED = 20


def run() -> Part:
    """Settle one withdrawal after another, then many at once."""
    alone = _one_by_one()
    together = _together()
    n = {name: len(values) for name, values in alone.items()}
    return Part(
        figures=[
            Figure(f"settlement to event, push, {name}", "ms", of(alone["push"]), PEER, of(alone["peer"]), n["push"])
            for name, of in _PERCENTILES
        ]
        + [
            Figure(
                f"settlement to event, polling only, {name}",
                "ms",
                of(alone["poll"]),
                PEER,
                of(alone["peer"]),
                n["poll"],
            )
            for name, of in _PERCENTILES
        ]
        + [
            Figure(
                f"settlement to event, push, {TOGETHER} in one batch, quota of 100 credits enforced, {name}",
                "ms",
                of(together),
                PEER,
                None,
                len(together),
                note="100 tasks that poll are over the quota",
            )
            for name, of in _PERCENTILES
        ],
        goals=[Goal("settlement to event with push, p99", "ms", GOAL_MS, percentile(alone["push"], 0.99))],
        notes=[
            (
                f"Settlement to event: n = {n['push']} with push, {n['poll']} polling only, {n['peer']} with {PEER}, "
                f"settled one by one at random moments of {SETTLING_S:.0f} s, without a quota. Those that poll do it "
                f"every {INTERVAL_S:.0f} s, which is what decides their figures; the default is 30 s. From the "
                "request that settles to the moment the trigger yields, on one machine."
            ),
        ],
    )


_PERCENTILES = (("p50", median), ("p99", lambda values: percentile(values, 0.99)))


def _one_by_one() -> dict[str, list[float]]:
    """Return the milliseconds by kind."""
    with ExitStack() as stack:
        pushing = stack.enter_context(Child("tests.bench.exchange", {"rows": [PUSHED]}))
        silent = stack.enter_context(Child("tests.bench.exchange", {"rows": [POLLED, POLLED], "push": False}))
        first, second = pushing.read(), silent.read()
        kinds = (("push", first, 0, "ours"), ("poll", second, 0, "ours"), ("peer", second, 1, "peer"))
        children = {name: stack.enter_context(_child(ready, at, kind)) for name, ready, at, kind in kinds}
        for child in children.values():
            child.read()
        todo = [(first, nonce) for nonce in first["accounts"][0]["nonces"]]
        todo += [(second, nonce) for account in second["accounts"] for nonce in account["nonces"]]
        settled_ms = _settle_at_random(todo)
        late: dict[str, list[float]] = {}
        for name, ready, at, _ in kinds:
            nonces = ready["accounts"][at]["nonces"]
            heard = [children[name].read() for _ in nonces]
            late[name] = [each["heard_ms"] - settled_ms[ready["base_url"], nonces[each["number"]]] for each in heard]
        return late


def _together() -> list[float]:
    options = {"shared_batches": True, "enforce_credits": True}
    with ExitStack() as stack:
        exchange = stack.enter_context(Child("tests.bench.exchange", {"rows": [TOGETHER], "options": options}))
        ready = {**exchange.read(), "identified": False}
        child = stack.enter_context(_child(ready, 0, "ours"))
        child.read()
        settled_ms = _settle(ready, ready["accounts"][0]["nonces"][0])
        return [child.read()["heard_ms"] - settled_ms for _ in range(TOGETHER)]


def _child(ready: dict[str, Any], at: int, kind: str) -> Child:
    exchange = {name: value for name, value in ready.items() if name != "accounts"}
    return Child(CHILD, {"exchange": exchange, "account": ready["accounts"][at], "kind": kind, "interval": INTERVAL_S})


def _settle_at_random(todo: list[tuple[dict[str, Any], int]]) -> dict[tuple[str, int], float]:
    """Settle all, and return when each batch of each exchange was, Unix ms."""
    dice = random.Random(SEED)  # noqa: S311 - the same moments in every run, nothing secret
    moments = sorted(dice.uniform(0, SETTLING_S) for _ in todo)
    dice.shuffle(todo)
    begun = time.monotonic()
    settled_ms = {}
    for moment, (ready, nonce) in zip(moments, todo, strict=True):
        time.sleep(max(0.0, begun + moment - time.monotonic()))
        settled_ms[ready["base_url"], nonce] = _settle(ready, nonce)
    return settled_ms


def _settle(ready: dict[str, Any], nonce: int) -> float:
    settled_ms = time.time_ns() / 1e6
    wish = {"symbol": SYMBOL, "batch_nonce": nonce}
    httpx.post(f"{ready['control_url']}/settle", json=wish, trust_env=False).raise_for_status()
    return settled_ms
