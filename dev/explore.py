"""
Run every schedule of a withdrawal with few faults: ``python -m dev.explore --faults 2``.

Prints for every world how many schedules there are, how many steps were run, how many states were recognised, the
admitted edges with their counts, and every violation with the command that tells it; exit status 1 if there is one.
"""

from __future__ import annotations

import argparse
import os
import sys

from tests.explorer import Setting, explore, replay

PLAIN = (
    *(Setting(), Setting(fenced=False), Setting(newborn=True)),
    *(Setting(sweeps=True), Setting(fenced=False, sweeps=True)),
)
TWO = (
    Setting("pair"),
    Setting("pair", fenced=False),
    Setting("mapped"),
    Setting("mapped", fenced=False),
)
WORLDS = {setting.name: setting for setting in (*PLAIN, *TWO)}
_MOST_FOR_TWO = 2


def main(arguments: list[str] | None = None) -> int:
    """Run as told; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dev.explore", description=__doc__)
    parser.add_argument("--faults", type=int, default=2, help="at most so many in a schedule")
    parser.add_argument("--per-step", type=int, help="at most so many of them in one try, or between two")
    parser.add_argument("--world", choices=sorted(WORLDS), action="append", help="only this one; may be repeated")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--minutes", type=float, help="stop each world after so long and say how far it came")
    parser.add_argument("--replay", metavar="CHOICES", help="tell one schedule of --world instead")
    options = parser.parse_args(arguments)
    names = options.world or list(WORLDS)
    if options.replay is not None:
        choices = [int(choice) for choice in options.replay.split(",") if choice]
        print("\n".join(replay(WORLDS[names[0]], options.faults, choices, per_step=options.per_step)))
        return 0
    broken = 0
    for name in names:
        faults = min(options.faults, _MOST_FOR_TWO) if WORLDS[name] in TWO else options.faults
        seconds = None if options.minutes is None else options.minutes * 60
        report = explore(WORLDS[name], faults, per_step=options.per_step, processes=options.processes, seconds=seconds)
        print(report, flush=True)
        for violation, shortest in report.examples.items():
            if violation in report.violations:
                print(f"\n-- {violation}")
                print("\n".join(replay(WORLDS[name], faults, shortest, per_step=options.per_step)), flush=True)
        broken += len(report.violations)
    print("every schedule kept the promise" if not broken else f"{broken} ways to break the promise")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
