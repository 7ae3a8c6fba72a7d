"""``python -m pacifica_provider.case``: the same command where Airflow's own line has no place for it."""

from __future__ import annotations

import argparse
import sys

from pacifica_provider.case.command import run
from pacifica_provider.case.options import OPTIONS


def main() -> int:
    """Read the options and run the command."""
    parser = argparse.ArgumentParser(prog="python -m pacifica_provider.case", description=__doc__)
    for flag, settings in OPTIONS:
        parser.add_argument(flag, **settings)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
