"""The command: starts a sandbox, prints one line of JSON, and runs until it is told to stop."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from typing import TYPE_CHECKING

from pacifica_provider.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Sequence


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pacifica_provider.sandbox",
        description="A local stand-in for the Pacifica exchange. Prints one line of JSON when it is ready.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: loopback only)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on (default: any free one)")
    parser.add_argument(
        "--settle-after",
        type=float,
        metavar="SECONDS",
        help="settle each withdrawal after so long (default: only by POST /settle)",
    )
    parser.add_argument("--seed", type=int, help="make the same keys at each start")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sandbox until SIGTERM or SIGINT."""
    wanted = parse(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        sandbox = Sandbox(
            wanted.settle_after, seed=wanted.seed, host=wanted.host, port=wanted.port, enforce_credits=True
        ).start()
    except (ValueError, OSError) as problem:
        sys.stderr.write(f"the sandbox cannot start: {problem}\n")
        return 1
    sys.stdout.write(sandbox.ready_line + "\n")
    sys.stdout.flush()
    stop.wait()
    sandbox.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
