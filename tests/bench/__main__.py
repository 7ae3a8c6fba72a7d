"""Measure, write bench/results.json and the table in docs/performance.md: ``python -m dev.bench [--only NAME ...]``."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.bench import report
from tests.bench.child import ROOT
from tests.lab import processes

# In this order: the first two want a quiet machine, the rest makes noise of its own.
PARTS = ("signing", "imports", "calls", "latency", "waiting", "accounts", "mapped")
RESULTS = ROOT / "bench" / "results.json"
PAGE = ROOT / "docs" / "performance.md"
ABOUT = (
    "Made by `make bench`; every figure was measured beside its peer in the same run. `parts` are replaced one by one "
    "when only some are measured again."
)


def main() -> int:
    """Measure what is asked for, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dev.bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=PARTS, metavar="NAME", help=f"one of {', '.join(PARTS)}")
    wanted = parser.parse_args().only or PARTS
    results: dict[str, Any] = {"about": ABOUT, "parts": {}}
    if set(wanted) != set(PARTS) and RESULTS.exists():
        results["parts"] = json.loads(RESULTS.read_text())["parts"]
    try:
        with processes.INTERRUPTIONS:
            for name in wanted:
                results["parts"][name] = _measured(name)
                _write(results)
    except processes.Interrupted as interrupted:
        return interrupted.exit_status
    print(report.table(results))
    return 0


def _write(results: dict[str, Any]) -> None:
    """Write what there is so far, so that a part that fails takes nothing with it."""
    results["parts"] = {name: results["parts"][name] for name in PARTS if name in results["parts"]}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(report.with_table(PAGE.read_text(), results))


def _measured(name: str) -> dict[str, Any]:
    print(f"bench: {name} ...", file=sys.stderr, flush=True)
    began_at, begun, machine = datetime.now(UTC), time.monotonic(), _machine()
    part: dict[str, Any] = importlib.import_module(f"tests.bench.{name}").run().as_json()
    took_s = round(time.monotonic() - begun, 1)
    print(f"bench: {name} took {took_s:.0f} s", file=sys.stderr, flush=True)
    return {"made_at": f"{began_at:%Y-%m-%d %H:%M} UTC", "took_s": took_s, "machine": machine, **part}


def _machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "load": round(os.getloadavg()[0], 1),  # before this part
        "python": platform.python_version(),
        "airflow": version("apache-airflow-core"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    sys.exit(main())
