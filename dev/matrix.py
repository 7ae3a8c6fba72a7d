"""
The wheel on every Airflow line and Python that this project is for: ``python -m dev.matrix [LINE …]``.

Prints a table of features; exit status 1 if a released Airflow failed in one. The environments are kept.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.lab import processes
from tests.lab.matrix import LINES, Matrix, columns, table

STARTED = time.monotonic()


def main() -> int:
    """Try each environment; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dev.matrix", description=__doc__)
    parser.add_argument("lines", nargs="*", metavar="LINE", help=f"of {', '.join(LINES)}; all unless named")
    options = parser.parse_args()
    if unknown := set(options.lines) - set(LINES):
        parser.error(f"no such line: {', '.join(sorted(unknown))}")
    folder = Path(tempfile.mkdtemp(prefix="pacifica-matrix-"))
    filled = columns(options.lines or LINES)
    try:
        with processes.INTERRUPTIONS:
            matrix = Matrix(folder)
            matrix.prepare()
            for column in filled:
                say(f"Airflow {column.line} on Python {column.python}")
                matrix.fill(column)
                say(f"{column.title}: {'ok' if column.good else 'not there' if column.absent else 'failed'}")
    except processes.Interrupted as interrupted:
        say(f"stopped by {interrupted}; the logs are in {folder}")
        return interrupted.exit_status
    print("\n".join(table(filled)), flush=True)
    failed = any(column.counts and not column.good for column in filled)
    if all(column.good for column in filled):
        shutil.rmtree(folder)
    else:
        say(f"the logs are in {folder}")
    return int(failed)


def say(text: str) -> None:
    """Print progress."""
    print(f"[{time.monotonic() - STARTED:6.1f} s] {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
