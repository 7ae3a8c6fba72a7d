"""
In the child, a fresh interpreter in the peers' environment: what importing one module costs beyond ``airflow.sdk``.

Started with ``{"module"}``.
"""

from __future__ import annotations

import importlib
import sys
import time

import psutil

from tests.bench.child import Parent

# What every DAG file has loaded anyway; each by name, so that nothing is left to a lazy import.
BASE = ("BaseHook", "BaseOperator", "BaseOperatorLink", "BaseSensorOperator")


def main() -> None:
    """Import it and tell."""
    parent = Parent()  # before Airflow, which prints while it is imported
    sdk = importlib.import_module("airflow.sdk")
    for name in BASE:
        getattr(sdk, name)
    before, resident = set(sys.modules), psutil.Process().memory_info().rss
    cpu_s, begun = time.process_time(), time.perf_counter()
    importlib.import_module(parent.wish["module"])
    took_s, cpu_s = time.perf_counter() - begun, time.process_time() - cpu_s
    parent.say(
        {
            "ms": took_s * 1000,
            "cpu_ms": cpu_s * 1000,
            "modules": len(set(sys.modules) - before),
            "resident_mb": (psutil.Process().memory_info().rss - resident) / 1e6,
        }
    )


if __name__ == "__main__":
    main()
