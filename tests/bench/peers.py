"""An environment with the peers: other providers, the official SDK's library, ccxt. Never the project's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from typing import TYPE_CHECKING

from tests.bench.child import ROOT, BenchFailed

if TYPE_CHECKING:
    from pathlib import Path

# `make clean` removes it, as it does every .venv-*.
FOLDER = ROOT / ".venv-bench"
CONSTRAINTS = ROOT / "constraints" / "airflow-3.3.txt"
PROVIDERS = ("http", "airbyte", "dbt-cloud", "databricks")
NEEDED = (
    "apache-airflow",
    "apache-airflow-providers-common-compat",
    *(f"apache-airflow-providers-{name}" for name in PROVIDERS),
    "base58",
    "psutil",
    "pynacl",
    "requests",
    "solders",
)
# Large, with libraries in C of its own: where it cannot be installed, the table says so.
WANTED = ("ccxt",)


@cache
def python() -> Path:
    """Return its interpreter; the first call installs what is missing (half a minute)."""
    interpreter = FOLDER / "bin" / "python"
    if not interpreter.exists():
        _uv("venv", "--python", sys.executable, str(FOLDER))
        (FOLDER / ".gitignore").write_text("*\n")
    install = ("pip", "install", "--python", str(interpreter), "--compile-bytecode", "-c", str(CONSTRAINTS))
    _uv(*install, *NEEDED)
    try:
        _uv(*install, *WANTED)
    except BenchFailed as error:
        print(f"bench: {', '.join(WANTED)} left out: {error}", file=sys.stderr)
    return interpreter


def versions(*names: str) -> str:
    """Return the packages' versions as text."""
    command = ("pip", "list", "--python", str(python()), "--format", "json")
    found = {each["name"]: each["version"] for each in json.loads(_uv(*command))}
    return ", ".join(f"{name} {found.get(name, 'not installed')}" for name in names)


def _uv(*arguments: str) -> str:
    environment = dict(os.environ)
    # uv reads no setting of pip's; an index of one's own has to be handed on.
    if index := environment.get("PIP_INDEX_URL"):
        environment["UV_DEFAULT_INDEX"] = index
    command = [sys.executable, "-m", "uv", "--quiet", "--no-progress", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchFailed(f"uv {arguments[0]}: {done.stderr.strip()[-500:]}")
    return done.stdout
