"""The command ``make bench``: see ``tests/bench``."""

from __future__ import annotations

import sys

from tests.bench.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
