"""
Run many simulated worlds on every core: ``python -m dev.simulate --worlds 1000000``.

Half of them are mild, half harsh. Prints the totals, the admitted cases apart, and every failing seed with the command
that shows its trace; exit status 1 if any world broke the promise.

``--untagged`` and ``--tagged`` let every withdrawal be made by the operator, without ``tag_amount`` and with it; both
together run each world both ways. A table then compares what came of the identities.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from functools import partial
from multiprocessing import Pool
from typing import TYPE_CHECKING

from tests.simulator import Totals, run_worlds, simulate, table
from tests.simulator.profiles import PROFILES

if TYPE_CHECKING:
    from multiprocessing.pool import Pool as PoolOfProcesses

CHUNK = 250
_OPTIONS = {None: "", False: " --untagged", True: " --tagged"}
_WORDS = {None: "as drawn", False: "untagged", True: "tagged"}


def main(arguments: list[str] | None = None) -> int:
    """Run as told; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m dev.simulate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worlds", type=int, default=20_000, help="how many, all profiles together")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--profiles", nargs="+", choices=PROFILES, default=["mild", "harsh"])
    parser.add_argument("--untagged", action="store_true", help="every withdrawal by the operator, none tagged")
    parser.add_argument("--tagged", action="store_true", help="every withdrawal by the operator, each one tagged")
    parser.add_argument("--show", nargs=2, metavar=("PROFILE", "SEED"), help="print the trace of one world instead")
    options = parser.parse_args(arguments)
    ways: list[bool | None] = [way for way in (False, True) if (options.untagged, options.tagged)[way]]
    ways = ways or [None]
    if options.show:
        return max(_show(options.show[0], int(options.show[1]), tagged=way) for way in ways)
    began = time.monotonic()
    failed = False
    with Pool(options.processes) as pool:
        for number, profile in enumerate(options.profiles):
            last = options.first + (options.worlds + len(options.profiles) - 1 - number) // len(options.profiles)
            seeds = range(options.first, last)
            measured = {_WORDS[way]: _run(pool, profile, seeds, tagged=way) for way in ways}
            failed |= any(totals.failing for totals in measured.values())
            if ways != [None]:
                print(f"\n{table(profile, measured)}", flush=True)
    verdict = "some worlds broke the promise" if failed else "no world broke the promise"
    print(f"\n{time.monotonic() - began:.0f} s; {verdict}")
    return int(failed)


def _run(pool: PoolOfProcesses, profile: str, seeds: range, *, tagged: bool | None) -> Totals:
    chunks = [seeds[first : first + CHUNK] for first in range(0, len(seeds), CHUNK)]
    totals = Totals()
    for part in pool.imap_unordered(partial(run_worlds, profile=profile, tagged=tagged), chunks):
        totals.merge(part)
    print(f"\n== {profile} worlds, {_WORDS[tagged]}, seeds {seeds.start} to {seeds.stop - 1}\n{totals}", flush=True)
    for name, seed, violation in sorted(totals.failing, key=lambda failing: failing[1]):
        print(f"FAILED {name} {seed}: {violation}\n  python -m dev.simulate --show {name} {seed}{_OPTIONS[tagged]}")
    return totals


def _show(profile: str, seed: int, *, tagged: bool | None) -> int:
    report = simulate(seed, profile, tagged=tagged, trace=True)
    print("\n".join(report.trace))
    print(f"\nviolations: {list(report.violations)}\nadmitted: {dict(report.admitted)}")
    return int(bool(report.violations))


if __name__ == "__main__":
    sys.exit(main())
