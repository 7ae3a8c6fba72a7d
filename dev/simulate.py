"""
Run many simulated worlds on every core: ``python -m dev.simulate --worlds 1000000``.

Half of them are mild, half harsh. Prints the totals, the admitted cases apart, and every failing seed with the command
that shows its trace; exit status 1 if any world broke the promise.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from functools import partial
from multiprocessing import Pool

from tests.simulator import Totals, run_worlds, simulate

CHUNK = 250


def main(arguments: list[str] | None = None) -> int:
    """Run as told; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dev.simulate", description=__doc__)
    parser.add_argument("--worlds", type=int, default=20_000, help="how many, both profiles together")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--show", nargs=2, metavar=("PROFILE", "SEED"), help="print the trace of one world instead")
    options = parser.parse_args(arguments)
    if options.show:
        return _show(options.show[0], int(options.show[1]))
    began = time.monotonic()
    failed = False
    with Pool(options.processes) as pool:
        for profile in ("mild", "harsh"):
            last = options.first + (options.worlds + (profile == "mild")) // 2
            chunks = [range(seed, min(seed + CHUNK, last)) for seed in range(options.first, last, CHUNK)]
            totals = Totals()
            for part in pool.imap_unordered(partial(run_worlds, profile=profile), chunks):
                totals.merge(part)
            print(f"\n== {profile} worlds, seeds {options.first} to {last - 1}\n{totals}")
            failed |= bool(totals.failing)
            for name, seed, violation in sorted(totals.failing, key=lambda failing: failing[1]):
                print(f"FAILED {name} {seed}: {violation}\n  python -m dev.simulate --show {name} {seed}")
    verdict = "some worlds broke the promise" if failed else "no world broke the promise"
    print(f"\n{time.monotonic() - began:.0f} s; {verdict}")
    return int(failed)


def _show(profile: str, seed: int) -> int:
    report = simulate(seed, profile, trace=True)
    print("\n".join(report.trace))
    print(f"\nviolations: {list(report.violations)}\nadmitted: {dict(report.admitted)}")
    return int(bool(report.violations))


if __name__ == "__main__":
    sys.exit(main())
