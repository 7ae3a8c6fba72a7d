"""To sign and build one withdraw request: ours, the official SDK's way, ccxt's, and libsodium alone as the limit."""

from __future__ import annotations

from tests.bench import peers
from tests.bench.child import Child
from tests.bench.figures import Figure, Goal, Part, median

ROUNDS, CALLS = 15, 1000
RATIO_GOAL = 1.5
PEERS = {
    "libsodium": "libsodium alone (PyNaCl) and the JSON",
    "sdk": "the official Python SDK's way (solders)",
    "ccxt": "ccxt's way",
}


def run() -> Part:
    """Measure in the peers' environment, all in one process and in turn."""
    with Child("tests.bench.signing_child", {"rounds": ROUNDS, "calls": CALLS}, python=peers.python()) as child:
        found = child.read()
    spent = {name: median(values) for name, values in found["microseconds"].items()}
    part = Part(
        notes=[
            f"Sign and build: medians of {ROUNDS} rounds of {CALLS:,} requests in one process, the ways in turn; all "
            "build the same request, which is checked. Versions: " + peers.versions("pynacl", "solders", "ccxt") + "."
        ]
    )
    for key, name in PEERS.items():
        why = found["missing"].get(key, "")
        part.figures.append(
            Figure("sign and build one request", "µs", spent["ours"], name, spent.get(key), ROUNDS, note=why)
        )
    # Round by round: what else the machine does hits both.
    ratios = [
        ours / limit
        for ours, limit in zip(found["microseconds"]["ours"], found["microseconds"]["libsodium"], strict=True)
    ]
    part.goals.append(Goal("sign and build, by libsodium alone and the JSON", "times", RATIO_GOAL, median(ratios)))
    return part
